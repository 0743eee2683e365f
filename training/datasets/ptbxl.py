"""PTB-XL in its own layout: 21,799 ten-second clinical records of twelve leads."""

import ast
from collections.abc import Sequence
from pathlib import Path

from ingest.recordings import RecordingError, read_recording
from models.diagnoses import TABLE
from models.leads import LEADS
from training.datasets.labels import DIAGNOSTIC_COLUMNS, scp_labels
from training.datasets.record import Record, samples, unreadable
from training.datasets.tables import by_key, read_table
from training.errors import TrainingError

NAME = "PTB-XL"
LICENCE = "PTB-XL 1.0.3 (Wagner et al. 2020, PhysioNet), CC BY 4.0"
DATABASE = "ptbxl_database.csv"

# The Challenge made its labels of axis deviation of these. What the rest (AXL, AXR, SAG) say of a
# deviation is nowhere published, so it is not known there.
_AXES = {
    "MID": frozenset[str](),
    "LAD": frozenset({"LAD"}),
    "ALAD": frozenset({"LAD"}),
    "RAD": frozenset({"RAD"}),
    "ARAD": frozenset({"RAD"}),
}
_AXIS_COLUMNS = ("LAD", "RAD")
_SCP = frozenset(code for diagnosis in TABLE for code in diagnosis.scp)


class PtbXl:
    """PTB-XL as PhysioNet distributes it; ``records500`` where it is there, else ``records100``."""

    name = NAME
    licence = LICENCE
    leads = LEADS

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._database = folder / DATABASE
        fields = ("patient_id", "scp_codes", "heart_axis", "strat_fold", "filename_lr")
        rows = read_table(self._database, "ecg_id", *fields, "filename_hr")
        self._rows = by_key(self._database, rows, "ecg_id")
        if (folder / "records500").is_dir():
            self._file = "filename_hr"
        elif (folder / "records100").is_dir():
            self._file = "filename_lr"
        else:
            raise TrainingError(f"{folder}: no records500 or records100; expected one of them")
        statements = tuple(d.abbreviation for d in TABLE if d.scp)
        self.columns = statements + _AXIS_COLUMNS + DIAGNOSTIC_COLUMNS
        self._without_axis = frozenset(self.columns).difference(_AXIS_COLUMNS)

    def ids(self) -> Sequence[str]:
        """Every ``ecg_id`` in the table's order."""
        return tuple(self._rows)

    def read(self, record: str) -> Record:
        """One record with all twelve leads.

        Raises:
            Skip: it cannot be read.
        """
        row = self._rows[record]
        codes = scp_codes(row["scp_codes"], f"{self._database}: ecg_id {record}")
        stated = [code for code in codes if code in _SCP]
        axis = _AXES.get(row["heart_axis"])
        try:
            recording = read_recording(self._folder / row[self._file])
        except RecordingError as error:
            raise unreadable(error) from None
        signal, leads = samples(recording)
        return Record(
            id=record,
            patient=row["patient_id"].removesuffix(".0"),
            signal=signal,
            rate=recording.rate,
            leads=leads,
            positive=scp_labels(stated) | (axis or frozenset()),
            known=self._without_axis if axis is None else None,
            fold=fold_number(row["strat_fold"], f"{self._database}: ecg_id {record}"),
            unknown=tuple(code for code in codes if code not in _SCP),
        )


def scp_codes(text: str, where: str) -> tuple[str, ...]:
    """Statements of a record, from ``{'NORM': 100.0, 'SR': 0.0}`` with likelihoods in percent.

    Of form and rhythm a likelihood of 0 means that none is stated, so every statement counts.

    Raises:
        TrainingError: the text is not such a dictionary; ``where`` begins the message.
    """
    try:
        codes = ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        codes = None
    if not isinstance(codes, dict) or not all(isinstance(code, str) for code in codes):
        raise TrainingError(f"{where}: scp_codes {text[:40]!r}; expected {{'NORM': 100.0, ...}}")
    return tuple(codes)


def fold_number(text: str, where: str) -> int:
    """Fold of a record.

    Raises:
        TrainingError: it is not a whole number from 0; ``where`` begins the message.
    """
    if not (text.isascii() and text.isdigit() and len(text) <= 4):
        raise TrainingError(f"{where}: fold {text[:20]!r}; expected a whole number")
    return int(text)
