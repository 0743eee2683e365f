"""How good restored leads are: as signals, and by what a twelve-lead teacher says of them."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

from training.errors import TrainingError


@dataclass(frozen=True, slots=True)
class LeadQuality:
    """One lead of the restoration.

    Attributes:
        name: of the lead.
        mse: mean squared error, in squared z-score units: 1 is what a flat line has.
        correlation: Pearson's, of each record's time course, the mean over records; None if no
            record has both sides that move.
    """

    name: str
    mse: float
    correlation: float | None


@dataclass(frozen=True, slots=True)
class Restoration:
    """All leads.

    Attributes:
        records: how many.
        source: the lead that was measured.
        mse: mean over the leads other than the source.
        correlation: the same of the correlation.
        leads: one each, the source among them.
    """

    records: int
    source: str
    mse: float
    correlation: float | None
    leads: tuple[LeadQuality, ...]

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain values, for JSON or YAML."""
        return {**asdict(self), "leads": [asdict(lead) for lead in self.leads]}


@dataclass(frozen=True, slots=True)
class ClassAgreement:
    """How far the teacher says the same of a class on restored leads as on real ones.

    Attributes:
        name: abbreviation.
        agreement: share of records with the same verdict at the threshold.
        kappa: Cohen's, agreement beyond chance; None if both verdicts are the same for all records.
        difference: mean absolute difference of the probabilities.
        auc_real: AUC of the teacher on real leads; None without a positive or a negative record.
        auc_restored: its AUC on restored leads.
    """

    name: str
    agreement: float
    kappa: float | None
    difference: float
    auc_real: float | None
    auc_restored: float | None


@dataclass(frozen=True, slots=True)
class Agreement:
    """All classes, and the means over those that have the figure.

    Attributes:
        agreement: as in ``ClassAgreement``, the mean over classes, like the others.
        kappa: Cohen's.
        difference: of the probabilities.
        auc_real: macro AUC on real leads.
        auc_restored: macro AUC on restored leads, over the same classes.
        per_class: one each.
    """

    agreement: float
    kappa: float | None
    difference: float
    auc_real: float | None
    auc_restored: float | None
    per_class: tuple[ClassAgreement, ...]

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain values, for JSON or YAML."""
        return {**asdict(self), "per_class": [asdict(c) for c in self.per_class]}


def quality(
    real: NDArray[np.floating], restored: NDArray[np.floating], leads: Sequence[str], source: str
) -> Restoration:
    """Compare restored with real leads.

    Args:
        real: [records, leads, time], z-scored.
        restored: the same shape.
        leads: their names in order.
        source: the lead that was given to the restoration net.

    Raises:
        TrainingError: if shapes disagree or ``source`` is not among the leads.
    """
    if real.shape != restored.shape or real.ndim != 3 or real.shape[1] != len(leads):
        raise TrainingError(
            f"restored leads: expected [records, {len(leads)}, time] twice, "
            f"got {list(real.shape)} and {list(restored.shape)}"
        )
    if source not in leads:
        raise TrainingError(f"source lead {source}: expected one of {', '.join(leads)}")
    # Lead by lead, so that the double-precision copies stay small.
    each = tuple(_lead(name, real[:, i], restored[:, i]) for i, name in enumerate(leads))
    others = [lead for lead in each if lead.name != source]
    return Restoration(
        records=len(real),
        source=source,
        mse=float(np.mean([lead.mse for lead in others])),
        correlation=_mean([lead.correlation for lead in others]),
        leads=each,
    )


def agreement(
    real: NDArray[np.floating],
    restored: NDArray[np.floating],
    thresholds: NDArray[np.floating],
    labels: NDArray[np.floating],
    known: NDArray[np.bool_],
    classes: Sequence[str],
) -> Agreement:
    """Compare a teacher's verdicts on restored and on real leads.

    Cohen's kappa = (p_o - p_e) / (1 - p_e) (Cohen 1960), p_o the share of equal verdicts, p_e the
    share that two independent judges with the same numbers of positives would have.

    Args:
        real: the teacher's probabilities on real leads, [records, classes].
        restored: its probabilities on restored leads.
        thresholds: [classes], from which it counts as positive.
        labels: [records, classes], 0 or 1; only for the AUC.
        known: [records, classes], whether the label is known; only for the AUC.
        classes: abbreviations in that order.

    Raises:
        TrainingError: if shapes disagree.
    """
    shapes = [np.shape(x) for x in (real, restored, labels, known)]
    if len(set(shapes)) != 1 or shapes[0][1:] != (len(classes),):
        raise TrainingError(
            f"teacher's verdicts: expected [records, {len(classes)}] four times, got "
            + ", ".join(str(list(shape)) for shape in shapes)
        )
    each = tuple(
        _class(name, real[:, c], restored[:, c], float(thresholds[c]), labels[:, c], known[:, c])
        for c, name in enumerate(classes)
    )
    return Agreement(
        agreement=float(np.mean([c.agreement for c in each])),
        kappa=_mean([c.kappa for c in each]),
        difference=float(np.mean([c.difference for c in each])),
        auc_real=_mean([c.auc_real for c in each]),
        auc_restored=_mean([c.auc_restored for c in each]),
        per_class=each,
    )


def _lead(name: str, real: NDArray[np.floating], restored: NDArray[np.floating]) -> LeadQuality:
    x, y = real.astype(np.float64), restored.astype(np.float64)
    mse = float(np.square(x - y).mean())
    x -= x.mean(axis=1, keepdims=True)
    y -= y.mean(axis=1, keepdims=True)
    energy = np.sqrt(np.square(x).sum(axis=1) * np.square(y).sum(axis=1))
    moves = energy > 0
    correlation = (x * y).sum(axis=1)[moves] / energy[moves]
    return LeadQuality(name, mse, float(correlation.mean()) if moves.any() else None)


def _class(
    name: str,
    real: NDArray[np.floating],
    restored: NDArray[np.floating],
    threshold: float,
    labels: NDArray[np.floating],
    known: NDArray[np.bool_],
) -> ClassAgreement:
    a, b = real >= threshold, restored >= threshold
    observed = float((a == b).mean())
    p, q = float(a.mean()), float(b.mean())
    chance = p * q + (1 - p) * (1 - q)
    truth = labels[known] > 0.5
    both = bool(truth.any()) and not bool(truth.all())
    return ClassAgreement(
        name=name,
        agreement=observed,
        kappa=(observed - chance) / (1 - chance) if chance < 1 else None,
        difference=float(np.abs(real.astype(np.float64) - restored).mean()),
        auc_real=float(roc_auc_score(truth, real[known])) if both else None,
        auc_restored=float(roc_auc_score(truth, restored[known])) if both else None,
    )


def _mean(values: Sequence[float | None]) -> float | None:
    there = [v for v in values if v is not None]
    return float(np.mean(there)) if there else None
