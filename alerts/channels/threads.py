"""Libraries that block, on threads that nothing has to wait for."""

import asyncio
import contextlib
import threading
from collections.abc import Callable
from typing import TypeVar

_T = TypeVar("_T")


class Threads:
    """Runs blocking calls, each on a thread of its own, no more than so many at a time.

    Not an executor: its threads are waited for when the process ends, and a receiver that hangs
    would keep the daemon from stopping. Whoever waits for a call may be cancelled; the thread then
    goes on by itself, and counts until its own time-outs end it, so that a receiver that hangs
    never costs more than ``limit`` threads. Further calls wait for their turn.

    Args:
        name: of the threads.
        limit: how many calls may be under way.
    """

    def __init__(self, name: str, limit: int = 4) -> None:
        self._name = name
        self._limit = limit
        self._abandoned = 0
        self._free = asyncio.Semaphore(limit)

    @property
    def all_hang(self) -> bool:
        """Whether no call can begin, and nobody waits any more for any of those under way."""
        return self._abandoned >= self._limit

    async def run(self, work: Callable[[], _T]) -> _T:
        """Call ``work`` and give what it returns, or raise what it raises."""
        await self._free.acquire()
        loop = asyncio.get_running_loop()
        done: asyncio.Future[_T] = loop.create_future()

        def conclude(settle: Callable[[], None]) -> None:
            self._free.release()
            if done.cancelled():
                self._abandoned -= 1
            else:
                settle()

        def body() -> None:
            settle: Callable[[], None]
            try:
                result = work()
            except Exception as error:  # noqa: BLE001 - whoever waits is told
                failure = error
                settle = lambda: done.set_exception(failure)  # noqa: E731
            else:
                settle = lambda: done.set_result(result)  # noqa: E731
            # The loop may be closed by now: then nobody waits.
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(conclude, settle)

        threading.Thread(target=body, name=self._name, daemon=True).start()
        try:
            return await done
        except asyncio.CancelledError:
            if done.cancelled():
                self._abandoned += 1
            raise
