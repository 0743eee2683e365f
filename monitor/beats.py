"""R peaks of a window, and what follows from them: heart rate, RR intervals, pauses."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from monitor.detector import Detection, detect

# An R peak this near the window's end is not seen whole: it may yet rise, and what follows is not
# seen at all. The next window, which overlaps, has it in its middle. It ends an RR interval all the
# same, and without that the mean of an irregular rhythm is 2 bpm off in one window of sixty.
_UNSEEN_END_S = 0.09


@dataclass(frozen=True, slots=True, eq=False)
class Beats:
    """The heartbeats of one window.

    Attributes:
        r_peaks_s: float64 [b], seconds from the first sample of the window to each R peak.
        heart_rate: beats per minute, None when there are too few beats to say. It is 60 / mean RR,
            up to the last R peak in the window, be that too near the end to be listed.
        longest_rr_s: the longest time without a beat in the window, its edges included, in seconds.
    """

    r_peaks_s: NDArray[np.float64]
    heart_rate: float | None
    longest_rr_s: float

    @property
    def rr_s(self) -> NDArray[np.float64]:
        """RR intervals, float64 [b-1], in seconds."""
        return np.diff(self.r_peaks_s)


def find_beats(microvolts: NDArray[np.floating], rate: float) -> Beats:
    """Find the heartbeats of a window; ``monitor.quality`` says if they are to be believed.

    Args:
        microvolts: [n], in µV; the scale and the polarity do not matter.
        rate: samples per second, in Hz.

    Returns:
        The beats; none if a sample is missing or infinite.

    Raises:
        ValueError: ``rate`` is below 50 Hz.
    """
    found = detect(microvolts, rate) if np.isfinite(microvolts).all() else None
    return beats_of(found, len(microvolts) / rate)


def beats_of(detection: Detection | None, duration_s: float) -> Beats:
    """What a detection says of the heart.

    Args:
        detection: of the window; None for a window without a signal.
        duration_s: the window's length, in seconds.

    Returns:
        The beats.
    """
    if detection is None:
        return Beats(np.empty(0), None, duration_s)
    times = detection.r_peaks / detection.bands.rate
    # What is highest at the very first sample was higher before it.
    times = times[(times > 0) & (times < duration_s)]
    span = float(times[-1] - times[0]) if len(times) > 1 else 0.0
    heart_rate = 60 * (len(times) - 1) / span if span > 0 else None
    seen = times[times < duration_s - _UNSEEN_END_S]
    longest = float(np.diff(seen, prepend=0.0, append=duration_s).max())
    return Beats(seen, heart_rate, longest)
