"""Pauses while they last: simulated hearts that stand still, and lines that only look like it."""

import itertools
from collections.abc import Iterator

import numpy as np
import pytest
from numpy.typing import NDArray

from alerts.conditions import Observation, State
from alerts.engine import Engine
from alerts.policy import Policy
from ingest.chunk import Chunk, Stream
from ingest.simulator import Episode, EpisodeKind, Noise, Script, simulate
from monitor.pauses import PauseWatch
from monitor.quality import assess
from monitor.ring import Ring

K = EpisodeKind
S = 1_000_000_000
RATE = 130.0
STREAM = Stream("grandma", "strap")
USUAL = Noise(baseline_uv=60, mains_uv=10, muscle_uv=12)

Signal = NDArray[np.float32]


def heart(
    *episodes: Episode, seed: int = 1, noise: Noise = USUAL
) -> tuple[Signal, NDArray[np.float64]]:
    """Samples and the times of the R peaks."""
    simulation = simulate(Script(episodes, noise=noise), rate=RATE, seed=seed)
    return simulation.microvolts, simulation.truth.r_peaks_s


def pausing(pause_s: float, *, rate: float = 70, seed: int = 1) -> tuple[Signal, float, float]:
    """Half a minute of sinus rhythm and then a pause; when it begins and ends."""
    signal, peaks = heart(
        Episode(K.SINUS_RHYTHM, 30, heart_rate=rate),
        Episode(K.SINUS_ARREST, 38, heart_rate=rate, per_minute=1.5, pause_s=pause_s),
        seed=seed,
    )
    longest = int(np.argmax(np.diff(peaks)))
    assert peaks[longest + 1] - peaks[longest] == pytest.approx(pause_s, abs=0.02)
    return signal, float(peaks[longest]), float(peaks[longest + 1])


def chunks(
    signal: Signal, *, chunk_s: float = 1.0, contact: bool | None = None, start_s: float = 0.0
) -> Iterator[Chunk]:
    size = round(chunk_s * RATE)
    for first in range(0, len(signal), size):
        start_ns = round((start_s + first / RATE) * S)
        yield Chunk(STREAM, start_ns, RATE, signal[first : first + size], contact)


def told(watch: PauseWatch, *runs: Iterator[Chunk]) -> list[tuple[float, Observation]]:
    """When the watch told of a pause, in seconds, and what."""
    return [
        (chunk.end_ns / S, seen)
        for chunk in itertools.chain(*runs)
        if (seen := watch.add(chunk)) is not None
    ]


def watched(signal: Signal, limit_s: float = 4.0) -> list[tuple[float, Observation]]:
    return told(PauseWatch(STREAM, limit_s), chunks(signal))


@pytest.mark.parametrize(
    ("pause_s", "rate", "chunk_s"),
    [
        (4.0, 70, 1.0),
        (4.3, 45, 0.2),
        (4.3, 95, 1.0),
        (5.0, 70, 0.2),
        (8.0, 45, 1.0),
        (15.0, 95, 1.0),
    ],
)
def test_a_pause_is_told_within_six_seconds(pause_s: float, rate: float, chunk_s: float) -> None:
    signal, begin, _ = pausing(pause_s, rate=rate, seed=int(pause_s))
    seen = told(PauseWatch(STREAM, 4.0), chunks(signal, chunk_s=chunk_s))
    at, first = seen[0]
    assert 4.0 <= at - begin <= 5.2
    assert first.longest_rr_s == pytest.approx(min(at - begin, pause_s), abs=0.05)
    assert first.start_ns / S == pytest.approx(begin, abs=0.03)


def test_what_is_told_says_nothing_but_the_pause() -> None:
    signal, begin, _ = pausing(15)
    at, seen = watched(signal)[0]
    assert seen == Observation(
        "grandma", seen.start_ns, round(at * S), True, {}, None, seen.longest_rr_s
    )
    assert seen.longest_rr_s == pytest.approx(at - begin, abs=0.03)


def test_a_pause_that_goes_on_is_told_again_every_five_seconds() -> None:
    signal, begin, _ = pausing(20)
    seen = watched(signal)
    assert np.diff([at for at, _ in seen]) == pytest.approx([5, 5, 5])
    assert [o.longest_rr_s for _, o in seen] == pytest.approx(
        [at - begin for at, _ in seen], abs=0.05
    )
    # What it covers is the last ten seconds at most: a window among windows.
    assert [o.end_ns - o.start_ns for _, o in seen][2:] == [10 * S, 10 * S]


def test_a_pause_is_told_of_once_if_it_ends_before_five_seconds_more() -> None:
    assert len(watched(pausing(8)[0])) == 1
    assert len(watched(pausing(4.3)[0])) == 1


@pytest.mark.parametrize(("limit_s", "tells"), [(2.5, True), (4.0, False), (8.0, False)])
def test_the_limit_is_the_patients(limit_s: float, tells: bool) -> None:
    signal, begin, _ = pausing(3.5)
    seen = watched(signal, limit_s)
    assert bool(seen) is tells
    if seen:
        assert limit_s <= seen[0][0] - begin <= limit_s + 1.1


def test_a_limit_of_many_seconds() -> None:
    signal, begin, _ = pausing(15)
    at, _ = watched(signal, 9.0)[0]
    assert 9 <= at - begin <= 10.1


@pytest.mark.parametrize(
    "noise",
    [
        USUAL,
        Noise(baseline_uv=60, mains_uv=10, muscle_uv=12, motion_per_minute=12, motion_uv=1500),
        Noise(baseline_uv=100, mains_uv=50, muscle_uv=60, motion_per_minute=20, motion_uv=3000),
    ],
)
def test_no_pause_in_hearts_that_have_none(noise: Noise) -> None:
    signal, peaks = heart(
        Episode(K.SINUS_BRADYCARDIA, 90, heart_rate=35),
        Episode(K.VENTRICULAR_ECTOPY, 90, per_minute=12),
        Episode(K.ATRIAL_FIBRILLATION, 90, heart_rate=60),
        Episode(K.VENTRICULAR_RUNS, 90),
        noise=noise,
    )
    assert np.diff(peaks).max() < 3.9
    assert watched(signal) == []


def off(line: Signal, contact: bool | None = None) -> list[tuple[float, Observation]]:
    """A heart whose electrode comes off after 40 s, for 20 s of ``line``."""
    signal, _ = heart(Episode(K.SINUS_RHYTHM, 80))
    at, back = round(40.37 * RATE), round(60.37 * RATE)
    watch = PauseWatch(STREAM, 4.0)
    return told(
        watch,
        chunks(signal[:at], contact=None if contact is None else True),
        chunks(line[: back - at], contact=contact, start_s=at / RATE),
        chunks(signal[back:], contact=None if contact is None else True, start_s=back / RATE),
    )


def white(rms_uv: float) -> Signal:
    noise = np.random.default_rng(1).standard_normal(round(30 * RATE))
    return (rms_uv * noise).astype(np.float32)


def hum(amplitude_uv: float) -> Signal:
    t = np.arange(round(30 * RATE)) / RATE
    return (amplitude_uv * np.sin(2 * np.pi * 50 * t)).astype(np.float32)


@pytest.mark.parametrize(
    "line", [white(0), white(2), white(60), white(1000), hum(100), hum(2000), white(0) + 20_000]
)
def test_an_electrode_that_is_off_is_no_asystole(line: Signal) -> None:
    assert off(line) == []


def test_a_device_that_says_there_is_no_contact_is_believed() -> None:
    # The line itself is that of a heart that stands still.
    signal, begin, _ = pausing(20)
    line = signal[round((begin + 0.5) * RATE) :]
    assert off(line, contact=True) != []
    assert off(line, contact=False) == []


def test_missing_samples_are_no_pause() -> None:
    signal, begin, _ = pausing(15)
    lost = [chunk for chunk in chunks(signal) if not begin + 1 < chunk.start_ns / S < begin + 3]
    assert told(PauseWatch(STREAM, 4.0), iter(lost)) == []
    signal[round((begin + 2) * RATE)] = np.nan
    assert watched(signal) == []


def test_after_a_gap_the_heart_must_be_seen_for_twenty_seconds() -> None:
    signal, begin, _ = pausing(15)
    for before_s, tells in ((9, False), (17, True)):
        late = round((begin - before_s) * RATE)
        watch = PauseWatch(STREAM, 4.0)
        seen = told(
            watch, chunks(signal[:late]), chunks(signal[late:], start_s=begin - before_s + 9)
        )
        assert any(at < begin + 9 + 6 for at, _ in seen) is tells


def test_a_clock_set_back_and_chunks_sent_twice_do_no_harm() -> None:
    signal, _, end = pausing(6)
    watch = PauseWatch(STREAM, 4.0)
    twice = [chunk for chunk in chunks(signal[: round(20 * RATE)]) for _ in range(2)]
    assert told(watch, iter(twice), chunks(signal, start_s=-3600)) != []
    assert watch.add(Chunk(STREAM, round(end * S), RATE, np.empty(0, np.float32))) is None


def test_a_signal_too_slow_for_a_qrs_complex_is_not_looked_at() -> None:
    watch = PauseWatch(STREAM, 4.0)
    slow = [Chunk(STREAM, i * S, 25.0, white(100)[:25]) for i in range(40)]
    assert told(watch, iter(slow)) == []


def test_hearts_that_artefacts_outshone_beat_on() -> None:
    signal, peaks = heart(Episode(K.SINUS_RHYTHM, 80, heart_rate=60))
    t = np.arange(len(signal)) / RATE
    for at in np.arange(40.0, 47.0, 0.8):
        signal += (8000 * np.exp(-0.5 * ((t - at) / 0.012) ** 2)).astype(np.float32)
    assert peaks[-1] > 79
    assert watched(signal) == []


def standstill(seconds: float, p_wave_uv: float) -> tuple[Signal, float]:
    """Ventricles that stand still while the atria beat on, and when the last QRS complex is."""
    signal, begin, end = pausing(20)
    start, stop = round((begin + 0.8) * RATE), round((end - 0.5) * RATE)
    still = signal[start:stop]
    pieces = [still, still[::-1]] * (round(seconds) // 19)
    line = np.concatenate(pieces)
    t = np.arange(len(line)) / RATE
    for at in np.arange(0.4, t[-1], 0.8):
        line += (p_wave_uv * np.exp(-0.5 * ((t - at) / 0.028) ** 2)).astype(np.float32)
    return np.concatenate([signal[:start], line, signal[stop:]]), begin


@pytest.mark.parametrize("p_wave_uv", [0, 120])
def test_asystole_stays_on_until_beats_come_back(p_wave_uv: float) -> None:
    signal, begin = standstill(150, p_wave_uv)
    last = len(signal) / RATE
    engine = Engine(lambda _: Policy())
    watch, ring = PauseWatch(STREAM, 4.0), Ring(STREAM, length_s=10.0, hop_s=5.0)
    changes = []
    for chunk in itertools.chain(
        chunks(signal), chunks(heart(Episode(K.SINUS_RHYTHM, 90))[0], start_s=last)
    ):
        pause = watch.add(chunk)
        changes += engine.step(pause) if pause else []
        for window in ring.add(chunk).windows:
            grade, beats = assess(window)
            longest = beats.longest_rr_s if beats else None
            changes += engine.step(
                Observation(
                    "grandma", window.start_ns, window.end_ns, grade.good, {}, None, longest
                )
            )
    (raised, ended) = [c for c in changes if c.alarm.condition == "pause"]
    assert raised.alarm.started_ns / S == pytest.approx(begin, abs=0.03)
    assert raised.at_ns / S - begin <= 5.1
    assert ended.state is State.ENDED
    assert ended.at_ns / S > begin + 150
