"""The two training sets, conditioned as the daemon conditions, with labels and what is unknown.

A label that a data set cannot know is masked (weight 0), not negative: Challenge 2017 says nothing
of bundle branch blocks.
"""

import csv
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from models import vocabulary
from models.conditioning import condition
from training.shards import read_shard, twelve_leads

RATE = 100.0
LENGTH = 1000
TRAIN_FOLDS = tuple(range(1, 9))
VALIDATION_FOLD = 9
MINIMUM_POSITIVES = 50

# What a Challenge 2017 reference says of the classes: N is normal rhythm, A atrial fibrillation,
# O any other rhythm (so at least not AF), ~ too noisy to say anything.
_CINC_POSITIVE = {"N": ("NSR",), "A": ("AF",), "O": ()}
_CINC_NEGATIVE = {
    "N": ("AF", "AFL", "PVC", "PAC", "SVARR", "BIGU", "PR"),
    "A": ("NSR",),
    "O": ("AF",),
}


@dataclass(frozen=True, slots=True, eq=False)
class PtbXl:
    """PTB-XL folds.

    Attributes:
        ids: one ``ecg_id`` a record.
        leads: float16 [records, 12, 1000], z-scored at 100 Hz.
        labels: float32 [records, classes], 0 or 1.
    """

    ids: tuple[str, ...]
    leads: NDArray[np.float16]
    labels: NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class Cinc2017:
    """Challenge 2017 records of one split.

    Attributes:
        ids: record names.
        lead_one: one float32 array [n] a record, in µV.
        rate: samples per second, in Hz.
        reference: N, A, O or ~ a record.
    """

    ids: tuple[str, ...]
    lead_one: tuple[NDArray[np.float32], ...]
    rate: float
    reference: tuple[str, ...]


def shipped_classes(data: Path) -> tuple[str, ...]:
    """Abbreviations of every SCP code with at least 50 positive records in folds 1-8.

    Ordered by frequency, most frequent first.
    """
    rows = _label_rows(data)
    codes = [key for key in rows[0] if _is_code(key)]
    train = [row for row in rows if int(row["strat_fold"]) in TRAIN_FOLDS]
    counts = {code: sum(row[code] == "1" for row in train) for code in codes}
    kept = sorted((c for c in codes if counts[c] >= MINIMUM_POSITIVES), key=lambda c: -counts[c])
    return tuple(vocabulary.by_scp(code).abbreviation for code in kept)


def load_ptbxl(data: Path, folds: Sequence[int], classes: Sequence[str]) -> PtbXl:
    """Read folds of ``ptbxl100`` with labels for ``classes``."""
    rows = {row["ecg_id"]: row for row in _label_rows(data)}
    columns = [[code for code in vocabulary.lookup(c).scp if code in rows["1"]] for c in classes]
    ids: list[str] = []
    leads: list[NDArray[np.float16]] = []
    for fold in folds:
        for record in read_shard(data / "ptbxl100" / f"fold{fold}.npz"):
            twelve = twelve_leads(record.signal)
            ids.append(record.id)
            leads.append(
                condition(twelve, record.rate, target_rate=RATE, length=LENGTH).astype(np.float16)
            )
    labels = [[any(rows[i][code] == "1" for code in codes) for codes in columns] for i in ids]
    return PtbXl(tuple(ids), np.stack(leads), np.array(labels, dtype=np.float32))


def load_cinc2017(data: Path, split: str) -> Cinc2017:
    """Read a split of Challenge 2017: ``train`` 70 %, ``validation`` 10 %, ``test`` 20 %."""
    with (data / "cinc2017" / "labels.csv").open(newline="", encoding="utf-8") as f:
        reference = {row["record"]: row["label"] for row in csv.DictReader(f)}
    records = [
        record
        for path in sorted((data / "cinc2017").glob("part*.npz"))
        for record in read_shard(path)
        if cinc_split(record.id) == split
    ]
    return Cinc2017(
        tuple(r.id for r in records),
        tuple(r.signal[0].astype(np.float32) for r in records),
        records[0].rate,
        tuple(reference[r.id] for r in records),
    )


def cinc_split(record: str) -> str:
    """The split a Challenge 2017 record belongs to, fixed by a hash of its name."""
    place = int(hashlib.sha256(record.encode()).hexdigest(), 16) % 10
    return "test" if place < 2 else "validation" if place == 2 else "train"


def cinc_targets(
    reference: Sequence[str], classes: Sequence[str]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Labels and weights, float32 [records, classes] each; weight 0 where the set cannot know."""
    labels = np.zeros((len(reference), len(classes)), dtype=np.float32)
    weights = np.zeros_like(labels)
    place = {c: i for i, c in enumerate(classes)}
    for row, kind in enumerate(reference):
        for c in _CINC_POSITIVE.get(kind, ()):
            labels[row, place[c]] = weights[row, place[c]] = 1
        for c in _CINC_NEGATIVE.get(kind, ()):
            weights[row, place[c]] = 1
    return labels, weights


def _label_rows(data: Path) -> list[dict[str, str]]:
    with (data / "ptbxl100" / "labels.csv").open(newline="", encoding="utf-8") as f:
        return list(csv.DictReader(f))


def _is_code(column: str) -> bool:
    return column not in {"ecg_id", "age", "sex", "strat_fold"} and not column.startswith("SUPER_")
