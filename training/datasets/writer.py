"""Writes a prepared folder so that it survives being killed at any moment.

Windows, presence and labels are appended to their files and synced to disk; only then are the lines
of the records they belong to appended to the journal. On the next start everything beyond what the
journal vouches for is cut off, so that an interrupted run ends in the same bytes as one that was
not. The manifest comes last.
"""

import contextlib
import errno
import fcntl
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np
import yaml
from numpy.typing import NDArray

from training.datasets.cache import (
    FILES,
    FORMAT,
    LABELS,
    MANIFEST,
    PRESENT,
    RECORDS,
    SIGNALS,
    read_entries,
    sha256,
)
from training.errors import TrainingError

SETTINGS = "unfinished.yaml"


class CacheWriter:
    """An open folder that is being prepared.

    Attributes:
        done: how many of the source's records are written or skipped.
    """

    def __init__(self, path: Path, settings: dict[str, Any]) -> None:
        """Begin a folder, or go on where the last run stopped.

        Args:
            path: the folder; made if it is not there.
            settings: everything that decides what is written, the first part of the manifest.

        Raises:
            TrainingError: the folder holds something else, or another process writes to it.
        """
        self._path = path
        self._settings = {"format": FORMAT, **settings}
        self._row = len(settings["leads"])
        self._columns = len(settings["columns"])
        self._window = 2 * self._row * settings["length"]
        self._pending: dict[str, bytearray] = {PRESENT: bytearray(), LABELS: bytearray()}
        self._lines = bytearray()
        self._uncommitted = 0
        with self._writing():
            path.mkdir(parents=True, exist_ok=True)
            self._claim()
            self._files: dict[str, IO[bytes]] = {}
            try:
                self._open()
            except BaseException:
                self.close()
                raise

    def window(self, signals: NDArray[np.float16], present: NDArray[np.bool_]) -> None:
        """Append one window of the record that is entered next.

        Args:
            signals: [leads, length].
            present: [leads].
        """
        with self._writing():
            _append(self._files[SIGNALS], np.ascontiguousarray(signals, "<f2").tobytes())
        self._pending[PRESENT] += present.astype(np.uint8).tobytes()

    def record(self, entry: dict[str, Any], labels: NDArray[np.uint8]) -> None:
        """Enter a record whose windows have been appended.

        Args:
            entry: its journal line: id, patient, fold, windows and what else is worth reporting.
            labels: [columns], bit 0 the label, bit 1 whether it is known.
        """
        self._pending[LABELS] += labels.tobytes()
        self._enter(entry)

    def skip(self, record: str, reason: str, detail: str) -> None:
        """Enter a record that cannot be used."""
        self._enter({"id": record, "skipped": reason, "detail": detail})

    def commit(self) -> None:
        """Bring everything entered so far to disk."""
        with self._writing():
            for name, data in self._pending.items():
                _append(self._files[name], data)
                data.clear()
            for name in (SIGNALS, PRESENT, LABELS):
                os.fsync(self._files[name].fileno())
            _append(self._files[RECORDS], self._lines)
            os.fsync(self._files[RECORDS].fileno())
        self._lines.clear()
        self._uncommitted = 0

    def entries(self) -> list[dict[str, Any]]:
        """The journal as far as it is committed, a dictionary for each record."""
        return read_entries(self._path / RECORDS)[0]

    def text(self, name: str, content: str) -> None:
        """Write a small file into the folder, whole or not at all."""
        with self._writing():
            temporary = self._path / f"{name}.part"
            with temporary.open("w", encoding="utf-8", newline="") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(self._path / name)

    def finish(self) -> None:
        """Write the manifest, which makes the folder a cache."""
        entries = [e for e in self.entries() if "skipped" not in e]
        manifest = {
            **self._settings,
            "records": len(entries),
            "windows": sum(e["windows"] for e in entries),
            "sha256": {name: sha256(self._path / name) for name in FILES},
        }
        self.text(MANIFEST, _yaml(manifest))
        with self._writing():
            (self._path / SETTINGS).unlink(missing_ok=True)
            _sync_folder(self._path)

    def close(self) -> None:
        """Let go of the files; what is not committed is lost."""
        for file in self._files.values():
            file.close()

    def _enter(self, entry: dict[str, Any]) -> None:
        self._lines += json.dumps(entry, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"
        self.done += 1
        self._uncommitted += 1
        if self._uncommitted >= _BATCH:
            self.commit()

    def _claim(self) -> None:
        """Make the folder this preparation's own, or find that it is another's."""
        held = settings_of(self._path)
        if held is None:
            if any((self._path / name).exists() for name in FILES):
                raise TrainingError(f"{self._path}: holds parts of a cache; expected a new folder")
            self.text(SETTINGS, _yaml(self._settings))
            _sync_folder(self._path)
        else:
            check_settings(self._path, held, self._settings)

    def _open(self) -> None:
        for name in FILES:
            self._files[name] = (self._path / name).open("ab", buffering=0)
        try:
            fcntl.flock(self._files[RECORDS], fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise TrainingError(f"{self._path}: another prepare is writing to it") from None
        entries, whole = read_entries(self._path / RECORDS)
        kept = [e for e in entries if "skipped" not in e]
        windows = sum(e["windows"] for e in kept)
        self.done = len(entries)
        sizes = {
            SIGNALS: windows * self._window,
            PRESENT: windows * self._row,
            LABELS: len(kept) * self._columns,
            RECORDS: whole,
        }
        for name, size in sizes.items():
            if os.fstat(self._files[name].fileno()).st_size < size:
                raise TrainingError(
                    f"{self._path / name}: shorter than {RECORDS} says; delete the folder"
                )
            self._files[name].truncate(size)

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if error.errno in {errno.ENOSPC, errno.EDQUOT}:
                raise TrainingError(
                    f"{self._path}: disk full; free some space and run the same command again,"
                    " it goes on from there"
                ) from error
            raise TrainingError(
                f"{error.filename or self._path}: {error.strerror or error}"
            ) from error


# Records between two syncs: with twelve leads at 100 Hz some 6 MB.
_BATCH = 256


def settings_of(path: Path) -> dict[str, Any] | None:
    """What a folder is or was being prepared with, None if it is not a cache at all.

    Raises:
        TrainingError: the file that says so cannot be read.
    """
    for name in (MANIFEST, SETTINGS):
        file = path / name
        if file.is_file():
            try:
                held = yaml.safe_load(file.read_text(encoding="utf-8"))
            except (OSError, UnicodeDecodeError, yaml.YAMLError):
                held = None
            if not isinstance(held, dict):
                raise TrainingError(f"{file}: damaged; delete the folder and prepare it again")
            return held
    return None


def check_settings(path: Path, held: dict[str, Any], wanted: dict[str, Any]) -> None:
    """Refuse a folder that is being, or was, prepared otherwise.

    Raises:
        TrainingError: naming the first setting that differs.
    """
    for key, value in wanted.items():
        if held.get(key) != value:
            raise TrainingError(
                f"{path}: prepared with {key} {_short(held.get(key))}, not {_short(value)};"
                " expected the same, or another folder"
            )


def _short(value: object) -> str:
    text = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
    return text if len(text) <= 60 else text[:60] + "…"


def _yaml(content: dict[str, Any]) -> str:
    return yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=100)


def _append(file: IO[bytes], data: bytes | bytearray) -> None:
    """Write all of ``data``; an unbuffered file may take only part of it at a time."""
    view = memoryview(data)
    while view:
        view = view[file.write(view) :]


def _sync_folder(path: Path) -> None:
    folder = os.open(path, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
