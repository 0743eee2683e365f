"""QRS complexes of one window: candidates from an envelope, then a decision on each in its context.

The envelope is the amplitude of the QRS band (see ``monitor.filters``). Half of the beats' usual
height is a threshold that finds nearly all of them, as in Pan and Tompkins (1985). What no
threshold can tell – a small ectopic beat from a tall T wave, a beat in a fading contact from a
muscle – a logistic regression decides: from how high a candidate is beside its neighbours and
beside what lies between the beats, from when it comes, and from how much it looks like a beat.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from monitor.filters import Bands, split

CONTEXT: Final = (
    "height",
    "height beside the previous beat",
    "height beside the next beat",
    "noise",
    "gap",
    "distance",
    "interval",
    "likeness",
    "swing",
)
"""The columns of ``context``."""

# Printed by `python -m bench.fit_beats`; the script says what they are fitted on.
_WEIGHTS = np.array([0.33, 1.26, 1.12, -1.37, 2.58, 2.98, 2.77, 2.64, 2.34])
_BIAS = -6.5
# Below a half: a missed ectopic beat is a false pause too, and costs more than a false beat.
_TAKEN = 0.3
# A candidate twelve times smaller than the beats is none; these are natural logarithms.
_LOWEST = -2.5

_REFRACTORY_S = 0.2
# Holds a beat down to 48 per minute; slower hearts leave some blocks empty, which a median bears.
_BLOCK_S = 1.25
_USUAL_RR_S = 0.8
_QRS_HALF_S = 0.06
_SHAPE_HALF_S = 0.1


@dataclass(frozen=True, slots=True, eq=False)
class Detection:
    """What was found in one window's bands; positions are indices into the bands.

    Attributes:
        bands: the filtered window, [m].
        candidates: int [c], ascending, where the envelope has a peak.
        probability: float64 [c], that a candidate is a beat.
        taken: bool [c], which candidates are taken for beats.
        r_peaks: int [b], one for each candidate taken, where its R peak is.
    """

    bands: Bands
    candidates: NDArray[np.intp]
    probability: NDArray[np.float64]
    taken: NDArray[np.bool_]
    r_peaks: NDArray[np.intp]


def detect(samples: NDArray[np.floating], rate: float) -> Detection | None:
    """Find the QRS complexes of a window.

    Args:
        samples: [n], any unit and polarity; all must be finite.
        rate: samples per second, in Hz.

    Returns:
        The detection; None if the samples do not vary or last less than 0.2 s.

    Raises:
        ValueError: ``rate`` is below 50 Hz.
    """
    bands = split(samples, rate)
    if bands is None:
        return None
    candidates, taken = propose(bands)
    times, heights = candidates / bands.rate, bands.qrs[candidates]
    alike, swings = correlations(bands, candidates)
    probability = np.zeros(len(candidates))
    # Twice: the second look measures every candidate against beats instead of against proposals.
    for _ in range(2):
        if not taken.any():
            break
        columns = context(times, heights, alike, swings, taken)
        probability = 1 / (1 + np.exp(-(columns @ _WEIGHTS + _BIAS)))
        probability[columns[:, 0] < _LOWEST] = 0
        taken = probability > _TAKEN
    return Detection(bands, candidates, probability, taken, _locate(bands, candidates[taken]))


def propose(bands: Bands) -> tuple[NDArray[np.intp], NDArray[np.bool_]]:
    """The envelope's peaks, int [c], ascending, and which exceed half the usual height, [c]."""
    candidates = _peaks(bands.qrs, round(_REFRACTORY_S * bands.rate))
    return candidates, bands.qrs[candidates] > 0.5 * _usual_height(bands)


def correlations(
    bands: Bands, candidates: NDArray[np.intp]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """How alike the ECG is around each two candidates, and how far it swings there.

    Returns:
        Correlations, float64 [c, c], -1 of a candidate with itself; root sum of squares about the
        mean, float64 [c], in the units of the bands.
    """
    reach = round(_SHAPE_HALF_S * bands.rate)
    around = np.clip(candidates[:, None] + np.arange(-reach, reach + 1), 0, len(bands.ecg) - 1)
    shapes = bands.ecg[around]
    shapes -= shapes.mean(axis=1, keepdims=True)
    swing = np.sqrt((shapes * shapes).sum(axis=1)) + 1e-12
    shapes /= swing[:, None]
    alike: NDArray[np.float64] = shapes @ shapes.T
    np.fill_diagonal(alike, -1)
    return alike, swing


def likeness(alike: NDArray[np.float64], taken: NDArray[np.bool_]) -> NDArray[np.float64]:
    """How well each candidate correlates with the third of the beats that is most like it, [c].

    Template matching (Orphanidou et al. 2015) with a template for every kind of beat there is:
    ectopic beats are like one another.
    """
    others = np.sort(alike[:, taken], axis=1)
    most: NDArray[np.float64] = others[:, -max(1, others.shape[1] // 3) :].mean(axis=1)
    return most


def context(
    times: NDArray[np.float64],
    heights: NDArray[np.float64],
    alike: NDArray[np.float64],
    swings: NDArray[np.float64],
    taken: NDArray[np.bool_],
) -> NDArray[np.float64]:
    """What the regression looks at.

    Args:
        times: [c], ascending, when each candidate comes, in seconds.
        heights: [c], the envelope there; any unit, not negative.
        alike: [c, c], the correlations that ``correlations`` gives.
        swings: [c], the swings that it gives.
        taken: bool [c], which candidates pass for beats so far; at least one.

    Returns:
        float64 [c, 9], the columns of ``CONTEXT``: heights, noise and swing as logarithms of a
        ratio, ``gap`` (from the previous to the next beat) and ``distance`` (to the nearer of
        them) in usual RR intervals, ``interval`` as the logarithm of the usual one in seconds.
    """
    log = np.log(heights + 1e-9)
    beats = np.flatnonzero(taken)
    usual = float(np.median(log[beats]))
    rest = log[~taken]
    noise = float(np.median(rest)) - usual if rest.size else _LOWEST
    rr = float(np.median(np.diff(times[beats]))) if len(beats) > 2 else _USUAL_RR_S
    every = np.arange(len(times))
    before = np.searchsorted(beats, every) - 1
    after = np.searchsorted(beats, every, side="right")
    first, last = before < 0, after == len(beats)
    previous, following = beats[np.maximum(before, 0)], beats[np.minimum(after, len(beats) - 1)]
    # Beyond the window's edge a beat as usual is supposed, one interval away.
    since = np.where(first, 1.0, np.minimum((times - times[previous]) / rr, 2.0))
    until = np.where(last, 1.0, np.minimum((times[following] - times) / rr, 2.0))
    columns = np.empty((len(times), len(CONTEXT)))
    columns[:, 0] = log - usual
    columns[:, 1] = log - np.where(first, usual, log[previous])
    columns[:, 2] = log - np.where(last, usual, log[following])
    columns[:, 3] = noise
    # A beat that is missing leaves two intervals; a pause of three is no better a place for one.
    columns[:, 4] = np.minimum(since + until, 2.2)
    columns[:, 5] = np.minimum(since, until)
    columns[:, 6] = np.log(rr)
    # An inverted ectopic beat is unlike the others, and not more so for being inverted.
    columns[:, 7] = np.maximum(likeness(alike, taken), 0)
    # A wide beat is lower than a narrow one in the QRS band, but swings no less; a T wave may not
    # gain by a swing beyond that of a beat, nor noise lose by having none.
    columns[:, 8] = np.clip(np.log(swings / np.median(swings[beats])), -0.6, 0)
    return np.clip(columns, -5, 5)


def _peaks(envelope: NDArray[np.float64], apart: int) -> NDArray[np.intp]:
    """Local maxima, ascending; of two nearer than ``apart`` samples the higher stays."""
    rising = np.ones(len(envelope), np.bool_)
    falling = np.ones(len(envelope), np.bool_)
    np.greater(envelope[1:], envelope[:-1], out=rising[1:])
    np.greater_equal(envelope[:-1], envelope[1:], out=falling[:-1])
    maxima = np.flatnonzero(rising & falling)
    # A byte a sample and a slice a peak: quicker than asking an array which peaks remain.
    silenced = bytearray(len(envelope) + 2 * apart)
    silence = b"\1" * (2 * apart - 1)
    kept = []
    for at in maxima[np.argsort(-envelope[maxima], kind="stable")].tolist():
        if not silenced[at + apart]:
            kept.append(at)
            silenced[at + 1 : at + 2 * apart] = silence
    kept.sort()
    return np.array(kept, np.intp)


def _usual_height(bands: Bands) -> float:
    """How high the envelope is at a beat: the median of what each block of the window reaches."""
    m = len(bands.qrs)
    blocks = max(1, int(m / bands.rate / _BLOCK_S))
    reached = np.maximum.reduceat(bands.qrs, np.arange(blocks) * m // blocks)
    reached.sort()
    # In a pause most blocks are empty and the median is noise; two beats are enough to say so.
    return max(float(np.median(reached)), 0.5 * float(reached[max(0, blocks - 2)]))


def _locate(bands: Bands, beats: NDArray[np.intp]) -> NDArray[np.intp]:
    """Where the R peaks are, [b]: the extreme of the ECG at each beat, of most beats' sign."""
    reach = round(_QRS_HALF_S * bands.rate)
    around = np.clip(beats[:, None] + np.arange(-reach, reach + 1), 0, len(bands.ecg) - 1)
    shape = bands.ecg[around]
    top, bottom = shape.max(axis=1), -shape.min(axis=1)
    # An S wave may be deeper than its R is high; only a complex that hardly rises is inverted.
    upright = top > 0.5 * bottom if top.sum() > 0.6 * bottom.sum() else top > 2 * bottom
    extreme = np.where(upright, shape.argmax(axis=1), shape.argmin(axis=1))
    peaks: NDArray[np.intp] = around[np.arange(len(beats)), extreme]
    return peaks
