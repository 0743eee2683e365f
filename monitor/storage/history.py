"""Reads what was stored, while the writer goes on."""

import heapq
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from operator import attrgetter, itemgetter
from types import TracebackType
from typing import Any, Self, TypeVar

import numpy as np
import structlog
from sqlalchemy import ColumnElement, Connection, Select, or_, select
from sqlalchemy.orm import InstrumentedAttribute

from alerts.conditions import Alarm, Change, State
from alerts.records import Audit, Notification, Pause, Presence, Signal
from ingest.chunk import Chunk, Stream
from ingest.rr import RrIntervals
from monitor.metrics import CHUNKS_UNREADABLE
from monitor.quality import Quality
from monitor.results import ModelId, WindowResult
from monitor.storage.codec import CodecError
from monitor.storage.database import open_engine, parse_url, require_revision, told
from monitor.storage.records import (
    Delivery,
    Episode,
    Patient,
    RefusedMessage,
    Request,
    Strap,
    StrapState,
)
from monitor.storage.rows import (
    Row,
    alarm_from,
    chunk_from,
    gap_from,
    probabilities_from,
    rr_intervals_from,
    segment_end_ns,
    strap_from,
    window_from,
)
from monitor.storage.schema import (
    AlarmChangeRow,
    AlarmRow,
    DeviceRow,
    GapRow,
    ModelRow,
    PatientRow,
    RefusedMessageRow,
    RrIntervalsRow,
    SegmentRow,
    StrapRow,
    WindowRow,
)
from monitor.storage.told import (
    read_answer,
    read_audit,
    read_deliveries,
    read_pauses,
    read_proven,
    read_requests,
    read_signal,
    read_signals,
    read_signals_since,
    read_waiting,
)
from monitor.window import Gap

FOREVER_NS = 2**63 - 1
"""Later than every time that a database holds."""

# Windows of one class this far apart are one episode.
_EPISODE_GAP_NS = 30_000_000_000

# No time that is stored lies after this one.
_ALWAYS = 2**63 - 1

# Rows held at once by each stream that is read.
_ROWS = 256

_T = TypeVar("_T")

_log = structlog.get_logger(__name__)


class History:
    """Reads one database over connections of its own.

    An iterator reads as it is consumed, and sees the database as it was when the first item was
    taken. Close one that is not consumed to its end: it keeps a connection, and SQLite's log from
    being cleared. All methods may be called from any thread, and block.

    A time range holds what *starts* (RR intervals: ends) in ``[since_ns, until_ns)``, so that
    ranges side by side give everything once; gaps and alarms, which may last for hours, are also in
    it when they began earlier and reach into it.

    Every method raises ``DatabaseError`` when the database does not answer.
    """

    def __init__(self, database: str, *, checked: bool = True) -> None:
        """Open the database.

        Args:
            database: its URL.
            checked: whether it is looked at now, and not only when something is read.

        Raises:
            DatabaseError: it cannot be opened, or its schema is not the program's.
        """
        self._url = parse_url(database)
        self._engine = open_engine(self._url, read_only=True)
        if not checked:
            return
        try:
            with self._reading() as connection:
                require_revision(connection)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close all connections."""
        self._engine.dispose()

    def patients(self) -> list[Patient]:
        """Everybody of whom anything is stored, by id."""
        with self._reading() as connection:
            rows = connection.execute(select(PatientRow.id, PatientRow.name).order_by("id"))
            return [Patient(*row) for row in rows]

    def streams(self) -> list[Stream]:
        """Every device of everybody that anything is stored of."""
        query = select(DeviceRow.patient_id, DeviceRow.device).order_by(DeviceRow.id)
        with self._reading() as connection:
            return [Stream(*row) for row in connection.execute(query)]

    def straps(self) -> list[tuple[Strap, StrapState | None]]:
        """The straps that are paired, by patient and device, each with its last known state."""
        query = (
            select(StrapRow.__table__, DeviceRow.patient_id, DeviceRow.device)
            .join_from(StrapRow, DeviceRow)
            .order_by(DeviceRow.patient_id, DeviceRow.device)
        )
        with self._reading() as connection:
            return [strap_from(row) for row in connection.execute(query).mappings()]

    def refused_messages(self) -> list[RefusedMessage]:
        """The first message that was refused for each reason, those that go on first."""
        query = select(RefusedMessageRow.__table__).order_by(RefusedMessageRow.last_ns.desc())
        with self._reading() as connection:
            return [RefusedMessage(**row) for row in connection.execute(query).mappings()]

    def segments(self, patient: str, since_ns: int, until_ns: int) -> Iterator[Chunk]:
        """The chunks of all devices of a patient, by start.

        Raises:
            CodecError: the samples of one cannot be decoded.
        """
        query = select(SegmentRow.__table__).order_by("start_ns")
        between = _starts(SegmentRow.start_ns, since_ns, until_ns)
        with self._reading() as connection:
            yield from self._merged(
                connection, patient, query.where(between), SegmentRow.device_id, chunk_from
            )

    def chunks(self, stream: Stream, since_ns: int, until_ns: int) -> Iterator[Chunk]:
        """The chunks of one stream, by start; none is kept back by one that cannot be decoded.

        That one has NaN for its samples, as many as are missing; it is counted. A row that says
        nonsense of its length is left out.
        """
        query = (
            select(SegmentRow.__table__)
            .join(DeviceRow, DeviceRow.id == SegmentRow.device_id)
            .where(
                DeviceRow.patient_id == stream.patient,
                DeviceRow.device == stream.device,
                _starts(SegmentRow.start_ns, since_ns, until_ns),
            )
            .order_by(SegmentRow.start_ns)
        )
        with (
            self._reading() as connection,
            connection.execute(query, execution_options={"yield_per": _ROWS}) as rows,
        ):
            for row in rows.mappings():
                try:
                    yield chunk_from(stream, row)
                except CodecError as error:
                    CHUNKS_UNREADABLE.inc()
                    _log.error(
                        "chunk_unreadable",
                        stream=str(stream),
                        start_ns=row["start_ns"],
                        error=str(error),
                    )
                    if segment_end_ns(row["start_ns"], row["n"], row["rate"]) > row["start_ns"]:
                        missing = np.full(row["n"], np.nan, np.float32)
                        yield Chunk(stream, row["start_ns"], row["rate"], missing, row["contact"])

    def rr_intervals(self, patient: str, since_ns: int, until_ns: int) -> Iterator[RrIntervals]:
        """The RR intervals of all devices of a patient that send no waveform, by end."""
        query = select(RrIntervalsRow.__table__).order_by("end_ns")
        between = _starts(RrIntervalsRow.end_ns, since_ns, until_ns)
        with self._reading() as connection:
            yield from self._merged(
                connection,
                patient,
                query.where(between),
                RrIntervalsRow.device_id,
                rr_intervals_from,
                by="end_ns",
            )

    def windows(self, patient: str, since_ns: int, until_ns: int) -> Iterator[WindowResult]:
        """The windows of all devices of a patient, by start."""
        query = select(WindowRow.__table__).order_by("start_ns")
        between = _starts(WindowRow.start_ns, since_ns, until_ns)
        with self._reading() as connection:
            models = _models(connection)
            yield from self._merged(
                connection,
                patient,
                query.where(between),
                WindowRow.device_id,
                lambda stream, row: window_from(stream, row, models),
            )

    def readable(
        self, patient: str, since_ns: int, until_ns: int
    ) -> list[tuple[int, int, float | None]]:
        """Start, end and heart rate of the good windows of all devices of a patient, by start.

        A fraction of what ``windows`` costs; a day of one device is 17 000 of them.
        """
        query = (
            select(WindowRow.start_ns, WindowRow.duration_s, WindowRow.heart_rate)
            .join(DeviceRow)
            .where(
                DeviceRow.patient_id == patient,
                WindowRow.quality == Quality.GOOD.value,
                _starts(WindowRow.start_ns, since_ns, until_ns),
            )
            .order_by(WindowRow.start_ns)
        )
        with self._reading() as connection:
            return [
                (start_ns, start_ns + round(duration_s * 1e9), rate)
                for start_ns, duration_s, rate in connection.execute(query)
            ]

    def gaps(self, patient: str, since_ns: int, until_ns: int) -> Iterator[Gap]:
        """The gaps of all devices of a patient, by start."""
        query = select(GapRow.__table__).order_by("start_ns")
        within = (GapRow.start_ns < until_ns) & or_(
            GapRow.start_ns >= since_ns, GapRow.end_ns > since_ns
        )
        with self._reading() as connection:
            yield from self._merged(
                connection, patient, query.where(within), GapRow.device_id, gap_from
            )

    def alarms(self, patient: str, since_ns: int, until_ns: int) -> list[Alarm]:
        """The alarms of a patient, by start."""
        return self._alarms(
            AlarmRow.patient_id == patient,
            AlarmRow.started_ns < until_ns,
            or_(AlarmRow.ended_ns.is_(None), AlarmRow.ended_ns > since_ns),
        )

    def active_alarms(self) -> list[Alarm]:
        """The alarms of all patients that have not ended, by start."""
        return self._alarms(AlarmRow.ended_ns.is_(None))

    def find_alarms(self, prefix: str) -> list[Alarm]:
        """The alarms of all patients whose id begins like this, by start."""
        return self._alarms(AlarmRow.id.startswith(prefix, autoescape=True))

    def signals(self, *presences: Presence) -> list[Signal]:
        """The signals of alarms with these presences, or all, oldest first."""
        with self._reading() as connection:
            return read_signals(connection, *presences)

    def signals_since(self, off_ns: int) -> list[Signal]:
        """The signals that are not off, and those that went off after ``off_ns``, oldest first."""
        with self._reading() as connection:
            return read_signals_since(connection, off_ns)

    def signal(self, alarm_id: str) -> Signal | None:
        """The signal of an alarm; None if it never had one."""
        with self._reading() as connection:
            return read_signal(connection, alarm_id)

    def pauses(self, now_ns: int) -> list[Pause]:
        """The pauses that have not ended at ``now_ns``, and those of the day before it."""
        with self._reading() as connection:
            return read_pauses(connection, now_ns)

    def waiting(self) -> list[tuple[Notification, list[Delivery]]]:
        """The notifications that wait, as they are due, each with what was tried."""
        with self._reading() as connection:
            return read_waiting(connection)

    def audit(self, alarm_id: str) -> list[Audit]:
        """What was done about an alarm, in its order."""
        with self._reading() as connection:
            return read_audit(connection, alarm_id)

    def deliveries(self, alarm_id: str) -> list[tuple[Notification, str, Delivery | None]]:
        """Every notification of an alarm with its state, and what became of it by channel."""
        with self._reading() as connection:
            return read_deliveries(connection, alarm_id)

    def proven(self, since_ns: int) -> dict[str, int]:
        """When each channel last delivered something from ``since_ns`` on, in UTC ns, by name."""
        with self._reading() as connection:
            return read_proven(connection, since_ns)

    def requests(self) -> list[Request]:
        """What people asked of the daemon and it has not seen to yet, in its order."""
        with self._reading() as connection:
            return read_requests(connection)

    def answer(self, at_ns: int, by: str) -> str | None:
        """The daemon's answer to a request; None until there is one."""
        with self._reading() as connection:
            return read_answer(connection, at_ns, by)

    def changes(self, alarm_id: str) -> list[Change]:
        """What happened to an alarm, in the order in which it was stored."""
        with self._reading() as connection:
            found = connection.execute(select(AlarmRow.__table__).where(AlarmRow.id == alarm_id))
            row = found.mappings().one_or_none()
            if row is None:
                return []
            ended = alarm_from(row)
            active = replace(ended, ended_ns=None)
            changes = connection.execute(
                select(AlarmChangeRow.at_ns, AlarmChangeRow.state, AlarmChangeRow.reason)
                .where(AlarmChangeRow.alarm_id == alarm_id)
                .order_by(AlarmChangeRow.id)
            )
            return [
                Change(ended if state == State.ENDED else active, at_ns, State(state), reason)
                for at_ns, state, reason in changes
            ]

    def last_sample(self, stream: Stream, *, until_ns: int = FOREVER_NS) -> int | None:
        """UTC time, in nanoseconds, of a stream's last sample or RR interval; None without any.

        Args:
            stream: whose.
            until_ns: what begins from then on (RR intervals: ends) is left out. A clock that was
                ahead for a while leaves samples that are later than now.
        """
        device = select(DeviceRow.id).filter_by(patient_id=stream.patient, device=stream.device)
        segment = (
            select(SegmentRow.start_ns, SegmentRow.n, SegmentRow.rate)
            .where(SegmentRow.device_id == device.scalar_subquery(), SegmentRow.start_ns < until_ns)
            .order_by(SegmentRow.start_ns.desc())
            .limit(1)
        )
        interval = (
            select(RrIntervalsRow.end_ns)
            .where(
                RrIntervalsRow.device_id == device.scalar_subquery(),
                RrIntervalsRow.end_ns < until_ns,
            )
            .order_by(RrIntervalsRow.end_ns.desc())
            .limit(1)
        )
        with self._reading() as connection:
            ends: list[int] = list(connection.execute(interval).scalars())
            ends += [segment_end_ns(*row) for row in connection.execute(segment)]
        return max(ends, default=None)

    def last_window_end(self, stream: Stream, *, until_ns: int = FOREVER_NS) -> int | None:
        """UTC time, in nanoseconds, just after the latest window of a stream; None without any.

        Args:
            stream: whose.
            until_ns: windows that begin from then on are left out.
        """
        latest = (
            select(WindowRow.start_ns, WindowRow.duration_s)
            .join(DeviceRow)
            .where(
                DeviceRow.patient_id == stream.patient,
                DeviceRow.device == stream.device,
                WindowRow.start_ns < until_ns,
            )
            .order_by(WindowRow.start_ns.desc())
            .limit(1)
        )
        with self._reading() as connection:
            row = connection.execute(latest).one_or_none()
        return None if row is None else row.start_ns + round(row.duration_s * 1e9)

    def episodes(
        self, patient: str, since_ns: int, until_ns: int, thresholds: Mapping[str, float]
    ) -> list[Episode]:
        """Good windows in which a class reaches its threshold, those near each other as one.

        Args:
            patient: whose windows, of all devices.
            since_ns: UTC time from which windows start.
            until_ns: UTC time before which windows start.
            thresholds: by class abbreviation; other classes are left out.

        Returns:
            By start. Windows no more than 30 s apart are one episode, whatever lies between.
        """
        query = (
            select(
                WindowRow.start_ns,
                WindowRow.duration_s,
                WindowRow.heart_rate,
                WindowRow.model_id,
                WindowRow.probabilities,
            )
            .where(
                WindowRow.quality == Quality.GOOD.value,
                WindowRow.probabilities.is_not(None),
                _starts(WindowRow.start_ns, since_ns, until_ns),
            )
            .order_by("start_ns")
        )
        episodes: list[Episode] = []
        growing: dict[str, _Growing] = {}
        with self._reading() as connection:
            classes = {id_: model.classes for id_, model in _models(connection).items()}
            limits = {
                id_: np.array([thresholds.get(name, np.inf) for name in names])
                for id_, names in classes.items()
            }
            for row in self._merged(
                connection, patient, query, WindowRow.device_id, lambda _, row: row
            ):
                probabilities = probabilities_from(row["probabilities"])
                for at in np.flatnonzero(probabilities >= limits[row["model_id"]]):
                    name = classes[row["model_id"]][at]
                    episode = growing.get(name)
                    if episode and row["start_ns"] - episode.end_ns > _EPISODE_GAP_NS:
                        episodes.append(episode.done(name))
                        episode = None
                    if episode is None:
                        episode = growing[name] = _Growing(row["start_ns"], row["start_ns"])
                    episode.add(row, float(probabilities[at]))
        episodes += [episode.done(name) for name, episode in growing.items()]
        return sorted(episodes, key=attrgetter("start_ns", "condition"))

    @contextmanager
    def _reading(self) -> Iterator[Connection]:
        with told(self._url), self._engine.connect() as connection:
            yield connection

    def _merged(
        self,
        connection: Connection,
        patient: str,
        query: "Select[*tuple[Any, ...]]",
        device_id: InstrumentedAttribute[int],
        convert: Callable[[Stream, Row], _T],
        *,
        by: str = "start_ns",
    ) -> Iterable[_T]:
        """The rows of each device in the order of its index, merged by time: nothing is sorted."""
        devices = connection.execute(
            select(DeviceRow.id, DeviceRow.device).where(DeviceRow.patient_id == patient)
        ).all()
        with ExitStack() as open_results:

            def rows(id_: int, stream: Stream) -> Iterator[tuple[int, Stream, Row]]:
                result = open_results.enter_context(
                    connection.execute(
                        query.where(device_id == id_), execution_options={"yield_per": _ROWS}
                    )
                )
                return ((row[by], stream, row) for row in result.mappings())

            streams = [rows(id_, Stream(patient, device)) for id_, device in devices]
            for _, stream, row in heapq.merge(*streams, key=itemgetter(0)):
                yield convert(stream, row)

    def _alarms(self, *conditions: ColumnElement[bool]) -> list[Alarm]:
        with self._reading() as connection:
            rows = connection.execute(
                select(AlarmRow.__table__)
                .where(*conditions)
                .order_by(AlarmRow.started_ns, AlarmRow.id)
            )
            return [alarm_from(row) for row in rows.mappings()]


@dataclass(slots=True)
class _Growing:
    """An episode to which windows are still added."""

    start_ns: int
    end_ns: int
    windows: int = 0
    max_probability: float = 0.0
    heart_rates: int = 0
    heart_rate_sum: float = 0.0

    def add(self, row: Row, probability: float) -> None:
        self.end_ns = max(self.end_ns, row["start_ns"] + round(row["duration_s"] * 1e9))
        self.windows += 1
        self.max_probability = max(self.max_probability, probability)
        if row["heart_rate"] is not None:
            self.heart_rates += 1
            self.heart_rate_sum += row["heart_rate"]

    def done(self, name: str) -> Episode:
        return Episode(
            condition=f"class:{name}",
            start_ns=self.start_ns,
            end_ns=self.end_ns,
            windows=self.windows,
            max_probability=self.max_probability,
            heart_rate=self.heart_rate_sum / self.heart_rates if self.heart_rates else None,
        )


def _starts(start_ns: InstrumentedAttribute[int], since: int, until: int) -> ColumnElement[bool]:
    return (start_ns >= since) & (start_ns < until)


def _models(connection: Connection) -> dict[int, ModelId]:
    rows = connection.execute(select(ModelRow.id, ModelRow.name, ModelRow.digest, ModelRow.classes))
    return {id_: ModelId(name, digest, tuple(classes)) for id_, name, digest, classes in rows}
