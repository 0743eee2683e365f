"""What windows tell of the device that they are of, whichever way it is connected."""

from collections.abc import Collection, Iterable

from alerts.conditions import Alarm, Change
from alerts.technical import DeviceWatch, Moment, device_of
from ingest.chunk import Stream
from monitor.quality import Reason
from monitor.results import WindowResult

OFF_SKIN = frozenset({Reason.CONTACT, Reason.FLAT, Reason.SATURATED})
"""What a window with a waveform shows of electrodes that are off the skin."""


def by_device(alarms: Iterable[Alarm]) -> dict[Stream, list[Alarm]]:
    """Technical alarms, by the device that each is of."""
    found: dict[Stream, list[Alarm]] = {}
    for alarm in alarms:
        found.setdefault(Stream(alarm.patient, device_of(alarm)), []).append(alarm)
    return found


def look_at_window(
    watch: DeviceWatch, now: Moment, result: WindowResult, off: Collection[Reason]
) -> Change | None:
    """Look whether a window can be read, and whether its electrodes are off the skin.

    Args:
        watch: of the device.
        now: the time.
        result: the window.
        off: reasons that tell of electrodes off the skin.
    """
    touches = True if result.grade.good else None
    if any(reason in off for reason in result.grade.reasons):
        touches = False
    if result.grade.good:
        watch.read(now, result.duration_s)
    return watch.skin(now, touches)
