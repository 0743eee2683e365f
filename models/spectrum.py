"""What filters by the discrete Fourier transform have in common."""

import numpy as np
from numpy.typing import NDArray


def ramp(frequency: NDArray[np.float64], low: float, high: float) -> NDArray[np.float64]:
    """Rise by half a cosine from 0 at ``low`` to 1 at ``high``, [k]; all in Hz."""
    return 0.5 - 0.5 * np.cos(np.pi * np.clip((frequency - low) / (high - low), 0, 1))


def fast_size(n: int) -> int:
    """Find the smallest length ≥ ``n`` with no prime factor above 5, where a transform is quick."""
    while True:
        rest = n
        for prime in (2, 3, 5):
            while rest % prime == 0:
                rest //= prime
        if rest == 1:
            return n
        n += 1
