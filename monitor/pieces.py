"""Cuts stored signal without a verdict into the windows that would have been, piece by piece."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import structlog

from ingest.chunk import Chunk, Stream
from ingest.rr import RrIntervals
from monitor.metrics import CHUNKS_FAILED, WINDOWS_FAILED
from monitor.quality import Grade, Quality, Reason
from monitor.results import WindowResult
from monitor.resume import look_back_ns, on_grid, samples_since
from monitor.ring import Ring
from monitor.rr import SILENCE_NS, RrRing, judge
from monitor.spans import Span, union, within, without
from monitor.storage.unread import LONGEST_CHUNK_NS, SignalHistory, Unread, tolerance_ns
from monitor.window import Gap, Window

_log = structlog.get_logger(__name__)

# So many windows are held at once: a megabyte of a strap's, 30 MB of the longest at 1000 Hz.
_WINDOWS = 128

# From one step of a search to the next; a strap stores 6000 chunks in it.
STEP_NS = 3_600_000_000_000

# How far the beginning of a run is looked for, so that the windows of all its pieces are those that
# would have come; further back they begin anew.
_LONGEST_RUN = 24

# What is no gap but a device whose clock is off.
_LEAST_GAP_NS = 100_000_000


@dataclass(frozen=True, slots=True)
class Piece:
    """What is to be cut at once.

    Attributes:
        stream: whose signal.
        begun_ns: UTC time, in nanoseconds since 1970, at which its first window begins.
        start_ns: from here on there is no window yet; later than ``begun_ns`` by what windows
            overlap, at most.
        end_ns: up to where there is none.
        spans: where between them there are samples.
        rr: whether it is RR intervals without a waveform.
        before: the hole before it, if a run begins with it that another one precedes.
    """

    stream: Stream
    begun_ns: int
    start_ns: int
    end_ns: int
    spans: tuple[Span, ...]
    rr: bool
    before: Span | None


class Cutter:
    """Finds pieces in the history of streams, and cuts them. Blocks.

    Args:
        history: of the database.
        length_s: length of a window, in seconds.
        hop_s: from one window to the next, in seconds.
    """

    def __init__(self, history: SignalHistory, *, length_s: float, hop_s: float) -> None:
        self.history = history
        self._length_s = length_s
        self._hop_s = hop_s
        self._length_ns = round(length_s * 1e9)
        self._hop_ns = round(hop_s * 1e9)
        self._exact_ns = tolerance_ns(length_s)
        # Where the run began that is being read, newest piece first.
        self._origins: dict[tuple[Stream, bool], int] = {}

    def look(self, stream: Stream, since_ns: int, until_ns: int) -> tuple[int, Piece | None]:
        """Look for the newest signal of a stream that has no window, some way back.

        Args:
            stream: whose.
            since_ns: UTC time down to which there may be some, in nanoseconds since 1970.
            until_ns: UTC time up to which there may be some.

        Returns:
            Down to where everything has a window, and what is there to be read then.
        """
        last_ns = self.history.last_sample(stream, until_ns=until_ns)
        if last_ns is None or min(last_ns, until_ns) <= since_ns:
            return since_ns, None
        until_ns = min(last_ns, until_ns)
        from_ns = max(since_ns, until_ns - STEP_NS)
        found = self.history.unread(stream, from_ns, until_ns, length_s=self._length_s)
        if not found:
            return from_ns, None
        newest = found[-1]
        if from_ns > since_ns and newest.start_ns <= from_ns and newest.end_ns < until_ns:
            # Seen whole, or as much of it as a step holds, by the next one.
            return newest.end_ns, None
        return newest.end_ns, self._piece(stream, newest, from_ns)

    def _piece(self, stream: Stream, unread: Unread, from_ns: int) -> Piece:
        origin_ns = self._origin(stream, unread, from_ns)
        earliest_ns = unread.end_ns - _WINDOWS * self._hop_ns
        begun_ns = on_grid(origin_ns, earliest_ns, self._hop_ns)
        start_ns = max(begun_ns, unread.start_ns)
        begins = start_ns == unread.start_ns > from_ns
        return Piece(
            stream,
            begun_ns,
            start_ns,
            unread.end_ns,
            tuple(within(unread.spans, start_ns, unread.end_ns)),
            unread.rr,
            self._hole(stream, start_ns, rr=unread.rr) if begins else None,
        )

    def _hole(self, stream: Stream, start_ns: int, *, rr: bool) -> Span | None:
        """The time without samples before a moment, if there are some before that."""
        if self.history.samples(stream, start_ns - _LEAST_GAP_NS, start_ns, rr=rr):
            return None
        last_ns = self.history.last_sample(stream, until_ns=start_ns)
        return None if last_ns is None or last_ns >= start_ns else (last_ns, start_ns)

    def _origin(self, stream: Stream, unread: Unread, from_ns: int) -> int:
        """Where the first window of a run begins that is to be read."""
        start_ns = unread.start_ns
        known_ns = self._origins.get((stream, unread.rr))
        if start_ns <= from_ns and known_ns is not None and known_ns <= from_ns:
            return known_ns
        for _ in range(_LONGEST_RUN):
            if start_ns > from_ns:
                break
            from_ns -= STEP_NS
            before = [
                other
                for other in self.history.unread(stream, from_ns, start_ns, length_s=self._length_s)
                if other.rr is unread.rr
            ]
            if not before or start_ns - before[-1].end_ns >= self._length_ns:
                break
            start_ns = before[-1].start_ns
        # The next window after the last one begins so much before that one's end.
        overlap_ns = self._length_ns - self._hop_ns
        seen = self.history.samples(stream, start_ns - overlap_ns, start_ns, rr=unread.rr)
        origin_ns = seen[0][0] if seen else start_ns
        self._origins[stream, unread.rr] = origin_ns
        return origin_ns

    def cut(self, piece: Piece) -> tuple[list[Window], list[WindowResult], list[Gap]]:
        """The windows of a piece, verdicts about its RR intervals, and gaps that nobody stored."""
        until_ns = piece.end_ns + self._length_ns
        if piece.rr:
            results, gaps = self._judged(piece, until_ns)
            windows: list[Window] = []
        else:
            windows, gaps = self._windows(piece, until_ns)
            results = []
        if piece.before is not None:
            gaps.insert(0, Gap(piece.stream, *piece.before, "no data"))
        return windows, results, self._unknown(piece, gaps)

    def _windows(self, piece: Piece, until_ns: int) -> tuple[list[Window], list[Gap]]:
        ring = self._ring(piece)
        windows: list[Window] = []
        gaps: list[Gap] = []
        for chunk in self._chunks(piece, until_ns):
            try:
                cut = ring.add(chunk)
            except Exception:  # noqa: BLE001 - or every start would end at this chunk
                CHUNKS_FAILED.inc()
                _log.exception("chunk_failed", stream=str(chunk.stream), start_ns=chunk.start_ns)
                ring = self._ring(piece)
            else:
                windows += [window for window in cut.windows if self._wanted(piece, window)]
                gaps += cut.gaps
        windows += [window for window in ring.finish() if self._wanted(piece, window)]
        return windows, gaps

    def _ring(self, piece: Piece) -> Ring:
        return Ring(piece.stream, length_s=self._length_s, hop_s=self._hop_s)

    def _chunks(self, piece: Piece, until_ns: int) -> Iterable[Chunk]:
        from_ns = piece.begun_ns - LONGEST_CHUNK_NS
        for chunk in self.history.chunks(piece.stream, from_ns, until_ns):
            rest = samples_since(chunk, piece.begun_ns)
            if rest is not None:
                yield rest

    def _judged(self, piece: Piece, until_ns: int) -> tuple[list[WindowResult], list[Gap]]:
        from_ns = piece.begun_ns - look_back_ns(self._length_s, self._hop_s)
        # So far that a run which goes on is not seen to end in this piece.
        packets = self.history.packets(piece.stream, from_ns + 1, until_ns + SILENCE_NS)
        if packets and packets[0].end_ns < piece.begun_ns:
            # Lays the windows over those that are there, as ``monitor.resume`` does.
            packets.insert(0, RrIntervals(piece.stream, from_ns, (), None, None))
        ring = RrRing(piece.stream, length_s=self._length_s, hop_s=self._hop_s)
        windows = []
        gaps: list[Gap] = []
        for packet in packets:
            cut = ring.add(packet)
            windows += cut.windows
            gaps += cut.gaps
        windows += ring.finish()
        results = [judge(window) for window in windows]
        return [result for result in results if self._wanted(piece, result)], gaps

    def _wanted(self, piece: Piece, window: Window | WindowResult) -> bool:
        # Those of RR intervals that begin before were cut for what they look back on.
        return (
            piece.begun_ns - self._exact_ns < window.start_ns < piece.end_ns - self._exact_ns
            and window.end_ns > piece.start_ns + self._exact_ns
        )

    def _unknown(self, piece: Piece, gaps: Sequence[Gap]) -> list[Gap]:
        """Those gaps before and in a piece that are not stored, whatever they are said to be."""
        first_ns = piece.start_ns if piece.before is None else piece.before[0]
        known = union(
            (gap.start_ns, gap.end_ns)
            for gap in self.history.gaps_of(piece.stream, first_ns, piece.end_ns)
        )
        return [
            gap
            for gap in gaps
            if first_ns <= gap.start_ns < gap.end_ns <= piece.end_ns
            and not within(known, gap.start_ns, gap.end_ns)
        ]

    def failed(self, piece: Piece, covered: Iterable[Span]) -> list[WindowResult]:
        """Windows for what could not be cut, so that nobody comes back to it for ever."""
        left = without(piece.spans, union(covered), more_than_ns=self._exact_ns)
        failed = []
        for start_ns, end_ns in union(left, bridge_ns=self._length_ns - 1):
            for at_ns in range(start_ns, end_ns, self._length_ns):
                seconds = min(self._length_ns, end_ns - at_ns) / 1e9
                failed.append(_failed(piece.stream, at_ns, seconds))
        if failed:
            WINDOWS_FAILED.inc(len(failed))
            _log.error(
                "signal_not_cut",
                stream=str(piece.stream),
                start_ns=failed[0].start_ns,
                windows=len(failed),
            )
        return failed


def _failed(stream: Stream, start_ns: int, seconds: float) -> WindowResult:
    grade = Grade(Quality.BAD, (Reason.FAILED,))
    return WindowResult(stream, start_ns, seconds, grade, None, None, np.empty(0), None, None)
