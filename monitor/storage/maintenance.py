"""Care of the database: bring it up to date, check it, copy it."""

import os
import shutil
import sqlite3
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import (
    URL,
    ColumnElement,
    Connection,
    Row,
    Select,
    and_,
    func,
    or_,
    select,
    text,
)

from alerts.channels.environment import bare_environment
from alerts.conditions import State
from monitor.quality import Quality, Reason
from monitor.storage.codec import CodecError, decode
from monitor.storage.database import (
    DatabaseError,
    describe,
    open_engine,
    parse_url,
    require_no_loss,
    require_revision,
    revision,
    told,
)
from monitor.storage.kinds import Kind
from monitor.storage.schema import (
    REVISION,
    AlarmChangeRow,
    AlarmRow,
    ModelRow,
    RrIntervalsRow,
    SegmentRow,
    StrapRow,
    WindowRow,
)

if TYPE_CHECKING:
    from alembic.config import Config

# Any number, as long as nobody else locks it: "lead" in ASCII.
_UPGRADE_LOCK = 0x6C656164

# A damaged table may have millions of bad rows; nobody reads them all.
_MOST_PROBLEMS = 100

_ROWS = 1024


def current_revision(url: str) -> str | None:
    """The migration that a database is at; None in an empty one.

    Raises:
        DatabaseError: it does not exist or does not answer.
    """
    with _connected(url) as connection:
        return revision(connection)


def upgrade(url: str) -> None:
    """Bring a database to the program's schema; a SQLite file that is missing is created.

    All steps are one transaction. Upgrades at the same time wait for each other; one that finds
    nothing to do returns at once, without loading Alembic.

    Args:
        url: the database's URL.

    Raises:
        DatabaseError: a newer version of the program made it, or it does not answer.
    """
    parsed = parse_url(url)
    # Only read: whoever has locked it for writing must not keep hearts from being watched.
    looking = open_engine(parsed, create=True, read_only=True)
    try:
        with told(parsed), looking.connect() as connection:
            if revision(connection) == REVISION:
                return
    finally:
        looking.dispose()
    with migrating(url) as config:
        from alembic import command  # noqa: PLC0415 - only upgrades pay for it
        from alembic.script import ScriptDirectory  # noqa: PLC0415 - only upgrades pay for it

        # Asked again under the lock: another process may have been faster.
        found = revision(config.attributes["connection"])
        steps = {step.revision for step in ScriptDirectory.from_config(config).walk_revisions()}
        if found is not None and found not in steps:
            raise DatabaseError(
                f"{describe(parsed)}: its schema {found} is newer than this program, which knows "
                f"{REVISION}: install the version of leadone that made it",
                Kind.NEWER,
            )
        if found is None:
            require_no_loss(config.attributes["connection"])
        command.upgrade(config, "head")


@contextmanager
def migrating(url: str) -> Iterator["Config"]:
    """Alembic's configuration for one database, which stays locked until the end of the block.

    Raises:
        DatabaseError: the database does not answer, or a migration fails.
    """
    from alembic.config import Config  # noqa: PLC0415 - only upgrades pay for it

    parsed = parse_url(url)
    config = Config()
    # Alembic reads % as the beginning of a reference.
    here = str(Path(__file__).parent / "migrations").replace("%", "%%")
    config.set_main_option("script_location", here)
    with told(parsed), open_engine(parsed, create=True).begin() as connection:
        if connection.dialect.name == "postgresql":
            connection.execute(select(func.pg_advisory_xact_lock(_UPGRADE_LOCK)))
        config.attributes["connection"] = connection
        yield config


def check(url: str) -> list[str]:
    """Read everything in a database and look for damage.

    Args:
        url: the database's URL.

    Returns:
        What is wrong, one line each, the first hundred; empty when all is well.

    Raises:
        DatabaseError: it does not exist or does not answer.
    """
    problems: list[str] = []
    with _connected(url) as connection:
        if connection.dialect.name == "sqlite":
            problems += _file_problems(connection)
        try:
            require_revision(connection)
        except DatabaseError as error:
            # Without the tables there is nothing more to be read.
            return [*problems, str(error)]
        searches: tuple[Callable[[Connection], Iterator[str]], ...] = (
            _segment_problems,
            _rr_problems,
            _window_problems,
            _alarm_problems,
            _strap_problems,
        )
        for search in searches:
            for problem in search(connection):
                problems.append(problem)
                if len(problems) == _MOST_PROBLEMS:
                    return problems
    return problems


def backup(url: str, path: Path) -> None:
    """Copy a database, as it is at one moment, while it is being written.

    SQLite is copied to a database file, Postgres to an archive for ``pg_restore``. The copy is
    verified before it gets its name, is readable by its owner only, and holds everything.

    Args:
        url: the database's URL.
        path: where to; in a folder that exists.

    Raises:
        DatabaseError: the path exists or cannot be written, the database does not answer,
            ``pg_dump`` is missing or fails, or the copy is bad.
    """
    parsed = parse_url(url)
    copy = _dump if parsed.get_backend_name() == "postgresql" else _copy
    _refuse_existing(path)
    try:
        # In the same folder, so that the renaming is atomic.
        descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        os.close(descriptor)
        partial = Path(name)
        try:
            copy(parsed, partial)
            with partial.open("rb") as file:
                os.fsync(file.fileno())
            _refuse_existing(path)
            partial.rename(path)
        finally:
            for suffix in ("", "-wal", "-shm", "-journal"):
                Path(name + suffix).unlink(missing_ok=True)
    except OSError as error:
        raise DatabaseError(f"{path}: {error.strerror or error}") from error


def _refuse_existing(path: Path) -> None:
    if path.exists():
        raise DatabaseError(f"{path}: exists, and a backup overwrites nothing")


def _copy(url: URL, partial: Path) -> None:
    with _connected(url) as connection:
        require_revision(connection)
        source = connection.connection.driver_connection
        assert isinstance(source, sqlite3.Connection)
        # In one step: if the writer came between two, it would begin anew, for ever.
        with closing(sqlite3.connect(partial)) as target:
            source.backup(target)
    with _connected(url.set(database=str(partial))) as connection:
        require_revision(connection)
        problems = _file_problems(connection)
    if problems:
        raise DatabaseError(f"{describe(url)}: its copy is damaged: {problems[0]}")


def _dump(url: URL, partial: Path) -> None:
    # The password goes by the environment: everybody sees a command line.
    address = url.set(drivername="postgresql", password=None).difference_update_query(["password"])
    password = url.password or url.query.get("password")
    # Its own variables and no others: what else stands there is none of its business.
    environment = bare_environment([name for name in os.environ if name.startswith("PG")])
    environment |= {"PGPASSWORD": str(password)} if password else {}
    target = address.render_as_string(hide_password=False)
    for command in (
        ["pg_dump", "--format=custom", "--no-password", f"--file={partial}", f"--dbname={target}"],
        ["pg_restore", "--list", str(partial)],
    ):
        tool = shutil.which(command[0])
        if tool is None:
            raise DatabaseError(
                f"{describe(url)}: {command[0]} is not installed (Debian: postgresql-client)"
            )
        done = subprocess.run(  # noqa: S603 - no shell, and the tool is PostgreSQL's own
            [tool, *command[1:]], env=environment, capture_output=True, text=True, check=False
        )
        if done.returncode:
            reason = (done.stderr.strip() or f"exit status {done.returncode}").splitlines()[0]
            raise DatabaseError(f"{describe(url)}: {reason}")
    if f"TABLE DATA public {SegmentRow.__tablename__} " not in done.stdout:
        raise DatabaseError(f"{describe(url)}: its copy holds no segments table")


@contextmanager
def _connected(url: str | URL) -> Iterator[Connection]:
    parsed = parse_url(url) if isinstance(url, str) else url
    engine = open_engine(parsed, read_only=True)
    try:
        with told(parsed), engine.connect() as connection:
            yield connection
    finally:
        engine.dispose()


def _file_problems(connection: Connection) -> list[str]:
    """What SQLite itself finds."""
    rows = connection.execute(text(f"PRAGMA integrity_check({_MOST_PROBLEMS})")).scalars()
    problems = [f"file: {row}" for row in rows if row != "ok"]
    for table, rowid, parent, _ in connection.execute(text("PRAGMA foreign_key_check")):
        problems.append(f"{table} row {rowid}: refers to nothing in {parent}")
    return problems


def _streamed(connection: Connection, query: "Select[*tuple[Any, ...]]") -> Iterator[Row[Any]]:
    with connection.execute(query, execution_options={"yield_per": _ROWS}) as rows:
        yield from rows


def _segment_problems(connection: Connection) -> Iterator[str]:
    for row in _streamed(connection, select(SegmentRow.__table__)):
        where = f"segment of device {row.device_id} at {row.start_ns}"
        try:
            n = len(decode(row.blob))
        except CodecError as error:
            yield f"{where}: {error}"
        else:
            if n != row.n:
                yield f"{where}: {n} samples, said to be {row.n}"
        if not row.rate > 0:
            yield f"{where}: a rate of {row.rate} Hz"


def _rr_problems(connection: Connection) -> Iterator[str]:
    for row in _streamed(connection, select(RrIntervalsRow.__table__)):
        if len(row.rr) % 8:
            where = f"RR intervals of device {row.device_id} at {row.end_ns}"
            yield f"{where}: {len(row.rr)} bytes"


def _window_problems(connection: Connection) -> Iterator[str]:
    classes = {
        id_: len(names) for id_, names in connection.execute(select(ModelRow.id, ModelRow.classes))
    }
    for row in _streamed(connection, select(WindowRow.__table__)):
        where = f"window of device {row.device_id} at {row.start_ns}"
        if not row.duration_s >= 0:
            yield f"{where}: ends before it starts"
        if len(row.r_peaks) % 8:
            yield f"{where}: R peaks of {len(row.r_peaks)} bytes"
        expected = None if row.model_id is None else classes.get(row.model_id)
        found = None if row.probabilities is None else len(row.probabilities) / 4
        if found != expected:
            yield f"{where}: {found} probabilities for {expected} classes"
        if row.quality not in set(Quality) or not set(row.reasons.split()) <= set(Reason):
            yield f"{where}: unknown quality {row.quality!r} {row.reasons!r}"


def _alarm_problems(connection: Connection) -> Iterator[str]:
    def changed(state: State) -> ColumnElement[bool]:
        return (
            select(AlarmChangeRow.id)
            .where(AlarmChangeRow.alarm_id == AlarmRow.id, AlarmChangeRow.state == state.value)
            .exists()
        )

    findings = (
        (~changed(State.ACTIVE), "never became active"),
        (
            and_(AlarmRow.ended_ns.is_(None), changed(State.ENDED)),
            "a change ended it, and it has not ended",
        ),
        (
            and_(AlarmRow.ended_ns.is_not(None), ~changed(State.ENDED)),
            "has ended, and no change ended it",
        ),
        (
            or_(AlarmRow.started_ns > AlarmRow.raised_ns, AlarmRow.raised_ns > AlarmRow.ended_ns),
            "its times are out of order",
        ),
    )
    for wrong, what in findings:
        for id_ in connection.execute(select(AlarmRow.id).where(wrong)).scalars():
            yield f"alarm {id_}: {what}"


def _strap_problems(connection: Connection) -> Iterator[str]:
    findings = (
        (~StrapRow.battery.between(0, 100), "a battery beyond 0 to 100 percent"),
        (StrapRow.stage.is_not(None) & StrapRow.since_ns.is_(None), "a state without a time"),
    )
    for wrong, what in findings:
        for address in connection.execute(select(StrapRow.address).where(wrong)).scalars():
            yield f"strap {address}: {what}"
