"""How soon somebody must act: the one table of priorities, after the ideas of IEC 60601-1-8.

That standard asks what happens if nobody answers, and how soon. High: death or lasting harm within
minutes. Medium: harm that can still be turned, or nobody watches and does not know. Low: discomfort
or a matter for the day. ``docs/alarms.md`` has the same table for people.
"""

from collections.abc import Mapping
from typing import Final

from alerts.conditions import Priority

PRIORITIES: Final[Mapping[str, Priority]] = {
    # No blood is pumped, or soon none will be.
    "vf": Priority.HIGH,
    "vt": Priority.HIGH,
    "asystole": Priority.HIGH,
    "unseen": Priority.MEDIUM,
    "pause": Priority.HIGH,
    "rate:high": Priority.MEDIUM,
    "rate:low": Priority.MEDIUM,
    "rr": Priority.LOW,
    # Whoever is not watched must be told so, but may be perfectly well.
    "device": Priority.MEDIUM,
    "electrodes": Priority.MEDIUM,
    "signal": Priority.MEDIUM,
    "battery": Priority.LOW,
    # Whoever relies on the watch is not watched, and only a restart helps.
    "stalled": Priority.HIGH,
    "behind": Priority.MEDIUM,
    "database": Priority.MEDIUM,
    "disk": Priority.MEDIUM,
    "clock": Priority.MEDIUM,
    "model": Priority.MEDIUM,
    "rhythm-model": Priority.MEDIUM,
    "channel": Priority.MEDIUM,
}
"""By condition, or by what stands before its colon. Those of the model's classes (``class:``) come
with the bundle, since only who trained it knows what a class is worth."""


def priority_of(condition: str) -> Priority:
    """The priority of a condition, as in ``Alarm.condition``.

    Raises:
        KeyError: it is a class's, or unknown.
    """
    if condition in PRIORITIES:
        return PRIORITIES[condition]
    return PRIORITIES[condition.partition(":")[0]]
