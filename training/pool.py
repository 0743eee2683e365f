"""Prepared data sets side by side: the records a run trains on, whatever they came from."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from models.leads import LEADS
from training.datasets.cache import Cache
from training.errors import TrainingError


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """Records of one cache that a pool holds.

    Attributes:
        cache: where the signals are.
        records: int64, places within the cache.
        first: int64 [records], the first window of each.
        count: int64 [records], how many windows each has.
        stored: which of the cache's leads are among the twelve.
        places: of those, among the twelve.
    """

    cache: Cache
    records: NDArray[np.int64]
    first: NDArray[np.int64]
    count: NDArray[np.int64]
    stored: list[int]
    places: NDArray[np.int64]


class Pool:
    """Records with labels; a record of several windows gives one of them at a time.

    Args:
        selection: caches, each with the folds to take (None: all).
        classes: label columns; one that a cache does not know is masked there.

    Attributes:
        labels: float32 [records, classes].
        known: float32 [records, classes], 0 where the data set cannot tell.
        complete: bool [records], whether all twelve leads are there, in each window.

    Raises:
        TrainingError: if nothing is selected, or windows of two kinds are.
    """

    def __init__(
        self, selection: Sequence[tuple[Cache, Sequence[int] | None]], classes: Sequence[str]
    ) -> None:
        self.classes = tuple(classes)
        self.parts: list[Part] = []
        labels, known, complete = [], [], []
        check_alike([cache for cache, _ in selection])
        for cache, folds in selection:
            chosen = (
                np.arange(len(cache.ids))
                if folds is None
                else np.flatnonzero(np.isin(cache.folds, list(folds)))
            )
            first = np.searchsorted(cache.record, chosen)
            count = np.searchsorted(cache.record, chosen, side="right") - first
            chosen, first, count = (a[count > 0] for a in (chosen, first, count))
            stored = [i for i, lead in enumerate(cache.leads) if lead in LEADS]
            places = np.array([LEADS.index(cache.leads[i]) for i in stored], dtype=np.int64)
            self.parts.append(Part(cache, chosen, first, count, stored, places))
            y, k = _targets(cache, self.classes)
            labels.append(y[chosen])
            known.append(k[chosen])
            full = cache.present.all(axis=1) & (len(places) == len(LEADS))
            before = np.concatenate(([0], np.cumsum(full)))
            complete.append(before[first + count] - before[first] == count)
        self.labels = np.concatenate(labels).astype(np.float32)
        self.known = np.concatenate(known).astype(np.float32)
        self.complete: NDArray[np.bool_] = np.concatenate(complete)
        self._part = np.repeat(np.arange(len(self.parts)), [len(p.records) for p in self.parts])
        self._offset = np.concatenate(([0], np.cumsum([len(p.records) for p in self.parts])))
        self._first = np.concatenate([p.first for p in self.parts])
        self._count = np.concatenate([p.count for p in self.parts])
        self._before = np.cumsum(self._count) - self._count
        if not len(self):
            names = ", ".join(f"{c.path} folds {list(f or [])}" for c, f in selection)
            raise TrainingError(f"{names}: no records there; expected some to work on")

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def groups(self) -> NDArray[np.int64]:
        """Which data set each record is of, [records]."""
        return self._part

    def positives(self, rows: NDArray[np.bool_]) -> NDArray[np.float32]:
        """How many of these records are known to have each class, [classes]; rows as a mask."""
        counted: NDArray[np.float32] = (self.labels[rows] * self.known[rows]).sum(axis=0)
        return counted

    def windows(
        self, rows: NDArray[np.int64], generator: torch.Generator | None = None
    ) -> NDArray[np.int64]:
        """One window of each record, int64 [rows]: at random, or the first if no ``generator``."""
        result = np.empty(len(rows), dtype=np.int64)
        draw = (
            np.zeros(len(rows))
            if generator is None
            else torch.rand(len(rows), generator=generator, dtype=torch.float64).numpy()
        )
        for at, part in enumerate(self.parts):
            here = self._part[rows] == at
            local = rows[here] - self._offset[at]
            result[here] = part.first[local] + (draw[here] * part.count[local]).astype(np.int64)
        return result

    def every_window(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Rows and windows, int64 [windows of all records] each, record by record."""
        rows = np.repeat(np.arange(len(self)), self._count)
        return rows, np.arange(len(rows)) - (self._before - self._first)[rows]

    def places(self, rows: NDArray[np.int64], windows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Where in ``every_window`` these windows of these rows are, int64 [rows]."""
        result: NDArray[np.int64] = self._before[rows] + windows - self._first[rows]
        return result

    def leads(self, rows: NDArray[np.int64], windows: NDArray[np.int64]) -> Tensor:
        """Z-scored leads, float32 [rows, 12, time]; zeros where a lead is missing."""
        out = torch.zeros(len(rows), len(LEADS), self.parts[0].cache.length)
        for at, part in enumerate(self.parts):
            here = np.flatnonzero(self._part[rows] == at)
            if not len(here):
                continue
            # In the order of the file: a memory-mapped file is read fastest so.
            order = here[np.argsort(windows[here])]
            signals = np.asarray(part.cache.signals[windows[order]], dtype=np.float32)
            if len(part.places) == len(LEADS):
                out[torch.from_numpy(order)] = torch.from_numpy(signals)
            else:
                target = torch.from_numpy(order)[:, None]
                out[target, torch.from_numpy(part.places)[None]] = torch.from_numpy(
                    signals[:, part.stored]
                )
        return out

    def targets(self, rows: NDArray[np.int64]) -> tuple[Tensor, Tensor]:
        """Labels and weights of some records, float32 [rows, classes] each."""
        return torch.from_numpy(self.labels[rows]), torch.from_numpy(self.known[rows])


def check_alike(caches: Sequence[Cache]) -> None:
    """Refuse data sets whose windows are of different length or rate.

    Raises:
        TrainingError: with the first two that differ.
    """
    for cache in caches[1:]:
        kinds = [(c.rate, c.length) for c in (caches[0], cache)]
        if kinds[0] != kinds[1]:
            said = " and ".join(f"{length} samples at {rate:g} Hz" for rate, length in kinds)
            raise TrainingError(
                f"{caches[0].path} and {cache.path}: windows of {said}; expected them alike"
            )


def _targets(
    cache: Cache, classes: Sequence[str]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Labels and weights [records, classes].

    A class ``A|B`` is positive where A or B is, and negative where neither is and both are known.
    """
    labels = np.zeros((len(cache.ids), len(classes)), np.float32)
    known = np.zeros_like(labels)
    for c, name in enumerate(classes):
        y, k = cache.targets(name.split("|"))
        labels[:, c] = (y * k).max(axis=1)
        known[:, c] = (labels[:, c] > 0) | k.all(axis=1)
    return labels, known


class Shuffle:
    """Endless batches of rows: one permutation after another, each from the seed and its number.

    The whole state is the number of rows handed out, so a run that resumes goes on with the very
    next batch.
    """

    def __init__(self, rows: NDArray[np.int64], batch: int, seed: int) -> None:
        if not len(rows):
            raise TrainingError("no records to draw batches from; expected at least one")
        self._rows, self._batch, self._seed = rows, batch, seed
        self._given = 0
        self._epoch, self._order = -1, rows

    @property
    def given(self) -> int:
        """Rows handed out so far."""
        return self._given

    @given.setter
    def given(self, value: int) -> None:
        self._given = value

    def take(self) -> NDArray[np.int64]:
        """The next batch, over the border of a permutation if need be."""
        parts, wanted = [], self._batch
        while wanted:
            epoch, at = divmod(self._given, len(self._rows))
            if epoch != self._epoch:
                self._epoch = epoch
                rng = np.random.default_rng((self._seed, epoch))
                self._order = self._rows[rng.permutation(len(self._rows))]
            some = self._order[at : at + wanted]
            parts.append(some)
            wanted -= len(some)
            self._given += len(some)
        return np.concatenate(parts)
