"""Ten seconds of signal to be drawn: of what was stored, or of what has just come."""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np
from numpy.typing import NDArray

from ingest.chunk import Chunk, Stream
from monitor.storage.history import History

STRIP_NS = 10_000_000_000
"""How long a strip is, in nanoseconds."""

# A chunk that reaches into the strip may have begun this long before it.
_LONGEST_CHUNK_NS = 60_000_000_000


@dataclass(frozen=True, slots=True, eq=False)
class Strip:
    """A stretch of signal.

    Attributes:
        start_ns: UTC time of the first sample, in nanoseconds since 1970.
        rate: samples per second, in Hz.
        microvolts: float32 [n], in µV; NaN where there is none.
        r_peaks_s: R peaks of the windows in it, in seconds from the start.
    """

    start_ns: int
    rate: float
    microvolts: NDArray[np.float32]
    r_peaks_s: tuple[float, ...]

    def title(self, name: str) -> list[str]:
        """Who it is of, and when it began, by the clock on the wall."""
        begun = datetime.fromtimestamp(self.start_ns // 1_000_000_000, tz=UTC).astimezone()
        return [f"{name}, lead I", f"{begun:%a %d %b %Y %H:%M:%S}"]


def read_strip(history: History, stream: Stream, start_ns: int, end_ns: int) -> Strip | None:
    """The signal of a stream in ``[start_ns, end_ns)``; None if nothing of it is stored.

    Raises:
        DatabaseError: the database does not answer.
    """
    chunks = [
        chunk
        for chunk in history.segments(stream.patient, start_ns - _LONGEST_CHUNK_NS, end_ns)
        if chunk.stream == stream and chunk.end_ns > start_ns
    ]
    if not chunks:
        return None
    rate, samples = _laid(chunks, start_ns, end_ns)
    peaks: set[float] = set()
    for window in history.windows(stream.patient, start_ns - _LONGEST_CHUNK_NS, end_ns):
        if window.stream == stream:
            offset_s = (window.start_ns - start_ns) / 1e9
            peaks.update(round(offset_s + float(peak), 2) for peak in window.r_peaks_s)
    inside = sorted(peak for peak in peaks if 0 <= peak < (end_ns - start_ns) / 1e9)
    return Strip(start_ns, rate, samples, tuple(_apart(inside)))


class Recent:
    """The last seconds of every stream, in memory: there no database has to be waited for."""

    def __init__(self) -> None:
        self._chunks: dict[Stream, deque[Chunk]] = {}

    def add(self, chunk: Chunk) -> None:
        """Take in samples as they come; what is far from them in time is forgotten."""
        kept = self._chunks.setdefault(chunk.stream, deque())
        kept.append(chunk)
        # From the other side too: the clock may have been set back.
        while kept[0].end_ns < chunk.end_ns - STRIP_NS or kept[0].start_ns > chunk.end_ns:
            kept.popleft()

    def strip(self, stream: Stream, end_ns: int) -> Strip | None:
        """The signal of a stream up to a time; None if there is nothing of it."""
        start_ns = end_ns - STRIP_NS
        chunks = [
            chunk
            for chunk in self._chunks.get(stream, ())
            if chunk.start_ns < end_ns and chunk.end_ns > start_ns
        ]
        if not chunks:
            return None
        return Strip(start_ns, *_laid(chunks, start_ns, end_ns), ())


def _laid(chunks: Sequence[Chunk], start_ns: int, end_ns: int) -> tuple[float, NDArray[np.float32]]:
    """The rate of the last chunk, and the samples of all between two times."""
    rate = chunks[-1].rate
    samples = np.full(round((end_ns - start_ns) / 1e9 * rate), np.nan, np.float32)
    for chunk in chunks:
        first = round((chunk.start_ns - start_ns) / 1e9 * rate)
        kept = chunk.microvolts[max(0, -first) : len(samples) - first]
        if len(kept):
            samples[max(0, first) : max(0, first) + len(kept)] = kept
    return rate, samples


def _apart(peaks: list[float]) -> list[float]:
    """One of each R peak, which overlapping windows find to within a sample or two."""
    kept: list[float] = []
    for peak in peaks:
        if not kept or peak - kept[-1] > 0.15:
            kept.append(peak)
    return kept
