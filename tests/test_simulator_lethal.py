"""The simulated heart that stops pumping: what is seen of it is measured, not believed."""

import asyncio
import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from ingest.activities import IMITATORS
from ingest.chunk import Stream
from ingest.episodes import PULSELESS
from ingest.simulator import (
    BeatType,
    Episode,
    EpisodeKind,
    Noise,
    Script,
    Simulation,
    SimulatorSource,
    simulate,
)

K = EpisodeKind
SEEDS = range(5)
RATE = 250
Signal = NDArray[np.float64]


def run(kind: EpisodeKind, seconds: float = 60, *, seed: int = 0, rate: float = RATE, **told):
    """Simulate one kind alone."""
    return simulate(Script((Episode(kind, seconds, **told),)), rate=rate, seed=seed)


def between_sinus(kind: EpisodeKind, *, seed: int, **told) -> Simulation:
    """Simulate 20 s of the kind after 20 s and before 10 s of sinus rhythm."""
    sinus = Episode(K.SINUS_RHYTHM, 20), Episode(K.SINUS_RHYTHM, 10)
    script = Script((sinus[0], Episode(kind, 20, **told), sinus[1]))
    return simulate(script, rate=RATE, seed=seed)


def settled(simulation: Simulation) -> Signal:
    """Leave out the first two seconds, in which it begins, and the last, in which it ends."""
    return np.asarray(simulation.microvolts[2 * RATE : -RATE], np.float64)


def spectrum(x: Signal, seconds: float) -> tuple[Signal, Signal]:
    """Average the power spectra of Hann-windowed pieces, half overlapping: frequencies, power."""
    n = round(seconds * RATE)
    pieces = [x[a : a + n] for a in range(0, len(x) - n + 1, n // 2)]
    power = [np.abs(np.fft.rfft((p - p.mean()) * np.hanning(n), 8 * n)) ** 2 for p in pieces]
    return np.fft.rfftfreq(8 * n, 1 / RATE), np.mean(power, axis=0)


def peak_hz(x: Signal, seconds: float = 4) -> float:
    hz, power = spectrum(x, seconds)
    return float(hz[np.argmax(power)])


def share(x: Signal, low: float, high: float) -> float:
    hz, power = spectrum(x, 4)
    return float(power[(hz >= low) & (hz < high)].sum() / power.sum())


def heights(x: Signal, period_s: float) -> Signal:
    """Height from peak to peak within each stretch of one period."""
    n = round(period_s * RATE)
    return np.ptp(x[: len(x) // n * n].reshape(-1, n), axis=1)


def kurtosis(x: Signal) -> float:
    y = x - x.mean()
    return float(np.mean(y**4) / np.mean(y**2) ** 2)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("dominant_hz", [3.0, 4.8, 7.0])
def test_fibrillation_is_a_narrow_band_around_the_frequency_told(dominant_hz, seed):
    x = settled(run(K.VENTRICULAR_FIBRILLATION, 120, seed=seed, dominant_hz=dominant_hz))
    assert peak_hz(x) == pytest.approx(dominant_hz, abs=0.6)
    assert share(x, dominant_hz - 1.5, dominant_hz + 1.5) > 0.75
    # No white noise: its share up there would be 0.88.
    assert share(x, 15, 125) < 0.02
    # Nor a sine: the peak of two seconds moves.
    moves = [peak_hz(x[a : a + 2 * RATE], 2) for a in range(0, len(x) - 2 * RATE, 2 * RATE)]
    assert 0.2 < np.std(moves) < 1.2
    assert np.percentile(moves, [5, 95]) == pytest.approx(dominant_hz, abs=1.8)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("amplitude_uv", [120.0, 600.0, 2000.0])
def test_fibrillation_is_as_coarse_or_fine_as_told(amplitude_uv, seed):
    x = settled(run(K.VENTRICULAR_FIBRILLATION, 240, seed=seed, amplitude_uv=amplitude_uv))
    waves = heights(x, 1 / 4.8)
    assert np.mean(waves) == pytest.approx(amplitude_uv, rel=0.25)
    # It waxes and wanes: a Rayleigh envelope would vary by 0.52 of its mean.
    assert 0.3 < np.std(waves) / np.mean(waves) < 0.7


@pytest.mark.parametrize("seed", SEEDS)
def test_fibrillation_shows_no_qrs(seed):
    sinus, vf = (settled(run(k, seed=seed)) for k in (K.SINUS_RHYTHM, K.VENTRICULAR_FIBRILLATION))
    assert kurtosis(sinus) > 10
    assert kurtosis(vf) < 6
    # A sine of 7 Hz has no slope of more than 2π · 7 times its amplitude.
    assert np.abs(np.gradient(vf, 1 / RATE)).max() < 2 * math.pi * 7 * np.abs(vf).max()
    assert np.abs(np.gradient(sinus, 1 / RATE)).max() > 2 * math.pi * 7 * np.abs(sinus).max()


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("kind", [K.VENTRICULAR_FIBRILLATION, K.VENTRICULAR_FLUTTER])
def test_it_begins_with_an_r_on_t_and_ends_with_a_heartbeat(kind, seed):
    simulation = between_sinus(kind, seed=seed)
    r, types = simulation.truth.r_peaks_s, np.array(simulation.truth.beat_types)
    during = (r >= 20) & (r < 40)
    assert list(types[during]) == [BeatType.VENTRICULAR] * 2
    first, second = r[during]
    last = r[r < 20].max()
    assert first - last >= 0.3
    assert first == 20 or first - last <= 0.36
    assert 0.26 <= second - first <= 0.32
    assert (types[~during] == BeatType.NORMAL).all()
    assert 0.3 < r[r >= 40].min() - 40 < 2.6
    # From a second on the whole trace is one swinging line.
    assert heights(settled(simulation)[19 * RATE : 36 * RATE], 1.0).min() > 100


@pytest.mark.parametrize("before", [*sorted(PULSELESS), K.VENTRICULAR_TACHYCARDIA])
@pytest.mark.parametrize("kind", [K.VENTRICULAR_TACHYCARDIA, K.TORSADES])
def test_what_follows_a_lethal_rhythm_begins_where_the_script_says(kind, before):
    for seed in SEEDS:
        script = Script((Episode(before, 20), Episode(kind, 10)))
        r = simulate(script, rate=RATE, seed=seed).truth.r_peaks_s
        assert 20 <= r[r >= 20].min() <= 20.5


def test_fibrillation_that_follows_fibrillation_goes_on():
    script = Script(
        (
            Episode(K.VENTRICULAR_FIBRILLATION, 20, amplitude_uv=800),
            Episode(K.VENTRICULAR_FIBRILLATION, 20, amplitude_uv=150),
            Episode(K.ASYSTOLE, 20),
        )
    )
    simulation = simulate(script, rate=RATE, seed=2)
    assert len(simulation.truth.r_peaks_s) == 2
    x = np.asarray(simulation.microvolts, np.float64)
    coarse, fine, end = (x[a * RATE : b * RATE] for a, b in ((2, 19), (21, 39), (42, 60)))
    assert 3 < coarse.std() / fine.std() < 9
    assert np.ptp(end) < 30
    assert heights(x[round(19.5 * RATE) : round(20.5 * RATE)], 0.5).min() > 60


def period_s(x: Signal) -> float:
    """Lag of the highest autocorrelation after it first falls below zero, up to 0.6 s."""
    y = x - x.mean()
    r = np.array([np.dot(y[: len(y) - lag], y[lag:]) for lag in range(round(0.6 * RATE))])
    below = int(np.argmax(r < 0))
    rest = r[below:]
    # The first of the peaks that are nearly as high as the highest: not a multiple of the period.
    high = [
        i
        for i in range(1, len(rest) - 1)
        if rest[i - 1] <= rest[i] >= rest[i + 1] and rest[i] > 0.8 * rest.max()
    ]
    return (below + high[0]) / RATE


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("rate", [120.0, 150.0, 180.0, 215.0, 250.0])
def test_tachycardia_repeats_at_the_rate_told(rate, seed):
    simulation = run(K.VENTRICULAR_TACHYCARDIA, 60, seed=seed, heart_rate=rate)
    x = settled(simulation)[4 * RATE :]
    assert period_s(x) == pytest.approx(60 / rate, abs=0.75 / RATE)
    gaps = np.diff(simulation.truth.r_peaks_s)
    assert gaps[20:].std() / gaps.mean() < 0.03
    assert 60 / gaps[20:].mean() == pytest.approx(rate, rel=0.01)
    assert set(simulation.truth.beat_types) == {BeatType.VENTRICULAR}


def above_half(x: Signal, at: int) -> float:
    """For how long the wave around a sample stays above half its height, in s."""
    level = x[at] / 2
    a = b = at
    while x[a] / level > 1:
        a -= 1
    while x[b] / level > 1:
        b += 1
    return (b - a) / RATE


@pytest.mark.parametrize("seed", SEEDS)
def test_tachycardia_is_wide_and_begins_prematurely(seed):
    simulation = between_sinus(K.VENTRICULAR_TACHYCARDIA, seed=seed, heart_rate=150)
    r, types = simulation.truth.r_peaks_s, np.array(simulation.truth.beat_types)
    v = types == BeatType.VENTRICULAR
    assert list(v) == list((r >= 20) & (r < 40))
    assert 0.36 <= r[v][0] - r[~v & (r < 20)][-1] < 60 / 72 + 0.05
    # It takes some beats to reach its rate, and leaves the heart a while without one.
    assert np.diff(r[v])[0] > 1.05 * np.diff(r[v])[-1]
    assert r[r >= 40][0] - r[v][-1] > 60 / 150
    x = np.asarray(simulation.microvolts, np.float64)

    def width(when: NDArray[np.bool_]) -> float:
        return float(np.median([above_half(x, round(t * RATE)) for t in r[when][2:-2]]))

    # At half its height, a QRS of 90 ms is some 25 ms wide, one of 160 ms over 60 ms.
    assert width(~v) < 0.035
    assert width(v) > 0.06


@pytest.mark.parametrize("seed", SEEDS)
def test_dissociated_atria_keep_a_rate_of_their_own(seed):
    without, dissociated = (
        run(K.VENTRICULAR_TACHYCARDIA, 60, seed=seed, heart_rate=150, p_waves=p) for p in (None, 70)
    )
    np.testing.assert_array_equal(without.truth.r_peaks_s, dissociated.truth.r_peaks_s)
    p = np.asarray(dissociated.microvolts - without.microvolts, np.float64)
    at = p_wave_times(p)
    assert len(at) == pytest.approx(70, abs=2)
    assert 60 / np.diff(at).mean() == pytest.approx(70, rel=0.02)
    # They fall everywhere between the beats.
    r = without.truth.r_peaks_s
    inside = at[(at > r[0]) & (at < r[-1])]
    phase = (inside - r[np.searchsorted(r, inside) - 1]) / 0.4
    assert np.histogram(phase, 4, (0, 1))[0].min() > 8


def p_wave_times(x: Signal) -> Signal:
    """When the signal peaks above 40 µV, in s."""
    peaks = (x[1:-1] >= x[:-2]) & (x[1:-1] > x[2:]) & (x[1:-1] > 40)
    return np.flatnonzero(peaks) / RATE


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("rate", [220.0, 270.0, 300.0])
def test_flutter_is_a_sine(rate, seed):
    told = {"heart_rate": rate, "amplitude_uv": 900}
    x = settled(run(K.VENTRICULAR_FLUTTER, 60, seed=seed, **told))
    assert peak_hz(x) == pytest.approx(rate / 60, abs=0.2)
    assert share(x, rate / 60 - 1, rate / 60 + 1) > 0.95
    assert np.median(heights(x, 60 / rate)) == pytest.approx(900, rel=0.25)
    # A sine stays within √2 of its RMS, whose fourth moment is 1.5.
    assert kurtosis(x) == pytest.approx(1.5, abs=0.15)


@pytest.mark.parametrize("seed", SEEDS)
def test_torsades_twist_around_the_baseline(seed):
    simulation = run(K.TORSADES, 60, seed=seed, heart_rate=220)
    x, r = np.asarray(simulation.microvolts, np.float64), simulation.truth.r_peaks_s
    gaps = np.diff(r)
    assert 60 / gaps.mean() == pytest.approx(220, rel=0.03)
    assert 0.02 < gaps.std() / gaps.mean() < 0.1
    # At the beats the trace points up a while, then down a while.
    up = x[np.rint(r[r < 59] * RATE).astype(int)] > np.median(x)
    runs = [len(list(group)) for _, group in itertools.groupby(up)][1:-1]
    assert len(runs) >= 12
    assert min(runs) >= 3
    assert max(runs) <= 14
    # Its height swells and shrinks: spindles.
    spindle = heights(x[2 * RATE : -RATE], 60 / 220)
    assert np.percentile(spindle, 5) < 0.5 * np.percentile(spindle, 95)
    assert np.percentile(spindle, 95) > 600


@pytest.mark.parametrize("seed", SEEDS)
def test_asystole_is_as_flat_as_the_noise_lets_it_be(seed):
    simulation = between_sinus(K.ASYSTOLE, seed=seed)
    assert not ((simulation.truth.r_peaks_s >= 20) & (simulation.truth.r_peaks_s < 40)).any()
    # The T wave of the last beat ends, the P wave of the next one begins.
    silent = np.asarray(simulation.microvolts[round(20.7 * RATE) : round(39.6 * RATE)])
    assert np.ptp(silent) < 60
    noise = Noise(mains_uv=20, muscle_uv=10)
    alone = simulate(Script((Episode(K.ASYSTOLE, 60),), noise=noise), rate=RATE, seed=seed)
    assert len(alone.truth.r_peaks_s) == 0
    assert alone.microvolts.std() == pytest.approx(math.hypot(20 / math.sqrt(2), 10), rel=0.15)


@pytest.mark.parametrize("seed", SEEDS)
def test_asystole_may_have_p_waves(seed):
    x = np.asarray(run(K.ASYSTOLE, 60, seed=seed, p_waves=45).microvolts, np.float64)
    at = p_wave_times(x)
    assert len(at) == pytest.approx(45, abs=1)
    assert 60 / np.diff(at).mean() == pytest.approx(45, rel=0.02)
    assert 50 < x.max() < 140


@pytest.mark.parametrize("kind", [*sorted(PULSELESS), K.VENTRICULAR_TACHYCARDIA])
def test_it_is_the_same_at_every_rate(kind):
    low, high = (run(kind, 30, rate=r, seed=4) for r in (125, 500))
    np.testing.assert_array_equal(low.truth.r_peaks_s, high.truth.r_peaks_s)
    np.testing.assert_allclose(low.microvolts, high.microvolts[::4], atol=4)


SETTINGS = {
    K.VENTRICULAR_TACHYCARDIA: {"heart_rate": (120, 250), "p_waves": (20, 150)},
    K.VENTRICULAR_FLUTTER: {"heart_rate": (220, 300), "amplitude_uv": (50, 3000)},
    K.VENTRICULAR_FIBRILLATION: {"dominant_hz": (3, 7), "amplitude_uv": (50, 3000)},
    K.TORSADES: {"heart_rate": (180, 250)},
    K.ASYSTOLE: {"p_waves": (20, 150)},
}


@st.composite
def episodes(draw: st.DrawFn) -> Episode:
    kind = draw(st.sampled_from([*SETTINGS, K.SINUS_RHYTHM, K.ATRIAL_FIBRILLATION]))
    told = {
        name: draw(st.floats(low, high))
        for name, (low, high) in SETTINGS.get(kind, {}).items()
        if draw(st.booleans())
    }
    noise = draw(st.sampled_from([None, *IMITATORS.values()]))
    return Episode(kind, draw(st.floats(1, 9)), noise=noise, **told)


async def collect(source: SimulatorSource) -> Signal:
    return np.concatenate([chunk.microvolts async for chunk in source.chunks()])


@settings(max_examples=60, deadline=None)
@given(
    st.lists(episodes(), min_size=1, max_size=5).map(tuple),
    st.integers(0, 1000),
    st.sampled_from([0.04, 0.5, 2.9, 7.0]),
)
def test_any_order_of_rhythms_is_one_signal_with_its_truth(parts, seed, chunk_s):
    script = Script(parts, noise=Noise(muscle_uv=5))
    whole = simulate(script, seed=seed)
    again = SimulatorSource(
        Stream("anna", "sim"), script, seed=seed, speed=math.inf, start_ns=0, chunk_s=chunk_s
    )
    np.testing.assert_array_equal(asyncio.run(collect(again)), whole.microvolts)
    assert np.abs(whole.microvolts).max() < 12_000
    r = whole.truth.r_peaks_s
    assert (np.diff(r) > 0.18).all()
    for span in whole.truth.episodes:
        inside = r[(r >= span.start_s) & (r < span.end_s)]
        if span.kind is K.ASYSTOLE:
            assert len(inside) == 0
        elif span.kind in {K.VENTRICULAR_FIBRILLATION, K.VENTRICULAR_FLUTTER}:
            assert len(inside) <= 2
            assert (inside < span.start_s + 0.7).all()


@pytest.mark.parametrize(
    ("told", "message"),
    [
        ({"kind": K.VENTRICULAR_TACHYCARDIA, "heart_rate": 110}, "heart_rate .* 120 to 250"),
        ({"kind": K.VENTRICULAR_TACHYCARDIA, "amplitude_uv": 500}, "amplitude_uv does not belong"),
        ({"kind": K.VENTRICULAR_FLUTTER, "heart_rate": 310}, "heart_rate .* 220 to 300"),
        ({"kind": K.VENTRICULAR_FIBRILLATION, "heart_rate": 200}, "heart_rate does not belong"),
        ({"kind": K.VENTRICULAR_FIBRILLATION, "amplitude_uv": 20}, "amplitude_uv .* 50 to 3000 µV"),
        ({"kind": K.VENTRICULAR_FIBRILLATION, "dominant_hz": 9}, "dominant_hz .* 3 to 7 Hz"),
        ({"kind": K.TORSADES, "heart_rate": 170}, "heart_rate .* 180 to 250"),
        ({"kind": K.ASYSTOLE, "heart_rate": 30}, "heart_rate does not belong .* asystole"),
        ({"kind": K.ASYSTOLE, "p_waves": 0}, "p_waves of asystole must be 20 to 150 per minute"),
        ({"kind": K.SINUS_RHYTHM, "p_waves": 60}, "p_waves does not belong .* sinus_rhythm"),
    ],
)
def test_impossible_episodes_are_refused(told, message):
    with pytest.raises(ValueError, match=message):
        Episode(**{"duration_s": 60, **told})
