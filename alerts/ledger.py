"""What people are told of alarms, and what of that is to be stored.

This carries out what ``alerts.signals`` decides: it numbers notifications and finds out when each
is due, by the patient's plan, quiet hours and pauses.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace

from alerts.conditions import Alarm, Priority
from alerts.escalation import Ladder, Plan
from alerts.records import (
    Audit,
    Cancelled,
    ClockSet,
    Kind,
    Notification,
    Output,
    Pause,
    Presence,
    Signal,
)
from alerts.rhythm import LETHAL, is_lethal

S = 1_000_000_000

# That an alarm of high priority is back, or over, is told once a minute at most: ten pauses in two
# minutes are one trouble. What comes back later than that is told whatever else was told meanwhile:
# a reminder of what is over must not delay it. Lethal rhythms are told whenever they come.
HIGH_GAP_S = 60.0

BEGINNINGS = (
    Kind.RAISED,
    Kind.AGAIN,
    Kind.WORSENED,
    Kind.SNOOZE_OVER,
    Kind.PAUSE_OVER,
    Kind.GOES_ON,
)
"""What tells that an alarm is on."""

ALL_ALARMS = f"all alarms but {', '.join(LETHAL)}"
"""What a pause holds back that names no kind."""

_UNANSWERED = (Presence.ON, Presence.LATCHED)


@dataclass(slots=True)
class Waiting:
    """A notification that is not due yet.

    Attributes:
        notification: what was put out of it last.
        wanted_ns: when it would be due were there neither quiet hours nor a pause.
    """

    notification: Notification
    wanted_ns: int


@dataclass(slots=True)
class Bout:
    """The newest alarm of one condition of one patient; kept when it is off, for the next.

    Attributes:
        signal: how people are told of it.
        waiting: what of it is not due yet, by key.
    """

    signal: Signal
    waiting: dict[str, Waiting] = field(default_factory=dict)

    @property
    def alarm(self) -> Alarm:
        """The condition."""
        return self.signal.alarm

    @property
    def is_on(self) -> bool:
        """Whether it is not off."""
        return self.signal.presence is not Presence.OFF

    @property
    def is_unanswered(self) -> bool:
        """Whether people are to be told until somebody answers."""
        return self.signal.presence in _UNANSWERED

    def contacts(self, *kinds: Kind) -> tuple[str, ...]:
        """Who has something of these kinds coming."""
        found = (w.notification for w in self.waiting.values())
        return tuple(dict.fromkeys(n.contact for n in found if n.kind in kinds))


class Ledger:
    """The alarms and pauses of all patients, with all that is to be stored of them.

    Args:
        plan_for: gives the plan of a patient.

    Attributes:
        bouts: the newest alarm of each condition of each patient, by ``of``.
        pauses: those that go on, by id.
    """

    def __init__(self, plan_for: Callable[[str], Plan]) -> None:
        self._plan_for = plan_for
        self.bouts: dict[tuple[str, str], Bout] = {}
        self.pauses: dict[str, Pause] = {}
        self._out: list[Output] = []
        self._changed: dict[str, Signal] = {}

    def write(self, output: Output) -> None:
        """Have it stored."""
        self._out.append(output)

    def is_paused(self, alarm: Alarm) -> bool:
        """Whether nobody is to be told of it for now."""
        return any(pause.covers(alarm) for pause in self.pauses.values())

    def covered(self, pause: Pause) -> list[Bout]:
        """What a pause holds back."""
        return [bout for bout in self.bouts.values() if pause.covers(bout.alarm)]

    def ladder(self, bout: Bout) -> Ladder:
        """Who is told of it."""
        return self._plan_for(bout.alarm.patient).ladder_of(bout.alarm)

    def is_recent(self, bout: Bout, t: int) -> bool:
        """Whether what comes now is of the same bout as this, which is off."""
        bout_s = self._plan_for(bout.alarm.patient).bout_s
        return t - bout.signal.since_ns <= bout_s * S

    def happened(self) -> Iterable[int]:
        """When everything happened that is known of."""
        for bout in self.bouts.values():
            signal = bout.signal
            for time_ns in (signal.since_ns, signal.acknowledged_ns, signal.last_told_ns):
                if time_ns is not None:
                    yield time_ns
        for pause in self.pauses.values():
            yield pause.from_ns

    def place(self, bout: Bout) -> None:
        """Make it the newest of its condition."""
        self.bouts[of(bout.alarm)] = bout
        self._changed[bout.alarm.id] = bout.signal

    def set(self, bout: Bout, **fields: object) -> None:
        """Change fields of its signal."""
        bout.signal = replace(bout.signal, **fields)  # type: ignore[arg-type]
        self._changed[bout.alarm.id] = bout.signal

    def audit(self, bout: Bout, t: int, what: str, by: str | None, detail: str) -> None:
        """Record what was done with an alarm."""
        alarm = bout.alarm
        self.write(
            Audit(
                at_ns=t,
                alarm_id=alarm.id,
                patient=alarm.patient,
                what=what,
                by=by,
                detail=detail,
            )
        )

    def audit_pause(self, pause: Pause, t: int, what: str, by: str | None) -> None:
        """Record what was done with a pause."""
        detail = f"{pause.kind or ALL_ALARMS} ({pause.id})"
        self.write(
            Audit(at_ns=t, alarm_id=None, patient=pause.patient, what=what, by=by, detail=detail)
        )

    def cancel(self, bout: Bout) -> None:
        """Make void all that waits of it."""
        # Even if nothing is waiting here: what is due may not have been delivered.
        bout.waiting.clear()
        self.write(Cancelled(bout.alarm.id))

    def ring(self, bout: Bout, kind: Kind, start_ns: int) -> None:
        """Put out the whole ladder, unless it is paused."""
        if self.is_paused(bout.alarm):
            return
        start_ns = self.due(bout, kind, start_ns)
        for number, step in enumerate(self.ladder(bout).steps):
            for contact in step.contacts:
                self.put(
                    bout,
                    kind if number == 0 else Kind.ESCALATED,
                    contact,
                    start_ns + round(step.after_s * S),
                )

    def put(self, bout: Bout, kind: Kind, contact: str, wanted_ns: int) -> None:
        """Put out one notification, with the next number."""
        number = bout.signal.issued + 1
        self.set(bout, issued=number)
        notification = Notification(
            key=f"{bout.alarm.id}:{kind}:{number}",
            alarm_id=bout.alarm.id,
            patient=bout.alarm.patient,
            contact=contact,
            kind=kind,
            due_ns=self.due(bout, kind, wanted_ns),
            thread=bout.signal.bout,
            expires_with_alarm=kind is not Kind.ENDED,
        )
        bout.waiting[notification.key] = Waiting(notification, wanted_ns)
        self.write(notification)

    def due(self, bout: Bout, kind: Kind, wanted_ns: int) -> int:
        """When it is due if wanted at some time."""
        if kind is Kind.ENDED:
            # Of an alarm that is on nothing waits in a pause; the news that one is over may.
            covering = (p for p in self.pauses.values() if p.covers(bout.alarm))
            wanted_ns = max((wanted_ns, *(pause.until_ns for pause in covering)))
        quiet = self._plan_for(bout.alarm.patient).quiet
        if bout.alarm.priority is Priority.LOW and quiet is not None:
            return quiet.after(wanted_ns)
        return wanted_ns

    def not_too_often(self, bout: Bout, t: int) -> int:
        """When people may be told next that a condition comes and goes."""
        if bout.signal.last_told_ns is None or is_lethal(bout.alarm.condition):
            return t
        high = bout.alarm.priority is Priority.HIGH
        gap_s = HIGH_GAP_S if high else self._plan_for(bout.alarm.patient).group_s
        return max(t, bout.signal.last_told_ns + round(gap_s * S))

    def plan_anew(self, bout: Bout) -> None:
        """Put out again, with its new time, what is no longer due when it was."""
        for waiting in bout.waiting.values():
            due_ns = self.due(bout, waiting.notification.kind, waiting.wanted_ns)
            if due_ns != waiting.notification.due_ns:
                waiting.notification = replace(waiting.notification, due_ns=due_ns)
                self.write(waiting.notification)

    def remind_anew(self, bout: Bout, t: int) -> None:
        """Count the time to the reminders that are coming from now, as often as now fits."""
        repeat_s = self._plan_for(bout.alarm.patient).repeat_s(bout.alarm)
        for waiting in bout.waiting.values():
            if waiting.notification.kind is Kind.REMINDER and repeat_s is not None:
                waiting.wanted_ns = t + round(repeat_s * S)
        self.plan_anew(bout)

    def settle(self, t: int) -> None:
        """Take what is due as told, and keep one reminder coming."""
        for bout in self.bouts.values():
            for key, waiting in list(bout.waiting.items()):
                notification = waiting.notification
                if notification.due_ns > t:
                    continue
                del bout.waiting[key]
                known = notification.contact in bout.signal.told
                # After a restart what is due but not delivered comes by a second time.
                again = known and notification.due_ns <= (bout.signal.last_told_ns or 0)
                if notification.kind is not Kind.ENDED and not again:
                    told = dict.fromkeys((*bout.signal.told, notification.contact))
                    self.set(bout, told=tuple(told), last_told_ns=t)
            self._remind(bout, t)

    def _remind(self, bout: Bout, t: int) -> None:
        if not bout.is_unanswered or self.is_paused(bout.alarm):
            return
        configured = self._plan_for(bout.alarm.patient).contacts
        reached = {*bout.signal.told, *(w.notification.contact for w in bout.waiting.values())}
        if configured.isdisjoint(reached):
            # There was nobody to tell when it began, or they are gone; by a new configuration there
            # may be others.
            self.ring(bout, Kind.RAISED, t)
        repeat_s = self._plan_for(bout.alarm.patient).repeat_s(bout.alarm)
        if repeat_s is None or bout.contacts(Kind.REMINDER):
            return
        # Counted from the message that it reminds of, if that is still to come.
        starts = [
            waiting.notification.due_ns
            for waiting in bout.waiting.values()
            if waiting.notification.kind in BEGINNINGS
        ]
        due_ns = max(starts, default=t) + round(repeat_s * S)
        coming = [w.notification for w in bout.waiting.values()]
        told = (*bout.signal.told, *(n.contact for n in coming if n.due_ns < due_ns))
        # Who hears of it at that very time in any case needs no reminder as well.
        busy = {n.contact for n in coming if n.due_ns == due_ns}
        for contact in dict.fromkeys(told):
            if contact in configured and contact not in busy:
                self.put(bout, Kind.REMINDER, contact, due_ns)

    def move(self, by_ns: int) -> None:
        """Take all times into the clock as it now is."""
        self.write(ClockSet(by_ns))
        for pause in list(self.pauses.values()):
            moved = replace(pause, from_ns=pause.from_ns + by_ns, until_ns=pause.until_ns + by_ns)
            self.pauses[pause.id] = moved
            self.write(moved)
        for bout in self.bouts.values():
            self.set(bout, **_moved(bout.signal, by_ns))
            for waiting in bout.waiting.values():
                waiting.wanted_ns += by_ns
                due_ns = waiting.notification.due_ns + by_ns
                waiting.notification = replace(waiting.notification, due_ns=due_ns)
            self.plan_anew(bout)

    def close(self, t: int) -> list[Output]:
        """Settle, and give out all that is to be stored since the last time."""
        self.settle(t)
        # Of each signal as it is in the end; first, so that what refers to it finds it.
        out = [*self._changed.values(), *self._out]
        self._changed, self._out = {}, []
        return out


def of(alarm: Alarm) -> tuple[str, str]:
    """By what its bout is found."""
    return alarm.patient, alarm.condition


def _moved(signal: Signal, by_ns: int) -> dict[str, int]:
    """The times that a signal holds, in a clock that was set by so much."""
    keys = ("since_ns", "bout_started_ns", "acknowledged_ns", "snoozed_until_ns", "last_told_ns")
    times = {key: getattr(signal, key) for key in keys}
    return {key: time_ns + by_ns for key, time_ns in times.items() if time_ns is not None}
