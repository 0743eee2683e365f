"""When the gateway itself needs somebody: it falls behind or stands still, cannot store or tell.

As the engine of the heart's alarms it has no clock and does no input or output.
"""

from collections.abc import Callable, Container, Iterable
from dataclasses import dataclass
from uuid import uuid4

from alerts.conditions import Alarm, Change, State
from alerts.priorities import priority_of
from alerts.technical import Moment, end

GATEWAY = "gateway"
"""Whose these alarms are; no patient is called so."""

BEHIND, DATABASE, DISK, CLOCK, MODEL = "behind", "database", "disk", "clock", "model"
RHYTHM_MODEL = "rhythm-model"
STALLED = "stalled"
CHANNEL = "channel"
"""The kinds of condition; behind ``channel:`` stands which one."""

DEAD_MAN = "dead-man"
"""The channel to the watchdog outside."""


@dataclass(frozen=True, slots=True)
class _Patience:
    """How long something must be wrong to be told, and right to be over, in seconds."""

    wrong_s: float
    right_s: float


# A database that is restarted is back within a minute; a channel has its own retries; what stands
# still must be told within a minute, before the watchdog restarts the daemon; the rest is told at
# once by who looks at it.
_PATIENCE = {
    BEHIND: _Patience(30.0, 120.0),
    STALLED: _Patience(30.0, 10.0),
    DATABASE: _Patience(60.0, 10.0),
    CHANNEL: _Patience(60.0, 0.0),
}
_AT_ONCE = _Patience(0.0, 0.0)


def is_gateways(alarm: Alarm) -> bool:
    """Whether an alarm is of the gateway, not of a heart or a device."""
    return alarm.patient == GATEWAY


def patience_of(condition: str) -> tuple[float, float]:
    """How long something must be wrong to be told, and right to be over, in seconds."""
    patience = _PATIENCE.get(condition.partition(":")[0], _AT_ONCE)
    return patience.wrong_s, patience.right_s


@dataclass(slots=True)
class _Fault:
    """One condition: since when it is as it is, and the alarm if there is one."""

    wrong: bool
    since: Moment
    alarm: Alarm | None = None


def _new_id() -> str:
    return str(uuid4())


class GatewayWatch:
    """Watches the gateway.

    Args:
        active: its alarms that an earlier run left active.
        new_id: makes the id of a new alarm (UUID4 as text by default).
    """

    def __init__(self, active: Iterable[Alarm] = (), new_id: Callable[[], str] = _new_id) -> None:
        self._left = {alarm.condition: alarm for alarm in active if is_gateways(alarm)}
        self._new_id = new_id
        self._faults: dict[str, _Fault] = {}

    def look(
        self, condition: str, now: Moment, *, wrong: bool, why: str, at_once: bool = False
    ) -> Change | None:
        """Take in how it is; to be called again and again, not only when that changes.

        Args:
            condition: one of the kinds above.
            now: the time.
            wrong: whether it is wrong.
            why: one line that says what is wrong, or that it is over.
            at_once: whether it is known to last, so that nobody need wait for it to pass.

        Returns:
            The alarm that begins or ends with it.
        """
        fault = self._faults.get(condition)
        if fault is None:
            fault = _Fault(wrong, now, self._left.pop(condition, None))
            self._faults[condition] = fault
        elif fault.wrong is not wrong:
            fault.wrong, fault.since = wrong, now
        patience = _PATIENCE.get(condition.partition(":")[0], _AT_ONCE)
        wrong_s = 0.0 if at_once else patience.wrong_s
        lasted_ns = now.since(fault.since)
        if wrong and fault.alarm is None and lasted_ns >= wrong_s * 1e9:
            fault.alarm = Alarm(
                id=self._new_id(),
                patient=GATEWAY,
                condition=condition,
                priority=priority_of(condition),
                started_ns=now.utc_ns - lasted_ns,
                raised_ns=now.utc_ns,
            )
            return Change(fault.alarm, now.utc_ns, State.ACTIVE, why)
        if not wrong and fault.alarm is not None and lasted_ns >= patience.right_s * 1e9:
            alarm, fault.alarm = fault.alarm, None
            return end(alarm, now.utc_ns, why)
        return None

    def end_unwatched(self, watched: Container[str], now: Moment) -> list[Change]:
        """End what an earlier run left and nobody looks at any more, such as a former channel."""
        gone = [condition for condition in self._left if condition not in watched]
        return [
            end(self._left.pop(condition), now.utc_ns, f"{condition} is no longer watched")
            for condition in gone
        ]
