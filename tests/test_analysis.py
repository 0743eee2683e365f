"""Windows in, results out: what is read, what is not, and that a batch is as good as one by one."""

import itertools
import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from ingest.chunk import Stream
from ingest.episodes import Episode, EpisodeKind, Script
from ingest.simulator import Noise, simulate
from models.bundle import DEFAULT, find_bundle
from models.runtime import Runtime
from monitor.analysis import Analyzer, pieces
from monitor.observe import observation
from monitor.quality import Quality, Reason
from monitor.results import WindowResult
from monitor.window import Window

STREAM = Stream("anna", "strap")
T0 = 1_790_000_000_000_000_000


class Counted:
    """A runtime that says how many windows each inference had."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self.bundle = runtime.bundle
        self.prepare = runtime.prepare
        self.batches: list[int] = []

    def infer(self, lead_one: NDArray[np.float32]) -> Any:
        self.batches.append(len(lead_one))
        return self._runtime.infer(lead_one)


@pytest.fixture(scope="module")
def runtime() -> Counted:
    return Counted(Runtime(find_bundle(DEFAULT)))


@pytest.fixture
def analyzer(runtime: Counted) -> Analyzer:
    runtime.batches.clear()
    return Analyzer(runtime)  # type: ignore[arg-type]


def sinus(seconds: float = 10.0, *, rate: float = 130.0, seed: int = 1, bpm: float = 72) -> Window:
    script = Script((Episode(EpisodeKind.SINUS_RHYTHM, seconds, heart_rate=bpm),), noise=QUIET)
    return Window(STREAM, T0, rate, simulate(script, rate=rate, seed=seed).microvolts)


QUIET = Noise(baseline_uv=20, mains_uv=2, muscle_uv=4)


@pytest.mark.parametrize("rate", [125.0, 130.0, 250.0, 500.0])
@pytest.mark.parametrize("bpm", [50, 72, 140])
def test_a_clean_heart_is_good_and_counted(analyzer: Analyzer, rate: float, bpm: float) -> None:
    kind = EpisodeKind.SINUS_TACHYCARDIA if bpm > 100 else EpisodeKind.SINUS_RHYTHM
    script = Script((Episode(kind, 10, heart_rate=bpm),), noise=QUIET)
    simulation = simulate(script, rate=rate, seed=3)
    (result,) = analyzer.analyze([Window(STREAM, T0, rate, simulation.microvolts)])
    true = simulation.truth.r_peaks_s
    assert result.grade.quality is Quality.GOOD
    assert result.grade.reasons == ()
    assert result.heart_rate == pytest.approx(60 / np.diff(true).mean(), rel=0.04)
    assert result.longest_rr_s is not None
    assert result.longest_rr_s == pytest.approx(np.diff(true).max(), abs=0.4)
    # Each beat that is seen is a beat.
    assert max(abs(true - peak).min() for peak in result.r_peaks_s) < 0.1
    assert result.model == analyzer.model
    assert result.probabilities is not None
    assert result.probabilities.shape == (len(analyzer.model.classes),)
    assert ((result.probabilities >= 0) & (result.probabilities <= 1)).all()


def noise(seconds: float = 10.0) -> Window:
    samples = np.random.default_rng(7).normal(0, 300, round(seconds * 130)).astype(np.float32)
    return Window(STREAM, T0, 130.0, samples)


def damaged(seconds: float = 10.0) -> Window:
    window = sinus(seconds)
    window.microvolts[640:650] = np.nan
    return window


BAD = [
    pytest.param(damaged(), {Reason.GAP}, id="NaN"),
    pytest.param(replace(sinus(), microvolts=np.zeros(1300, np.float32)), {Reason.FLAT}, id="flat"),
    pytest.param(noise(), {Reason.NOISY}, id="noise"),
    pytest.param(replace(sinus(), contact=False), {Reason.CONTACT}, id="electrodes off"),
    pytest.param(sinus(4.9), {Reason.GAP}, id="short"),
    pytest.param(replace(sinus(), microvolts=np.empty(0, np.float32)), {Reason.GAP}, id="empty"),
    pytest.param(
        replace(sinus(), microvolts=np.full(1300, np.inf, np.float32)),
        {Reason.SATURATED},
        id="infinite",
    ),
]


@pytest.mark.parametrize(("window", "reasons"), BAD)
def test_what_is_no_heart_is_never_read_as_one(
    analyzer: Analyzer, runtime: Counted, window: Window, reasons: set[Reason]
) -> None:
    (result,) = analyzer.analyze([window])
    assert result.grade.quality is Quality.BAD
    assert set(result.grade.reasons) == reasons
    assert result.heart_rate is None
    assert result.longest_rr_s is None
    assert len(result.r_peaks_s) == 0
    assert result.model is None
    assert result.probabilities is None
    assert runtime.batches == []
    assert (result.start_ns, result.duration_s) == (window.start_ns, window.duration_s)


def facts(result: WindowResult) -> tuple[Any, ...]:
    return (
        result.start_ns,
        result.duration_s,
        result.grade,
        result.heart_rate,
        result.r_peaks_s.tolist(),
        result.model,
    )


def test_a_mixed_batch_is_as_good_as_one_by_one(analyzer: Analyzer, runtime: Counted) -> None:
    long = sinus(26, seed=4)
    windows: Sequence[Window] = [
        replace(window, start_ns=T0 + i)
        for i, window in enumerate(
            [sinus(seed=2), damaged(), sinus(7, seed=3), long, noise(), sinus(rate=300.0, seed=5)]
        )
    ]
    together = analyzer.analyze(windows)
    # Three pieces of the long one, none of the two bad ones.
    assert runtime.batches == [1 + 1 + 3 + 1]
    alone = [result for window in windows for result in analyzer.analyze([window])]
    assert [facts(r) for r in together] == [facts(r) for r in alone]
    for a, b in zip(together, alone, strict=True):
        assert (a.probabilities is None) == (b.probabilities is None)
        if a.probabilities is not None and b.probabilities is not None:
            assert np.allclose(a.probabilities, b.probabilities, atol=1e-5)
    assert analyzer.analyze([]) == []


def test_the_verdict_on_a_long_window_is_the_mean_of_its_pieces(analyzer: Analyzer) -> None:
    long = sinus(30, seed=4)
    (whole,) = analyzer.analyze([long])
    assert whole.probabilities is not None
    thirds = analyzer.analyze(
        [replace(long, microvolts=long.microvolts[i * 1300 : (i + 1) * 1300]) for i in range(3)]
    )
    mean = np.mean([r.probabilities for r in thirds if r.probabilities is not None], axis=0)
    assert np.allclose(whole.probabilities, mean, atol=1e-5)


@pytest.mark.parametrize("off", [-0.02, -0.0005, 0.0, 0.0005, 0.02])
def test_a_device_with_a_clock_of_its_own_costs_one_inference(
    analyzer: Analyzer, runtime: Counted, off: float
) -> None:
    """The ring cuts ten seconds of the declared rate, and says what they really lasted."""
    analyzer.analyze([replace(sinus(), rate=130 * (1 + off))])
    assert runtime.batches == [1]


@settings(max_examples=200, deadline=None)
@given(st.integers(1, 20_000), st.sampled_from([50.0, 97.3, 130.0, 500.0]))
def test_pieces_are_few_alike_and_cover_all_but_a_sliver(n: int, rate: float) -> None:
    length = round(10 * rate)
    cut = pieces(np.arange(n, dtype=np.float32), rate, 10.0)
    if n <= length:
        assert [len(piece) for piece in cut] == [n]
        return
    assert {len(piece) for piece in cut} == {length}
    assert (len(cut) - 1) * length < n <= math.ceil((len(cut) + 0.04) * length)
    assert len(set(np.concatenate(cut))) >= n - 0.04 * length
    assert len({round(float(b[0] - a[0])) for a, b in itertools.pairwise(cut)}) <= 2


def test_the_alarm_engine_sees_what_was_read(analyzer: Analyzer) -> None:
    good, bad = analyzer.analyze([sinus(), damaged()])
    seen = observation(good)
    assert (seen.patient, seen.start_ns, seen.end_ns) == ("anna", T0, T0 + 10 * 10**9)
    assert seen.good
    assert seen.heart_rate == good.heart_rate
    assert seen.longest_rr_s == good.longest_rr_s
    assert good.probabilities is not None
    assert list(seen.probabilities) == list(analyzer.model.classes)
    assert list(seen.probabilities.values()) == good.probabilities.tolist()
    unseen = observation(bad)
    assert not unseen.good
    assert unseen.probabilities == {}
    assert unseen.heart_rate is unseen.longest_rr_s is None
