"""Windows in, results out: quality, beats, and one inference for the whole batch."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.runtime import Runtime
from monitor.beats import Beats
from monitor.quality import Grade, Quality, Reason, assess
from monitor.results import ModelId, WindowResult
from monitor.window import Window

# The nets were trained on windows at least this long (shorter ones followed by zeros); below it a
# heart rate is a guess too.
SHORTEST_S = 5.0

# A device that is slower than it says gives windows longer than the network's by a percent or two
# (``monitor.ring``); leaving those samples unread is better than a second inference every time.
_UNREAD_SHARE = 0.03


@dataclass(frozen=True, slots=True, eq=False)
class _Read:
    """A window with its grade and beats, ready for the network if it is good."""

    window: Window
    grade: Grade
    beats: Beats | None
    inputs: NDArray[np.float32] | None


class Analyzer:
    """Analyses windows of any stream; the same for the daemon and for recordings.

    Args:
        runtime: the network; None if it cannot be used, and then only quality and beats are told.
            Only one thread may call ``analyze`` at a time.
    """

    def __init__(self, runtime: Runtime | None) -> None:
        self._runtime = runtime
        self.model: ModelId | None = None
        if runtime is not None:
            bundle = runtime.bundle
            self.model = ModelId(bundle.name, bundle.digest, bundle.classes)

    def analyze(self, windows: Sequence[Window]) -> list[WindowResult]:
        """One result a window, in their order."""
        read = [self._read(window) for window in windows]
        inputs = [r.inputs for r in read if r.inputs is not None]
        if not inputs or self._runtime is None:
            return [self._result(r, None) for r in read]
        probabilities = self._runtime.infer(np.concatenate(inputs)).probabilities
        results = []
        at = 0
        for r in read:
            pieces = 0 if r.inputs is None else len(r.inputs)
            # A window longer than the network's is read in pieces, and their mean is its verdict.
            verdict = probabilities[at : at + pieces].mean(axis=0) if pieces else None
            results.append(self._result(r, verdict))
            at += pieces
        return results

    def _read(self, window: Window) -> _Read:
        if window.duration_s < SHORTEST_S:
            return _Read(window, Grade(Quality.BAD, (Reason.GAP,)), None, None)
        grade, beats = assess(window)
        if not grade.good or self._runtime is None:
            return _Read(window, grade, beats, None)
        inputs = [
            self._runtime.prepare(piece, window.rate)
            for piece in pieces(window.microvolts, window.rate, self._runtime.bundle.window_s)
        ]
        return _Read(window, grade, beats, np.stack(inputs))

    def _result(self, read: _Read, probabilities: NDArray[np.float32] | None) -> WindowResult:
        window, beats = read.window, read.beats
        return WindowResult(
            stream=window.stream,
            start_ns=window.start_ns,
            duration_s=window.duration_s,
            grade=read.grade,
            heart_rate=beats.heart_rate if beats else None,
            longest_rr_s=beats.longest_rr_s if beats else None,
            r_peaks_s=beats.r_peaks_s if beats else np.empty(0),
            model=self.model if probabilities is not None else None,
            probabilities=probabilities,
        )


def pieces(samples: NDArray[np.float32], rate: float, length_s: float) -> list[NDArray[np.float32]]:
    """Cut [n] samples into equally spaced stretches of ``length_s``.

    As few as cover them, but for a sliver of one stretch.
    """
    length = round(length_s * rate)
    n = len(samples)
    if n <= length:
        return [samples]
    count = max(1, math.ceil(n / length - _UNREAD_SHARE))
    starts = np.linspace(0, n - length, count).round().astype(int)
    return [samples[start : start + length] for start in starts]
