"""What is to be told of an alarm, before it is put into words."""

from dataclasses import dataclass

from alerts.conditions import Alarm
from alerts.records import Kind


@dataclass(frozen=True, slots=True, kw_only=True)
class Notice:
    """What is to be told of an alarm.

    Attributes:
        kind: why.
        alarm: as it is now. If it has ended and the kind is not ``ENDED``, it is latched: over, but
            nobody has acknowledged it.
        now_ns: UTC time, in nanoseconds since 1970.
        patient_name: as people call the patient; None for the id.
        reason: one line, as in the change that raised or ended the alarm.
        heart_rate: per minute, None where unknown; if no beat is seen, what it was before that.
        heart_rate_ns: UTC time that it is of; None for now.
        no_beat: whether the heart is looked at now and no beat is seen.
        beat_ns: UTC time of the last beat, None where unknown.
        seen_ns: UTC time at which a lethal rhythm was last seen; None for now.
        gainsaid: other devices of the patient that see a beating heart now, each with its heart
            rate, None where unknown.
        probability: of the class, 0 to 1, None where there is none.
        probability_ns: UTC time that it is of; None for now.
        arrived_ns: UTC time at which the signal arrived in which the alarm was seen first; None if
            that was at once.
        emergency_number: whom to call.
        emergency_note: what whoever comes to help must know.
        signal_lost: whether nothing can be seen of the heart now.
        count: which time it is in this bout, 1 the first.
        first_ns: UTC start of the bout, None if this is the first time.
        unanswered_ns: UTC time since when nobody has answered, for an escalation.
    """

    kind: Kind
    alarm: Alarm
    now_ns: int
    patient_name: str | None = None
    reason: str = ""
    heart_rate: float | None = None
    heart_rate_ns: int | None = None
    no_beat: bool = False
    beat_ns: int | None = None
    seen_ns: int | None = None
    gainsaid: tuple[tuple[str, float | None], ...] = ()
    probability: float | None = None
    probability_ns: int | None = None
    arrived_ns: int | None = None
    emergency_number: str = "112"
    emergency_note: str | None = None
    signal_lost: bool = False
    count: int = 1
    first_ns: int | None = None
    unanswered_ns: int | None = None
