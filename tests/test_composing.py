"""From a notification to its message, while the database gives no answer."""

import asyncio
import threading
import time
from collections.abc import Iterator

import pytest
import structlog
from storage_samples import raised, window
from watching import until

from alerts.channels.channel import Message
from alerts.escalation import Plan
from alerts.records import Kind, Notification, Presence, Signal
from alerts.signals import Signals
from alerts.technical import Moment
from monitor import composing
from monitor.composing import Composer, Help
from monitor.storage.history import History


class HangingHistory(History):
    """Gives no answer until it is told to."""

    def __init__(self) -> None:
        self.go = threading.Event()
        self.threads: list[str] = []

    def segments(self, *_: object, **__: object) -> Iterator[object]:  # type: ignore[override]
        self.threads.append(threading.current_thread().name)
        self.go.wait(30)
        return iter(())


async def test_reads_that_hang_take_neither_the_threads_of_others_nor_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(composing, "_STRIP_S", 0.2)
    history, change = HangingHistory(), raised()
    signals = Signals(lambda _: Plan.telling(["anna"]))
    outputs = signals.change(change, Moment(change.at_ns, 0))
    (signal,) = [output for output in outputs if isinstance(output, Signal)]
    notification = next(output for output in outputs if isinstance(output, Notification))
    assert (signal.presence, notification.kind) == (Presence.ON, Kind.RAISED)
    composer = Composer(
        history, {"anna": "Anna"}, Help(), {}, lambda _: signal, lambda: change.at_ns
    )
    composer.result(window(4))
    composer.change(change)

    async def message() -> tuple[Message | None, float]:
        began = time.monotonic()
        return await composer.compose(notification), time.monotonic() - began

    # More than the threads that the loop itself has.
    with structlog.testing.capture_logs() as logs:
        first = await asyncio.gather(*(message() for _ in range(40)))
        second = await asyncio.gather(*(message() for _ in range(10)))
    for told, _ in (*first, *second):
        assert told is not None
        assert "Anna" in told.title
        assert told.picture is None
    # They do not even wait.
    assert max(seconds for _, seconds in second) < 0.15
    assert len(history.threads) == 2
    assert [log["event"] for log in logs[40:]] == ["strip_not_read"] * 10
    async with asyncio.timeout(5):
        await asyncio.to_thread(int)
    history.go.set()
    await until(lambda: not composer._reading.all_hang, 5)
    await message()
    assert len(history.threads) == 3
