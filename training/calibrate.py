"""From logits to probabilities that mean what they say, and the thresholds on them."""

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import precision_recall_curve

_FEWEST = 5


def platt(
    logits: NDArray[np.float32], labels: NDArray[np.float32], known: NDArray[np.bool_]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Slope and offset per class of ``sigmoid(slope * logit + offset)`` (Platt 1999).

    Args:
        logits: [records, classes] on records the net was not trained on.
        labels: [records, classes], 0 or 1.
        known: [records, classes], whether the label is known.
    """
    slope = np.ones(logits.shape[1], dtype=np.float32)
    offset = np.zeros(logits.shape[1], dtype=np.float32)
    for c in range(logits.shape[1]):
        rows = known[:, c]
        fit = LogisticRegression(C=10.0).fit(logits[rows, c : c + 1], labels[rows, c])
        # A class so rare that its fit turns round would invert the ranking the net learned.
        if fit.coef_[0, 0] > 0:
            slope[c], offset[c] = fit.coef_[0, 0], fit.intercept_[0]
    return slope, offset


def at_precision(
    probability: NDArray[np.float32], label: NDArray[np.float32], wanted: float
) -> float | None:
    """The lowest threshold whose precision is ``wanted`` or better; None if there is none.

    Only thresholds that at least five records reach are considered: fewer prove nothing.
    """
    precision, _, thresholds = precision_recall_curve(label, probability)
    reached = len(probability) - np.searchsorted(np.sort(probability), thresholds)
    good = np.flatnonzero((precision[:-1] >= wanted) & (reached >= _FEWEST))
    return float(np.clip(thresholds[good[0]], 0.02, 0.98)) if len(good) else None
