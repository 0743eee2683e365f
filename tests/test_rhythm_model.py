"""The watch for lethal rhythms by itself: what it reads, the shipped model, and its decisions."""

import math
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from ingest.episodes import Episode, EpisodeKind, Script
from ingest.simulator import Noise, simulate
from models.rhythm.beats import cycle_rate, find_peaks
from models.rhythm.decision import CumulativeSum, Decision, Second, Thresholds
from models.rhythm.frontend import RATE, SAMPLES, filtered
from models.rhythm.model import CLASSES, GRAPH, MANIFEST, SHIPPED, RhythmModel, RhythmModelError
from models.rhythm.verdict import Rhythm, Verdict
from models.rhythm.watch import Line, RhythmWatch
from training.rhythm.card import card
from training.rhythm.export import load_net

THRESHOLDS = Thresholds(
    bias=1.0, raise_at=8.0, most=14.0, still_bias=0.0, still_raise_at=4.0, organised=0.5
)
USUAL = Noise(baseline_uv=60, mains_uv=10, muscle_uv=12)


@pytest.fixture(scope="module")
def model() -> RhythmModel:
    return RhythmModel()


def heart(*episodes: Episode, rate: float = 130.0, seed: int = 3) -> np.ndarray:
    return simulate(Script(episodes, noise=USUAL), rate=rate, seed=seed).microvolts


# What it reads.


@pytest.mark.parametrize("rate", [100.0, 125.0, 130.0, 250.0, 360.0, 1000.0])
def test_waves_of_a_heart_keep_their_height_at_any_rate(rate: float) -> None:
    t = np.arange(round(8 * rate)) / rate
    out = filtered(500 * np.sin(2 * np.pi * 5 * t), rate)
    assert out.shape == (SAMPLES,)
    expected = 500 * np.sin(2 * np.pi * 5 * np.arange(SAMPLES) / RATE)
    assert np.abs(out[100:-100] - expected[100:-100]).max() < 15


def test_drift_and_hum_are_taken_out() -> None:
    t = np.arange(2000) / 250
    out = filtered(3000 + 2000 * t + 400 * np.sin(2 * np.pi * 50 * t), 250)
    assert np.abs(out[150:-150]).max() < 40


def test_what_is_not_there_yet_is_zeros() -> None:
    out = filtered(np.sin(np.arange(500) / 8) * 100, 125)
    assert not out[:400].any()
    assert np.abs(out[450:]).max() > 50


def test_a_stack_of_stretches_is_filtered_as_each_by_itself() -> None:
    some = np.random.default_rng(1).normal(0, 100, (3, 1040))
    together = filtered(some, 130)
    for row, alone in zip(together, some, strict=True):
        assert np.array_equal(row, filtered(alone, 130))


def test_peaks_of_a_beating_heart_are_counted(model: RhythmModel) -> None:
    window = filtered(heart(Episode(EpisodeKind.SINUS_RHYTHM, 8, heart_rate=75)), 130)
    peaks = find_peaks(window, None)
    assert peaks.rate == pytest.approx(75, abs=5)
    assert peaks.last_s is not None
    assert 0 <= peaks.last_s < 1.0


def test_a_quiet_end_has_its_last_peak_where_the_beats_stopped() -> None:
    t = np.arange(SAMPLES) / RATE
    window = sum(1000 * np.exp(-0.5 * ((t - r) / 0.012) ** 2) for r in (0.5, 1.3, 2.1))
    window = (window + np.random.default_rng(1).normal(0, 3, SAMPLES)).astype(np.float32)
    last_s = find_peaks(window, None).last_s
    assert last_s is not None
    assert last_s == pytest.approx(SAMPLES / RATE - 2.1, abs=0.08)


@pytest.mark.parametrize("per_minute", [120, 150, 200, 300])
def test_the_rate_of_a_wave_that_repeats_is_found(per_minute: float) -> None:
    t = np.arange(SAMPLES) / RATE
    phase = 2 * np.pi * per_minute / 60 * t
    window = (800 * np.sin(phase) + 300 * np.sin(2 * phase)).astype(np.float32)
    assert cycle_rate(window) == pytest.approx(per_minute, rel=0.03)


def test_a_line_that_does_not_move_is_flat() -> None:
    assert Line.of(np.full(1000, 7.0, np.float32), 125).is_flat
    moving = np.random.default_rng(2).normal(0, 4, 1000).astype(np.float32)
    assert not Line.of(moving, 125).is_flat


def test_rails_are_no_heart(model: RhythmModel) -> None:
    """VF beyond an amplifier's rails may look like beats, and so does one that flips."""
    rng = np.random.default_rng(3)
    flips = np.where(np.sin(np.arange(3900) / 9) > 0, 16e3, -16e3).astype(np.float32)
    clipped = np.clip(
        heart(Episode(EpisodeKind.VENTRICULAR_FIBRILLATION, 30, amplitude_uv=3000)) * 4, -3e3, 3e3
    )
    for samples in (flips, clipped):
        assert Line.of(samples[-1040:], 130).is_clipped
        told = {v.rhythm for v in verdicts(model, samples, 130, 130)}
        assert Rhythm.ORGANISED not in told
    beating = heart(Episode(EpisodeKind.SINUS_RHYTHM, 30)) + rng.normal(0, 2, 3900)
    coarse = (np.round(beating / 25) * 25).astype(np.float32)  # steps of an ADC
    assert not Line.of(coarse[-1040:], 130).is_clipped


# The shipped model.


def test_the_graph_says_what_the_network_says(model: RhythmModel) -> None:
    rng = np.random.default_rng(5)
    windows = np.stack(
        [
            filtered(heart(Episode(kind, 8), seed=i), 130)
            for i, kind in enumerate(
                (
                    EpisodeKind.SINUS_RHYTHM,
                    EpisodeKind.VENTRICULAR_FIBRILLATION,
                    EpisodeKind.VENTRICULAR_TACHYCARDIA,
                    EpisodeKind.ASYSTOLE,
                )
            )
        ]
        + [rng.normal(0, 10.0**size, SAMPLES).astype(np.float32) for size in (0, 2, 5)]
        + [np.zeros(SAMPLES, np.float32)]
    )
    with torch.inference_mode():
        logits = load_net(SHIPPED)(torch.from_numpy(windows))
        expected = torch.softmax(logits, dim=1).numpy()
    assert np.abs(model.probabilities(windows) - expected).max() < 1e-5
    alone = np.concatenate([model.probabilities(w[None]) for w in windows])
    assert np.abs(alone - expected).max() < 1e-5


def test_its_card_is_of_its_manifest(model: RhythmModel) -> None:
    assert (SHIPPED / "README.md").read_text(encoding="utf-8") == card(model.manifest)
    assert model.manifest.metrics["vf_heard"] > 0


def test_a_damaged_graph_is_refused(tmp_path: Path) -> None:
    folder = shutil.copytree(SHIPPED, tmp_path / "model")
    graph = bytearray((folder / GRAPH).read_bytes())
    graph[len(graph) // 2] ^= 1
    (folder / GRAPH).write_bytes(graph)
    with pytest.raises(RhythmModelError, match=r"model\.onnx: not the graph rhythm\.yaml"):
        RhythmModel(folder)


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("rate", 125.0, "rate: expected 100.0, found 125.0"),
        ("classes", ["vf", "vt"], "classes: expected"),
        ("thresholds", {"bias": 1.0}, "thresholds.raise_at: Field required"),
        ("format", 2, "format: Input should be 1"),
    ],
)
def test_a_manifest_of_another_kind_is_refused(
    tmp_path: Path, key: str, value: object, said: str
) -> None:
    folder = shutil.copytree(SHIPPED, tmp_path / "model")
    manifest = yaml.safe_load((folder / MANIFEST).read_text(encoding="utf-8"))
    manifest[key] = value
    (folder / MANIFEST).write_text(yaml.safe_dump(manifest), encoding="utf-8")
    with pytest.raises(RhythmModelError) as caught:
        RhythmModel(folder)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "text", ["a: [", "at: 2024-13-45", "[" * 5000], ids=["open", "date", "deep"]
)
def test_a_manifest_that_is_no_yaml_is_refused_in_one_line(tmp_path: Path, text: str) -> None:
    folder = shutil.copytree(SHIPPED, tmp_path / "model")
    (folder / MANIFEST).write_text(text, encoding="utf-8")
    with pytest.raises(RhythmModelError, match=r"rhythm\.yaml: not YAML: ") as caught:
        RhythmModel(folder)
    assert "\n" not in str(caught.value)


def test_a_folder_without_a_model_is_refused_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(RhythmModelError, match=r"rhythm\.yaml: cannot be read"):
        RhythmModel(tmp_path)


# Decisions, with numbers worked out by hand.


def second(end_s: float, **told: float) -> Second:
    values: dict[str, float] = {"vf": 0.0, "vt": 0.0, "asystole": 0.0, "organised": 0.0, **told}
    beats = values["organised"] > 0.5
    return Second(
        end_s=end_s,
        vf=values["vf"],
        vt=values["vt"],
        asystole=values["asystole"],
        organised=values["organised"],
        beats=8 if beats else 0,
        last_beat_s=0.3 if beats else None,
        quiet_s=values.get("quiet_s", 0.3 if beats else 8.0),
        height_uv=50.0,
        top_uv=values.get("top_uv", 80.0),
        noise_uv=values.get("noise_uv", 5.0),
        is_flat=bool(values.get("is_flat", False)),
    )


def run(decision: Decision, *seconds: Second) -> list[Rhythm]:
    return [decision.step(s).rhythm for s in seconds]


def test_the_sum_is_of_log_odds_less_the_bias() -> None:
    summed = CumulativeSum(bias=1.0, raise_at=8.0, most=14.0)
    p = 1 / (1 + math.exp(-4.0))  # log odds 4, so 3 a second: 3, 6, 9
    over = []
    for i in range(3):
        summed.add(p, 4.0 + i)
        over.append(summed.is_over)
    assert over == [False, False, True]
    assert summed.since_s == 2.0  # it spoke first at 4 s, of what began two seconds before


def test_a_doubtful_second_takes_longer() -> None:
    summed = CumulativeSum(bias=1.0, raise_at=8.0, most=14.0)
    p = 1 / (1 + math.exp(-2.0))  # 1 a second: over 8 with the ninth
    over = []
    for i in range(10):
        summed.add(p, float(i))
        over.append(summed.is_over)
    assert over.index(True) == 8


def test_no_second_says_more_than_six() -> None:
    summed = CumulativeSum(bias=0.0, raise_at=8.0, most=100.0)
    summed.add(1.0, 1.0)
    assert not summed.is_over  # 6 at most
    summed.add(1.0, 2.0)
    assert summed.is_over


def test_fibrillation_is_named_by_the_last_seconds() -> None:
    decision = Decision(THRESHOLDS)
    beating = [second(float(t), organised=0.9) for t in range(4, 9)]
    assert run(decision, *beating) == [Rhythm.ORGANISED] * 5
    told = run(decision, *(second(float(t), vf=0.95, vt=0.04) for t in range(9, 13)))
    # log odds of 0.99 are 4.6, so 3.6 a second: 3.6, 7.2, 10.8.
    assert told == [Rhythm.UNKNOWN, Rhythm.UNKNOWN, Rhythm.VF, Rhythm.VF]
    # Tachycardia for a second does not rename it, for many it does.
    assert run(decision, second(13.0, vf=0.2, vt=0.75)) == [Rhythm.VF]
    assert run(decision, *(second(float(t), vt=0.98) for t in range(14, 24)))[-1] is Rhythm.VT


def test_an_asystole_takes_a_heart_that_was_seen() -> None:
    still = [second(float(t), asystole=0.97) for t in range(4, 12)]
    assert Rhythm.ASYSTOLE not in run(Decision(THRESHOLDS), *still)
    decision = Decision(THRESHOLDS)
    run(decision, *(second(float(t), organised=0.9) for t in range(4, 14)))
    told = run(decision, *(second(14.0 + i, asystole=0.97, quiet_s=1.3 + i) for i in range(6)))
    # log odds 3.5 a second are over 4 with the second one, but 4.8 s of quiet come with the fifth.
    assert told == [*[Rhythm.UNKNOWN] * 4, Rhythm.ASYSTOLE, Rhythm.ASYSTOLE]


@pytest.mark.parametrize(
    "torn",
    [{"is_flat": 1.0}, {"noise_uv": 40.0}, {"noise_uv": 0.2}, {"top_uv": 400.0}],
    ids=["flat", "hum", "dead", "thrown"],
)
def test_an_electrode_that_comes_off_is_no_asystole(torn: dict[str, float]) -> None:
    decision = Decision(THRESHOLDS)
    run(decision, *(second(float(t), organised=0.9) for t in range(4, 24)))
    told = run(decision, *(second(float(t), asystole=0.97, **torn) for t in range(24, 36)))
    assert set(told) == {Rhythm.UNKNOWN}


def test_a_heart_seen_for_moments_is_not_known_well_enough_to_stand_still() -> None:
    decision = Decision(THRESHOLDS)
    run(decision, *(second(float(t), organised=0.9) for t in range(4, 13)))
    told = run(decision, *(second(float(t), asystole=0.97) for t in range(13, 25)))
    assert set(told) == {Rhythm.UNKNOWN}


def test_lower_beats_are_believed_after_eight_seconds() -> None:
    decision = Decision(THRESHOLDS)
    run(decision, *(second(float(t), organised=0.9) for t in range(4, 9)))
    lower = [second(9.0 + i, organised=0.9, quiet_s=8.0) for i in range(9)]
    told = run(decision, *lower)
    assert told == [*[Rhythm.UNKNOWN] * 7, Rhythm.ORGANISED, Rhythm.UNKNOWN]
    # From then on they are what is usual: the watch measures against their height.
    assert decision.reference_uv == 50.0


def test_the_last_beat_is_when_it_was() -> None:
    decision = Decision(THRESHOLDS)
    assert decision.step(second(4.0, organised=0.9)).last_beat_s == pytest.approx(3.7)
    assert decision.step(second(5.0)).last_beat_s == pytest.approx(3.7)


# The watch.


def verdicts(model: RhythmModel, samples: np.ndarray, rate: float, size: int) -> list[Verdict]:
    watch = RhythmWatch(model, rate)
    told = []
    for i in range(0, len(samples), size):
        told += watch.add(samples[i : i + size])
    return told


@settings(max_examples=10, deadline=None)
@given(size=st.integers(1, 900))
def test_chunks_of_any_size_give_the_same_verdicts(size: int) -> None:
    model = RhythmModel()
    samples = heart(
        Episode(EpisodeKind.SINUS_RHYTHM, 12), Episode(EpisodeKind.VENTRICULAR_FIBRILLATION, 12)
    )
    assert verdicts(model, samples, 130, size) == verdicts(model, samples, 130, len(samples))


@pytest.mark.parametrize("rate", [125.0, 129.9, 250.0])
def test_there_is_a_verdict_for_each_second_from_the_fourth_on(
    model: RhythmModel, rate: float
) -> None:
    samples = heart(Episode(EpisodeKind.SINUS_RHYTHM, 20), rate=rate)
    told = verdicts(model, samples, rate, 64)
    assert [v.end for v in told] == [round(s * rate) for s in range(4, 4 + len(told))]
    assert len(told) in {16, 17}
    assert {v.rhythm for v in told} == {Rhythm.ORGANISED}
    assert told[-1].rate == pytest.approx(72, abs=8)


@pytest.mark.parametrize(
    ("kind", "rhythms"),
    [
        (EpisodeKind.VENTRICULAR_FIBRILLATION, {Rhythm.VF, Rhythm.VT}),
        (EpisodeKind.VENTRICULAR_FLUTTER, {Rhythm.VF, Rhythm.VT}),
        (EpisodeKind.TORSADES, {Rhythm.VF, Rhythm.VT}),
        (EpisodeKind.ASYSTOLE, {Rhythm.ASYSTOLE}),
    ],
)
def test_a_heart_that_stops_is_heard_within_ten_seconds(
    model: RhythmModel, kind: EpisodeKind, rhythms: set[Rhythm]
) -> None:
    samples = heart(Episode(EpisodeKind.SINUS_RHYTHM, 30), Episode(kind, 15))
    heard = [v.end / 130 for v in verdicts(model, samples, 130, 130) if v.rhythm in rhythms]
    assert heard
    assert 30 < heard[0] <= 40


def test_a_slow_rate_is_refused(model: RhythmModel) -> None:
    with pytest.raises(ValueError, match="50 samples per second, not 40"):
        RhythmWatch(model, 40.0)


def test_the_classes_are_those_of_training() -> None:
    from training.rhythm.network import CLASSES as TRAINED

    assert TRAINED == CLASSES
