"""Packed shards: PTB-XL at 100 Hz, Challenge 2017 and the Lead-I database, each in .npz files."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from models.leads import LEADS
from models.vocabulary import UnknownDiagnosis, by_scp
from training.datasets import cinc2017, ptbxl
from training.datasets.labels import CINC_COLUMNS, DIAGNOSTIC_COLUMNS, scp_labels
from training.datasets.record import Record, Skip
from training.datasets.tables import by_key, read_table
from training.errors import TrainingError
from training.shards import PackedRecord, read_shard, shard_ids, twelve_leads

_NOT_CODES = frozenset({"ecg_id", "age", "sex", "strat_fold"})
_EIGHT = ("I", "II", "V1", "V2", "V3", "V4", "V5", "V6")
_LEAD_ONE_UV = np.float32(100)  # a count is 1/10000 V


class _Shards:
    """Records of a folder's shards by name; the shard last read from stays in memory."""

    def __init__(self, folder: Path, pattern: str) -> None:
        self._of: dict[str, Path] = {}
        paths = sorted(folder.glob(pattern), key=lambda p: (len(p.name), p.name))
        if not paths:
            raise TrainingError(f"{folder}: no {pattern}; expected packed shards")
        for path in paths:
            names = shard_ids(path)
            if len(set(names)) < len(names) or set(names) & self._of.keys():
                raise TrainingError(f"{path}: holds a record twice, or one of another shard")
            self._of.update(dict.fromkeys(names, path))
        self._path: Path | None = None
        self._held: dict[str, PackedRecord] = {}

    def ids(self, labelled: Iterable[str] = ()) -> Sequence[str]:
        """Records in stored order, then those that have a label and are in no shard."""
        return (*self._of, *(record for record in labelled if record not in self._of))

    def read(self, record: str) -> PackedRecord:
        """One record.

        Raises:
            Skip: no shard holds it.
        """
        path = self._of.get(record)
        if path is None:
            raise Skip("missing", "in labels.csv, but in no shard")
        if path != self._path:
            self._held = {r.id: r for r in read_shard(path)}
            self._path = path
        return self._held[record]


class PackedPtbXl:
    """PTB-XL packed by fold: ``fold1.npz`` ... with ``labels.csv``.

    The table names no patients; the folds are patient-wise, so each record stands for its own.
    """

    name = ptbxl.NAME
    licence = ptbxl.LICENCE
    leads = LEADS

    def __init__(self, folder: Path) -> None:
        self._shards = _Shards(folder, "fold*.npz")
        self._table = folder / "labels.csv"
        self._rows = by_key(self._table, read_table(self._table, "ecg_id", "strat_fold"), "ecg_id")
        header = next(iter(self._rows.values()), {})
        self._codes = [c for c in header if c not in _NOT_CODES and not c.startswith("SUPER_")]
        try:
            statements = tuple(by_scp(code).abbreviation for code in self._codes)
        except UnknownDiagnosis as error:
            raise TrainingError(f"{self._table}: {error}") from None
        self.columns = statements + DIAGNOSTIC_COLUMNS

    def ids(self) -> Sequence[str]:
        """Every ``ecg_id``, fold by fold."""
        return self._shards.ids(self._rows)

    def read(self, record: str) -> Record:
        """One record with all twelve leads.

        Raises:
            Skip: ``labels.csv`` does not have it, or no shard.
        """
        row = self._rows.get(record)
        if row is None:
            raise Skip("no label", "not in labels.csv")
        packed = self._shards.read(record)
        if packed.leads != _EIGHT:
            said = ", ".join(packed.leads)
            raise TrainingError(f"{self._table.parent}: shards of {said}; expected I, II, V1 to V6")
        if other := {row[code] for code in self._codes} - {"0", "1"}:
            raise TrainingError(
                f"{self._table}: ecg_id {record}: label {min(other)!r}; expected 0 or 1"
            )
        return Record(
            id=record,
            patient=record,
            signal=twelve_leads(packed.signal),
            rate=packed.rate,
            leads=LEADS,
            positive=scp_labels(code for code in self._codes if row[code] == "1"),
            fold=ptbxl.fold_number(row["strat_fold"], f"{self._table}: ecg_id {record}"),
        )


class PackedCinc2017:
    """Challenge 2017 packed: ``part0.npz`` ... with ``labels.csv``; folds 0 train, 1, 2 test."""

    name = cinc2017.NAME
    licence = cinc2017.LICENCE
    leads = ("I",)
    columns = CINC_COLUMNS

    def __init__(self, folder: Path) -> None:
        self._shards = _Shards(folder, "part*.npz")
        self._reference = cinc2017.references(folder / "labels.csv")

    def ids(self) -> Sequence[str]:
        """Every record, shard by shard."""
        return self._shards.ids(self._reference)

    def read(self, record: str) -> Record:
        """One record of lead I.

        Raises:
            Skip: ``labels.csv`` does not have it, or no shard.
        """
        packed = self._shards.read(record)
        return cinc2017.cinc_record(
            record, packed.signal.astype(np.float32), packed.rate, self._reference
        )


class PackedLead1:
    """The Lead-I database packed: ``all.npz``; no labels; records ``subject-number``."""

    name = "Lead-I database"
    licence = "Lead-I database (Bernal-Romero and Ramirez-Cortes 2024), CC BY 4.0"
    leads = ("I",)
    columns: tuple[str, ...] = ()

    def __init__(self, folder: Path) -> None:
        self._shards = _Shards(folder, "all.npz")

    def ids(self) -> Sequence[str]:
        """Every record in stored order."""
        return self._shards.ids()

    def read(self, record: str) -> Record:
        """One record of lead I; the recorder's offset stays in."""
        packed = self._shards.read(record)
        return Record(
            id=record,
            patient=record.rpartition("-")[0] or record,
            signal=packed.signal.astype(np.float32) * _LEAD_ONE_UV,
            rate=packed.rate,
            leads=("I",),
        )
