"""Reads a server's tables that a newer version of the program made."""

from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import Any, Self

from sqlalchemy import URL, inspect, text
from sqlalchemy.exc import SQLAlchemyError

from monitor.storage.damaged import Values
from monitor.storage.database import error_line, open_engine


class ServerTables:
    """Reads the tables of a Postgres database, each by itself; nothing is written.

    Attributes:
        failures: by table, why it could not be read, in one line.
    """

    def __init__(self, url: URL, *, within_s: float) -> None:
        """Connect.

        Args:
            url: from ``parse_url``.
            within_s: no table may take longer.

        Raises:
            DatabaseError, sqlalchemy.exc.SQLAlchemyError: it does not answer.
        """
        self.failures: dict[str, str] = {}
        # By itself each statement, so that one that fails takes none after it along.
        self._engine = open_engine(url).execution_options(isolation_level="AUTOCOMMIT")
        self._connection = self._engine.connect()
        self._connection.execute(text(f"SET statement_timeout = {round(within_s * 1000)}"))
        inspector = inspect(self._connection)
        self._columns = {
            table: frozenset(column["name"] for column in inspector.get_columns(table))
            for table in inspector.get_table_names()
        }

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._connection.close()

    def columns(self, table: str) -> frozenset[str]:
        """The columns of a table; none if there is no such table."""
        return self._columns.get(table, frozenset())

    def rows(self, table: str, columns: Iterable[str]) -> Iterator[Values]:
        """Every row of a table; none if that fails."""
        listing = ", ".join(f'"{name}"' for name in columns)
        yield from self._read(table, f'SELECT {listing} FROM "{table}"')  # noqa: S608 - our names

    def newest(
        self, table: str, columns: Iterable[str], device: int, by: str, spans: list[tuple[int, int]]
    ) -> list[Values]:
        """A device's rows of these spans of time, each with both its ends."""
        listing = ", ".join(f'"{name}"' for name in columns)
        inside = " OR ".join(f'"{by}" BETWEEN {since} AND {until}' for since, until in spans)
        query = (
            f'SELECT {listing} FROM "{table}" '  # noqa: S608 - our names
            f"WHERE device_id = :device AND ({inside})"
        )
        return self._read(table, query, device=device)

    def latest(self, table: str, device: int, by: str) -> int | None:
        """The largest time of a device's rows; None if there is none, or it cannot be read."""
        query = f'SELECT max("{by}") AS at FROM "{table}" WHERE device_id = :device'  # noqa: S608
        rows = self._read(table, query, device=device)
        return rows[0]["at"] if rows else None

    def _read(self, table: str, query: str, **values: Any) -> list[Values]:
        try:
            found = self._connection.execute(text(query), values).mappings()
            return [dict(row) for row in found]
        except SQLAlchemyError as error:
            self.failures[table] = error_line(error)
            return []
