"""One window split into the bands a QRS detector looks at, without delay, by one transform.

Everything after this module runs at about 125 Hz whatever the sensor's rate, because the spectrum
is cut before the inverse transform: one tuning for every device, and a 2 kHz window costs no more.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from models.spectrum import fast_size, ramp

RATE = 125.0
"""What the bands are sampled at, in Hz, to within the rounding of a transform's length."""

LOWEST_RATE = 50.0
"""The least a QRS complex can be seen at, in Hz."""

_SHORTEST_S = 0.2
_PAD_S = 1.0
# Corners in Hz: nothing below the first, all between the second and third, nothing above the last.
_ECG = (0.3, 0.9, 35.0, 45.0)
# Where a QRS has more energy than T and P waves (Elgendi et al. 2010 put the optimum at 8-20 Hz),
# widened at both ends: a paced beat has little above 12 Hz, a narrow one much above 20.
_QRS = (5.0, 9.0, 26.0, 36.0)


@dataclass(frozen=True, slots=True, eq=False)
class Bands:
    """A window's bands. All arrays are float64 [m], in units of the window's largest deviation.

    Attributes:
        rate: samples per second of the bands, in Hz.
        ecg: the signal between 0.9 and 35 Hz.
        qrs: amplitude (modulus of the analytic signal) between 9 and 26 Hz; blind to polarity.
    """

    rate: float
    ecg: NDArray[np.float64]
    qrs: NDArray[np.float64]


def split(samples: NDArray[np.floating], rate: float) -> Bands | None:
    """Filter a window into its bands.

    The window is mirrored at its ends, so that a beat at the edge meets a beat and not a step.

    Args:
        samples: [n], any unit; all must be finite.
        rate: samples per second, in Hz.

    Returns:
        The bands, [m] with m = about n · 125 / rate; None if the samples do not vary
        or last less than a QRS complex, 0.2 s.

    Raises:
        ValueError: ``rate`` is below 50 Hz, where the QRS band is not in the samples.
    """
    if not rate >= LOWEST_RATE:
        raise ValueError(
            f"a QRS complex takes {LOWEST_RATE:g} samples per second to be seen, not {rate:g}"
        )
    n = len(samples)
    if n < _SHORTEST_S * rate:
        return None
    x = samples.astype(np.float64)
    # Scaled before anything is subtracted: a float64 near its limit must not overflow.
    largest = max(float(x.max()), -float(x.min()))
    if largest == 0:
        return None
    x /= largest
    x -= x.mean()
    largest = float(np.abs(x).max())
    if largest < 1e-12:
        return None
    x /= largest
    p = _plan(n, rate)
    padded = np.empty(p.size)
    padded[p.pad : p.pad + n] = x
    padded[: p.pad] = x[p.pad : 0 : -1]
    padded[p.pad + n : 2 * p.pad + n] = x[-2 : -p.pad - 2 : -1]
    padded[2 * p.pad + n :] = padded[2 * p.pad + n - 1]
    # A transform sees a ring: without a step where its ends meet there is nothing to ring.
    padded -= np.linspace(padded[0], padded[-1], p.size)
    spectrum = np.fft.rfft(padded)[: p.ecg.size]
    ecg = np.fft.irfft(spectrum * p.ecg, p.out_size)
    qrs = np.abs(np.fft.ifft(spectrum * p.qrs, p.out_size))
    inside = slice(p.start, p.stop)
    return Bands(p.out_rate, ecg[inside], qrs[inside])


@dataclass(frozen=True, slots=True, eq=False)
class _Plan:
    """What is the same for every window of a length and rate."""

    pad: int
    size: int
    out_size: int
    out_rate: float
    start: int
    stop: int
    ecg: NDArray[np.float64]
    qrs: NDArray[np.float64]


@lru_cache(maxsize=32)
def _plan(n: int, rate: float) -> _Plan:
    pad = min(max(1, round(_PAD_S * rate)), n - 1)
    size = fast_size(n + 2 * pad)
    out_size = fast_size(round(size * RATE / rate))
    kept = min(size // 2, out_size // 2 - 1) + 1
    frequency = np.arange(kept, dtype=np.float64) * np.float64(rate / size)
    gain = out_size / size
    out_rate = out_size * rate / size
    start = round(pad * out_rate / rate)
    return _Plan(
        pad=pad,
        size=size,
        out_size=out_size,
        out_rate=out_rate,
        start=start,
        stop=start + max(1, round(n * out_rate / rate)),
        ecg=gain * _band(frequency, _ECG),
        # Twice: the analytic signal has no negative frequencies.
        qrs=2 * gain * _band(frequency, _QRS),
    )


def _band(
    frequency: NDArray[np.float64], corners: tuple[float, float, float, float]
) -> NDArray[np.float64]:
    a, b, c, d = corners
    return ramp(frequency, a, b) * (1 - ramp(frequency, c, d))
