"""Makes up for what was stored and has no verdict, however old, while hearts are watched.

A crash, a stop that did not wait, or a chunk that could not be cut at the time leave signal without
windows. It is looked for by stream, the newest of all first, and given the windows that would have
come. They raise no alarm: what is over is not told as if it were now. What directly precedes the
present is none of this; ``monitor.resume`` brings it back in its order.

Windows of now come first: old ones go to the inference thread a few at a time, and only when none
waits. Between steps there is a rest, so that a small machine stays quiet. How far a stream was
looked through is stored, so that no start begins with all that was ever recorded.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import partial

import structlog

from alerts.channels.threads import Threads
from ingest.chunk import Stream
from monitor.clock import AHEAD_NS
from monitor.handover import attempt
from monitor.metrics import BACKLOG, BACKLOG_WINDOWS, RESULTS_REFUSED
from monitor.pieces import Cutter, Piece
from monitor.results import WindowResult
from monitor.spans import Span
from monitor.storage.database import DatabaseError
from monitor.storage.records import Examined, NoGap, Record
from monitor.storage.unread import SignalHistory
from monitor.storage.writer import Writer
from monitor.window import NOT_RUNNING, Gap, Window

_log = structlog.get_logger(__name__)

# A window of now waits for so many old ones at most: a tenth of a second, half a one on a small
# machine.
_BATCH = 4

# Devices may send what they had kept a day later; what is older than where the last look began is
# taken to be complete.
_DAY_NS = 86_400_000_000_000

# While the daemon runs: it is looked again whether all has a verdict, of what is so old that the
# windows which are on their way have come; and twice, so far apart, to be sure of that.
_EVERY_S = 3600.0
_SETTLED_NS = 600_000_000_000
_CONFIRM_S = 60.0

_RETRY_S = 30.0

# After a step of the search nothing is done for several times as long as it took.
_REST = 4
_LEAST_REST_S = 0.02
_MOST_REST_S = 2.0

# So many steps without a find are forgotten by a crash, at most.
_REMEMBERED = 24

# Shorter than this a time between two runs is none without a watch, as in ``monitor.daemon``.
_LEAST_GAP_NS = 1_000_000_000


@dataclass(slots=True)
class Search:
    """How far a stream is looked through, newest first.

    Attributes:
        known: what an earlier search stored.
        until_ns: UTC time, in nanoseconds since 1970, at which this one begins.
        ranges: what is to be looked through, newest first, those that are done taken out.
        ahead: whether ``known`` is of a time that has not come: a clock was wrong then, or is now,
            and nobody knows which.
        steps: how many there were.
        read_ns: where the piece began that was read last.
    """

    known: Examined
    until_ns: int
    ranges: list[Span]
    ahead: bool
    steps: int = 0
    read_ns: int | None = None

    @classmethod
    def of(cls, known: Examined, first_ns: int, until_ns: int, now_ns: int) -> "Search":
        """Begin a search.

        Args:
            known: what an earlier search stored.
            first_ns: UTC time of the stream's first sample, in nanoseconds since 1970.
            until_ns: UTC time at which the search begins.
            now_ns: UTC time.
        """
        soon_ns = now_ns + AHEAD_NS
        clear_ns, low_ns, high_ns = known.clear_ns, known.low_ns, known.high_ns
        ahead = clear_ns is not None and clear_ns > soon_ns
        bottom_ns = first_ns
        if clear_ns is not None and not ahead:
            bottom_ns = max(first_ns, clear_ns - _DAY_NS)
        ranges = [(bottom_ns, until_ns)]
        if low_ns is not None and high_ns is not None and bottom_ns < high_ns <= soon_ns:
            again_ns = max(bottom_ns, high_ns - _DAY_NS)
            ranges = [(again_ns, until_ns), (bottom_ns, min(low_ns, again_ns))]
        ranges = [(since, until) for since, until in ranges if since < until]
        return cls(known, until_ns, ranges, ahead)

    @property
    def left_ns(self) -> int:
        """How much time is still to be looked through, in nanoseconds."""
        return sum(until - since for since, until in self.ranges)

    def reached(self, at_ns: int) -> Examined | None:
        """Note that all down to a moment has a verdict; what is to be stored of that, if anything.

        A range that is done is taken out.
        """
        since_ns, _ = self.ranges[0]
        known = self.known
        if at_ns > since_ns:
            self.ranges[0] = since_ns, at_ns
            if len(self.ranges) > 1:
                return None
            return Examined(known.stream, known.clear_ns, at_ns, self.until_ns)
        del self.ranges[0]
        if self.ranges:
            return Examined(known.stream, known.clear_ns, known.low_ns, self.until_ns)
        if self.ahead:
            return Examined(known.stream, known.clear_ns, since_ns, self.until_ns)
        return Examined(known.stream, max(known.clear_ns or self.until_ns, self.until_ns))


class Backlog:
    """Finds and reads what has no verdict, for as long as the daemon runs.

    Args:
        database: its URL.
        writer: the started writer.
        analyze: reads windows of ECG when nothing else is to be read.
        length_s: length of a window, in seconds.
        hop_s: from one window to the next, in seconds.
        until: UTC ns of each stream from which on the watch itself takes care of its signal.
    """

    def __init__(
        self,
        database: str,
        writer: Writer,
        analyze: Callable[[list[Window]], Awaitable[list[WindowResult]]],
        *,
        length_s: float,
        hop_s: float,
        until: Mapping[Stream, int],
    ) -> None:
        self._database = database
        self._writer = writer
        self._analyze = analyze
        self._length_s = length_s
        self._hop_s = hop_s
        self._until = dict(until)
        # Not the loop's own threads: those are waited for at the end, however long they hang.
        self._threads = Threads("backlog", limit=1)
        self._made = 0

    async def run(self) -> None:
        """Look through everything, then again every few hours; until it is cancelled."""
        first, away = True, False
        while True:
            try:
                await self._pass(first=first)
            except DatabaseError as error:
                if not away:
                    _log.warning("backlog_waits", reason=str(error), retry_s=_RETRY_S)
                away = True
                await asyncio.sleep(_RETRY_S)
                continue
            except Exception:  # noqa: BLE001 - the watch goes on without it
                _log.exception("backlog_failed", retry_s=_EVERY_S)
            first = away = False
            await asyncio.sleep(_EVERY_S)

    async def _pass(self, *, first: bool) -> None:
        """Look through all streams once, the newest signal first."""
        begun = time.monotonic()
        history = await self._threads.run(lambda: SignalHistory(self._database))
        with history:
            cutter = Cutter(history, length_s=self._length_s, hop_s=self._hop_s)
            now_ns = time.time_ns()
            searches = await self._threads.run(lambda: self._searches(history, now_ns, first=first))
            if first:
                span_s = round(sum(search.left_ns for search in searches) / 1e9)
                _log.info("backlog_begun", streams=len(searches), seconds=span_s)
            self._made = 0
            searches = [search for search in searches if search.ranges]
            for search in searches:
                await self._mend_gaps(history, search)
            while searches := [search for search in searches if search.ranges]:
                BACKLOG.set(sum(search.left_ns for search in searches) / 1e9)
                await self._step(cutter, max(searches, key=_newest), first=first)
            BACKLOG.set(0)
        if first or self._made:
            took_s = round(time.monotonic() - begun, 1)
            _log.info("backlog_done", windows=self._made, seconds=took_s)

    def _searches(self, history: SignalHistory, now_ns: int, *, first: bool) -> list[Search]:
        until = dict(self._until)
        if not first:
            until = dict.fromkeys(history.streams(), now_ns - _SETTLED_NS)
        searches = []
        for stream, until_ns in until.items():
            first_ns = history.first_sample(stream)
            last_ns = history.last_sample(stream, until_ns=until_ns)
            if first_ns is not None and last_ns is not None:
                until_ns = min(last_ns, until_ns)  # noqa: PLW2901 - as far as there is anything
                known = history.examined(stream)
                searches.append(Search.of(known, first_ns, until_ns, now_ns))
        return searches

    async def _mend_gaps(self, history: SignalHistory, search: Search) -> None:
        """Take back that leadone was not running when it was: there are samples of that time."""
        stream = search.known.stream
        since_ns, until_ns = search.ranges[-1][0], search.ranges[0][1]
        gaps = await self._threads.run(lambda: history.gaps_of(stream, since_ns, until_ns))
        for gap in gaps:
            if gap.cause != NOT_RUNNING:
                continue
            look = partial(history.left_of, gap, least_ns=_LEAST_GAP_NS)
            left = await self._threads.run(look)
            if left != [(gap.start_ns, gap.end_ns)]:
                _log.info("gap_mended", stream=str(stream), start_ns=gap.start_ns, left=len(left))
                await self._store(stream, NoGap(gap), *(Gap(stream, *s, gap.cause) for s in left))

    async def _step(self, cutter: Cutter, search: Search, *, first: bool) -> None:
        """Look some way back in one stream, and read a piece of what is found."""
        stream = search.known.stream
        since_ns, until_ns = search.ranges[0]
        begun = time.monotonic()

        def look() -> tuple[int, Piece | None]:
            return cutter.look(stream, since_ns, until_ns)

        at_ns, piece = await self._threads.run(look)
        if piece is not None and not first and piece.end_ns != search.read_ns:
            # Windows may be on their way, of what a device sends late; or of another process.
            at_ns, seen = piece.start_ns, piece
            await asyncio.sleep(_CONFIRM_S)
            _, piece = await self._threads.run(look)
            if piece is not None and piece.start_ns != seen.start_ns:
                piece = None  # they come
        await _rest(begun)
        if piece is not None:
            await self._read(cutter, piece)
            at_ns = search.read_ns = piece.start_ns
        position = search.reached(at_ns)
        search.steps += 1
        due = piece is not None or not search.ranges or search.steps % _REMEMBERED == 0
        if due and position not in (None, search.known):
            await self._store(stream, position)

    async def _read(self, cutter: Cutter, piece: Piece) -> None:
        """Give a piece its windows."""
        windows: list[Window] = []
        results: list[WindowResult] = []
        gaps: list[Gap] = []
        try:
            windows, results, gaps = await self._threads.run(lambda: cutter.cut(piece))
        except DatabaseError:
            raise
        except Exception:  # noqa: BLE001 - it is told below that nothing could be read
            _log.exception("piece_failed", stream=str(piece.stream), start_ns=piece.start_ns)
        covered = [(result.start_ns, result.end_ns) for result in results]
        await self._store(piece.stream, *gaps, *results)
        for at in range(0, len(windows), _BATCH):
            begun = time.monotonic()
            read = await self._analyze(windows[at : at + _BATCH])
            covered += [(result.start_ns, result.end_ns) for result in read]
            results += read
            await self._store(piece.stream, *read)
            await asyncio.sleep(min(time.monotonic() - begun, _MOST_REST_S))
        failed = cutter.failed(piece, covered)
        await self._store(piece.stream, *failed)
        self._made += len(results) + len(failed)
        BACKLOG_WINDOWS.inc(len(results) + len(failed))

    async def _store(self, stream: Stream, *records: Record) -> None:
        if records:
            await attempt(self._writer, RESULTS_REFUSED, records, stream=str(stream))


def _newest(search: Search) -> int:
    return search.ranges[0][1]


async def _rest(begun: float) -> None:
    took_s = time.monotonic() - begun
    await asyncio.sleep(max(_LEAST_REST_S, min(_REST * took_s, _MOST_REST_S)))
