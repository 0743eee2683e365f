"""Ten seconds of what was stored, to be drawn."""

from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np
from numpy.typing import NDArray

from ingest.chunk import Stream
from monitor.storage.history import History

# A chunk that reaches into the strip may have begun this long before it.
_LONGEST_CHUNK_NS = 60_000_000_000


@dataclass(frozen=True, slots=True, eq=False)
class StoredStrip:
    """A stretch of signal.

    Attributes:
        start_ns: UTC time of the first sample, in nanoseconds since 1970.
        rate: samples per second, in Hz.
        microvolts: float32 [n], in µV; NaN where nothing is stored.
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


def read_strip(history: History, stream: Stream, start_ns: int, end_ns: int) -> StoredStrip | None:
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
    rate = chunks[-1].rate
    samples = np.full(round((end_ns - start_ns) / 1e9 * rate), np.nan, np.float32)
    for chunk in chunks:
        first = round((chunk.start_ns - start_ns) / 1e9 * rate)
        kept = chunk.microvolts[max(0, -first) : len(samples) - first]
        if len(kept):
            samples[max(0, first) : max(0, first) + len(kept)] = kept
    peaks: set[float] = set()
    for window in history.windows(stream.patient, start_ns - _LONGEST_CHUNK_NS, end_ns):
        if window.stream == stream:
            offset_s = (window.start_ns - start_ns) / 1e9
            peaks.update(round(offset_s + float(peak), 2) for peak in window.r_peaks_s)
    inside = sorted(peak for peak in peaks if 0 <= peak < (end_ns - start_ns) / 1e9)
    return StoredStrip(start_ns, rate, samples, tuple(_apart(inside)))


def _apart(peaks: list[float]) -> list[float]:
    """One of each R peak, which overlapping windows find to within a sample or two."""
    kept: list[float] = []
    for peak in peaks:
        if not kept or peak - kept[-1] > 0.15:
            kept.append(peak)
    return kept
