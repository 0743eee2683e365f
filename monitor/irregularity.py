"""How much a minute of RR intervals looks like atrial fibrillation, without any waveform.

Three signs, weighed by a logistic regression: the coefficient of sample entropy (Lake and Moorman,
Am J Physiol Heart Circ Physiol 2011; 300: H319), made for short and ectopic-ridden series; how
nearly the rhythm comes back after one to four beats, which tells a bigeminy or a grouped beat,
irregular from beat to beat, from one that never comes back; and the turning point ratio (Dash et
al., Ann Biomed Eng 2009; 37: 1701), by which breathing moves the pulse in waves and fibrillation
does not. The heart rate is left out on purpose: a fast pulse is no sign of fibrillation.

Fitted by ``python -m bench.fit_rr`` on Challenge 2017, whose records last half a minute as a rule.
On the fifth of them that was held out (1,348 records with 20 intervals or more, 140 of them
labelled A) it prints an AUC of 0.960, and at the threshold a sensitivity of 67 % and a specificity
of 98.4 %: 99.8 % of the normal records and 95.4 % of those with another rhythm. It is over the
threshold in none of 585 minutes of MIT-BIH records 100, 101, 103, 105 and 109 (no fibrillation,
120 ectopic beats), and in none of the simulator's minutes but those of fibrillation. A pulse that
is irregular without end for another reason, as in multifocal atrial tachycardia, is not told from
fibrillation.
"""

import math
from hashlib import sha256
from typing import Final

import numpy as np
from numpy.typing import NDArray

from monitor.results import ModelId

SIGNS: Final = ("entropy", "recurrence", "turning")
"""The entries of ``signs``."""

FEWEST: Final = 20
"""Below so many intervals the signs say nothing."""

# Printed by `python -m bench.fit_rr`.
_WEIGHTS = np.array([2.19, 0.58, 4.16])
_BIAS = 0.24

# More likely than not; and, to believe that it is over, as with a bundle's alarms half of that.
THRESHOLD: Final = 0.5
OFF_THRESHOLD: Final = 0.25

# Lake and Moorman start from a tolerance of 30 ms and widen it until enough pairs match.
_TOLERANCE_S = 0.03
_WIDER = 1.25
_FEWEST_MATCHES = 5

_LAGS = (1, 2, 3, 4)
# What straps cannot tell from nothing: half a step of 1/100 of an interval.
_STILL = 0.005

IRREGULAR_AF: Final = "rr:AF"
"""Not ``AF``: whatever goes by a class's name must not take this for what a waveform showed."""


THRESHOLDS: Final = {IRREGULAR_AF: THRESHOLD}
"""As a bundle's ``thresholds``."""


def _digest() -> str:
    told = repr((SIGNS, _WEIGHTS.tolist(), _BIAS, _TOLERANCE_S, _WIDER, _LAGS, _STILL))
    return sha256(told.encode()).hexdigest()


MODEL: Final = ModelId("rr-irregularity 1", _digest(), (IRREGULAR_AF,))
"""By which name the probability is stored."""


def probability(rr_s: NDArray[np.float64]) -> float:
    """How likely a stretch of RR intervals is one of atrial fibrillation.

    Calibrated on Challenge 2017, where one record in ten is.

    Args:
        rr_s: [n], in seconds, oldest first, artefacts left out; a minute of them is best.

    Raises:
        ValueError: fewer than ``FEWEST``.
    """
    return float(1 / (1 + np.exp(-(signs(rr_s) @ _WEIGHTS + _BIAS))))


def signs(rr_s: NDArray[np.float64]) -> NDArray[np.float64]:
    """What the regression looks at.

    Args:
        rr_s: [n], in seconds, oldest first, all positive.

    Returns:
        float64 [3], the entries of ``SIGNS``: ``entropy`` is COSEn; ``recurrence`` the logarithm of
        the median change over one to four beats, whichever is least, in median RR intervals;
        ``turning`` the share of intervals longer, or shorter, than both neighbours (two thirds in
        a random series).

    Raises:
        ValueError: fewer than ``FEWEST``.
    """
    if len(rr_s) < FEWEST:
        raise ValueError(f"{len(rr_s)} RR intervals; expected {FEWEST} or more")
    usual = float(np.median(rr_s))
    least = min(float(np.median(np.abs(rr_s[lag:] - rr_s[:-lag]))) for lag in _LAGS)
    steps = np.diff(rr_s)
    turning = float(np.mean(steps[1:] * steps[:-1] < 0))
    return np.array([_cosen(rr_s), math.log(least / usual + _STILL), turning])


def _cosen(rr_s: NDArray[np.float64]) -> float:
    """The coefficient of sample entropy, with templates of one interval."""
    apart: NDArray[np.float64] = np.abs(rr_s[:, None] - rr_s)
    pairs = np.triu_indices(len(rr_s) - 1, 1)
    one = apart[:-1, :-1][pairs]
    two = np.maximum(one, apart[1:, 1:][pairs])
    tolerance = _TOLERANCE_S
    # With 20 intervals there are 171 pairs: it ends.
    while np.count_nonzero(two < tolerance) < _FEWEST_MATCHES:
        tolerance *= _WIDER
    two_match = int(np.count_nonzero(two < tolerance))
    one_match = int(np.count_nonzero(one < tolerance))
    return math.log(one_match / two_match) + math.log(2 * tolerance) - math.log(rr_s.mean())
