"""Rows that were stored by a clock which was wrong, moved to where they belong."""

from collections.abc import Callable, Sequence
from typing import Any

from sqlalchemy import Connection, Table, bindparam, delete, insert, select, update

from alerts.conditions import State
from ingest.chunk import Stream
from monitor.storage.records import ClockMended
from monitor.storage.rows import gap_row
from monitor.storage.schema import (
    AlarmChangeRow,
    AlarmRow,
    Base,
    GapRow,
    RrIntervalsRow,
    SegmentRow,
    WindowRow,
)
from monitor.window import Gap


def write_mended(
    connection: Connection, record: ClockMended, device_of: Callable[[Stream], int]
) -> None:
    """Move rows by their keys; whatever else lies at those times stays, and so does what was moved.

    Args:
        connection: in a transaction.
        record: which rows, and by how much.
        device_of: the id of a stream's device.
    """
    by_ns = record.by_ns
    for row, column, keys in (
        (SegmentRow, "start_ns", record.segments),
        (RrIntervalsRow, "end_ns", record.rr_intervals),
        (WindowRow, "start_ns", record.windows),
    ):
        _move(connection, row, column, [(device_of(of), at_ns) for of, at_ns in keys], by_ns)
    for was, is_now in record.gaps:
        _replace_gap(connection, was, is_now, device_of)
    for alarm_id, at_ns, state, raised in record.changes:
        change = update(AlarmChangeRow).filter_by(alarm_id=alarm_id, at_ns=at_ns, state=str(state))
        if not connection.execute(change.values(at_ns=at_ns + by_ns)).rowcount:
            continue
        alarm = update(AlarmRow).filter_by(id=alarm_id)
        if raised:
            times = (AlarmRow.started_ns, AlarmRow.raised_ns)
            connection.execute(alarm.values({time: time + by_ns for time in times}))
        if state is State.ENDED:
            connection.execute(alarm.values(ended_ns=AlarmRow.ended_ns + by_ns))


def _move(
    connection: Connection,
    row: type[Base],
    column: str,
    keys: Sequence[tuple[int, int]],
    by_ns: int,
) -> None:
    """Add ``by_ns`` to a column of the rows with these devices and values of it."""
    if not keys:
        return
    table = row.__table__
    assert isinstance(table, Table)
    moved = (
        update(table)
        .where(
            table.c.device_id == bindparam("of_device"),
            table.c[column] == bindparam("at_ns"),
        )
        .values({column: bindparam("to_ns")})
    )
    # Those in front first: none may come to lie where another of these is still.
    in_order = sorted(set(keys), key=lambda key: key[1], reverse=by_ns > 0)
    values: list[dict[str, Any]] = [
        {"of_device": device, "at_ns": at_ns, "to_ns": at_ns + by_ns} for device, at_ns in in_order
    ]
    connection.execute(moved, values)


def _replace_gap(
    connection: Connection, was: Gap | None, is_now: Gap | None, device_of: Callable[[Stream], int]
) -> None:
    if was is not None:
        key = gap_row(was) | {"device_id": device_of(was.stream)}
        connection.execute(delete(GapRow).filter_by(**key))
    if is_now is not None:
        values = gap_row(is_now) | {"device_id": device_of(is_now.stream)}
        there = connection.execute(select(GapRow.start_ns).filter_by(**values)).first()
        if there is None:
            connection.execute(insert(GapRow).values(values))
