"""Notices that a data set has changed since a folder was prepared from it."""

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

from training.datasets.cache import MANIFEST
from training.datasets.writer import SETTINGS
from training.errors import TrainingError

STATE = "source.sha256"
_READ = frozenset({".asc", ".atr", ".csv", ".dat", ".edf", ".hea", ".mat", ".npz", ".xyz"})
# What a file system keeps for itself, and nobody but its owner may list.
_NOT_DATA = "lost+found"


def _state_of(origin: Path) -> str:
    """SHA-256 over the names, sizes and times of change of every file a reader may look at.

    Args:
        origin: folder of the data set, or a table in it.

    Raises:
        TrainingError: a folder beneath cannot be listed, so that its records would be missing.
    """
    folder = origin if origin.is_dir() else origin.parent
    digest = hashlib.sha256()
    for path in sorted(_files(folder)):
        name = path.relative_to(folder).as_posix()
        try:
            found = path.stat()
            said = f"{name}\0{found.st_size}\0{found.st_mtime_ns}\n"
        except OSError:  # a link to nothing; its record is skipped, and comes once there is a file
            said = f"{name}\0missing\n"
        digest.update(said.encode(errors="replace"))
    return digest.hexdigest()


def require_unchanged(origin: Path, prepared: Path) -> str:
    """Refuse to go on with, or to take for prepared, what came of other files.

    A folder of an earlier version does not say what it came of; it is taken at its word.

    Returns:
        What is to stand in ``STATE``: a checksum of what the files look like now.

    Raises:
        TrainingError: the data set has changed since, or cannot be listed.
    """
    state = _state_of(origin)
    try:
        held = (prepared / STATE).read_text(encoding="utf-8").strip()
    except FileNotFoundError:
        return state
    except (OSError, UnicodeDecodeError) as error:
        raise TrainingError(f"{prepared / STATE}: cannot be read ({error})") from None
    if held != state:
        raise TrainingError(
            f"{origin}: has changed since {prepared} was prepared from it; remove that folder to"
            f" prepare it anew, or name another ({prepared / STATE} alone, if nothing that counts"
            " has changed)"
        )
    return state


def _files(folder: Path) -> Iterator[Path]:
    """Files below a folder, through links too, but through each folder once.

    Prepared folders are left out: the one that is being written may well be one of them.
    """
    seen: set[tuple[int, int]] = set()
    for parent, folders, files in os.walk(folder, onerror=_unlisted, followlinks=True):
        found = Path(parent).stat()
        if (found.st_dev, found.st_ino) in seen or {MANIFEST, SETTINGS} & set(files):
            folders.clear()
            continue
        seen.add((found.st_dev, found.st_ino))
        # Sorted, so that one with two names is always met by the same.
        folders[:] = sorted(name for name in folders if name != _NOT_DATA)
        for path in (Path(parent, name) for name in files):
            if path.suffix.lower() in _READ and not path.name.startswith("."):
                yield path


def _unlisted(error: OSError) -> None:
    raise TrainingError(
        f"{error.filename}: {error.strerror}; expected a folder whose records can be read"
    )
