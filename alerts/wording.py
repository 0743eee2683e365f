"""What people are told, in words that are understood at three in the morning.

Who, what, since when, how sure, the heart rate, and what to do. It gives no medical advice beyond
looking at the person and calling for help. The times are local.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, tzinfo
from typing import NamedTuple

from alerts.conditions import Alarm, Priority
from alerts.gateway import GATEWAY
from alerts.notice import Notice
from alerts.plain import HEART, LETHAL_LINES, LOOK, LOOK_NOW, SURE, Plain, one_line, plain_of
from alerts.records import HAPPENED, Kind
from alerts.rhythm import is_lethal
from alerts.signals import LETHAL_ANSWER_S

TITLE_LENGTH = 60
"""No title is longer, in characters: more is cut off on a locked phone."""

# Of a title, so much at least is left to who it is about.
_WHO_LENGTH = 12

_HOUSE = "Lead One"

# A clock of a device may be ahead by a little; what lies further ahead is of a clock that was set.
_AHEAD_NS = 60 * 1_000_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Watch:
    """What a patient's day (or week) was like, for the message that all is well.

    Attributes:
        patient: the id.
        patient_name: as people call the patient; None for the id.
        from_ns: UTC start, in nanoseconds since 1970.
        to_ns: UTC end.
        good_s: for how long the signal could be read, in seconds.
        lowest_rate: lowest heart rate, per minute, None where unknown.
        highest_rate: highest heart rate, per minute, None where unknown.
        alarms: how many there were.
    """

    patient: str
    patient_name: str | None = None
    from_ns: int
    to_ns: int
    good_s: float
    lowest_rate: float | None = None
    highest_rate: float | None = None
    alarms: int = 0


class Text(NamedTuple):
    """What somebody reads: one line, then some more."""

    title: str
    body: str


_LATCHED = "It is over. But please look, and acknowledge the alarm."
_ANSWER = "Then acknowledge the alarm, so that nobody else is called."
# Whoever is alone with a cardiac arrest needs the others to be called.
_LETHAL_ANSWER = (
    "Once help is on the way, or nothing is wrong, acknowledge the alarm. While the rhythm lasts, "
    f"it comes on again after {LETHAL_ANSWER_S / 60:g} minutes."
)
_UNSEEN_NOW = "No signal can be read now: nobody can see whether it goes on."


def text_of(
    notice: Notice, names: Mapping[str, str] | None = None, zone: tzinfo | None = None
) -> Text:
    """Put a notice into words.

    Args:
        notice: what is to be told.
        names: plain names by class abbreviation; without one, the abbreviation stands for itself.
        zone: of the times; by default that of the machine.

    Returns:
        A title of at most ``TITLE_LENGTH`` characters, and a body of a few lines.
    """
    alarm = notice.alarm
    plain, subject = plain_of(alarm, names or {})
    what = plain.what.format(subject)
    who = _who(alarm.patient, notice.patient_name)
    over = alarm.ended_ns is not None
    # It is over, but nobody has heard that it happened.
    news = over and alarm.priority is Priority.HIGH and notice.kind in HAPPENED
    tail = f" (over since {_local(alarm.ended_ns, zone):%H:%M})" if news and alarm.ended_ns else ""
    title = _title(_prefix(notice, over=over and not news), who, what, tail)
    if news:
        lines = [*_over_lines(notice, who, what, zone), _to_do(notice, plain)]
    elif over:
        lines = _over_lines(notice, who, what, zone)
    elif is_lethal(alarm.condition):
        # What to do comes first: of the rest nothing has to be read before.
        lines = [*_head_lines(notice, who, what), _to_do(notice, plain), *_note_lines(notice)]
        lines += _state_lines(notice, zone)
    else:
        lines = [*_head_lines(notice, who, what), *_state_lines(notice, zone)]
        lines.append(_to_do(notice, plain))
    if over and is_lethal(alarm.condition):
        lines += _note_lines(notice)
    if reason := one_line(notice.reason):
        lines.append(f"Why: {reason}")
    return Text(title, "\n".join(lines))


def what_of(alarm: Alarm, names: Mapping[str, str] | None = None) -> str:
    """What is the matter, e.g. ``looks like atrial fibrillation``; ``names`` as ``text_of``."""
    plain, subject = plain_of(alarm, names or {})
    return plain.what.format(subject)


def trial(channel: str, now_ns: int, zone: tzinfo | None = None) -> Text:
    """A test message, which nobody can take for an alarm.

    Args:
        channel: the name of the channel that it is sent by.
        now_ns: UTC time, in nanoseconds since 1970.
        zone: of the time; by default that of the machine.
    """
    body = (
        f"Nothing has happened. Alarms will reach you by {one_line(channel)}, as this did.\n"
        f"Sent {_clock(now_ns, now_ns, zone)}."
    )
    return Text("Test: this is not an alarm", body)


def still_watching(watches: Sequence[Watch], now_ns: int, zone: tzinfo | None = None) -> Text:
    """The regular message that says that somebody is still there.

    Args:
        watches: one for each patient.
        now_ns: UTC time, in nanoseconds since 1970.
        zone: of the times; by default that of the machine.
    """
    blind = [watch for watch in watches if watch.good_s <= 0]
    if not watches or len(blind) == len(watches):
        title = f"{_HOUSE} is on, but has seen no heart"
    else:
        title = f"{_HOUSE} is still watching"
    lines = [_watch_line(watch, now_ns, zone) for watch in watches] or ["There is no patient."]
    return Text(title, "\n".join(lines))


def _watch_line(watch: Watch, now_ns: int, zone: tzinfo | None) -> str:
    who = _who(watch.patient, watch.patient_name)
    since = f"since {_clock(watch.from_ns, now_ns, zone)}"
    alarms = "no alarm" if watch.alarms == 0 else _several(watch.alarms, "alarm")
    if watch.good_s <= 0:
        return f"{who}: nothing to be read {since}: look at the strap. {alarms.capitalize()}."
    whole_s = max((watch.to_ns - watch.from_ns) / 1e9, watch.good_s)
    share = min(int(100 * watch.good_s / whole_s), 100)
    parts = [f"good signal for {lasting(watch.good_s)} ({share} %) {since}"]
    if watch.lowest_rate is not None and watch.highest_rate is not None:
        parts.append(f"heart rate {watch.lowest_rate:.0f} to {watch.highest_rate:.0f}")
    return f"{who}: {', '.join([*parts, alarms])}."


def lasting(seconds: float) -> str:
    """A length of time as people say it, e.g. ``40 s``, ``12 min``, ``1 h 5 min``, ``3 days``."""
    whole = int(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes = whole // 60
    if minutes < 60:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours} h {minutes} min" if minutes else f"{hours} h"
    return f"{hours // 24} days"


def _prefix(notice: Notice, *, over: bool) -> str:
    """What the title begins with: why somebody is told."""
    if over:
        return "Over: " if notice.kind is Kind.ENDED else "Over, please look: "
    urgent = "URGENT: " if notice.alarm.priority is Priority.HIGH else ""
    return {
        Kind.RAISED: urgent,
        Kind.AGAIN: f"{urgent}{_ordinal(notice.count)} time: ",
        Kind.REMINDER: f"{urgent}Still: ",
        Kind.ESCALATED: f"{urgent}Nobody answers: ",
        Kind.WORSENED: f"{urgent}Worse: ",
        Kind.SIGNAL_LOST: f"{urgent}Signal lost: ",
        Kind.SNOOZE_OVER: f"{urgent}Still, after the snooze: ",
        Kind.PAUSE_OVER: f"{urgent}Still, after the pause: ",
        Kind.GOES_ON: f"{urgent}It goes on: ",
        Kind.LATCHED: "Over, please look: ",
        Kind.ENDED: "Over: ",
    }[notice.kind]


def _head_lines(notice: Notice, who: str, what: str) -> list[str]:
    """Say who and what, and why it is told once more."""
    alarm = notice.alarm
    lines = []
    if notice.kind is Kind.ESCALATED:
        since_ns = alarm.raised_ns if notice.unanswered_ns is None else notice.unanswered_ns
        lines.append(f"Nobody has answered for {_for(since_ns, notice.now_ns)}.")
    if notice.kind is Kind.WORSENED:
        lines.append("It has become worse.")
    if notice.kind is Kind.GOES_ON:
        lines.append("Somebody has answered, and it still goes on.")
    return [*lines, f"{who}: {what}."]


def _note_lines(notice: Notice) -> list[str]:
    note = one_line(notice.emergency_note or "")
    return [f"Emergency note: {note}"] if note else []


def _state_lines(notice: Notice, zone: tzinfo | None) -> list[str]:
    """Say since when, and what is seen of the heart."""
    alarm, kind = notice.alarm, notice.alarm.condition.partition(":")[0]
    lines = [_since_line(notice, zone)]
    if notice.count > 1:
        lines.append(_count_line(notice, zone))
    if kind not in HEART:
        return lines
    lines += _late_lines(notice, zone)
    if is_lethal(alarm.condition) and notice.seen_ns is not None:
        last = _clock(notice.seen_ns, notice.now_ns, zone, seconds=True)
        lines.append(f"Last seen at {last}, {_for(notice.seen_ns, notice.now_ns)} ago.")
    if notice.signal_lost or notice.kind is Kind.SIGNAL_LOST:
        lines.append(f"{_UNSEEN_NOW} The alarm stays.")
    elif notice.gainsaid:
        lines += [_gainsaid_line(device, rate) for device, rate in notice.gainsaid]
    else:
        lines += _rate_lines(notice, zone)
    if kind in SURE:
        lines.append(f"How sure: {SURE[kind]}.")
    elif notice.probability is not None:
        ago = _ago(notice.probability_ns, notice.now_ns)
        lines.append(f"How sure: {_percent(notice.probability)}.{ago}")
    return lines


def _since_line(notice: Notice, zone: tzinfo | None) -> str:
    """Say since when; by a clock that was set back that has not come yet."""
    started_ns, now_ns = notice.alarm.started_ns, notice.now_ns
    if started_ns - now_ns > _AHEAD_NS:
        return "Since before the clock was set back."
    since = f"Since {_clock(started_ns, now_ns, zone)}"
    # Of late signal nobody knows whether it lasted until now.
    lasts = "" if notice.arrived_ns is not None else f", for {_for(started_ns, now_ns)}"
    return f"{since}{lasts}."


def _gainsaid_line(device: str, rate: float | None) -> str:
    beats = "beats" if rate is None else f"beats at {rate:.0f} per minute"
    return f"But {one_line(device)} sees a heart that {beats}: look before you believe either."


def _rate_lines(notice: Notice, zone: tzinfo | None) -> list[str]:
    """The heart rate; where no beat is seen, since when, and what it was before."""
    rate = None if notice.heart_rate is None else f"{notice.heart_rate:.0f} per minute."
    if not notice.no_beat:
        ago = _ago(notice.heart_rate_ns, notice.now_ns)
        return [] if rate is None else [f"Heart rate: {rate}{ago}"]
    if notice.beat_ns is None:
        return ["No beat is seen."]
    since = _clock(notice.beat_ns, notice.now_ns, zone, seconds=True)
    return [f"No beat seen since {since}." + ("" if rate is None else f" Before that: {rate}")]


def _late_lines(notice: Notice, zone: tzinfo | None) -> list[str]:
    """When the signal was of, if it came late: nobody knows how it is now."""
    if notice.arrived_ns is None:
        return []
    raised_ns = notice.alarm.raised_ns
    late = _for(raised_ns, notice.arrived_ns)
    return [f"Seen in signal of {_clock(raised_ns, notice.now_ns, zone)} that arrived {late} late."]


def _ago(at_ns: int | None, now_ns: int) -> str:
    return "" if at_ns is None else f" That was {_for(at_ns, now_ns)} ago."


def _over_lines(notice: Notice, who: str, what: str, zone: tzinfo | None) -> list[str]:
    alarm = notice.alarm
    start = _clock(alarm.started_ns, notice.now_ns, zone)
    ended_ns = alarm.ended_ns or alarm.raised_ns
    lasted = f"From {start} to {_ended(notice, zone)}, {_for(alarm.started_ns, ended_ns)}."
    if ended_ns - notice.now_ns > _AHEAD_NS:
        lasted = "That was before the clock was set back."
    lines = [f"{who}: it is over: {what}.", lasted]
    if notice.count > 1:
        lines.append(_count_line(notice, zone))
    lines += _late_lines(notice, zone)
    if notice.kind is not Kind.ENDED:
        lines.append(_LATCHED)
    return lines


def _ended(notice: Notice, zone: tzinfo | None) -> str:
    alarm = notice.alarm
    return _clock(alarm.ended_ns or alarm.raised_ns, notice.now_ns, zone)


def _count_line(notice: Notice, zone: tzinfo | None) -> str:
    line = f"This is the {_ordinal(notice.count)} time"
    if notice.first_ns is not None:
        line += f" since {_clock(notice.first_ns, notice.now_ns, zone)}"
    return f"{line}."


def _to_do(notice: Notice, plain: Plain) -> str:
    if plain.do == LETHAL_LINES:
        # Each on a line of its own, after the one that says so.
        do = LETHAL_LINES.format(number=notice.emergency_number)
        return f"What to do:\n{do}\n{_LETHAL_ANSWER}"
    urgent = notice.alarm.priority is Priority.HIGH and plain.do == LOOK
    do = LOOK_NOW if urgent else plain.do
    return f"What to do: {do} {_ANSWER}" if plain.do == LOOK else f"What to do: {do}"


def _who(patient: str, name: str | None) -> str:
    if patient == GATEWAY:
        return "Gateway"
    return one_line(name or "") or one_line(patient)


def _title(prefix: str, who: str, what: str, tail: str = "") -> str:
    """Fit into the length: what it is comes first, but who it is about is never lost."""
    room = TITLE_LENGTH - len(prefix) - len(": ") - len(tail)
    who = _cut(who, max(room - len(what), _WHO_LENGTH))
    return f"{prefix}{who}: {_cut(what, room - len(who))}{tail}"


def _cut(text: str, length: int) -> str:
    return text if len(text) <= length else f"{text[: length - 1].rstrip()}…"


def _percent(probability: float) -> str:
    # Nothing is certain, and it would not be believed again.
    return f"{min(max(round(100 * probability), 1), 99)} %"


def _for(since_ns: int, until_ns: int) -> str:
    # A clock that was set back makes no negative time.
    return lasting(max(until_ns - since_ns, 0) / 1e9)


def _several(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def _ordinal(number: int) -> str:
    teens = 10 <= number % 100 <= 20
    return f"{number}{'th' if teens else {1: 'st', 2: 'nd', 3: 'rd'}.get(number % 10, 'th')}"


def _clock(at_ns: int, now_ns: int, zone: tzinfo | None, *, seconds: bool = False) -> str:
    """A time as it is read on the wall, with the day if that is another one than today."""
    at, now = _local(at_ns, zone), _local(now_ns, zone)
    time = f"{at:%H:%M:%S}" if seconds else f"{at:%H:%M}"
    return time if at.date() == now.date() else f"{at:%a} {at.day} {at:%b} {time}"


def _local(ns: int, zone: tzinfo | None) -> datetime:
    return datetime.fromtimestamp(ns // 1_000_000_000, tz=UTC).astimezone(zone)
