"""Which windows are a heart's, and why the others are not."""

import csv
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from ingest.chunk import Stream
from ingest.episodes import PULSELESS, Episode, EpisodeKind, Script
from ingest.simulator import simulate
from monitor.beats import Beats
from monitor.quality import Grade, Quality, Reason, assess, grade
from monitor.window import Window
from training.shards import read_shard

Signal = NDArray[np.floating]
BAD = Quality.BAD


def window(microvolts: Signal, rate: float = 130.0, *, contact: bool | None = None) -> Window:
    return Window(Stream("anna", "strap"), 0, rate, microvolts.astype(np.float32), contact)


def sinus(rate: float = 130.0, *, seconds: float = 10.0) -> Signal:
    script = Script((Episode(EpisodeKind.SINUS_RHYTHM, 60.0),))
    return simulate(script, rate=rate, seed=3, duration_s=seconds).microvolts.astype(np.float64)


def noise(low: float, high: float, seed: int, *, rate: float = 250.0) -> Signal:
    """Ten seconds of noise between two frequencies, of unit standard deviation."""
    n = round(10 * rate)
    spectrum = np.fft.rfft(np.random.default_rng(seed).normal(size=n))
    frequency = np.fft.rfftfreq(n, 1 / rate)
    spectrum[(frequency < low) | (frequency > high)] = 0
    signal: Signal = np.fft.irfft(spectrum, n)
    return signal / signal.std()


def assert_bad(judged: Grade, *reasons: Reason) -> None:
    assert judged == Grade(BAD, reasons)


@pytest.mark.parametrize("rate", [100.0, 125.0, 130.0, 250.0, 360.0, 500.0, 1000.0])
def test_a_heart_is_good_at_any_rate(rate: float) -> None:
    judged, beats = assess(window(sinus(rate), rate))
    assert judged == Grade(Quality.GOOD)
    assert beats is not None
    assert beats.heart_rate == pytest.approx(72, abs=12)


@pytest.mark.parametrize("factor", [0.1, -1.0, 5.0])
def test_a_heart_is_good_at_any_scale_and_polarity(factor: float) -> None:
    assert grade(window(factor * sinus())).good


def test_a_bad_window_has_no_beats() -> None:
    judged, beats = assess(window(np.zeros(1300)))
    assert_bad(judged, Reason.FLAT)
    assert beats is None


@pytest.mark.parametrize("level", [0.0, 1.0, -1e6, 3e38])
def test_a_constant_is_flat(level: float) -> None:
    assert_bad(grade(window(np.full(1300, level))), Reason.FLAT)


def test_an_electrode_that_comes_off_is_flat() -> None:
    signal = sinus()
    signal[700:] = signal[700]
    assert_bad(grade(window(signal)), Reason.FLAT)


def test_a_toggling_last_bit_is_flat() -> None:
    signal = sinus()
    signal[700:] = 4.0 * np.random.default_rng(1).integers(0, 2, 600)
    assert_bad(grade(window(signal)), Reason.FLAT)


def test_a_second_without_movement_is_not_flat() -> None:
    signal = sinus()
    at = int(np.argmin(np.abs(signal[500:600] - np.median(signal)))) + 500
    signal[at : at + 60] = signal[at]
    assert Reason.FLAT not in grade(window(signal)).reasons


def test_a_missing_sample_is_a_gap() -> None:
    signal = sinus()
    signal[5] = np.nan
    assert_bad(grade(window(signal)), Reason.GAP)


def test_no_samples_are_a_gap() -> None:
    assert_bad(grade(window(np.empty(0))), Reason.GAP)


def test_infinity_is_beyond_the_rail() -> None:
    signal = sinus()
    signal[5] = np.inf
    assert_bad(grade(window(signal)), Reason.SATURATED)


def test_no_contact_says_so_and_a_gap_as_well() -> None:
    signal = sinus()
    assert_bad(grade(window(signal, contact=False)), Reason.CONTACT)
    signal[5] = np.nan
    assert_bad(grade(window(signal, contact=False)), Reason.CONTACT, Reason.GAP)


def test_contact_is_no_proof_of_a_heart() -> None:
    assert grade(window(sinus(), contact=True)).good
    assert_bad(grade(window(np.zeros(1300), contact=True)), Reason.FLAT)


@pytest.mark.parametrize("sign", [1, -1])
def test_a_line_on_the_rail_is_saturated(sign: int) -> None:
    signal = sinus() + 6000 * np.sin(np.arange(1300) / 150)
    clipped = sign * np.clip(signal, -20_000, 4000)
    assert_bad(grade(window(clipped)), Reason.SATURATED)


def test_touching_the_highest_value_is_not_saturation() -> None:
    # A coarse converter repeats its extremes at the peaks, a sample or two at a time.
    assert grade(window(50 * np.round(sinus() / 50))).good


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize(
    ("low", "high"),
    [(0, 125), (20, 100), (0.5, 6), (3, 20), (8, 12), (0, 1)],
    ids=["white", "muscle", "movement", "both", "narrow", "wander"],
)
def test_noise_has_no_heart(low: float, high: float, seed: int) -> None:
    assert_bad(grade(window(100 * noise(low, high, seed), 250.0)), Reason.NOISY)


@pytest.mark.parametrize("seed", range(10))
def test_a_random_walk_has_no_heart(seed: int) -> None:
    walk = np.cumsum(np.random.default_rng(seed).normal(size=2500))
    assert_bad(grade(window(20 * walk, 250.0)), Reason.NOISY)


@pytest.mark.parametrize("rate", [125.0, 250.0, 500.0])
@pytest.mark.parametrize("hertz", [50, 60, 1, 8])
def test_a_hum_or_a_swing_has_no_heart(hertz: float, rate: float) -> None:
    t = np.arange(round(10 * rate)) / rate
    assert not grade(window(500 * np.sin(2 * np.pi * hertz * t), rate)).good


@pytest.mark.parametrize("hertz", [0.5, 1.0, 2.0])
@pytest.mark.parametrize("noise_uv", [0.0, 5.0, 30.0])
def test_square_pulses_have_no_heart(hertz: float, noise_uv: float) -> None:
    t = np.arange(2500) / 250
    pulses = 1000.0 * (np.sin(2 * np.pi * hertz * t + 0.3) > 0)
    assert not grade(window(pulses + noise_uv * noise(0, 125, 1), 250.0)).good


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(("low", "high"), [(0, 125), (15, 100), (3, 20)])
def test_a_heart_drowned_in_noise_is_noisy(low: float, high: float, seed: int) -> None:
    drowned = sinus(250.0) + 600 * noise(low, high, seed)
    assert_bad(grade(window(drowned, 250.0)), Reason.NOISY)


def test_wander_and_hum_that_a_filter_takes_away_are_not_noise() -> None:
    t = np.arange(2500) / 250
    signal = sinus(250.0) + 1000 * np.sin(0.5 * t) + 200 * np.sin(2 * np.pi * 50 * t)
    assert grade(window(signal, 250.0)).good


def test_a_heart_on_a_slope_a_hundred_times_its_height_is_noisy() -> None:
    slope = np.linspace(0, 1e5, 2500)
    assert grade(window(sinus(250.0) + 0.02 * slope, 250.0)).good
    assert_bad(grade(window(sinus(250.0) + slope, 250.0)), Reason.NOISY)


@pytest.mark.parametrize("pause_s", [3.0, 5.0, 7.0])
def test_a_pause_is_good_and_seen(pause_s: float) -> None:
    signal = sinus(seconds=20.0)
    _, before = assess(window(signal[:1300]))
    assert before is not None
    quiet = round((before.r_peaks_s[2] + 0.45) * 130)
    paused = signal[:1300].copy()
    n = min(round((pause_s - 0.45) * 130), 1300 - quiet)
    level = np.random.default_rng(2).normal(paused[quiet], 8, n)
    rest = signal[quiet : quiet + 1300 - quiet - n] + (level[-1] - signal[quiet])
    paused[quiet:] = np.concatenate([level, rest])
    judged, beats = assess(window(paused))
    assert judged.good
    assert beats is not None
    assert beats.longest_rr_s >= pause_s - 0.1


# Where there is no heartbeat or no shape of one, the grade is not what the watch goes by.
LETHAL = PULSELESS | {EpisodeKind.VENTRICULAR_TACHYCARDIA}


@pytest.mark.parametrize("kind", [kind for kind in EpisodeKind if kind not in LETHAL])
def test_every_simulated_rhythm_is_good(kind: EpisodeKind) -> None:
    simulation = simulate(Script((Episode(kind, 60.0),)), rate=130.0, seed=41)
    grades = []
    missed = 0
    for at in range(0, len(simulation.microvolts) - 1300 + 1, 650):
        judged, beats = assess(window(simulation.microvolts[at : at + 1300]))
        grades.append(judged.good)
        if beats is not None:
            missed += missed_peaks(beats, simulation.truth.r_peaks_s - simulation.times_s[at])
    assert np.mean(grades) >= 0.9
    assert missed == 0


def missed_peaks(beats: Beats, truth: Signal) -> int:
    inside = truth[(truth > 0.1) & (truth < 9.8)]
    return int((np.abs(inside[:, None] - beats.r_peaks_s).min(axis=1) > 0.1).sum())


@pytest.mark.parametrize("n", [1, 2, 5, 50, 129])
def test_a_window_too_short_for_two_beats_is_bad(n: int) -> None:
    assert not grade(window(sinus()[:n])).good


def test_a_rate_no_qrs_can_be_seen_at_is_noisy() -> None:
    assert_bad(grade(window(sinus()[::5], 26.0)), Reason.NOISY)


@given(
    arrays(np.float32, st.integers(0, 700), elements=st.floats(width=32)),
    st.floats(1, 2000),
    st.none() | st.booleans(),
)
@example(np.array([3.4e38, -3.4e38] * 300, np.float32), 250.0, None)
@example(np.array([1e-45, 0.0] * 300, np.float32), 250.0, None)
@settings(max_examples=150, deadline=None)
def test_whatever_comes_is_graded(samples: Signal, rate: float, contact: bool | None) -> None:
    judged, beats = assess(window(samples, rate, contact=contact))
    assert judged.good == (not judged.reasons)
    assert judged.good == (beats is not None)
    if np.isnan(samples).any():
        assert Reason.GAP in judged.reasons
    if contact is False:
        assert Reason.CONTACT in judged.reasons


@pytest.mark.data
def test_recorded_noise_is_told_from_recorded_hearts(data: Path) -> None:
    with (data / "cinc2017" / "labels.csv").open() as file:
        labels = {row["record"]: row["label"] for row in csv.DictReader(file)}
    grades: dict[str, list[bool]] = {"N": [], "A": [], "O": [], "~": []}
    for record in read_shard(data / "cinc2017" / "part6.npz"):
        for at in range(0, record.signal.shape[1] - 3000 + 1, 3000):
            judged = grade(window(record.signal[0, at : at + 3000], record.rate))
            grades[labels[record.id]].append(judged.good)
    good = {label: np.mean(each) for label, each in grades.items()}
    assert good["~"] <= 0.2
    assert good["N"] >= 0.85
    assert good["A"] >= 0.85
    assert good["O"] >= 0.8
