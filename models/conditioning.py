"""From recorded microvolts to what a network sees: band-pass, resampling, z-score.

Training and the daemon call this very function, so that a net never meets at night a signal
prepared otherwise than by day. Everything is one multiplication in the frequency domain, which is
zero-phase by construction, takes any rate (129.9 Hz included) and needs numpy alone.
"""

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

LOW_HZ = 1.0
HIGH_HZ = 47.0
LOW_ORDER = 2
HIGH_ORDER = 16

# A spike of many standard deviations (pacing, a knock on the electrode) would otherwise saturate
# every activation behind it.
CLIP = 20.0

_EXTENSION_S = 2.0
_FLAT_UV = 1e-3


def condition(
    microvolts: NDArray[np.floating], rate: float, *, target_rate: float, length: int
) -> NDArray[np.float32]:
    """Band-pass 1-47 Hz without phase shift, resample, and scale each lead to z-scores.

    The response is that of a Butterworth high-pass of order 2 and low-pass of order 16, each run
    forwards and backwards: ``1 / (1 + (f_low/f)^2N) * 1 / (1 + (f/f_high)^2M)`` (Oppenheim and
    Schafer, Discrete-Time Signal Processing, 7.3). The ends are extended by reflection, so
    that a window's edges do not ring. (Even reflection: the odd one that is usual for filters takes
    its offset from a single sample, and so turns hum into wander at both ends.)

    Args:
        microvolts: [..., n], finite, in µV.
        rate: samples per second of ``microvolts``, in Hz.
        target_rate: samples per second of the result, in Hz.
        length: samples of the result. A shorter signal is followed by zeros, of a longer one the
            first ``length`` samples are returned.

    Returns:
        float32 [..., length], mean 0 and standard deviation 1 over the samples that are not
        padding; zeros where the signal is flat.

    Raises:
        ValueError: if there are fewer than two samples or one is not finite.
    """
    x = np.asarray(microvolts, dtype=np.float64)
    n = x.shape[-1]
    if n < 2 or not np.isfinite(x).all():
        raise ValueError(f"conditioning takes two or more finite samples, got {n} samples")
    edge = _extension(n, rate, target_rate)
    extended = np.concatenate(
        (x[..., edge:0:-1], x, x[..., -2 : -edge - 2 : -1]), axis=-1
    ) - x.mean(axis=-1, keepdims=True)
    total = extended.shape[-1]
    resampled_total = max(2, round(total * target_rate / rate))
    response, bins = _response(total, rate, resampled_total, target_rate, edge)
    spectrum = np.fft.rfft(extended, axis=-1)[..., :bins] * response
    y = np.fft.irfft(spectrum, resampled_total, axis=-1)
    skip = round(edge * target_rate / rate)
    keep = min(max(1, round(n * target_rate / rate)), length)
    y = y[..., skip : skip + keep]
    y -= y.mean(axis=-1, keepdims=True)
    deviation = y.std(axis=-1, keepdims=True)
    y = np.where(deviation > _FLAT_UV, y / np.maximum(deviation, _FLAT_UV), 0.0)
    out = np.zeros((*x.shape[:-1], length), dtype=np.float32)
    out[..., : y.shape[-1]] = np.clip(y, -CLIP, CLIP)
    return out


@lru_cache(maxsize=64)
def _extension(n: int, rate: float, target_rate: float) -> int:
    """Samples to add at either end: about two seconds.

    Of the lengths near it the one is taken whose total is closest to a whole number of samples at
    the target rate, since a Fourier transform can stretch time only by whole samples.
    """
    longest = min(round(_EXTENSION_S * rate), n - 1)
    candidates = range(longest, max(longest - 32, 0), -1)

    def rounding(edge: int) -> float:
        total = (n + 2 * edge) * target_rate / rate
        return round(abs(total - round(total)), 9)

    return min(candidates, key=rounding)


@lru_cache(maxsize=64)
def _response(
    total: int, rate: float, resampled_total: int, target_rate: float, edge: int
) -> tuple[NDArray[np.complex128], int]:
    """Band-pass gain, resampling gain and sub-sample shift for the bins that both rates share."""
    bins = min(total, resampled_total) // 2 + 1
    f = np.arange(bins) * rate / total
    with np.errstate(divide="ignore"):
        gain = 1 / (1 + (LOW_HZ / f) ** (2 * LOW_ORDER))
    gain *= 1 / (1 + (f / HIGH_HZ) ** (2 * HIGH_ORDER))
    # The extension seldom is a whole number of samples at the target rate: shift by the rest, so
    # that sample 0 of the result lies on sample 0 of the signal.
    shift_s = edge / rate - round(edge * target_rate / rate) / target_rate
    response = gain * np.exp(2j * np.pi * f * shift_s) * (resampled_total / total)
    return response, bins
