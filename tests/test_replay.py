"""Replay of recordings: when chunks come, and what times they carry. The clock is simulated."""

import asyncio
import math
import selectors
import time
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

import numpy as np
import pytest

from ingest.chunk import Chunk, Stream
from ingest.host import HostClock
from ingest.recordings import Recording, RecordingError, Segment
from ingest.replay import ReplaySource
from ingest.source import Source

T = TypeVar("T")
STREAM = Stream("p1", "tape")
START = 1_700_000_000_000_000_001


class SimulatedLoop(asyncio.SelectorEventLoop):
    """An event loop whose clock jumps to the next timer instead of waiting for it."""

    def __init__(self) -> None:
        self.now = 1000.0
        selector = selectors.DefaultSelector()
        super().__init__(selector)
        really_select = selector.select

        def select(timeout: float | None = None) -> Any:
            self.now += timeout or 0.0
            return really_select(0)

        selector.select = select  # type: ignore[method-assign]

    def time(self) -> float:
        return self.now


def simulate(main: Callable[[SimulatedLoop], Coroutine[Any, Any, T]]) -> T:
    with asyncio.Runner(loop_factory=SimulatedLoop) as runner:
        loop = runner.get_loop()
        assert isinstance(loop, SimulatedLoop)
        return runner.run(main(loop))


def deliveries(
    source: ReplaySource, consume: Callable[[SimulatedLoop, int], Awaitable[None]] | None = None
) -> list[tuple[float, Chunk]]:
    """Seconds after the start at which each chunk came, and the chunk."""

    async def main(loop: SimulatedLoop) -> list[tuple[float, Chunk]]:
        seen: list[tuple[float, Chunk]] = []
        async for chunk in source.chunks():
            seen.append((loop.time() - 1000.0, chunk))
            if consume is not None:
                await consume(loop, len(seen))
        return seen

    return simulate(main)


def ramp(
    *lengths_and_starts: tuple[int, float], rate: float = 130.0, start_ns: int | None = START
) -> Recording:
    """Lead I counts up through all segments; lead II is its negative."""
    segments, first = [], 0
    for length, start_s in lengths_and_starts:
        row = np.arange(first, first + length, dtype=np.float32)
        segments.append(Segment(start_s, np.stack([-row, row])))
        first += length
    return Recording("tape", ("II", "I"), rate, start_ns, tuple(segments))


def test_a_chunk_comes_when_its_last_sample_would_have_been_recorded() -> None:
    source: Source = ReplaySource(ramp((325, 0.0)), STREAM)
    assert source.name == "replay:tape"
    assert isinstance(source, ReplaySource)
    seen = deliveries(source)
    assert [t for t, _ in seen] == pytest.approx([1.0, 2.0, 2.5])
    assert [len(chunk.microvolts) for _, chunk in seen] == [130, 130, 65]
    joined = np.concatenate([chunk.microvolts for _, chunk in seen])
    np.testing.assert_array_equal(joined, np.arange(325, dtype=np.float32))
    first = seen[0][1]
    assert (first.stream, first.rate, first.contact, first.sequence) == (STREAM, 130.0, None, None)
    assert joined.dtype == np.float32


def test_times_are_exact_at_a_rate_that_no_nanosecond_divides() -> None:
    hours = 3
    recording = ramp((130 * 3600 * hours, 0.0))
    seen = deliveries(ReplaySource(recording, STREAM, speed=math.inf, chunk_s=0.1))
    for k, (_, chunk) in enumerate(seen):
        exact, rest = divmod(k * 13 * 10**9, 130)
        assert chunk.start_ns == START + exact + (rest * 2 > 130)


def test_a_gap_is_a_jump_of_time_and_takes_its_time() -> None:
    recording = ramp((130, 0.5), (130, 7201.5))
    for speed in (1.0, 60.0):
        seen = deliveries(ReplaySource(recording, STREAM, speed=speed))
        assert [t for t, _ in seen] == pytest.approx([1.5 / speed, 7202.5 / speed])
        assert [c.start_ns - START for _, c in seen] == [500_000_000, 7_201_500_000_000]


def test_a_gap_of_a_century_costs_nothing_at_full_speed() -> None:
    century_s = 100 * 365.25 * 86400
    seen = deliveries(ReplaySource(ramp((130, 0.0), (130, century_s)), STREAM, speed=math.inf))
    assert [t for t, _ in seen] == [0.0, 0.0]
    assert seen[1][1].start_ns - START == round(century_s) * 10**9


def test_chunks_do_not_cross_a_gap() -> None:
    recording = ramp((200, 0.0), (200, 10.0))
    seen = deliveries(ReplaySource(recording, STREAM, speed=math.inf))
    assert [len(c.microvolts) for _, c in seen] == [130, 70, 130, 70]


def test_delays_of_the_consumer_do_not_add_up() -> None:
    async def slow(loop: SimulatedLoop, _: int) -> None:
        await asyncio.sleep(0.3)

    seen = deliveries(ReplaySource(ramp((130 * 100, 0.0)), STREAM), slow)
    assert [t for t, _ in seen] == pytest.approx(np.arange(1, 101))


def test_after_a_stall_only_what_is_overdue_comes_at_once() -> None:
    async def stall_once(loop: SimulatedLoop, count: int) -> None:
        if count == 2:
            loop.now += 3.5  # the loop itself was held up

    seen = deliveries(ReplaySource(ramp((130 * 8, 0.0)), STREAM), stall_once)
    assert [t for t, _ in seen] == pytest.approx([1.0, 2.0, 5.5, 5.5, 5.5, 6.0, 7.0, 8.0])
    assert [c.start_ns - START for _, c in seen] == [k * 10**9 for k in range(8)]


def test_full_speed_lets_others_run() -> None:
    async def main(_: SimulatedLoop) -> list[str]:
        order: list[str] = []

        async def other() -> None:
            for _ in range(3):
                order.append("other")
                await asyncio.sleep(0)

        task = asyncio.create_task(other())
        source = ReplaySource(ramp((390, 0.0)), STREAM, speed=math.inf)
        async for chunk in source.chunks():
            order.append("chunk")
            assert len(chunk.microvolts) == 130
        await task
        return order

    assert simulate(main) == ["other", "chunk"] * 3


def test_the_start_is_given_or_recorded_or_the_present(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "time_ns", lambda: 42)

    def first(recording: Recording, start_ns: int | None = None) -> int:
        source = ReplaySource(recording, STREAM, speed=math.inf, start_ns=start_ns)
        return deliveries(source)[0][1].start_ns

    assert first(ramp((10, 0.0)), start_ns=0) == 0
    assert first(ramp((10, 0.0))) == START
    assert first(ramp((10, 0.0), start_ns=None)) == 42


def test_the_lead_is_chosen_by_name() -> None:
    source = ReplaySource(ramp((130, 0.0)), STREAM, lead="ii", speed=math.inf)
    assert deliveries(source)[0][1].microvolts[-1] == -129
    with pytest.raises(RecordingError, match="no lead 'V1'; it has II, I"):
        ReplaySource(ramp((130, 0.0)), STREAM, lead="V1")


def test_a_chunk_has_at_least_one_sample() -> None:
    source = ReplaySource(ramp((3, 0.0)), STREAM, speed=math.inf, chunk_s=1e-9)
    assert [len(c.microvolts) for _, c in deliveries(source)] == [1, 1, 1]


@pytest.mark.parametrize("bad", [{"speed": 0.0}, {"speed": -1.0}, {"speed": math.nan}])
def test_a_speed_must_be_positive(bad: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="speed is"):
        ReplaySource(ramp((3, 0.0)), STREAM, **bad)


@pytest.mark.parametrize("chunk_s", [0.0, -1.0, math.nan, math.inf])
def test_a_chunk_must_have_a_length(chunk_s: float) -> None:
    with pytest.raises(ValueError, match="chunk_s is"):
        ReplaySource(ramp((3, 0.0)), STREAM, chunk_s=chunk_s)


def test_times_follow_the_clock_of_the_host_when_it_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    set_by_ns, real = 0, time.time_ns
    monkeypatch.setattr("ingest.host.time.time_ns", lambda: real() + set_by_ns)

    async def set_it(_: SimulatedLoop, seen: int) -> None:
        nonlocal set_by_ns
        set_by_ns = {2: -3600 * 10**9, 3: 400_000_000 - 3600 * 10**9}.get(seen, set_by_ns)

    source = ReplaySource(ramp((130 * 4, 0.0)), STREAM, start_ns=START, host=HostClock())
    seen = [chunk for _, chunk in deliveries(source, set_it)]
    starts = [(chunk.start_ns - START) / 1e9 for chunk in seen]
    # Less than a second is no step.
    assert starts == pytest.approx([0, 1, 2 - 3600, 3 - 3600], abs=0.01)
    assert [chunk.gap_cause for chunk in seen] == [None, None, "host clock set", None]
