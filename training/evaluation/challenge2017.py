"""The score of the PhysioNet/CinC Challenge 2017, and a verdict on a record from its windows."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from training.errors import TrainingError

KINDS = ("N", "A", "O", "~")


@dataclass(frozen=True, slots=True)
class Score2017:
    """The Challenge's figures.

    Attributes:
        f1: mean of the next three, the Challenge's score; F1 of noise is not in it.
        f1_normal: F1 of N.
        f1_af: F1 of A.
        f1_other: F1 of O.
        f1_noisy: F1 of ~.
        confusion: records by reference (row) and verdict (column), in the order N, A, O, ~.
    """

    f1: float
    f1_normal: float
    f1_af: float
    f1_other: float
    f1_noisy: float
    confusion: tuple[tuple[int, ...], ...]

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain values, for JSON or YAML."""
        return {**asdict(self), "confusion": [list(row) for row in self.confusion]}


def score2017(reference: Sequence[str], verdict: Sequence[str]) -> Score2017:
    """Score verdicts as the Challenge does (Clifford et al. 2017).

    F1n = 2 Nn / (ΣN + Σn), with Nn the records that are N and called N, ΣN those that are N and
    Σn those called N; the same of A, O and ~. A kind that neither is nor is called counts 0.

    Args:
        reference: N, A, O or ~ a record.
        verdict: the same, in the same order.

    Raises:
        TrainingError: if their numbers differ, are 0, or another kind occurs.
    """
    if len(reference) != len(verdict) or not reference:
        raise TrainingError(
            f"Challenge 2017: expected a verdict a record, got {len(reference)} references and "
            f"{len(verdict)} verdicts"
        )
    place = {kind: i for i, kind in enumerate(KINDS)}
    confusion = np.zeros((4, 4), dtype=np.int64)
    for row, (is_, called) in enumerate(zip(reference, verdict, strict=True)):
        if is_ not in place or called not in place:
            raise TrainingError(
                f"Challenge 2017: record {row}: expected N, A, O or ~, got {is_!r} and {called!r}"
            )
        confusion[place[is_], place[called]] += 1
    f1 = 2 * confusion.diagonal() / np.maximum(confusion.sum(axis=0) + confusion.sum(axis=1), 1)
    return Score2017(
        f1=float(f1[:3].mean()),
        f1_normal=float(f1[0]),
        f1_af=float(f1[1]),
        f1_other=float(f1[2]),
        f1_noisy=float(f1[3]),
        confusion=tuple(tuple(row) for row in confusion.tolist()),
    )


def record_features(
    logits: NDArray[np.floating], record: NDArray[np.integer]
) -> NDArray[np.float64]:
    """Mean and greatest logit of every class over the windows of a record.

    Args:
        logits: [windows, classes].
        record: [windows], the number of the record each is of: 0 … records - 1.

    Returns:
        float64 [records, 2 · classes], means before maxima.

    Raises:
        TrainingError: if shapes disagree or a record has no window.
    """
    if len(logits) != len(record) or not len(record):
        raise TrainingError(
            f"windows: expected the record of each, got {len(logits)} windows and {len(record)}"
        )
    count = np.bincount(record)
    if not count.all():
        raise TrainingError(f"record {int(np.argmin(count))}: expected at least one window")
    total = np.zeros((len(count), logits.shape[1]))
    greatest = np.full_like(total, -np.inf)
    np.add.at(total, record, logits)
    np.maximum.at(greatest, record, logits)
    return np.concatenate((total / count[:, None], greatest), axis=1)


class RecordVerdict:
    """Multinomial logistic regression on standardised ``record_features``.

    The fit has one optimum and no randomness.

    Args:
        features: [records, features] of training records.
        reference: N, A, O or ~ a record.

    Raises:
        TrainingError: if their numbers differ or there is only one kind.
    """

    def __init__(self, features: NDArray[np.floating], reference: Sequence[str]) -> None:
        if len(features) != len(reference) or len(set(reference)) < 2:
            raise TrainingError(
                "Challenge 2017: expected training records of two or more kinds, got "
                f"{len(features)} records and {len(reference)} references of "
                f"{len(set(reference))} kinds"
            )
        self._fit = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=2000))
        self._fit.fit(features, list(reference))

    def __call__(self, features: NDArray[np.floating]) -> list[str]:
        """The most probable kind of each record of [records, features]."""
        return [str(kind) for kind in self._fit.predict(features)]
