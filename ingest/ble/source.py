"""A chest strap as a source of chunks, or of RR intervals where it sends no ECG."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import structlog

from ingest.ble.counts import EVENTS_DROPPED, FRAMES_REPEATED, SAMPLES_MISSING
from ingest.ble.device import Device
from ingest.ble.events import Battery, Event, Frame, Pulse
from ingest.ble.link import Adapter, Link, Stage, Status, Timing
from ingest.chunk import Chunk, Stream
from ingest.clock import Placed, SensorClock
from ingest.host import STEPPED
from ingest.rr import RrIntervals

_log = structlog.get_logger()

# Ten minutes of an H10, which sends two frames and a pulse a second. Beyond it, with nothing
# downstream taking chunks for so long, the oldest goes first: what comes next may be heart again.
_WAITING = 1800

# A strap with its own contact bit repeats it every second.
_CONTACT_NS = 5_000_000_000


@dataclass(frozen=True, slots=True)
class StrapState:
    """What is known of a strap beside its samples.

    Attributes:
        stream: of the strap.
        status: of its link.
        battery: percent; None until it has said so.
        at_ns: UTC time of the change, in nanoseconds since 1970.
    """

    stream: Stream
    status: Status
    battery: int | None
    at_ns: int


class _Arrival(NamedTuple):
    """When something came in."""

    utc_ns: int
    monotonic_ns: int


class BleSource:
    """Keeps one strap connected and yields what it sends.

    Args:
        stream: whose strap it is.
        address: of the strap.
        device: its model.
        adapter: shared by all sources that use it.
        on_state: called when the state of the link or the battery changes.
        timing: time-outs and pauses of the link.
        now_ns: UTC time, in nanoseconds.
        monotonic_ns: a clock that nobody sets.
    """

    def __init__(
        self,
        stream: Stream,
        address: str,
        device: type[Device],
        adapter: Adapter,
        *,
        on_state: Callable[[StrapState], None],
        timing: Timing | None = None,
        now_ns: Callable[[], int] = time.time_ns,
        monotonic_ns: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        self.name = f"{device.kind} {stream}"
        self.live = True
        self._stream = stream
        self._device = device
        self._on_state = on_state
        self._now_ns = now_ns
        self._monotonic_ns = monotonic_ns
        self._link = Link(address, device, adapter, self._hear, self._note, timing)
        self._heard: asyncio.Queue[tuple[_Arrival, Event | None]] = asyncio.Queue()
        self._status = Status(Stage.WAITING)
        self._battery: int | None = None
        self._contact: tuple[int, bool | None] = (0, None)
        self._heard_ns = 0
        # The strap's clock runs on while the link is away, so that one mapping serves them all.
        self._clock = SensorClock(device.rate) if device.rate else None
        self._cause: str | None = None

    async def chunks(self) -> AsyncIterator[Chunk | RrIntervals]:
        """Yield what the strap sends, for ever; closing it stops the strap and disconnects."""
        link = asyncio.create_task(self._link.run())
        try:
            while True:
                hearing = asyncio.ensure_future(self._heard.get())
                await asyncio.wait({hearing, link}, return_when=asyncio.FIRST_COMPLETED)
                if link.done():
                    hearing.cancel()
                    await link  # it ends by a fault of its own only: raise it
                for made in self._make(*hearing.result()):
                    yield made
        finally:
            link.cancel()
            await asyncio.gather(link, return_exceptions=True)

    def _hear(self, event: Event) -> None:
        if self._heard.qsize() >= _WAITING:
            self._heard.get_nowait()
            EVENTS_DROPPED.labels(self._device.kind).inc()
            _log.error("strap's packet dropped: nothing takes them", source=self.name)
            self._cause = "packets dropped, the gateway is overloaded"
        self._heard.put_nowait((self._arrival(), event))

    def _note(self, status: Status) -> None:
        self._status = status
        if status.trouble is not None:
            self._cause = status.trouble.cause
            self._heard.put_nowait((self._arrival(), None))
        self._tell()

    def _tell(self) -> None:
        self._on_state(StrapState(self._stream, self._status, self._battery, self._now_ns()))

    def _arrival(self) -> _Arrival:
        return _Arrival(self._now_ns(), self._monotonic_ns())

    def _make(self, arrived: _Arrival, event: Event | None) -> Sequence[Chunk | RrIntervals]:
        """What an event leads to; None says that the link is lost."""
        match event:
            case None if self._clock is not None:
                return self._chunks(self._clock.flush())
            case Battery():
                if event.percent != self._battery:
                    self._battery = event.percent
                    self._tell()
            case Pulse():
                self._contact = (arrived.monotonic_ns, event.contact)
                if self._clock is None:
                    cause, self._cause = self._cause, None
                    return [
                        RrIntervals(
                            self._stream,
                            arrived.utc_ns,
                            event.rr_s,
                            event.heart_rate,
                            event.contact,
                            cause,
                        )
                    ]
            case Frame() if self._clock is not None:
                self._heard_ns = arrived.monotonic_ns
                repeats = self._clock.repeats
                placed = self._clock.place(
                    event.microvolts, event.clock_ns, arrived.utc_ns, arrived.monotonic_ns
                )
                FRAMES_REPEATED.labels(self._device.kind).inc(self._clock.repeats - repeats)
                return self._chunks(placed)
        return []

    def _chunks(self, placed: Sequence[Placed]) -> list[Chunk]:
        said_ns, contact = self._contact
        if self._heard_ns - said_ns > _CONTACT_NS:
            contact = None
        return [self._chunk(p, contact) for p in placed]

    def _chunk(self, placed: Placed, contact: bool | None) -> Chunk:
        if placed.anchored is not None:
            _log.info("strap's clock anchored", source=self.name, reason=placed.anchored)
        SAMPLES_MISSING.labels(self._device.kind).inc(placed.missing)
        cause, self._cause = self._cause, None
        if cause is None and placed.missing:
            cause = "packets lost on the air"
        if cause is None and placed.anchored == STEPPED:
            cause = STEPPED
        return Chunk(
            self._stream,
            placed.start_ns,
            placed.rate,
            placed.microvolts,
            contact=contact,
            gap_cause=cause,
        )
