"""Puts right what was stored by the gateway's clock while that was wrong.

Straps are timed by the gateway, and a gateway without a clock of its own wakes up in the past. So
until the kernel says that its clock was set right it is kept which rows this run has stored; when
the clock is then set, they are moved by as much, in one transaction. Rows of earlier runs, which
may lie among them, are not touched; nor is what has the time of its device.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import structlog

from alerts.conditions import Change, State
from alerts.gateway import is_gateways
from alerts.technical import Moment, is_technical
from ingest.chunk import Chunk, Stream
from ingest.rr import RrIntervals
from monitor.clock import now as present
from monitor.clock import synchronised as asked_of_kernel
from monitor.handover import attempt
from monitor.metrics import CLOCK_UNMENDED, RESULTS_REFUSED
from monitor.results import WindowResult
from monitor.rr import start_ns
from monitor.stopping import pause
from monitor.storage.records import ClockMended, Record
from monitor.storage.writer import Writer
from monitor.window import NOT_RUNNING, Gap

_log = structlog.get_logger()

_LOOK_S: Final = 1.0

# Less is no clock that was wrong but one that was set right to the second.
_STEP_NS: Final = 60_000_000_000

# What had its time by the old clock is stored by then: a link holds samples for seconds, and
# windows wait for inference.
_SETTLED_NS: Final = 60_000_000_000

# Rows that are kept in mind: a day of one strap.
_MOST_ROWS: Final = 200_000

# A gap shorter than this is none but a rounding of time stamps.
_GAP_NS: Final = 1_000_000_000

# What two times of the same sample may differ by.
_ROUNDING_NS: Final = 2_000_000

# The last packets of a stream among which a gap ends.
_PACKETS: Final = 1024


@dataclass(slots=True)
class _Rows:
    """Which rows were stored, by their keys; times in UTC nanoseconds by one setting of the clock.

    Attributes:
        segments: stream and start.
        rr_intervals: stream and end.
        windows: stream and start.
        gaps: as stored, and whether the clock was set within it.
        changes: of alarms: the alarm's id, time and state, and whether the alarm was raised by it.
    """

    segments: list[tuple[Stream, int]] = field(default_factory=list)
    rr_intervals: list[tuple[Stream, int]] = field(default_factory=list)
    windows: list[tuple[Stream, int]] = field(default_factory=list)
    gaps: list[tuple[Gap, bool]] = field(default_factory=list)
    changes: list[tuple[str, int, State, bool]] = field(default_factory=list)

    def __len__(self) -> int:
        of_streams = len(self.segments) + len(self.rr_intervals) + len(self.windows)
        return of_streams + len(self.gaps) + len(self.changes)

    def add(self, record: Record, *, within: bool) -> None:
        """Keep in mind which row a record becomes.

        Args:
            record: as it is stored.
            within: whether it is a gap within which the clock was set.
        """
        match record:
            case Chunk():
                self.segments.append((record.stream, record.start_ns))
            case RrIntervals():
                self.rr_intervals.append((record.stream, record.end_ns))
            case WindowResult():
                self.windows.append((record.stream, record.start_ns))
            case Gap():
                self.gaps.append((record, within))
            case Change():
                raised = record.at_ns == record.alarm.raised_ns
                self.changes.append((record.alarm.id, record.at_ns, record.state, raised))

    def extend(self, other: "_Rows") -> None:
        """Keep in mind those of another one as well."""
        self.segments += other.segments
        self.rr_intervals += other.rr_intervals
        self.windows += other.windows
        self.gaps += other.gaps
        self.changes += other.changes

    def moved(self, by_ns: int, gaps: Iterable[Gap]) -> "_Rows":
        """The keys that they have once they are moved."""
        return _Rows(
            [(stream, at_ns + by_ns) for stream, at_ns in self.segments],
            [(stream, at_ns + by_ns) for stream, at_ns in self.rr_intervals],
            [(stream, at_ns + by_ns) for stream, at_ns in self.windows],
            [(gap, False) for gap in gaps],
            [(id_, at_ns + by_ns, state, raised) for id_, at_ns, state, raised in self.changes],
        )


class _Live:
    """What this run has stored of a stream: earlier runs' signal is analysed beside it.

    Args:
        ended_ns: when what an earlier run stored ends; None if there is nothing.
    """

    def __init__(self, ended_ns: int | None) -> None:
        self.ended_ns = ended_ns
        self._first_ns: int | None = None
        self._starts: deque[int] = deque(maxlen=_PACKETS)
        self._windows = False

    def packet(self, start_ns: int) -> None:
        """Take in where a packet starts."""
        if self._first_ns is None:
            self._first_ns = start_ns
        self._starts.append(start_ns)

    def has_gap(self, gap: Gap) -> bool:
        """Whether a gap was found before one of these packets."""
        return any(abs(gap.end_ns - start_ns) < _ROUNDING_NS for start_ns in self._starts)

    def has_window(self, start_ns: int) -> bool:
        """Whether a window was cut from these packets; to be asked of each, in their order.

        Where earlier signal lies at the same times, the ring begins anew with these, and so does
        the first window; what comes before that is of the earlier signal.
        """
        if self._first_ns is None:
            return False
        if not self._windows:
            after_ns = start_ns - self._first_ns
            among = self.ended_ns is not None and self.ended_ns > self._first_ns
            self._windows = abs(after_ns) < _ROUNDING_NS or (after_ns > 0 and not among)
        return self._windows

    def is_not_running(self, gap: Gap) -> bool:
        """Whether it is the time from the earlier signal to this."""
        return self.ended_ns is not None and abs(gap.start_ns - self.ended_ns) < _ROUNDING_NS


class ClockMender:
    """Keeps in mind what is stored by a clock that may be wrong, and moves it.

    Args:
        streams: those that are timed by the gateway's clock.
        ended: UTC ns at which what earlier runs have stored of a stream ends.
        writer: the started writer.
        synchronised: whether something that knows the time has set the clock.
        now: the time.
    """

    def __init__(
        self,
        streams: Collection[Stream],
        ended: Mapping[Stream, int],
        writer: Writer,
        *,
        synchronised: Callable[[], bool] = asked_of_kernel,
        now: Callable[[], Moment] = present,
    ) -> None:
        self._live = {stream: _Live(ended.get(stream)) for stream in streams}
        self._writer = writer
        self._synchronised = synchronised
        self._now = now
        begun = now()
        self._ahead_ns = begun.utc_ns - begun.steady_ns
        self._right = synchronised()
        # Whose alarms may have the time of another device.
        self._mixed: set[str] = set()
        self._rows = _Rows()
        self._full = False
        # By the clock as it was before it was set, and when and by how much that was.
        self._old = _Rows()
        self._step: tuple[int, int] | None = None
        self._mended: list[ClockMended] = []

    def note(self, records: Iterable[Record]) -> None:
        """Take in what is about to be stored; to be called on the event loop, in that order."""
        if self._right:
            return
        now = self._look_at_clock()
        for record in records:
            at_ns = self._timed(record, now)
            if at_ns is None:
                continue
            if len(self._rows) + len(self._old) >= _MOST_ROWS:
                if not self._full:
                    self._full = True
                    _log.warning("clock_mend_full", rows=_MOST_ROWS)
                CLOCK_UNMENDED.inc()
                continue
            old = self._is_old(at_ns, now)
            within = isinstance(record, Gap) and old and not self._is_old(record.end_ns, now)
            (self._old if old else self._rows).add(record, within=within)

    def _timed(self, record: Record, now: Moment) -> int | None:
        """The time of a record, if the gateway's clock gave it: for a stretch, of its end."""
        match record:
            case Chunk() | RrIntervals() if record.stream in self._live:
                begun_ns = record.start_ns if isinstance(record, Chunk) else start_ns(record)
                self._live[record.stream].packet(begun_ns)
                return record.end_ns
            case Chunk() | RrIntervals():
                self._mixed.add(record.stream.patient)
            case WindowResult() if record.stream in self._live:
                ours = self._live[record.stream].has_window(record.start_ns)
                return record.end_ns if ours else None
            case Gap() if record.stream in self._live:
                live = self._live[record.stream]
                if not live.has_gap(record):
                    return None
                # One of a step begins before it, and ends behind it.
                return record.end_ns if live.is_not_running(record) else record.start_ns
            case Change():
                alarm = record.alarm
                by_gateway = is_gateways(alarm) or is_technical(alarm)
                near = abs(record.at_ns - now.utc_ns) < _STEP_NS
                if by_gateway or near or alarm.patient not in self._mixed:
                    return record.at_ns
        return None

    def _is_old(self, at_ns: int, now: Moment) -> bool:
        """Whether a time is by the clock as it was before it was set just now."""
        if self._step is None:
            return False
        old_ns = now.utc_ns - self._step[1]
        return abs(at_ns - old_ns) < abs(at_ns - now.utc_ns)

    def _look_at_clock(self) -> Moment:
        now = self._now()
        ahead_ns = now.utc_ns - now.steady_ns
        by_ns, self._ahead_ns = ahead_ns - self._ahead_ns, ahead_ns
        if abs(by_ns) > _STEP_NS:
            self._settle()
            self._old, self._rows = self._rows, _Rows()
            self._step = now.steady_ns, by_ns
        return now

    def look(self) -> list[ClockMended]:
        """Look whether the clock was set; give what is to be stored as one, most often nothing."""
        if self._right:
            return []
        now = self._look_at_clock()
        if self._step is not None and now.steady_ns - self._step[0] >= _SETTLED_NS:
            self._settle()
        if self._step is None and self._synchronised():
            self._right = True
            self._rows = _Rows()
        mended, self._mended = self._mended, []
        return mended

    def _settle(self) -> None:
        """Have moved what was stored by the clock as it was."""
        if self._step is None:
            return
        (_, by_ns), self._step = self._step, None
        old, self._old = self._old, _Rows()
        gaps: list[tuple[Gap | None, Gap | None]] = [
            (gap, self._gap(gap, within, by_ns)) for gap, within in old.gaps
        ]
        gaps += self._not_running(old, by_ns)
        self._mended.append(
            ClockMended(
                by_ns,
                tuple(old.segments),
                tuple(old.rr_intervals),
                tuple(old.windows),
                tuple(gaps),
                tuple(old.changes),
            )
        )
        self._rows.extend(old.moved(by_ns, [gap for _, gap in gaps if gap is not None]))

    def _gap(self, gap: Gap, within: bool, by_ns: int) -> Gap | None:
        """What a gap truly was; None where there was none, as where the clock was set."""
        start_ns, end_ns = gap.start_ns + by_ns, gap.end_ns + by_ns
        if self._live[gap.stream].is_not_running(gap):
            end_ns = gap.end_ns if within else end_ns
            if end_ns - gap.start_ns < _GAP_NS:
                return None
            return Gap(gap.stream, gap.start_ns, end_ns, NOT_RUNNING)
        if within:
            if gap.end_ns - start_ns < _GAP_NS:
                return None
            return Gap(gap.stream, start_ns, gap.end_ns, "no data")
        return Gap(gap.stream, start_ns, end_ns, gap.cause) if end_ns > start_ns else None

    def _not_running(self, old: _Rows, by_ns: int) -> list[tuple[None, Gap]]:
        """The time before this run, which a clock that was behind did not show."""
        first: dict[Stream, int] = {}
        for stream, at_ns in (*old.segments, *old.rr_intervals):
            first.setdefault(stream, at_ns + by_ns)
        for gap, _ in old.gaps:
            if self._live[gap.stream].is_not_running(gap):
                first.pop(gap.stream, None)
        found: list[tuple[None, Gap]] = []
        for stream, first_ns in first.items():
            ended_ns = self._live[stream].ended_ns
            if ended_ns is not None and first_ns - ended_ns > _GAP_NS:
                found.append((None, Gap(stream, ended_ns, first_ns, NOT_RUNNING)))
        return found

    async def run(self, stop: asyncio.Event) -> None:
        """Look until ``stop``; what is left then is moved as well."""
        while not stop.is_set():
            try:
                await self._store(self.look())
            except Exception:  # noqa: BLE001 - nobody must go unwatched for wrong times
                _log.exception("clock_not_mended")
            await pause(stop, _LOOK_S)
        self._settle()
        await self._store(self.look())

    async def _store(self, mended: Sequence[ClockMended]) -> None:
        if not mended:
            return
        rows = sum(len(each) for each in mended)
        done = await attempt(self._writer, RESULTS_REFUSED, mended)
        seconds = sum(each.by_ns for each in mended) / 1e9
        _log.warning("clock_mended", by_s=round(seconds, 1), rows=rows, stored=done)
