"""One transaction's worth of records, and how it is written."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection, Dialect, Table, bindparam, delete, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.sql import Executable, func

from alerts.conditions import Change
from ingest.chunk import Chunk, Stream
from ingest.rr import RrIntervals
from monitor.results import ModelId, WindowResult
from monitor.storage.mended import write_mended
from monitor.storage.records import (
    ClockMended,
    Examined,
    NoGap,
    Patient,
    Record,
    RefusedMessage,
    Strap,
    StrapState,
    Told,
    Unpaired,
)
from monitor.storage.rows import (
    alarm_row,
    change_row,
    checked_text,
    examined_row,
    gap_row,
    refused_message_row,
    rr_intervals_row,
    segment_row,
    strap_row,
    strap_state_row,
    window_row,
)
from monitor.storage.schema import (
    AlarmChangeRow,
    AlarmRow,
    Base,
    DeviceRow,
    ExaminedRow,
    GapRow,
    ModelRow,
    PatientRow,
    RefusedMessageRow,
    RrIntervalsRow,
    SegmentRow,
    StrapRow,
    WindowRow,
)
from monitor.storage.told import write_told
from monitor.window import Gap

_Values = dict[str, Any]


@dataclass(slots=True)
class Batch:
    """Records as rows, ready to be written but for the ids that the database gives."""

    patients: dict[str, None] = field(default_factory=dict)
    named: list[_Values] = field(default_factory=list)
    segments: list[tuple[Stream, _Values]] = field(default_factory=list)
    rr_intervals: list[tuple[Stream, _Values]] = field(default_factory=list)
    windows: list[tuple[Stream, ModelId | None, _Values]] = field(default_factory=list)
    gaps: list[tuple[Stream, _Values]] = field(default_factory=list)
    no_gaps: list[tuple[Stream, _Values]] = field(default_factory=list)
    examined: list[tuple[Stream, _Values]] = field(default_factory=list)
    alarms: list[_Values] = field(default_factory=list)
    changes: list[_Values] = field(default_factory=list)
    straps: list[tuple[Stream, _Values]] = field(default_factory=list)
    strap_states: list[tuple[Stream, _Values]] = field(default_factory=list)
    others: list[tuple[str, _Values]] = field(default_factory=list)
    """Each with the name of its statement, written in the order in which they came."""
    told: list[Told] = field(default_factory=list)
    mended: list[ClockMended] = field(default_factory=list)

    @classmethod
    def of(cls, records: Iterable[Record]) -> "Batch":
        """Turn records into rows.

        Raises:
            ValueError: a record cannot be stored, ever.
        """
        batch = cls()
        for record in records:
            match record:
                case Chunk():
                    batch.segments.append((_checked(record.stream), segment_row(record)))
                case RrIntervals():
                    batch.rr_intervals.append((_checked(record.stream), rr_intervals_row(record)))
                case WindowResult():
                    batch.windows.append(
                        (_checked(record.stream), record.model, window_row(record))
                    )
                case Change():
                    batch.patients[record.alarm.patient] = None
                    batch.alarms.append(alarm_row(record.alarm))
                    batch.changes.append(change_row(record))
                case Patient():
                    name = None if record.name is None else checked_text(record.name)
                    batch.named.append({"id": checked_text(record.id), "name": name})
                case Strap():
                    batch.straps.append((_checked(record.stream), strap_row(record)))
                case StrapState():
                    batch.strap_states.append((_checked(record.stream), strap_state_row(record)))
                case Gap():
                    batch.gaps.append((_checked(record.stream), gap_row(record)))
                case _:
                    batch._other(record)
        return batch

    def _other(
        self, record: Unpaired | RefusedMessage | NoGap | Examined | ClockMended | Told
    ) -> None:
        match record:
            case NoGap(gap):
                key = {f"of_{name}": value for name, value in gap_row(gap).items()}
                self.no_gaps.append((_checked(gap.stream), key))
            case Examined():
                self.examined.append((_checked(record.stream), examined_row(record)))
            case ClockMended():
                self.mended.append(record)
            case Unpaired():
                self.others.append(("unpaired", {"of_address": checked_text(record.address)}))
            case RefusedMessage():
                self.others.append(("refused_message", refused_message_row(record)))
            case _:
                self.told.append(record)

    def add(self, other: "Batch") -> None:
        """Take another batch's rows behind these."""
        self.patients.update(other.patients)
        self.named += other.named
        self.segments += other.segments
        self.rr_intervals += other.rr_intervals
        self.windows += other.windows
        self.gaps += other.gaps
        self.no_gaps += other.no_gaps
        self.examined += other.examined
        self.alarms += other.alarms
        self.changes += other.changes
        self.straps += other.straps
        self.strap_states += other.strap_states
        self.others += other.others
        self.told += other.told
        self.mended += other.mended


@dataclass(slots=True)
class Ids:
    """The ids of rows that are known to be committed."""

    patients: set[str] = field(default_factory=set)
    devices: dict[Stream, int] = field(default_factory=dict)
    models: dict[ModelId, int] = field(default_factory=dict)

    def add(self, other: "Ids") -> None:
        """Take over what another one knows."""
        self.patients |= other.patients
        self.devices |= other.devices
        self.models |= other.models


@dataclass(frozen=True, slots=True)
class Counts:
    """How many rows a batch added; those of RR intervals count as segments."""

    segments: int
    windows: int


class Statements:
    """In the words of one database. An insert ignores what is there already."""

    def __init__(self, dialect: Dialect) -> None:
        self._insert = postgresql.insert if dialect.name == "postgresql" else sqlite.insert
        self.patient = self._once(PatientRow)
        self.device = self._once(DeviceRow)
        self.model = self._once(ModelRow)
        self.segment = self._once(SegmentRow)
        self.rr_intervals = self._once(RrIntervalsRow)
        self.window = self._once(WindowRow)
        self.gap = self._once(GapRow)
        self.change = self._once(AlarmChangeRow)
        named = self._insert(_table(PatientRow))
        self.named = named.on_conflict_do_update(
            index_elements=["id"], set_={"name": named.excluded.name}
        )
        alarm = self._insert(_table(AlarmRow))
        self.alarm = alarm.on_conflict_do_update(
            index_elements=["id"],
            set_={
                "priority": alarm.excluded.priority,
                # A change that is delivered again does not reopen what has ended since.
                "ended_ns": func.coalesce(alarm.excluded.ended_ns, _table(AlarmRow).c.ended_ns),
            },
        )

        strap = self._insert(_table(StrapRow))
        forgotten = dict.fromkeys(
            ("stage", "cause", "advice", "since_ns", "battery", "battery_ns"), None
        )
        self.strap = strap.on_conflict_do_update(
            index_elements=["device_id"],
            set_={
                "address": strap.excluded.address,
                "kind": strap.excluded.kind,
                "adapter": strap.excluded.adapter,
                "paired_ns": strap.excluded.paired_ns,
                **forgotten,
            },
        )
        self.no_gap = delete(_table(GapRow)).where(
            GapRow.device_id == bindparam("of_device"),
            GapRow.start_ns == bindparam("of_start_ns"),
            GapRow.end_ns == bindparam("of_end_ns"),
            GapRow.cause == bindparam("of_cause"),
        )
        examined = self._insert(_table(ExaminedRow))
        self.examined = examined.on_conflict_do_update(
            index_elements=["device_id"],
            set_={name: examined.excluded[name] for name in ("clear_ns", "low_ns", "high_ns")},
        )
        of_device = StrapRow.device_id == bindparam("of_device")
        self.strap_state = update(_table(StrapRow)).where(of_device)
        refused = self._insert(_table(RefusedMessageRow))
        self.others: dict[str, Executable] = {
            "unpaired": delete(_table(StrapRow)).where(StrapRow.address == bindparam("of_address")),
            "refused_message": refused.on_conflict_do_update(
                index_elements=["reason"], set_={"last_ns": refused.excluded.last_ns}
            ),
        }

    def _once(self, row: type[Base]) -> Executable:
        return self._insert(_table(row)).on_conflict_do_nothing()


class BatchWriter:
    """Writes batches over connections to one database."""

    def __init__(self, dialect: Dialect) -> None:
        self._do = Statements(dialect)
        self._known = Ids()

    def forget(self) -> None:
        """Ask the database again for every id."""
        self._known = Ids()

    def write(
        self,
        connection: Connection,
        batch: Batch,
        also: Callable[[Connection], None] | None = None,
    ) -> Counts:
        """Write and commit one batch; all of it or nothing.

        Args:
            connection: outside of a transaction.
            batch: what to write.
            also: called inside the transaction, before anything else is written.

        Raises:
            SQLAlchemyError: nothing was written; or, if the connection broke, perhaps everything.
            ValueError: a model is known with other classes.
        """
        do = self._do
        new = Ids()
        with connection.begin():
            if also is not None:
                also(connection)
            if batch.named:
                connection.execute(do.named, batch.named)
            for patient in batch.patients:
                self._patient(connection, new, patient)
            segments = [
                row | {"device_id": self._device(connection, new, stream)}
                for stream, row in batch.segments
            ]
            rr_intervals = [
                row | {"device_id": self._device(connection, new, stream)}
                for stream, row in batch.rr_intervals
            ]
            windows = [
                row
                | {
                    "device_id": self._device(connection, new, stream),
                    "model_id": None if model is None else self._model(connection, new, model),
                }
                for stream, model, row in batch.windows
            ]
            gaps = [
                row | {"device_id": self._device(connection, new, stream)}
                for stream, row in batch.gaps
            ]
            counts = Counts(
                _added(connection, do.segment, segments)
                + _added(connection, do.rr_intervals, rr_intervals),
                _added(connection, do.window, windows),
            )
            # What is left of a gap comes with it, and goes in after it.
            for stream, row in batch.no_gaps:
                device_id = self._device(connection, new, stream)
                connection.execute(do.no_gap, row | {"of_device": device_id})
            _added(connection, do.gap, gaps)
            for stream, row in batch.examined:
                device_id = self._device(connection, new, stream)
                connection.execute(do.examined, row | {"device_id": device_id})
            _added(connection, do.alarm, batch.alarms)
            _added(connection, do.change, batch.changes)
            self._write_straps(connection, new, batch)
            for name, row in batch.others:
                connection.execute(do.others[name], row)
            write_told(connection, batch.told)
            # Last: some of what is moved may be among what was written just now.
            for record in batch.mended:
                write_mended(connection, record, lambda of: self._device(connection, new, of))
        # Only now: what was rolled back has no id.
        self._known.add(new)
        return counts

    def _write_straps(self, connection: Connection, new: Ids, batch: Batch) -> None:
        for stream, row in batch.straps:
            device_id = self._device(connection, new, stream)
            connection.execute(self._do.strap, row | {"device_id": device_id})
        for stream, row in batch.strap_states:
            device_id = self._device(connection, new, stream)
            connection.execute(self._do.strap_state, row | {"of_device": device_id})

    def _patient(self, connection: Connection, new: Ids, patient: str) -> None:
        if patient not in self._known.patients and patient not in new.patients:
            connection.execute(self._do.patient, {"id": patient})
            new.patients.add(patient)

    def _device(self, connection: Connection, new: Ids, stream: Stream) -> int:
        known = self._known.devices.get(stream) or new.devices.get(stream)
        if known is None:
            self._patient(connection, new, stream.patient)
            key = {"patient_id": stream.patient, "device": stream.device}
            connection.execute(self._do.device, key)
            known = new.devices[stream] = connection.execute(
                select(DeviceRow.id).filter_by(**key)
            ).scalar_one()
        return known

    def _model(self, connection: Connection, new: Ids, model: ModelId) -> int:
        known = self._known.models.get(model) or new.models.get(model)
        if known is None:
            key = {"name": checked_text(model.name), "digest": checked_text(model.digest)}
            connection.execute(self._do.model, key | {"classes": list(model.classes)})
            row = connection.execute(select(ModelRow.id, ModelRow.classes).filter_by(**key)).one()
            if tuple(row.classes) != model.classes:
                raise ValueError(f"model {model.name} {model.digest} is known with other classes")
            known = new.models[model] = row.id
        return known


def _checked(stream: Stream) -> Stream:
    checked_text(stream.patient)
    checked_text(stream.device)
    return stream


def _table(row: type[Base]) -> Table:
    table = row.__table__
    assert isinstance(table, Table)
    return table


def _added(connection: Connection, statement: Executable, rows: list[_Values]) -> int:
    """Execute for all rows; how many it added."""
    if not rows:
        return 0
    counted = {"preserve_rowcount": True}  # an insert's is not kept otherwise
    return connection.execute(statement, rows, execution_options=counted).rowcount
