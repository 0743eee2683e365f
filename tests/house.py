"""A house for tests: a person with a strap, a service that watches, and two people who are told.

Use it with ``pytest_plugins = ["house"]``: the fixture ``make`` makes one.
"""

import asyncio
import contextlib
import functools
import json
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from notify_servers import Answer, HttpServer, http_server
from notify_servers import Request as HttpRequest
from rhythm_watches import MODEL as RHYTHM_MODEL
from rhythm_watches import ORGANISED, Watches
from watching import MODEL, STREAM, S, new_database, started, until

from alerts.records import Signal
from ingest.chunk import Chunk
from models.bundle import DEFAULT, Bundle, BundleError, find_bundle
from monitor.config import Config
from monitor.quality import Grade, Quality, Reason
from monitor.results import WindowResult
from monitor.rhythms import Rhythms
from monitor.service import serve
from monitor.storage.history import History
from monitor.storage.records import Request
from monitor.window import Window

RULE = {"threshold": 0.6, "off_threshold": 0.4, "k": 3, "n": 4}


class Clock:
    """The time of everything that tells: it goes by itself, and further when asked to."""

    CLOCK_BOOTTIME = time.CLOCK_BOOTTIME

    def __init__(self) -> None:
        self._ahead_ns = 0

    def time_ns(self) -> int:
        return time.time_ns() + self._ahead_ns

    def clock_gettime_ns(self, clock: int) -> int:
        return time.clock_gettime_ns(clock) + self._ahead_ns

    def sleep(self, seconds: float) -> None:
        self._ahead_ns += round(seconds * S)

    def until(self, utc: str) -> None:
        target_ns = int(datetime.fromisoformat(f"{utc}+00:00").timestamp()) * S
        assert target_ns > self.time_ns()
        self._ahead_ns = target_ns - time.time_ns()


# Not "clock": plugins share one name space, and the virtual straps' clock is another.
@pytest.fixture
def house_clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Also makes everything look more often than it has to."""
    made = Clock()
    monkeypatch.setattr("monitor.clock.time", made)
    for place in ("alarms._LOOK_S", "gateway._LOOK_S", "devices._LOOK_S", "outbox._IDLE_S"):
        monkeypatch.setattr(f"monitor.{place}", 0.02)
    return made


class Heart:
    """What the analyzer finds in every window, whatever its samples."""

    def __init__(self) -> None:
        self.af = 0.05
        self.longest_rr_s = 0.9
        self.good = True
        self.fails = False

    def analyze(self, windows: Sequence[Window]) -> list[WindowResult]:
        if self.fails:
            raise ZeroDivisionError("such a model")
        return [self._result(window) for window in windows]

    def _result(self, window: Window) -> WindowResult:
        good = self.good
        return WindowResult(
            stream=window.stream,
            start_ns=window.start_ns,
            duration_s=window.duration_s,
            grade=Grade(Quality.GOOD) if good else Grade(Quality.BAD, (Reason.NOISY,)),
            heart_rate=70.0 if good else None,
            longest_rr_s=self.longest_rr_s if good else None,
            r_peaks_s=np.arange(0.5, window.duration_s, 60 / 70) if good else np.empty(0),
            model=MODEL if good else None,
            probabilities=np.array([self.af, 0.01], np.float32) if good else None,
        )


class Strap:
    """A live source that gives seconds when it is told to."""

    name = "strap"
    live = True

    def __init__(self) -> None:
        self._next_ns = time.time_ns() - 60 * S
        self._chunks: asyncio.Queue[Chunk] = asyncio.Queue()

    async def chunks(self) -> AsyncIterator[Chunk]:
        while True:
            yield await self._chunks.get()

    def send(self, seconds: int, rhythm: float = ORGANISED) -> None:
        samples = rhythm + np.random.default_rng(self._next_ns).normal(0, 50, 100)
        for _ in range(seconds):
            chunk = Chunk(STREAM, self._next_ns, 100.0, samples.astype(np.float32))
            self._chunks.put_nowait(chunk)
            self._next_ns += S


class House:
    """A service that can be stopped and started, with everything around it."""

    def __init__(self, folder: Path, server: HttpServer, clock: Clock, **alarms: Any) -> None:
        self.url = new_database(folder)
        self.server = server
        self.clock = clock
        self.heart, self.strap, self.watches = Heart(), Strap(), Watches()
        self.bundle: Bundle | BundleError = find_bundle(DEFAULT)
        self._begins = True
        self._heard = 0
        self.answers: dict[str, Answer] = {}
        take = server.take

        def answer(request: HttpRequest) -> Answer:
            usual = take(request)
            return self.answers.get(request.path, usual)

        server.take = answer  # type: ignore[method-assign]
        self.configure("bob", "eve", **alarms)

    def configure(self, *people: str, mqtt: Any = None, **alarms: Any) -> None:
        """Who is told, how, and what else."""
        contacts = []
        for name in people:
            url = f"{self.server.url}/{name}"
            channels = [{"type": "webhook", "url": url, "secret": "s3cret"}]
            contacts.append({"name": name, "channels": channels})
        self.config = Config.model_validate(
            {
                "database": self.url,
                "patients": [{"id": "anna", "name": "Anna Example"}],
                "mqtt": mqtt,
                "alarms": {"contacts": contacts} | alarms,
            }
        )

    @contextlib.asynccontextmanager
    async def running(self, *, attended: bool = True) -> AsyncIterator[None]:
        stop, self._begins = asyncio.Event(), True
        task = asyncio.create_task(
            serve(
                self.config,
                [self.strap],
                self.bundle,
                stop=stop,
                attended=attended,
                on_result=[self._hear],
            )
        )
        try:
            yield
            assert not task.done()
        finally:
            stop.set()
            async with asyncio.timeout(30):
                await task

    def _hear(self, _: WindowResult) -> None:
        self._heard += 1

    @property
    def told(self) -> list[tuple[str, str]]:
        """To whom, and what."""
        return [
            (request.path[1:], json.loads(request.body)["data"]["kind"])
            for request in self.server.requests
            if request.method == "POST"
        ]

    @property
    def messages(self) -> list[dict[str, Any]]:
        requests = self.server.requests
        return [json.loads(request.body) for request in requests if request.method == "POST"]

    async def until_told(self, *expected: tuple[str, str]) -> None:
        """Wait for these, in any order; and see that nothing else comes."""
        await until(lambda: len(self.told) >= len(expected), 40)
        await self.quiet()
        assert sorted(self.told) == sorted(expected)

    async def quiet(self) -> None:
        """Let it do whatever it would."""
        await asyncio.sleep(0.25)

    async def see(self, windows: int) -> None:
        """So many windows more, and all that follows from them."""
        with History(self.url) as history:

            def stored() -> int:
                return len(history.readable("anna", -(2**62), 2**63 - 1))

            before, heard = stored(), self._heard
            # The first window of a run takes ten seconds, each further one five.
            self.strap.send(5 * windows + (5 if self._begins else 0))
            self._begins = False
            await until(lambda: stored() == before + windows, 40)
            # Stored is not yet heard of, and the clock may be set forward next.
            await until(lambda: self._heard >= heard + windows, 40)

    @property
    def signals(self) -> list[Signal]:
        with History(self.url) as history:
            return history.signals()

    async def ask(self, what: str, **arguments: Any) -> str:
        """As the command line does."""
        at_ns = self.clock.time_ns()
        writer = started(self.url)
        writer.submit(Request(what, arguments, "eve", at_ns)).result()
        await asyncio.to_thread(writer.stop)
        with History(self.url) as history:
            await until(lambda: history.answer(at_ns, "eve") is not None, 40)
            return str(history.answer(at_ns, "eve"))


def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let nobody wait long for a database that is away."""
    monkeypatch.setattr("monitor.storage.database.BUSY_TIMEOUT_S", 0.05)
    monkeypatch.setattr("monitor.storage.writer._LAST_RETRY_S", 0.1)
    monkeypatch.setattr("monitor.daemon.PATIENCE_S", 0.1)
    monkeypatch.setattr("monitor.alarms.PATIENCE_S", 0.1)


@pytest.fixture
def server() -> Iterator[HttpServer]:
    with http_server() as made:
        yield made


@pytest.fixture
def make(
    tmp_path: Path, server: HttpServer, house_clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> Any:
    """Makes a house in which AF is an alarm of some priority after three of four windows."""

    def house(priority: str = "medium", **alarms: Any) -> House:
        rules = {"AF": RULE | {"priority": priority}}
        monkeypatch.setattr(Bundle, "alarm_rules", property(lambda _: rules))
        made = House(tmp_path, server, house_clock, **alarms)
        monkeypatch.setattr("monitor.service.Analyzer", lambda _runtime: made.heart)
        monkeypatch.setattr("monitor.service.RhythmModel", lambda: RHYTHM_MODEL)
        monkeypatch.setattr(
            "monitor.service.Rhythms", functools.partial(Rhythms, watch=made.watches)
        )
        return made

    return house
