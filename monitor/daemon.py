"""The daemon: chunks from every source, through the pipeline, to stored results and alarms."""

import asyncio
import time
from collections import Counter as Counts
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from dataclasses import replace
from typing import Any

import structlog
from prometheus_client import Counter

from alerts.channels.threads import Threads
from alerts.conditions import Change, Observation
from alerts.records import Output
from ingest.chunk import Chunk, Stream
from ingest.rr import RrIntervals
from ingest.source import Source
from monitor.alarms import Alarms
from monitor.analysis import Analyzer
from monitor.clock import now as present
from monitor.handover import PATIENCE_S, attempt, keep, tell
from monitor.metrics import (
    CHUNKS_FAILED,
    CHUNKS_LEFT_TO_BACKLOG,
    CHUNKS_REFUSED,
    RECORDS_LOST,
    RESULTS_REFUSED,
    SOURCE_FAILURES,
    WINDOW_QUEUE,
    WINDOWS_FAILED,
    WINDOWS_SKIPPED,
)
from monitor.pauses import Pauses
from monitor.progress import Progress, Stage
from monitor.quality import Reason
from monitor.results import WindowResult, unread
from monitor.ring import Ring
from monitor.rr import RrRing, RrWindow, is_possible, judge, start_ns
from monitor.storage.records import Record
from monitor.storage.writer import Writer
from monitor.window import NOT_RUNNING, Gap, Window

_log = structlog.get_logger()

# Windows that wait for inference. When it is full a recording waits with its next chunk. A device
# does not wait: the window that has waited longest is stored as skipped instead, since the newest
# say most of whether somebody needs help. Raw segments are never what gives way.
_WINDOWS_WAITING = 512

# Chunks of a live stream that wait to be stored and cut; many minutes. Its source never waits, or
# the heart would not be heard: a further one is given up, unless whoever sent it keeps it until it
# is acknowledged. Of those no more come than a broker sends unacknowledged, of all streams; but
# messages of QoS 0 look the same, so there is an end to them too, beyond what any broker sends.
_CHUNKS_UNDER_WAY = 1024
_MOST_UNDER_WAY = 20_000

# Stored chunks of a live stream that wait in memory until its backlog, of three minutes at most, is
# cut. Beyond it the oldest are left to ``monitor.backlog``, which finds them in the database.
_PARKED = 256

# How often it is logged that chunks are given up.
_TELL_S = 60.0

# A batch shares the fixed cost of one inference; beyond this it gains nothing more.
_BATCH = 8

# While the database is away hearts are watched all the same: after PATIENCE_S a record is left to
# the writer, which keeps it and tries on, and the next step is taken. So many records may wait so;
# beyond that each step waits, and recordings with it. It never comes to that with a spool: the
# writer holds fewer, and gives up the oldest signal where that cannot be written either.
_MOST_UNSTORED = 20_000

# An earlier run heard what it stored, and told of it; an older pause is not of now.
_OLD_PAUSE_NS = 60_000_000_000

# How often to look whether what came before of a recording is read.
_READ_LOOK_S = 0.01

# Between two runs less than this is no time without a watch, only a rounding of time stamps.
_UNWATCHED_NS = 1_000_000_000
_ROUNDING_NS = 1_000_000

# How long sources are waited for at the end: Bluetooth takes a few seconds to say goodbye.
_LET_GO_S = 15.0

_FIRST_RETRY_S = 1.0
_LONGEST_RETRY_S = 60.0


class Daemon:
    """Joins sources, rings, analysis, storage and alarms on one event loop.

    Args:
        sources: where chunks come from.
        writer: the started writer; ``run`` stops it at the end.
        analyzer: what reads windows; it runs on a thread of its own.
        alarms: decides on them and tells, restored to where it stopped.
        length_s: window length, in seconds.
        hop_s: from one window to the next, in seconds.
        ended: UTC ns at which the stored signal of a stream ends; the time from then to its first
            chunk is stored as a gap.
        on_chunk: called with whatever a source gave as soon as it is received, on the event loop,
            before it is stored: what waits for nothing. It must be done within a millisecond.
        on_result: called with every stored result, on the event loop.
        progress: is told what enters and leaves each stage.
    """

    def __init__(
        self,
        sources: Sequence[Source],
        *,
        writer: Writer,
        analyzer: Analyzer,
        alarms: Alarms,
        length_s: float,
        hop_s: float,
        ended: Mapping[Stream, int] | None = None,
        on_chunk: Sequence[Callable[[Chunk | RrIntervals], None]] = (),
        on_result: Sequence[Callable[[WindowResult], None]] = (),
        progress: Progress | None = None,
    ) -> None:
        self._sources = sources
        self._writer = writer
        self._analyzer = analyzer
        self._alarms = alarms
        self._length_s = length_s
        self._hop_s = hop_s
        self._ended = dict(ended or {})
        self._on_chunk = on_chunk
        self._on_result = on_result
        self._progress = progress or Progress()
        self._rings: dict[Stream, Ring] = {}
        self._rr_rings: dict[Stream, RrRing] = {}
        self._windows: asyncio.Queue[Window] = asyncio.Queue(_WINDOWS_WAITING)
        self._taking: set[asyncio.Task[None]] = set()
        self._last_of: dict[Stream, asyncio.Task[None]] = {}
        self._storing: set[asyncio.Task[bool]] = set()
        self._inference = ThreadPoolExecutor(1, thread_name_prefix="inference")
        self._pauses = Pauses(alarms.pause_s)
        self._left: Counts[Stream] = Counts()
        self._caught_up = asyncio.Event()
        self._caught_up_of: dict[Stream, asyncio.Event] = {}
        self._under_way: Counts[Stream] = Counts()
        self._parked: dict[Stream, deque[Chunk | RrIntervals]] = {}
        self._torn: set[Stream] = set()
        self._lost_told_s = -_TELL_S

    async def run(
        self,
        stop: asyncio.Event,
        *,
        backlog: Sequence[Chunk | RrIntervals] = (),
        recent: Sequence[Chunk] = (),
        last: Callable[[], Awaitable[None]] | None = None,
        beside: Callable[[], Coroutine[Any, Any, None]] | None = None,
    ) -> None:
        """Run until every source has ended or ``stop`` is set; then finish what is in flight.

        Args:
            stop: ends the run.
            backlog: chunks that an earlier run stored but whose windows it did not; they are
                analysed first. What ``stop`` cuts off of it is left to the next run.
            recent: chunks that an earlier run stored and on which the signal to come follows; only
                the watch for pauses and ``on_chunk`` hear them, before anything else is done.
            last: awaited when all is analysed, while the writer still writes.
            beside: runs meanwhile, and is cancelled when the run is to end.
        """
        analysis = asyncio.create_task(self._analyze())
        feeding = asyncio.create_task(self._feed(recent, backlog))
        stopping = asyncio.create_task(stop.wait())
        accompanying = None if beside is None else asyncio.create_task(beside())
        finishing: asyncio.Task[None] | None = None
        try:
            await asyncio.wait({stopping, feeding, analysis}, return_when=asyncio.FIRST_COMPLETED)
            feeding.cancel()
            if accompanying is not None:
                accompanying.cancel()
            # A source that does not let go must not keep what was seen from being analysed.
            letting_go = asyncio.gather(feeding, return_exceptions=True)
            _, hanging = await asyncio.wait({letting_go}, timeout=_LET_GO_S)
            if hanging:
                _log.error("a source does not end; going on without it", waited_s=_LET_GO_S)
            # Nobody makes room in the queue once the analysis has ended.
            finishing = asyncio.create_task(self._finish())
            await asyncio.wait({finishing, analysis}, return_when=asyncio.FIRST_COMPLETED)
            if analysis.done():
                await analysis  # it never ends by itself: raise what ended it
            await finishing
            if last is not None:
                await last()
        finally:
            for task in (stopping, feeding, analysis, finishing, accompanying):
                if task is not None:
                    task.cancel()
            self._inference.shutdown(wait=False)
            # The loop's own threads may all hang in a database that gives no answer.
            await Threads("writer stop", limit=1).run(self._writer.stop)
            await asyncio.gather(*self._storing, return_exceptions=True)

    async def _feed(self, recent: Sequence[Chunk], backlog: Sequence[Chunk | RrIntervals]) -> None:
        """Cut what an earlier run left, then take in all sources until they end."""
        self._left.update(chunk.stream for chunk in backlog)
        self._caught_up_of = {stream: asyncio.Event() for stream in self._left}
        for chunk in recent:
            pause = self._hear(chunk)
            if pause is not None and present().utc_ns - pause.end_ns <= _OLD_PAUSE_NS:
                self._paused(chunk.stream, pause)
            await asyncio.sleep(0)  # so that what it raised is told meanwhile
        # Beside each other: an hour of windows that nobody read must keep nobody from being heard.
        await asyncio.gather(
            self._catch_up(backlog), *(self._pump(source) for source in self._sources)
        )

    async def _catch_up(self, backlog: Sequence[Chunk | RrIntervals]) -> None:
        try:
            for chunk in backlog:
                try:
                    await self._whole(self._cut(chunk))
                except Exception:  # noqa: BLE001 - or every start would end at this chunk
                    _log.exception(
                        "chunk failed", stream=str(chunk.stream), start_ns=_start_ns(chunk)
                    )
                self._left[chunk.stream] -= 1
                if not self._left[chunk.stream]:
                    self._caught_up_of[chunk.stream].set()
                    self._resume(chunk.stream)
        finally:
            for caught_up in (self._caught_up, *self._caught_up_of.values()):
                caught_up.set()

    async def _finish(self) -> None:
        """Analyse and store all windows that still wait, those at the ends of runs included.

        A stream whose backlog was cut off has not ended there: a window cut short would stand in
        the place of the one that the next run cuts.
        """
        await asyncio.gather(*self._taking, return_exceptions=True)
        for stream, ring in self._rings.items():
            if not self._left[stream]:
                for window in ring.finish():
                    await self._queue(window, live=False)
        for stream, rr_ring in self._rr_rings.items():
            if not self._left[stream]:
                for rr_window in rr_ring.finish():
                    await self._judge(rr_window)
        await self._windows.join()

    async def _pump(self, source: Source) -> None:
        """Take in all chunks of one source; one that fails is opened again, for ever."""
        delay = _FIRST_RETRY_S
        while True:
            try:
                async with aclosing(source.chunks()) as chunks:  # type: ignore[type-var]
                    async for chunk in chunks:
                        delay = _FIRST_RETRY_S
                        pause = self._hear(chunk)
                        if source.live:
                            if pause is not None:
                                self._paused(chunk.stream, pause)
                            self._beside(chunk)
                            await asyncio.sleep(0)  # however much has come at once
                        else:
                            await self._whole(self._take_in_turn(chunk, pause))
            except Exception:  # noqa: BLE001 - whatever a device or driver does
                SOURCE_FAILURES.labels(source.name).inc()
                _log.exception("source failed", source=source.name, retry_s=delay)
                await asyncio.sleep(delay)
                delay = min(2 * delay, _LONGEST_RETRY_S)
            else:
                _log.info("source ended", source=source.name)
                return

    def _hear(self, chunk: Chunk | RrIntervals) -> Observation | None:
        """Let those hear a chunk who wait for nothing; say whether it shows a pause that lasts.

        Windows would tell of that too late, inference and database perhaps not at all.
        """
        tell(self._on_chunk, chunk)
        return self._pauses.add(chunk) if isinstance(chunk, Chunk) else None

    def _paused(self, stream: Stream, pause: Observation) -> None:
        """Decide on a pause and tell at once."""
        try:
            self._alarms.paused(stream, pause)
        except Exception:  # noqa: BLE001 - it must not end the watch
            WINDOWS_FAILED.inc()
            _log.exception("alarms failed", stream=str(stream), start_ns=pause.start_ns)

    async def _take_in_turn(self, chunk: Chunk | RrIntervals, pause: Observation | None) -> None:
        """Take a chunk of a source that can wait, after what came before is read.

        A recording is heard as fast as it can be stored, far ahead of the windows that are read:
        the alarms of each time are to be those of that time. What stands still is not waited for.
        """
        if pause is not None:
            while (  # noqa: ASYNC110 - what stands still sets no event
                self._progress.waits(Stage.ANALYSIS, chunk.stream)
                and self._progress.stands_still(Stage.ANALYSIS, PATIENCE_S) is None
            ):
                await asyncio.sleep(_READ_LOOK_S)
            self._paused(chunk.stream, pause)
        await self._take(chunk, live=False)

    async def _whole(self, step: Coroutine[Any, Any, None]) -> None:
        """Do a step of one chunk; stopping must not tear one that has begun."""
        await asyncio.shield(self._begin(step))

    def _begin(self, step: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        return keep(self._taking, step)

    def _beside(self, chunk: Chunk | RrIntervals) -> None:
        """Take a chunk beside those of other streams, and after those of its own.

        Waits for nothing, since whoever gives it is to be heard on.
        """
        stream = chunk.stream
        kept = isinstance(chunk, Chunk) and chunk.acknowledge is not None
        kept = kept and len(self._taking) < _MOST_UNDER_WAY
        if self._under_way[stream] >= _CHUNKS_UNDER_WAY and not kept:
            RECORDS_LOST.inc()
            if time.monotonic() - self._lost_told_s >= _TELL_S:
                self._lost_told_s = time.monotonic()
                _log.error("chunks_lost", stream=str(stream), waiting=self._under_way[stream])
            return
        self._under_way[stream] += 1
        self._follow(stream, self._take_live(chunk))

    def _follow(self, stream: Stream, step: Coroutine[Any, Any, None]) -> None:
        """Do a step of a live stream after those that were begun before."""
        self._last_of[stream] = self._begin(_after(self._last_of.get(stream), step))

    async def _take_live(self, chunk: Chunk | RrIntervals) -> None:
        try:
            await self._take(chunk, live=True)
        except Exception:  # noqa: BLE001 - one bad chunk must not end the watch of the others
            _chunk_failed(chunk)
        finally:
            self._under_way[chunk.stream] -= 1

    async def _park(self, chunk: Chunk | RrIntervals) -> None:
        """Keep a stored chunk in mind until what came before it is cut, or leave it for later."""
        stream = chunk.stream
        parked = self._parked.setdefault(stream, deque())
        parked.append(chunk)
        if len(parked) <= _PARKED:
            return
        oldest = parked.popleft()
        CHUNKS_LEFT_TO_BACKLOG.inc()
        if stream not in self._torn:
            self._torn.add(stream)
            _log.warning("chunks_left_to_backlog", stream=str(stream), start_ns=_start_ns(oldest))
        # Those that are kept must not end it: there are samples between.
        if (absence := self._absence(oldest)) is not None:
            await self._record_gap(absence)

    def _resume(self, stream: Stream) -> None:
        """Cut what waited until the backlog of a stream was."""
        if stream in self._parked:
            self._follow(stream, self._cut_parked(stream))

    async def _cut_parked(self, stream: Stream) -> None:
        parked = self._parked.pop(stream, ())
        if stream in self._torn:
            # Rings begun anew see no gap where the samples are stored, and end no window there:
            # one cut short would stand in the place of the one that the background cuts.
            self._torn.discard(stream)
            self._rings.pop(stream, None)
            self._rr_rings.pop(stream, None)
        for chunk in parked:
            try:
                with self._progress.within(Stage.INTAKE, stream):
                    await self._cut(chunk, live=True)
            except Exception:  # noqa: BLE001 - as in _take_live
                _chunk_failed(chunk)

    async def _take(self, chunk: Chunk | RrIntervals, *, live: bool) -> None:
        """Make a chunk durable, then cut it."""
        if isinstance(chunk, RrIntervals) and not is_possible(chunk):
            CHUNKS_REFUSED.inc()
            _log.warning(
                "RR intervals refused",
                stream=str(chunk.stream),
                reason=f"expected intervals over 0 and under 64 s, of {len(chunk.rr_s)}",
            )
            return
        acknowledge = chunk.acknowledge if isinstance(chunk, Chunk) else None
        with self._progress.within(Stage.INTAKE, chunk.stream):
            await self._store(CHUNKS_REFUSED, chunk.stream, chunk, settled=acknowledge)
        if self._left[chunk.stream]:
            if live:
                await self._park(chunk)
                return
            await self._caught_up_of[chunk.stream].wait()
            if self._left[chunk.stream]:
                return  # a stop cut the backlog off; this is a part of the next run's
        await self._cut_parked(chunk.stream)
        with self._progress.within(Stage.INTAKE, chunk.stream):
            await self._cut(chunk, live=live)

    async def _cut(self, chunk: Chunk | RrIntervals, *, live: bool = False) -> None:
        if (absence := self._absence(chunk)) is not None:
            if chunk.stream in self._rings or chunk.stream in self._rr_rings:
                chunk = replace(chunk, gap_cause=NOT_RUNNING)  # the ring tells of it
            else:
                await self._record_gap(absence)
        if isinstance(chunk, RrIntervals):
            await self._cut_rr(chunk)
        else:
            await self._cut_ecg(chunk, live=live)

    def _absence(self, chunk: Chunk | RrIntervals) -> Gap | None:
        """Give the time without a watch that a chunk ends, if it is the first to do so."""
        ended_ns = self._ended.get(chunk.stream)
        # What was stored already, and is cut before it, ends no time without a watch.
        if ended_ns is None or chunk.end_ns <= ended_ns + _ROUNDING_NS:
            return None
        del self._ended[chunk.stream]
        begun_ns = _start_ns(chunk)
        if begun_ns - ended_ns <= _UNWATCHED_NS:
            return None
        return Gap(chunk.stream, ended_ns, begun_ns, NOT_RUNNING)

    async def _cut_ecg(self, chunk: Chunk, *, live: bool) -> None:
        ring = self._rings.get(chunk.stream)
        if ring is None:
            ring = Ring(chunk.stream, length_s=self._length_s, hop_s=self._hop_s)
            self._rings[chunk.stream] = ring
        cut = ring.add(chunk)
        for gap in cut.gaps:
            await self._record_gap(gap)
        for window in cut.windows:
            await self._queue(window, live=live)

    async def _queue(self, window: Window, *, live: bool) -> None:
        while live and self._windows.full():
            await self._skip(self._windows.get_nowait())
        await self._windows.put(window)
        self._progress.enter(Stage.ANALYSIS, window.stream)
        WINDOW_QUEUE.set(self._windows.qsize())

    async def _skip(self, window: Window) -> None:
        """Store a window that nobody has the time to read."""
        try:
            WINDOWS_SKIPPED.inc()
            await self._conclude(unread(window, Reason.SKIPPED))
        finally:
            self._progress.leave(Stage.ANALYSIS, window.stream, skipped=True)
            self._windows.task_done()

    async def _cut_rr(self, packet: RrIntervals) -> None:
        ring = self._rr_rings.get(packet.stream)
        if ring is None:
            ring = RrRing(packet.stream, length_s=self._length_s, hop_s=self._hop_s)
            self._rr_rings[packet.stream] = ring
        cut = ring.add(packet)
        for gap in cut.gaps:
            await self._record_gap(gap)
        for window in cut.windows:
            await self._judge(window)

    async def _judge(self, window: RrWindow) -> None:
        """Say what a window of RR intervals tells: a fraction of a millisecond, so right here."""
        try:
            result = judge(window)
        except Exception:  # noqa: BLE001 - one bad window must not end the watch
            _failed("window failed", window)
        else:
            await self._conclude(result)

    async def _record_gap(self, gap: Gap) -> None:
        seconds = round((gap.end_ns - gap.start_ns) / 1e9, 3)
        _log.warning("gap", stream=str(gap.stream), cause=gap.cause, seconds=seconds)
        await self._store(RESULTS_REFUSED, gap.stream, gap)

    async def _store(
        self,
        refused: Counter,
        stream: Stream,
        *records: Record,
        settled: Callable[[], None] | None = None,
    ) -> None:
        """Make records durable, or leave them to the writer if the database is away.

        Args:
            refused: counts those that the database refuses.
            stream: whose they are.
            records: stored as one.
            settled: called once they are durable, however late, or refused for good.
        """
        self._alarms.storing(records)
        storing = keep(self._storing, attempt(self._writer, refused, records, stream=str(stream)))
        self._progress.enter(Stage.STORAGE, stream)
        storing.add_done_callback(lambda _: self._progress.leave(Stage.STORAGE, stream))
        if settled is not None:
            storing.add_done_callback(
                lambda done: settled() if not done.cancelled() and done.result() else None
            )
        stands_still = self._progress.stands_still(Stage.STORAGE, PATIENCE_S) is not None
        patience_s: float | None = 0.0 if stands_still or not self._writer.healthy else PATIENCE_S
        if len(self._storing) > _MOST_UNSTORED:
            patience_s = None
        await asyncio.wait({storing}, timeout=patience_s)

    async def _analyze(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            batch = [await self._windows.get()]
            while len(batch) < _BATCH and not self._windows.empty():
                batch.append(self._windows.get_nowait())
            results = await loop.run_in_executor(self._inference, self._analyze_batch, batch)
            # Each decides on alarms before it first waits, and so in this order.
            await asyncio.gather(*(self._conclude(result) for result in results))
            for window in batch:
                self._progress.leave(Stage.ANALYSIS, window.stream)
                self._windows.task_done()
            WINDOW_QUEUE.set(self._windows.qsize())

    async def read_beside(self, windows: list[Window]) -> list[WindowResult]:
        """Analyse windows of old signal as soon as no other waits; nothing is told of them.

        Args:
            windows: so few that one of now, which may come meanwhile, can wait for them.
        """
        await self._caught_up.wait()
        await self._windows.join()
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._inference, self._analyze_batch, windows)

    def _analyze_batch(self, batch: list[Window]) -> list[WindowResult]:
        """Analyse on the inference thread; a window that makes it fail fails alone."""
        try:
            return self._analyzer.analyze(batch)
        except Exception:  # noqa: BLE001 - one bad window must not end the watch
            if len(batch) == 1:
                _failed("window failed", batch[0])
                return [unread(batch[0], Reason.FAILED)]
        return [result for window in batch for result in self._analyze_batch([window])]

    def _decide(self, result: WindowResult) -> tuple[list[Change], list[Output]]:
        changes: list[Change] = []
        try:
            changes = self._alarms.window(result)
            return changes, self._alarms.signal(changes)
        except Exception:  # noqa: BLE001 - nor must it end the watch of all the others
            _failed("alarms failed", result)
        return changes, []

    async def _conclude(self, result: WindowResult) -> None:
        """Decide on alarms, store result and changes as one, then tell."""
        changes, outputs = self._decide(result)
        await self._store(RESULTS_REFUSED, result.stream, result, *changes, *outputs)
        # An alarm is told even if it could not be stored: silence would be the worse failure.
        tell(self._on_result, result)
        self._alarms.tell(changes, outputs)


def _start_ns(chunk: Chunk | RrIntervals) -> int:
    return start_ns(chunk) if isinstance(chunk, RrIntervals) else chunk.start_ns


async def _after(before: asyncio.Task[None] | None, step: Coroutine[Any, Any, None]) -> None:
    if before is not None:
        await asyncio.wait({before})
    await step


def _chunk_failed(chunk: Chunk | RrIntervals) -> None:
    """Log the exception that a stored chunk led to, and count it."""
    CHUNKS_FAILED.inc()
    _log.exception("chunk failed", stream=str(chunk.stream), start_ns=_start_ns(chunk))


def _failed(event: str, window: Window | RrWindow | WindowResult) -> None:
    """Log the exception that a window led to, and count it."""
    WINDOWS_FAILED.inc()
    _log.exception(event, stream=str(window.stream), start_ns=window.start_ns)
