"""What is taken for a heart that has stopped, and is not: beats and movements, measured."""

import math

import numpy as np
import pytest
from numpy.typing import NDArray

from ingest.activities import IMITATORS
from ingest.simulator import BeatType, Episode, EpisodeKind, Noise, Script, Simulation, simulate

K = EpisodeKind
SEEDS = range(4)
RATE = 250
Signal = NDArray[np.float64]


def heart(
    kind: EpisodeKind = K.SINUS_RHYTHM,
    seconds: float = 60,
    *,
    seed: int = 0,
    rate: float = RATE,
    noise: Noise | None = None,
    **told: float,
) -> Simulation:
    script = Script((Episode(kind, seconds, noise=noise, **told),))
    return simulate(script, rate=rate, seed=seed)


def added(noise: Noise, *, seed: int, seconds: float = 120, rate: float = RATE) -> Signal:
    """What a noise adds to the same heart, which it leaves alone, from the second second on."""
    noisy, clean = (heart(seconds=seconds, seed=seed, rate=rate, noise=n) for n in (noise, None))
    np.testing.assert_array_equal(noisy.truth.r_peaks_s, clean.truth.r_peaks_s)
    return np.asarray(noisy.microvolts - clean.microvolts, np.float64)[round(rate) :]


def power(x: Signal) -> tuple[Signal, Signal]:
    """Average the spectra of Hann-windowed pieces of 8 s: frequencies, power as a share."""
    n = 8 * RATE
    pieces = [x[a : a + n] for a in range(0, len(x) - n + 1, n // 2)]
    total = np.mean([np.abs(np.fft.rfft((p - p.mean()) * np.hanning(n))) ** 2 for p in pieces], 0)
    return np.fft.rfftfreq(n, 1 / RATE), total / total.sum()


def share(x: Signal, low: float, high: float) -> float:
    hz, p = power(x)
    return float(p[(hz >= low) & (hz < high)].sum())


def peak_hz(x: Signal) -> float:
    hz, p = power(x)
    return float(hz[np.argmax(p)])


# --- movements


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(
    ("noise", "rms", "hz"),
    [
        (Noise(gait_uv=200), 200, 1.8),
        (Noise(gait_uv=400, gait_hz=2.7), 400, 2.7),
        (Noise(compressions_uv=900), 900, 110 / 60),
        (Noise(compressions_uv=500, compressions_per_minute=120), 500, 2.0),
        (Noise(tremor_uv=150), 150, 5.0),
        (Noise(tremor_uv=300, tremor_hz=4), 300, 4.0),
        (Noise(brushing_uv=300, brushing_hz=4), 300, 4.0),
        (Noise(brushing_uv=300, brushing_hz=7), 300, 7.0),
    ],
)
def test_a_rhythmic_movement_has_its_rate_and_strength(noise, rms, hz, seed):
    x = added(noise, seed=seed)
    assert peak_hz(x) == pytest.approx(hz, rel=0.08)
    # Teeth are brushed with pauses; the rest goes on.
    assert x.std() == pytest.approx(rms, rel=0.3 if noise.brushing_uv else 0.2)


@pytest.mark.parametrize("seed", SEEDS)
def test_compressions_are_rich_in_harmonics(seed):
    x = added(Noise(compressions_uv=800, compressions_per_minute=105), seed=seed)
    bands = [share(x, 1.75 * k - 0.4, 1.75 * k + 0.4) for k in range(1, 5)]
    assert sum(bands) > 0.9
    assert bands[0] > bands[2] > bands[3] > 0.003
    assert bands[1] > 0.05


@pytest.mark.parametrize("seed", SEEDS)
def test_two_steps_are_a_stride(seed):
    """Half the rate of the steps is there, and their harmonics up to some 10 Hz."""
    x = added(Noise(gait_uv=300, gait_hz=2), seed=seed)
    assert 0.02 < share(x, 0.75, 1.25) < 0.3
    assert share(x, 3.5, 10.5) > 0.15


@pytest.mark.parametrize("seed", SEEDS)
def test_brushing_comes_in_bouts_with_the_muscle_at_work(seed):
    x = added(Noise(brushing_uv=300), seed=seed, seconds=240)
    seconds = x[: len(x) // RATE * RATE].reshape(-1, RATE).std(axis=1)
    assert 0.02 < np.mean(seconds < 60) < 0.35
    assert np.median(seconds) > 200
    # Of muscle, 0.35 in the mean square of a half sine: 5 % of the power, above 15 Hz.
    assert 0.02 < share(x, 15, 125) < 0.12
    # The sway is the better part, and as narrow as fibrillation.
    assert share(x, 4.5, 6.5) > 0.6


@pytest.mark.parametrize("seed", SEEDS)
def test_electrodes_move_in_the_band_of_the_ecg(seed):
    x = added(Noise(electrode_uv=300), seed=seed, seconds=240)
    assert x.std() == pytest.approx(300, rel=0.35)
    assert share(x, 0, 14) > 0.97
    assert share(x, 1, 14) > 0.3
    assert share(x, 5, 14) > 0.08
    # Bumps beside: more than a Gaussian of this strength would ever reach is not rare.
    assert np.abs(x).max() > 3 * x.std()


@pytest.mark.parametrize("name", IMITATORS)
def test_a_movement_begins_and_ends_within_half_a_second(name):
    episodes = (
        Episode(K.SINUS_RHYTHM, 10),
        Episode(K.SINUS_RHYTHM, 20, noise=IMITATORS[name]),
        Episode(K.SINUS_RHYTHM, 10),
    )
    quiet = (Episode(K.SINUS_RHYTHM, 10), Episode(K.SINUS_RHYTHM, 20), episodes[2])
    moved, still = (simulate(Script(e), rate=RATE, seed=1).microvolts for e in (episodes, quiet))
    x = np.abs(moved - still)
    assert x[: 10 * RATE].max() == 0
    assert x[11 * RATE : 29 * RATE].max() > 150
    # An electrode that shifted takes its time to settle.
    assert x[round(30.6 * RATE) :].max() == 0 or name in {"electrode_motion", "walking", "running"}
    assert x[38 * RATE :].max() < 1


@pytest.mark.parametrize("name", IMITATORS)
def test_the_heart_beats_on_whoever_moves(name):
    moved, still = (heart(seed=2, noise=noise) for noise in (IMITATORS[name], None))
    np.testing.assert_array_equal(moved.truth.r_peaks_s, still.truth.r_peaks_s)
    x = np.asarray(moved.microvolts, np.float64)
    # The average beat comes out of the movement, for nobody moves in step with it.
    at = np.rint(still.truth.r_peaks_s[2:-2] * RATE).astype(int)
    beats = np.mean([x[i - 20 : i + 20] for i in at], axis=0)
    assert abs(np.argmax(beats) - 20) <= 1
    assert x.std() > 1.5 * still.microvolts.std()


@pytest.mark.parametrize("kind", [K.ASYSTOLE, K.VENTRICULAR_FIBRILLATION, K.SINUS_RHYTHM])
def test_compressions_are_the_same_over_any_rhythm(kind):
    noise = Noise(compressions_uv=800)
    x = heart(kind, seed=3, noise=noise).microvolts - heart(kind, seed=3).microvolts
    expected = added(noise, seed=3, seconds=60)
    np.testing.assert_allclose(x[RATE:], expected, atol=0.01)


def test_movements_without_muscle_are_the_same_at_every_rate():
    noise = Noise(compressions_uv=500)
    low, high = (added(noise, seed=4, seconds=20, rate=rate) for rate in (125, 500))
    np.testing.assert_allclose(low, high[::4], atol=1)


def test_one_movement_does_not_change_another():
    both, one = Noise(tremor_uv=100, compressions_uv=400), Noise(compressions_uv=400)
    other = added(Noise(tremor_uv=100), seed=5)
    np.testing.assert_allclose(added(both, seed=5), added(one, seed=5) + other, atol=0.01)


@pytest.mark.parametrize(
    ("told", "message"),
    [
        ({"gait_uv": -1}, "gait_uv must be 0 to 10000 µV, not -1"),
        ({"gait_hz": 4}, "gait_hz must be 1.5 to 3 Hz, not 4"),
        ({"brushing_hz": 3}, "brushing_hz must be 4 to 7 Hz, not 3"),
        ({"compressions_per_minute": 60}, "compressions_per_minute must be 80 to 140, not 60"),
        ({"tremor_hz": 12}, "tremor_hz must be 4 to 8 Hz, not 12"),
        ({"electrode_uv": math.nan}, "electrode_uv must be 0 to 10000 µV, not nan"),
        ({"motion_per_minute": 61}, "motion_per_minute must be 0 to 60, not 61"),
    ],
)
def test_impossible_movements_are_refused(told, message):
    with pytest.raises(ValueError, match=message):
        Noise(**told)


# --- beats


def beat(simulation: Simulation, start_s: float, end_s: float) -> Signal:
    """Average the beats but for the first and last two: float64 [n], from ``start_s`` around R."""
    rows = []
    for r in simulation.truth.r_peaks_s[2:-2]:
        at = round(r * RATE)
        rows.append(simulation.microvolts[at + round(start_s * RATE) : at + round(end_s * RATE)])
    return np.mean(np.array(rows, np.float64), axis=0)


def qrs_s(simulation: Simulation) -> float:
    """Time from the first to the last steep place of the average beat around R, in s."""
    x = beat(simulation, -0.12, 0.12)
    slope = np.abs(np.gradient(x))
    steep = np.flatnonzero(slope > 0.08 * slope.max())
    return float(np.ptp(steep) / RATE)


@pytest.mark.parametrize("seed", SEEDS)
def test_bundle_branch_blocks_are_wide(seed):
    told = {"seed": seed, "heart_rate": 60}
    left, right, narrow = (
        heart(kind, **told)
        for kind in (K.LEFT_BUNDLE_BRANCH_BLOCK, K.RIGHT_BUNDLE_BRANCH_BLOCK, K.SINUS_RHYTHM)
    )
    assert set(left.truth.beat_types) == {BeatType.LEFT_BUNDLE_BRANCH_BLOCK}
    assert set(right.truth.beat_types) == {BeatType.RIGHT_BUNDLE_BRANCH_BLOCK}
    np.testing.assert_array_equal(left.truth.r_peaks_s, narrow.truth.r_peaks_s)
    assert 0.04 < qrs_s(narrow) < 0.1
    assert 0.11 < qrs_s(left) < 0.18
    assert 0.11 < qrs_s(right) < 0.18
    # In lead I the left one has no S and T points down; the right one has a broad S, and T is up.
    assert beat(left, 0.04, 0.075).min() > -110
    assert (beat(right, 0.04, 0.075) - beat(narrow, 0.04, 0.075)).mean() < -100
    assert beat(left, 0.24, 0.30).mean() < 0 < beat(right, 0.24, 0.30).mean()


@pytest.mark.parametrize("seed", SEEDS)
def test_a_pacemaker_beats_time_with_a_spike_before_each_beat(seed):
    paced, without = (
        heart(K.PACED_RHYTHM, seed=seed, heart_rate=70, spike_uv=uv) for uv in (800, 0)
    )
    gaps = np.diff(paced.truth.r_peaks_s)
    assert gaps.std() < 0.001
    assert gaps.mean() == pytest.approx(60 / 70, abs=0.001)
    assert set(paced.truth.beat_types) == {BeatType.PACED}
    spikes = np.asarray(paced.microvolts - without.microvolts, np.float64)
    tops = np.flatnonzero(
        (spikes[1:-1] > 500) & (spikes[1:-1] >= spikes[:-2]) & (spikes[1:-1] > spikes[2:])
    )
    to_r = paced.truth.r_peaks_s[-len(tops) :] - (tops + 1) / RATE
    np.testing.assert_allclose(to_r, 0.11, atol=0.005)
    assert len(tops) >= len(gaps)
    assert 600 < spikes.max() < 950
    assert 0.11 < qrs_s(without) < 0.18


@pytest.mark.parametrize("seed", SEEDS)
def test_supraventricular_tachycardia_is_narrow_regular_and_sudden(seed):
    script = Script((Episode(K.SINUS_RHYTHM, 20), Episode(K.SUPRAVENTRICULAR_TACHYCARDIA, 20)))
    simulation = simulate(script, rate=RATE, seed=seed)
    r = simulation.truth.r_peaks_s
    fast = np.diff(r[r >= 20])
    np.testing.assert_allclose(fast, 1 / 3, atol=0.02)
    assert np.diff(r[r < 20]).min() > 0.6
    assert set(simulation.truth.beat_types) == {BeatType.NORMAL}
    alone = heart(K.SUPRAVENTRICULAR_TACHYCARDIA, seed=seed)
    assert np.ptp(beat(alone, -0.02, 0.02)) > 400
    # Narrow: half its height is over within 20 ms on both sides.
    x = beat(alone, -0.04, 0.04)
    assert (x > x.max() / 2).sum() / RATE < 0.04


@pytest.mark.parametrize(
    ("told", "message"),
    [
        ({"kind": K.PACED_RHYTHM, "heart_rate": 200}, "heart_rate .* 40 to 180"),
        ({"kind": K.PACED_RHYTHM, "spike_uv": 6000}, "spike_uv .* 0 to 5000 µV"),
        ({"kind": K.SUPRAVENTRICULAR_TACHYCARDIA, "heart_rate": 100}, "heart_rate .* 140 to 250"),
        ({"kind": K.LEFT_BUNDLE_BRANCH_BLOCK, "spike_uv": 100}, "spike_uv does not belong"),
    ],
)
def test_impossible_episodes_are_refused(told, message):
    with pytest.raises(ValueError, match=message):
        Episode(**{"duration_s": 60, **told})
