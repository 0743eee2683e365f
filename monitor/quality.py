"""Is a window fit to be read as a heart, and if not, why."""

from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from monitor.beats import Beats, beats_of
from monitor.detector import Detection, detect
from monitor.evidence import evidence
from monitor.filters import LOWEST_RATE
from monitor.window import Window

# A heart that pauses still leaves breath, muscle and the amplifier's noise on the line. A line that
# stays within this for so long has no body on it: a step or two of an ADC, or a thousandth of all
# that the window shows.
_FLAT_S = 2.0
_FLAT_UV = 5.0
_FLAT_SHARE = 1e-3
# A rail is an extreme the signal stays at, not one it touches.
_RAIL_S = 0.02
_RAIL_SHARE = 0.01

# Printed by `python -m bench.fit_beats`; the script says what they are fitted on.
_WEIGHTS = np.array([-1.34, 3.1, -0.82])
_BIAS = -6.28
# Higher, and fewer good windows have a wrong rate, but more hearts go unread.
_TRUSTED = 0.6


class Quality(StrEnum):
    """The grade of a window: only a good one is classified."""

    GOOD = "good"
    BAD = "bad"


class Reason(StrEnum):
    """Why a window is graded bad."""

    FLAT = "flat"
    SATURATED = "saturated"
    NOISY = "noisy"
    CONTACT = "contact"
    GAP = "gap"
    SKIPPED = "skipped"
    """Nobody looked: the gateway had no time."""
    FAILED = "failed"
    """Whoever looked could not go on: a fault of the program or of the model."""


@dataclass(frozen=True, slots=True)
class Grade:
    """A quality with its reasons (none when good)."""

    quality: Quality
    reasons: tuple[Reason, ...] = ()

    @property
    def good(self) -> bool:
        """Whether the window may be classified."""
        return self.quality is Quality.GOOD


def assess(window: Window) -> tuple[Grade, Beats | None]:
    """Grade a window and find its beats, filtering it once.

    Args:
        window: any, also one with missing, infinite or no samples at all.

    Returns:
        The grade, and the beats of a good window; None for a bad one, whose beats nobody should
        believe.
    """
    samples = window.microvolts
    reasons = []
    if window.contact is False:
        reasons.append(Reason.CONTACT)
    if not len(samples) or np.isnan(samples).any():
        reasons.append(Reason.GAP)
    elif np.isinf(samples).any():
        reasons.append(Reason.SATURATED)
    else:
        if _is_flat(samples, window.rate):
            reasons.append(Reason.FLAT)
        elif _is_saturated(samples, window.rate):
            reasons.append(Reason.SATURATED)
        if not reasons:
            found = detect(samples, window.rate) if window.rate >= LOWEST_RATE else None
            if found is not None and is_trusted(found):
                return Grade(Quality.GOOD), beats_of(found, window.duration_s)
            reasons.append(Reason.NOISY)
    return Grade(Quality.BAD, tuple(reasons)), None


def grade(window: Window) -> Grade:
    """Grade a window; ``assess`` gives its beats as well, at the same cost."""
    return assess(window)[0]


def is_trusted(found: Detection) -> bool:
    """Whether the beats of a detection are a heart's."""
    signs = evidence(found)
    if signs is None:
        return False
    return bool(signs @ _WEIGHTS + _BIAS > np.log(_TRUSTED / (1 - _TRUSTED)))


def _is_flat(samples: NDArray[np.floating], rate: float) -> bool:
    """Whether the line stands still for two seconds, or all along in a shorter window."""
    step = max(1, round(_FLAT_S / 4 * rate))
    starts = np.arange(0, len(samples), step)
    # Halved, for the difference of two float64 near their limit is not a float64.
    top = np.maximum.reduceat(samples, starts) / 2
    bottom = np.minimum.reduceat(samples, starts) / 2
    still = max(_FLAT_UV, _FLAT_SHARE * 2 * float(top.max() - bottom.min())) / 2
    span = min(4, len(starts))
    highest = np.lib.stride_tricks.sliding_window_view(top, span).max(axis=1)
    lowest = np.lib.stride_tricks.sliding_window_view(bottom, span).min(axis=1)
    return bool((highest - lowest <= still).any())


def _is_saturated(samples: NDArray[np.floating], rate: float) -> bool:
    """Whether the line stays at its highest or lowest value, as at an amplifier's rail."""
    run = max(3, round(_RAIL_S * rate))
    for rail in (samples.max(), samples.min()):
        at = samples == rail
        if np.count_nonzero(at) <= _RAIL_SHARE * len(samples):
            continue
        edges = np.flatnonzero(np.diff(at.astype(np.int8), prepend=0, append=0))
        lengths = edges[1::2] - edges[::2]
        if lengths[lengths >= run].sum() > _RAIL_SHARE * len(samples):
            return True
    return False
