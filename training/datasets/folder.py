"""Any folder of recordings (WFDB, EDF, CSV) with a table of labels.

The table is ``labels.csv`` in the folder, or any other ``.csv`` that is named itself. Columns:

- ``record``: path of the recording below the table's folder, with or without its extension;
- ``patient`` and ``fold``, if known: whom it is of, and the data set's own split;
- either a column for each class, named as in the vocabulary, with 1, 0 or nothing (not known);
- or one column ``labels`` with the classes that hold, parted by ``;`` or ``|``; nothing there means
  that the record is unlabelled. Columns other than these are then left alone.
"""

import os
import re
from collections.abc import Sequence
from pathlib import Path

from ingest.formats.wfdb_header import read_header
from ingest.recordings import RecordingError, read_recording
from models.vocabulary import ALL, UnknownDiagnosis, lookup
from training.datasets.ptbxl import fold_number
from training.datasets.record import Record, Skip, lead_name, samples, stored_order, unreadable
from training.datasets.tables import by_key, read_table
from training.errors import TrainingError

TABLE = "labels.csv"
_RESERVED = frozenset({"record", "patient", "fold", "labels"})
_EXTENSIONS = (".hea", ".edf", ".csv")
_OF_WFDB = frozenset({".hea", ".dat", ".mat"})

# Leads are looked up in this many records, spread over all: reading each only for the names of its
# leads would double the work.
_SAMPLE = 100


class Folder:
    """A folder with a table of labels; ``path`` is either of the two."""

    def __init__(self, path: Path) -> None:
        self._table = path / TABLE if path.is_dir() else path
        self._folder = self._table.parent
        rows = read_table(self._table, "record")
        if not rows:
            raise TrainingError(f"{self._table}: no rows; expected one a record")
        self._rows = by_key(self._table, rows, "record")
        self._check_apart()
        self.name = self._folder.resolve().name
        self.licence = f"{self.name}: not stated"
        self._listed = bool(rows) and "labels" in rows[0]
        self._class_of = self._classes()
        found = frozenset(self._class_of.values())
        self.columns = tuple(d.abbreviation for d in ALL if d.abbreviation in found)
        self.leads = self._leads()

    def ids(self) -> Sequence[str]:
        """Every record in the table's order."""
        return tuple(self._rows)

    def read(self, record: str) -> Record:
        """One record with the leads it has.

        Raises:
            Skip: it is not there or cannot be read.
        """
        row = self._rows[record]
        path = self._path(record)
        if path is None:
            raise Skip("missing", f"no {record} with {', '.join(_EXTENSIONS)}")
        try:
            recording = read_recording(path)
        except RecordingError as error:
            raise unreadable(error) from None
        signal, leads = samples(recording)
        positive, known = self._labels(row)
        return Record(
            id=record,
            patient=row.get("patient") or record,
            signal=signal,
            rate=recording.rate,
            leads=leads,
            positive=positive,
            known=known,
            fold=self._fold(record),
        )

    def _check_apart(self) -> None:
        """Two spellings of one path would count as two people, one of them perhaps to test."""
        held: dict[str, str] = {}
        for record in self._rows:
            if (path := self._path(record)) is None:
                continue  # reported when its turn comes
            # A WFDB record may be called by its header or by its signals.
            one = path.with_suffix(".hea") if path.suffix in _OF_WFDB else path
            first = held.setdefault(os.path.realpath(one), record)
            if first != record:
                raise TrainingError(
                    f"{self._table}: records {first!r} and {record!r} are one recording"
                )

    def _fold(self, record: str) -> int | None:
        fold = self._rows[record].get("fold")
        if fold is None:
            return None
        return fold_number(fold, f"{self._table}: record {record}") if fold else -1

    def _path(self, record: str) -> Path | None:
        names = (record, *(f"{record}{extension}" for extension in _EXTENSIONS))
        try:
            return next((p for name in names if (p := self._folder / name).is_file()), None)
        except OSError:  # a name longer than any file's
            return None

    def _classes(self) -> dict[str, str]:
        """The abbreviation behind each spelling of a class that the table uses."""
        rows = self._rows.values()
        if self._listed:
            spellings = dict.fromkeys(text for row in rows for text in _split(row["labels"]))
        else:
            header = next(iter(rows), {})
            spellings = dict.fromkeys(name for name in header if name not in _RESERVED)
        found: dict[str, str] = {}
        for text in spellings:
            try:
                found[text] = lookup(text).abbreviation
            except UnknownDiagnosis as error:
                column = "labels" if self._listed else text
                raise TrainingError(f"{self._table}: column {column!r}: {error}") from None
        if not self._listed and len(set(found.values())) < len(found):
            raise TrainingError(
                f"{self._table}: columns {', '.join(found)}: two of them are the same class"
            )
        return found

    def _labels(self, row: dict[str, str]) -> tuple[frozenset[str], frozenset[str] | None]:
        if self._listed:
            positive = frozenset(self._class_of[text] for text in _split(row["labels"]))
            return positive, None if positive else frozenset()
        cells = {name: row[name].strip() for name in self._class_of}
        for name, cell in cells.items():
            if cell not in _VALUES:
                raise TrainingError(
                    f"{self._table}: record {row['record']}, column {name!r}: {cell[:20]!r};"
                    " expected 1, 0 or nothing"
                )
        held = {self._class_of[name]: _VALUES[cell] for name, cell in cells.items()}
        return (
            frozenset(c for c, value in held.items() if value),
            frozenset(c for c, value in held.items() if value is not None),
        )

    def _leads(self) -> tuple[str, ...]:
        names = tuple(self._rows)
        found: set[str] = set()
        why = ""
        for record in names[:: max(1, len(names) // _SAMPLE)]:
            path = self._path(record)
            if path is None:
                why = why or f"no {record[:40]} with {', '.join(_EXTENSIONS)}"
                continue
            try:
                found |= _lead_names(path)
            except (RecordingError, OSError, Skip) as error:
                why = why or str(error)  # of each it is reported when its turn comes
        if not found:
            raise TrainingError(
                f"{self._folder}: no readable recording with a lead by its name; the first: "
                f"{why or 'none of its signals is named like a lead'}"
            )
        return stored_order(found)


_VALUES = {"1": True, "1.0": True, "0": False, "0.0": False, "": None}


def _split(text: str) -> list[str]:
    return [part for piece in re.split(r"[;|]", text) if (part := piece.strip())]


def _lead_names(path: Path) -> set[str]:
    if path.suffix == ".hea" and len(signals := read_header(path).signals) > 1:
        return {name for s in signals if (name := lead_name(s.name)) is not None}
    return set(samples(read_recording(path))[1])
