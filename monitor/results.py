"""What the pipeline says of one window; the row that is stored."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ingest.chunk import Stream
from monitor.quality import Grade, Quality, Reason
from monitor.window import Window


@dataclass(frozen=True, slots=True)
class ModelId:
    """Which bundle gave the probabilities, and in which order of classes."""

    name: str
    digest: str
    classes: tuple[str, ...]


@dataclass(frozen=True, slots=True, eq=False)
class WindowResult:
    """One analysed window.

    Attributes:
        stream: whose window.
        start_ns: UTC time of its first sample, in nanoseconds since 1970.
        duration_s: its length, in seconds.
        grade: quality and reasons.
        heart_rate: beats per minute; None in a bad window or with too few beats.
        longest_rr_s: the longest time without a beat, in seconds; None in a bad window.
        r_peaks_s: float64 [b], seconds from the window's start; empty in a bad window.
        model: which bundle classified it; None in a bad window. For RR intervals without a waveform
            it is ``monitor.irregularity``, whose one class is none of a bundle's, and None where no
            whole minute of them was there to judge.
        probabilities: float32 [classes], calibrated, in the order of ``model.classes``; None where
            ``model`` is.
    """

    stream: Stream
    start_ns: int
    duration_s: float
    grade: Grade
    heart_rate: float | None
    longest_rr_s: float | None
    r_peaks_s: NDArray[np.float64]
    model: ModelId | None
    probabilities: NDArray[np.float32] | None

    @property
    def end_ns(self) -> int:
        """UTC time just after the window's last sample, in nanoseconds."""
        return self.start_ns + round(self.duration_s * 1e9)

    @property
    def by_class(self) -> dict[str, float]:
        """Probability by class abbreviation; empty where nothing was classified."""
        if self.model is None or self.probabilities is None:
            return {}
        return dict(zip(self.model.classes, self.probabilities.tolist(), strict=True))


def unread(window: Window, reason: Reason) -> WindowResult:
    """The result of a window that nothing can be said of, with the reason."""
    return WindowResult(
        stream=window.stream,
        start_ns=window.start_ns,
        duration_s=window.duration_s,
        grade=Grade(Quality.BAD, (reason,)),
        heart_rate=None,
        longest_rr_s=None,
        r_peaks_s=np.empty(0),
        model=None,
        probabilities=None,
    )
