"""The time that virtual straps live in: real, faster than real, or stepped by hand."""

import asyncio
import heapq
import itertools
import time
from collections.abc import Awaitable, Callable
from typing import Protocol

NS = 1_000_000_000


class Timer(Protocol):
    def cancel(self) -> None: ...


class Clock(Protocol):
    def time_ns(self) -> int:
        """UTC in ns since 1970: the truth of the simulation."""
        ...

    def call_at(self, when_ns: int, callback: Callable[[], None]) -> Timer: ...

    async def sleep(self, seconds: float) -> None: ...


class RealClock:
    """Wall time, or ``speed`` times as fast from the moment it is made."""

    def __init__(self, speed: float = 1.0, start_ns: int | None = None) -> None:
        self.speed = speed
        self._start = time.time_ns() if start_ns is None else start_ns
        self._zero = time.monotonic_ns()

    def time_ns(self) -> int:
        return self._start + int((time.monotonic_ns() - self._zero) * self.speed)

    def call_at(self, when_ns: int, callback: Callable[[], None]) -> Timer:
        wait = max(0.0, (when_ns - self.time_ns()) / NS / self.speed)
        return asyncio.get_running_loop().call_later(wait, callback)

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds / self.speed)


class _Stepped:
    __slots__ = ("callback",)

    def __init__(self, callback: Callable[[], None] | None) -> None:
        self.callback = callback

    def cancel(self) -> None:
        self.callback = None


class SteppedClock:
    """Time that moves only in ``advance``.

    After each moment at which something happened, advance waits until every client on the bus has
    read what was sent to it: what a client does on arrival, it does at the simulated time of
    arrival. An hour of one H10 takes some ten seconds.
    """

    def __init__(self, start_ns: int = 1_767_225_600 * NS) -> None:  # 2026-01-01
        self._now = start_ns
        self._timers: list[tuple[int, int, _Stepped]] = []
        self._serial = itertools.count()
        self.settlers: list[Callable[[], Awaitable[None]]] = []

    def time_ns(self) -> int:
        return self._now

    def call_at(self, when_ns: int, callback: Callable[[], None]) -> Timer:
        timer = _Stepped(callback)
        heapq.heappush(self._timers, (when_ns, next(self._serial), timer))
        return timer

    async def sleep(self, seconds: float) -> None:
        woken = asyncio.get_running_loop().create_future()
        timer = self.call_at(
            self._now + round(seconds * NS), lambda: woken.done() or woken.set_result(None)
        )
        try:
            await woken
        finally:
            timer.cancel()

    async def advance(self, seconds: float) -> None:
        """Let this much time pass."""
        end = self._now + round(seconds * NS)
        await self.settle()
        while self._timers and self._timers[0][0] <= end:
            when, _, timer = heapq.heappop(self._timers)
            if timer.callback is None:
                continue
            self._now = max(self._now, when)
            timer.callback()
            await self.settle()
        self._now = end

    async def advance_until(
        self, reached: Callable[[], bool], limit_s: float, step_s: float = 0.1
    ) -> None:
        """Let time pass until ``reached``; real work gets a moment of real time at each step.

        Raises:
            TimeoutError: it was not reached within ``limit_s`` of simulated time.
        """
        end = self._now + round(limit_s * NS)
        while not reached():
            if self._now >= end:
                raise TimeoutError(f"not reached within {limit_s} simulated seconds")
            await self.advance(step_s)
            await asyncio.sleep(0.001)

    async def settle(self) -> None:
        for _ in range(3):
            await asyncio.sleep(0)
        for settler in self.settlers:
            await settler()
        for _ in range(3):
            await asyncio.sleep(0)
