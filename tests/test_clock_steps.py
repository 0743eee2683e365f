"""Whoever sets the clock neither hastens nor delays what people are told."""

import asyncio
import shlex
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from program import Program, simulator, write_config
from test_signals import LADDER, alarm, ended, raised

from alerts.channels.channel import DeliveryError, Message
from alerts.conditions import Priority
from alerts.escalation import Ladder, Plan
from alerts.records import Kind, Notification, Output
from alerts.signals import Signals
from alerts.technical import Moment
from monitor.clock import now, steady_ns, steady_s, synchronised
from monitor.outbox import Outbox

if TYPE_CHECKING:
    from faketime import FakeTime

pytest_plugins = ["faketime"]

S = 10**9
T0 = 1_795_000_000 * S
HOUR, DAY, YEAR = 3600.0, 86_400.0, 365.25 * 86_400.0
STEPS = [HOUR, -HOUR, DAY, -DAY, 56 * YEAR, -50 * YEAR]

PLAN = Plan(
    high=Ladder(LADDER, repeat_s=300, latching=True),
    medium=Ladder(LADDER[:2], repeat_s=1800),
    low=Ladder(LADDER[:1]),
)


def test_the_steady_clock_is_one_that_goes_on_while_the_machine_sleeps() -> None:
    before = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    moment = now()
    after = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    assert before <= moment.steady_ns <= after
    assert abs(moment.utc_ns - time.time_ns()) < S
    assert abs(steady_s() * S - steady_ns()) < S


def test_the_kernel_says_whether_the_clock_is_synchronised() -> None:
    assert synchronised() in (True, False)


class Phone:
    """A channel that notes by the steady clock what it is given; it refuses at first, if asked."""

    def __init__(self, name: str, told: Callable[[str], None], refusals: int = 0) -> None:
        self.name = name
        self._told = told
        self._refusals = refusals

    async def send(self, message: Message) -> None:
        if self._refusals:
            self._refusals -= 1
            raise DeliveryError("no network")
        self._told(message.key)


class Teller:
    """Signals and their outbox by clocks that are set by hand, a step of five seconds at a time.

    The outbox looks before the signals do, and hears of what they did only a step later: so it is
    when the database is slow.
    """

    def __init__(self) -> None:
        self.seconds = 0.0
        self.set_by_s = 0.0
        self.told: list[tuple[float, str, Kind]] = []
        self.notified: dict[str, Notification] = {}
        self.signals = Signals(lambda _: PLAN, new_id=lambda: "p1")
        self._late: list[Output] = []
        phones = {name: [Phone(name, self._note, name == "ben")] for name in people()}
        self.outbox = Outbox(
            phones,
            compose=self._compose,
            store=self._store,
            on_channel=lambda _name, _wrong: None,
            now=self.now,
        )

    def now(self) -> Moment:
        utc_ns = T0 + round((self.seconds + self.set_by_s) * S)
        return Moment(utc_ns, round((1000 + self.seconds) * S))

    def _note(self, key: str) -> None:
        notification = self.notified[key]
        self.told.append((self.seconds, notification.contact, notification.kind))

    async def _compose(self, told: Notification) -> Message:
        return Message(told.key, told.thread, Priority.HIGH, "title", "body", {})

    async def _store(self, *_records: object) -> None:
        return None

    def do(self, outputs: list[Output]) -> None:
        self.notified |= {o.key: o for o in outputs if isinstance(o, Notification)}
        self._late += outputs

    async def until(self, seconds: float) -> None:
        while self.seconds < seconds:
            self.seconds += 5
            await self._turn()
            late, self._late = self._late, []
            self.outbox.take(late)
            self.do(self.signals.tick(self.now()))
            if not self._late:
                assert self.signals.ahead_ns is not None
                self.outbox.follow(self.signals.ahead_ns)
            await self._turn()

    async def _turn(self) -> None:
        for lane in self.outbox._lanes:
            lane.wake.set()
        for _ in range(60):
            await asyncio.sleep(0)


def people() -> list[str]:
    return list(dict.fromkeys(name for step in LADDER for name in step.contacts))


async def story(by_s: float) -> list[tuple[float, str, Kind]]:
    """What is told where the clock is set by so much, again and again, and back."""
    teller = Teller()
    stop = asyncio.Event()
    running = asyncio.create_task(teller.outbox.run(stop))

    async def until(seconds: float) -> None:
        await teller.until(seconds)
        teller.set_by_s = by_s if teller.set_by_s == 0 else 0.0

    change = teller.signals.change
    # Raised by windows of a device with a clock of its own.
    teller.do(change(raised(alarm()), teller.now()))
    teller.do(change(raised(alarm("b1", "rate:low", Priority.MEDIUM)), teller.now()))
    teller.do(change(raised(alarm("c1", "class:AF", Priority.MEDIUM)), teller.now()))
    await until(60)
    now_ns = teller.now().utc_ns
    teller.do(teller.signals.snooze(["b1"], now_ns + 600 * S, "anna", teller.now()))
    now_ns = teller.now().utc_ns
    teller.do(teller.signals.pause("grandpa", "class:AF", now_ns + 900 * S, "anna", teller.now()))
    for seconds in (200, 290, 585, 650, 890, 950, 1180, 1195, 1500):
        await until(seconds)
    teller.do(change(ended(alarm("b1", "rate:low", Priority.MEDIUM), 1500), teller.now()))
    for seconds in (1790, 2400):
        await until(seconds)
    teller.do(teller.signals.acknowledge(["a1"], "ben", teller.now()))
    await until(2500)
    stop.set()
    await running
    return sorted(teller.told)


async def test_however_the_clock_is_set_everybody_is_told_at_the_same_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The next step, reminders, the ends of a snooze and a pause, the news that it is over, and
    what is tried again."""
    monkeypatch.setattr("monitor.outbox._IDLE_S", 0.001)
    expected = await story(0.0)
    kinds = {kind for _, _, kind in expected}
    assert kinds >= {
        Kind.RAISED,
        Kind.ESCALATED,
        Kind.REMINDER,
        Kind.SNOOZE_OVER,
        Kind.PAUSE_OVER,
        Kind.ENDED,
    }
    for by_s in STEPS:
        assert await story(by_s) == expected, by_s


def test_a_ladder_goes_on_as_planned_while_the_clock_of_the_machine_is_set(
    tmp_path: Path, fake_time: "FakeTime"
) -> None:
    """By the clock of the system that nobody sets, at the command that tells."""
    told = tmp_path / "told"
    # /proc/uptime is CLOCK_BOOTTIME; in the title stands which alarm it is.
    script = f'read up _ < /proc/uptime; echo "$up $0 $LEADONE_TITLE" >> {shlex.quote(str(told))}'
    names = [f"contact{i}" for i in range(8)]
    config = write_config(
        tmp_path,
        [simulator()],
        bundle=str(tmp_path / "none"),  # an alarm of medium priority, at once
        alarms={
            "contacts": [
                {
                    "name": name,
                    "channels": [{"type": "command", "command": ["sh", "-c", script, name]}],
                }
                for name in names
            ],
            "escalation": {
                "medium": {
                    "steps": [
                        {"after": f"{3 * i}s", "contacts": [name]} for i, name in enumerate(names)
                    ]
                }
            },
        },
    )

    def lines() -> list[list[str]]:
        rows = told.read_text().splitlines() if told.exists() else []
        return [row.split(maxsplit=2) for row in rows if "not being recognised" in row]

    with Program("run", "-c", config, folder=tmp_path, env=fake_time.env) as program:
        program.until(lambda: len(lines()) == 1)
        for number, ahead in enumerate(("+1h", "-1h", "+1d", "-1d", "+56y", "+0"), 2):
            time.sleep(0.7)
            fake_time.set(ahead)
            program.until(lambda number=number: len(lines()) >= number, 20)  # type: ignore[misc]
        program.until(lambda: len(lines()) == len(names), 20)
    assert [name for _, name, _ in lines()] == names
    # The first comes before the clock was ever set, and amid all that a start has to do.
    begun = [float(up) - 3 * number for number, (up, _, _) in enumerate(lines())][1:]
    assert all(abs(at - statistics.median(begun)) < 2 for at in begun), lines()
