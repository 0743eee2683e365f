"""Turn a few seconds of an ECG into what the classifier of rhythms reads.

The same function is called in training and on a gateway, so that nothing is classified there that
was not trained on here. What it keeps is amplitude (fibrillation fades, an asystole is a matter of
microvolts) and everything from 0.7 to 40 Hz; what it removes is drift and mains hum.
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import numpy as np
from numpy.typing import NDArray

from models.spectrum import fast_size, ramp

RATE: Final = 100.0
"""Samples per second of what the classifier reads, in Hz."""

LENGTH_S: Final = 8.0
"""Seconds of signal that the classifier reads at once."""

SHORTEST_S: Final = 4.0
"""With fewer seconds than this since the run began nothing is told; what is missing is zeros."""

LOWEST_RATE: Final = 50.0
"""The least a QRS complex can be seen at, in Hz."""

SAMPLES: Final = round(LENGTH_S * RATE)

_PAD_S = 1.0
# Corners in Hz of the pass band, half-cosine ramps between them.
_LOW = (0.3, 0.9)
_HIGH = (35.0, 45.0)


@dataclass(frozen=True, slots=True, eq=False)
class _Plan:
    """What is the same for every stretch of a length and rate.

    Attributes:
        pad: samples mirrored at either end.
        size: length of the transform.
        out_size: length of the inverse transform, at ``RATE``.
        start: where in the output the stretch begins.
        count: how many samples of the output are the stretch.
        gain: of each frequency kept.
        tilt: from 0 to 1 over the transform.
    """

    pad: int
    size: int
    out_size: int
    start: int
    count: int
    gain: NDArray[np.float64]
    tilt: NDArray[np.float64]


@lru_cache(maxsize=64)
def _plan(n: int, rate: float) -> _Plan:
    count = min(SAMPLES, round(n / rate * RATE))
    # An output of whole hundredths of the transform's length keeps its rate exact.
    out_size = fast_size(count + 2 * round(_PAD_S * RATE))
    size = round(out_size * rate / RATE)
    pad = min((size - n) // 2, n - 1)
    kept = min(size // 2, out_size // 2 - 1) + 1
    frequency = np.arange(kept, dtype=np.float64) * np.float64(rate / size)
    gain = ramp(frequency, *_LOW) * (1 - ramp(frequency, *_HIGH)) * (out_size / size)
    tilt = np.linspace(0.0, 1.0, size)
    return _Plan(pad, size, out_size, round(pad / rate * RATE), count, gain, tilt)


def filtered(microvolts: NDArray[np.floating], rate: float) -> NDArray[np.float32]:
    """Filter stretches of signal and resample them to ``RATE``.

    Args:
        microvolts: [..., n], in µV, all finite, of ``SHORTEST_S`` to ``LENGTH_S`` seconds.
        rate: samples per second, in Hz, at least ``LOWEST_RATE``.

    Returns:
        float32 [..., ``SAMPLES``], in µV; a stretch shorter than ``LENGTH_S`` stands at the end,
        after zeros.
    """
    n = microvolts.shape[-1]
    plan = _plan(n, rate)
    x = microvolts.astype(np.float64)
    x -= x.mean(axis=-1, keepdims=True)
    padded = np.empty((*x.shape[:-1], plan.size))
    end = plan.pad + n
    padded[..., plan.pad : end] = x
    padded[..., : plan.pad] = x[..., plan.pad : 0 : -1]
    tail = plan.size - end
    mirrored = x[..., -2 : -2 - min(tail, n - 1) : -1]
    padded[..., end : end + mirrored.shape[-1]] = mirrored
    padded[..., end + mirrored.shape[-1] :] = mirrored[..., -1:]
    # A transform sees a ring: without a step where its ends meet there is nothing to ring.
    first, last = padded[..., :1], padded[..., -1:]
    padded -= first + (last - first) * plan.tilt
    spectrum = np.fft.rfft(padded)[..., : plan.gain.size] * plan.gain
    out = np.zeros((*x.shape[:-1], SAMPLES), np.float32)
    y = np.fft.irfft(spectrum, plan.out_size)[..., plan.start : plan.start + plan.count]
    out[..., SAMPLES - y.shape[-1] :] = y
    return out
