"""Devices of a broker: silent, off the skin, not to be read, short of battery, gone, and back."""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from notify_servers import free_port
from storage_samples import window
from watching import T0, S, new_database, ramp, started, until

from alerts.conditions import Alarm, Change, Priority, State
from alerts.technical import Moment
from ingest.chunk import Stream
from monitor.devices import GONE_S, SENDING_S, Devices
from monitor.earlier_run import known_streams
from monitor.quality import Grade, Quality, Reason
from monitor.storage.history import History

if TYPE_CHECKING:
    from collections.abc import Callable

    from house import House

    Make = Callable[..., House]

pytest_plugins = ["house"]

PATCH = Stream("anna", "patch")
STRAP = Stream("anna", "h10")
GOOD = Grade(Quality.GOOD)
DAY_S = 86_400


class Watch:
    """Devices that are looked at each second, by a clock that is set by hand."""

    def __init__(self, known: Iterable[Stream] = (), active: Iterable[Alarm] = ()) -> None:
        self.now_s = 0.0
        self.changes: list[Change] = []
        self.sending: list[tuple[float, Stream, bool]] = []
        self.devices = Devices(
            known,
            active,
            ours=lambda stream: stream != STRAP,
            conclude=self.changes.extend,
            on_sending=[lambda stream, on: self.sending.append((self.now_s, stream, on))],
            now=lambda: Moment(T0 + round(self.now_s * S), round(self.now_s * S)),
        )

    def look(self) -> None:
        for stream, seen in list(self.devices._seen.items()):
            self.devices._look(stream, seen)

    def quiet(self, seconds: float, step_s: float = 1.0) -> None:
        """Nothing comes."""
        for _ in range(round(seconds / step_s)):
            self.now_s += step_s
            self.look()

    def windows(self, seconds: float, *grades: Grade, stream: Stream = PATCH) -> None:
        """A window each five seconds, with these grades in turn."""
        for i in range(round(seconds / 5)):
            self.quiet(5)
            grade = grades[i % len(grades)]
            self.devices.result(replace(window(0, stream=stream), grade=grade))

    @property
    def told(self) -> list[tuple[float, str, State]]:
        return [((c.at_ns - T0) / S, c.alarm.condition, c.state) for c in self.changes]


def bad(*reasons: Reason) -> Grade:
    return Grade(Quality.BAD, reasons)


def test_a_device_that_falls_silent_and_comes_back() -> None:
    watch = Watch()
    watch.windows(60, GOOD)
    assert watch.sending == [(6, PATCH, True)]
    watch.quiet(600)
    # Windows come every few seconds: half a minute without one is where silence begins.
    began_s = 60 + SENDING_S
    assert watch.told == [(began_s + 120, "device:patch", State.ACTIVE)]
    assert watch.changes[0].alarm.started_ns == T0 + round(began_s * S)
    assert watch.changes[0].alarm.priority is Priority.MEDIUM
    watch.windows(10, GOOD)
    assert watch.told[1:] == [(666, "device:patch", State.ENDED)]
    assert [on for _, _, on in watch.sending] == [True, False, True]


@pytest.mark.parametrize("reason", [Reason.CONTACT, Reason.FLAT, Reason.SATURATED])
def test_a_device_off_the_skin(reason: Reason) -> None:
    watch = Watch()
    watch.windows(60, GOOD)
    watch.windows(115, bad(reason))
    assert watch.told == []
    watch.windows(300, bad(reason))
    watch.windows(5, GOOD)
    assert watch.told == [
        (185, "electrodes:patch", State.ACTIVE),
        (480, "electrodes:patch", State.ENDED),
    ]


def test_a_device_that_cannot_be_read() -> None:
    watch = Watch()
    watch.windows(600, GOOD)
    # Ten seconds of forty-five are too little.
    watch.windows(1350, GOOD, *[bad(Reason.NOISY)] * 8)
    ((at_s, condition, state),) = watch.told
    assert (condition, state) == ("signal:patch", State.ACTIVE)
    assert 1050 < at_s <= 1215
    watch.windows(120, GOOD)
    # The first good one at 1955 s gives ten seconds, and each five: three quarters of a minute.
    assert watch.told[1:] == [(1991, "signal:patch", State.ENDED)]


def test_what_the_gateway_could_not_read_says_nothing_of_the_skin() -> None:
    watch = Watch()
    watch.windows(300, bad(Reason.SKIPPED), bad(Reason.FAILED))
    assert watch.told == []


def test_a_battery() -> None:
    watch = Watch()
    watch.windows(60, GOOD)
    for percent in (16, 15, 14, 19, 20, 90):
        watch.now_s += 1
        watch.devices.battery(PATCH, percent)
    assert watch.told == [
        (62, "battery:patch", State.ACTIVE),
        (65, "battery:patch", State.ENDED),
    ]
    assert watch.changes[0].alarm.priority is Priority.LOW


def test_straps_and_configured_sources_are_not_its_business() -> None:
    watch = Watch(known=[STRAP])
    watch.windows(60, bad(Reason.CONTACT), stream=STRAP)
    watch.quiet(600)
    assert (watch.told, watch.sending) == ([], [])


def test_a_device_that_sent_lately_is_missed_after_a_restart() -> None:
    watch = Watch(known=[PATCH])
    watch.quiet(119)
    assert watch.told == []
    watch.quiet(5)
    assert watch.told == [(121, "device:patch", State.ACTIVE)]


def alarm(condition: str = "device:patch") -> Alarm:
    return Alarm("id", "anna", condition, Priority.MEDIUM, T0 - 900 * S, T0 - 780 * S)


def test_a_restart_neither_repeats_nor_forgets_an_alarm() -> None:
    left = alarm()
    watch = Watch(known=[PATCH], active=[left])
    watch.quiet(300)
    assert [c.alarm.id for c in watch.changes if c.state is State.ENDED] == []
    assert {c.alarm.id for c in watch.changes} <= {"id"}
    watch.windows(10, GOOD)
    assert watch.changes[-1].alarm == replace(left, ended_ns=T0 + 306 * S)


def test_a_device_unheard_for_a_week_is_dropped() -> None:
    watch = Watch()
    watch.windows(60, GOOD)
    watch.quiet(200)
    watch.quiet(GONE_S - 1200, step_s=600)
    assert [state for _, _, state in watch.told] == [State.ACTIVE]
    watch.quiet(1200, step_s=600)
    assert [state for _, _, state in watch.told] == [State.ACTIVE, State.ENDED]
    assert watch.changes[-1].reason == (
        "patch: nothing came from it for a week: it is no longer watched"
    )
    watch.quiet(DAY_S, step_s=600)
    assert len(watch.changes) == 2
    # It is as new when it comes again.
    watch.windows(60, GOOD)
    watch.quiet(300)
    assert watch.told[-1][1:] == ("device:patch", State.ACTIVE)


def test_what_is_left_of_a_device_that_was_dropped_ends_with_the_start() -> None:
    watch = Watch(known=[], active=[alarm(), alarm("battery:patch")])
    watch.quiet(1)
    assert sorted(watch.told) == [
        (1, "battery:patch", State.ENDED),
        (1, "device:patch", State.ENDED),
    ]


def test_known_are_those_that_sent_in_the_last_week(tmp_path: Path) -> None:
    url = new_database(tmp_path)
    writer = started(url)
    old = Stream("boris", "old")
    # Before its first window a device may have sent what is not heard yet.
    writer.submit(ramp(0, 10, stream=old), ramp(DAY_S, 10, stream=PATCH)).result()
    writer.stop()
    with History(url) as history:
        assert known_streams(history, T0 + 7 * DAY_S * S) == [old, PATCH]
        assert known_streams(history, T0 + (7 * DAY_S + 11) * S) == [PATCH]
        assert known_streams(history, T0 + (8 * DAY_S + 11) * S) == []


# --- in the whole service


@pytest.fixture
def broker() -> Iterator[dict[str, str]]:
    """One that is away: what it would send comes from elsewhere."""
    return {"url": f"mqtt://127.0.0.1:{free_port()}"}  # type: ignore[return-value]


async def test_an_alarm_of_a_device_outlives_a_restart(
    make: "Make", broker: dict[str, str]
) -> None:
    house = make(mqtt=broker)
    both = (("bob", "raised"), ("eve", "raised"))
    async with house.running():
        await house.see(2)
        # Each at a look of its own: silence begins, and has lasted.
        await house.quiet()
        house.clock.sleep(31)
        await house.quiet()
        house.clock.sleep(121)
        await house.until_told(*both)
    assert house.messages[0]["data"]["condition"] == "device:strap"
    async with house.running():
        await house.quiet()
        house.clock.sleep(300)
        await house.until_told(*both)
        with History(house.url) as history:
            assert [a.condition for a in history.active_alarms()] == ["device:strap"]
        await house.see(1)
        await house.until_told(*both, ("bob", "ended"), ("eve", "ended"))


async def test_an_alarm_of_a_heart_is_no_device_after_a_restart(
    make: "Make", broker: dict[str, str]
) -> None:
    house = make(mqtt=broker)
    house.heart.af = 0.9
    async with house.running():
        await house.see(3)
        await until(lambda: len(house.told) == 2, 40)
    async with house.running():
        await house.see(1)
        for _ in range(6):
            house.clock.sleep(25)
            await house.see(1)
            await house.quiet()
        with History(house.url) as history:
            assert [a.condition for a in history.active_alarms()] == ["class:AF"]
