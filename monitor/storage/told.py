"""How people are told of alarms, as rows: in, and out again."""

import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from sqlalchemy import ColumnElement, Connection, Dialect, insert, select, update
from sqlalchemy.dialects import postgresql, sqlite

from alerts.conditions import Priority
from alerts.records import (
    Audit,
    Cancelled,
    ClockSet,
    Kind,
    Notification,
    Pause,
    Presence,
    Signal,
)
from monitor.storage.records import Delivery, Request, Settled, Told
from monitor.storage.rows import Row, alarm_from, checked_text
from monitor.storage.schema import (
    AlarmAuditRow,
    AlarmPauseRow,
    AlarmRequestRow,
    AlarmRow,
    AlarmSignalRow,
    Base,
    DeliveryRow,
    NotificationRow,
    PatientRow,
)

_SIGNAL_FIELDS = (
    "since_ns",
    "bout",
    "bout_count",
    "bout_started_ns",
    "acknowledged_by",
    "acknowledged_ns",
    "snoozed_until_ns",
    "last_told_ns",
    "issued",
    "signal_lost",
    "loss_told",
)

WAITING, VOID = "waiting", "void"

TEST = "test"
"""What a message that was sent on purpose is kept as, answered already: proof of its channel."""


def write_told(connection: Connection, records: list[Told]) -> None:
    """Write records in their order; what they refer to is there already."""
    for record in records:
        _write(connection, record)


def _write(connection: Connection, record: Told) -> None:
    match record:
        case Signal():
            _put(connection, AlarmSignalRow, ("alarm_id",), _signal_row(record))
        case Pause():
            _patient(connection, record.patient)
            _put(connection, AlarmPauseRow, ("id",), _pause_row(record))
        case Notification():
            _put_notification(connection, record)
        case Cancelled():
            of_alarm = NotificationRow.alarm_id == record.alarm_id
            waits = NotificationRow.state == WAITING
            connection.execute(update(NotificationRow).where(of_alarm, waits).values(state=VOID))
        case ClockSet():
            waits = NotificationRow.state == WAITING
            moved = NotificationRow.due_ns + record.by_ns
            connection.execute(update(NotificationRow).where(waits).values(due_ns=moved))
        case Audit():
            connection.execute(insert(AlarmAuditRow).values(_audit_row(record)))
        case _:
            _write_delivered(connection, record)


def _write_delivered(connection: Connection, record: Delivery | Settled | Request) -> None:
    match record:
        case Delivery():
            _put(connection, DeliveryRow, ("key", "channel"), _delivery_row(record))
        case Settled():
            of_key = NotificationRow.key == record.key
            connection.execute(update(NotificationRow).where(of_key).values(state=record.state))
        case Request(id=None):
            values = {
                "at_ns": int(record.at_ns),
                "what": checked_text(record.what),
                "arguments": record.arguments,
                "by": checked_text(record.by),
                # What was asked of the daemon itself is answered by the time it is stored.
                "answer": record.answer,
            }
            connection.execute(insert(AlarmRequestRow).values(values))
        case Request():
            of_id = AlarmRequestRow.id == record.id
            connection.execute(update(AlarmRequestRow).where(of_id).values(answer=record.answer))


def _put(
    connection: Connection, row: type[Base], key: tuple[str, ...], values: dict[str, Any]
) -> None:
    """Insert, or replace what has the same key."""
    statement = _insert(connection.dialect, row).values(values)
    changed = {name: statement.excluded[name] for name in values if name not in key}
    connection.execute(statement.on_conflict_do_update(index_elements=list(key), set_=changed))


def _insert(dialect: Dialect, row: type[Base]) -> Any:
    return (postgresql if dialect.name == "postgresql" else sqlite).insert(row)


def _patient(connection: Connection, patient: str) -> None:
    values = {"id": checked_text(patient)}
    statement = _insert(connection.dialect, PatientRow).values(values)
    connection.execute(statement.on_conflict_do_nothing())


def _put_notification(connection: Connection, record: Notification) -> None:
    """One that waits is replaced; one that was delivered stays delivered."""
    values = {
        "key": checked_text(record.key),
        "alarm_id": record.alarm_id,
        "patient_id": record.patient,
        "contact": checked_text(record.contact),
        "kind": record.kind.value,
        "due_ns": int(record.due_ns),
        "thread": checked_text(record.thread),
        "expires_with_alarm": record.expires_with_alarm,
        "state": WAITING,
        "made_ns": time.time_ns(),
    }
    statement = _insert(connection.dialect, NotificationRow).values(values)
    connection.execute(
        statement.on_conflict_do_update(
            index_elements=["key"],
            set_={"due_ns": statement.excluded.due_ns, "state": WAITING},
            where=NotificationRow.state.in_((WAITING, VOID)),
        )
    )


def _signal_row(signal: Signal) -> dict[str, Any]:
    return {
        "alarm_id": signal.alarm.id,
        "presence": signal.presence.value,
        "priority": signal.alarm.priority.value,
        "told": list(signal.told),
        **{name: getattr(signal, name) for name in _SIGNAL_FIELDS},
    }


def _pause_row(pause: Pause) -> dict[str, Any]:
    return {
        "id": checked_text(pause.id),
        "patient_id": checked_text(pause.patient),
        "kind": pause.kind,
        "from_ns": int(pause.from_ns),
        "until_ns": int(pause.until_ns),
        "by": checked_text(pause.by),
        "ended_ns": pause.ended_ns,
    }


def _audit_row(audit: Audit) -> dict[str, Any]:
    return {
        "at_ns": int(audit.at_ns),
        "alarm_id": audit.alarm_id,
        "patient_id": checked_text(audit.patient),
        "what": checked_text(audit.what),
        "by": audit.by,
        "detail": audit.detail,
    }


def _delivery_row(delivery: Delivery) -> dict[str, Any]:
    return {
        "key": delivery.key,
        "channel": checked_text(delivery.channel),
        "state": delivery.state,
        "attempts": delivery.attempts,
        "at_ns": int(delivery.at_ns),
        "error": delivery.error,
    }


def read_signals(connection: Connection, *presences: Presence) -> list[Signal]:
    """The signals with these presences, or all of them, oldest first."""
    if not presences:
        return _signals(connection)
    return _signals(connection, AlarmSignalRow.presence.in_([p.value for p in presences]))


def read_signals_since(connection: Connection, off_ns: int) -> list[Signal]:
    """Those that are not off, or went off after ``off_ns``, oldest first."""
    is_on = AlarmSignalRow.presence != Presence.OFF.value
    return _signals(connection, is_on | (AlarmSignalRow.since_ns > off_ns))


def read_signal(connection: Connection, alarm_id: str) -> Signal | None:
    """The signal of one alarm."""
    return next(iter(_signals(connection, AlarmSignalRow.alarm_id == alarm_id)), None)


def _signals(connection: Connection, *wanted: ColumnElement[bool]) -> list[Signal]:
    query = (
        select(AlarmSignalRow.__table__, AlarmRow.__table__)
        .join_from(AlarmSignalRow, AlarmRow)
        .where(*wanted)
        .order_by(AlarmRow.raised_ns, AlarmRow.id)
    )
    return [_signal_from(row) for row in connection.execute(query).mappings()]


def _signal_from(row: Mapping[Any, Any]) -> Signal:
    of = AlarmSignalRow.__table__.c
    alarm_columns = {c.name: row[c] for c in AlarmRow.__table__.c}
    alarm = replace(alarm_from(alarm_columns), priority=Priority(row[of.priority]))
    return Signal(
        alarm=alarm,
        presence=Presence(row[of.presence]),
        told=tuple(row[of.told]),
        **{name: row[of[name]] for name in _SIGNAL_FIELDS},
    )


def read_pauses(connection: Connection, now_ns: int) -> list[Pause]:
    """The pauses that have not ended, and those of the last day."""
    since_ns = now_ns - 86_400 * 10**9
    ended = AlarmPauseRow.ended_ns
    query = select(AlarmPauseRow.__table__).where(ended.is_(None) | (ended >= since_ns))
    return [_pause_from(row) for row in connection.execute(query).mappings()]


def _pause_from(row: Row) -> Pause:
    return Pause(
        id=row["id"],
        patient=row["patient_id"],
        kind=row["kind"],
        from_ns=row["from_ns"],
        until_ns=row["until_ns"],
        by=row["by"],
        ended_ns=row["ended_ns"],
    )


def read_waiting(connection: Connection) -> list[tuple[Notification, list[Delivery]]]:
    """The notifications that wait, in the order in which they are due, with what was tried."""
    waits = NotificationRow.state == WAITING
    tried: dict[str, list[Delivery]] = {}
    deliveries = select(DeliveryRow.__table__).join_from(DeliveryRow, NotificationRow).where(waits)
    for row in connection.execute(deliveries).mappings():
        tried.setdefault(row["key"], []).append(Delivery(**row))
    query = (
        select(NotificationRow.__table__)
        .where(waits)
        .order_by(NotificationRow.due_ns, NotificationRow.made_ns, NotificationRow.key)
    )
    return [
        (_notification_from(row), tried.get(row["key"], []))
        for row in connection.execute(query).mappings()
    ]


def _notification_from(row: Row) -> Notification:
    return Notification(
        key=row["key"],
        alarm_id=row["alarm_id"],
        patient=row["patient_id"],
        contact=row["contact"],
        kind=Kind(row["kind"]),
        due_ns=row["due_ns"],
        thread=row["thread"],
        expires_with_alarm=row["expires_with_alarm"],
    )


def read_audit(connection: Connection, alarm_id: str) -> list[Audit]:
    """What was done about an alarm, in its order."""
    query = (
        select(AlarmAuditRow.__table__)
        .where(AlarmAuditRow.alarm_id == alarm_id)
        .order_by(AlarmAuditRow.id)
    )
    return [
        Audit(
            at_ns=row["at_ns"],
            alarm_id=row["alarm_id"],
            patient=row["patient_id"],
            what=row["what"],
            by=row["by"],
            detail=row["detail"],
        )
        for row in connection.execute(query).mappings()
    ]


def read_deliveries(
    connection: Connection, alarm_id: str
) -> list[tuple[Notification, str, Delivery | None]]:
    """Every notification of an alarm with its state, and what became of it on each channel."""
    query = (
        select(NotificationRow.__table__, DeliveryRow.__table__)
        .outerjoin_from(NotificationRow, DeliveryRow)
        .where(NotificationRow.alarm_id == alarm_id)
        .order_by(NotificationRow.due_ns, NotificationRow.made_ns, NotificationRow.key)
    )
    found: list[tuple[Notification, str, Delivery | None]] = []
    for row in connection.execute(query).mappings():
        notification = {c.name: row[c] for c in NotificationRow.__table__.c}
        delivery = {c.name: row[c] for c in DeliveryRow.__table__.c}
        tried = None if delivery["key"] is None else Delivery(**delivery)
        found.append((_notification_from(notification), notification["state"], tried))
    return found


def read_requests(connection: Connection) -> list[Request]:
    """What the daemon has not seen to yet, in its order."""
    query = (
        select(AlarmRequestRow.__table__)
        .where(AlarmRequestRow.answer.is_(None))
        .order_by(AlarmRequestRow.id)
    )
    return [Request(**row) for row in connection.execute(query).mappings()]


def read_answer(connection: Connection, at_ns: int, by: str) -> str | None:
    """The daemon's answer to a request; None until there is one."""
    query = select(AlarmRequestRow.answer).where(
        AlarmRequestRow.at_ns == at_ns, AlarmRequestRow.by == by
    )
    return connection.execute(query).scalar_one_or_none()


def read_proven(connection: Connection, since_ns: int) -> dict[str, int]:
    """When each channel last delivered something from ``since_ns`` on, in UTC ns, by its name.

    Alarms count, and what was sent on purpose to try it (a request ``test`` that was answered).
    """
    delivered = select(DeliveryRow.channel, DeliveryRow.at_ns).where(
        DeliveryRow.state == "delivered", DeliveryRow.at_ns >= since_ns
    )
    tried = select(AlarmRequestRow.arguments, AlarmRequestRow.at_ns).where(
        AlarmRequestRow.what == TEST,
        AlarmRequestRow.answer.is_not(None),
        AlarmRequestRow.at_ns >= since_ns,
    )
    found = [(channel, at_ns) for channel, at_ns in connection.execute(delivered)]
    found += [(given["channel"], at_ns) for given, at_ns in connection.execute(tried)]
    proven: dict[str, int] = {}
    for channel, at_ns in found:
        proven[channel] = max(at_ns, proven.get(channel, at_ns))
    return proven
