"""Decides, verdict by verdict, when a heart that pumps no blood is an alarm, and when that is over.

It has no clock and does no input or output: the same verdicts always give the same changes. As in
``alerts.engine`` the order of arrival is the order of events, and time stamps only tell which
verdicts lie near each other: neither a clock that is set nor signal that is late makes it deaf.
But signal that a device kept and sends late, between that of now, must not end what was seen after
it: where the time is given, what is older than that tells nothing of how the heart is.

There is one heart, whatever is strapped to it. The first lethal verdict of any device raises an
alarm, for the verdicts are settled already. Only an organised rhythm ends it: not noise, not
silence, not electrodes that were torn off, for all of these come with a resuscitation.

Beside that it says when a heart cannot be seen at all: signal of something on the skin, and no beat
in it that can be trusted.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from uuid import uuid4

from alerts.conditions import Alarm, Change, State
from alerts.priorities import priority_of
from alerts.rhythm import LETHAL, Rhythm, RhythmSeen
from alerts.technical import end

S = 1_000_000_000

UNSEEN = "unseen"
"""The condition of a heart that cannot be seen."""

# So much organised rhythm ends an alarm. Fibrillation that coarsens and fades is called organised
# for some seconds now and then; a heart that has come back stays so.
ORGANISED_S = 30

# How often an alarm whose rhythm lasts is given once more, by the time of its signal: by this an
# acknowledgement that has grown old is noticed.
UPDATE_S = 5.0

# So long a time without a beat that can be trusted is told. Turning over in bed takes less.
UNSEEN_S = 20

# So much with beats ends that: one QRS complex amid noise does not, nor does one that is late.
SEEN_S = 10
_BEAT_S = 4.0

# Signal before such a silence does not count together with signal after it.
_SILENCE_S = 60.0

# A verdict about a time this far from another's is not about the same moment.
_TOGETHER_S = 10.0

# Signal of another device that is late by no more than this still tells that a heart is seen.
_LATE_S = 900.0

# What lies further ahead of the time is of a clock that was set back since.
_AHEAD_S = 60.0

_NAMES = {
    Rhythm.VF: "ventricular fibrillation or flutter",
    Rhythm.VT: "ventricular tachycardia",
    Rhythm.ASYSTOLE: "no beat",
    Rhythm.ORGANISED: "an organised rhythm",
}


def is_of_rhythm(alarm: Alarm) -> bool:
    """Whether an alarm is raised and ended here, and not by windows."""
    return alarm.condition == UNSEEN or alarm.condition in LETHAL


@dataclass(slots=True)
class _Device:
    """What one device has shown.

    Attributes:
        last: its newest verdict.
        organised_s: how many of its verdicts in this count were of an organised rhythm, less those
            that could not tell.
        organised_ns: UTC time of the newest of these.
        blind_s: how many seconds of its signal came since its last beat.
        beats_s: how many of its last verdicts in a row came with a beat just before.
    """

    last: RhythmSeen
    organised_s: int = 0
    organised_ns: int = 0
    blind_s: int = 0
    beats_s: int = 0


@dataclass(slots=True)
class _Patient:
    """What is known of one heart.

    Attributes:
        devices: by name.
        active: the alarms that have not ended, by condition.
        updated_ns: when each of them was last given, by condition.
        beat_ns: UTC time of the last beat of a device without a waveform.
        beats_from_ns: since when such beats have come one after the other.
        lethal_ns: UTC time of the newest verdict of a lethal rhythm.
    """

    devices: dict[str, _Device] = field(default_factory=dict)
    active: dict[str, Alarm] = field(default_factory=dict)
    updated_ns: dict[str, int] = field(default_factory=dict)
    beat_ns: int | None = None
    beats_from_ns: int = 0
    lethal_ns: int | None = None

    @property
    def lethal(self) -> list[Alarm]:
        """The active alarms of lethal rhythms, in the order in which they were raised."""
        return [alarm for alarm in self.active.values() if alarm.condition in LETHAL]


def _new_id() -> str:
    return str(uuid4())


class RhythmEngine:
    """Turns the verdicts about all patients' signals into changes of their alarms.

    Args:
        new_id: makes the id of a new alarm (UUID4 as text by default).
    """

    def __init__(self, new_id: Callable[[], str] = _new_id) -> None:
        self._new_id = new_id
        self._patients: dict[str, _Patient] = {}

    def restore(self, alarms: Iterable[Alarm]) -> None:
        """Take up, before the first step, the alarms that an earlier engine left active.

        Args:
            alarms: of any conditions; those that are not raised here, or have ended, are passed
                over.

        Raises:
            ValueError: if a patient has two active alarms of one condition.
        """
        for alarm in alarms:
            if alarm.state is State.ENDED or not is_of_rhythm(alarm):
                continue
            active = self._patient(alarm.patient).active
            if alarm.condition in active:
                raise ValueError(
                    f"two active alarms of {alarm.condition} for {alarm.patient}: "
                    f"{active[alarm.condition].id} and {alarm.id}"
                )
            active[alarm.condition] = alarm
            if alarm.condition in LETHAL:
                patient = self._patient(alarm.patient)
                patient.lethal_ns = max(alarm.raised_ns, patient.lethal_ns or 0)

    def active(self, patient: str) -> tuple[Alarm, ...]:
        """The alarms of a patient that have not ended, oldest first."""
        known = self._patients.get(patient)
        return tuple(known.active.values()) if known else ()

    def step(self, seen: RhythmSeen, now_ns: int | None = None) -> list[Change]:
        """Take in one verdict and say what it changes, most often nothing.

        While a lethal rhythm lasts its alarms are given again every ``UPDATE_S`` of signal: those
        changes are updates (``alerts.technical.is_update``).

        Args:
            seen: the verdict.
            now_ns: UTC time, in nanoseconds since 1970; None where signal comes in its order, as
                of a recording.
        """
        patient = self._patient(seen.patient)
        device = patient.devices.get(seen.device)
        if device is None:
            device = patient.devices[seen.device] = _Device(seen)
            fresh = True
        else:
            fresh = seen.at_ns != device.last.at_ns
        kept = _is_older(seen, device.last.at_ns - round(_TOGETHER_S * S), now_ns)
        if not kept:
            if fresh:
                _follow_beats(device, seen)
            device.last = seen
        if seen.rhythm in LETHAL:
            if patient.lethal_ns is None or not _is_older(seen, patient.lethal_ns, now_ns):
                patient.lethal_ns = seen.at_ns
            return self._lethal(patient, seen)
        if kept or _is_older(seen, patient.lethal_ns, now_ns):
            return []
        changes = []
        if seen.rhythm is Rhythm.ORGANISED:
            changes += self._organised(patient, device)
        elif fresh:
            # Noise is taken for beats now and then: a heart that has come back is seen most of the
            # time, and a second in which it is not takes one of those back.
            device.organised_s = max(0, device.organised_s - 1)
        return changes + self._look_for_heart(patient, device)

    def beat(self, patient: str, at_ns: int) -> list[Change]:
        """Take in a beat that a device without a waveform has told of.

        Args:
            patient: whose heart.
            at_ns: UTC time of the beat, in nanoseconds since 1970.
        """
        known = self._patient(patient)
        apart_s = _BEAT_S if known.beat_ns is None else (at_ns - known.beat_ns) / S
        if not 0 <= apart_s < _BEAT_S:
            known.beats_from_ns = at_ns
        known.beat_ns = at_ns
        for device in known.devices.values():
            device.blind_s = 0
        if at_ns - known.beats_from_ns < SEEN_S * S:
            return []
        return _over(known, UNSEEN, at_ns, "beats are told of again")

    def _patient(self, patient: str) -> _Patient:
        return self._patients.setdefault(patient, _Patient())

    def _lethal(self, patient: _Patient, seen: RhythmSeen) -> list[Change]:
        """Raise the alarm of a lethal rhythm, or say that it lasts."""
        for device in patient.devices.values():
            device.organised_s = 0
        condition = seen.rhythm.value
        changes = [
            change
            for alarm in patient.lethal
            if (change := _update(patient, alarm, seen)) is not None
        ]
        # Fibrillation is often seen as tachycardia for some seconds: it is the same trouble.
        same = seen.rhythm is Rhythm.VT and Rhythm.VF in patient.active
        if condition not in patient.active and not same:
            alarm = self._raise(patient, condition, seen, min(seen.since_ns, seen.at_ns))
            patient.updated_ns[condition] = seen.at_ns
            changes.append(Change(alarm, seen.at_ns, State.ACTIVE, _why(patient, condition, seen)))
        return changes + _over(patient, UNSEEN, seen.at_ns, f"{_NAMES[seen.rhythm]} is seen")

    def _organised(self, patient: _Patient, device: _Device) -> list[Change]:
        """Count towards the end of lethal rhythms."""
        seen = device.last
        apart_s = (seen.at_ns - device.organised_ns) / S
        if device.organised_s and abs(apart_s) > ORGANISED_S:
            device.organised_s = 0
        if device.organised_s and apart_s <= 0:
            return []  # late, or twice: a second counts once
        device.organised_s += 1
        device.organised_ns = seen.at_ns
        if device.organised_s < ORGANISED_S:
            return []
        why = f"{ORGANISED_S} s of {_sight(seen)} in the signal of {seen.device}"
        return [
            change
            for alarm in patient.lethal
            for change in _over(patient, alarm.condition, seen.at_ns, why)
        ]

    def _look_for_heart(self, patient: _Patient, device: _Device) -> list[Change]:
        """Raise or end the alarm of a heart that cannot be seen."""
        seen = device.last
        if device.beats_s >= SEEN_S:
            why = f"beats can be trusted again in the signal of {seen.device}"
            return _over(patient, UNSEEN, seen.at_ns, why)
        # A lethal rhythm says more, and stays until a heart is seen.
        if device.blind_s < UNSEEN_S or patient.active or _sees_beats(patient, seen.at_ns):
            return []
        alarm = self._raise(patient, UNSEEN, seen, seen.at_ns - device.blind_s * S)
        why = (
            f"{UNSEEN}: no beat that can be trusted for {device.blind_s} s "
            f"in the signal of {seen.device}"
        )
        return [Change(alarm, seen.at_ns, State.ACTIVE, why)]

    def _raise(self, patient: _Patient, condition: str, seen: RhythmSeen, started_ns: int) -> Alarm:
        alarm = Alarm(
            id=self._new_id(),
            patient=seen.patient,
            condition=condition,
            priority=priority_of(condition),
            started_ns=started_ns,
            raised_ns=seen.at_ns,
        )
        patient.active[condition] = alarm
        return alarm


def _is_older(seen: RhythmSeen, at_ns: int | None, now_ns: int | None) -> bool:
    """Whether it is of before a time, which is not that of a clock that was set back since."""
    if at_ns is None or now_ns is None or at_ns - now_ns > _AHEAD_S * S:
        return False
    return seen.at_ns <= at_ns


def _follow_beats(device: _Device, seen: RhythmSeen) -> None:
    """Count the seconds with and without beats that can be trusted."""
    before = device.last
    beat_ns = seen.last_beat_ns
    ago_s = None if beat_ns is None else (seen.at_ns - beat_ns) / S
    if not 0 < seen.at_ns - before.at_ns < _BEAT_S * S:
        device.beats_s = 0  # not in a row
    device.beats_s = device.beats_s + 1 if ago_s is not None and ago_s < _BEAT_S else 0
    if seen.contact is False:
        device.blind_s = 0  # that is another alarm
    elif ago_s is not None and (before is seen or beat_ns != before.last_beat_ns):
        device.blind_s = max(0, int(ago_s))
    elif abs(seen.at_ns - before.at_ns) > _SILENCE_S * S:
        device.blind_s = 1
    else:
        device.blind_s += 1


def _sees_beats(patient: _Patient, at_ns: int) -> bool:
    """Whether any device has seen a beat about that time."""
    beats = [device.last.last_beat_ns for device in patient.devices.values()]
    return any(
        beat_ns is not None and -UNSEEN_S < (beat_ns - at_ns) / S < _LATE_S
        for beat_ns in (*beats, patient.beat_ns)
    )


def _update(patient: _Patient, alarm: Alarm, seen: RhythmSeen) -> Change | None:
    """The alarm once more, if it is time."""
    last_ns = patient.updated_ns.get(alarm.condition)
    if last_ns is not None and abs(seen.at_ns - last_ns) < UPDATE_S * S:
        return None
    if seen.at_ns == alarm.raised_ns:
        return None  # it would pass for the raising of it
    patient.updated_ns[alarm.condition] = seen.at_ns
    return Change(alarm, seen.at_ns, State.ACTIVE, _why(patient, alarm.condition, seen))


def _over(patient: _Patient, condition: str, at_ns: int, why: str) -> list[Change]:
    alarm = patient.active.pop(condition, None)
    patient.updated_ns.pop(condition, None)
    return [] if alarm is None else [end(alarm, at_ns, f"{condition}: {why}")]


def _why(patient: _Patient, condition: str, seen: RhythmSeen) -> str:
    """What the device sees, and what the others do at that time."""
    lasts_s = max(0, round((seen.at_ns - seen.since_ns) / S))
    line = f"{condition}: {_sight(seen)} for {lasts_s} s in the signal of {seen.device}"
    others = [
        f"{name} sees {_sight(other.last)}"
        if other.last.rhythm is not Rhythm.UNKNOWN
        else f"{name} cannot tell"
        for name, other in sorted(patient.devices.items())
        if name != seen.device and abs(other.last.at_ns - seen.at_ns) <= _TOGETHER_S * S
    ]
    return "; ".join((line, *others))


def _sight(seen: RhythmSeen) -> str:
    """A rhythm in words, e.g. ``ventricular tachycardia at 182 per minute``."""
    rate = "" if seen.rate is None else f" at {seen.rate:.0f} per minute"
    return f"{_NAMES[seen.rhythm]}{rate}"
