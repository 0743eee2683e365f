"""Saves the live state of a sick database: what a daemon has to know to go on watching."""

import errno
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

import structlog
from sqlalchemy import Connection, Table, insert
from sqlalchemy.exc import IntegrityError

from alerts.conditions import State
from alerts.records import Presence
from monitor.clock import AHEAD_NS
from monitor.storage.damaged import DamagedFile, Values
from monitor.storage.database import (
    DatabaseError,
    error_line,
    open_engine,
    parse_url,
    sqlite_path,
    told,
)
from monitor.storage.kinds import Kind
from monitor.storage.maintenance import upgrade
from monitor.storage.newer import ServerTables
from monitor.storage.salvaged_rows import checked_row
from monitor.storage.schema import Base
from monitor.storage.told import WAITING

# A start has 90 s until hearts are watched.
_WITHIN_S = 30.0

_DAY_NS = 86_400 * 10**9
_SECOND_NS = 10**9

# What the alarm engine remembers (20 minutes of windows) and some more.
_WINDOWS_NS = 25 * 60 * _SECOND_NS

# What the watch for lethal rhythms hears once more, and what a window of RR intervals looks back.
_SEGMENTS_NS = 60 * _SECOND_NS
_RR_INTERVALS_NS = 150 * _SECOND_NS

# As people call what is in a table.
_NAMES = {
    "patients": "patients",
    "devices": "devices",
    "straps": "paired straps",
    "models": "names of models",
    "windows": "windows of the last minutes",
    "segments": "signal of the last minute",
    "rr_intervals": "RR intervals of the last minutes",
    "alarms": "alarms",
    "alarm_changes": "histories of alarms",
    "alarm_signals": "records of who was told of alarms",
    "alarm_pauses": "pauses of alarms",
    "notifications": "messages that wait to be sent",
    "deliveries": "attempts to send messages",
}

# Without it, what the database has of a spool would be taken in once more; an older one has none.
_POSITIONS = "spool_positions"

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Salvaged:
    """What was saved.

    Attributes:
        counts: how many rows, by table.
        problems: what was lost, or may have been, one line each, for people; empty when all is
            well.
    """

    counts: Mapping[str, int]
    problems: tuple[str, ...]


class _Source(Protocol):
    failures: dict[str, str]

    def columns(self, table: str) -> frozenset[str]: ...

    def rows(self, table: str, columns: Iterable[str]) -> Iterator[Values]: ...

    def newest(
        self, table: str, columns: Iterable[str], device: int, by: str, spans: list[tuple[int, int]]
    ) -> list[Values]: ...

    def latest(self, table: str, device: int, by: str) -> int | None: ...


def salvage(source: Path | str, target: str, *, now_ns: int | None = None) -> Salvaged:
    """Copy the live state of a database into a new one.

    That is patients, devices, paired straps, alarms that have not ended, signals that are on or
    went off in the last day, pauses, notifications that wait, and the last windows and samples of
    each device; with what they refer to. Not what people asked of the daemon: they ask again.

    A SQLite file is read as it lies, on whatever disk; what is damaged is skipped, counted and
    told. Of a newer schema those columns are read that this program knows. It takes at most half a
    minute; whatever the source is like, that raises nothing.

    Args:
        source: the sick database: a SQLite file, or a URL. Nothing may write to it meanwhile.
        target: the URL of the new one, which is made.
        now_ns: UTC time, in nanoseconds; None is the clock's.

    Raises:
        DatabaseError: the new database cannot be made or written.
    """
    upgrade(target)
    copy = _Copy(time.time_ns() if now_ns is None else now_ns)
    problems: list[str] = []
    try:
        with _open(source) as tables:
            copy.read(tables)
            problems += _problems(tables, copy)
    except Exception as error:  # noqa: BLE001 - whatever damage does to the driver
        line = error_line(error)
        _log.error("salvage_failed", error=line)
        problems.append(f"not everything could be looked at: {line}")
    parsed = parse_url(target)
    engine = open_engine(parsed)
    try:
        with told(parsed), engine.begin() as connection:
            counts = {name: _write(connection, name, rows) for name, rows in copy.rows.items()}
    finally:
        engine.dispose()
    salvaged = Salvaged({name: n for name, n in counts.items() if n}, tuple(problems))
    _log.warning("database_salvaged", problems=salvaged.problems, **salvaged.counts)
    return salvaged


def set_aside(path: Path) -> Path:
    """Give a damaged SQLite file another name, so that a new one can be begun in its place.

    Its log and index go with it, under names where SQLite looks for them.

    Returns:
        The new name: the old one with ``.corrupt-`` and the UTC time.

    Raises:
        DatabaseError: it cannot be renamed; then the file is where it was.
    """
    stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%S")
    aside = Path(f"{path}.corrupt-{stamp}")
    again = 1
    while any(os.path.lexists(f"{aside}{suffix}") for suffix in ("", "-wal", "-shm")):
        again += 1
        aside = Path(f"{path}.corrupt-{stamp}-{again}")
    try:
        path.rename(aside)
        for suffix in ("-wal", "-shm"):
            with suppress(FileNotFoundError):
                Path(f"{path}{suffix}").rename(f"{aside}{suffix}")
        folder = os.open(path.absolute().parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        kind = Kind.FULL if full else Kind.AWAY
        if error.errno in (errno.EROFS, errno.EACCES, errno.EPERM):
            kind = Kind.READ_ONLY
        raise DatabaseError(f"{path}: cannot be set aside: {error.strerror}", kind) from error
    _log.warning("database_set_aside", file=str(path), to=str(aside))
    return aside


def _open(source: Path | str) -> DamagedFile | ServerTables:
    if isinstance(source, str) and "://" in source:
        url = parse_url(source)
        if url.get_backend_name() != "sqlite":
            return ServerTables(url, within_s=_WITHIN_S)
        source = sqlite_path(url)
    return DamagedFile(Path(source), within_s=_WITHIN_S)


class _Copy:
    """The rows that are kept, table by table, each after what it refers to.

    Attributes:
        rows: by table, in the order in which they can be written.
        garbled: how many rows of a table made no sense.
        orphans: how many rows of a table refer to what is lost.
    """

    def __init__(self, now_ns: int) -> None:
        self.rows: dict[str, list[Values]] = {}
        self.garbled: dict[str, int] = {}
        self.orphans: dict[str, int] = {}
        self._now_ns = now_ns

    def read(self, source: _Source) -> None:
        """Read everything there is to keep."""
        day_ns = self._now_ns - _DAY_NS
        self.rows = {name: [] for name in (*_NAMES, _POSITIONS)}
        self._keep(source, "patients")
        self._keep(source, "devices")
        self._with_patients("devices")
        self._keep(source, "models")
        devices = {row["id"] for row in self.rows["devices"]}
        self._keep(source, "straps")
        self._refer("straps", "device_id", devices)
        self._keep(
            source,
            "alarm_signals",
            lambda row: row["presence"] != Presence.OFF or row["since_ns"] > day_ns,
        )
        self._keep(source, "notifications", lambda row: row["state"] == WAITING)
        wanted = {row["alarm_id"] for name in _OF_ALARMS for row in self.rows[name]}
        self._keep(source, "alarms", lambda row: row["ended_ns"] is None or row["id"] in wanted)
        alarms = {row["id"] for row in self.rows["alarms"]}
        self._with_patients("alarms")
        for name in _OF_ALARMS:
            self._refer(name, "alarm_id", alarms)
        self._with_patients("notifications")
        self._keep(source, "alarm_changes", lambda row: row["alarm_id"] in alarms)
        self._mend_alarms()
        self._keep(
            source,
            "alarm_pauses",
            lambda row: row["ended_ns"] is None or row["ended_ns"] >= day_ns,
        )
        self._with_patients("alarm_pauses")
        keys = {row["key"] for row in self.rows["notifications"]}
        self._keep(source, "deliveries", lambda row: row["key"] in keys)
        for name, by, span_ns in (
            ("segments", "start_ns", _SEGMENTS_NS),
            ("rr_intervals", "end_ns", _RR_INTERVALS_NS),
            ("windows", "start_ns", _WINDOWS_NS),
        ):
            for device in sorted(devices):
                self._keep_newest(source, name, device, by, span_ns)
        self._with_models()
        self._keep(source, _POSITIONS)

    def _keep(
        self, source: _Source, name: str, wanted: Callable[[Values], bool] = lambda _: True
    ) -> None:
        table = Base.metadata.tables[name]
        columns = _known(source, table)
        if columns:
            self.rows[name] = self._checked(table, source.rows(name, columns), wanted)

    def _keep_newest(self, source: _Source, name: str, device: int, by: str, span_ns: int) -> None:
        """The last rows of a device: before now, and before whatever is the last."""
        table = Base.metadata.tables[name]
        columns = _known(source, table)
        if not columns:
            return
        spans = [(self._now_ns - span_ns, self._now_ns + AHEAD_NS)]
        latest = source.latest(name, device, by)
        if latest is not None:
            spans.append((latest - span_ns, latest))
        rows = source.newest(name, columns, device, by, spans)
        self.rows[name] = [*self.rows[name], *self._checked(table, rows, lambda _: True)]

    def _checked(
        self, table: Table, found: Iterable[Values], wanted: Callable[[Values], bool]
    ) -> list[Values]:
        rows = []
        for values in found:
            # What the row says of itself decides before it is checked: those that nobody wants may
            # be many.
            if _unwanted(values, wanted):
                continue
            try:
                rows.append(checked_row(table, values))
            except (ValueError, TypeError, LookupError):
                self.garbled[table.name] = self.garbled.get(table.name, 0) + 1
        return rows

    def _refer(self, name: str, column: str, known: set[Any]) -> None:
        """Leave out what refers to something that is lost."""
        rows = [row for row in self.rows[name] if row[column] in known]
        if lost := len(self.rows[name]) - len(rows):
            self.orphans[name] = lost
        self.rows[name] = rows

    def _with_patients(self, name: str) -> None:
        """Of a patient who is lost, the id at least is where something refers to it."""
        known = {row["id"] for row in self.rows["patients"]}
        missing = dict.fromkeys(row["patient_id"] for row in self.rows[name])
        self.rows["patients"] = [
            *self.rows["patients"],
            *({"id": id_, "name": None} for id_ in missing if id_ not in known),
        ]

    def _with_models(self) -> None:
        """A window whose model is lost keeps its rate; its probabilities mean nothing."""
        classes = {row["id"]: len(row["classes"]) for row in self.rows["models"]}
        for row in self.rows["windows"]:
            found = None if row["probabilities"] is None else len(row["probabilities"]) // 4
            expected = None if row["model_id"] is None else classes.get(row["model_id"], -1)
            if found != expected:
                row["model_id"] = row["probabilities"] = None

    def _mend_alarms(self) -> None:
        """Let alarms and their histories agree, where a part of either is lost."""
        changes = sorted(self.rows["alarm_changes"], key=lambda row: row["id"])
        states: dict[str, dict[str, int]] = {}
        for row in changes:
            states.setdefault(row["alarm_id"], {}).pop(row["state"], None)
            states[row["alarm_id"]][row["state"]] = row["at_ns"]
        for row in self.rows["alarms"]:
            known = states.get(row["id"], {})
            if row["ended_ns"] is None and list(known)[-1:] == [State.ENDED]:
                row["ended_ns"] = max(known[State.ENDED], row["raised_ns"])
            needed = {State.ACTIVE: row["raised_ns"], State.ENDED: row["ended_ns"]}
            changes += [
                {
                    "alarm_id": row["id"],
                    "at_ns": at_ns,
                    "state": state.value,
                    "reason": "what happened is lost: the database was damaged",
                }
                for state, at_ns in needed.items()
                if at_ns is not None and state not in known
            ]
        self.rows["alarm_changes"] = changes


_OF_ALARMS = ("alarm_signals", "notifications")


def _unwanted(values: Values, wanted: Callable[[Values], bool]) -> bool:
    try:
        return not wanted(values)
    except (TypeError, LookupError):
        return False  # what was damaged is counted


def _known(source: _Source, table: Table) -> list[str]:
    """The columns that both the program and the database know."""
    found = source.columns(table.name)
    return [column.name for column in table.columns if column.name in found]


def _problems(source: _Source, copy: _Copy) -> Iterator[str]:
    if not any(source.columns(name) for name in _NAMES):
        why = source.failures.get("sqlite_master", "it has none of the tables")
        yield f"nothing could be read: {why}"
        return
    for name, called in _NAMES.items():
        if not source.columns(name):
            yield f"{called}: lost, there is no table of them"
        if name in source.failures:
            yield f"{called}: some may be lost ({source.failures[name]})"
        if name in copy.garbled:
            yield f"{called}: {copy.garbled[name]} lost, what is stored of them makes no sense"
        if name in copy.orphans:
            yield f"{called}: {copy.orphans[name]} lost, what they belong to is"


def _write(connection: Connection, name: str, rows: list[Values]) -> int:
    """Insert rows; those that damage has doubled once. Returns how many."""
    table = Base.metadata.tables[name]
    written = 0
    for row in rows:
        with suppress(IntegrityError), connection.begin_nested():
            connection.execute(insert(table).values(row))
            written += 1
    return written
