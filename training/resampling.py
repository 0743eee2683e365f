"""Beat-wise resampling of a lead: STAR (Nemati 2025, arXiv 2510.24740), as an augmentation.

Only what lies between two R peaks is bent in time and scaled in height, by sines that end at zero
on the peaks: each heart beats when it did, the order of P, QRS and T stays, and what comes before
the first R peak and after the last one is left alone.
"""

import math

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.signal import find_peaks
from torch import Tensor

_RATE = 100.0
_QRS_HZ = (8.0, 20.0)
_APART_S = 0.25
_REACH_S = 0.05
# A peak of the envelope lower than this share of the highest ones is a T wave or noise.
_LOWEST = 0.2
_BEND = 0.15
_SCALE = 0.2


def resample_beats(lead: Tensor, generator: torch.Generator, *, share: float = 0.5) -> Tensor:
    """Resample a share of [batch, 1, time], z-scored at 100 Hz; others come back as they were.

    Between R peaks at a and b, with u from 0 to 1, the sample at a + (b - a) u is taken from
    a + (b - a) (u + g sin(2 pi u) / 2 pi) and multiplied by 1 + h sin(pi u), g within 0.15 and h
    within 0.2 of zero, drawn for each beat.
    """
    chosen = torch.rand(len(lead), generator=generator) < share
    seed = int(torch.randint(2**31, (1,), generator=generator))
    draw = np.random.default_rng(seed)
    out = lead.clone()
    for i in torch.nonzero(chosen).flatten().tolist():
        x = lead[i, 0].numpy()
        out[i, 0] = torch.from_numpy(_resampled(x, r_peaks(x), draw))
    return out


def r_peaks(x: NDArray[np.float32]) -> NDArray[np.intp]:
    """Places of the R peaks of a lead [time], of either polarity; good enough to augment by."""
    f = np.fft.rfftfreq(len(x), 1 / _RATE)
    band = np.fft.irfft(np.fft.rfft(x) * ((f > _QRS_HZ[0]) & (f < _QRS_HZ[1])), len(x))
    energy = np.convolve(band**2, np.ones(10) / 10, "same")
    lowest = _LOWEST * float(np.quantile(energy, 0.97))
    found = find_peaks(energy, height=max(lowest, 1e-6), distance=round(_APART_S * _RATE))[0]
    reach = round(_REACH_S * _RATE)
    placed = [max(0, p - reach) + np.abs(x[max(0, p - reach) : p + reach]).argmax() for p in found]
    return np.unique(np.array(placed, dtype=np.intp))


def _resampled(
    x: NDArray[np.float32], peaks: NDArray[np.intp], draw: np.random.Generator
) -> NDArray[np.float32]:
    beats = len(peaks) - 1
    if beats < 1:
        return x
    bend = draw.uniform(-_BEND, _BEND, beats)
    scale = draw.uniform(-_SCALE, _SCALE, beats)
    t = np.arange(peaks[0], peaks[-1])
    beat = np.searchsorted(peaks, t, side="right") - 1
    length = np.diff(peaks)[beat]
    u = (t - peaks[beat]) / length
    from_where = t + length * bend[beat] * np.sin(2 * math.pi * u) / (2 * math.pi)
    out = x.copy()
    out[t] = np.interp(from_where, np.arange(len(x)), x) * (1 + scale[beat] * np.sin(math.pi * u))
    return out
