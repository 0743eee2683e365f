"""The outbox: in order, at least once, again if need be, and never for nothing."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from itertools import pairwise

import pytest
import structlog
from watching import T0, S, until

from alerts.channels.channel import DeliveryError, Message
from alerts.conditions import Priority
from alerts.records import Cancelled, ClockSet, Kind, Notification
from alerts.technical import Moment
from monitor import outbox as outbox_module
from monitor.outbox import DELIVERED, FAILED, GIVE_UP_S, LONGEST_RETRY_S, RETRYING, Outbox
from monitor.storage.records import Delivery, Record, Settled


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """The clocks of the tests are set by hand: who waits looks at them often."""
    monkeypatch.setattr(outbox_module, "_IDLE_S", 0.005)
    monkeypatch.setattr(outbox_module, "SEND_S", 5.0)


class FakeChannel:
    """Answers each message as it is told: with an error, by hanging, or by taking it.

    Args:
        name: of the channel.
        script: what happens to the messages in turn; None takes one, as does the end of it.
    """

    def __init__(self, name: str, *script: Exception | asyncio.Event | None) -> None:
        self.name = name
        self.script = list(script)
        self.tried: list[str] = []
        self.taken: list[str] = []

    async def send(self, message: Message) -> None:
        self.tried.append(message.key)
        step = self.script.pop(0) if self.script else None
        if isinstance(step, Exception):
            raise step
        if step is not None:
            await step.wait()
        self.taken.append(message.key)


def refuses(text: str = "refused", **how: float | bool) -> DeliveryError:
    return DeliveryError(text, **how)  # type: ignore[arg-type]


def notification(
    alarm: str = "a",
    number: int = 1,
    *,
    due_s: float = 0,
    contact: str = "bob",
    kind: Kind = Kind.RAISED,
) -> Notification:
    return Notification(
        key=f"{alarm}:{number}",
        alarm_id=alarm,
        patient="anna",
        contact=contact,
        kind=kind,
        due_ns=T0 + round(due_s * S),
        thread=alarm,
        expires_with_alarm=True,
    )


class Box:
    """An outbox with all that it has to do with, by a clock that is set by hand."""

    def __init__(self, channels: Mapping[str, Iterable[FakeChannel]]) -> None:
        self.now_s = 0.0
        self.set_by_s = 0.0
        self.stored: list[Record] = []
        self.works: list[tuple[str, str | None]] = []
        self.unknown: set[str] = set()
        self.looks = 0
        self.stop = asyncio.Event()
        self.outbox = Outbox(
            {name: list(some) for name, some in channels.items()},
            compose=self._compose,
            store=self._store,
            on_channel=lambda name, wrong: self.works.append((name, wrong)),
            now=lambda: Moment(self._utc_ns(), round(self.now_s * S)),
        )

    def _utc_ns(self) -> int:
        self.looks += 1
        return T0 + round((self.now_s + self.set_by_s) * S)

    async def _compose(self, told: Notification) -> Message | None:
        if told.alarm_id in self.unknown:
            return None
        return Message(told.key, told.thread, Priority.HIGH, "title", "body", {})

    async def _store(self, *records: Record) -> None:
        self.stored += records

    def of(self, key: str) -> list[tuple[str, str, int]]:
        """What was stored of a notification: channel, state and attempts."""
        found = [r for r in self.stored if isinstance(r, Delivery) and r.key == key]
        return [(d.channel, d.state, d.attempts) for d in found]

    @property
    def settled(self) -> dict[str, str]:
        return {r.key: r.state for r in self.stored if isinstance(r, Settled)}

    async def quiet(self, seconds: float = 0.05) -> None:
        """Let it do whatever it would."""
        await asyncio.sleep(seconds)

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        task = asyncio.create_task(self.outbox.run(self.stop))
        try:
            yield
        finally:
            self.stop.set()
            async with asyncio.timeout(10):
                await task


async def delivered(box: Box, channel: FakeChannel, *keys: str) -> None:
    await until(lambda: channel.taken == list(keys), 5)
    await until(lambda: set(keys) <= set(box.settled), 5)


# --- in order


async def test_of_each_alarm_in_order_and_one_that_waits_holds_up_no_other() -> None:
    channel = FakeChannel("web", refuses())
    box = Box({"bob": [channel]})
    async with box.running():
        box.outbox.take([notification("a", 1), notification("a", 2), notification("b", 1)])
        await until(lambda: channel.taken == ["b:1"], 5)
        await box.quiet()
        assert channel.tried == ["a:1", "b:1"]
        box.now_s = 2.0
        await delivered(box, channel, "b:1", "a:1", "a:2")
    assert box.of("a:1") == [("web", RETRYING, 1), ("web", DELIVERED, 2)]
    assert box.settled == {"b:1": DELIVERED, "a:1": DELIVERED, "a:2": DELIVERED}
    assert box.outbox.waiting == 0


async def test_nothing_is_sent_before_it_is_due_and_then_the_earliest_first() -> None:
    channel = FakeChannel("web")
    box = Box({"bob": [channel]})
    async with box.running():
        box.outbox.take([notification("a", 2, due_s=20), notification("a", 1, due_s=10)])
        box.now_s = 9.9
        await box.quiet()
        assert channel.tried == []
        box.now_s = 10.0
        await delivered(box, channel, "a:1")
        box.now_s = 20.0
        await delivered(box, channel, "a:1", "a:2")


async def test_a_channel_that_hangs_delays_no_other() -> None:
    go_on = asyncio.Event()
    hangs, works = FakeChannel("hangs", go_on), FakeChannel("works")
    box = Box({"bob": [hangs], "eve": [works]})
    async with box.running():
        box.outbox.take(
            [n for i in (1, 2) for n in (notification("a", i), notification("b", i, contact="eve"))]
        )
        await delivered(box, works, "b:1", "b:2")
        assert hangs.tried == ["a:1"]
        go_on.set()
        await delivered(box, hangs, "a:1", "a:2")


# --- again, if need be


async def test_a_channel_that_does_not_answer_is_given_up_and_tried_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(outbox_module, "SEND_S", 0.05)
    channel = FakeChannel("web", asyncio.Event())
    box = Box({"bob": [channel]})
    async with box.running():
        box.outbox.take([notification()])
        await until(lambda: box.of("a:1") == [("web", RETRYING, 1)], 5)
        assert box.works == [("web", "web: no answer within 0.05 s")]
        box.now_s = 2.0
        await delivered(box, channel, "a:1")
    assert box.works[-1] == ("web", None)


async def test_the_time_between_two_attempts_doubles_up_to_five_minutes() -> None:
    channel = FakeChannel("web", *[refuses() for _ in range(11)])
    box = Box({"bob": [channel]})
    times = []
    async with box.running():
        box.outbox.take([notification()])
        for attempt in range(1, 12):
            await until(lambda n=attempt: len(box.of("a:1")) == n, 5)  # type: ignore[misc]
            times.append(box.now_s)
            wait_s = min(2.0**attempt, 300.0)
            box.now_s += wait_s - 0.1
            await box.quiet(0.02)
            assert len(channel.tried) == attempt
            box.now_s += 0.1
        await delivered(box, channel, "a:1")
    assert [b - a for a, b in pairwise(times)] == pytest.approx(
        [2, 4, 8, 16, 32, 64, 128, 256, 300, 300]
    )


async def test_a_receiver_that_asks_to_be_left_alone_is() -> None:
    channel = FakeChannel("web", refuses(retry_after_s=30.0))
    box = Box({"bob": [channel]})
    async with box.running():
        box.outbox.take([notification("a"), notification("b")])
        await until(lambda: box.of("a:1") != [], 5)
        box.now_s = 29.9
        await box.quiet()
        assert channel.tried == ["a:1"]
        box.now_s = 30.0
        await delivered(box, channel, "a:1", "b:1")


async def test_no_receiver_may_put_off_an_alarm_for_longer_than_five_minutes() -> None:
    channel = FakeChannel("web", refuses(retry_after_s=3600.0))
    box = Box({"bob": [channel]})
    async with box.running():
        box.outbox.take([notification()])
        await until(lambda: box.of("a:1") != [], 5)
        box.now_s = LONGEST_RETRY_S
        await delivered(box, channel, "a:1")


async def test_it_does_not_spin_while_it_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """A channel may be away for a day, on a machine that has other things to do."""
    monkeypatch.setattr(outbox_module, "_IDLE_S", 1.0)
    channel = FakeChannel("web", refuses())
    box = Box({"bob": [channel]})
    async with box.running():
        box.outbox.take([notification("a", 1), notification("a", 2)])
        await until(lambda: box.of("a:1") != [], 5)
        looks = box.looks
        await box.quiet(0.3)
        assert box.looks - looks < 10
        box.outbox.take([Cancelled("a")])


async def test_what_can_only_fail_is_not_tried_again_and_the_channel_is_reported() -> None:
    channel = FakeChannel("web", refuses("web: answered 401 Unauthorized", permanent=True))
    box = Box({"bob": [channel]})
    async with box.running():
        box.outbox.take([notification()])
        await until(lambda: box.settled == {"a:1": FAILED}, 5)
        box.now_s = 10_000.0
        await box.quiet()
    assert channel.tried == ["a:1"]
    assert box.of("a:1") == [("web", FAILED, 1)]
    assert box.works == [("web", "web: answered 401 Unauthorized")]


async def test_what_nobody_took_within_a_day_is_given_up() -> None:
    channel = FakeChannel("web", *[refuses() for _ in range(2)])
    box = Box({"bob": [channel]})
    async with box.running():
        box.outbox.take([notification()])
        await until(lambda: box.of("a:1") != [], 5)
        box.now_s = GIVE_UP_S
        await until(lambda: box.settled == {"a:1": FAILED}, 5)


async def test_a_fault_of_a_channel_is_a_failure_like_any_other() -> None:
    channel = FakeChannel("web", ZeroDivisionError("s3cret"))
    box = Box({"bob": [channel]})
    with structlog.testing.capture_logs():
        async with box.running():
            box.outbox.take([notification()])
            await until(lambda: box.of("a:1") == [("web", RETRYING, 1)], 5)
            assert box.works == [("web", "web: it failed by a fault of the program")]
            box.now_s = 2.0
            await delivered(box, channel, "a:1")


async def test_a_night_without_a_network_does_not_end_in_a_hundred_reminders() -> None:
    channel = FakeChannel("web", refuses())
    box = Box({"bob": [channel]})
    reminders = [notification("a", i, due_s=300 * i, kind=Kind.REMINDER) for i in range(2, 100)]
    async with box.running():
        box.outbox.take([notification("a", 1), *reminders])
        await until(lambda: box.of("a:1") != [], 5)
        box.now_s = 300.0 * 99
        await until(lambda: len(box.settled) == 99, 5)
    assert channel.taken == ["a:1", "a:99"]
    assert box.settled == {n.key: FAILED for n in reminders[:-1]} | {
        "a:1": DELIVERED,
        "a:99": DELIVERED,
    }


# --- several channels


async def test_a_contact_is_told_on_every_channel_and_it_is_done_with_the_last() -> None:
    good, bad = FakeChannel("good"), FakeChannel("bad", refuses())
    box = Box({"bob": [good, bad]})
    async with box.running():
        box.outbox.take([notification()])
        await until(lambda: len(box.stored) == 2, 5)
        assert box.settled == {}
        box.now_s = 2.0
        await until(lambda: box.settled == {"a:1": DELIVERED}, 5)
        await box.quiet()
    assert good.tried == ["a:1"]
    assert bad.tried == ["a:1", "a:1"]


@pytest.mark.parametrize(
    ("also", "whole"), [(None, DELIVERED), (refuses(permanent=True), FAILED)], ids=["one", "none"]
)
async def test_it_failed_only_if_no_channel_took_it(also: Exception | None, whole: str) -> None:
    channels = [FakeChannel("x", refuses(permanent=True)), FakeChannel("y", also)]
    box = Box({"bob": channels})
    async with box.running():
        box.outbox.take([notification()])
        await until(lambda: box.settled == {"a:1": whole}, 5)


# --- answered meanwhile


async def test_what_is_answered_while_it_waits_is_not_sent() -> None:
    channel = FakeChannel("web", refuses())
    box = Box({"bob": [channel]})
    async with box.running():
        box.outbox.take([notification("a", 1), notification("a", 2, due_s=5), notification("b")])
        await until(lambda: channel.taken == ["b:1"], 5)
        box.outbox.take([Cancelled("a")])
        box.now_s = 100.0
        await box.quiet()
    assert channel.tried == ["a:1", "b:1"]
    assert box.outbox.waiting == 0
    assert box.settled == {"b:1": DELIVERED}


@pytest.mark.parametrize("number", [1, 2])
async def test_what_is_answered_while_it_is_sent_is_not_sent_again(number: int) -> None:
    """Whether it then arrives or not; and what comes after it of the same alarm does arrive."""
    go_on = asyncio.Event()
    channel = FakeChannel("web", go_on)
    box = Box({"bob": [channel]})

    async def fails(message: Message) -> None:
        await FakeChannel.send(channel, message)
        if message.key == "a:1" and number == 2:
            raise refuses()

    channel.send = fails  # type: ignore[method-assign]
    async with box.running():
        box.outbox.take([notification("a", 1)])
        await until(lambda: channel.tried == ["a:1"], 5)
        box.outbox.take([Cancelled("a"), notification("a", 2, kind=Kind.ENDED)])
        go_on.set()
        await delivered(box, channel, "a:1", "a:2") if number == 1 else await until(
            lambda: "a:2" in box.settled, 5
        )
        box.now_s = 100.0
        await box.quiet()
    assert channel.tried == ["a:1", "a:2"]
    # What arrived is on record; what did not is void, not waiting.
    assert box.of("a:1") == ([("web", DELIVERED, 1)] if number == 1 else [])


async def test_answered_between_two_channels() -> None:
    go_on = asyncio.Event()
    slow, away = FakeChannel("slow", go_on), FakeChannel("away", refuses())
    box = Box({"bob": [slow, away]})
    async with box.running():
        box.outbox.take([notification()])
        await until(lambda: slow.tried == away.tried == ["a:1"], 5)
        box.outbox.take([Cancelled("a")])
        go_on.set()
        await until(lambda: ("slow", DELIVERED, 1) in box.of("a:1"), 5)
        box.now_s = 100.0
        await box.quiet()
    assert away.tried == ["a:1"]
    # It was made void with the change that cancelled it, and stays so.
    assert box.settled == {}


async def test_an_alarm_that_is_not_known_any_more_is_not_told() -> None:
    channel = FakeChannel("web")
    box = Box({"bob": [channel]})
    box.unknown.add("a")
    async with box.running():
        box.outbox.take([notification()])
        await until(lambda: box.settled == {"a:1": FAILED}, 5)
    assert channel.tried == []


async def test_a_new_time_replaces_the_old_one() -> None:
    """As when a pause begins."""
    channel = FakeChannel("web")
    box = Box({"bob": [channel]})
    async with box.running():
        box.outbox.take([notification(due_s=10)])
        box.outbox.take([notification(due_s=50)])
        box.now_s = 49.0
        await box.quiet()
        assert channel.tried == []
        box.now_s = 50.0
        await delivered(box, channel, "a:1")


# --- restarts


async def test_what_an_earlier_run_left_goes_on_where_it_stood() -> None:
    first, second = FakeChannel("first"), FakeChannel("second", refuses())
    box = Box({"bob": [first, second]})
    half = notification("a", 1)
    box.outbox.restore(
        [
            (
                half,
                [
                    Delivery("a:1", "first", DELIVERED, 1, T0),
                    Delivery("a:1", "second", RETRYING, 4, T0, "refused"),
                ],
            ),
            (notification("a", 2), []),
        ]
    )
    assert box.outbox.waiting == 3
    async with box.running():
        await until(lambda: box.of("a:1") == [("second", RETRYING, 5)], 5)
        # The fifth failure in all: it does not begin at two seconds again.
        box.now_s = 31.9
        await box.quiet()
        assert second.tried == ["a:1"]
        box.now_s = 32.0
        await until(lambda: box.settled == {"a:1": DELIVERED, "a:2": DELIVERED}, 5)
    assert first.taken == ["a:2"]
    assert second.taken == ["a:1", "a:2"]


async def test_a_contact_or_channel_that_is_no_longer_configured_leaves_nothing_waiting() -> None:
    channel = FakeChannel("first")
    box = Box({"bob": [channel]})
    box.outbox.restore(
        [
            (notification("a", contact="zoe"), []),
            (
                notification("b"),
                [
                    Delivery("b:1", "first", DELIVERED, 1, T0),
                    Delivery("b:1", "former", RETRYING, 9, T0, "refused"),
                ],
            ),
        ]
    )
    async with box.running():
        await until(lambda: box.settled == {"a:1": FAILED, "b:1": DELIVERED}, 5)
    assert channel.tried == []


# --- clocks


@pytest.mark.parametrize("by_s", [-3600.0, 3600.0])
async def test_a_clock_that_is_set_neither_delays_nor_hastens_anything(by_s: float) -> None:
    channel = FakeChannel("web")
    box = Box({"bob": [channel]})
    box.outbox.take([notification(due_s=60)])
    box.set_by_s = by_s
    box.outbox.take([ClockSet(round(by_s * S))])
    async with box.running():
        box.now_s = 59.0
        await box.quiet()
        assert channel.tried == []
        box.now_s = 60.0
        await delivered(box, channel, "a:1")


async def test_a_clock_that_is_set_does_not_delay_a_message_that_is_tried_again() -> None:
    channel = FakeChannel("web", refuses())
    box = Box({"bob": [channel]})
    async with box.running():
        box.outbox.take([notification()])
        await until(lambda: box.of("a:1") != [], 5)
        box.set_by_s = -86_400.0
        box.outbox.take([ClockSet(-86_400 * S)])
        box.now_s = 2.0
        await delivered(box, channel, "a:1")


# --- the end of a run


async def test_what_is_due_is_sent_before_the_end_and_what_is_not_is_left() -> None:
    channel = FakeChannel("web", None, refuses())
    box = Box({"bob": [channel]})
    async with box.running():
        box.outbox.take(
            [notification("a"), notification("b"), notification("c", due_s=9), notification("d")]
        )
        box.stop.set()
    assert channel.taken == ["a:1", "d:1"]
    assert box.outbox.waiting == 2


async def test_a_channel_that_hangs_does_not_keep_the_run_from_ending(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(outbox_module, "SEND_S", 0.1)
    channel = FakeChannel("web", asyncio.Event())
    box = Box({"bob": [channel]})
    async with box.running():
        box.outbox.take([notification()])
        await until(lambda: channel.tried == ["a:1"], 5)
    assert DELIVERED not in [state for _, state, _ in box.of("a:1")]


async def test_a_fault_in_composing_is_tried_again_and_harms_no_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    channel = FakeChannel("web")
    box = Box({"bob": [channel]})
    faults = [ZeroDivisionError(), ZeroDivisionError()]
    compose: Callable[[Notification], object] = box._compose

    async def breaks(told: Notification) -> object:
        if told.alarm_id == "a" and faults:
            raise faults.pop()
        return await compose(told)  # type: ignore[misc]

    monkeypatch.setattr(box.outbox, "_compose", breaks)
    with structlog.testing.capture_logs() as logs:
        async with box.running():
            box.outbox.take([notification("a"), notification("b")])
            await until(lambda: channel.taken == ["b:1"], 5)
            box.now_s = 2.0
            await until(lambda: not faults, 5)
            await box.quiet()
            box.now_s = 5.9
            await box.quiet()
            assert channel.taken == ["b:1"]
            box.now_s = 6.0
            await delivered(box, channel, "b:1", "a:1")
    assert [log["event"] for log in logs if log["log_level"] == "error"] == ["delivery failed"] * 2
