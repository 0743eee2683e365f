"""PhysioNet/CinC Challenge 2017: single-lead recordings of 9-61 s from a hand-held device."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import structlog
from numpy.typing import NDArray

from ingest.recordings import RecordingError, read_recording
from training.datasets.labels import CINC_CLASSES, CINC_COLUMNS, cinc_labels
from training.datasets.record import Record, Skip, samples, unreadable
from training.datasets.splits import hashed_fold
from training.datasets.tables import by_key, read_rows, read_table
from training.errors import TrainingError

NAME = "Challenge 2017"
LICENCE = "PhysioNet/CinC Challenge 2017 (Clifford et al. 2017, PhysioNet), ODC-By 1.0"

# The third version is the one the Challenge was scored by.
REFERENCES = ("REFERENCE-v3.csv", "REFERENCE.csv", "labels.csv")

_log = structlog.get_logger()


class Cinc2017:
    """Raw Challenge 2017 records with their reference.

    The reference is ``REFERENCE-v3.csv``, ``REFERENCE.csv`` (record and label, no header) or
    ``labels.csv`` (columns ``record`` and ``label``), the first of them that is there. The
    Challenge names no patients, so each record stands for its own.
    """

    name = NAME
    licence = LICENCE
    leads = ("I",)
    columns = CINC_COLUMNS

    def __init__(self, folder: Path) -> None:
        self._paths: dict[str, Path] = {}
        for path in sorted(folder.rglob("A*.hea")):
            # PhysioNet's validation/ holds records of training/ once more.
            if self._paths.setdefault(path.stem, path) != path:
                _log.warning("record there twice, read once", record=path.stem, left_out=str(path))
        if not self._paths:
            raise TrainingError(f"{folder}: no A*.hea; expected records of Challenge 2017")
        found = (folder / name for name in REFERENCES if (folder / name).is_file())
        table = next(found, None)
        if table is None:
            raise TrainingError(f"{folder}: no reference; expected {', '.join(REFERENCES)}")
        self._reference = references(table)

    def ids(self) -> Sequence[str]:
        """Every record by name, then those of the reference that are not there."""
        return (*self._paths, *(name for name in self._reference if name not in self._paths))

    def read(self, record: str) -> Record:
        """One record of lead I.

        Raises:
            Skip: it is not there, cannot be read, or the reference does not have it.
        """
        path = self._paths.get(record)
        if path is None:
            raise Skip("missing", "in the reference, but without a header")
        try:
            recording = read_recording(path)
        except RecordingError as error:
            raise unreadable(error) from None
        signal, _ = samples(recording)
        return cinc_record(record, signal, recording.rate, self._reference)


def references(table: Path) -> dict[str, str]:
    """Label N, A, O or ~ of each record.

    Raises:
        TrainingError: the table cannot be read, or holds another label or a record twice.
    """
    if table.name == "labels.csv":
        rows = read_table(table, "record", "label")
    else:
        rows = [{"record": record, "label": label} for record, label in read_rows(table, 2)]
    labels = {record: row["label"] for record, row in by_key(table, rows, "record").items()}
    for record, label in labels.items():
        if label not in CINC_CLASSES:
            raise TrainingError(f"{table}: {record} is {label!r}; expected N, A, O or ~")
    return labels


def cinc_record(
    record: str, signal: NDArray[np.float32], rate: float, reference: dict[str, str]
) -> Record:
    """A record of lead I [1, n] with what the reference says of it.

    Raises:
        Skip: the reference does not have it.
    """
    if record not in reference:
        raise Skip("no label", "not in the reference")
    positive, known = cinc_labels(reference[record])
    return Record(
        id=record,
        patient=record,
        signal=signal,
        rate=rate,
        leads=("I",),
        positive=positive,
        known=known,
        # This project's own split: the Challenge's own test set is not public.
        fold=hashed_fold(record),
    )
