"""Signals to play."""

import numpy as np
from numpy.typing import NDArray


def synthetic(seconds: float = 60.0, rate: float = 129.9, rr_s: float = 0.8) -> NDArray[np.float32]:
    """A clean ECG in µV, of Gaussians for P, Q, R, S and T."""
    phase = np.arange(round(seconds * rate)) / rate % rr_s
    signal = np.zeros_like(phase)
    waves = ((0.20, 90, 0.025), (0.345, -80, 0.010), (0.37, 1100, 0.012), (0.395, -180, 0.010))
    for at, height, width in (*waves, (0.60, 250, 0.045)):
        signal += height * np.exp(-0.5 * ((phase - at) / width) ** 2)
    return signal.astype(np.float32)


def resampled(
    signal: NDArray[np.floating], rate: float, to_rate: float = 129.9
) -> NDArray[np.float32]:
    """A recording at the true rate of a strap."""
    seconds = np.arange(int(len(signal) / rate * to_rate)) / to_rate
    return np.interp(seconds, np.arange(len(signal)) / rate, signal).astype(np.float32)
