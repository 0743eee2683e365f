"""What the signals of alarms consist of: all of it is stored, and given back after a restart.

All times are UTC, in nanoseconds since 1970.
"""

from dataclasses import dataclass
from enum import StrEnum

from alerts.conditions import Alarm
from alerts.rhythm import is_lethal


class Presence(StrEnum):
    """Whether people are being told of an alarm.

    After the signal presence of BICEPS (IEEE 11073-10207): On, Latch, Ack, Off.
    """

    ON = "on"
    LATCHED = "latched"
    """The condition is over and nobody has answered yet."""

    ACKNOWLEDGED = "acknowledged"
    """Somebody has answered; the condition is still true."""

    OFF = "off"


@dataclass(frozen=True, slots=True, kw_only=True)
class Signal:
    """How people are told of one alarm.

    Attributes:
        alarm: the condition, as it last was, with the highest priority that it has had.
        presence: whether people are being told.
        since_ns: since when it has this presence.
        bout: the thread of messages it belongs to: the id of the first alarm of the bout.
        bout_count: how many times the condition has come in this bout, this one included.
        bout_started_ns: when it came first.
        acknowledged_by: who answered it; None if nobody has, or not since it came on last.
        acknowledged_ns: when.
        snoozed_until_ns: when it comes on again if it is still true; None if for good.
        last_told_ns: when somebody was last told of it, or of the same bout; an end does not count.
        told: who has been told that it is on.
        issued: how many notifications were ever made for it, which numbers the next one.
        signal_lost: whether the patient's data has stopped since, so that nobody knows if it is
            over.
        loss_told: whether people were told so; they are once.
    """

    alarm: Alarm
    presence: Presence
    since_ns: int
    bout: str
    bout_count: int
    bout_started_ns: int
    acknowledged_by: str | None = None
    acknowledged_ns: int | None = None
    snoozed_until_ns: int | None = None
    last_told_ns: int | None = None
    told: tuple[str, ...] = ()
    issued: int = 0
    signal_lost: bool = False
    loss_told: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Pause:
    """A time in which nobody is told of a patient's alarms. They are recorded all the same.

    After the activation state Psd of BICEPS, which like this is apart from the presence.

    Attributes:
        id: unique for ever.
        patient: whose alarms.
        kind: which of them: a condition, e.g. ``class:AF``, or what stands before its colon, e.g.
            ``device``; None for all, technical ones too, but not lethal rhythms
            (``alerts.rhythm.LETHAL``), which have to be named.
        from_ns: when it began.
        until_ns: when it ends by itself.
        by: who asked for it.
        ended_ns: when it ended; None while it goes on.
    """

    id: str
    patient: str
    kind: str | None
    from_ns: int
    until_ns: int
    by: str
    ended_ns: int | None = None

    def covers(self, alarm: Alarm) -> bool:
        """Whether it is of the kind of alarm that this pauses."""
        if alarm.patient != self.patient:
            return False
        if self.kind is None:
            return not is_lethal(alarm.condition)
        return self.kind in (alarm.condition, alarm.condition.partition(":")[0])


class Kind(StrEnum):
    """What a notification tells of an alarm."""

    RAISED = "raised"
    AGAIN = "again"
    """It is back, in the same bout."""

    WORSENED = "worsened"
    """Its priority has risen."""

    REMINDER = "reminder"
    ESCALATED = "escalated"
    """Those who were told before have not answered."""

    SNOOZE_OVER = "snooze_over"
    PAUSE_OVER = "pause_over"
    GOES_ON = "goes_on"
    """A lethal rhythm, and it was answered too long ago."""

    SIGNAL_LOST = "signal_lost"
    """It was on when the patient's data stopped: nobody knows whether it is over."""

    LATCHED = "latched"
    """It is over, and nobody has answered it."""

    ENDED = "ended"


HAPPENED = (Kind.RAISED, Kind.AGAIN, Kind.WORSENED, Kind.GOES_ON)
"""What tells of something new: even if it is over by then, it has happened, and nobody knows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Notification:
    """Something one person is to be told at some time.

    One with the key of another that still waits replaces it: only ``due_ns`` differs, because a
    pause began or ended, or the clock was set. One whose key has been delivered stays delivered.

    Attributes:
        key: unique for ever; made of the alarm's id, ``kind`` and a number.
        alarm_id: the alarm.
        patient: whose.
        contact: who is told.
        kind: what.
        due_ns: when, at the earliest.
        thread: ``Signal.bout``: the messages of one bout belong together.
        expires_with_alarm: whether it has no meaning any more once the alarm is off.
    """

    key: str
    alarm_id: str
    patient: str
    contact: str
    kind: Kind
    due_ns: int
    thread: str
    expires_with_alarm: bool


@dataclass(frozen=True, slots=True)
class Cancelled:
    """All notifications of an alarm that were put out before this and still wait are void.

    That a notification is due or was tried does not matter: what was not delivered, waits.
    """

    alarm_id: str


@dataclass(frozen=True, slots=True)
class ClockSet:
    """The clock was set: ``due_ns`` of every notification that waits is moved by so much.

    Also of those that are due and were tried in vain: set back, the clock would delay them.
    """

    by_ns: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Audit:
    """One line of the record of what was done, by whom.

    Attributes:
        at_ns: when.
        alarm_id: the alarm; None for a pause.
        patient: whose.
        what: ``raised``, ``again``, ``worsened``, ``superseded``, ``latched``, ``ended``,
            ``acknowledged``, ``snoozed``, ``snooze over``, ``goes on``,
            ``signal lost``, ``signal back``, ``paused``, ``resumed``, ``pause replaced`` or
            ``pause over``.
        by: the person; None where it came of time or of the condition itself.
        detail: one line.
    """

    at_ns: int
    alarm_id: str | None
    patient: str
    what: str
    by: str | None
    detail: str


Output = Signal | Pause | Notification | Cancelled | ClockSet | Audit
"""What is to be stored, in the order in which it was put out, in one transaction."""
