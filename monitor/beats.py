"""R peaks of a window, and what follows from them: heart rate, RR intervals, pauses."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, eq=False)
class Beats:
    """The heartbeats of one window.

    Attributes:
        r_peaks_s: float64 [b], seconds from the first sample of the window to each R peak.
        heart_rate: beats per minute, None when there are too few beats to say.
        longest_rr_s: the longest time without a beat in the window, its edges included, in seconds.
    """

    r_peaks_s: NDArray[np.float64]
    heart_rate: float | None
    longest_rr_s: float

    @property
    def rr_s(self) -> NDArray[np.float64]:
        """RR intervals, float64 [b-1], in seconds."""
        return np.diff(self.r_peaks_s)
