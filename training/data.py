"""The packed recordings a finished bundle is measured on, raw or conditioned as the daemon does."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from models import vocabulary
from models.conditioning import condition
from training.datasets.cinc2017 import references
from training.datasets.splits import hashed_split
from training.datasets.tables import by_key, read_table
from training.errors import TrainingError
from training.shards import read_shard, twelve_leads

RATE = 100.0
LENGTH = 1000
VALIDATION_FOLD = 9


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


def load_ptbxl(data: Path, folds: Sequence[int], classes: Sequence[str]) -> PtbXl:
    """Read folds of ``ptbxl100`` with labels for ``classes``.

    Raises:
        TrainingError: if a file is missing or damaged, a record has no label, or a label no record.
    """
    table = data / "ptbxl100" / "labels.csv"
    rows = by_key(table, read_table(table, "ecg_id", "strat_fold"), "ecg_id")
    known = next(iter(rows.values()), {})
    columns = [[code for code in vocabulary.lookup(c).scp if code in known] for c in classes]
    ids: list[str] = []
    leads: list[NDArray[np.float16]] = []
    for fold in folds:
        for record in read_shard(data / "ptbxl100" / f"fold{fold}.npz"):
            twelve = twelve_leads(record.signal)
            ids.append(record.id)
            leads.append(
                condition(twelve, record.rate, target_rate=RATE, length=LENGTH).astype(np.float16)
            )
    wanted = {str(fold) for fold in folds}
    _check_complete(table, ids, [i for i, row in rows.items() if row["strat_fold"] in wanted])
    labels = [[any(rows[i][code] == "1" for code in codes) for codes in columns] for i in ids]
    return PtbXl(tuple(ids), np.stack(leads), np.array(labels, dtype=np.float32))


def load_lead_one(data: Path, fold: int) -> tuple[NDArray[np.float32], float]:
    """Lead I of a fold of ``ptbxl100`` as recorded: µV [records, time], and its rate in Hz.

    Raises:
        TrainingError: if it is missing or damaged.
    """
    records = list(read_shard(data / "ptbxl100" / f"fold{fold}.npz"))
    return np.stack([r.signal[0].astype(np.float32) for r in records]), records[0].rate


def load_cinc2017(data: Path, split: str) -> Cinc2017:
    """Read a split of Challenge 2017: ``train`` 70 %, ``validation`` 10 %, ``test`` 20 %.

    Raises:
        TrainingError: if a file is missing or damaged, a record has no label, or a label no record.
    """
    table = data / "cinc2017" / "labels.csv"
    reference = references(table)
    records = [
        record
        for path in sorted((data / "cinc2017").glob("part*.npz"))
        for record in read_shard(path)
        if hashed_split(record.id) == split
    ]
    if not records:
        raise TrainingError(f"{table.parent}: no {split} record in part*.npz; expected some")
    _check_complete(
        table, [r.id for r in records], [i for i in reference if hashed_split(i) == split]
    )
    return Cinc2017(
        tuple(r.id for r in records),
        tuple(r.signal[0].astype(np.float32) for r in records),
        records[0].rate,
        tuple(reference[r.id] for r in records),
    )


def _check_complete(table: Path, read: Sequence[str], labelled: Sequence[str]) -> None:
    """Figures over a part of the records would pass for those over all."""
    if missing := set(read).difference(labelled):
        raise TrainingError(f"{table}: no row for record {min(missing)}; expected one of each")
    if missing := set(labelled).difference(read):
        raise TrainingError(
            f"{table.parent}: {len(missing)} records of {table.name}, such as {min(missing)}, are "
            "in no shard; expected all of them"
        )
