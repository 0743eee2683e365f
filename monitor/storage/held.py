"""What a writer holds: groups of records that wait or are being written, and who waits for them."""

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import Future

from monitor import metrics
from monitor.storage.group import Group, resolve
from monitor.storage.records import Record


class Held:
    """Groups in the order in which they came, at most so many records at a time.

    Whoever brings more waits. They are brought from any thread, and taken by one.
    """

    def __init__(self, capacity: int, check: Callable[[], None]) -> None:
        """Hold nothing yet.

        Args:
            capacity: how many records are held, waiting and taken together.
            check: raises whatever keeps more from being accepted.
        """
        self.capacity = capacity
        self._check = check
        self._changed = threading.Condition()  # guards everything below
        self._queue: deque[Group] = deque()
        self._taken: dict[Group, None] = {}  # in their order
        self._records = 0
        self._waiting: list[asyncio.Future[None]] = []
        self._deadline: float | None = None

    @property
    def records(self) -> int:
        """How many records are held."""
        return self._records

    @property
    def ending(self) -> bool:
        """Whether no more are accepted, because it is time to end."""
        return self._deadline is not None

    async def store(self, records: tuple[Record, ...]) -> None:
        """Hold records as soon as there is room, and wait until they are settled."""
        loop = asyncio.get_running_loop()
        durable: asyncio.Future[None] = loop.create_future()
        group = Group(records, durable)
        while True:
            with self._changed:
                if self._accept(group):
                    break
                room: asyncio.Future[None] = loop.create_future()
                self._waiting.append(room)
            await room
        await durable

    def submit(self, records: tuple[Record, ...]) -> Future[None]:
        """Hold records as soon as there is room; blocks until then.

        Returns:
            Done when they are settled.
        """
        durable: Future[None] = Future()
        # It cannot be cancelled: who stops waiting does not take the record back.
        durable.set_running_or_notify_cancel()
        group = Group(records, durable)
        with self._changed:
            while not self._accept(group):
                self._changed.wait()
        return durable

    def _accept(self, group: Group) -> bool:
        """Take a group if there is room; a group larger than the capacity when nothing is held."""
        self._check()
        if self._records and self._records + len(group.records) > self.capacity:
            return False
        self._queue.append(group)
        self._hold(len(group.records))
        self._changed.notify_all()
        return True

    def _hold(self, records: int) -> None:
        self._records += records
        metrics.WRITE_QUEUE.set(self._records)

    def take(
        self, wait_s: float | None = None, enough: Callable[[], bool] = lambda: False
    ) -> list[Group]:
        """Everything that waits, as soon as something does.

        Args:
            wait_s: how long at most that is waited for; for ever if None.
            enough: whether it is not waited for any longer; looked at after ``wake``.

        Returns:
            Nothing when it is time to end, or not to wait any longer.
        """
        until = None if wait_s is None else time.monotonic() + wait_s
        with self._changed:
            while not self._queue and self._deadline is None and not enough():
                left_s = None if until is None else until - time.monotonic()
                if left_s is not None and left_s <= 0:
                    break
                self._changed.wait(left_s)
            groups = list(self._queue)
            self._queue.clear()
            self._taken.update(dict.fromkeys(groups))
            return groups

    def wake(self) -> None:
        """Have whoever takes look again."""
        with self._changed:
            self._changed.notify_all()

    def unsettled(self, groups: Iterable[Group]) -> list[Group]:
        """Those of the groups that nobody has settled."""
        with self._changed:
            return [group for group in groups if group in self._taken]

    def settle(self, groups: Iterable[Group], error: BaseException | None = None) -> None:
        """Make room, and tell who waits for these groups."""
        with self._changed:
            # If the driver hung, ``stop`` has given up some.
            settled = [group for group in groups if group in self._taken]
            for group in settled:
                del self._taken[group]
            self._hold(-sum(len(group.records) for group in settled))
            self._changed.notify_all()
            waiting, self._waiting = self._waiting, []
        resolve([group.future for group in settled], error)
        resolve(waiting)

    def end(self, timeout_s: float) -> None:
        """Accept nothing any more, and have what is held written within so many seconds."""
        with self._changed:
            self._deadline = time.monotonic() + timeout_s
            self._changed.notify_all()
            waiting, self._waiting = self._waiting, []
        resolve(waiting)

    def left(self) -> list[Group]:
        """All that is held, taken from now on, in its order."""
        with self._changed:
            self._taken.update(dict.fromkeys(self._queue))
            self._queue.clear()
            return list(self._taken)

    def sleep(self, seconds: float) -> bool:
        """Wait before the next attempt; False when there is no time for one."""
        until = time.monotonic() + seconds
        with self._changed:
            while (now := time.monotonic()) < until:
                if self._deadline is not None:
                    if now >= self._deadline:
                        return False
                    until = min(until, self._deadline)
                self._changed.wait(until - now)
            return self._deadline is None or until < self._deadline
