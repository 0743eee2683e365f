"""From a notification to the message that somebody reads: words, numbers and the strip."""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import structlog

from alerts.channels.channel import JsonValue, Message
from alerts.channels.threads import Threads
from alerts.conditions import Alarm, Change, State
from alerts.lethal import is_of_rhythm
from alerts.notice import Notice
from alerts.records import Kind, Notification, Signal
from alerts.rhythm import LETHAL, Rhythm, RhythmSeen, is_lethal
from alerts.technical import is_update
from alerts.wording import Text, text_of
from ingest.chunk import Chunk, Stream
from monitor.pulse import NOW_S, Pulse, Pulses
from monitor.results import WindowResult
from monitor.storage.history import History
from monitor.strips import STRIP_NS, Recent, Strip, read_strip

_log = structlog.get_logger()

# An older heart rate is not the present one.
_RECENT_NS = 60_000_000_000

# A strip that takes longer is not worth making somebody wait for an alarm.
_STRIP_S = 3.0

# Signal that comes later than this tells of what was.
_LATE_NS = 60_000_000_000

# A pause is seen while it lasts; the beat before it is so long ago, and no other is known yet.
_PAUSE_NS = 1_900_000_000


@dataclass(slots=True)
class _Known:
    """What is known of an alarm, beside its signal.

    Attributes:
        reason: of its last change.
        seen_ns: UTC time of that change, of a lethal rhythm when it was last seen.
        stream: whose window decided it; None for technical ones.
        window_ns: UTC start of that window.
        arrived_ns: UTC time at which the signal came that raised it, if that was late.
        strip: the signal that raised it, of an alarm that was raised before it was stored.
    """

    reason: str = ""
    seen_ns: int | None = None
    stream: Stream | None = None
    window_ns: int = 0
    arrived_ns: int | None = None
    strip: Strip | None = None


@dataclass(frozen=True, slots=True)
class Help:
    """What messages of lethal rhythms say of help.

    Attributes:
        number: whom to call.
        notes: what whoever comes must know, by patient id.
    """

    number: str = "112"
    notes: Mapping[str, str] = field(default_factory=dict, repr=False)


class Composer:
    """Puts notifications into words.

    Args:
        history: reads what was stored; None: no strips.
        patients: names for people by patient id, None where there is none.
        help_for: whom to call, and what whoever comes must know.
        class_names: plain names by class abbreviation.
        signal_of: the signal of an alarm; None for one that is not known any more.
        now_ns: UTC time, in nanoseconds.
    """

    def __init__(
        self,
        history: History | None,
        patients: Mapping[str, str | None],
        help_for: "Help",
        class_names: Mapping[str, str],
        signal_of: Callable[[str], Signal | None],
        now_ns: Callable[[], int],
    ) -> None:
        self._history = history
        self._patients = patients
        self._help = help_for
        self._class_names = class_names
        self._signal_of = signal_of
        self._now_ns = now_ns
        self._known: dict[str, _Known] = {}
        self._good: dict[str, WindowResult] = {}
        self._pulses = Pulses()
        self._recent = Recent()
        # Of each patient, by device.
        self._seen: dict[str, dict[str, RhythmSeen]] = {}
        # Whose verdict came last, by patient.
        self._heard: dict[str, Stream] = {}
        # Whose signal showed the last pause, by patient.
        self._paused: dict[str, Stream] = {}
        # Not the loop's own threads, which everything else needs: reads of a database may hang. Nor
        # one lot for both: what is drawn from memory must not wait for a database.
        self._drawing = Threads("strips", limit=2)
        self._reading = Threads("strips stored", limit=2)

    async def warm_up(self) -> None:
        """Load what drawing a strip takes: the first alarm must not wait a second for that."""
        try:
            await asyncio.to_thread(_draw_nothing)
        except Exception:  # noqa: BLE001 - alarms go without pictures then
            _log.exception("no strips can be drawn")

    def restore(self, changes: Mapping[str, str]) -> None:
        """Take up the last reasons of alarms, by id."""
        for alarm_id, reason in changes.items():
            self._known[alarm_id] = _Known(reason)

    def result(self, result: WindowResult) -> None:
        """Keep the last good window of each patient: it has the heart rate and the strip."""
        self._pulses.result(result)
        if result.grade.good:
            self._good[result.stream.patient] = result

    def rhythm(self, seen: RhythmSeen) -> None:
        """Keep the last verdicts about each patient: what is seen of the heart, by whom."""
        self._heard[seen.patient] = Stream(seen.patient, seen.device)
        seen_by = self._seen.setdefault(seen.patient, {})
        before = seen_by.get(seen.device)
        if (
            before is not None
            and before.at_ns - seen.at_ns > NOW_S * 1e9
            and before.at_ns <= self._now_ns() + _LATE_NS
        ):
            return  # it was kept by the device, and tells nothing of now
        self._pulses.rhythm(seen)
        seen_by[seen.device] = seen

    def paused(self, stream: Stream) -> None:
        """Keep whose signal shows a pause, before ``change``."""
        self._paused[stream.patient] = stream

    def samples(self, chunk: Chunk) -> None:
        """Keep the last seconds of each stream, for strips that must not wait."""
        self._recent.add(chunk)

    def change(self, change: Change) -> None:
        """Keep why an alarm began or ended, and what it was seen in."""
        known = self._known.setdefault(change.alarm.id, _Known())
        known.reason, known.seen_ns = change.reason, change.at_ns
        if change.state is State.ENDED or is_update(change):
            return
        now_ns = self._now_ns()
        known.arrived_ns = now_ns if now_ns - change.at_ns > _LATE_NS else None
        if is_of_rhythm(change.alarm):
            stream = self._heard.get(change.alarm.patient)
            if stream is not None:
                known.strip = self._recent.strip(stream, change.at_ns)
            return
        paused = self._paused.pop(change.alarm.patient, None)
        if paused is not None and change.alarm.condition == "pause":
            # It is told before it is stored.
            known.strip = self._recent.strip(paused, change.at_ns)
        last = self._good.get(change.alarm.patient)
        if last is not None:
            # What decided it is the end of what is stored by now.
            known.stream, known.window_ns = last.stream, change.at_ns - STRIP_NS

    def forget(self, alarm_id: str) -> None:
        """Nothing will be told of this alarm any more."""
        self._known.pop(alarm_id, None)

    async def compose(self, notification: Notification) -> Message | None:
        """The message of a notification; None if its alarm is not known any more."""
        signal = self._signal_of(notification.alarm_id)
        if signal is None:
            return None
        alarm, known = signal.alarm, self._known.get(notification.alarm_id, _Known())
        now_ns = self._now_ns()
        last = self._good.get(alarm.patient)
        if last is not None and now_ns - last.end_ns > _RECENT_NS:
            last = None
        pulse = self._pulse(alarm, now_ns)
        no_beat = pulse.beating is False
        # With nothing seen now, a rate of before a lethal rhythm would pass for that of the rhythm.
        gone = is_lethal(alarm.condition) and pulse.beating is None
        if not no_beat and (
            now_ns - pulse.rate_ns > _RECENT_NS or (gone and pulse.rate_ns < alarm.raised_ns)
        ):
            pulse = replace(pulse, rate=None)
        seen_ns = alarm.raised_ns if known.seen_ns is None else known.seen_ns
        text = self._text(
            Notice(
                kind=notification.kind,
                alarm=alarm,
                now_ns=now_ns,
                patient_name=self._patients.get(alarm.patient),
                reason=known.reason,
                heart_rate=pulse.rate,
                heart_rate_ns=_unless_now(pulse.rate_ns, now_ns),
                no_beat=no_beat,
                beat_ns=pulse.beat_ns,
                seen_ns=_unless_now(seen_ns, now_ns),
                gainsaid=self._gainsaid(alarm, now_ns),
                probability=_probability(alarm, last),
                probability_ns=None if last is None else _unless_now(last.end_ns, now_ns),
                arrived_ns=known.arrived_ns,
                emergency_number=self._help.number,
                emergency_note=self._help.notes.get(alarm.patient),
                signal_lost=signal.signal_lost,
                count=signal.bout_count,
                first_ns=signal.bout_started_ns if signal.bout_count > 1 else None,
                unanswered_ns=alarm.raised_ns,
            )
        )
        return Message(
            key=notification.key,
            thread=notification.thread,
            priority=alarm.priority,
            title=text.title,
            body=text.body,
            data=_data(notification, signal, known.reason),
            picture=await self._strip(notification, alarm, known),
        )

    def _pulse(self, alarm: Alarm, now_ns: int) -> Pulse:
        pulse = self._pulses.at(alarm.patient, now_ns)
        beat_ns = alarm.started_ns if pulse.beat_ns is None else pulse.beat_ns
        if (
            alarm.condition == "pause"
            and alarm.ended_ns is None
            and alarm.raised_ns - beat_ns > _PAUSE_NS
        ):
            # It begins with the last beat, of which no window has told yet.
            return replace(pulse, beating=False, beat_ns=max(beat_ns, alarm.started_ns))
        return pulse

    def _gainsaid(self, alarm: Alarm, now_ns: int) -> tuple[tuple[str, float | None], ...]:
        """The devices that see a heart beat, and its rate, while another sees a lethal rhythm."""
        of_now = {
            device: seen
            for device, seen in self._seen.get(alarm.patient, {}).items()
            if _unless_now(seen.at_ns, now_ns) is None
        }
        if not any(seen.rhythm in LETHAL for seen in of_now.values()):
            return ()
        return tuple(
            (device, seen.rate)
            for device, seen in sorted(of_now.items())
            if seen.rhythm is Rhythm.ORGANISED
        )

    def _text(self, notice: Notice) -> Text:
        try:
            return text_of(notice, self._class_names)
        except Exception:  # noqa: BLE001 - somebody must be told, if not well
            _log.exception("no words", alarm=notice.alarm.id)
            return Text(f"Alarm: {notice.alarm.patient}: {notice.alarm.condition}", notice.reason)

    async def _strip(self, notification: Notification, alarm: Alarm, known: _Known) -> bytes | None:
        name = self._patients.get(alarm.patient) or alarm.patient
        try:
            strip = known.strip
            if is_of_rhythm(alarm) and notification.kind is Kind.REMINDER:
                return None
            if strip is not None:
                async with asyncio.timeout(_STRIP_S):
                    return await self._drawing.run(lambda: _drawn(strip, name))
            history, stream = self._history, known.stream
            if history is None or stream is None:
                return None
            if self._reading.all_hang:
                # Another one would hang too, and hold up the alarm for nothing.
                _log.warning(
                    "strip_not_read", alarm=alarm.id, reason="the database gives no answer"
                )
                return None
            async with asyncio.timeout(_STRIP_S):
                return await self._reading.run(
                    lambda: draw_strip(history, stream, known.window_ns, name)
                )
        except Exception:  # noqa: BLE001 - an alarm without a picture is better than none
            _log.exception("no strip", alarm=alarm.id)
            return None


def _draw_nothing() -> None:
    from alerts.strip import strip_png  # noqa: PLC0415 - only whoever has alarms needs Pillow

    strip_png(np.zeros(1300), 130.0, (), ("-", "-"))


def draw_strip(history: History, stream: Stream, start_ns: int, name: str) -> bytes | None:
    """Ten seconds of a stream as a picture; None if nothing of them is stored.

    Raises:
        DatabaseError: the database does not answer.
    """
    found = read_strip(history, stream, start_ns, start_ns + STRIP_NS)
    return None if found is None else _drawn(found, name)


def _drawn(strip: Strip, name: str) -> bytes:
    from alerts.strip import strip_png  # noqa: PLC0415 - only whoever has alarms needs Pillow

    return strip_png(strip.microvolts, strip.rate, strip.r_peaks_s, strip.title(name))


def _unless_now(at_ns: int, now_ns: int) -> int | None:
    """A time, unless what is of it is as good as of now."""
    return at_ns if now_ns - at_ns > NOW_S * 1e9 else None


def _probability(alarm: Alarm, last: WindowResult | None) -> float | None:
    kind, _, name = alarm.condition.partition(":")
    if last is None or kind not in ("class", "rr"):
        return None
    return last.by_class.get(name if kind == "class" else alarm.condition)


def _data(notification: Notification, signal: Signal, reason: str) -> dict[str, JsonValue]:
    alarm = signal.alarm
    return {
        "kind": notification.kind.value,
        "alarm": alarm.id,
        "patient": alarm.patient,
        "condition": alarm.condition,
        "priority": alarm.priority.value,
        "presence": signal.presence.value,
        "started_ns": alarm.started_ns,
        "raised_ns": alarm.raised_ns,
        "ended_ns": alarm.ended_ns,
        "reason": reason,
        "count": signal.bout_count,
    }
