"""Who is trained on, who validates, who tests, and whose labels are used."""

import hashlib

import numpy as np
from numpy.typing import NDArray

from training.errors import TrainingError

_FOLDS = {"train": 0, "validation": 1, "test": 2}


def hashed_split(name: str) -> str:
    """Train (70 %), validation (10 %) or test (20 %), fixed by a hash of the patient's name."""
    place = int(hashlib.sha256(name.encode()).hexdigest(), 16) % 10
    return "test" if place < 2 else "validation" if place == 2 else "train"


def hashed_fold(name: str) -> int:
    """The same as a fold: 0 train, 1 validation, 2 test."""
    return _FOLDS[hashed_split(name)]


def labelled(rows: NDArray[np.integer], ratio: float, seed: int) -> NDArray[np.bool_]:
    """Which of the records ``rows`` keep their labels; the others count as unlabelled.

    With one seed the records of a smaller ratio are among those of a larger one.

    Args:
        rows: indices of distinct records; their order has no bearing on who is chosen.
        ratio: part that keeps its labels, 0 < ratio <= 1; at least one record does.
        seed: another seed chooses other records.

    Returns:
        bool [rows].

    Raises:
        TrainingError: a ratio out of range.
    """
    if not 0 < ratio <= 1:
        raise TrainingError(f"label ratio {ratio:g}; expected more than 0 and at most 1")
    order = np.argsort(rows, kind="stable")
    chosen = np.random.default_rng(seed).permutation(len(rows))
    mask = np.zeros(len(rows), dtype=bool)
    mask[order[chosen[: max(1, round(ratio * len(rows)))]]] = True
    return mask
