"""The simulated device: chunks, their times, contact, loss, pace and memory."""

import asyncio
import itertools
import math
import tracemalloc

import numpy as np
import pytest

from ingest import simulator
from ingest.chunk import Chunk, Stream
from ingest.simulator import Episode, EpisodeKind, Noise, Script, SimulatorSource, simulate
from ingest.source import Source

STREAM = Stream("anna", "strap")
T0 = 1_795_000_000_000_000_000
SCRIPT = Script(
    (
        Episode(EpisodeKind.SINUS_RHYTHM, 9),
        Episode(EpisodeKind.ATRIAL_FIBRILLATION, 11.5),
    ),
    noise=Noise(baseline_uv=40, mains_uv=5, muscle_uv=15, motion_per_minute=15),
)


def source(script: Script = SCRIPT, **told) -> SimulatorSource:
    return SimulatorSource(STREAM, script, **{"seed": 3, "speed": math.inf, "start_ns": T0, **told})


async def collect(a: Source, limit: int | None = None) -> list[Chunk]:
    chunks = []
    async for chunk in a.chunks():
        chunks.append(chunk)
        if len(chunks) == limit:
            break
    return chunks


@pytest.mark.parametrize("chunk_s", [1 / 130, 0.5, 73 / 130, 1.0, 9.99, 60.0])
async def test_samples_do_not_depend_on_the_chunk_size(chunk_s):
    chunks = await collect(source(chunk_s=chunk_s))
    together = np.concatenate([c.microvolts for c in chunks])
    np.testing.assert_array_equal(together, simulate(SCRIPT, seed=3).microvolts)
    assert {len(c.microvolts) for c in chunks[:-1]} <= {round(chunk_s * 130)}
    assert together.dtype == np.float32


async def test_chunks_are_of_the_stream_and_follow_each_other():
    chunks = await collect(source())
    assert {(c.stream, c.rate, c.contact) for c in chunks} == {(STREAM, 130.0, True)}
    assert chunks[0].start_ns == T0
    assert [c.sequence for c in chunks] == list(range(len(chunks)))
    assert all(abs(a.end_ns - b.start_ns) <= 1 for a, b in itertools.pairwise(chunks))


async def test_the_source_ends_with_the_script_and_starts_anew_each_time():
    a = source()
    first, second = await collect(a), await collect(a)
    assert sum(len(c.microvolts) for c in first) == round(20.5 * 130)
    np.testing.assert_array_equal(first[4].microvolts, second[4].microvolts)


async def test_repeat_goes_on_after_the_end():
    chunks = await collect(source(repeat=True), limit=55)
    together = np.concatenate([c.microvolts for c in chunks])
    np.testing.assert_array_equal(together, simulate(SCRIPT, seed=3, duration_s=55).microvolts)


@pytest.mark.parametrize("ppm", [-300.0, 80.0])
async def test_a_drifting_clock_shows_in_the_timestamps(ppm):
    script = Script((Episode(EpisodeKind.SINUS_RHYTHM, 600),), clock_ppm=ppm)
    chunks = await collect(source(script))
    done = 0
    for chunk in chunks:
        true_ns = done / (130 * (1 + ppm * 1e-6)) * 1e9
        assert chunk.start_ns - T0 == pytest.approx(true_ns, abs=1)
        assert chunk.rate == 130.0
        done += len(chunk.microvolts)
    assert done == round(600 * 130 * (1 + ppm * 1e-6))
    # The heart keeps true time: its beats lie where the timestamps, not the rate, say.
    simulation = simulate(script, seed=3)
    r = simulation.truth.r_peaks_s[-3]
    near = np.abs(simulation.times_s - r) < 0.06
    peak = simulation.times_s[near][np.argmax(simulation.microvolts[near])]
    assert peak == pytest.approx(r, abs=0.010)


async def test_lost_samples_are_a_jump_of_time_and_of_the_sequence():
    script = Script((Episode(EpisodeKind.SINUS_RHYTHM, 20, lost_s=((4.5, 7.25), (12, 13))),))
    chunks = await collect(source(script))
    whole = simulate(script, seed=3).microvolts
    assert sum(len(c.microvolts) for c in chunks) == np.isfinite(whole).sum()
    gaps = [
        ((a.end_ns - T0) / 1e9, (b.start_ns - T0) / 1e9, b.sequence - a.sequence)
        for a, b in itertools.pairwise(chunks)
        if b.start_ns - a.end_ns > 1
    ]
    assert [g[:2] for g in gaps] == [
        pytest.approx((4.5, 7.25), abs=1 / 130),
        pytest.approx((12, 13), abs=1 / 130),
    ]
    assert all(jump > 1 for _, _, jump in gaps)
    for chunk in chunks:
        at = round((chunk.start_ns - T0) * 130e-9)
        np.testing.assert_array_equal(chunk.microvolts, whole[at : at + len(chunk.microvolts)])


@pytest.mark.parametrize("reports_contact", [True, False])
async def test_contact_is_reported_sample_by_sample_if_at_all(reports_contact):
    script = Script(
        (Episode(EpisodeKind.SINUS_RHYTHM, 20, electrode_off_s=((4.5, 7.25),)),),
        reports_contact=reports_contact,
    )
    chunks = await collect(source(script))
    assert sum(len(c.microvolts) for c in chunks) == 20 * 130
    flat = [c for c in chunks if not np.any(c.microvolts)]
    assert sum(len(c.microvolts) for c in flat) == pytest.approx(2.75 * 130, abs=1)
    for chunk in chunks:
        expected = not any(chunk is c for c in flat) if reports_contact else None
        assert chunk.contact is expected


class FakeTime:
    """A loop clock that moves only when somebody sleeps."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.slept: list[float] = []

    def time(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


@pytest.mark.parametrize("speed", [1.0, 20.0])
async def test_chunks_come_when_their_last_sample_is_due(monkeypatch, speed):
    clock = FakeTime()
    monkeypatch.setattr(simulator.asyncio, "sleep", clock.sleep)
    monkeypatch.setattr(simulator.asyncio, "get_running_loop", lambda: clock)
    done = 0
    async for chunk in source(speed=speed).chunks():
        done += len(chunk.microvolts)
        # A consumer that dawdles is caught up with; lateness does not add up.
        assert clock.now == pytest.approx(1000 + done / 130 / speed)
        clock.now += 0.4 / speed
    assert max(clock.slept) <= 1 / speed + 1e-6


async def test_full_speed_leaves_the_loop_its_turns():
    turns = 0

    async def bystander() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    task = asyncio.create_task(bystander())
    chunks = await collect(source())
    task.cancel()
    assert turns >= len(chunks)


async def test_the_present_is_the_default_start(monkeypatch):
    monkeypatch.setattr(simulator.time, "time_ns", lambda: T0 + 5)
    assert (await collect(source(start_ns=None), limit=1))[0].start_ns == T0 + 5


async def test_memory_does_not_grow():
    episodes = tuple(Episode(kind, 20) for kind in EpisodeKind)
    script = Script(episodes, noise=SCRIPT.noise)
    a = source(script, repeat=True)
    held = []
    tracemalloc.start()
    try:
        done = 0
        async for _ in a.chunks():
            done += 1
            if done % 600 == 0:
                held.append(tracemalloc.get_traced_memory()[0])
            if done == 3000:
                break
    finally:
        tracemalloc.stop()
    assert max(held[1:]) - held[0] < 100_000


@pytest.mark.parametrize(
    ("told", "message"),
    [
        ({"speed": 0}, "speed must be greater than 0"),
        ({"speed": math.nan}, "speed must be greater than 0"),
        ({"chunk_s": 0.001}, "chunk_s must be at least one sample"),
        ({"chunk_s": math.inf}, "chunk_s must be at least one sample"),
        ({"rate": 25.0}, "rate must be 100 to 2000 Hz, not 25"),
    ],
)
def test_impossible_settings_are_refused(told, message):
    with pytest.raises(ValueError, match=message):
        source(**told)
