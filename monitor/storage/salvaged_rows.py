"""Tells rows that make sense from those that damage has changed."""

import json
import math
from collections.abc import Callable, Mapping
from typing import Any

from sqlalchemy import JSON, Boolean, Column, Double, Integer, LargeBinary, String, Table

from alerts.conditions import Priority, State
from alerts.records import Kind, Presence
from monitor.quality import Quality, Reason
from monitor.storage.codec import decode

_STATE_OF_STRAP = {"stage", "cause", "advice", "since_ns", "battery", "battery_ns"}

# Damage is not limited to what a program would store.
_LONGEST_TEXT = 100_000


def checked_row(table: Table, found: Mapping[str, Any]) -> dict[str, Any]:
    """Make a row for ``table`` of what was found.

    Args:
        table: of the schema.
        found: values as the driver gives them, by column; those that the table has not are left
            out, those that are missing are NULL.

    Raises:
        ValueError, TypeError: a value cannot be what the program stored.
    """
    try:
        row = {column.name: _checked(column, found.get(column.name)) for column in table.columns}
        _MEANINGS.get(table.name, _no_meaning)(row)
    except (ValueError, TypeError):
        known = {name: value for name, value in found.items() if name not in _STATE_OF_STRAP}
        if table.name != "straps" or known == found:
            raise
        # What was last known of a strap is soon known again; that it is paired is not.
        return checked_row(table, known)
    return row


def _checked(column: "Column[Any]", value: Any) -> Any:
    if value is None and column.nullable:
        return None
    for kind, take in _TAKES:
        if isinstance(column.type, kind):
            return take(value, column)
    raise ValueError(f"{column}: of no type that is known")


def _json(value: Any, column: "Column[Any]") -> Any:
    if value is None:
        raise ValueError(f"{column}: nothing")
    return json.loads(value) if isinstance(value, str) else value


def _flag(value: Any, column: "Column[Any]") -> bool:
    if value not in (0, 1):
        raise ValueError(f"{column}: neither 0 nor 1")
    return bool(value)


def _bytes(value: Any, column: "Column[Any]") -> bytes:
    if not isinstance(value, bytes | memoryview):
        raise TypeError(f"{column}: no bytes")
    return bytes(value)


def _text(value: Any, column: "Column[Any]") -> str:
    limit = getattr(column.type, "length", None) or _LONGEST_TEXT
    # What was no text has become U+FFFD.
    if not isinstance(value, str) or len(value) > limit or {"\0", "\ufffd"} & set(value):
        raise ValueError(f"{column}: no text")
    return value


def _integer(value: Any, column: "Column[Any]") -> int:
    if not isinstance(value, int):
        raise TypeError(f"{column}: no integer")
    return value


def _number(value: Any, column: "Column[Any]") -> float:
    if not isinstance(value, float | int) or not math.isfinite(value):
        raise ValueError(f"{column}: no number")
    return float(value)


_TAKES: tuple[tuple[type, Callable[[Any, "Column[Any]"], Any]], ...] = (
    (JSON, _json),
    (Boolean, _flag),
    (LargeBinary, _bytes),
    (String, _text),
    (Integer, _integer),
    (Double, _number),
)


def _no_meaning(_row: dict[str, Any]) -> None:
    pass


def _alarm(row: dict[str, Any]) -> None:
    Priority(row["priority"])
    ended_ns = row["ended_ns"]
    if row["started_ns"] > row["raised_ns"] or (
        ended_ns is not None and ended_ns < row["raised_ns"]
    ):
        raise ValueError("alarms: times that are out of order")


def _strap(row: dict[str, Any]) -> None:
    if (row["stage"] is not None and row["since_ns"] is None) or (
        row["battery"] is not None and not 0 <= row["battery"] <= 100
    ):
        raise ValueError("straps: a state that makes no sense")


def _change(row: dict[str, Any]) -> None:
    State(row["state"])


def _signal(row: dict[str, Any]) -> None:
    Presence(row["presence"])
    Priority(row["priority"])
    _texts(row["told"])


def _notification(row: dict[str, Any]) -> None:
    Kind(row["kind"])


def _model(row: dict[str, Any]) -> None:
    _texts(row["classes"])


def _window(row: dict[str, Any]) -> None:
    Quality(row["quality"])
    for reason in row["reasons"].split():
        Reason(reason)
    if len(row["r_peaks"]) % 8 or len(row["probabilities"] or b"") % 4 or row["duration_s"] < 0:
        raise ValueError("windows: a length that makes no sense")


def _segment(row: dict[str, Any]) -> None:
    if len(decode(row["blob"])) != row["n"] or not row["rate"] > 0:
        raise ValueError("segments: a length that makes no sense")


def _rr_intervals(row: dict[str, Any]) -> None:
    if len(row["rr"]) % 8:
        raise ValueError("rr_intervals: a length that makes no sense")


def _texts(value: Any) -> None:
    if not isinstance(value, list) or not all(isinstance(text, str) for text in value):
        raise ValueError("not a list of texts")


_MEANINGS: dict[str, Callable[[dict[str, Any]], None]] = {
    "straps": _strap,
    "alarms": _alarm,
    "alarm_changes": _change,
    "alarm_signals": _signal,
    "notifications": _notification,
    "models": _model,
    "windows": _window,
    "segments": _segment,
    "rr_intervals": _rr_intervals,
}
