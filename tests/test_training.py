"""How a bundle is made: mixing, the loop, the stages end to end, and what goes wrong on the way."""

import fcntl
import json
import math
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml

torch = pytest.importorskip("torch")
pytest.importorskip("sklearn")

from models.bundle import DEFAULT, AlarmRule, find_bundle  # noqa: E402
from models.leads import LEADS  # noqa: E402
from models.restoration import WIDTHS, RestorationNet  # noqa: E402
from models.runtime import Runtime  # noqa: E402
from training import tables  # noqa: E402
from training.__main__ import main  # noqa: E402
from training.augment import augment, zscore  # noqa: E402
from training.calibrate import at_precision, best_f_beta, platt  # noqa: E402
from training.card import model_card  # noqa: E402
from training.classes import resolve  # noqa: E402
from training.config import load_config, parse_config, save_config  # noqa: E402
from training.cross_device import cross_device  # noqa: E402
from training.data import load_cinc2017, load_ptbxl  # noqa: E402
from training.datasets.cache import Cache  # noqa: E402
from training.datasets.prepare import prepare  # noqa: E402
from training.datasets.record import Record  # noqa: E402
from training.datasets.splits import hashed_split  # noqa: E402
from training.errors import TrainingError  # noqa: E402
from training.export import write_bundle  # noqa: E402
from training.faults import distort  # noqa: E402
from training.losses import Outputs, Shape, Targets, methods  # noqa: E402
from training.losses.base import flipped  # noqa: E402
from training.losses.liteheart import Discriminator, LiteHeart, LiteHeartOne  # noqa: E402
from training.mixing import Mix, region_mix  # noqa: E402
from training.networks import load_restoration  # noqa: E402
from training.policy import alarm_rules  # noqa: E402
from training.pool import Pool, Shuffle  # noqa: E402
from training.provenance import data_of, methods_of  # noqa: E402
from training.release import assemble, release  # noqa: E402
from training.resampling import r_peaks, resample_beats  # noqa: E402
from training.results import evaluate  # noqa: E402
from training.run import train  # noqa: E402
from training.shards import twelve_leads  # noqa: E402
from training.stages.classifier import Classifier  # noqa: E402
from training.stages.contrast import contrastive, glimpse  # noqa: E402
from training.stages.masked import withheld  # noqa: E402
from training.tables import steps  # noqa: E402
from training.teaching import Teacher  # noqa: E402

CLASSES = ("AF", "PVC", "NSR")


class Toy:
    """Twelve-lead records whose class is written in their shape; folds 1 to 3."""

    name, licence = "toy", "none"
    leads: Sequence[str] = LEADS
    columns = CLASSES

    def ids(self) -> Sequence[str]:
        return [str(i) for i in range(60)]

    def read(self, name: str) -> Record:
        n = int(name)
        rng = np.random.default_rng(n)
        t = np.arange(1000) / 100
        kind = n % 3
        wave = 800 * np.sin(2 * np.pi * (2 + 3 * kind) * t)
        signal = np.stack([wave * (1 + 0.1 * i) for i in range(12)])
        return Record(
            id=name,
            patient=name,
            signal=(signal + rng.normal(0, 100, signal.shape)).astype(np.float32),
            rate=100.0,
            leads=LEADS,
            positive=frozenset({CLASSES[kind]}),
            known=None,
            fold=n % 5 + 1,
        )


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("toy") / "cache"
    prepare(Toy(), path)
    return path


def write_yaml(path: Path, toy: Path, **fields: object) -> Path:
    content: dict[str, object] = {
        "data": [{"cache": str(toy), "train": [1, 2, 3], "validation": [4], "test": [5]}],
        "classes": list(CLASSES),
        "size": "tiny",
        "schedule": {"steps": 4, "batch": 8, "validate_every": 2, "learning_rate": 1e-3},
        **fields,
    }
    path.write_text(yaml.safe_dump(content))
    return path


def restoring(folder: Path, cache: Path, restoration: Path) -> Path:
    """The YAML of a student that reads restored leads, by labels alone."""
    return write_yaml(
        folder / "s.yaml",
        cache,
        network="student",
        restores=True,
        restoration=str(restoration),
    )


# --- Mixing -------------------------------------------------------------------------------------


def test_limb_leads_follow_einthoven_and_goldberger() -> None:
    eight = np.arange(8, dtype=float)[:, None] + np.array([[10.0, 20.0]])
    leads = twelve_leads(eight)
    one, two = eight[0], eight[1]
    assert np.allclose(leads[2], two - one)
    assert np.allclose(leads[3:6].sum(axis=0), 0)
    assert np.allclose(leads[6:], eight[2:])


def test_the_same_box_is_cut_from_both_signals_and_the_labels_follow_its_area() -> None:
    generator = torch.Generator().manual_seed(3)
    mix = region_mix(torch.zeros(40, dtype=torch.int64), 12, 100, generator)
    number = torch.arange(40.0)[:, None, None].expand(40, 12, 100)
    mixed, other = mix.signals(number), mix.signals(number + 1000)
    assert torch.equal(other, mixed + 1000), "real and restored leads get the same box"
    labels = mix.labels(torch.eye(40))
    for n in range(40):
        taken = (mixed[n] != n).float().mean().item()
        if int(mix.partner[n]) != n:
            assert labels[n, int(mix.partner[n])] == pytest.approx(taken)
            assert labels[n, n] == pytest.approx(1 - taken)
    inside = mix.inside
    rows, columns = inside.any(2), inside.any(1)
    assert torch.equal(inside, rows[:, :, None] & columns[:, None, :]), "a box, not a scatter"
    share = inside.float().mean(dim=(1, 2))
    assert 0.15 < share.mean() < 0.5
    assert share.max() > 0.6


def test_records_are_mixed_within_their_data_set_only() -> None:
    groups = torch.tensor([0, 1] * 10)
    mix = region_mix(groups, 12, 100, torch.Generator().manual_seed(1))
    assert torch.equal(groups[mix.partner], groups)
    assert sorted(mix.partner.tolist()) == list(range(20))


def test_a_mixed_label_is_known_where_both_are() -> None:
    mix = region_mix(torch.zeros(4, dtype=torch.int64), 12, 50, torch.Generator().manual_seed(2))
    known = torch.tensor([[1.0], [1.0], [0.0], [1.0]])
    expected = [known[i] * known[int(p)] for i, p in enumerate(mix.partner)]
    assert torch.equal(mix.known(known), torch.stack(expected))


@pytest.mark.parametrize("n", [2, 3, 4, 5, 128, 129])
def test_no_sample_is_its_own_negative(n: int) -> None:
    partner = flipped(n)
    assert (partner != torch.arange(n)).all()
    assert partner[0] == n - 1, "sample N - n (equation 18)"


# --- LiteHeart's terms --------------------------------------------------------------------------


def test_region_distillation_worked_by_hand() -> None:
    # tau 2, teacher logit 2 ln 3 -> p = 3/4; student logit 0 -> 1/2: the cross-entropy is ln 2, and
    # tau squared makes it 4 ln 2. The unknown second class must not count.
    method = LiteHeartOne(Shape(student=4, teacher=4, classes=2, records=1), alpha=1, tau=2)
    student = Outputs(torch.tensor([[0.0, 5.0]]), torch.zeros(1, 4))
    teacher = Outputs(torch.tensor([[2 * np.log(3), -5.0]]), torch.zeros(1, 4))
    known = torch.tensor([[1.0, 0.0]])
    loss = method(student, teacher, Targets(torch.zeros(1, 2), known, torch.zeros(1)))
    assert loss.item() == pytest.approx(4 * np.log(2), rel=1e-5)


def test_liteheart_weighs_its_two_terms() -> None:
    shape = Shape(4, 6, 3, 8)
    generator = torch.Generator().manual_seed(1)
    ours, theirs = (
        Outputs(*(torch.randn(8, width, generator=generator) for width in (3, features)))
        for features in (4, 6)
    )
    targets = Targets(torch.zeros(8, 3), torch.ones(8, 3), torch.arange(8))
    method = LiteHeart(shape, alpha=0.7, beta=0.3, tau=2.0)
    assert method.discriminator is not None
    mutual = method.discriminator.loss(ours.features, theirs.logits)
    regions = LiteHeartOne(shape, alpha=1.0, tau=2.0)(ours, theirs, targets)
    assert mutual.item() > 0.1
    torch.testing.assert_close(method(ours, theirs, targets), 0.7 * regions + 0.3 * mutual)


def test_an_undecided_discriminator_loses_two_ln_two() -> None:
    net = Discriminator(8, 3)
    torch.nn.init.zeros_(net.out.weight)
    torch.nn.init.zeros_(net.out.bias)
    loss = net.loss(torch.randn(6, 8), torch.randn(6, 3))
    assert loss.item() == pytest.approx(2 * np.log(2), rel=1e-5)


def test_the_discriminator_tells_related_pairs_from_independent_ones() -> None:
    torch.manual_seed(0)
    outputs = torch.randn(256, 3)
    losses = {}
    for name, features in (("related", outputs @ torch.randn(3, 8)), ("not", torch.randn(256, 8))):
        net = Discriminator(8, 3)
        optimizer = torch.optim.Adam(net.parameters(), 3e-3)
        for _ in range(150):
            rows = torch.randperm(256)[:128]
            loss = net.loss(features[rows], outputs[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        losses[name] = loss.item()
    assert losses["related"] < 0.8 * losses["not"]


# --- Configuration, pool ------------------------------------------------------------------------


def test_a_class_of_several_columns_is_positive_where_any_is(toy: Path) -> None:
    pool = Pool([(Cache(toy), None)], ["AF|PVC", "NSR"])
    assert np.array_equal(pool.labels[:, 0], 1 - pool.labels[:, 1])


def test_a_list_of_classes_may_name_sets(toy: Path) -> None:
    selection = [(Cache(toy), None)]
    assert resolve(["PVC", "all"], selection) == ("PVC", "AF", "NSR")
    with pytest.raises(TrainingError, match="no data set of this run has often"):
        resolve(["all", "often"], selection)
    with pytest.raises(TrainingError, match="no set is called 'often'"):
        resolve("often", selection)


def test_batches_go_over_all_records_before_any_comes_again() -> None:
    rows = np.arange(10)
    shuffle = Shuffle(rows, 5, seed=1)
    first, second, third = shuffle.take(), shuffle.take(), shuffle.take()
    assert sorted(np.concatenate((first, second))) == list(range(10))
    again = Shuffle(rows, 5, seed=1)
    again.given = 10
    assert np.array_equal(again.take(), third)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"network": "oracle"}, "network"),
        ({"size": "huge", "network": "restoration"}, "huge"),
        ({"method": "kd"}, "needs teachers"),
        ({"labelled": 0}, "labelled"),
        ({"lead": "IV"}, "lead"),
        ({"wrong": 1}, "wrong"),
        ({"data": []}, "data"),
        ({"seed": -1}, "seed"),
        ({"seed": 10**20}, "seed"),
        ({"strides": [0, 1, 1]}, "strides"),
        ({"options": {"negatives": float("nan")}}, "options.negatives"),
    ],
)
def test_a_wrong_configuration_is_named_in_one_line(
    tmp_path: Path, change: dict[str, object], says: str
) -> None:
    with pytest.raises(TrainingError, match=says) as error:
        parse_config(
            {"network": "student", "data": [{"cache": str(tmp_path)}], **change}, "run.yaml"
        )
    assert "\n" not in str(error.value)


def test_wrong_paths_end_in_one_line(
    tmp_path: Path, toy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    student = write_yaml(tmp_path / "s.yaml", tmp_path / "nowhere", network="student")
    commands = [
        ["prepare", str(tmp_path / "no"), "-o", str(tmp_path / "x")],
        ["finetune", "-c", str(tmp_path / "no.yaml"), "-r", str(tmp_path / "r")],
        ["finetune", "-c", str(student), "-r", str(tmp_path / "r")],
        ["evaluate", str(tmp_path / "no")],
        ["evaluate"],
        ["export", str(tmp_path), "--bundle", "x", "--data", str(tmp_path)],
        ["report", str(tmp_path), "-o", str(tmp_path / "x.html")],
        ["table", "9", "--cache", str(toy)],
    ]
    for command in commands:
        assert main(command) == 1, command
        said = capsys.readouterr().err
        assert said.count("\n") == 1, said


def test_help_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["--help"])
    assert stopped.value.code == 0
    said = capsys.readouterr().out
    for name in ("prepare", "pretrain", "finetune", "distill", "evaluate", "export", "report"):
        assert name in said


def test_a_class_without_a_record_is_named(toy: Path, tmp_path: Path) -> None:
    config = write_yaml(tmp_path / "c.yaml", toy, network="teacher", classes=["AF", "WPW"])
    with pytest.raises(TrainingError, match="WPW"):
        _train(config, tmp_path / "r")


# --- The stages ---------------------------------------------------------------------------------


def _train(config: Path, run: Path, **changes: object) -> dict[str, float]:
    return train(load_config(config, changes), run)


@pytest.fixture(scope="module")
def trained(toy: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A restoration net and a teacher, a few steps each."""
    runs = tmp_path_factory.mktemp("runs")
    _train(write_yaml(runs / "r.yaml", toy, network="restoration"), runs / "restoration")
    _train(write_yaml(runs / "t.yaml", toy, network="teacher", mix=1), runs / "teacher")
    return runs


def test_leads_are_restored_from_data_without_a_label(toy: Path, tmp_path: Path) -> None:
    config = write_yaml(tmp_path / "r.yaml", toy, network="restoration", classes=["no such label"])
    _train(config, tmp_path / "run")
    assert (tmp_path / "run/best.pt").exists()


def test_one_net_restores_from_any_lead(toy: Path, tmp_path: Path) -> None:
    config = write_yaml(
        tmp_path / "r.yaml",
        toy,
        network="restoration",
        lead="any",
        augment=True,
        schedule={"steps": 60, "batch": 8, "validate_every": 20, "learning_rate": 3e-3},
    )
    best = _train(config, tmp_path / "run")
    assert best["mse"] < 0.5, "the leads are z-scored: a flat line has 1"
    sources = evaluate(tmp_path / "run")["sources"]
    assert [s["source"] for s in sources] == list(LEADS)
    assert all(s["mse"] < 0.5 for s in sources)
    # What reads the other leads is left out of the net of one lead, and nothing is lost by that.
    whole = RestorationNet(WIDTHS["tiny"], 12).eval()
    whole.load_state_dict(torch.load(tmp_path / "run/best.pt", weights_only=True))
    given = torch.zeros(2, 12, 1000)
    given[:, LEADS.index("V2")] = torch.randn(2, 1000, generator=torch.Generator().manual_seed(1))
    one = load_restoration(tmp_path / "run", "V2")
    measured = given[:, LEADS.index("V2")][:, None]
    assert torch.allclose(one(measured), whole(given), atol=1e-5)
    with pytest.raises(
        TrainingError, match="restores from any lead; --teacher judges a net of one"
    ):
        evaluate(tmp_path / "run", tmp_path)


def test_a_student_of_another_lead_than_its_restoration_net_is_refused(
    toy: Path, trained: Path, tmp_path: Path
) -> None:
    config = write_yaml(
        tmp_path / "s.yaml",
        toy,
        network="student",
        lead="V1",
        restores=True,
        restoration=str(trained / "restoration"),
    )
    with pytest.raises(TrainingError, match="restoration restores from lead I; expected lead V1"):
        _train(config, tmp_path / "run")
    config = write_yaml(tmp_path / "any.yaml", toy, network="student", lead="any")
    with pytest.raises(TrainingError, match="lead: 'any' is for a restoration net; expected one"):
        _train(config, tmp_path / "run")


def _task(folder: Path, toy: Path, **fields: object) -> tuple[Classifier, Pool]:
    """A classifier's task over all records, every label known, and its records."""
    config = load_config(write_yaml(folder / "c.yaml", toy, **fields))
    pool = Pool([(Cache(toy), None)], ["AF", "NSR"])
    return Classifier(config, pool, pool, np.ones(len(pool), bool)), pool


@pytest.mark.parametrize(("share", "fewest", "most"), [(0, 0, 0), (0.5, 5, 25), (1, 30, 30)])
def test_the_share_of_batches_that_are_mixed(
    share: float,
    fewest: int,
    most: int,
    toy: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from training.stages import classifier

    mixed: list[int] = []
    monkeypatch.setattr(
        classifier, "region_mix", lambda *given: mixed.append(1) or region_mix(*given)
    )
    task, _ = _task(tmp_path, toy, network="teacher", mix=share)
    for _ in range(30):
        task._side(task._labelled.take())
    assert fewest <= len(mixed) <= most


@pytest.mark.parametrize("reads", [{}, {"restores": True}, {"restores": True, "augment": True}])
def test_some_batches_are_stretches_of_whole_records(
    reads: dict[str, bool], toy: Path, trained: Path, tmp_path: Path
) -> None:
    task, pool = _task(
        tmp_path,
        toy,
        network="student",
        crop=0.5,
        restoration=str(trained / "restoration"),
        **reads,
    )
    lengths = []
    firsts = set()
    for _ in range(30):
        rows = task._labelled.take()
        side = task._side(rows)
        assert side.inputs.shape == side.real.shape
        whole = pool.leads(rows, pool.windows(rows))
        length = side.real.shape[-1]
        places = whole.unfold(2, length, 1)[0, 0]
        (first,) = torch.nonzero((places == side.real[0, 0]).all(1))[:, 0].tolist()
        assert torch.equal(side.real, whole[..., first : first + length])
        if not reads.get("augment"):  # the measured lead stays as it is, in its place
            measured = side.inputs[:, 0]
            torch.testing.assert_close(measured, side.real[:, 0], atol=0.02, rtol=0.002)
        lengths.append(length)
        firsts.add(first)
    assert set(lengths) == {256, whole.shape[-1]}
    assert 5 <= lengths.count(256) <= 25
    assert len(firsts) > 3


def test_of_an_unmixed_stretch_the_teacher_says_what_it_says_of_the_whole(
    toy: Path, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task, pool = _task(
        tmp_path,
        toy,
        network="student",
        method="liteheart-1",
        mix=0.5,
        crop=0.5,
        teachers=[str(trained / "teacher")],
        restoration=str(trained / "restoration"),
    )
    assert task._teacher is not None
    heard: list[Outputs] = []
    monkeypatch.setattr(task, "_method", lambda _ours, theirs, _targets: heard.append(theirs))
    whole = task._teacher.of_all(pool)
    mixed = []
    for _ in range(30):
        side = task._side(task._labelled.take())
        n = len(side.batch.rows)
        task._distil(side, Outputs(torch.zeros(n, 2), torch.zeros(n, 1)))
        use = side.complete
        seen = task._teacher(side.real[use]) if side.is_mixed else None
        expected = seen.logits if seen else whole.logits[torch.from_numpy(side.batch.rows)[use]]
        torch.testing.assert_close(heard[-1].logits, expected)
        mixed.append(side.is_mixed)
    assert 5 <= mixed.count(True) <= 25


class Long(Toy):
    """Records of two windows, of which the second is another class's."""

    def read(self, name: str) -> Record:
        record, other = super().read(name), super().read(str(int(name) + 1))
        signal = np.concatenate([record.signal, other.signal], axis=1)
        return replace(record, signal=signal)


def test_an_unmixed_window_is_taught_what_the_teacher_says_of_that_window(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepare(Long(), tmp_path / "long", hop=10)
    task, pool = _task(
        tmp_path,
        tmp_path / "long",
        network="student",
        method="kd",
        teachers=[str(trained / "teacher")],
    )
    assert task._teacher is not None
    heard: list[Outputs] = []
    monkeypatch.setattr(task, "_method", lambda _ours, theirs, _targets: heard.append(theirs))
    second = 0
    for _ in range(5):
        side = task._side(task._labelled.take())
        n = len(side.batch.rows)
        task._distil(side, Outputs(torch.zeros(n, 2), torch.zeros(n, 1)))
        expected = task._teacher(pool.leads(side.batch.rows, side.batch.windows))
        torch.testing.assert_close(heard[-1].logits, expected.logits)
        second += int((side.batch.windows % 2).sum())
    assert second > 5


def test_liteheart_mixes_real_and_restored_leads_and_labels_alike(
    toy: Path, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from training.stages import classifier

    task, pool = _task(
        tmp_path,
        toy,
        network="student",
        method="liteheart",
        teachers=[str(trained / "teacher")],
        restoration=str(trained / "restoration"),
    )
    drawn: list[Mix] = []
    monkeypatch.setattr(
        classifier, "region_mix", lambda *given: drawn.append(region_mix(*given)) or drawn[-1]
    )
    side = task._side(task._labelled.take())
    (mix,) = drawn
    rows, windows = side.batch.rows, side.batch.windows
    real = pool.leads(rows, windows)
    assert torch.equal(side.real, mix.signals(real))
    assert torch.equal(side.inputs, mix.signals(task._inputs(real, side.batch)))
    labels, _ = pool.targets(rows)
    assert torch.equal(side.labels, mix.labels(labels))
    assert not torch.equal(side.inputs, task._inputs(real, side.batch))
    assert not torch.equal(side.labels, labels)


def test_records_without_any_label_teach_liteheart_too(
    toy: Path, trained: Path, tmp_path: Path
) -> None:
    class Unlabelled(Toy):
        name, columns = "unlabelled", ()

        def read(self, name: str) -> Record:
            return replace(super().read(name), positive=frozenset())

    prepare(Unlabelled(), tmp_path / "unlabelled")
    parts = [(Cache(toy), None), (Cache(tmp_path / "unlabelled"), None)]
    pool = Pool(parts, ["AF", "NSR"])  # type: ignore[arg-type]
    config = load_config(
        write_yaml(
            tmp_path / "c.yaml",
            toy,
            network="student",
            method="liteheart",
            teachers=[str(trained / "teacher")],
            restoration=str(trained / "restoration"),
        )
    )
    task = Classifier(config, pool, Pool(parts[:1], ["AF", "NSR"]), np.ones(len(pool), bool))  # type: ignore[arg-type]
    assert task._unlabelled is not None
    assert set(task._unlabelled._rows) == set(range(60, 120))
    assert "unlabelled" in task.loss()


def test_several_teachers_are_averaged_and_what_one_does_not_know_is_left_out(
    toy: Path, trained: Path, tmp_path: Path
) -> None:
    other = write_yaml(tmp_path / "o.yaml", toy, network="teacher", classes=["PVC", "AF"], seed=4)
    _train(other, tmp_path / "other")
    runs = [trained / "teacher", tmp_path / "other"]
    both = Teacher(runs, ("AF", "NSR"))
    assert both.knows.tolist() == [1, 0]
    leads = Pool([(Cache(toy), None)], ["AF"]).leads(np.arange(5), np.arange(5))
    one, two = (Teacher([run], ("AF",))(leads) for run in runs)
    said = both(leads)
    torch.testing.assert_close(said.logits[:, 0], (one.logits + two.logits)[:, 0] / 2)
    assert torch.equal(said.features, one.features)
    assert not torch.allclose(one.logits, two.logits)


@pytest.mark.parametrize("method", [None, *methods()])
def test_every_method_trains_and_is_measured(
    method: str | None, toy: Path, trained: Path, tmp_path: Path
) -> None:
    config = write_yaml(
        tmp_path / "s.yaml",
        toy,
        network="student",
        method=method,
        labelled=0.5,
        crop=0.5,
        teachers=[str(trained / "teacher")] if method else [],
        restoration=str(trained / "restoration"),
    )
    best = _train(config, tmp_path / "run")
    assert 0 <= best["score"] <= 1
    history = [json.loads(x) for x in (tmp_path / "run/history.jsonl").read_text().splitlines()]
    assert [line["step"] for line in history] == [2, 4]
    assert ("unlabelled" in history[0]) == (method == "liteheart")
    figures = evaluate(tmp_path / "run")["figures"]
    assert 0 <= figures["macro_f1"] <= 1
    saved = yaml.safe_load((tmp_path / "run/run.yaml").read_text())
    assert saved["made"]["data"][0]["fingerprint"] == Cache(toy).fingerprint


def test_a_resumed_run_ends_with_the_same_bits(toy: Path, trained: Path, tmp_path: Path) -> None:
    """Killed after the first checkpoint by SIGKILL, and started again."""
    config = write_yaml(
        tmp_path / "s.yaml",
        toy,
        network="student",
        method="liteheart",
        labelled=0.5,
        augment=True,
        teachers=[str(trained / "teacher")],
        restoration=str(trained / "restoration"),
        schedule={"steps": 8, "batch": 8, "validate_every": 2},
    )
    command = [sys.executable, "-m", "training", "distill", "-c", str(config), "-r"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    root = Path(__file__).parents[1]
    subprocess.run(
        [*command, str(tmp_path / "whole")],
        check=True,
        env=environment,
        cwd=root,
        capture_output=True,
    )
    process = subprocess.Popen(
        [*command, str(tmp_path / "cut")],
        env=environment,
        cwd=root,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    until = time.monotonic() + 60
    while not (tmp_path / "cut/checkpoint.pt").exists() and time.monotonic() < until:
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert (tmp_path / "cut/checkpoint.pt").exists()
    subprocess.run(
        [*command, str(tmp_path / "cut")],
        check=True,
        env=environment,
        cwd=root,
        capture_output=True,
    )
    whole, cut = (
        torch.load(tmp_path / n / "checkpoint.pt", weights_only=True) for n in ("whole", "cut")
    )
    assert whole["progress"] == cut["progress"]
    for name, value in whole["trained"].items():
        assert torch.equal(value, cut["trained"][name]), name
    assert (tmp_path / "whole/history.jsonl").read_text() == (
        tmp_path / "cut/history.jsonl"
    ).read_text()


def test_a_folder_of_another_run_is_not_overwritten(
    toy: Path, trained: Path, tmp_path: Path
) -> None:
    config = write_yaml(tmp_path / "t.yaml", toy, network="teacher", seed=9)
    with pytest.raises(TrainingError, match=r"another configuration \(seed, mix\)"):
        _train(config, trained / "teacher")


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda run: (run / "checkpoint.pt").write_bytes(b""), "not a checkpoint of this run"),
        (lambda run: (run / "checkpoint.pt").write_bytes(b"x" * 99), "not a checkpoint of this"),
        (lambda run: (run / "best.pt").write_bytes(b"PK"), "best.pt: damaged"),
        (lambda run: (run / "best.pt").unlink(), "no best.pt"),
    ],
)
def test_a_damaged_run_ends_in_one_line(
    damage: Callable[[Path], object], says: str, toy: Path, trained: Path, tmp_path: Path
) -> None:
    run = shutil.copytree(trained / "teacher", tmp_path / "run")
    damage(run)
    with pytest.raises(TrainingError, match=says) as error:
        train(load_config(run / "run.yaml"), run)
    assert "\n" not in str(error.value)


def test_a_history_that_was_cut_off_is_gone_on_with(toy: Path, tmp_path: Path) -> None:
    config = write_yaml(tmp_path / "t.yaml", toy, network="teacher")
    _train(config, tmp_path / "run")
    history = tmp_path / "run" / "history.jsonl"
    whole = history.read_text()
    history.write_text(whole + '{"step": 6, "lo')
    _train(config, tmp_path / "run")
    assert history.read_text() == whole
    history.write_text('{"step": 2, "lo\n' + whole)
    with pytest.raises(TrainingError, match=r"history.jsonl: line 1 is damaged"):
        _train(config, tmp_path / "run")


@pytest.mark.parametrize("network", ["teacher", "restoration"])
def test_a_state_that_is_no_number_is_neither_kept_nor_gone_on_from(
    network: str, toy: Path, tmp_path: Path
) -> None:
    schedule = {"steps": 3, "batch": 8, "validate_every": 1, "learning_rate": 1e30}
    config = write_yaml(tmp_path / "t.yaml", toy, network=network, schedule=schedule)
    with pytest.raises(TrainingError, match=r"is not a number.*no checkpoint yet"):
        _train(config, tmp_path / "run")
    assert not (tmp_path / "run" / "best.pt").exists()
    better = write_yaml(tmp_path / "t.yaml", toy, network=network)
    assert np.isfinite(_train(better, tmp_path / "run")["score"]), "the folder is free again"


def test_a_run_is_trained_by_one_process_at_a_time(toy: Path, tmp_path: Path) -> None:
    config = write_yaml(tmp_path / "t.yaml", toy, network="teacher")
    (tmp_path / "run").mkdir()
    held = os.open(tmp_path / "run", os.O_RDONLY)
    try:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(TrainingError, match="run: another process is training it"):
            _train(config, tmp_path / "run")
    finally:
        os.close(held)
    _train(config, tmp_path / "run")


@pytest.mark.parametrize(
    ("network", "says"),
    [
        ("restoration", "no validation record with all twelve leads; restoration needs them"),
        ("masked", "no validation record with all twelve leads; masking needs them"),
        ("contrast", "no validation record with all twelve leads; contrast needs them"),
        ("teacher", "no class has both a positive and a negative to validate on"),
    ],
)
def test_records_that_cannot_validate_are_refused_at_once(
    network: str, says: str, toy: Path, tmp_path: Path
) -> None:
    class NoLabels(Watch):
        columns = ()

        def read(self, name: str) -> Record:
            return replace(super().read(name), positive=frozenset())

    prepare(NoLabels(), tmp_path / "watch")
    data = [
        {"cache": str(toy), "train": [1, 2, 3]},
        {"cache": str(tmp_path / "watch"), "train": [], "validation": None},
    ]
    config = write_yaml(tmp_path / "t.yaml", toy, network=network, data=data)
    with pytest.raises(TrainingError, match=says):
        _train(config, tmp_path / "run")


def test_an_export_leaves_the_bundle_as_it_is_until_there_is_a_new_one(
    toy: Path, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from training import release as module

    config = restoring(tmp_path, toy, trained / "restoration")
    _train(config, tmp_path / "run")
    bundles = tmp_path / "bundles"
    shutil.copytree(find_bundle(DEFAULT).path, bundles / "mine")
    before = {p.name: p.read_bytes() for p in (bundles / "mine").iterdir()}
    monkeypatch.setattr(module, "BUNDLES", bundles)

    def broken(*_: object) -> dict[str, object]:
        raise FileNotFoundError(2, "No such file", "shard")

    monkeypatch.setattr(module, "metrics", broken)
    with pytest.raises(TrainingError, match=r"mine: cannot be written .*shard"):
        release(tmp_path / "run", "mine", "9", tmp_path)
    assert {p.name: p.read_bytes() for p in (bundles / "mine").iterdir()} == before
    assert [p.name for p in bundles.iterdir()] == ["mine"]
    measured = find_bundle(DEFAULT).manifest.metrics
    classes = dict.fromkeys(CLASSES, 0.9)
    fold9 = {**measured["ptbxl_fold9_lead_one"]}
    fold9 |= dict.fromkeys(("auc", "positives", "sensitivity", "precision"), classes)
    monkeypatch.setattr(module, "metrics", lambda *_: {**measured, "ptbxl_fold9_lead_one": fold9})
    made = release(tmp_path / "run", "mine", "9", tmp_path)
    assert (made.path, made.manifest.version, made.classes) == (bundles / "mine", "9", CLASSES)
    assert "# mine 9" in (bundles / "mine" / "README.md").read_text()


def test_a_run_does_not_go_on_with_data_that_was_prepared_anew(tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    prepare(Toy(), cache)
    config = write_yaml(tmp_path / "t.yaml", cache, network="teacher")
    _train(config, tmp_path / "run")
    shutil.rmtree(cache)
    prepare(Toy(), cache)
    _train(config, tmp_path / "run")  # the same bytes
    shutil.rmtree(cache)
    prepare(Long(), cache)
    for go_on in (lambda: _train(config, tmp_path / "run"), lambda: evaluate(tmp_path / "run")):
        with pytest.raises(TrainingError, match=f"^{tmp_path / 'run'}: holds a run of other data"):
            go_on()


def test_a_table_does_not_take_the_figures_of_another_run_for_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepare(Toy(), tmp_path / "cache")
    wanted = steps(6, tmp_path, tmp_path / "cache", [1])[:1]
    monkeypatch.setattr(tables, "steps", lambda *_: wanted)
    run = tmp_path / wanted[0].run
    run.mkdir(parents=True)
    made = {"classes": [], "data": [{"name": "other", "fingerprint": "other", "licence": ""}]}
    save_config(wanted[0].config, run, made)
    (run / "scores.json").write_text("{}")
    with pytest.raises(TrainingError, match="holds a run of other data"):
        tables.run_table(6, tmp_path, tmp_path / "cache", [1])


def test_windows_of_two_kinds_are_not_mixed(toy: Path, tmp_path: Path) -> None:
    prepare(Toy(), tmp_path / "fast", rate=250)
    cut = write_yaml(tmp_path / "t.yaml", tmp_path / "fast", network="teacher", crop=0.5)
    says = "250 Hz; augment, crop and contrast are made for 100 Hz"
    with pytest.raises(TrainingError, match=says):
        _train(cut, tmp_path / "run")
    run = tmp_path / "run-of-toy"
    _train(write_yaml(tmp_path / "s.yaml", toy, network="student"), run)
    with pytest.raises(TrainingError, match="fast: windows of 1000 samples at 100 Hz and"):
        cross_device(run, Cache(tmp_path / "fast"), None)
    more = write_yaml(tmp_path / "m.yaml", tmp_path / "fast", network="student", start=str(run))
    with pytest.raises(TrainingError, match="windows of 1000 samples at 250 Hz and"):
        _train(more, tmp_path / "more")
    parts = [(Cache(toy), None), (Cache(tmp_path / "fast"), None)]
    with pytest.raises(TrainingError, match="1000 samples at 100 Hz and 1000 samples at 250 Hz"):
        Pool(parts, ["AF"])  # type: ignore[arg-type]


def test_data_without_the_lead_is_refused(toy: Path, tmp_path: Path) -> None:
    prepare(Watch(), tmp_path / "watch")
    run = tmp_path / "run"
    _train(write_yaml(tmp_path / "s.yaml", toy, network="student", lead="II"), run)
    with pytest.raises(TrainingError, match=r"watch: has no lead II"):
        cross_device(run, Cache(tmp_path / "watch"), None)


def test_a_bundle_for_the_daemon_is_of_its_rate(tmp_path: Path) -> None:
    prepare(Toy(), tmp_path / "fast", rate=250)
    config = restoring(tmp_path, tmp_path / "fast", tmp_path / "restoration")
    restores = write_yaml(tmp_path / "r.yaml", tmp_path / "fast", network="restoration")
    _train(restores, tmp_path / "restoration")
    _train(config, tmp_path / "run")
    with pytest.raises(TrainingError, match="learnt from 1000 samples at 250 Hz; a bundle"):
        release(tmp_path / "run", "none", "0", tmp_path)


def test_a_class_that_cannot_be_calibrated_is_named(
    toy: Path, trained: Path, tmp_path: Path
) -> None:
    class OneSided(Toy):
        def read(self, name: str) -> Record:
            record = super().read(name)
            lost = {"PVC"} if record.fold == 4 else set()
            return replace(record, positive=record.positive - lost)

    prepare(OneSided(), tmp_path / "cache")
    config = restoring(tmp_path, tmp_path / "cache", trained / "restoration")
    _train(config, tmp_path / "run")
    with pytest.raises(TrainingError, match="PVC: no positive or no negative validation record"):
        release(tmp_path / "run", "none", "0", tmp_path)


def test_a_disk_that_fills_while_leads_are_restored_ends_in_one_line(
    toy: Path, trained: Path, tmp_path: Path
) -> None:
    restoration = tmp_path / "restoration"
    shutil.copytree(trained / "restoration", restoration, ignore=shutil.ignore_patterns("*.npy"))
    config = restoring(tmp_path, toy, restoration)
    limit = (200_000, resource.getrlimit(resource.RLIMIT_FSIZE)[1])
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    try:
        with pytest.raises(TrainingError, match=r"restored-.*\.npy: cannot be written"):
            _train(config, tmp_path / "run")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)
    assert _train(config, tmp_path / "run")["score"] >= 0


def test_a_loss_that_is_no_number_stops_with_the_checkpoint_kept(
    toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from training.stages import classifier

    real = classifier.masked_cross_entropy
    calls = 0

    def poisoned(*arguments: object) -> object:
        nonlocal calls
        calls += 1
        return real(*arguments) * (float("nan") if calls == 3 else 1)  # type: ignore[arg-type]

    monkeypatch.setattr(classifier, "masked_cross_entropy", poisoned)
    config = write_yaml(tmp_path / "t.yaml", toy, network="teacher")
    with pytest.raises(TrainingError, match=r"step 3 is not a number.*checkpoint") as error:
        _train(config, tmp_path / "run")
    assert "\n" not in str(error.value)
    best = _train(config, tmp_path / "run")
    assert best["step"] in {2, 4}


def test_a_full_disk_ends_in_one_line_and_resumes(
    toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, calls = torch.save, 0

    def full(*arguments: object, **named: object) -> None:
        nonlocal calls
        calls += 1
        if calls == 3:
            raise OSError(28, "No space left on device")
        real(*arguments, **named)

    config = write_yaml(tmp_path / "t.yaml", toy, network="teacher")
    with monkeypatch.context() as patch:
        patch.setattr(torch, "save", full)
        with pytest.raises(TrainingError, match="No space left") as error:
            _train(config, tmp_path / "run")
    assert "\n" not in str(error.value)
    assert _train(config, tmp_path / "run")["score"] >= 0


def test_weights_of_another_run_are_taken_up_but_for_what_does_not_fit(
    toy: Path, trained: Path, tmp_path: Path
) -> None:
    config = write_yaml(
        tmp_path / "t.yaml",
        toy,
        network="teacher",
        classes=["AF", "PVC"],
        start=str(trained / "teacher"),
        schedule={"steps": 1, "batch": 8, "validate_every": 1, "learning_rate": 1e-9},
    )
    _train(config, tmp_path / "run")
    old, new = (
        torch.load(p / "best.pt", weights_only=True)
        for p in (trained / "teacher", tmp_path / "run")
    )
    assert torch.allclose(old["hidden.weight"], new["hidden.weight"], atol=1e-6)
    assert new["out.weight"].shape == (2, old["out.weight"].shape[1])


def test_what_is_withheld_is_whole_leads_and_whole_stretches() -> None:
    hidden = withheld(400, 1000, 64, torch.Generator().manual_seed(3))
    assert hidden.shape == (400, 12, 1000)
    whole = hidden.all(dim=2)
    assert not whole.all(dim=1).any(), "a lead is always shown"
    assert 60 < (whole.sum(dim=1) == 11).sum() < 140, "of a quarter one lead alone"
    # What is left of a lead that is shown is cut at the borders of tokens, alike in every lead.
    for record, leads in zip(hidden, whole, strict=True):
        shown = record[~leads]
        assert (shown == shown[0]).all()
        stretches = torch.nn.functional.pad(shown[0], (0, 24), value=False).reshape(16, 64)[:15]
        assert (stretches == stretches[:, :1]).all()
    assert 0.35 < hidden[~whole].float().mean() < 0.45


# 1 is the error of saying nothing of leads that are z-scored, log(23) the loss of guessing which of
# the 23 other views of twelve records is the partner.
@pytest.mark.parametrize(
    ("network", "bound", "of_first"), [("masked", 0.6, 0.8), ("contrast", 0.8 * math.log(23), 0.9)]
)
def test_pre_training_learns_without_a_label_and_is_built_upon(
    network: str, bound: float, of_first: float, toy: Path, tmp_path: Path
) -> None:
    before = tmp_path / "before"
    pretext = write_yaml(
        tmp_path / "p.yaml",
        toy,
        network=network,
        schedule={"steps": 60, "batch": 8, "validate_every": 20, "learning_rate": 3e-3},
    )
    best = _train(pretext, before)
    first = json.loads((before / "history.jsonl").read_text().splitlines()[0])
    assert -best["score"] < of_first * -first["validation_score"]
    assert -best["score"] < bound
    with pytest.raises(
        TrainingError, match=f"{network} pre-training gives no .*finetune with start"
    ):
        evaluate(before)
    tuned = write_yaml(
        tmp_path / "t.yaml",
        toy,
        network="teacher",
        start=str(before),
        schedule={"steps": 1, "batch": 8, "validate_every": 1, "learning_rate": 1e-9},
    )
    _train(tuned, tmp_path / "teacher")
    old, new = (
        torch.load(folder / "best.pt", weights_only=True)
        for folder in (before, tmp_path / "teacher")
    )
    for name in ("blocks.0.layers.0.weight", "layers.0.feed.0.weight"):
        assert torch.allclose(old[name], new[name], atol=1e-6), name


def test_a_glimpse_is_a_stretch_of_its_record_with_leads_withheld() -> None:
    batch, time = 200, 400
    ramp = 1.0 + torch.arange(time).expand(batch, 12, time)
    seen = glimpse(ramp, torch.Generator().manual_seed(3))
    assert seen.shape == (batch, 12, 256)
    starts = seen.amax(dim=(1, 2)) - 256
    assert starts.min() < 20
    assert starts.max() > 124
    assert len(starts.unique()) > 60, "each record is cut elsewhere"
    for record, start in zip(seen, starts, strict=True):
        shown = record[record.any(dim=1)]
        assert 1 <= len(shown) <= 12
        assert (shown == start + 1 + torch.arange(256)).all(), "whole leads of one stretch"
    alone = (seen.any(dim=2).sum(dim=1) == 1).sum()
    assert 30 < alone < 70, "of a quarter one lead alone"
    assert glimpse(ramp[..., :200], torch.Generator()).shape == (batch, 12, 200)


def test_the_contrastive_loss_is_that_of_a_case_worked_by_hand() -> None:
    # Two records, views at right angles: the partner has cosine 1, the two others 0, tau is 0.1.
    ours = torch.eye(2)
    loss, found = contrastive(3 * ours, ours)
    assert float(loss) == pytest.approx(math.log(1 + 2 * math.exp(-10)), abs=1e-6)
    assert float(found) == 1
    # Partners exchanged: cosine 0 to the partner, 1 to one other and 0 to the second.
    loss, found = contrastive(ours, ours.flip(0))
    assert float(loss) == pytest.approx(math.log(2 + math.exp(10)), rel=1e-4)
    assert float(found) == 0


def test_masked_pre_training_needs_tokens(toy: Path, tmp_path: Path) -> None:
    config = write_yaml(tmp_path / "m.yaml", toy, network="masked", size="resnet1d")
    with pytest.raises(TrainingError, match="size: resnet1d: masked pre-training needs one of"):
        _train(config, tmp_path / "run")


def test_the_report_shows_finished_runs(toy: Path, trained: Path, tmp_path: Path) -> None:
    config = write_yaml(
        tmp_path / "s.yaml",
        toy,
        network="student",
        method="liteheart-1",
        teachers=[str(trained / "teacher")],
        restoration=str(trained / "restoration"),
    )
    _train(config, tmp_path / "student")
    for run in (trained / "teacher", trained / "restoration", tmp_path / "student"):
        evaluate(run)
    page = tmp_path / "page.html"
    runs = [str(trained / "teacher"), str(trained / "restoration"), str(tmp_path / "student")]
    assert main(["report", *runs, "-o", str(page)]) == 0
    text = page.read_text()
    assert text.count("<figure") >= 5
    assert "liteheart-1" in text


@pytest.mark.parametrize("number", range(1, 10))
def test_a_table_trains_first_what_it_builds_on(number: int, tmp_path: Path) -> None:
    done: set[Path] = set()
    wanted = steps(number, tmp_path, tmp_path / "cache", [1, 2])
    assert len({step.run for step in wanted}) == len(wanted)
    for step in wanted:
        config = step.config
        needed = {*config.teachers, config.start, config.restoration} - {None}
        assert needed <= done, step.run
        assert config.data[0].test == [9]
        done.add(tmp_path / step.run)


def test_there_is_no_table_10(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="table 10: expected one of 1, 2, 3, 4, 5, 6, 7, 8, 9"):
        steps(10, tmp_path, tmp_path, [1])


@pytest.mark.parametrize(
    ("number", "folder", "many"), [(1, "labels-10", 13), (2, "labels-5", 13), (9, "crops-10", 14)]
)
def test_each_method_of_a_table_learns_alike(
    number: int, folder: str, many: int, tmp_path: Path
) -> None:
    made = [s.config for s in steps(number, tmp_path, tmp_path, [1])]
    students = [config for config in made if config.network == "student"]
    assert len(students) == many
    own = {"method": None, "teachers": [], "restoration": None, "mix": None}
    assert len({str(config.model_copy(update=own)) for config in students}) == 1
    taught = [config.teachers for config in students if config.method]
    assert taught == [[tmp_path / folder / "teacher-1"]] * (many - 1)


def test_a_method_that_is_added_is_in_the_tables(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    new = {**methods(), "new": methods()["kd"]}
    monkeypatch.setattr(tables, "methods", lambda: new)
    labels = [step.label for step in steps(1, tmp_path, tmp_path, [1])]
    assert labels[-4:] == ["new", "liteheart-1", "liteheart-2", "liteheart"]
    assert set(labels) == {*new, "restoration", "baseline", "teacher (12 leads)"}


def test_a_teacher_judges_restored_leads(toy: Path, trained: Path) -> None:
    run = trained / "restoration"
    figures = evaluate(run, trained / "teacher")["figures"]
    assert 0 <= figures["teacher_agreement"] <= 1
    said = json.loads((run / "scores.json").read_text())["teacher"]["per_class"]
    assert [c["name"] for c in said] == list(CLASSES)
    assert all(c["difference"] > 0 for c in said), "an untrained net restores nothing"
    with pytest.raises(TrainingError, match="judges runs of a restoration net"):
        evaluate(trained / "teacher", trained / "teacher")


class Watch(Toy):
    """Records of one lead, two windows each, of whose classes one is known elsewhere too."""

    name, leads, columns = "a watch", ("I",), ("AF", "elsewhere")

    def read(self, name: str) -> Record:
        record = super().read(name)
        return Record(
            id=name,
            patient=name,
            signal=np.concatenate([record.signal[:1]] * 2, axis=1),
            rate=100.0,
            leads=("I",),
            positive=record.positive & {"AF"},
            known=None,
            fold=None,
        )


def test_a_run_is_measured_on_another_device(
    toy: Path, trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    prepare(Watch(), tmp_path / "watch")
    config = write_yaml(tmp_path / "s.yaml", toy, network="student")
    _train(config, tmp_path / "run")
    capsys.readouterr()
    assert main(["evaluate", str(tmp_path / "run"), "--on", str(tmp_path / "watch")]) == 0
    assert 0 <= json.loads(capsys.readouterr().out)[str(tmp_path / "run")]["macro_auc"] <= 1
    (kept,) = (tmp_path / "run").glob("scores-a-watch-*.json")
    said = json.loads(kept.read_text())
    assert [(c["name"], c["positives"]) for c in said["per_class"]] == [("AF", 20)]
    assert main(["evaluate", str(tmp_path / "run"), "--on", str(toy)]) == 1
    assert "was trained on" in capsys.readouterr().err


def test_a_run_becomes_a_bundle_in_parity_with_its_network(
    toy: Path, trained: Path, tmp_path: Path
) -> None:
    config = write_yaml(
        tmp_path / "s.yaml",
        toy,
        network="student",
        method="liteheart",
        teachers=[str(trained / "teacher")],
        restoration=str(trained / "restoration"),
        strides=[2, 2, 4],
    )
    _train(config, tmp_path / "run")
    system, classes = assemble(tmp_path / "run")
    assert classes == CLASSES
    rule = AlarmRule(priority="low", threshold=0.5, off_threshold=0.2, k=1, n=2)
    bundle = write_bundle(
        tmp_path / "bundle",
        system,
        classes,
        np.full(len(classes), 0.5),
        {"AF": rule},
        version="0",
        sizes={"restoration": "tiny", "student": "tiny"},
        method="liteheart",
        data=data_of(tmp_path / "run"),
    )
    assert bundle.manifest.data == (
        {
            "name": "toy",
            "licence": "none",
            "used": "folds 1-3 to train, fold 4 to stop and calibrate",
        },
    )
    assert bundle.manifest.strides == (2, 2, 4)
    assert bundle.alarm_rules == {"AF": rule.model_dump()}
    inputs = Pool([(Cache(toy), None)], classes).leads(np.arange(3), np.arange(3))[:, 0].numpy()
    with torch.inference_mode():
        expected = system(torch.from_numpy(inputs[:, None]))[2].numpy()
    assert np.abs(Runtime(bundle).infer(inputs).probabilities - expected).max() < 1e-4


def test_a_bundle_names_all_data_that_any_of_its_runs_learnt_from(tmp_path: Path) -> None:
    def saved(name: str, made: list[tuple[str, str]], **fields: object) -> Path:
        run = tmp_path / name
        run.mkdir()
        listed = [{"name": n, "fingerprint": f, "licence": f"{n}'s"} for n, f in made]
        save_config(
            parse_config({"network": "student", **fields}, name),
            run,
            {"classes": [], "data": listed},
        )
        return run

    def seen(cache: str, *folds: list[int] | None) -> dict[str, object]:
        return {"cache": cache, "train": folds[0], "validation": folds[1]}

    teacher = saved("teacher", [("a", "1")], data=[seen("a", [1, 2, 5], [3]), seen("b", [], [1])])
    restoration = saved("restoration", [("c", "2")], data=[seen("c", None, [])])
    start = saved(
        "start", [("a", "1")], data=[seen("a", [1], [4])], method="kd", teachers=[teacher]
    )
    run = saved(
        "run",
        [("a", "1"), ("a", "1")],
        data=[seen("a", [1, 2], [3]), seen("a", [1], [])],
        start=start,
        restoration=restoration,
    )
    assert methods_of(load_config(run / "run.yaml")) == ["kd"]
    assert data_of(run) == [
        {
            "name": "a",
            "licence": "a's",
            "used": "folds 1-2, 5 to train, folds 3-4 to stop and calibrate",
        },
        {"name": "c", "licence": "c's", "used": "all records to train"},
    ]


# --- Augmentation, calibration ------------------------------------------------------------------


def beating(lengths: Sequence[int]) -> tuple[torch.Tensor, list[int]]:
    """A lead [1, 1, time] with R peaks so far apart, P and T waves between; and their places."""
    places = np.cumsum([60, *lengths]).tolist()
    t = np.arange(1000)
    x = np.zeros(1000)
    for r in places:
        for after, height, width in ((0, 5.0, 1.5), (-16, 0.4, 3.0), (28, 0.8, 5.0)):
            x += height * np.exp(-0.5 * ((t - r - after) / width) ** 2)
    return torch.from_numpy(x.astype(np.float32))[None, None], places


@pytest.mark.parametrize("sign", [1, -1])
def test_resampled_beats_keep_their_r_peaks_and_the_ends(sign: int) -> None:
    lead, places = beating([80, 110, 70, 130, 90, 100, 85, 95])
    lead = lead * sign
    assert r_peaks(lead[0, 0].numpy()).tolist() == places
    made = resample_beats(lead, torch.Generator().manual_seed(1), share=1.0)
    assert torch.equal(made[..., : places[0]], lead[..., : places[0]])
    assert torch.equal(made[..., places[-1] :], lead[..., places[-1] :])
    assert torch.allclose(made[0, 0, places], lead[0, 0, places], atol=1e-5)
    # T waves move, by no more than a quarter of what a beat of 0.7 to 1.3 s can be bent.
    moved = [abs(int((sign * made[0, 0, r + 12 : r + 45]).argmax()) - 16) for r in places[:-1]]
    assert 0 < max(moved) <= 4
    assert not torch.equal(made, lead)


def test_resampling_leaves_what_has_no_beats_and_is_seeded() -> None:
    flat = torch.zeros(4, 1, 1000)
    assert torch.equal(resample_beats(flat, torch.Generator().manual_seed(1), share=1.0), flat)
    lead, _ = beating([80] * 10)
    lead = lead.expand(200, -1, -1)
    one, two = (resample_beats(lead, torch.Generator().manual_seed(7)) for _ in range(2))
    assert torch.equal(one, two)
    assert 60 < (one != lead).flatten(1).any(dim=1).sum() < 140, "half of them"


def test_a_clock_that_is_wrong_moves_beats_apart() -> None:
    lead, places = beating([80] * 9)
    for seed in range(20):
        made = distort(lead, torch.Generator().manual_seed(seed))
        found = r_peaks(made[0, 0].numpy())
        spacing = np.diff(found)
        kept = spacing[spacing < 120]  # none over a stretch without a signal
        assert 80 * 0.965 <= np.median(kept) <= 80 * 1.035
    assert len(places) == 10


def test_electrodes_and_clocks_fail_as_often_as_is_said() -> None:
    lead, _ = beating([80] * 9)
    many = (lead + 1).expand(2000, -1, -1)
    made = distort(many, torch.Generator().manual_seed(1))
    assert torch.equal(made, distort(many, torch.Generator().manual_seed(1)))
    zero = made[:, 0] == 0
    off = zero.any(1)
    assert off.float().mean().item() == pytest.approx(0.15, abs=0.03)
    lengths = zero[off].sum(1)
    assert int(lengths.min()) >= 29
    assert int(lengths.max()) <= 201
    assert all((torch.diff(z.int()).abs().sum() <= 2) for z in zero[off][:50]), "one stretch"
    kept = (made[:, 0, -1] == many[:, 0, -1]).float().mean().item()
    assert kept == pytest.approx(0.7, abs=0.1), "the height changes in three of ten"


def test_augmentation_is_seeded_and_keeps_the_scale() -> None:
    x = zscore(torch.randn(16, 1, 1000, generator=torch.Generator().manual_seed(0)))
    once = augment(x, torch.Generator().manual_seed(5))
    again = augment(x, torch.Generator().manual_seed(5))
    other = augment(x, torch.Generator().manual_seed(6))
    assert torch.equal(once, again)
    assert not torch.equal(once, other)
    present = [row[row != 0] for row in once[:, 0]]
    assert all(abs(float(row.std()) - 1) < 0.05 for row in present)


def test_only_the_records_named_are_turned_round() -> None:
    x = torch.zeros(200, 1, 1000)
    x[:, :, ::100] = 30.0
    x = zscore(x + 0.01)
    turned = augment(x, torch.Generator().manual_seed(1), flip=torch.arange(200) < 100)
    upright = (turned.amax(-1) > -turned.amin(-1)).float()[:, 0]
    assert 0.3 < upright[:100].mean() < 0.7
    assert upright[100:].mean() > 0.9


def test_platt_scaling_recovers_a_known_sigmoid() -> None:
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 3, (20_000, 1)).astype(np.float32)
    labels = (rng.random((20_000, 1)) < 1 / (1 + np.exp(-(0.7 * logits - 1)))).astype(np.float32)
    known = np.ones_like(labels, dtype=bool)
    slope, offset = platt(logits, labels, known)
    assert slope[0] == pytest.approx(0.7, abs=0.05)
    assert offset[0] == pytest.approx(-1, abs=0.1)


def test_platt_scaling_ignores_what_is_not_known() -> None:
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 2, (4000, 1)).astype(np.float32)
    labels = (logits + rng.normal(0, 1, logits.shape) > 0).astype(np.float32)
    known = np.ones_like(labels, dtype=bool)
    reference = platt(logits, labels, known)
    labels[::2] = 1 - labels[::2]
    known[::2] = False
    slope, _ = platt(logits, labels, known)
    assert slope[0] == pytest.approx(reference[0][0], rel=0.15)


def test_thresholds_worked_by_hand() -> None:
    probability = np.array([0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9], dtype=np.float32)
    label = np.array([0, 0, 1, 0, 1, 1, 1, 1, 1], dtype=np.float32)
    # From 0.3 on: 6 of 7 right, all 7 positives but none missed: F1 is highest there.
    assert best_f_beta(probability, label, 1) == pytest.approx(0.3)
    # From 0.5 on all are right; from 0.3 on 6 of 7 = 0.857.
    assert at_precision(probability, label, 0.9) == pytest.approx(0.5)
    assert at_precision(probability, label, 0.85) == pytest.approx(0.3)


def test_a_precision_that_too_few_records_reach_is_none() -> None:
    probability = np.linspace(0.1, 0.9, 9, dtype=np.float32)
    label = np.array([1, 0, 1, 0, 1, 0, 1, 0, 1], dtype=np.float32)
    assert at_precision(probability, label, 0.99) is None


def test_only_classes_that_reach_their_precision_alarm() -> None:
    rng = np.random.default_rng(1)
    labels = (rng.random((500, 2)) < 0.3).astype(np.float32)
    probabilities = np.stack([0.9 * labels[:, 0] + 0.05, rng.random(500)], axis=1)
    known = np.ones_like(labels, dtype=bool)
    rules = alarm_rules(probabilities.astype(np.float32), labels, known, ("AF", "BIGU"))
    assert set(rules) == {"AF"}


@pytest.mark.parametrize(("of_positives", "threshold"), [(0.6, 0.7), (0.95, 0.95)])
def test_a_lucky_validation_set_does_not_lower_an_alarm(
    of_positives: float, threshold: float
) -> None:
    labels = (np.arange(100)[:, None] < 30).astype(np.float32)
    probabilities = np.where(labels > 0, of_positives, 0.05).astype(np.float32)
    rules = alarm_rules(probabilities, labels, labels >= 0, ("AF",))
    assert rules["AF"].threshold == pytest.approx(threshold)
    assert rules["AF"].off_threshold == pytest.approx(threshold / 2)


@pytest.mark.data
def test_the_records_a_bundle_is_measured_on(data: Path) -> None:
    fold = load_ptbxl(data, [9], ("AF", "NSR"))
    assert fold.leads.shape == (len(fold.ids), 12, 1000)
    assert fold.labels[:, 0].sum() == 151
    test = load_cinc2017(data, "test")
    assert all(hashed_split(name) == "test" for name in test.ids)


def test_quiet_hours_count_an_alarm_that_never_ends_once_a_heart(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from itertools import islice

    from training import quiet_hours
    from training.shards import read_shard

    (tmp_path / "samples" / "mitdb").mkdir(parents=True)
    (tmp_path / "lead1").symlink_to(data / "lead1")
    for kind in ("hea", "dat"):
        name = f"samples/mitdb/100.{kind}"
        (tmp_path / name).symlink_to(data / name)
    monkeypatch.setattr(quiet_hours, "read_shard", lambda p: islice(read_shard(p), 20))
    bundle = find_bundle(DEFAULT)
    always = AlarmRule(priority="low", threshold=1e-9, off_threshold=1e-10, k=6, n=8)
    never = AlarmRule(priority="low", threshold=1 - 1e-9, off_threshold=0.5, k=6, n=8)
    kept = [c.model_copy(update={"alarm": None}) for c in bundle.manifest.classes[2:]]
    rules = [
        c.model_copy(update={"alarm": rule})
        for c, rule in zip(bundle.manifest.classes, (always, never), strict=False)
    ]
    bundle.manifest = bundle.manifest.model_copy(update={"classes": (*rules, *kept)})
    said = quiet_hours.quiet_hours(Runtime(bundle), tmp_path)
    first, second = (c.abbreviation for c in rules)
    assert said["mitdb"] == {"hours": 0.5, "hearts": 1, "alarms": {first: 1, second: 0}}
    assert said["lead1"] == {"hours": 0.06, "hearts": 2, "alarms": {first: 2, second: 0}}


@pytest.mark.parametrize("name", ["lead1-tiny", "lead1-base"])
def test_a_shipped_card_is_the_one_of_its_manifest(name: str) -> None:
    shipped = find_bundle(name)
    card = (shipped.path / "README.md").read_text(encoding="utf-8")
    assert card == model_card(shipped.manifest)
    # Garwood's interval of none in 2.51 hours: 0 to 3.69.
    assert "Alarms raised: AF 0 (0 an hour; 95 %: 0 to 1.5)." in card
