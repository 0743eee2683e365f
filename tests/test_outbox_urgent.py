"""The outbox: what is urgent stands behind nothing else, on no channel."""

import asyncio
from itertools import pairwise

import pytest
from test_outbox import Box, FakeChannel, delivered, notification, quick, refuses
from watching import until

from alerts.records import Kind, Notification
from monitor.outbox import RETRYING, Urgency
from monitor.storage.records import Record

__all__ = ["quick"]  # the clocks of these tests too are set by hand

OF = {"new": Urgency.URGENT, "old": Urgency.OVER}


def box_for(channel: FakeChannel) -> Box:
    """What is of alarm ``new`` is urgent, what is of ``old`` is over."""
    box = Box({"bob": [channel]})

    def urgency(told: Notification) -> Urgency:
        return OF.get(told.alarm_id, Urgency.USUAL)

    box.outbox._urgency = urgency
    return box


def reminder(number: int, due_s: float = 0) -> Notification:
    return notification("old", number, due_s=due_s, kind=Kind.REMINDER)


async def test_the_urgent_goes_before_what_is_due_earlier_and_what_is_over_goes_last() -> None:
    channel = FakeChannel("web")
    box = box_for(channel)
    box.now_s = 10.0
    box.outbox.take(
        [reminder(1), notification("usual", 1, due_s=1), notification("new", 1, due_s=9)]
    )
    async with box.running():
        await delivered(box, channel, "new:1", "usual:1", "old:1")


async def test_of_one_alarm_they_go_in_their_order_however_urgent() -> None:
    channel = FakeChannel("web")
    box = box_for(channel)
    box.outbox._urgency = lambda told: Urgency(3 - int(told.key[-1]))
    box.outbox.take([notification("a", 1), notification("a", 2), notification("a", 3)])
    async with box.running():
        await delivered(box, channel, "a:1", "a:2", "a:3")


@pytest.mark.parametrize("alarm", ["old", "usual"])
async def test_a_channel_that_is_stuck_with_something_else_lets_go_of_it(alarm: str) -> None:
    """It would hang for as long as it may, here for ever."""
    channel = FakeChannel("web", asyncio.Event())
    box = box_for(channel)
    async with box.running():
        box.outbox.take([notification(alarm, 1)])
        await until(lambda: channel.tried == [f"{alarm}:1"], 5)
        await box.quiet()
        assert channel.tried == [f"{alarm}:1"]
        box.outbox.take([notification("new", 1)])
        await until(lambda: channel.taken == ["new:1"], 5)
        box.now_s = 2.0
        await delivered(box, channel, "new:1", f"{alarm}:1")
    # Nobody calls the channel broken for that.
    assert {wrong for _, wrong in box.works} == {None}


async def test_one_that_is_stuck_with_something_urgent_is_given_its_time() -> None:
    go_on = asyncio.Event()
    channel = FakeChannel("web", go_on)
    box = box_for(channel)
    async with box.running():
        box.outbox.take([notification("new", 1)])
        await until(lambda: channel.tried == ["new:1"], 5)
        box.outbox.take([notification("new", 2)])
        await box.quiet()
        assert channel.tried == ["new:1"]
        go_on.set()
        await delivered(box, channel, "new:1", "new:2")


async def test_who_asked_to_be_left_alone_by_reminders_is_told_what_is_urgent() -> None:
    channel = FakeChannel("web", refuses(retry_after_s=300.0))
    box = box_for(channel)
    async with box.running():
        box.outbox.take([reminder(1)])
        await until(lambda: box.of("old:1") == [("web", RETRYING, 1)], 5)
        box.outbox.take([notification("usual", 1), notification("new", 1)])
        await delivered(box, channel, "new:1")
        await box.quiet()
        assert channel.tried == ["old:1", "new:1"]
        box.now_s = 300.0
        await delivered(box, channel, "new:1", "usual:1", "old:1")


async def test_it_is_tried_again_each_half_minute_at_the_least() -> None:
    channel = FakeChannel("web", *[refuses(retry_after_s=200.0)], *[refuses() for _ in range(7)])
    box = box_for(channel)
    times = []
    async with box.running():
        box.outbox.take([notification("new", 1)])
        for attempt in range(1, 9):
            await until(lambda n=attempt: len(box.of("new:1")) == n, 5)  # type: ignore[misc]
            times.append(box.now_s)
            wait_s = 30.0 if attempt == 1 else min(2.0**attempt, 30.0)
            box.now_s += wait_s - 0.1
            await box.quiet(0.02)
            assert len(channel.tried) == attempt
            box.now_s += 0.1
        await delivered(box, channel, "new:1")
    assert [b - a for a, b in pairwise(times)] == pytest.approx([30, 4, 8, 16, 30, 30, 30])


async def test_a_database_that_does_not_answer_keeps_no_channel_from_what_is_urgent() -> None:
    channel = FakeChannel("web")
    box = box_for(channel)
    answers = asyncio.Event()

    async def hangs(*records: Record) -> None:
        await answers.wait()
        await Box._store(box, *records)

    box.outbox._store = hangs
    async with box.running():
        box.outbox.take([notification("usual", 1)])
        await until(lambda: channel.taken == ["usual:1"], 5)
        box.outbox.take([notification("new", 1), notification("new", 2), reminder(1)])
        await until(lambda: channel.taken == ["usual:1", "new:1", "new:2"], 5)
        assert box.stored == []
        answers.set()
        await delivered(box, channel, "usual:1", "new:1", "new:2", "old:1")
