"""The simulated heart: rhythm, shape and truth agree, whatever is asked of it."""

import hashlib
import itertools
import math

import numpy as np
import pytest
from numpy.typing import NDArray

from ingest.episodes import PULSELESS
from ingest.simulator import BeatType, Episode, EpisodeKind, Noise, Script, Simulation, simulate

K = EpisodeKind
BEATING = [kind for kind in K if kind not in PULSELESS]
SEEDS = range(5)


def run(kind: EpisodeKind, seconds: float = 60, *, seed: int = 0, rate: float = 250, **told):
    return simulate(Script((Episode(kind, seconds, **told),)), rate=rate, seed=seed)


def rr(simulation: Simulation) -> NDArray[np.float64]:
    return np.diff(simulation.truth.r_peaks_s)


def irregularity(simulation: Simulation) -> float:
    """RMSSD over mean RR."""
    x = rr(simulation)
    return float(np.sqrt(np.mean(np.diff(x) ** 2)) / x.mean())


def beats_of(
    simulation: Simulation, start_s: float, end_s: float, kind: BeatType = BeatType.NORMAL
) -> NDArray[np.float64]:
    """Cut [beats, samples] around the R peaks of one type, but for the first two seconds."""
    a, b = round(start_s * simulation.rate), round(end_s * simulation.rate)
    rows = []
    for r, t in zip(simulation.truth.r_peaks_s, simulation.truth.beat_types, strict=True):
        at = round(r * simulation.rate)
        if t is kind and r > 2 and at + a >= 0 and at + b <= len(simulation.microvolts):
            rows.append(simulation.microvolts[at + a : at + b])
    return np.array(rows, np.float64)


def level(simulation: Simulation, start_s: float, end_s: float) -> float:
    """Mean of the average normal beat over a span around R, above its PR segment."""
    segment = beats_of(simulation, -0.065, -0.048).mean()
    return float(beats_of(simulation, start_s, end_s).mean() - segment)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(
    ("kind", "told", "expected"),
    [
        (K.SINUS_RHYTHM, {}, 72),
        (K.SINUS_RHYTHM, {"heart_rate": 95}, 95),
        (K.SINUS_BRADYCARDIA, {}, 45),
        (K.SINUS_BRADYCARDIA, {"heart_rate": 35}, 35),
        (K.SINUS_TACHYCARDIA, {}, 125),
        (K.SINUS_TACHYCARDIA, {"heart_rate": 170}, 170),
        (K.ATRIAL_FIBRILLATION, {}, 105),
        (K.ATRIAL_FIBRILLATION, {"heart_rate": 60}, 60),
        (K.ATRIAL_FIBRILLATION, {"heart_rate": 170}, 170),
        (K.ATRIAL_FLUTTER, {}, 75),
        (K.ATRIAL_FLUTTER, {"conduction": 2}, 150),
        (K.ATRIAL_FLUTTER, {"conduction": 3, "heart_rate": 90}, 90),
        (K.FIRST_DEGREE_AV_BLOCK, {}, 66),
        (K.ST_ELEVATION, {}, 80),
        (K.VENTRICULAR_ECTOPY, {}, 72),
        (K.VENTRICULAR_BIGEMINY, {}, 72),
        (K.SUPRAVENTRICULAR_TACHYCARDIA, {}, 180),
        (K.SUPRAVENTRICULAR_TACHYCARDIA, {"heart_rate": 230}, 230),
        (K.LEFT_BUNDLE_BRANCH_BLOCK, {}, 75),
        (K.LEFT_BUNDLE_BRANCH_BLOCK, {"heart_rate": 170}, 170),
        (K.RIGHT_BUNDLE_BRANCH_BLOCK, {}, 75),
        (K.PACED_RHYTHM, {}, 70),
    ],
)
def test_heart_rate_is_the_one_told(kind, told, expected, seed):
    simulation = run(kind, 180, seed=seed, rate=130, **told)
    tolerance = 0.06 if kind is K.ATRIAL_FIBRILLATION else 0.02
    assert 60 / rr(simulation).mean() == pytest.approx(expected, rel=tolerance)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("kind", BEATING)
def test_truth_sits_on_the_peaks_of_the_signal(kind, seed):
    simulation = run(kind, 60, seed=seed, rate=500)
    baseline = np.median(simulation.microvolts)
    seen = 0
    for r in simulation.truth.r_peaks_s:
        near = np.flatnonzero(np.abs(simulation.times_s - r) <= 0.06)
        if r < 0.1 or r > 59.9:
            continue
        peak = near[np.argmax(np.abs(simulation.microvolts[near] - baseline))]
        assert simulation.times_s[peak] == pytest.approx(r, abs=0.010)
        assert abs(simulation.microvolts[peak] - baseline) > 300
        seen += 1
    assert seen > 40


def test_rr_is_ordered_and_physiological_across_every_change_of_rhythm():
    script = Script(tuple(Episode(k, 20) for k in itertools.chain(BEATING, reversed(BEATING))))
    for seed in SEEDS:
        gaps = rr(simulate(script, rate=130, seed=seed))
        assert gaps.min() > 0.2
        assert gaps.max() < 4.2


@pytest.mark.parametrize("seed", SEEDS)
def test_sinus_rr_has_mayer_and_breathing_peaks(seed):
    simulation = run(K.SINUS_RHYTHM, 900, seed=seed, rate=100, heart_rate=75)
    r = simulation.truth.r_peaks_s
    even = np.arange(2, 890, 0.25)
    tachogram = np.interp(even, r[1:], rr(simulation))
    power = np.abs(np.fft.rfft((tachogram - tachogram.mean()) * np.hanning(len(even)))) ** 2
    hz = np.fft.rfftfreq(len(even), 0.25)

    def band(low: float, high: float) -> float:
        return float(power[(hz >= low) & (hz < high)].sum())

    lf, hf = band(0.05, 0.15), band(0.2, 0.3)
    assert lf + hf > 0.9 * power.sum()
    assert 0.25 < lf / hf < 1.0
    assert 0.01 < irregularity(simulation) < 0.06


def test_faster_hearts_vary_less():
    slow, fast = (run(k, 300, seed=3, rate=100) for k in (K.SINUS_BRADYCARDIA, K.SINUS_TACHYCARDIA))
    assert rr(slow).std() > 3 * rr(fast).std()


@pytest.mark.parametrize("seed", SEEDS)
def test_normal_beat_is_a_lead_i_beat(seed):
    simulation = run(K.SINUS_RHYTHM, 60, seed=seed, rate=500, heart_rate=60)
    beat = beats_of(simulation, -0.3, 0.6).mean(axis=0)
    beat -= beat[(np.arange(len(beat)) / 500 > 0.225) & (np.arange(len(beat)) / 500 < 0.25)].mean()
    t = np.arange(len(beat)) / 500 - 0.3
    p, r, wave_t = (
        beat[(t > a) & (t < b)].max() for a, b in ((-0.25, -0.08), (-0.02, 0.02), (0.15, 0.4))
    )
    assert 50 < p < 160
    assert 450 < r < 1200
    assert 0.15 < wave_t / r < 0.55
    # QRS: where the curve is steep.
    steep = t[np.abs(np.gradient(beat, t)) > 0.04 * r / 0.0095]
    qrs = steep[(steep > -0.08) & (steep < 0.1)]
    assert 0.05 < np.ptp(qrs) < 0.11
    # QT, from the onset of QRS to where T has all but gone.
    after = (t > 0.2) & (beat > 0.1 * wave_t)
    assert 0.34 < t[after].max() - qrs.min() < 0.44


def test_patients_differ_and_beats_of_one_patient_a_little():
    beats = [beats_of(run(K.SINUS_RHYTHM, seed=s), -0.01, 0.02).max(axis=1) for s in range(12)]
    within = np.mean([b.std() / b.mean() for b in beats])
    between = np.std([b.mean() for b in beats]) / np.mean([b.mean() for b in beats])
    assert 0.01 < within < 0.08
    assert between > 2 * within


@pytest.mark.parametrize("seed", SEEDS)
def test_fibrillation_is_irregular_without_p_waves_but_with_f_waves(seed):
    sinus = run(K.SINUS_RHYTHM, 120, seed=seed, heart_rate=75)
    af = run(K.ATRIAL_FIBRILLATION, 120, seed=seed, heart_rate=75)
    assert irregularity(sinus) < 0.08
    assert 0.2 < irregularity(af) < 0.5
    # Successive intervals know nothing of each other.
    assert abs(np.corrcoef(rr(af)[:-1], rr(af)[1:])[0, 1]) < 0.25

    def atrial(simulation: Simulation) -> tuple[float, float]:
        """Peak-to-peak of the average beat before QRS, and the spread around the average."""
        beats = beats_of(simulation, -0.24, -0.06)
        beats = beats - beats.mean(axis=1, keepdims=True)
        return float(np.ptp(beats.mean(axis=0))), float(beats.std(axis=0).mean())

    (p_sinus, spread_sinus), (p_af, spread_af) = atrial(sinus), atrial(af)
    assert p_sinus > 50
    assert p_af < 0.45 * p_sinus
    assert spread_af > 2 * spread_sinus


def test_fibrillatory_waves_lie_between_4_and_9_hz():
    af = run(K.ATRIAL_FIBRILLATION, 240, seed=1, heart_rate=40)
    x = np.array(af.microvolts, np.float64)
    keep = np.ones(len(x), bool)
    for r in af.truth.r_peaks_s:
        keep &= (af.times_s < r - 0.08) | (af.times_s > r + 0.6)
    x = np.where(keep, x - x[keep].mean(), 0)
    power, hz = np.abs(np.fft.rfft(x)) ** 2, np.fft.rfftfreq(len(x), 1 / af.rate)
    f_wave = (hz > 2.5) & (hz < 30)
    peak = hz[f_wave][np.argmax(power[f_wave])]
    assert 4 <= peak <= 9


@pytest.mark.parametrize("conduction", [2, 3, 4])
def test_flutter_is_a_regular_sawtooth_at_300_a_minute(conduction):
    simulation = run(K.ATRIAL_FLUTTER, 60, conduction=conduction)
    np.testing.assert_allclose(rr(simulation), 0.2 * conduction, atol=0.03)
    if conduction == 4:  # only here the sawtooth stands free of T
        first, second = (beats_of(simulation, a, a + 0.2).mean(axis=0) for a in (0.38, 0.58))
        free = slice(round(0.03 * 250), round(0.12 * 250))
        assert np.ptp(second) > 80
        assert np.corrcoef(first[free], second[free])[0, 1] > 0.9


def pr_interval(simulation: Simulation) -> float:
    """From where P reaches a tenth of its peak to the onset of QRS, 40 ms before R, in s."""
    beat = np.median(beats_of(simulation, -0.42, 0), axis=0)
    t = np.arange(len(beat)) / simulation.rate - 0.42
    flat = np.median(beat[(t > -0.07) & (t < -0.05)])
    before = t < -0.07
    peak = np.argmax(np.where(before & (t > -0.37), beat, -np.inf))
    below = np.flatnonzero(beat[:peak] - flat < 0.1 * (beat[peak] - flat))
    return float(-0.04 - t[below[-1]])


@pytest.mark.parametrize("seed", SEEDS)
def test_pr_interval(seed):
    normal = pr_interval(run(K.SINUS_RHYTHM, seed=seed, rate=500, heart_rate=60))
    blocked = pr_interval(run(K.FIRST_DEGREE_AV_BLOCK, seed=seed, rate=500, heart_rate=60))
    longer = pr_interval(
        run(K.FIRST_DEGREE_AV_BLOCK, seed=seed, rate=500, heart_rate=60, pr_s=0.34)
    )
    assert 0.12 <= normal < 0.2
    assert blocked == pytest.approx(0.28, abs=0.02)
    assert longer == pytest.approx(0.34, abs=0.02)


@pytest.mark.parametrize("seed", SEEDS)
def test_st_level_60_ms_after_the_j_point(seed):
    j60 = (0.095, 0.115)
    assert abs(level(run(K.SINUS_RHYTHM, seed=seed), *j60)) < 50
    for st in (150.0, 300.0):
        assert level(run(K.ST_ELEVATION, seed=seed, st_uv=st), *j60) == pytest.approx(st, abs=50)
        assert level(run(K.ST_DEPRESSION, seed=seed, st_uv=st), *j60) == pytest.approx(-st, abs=50)


@pytest.mark.parametrize("pause_s", [2.5, 6.0])
def test_pauses_last_as_told_and_are_empty(pause_s):
    simulation = run(K.SINUS_ARREST, 120, pause_s=pause_s, per_minute=3, seed=2)
    r, gaps = simulation.truth.r_peaks_s, rr(simulation)
    pauses = np.flatnonzero(gaps > 1.5)
    assert 4 <= len(pauses) <= 8
    np.testing.assert_allclose(gaps[pauses], pause_s, atol=1e-6)
    for i in pauses:
        empty = (simulation.times_s > r[i] + 0.7) & (simulation.times_s < r[i + 1] - 0.3)
        assert np.ptp(simulation.microvolts[empty]) < 60


def width(beat: NDArray[np.float64], rate: float) -> float:
    """Time for which a beat exceeds a fifth of its peak on the same side, in s."""
    peak = beat[np.argmax(np.abs(beat))]
    return float((beat / peak > 0.2).sum() / rate)


@pytest.mark.parametrize("seed", range(8))
def test_premature_ventricular_beats(seed):
    simulation = run(K.VENTRICULAR_ECTOPY, 300, seed=seed, rate=500, heart_rate=70, per_minute=6)
    types, gaps = np.array(simulation.truth.beat_types), rr(simulation)
    v = np.flatnonzero(types == BeatType.VENTRICULAR)
    assert 24 <= len(v) <= 36
    v = v[(v > 1) & (v < len(types) - 2)]
    sinus = 60 / 70
    assert (gaps[v - 1] < 0.8 * sinus).all()
    assert (types[v + 1] == BeatType.NORMAL).all()
    # Fully compensatory: the sinus node, with its variability, is not reset.
    around = gaps[v - 1] + gaps[v]
    np.testing.assert_allclose(around, 2 * sinus, rtol=0.1)
    assert around.mean() == pytest.approx(2 * sinus, rel=0.02)

    ventricular = beats_of(simulation, -0.12, 0.5, BeatType.VENTRICULAR).mean(axis=0)
    normal = beats_of(simulation, -0.12, 0.5).mean(axis=0)
    qrs = slice(0, round(0.22 * 500))
    assert width(ventricular[qrs], 500) > 0.075 > 0.045 > width(normal[qrs], 500)
    # T points the other way.
    main = ventricular[round(0.12 * 500)]
    t_wave = ventricular[round(0.37 * 500)]
    assert t_wave * main < 0
    assert abs(t_wave) > 0.2 * abs(main)


def test_both_polarities_of_premature_beats_occur():
    signs = {
        np.sign(
            beats_of(
                run(K.VENTRICULAR_BIGEMINY, 20, seed=s), -0.004, 0.008, BeatType.VENTRICULAR
            ).mean()
        )
        for s in range(10)
    }
    assert signs == {-1.0, 1.0}


def test_bigeminy_alternates():
    types = run(K.VENTRICULAR_BIGEMINY, 60).truth.beat_types
    assert all(a is not b for a, b in itertools.pairwise(types))


@pytest.mark.parametrize("run_beats", [3, 10])
def test_ventricular_runs_are_fast_and_of_the_length_told(run_beats):
    simulation = run(K.VENTRICULAR_RUNS, 240, run_beats=run_beats, per_minute=2, rate=130)
    runs = [
        len(list(group))
        for kind, group in itertools.groupby(simulation.truth.beat_types)
        if kind is BeatType.VENTRICULAR
    ]
    assert 6 <= len(runs) <= 10
    assert set(runs[:-1]) == {run_beats}
    types = np.array(simulation.truth.beat_types)
    both = (types[:-1] == BeatType.VENTRICULAR) & (types[1:] == BeatType.VENTRICULAR)
    assert 140 < 60 / rr(simulation)[both].mean() < 200


def test_the_seed_decides_everything():
    script = Script(
        (Episode(K.ATRIAL_FIBRILLATION, 10), Episode(K.VENTRICULAR_ECTOPY, 20)),
        noise=Noise(baseline_uv=50, mains_uv=10, muscle_uv=20, motion_per_minute=20),
    )
    a, b, c = (simulate(script, seed=s) for s in (5, 5, 6))
    np.testing.assert_array_equal(a.microvolts, b.microvolts)
    np.testing.assert_array_equal(a.truth.r_peaks_s, b.truth.r_peaks_s)
    assert not np.array_equal(a.microvolts, c.microvolts)


# The first twelve kinds, one after the other, as they were when there were only these, to a
# hundredth of a microvolt: a script that somebody measured with must not become another.
@pytest.mark.parametrize(
    ("rate", "seed", "expected"),
    [
        (130, 1, "fb09e02021ed67c3"),
        (250, 2, "60d02c9f4fe83609"),
    ],
)
def test_what_was_simulated_before_is_simulated_still(rate, seed, expected):
    kinds = list(K)[: list(K).index(K.ST_DEPRESSION) + 1]
    noise = Noise(baseline_uv=60, mains_uv=10, muscle_uv=12, motion_per_minute=6)
    script = Script(tuple(Episode(kind, 20) for kind in kinds), noise=noise)
    simulation = simulate(script, rate=rate, seed=seed)
    digest = hashlib.sha256(np.rint(simulation.microvolts * 100).astype("<i4").tobytes())
    digest.update(np.rint(simulation.truth.r_peaks_s * 1e6).astype("<i8").tobytes())
    digest.update("".join(simulation.truth.beat_types).encode())
    assert digest.hexdigest()[:16] == expected


def test_a_shorter_simulation_is_the_beginning_of_a_longer_one():
    script = Script((Episode(K.SINUS_RHYTHM, 7), Episode(K.ATRIAL_FIBRILLATION, 9)))
    long = simulate(script, seed=1, duration_s=40)
    short = simulate(script, seed=1, duration_s=11.3)
    assert len(short.microvolts) == round(11.3 * 130)
    np.testing.assert_array_equal(short.microvolts, long.microvolts[: len(short.microvolts)])
    kept = long.truth.r_peaks_s < 11.3
    np.testing.assert_array_equal(short.truth.r_peaks_s, long.truth.r_peaks_s[kept])
    assert [tuple(e) for e in short.truth.episodes] == [
        (0, 7, K.SINUS_RHYTHM),
        (7, 11.3, K.ATRIAL_FIBRILLATION),
    ]
    assert [e.start_s for e in long.truth.episodes] == [0, 7, 16, 23, 32, 39]


def test_the_heart_is_the_same_at_every_rate():
    low, high = (run(K.VENTRICULAR_ECTOPY, 30, rate=r, seed=4) for r in (125, 500))
    np.testing.assert_array_equal(low.truth.r_peaks_s, high.truth.r_peaks_s)
    np.testing.assert_allclose(low.microvolts, high.microvolts[::4], atol=2)


def disturbance(noise: Noise, seconds: float = 120, rate: float = 250) -> NDArray[np.float64]:
    """What a noise adds to the same heart."""
    episode = Episode(K.SINUS_RHYTHM, seconds)
    noisy = simulate(Script((episode,), noise=noise), rate=rate, seed=8)
    clean = simulate(Script((episode,)), rate=rate, seed=8)
    np.testing.assert_array_equal(noisy.truth.r_peaks_s, clean.truth.r_peaks_s)
    return np.asarray(noisy.microvolts - clean.microvolts, np.float64)


def band_share(x: NDArray[np.float64], low: float, high: float, rate: float = 250) -> float:
    power, hz = np.abs(np.fft.rfft(x)) ** 2, np.fft.rfftfreq(len(x), 1 / rate)
    return float(power[(hz >= low) & (hz < high)].sum() / power.sum())


@pytest.mark.parametrize(
    ("noise", "rms", "low", "high"),
    [
        (Noise(baseline_uv=100), 100, 0.0, 0.4),
        (Noise(mains_uv=100), 100 / math.sqrt(2), 49.8, 50.2),
        (Noise(mains_uv=100, mains_hz=60.0), 100 / math.sqrt(2), 59.8, 60.2),
        (Noise(muscle_uv=100), 100, 15, 120),
    ],
)
def test_noise_has_its_strength_and_band(noise, rms, low, high):
    added = disturbance(noise)
    assert added.std() == pytest.approx(rms, rel=0.15)
    assert band_share(added, low, high) > 0.95


def test_movements_come_as_often_and_strong_as_told():
    added = np.abs(disturbance(Noise(motion_per_minute=4, motion_uv=2000), 600))
    assert 1500 < added.max() < 6000
    loud = np.flatnonzero(added > 300)
    events = 1 + (np.diff(loud) > 2.0 * 250).sum()
    assert 20 < events < 55
    assert (added < 20).mean() > 0.5


def test_an_episode_brings_its_own_noise():
    script = Script(
        (Episode(K.SINUS_RHYTHM, 20), Episode(K.SINUS_RHYTHM, 20, noise=Noise())),
        noise=Noise(mains_uv=200),
    )
    x = simulate(script, rate=250, seed=0).microvolts
    hum = [band_share(half - half.mean(), 49, 51) for half in (x[:5000], x[5000:])]
    assert hum[0] > 0.2
    assert hum[1] < 1e-3


@pytest.mark.parametrize("floating_uv", [0.0, 400.0])
def test_an_electrode_that_is_off_shows_no_heart(floating_uv):
    script = Script(
        (Episode(K.SINUS_RHYTHM, 10), Episode(K.SINUS_RHYTHM, 20, electrode_off_s=((5, 12),))),
        floating_uv=floating_uv,
    )
    simulation = simulate(script, seed=0)
    assert simulation.truth.contact_off == ((15, 22),)
    off = (simulation.times_s >= 15) & (simulation.times_s < 22)
    assert simulation.microvolts[off].std() == pytest.approx(floating_uv, rel=0.1)
    assert np.ptp(simulation.microvolts[~off]) > 400
    # The heart beats on, seen or not.
    assert rr(simulation).max() < 1.2


def test_lost_samples_are_not_a_number():
    script = Script((Episode(K.SINUS_RHYTHM, 20, lost_s=((2, 3), (10, 12.5))),))
    simulation = simulate(script, seed=0, duration_s=31)
    assert simulation.truth.lost == ((2, 3), (10, 12.5), (22, 23), (30, 31))
    assert np.isnan(simulation.microvolts).sum() == pytest.approx(130 * 5.5, abs=4)
    assert np.isnan(simulation.microvolts[round(2.5 * 130)])


@pytest.mark.parametrize(
    ("told", "message"),
    [
        ({"kind": K.SINUS_RHYTHM, "heart_rate": 300}, "heart_rate .* 20 to 220"),
        ({"kind": K.SINUS_BRADYCARDIA, "heart_rate": 70}, "heart_rate .* 20 to 59"),
        ({"kind": K.SINUS_TACHYCARDIA, "heart_rate": 90}, "heart_rate .* 101 to 220"),
        ({"kind": K.SINUS_RHYTHM, "heart_rate": math.nan}, "heart_rate"),
        ({"kind": K.SINUS_RHYTHM, "pause_s": 3}, "pause_s does not belong .* sinus_rhythm"),
        ({"kind": K.ATRIAL_FLUTTER, "conduction": 5}, "conduction .* 2 to 4"),
        ({"kind": K.ATRIAL_FLUTTER, "conduction": 2.5}, "conduction .* whole number"),
        ({"kind": K.ATRIAL_FLUTTER, "conduction": 2, "heart_rate": 60}, "240 to 350 atrial"),
        ({"kind": K.FIRST_DEGREE_AV_BLOCK, "pr_s": 0.16}, "pr_s .* 0.2 to 0.4"),
        ({"kind": K.ST_ELEVATION, "st_uv": -100}, "st_uv .* 50 to 1000"),
        ({"kind": K.SINUS_ARREST, "pause_s": 1}, "pause_s .* 2 to 20"),
        ({"kind": K.SINUS_ARREST, "pause_s": 10, "per_minute": 8}, "per_minute .* at most"),
        ({"kind": K.SINUS_ARREST, "heart_rate": 30, "pause_s": 2}, "pause_s must exceed"),
        ({"kind": K.SINUS_ARREST, "duration_s": 4}, "duration_s .* for one event"),
        ({"kind": K.VENTRICULAR_ECTOPY, "per_minute": 29}, "per_minute .* at most"),
        ({"kind": K.VENTRICULAR_RUNS, "run_beats": 2}, "run_beats .* 3 to 60"),
        ({"kind": K.SINUS_RHYTHM, "duration_s": 0}, "duration_s"),
        ({"kind": K.SINUS_RHYTHM, "duration_s": math.inf}, "duration_s"),
        ({"kind": K.SINUS_RHYTHM, "lost_s": ((5, 3),)}, "lost_s must be ascending"),
        ({"kind": K.SINUS_RHYTHM, "lost_s": ((1, 5), (4, 6))}, "lost_s must be ascending"),
        ({"kind": K.SINUS_RHYTHM, "electrode_off_s": ((5, 70),)}, "electrode_off_s .* 0 to 60"),
    ],
)
def test_impossible_episodes_are_refused(told, message):
    with pytest.raises(ValueError, match=message):
        Episode(**{"duration_s": 60, **told})


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Script(()), "at least one episode"),
        (lambda: Script((Episode(K.SINUS_RHYTHM, 5),), clock_ppm=1e6), "clock_ppm"),
        (lambda: Script((Episode(K.SINUS_RHYTHM, 5),), floating_uv=-1), "floating_uv"),
        (lambda: Noise(muscle_uv=-1), "muscle_uv .* 0 to 10000"),
        (lambda: Noise(mains_hz=55), "mains_hz must be 50 or 60"),
        (lambda: Noise(motion_per_minute=math.nan), "motion_per_minute"),
        (lambda: simulate(Script((Episode(K.SINUS_RHYTHM, 5),)), rate=10, seed=0), "rate"),
        (
            lambda: simulate(Script((Episode(K.SINUS_RHYTHM, 5),)), seed=0, duration_s=-1),
            "duration_s",
        ),
    ],
)
def test_impossible_scripts_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
