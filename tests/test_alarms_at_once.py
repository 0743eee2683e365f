"""Lethal rhythms are told at once, whatever the database does, and stored all the same."""

import asyncio
import contextlib
import re
import sqlite3
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from watching import STREAM, S, new_database, until

from alerts.channels.channel import Message
from alerts.conditions import Alarm, Change, Observation, Priority, State
from alerts.engine import Engine
from alerts.escalation import Plan
from alerts.policy import Policy
from alerts.records import Kind, Presence
from alerts.rhythm import Rhythm, RhythmSeen
from alerts.technical import Moment
from ingest.chunk import Chunk
from monitor.alarms import Alarms
from monitor.clock import now as present
from monitor.composing import Help
from monitor.storage.history import History
from monitor.storage.writer import Writer


class Phone:
    """A channel that keeps what it is given, with how long that took."""

    name = "phone"

    def __init__(self) -> None:
        self.messages: list[Message] = []

    async def send(self, message: Message) -> None:
        self.messages.append(message)

    @property
    def kinds(self) -> list[object]:
        return [message.data["kind"] for message in self.messages]


class Gateway:
    """Alarms with a database and a telephone, by a clock that may be moved on."""

    def __init__(self, url: str) -> None:
        self.url, self.phone, self.ahead_s = url, Phone(), 0.0
        self.writer, self.history = Writer(url), History(url)
        self.conditions: list[Change] = []
        self.alarms = Alarms(
            Engine(lambda _: Policy()),
            self.writer,
            plan_for=lambda _: Plan.telling(["bob"]),
            channels={"bob": [self.phone]},
            history=self.history,
            patients={"anna": "Anna"},
            help_for=Help("999", {"anna": "door code 4711"}),
            on_change=[self.conditions.append],
            now=self.now,
        )

    def now(self) -> Moment:
        moment, by_ns = present(), round(self.ahead_s * S)
        return Moment(moment.utc_ns + by_ns, moment.steady_ns + by_ns)

    def see(
        self,
        rhythm: Rhythm,
        ago_s: float = 0,
        beat_ago_s: float | None = None,
        device: str = "strap",
    ) -> None:
        at_ns = self.now().utc_ns - round(ago_s * S)
        self.alarms.rhythm(
            RhythmSeen(
                patient="anna",
                device=device,
                at_ns=at_ns,
                rhythm=rhythm,
                since_ns=at_ns - 6 * S,
                rate=72.0 if rhythm is Rhythm.ORGANISED else None,
                last_beat_ns=None if beat_ago_s is None else at_ns - round(beat_ago_s * S),
            )
        )

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        self.writer.start()
        stop = asyncio.Event()
        self.alarms.restore(self.history)
        running = asyncio.create_task(self.alarms.run(None, stop))
        try:
            yield
        finally:
            stop.set()
            async with asyncio.timeout(60):
                await running
            await asyncio.to_thread(self.writer.stop)
            self.history.close()


@pytest.fixture
def make(tmp_path: Path) -> Callable[[], Gateway]:
    url = new_database(tmp_path)
    return lambda: Gateway(url)


@contextlib.contextmanager
def locked(url: str) -> Iterator[None]:
    """Another process keeps the database to itself."""
    with contextlib.closing(sqlite3.connect(url.removeprefix("sqlite:///"))) as other:
        other.execute("BEGIN EXCLUSIVE")
        yield
        other.rollback()


async def test_it_is_told_at_once_with_its_strip_though_the_database_is_locked(
    make: Callable[[], Gateway],
) -> None:
    gateway = make()
    async with gateway.running():
        begun = time.monotonic()
        with locked(gateway.url):
            start_ns = gateway.now().utc_ns - 10 * S
            wave = (500 * np.sin(np.arange(1300) / 4)).astype(np.float32)
            for i in range(10):
                part = wave[130 * i : 130 * (i + 1)]
                gateway.alarms.samples(Chunk(STREAM, start_ns + i * S, 130.0, part))
            # Something else is told, and waits for the database.
            now_ns = gateway.now().utc_ns
            other = Alarm("a1", "anna", "class:AF", Priority.MEDIUM, now_ns, now_ns)
            gateway.alarms.conclude([Change(other, now_ns, State.ACTIVE, "seen")])
            gateway.see(Rhythm.ORGANISED, beat_ago_s=0.5)
            gateway.see(Rhythm.VF, beat_ago_s=6.0)
            await until(lambda: len(gateway.phone.messages) == 1, 10)
            took_s = time.monotonic() - begun
            assert gateway.conditions[0].alarm.condition == "vf"
            await until(lambda: len(gateway.phone.messages) == 2, 10)
        first, second = gateway.phone.messages
        assert took_s < 3
        await until(lambda: len(gateway.history.deliveries(other.id)) == 2, 30)
    assert first.title == "URGENT: Anna: cardiac arrest? ventricular fibrillation"
    assert "call 999, start chest compressions" in first.body
    assert "Emergency note: door code 4711" in first.body
    assert "Before that: 72 per minute." in first.body
    assert first.picture is not None
    assert second.data["condition"] == "class:AF"
    with History(gateway.url) as history:
        (vf,) = [a for a in history.active_alarms() if a.condition == "vf"]
        assert [c.state for c in history.changes(vf.id)] == [State.ACTIVE]
        assert [state for _, state, _ in history.deliveries(vf.id)][:1] == ["delivered"]


async def test_a_pause_is_told_at_once_with_its_strip_though_the_database_is_locked(
    make: Callable[[], Gateway],
) -> None:
    gateway = make()
    async with gateway.running():
        begun = time.monotonic()
        with locked(gateway.url):
            end_ns = gateway.now().utc_ns
            for i in range(10):
                wave = np.full(130, 100.0 * i, np.float32)
                gateway.alarms.samples(Chunk(STREAM, end_ns - (10 - i) * S, 130.0, wave))
            seen = Observation("anna", end_ns - 5 * S, end_ns, good=True, longest_rr_s=5.0)
            gateway.alarms.paused(STREAM, seen)
            # It goes on: that is known.
            gateway.alarms.paused(STREAM, replace(seen, end_ns=end_ns + 5 * S, longest_rr_s=10.0))
            await until(lambda: len(gateway.phone.messages) == 1, 10)
            took_s = time.monotonic() - begun
        (message,) = gateway.phone.messages
        assert took_s < 3
        assert message.title == "URGENT: Anna: heart paused"
        assert "Why: pause: 5.0 s without a beat" in message.body
        assert message.picture is not None
        (alarm,) = (change.alarm for change in gateway.conditions)
        await until(lambda: len(gateway.history.changes(alarm.id)) == 1, 30)
    with History(gateway.url) as history:
        assert [a.condition for a in history.active_alarms()] == ["pause"]


async def test_that_it_lasts_is_not_stored_until_it_comes_on_again(
    make: Callable[[], Gateway],
) -> None:
    gateway = make()
    async with gateway.running():
        gateway.see(Rhythm.VF)
        await until(lambda: gateway.phone.kinds == ["raised"], 10)
        (signal,) = gateway.alarms.on("anna")
        gateway.alarms.acknowledge("anna", None, "bob")
        for _ in range(17):
            gateway.ahead_s += 10
            gateway.see(Rhythm.VF)
            await asyncio.sleep(0)
        gateway.ahead_s += 30
        gateway.see(Rhythm.VF)
        await until(lambda: gateway.phone.kinds[1:] == ["goes_on"], 10)
        assert len(gateway.conditions) == 1
    with History(gateway.url) as history:
        assert len(history.changes(signal.alarm.id)) == 1
        assert [a.what for a in history.audit(signal.alarm.id)] == [
            "raised",
            "acknowledged",
            "goes on",
        ]


async def test_a_restart_takes_it_up_and_tells_nobody_twice(make: Callable[[], Gateway]) -> None:
    first = make()
    async with first.running():
        first.see(Rhythm.VF)
        await until(lambda: first.phone.kinds == ["raised"], 10)
    second = make()
    second.alarms._rhythms.restore(second.history.active_alarms())
    async with second.running():
        second.see(Rhythm.VF)
        await asyncio.sleep(0.3)
        assert second.phone.messages == []
        (signal,) = second.alarms.on("anna")
        assert signal.presence is Presence.ON
        for _ in range(30):
            second.ahead_s += 1
            second.see(Rhythm.ORGANISED, beat_ago_s=0.5)
        await until(lambda: "latched" in second.phone.kinds, 10)
    with History(second.url) as history:
        assert history.active_alarms() == []


async def test_signal_that_comes_minutes_late_is_told_with_its_time(
    make: Callable[[], Gateway],
) -> None:
    gateway = make()
    async with gateway.running():
        gateway.see(Rhythm.ASYSTOLE, ago_s=425)
        await until(lambda: len(gateway.phone.messages) == 1, 10)
    assert " that arrived 7 min late." in gateway.phone.messages[0].body


async def test_what_was_decided_before_is_handed_on_before(make: Callable[[], Gateway]) -> None:
    """An answer that waits for the database would otherwise make void what comes after it."""
    gateway = make()
    async with gateway.running():
        gateway.see(Rhythm.VF)
        await until(lambda: gateway.phone.kinds == ["raised"], 10)
        with locked(gateway.url):
            gateway.ahead_s += 1
            gateway.alarms.acknowledge("anna", None, "bob")
            gateway.ahead_s += 181
            gateway.see(Rhythm.VF)
            await until(lambda: gateway.phone.kinds == ["raised", "goes_on"], 4)
    assert gateway.phone.messages[-1].data["presence"] == "on"


async def test_a_heart_that_is_seen_to_fibrillate_is_not_called_lost(
    make: Callable[[], Gateway], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("monitor.alarms._LOOK_S", 0.02)
    gateway = make()
    async with gateway.running():
        gateway.see(Rhythm.VF)
        await until(lambda: gateway.phone.kinds == ["raised"], 10)
        for _ in range(4):
            gateway.ahead_s += 100
            gateway.see(Rhythm.VF)
            await asyncio.sleep(0.2)
        assert str(Kind.SIGNAL_LOST) not in gateway.phone.kinds
        gateway.ahead_s += 121
        await until(lambda: str(Kind.SIGNAL_LOST) in gateway.phone.kinds, 10)


async def test_two_chunks_of_another_stream_or_time_are_in_no_strip(
    make: Callable[[], Gateway],
) -> None:
    gateway = make()
    async with gateway.running():
        chunk = Chunk(STREAM, gateway.now().utc_ns - 60 * S, 130.0, np.ones(130, np.float32))
        gateway.alarms.samples(chunk)
        other = replace(STREAM, device="patch")
        gateway.alarms.samples(replace(chunk, stream=other, start_ns=gateway.now().utc_ns - 2 * S))
        gateway.see(Rhythm.VF)
        await until(lambda: len(gateway.phone.messages) == 1, 10)
    assert gateway.phone.messages[0].picture is None


async def test_whoever_is_reminded_hears_when_the_rhythm_was_last_seen(
    make: Callable[[], Gateway],
) -> None:
    """The strap was torn off half a minute ago, and no rate is told of a heart that nobody sees."""
    gateway = make()
    async with gateway.running():
        gateway.see(Rhythm.ORGANISED, beat_ago_s=0.5)
        # By then it has gone on for two seconds, as is known later.
        gateway.ahead_s += 4
        gateway.see(Rhythm.VF, beat_ago_s=4.5)
        await until(lambda: gateway.phone.kinds == ["raised"], 10)
        gateway.ahead_s += 31
        await until(lambda: gateway.phone.kinds == ["raised", "reminder"], 10)
    first, second = (message.body for message in gateway.phone.messages)
    assert "Last seen" not in first
    assert re.search(r"^Last seen at \d\d:\d\d:\d\d, 3[1-9] s ago\.$", second, re.MULTILINE)
    assert "per minute" not in second


async def test_a_device_that_sees_a_beating_heart_is_named_too(make: Callable[[], Gateway]) -> None:
    gateway = make()
    async with gateway.running():
        gateway.see(Rhythm.ORGANISED, beat_ago_s=0.5, device="chest")
        gateway.see(Rhythm.VF)
        await until(lambda: gateway.phone.kinds == ["raised"], 10)
        body = gateway.phone.messages[0].body
        assert "\nBut chest sees a heart that beats at 72 per minute: look " in body
        assert "Heart rate" not in body
        # What is no longer of now gainsays nothing.
        gateway.ahead_s += 31
        gateway.see(Rhythm.VF)
        await until(lambda: gateway.phone.kinds == ["raised", "reminder"], 10)
    assert "But chest" not in gateway.phone.messages[1].body


async def test_signal_that_a_device_had_kept_tells_nothing_of_now(
    make: Callable[[], Gateway],
) -> None:
    """It comes between that of now, and shows a heart that still beat."""
    gateway = make()
    async with gateway.running():
        gateway.see(Rhythm.ORGANISED, ago_s=8, beat_ago_s=0.5)
        gateway.see(Rhythm.VF, beat_ago_s=8.5)
        for ago_s in range(640, 600, -1):
            gateway.see(Rhythm.ORGANISED, ago_s=ago_s, beat_ago_s=0.5)
        await until(lambda: gateway.phone.kinds == ["raised"], 10)
        assert [change.state for change in gateway.conditions] == [State.ACTIVE]
    assert "No beat seen since " in gateway.phone.messages[0].body
