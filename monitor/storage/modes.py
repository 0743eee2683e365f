"""Who may read the files of the database."""

import os
import stat
from contextlib import suppress
from pathlib import Path

import structlog

# Hearts are nobody else's business. The group is for people who look after the gateway.
_WIDEST = 0o640

_log = structlog.get_logger(__name__)

_told: set[Path] = set()


def create_private(path: Path) -> None:
    """Make an empty file that only its owner, and the group if the umask lets it, can read.

    One that exists is left as it is. If it cannot be made nothing happens: SQLite tries too, and
    says what is wrong.
    """
    with suppress(OSError):
        # Never an existing one: to close it would drop the locks that SQLite has on it.
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, _WIDEST))


def narrow(path: Path) -> None:
    """Take what everybody may do with a database's file, log and index from them; log it once.

    Whoever does not own them, or finds them on a read-only disk, leaves them as they are, which is
    logged once as well.
    """
    try:
        wide = [f for f in (path, Path(f"{path}-wal"), Path(f"{path}-shm")) if _everybodys(f)]
        for file in wide:
            # By its name, not by a descriptor: to close that would drop SQLite's locks.
            file.chmod(stat.S_IMODE(file.stat().st_mode) & ~stat.S_IRWXO)
    except OSError as error:
        if path not in _told:
            _log.warning("database_is_open_to_everybody", file=str(path), error=error.strerror)
            _told.add(path)
    else:
        if wide and path not in _told:
            _log.warning("database_was_open_to_everybody", file=str(path))
            _told.add(path)


def _everybodys(file: Path) -> bool:
    try:
        return bool(file.stat().st_mode & stat.S_IRWXO)
    except OSError:
        return False
