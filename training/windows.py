"""How a recording is cut into the windows that a bundle is shown."""

import numpy as np
from numpy.typing import NDArray

from models.runtime import Runtime

HOP_S = 5.0


def cut(signal: NDArray[np.float32], rate: float, runtime: Runtime) -> list[NDArray[np.float32]]:
    """Windows every 5 s and one that ends with the recording; all of it if it is shorter."""
    length = round(runtime.bundle.manifest.window_s * rate)
    if len(signal) <= length:
        return [signal]
    starts = list(range(0, len(signal) - length + 1, round(HOP_S * rate)))
    if starts[-1] + length < len(signal):
        starts.append(len(signal) - length)
    return [signal[at : at + length] for at in starts]
