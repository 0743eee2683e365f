"""How a student is taught: stretches, mixing, restored leads, teachers, each method."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml

torch = pytest.importorskip("torch")
pytest.importorskip("sklearn")

from toy_runs import Long, Toy, taught, train_yaml, write_yaml  # noqa: E402

from training.config import load_config  # noqa: E402
from training.datasets.cache import Cache  # noqa: E402
from training.datasets.prepare import prepare  # noqa: E402
from training.datasets.record import Record  # noqa: E402
from training.errors import TrainingError  # noqa: E402
from training.losses import Outputs, methods  # noqa: E402
from training.mixing import Mix, region_mix  # noqa: E402
from training.pool import Pool  # noqa: E402
from training.results import evaluate  # noqa: E402
from training.stages.classifier import Classifier, _Side  # noqa: E402
from training.teaching import Teacher  # noqa: E402


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
        train_yaml(config, tmp_path / "run")
    config = write_yaml(tmp_path / "any.yaml", toy, network="student", lead="any")
    with pytest.raises(TrainingError, match="lead: 'any' is for a restoration net; expected one"):
        train_yaml(config, tmp_path / "run")


def _task(folder: Path, toy: Path, **fields: object) -> tuple[Classifier, Pool]:
    """A classifier's task over all records, every label known, and its records."""
    config = load_config(write_yaml(folder / "c.yaml", toy, **fields))
    pool = Pool([(Cache(toy), None)], ["AF", "NSR"])
    return Classifier(config, pool, pool, np.ones(len(pool), bool)), pool


def _heard(task: Classifier, side: _Side, monkeypatch: pytest.MonkeyPatch) -> Outputs:
    """What the method is told that the teacher says of a half batch."""
    heard: list[Outputs] = []
    monkeypatch.setattr(task, "_method", lambda _ours, theirs, _targets: heard.append(theirs))
    n = len(side.batch.rows)
    task._distil(side, Outputs(torch.zeros(n, 2), torch.zeros(n, 1)))
    return heard[-1]


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
        **taught(trained, "liteheart-1"),
        mix=0.5,
        crop=0.5,
    )
    assert task._teacher is not None
    whole = task._teacher.of_all(pool)
    mixed = []
    for _ in range(30):
        side = task._side(task._labelled.take())
        heard = _heard(task, side, monkeypatch)
        use = side.complete
        seen = task._teacher(side.real[use]) if side.is_mixed else None
        expected = seen.logits if seen else whole.logits[torch.from_numpy(side.batch.rows)[use]]
        torch.testing.assert_close(heard.logits, expected)
        mixed.append(side.is_mixed)
    assert 5 <= mixed.count(True) <= 25


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
    second = 0
    for _ in range(5):
        side = task._side(task._labelled.take())
        heard = _heard(task, side, monkeypatch)
        expected = task._teacher(pool.leads(side.batch.rows, side.batch.windows))
        torch.testing.assert_close(heard.logits, expected.logits)
        second += int((side.batch.windows % 2).sum())
    assert second > 5


def test_liteheart_mixes_real_and_restored_leads_and_labels_alike(
    toy: Path, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from training.stages import classifier

    task, pool = _task(tmp_path, toy, **taught(trained, "liteheart"))
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


@pytest.mark.parametrize(("share", "drawn"), [(0.25, 2), (1, 8)])
def test_records_without_any_label_teach_liteheart_too(
    share: float, drawn: int, toy: Path, trained: Path, tmp_path: Path
) -> None:
    class Unlabelled(Toy):
        name, columns = "unlabelled", ()

        def read(self, name: str) -> Record:
            return replace(super().read(name), positive=frozenset())

    prepare(Unlabelled(), tmp_path / "unlabelled")
    parts = [(Cache(toy), None), (Cache(tmp_path / "unlabelled"), None)]
    pool = Pool(parts, ["AF", "NSR"])  # type: ignore[arg-type]
    how = {**taught(trained, "liteheart"), "unlabelled": share}
    config = load_config(write_yaml(tmp_path / "c.yaml", toy, **how))
    task = Classifier(config, pool, Pool(parts[:1], ["AF", "NSR"]), np.ones(len(pool), bool))  # type: ignore[arg-type]
    assert task._unlabelled is not None
    assert set(task._unlabelled._rows) == set(range(60, 120))
    assert "unlabelled" in task.loss()
    assert (task._labelled.given, task._unlabelled.given) == (8, drawn)


def test_several_teachers_are_averaged_and_what_one_does_not_know_is_left_out(
    toy: Path, trained: Path, tmp_path: Path
) -> None:
    other = write_yaml(tmp_path / "o.yaml", toy, network="teacher", classes=["PVC", "AF"], seed=4)
    train_yaml(other, tmp_path / "other")
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
    best = train_yaml(config, tmp_path / "run")
    assert 0 <= best["score"] <= 1
    history = [json.loads(x) for x in (tmp_path / "run/history.jsonl").read_text().splitlines()]
    assert [line["step"] for line in history] == [2, 4]
    assert ("unlabelled" in history[0]) == (method == "liteheart")
    figures = evaluate(tmp_path / "run")["figures"]
    assert 0 <= figures["macro_f1"] <= 1
    saved = yaml.safe_load((tmp_path / "run/run.yaml").read_text())
    assert saved["made"]["data"][0]["fingerprint"] == Cache(toy).fingerprint
