"""Reads what can be read of a SQLite file that lies on a sick disk, or is damaged itself."""

import sqlite3
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from sqlalchemy import PoolProxiedConnection

from monitor.storage.database import error_line, open_as_it_lies

Values = dict[str, Any]
"""A row as it was found, by column; texts with bytes that are none have U+FFFD for them."""

# What holds a heart takes no more; a length that a damaged page makes up would take all memory.
_LONGEST_VALUE = 16_000_000

# Rows around damage that are asked for one by one, if no index says which there are.
_MOST_GUESSES = 20_000

# Of the newest rows, if the index that finds them cannot be used.
_MOST_NEWEST = 3000

# Damage also gets into the texts of SQLite's own messages, and then Python cannot read those.
_DAMAGE = (sqlite3.Error, ValueError, MemoryError)

_EVERY = 10_000  # steps of SQLite's machine between two looks at the time

_SMALLEST, _LARGEST = -(2**63), 2**63 - 1


class DamagedFile:
    """Reads the tables of one file, each as far as possible; nothing is written or locked.

    Attributes:
        failures: by table, why a part of it could not be read, in one line.
    """

    def __init__(self, path: Path, *, within_s: float) -> None:
        """Open the file.

        Args:
            path: of the file.
            within_s: after this long all reading ends, as if what is left were damaged.

        Raises:
            sqlalchemy.exc.SQLAlchemyError, sqlite3.Error: it cannot be opened.
        """
        self.failures: dict[str, str] = {}
        self._until = time.monotonic() + within_s
        self._engine = open_as_it_lies(path)
        self._pooled: PoolProxiedConnection = self._engine.raw_connection()
        connection = self._pooled.driver_connection
        assert isinstance(connection, sqlite3.Connection)
        self._connection = connection
        connection.text_factory = lambda text: text.decode("utf-8", "replace")
        connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, _LONGEST_VALUE)
        connection.set_progress_handler(lambda: time.monotonic() > self._until, _EVERY)
        self._columns = self._read_columns()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._pooled.close()
        self._engine.dispose()

    def columns(self, table: str) -> frozenset[str]:
        """The columns of a table; none if there is no such table."""
        return self._columns.get(table, frozenset())

    def rows(self, table: str, columns: Iterable[str]) -> Iterator[Values]:
        """Every row of a table that can be read, each once, in no order.

        From both ends up to the damage, then one by one.
        """
        names = tuple(columns)
        low, high = _SMALLEST, _LARGEST
        for rowid, values in self._scan(table, names, "ASC", low, high):
            low = rowid
            yield values
        if table not in self.failures:
            return
        for rowid, values in self._scan(table, names, "DESC", low, high):
            high = rowid
            yield values
        listed, complete = self._listed(table, names, low, high)
        rowids: set[int] = set(listed)
        if not complete:
            first = max(low + 1, 1)
            rowids.update(range(first, min(high, first + _MOST_GUESSES)))
        for rowid in rowids:
            if time.monotonic() > self._until:
                return
            whole = listed.get(rowid)
            if whole is not None:
                yield whole
            else:
                yield from self._row(table, names, rowid)

    def newest(
        self, table: str, columns: Iterable[str], device: int, by: str, spans: list[tuple[int, int]]
    ) -> list[Values]:
        """A device's rows of these spans of time, each with both its ends."""
        names = tuple(columns)
        inside = " OR ".join(f'"{by}" BETWEEN {since} AND {until}' for since, until in spans)
        found: list[Values] = []
        query = (
            f'SELECT {_listing(names)} FROM "{table}" '  # noqa: S608 - names of the schema
            f'WHERE device_id = ? AND ({inside}) ORDER BY "{by}" DESC LIMIT {_MOST_NEWEST}'
        )
        try:
            rows = self._connection.execute(query, (device,))
            found.extend(dict(zip(names, row, strict=True)) for row in rows)
        except _DAMAGE as error:
            self.failures[table] = error_line(error)
        else:
            return found
        seen = {tuple(row.values()) for row in found}
        for _, values in self._scan(table, names, "DESC", _SMALLEST, _LARGEST, _MOST_NEWEST):
            if values["device_id"] != device or not isinstance(at := values[by], int):
                continue
            if any(s <= at <= u for s, u in spans) and tuple(values.values()) not in seen:
                found.append(values)
        return found

    def latest(self, table: str, device: int, by: str) -> int | None:
        """The largest time of a device's rows; None if there is none, or it cannot be read."""
        query = f'SELECT max("{by}") FROM "{table}" WHERE device_id = ?'  # noqa: S608 - see above
        try:
            (found,) = self._connection.execute(query, (device,)).fetchone()
        except _DAMAGE as error:
            self.failures[table] = error_line(error)
            return None
        return found if isinstance(found, int) else None

    def _scan(
        self,
        table: str,
        names: tuple[str, ...],
        order: str,
        low: int,
        high: int,
        most: int = -1,
    ) -> Iterator[tuple[int, Values]]:
        """Rows between two rowids, up to the first that cannot be read: then it is a failure.

        The driver looks one row ahead, and so gives away the last one before the damage.
        """
        # Without an index: it may be damaged where the table is not.
        query = (
            f'SELECT rowid, {_listing(names)} FROM "{table}" NOT INDEXED '  # noqa: S608 - see above
            f"WHERE rowid > {max(low, _SMALLEST)} AND rowid < {min(high, _LARGEST)} "
            f"ORDER BY rowid {order} LIMIT {most}"
        )
        try:
            for rowid, *values in self._connection.execute(query):
                yield rowid, dict(zip(names, values, strict=True))
        except _DAMAGE as error:
            self.failures[table] = error_line(error)

    def _row(self, table: str, names: tuple[str, ...], rowid: int) -> list[Values]:
        """One row; not by a range, for the end of one is looked for where the damage is."""
        query = f'SELECT {_listing(names)} FROM "{table}" NOT INDEXED WHERE rowid = ?'  # noqa: S608
        try:
            found = self._connection.execute(query, (rowid,)).fetchall()
        except _DAMAGE as error:
            self.failures[table] = error_line(error)
            return []
        return [dict(zip(names, values, strict=True)) for values in found]

    def _listed(
        self, table: str, names: tuple[str, ...], low: int, high: int
    ) -> tuple[dict[int, Values | None], bool]:
        """Rowids between two, with the row where an index holds it; and whether that is all."""
        found: dict[int, Values | None] = {}
        complete = False
        try:
            indexes = [row[1] for row in self._connection.execute(f'PRAGMA index_list("{table}")')]
        except _DAMAGE:
            return found, False
        for index in indexes:
            try:
                held = {r[2] for r in self._connection.execute(f'PRAGMA index_info("{index}")')}
                whole = set(names) <= held | self._aliases(table)
                listing = _listing(names) if whole else "NULL"
                for rowid, *values in self._connection.execute(
                    f'SELECT rowid, {listing} FROM "{table}" '  # noqa: S608 - see above
                    f'INDEXED BY "{index}" WHERE rowid > {low} AND rowid < {high}'
                ):
                    row = dict(zip(names, values, strict=True)) if whole else None
                    found[rowid] = found.get(rowid) or row
            except _DAMAGE:
                continue
            complete = True
        return found, complete

    def _aliases(self, table: str) -> set[str]:
        """The column that is the rowid by another name, which every index holds."""
        rows = self._connection.execute(f'PRAGMA table_info("{table}")').fetchall()
        key = [row for row in rows if row[5]]
        return {key[0][1]} if len(key) == 1 and key[0][2].upper() == "INTEGER" else set()

    def _read_columns(self) -> dict[str, frozenset[str]]:
        try:
            self._connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
        except _DAMAGE:
            # So that one definition that makes no sense does not keep all others from being used.
            self._connection.execute("PRAGMA writable_schema = ON")
        names: list[str] = []
        try:
            query = "SELECT name FROM sqlite_master WHERE type = 'table'"
            names.extend(name for (name,) in self._connection.execute(query))
        except _DAMAGE as error:
            self.failures["sqlite_master"] = error_line(error)
        found: dict[str, frozenset[str]] = {}
        for name in names:
            with suppress(*_DAMAGE):
                info = self._connection.execute(f'PRAGMA table_info("{name}")')
                found[name] = frozenset(row[1] for row in info)
        return found


def _listing(names: tuple[str, ...]) -> str:
    return ", ".join(f'"{name}"' for name in names)
