"""When a device is silent, off the skin, or short of battery."""

from dataclasses import replace
from itertools import count

import pytest

from alerts.conditions import Alarm, Change, Priority, State
from alerts.delivery import describe
from alerts.technical import DeviceWatch, Moment, device_of, is_technical, is_update

S = 10**9
T0 = 1_790_000_000 * S
AWAY = "strap not seen: check that the strap is worn"


def watch(*active: Alarm) -> DeviceWatch:
    numbers = count(1)
    return DeviceWatch("anna", "h10", active, new_id=lambda: f"id{next(numbers)}")


def at(seconds: float, utc_s: float | None = None) -> Moment:
    """So long after the start; by UTC the same unless the clock was set."""
    utc = seconds if utc_s is None else utc_s
    return Moment(T0 + round(utc * S), round(seconds * S))


def silence(
    device: DeviceWatch, start: int, end: int, why: str = AWAY, utc_ahead: float = 0
) -> list[Change]:
    """A look every second in ``[start, end)``."""
    changes = [
        device.link(at(s, s + utc_ahead), streaming=False, why=why) for s in range(start, end)
    ]
    return [change for change in changes if change is not None]


def test_two_minutes_of_silence_raise_one_alarm_and_samples_end_it() -> None:
    device = watch()
    assert device.link(at(0), streaming=True, why="") is None
    assert silence(device, 10, 130) == []
    (raised,) = silence(device, 130, 4000)
    alarm = Alarm("id1", "anna", "device:h10", Priority.MEDIUM, T0 + 10 * S, T0 + 130 * S)
    assert raised == Change(alarm, T0 + 130 * S, State.ACTIVE, f"h10: {AWAY}")
    ended = device.link(at(4000), streaming=True, why="")
    assert ended == Change(
        replace(alarm, ended_ns=T0 + 4000 * S),
        T0 + 4000 * S,
        State.ENDED,
        "h10: samples flow again",
    )
    assert device.link(at(4001), streaming=True, why="") is None


def test_short_silences_do_not_add_up() -> None:
    device = watch()
    for start in range(0, 1000, 120):
        assert silence(device, start, start + 119) == []
        assert device.link(at(start + 119), streaming=True, why="") is None


@pytest.mark.parametrize("step_s", [-3600.0, 3600.0])
def test_a_clock_that_is_set_neither_raises_nor_delays_it(step_s: float) -> None:
    device = watch()
    assert silence(device, 0, 60) == []
    assert silence(device, 60, 120, utc_ahead=step_s) == []
    (raised,) = silence(device, 120, 130, utc_ahead=step_s)
    alarm = raised.alarm
    assert alarm.raised_ns == T0 + round((120 + step_s) * S)
    assert alarm.raised_ns - alarm.started_ns == 120 * S
    ended = device.link(at(200, 200 - 7200), streaming=True, why="")
    assert ended is not None
    assert ended.alarm.ended_ns == max(alarm.raised_ns, T0 + (200 - 7200) * S)


def test_another_cause_is_an_update_and_no_second_alarm() -> None:
    device = watch()
    (raised,) = silence(device, 0, 140)
    assert not is_update(raised)
    (update,) = silence(device, 140, 1000, "bluetooth is off: switch it on")
    assert is_update(update)
    assert update.alarm == raised.alarm
    assert update.reason == "h10: bluetooth is off: switch it on"
    # Not before two minutes after the alarm was raised.
    assert update.at_ns == T0 + 240 * S
    ended = device.link(at(1000), streaming=True, why="")
    assert ended is not None
    assert not is_update(ended)


def test_causes_that_alternate_are_told_every_two_minutes_at_most() -> None:
    device = watch()
    changes = [
        device.link(at(s), streaming=False, why=AWAY if s % 2 else "connection refused")
        for s in range(1200)
    ]
    assert len([change for change in changes if change is not None]) <= 10


def test_a_restart_neither_forgets_nor_repeats_it() -> None:
    (raised,) = silence(watch(), 0, 121)
    later = watch(raised.alarm)
    (update,) = silence(later, 200, 1000)
    assert is_update(update)
    assert update.alarm == raised.alarm
    ended = later.link(at(1000), streaming=True, why="")
    assert ended is not None
    assert ended.alarm.id == raised.alarm.id


def test_electrodes_off_for_two_minutes() -> None:
    device = watch()
    assert [device.skin(at(s), False) for s in range(0, 120, 5)] == [None] * 24
    raised = device.skin(at(120), False)
    assert raised is not None
    assert raised.alarm == Alarm("id1", "anna", "electrodes:h10", Priority.MEDIUM, T0, T0 + 120 * S)
    assert raised.reason.startswith("h10: electrodes off the skin: wet the electrodes")
    assert device.skin(at(125), False) is None
    # A noisy window is no sign of skin.
    assert device.skin(at(130), None) is None
    ended = device.skin(at(135), True)
    assert ended is not None
    assert (ended.state, ended.alarm.id) == (State.ENDED, "id1")


@pytest.mark.parametrize("touches", [True, None])
def test_electrodes_must_be_off_without_a_break(touches: bool | None) -> None:
    device = watch()
    for s in range(0, 2000, 100):
        assert device.skin(at(s), False) is None
        assert device.skin(at(s + 99), touches) is None


def test_time_in_which_the_device_is_silent_is_none_off_the_skin() -> None:
    device = watch()
    assert device.skin(at(0), False) is None
    assert silence(device, 1, 60) == []
    assert device.skin(at(130), False) is None


def readings(device: DeviceWatch, start: int, end: int, every: int) -> list[Change]:
    """A look every second in ``[start, end)``, and a readable window of 10 s now and then."""
    changes = []
    for s in range(start, end):
        if (s - start) % every == every - 1:
            device.read(at(s), 10.0)
        changes.append(device.legible(at(s)))
    return [change for change in changes if change is not None]


def test_a_heart_that_is_hardly_ever_read_is_told_once_until_it_is_read_again() -> None:
    device = watch()
    # 10 s in 50 are a fifth of the time.
    (raised,) = readings(device, 0, 4000, 50)
    assert raised.alarm == Alarm("id1", "anna", "signal:h10", Priority.MEDIUM, T0, T0 + 600 * S)
    assert raised.reason.startswith("h10: only 20% of the last 10 minutes could be read")
    # The window at 3999 s tells 10 s, those after it what is new, 5 s each: 45 s of the last 60 are
    # read after the seventh.
    (ended,) = readings(device, 4000, 5000, 5)
    assert (ended.alarm.id, ended.state) == ("id1", State.ENDED)
    assert ended.at_ns == T0 + 4034 * S


def test_a_heart_that_is_read_a_third_of_the_time_is_watched() -> None:
    assert readings(watch(), 0, 4000, 30) == []


def test_what_cannot_be_read_is_not_told_beside_silence_or_bare_electrodes() -> None:
    device = watch()
    assert len(silence(device, 0, 130)) == 1
    assert readings(device, 130, 2000, 5000) == []
    assert device.link(at(2000), streaming=True, why="") is not None
    # Ten minutes from when samples flow again, not from when they stopped.
    (raised,) = readings(device, 2000, 4000, 5000)
    assert raised.at_ns == T0 + 2600 * S
    off = watch()
    assert [off.skin(at(s), False) for s in (0, 120)][1] is not None
    assert readings(off, 120, 2000, 5000) == []


def test_after_a_restart_it_is_over_only_when_the_heart_is_read() -> None:
    (raised,) = readings(watch(), 0, 700, 5000)
    later = watch(raised.alarm)
    assert readings(later, 1000, 3000, 5000) == []
    (ended,) = readings(later, 3000, 3100, 5)
    assert ended.alarm.id == raised.alarm.id


def test_a_battery_at_the_limit_raises_one_alarm() -> None:
    device = watch()
    assert device.battery(at(0), 16) is None
    raised = device.battery(at(1), 15)
    assert raised is not None
    assert (raised.alarm.condition, raised.alarm.priority) == ("battery:h10", Priority.LOW)
    assert "15 %" in raised.reason
    assert [device.battery(at(2), percent) for percent in (16, 15, 19, 3)] == [None] * 4
    ended = device.battery(at(3), 100)
    assert ended is not None
    assert ended.alarm.id == raised.alarm.id


def test_what_people_are_told() -> None:
    device = watch()
    (silent,) = silence(device, 0, 121)
    off = [device.skin(at(s), False) for s in (200, 320)][1]
    low = device.battery(at(400), 9)
    assert off is not None
    assert low is not None
    told = [describe(change) for change in (silent, off, low)]
    for line, what in zip(
        told,
        ("h10 is silent", "h10 is off the skin", "battery of h10 is low"),
        strict=True,
    ):
        assert line.startswith(f"anna: {what}")
    assert AWAY in told[0]


def test_which_alarms_are_technical() -> None:
    def alarm(condition: str) -> Alarm:
        return Alarm("1", "anna", condition, Priority.LOW, 0, 0)

    hearts = ("class:AF", "rr:AF", "rate:high", "pause", "class:device")
    assert not any(is_technical(alarm(condition)) for condition in hearts)
    devices = ("device:h10", "electrodes:h10", "signal:h10", "battery:h10")
    assert all(is_technical(alarm(condition)) for condition in devices)
    assert {device_of(alarm(condition)) for condition in devices} == {"h10"}
