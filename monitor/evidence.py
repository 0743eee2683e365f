"""Signs, in one window's detection, of whether its beats are a heart's."""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from monitor.detector import Detection

EVIDENCE: Final = ("doubt", "likeness", "excursion")
"""The entries of ``evidence``."""

_TEMPLATE_HALF_S = 0.1
# A QRS under this share of the window's largest deviation stands beside something much larger.
_HIGH = 0.03
# What has less of its height in the QRS band than this is a wave: a paced QRS has more.
_SHARP = 0.12
# What stays above this share of its height half of the time does not beat: recorded hearts stay
# below 0.45 of it.
_LASTING = 0.5
# What leaves the line this share of its height from where it found it, now above and now below, is
# a switch: a wide QRS does the one, into its ST segment, but not the other.
_STEP = 0.5


def evidence(found: Detection) -> NDArray[np.float64] | None:
    """What the grade rests on.

    ``doubt``: how near the decisions on beats were to tossing a coin, as a logarithm.
    ``likeness``: how well the beats correlate with those most like them, at the worst fifth of
    the beats: the template matching of Orphanidou et al. (2015), but each beat is held against its
    own kind, so that ectopic beats are no noise. ``excursion``: how far the line departs between
    the QRS complexes, beside the height of one, as a logarithm. None asks for a regular rhythm.

    Args:
        found: a window's detection.

    Returns:
        float64 [3], the entries of ``EVIDENCE``; None with fewer than two whole beats, or with
        beats that are no QRS complexes.
    """
    ecg, rate = found.bands.ecg, found.bands.rate
    half = round(_TEMPLATE_HALF_S * rate)
    peaks = found.r_peaks
    whole = peaks[(peaks >= half) & (peaks < len(ecg) - half)]
    if len(whole) < 2:
        return None
    shapes = ecg[whole[:, None] + np.arange(-half, half + 1)]
    height = float(np.median(shapes.max(axis=1) - shapes.min(axis=1)))
    if not _is_qrs(found, shapes, height):
        return None
    doubt = np.minimum(found.probability, 1 - found.probability).sum() / len(peaks)
    outside = np.ones(len(ecg), np.bool_)
    outside[np.clip(peaks[:, None] + np.arange(-half, half), 0, len(ecg) - 1)] = False
    excursion = float(np.abs(ecg[outside]).max(initial=0.0))
    return np.array([np.log(doubt + 0.003), _likeness(shapes), np.log(excursion / height + 1e-3)])


def _is_qrs(found: Detection, shapes: NDArray[np.float64], height: float) -> bool:
    envelope = found.bands.qrs
    beat = float(np.median(envelope[found.candidates[found.taken]]))
    if height < _HIGH or beat < _SHARP * height or float(np.median(envelope)) > _LASTING * beat:
        return False
    # The first and last fifth of a shape of 200 ms: 40 ms before and after the QRS.
    fifth = shapes.shape[1] // 5
    steps = shapes[:, -fifth:].mean(axis=1) - shapes[:, :fifth].mean(axis=1)
    size = float(np.median(np.abs(steps)))
    return size < _STEP * height or abs(float(steps.mean())) > 0.5 * size


def _likeness(shapes: NDArray[np.float64]) -> float:
    """The correlation of the beat at the lowest fifth with the third that is most like it."""
    b = len(shapes)
    centred = shapes - shapes.mean(axis=1, keepdims=True)
    norm = np.sqrt((centred * centred).sum(axis=1, keepdims=True))
    unit = centred / (norm + 1e-12)
    correlation = unit @ unit.T
    np.fill_diagonal(correlation, -1)
    alike = max(1, (b - 1) // 3)
    correlation.sort(axis=1)
    each = correlation[:, -alike:].mean(axis=1)
    each.sort()
    return float(each[(b - 1) // 5])
