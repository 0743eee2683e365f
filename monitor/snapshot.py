"""What a start without the database is made from: a copy of its live state, spool, and pairings."""

import hashlib
import os
import time
from contextlib import suppress
from pathlib import Path

import structlog

from monitor.storage import maintenance
from monitor.storage.database import DatabaseError, describe, parse_url, sqlite_path
from monitor.storage.history import History
from monitor.storage.pairings import kept
from monitor.storage.places import folders_in_memory, state_folders
from monitor.storage.replay import replay
from monitor.storage.salvage import salvage
from monitor.storage.spool import Spool
from monitor.storage.writer import Writer

_log = structlog.get_logger()

_NAME = ".leadone-snapshot-"


def spools(url: str) -> list[Spool]:
    """What earlier runs left for a database, in its order; the first is where more may go."""
    return [Spool(state_folders(url), _name_of(url)), late_spool(url)]


def late_spool(url: str) -> Spool:
    """The spool of runs that begin while a database's disk hangs: on no disk, and apart.

    A thread that hangs with the other one in its hands must not find it changed.
    """
    return Spool(folders_in_memory(), f"late-{_name_of(url)}")


def take_snapshot(url: str, *, hangs: bool = False, empty: bool = False) -> Path:
    """Copy what can be read of a database's live state, with its spool, into a small SQLite file.

    Args:
        url: of the database.
        hangs: whether it gave no answer: then nothing is written to its disk.
        empty: whether to read nothing of it either, but the pairings that are kept beside it.

    Raises:
        DatabaseError: nowhere can even a small file be written.
    """
    failed = DatabaseError("no folder in which a snapshot could be written")
    others = [] if hangs else [*reversed(state_folders(url))]
    for folder in (*folders_in_memory(), *others):
        _remove_left(folder)
        path = folder / f"{_NAME}{os.getpid()}-{time.monotonic_ns()}.db"
        try:
            _copy(url, f"sqlite:///{path}", empty=empty)
        except (DatabaseError, OSError) as error:
            failed = error if isinstance(error, DatabaseError) else DatabaseError(str(error))
            remove_database(path)
        else:
            return path
    raise failed


def restore_pairings(url: str, into: str) -> None:
    """Give a database without pairings those that are kept beside another, or beside itself.

    Args:
        url: of the database they were kept for.
        into: of the one that gets them; at the program's schema.

    Raises:
        DatabaseError: it cannot be written.
    """
    known = kept(state_folders(url), url)
    if known is None or not known.straps:
        return
    with History(into) as history:
        if history.straps():
            return
    writer = Writer(into)
    writer.start()
    storing = writer.submit(*known.straps)
    writer.stop()
    storing.result()


def remove_database(path: Path) -> None:
    """Remove a SQLite file with its log, if it is there."""
    for suffix in ("", "-wal", "-shm", "-journal"):
        with suppress(OSError):
            Path(f"{path}{suffix}").unlink(missing_ok=True)


def _copy(url: str, into: str, *, empty: bool) -> None:
    maintenance.upgrade(into)
    if empty:
        restore_pairings(url, into)
        return
    parsed = parse_url(url)
    source = sqlite_path(parsed) if parsed.get_backend_name() == "sqlite" else url
    try:
        read = salvage(source, into)
    except DatabaseError as error:
        _log.warning("nothing_read", database=describe(parsed), reason=str(error))
    else:
        _log.info("live_state_read", database=describe(parsed), rows=read.counts)
    for spool in spools(url):
        replay(spool, into, keep=True)
        spool.close()
    restore_pairings(url, into)


def _name_of(url: str) -> str:
    """What the files of a database's spool begin with; no two share them in a common folder."""
    parsed = parse_url(url)
    name, whole = "postgres", describe(parsed)
    if parsed.get_backend_name() == "sqlite":
        path = sqlite_path(parsed).absolute()
        name, whole = path.name, str(path)
    return f"{name}-{hashlib.sha256(whole.encode()).hexdigest()[:12]}"


def _remove_left(folder: Path) -> None:
    """Remove the snapshots of processes that were killed: they tell of patients."""
    with suppress(OSError):
        for path in folder.glob(f"{_NAME}*.db"):
            pid = path.name.removeprefix(_NAME).partition("-")[0]
            if not Path(f"/proc/{pid}").exists():
                remove_database(path)
