"""Where the database is, how it is opened, and how its errors are told."""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

from sqlalchemy import URL, Connection, Engine, create_engine, event, inspect, make_url, text
from sqlalchemy.exc import ArgumentError, DBAPIError, SQLAlchemyError
from sqlalchemy.pool import NullPool

from monitor.storage.kinds import Kind, in_words, kind_of
from monitor.storage.modes import create_private, narrow
from monitor.storage.schema import REVISION, Base

BUSY_TIMEOUT_S = 5.0
"""How long SQLite waits for a lock that another process holds."""

# A server that vanished without a word is noticed within half a minute, not after the quarter of an
# hour that the kernel would take.
_POSTGRES_OPTIONS = {
    "application_name": "leadone",
    "connect_timeout": "10",
    "keepalives_idle": "10",
    "keepalives_interval": "5",
    "keepalives_count": "3",
    "tcp_user_timeout": "15000",
}


class DatabaseError(Exception):
    """What is wrong with the database: one line that names its URL, without the password.

    Attributes:
        kind: what that is, for whoever has to do something about it.
    """

    def __init__(self, line: str, kind: Kind = Kind.OTHER) -> None:
        super().__init__(line)
        self.kind = kind


def folder_of(database: str) -> Path | None:
    """Where an SQLite file lies; None for a database on a machine of its own.

    Args:
        database: its URL.
    """
    url = make_url(database)
    if url.get_backend_name() != "sqlite" or not url.database:
        return None
    return Path(url.database).absolute().parent


def parse_url(url: str) -> URL:
    """Read a database URL.

    Args:
        url: ``sqlite:////var/lib/leadone/leadone.db`` or ``postgresql://user:password@host/name``.

    Raises:
        DatabaseError: it is neither.
    """
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):
        # No cause and no echo: both would carry the password.
        raise DatabaseError(
            "not a database URL: write sqlite:////path/to/file.db or postgresql://user@host/name"
        ) from None
    match parsed.get_backend_name():
        case "sqlite":
            if parsed.database in {None, "", ":memory:"} or parsed.query or parsed.host:
                raise DatabaseError("a SQLite URL is sqlite:/// and the path of a file")
            return parsed.set(drivername="sqlite+pysqlite")
        case "postgresql":
            # A password with an unquoted / or @ is read as part of what follows it.
            if "@" in (parsed.database or ""):
                raise DatabaseError("a database URL with a password that must be percent-encoded")
            return parsed.set(drivername="postgresql+psycopg")
        case _:
            raise DatabaseError(f"{describe(parsed)}: only SQLite and Postgres are supported")


def describe(url: URL) -> str:
    """The URL for people: no driver, no password."""
    shown = url.set(drivername=url.get_backend_name()).difference_update_query(
        ["password", "sslpassword"]
    )
    return shown.render_as_string(hide_password=True)


def sqlite_path(url: URL) -> Path:
    """The file of a SQLite URL."""
    return Path(url.database or "")


def open_engine(url: URL, *, create: bool = False, read_only: bool = False) -> Engine:
    """Make an engine; nothing is connected yet.

    A SQLite connection writes ahead (WAL), so that readers and the writer do not wait for each
    other, with ``synchronous=NORMAL``: a commit survives the death of the process at any moment; a
    power cut or a crash of the kernel may undo the last commits (those since the last checkpoint or
    the system's own flush, some seconds), but never damages the file.

    A SQLite file is created for its owner and, where the umask lets it, for reading by the group,
    whatever else the umask would allow; one that everybody may read is narrowed. Its log and index
    get the same mode from SQLite.

    Args:
        url: from ``parse_url``.
        create: whether a missing SQLite file is created.
        read_only: for an engine that only reads; it pools its connections, any other keeps none.

    Raises:
        DatabaseError: the driver is not installed.
    """
    pool: dict[str, Any] = {} if read_only else {"poolclass": NullPool}
    # Parameters are what the database knows of people; no error message may carry them.
    if url.get_backend_name() == "postgresql":
        options = {k: v for k, v in _POSTGRES_OPTIONS.items() if k not in url.query}
        try:
            engine = create_engine(url, connect_args=options, hide_parameters=True, **pool)
        except ModuleNotFoundError as error:
            raise DatabaseError(
                f"{describe(url)}: needs a driver: pip install 'leadone[postgres]'"
            ) from error
        return engine.execution_options(postgresql_readonly=True) if read_only else engine

    path = sqlite_path(url)

    def connect() -> sqlite3.Connection:
        # Readers open for writing too: after a crash the first one has to recover the log.
        mode = "rwc" if create else "rw"
        if create:
            create_private(path)
        narrow(path)
        connection = sqlite3.connect(
            f"file:{quote(str(path))}?mode={mode}",
            uri=True,
            timeout=BUSY_TIMEOUT_S,
            isolation_level=None,  # transactions are begun below, not guessed by the driver
            check_same_thread=False,
        )
        if read_only:
            connection.execute("PRAGMA query_only = ON")
        else:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = NORMAL")
            connection.execute("PRAGMA foreign_keys = ON")
        return connection

    engine = create_engine(url, creator=connect, hide_parameters=True, **pool)

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        # A writer takes the lock at once: one that reads first and then finds another writer has
        # been faster cannot wait for it, only fail.
        connection.exec_driver_sql("BEGIN" if read_only else "BEGIN IMMEDIATE")

    return engine


def open_as_it_lies(path: Path) -> Engine:
    """Make an engine that reads a SQLite file where nothing can be written: disk full, read-only.

    What the log holds is read too, if there is one: its index, which would be a file, is kept in
    memory. Nothing is locked, so only a file that nobody writes is read right; and as closing it
    drops the locks that this process has on it, not while ``open_engine`` has it open here.

    Args:
        path: the file; its connections, which are not pooled, fail if it is missing.
    """

    def connect() -> sqlite3.Connection:
        log = Path(f"{path}-wal")
        ways = ["immutable=1"]  # reads no log
        if log.exists() and log.stat().st_size > 0:
            ways.insert(0, "vfs=unix-none")
        while True:
            way = ways.pop(0)
            connection = sqlite3.connect(
                f"file:{quote(str(path))}?mode=ro&{way}",
                uri=True,
                isolation_level=None,
                check_same_thread=False,
            )
            try:
                connection.execute("PRAGMA query_only = ON")
                # Without this, SQLite wants a file for the index of the log.
                connection.execute("PRAGMA locking_mode = EXCLUSIVE")
                connection.execute("SELECT 1 FROM sqlite_master").fetchone()
            except (sqlite3.Error, UnicodeDecodeError):
                if ways:
                    connection.close()
                    continue
            # The last way is handed out whatever it says: a part of the file may be readable.
            return connection

    url = URL.create("sqlite+pysqlite", database=str(path))
    return create_engine(url, creator=connect, hide_parameters=True, poolclass=NullPool)


def error_line(error: BaseException) -> str:
    """The first line of what the database said, without statement and parameters."""
    cause: object = error.orig if isinstance(error, DBAPIError) else error
    return (str(cause).strip() or type(cause).__name__).splitlines()[0]


@contextmanager
def told(url: URL) -> Iterator[None]:
    """Raise the database's errors as ``DatabaseError``."""
    try:
        yield
    except (SQLAlchemyError, sqlite3.Error, UnicodeDecodeError) as error:
        # The last: damage gets into the texts of SQLite's own messages, which Python cannot read.
        line = error_line(error)
        if url.password:
            line = line.replace(str(url.password), "***")
        kind = kind_of(error, url)
        raise DatabaseError(f"{describe(url)}: {in_words(line, kind)}", kind) from error


def revision(connection: Connection) -> str | None:
    """The migration that the database is at; None in an empty one."""
    if not inspect(connection).has_table("alembic_version"):
        return None
    found: str | None = connection.scalar(text("SELECT version_num FROM alembic_version"))
    return found


def require_revision(connection: Connection) -> None:
    """Refuse a database that another version of the program made.

    Raises:
        DatabaseError: it is empty, older, newer, or has lost its tables.
    """
    found = revision(connection)
    if found == REVISION:
        return
    if found is None:
        require_no_loss(connection)
        kind = Kind.EMPTY
    else:
        kind = Kind.NEWER if found > REVISION else Kind.OLDER
    cure = "install the version of leadone that made it"
    if kind is not Kind.NEWER:
        cure = "run `leadone db upgrade`"
    raise DatabaseError(
        f"{describe(connection.engine.url)}: its schema is {found or 'empty'}, this program "
        f"needs {REVISION}: {cure}",
        kind,
    )


def require_no_loss(connection: Connection) -> None:
    """Refuse a SQLite file without a revision that was not always empty: tables would be remade.

    Raises:
        DatabaseError: it lost its revision, or the list of its tables.
    """
    if connection.dialect.name != "sqlite":
        return
    tables = set(inspect(connection).get_table_names())
    pages, unused = (
        connection.exec_driver_sql(f"PRAGMA {count}").scalar_one()
        for count in ("page_count", "freelist_count")
    )
    if tables & Base.metadata.tables.keys():
        what = "its tables are there and its revision is not"
    elif not tables and pages > 1 + unused:
        what = f"the list of its tables is empty, and {pages} pages hold something"
    else:
        return
    line = f"{describe(connection.engine.url)}: it is damaged: {what}"
    raise DatabaseError(line, Kind.DAMAGED)
