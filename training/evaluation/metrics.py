"""The six figures of the LiteHeart paper with a table per class, where labels may be unknown.

Class-wise figures (AUC, average precision, F1, F2) are taken over the records whose label of that
class is known, ranking figures over the records all of whose labels are. A class that has no
positive or no negative record has no AUC: it is named, and left out of every macro mean.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, logit
from scipy.stats import norm, rankdata
from sklearn.metrics import average_precision_score, coverage_error, label_ranking_loss

from training.errors import TrainingError

_NO_POSITIVES = 0.5
_RESAMPLED = 500


class Thresholds(NamedTuple):
    """Probability from which a class counts as positive, float64 [classes] each.

    F1 and F2 have thresholds of their own: at the best threshold for F1 precision and recall lie
    near each other, and F2 says little else than F1.
    """

    f1: NDArray[np.float64]
    f2: NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class ClassScore:
    """What is measured of one class.

    Attributes:
        name: abbreviation.
        positives: records that have it.
        negatives: records that are known not to have it.
        auc: area under the ROC curve.
        auc_low: lower end of its 95 % confidence interval, None where it has none (``delong``).
        auc_high: upper end.
        average_precision: area under the precision-recall curve, without interpolation.
        f1: at ``threshold_f1``.
        f2: F_beta of beta = 2 at ``threshold_f2``.
        threshold_f1: probability from which a record counts as positive for F1.
        threshold_f2: the same for F2.
    """

    name: str
    positives: int
    negatives: int
    auc: float
    auc_low: float | None
    auc_high: float | None
    average_precision: float
    f1: float
    f2: float
    threshold_f1: float
    threshold_f2: float


@dataclass(frozen=True, slots=True)
class Scores:
    """What is measured of a model on a set of records; all in 0..1 but ``coverage``.

    Attributes:
        records: how many were scored.
        ranked_records: how many of them have all labels known; the ranking figures are theirs.
        ranking_loss: share of wrongly ordered pairs of a class present and a class absent, the mean
            over records; None without ranked records or with a single class.
        coverage: how far down the ranked classes one must go to meet all that are present, the mean
            over records, counted from 1; None as above. In LiteHeart's tables it is counted from 1
            too: counted from 0, a PTB-XL value of 2.74 would need more wrong pairs than a ranking
            loss of 0.03 leaves.
        mean_average_precision: macro mean over ``per_class``, like the following.
        macro_auc: area under the ROC curve.
        macro_f1: F1.
        macro_f2: F_beta of beta = 2.
        per_class: in the order of the classes, those that could be scored.
        left_out: the classes without a positive or without a negative record.
    """

    records: int
    ranked_records: int
    ranking_loss: float | None
    coverage: float | None
    mean_average_precision: float
    macro_auc: float
    macro_f1: float
    macro_f2: float
    per_class: tuple[ClassScore, ...]
    left_out: tuple[str, ...]

    def figures(self) -> dict[str, float]:
        """The six figures by name, those that there are: what is averaged over seeds."""
        six = {
            "ranking_loss": self.ranking_loss,
            "coverage": self.coverage,
            "mean_average_precision": self.mean_average_precision,
            "macro_auc": self.macro_auc,
            "macro_f1": self.macro_f1,
            "macro_f2": self.macro_f2,
        }
        return {name: value for name, value in six.items() if value is not None}

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain values, for JSON or YAML."""
        plain = asdict(self)
        return {k: list(v) if isinstance(v, tuple) else v for k, v in plain.items()}


def score(
    labels: NDArray[np.floating],
    known: NDArray[np.bool_],
    probabilities: NDArray[np.floating],
    classes: Sequence[str],
    thresholds: Thresholds,
) -> Scores:
    """Score probabilities against labels.

    Ranking loss and coverage are those of Tsoumakas et al. 2010 (Mining multi-label data) as
    scikit-learn has them: ties count as wrong, and a record without any class present counts 0.

    Args:
        labels: [records, classes], 0 or 1.
        known: [records, classes], whether the label is known.
        probabilities: [records, classes]; any increasing score will do but for the thresholds.
        classes: abbreviations in that order.
        thresholds: chosen on other records, see ``choose_thresholds``.

    Raises:
        TrainingError: if shapes disagree, a probability is not finite, or no class has both a
            positive and a negative record.
    """
    present, known, probabilities = _checked(labels, known, probabilities)
    if (columns := present.shape[1]) != len(classes):
        raise TrainingError(f"classes: expected a name for each of {columns}, got {len(classes)}")
    per_class, left_out = [], []
    for c, name in enumerate(classes):
        rows = known[:, c]
        truth, p = present[rows, c], probabilities[rows, c]
        if truth.all() or not truth.any():
            left_out.append(name)
            continue
        auc, low, high = delong(truth, p)
        at_f1, at_f2 = float(thresholds.f1[c]), float(thresholds.f2[c])
        per_class.append(
            ClassScore(
                name=name,
                positives=int(truth.sum()),
                negatives=int((~truth).sum()),
                auc=auc,
                auc_low=low,
                auc_high=high,
                average_precision=float(average_precision_score(truth, p)),
                f1=_f_beta(truth, p >= at_f1, 1),
                f2=_f_beta(truth, p >= at_f2, 2),
                threshold_f1=at_f1,
                threshold_f2=at_f2,
            )
        )
    if not per_class:
        raise TrainingError("labels: no class has both a positive and a negative record")
    ranked = known.all(axis=1)
    can_rank = columns > 1 and bool(ranked.any())
    truth, p = present[ranked].astype(np.int8), probabilities[ranked]
    return Scores(
        records=len(present),
        ranked_records=int(ranked.sum()),
        ranking_loss=float(label_ranking_loss(truth, p)) if can_rank else None,
        coverage=float(coverage_error(truth, p)) if can_rank else None,
        mean_average_precision=float(np.mean([c.average_precision for c in per_class])),
        macro_auc=float(np.mean([c.auc for c in per_class])),
        macro_f1=float(np.mean([c.f1 for c in per_class])),
        macro_f2=float(np.mean([c.f2 for c in per_class])),
        per_class=tuple(per_class),
        left_out=tuple(left_out),
    )


def choose_thresholds(
    labels: NDArray[np.floating],
    known: NDArray[np.bool_],
    probabilities: NDArray[np.floating],
) -> Thresholds:
    """The best thresholds for F1 and for F2, for ``score``; arguments as ``thresholds``."""
    return Thresholds(
        thresholds(labels, known, probabilities, 1), thresholds(labels, known, probabilities, 2)
    )


def thresholds(
    labels: NDArray[np.floating],
    known: NDArray[np.bool_],
    probabilities: NDArray[np.floating],
    beta: float,
) -> NDArray[np.float64]:
    """Per class the threshold of greatest F_beta, exact over all that tell records apart.

    F_beta = (1 + beta²) TP / ((1 + beta²) TP + beta² FN + FP) (van Rijsbergen 1979, chapter 7). Of
    equals the highest is taken. The threshold lies half-way between the least probable record that
    counts as positive and the next one below it, so that rounding moves no record across.

    Args:
        labels: [records, classes], 0 or 1, of validation records, never of those reported on.
        known: [records, classes], whether the label is known.
        probabilities: [records, classes].
        beta: weight of recall against precision.

    Returns:
        float64 [classes]; 0.5 for a class without a positive record.

    Raises:
        TrainingError: if shapes disagree or a probability is not finite.
    """
    present, known, probabilities = _checked(labels, known, probabilities)
    # Unknown records go to the end, where they count neither as right nor as wrong.
    order = np.argsort(np.where(known, -probabilities, np.inf), axis=0, kind="stable")
    p = np.take_along_axis(probabilities, order, axis=0)
    is_known = np.take_along_axis(known, order, axis=0)
    hits = np.cumsum(np.take_along_axis(present & known, order, axis=0), axis=0)
    positives, squared = hits[-1], beta * beta
    with np.errstate(invalid="ignore"):
        f = (1 + squared) * hits / (squared * positives + np.cumsum(is_known, axis=0))
    below = np.concatenate((p[1:], p[-1:]))
    has_below = np.concatenate((is_known[1:], np.zeros_like(is_known[:1])))
    # Of records with the same probability all are positive or none: only the last may be the end.
    end = is_known & ~(has_below & (below == p))
    best = np.argmax(np.where(end, f, -1.0), axis=0)[None]
    last = np.take_along_axis(p, best, axis=0)[0]
    following = np.take_along_axis(np.where(has_below, below, p), best, axis=0)[0]
    middle = (last + following) / 2
    middle = np.where(middle > following, middle, last)
    return np.where(positives > 0, middle, _NO_POSITIVES)


def delong(
    truth: NDArray[np.bool_], scores: NDArray[np.floating]
) -> tuple[float, float | None, float | None]:
    """Area under the ROC curve and its 95 % confidence interval.

    The variance is that of DeLong et al. 1988 by the mid-ranks of Sun and Xu 2014; the interval is
    symmetric on the logit scale, which keeps it inside 0..1 (Pepe 2003).

    Args:
        truth: [records], with at least one True and one False.
        scores: [records], higher where True is more likely.

    Returns:
        The area and both ends. The ends are None where the variance cannot be estimated: fewer than
        two positives or negatives, or scores that tell them apart without an error.
    """
    positive, negative = scores[truth], scores[~truth]
    m, n = len(positive), len(negative)
    rank = rankdata(scores)
    over_negatives = (rank[truth] - rankdata(positive)) / n
    under_positives = 1 - (rank[~truth] - rankdata(negative)) / m
    area = float(over_negatives.mean())
    if min(m, n) < 2:
        return area, None, None
    variance = over_negatives.var(ddof=1) / m + under_positives.var(ddof=1) / n
    if not 0 < area < 1 or variance == 0:
        return area, None, None
    half = norm.ppf(0.975) * np.sqrt(variance) / (area * (1 - area))
    return area, float(expit(logit(area) - half)), float(expit(logit(area) + half))


def macro_auc_interval(
    labels: NDArray[np.floating], scores: NDArray[np.floating], seed: int = 1
) -> tuple[float, float]:
    """The 95 % confidence interval of the macro AUC over classes, by resampling records.

    The percentile bootstrap of Efron and Tibshirani 1993 (chapter 13), 500 times: classes share
    their records, so intervals of each (``delong``) do not add up to one of the mean.

    Args:
        labels: [records, classes], 0 or 1, all known; each class has both.
        scores: [records, classes], higher where the class is more likely.
        seed: of the resampling.

    Returns:
        Both ends. A class that a resample leaves without a positive is left out of it.
    """
    rng = np.random.default_rng(seed)
    present = np.asarray(labels) > 0.5
    areas = []
    for _ in range(_RESAMPLED):
        rows = rng.integers(len(present), size=len(present))
        truth = present[rows]
        positives = truth.sum(axis=0)
        both = (positives > 0) & (positives < len(rows))
        ranks = (rankdata(scores[rows][:, both], axis=0) * truth[:, both]).sum(axis=0)
        n = positives[both]
        areas.append(np.mean((ranks - n * (n + 1) / 2) / (n * (len(rows) - n))))
    low, high = np.percentile(areas, [2.5, 97.5])
    return float(low), float(high)


def _f_beta(truth: NDArray[np.bool_], verdict: NDArray[np.bool_], beta: float) -> float:
    hits, squared = int((truth & verdict).sum()), beta * beta
    return (1 + squared) * hits / (squared * int(truth.sum()) + int(verdict.sum()))


def _checked(
    labels: NDArray[np.floating], known: NDArray[np.bool_], probabilities: NDArray[np.floating]
) -> tuple[NDArray[np.bool_], NDArray[np.bool_], NDArray[np.float64]]:
    shapes = [np.shape(x) for x in (labels, known, probabilities)]
    if len(set(shapes)) != 1 or len(shapes[0]) != 2 or 0 in shapes[0]:
        raise TrainingError(
            "labels, known, probabilities: expected one shape [records, classes], not empty, got "
            + ", ".join(str(list(shape)) for shape in shapes)
        )
    p = np.asarray(probabilities, dtype=np.float64)
    if not np.isfinite(p).all():
        row, column = np.argwhere(~np.isfinite(p))[0]
        raise TrainingError(
            f"probabilities: record {row}, class {column}: expected a finite number, "
            f"got {p[row, column]}"
        )
    return np.asarray(labels) > 0.5, np.asarray(known, dtype=bool), p
