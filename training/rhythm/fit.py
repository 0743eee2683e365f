"""Fit the network of rhythms on windows of some people."""

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import structlog
import torch
from numpy.typing import NDArray
from torch import Tensor

from training.rhythm.augment import Augmenter, asystole, surrogate
from training.rhythm.network import CLASSES, RhythmNet
from training.rhythm.records import Label
from training.rhythm.windows import Windows

_log = structlog.get_logger()

# Of each batch: fibrillation, tachycardia, stillness, recorded noise, and all that beats; then
# simulated stillness.
_SHARES = {"vf": 0.19, "vt": 0.17, "asystole": 0.06, "noise": 0.18, "organised": 0.32}
_STILL = 0.08

# And of what is not lethal, by data set: thousands of healthy hearts must not outnumber the few
# sick ones.
_OF_SOURCES = {
    "organised": {
        "vfdb": 0.2,
        "cudb": 0.1,
        "mitdb": 0.22,
        "cinc2017": 0.22,
        "ptbxl": 0.14,
        "cpsc2021": 0.02,
        "simulated": 0.1,
    },
    "noise": {"vfdb": 0.25, "cinc2017": 0.25, "lead1": 0.2, "simulated": 0.3},
}

# Half of what beats is drawn from what the net last took for lethal most; found anew so often.
_HARD = 0.5
_HARDEST = 1500
_MINED_AT = (0.25, 0.5, 0.75)

_BATCH = 128
_LEARNING_RATE = 2e-3
_WEIGHT_DECAY = 1e-3
# Fibrillation taken for tachycardia alarms all the same; a fifth of the weight is on the name.
_NAME = 0.2


@dataclass(frozen=True, slots=True, eq=False)
class Pools:
    """Windows to draw from, by what they are, and by person so that nobody is most of them.

    Attributes:
        by_kind: for each kind a list of index arrays, one for each person.
        weights: how often each of these is drawn.
    """

    by_kind: dict[str, list[NDArray[np.int64]]]
    weights: dict[str, NDArray[np.float64]]


def pools(windows: Windows, persons: Sequence[str], sources: Sequence[str]) -> Pools:
    """Sort windows into pools.

    Args:
        windows: to train on.
        persons: of each window.
        sources: the data set of each window.
    """
    labels = windows.labels
    lethal = labels & np.uint8(Label.VF | Label.VT)
    kinds = {
        "vf": (lethal & np.uint8(Label.VF) > 0) & (labels & ~np.uint8(3) == 0),
        "vt": labels == Label.VT,
        "asystole": labels == Label.ASYSTOLE,
        "noise": labels == (Label.ORGANISED | Label.NOISE),
        "organised": (labels == Label.ORGANISED),
    }
    who, source = np.asarray(persons), np.asarray(sources)
    by_kind: dict[str, list[NDArray[np.int64]]] = {}
    weights: dict[str, NDArray[np.float64]] = {}
    for kind, chosen in kinds.items():
        at = np.flatnonzero(chosen)
        order = at[np.argsort(who[at], kind="stable")]
        _, first = np.unique(who[order], return_index=True)
        groups = np.split(order, first[1:])
        by_kind[kind] = groups
        size = np.array([len(g) for g in groups], np.float64)
        each = np.sqrt(size)
        each /= each.sum()
        if kind in _OF_SOURCES:
            of = np.array([source[g[0]] for g in groups])
            for name, share in _OF_SOURCES[kind].items():
                its = of == name
                each[its] *= share / max(float(each[its].sum()), 1e-12)
            each /= each.sum()
        weights[kind] = each
    return Pools(by_kind, weights)


def fit(
    windows: Windows,
    persons: Sequence[str],
    sources: Sequence[str],
    *,
    steps: int,
    seed: int,
) -> RhythmNet:
    """Fit a network.

    Args:
        windows: to train on.
        persons: of each window.
        sources: the data set of each window.
        steps: of optimisation.
        seed: of everything left to chance.
    """
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    drawn = pools(windows, persons, sources)
    real = np.isin(np.asarray(sources), ("vfdb", "cinc2017"))
    noise = windows.inputs[real & (windows.labels == (Label.ORGANISED | Label.NOISE))]
    size = noise.std(axis=1)
    noise = noise[(size > 5) & (size < 3000)]
    augmenter = Augmenter(noise, rng)
    net = RhythmNet()
    optimizer = torch.optim.AdamW(net.parameters(), _LEARNING_RATE, weight_decay=_WEIGHT_DECAY)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, _LEARNING_RATE, total_steps=steps, pct_start=0.1
    )
    net.train()
    started, total = time.monotonic(), 0.0
    hard = np.empty(0, np.int64)
    for step in range(1, steps + 1):
        if step in {round(part * steps) for part in _MINED_AT}:
            hard = _hardest(net, windows, rng)
        inputs, labels = _batch(windows, drawn, augmenter, hard)
        loss = set_loss(net(torch.from_numpy(inputs)), torch.from_numpy(labels))
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        scheduler.step()
        total += float(loss.detach())
        if step % 250 == 0:
            seconds = round(time.monotonic() - started)
            _log.info("fit", step=step, loss=round(total / 250, 4), seconds=seconds)
            total = 0.0
    net.eval()
    return net


def _hardest(net: RhythmNet, windows: Windows, rng: np.random.Generator) -> NDArray[np.int64]:
    """Of a third of beating hearts and noise the windows that the net most takes for lethal."""
    at = np.flatnonzero(windows.labels & np.uint8(Label.VF | Label.VT) == 0)
    at = rng.choice(at, len(at) // 3, replace=False)
    net.eval()
    logits = predict(net, windows.inputs[at])
    net.train()
    margin = logits[:, :2].max(axis=1) - logits[:, 2:].max(axis=1)
    return at[np.argsort(-margin, kind="stable")[:_HARDEST]]


def _batch(
    windows: Windows, drawn: Pools, augmenter: Augmenter, hard: NDArray[np.int64]
) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    rng = augmenter.rng
    at: list[int] = []
    for kind, groups in drawn.by_kind.items():
        count = round(_SHARES[kind] * _BATCH)
        if kind == "organised" and len(hard):
            mined = round(_HARD * count)
            count -= mined
            at += rng.choice(hard, mined).tolist()
        chosen = rng.choice(len(groups), count, p=drawn.weights[kind])
        at += [int(rng.choice(groups[i])) for i in chosen]
    inputs, labels = windows.inputs[at], windows.labels[at]
    still, still_labels = _still(augmenter, round(_STILL * _BATCH))
    inputs, labels = np.concatenate((inputs, still)), np.concatenate((labels, still_labels))
    return augmenter.vary(inputs, labels)


def _still(augmenter: Augmenter, count: int) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """Simulated asystole, and as much noise of the same kind that is too loud to tell."""
    rng, noise = augmenter.rng, augmenter.noise
    some = noise[rng.integers(len(noise), size=count)]
    inputs = np.empty_like(some)
    labels = np.full(count, Label.ASYSTOLE, np.uint8)
    for i, window in enumerate(some):
        if rng.random() < 0.2:
            loud = surrogate(window, rng)
            size_uv = np.exp(rng.uniform(np.log(120.0), np.log(1500.0)))
            inputs[i] = loud * np.float32(size_uv / (float(loud.std()) + 1e-3))
            labels[i] = Label.NOISE
        else:
            inputs[i] = asystole(window, rng)
    return inputs, labels


def set_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """The negative log-likelihood of what each window may be.

    Args:
        logits: [b, 5].
        labels: uint8 [b], ``Label``.
    """
    log_p = torch.log_softmax(logits, dim=1)
    bits = torch.arange(len(CLASSES))
    may = (labels[:, None].int() >> bits) & 1
    lethal = (may[:, 0] | may[:, 1])[:, None]
    either = torch.cat((lethal, lethal, may[:, 2:]), dim=1).bool()
    wide = torch.logsumexp(log_p.masked_fill(~either, -torch.inf), dim=1)
    exact = torch.logsumexp(log_p.masked_fill(~may.bool(), -torch.inf), dim=1)
    return -((1 - _NAME) * wide + _NAME * exact).mean()


def predict(net: RhythmNet, inputs: NDArray[np.float32], batch: int = 1024) -> NDArray[np.float32]:
    """Logits of windows, float32 [n, 5]."""
    with torch.inference_mode():
        some = [
            net(torch.from_numpy(inputs[i : i + batch])).numpy()
            for i in range(0, len(inputs), batch)
        ]
    return np.concatenate(some) if some else np.empty((0, len(CLASSES)), np.float32)
