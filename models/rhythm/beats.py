"""QRS complexes in what the classifier of rhythms reads: enough to vouch for a beating heart.

It is not the detector of windows (``monitor.detector``), which finds each beat to a few
milliseconds: here it is asked when there was last something like a beat, how high, and how often.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from models.rhythm.frontend import RATE, SAMPLES

# A QRS complex is steep for about so long (Pan and Tompkins 1985 integrate over 150 ms; less parts
# it better from a steep T wave).
_WIDTH = round(0.10 * RATE)
_REFRACTORY_S: Final = 0.24

# From one cycle of a tachycardia to the next.
_FASTEST_S: Final = 0.15
_SLOWEST_S: Final = 0.63

# A peak of less than this share of the highest but one is no beat but a T wave or noise.
_SHARE: Final = 0.4


@dataclass(frozen=True, slots=True, eq=False)
class Peaks:
    """What stands out of a window by its steepness.

    Attributes:
        at_s: float64 [k], when, in seconds before the window's end, the last one last.
        height_uv: how steep they are, usually: µV per 10 ms, the mean over 100 ms; 0 without any.
        top_uv: the steepest place of all, in the same unit.
        last_s: when there was last something a third as steep as what is usual, in seconds before
            the end; None if nowhere in the window.
    """

    at_s: NDArray[np.float64]
    height_uv: float
    top_uv: float
    last_s: float | None

    @property
    def rate(self) -> float | None:
        """Beats per minute; None with fewer than three."""
        if len(self.at_s) < 3:
            return None
        return float(60 * (len(self.at_s) - 1) / (self.at_s[0] - self.at_s[-1]))


def find_peaks(window: NDArray[np.float32], reference_uv: float | None) -> Peaks:
    """Find what may be QRS complexes.

    Args:
        window: [``SAMPLES``], in µV, as ``models.rhythm.frontend.filtered`` gives it.
        reference_uv: height of the patient's usual QRS complexes, as ``Peaks.height_uv``; None if
            they are not known, and then those of the window are.
    """
    steep = np.abs(window[1:] - window[:-1])
    sums = steep.cumsum(dtype=np.float64)
    # Mean steepness of the 100 ms about each sample but the first and last 50 ms.
    envelope = (sums[_WIDTH:] - sums[:-_WIDTH]) * (1 / _WIDTH)
    middle = envelope[1:-1]
    tops = ((middle >= envelope[:-2]) & (middle > envelope[2:])).nonzero()[0] + 1
    if len(tops) < 2:
        return Peaks(np.empty(0), 0.0, 0.0, None)
    heights = envelope[tops]
    least = _SHARE * float(np.partition(heights, -2)[-2])
    high = heights >= least
    tops = _apart(tops[high].tolist(), heights[high].tolist())
    height = float(np.sort(envelope[tops])[len(tops) // 2])
    asked = height if reference_uv is None else reference_uv
    end = SAMPLES - 1 - _WIDTH // 2
    backwards = envelope[::-1] >= asked / 3
    since = int(backwards.argmax())
    last_s = (end - (len(envelope) - 1 - since)) / RATE if backwards[since] else None
    return Peaks((end - tops) / RATE, height, float(heights.max()), last_s)


def _apart(tops: list[int], heights: list[float]) -> NDArray[np.intp]:
    """Of peaks within a refractory time of one another the highest."""
    kept: list[int] = []
    highest = 0.0
    for top, height in zip(tops, heights, strict=True):
        if kept and top - kept[-1] < _REFRACTORY_S * RATE:
            if height > highest:
                kept[-1], highest = top, height
        else:
            kept.append(top)
            highest = height
    return np.array(kept, dtype=np.intp)


def cycle_rate(window: NDArray[np.float32]) -> float | None:
    """Count the cycles per minute of a tachycardia, by autocorrelation of its last four seconds.

    Args:
        window: as ``find_peaks``.

    Returns:
        95 to 400 per minute; None if nothing repeats so fast.
    """
    x = window[-round(4 * RATE) :].astype(np.float64)
    x = x - x.mean()
    power = np.abs(np.fft.rfft(x, 1024)) ** 2
    correlation = np.fft.irfft(power)[: round(_SLOWEST_S * RATE) + 2]
    if correlation[0] <= 0:
        return None
    # Fewer samples overlap at longer lags.
    correlation = correlation / correlation[0] * len(x) / (len(x) - np.arange(len(correlation)))
    first, last = round(_FASTEST_S * RATE), len(correlation) - 1
    inner = correlation[first:last]
    tops = (
        np.flatnonzero(
            (inner >= correlation[first - 1 : last - 1]) & (inner > correlation[first + 1 :])
        )
        + first
    )
    tops = tops[correlation[tops] > 0.3]
    if not len(tops):
        return None
    # The first that is nearly as high as the highest: the others are its multiples.
    best = float(correlation[tops].max())
    lag = int(tops[correlation[tops] > 0.85 * best][0])
    return 60.0 * RATE / lag
