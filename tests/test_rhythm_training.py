"""How the watch for lethal rhythms is trained: records, folds, loss, and choice of thresholds."""

import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from models.rhythm.decision import Thresholds
from models.rhythm.frontend import RATE, SAMPLES
from tests.conftest import DATA
from training.errors import TrainingError
from training.rhythm.augment import Augmenter, asystole, movement, surrogate
from training.rhythm.choose import DEFAULT, Track, choose, summary
from training.rhythm.episodes import Episode, episodes, heard_after, is_false
from training.rhythm.fit import set_loss
from training.rhythm.folds import FOLDS, fold_of
from training.rhythm.network import RhythmNet
from training.rhythm.records import Label, RhythmRecord, Span, read_records
from training.rhythm.stage import ship, train
from training.rhythm.windows import bridged, cut, label_at


def record(*spans: tuple[float, float, Label], rate: float = 100.0) -> RhythmRecord:
    end_s = spans[-1][1]
    samples = np.random.default_rng(1).normal(0, 50, round(end_s * rate)).astype(np.float32)
    made = tuple(Span(a, b, label, "") for a, b, label in spans)
    return RhythmRecord("made/1", "made/1", rate, samples, made)


# Labels.


def test_a_window_is_what_its_last_three_seconds_have_in_common() -> None:
    some = record(
        (0, 10, Label.ORGANISED),
        (10, 20, Label.ORGANISED | Label.NOISE),
        (20, 40, Label.VF),
    )
    labels = label_at(some, np.array([9.0, 11.0, 14.0, 20.0, 21.0, 22.9, 23.0, 40.0]))
    assert [Label(int(x)) for x in labels] == [
        Label.ORGANISED,
        Label.ORGANISED,
        Label.ORGANISED | Label.NOISE,
        Label.ORGANISED | Label.NOISE,
        Label.NOTHING,
        Label.NOTHING,
        Label.VF,
        Label.VF,
    ]


def test_windows_begin_with_the_fourth_second_and_anew_after_a_loss() -> None:
    some = record((0, 30, Label.ORGANISED))
    some.microvolts[1200:1400] = np.nan  # 12 to 14 s
    ends = cut(some).ends_s.tolist()
    assert ends == [*map(float, range(4, 13)), *map(float, range(18, 31))]


def test_a_short_loss_is_bridged_by_a_line() -> None:
    samples = np.array([0, 1, np.nan, np.nan, 4, 5], np.float32)
    assert bridged(samples, 2.0).tolist() == [0, 1, 2, 3, 4, 5]
    assert np.isnan(bridged(samples, 1.0)[2:4]).all()


def test_no_person_is_in_two_folds_and_each_set_is_in_all() -> None:
    persons = [f"{source}/{i}" for source in ("a", "b") for i in range(23)]
    folds = fold_of([*persons, *persons])
    assert folds == fold_of(reversed(persons))
    for source in ("a", "b"):
        counts = np.bincount([f for p, f in folds.items() if p[0] == source], minlength=FOLDS)
        assert counts.tolist() == [5, 5, 5, 4, 4]


# What is heard.


def test_what_is_certain_to_be_lethal_is_an_episode() -> None:
    some = record(
        (0, 20, Label.ORGANISED),
        (20, 35, Label.VF | Label.VT),
        (35, 50, Label.VT),
        (50, 60, Label.ORGANISED | Label.VT),
        (60, 66, Label.ASYSTOLE),
    )
    assert episodes(some) == [
        Episode(Label.VF, 20, 35),
        Episode(Label.VT, 35, 50),
        Episode(Label.ASYSTOLE, 60, 66),
    ]
    assert [is_false(some, s) for s in (10.0, 17.9, 18.0, 58.0, 73.9, 74.1)] == [
        True,
        True,
        False,
        False,
        False,
        True,
    ]


def test_an_episode_is_heard_up_to_eight_seconds_after_its_end() -> None:
    of = Episode(Label.VF, 100.0, 112.0)
    assert heard_after([(104.0, 110.0)], of) == 4.0
    assert heard_after([(90.0, 101.0)], of) == 0.0
    assert heard_after([(119.0, 130.0)], of) == 19.0
    assert heard_after([(121.0, 130.0)], of) is None
    assert heard_after([(10.0, 99.0)], of) is None


# The loss.


def test_the_loss_is_of_what_a_window_may_be() -> None:
    p = np.array([[0.1, 0.2, 0.1, 0.5, 0.1]])
    logits = torch.log(torch.tensor(p))
    either = torch.tensor([int(Label.ORGANISED | Label.NOISE)], dtype=torch.uint8)
    assert float(set_loss(logits, either)) == pytest.approx(-math.log(0.6))
    # Tachycardia called fibrillation is mostly right: 0.3 of it counts for 0.8, 0.2 for the rest.
    vt = torch.tensor([int(Label.VT)], dtype=torch.uint8)
    expected = -(0.8 * math.log(0.3) + 0.2 * math.log(0.2))
    assert float(set_loss(logits, vt)) == pytest.approx(expected, rel=1e-5)


# What is made.


def test_a_surrogate_has_the_spectrum_of_its_noise_and_none_of_its_beats() -> None:
    rng = np.random.default_rng(1)
    beats = np.zeros(SAMPLES, np.float32)
    beats[50::100] = 500
    made = surrogate(beats, rng)
    assert np.abs(np.fft.rfft(made))[1:-1] == pytest.approx(
        np.abs(np.fft.rfft(beats))[1:-1], abs=1.0
    )
    assert np.abs(made).max() < 0.6 * np.abs(beats).max()


def test_a_made_asystole_has_nothing_like_a_beat_at_its_end() -> None:
    rng = np.random.default_rng(2)
    noise = rng.normal(0, 100, SAMPLES).astype(np.float32)
    made = np.abs([asystole(noise, rng) for _ in range(200)])
    # Noise of 45 µV, a P wave of 130, drift of 120, and what 3.2 s ago was a beat of up to 2 mV.
    assert made[:, -round(3 * RATE) :].max() < 520
    assert made[:, : round(4 * RATE)].max() > 1000


def test_a_movement_repeats() -> None:
    made = movement(np.random.default_rng(4))
    spectrum = np.abs(np.fft.rfft(made))
    assert 0.8 <= spectrum[8:].argmax() * RATE / SAMPLES + 1.0 <= 17


def test_augmenting_changes_no_window_that_is_given() -> None:
    rng = np.random.default_rng(3)
    windows = rng.normal(0, 100, (64, SAMPLES)).astype(np.float32)
    labels = np.full(64, Label.VF, np.uint8)
    kept = windows.copy()
    varied, told = Augmenter(windows[:4], rng).vary(windows, labels)
    assert np.array_equal(windows, kept)
    assert not np.array_equal(varied, kept)
    assert np.isfinite(varied).all()
    # Whatever lies over fibrillation, it is fibrillation.
    assert (told == Label.VF).all()


# Thresholds.


def track(some: RhythmRecord, p: dict[tuple[int, int], float], fold: int = 0) -> Track:
    ends_s = np.arange(4.0, some.duration_s + 0.5)
    lethal = np.full(len(ends_s), 1e-3)
    for (start, end), value in p.items():
        lethal[(ends_s >= start) & (ends_s < end)] = value
    return Track(some, fold, ends_s, lethal)


def test_thresholds_pass_by_noise_and_hear_fibrillation() -> None:
    sick = record((0, 60, Label.ORGANISED), (60, 90, Label.VF))
    noisy = record((0, 90, Label.ORGANISED))
    hears = track(sick, {(63, 90): 0.99})
    fooled = track(noisy, {(20, 25): 0.9})  # log odds of 2.2 for five seconds
    chosen = choose([hears, fooled])
    assert [round(a) for a, _ in hears.lasting(chosen)] != []
    assert list(fooled.lasting(chosen)) == []
    figures = summary([hears, fooled], {0: chosen})
    assert (figures["vf_heard"], figures["vf_episodes"], figures["false"]) == (1, 1, {"made": 0})


def test_a_sum_begins_anew_after_missing_seconds() -> None:
    some = record((0, 30, Label.ORGANISED))
    whole = track(some, {(10, 30): 0.99})
    kept = (whole.ends_s < 12) | (whole.ends_s >= 20)
    torn = Track(some, 0, whole.ends_s[kept], whole.lethal[kept])
    # 3.6 a second: with the third of a row.
    assert [a for a, _ in whole.lasting(DEFAULT)] == [12.0]
    assert [a for a, _ in torn.lasting(DEFAULT)] == [22.0]


# The command.


def test_a_missing_data_set_is_one_line(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "training", "rhythm", "--data", tmp_path, "-r", tmp_path / "run"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.strip().splitlines()[-1].endswith("vfdb: no record; expected .hea files")


def test_a_run_begun_with_other_numbers_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="vfdb: no record"):
        train(tmp_path, tmp_path / "run", steps=1, seed=1)
    with pytest.raises(TrainingError, match=r"begun with .*'steps': 1.* expected .*'steps': 2"):
        train(tmp_path, tmp_path / "run", steps=2, seed=1)


def test_an_unfinished_run_is_not_shipped(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="no model; expected a finished run"):
        ship(tmp_path, 1)


def test_a_network_of_one_step_is_written_and_read(tmp_path: Path) -> None:
    from training.rhythm.export import write_model

    torch.manual_seed(1)
    net = RhythmNet().eval()
    thresholds = Thresholds(
        bias=0, raise_at=1, most=2, still_bias=0, still_raise_at=1, organised=0.5
    )
    model = write_model(tmp_path / "m", net, thresholds, version=1, metrics={}, data=[])
    windows = np.random.default_rng(1).normal(0, 300, (3, SAMPLES)).astype(np.float32)
    with torch.inference_mode():
        expected = torch.softmax(net(torch.from_numpy(windows)), dim=1).numpy()
    assert np.abs(model.probabilities(windows) - expected).max() < 1e-5


# Real recordings.


@pytest.mark.data
def test_the_recordings_are_read_as_they_are_annotated() -> None:
    records = {r.id: r for r in read_records(DATA)}
    counts: dict[str, int] = {}
    for r in records.values():
        counts[r.source] = counts.get(r.source, 0) + 1
        assert r.spans[0].start_s == 0
        assert r.spans[-1].end_s == pytest.approx(r.duration_s)
    assert {k: v for k, v in counts.items() if k != "ptbxl"} == {
        "vfdb": 14,
        "cudb": 15,
        "mitdb": 38,
        "cpsc2021": 9,
        "cinc2017": 6822,
        "lead1": 4500,
    }
    assert records["mitdb/202"].person == records["mitdb/201"].person
    long: dict[str, int] = {}
    for r in records.values():
        count = sum(e.kind is Label.VF and e.duration_s >= 10 for e in episodes(r))
        long[r.source] = long.get(r.source, 0) + count
    # By hand: one of 418, three each of 419 and 426, one of 429; one in each record of CUDB.
    assert (long["vfdb"], long["cudb"], long["mitdb"]) == (8, 15, 0)
