"""Alarms through the whole service: from a sample to a person, over restarts and outages."""

import sqlite3
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest
from notify_servers import Answer
from sqlalchemy.exc import OperationalError
from watching import S, until

from alerts.records import Presence
from monitor.storage.batch import BatchWriter
from monitor.storage.history import History
from monitor.storage.maintenance import check
from monitor.storage.records import Request

if TYPE_CHECKING:
    from collections.abc import Callable

    from house import House
    from notify_servers import HttpServer

    Make = Callable[..., House]

pytest_plugins = ["house"]

BOTH = (("bob", "raised"), ("eve", "raised"))


async def test_an_alarm_is_told_with_a_strip_and_so_is_its_end(make: "Make") -> None:
    house = make()
    async with house.running():
        await house.see(1)
        house.heart.af = 0.9
        await house.see(2)
        await house.until_told()
        await house.see(1)
        await house.until_told(*BOTH)
        house.heart.af = 0.05
        await house.see(12)
        await house.until_told(*BOTH, ("bob", "ended"), ("eve", "ended"))
    first = house.messages[0]
    assert first["title"] == "Anna Example: looks like atrial fibrillation"
    assert "How sure: 90 %." in first["body"]
    assert first["picture"].startswith("iVBORw0KGgo")
    assert first["data"]["condition"] == "class:AF"
    (signal,) = house.signals
    assert signal.presence is Presence.OFF
    assert check(house.url) == []


async def test_time_passes_though_the_database_does_not_answer_questions(
    make: "Make", monkeypatch: pytest.MonkeyPatch
) -> None:
    house = make("high")
    free = threading.Event()
    real = History.requests

    def hangs(self: History) -> list[Request]:
        if house.told:
            free.wait(60)
        return real(self)

    monkeypatch.setattr(History, "requests", hangs)
    try:
        async with house.running():
            house.heart.af = 0.9
            await house.see(3)
            await until(lambda: len(house.told) == 2, 40)
            await house.see(1)
            for _ in range(6):  # never so long at once that the signal counts as lost
                house.clock.sleep(51)
                await house.see(1)
            await until(lambda: len(house.told) == 4, 40)
            stopped_at = time.monotonic()
        assert time.monotonic() - stopped_at < 25
    finally:
        free.set()
    assert {kind for _, kind in house.told[2:4]} == {"reminder"}


async def test_a_database_that_only_reads_keeps_nobody_from_watching_nor_from_stopping(
    make: "Make", monkeypatch: pytest.MonkeyPatch
) -> None:
    house = make("high")

    def refuses(*_: object) -> None:
        raise OperationalError("INSERT", {}, Exception("cannot write in a read-only transaction"))

    monkeypatch.setattr(BatchWriter, "write", refuses)
    house.heart.af = 0.9
    async with house.running():  # which gives it thirty seconds to stop
        house.strap.send(30)
        await until(lambda: len(house.told) >= 2, 40)
    assert set(house.told[:2]) == set(BOTH)


async def test_what_a_replay_left_on_keeps_nobody_from_being_told(make: "Make") -> None:
    house = make()
    house.heart.af = 0.9
    async with house.running(attended=False):
        await house.see(4)
    with History(house.url) as history:
        (left,) = history.active_alarms()
    assert house.told == []
    async with house.running():
        await house.see(4)
        await house.until_told(*BOTH)
    with History(house.url) as history:
        (now,) = history.active_alarms()
        assert now.id != left.id
        assert "a replay" in history.changes(left.id)[-1].reason


async def test_who_answers_is_reminded_no_more(make: "Make") -> None:
    house = make("high")
    async with house.running():
        house.heart.af = 0.9
        await house.see(3)
        await house.until_told(*BOTH)
        await house.see(1)
        house.clock.sleep(100)
        await house.see(1)
        house.clock.sleep(100)
        await house.see(1)
        house.clock.sleep(101)
        again = (*BOTH, ("bob", "reminder"), ("eve", "reminder"))
        await house.until_told(*again)
        (signal,) = house.signals
        assert await house.ask("ack", alarms=[signal.alarm.id]) == "acknowledged: 1"
        for _ in range(20):
            await house.see(1)
            house.clock.sleep(100)
        await house.until_told(*again)
        assert await house.ask("ack", alarms=["nonsense"]) == (
            "failed: alarm 'nonsense' is unknown or off"
        )
    with History(house.url) as history:
        done = [(audit.what, audit.by) for audit in history.audit(signal.alarm.id)]
    assert done == [("raised", None), ("acknowledged", "eve")]


async def test_a_restart_neither_repeats_nor_forgets(make: "Make") -> None:
    house = make("high")
    house.heart.af = 0.9
    async with house.running():
        await house.see(3)
        await house.until_told(*BOTH)
    async with house.running():
        await house.see(2)
        await house.until_told(*BOTH)
        house.clock.sleep(100)
        await house.see(1)
    for _ in range(2):
        async with house.running():
            house.clock.sleep(100)
            await house.see(1)
    async with house.running():
        await house.until_told(*BOTH, ("bob", "reminder"), ("eve", "reminder"))
    assert [signal.presence for signal in house.signals] == [Presence.ON]


async def test_the_next_rung_is_reached_after_a_restart(make: "Make") -> None:
    steps = [{"after": "0s", "contacts": ["bob"]}, {"after": "10m", "contacts": ["eve"]}]
    house = make(escalation={"medium": {"steps": steps}})
    house.heart.af = 0.9
    async with house.running():
        await house.see(3)
        await house.until_told(("bob", "raised"))
    # Nobody watches for a while.
    house.clock.sleep(599 - 10)
    async with house.running():
        await house.until_told(("bob", "raised"))
        house.clock.sleep(11)
        await house.until_told(("bob", "raised"), ("eve", "escalated"))
    assert "Nobody has answered for 10 min." in house.messages[-1]["body"]


async def test_a_rung_that_was_reached_while_nothing_ran_is_made_up_for(make: "Make") -> None:
    steps = [{"after": "0s", "contacts": ["bob"]}, {"after": "10m", "contacts": ["eve"]}]
    house = make(escalation={"medium": {"steps": steps, "repeat": "24h"}})
    house.heart.af = 0.9
    async with house.running():
        await house.see(3)
        await house.until_told(("bob", "raised"))
    house.clock.sleep(3600)
    async with house.running():
        await house.until_told(("bob", "raised"), ("eve", "escalated"))


async def test_an_alarm_of_high_priority_that_is_over_stays_until_somebody_answers(
    make: "Make",
) -> None:
    house = make()
    house.heart.longest_rr_s = 5.0
    async with house.running():
        await house.see(1)
        await house.until_told(*BOTH)
        house.heart.longest_rr_s = 0.9
        await house.see(12)
        # Not more than once a minute.
        await house.until_told(*BOTH)
        house.clock.sleep(61)
        await house.until_told(*BOTH, ("bob", "latched"), ("eve", "latched"))
        assert [signal.presence for signal in house.signals] == [Presence.LATCHED]
    async with house.running():
        await house.see(1)
        (signal,) = house.signals
        assert (signal.alarm.condition, signal.presence) == ("pause", Presence.LATCHED)
        await house.ask("ack", alarms=[signal.alarm.id])
        house.clock.sleep(3600)
        await house.until_told(*BOTH, ("bob", "latched"), ("eve", "latched"))
        assert [signal.presence for signal in house.signals] == [Presence.OFF]


async def test_what_happens_in_a_pause_is_recorded_and_told_after_it(make: "Make") -> None:
    house = make()
    house.heart.af = 0.9
    async with house.running():
        await house.see(1)
        assert await house.ask("pause", patient="anna", kind=None, seconds=3600) == "paused"
        await house.see(3)
        await house.until_told()
        assert [signal.presence for signal in house.signals] == [Presence.ON]
    async with house.running():
        await house.see(1)
        await house.until_told()
        assert await house.ask("resume", patient="anna") == "resumed: 1"
        await house.until_told(("bob", "pause_over"), ("eve", "pause_over"))


async def test_a_pause_ends_by_itself_even_if_nothing_runs_at_its_end(make: "Make") -> None:
    house = make()
    house.heart.af = 0.9
    async with house.running():
        await house.ask("pause", patient="anna", kind="class:AF", seconds=600)
        await house.see(3)
        await house.until_told()
    house.clock.sleep(601)
    async with house.running():
        await house.until_told(("bob", "pause_over"), ("eve", "pause_over"))


async def test_what_is_still_true_after_a_snooze_is_told(make: "Make") -> None:
    house = make()
    house.heart.af = 0.9
    async with house.running():
        await house.see(3)
        await house.until_told(*BOTH)
        (signal,) = house.signals
        assert await house.ask("snooze", alarms=[signal.alarm.id], seconds=200) == "snoozed: 1"
        house.clock.sleep(100)
        await house.see(1)
        await house.until_told(*BOTH)
        house.clock.sleep(101)
        await house.see(1)
        await house.until_told(*BOTH, ("bob", "snooze_over"), ("eve", "snooze_over"))


async def test_the_signal_is_lost_while_an_alarm_is_on(make: "Make") -> None:
    house = make()
    house.heart.af = 0.9
    lost = (*BOTH, ("bob", "signal_lost"), ("eve", "signal_lost"))
    async with house.running():
        await house.see(3)
        await house.until_told(*BOTH)
        house.clock.sleep(121)
        await house.until_told(*lost)
        assert [signal.presence for signal in house.signals] == [Presence.ON]
        assert "nobody can see whether it goes on" in house.messages[-1]["body"]
        # It is back, and lost again: that is told once.
        await house.see(2)
        await house.quiet()
        assert [signal.signal_lost for signal in house.signals] == [False]
        house.clock.sleep(121)
        await house.until_told(*lost)
        assert [signal.signal_lost for signal in house.signals] == [True]


async def test_what_is_of_low_priority_waits_for_the_morning(make: "Make") -> None:
    night = {"start": "22:00", "end": "07:00", "timezone": "UTC"}
    house = make("low", quiet_hours=night)
    house.clock.until("2030-11-21 23:00:00")
    house.heart.af = 0.9
    async with house.running():
        await house.see(3)
        await house.until_told()
        house.clock.until("2030-11-22 06:59:50")
        await house.see(1)
        await house.until_told()
        house.clock.sleep(11)
        await house.until_told(*BOTH)
        assert "Since" in house.messages[-1]["body"]


async def test_other_alarms_do_not_wait_for_the_morning(make: "Make") -> None:
    night = {"start": "22:00", "end": "07:00", "timezone": "UTC"}
    house = make("medium", quiet_hours=night)
    house.clock.until("2030-11-21 23:00:00")
    house.heart.af = 0.9
    async with house.running():
        await house.see(3)
        await house.until_told(*BOTH)


async def test_people_are_told_while_the_database_is_away(
    make: "Make", monkeypatch: pytest.MonkeyPatch
) -> None:
    from house import impatient

    impatient(monkeypatch)
    house = make()
    async with house.running():
        await house.see(1)
        house.heart.af = 0.9
        locked = sqlite3.connect(house.url.removeprefix("sqlite:///"), isolation_level=None)
        locked.execute("BEGIN IMMEDIATE")
        house.strap.send(15)
        await house.until_told(*BOTH)
        assert house.signals == []
        locked.execute("ROLLBACK")
        locked.close()
        await until(lambda: len(house.signals) == 1, 40)
    async with house.running():
        await house.see(1)
        await house.until_told(*BOTH)
    assert check(house.url) == []


async def test_a_channel_that_can_only_fail_is_told_on_another(make: "Make") -> None:
    house = make()
    house.heart.af = 0.9
    house.answers = {"/bob": Answer(401)}
    async with house.running():
        await house.see(3)
        await house.until_told(*BOTH)
        house.clock.sleep(61)
        await until(lambda: len(house.told) >= 4, 40)
        await house.quiet()
        told = [(who, m["data"]["condition"]) for (who, _), m in _pairs(house)]
        assert ("eve", "channel:bob-webhook") in told
        house.answers = {}
        # Half an hour later they are reminded of both, and then he is told as well.
        house.clock.sleep(1801)
        await until(lambda: ("eve", "ended") in house.told, 40)
    with History(house.url) as history:
        assert [a.condition for a in history.active_alarms()] == ["class:AF"]


def _pairs(house: "House") -> list[tuple[tuple[str, str], dict[str, Any]]]:
    return list(zip(house.told, house.messages, strict=True))


async def test_who_is_configured_anew_is_told_of_what_is_on(make: "Make") -> None:
    """Whoever knew of it is no longer reached."""
    house = make()
    house.configure("former")
    house.heart.af = 0.9
    async with house.running():
        await house.see(3)
        await house.until_told(("former", "raised"))
    house.configure("eve")
    async with house.running():
        await house.see(1)
        await house.until_told(("former", "raised"), ("eve", "raised"))


async def test_a_heartbeat_and_a_sign_of_life(
    make: "Make", server: "HttpServer", monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("monitor.heartbeat.Heartbeat.next_after", lambda _, ns: ns + S // 5)
    monkeypatch.setattr("monitor.dead_man._LOOK_S", 0.02)
    house = make(
        heartbeat={"timezone": "UTC", "contacts": ["bob"]},
        dead_man={"url": f"{server.url}/alive"},
    )

    def signs() -> int:
        return [request.method for request in server.requests].count("GET")

    async with house.running():
        await house.until_told(("bob", "heartbeat"))
        assert house.messages[0]["title"] == "Lead One is on, but has seen no heart"
        # Nothing was read yet.
        assert signs() == 0
        await house.see(1)
        await until(lambda: signs() == 1, 40)
    with History(house.url) as history:
        assert history.active_alarms() == []
