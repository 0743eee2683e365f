"""A sign of life to somebody outside, who misses it when the gateway is gone.

What must be missed is the whole path of a sample: source, loop, inference, database. So the address
is fetched only while windows are read and stored. A window that was read and found to be noise, or
off the skin, counts: whoever looks at it was there, and the device has an alarm of its own. Where
nothing is read at all, nothing is fetched, also if only because nobody wears a strap: nobody is
watched then, and a service outside that should not mind that at night can be told so there.
"""

import asyncio
from collections.abc import Callable

import structlog
from prometheus_client import Counter

from alerts.channels.channel import DeliveryError
from alerts.channels.threads import Threads
from alerts.channels.webhook import cause, hush, in_words
from alerts.gateway import DEAD_MAN
from monitor.clock import steady_s
from monitor.quality import Reason
from monitor.results import WindowResult
from monitor.stopping import pause

_log = structlog.get_logger()

_CONNECT_S = 5.0
_READ_S = 10.0
# A name server that hangs heeds neither.
_PING_S = 20.0

_LOOK_S = 1.0

# A window is due each hop; a batch or two may be late.
_HOPS = 3
_FRESH_S = 60.0

_PINGS = Counter("leadone_dead_man_pings", "Signs of life that got an answer")
_FAILURES = Counter("leadone_dead_man_failures", "Signs of life that did not")

_UNREAD = frozenset({Reason.SKIPPED, Reason.FAILED})


class DeadMan:
    """Fetches an address again and again, while hearts are truly being analysed.

    Args:
        url: of the address; secret.
        every_s: from one time to the next, in seconds.
        hop_s: from one window to the next, in seconds.
        works: whether results can be stored and the model can be used.
        on_channel: told whether the address answers, and why not.
        monotonic_s: a clock that nobody sets, in seconds.
    """

    def __init__(
        self,
        url: str,
        every_s: float,
        *,
        hop_s: float,
        works: Callable[[], bool],
        on_channel: Callable[[str, str | None], None],
        monotonic_s: Callable[[], float] = steady_s,
    ) -> None:
        self._url = url
        self._every_s = every_s
        self._fresh_s = max(_HOPS * hop_s, _FRESH_S)
        self._works = works
        self._on_channel = on_channel
        self._monotonic_s = monotonic_s
        self._threads = Threads(DEAD_MAN)
        self._read_s: float | None = None
        self._wrong: str | None = None
        hush()

    def result(self, result: WindowResult) -> None:
        """Take in a window that is stored, or left to a database that is away."""
        if _UNREAD.isdisjoint(result.grade.reasons):
            self._read_s = self._monotonic_s()

    @property
    def is_analysing(self) -> bool:
        """Whether a window was read lately, and storing and the model work."""
        fresh = self._read_s is not None and self._monotonic_s() - self._read_s < self._fresh_s
        return fresh and self._works()

    async def run(self, stop: asyncio.Event) -> None:
        """Fetch it until ``stop``."""
        last_s: float | None = None
        silent = False
        while not stop.is_set():
            now_s = self._monotonic_s()
            if last_s is None or now_s - last_s >= self._every_s:
                if self.is_analysing:
                    last_s, silent = now_s, False
                    await self._ping()
                elif not silent and last_s is not None:
                    silent = True
                    _log.warning("no sign of life: no window is read and stored")
            await pause(stop, _LOOK_S)

    async def _ping(self) -> None:
        try:
            async with asyncio.timeout(_PING_S):
                await self._threads.run(self._get)
        except TimeoutError:
            wrong: str | None = f"no answer within {_PING_S:g} s"
        except DeliveryError as error:
            wrong = str(error)
        except Exception as error:  # noqa: BLE001 - the next one has its turn
            # Neither text nor trace: the address may be in there.
            wrong = f"it failed by a fault of the program: {type(error).__name__}"
        else:
            wrong = None
        (_PINGS if wrong is None else _FAILURES).inc()
        if wrong != self._wrong:
            if wrong is None:
                _log.info("dead-man's switch answers again")
            else:
                _log.error("dead-man's switch does not answer", reason=wrong)
        self._wrong = wrong
        self._on_channel(DEAD_MAN, wrong)

    def _get(self) -> None:
        import requests  # noqa: PLC0415 - only who has such a switch needs it

        try:
            # As a stream, the body of the answer is not read. A redirect is no answer: a gateway
            # that is shut in by a router's log-in page would take that for one.
            with requests.get(
                self._url,
                headers={"User-Agent": "leadone"},
                timeout=(_CONNECT_S, _READ_S),
                allow_redirects=False,
                stream=True,
            ) as answer:
                status = answer.status_code
        except requests.RequestException as error:
            # Its text has the whole URL.
            raise DeliveryError(f"no connection: {cause(str(error))}") from None
        if 300 <= status < 400:
            raise DeliveryError(
                f"answered {in_words(status)}: give the address that it redirects to"
            )
        if not 200 <= status < 300:
            raise DeliveryError(f"answered {in_words(status)}")
