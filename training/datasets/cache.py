"""The one form that every data set is prepared into: memory-mapped windows and their labels.

A folder with

- ``cache.yaml``: the manifest, written last; without it the folder is unfinished;
- ``signals.f16``: float16 [windows, leads, length], z-scored;
- ``present.u8``: uint8 [windows, leads], 1 where the lead has a signal in the window;
- ``labels.u8``: uint8 [records, columns]: bit 0 the label, bit 1 whether it is known;
- ``records.jsonl``: a line for each record of the source, the skipped ones too, in its order;
- ``report.txt`` and ``skipped.csv``: for people;
- ``source.sha256``: what the files it came of looked like (``origin``).
"""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray

from training.datasets.labels import with_equivalents
from training.errors import TrainingError

FORMAT = 1
MANIFEST = "cache.yaml"
SIGNALS = "signals.f16"
PRESENT = "present.u8"
LABELS = "labels.u8"
RECORDS = "records.jsonl"
FILES = (SIGNALS, PRESENT, LABELS, RECORDS)


class Cache:
    """A prepared data set.

    Attributes:
        path: its folder.
        name: what the data set is called.
        licence: its origin and licence.
        rate: samples per second, in Hz.
        length: samples of a window.
        leads: names of the rows of a window.
        signals: float16 [windows, leads, length], z-scored, memory-mapped; zeros where absent.
        present: bool [windows, leads], whether the lead has a signal in the window.
        record: int32 [windows], the record each window is of, ascending.
        ids: names of the records.
        patients: whom each record is of.
        folds: int16 [records], the data set's own split, or one by patient: 0 to train, 1 to
            validate, 2 to test; -1 for none.
        columns: names of the labels.
        labels: uint8 [records, columns], 0 or 1; 0 where not known.
        known: bool [records, columns], whether the label is a fact.
        fingerprint: SHA-256 of the manifest, which holds those of all other files.
    """

    def __init__(self, path: Path) -> None:
        """Open a prepared folder.

        Raises:
            TrainingError: it is not there, unfinished, damaged or of another format.
        """
        manifest, self.fingerprint = _manifest(path)
        self.path = path
        try:
            self.name: str = manifest["name"]
            self.licence: str = manifest["licence"]
            self.rate = float(manifest["rate"])
            self.length = int(manifest["length"])
            self.leads: tuple[str, ...] = tuple(manifest["leads"])
            self.columns: tuple[str, ...] = tuple(manifest["columns"])
            windows, records = int(manifest["windows"]), int(manifest["records"])
            checksums = {name: str(manifest["sha256"][name]) for name in FILES}
        except (KeyError, TypeError, ValueError) as error:
            raise TrainingError(f"{path / MANIFEST}: damaged ({error}); prepare it again") from None
        shape = (windows, len(self.leads), self.length)
        _check_signals(path / SIGNALS, shape)
        self.signals: NDArray[np.float16] = np.memmap(
            path / SIGNALS, dtype=np.float16, mode="r", shape=shape
        )
        for name in (PRESENT, LABELS, RECORDS):
            _check(path / name, checksums[name])
        self.present = _array(path / PRESENT, (windows, len(self.leads))).astype(bool)
        packed = _array(path / LABELS, (records, len(self.columns)))
        self.known = (packed & 2).astype(bool)
        self.labels = packed & 1
        entries = [e for e in read_entries(path / RECORDS)[0] if "skipped" not in e]
        counts = [int(e["windows"]) for e in entries]
        if len(entries) != records or sum(counts) != windows:
            raise TrainingError(f"{path / RECORDS}: disagrees with {MANIFEST}; prepare it again")
        self.ids = tuple(str(e["id"]) for e in entries)
        self.patients = tuple(str(e["patient"]) for e in entries)
        self.folds = np.array(
            [-1 if e["fold"] is None else e["fold"] for e in entries], dtype=np.int16
        )
        self.record = np.repeat(np.arange(records, dtype=np.int32), counts)

    def targets(self, classes: Sequence[str]) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """Labels and whether they are known, [records, classes] each.

        A class finds the columns of its equivalents; one that has no column is not known.
        """
        labels = np.zeros((len(self.ids), len(classes)), dtype=np.float32)
        known = np.zeros(labels.shape, dtype=bool)
        for place, name in enumerate(classes):
            same = with_equivalents(frozenset({name}))
            columns = [i for i, column in enumerate(self.columns) if column in same]
            if columns:
                labels[:, place] = self.labels[:, columns].any(axis=1)
                known[:, place] = self.known[:, columns].any(axis=1)
        return labels, known


def read_entries(path: Path) -> tuple[list[dict[str, Any]], int]:
    """Lines of a ``records.jsonl`` up to the first that is not whole, and the bytes they take."""
    entries: list[dict[str, Any]] = []
    whole = 0
    with path.open("rb") as file:
        for line in file:
            if not line.endswith(b"\n"):
                break
            try:
                entry = json.loads(line)
            except ValueError:
                break
            entries.append(entry)
            whole += len(line)
    return entries, whole


def sha256(path: Path) -> str:
    """Checksum of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _manifest(path: Path) -> tuple[dict[str, Any], str]:
    try:
        raw = (path / MANIFEST).read_bytes()
    except OSError:
        if (path / RECORDS).is_file():
            raise TrainingError(
                f"{path}: not finished; run the same prepare command again, it goes on from there"
            ) from None
        raise TrainingError(f"{path}: no {MANIFEST}; expected a prepared data set") from None
    try:
        manifest = yaml.safe_load(raw)
    except (yaml.YAMLError, UnicodeDecodeError):
        manifest = None
    if not isinstance(manifest, dict) or "format" not in manifest:
        raise TrainingError(f"{path / MANIFEST}: damaged; prepare it again")
    if manifest["format"] != FORMAT:
        raise TrainingError(
            f"{path / MANIFEST}: format {manifest['format']}; expected {FORMAT}: prepare it again"
        )
    return manifest, hashlib.sha256(raw).hexdigest()


def _check(path: Path, checksum: str) -> None:
    try:
        found = sha256(path)
    except OSError as error:
        raise TrainingError(f"{path}: {error.strerror}; prepare it again") from None
    if found != checksum:
        raise TrainingError(f"{path}: checksum differs from {MANIFEST}; prepare it again")


def _check_signals(path: Path, shape: tuple[int, int, int]) -> None:
    """Size only: gigabytes are not read as a whole just to open them."""
    expected = shape[0] * shape[1] * shape[2] * 2
    try:
        size = path.stat().st_size
    except OSError as error:
        raise TrainingError(f"{path}: {error.strerror}; prepare it again") from None
    if size != expected:
        raise TrainingError(f"{path}: {size} bytes; expected {expected}: prepare it again")


def _array(path: Path, shape: tuple[int, int]) -> NDArray[np.uint8]:
    values = np.fromfile(path, dtype=np.uint8)
    if values.size != shape[0] * shape[1]:
        raise TrainingError(f"{path}: disagrees with {MANIFEST}; prepare it again")
    return values.reshape(shape)
