"""Teacher, baseline and student: one task of ``fit``, with or without a method of distillation."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score, roc_auc_score
from torch import Tensor, nn

from models.leads import LEADS
from training.balance import freeze_features, settle, weights_of_labels
from training.config import RunConfig
from training.errors import TrainingError
from training.fit import device, mixed
from training.losses import Distillation, Outputs, Shape, Targets, methods
from training.mixing import region_mix
from training.networks import classifier, width_of
from training.pool import Pool, Shuffle
from training.stages.inputs import STRETCH, WHOLE, AllLeads, Batch, Inputs, OneLead, RestoredLeads
from training.teaching import Teacher

_BATCH = 128


@dataclass(frozen=True, slots=True, eq=False)
class _Side:
    """One half of a step's batch, labelled or unlabelled, after mixing."""

    batch: Batch
    inputs: Tensor
    real: Tensor
    labels: Tensor
    known: Tensor
    complete: Tensor
    is_mixed: bool


class Classifier:
    """The task of ``fit``.

    The loss is the masked binary cross-entropy of the labelled records plus, for a student with a
    method, the method's term over the labelled and, if it uses them, the unlabelled records
    (LiteHeart, equation 21). The teacher sees the real leads, the student what is left of them.

    Args:
        config: of the run.
        train: all training records.
        validation: records to choose on.
        labelled: bool [records of ``train``]: whose labels may be used.
    """

    def __init__(
        self, config: RunConfig, train: Pool, validation: Pool, labelled: NDArray[np.bool_]
    ) -> None:
        self._config, self._train, self._validation = config, train, validation
        classes = train.classes
        self._generator = torch.Generator().manual_seed(config.seed)
        self.network = classifier(config, len(classes)).to(device())
        self._teacher = Teacher(config.teachers, classes) if config.method else None
        if config.method and not train.complete.any():
            raise TrainingError(
                "data: no training record has all twelve leads, which the teacher of a method sees"
            )
        self._method = self._make_method(len(classes))
        # A row without any known label has nothing to teach a label loss.
        has_label = labelled & (train.known.sum(axis=1) > 0)
        _check_classes(train, has_label)
        if not any(True for _ in _judged(validation)):
            raise TrainingError("data: no class has both a positive and a negative to validate on")
        self._weights = weights_of_labels(train, has_label, config.rebalance or 0).to(device())
        if config.rebalance is not None:
            freeze_features(self.network)
        size = min(config.schedule.batch, int(has_label.sum()))
        self._labelled = Shuffle(np.flatnonzero(has_label), size, config.seed)
        rest = np.flatnonzero(~has_label & train.complete)
        self._unlabelled = (
            Shuffle(rest, max(2, round(config.unlabelled * size)), config.seed + 1)
            if self._method is not None and self._method.unlabelled and len(rest)
            else None
        )
        mixes = self._method is not None and self._method.mixes
        self._share_mixed = float(mixes) if config.mix is None else config.mix
        self._inputs = make_inputs(config, train, self._generator)
        self._quiet_inputs = make_inputs(config, validation, None)
        # An unmixed window is the same whenever it comes, so the teacher need see it only once; of
        # a stretch it says what it says of the whole, which it sees better than the stretch.
        self._said = (
            self._teacher.of_all(train)
            if self._teacher is not None and self._share_mixed < 1
            else None
        )

    @property
    def trained(self) -> nn.Module:
        """The network, and what its method learns beside it."""
        parts = nn.ModuleDict({"network": self.network})
        if self._method is not None:
            parts["method"] = self._method
        return parts

    def loss(self) -> dict[str, Tensor]:
        """Terms of the next batch's loss."""
        sides = [self._side(self._labelled.take())]
        if self._unlabelled is not None:
            # One pass takes both, so both are equally long.
            sides.append(self._side(self._unlabelled.take(), sides[0].batch.cut))
        if self._config.rebalance is not None:
            settle(self.network)
        with mixed():
            # One pass for both, so that batch normalization sees all records alike.
            features = self.network.features(torch.cat([s.inputs for s in sides]).to(device()))  # type: ignore[operator]
            logits = self.network.classify(features)  # type: ignore[operator]
        parts = [s.inputs.shape[0] for s in sides]
        said = [
            Outputs(y, z)
            for y, z in zip(logits.float().split(parts), features.float().split(parts), strict=True)
        ]
        labels, known = sides[0].labels, sides[0].known
        terms = {"labels": masked_cross_entropy(said[0].logits, labels, known, self._weights)}
        if self._method is not None:
            for name, side, ours in zip(("method", "unlabelled"), sides, said, strict=False):
                terms[name] = self._config.weight * self._distil(side, ours)
        terms["loss"] = torch.stack(list(terms.values())).sum()
        return terms

    def validate(self) -> dict[str, float]:
        """Macro AUC (``score``) and mean average precision, data set by data set."""
        logits = predict(self.network, self._quiet_inputs, self._validation)
        if not np.isfinite(logits).all():
            return {"score": float("nan"), "map": float("nan")}
        auc, precision = [], []
        for rows, c in _judged(self._validation):
            truth = self._validation.labels[rows, c]
            auc.append(roc_auc_score(truth, logits[rows, c]))
            precision.append(average_precision_score(truth, logits[rows, c]))
        return {"score": float(np.mean(auc)), "map": float(np.mean(precision))}

    def state(self) -> dict[str, Any]:
        """Rows given and the generator."""
        return {
            "labelled": self._labelled.given,
            "unlabelled": self._unlabelled.given if self._unlabelled is not None else 0,
            "generator": self._generator.get_state(),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Take them up again."""
        self._labelled.given = state["labelled"]
        if self._unlabelled is not None:
            self._unlabelled.given = state["unlabelled"]
        self._generator.set_state(state["generator"].cpu())

    def _make_method(self, classes: int) -> Distillation | None:
        config = self._config
        if config.method is None:
            return None
        assert self._teacher is not None
        known = methods()
        if config.method not in known:
            raise TrainingError(
                f"method: {config.method!r} is not known; expected one of {', '.join(known)}"
            )
        shape = Shape(width_of(self.network), self._teacher.width, classes, len(self._train))
        try:
            return known[config.method](shape, **config.options).to(device())
        except TypeError as error:
            raise TrainingError(f"options of {config.method}: {error}") from error

    def _side(self, rows: NDArray[np.int64], cut: slice | None = None) -> _Side:
        """Fetch a half batch, make the student's view of it, and cut and mix both alike.

        Without a ``cut`` it is drawn.
        """
        windows = self._train.windows(rows, self._generator)
        real = self._train.leads(rows, windows)
        batch = Batch(self._train, rows, windows, cut or self._cut(real.shape[-1]))
        inputs = self._inputs(real, batch)
        real = real[..., batch.cut]
        labels, known = self._train.targets(rows)
        complete = torch.from_numpy(self._train.complete[rows])
        is_mixed = self._happens(self._share_mixed)
        if is_mixed:
            groups = torch.from_numpy(self._train.groups[rows])
            mix = region_mix(groups, len(LEADS), real.shape[-1], self._generator)
            real, inputs = mix.signals(real), mix.signals(inputs)
            labels, known = mix.labels(labels), mix.known(known)
            complete = complete & complete[mix.partner]
        return _Side(
            batch, inputs, real, labels.to(device()), known.to(device()), complete, is_mixed
        )

    def _cut(self, time: int) -> slice:
        """The stretch of this half batch's records that is shown."""
        if time <= STRETCH or not self._happens(self._config.crop):
            return WHOLE
        first = int(torch.randint(time - STRETCH + 1, (), generator=self._generator))
        return slice(first, first + STRETCH)

    def _happens(self, share: float) -> bool:
        """Whether a half batch is of this share; drawn only where it is neither all nor none."""
        if share in {0, 1}:
            return share == 1
        return float(torch.rand((), generator=self._generator)) < share

    def _distil(self, side: _Side, ours: Outputs) -> Tensor:
        """The method's term over the records whose twelve leads the teacher can see."""
        assert self._teacher is not None
        assert self._method is not None
        use = side.complete
        if not use.any():
            return ours.logits.sum() * 0
        if self._said is not None and not side.is_mixed:
            batch = side.batch
            places = torch.from_numpy(batch.pool.places(batch.rows, batch.windows))[use]
            theirs = Outputs(
                self._said.logits[places].to(device()), self._said.features[places].to(device())
            )
        else:
            theirs = self._teacher(side.real[use])
        use = use.to(device())
        targets = Targets(
            side.labels[use],
            side.known[use] * self._teacher.knows,
            torch.from_numpy(side.batch.rows).to(device())[use],
        )
        result: Tensor = self._method(
            Outputs(ours.logits[use], ours.features[use]), theirs, targets
        )
        return result


def reads_restored(config: RunConfig) -> bool:
    """Whether a student sees restored leads, because it or its method wants to."""
    asks = config.method is not None and methods()[config.method].restores
    return config.restores or asks


def make_inputs(config: RunConfig, pool: Pool, generator: torch.Generator | None) -> Inputs:
    """The view of a record that a run's network has; without a generator, free of noise."""
    if config.network == "teacher":
        return AllLeads()
    for part in pool.parts:
        if config.lead not in part.cache.leads:
            raise TrainingError(f"{part.cache.path}: has no lead {config.lead}; expected it there")
    if not reads_restored(config):
        return OneLead(config.lead)
    if config.restoration is None:
        raise TrainingError("restoration: a student that reads restored leads needs this run")
    flip = frozenset(i for i, p in enumerate(pool.parts) if len(p.stored) < len(LEADS))
    return RestoredLeads(
        Path(config.restoration),
        config.lead,
        generator if config.augment else None,
        flip,
        resample=config.resample,
        faults=config.faults,
    )


def masked_cross_entropy(logits: Tensor, labels: Tensor, known: Tensor, weights: Tensor) -> Tensor:
    """L_Y (LiteHeart, equations 2 and 11), the mean over what is known.

    Args:
        logits: [batch, classes].
        labels: the same, 0 to 1.
        known: the same, 0 where there is no telling.
        weights: of a negative and of a positive label, [2, classes].
    """
    each = torch.lerp(weights[0], weights[1], labels) * known
    loss = nn.functional.binary_cross_entropy_with_logits(logits, labels, each, reduction="sum")
    return loss / known.sum().clamp(min=1)


def predict(
    network: nn.Module,
    inputs: Inputs,
    pool: Pool,
    *,
    rows: NDArray[np.int64] | None = None,
    windows: NDArray[np.int64] | None = None,
) -> NDArray[np.float32]:
    """Logits [rows, classes] of these windows of these rows; of every record's first, if none."""
    network.eval()
    if rows is None or windows is None:
        rows = np.arange(len(pool))
        windows = pool.windows(rows)
    parts = []
    for at in np.array_split(np.arange(len(rows)), max(1, len(rows) // _BATCH)):
        leads = inputs(pool.leads(rows[at], windows[at]), Batch(pool, rows[at], windows[at], WHOLE))
        with torch.inference_mode(), mixed():
            parts.append(network(leads.to(device())).float().cpu().numpy())
    return np.concatenate(parts)


def predict_records(network: nn.Module, inputs: Inputs, pool: Pool) -> NDArray[np.float32]:
    """Logits [records, classes], of a record the means over its windows."""
    rows, windows = pool.every_window()
    each = predict(network, inputs, pool, rows=rows, windows=windows)
    totals = np.zeros((len(pool), each.shape[1]), dtype=np.float32)
    np.add.at(totals, rows, each)
    totals /= np.bincount(rows)[:, None]
    return totals


def _judged(pool: Pool) -> Iterator[tuple[NDArray[np.intp], int]]:
    """Rows and class wherever a data set has a positive and a negative to tell apart."""
    for at in range(len(pool.parts)):
        here = pool.groups == at
        for c in range(len(pool.classes)):
            rows = np.flatnonzero(here & (pool.known[:, c] > 0))
            if 0 < pool.labels[rows, c].sum() < len(rows):
                yield rows, c


def _check_classes(pool: Pool, rows: NDArray[np.bool_]) -> None:
    """A class without a positive cannot be learnt, and would end as a constant in a bundle."""
    empty = [c for c, n in zip(pool.classes, pool.positives(rows), strict=True) if n == 0]
    if empty:
        raise TrainingError(
            f"classes: no labelled training record has {', '.join(empty[:8])}; "
            "expected at least one of each class"
        )
