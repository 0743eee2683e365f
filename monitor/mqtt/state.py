"""What is said of a patient over MQTT, as JSON objects."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from alerts.conditions import Priority
from alerts.rhythm import LETHAL, RhythmSeen
from ingest.chunk import Stream
from monitor.board import likeliest_rhythm
from monitor.quality import Reason
from monitor.results import WindowResult
from monitor.rhythms import NAMES, rate_of, sees_beats

SILENT_S: Final = 90.0
"""A device without a window for so long says nothing of now; windows begin a minute apart at most.
"""

UNHEARD_S: Final = 10.0
"""A verdict, of which there is one a second, says nothing of now after so long."""

# A window that took this long to come is history. Clocks of devices are off by less, as a rule.
_LATE_NS = 300 * 10**9

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_PRIORITIES = (Priority.HIGH, Priority.MEDIUM, Priority.LOW)

Json = dict[str, Any]
"""A JSON object."""


@dataclass(frozen=True, slots=True)
class AlarmNotice:
    """An alarm that is on.

    Attributes:
        id: of the alarm.
        condition: what is true, as of ``alerts.conditions.Alarm``.
        priority: how soon somebody must act.
        since_ns: UTC start, in nanoseconds since 1970.
        text: one line for people.
        acknowledged_by: who has seen to it; None while nobody has.
        acknowledged_ns: UTC time of that; None while nobody has.
    """

    id: str
    condition: str
    priority: Priority
    since_ns: int
    text: str
    acknowledged_by: str | None = None
    acknowledged_ns: int | None = None


@dataclass(slots=True)
class _Device:
    """What is known of one device of a patient.

    Attributes:
        window: the newest, None before the first.
        window_s: when it came, on the monotonic clock.
        seen_s: when any window came, an old one too.
        connected: as told; None where nobody tells.
        contact: as told, likewise.
        battery: percent; None where unknown.
        verdict: the newest of the watch for lethal rhythms; None before the first.
        verdict_s: when it came, on the monotonic clock.
    """

    window: WindowResult | None = None
    window_s: float = -math.inf
    seen_s: float = -math.inf
    connected: bool | None = None
    contact: bool | None = None
    battery: int | None = None
    verdict: RhythmSeen | None = None
    verdict_s: float = -math.inf

    def current(self, now_s: float) -> WindowResult | None:
        """The newest window, if it is of now."""
        if self.connected is False or now_s - self.window_s > SILENT_S:
            return None
        return self.window

    def rhythm(self, now_s: float) -> RhythmSeen | None:
        """The newest verdict, if it is of now."""
        if self.connected is False or now_s - self.verdict_s > UNHEARD_S:
            return None
        return self.verdict

    def is_connected(self, now_s: float) -> bool:
        """As told, or else by its windows."""
        return now_s - self.seen_s <= SILENT_S if self.connected is None else self.connected

    def touches(self, current: WindowResult | None) -> bool | None:
        """Whether the electrodes touch the skin: as told, or else by the newest window."""
        if self.contact is not None or current is None:
            return self.contact
        if current.grade.good:
            return True
        return False if Reason.CONTACT in current.grade.reasons else None


@dataclass(slots=True)
class PatientState:
    """Follows one patient; where there are several devices, one of them is shown.

    That one stays until it is silent, disconnected or not to be read while another is good: two
    devices at once must not make every value jump to and fro.

    Attributes:
        class_names: names for people, by class abbreviation.
        shown: the device that is shown; None before the first is heard of.
    """

    class_names: Mapping[str, str]
    shown: str | None = None
    _devices: dict[str, _Device] = field(default_factory=dict)

    def result(self, result: WindowResult, *, now_ns: int, now_s: float) -> None:
        """Take in a window.

        Args:
            result: the window.
            now_ns: UTC time, in nanoseconds since 1970.
            now_s: the monotonic clock, in seconds.
        """
        name = result.stream.device
        device = self._devices.setdefault(name, _Device())
        device.seen_s = now_s
        self.shown = self.shown or name
        if now_ns - result.end_ns > _LATE_NS:
            return
        before = device.current(now_s)
        if before is not None and result.end_ns < before.end_ns:
            return
        device.window, device.window_s = result, now_s
        of_now = self._devices[self.shown].current(now_s)
        if of_now is None or (result.grade.good and not of_now.grade.good):
            self.shown = name

    def rhythm(self, seen: RhythmSeen, *, now_ns: int, now_s: float) -> bool:
        """Take in a verdict; the clocks are as for ``result``.

        Returns:
            Whether it says something else than the one before.
        """
        device = self._devices.setdefault(seen.device, _Device())
        self.shown = self.shown or seen.device
        before = device.rhythm(now_s)
        if now_ns - seen.at_ns > _LATE_NS or (before is not None and seen.at_ns < before.at_ns):
            return False
        device.verdict, device.verdict_s = seen, now_s
        shown = self._devices[self.shown].rhythm(now_s)
        # Of what may kill whoever asks must hear, whichever device it is that sees it.
        if seen.rhythm in LETHAL and (shown is None or shown.rhythm not in LETHAL):
            self.shown = seen.device
        return before is None or _told(seen) != _told(before)

    def device(
        self, stream: Stream, connected: bool | None, battery: int | None, contact: bool | None
    ) -> None:
        """Take in what a device says of itself; None is no news."""
        device = self._devices.setdefault(stream.device, _Device())
        device.connected = device.connected if connected is None else connected
        device.battery = device.battery if battery is None else battery
        device.contact = device.contact if contact is None else contact
        self.shown = self.shown or stream.device

    def as_json(self, *, now_ns: int, now_s: float) -> Json:
        """The payload of ``leadone/v1/{patient}/state``; the clocks are as for ``result``."""
        device = self._devices.get(self.shown or "", _Device())
        current, last = device.current(now_s), device.window
        verdict = device.rhythm(now_s)
        heart_rate = rate_of(verdict, None if current is None else current.heart_rate)
        return {
            "at": iso(now_ns),
            "heart_rate": None if heart_rate is None else round(heart_rate),
            "rhythm": self._rhythm(current, verdict),
            "verdict": None if verdict is None else verdict.rhythm.value,
            "verdict_since": None if verdict is None else iso(verdict.since_ns),
            "quality": None if current is None else current.grade.quality.value,
            "reasons": [] if current is None else [r.value for r in current.grade.reasons],
            "contact": device.touches(current),
            "battery": device.battery,
            "window": None
            if last is None
            else {"start": iso(last.start_ns), "seconds": _number(last.duration_s)},
            "connected": device.is_connected(now_s),
            "device": self.shown,
        }

    def _rhythm(self, result: WindowResult | None, verdict: RhythmSeen | None) -> str | None:
        if verdict is not None:
            if verdict.rhythm in LETHAL:
                return NAMES[verdict.rhythm]
            if not sees_beats(verdict):
                return None
        if result is None or not result.grade.good:
            return None
        likeliest = likeliest_rhythm(result)
        return None if likeliest is None else self.class_names.get(likeliest[0], likeliest[0])


def _told(seen: RhythmSeen) -> tuple[object, ...]:
    """What is told of a verdict at once; a rate is told with the next window."""
    return seen.rhythm, seen.since_ns, sees_beats(seen)


def alarms_as_json(alarms: Sequence[AlarmNotice]) -> Json:
    """The payload of ``leadone/v1/{patient}/alarm``: all that are on, the most urgent first."""
    ordered = sorted(alarms, key=lambda a: (_PRIORITIES.index(a.priority), a.since_ns, a.id))
    return {
        "state": "alarm" if ordered else "none",
        "priority": ordered[0].priority.value if ordered else None,
        "alarms": [_alarm_as_json(alarm) for alarm in ordered],
    }


def _alarm_as_json(alarm: AlarmNotice) -> Json:
    acknowledged = None
    if alarm.acknowledged_by is not None and alarm.acknowledged_ns is not None:
        acknowledged = {"by": alarm.acknowledged_by, "at": iso(alarm.acknowledged_ns)}
    return {
        "id": alarm.id,
        "condition": alarm.condition,
        "priority": alarm.priority.value,
        "since": iso(alarm.since_ns),
        "text": alarm.text,
        "acknowledged": acknowledged,
    }


def iso(ns: int) -> str:
    """A UTC time, given in nanoseconds since 1970, as ISO 8601 with milliseconds."""
    moment = _EPOCH + timedelta(microseconds=ns // 1000)
    return moment.replace(tzinfo=None).isoformat(timespec="milliseconds") + "Z"


def _number(value: float) -> float:
    return int(value) if value.is_integer() else value
