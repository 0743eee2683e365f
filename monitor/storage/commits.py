"""Commits groups over one connection, and knows those again whose commit had no end."""

from contextlib import suppress

from sqlalchemy import Connection, Engine

from monitor.storage.batch import Batch, BatchWriter
from monitor.storage.group import Group
from monitor.storage.positions import move_positions, read_positions
from monitor.storage.replay import new_mark, write_counted
from monitor.storage.spooling import Spooling


class Commits:
    """The writing connection of a writer; for its thread alone."""

    def __init__(self, engine: Engine, apart: Spooling | None) -> None:
        """Prepare; nothing is connected yet.

        Args:
            engine: of the database.
            apart: the way into the writer's spool. With one, each transaction leaves a mark in the
                database: a connection that breaks in a commit does not tell whether it was done.
        """
        self.batches = BatchWriter(engine.dialect)
        self._engine = engine
        self._apart = apart
        self._connection: Connection | None = None
        self._left_mark: int | None = None

    def connection(self) -> Connection:
        """The connection, opened if there is none."""
        if self._connection is None:
            self._connection = self._engine.connect()
            self._left_mark = self._read_mark(self._connection)
        return self._connection

    def disconnect(self) -> None:
        """Close the connection; what the last commit came to is read from the next one."""
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(Exception):  # it is thrown away because it is broken
                connection.close()

    def commit(self, groups: list[Group]) -> bool:
        """Write groups in one transaction.

        Returns:
            False if they are not to be written any more: another thread saw to them meanwhile.

        Raises:
            Exception: nothing was written; or, if the connection broke, perhaps everything.
        """
        connection = self.connection()
        batch = Batch()
        for group in groups:
            # One whose transaction seemed to fail may have been committed after all.
            if group.mark is None or group.mark != self._left_mark:
                assert group.batch is not None
                batch.add(group.batch)
        if self._apart is None:
            write_counted(self.batches, connection, batch)
            return True
        mark, name = new_mark(), self._apart.name
        before = {} if self._left_mark is None else {name: self._left_mark}
        with self._apart.lock:
            if self._apart.active:
                return False
            for group in groups:
                group.mark = mark

        def leave(within: Connection) -> None:
            move_positions(within, before, {name: mark})

        write_counted(self.batches, connection, batch, leave)
        self._left_mark = mark
        return True

    def _read_mark(self, connection: Connection) -> int | None:
        if self._apart is None:
            return None
        position = read_positions(connection).get(self._apart.name)
        connection.rollback()
        return position
