"""What kind of trouble an error of the database is."""

import os
import sqlite3
from enum import StrEnum
from pathlib import Path

from sqlalchemy import URL
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError

# SQLite reserves some bytes, and file systems count in blocks: less than this is a full disk.
_FULL_BYTES = 64 * 1024


class Kind(StrEnum):
    """What is wrong with a database, as far as it decides what to do."""

    AWAY = "away"
    """It cannot be reached: server or file gone, no answer from the disk."""
    LOCKED = "locked"
    """Another process keeps it to itself: a backup, or somebody's shell."""
    FULL = "full"
    READ_ONLY = "read_only"
    DAMAGED = "damaged"
    NEWER = "newer"
    """A newer version of the program made it."""
    OLDER = "older"
    """An upgrade makes it usable."""
    EMPTY = "empty"
    """It has no tables; an upgrade makes them."""
    OTHER = "other"


_OF_SQLITE = {
    sqlite3.SQLITE_BUSY: Kind.LOCKED,
    sqlite3.SQLITE_LOCKED: Kind.LOCKED,
    sqlite3.SQLITE_PROTOCOL: Kind.LOCKED,
    sqlite3.SQLITE_FULL: Kind.FULL,
    sqlite3.SQLITE_READONLY: Kind.READ_ONLY,
    sqlite3.SQLITE_PERM: Kind.READ_ONLY,
    sqlite3.SQLITE_CORRUPT: Kind.DAMAGED,
    sqlite3.SQLITE_NOTADB: Kind.DAMAGED,
}

# What is told by the whole code, where its lowest byte alone would mislead.
_OF_SQLITE_EXTENDED = {
    sqlite3.SQLITE_READONLY_DBMOVED: Kind.AWAY,
    sqlite3.SQLITE_IOERR_SHORT_READ: Kind.DAMAGED,
    sqlite3.SQLITE_IOERR_CORRUPTFS: Kind.DAMAGED,
}

# A disk that is full or read-only also shows as one of these: SQLite could not make the log or its
# index, and does not say why.
_UNCLEAR = {sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_IOERR}

# SQLSTATE, the whole or its class; see "PostgreSQL Error Codes" in its manual.
_OF_POSTGRES = {
    "53100": Kind.FULL,
    "25006": Kind.READ_ONLY,
    "XX001": Kind.DAMAGED,
    "XX002": Kind.DAMAGED,
    "42": Kind.OTHER,
    "28": Kind.AWAY,
    "3D": Kind.AWAY,
}


_IN_WORDS = {
    Kind.FULL: ("its disk is full", "full"),
    Kind.READ_ONLY: ("its disk or file is read-only", "read"),
    Kind.DAMAGED: ("the file is damaged", "damaged"),
}


def in_words(line: str, kind: Kind) -> str:
    """Add to what a driver says of an error what that means, where it does not say so."""
    words, said = _IN_WORDS.get(kind, ("", ""))
    return line if said in line.lower() else f"{line}: {words}"


def kind_of(error: BaseException, url: URL) -> Kind:
    """Tell what kind of trouble an error is.

    Args:
        error: of SQLAlchemy or of a driver. One about bytes that are no text is damage; any other
            is ``OTHER``.
        url: of the database; where an SQLite file lies is looked at, if the error leaves it open.
    """
    cause = error.orig if isinstance(error, DBAPIError) else error
    if isinstance(cause, sqlite3.Error):
        return _of_sqlite(cause, Path(url.database or ""))
    if isinstance(cause, UnicodeDecodeError):
        return Kind.DAMAGED
    state = getattr(cause, "sqlstate", None) or ""
    for key in (state, state[:2]):
        if key in _OF_POSTGRES:
            return _OF_POSTGRES[key]
    # An error while connecting has no state. Everything operational that is not told above is the
    # server's trouble: it starts, stops, has no room for one more, broke the connection.
    return Kind.AWAY if isinstance(error, OperationalError | InterfaceError) else Kind.OTHER


def _of_sqlite(error: sqlite3.Error, path: Path) -> Kind:
    code = getattr(error, "sqlite_errorcode", None)
    if code is None:
        # The driver's own: among what it says of files only this can be met.
        return Kind.DAMAGED if "decode to UTF-8" in str(error) else Kind.OTHER
    if code in _OF_SQLITE_EXTENDED:
        return _OF_SQLITE_EXTENDED[code]
    primary = code & 0xFF
    if primary in _UNCLEAR:
        return _of_disk(path)
    return _OF_SQLITE.get(primary, Kind.OTHER)


def _of_disk(path: Path) -> Kind:
    try:
        disk = os.statvfs(path)
    except OSError:
        return Kind.AWAY
    if disk.f_flag & os.ST_RDONLY or not (
        os.access(path, os.W_OK) and os.access(path.absolute().parent, os.W_OK)
    ):
        return Kind.READ_ONLY
    return Kind.FULL if disk.f_bavail * disk.f_frsize < _FULL_BYTES else Kind.AWAY
