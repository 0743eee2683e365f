"""How a recording is cut into the windows that a bundle is shown."""

import numpy as np
from numpy.typing import NDArray

from models.runtime import Runtime

HOP_S = 5.0
_BATCH = 64


def cut(signal: NDArray[np.float32], rate: float, runtime: Runtime) -> list[NDArray[np.float32]]:
    """Windows every 5 s and one that ends with the recording; all of it if it is shorter."""
    length = round(runtime.bundle.manifest.window_s * rate)
    if len(signal) <= length:
        return [signal]
    starts = list(range(0, len(signal) - length + 1, round(HOP_S * rate)))
    if starts[-1] + length < len(signal):
        starts.append(len(signal) - length)
    return [signal[at : at + length] for at in starts]


def prepared(signal: NDArray[np.float32], rate: float, runtime: Runtime) -> NDArray[np.float32]:
    """The windows of a recording [n] in µV as the graph wants them, float32 [windows, time]."""
    return np.stack([runtime.prepare(x, rate) for x in cut(signal, rate, runtime)])


def probabilities(runtime: Runtime, windows: NDArray[np.float32]) -> NDArray[np.float32]:
    """Calibrated probabilities [windows, classes] of prepared windows, in batches."""
    parts = np.array_split(windows, max(1, len(windows) // _BATCH))
    return np.concatenate([runtime.infer(part).probabilities for part in parts])
