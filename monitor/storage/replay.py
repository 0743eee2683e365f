"""Takes what was kept in a spool into the database, in order, each group exactly once.

How many groups of each file are stored is itself stored, in the transaction that stores them: a
process that dies between that commit and the end of the spool goes on behind it.
"""

import secrets
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

import structlog
from sqlalchemy import Connection
from sqlalchemy.exc import DataError, DBAPIError, IntegrityError

from alerts.records import Audit, ClockSet
from monitor import metrics
from monitor.storage.batch import Batch, BatchWriter
from monitor.storage.database import (
    DatabaseError,
    describe,
    error_line,
    open_engine,
    parse_url,
    require_revision,
    told,
)
from monitor.storage.positions import forget_positions, move_positions, read_positions
from monitor.storage.records import Record, Request
from monitor.storage.spool import Cursor, Entry, Spool

_log = structlog.get_logger(__name__)

# A transaction of a few tenths of a second on a small gateway: new records wait no longer.
_GROUPS = 256


MARK = "mark"
"""Beside a group in the spool: its writer's name, and the mark of the transaction in doubt."""


def new_mark() -> int:
    """A mark for a transaction, which no other one has."""
    return secrets.randbits(63)


def may_pass(error: Exception) -> bool:
    """Whether the same write may succeed later: it is the database's trouble, not the record's."""
    if isinstance(error, DBAPIError):
        return not isinstance(error, IntegrityError | DataError)
    return isinstance(error, OSError | MemoryError)


class Replay:
    """Takes a spool into a database, step by step.

    Attributes:
        taken: how many groups were gone through.
        refused: how many of them the database refused for good; of these goes in what can.
    """

    def __init__(self, spool: Spool, batches: BatchWriter) -> None:
        """Prepare.

        Args:
            spool: read, and cleared by ``clear``.
            batches: writes to the database.
        """
        self._spool = spool
        self._batches = batches
        self._cursor: Cursor | None = None
        self._positions: dict[str, int] = {}
        self._appended = 0  # of the spool, before the last step
        self.taken = self.refused = 0

    def step(self, connection: Connection) -> bool:
        """Store the next groups, in one transaction.

        Returns:
            Whether there may be more of them.

        Raises:
            Exception: the database is (still) away; the next step begins where this one did.
        """
        try:
            if self._cursor is None:
                require_revision(connection)
                self._positions = read_positions(connection)
                connection.rollback()
                # It may be another database by now: one that was restored, or begun anew.
                self._batches.forget()
                self._cursor = self._spool.cursor(self._positions)
            self._appended = self._spool.appended
            entries = self._cursor.take(_GROUPS)
            if entries:
                self._store(connection, entries)
        except BaseException:
            # Whether it was committed, and so where to go on, only the database knows.
            self._cursor = None
            raise
        self.taken += len(entries)
        return len(entries) == _GROUPS

    def secure(self, connection: Connection) -> None:
        """See to it that the spool can be cleared; the database may take its time."""
        if connection.dialect.name == "sqlite":
            # The log goes to the disk: a power cut must not take what is nowhere else any more.
            with suppress(Exception):
                driver: Any = connection.connection.driver_connection
                driver.execute("PRAGMA wal_checkpoint(PASSIVE)")

    def clear(self) -> list[str]:
        """Clear the spool, unless something has come into it since the last step.

        Returns:
            The files whose positions are to be forgotten; none if it is not empty.
        """
        if self._spool.appended != self._appended:
            return []
        self._cursor = None
        return self._spool.clear()

    def forget(self, connection: Connection, gone: Collection[str]) -> None:
        """Forget the positions of files that are gone."""
        # A row that stays does no harm: no file will ever have that id again.
        with suppress(Exception):
            forget_positions(connection, gone)

    def _store(self, connection: Connection, entries: Sequence[Entry]) -> None:
        try:
            self._transaction(connection, entries)
        except Exception as error:
            if may_pass(error):
                raise
            # One of them cannot be written; or rows were deleted behind our back.
            self._batches.forget()
            for entry in entries:
                self._store_one(connection, entry)

    def _store_one(self, connection: Connection, entry: Entry) -> None:
        try:
            self._transaction(connection, [entry])
        except Exception as error:
            if may_pass(error):
                raise
            kinds = ", ".join(type(record).__name__ for record in entry.records)
            _log.error("spooled_group_refused", records=kinds, error=error_line(error))
            metrics.SPOOL_REFUSED.inc()
            self.refused += 1
            self._store_rest(connection, entry)

    def _store_rest(self, connection: Connection, entry: Entry) -> None:
        """Store of a refused group what can be: one record may tell of what was lost since.

        A database that was begun anew has not every alarm that a message tells of; the window
        beside it is no worse for that. What must not be done twice is done with the position.
        """
        once: list[Record] = []
        for record in entry.records:
            if isinstance(record, ClockSet | Audit | Request):
                once.append(record)
                continue
            try:
                write_counted(self._batches, connection, Batch.of([record]))
            except Exception as error:
                if may_pass(error):
                    raise
        try:
            self._transaction(connection, [replace(entry, records=tuple(once))])
        except Exception as error:
            if may_pass(error):
                raise
            self._transaction(connection, [replace(entry, records=())])

    def _transaction(self, connection: Connection, entries: Sequence[Entry]) -> None:
        batch = Batch()
        moved: dict[str, int] = {}
        for entry in entries:
            moved[entry.file] = entry.index + 1
            if MARK in entry.about:
                # It went here after a commit that nobody knows the end of.
                writer, mark = entry.about[MARK]
                if self._positions.get(writer) == mark:
                    continue
                # Should that commit still be under way: only one of the two succeeds.
                moved[writer] = new_mark()
            batch.add(Batch.of(entry.records))
        before = self._positions

        def move(within: Connection) -> None:
            move_positions(within, before, moved)

        write_counted(self._batches, connection, batch, move)
        self._positions = before | moved


def replay(spool: Spool, url: str, *, keep: bool = False) -> int:
    """Take all of a spool into a database at once, before anything is read from it.

    Args:
        spool: what an earlier run left; cleared afterwards.
        url: of the database, at the program's schema.
        keep: whether the spool is left as it is: for a copy, which the true database may follow.

    Returns:
        How many groups were taken in.

    Raises:
        DatabaseError: the database cannot be written, or cannot be any more; nothing is lost.
    """
    parsed = parse_url(url)
    if spool.is_empty:
        return 0
    engine = open_engine(parsed)
    try:
        with told(parsed), engine.connect() as connection:
            replaying = Replay(spool, BatchWriter(engine.dialect))
            while replaying.step(connection):
                pass
            if not keep:
                replaying.secure(connection)
                replaying.forget(connection, replaying.clear())
    except OSError as error:
        raise DatabaseError(f"{describe(parsed)}: {error}") from error
    finally:
        engine.dispose()
    taken, refused = replaying.taken, replaying.refused
    _log.info("spool_replayed", database=describe(parsed), groups=taken, refused=refused)
    return taken


def write_counted(
    batches: BatchWriter,
    connection: Connection,
    batch: Batch,
    also: Callable[[Connection], None] | None = None,
) -> None:
    """Write and commit a batch, and count what that added; see ``BatchWriter.write``."""
    counts = batches.write(connection, batch, also)
    metrics.SEGMENTS_STORED.inc(counts.segments)
    raw = len(batch.segments) + len(batch.rr_intervals)
    metrics.SEGMENTS_REPEATED.inc(raw - counts.segments)
    metrics.WINDOWS_STORED.inc(counts.windows)
