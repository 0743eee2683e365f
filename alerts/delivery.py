"""Telling people of an alarm: in one line of text, and in the log."""

from collections.abc import Mapping
from datetime import UTC, datetime

import structlog

from alerts.conditions import Change, Priority, State
from alerts.wording import what_of

_URGENCY = {
    Priority.HIGH: "HIGH priority, act now",
    Priority.MEDIUM: "medium priority, look soon",
    Priority.LOW: "low priority, keep it in mind",
}


def describe(change: Change, names: Mapping[str, str] | None = None) -> str:
    """One line that tells somebody who was asleep what is the matter.

    Args:
        change: what happened.
        names: plain names by class abbreviation; without one, the abbreviation stands for itself.

    Returns:
        Who (the patient's id), what, since when (local time) and how urgent, e.g. ``grandpa: looks
        like atrial fibrillation since Sat 21 Nov 07:32 – medium priority, look soon (AF: 6 of the
        last 8 good windows at or over 0.62)``.
    """
    alarm = change.alarm
    what = what_of(alarm, names)
    since = _local(alarm.started_ns)
    if alarm.ended_ns is not None:
        until = _local(alarm.ended_ns)
        return f"{alarm.patient}: over: {what}, {since} to {until} ({change.reason})"
    return f"{alarm.patient}: {what} since {since} – {_URGENCY[alarm.priority]} ({change.reason})"


class LogDelivery:
    """Writes every change to the log: a warning when an alarm is raised, a note when it ends.

    Args:
        names: plain names by class abbreviation, as for ``describe``.
    """

    def __init__(self, names: Mapping[str, str] | None = None) -> None:
        self._names = names
        self._log = structlog.get_logger(__name__)

    def deliver(self, change: Change) -> None:
        """Log one change."""
        alarm = change.alarm
        write = self._log.warning if change.state is State.ACTIVE else self._log.info
        write(
            describe(change, self._names),
            patient=alarm.patient,
            alarm=alarm.id,
            condition=alarm.condition,
            priority=alarm.priority.value,
            state=change.state.value,
        )


def _local(ns: int) -> str:
    utc = datetime.fromtimestamp(ns // 1_000_000_000, tz=UTC)
    return utc.astimezone().strftime("%a %d %b %H:%M")
