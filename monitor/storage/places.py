"""Where state may be written while the database cannot be."""

import os
import stat
import tempfile
from pathlib import Path

from monitor.storage.database import DatabaseError, parse_url, sqlite_path

# The memory that processes share: where no disk can be written, this mostly can.
_SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - a private folder is made in it


def state_folders(database_url: str) -> list[Path]:
    """List the folders in which state may be written, the best first.

    The folder of the SQLite file, what systemd gives the service for its state
    (``STATE_DIRECTORY``) and for as long as it runs (``RUNTIME_DIRECTORY``, in memory), and a
    private one for temporary files. A folder on a full or read-only disk is among them, since it
    may be read: whoever writes tries one after the other.

    Never raises. A folder that is missing and cannot be made is left out. That of the SQLite file
    is not made: where its disk is not mounted, what is written would be hidden by the mount.

    Args:
        database_url: as configured; one that cannot be read has no folder of its own.

    Returns:
        Absolute paths, each once.
    """
    folders = [
        *_of_the_file(database_url),
        *_of_the_service("STATE_DIRECTORY"),
        *_of_the_service("RUNTIME_DIRECTORY"),
        *_temporary(),
    ]
    return list(dict.fromkeys(folders))


def folders_in_memory() -> list[Path]:
    """List the folders on no disk in which state may be written, the best first; never raises."""
    shared = _SHARED_MEMORY / f"leadone-{os.getuid()}"
    return [*_of_the_service("RUNTIME_DIRECTORY"), *_private(shared)]


def _of_the_file(database_url: str) -> list[Path]:
    try:
        url = parse_url(database_url)
        if url.get_backend_name() != "sqlite":
            return []
        folder = sqlite_path(url).absolute().parent
        return [folder] if folder.is_dir() else []
    except (DatabaseError, OSError, ValueError):
        return []


def _of_the_service(variable: str) -> list[Path]:
    # systemd separates several by colons; the first is the one that the unit names first.
    names = [name for name in os.environ.get(variable, "").split(":") if name.startswith("/")]
    return [folder for folder in map(Path, names) if _made(folder)]


def _temporary() -> list[Path]:
    try:
        folder = Path(tempfile.gettempdir()).absolute() / f"leadone-{os.getuid()}"
    except OSError:  # no folder for temporary files can be written
        return []
    return _private(folder)


def _private(folder: Path) -> list[Path]:
    if not _made(folder):
        return []
    try:
        # Everybody may write beside it: what somebody else put there under its name, or a link to
        # another place, must not be given what is known of patients.
        found = folder.lstat()
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
            return []
        if stat.S_IMODE(found.st_mode) != stat.S_IRWXU:
            folder.chmod(stat.S_IRWXU)
    except OSError:
        return []
    return [folder]


def _made(folder: Path) -> bool:
    try:
        folder.mkdir(mode=stat.S_IRWXU, parents=True, exist_ok=True)
    except (OSError, ValueError):
        return False
    return True
