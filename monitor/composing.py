"""From a notification to the message that somebody reads: words, numbers and the strip."""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import structlog

from alerts.channels.channel import JsonValue, Message
from alerts.conditions import Alarm, Change, State
from alerts.records import Notification, Signal
from alerts.wording import Notice, Text, text_of
from ingest.chunk import Stream
from monitor.results import WindowResult
from monitor.storage.history import History
from monitor.strips import read_strip

_log = structlog.get_logger()

_STRIP_NS = 10_000_000_000

# An older heart rate is not the present one.
_RECENT_NS = 60_000_000_000

# A strip that takes longer is not worth making somebody wait for an alarm.
_STRIP_S = 3.0


@dataclass(slots=True)
class _Known:
    """What is known of an alarm, beside its signal.

    Attributes:
        reason: of its last change.
        stream: whose window decided it; None for technical ones.
        window_ns: UTC start of that window.
    """

    reason: str = ""
    stream: Stream | None = None
    window_ns: int = 0


class Composer:
    """Puts notifications into words.

    Args:
        history: reads what was stored; None: no strips.
        patients: names for people by patient id, None where there is none.
        class_names: plain names by class abbreviation.
        signal_of: the signal of an alarm; None for one that is not known any more.
        now_ns: UTC time, in nanoseconds.
    """

    def __init__(
        self,
        history: History | None,
        patients: Mapping[str, str | None],
        class_names: Mapping[str, str],
        signal_of: Callable[[str], Signal | None],
        now_ns: Callable[[], int],
    ) -> None:
        self._history = history
        self._patients = patients
        self._class_names = class_names
        self._signal_of = signal_of
        self._now_ns = now_ns
        self._known: dict[str, _Known] = {}
        self._good: dict[str, WindowResult] = {}

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
        if result.grade.good:
            self._good[result.stream.patient] = result

    def change(self, change: Change) -> None:
        """Keep why an alarm began or ended, and what it was seen in."""
        known = self._known.setdefault(change.alarm.id, _Known())
        known.reason = change.reason
        last = self._good.get(change.alarm.patient)
        if last is not None and change.state is State.ACTIVE:
            # What decided it is the end of what is stored by now.
            known.stream, known.window_ns = last.stream, change.at_ns - _STRIP_NS

    def forget(self, alarm_id: str) -> None:
        """Nothing will be told of this alarm any more."""
        self._known.pop(alarm_id, None)

    async def compose(self, notification: Notification) -> Message | None:
        """The message of a notification; None if its alarm is not known any more."""
        signal = self._signal_of(notification.alarm_id)
        if signal is None:
            return None
        alarm, known = signal.alarm, self._known.get(notification.alarm_id, _Known())
        last = self._good.get(alarm.patient)
        if last is not None and self._now_ns() - last.end_ns > _RECENT_NS:
            last = None
        text = self._text(
            Notice(
                kind=notification.kind,
                alarm=alarm,
                now_ns=self._now_ns(),
                patient_name=self._patients.get(alarm.patient),
                reason=known.reason,
                heart_rate=None if last is None else last.heart_rate,
                probability=_probability(alarm, last),
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
            picture=await self._strip(alarm, known),
        )

    def _text(self, notice: Notice) -> Text:
        try:
            return text_of(notice, self._class_names)
        except Exception:  # noqa: BLE001 - somebody must be told, if not well
            _log.exception("no words", alarm=notice.alarm.id)
            return Text(f"Alarm: {notice.alarm.patient}: {notice.alarm.condition}", notice.reason)

    async def _strip(self, alarm: Alarm, known: _Known) -> bytes | None:
        if self._history is None or known.stream is None:
            return None
        name = self._patients.get(alarm.patient) or alarm.patient
        try:
            async with asyncio.timeout(_STRIP_S):
                return await asyncio.to_thread(
                    draw_strip, self._history, known.stream, known.window_ns, name
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
    from alerts.strip import strip_png  # noqa: PLC0415 - only whoever has alarms needs Pillow

    found = read_strip(history, stream, start_ns, start_ns + _STRIP_NS)
    if found is None:
        return None
    return strip_png(found.microvolts, found.rate, found.r_peaks_s, found.title(name))


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
