"""What one graph keeps in memory: ``python -m bench.session_memory FILE`` prints megabytes.

In a process of its own, which imports what the daemon does and no torch. From one process to the
next it differs: the teacher of 50.5 million parameters takes about 243 MB in some and 290 to 320 in
most, so quote the median of several.
"""

import sys
from pathlib import Path

import numpy as np
import onnxruntime as ort
import psutil

from models.runtime import session_options

_INFERENCES = 20
_MB = 1e6


def grown_mb(path: Path) -> float:
    """What the resident set grows by, from before the session is opened to after inferences."""
    process = psutil.Process()
    before = process.memory_info().rss
    session = ort.InferenceSession(path, session_options(1), providers=["CPUExecutionProvider"])
    (given,) = session.get_inputs()
    shape = [n if isinstance(n, int) else 1 for n in given.shape]
    for _ in range(_INFERENCES):
        session.run(None, {given.name: np.zeros(shape, dtype=np.float32)})
    return float(process.memory_info().rss - before) / _MB


if __name__ == "__main__":
    sys.stdout.write(f"{grown_mb(Path(sys.argv[1])):.1f}\n")
