"""Means over seeds, and differences between methods that ran with the same seeds."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import t

from training.errors import TrainingError


@dataclass(frozen=True, slots=True)
class Summary:
    """One figure over several runs.

    Attributes:
        runs: how many.
        mean: arithmetic mean.
        deviation: sample standard deviation (n - 1), None of a single run.
        low: lower end of the 95 % confidence interval of the mean (Student's t), None likewise.
        high: upper end.
    """

    runs: int
    mean: float
    deviation: float | None
    low: float | None
    high: float | None


def summary(runs: Sequence[Mapping[str, float]]) -> dict[str, Summary]:
    """Every figure of some runs of one method, by name.

    Args:
        runs: one mapping a seed, all with the same keys (``Scores.figures``).

    Raises:
        TrainingError: if there is no run, one lacks a figure, or one is not finite.
    """
    return {name: _of(values) for name, values in _columns(runs).items()}


def paired(
    ours: Sequence[Mapping[str, float]], others: Sequence[Mapping[str, float]]
) -> dict[str, Summary]:
    """How much higher the figures of one method are than another's, seed by seed.

    What a seed does to both (the labelled records it draws, say) cancels out. An interval that does
    not hold 0 is a two-sided paired t-test at 5 %.

    Args:
        ours: one mapping a seed.
        others: the other method's, in the same order of seeds.

    Raises:
        TrainingError: as ``summary``, or if the numbers of runs or the names of figures differ.
    """
    if len(ours) != len(others):
        raise TrainingError(
            f"paired difference: expected as many runs of both, got {len(ours)} and {len(others)}"
        )
    a, b = _columns(ours), _columns(others)
    if a.keys() != b.keys():
        raise TrainingError(
            f"paired difference: not in both: {', '.join(sorted(a.keys() ^ b.keys()))}"
        )
    return {name: _of(a[name] - b[name]) for name in a}


def _columns(runs: Sequence[Mapping[str, float]]) -> dict[str, NDArray[np.float64]]:
    if not runs:
        raise TrainingError("runs: expected at least one")
    for i, run in enumerate(runs):
        if run.keys() != runs[0].keys():
            raise TrainingError(
                f"run {i}: not in it and in run 0 alike: "
                + ", ".join(sorted(run.keys() ^ runs[0].keys()))
            )
        for name, value in run.items():
            if not np.isfinite(value):
                raise TrainingError(f"run {i}: {name}: expected a finite number, got {value}")
    return {name: np.array([run[name] for run in runs], dtype=np.float64) for name in runs[0]}


def _of(values: NDArray[np.float64]) -> Summary:
    n, mean = len(values), float(values.mean())
    if n == 1:
        return Summary(1, mean, None, None, None)
    deviation = float(values.std(ddof=1))
    half = float(t.ppf(0.975, n - 1)) * deviation / n**0.5
    return Summary(n, mean, deviation, mean - half, mean + half)
