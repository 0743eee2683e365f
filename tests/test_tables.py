"""Tables, the report and measuring elsewhere: which runs are made, and which are taken."""

import json
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("sklearn")

from torch import Tensor, nn
from toy_runs import CLASSES, Long, Toy, Watch, restoring, taught, train_yaml, write_yaml

from training import tables
from training.__main__ import main
from training.config import save_config
from training.datasets.cache import Cache
from training.datasets.prepare import prepare
from training.errors import TrainingError
from training.losses import methods
from training.pool import Pool
from training.results import evaluate
from training.stages.classifier import predict_records
from training.stages.inputs import AllLeads
from training.tables import steps


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


def test_the_report_shows_finished_runs(toy: Path, trained: Path, tmp_path: Path) -> None:
    config = write_yaml(tmp_path / "s.yaml", toy, **taught(trained, "liteheart-1"))
    train_yaml(config, tmp_path / "student")
    for run in (trained / "teacher", trained / "restoration", tmp_path / "student"):
        evaluate(run)
    page = tmp_path / "page.html"
    runs = [str(trained / "teacher"), str(trained / "restoration"), str(tmp_path / "student")]
    assert main(["report", *runs, "-o", str(page)]) == 0
    text = page.read_text()
    assert text.count("<figure") >= 5
    assert "liteheart-1" in text


def test_a_report_of_one_class_does_without_a_picture_of_many(toy: Path, tmp_path: Path) -> None:
    for name, more, drawn in (("three", {}, True), ("one", {"classes": ["AF"]}, False)):
        config = restoring(tmp_path, toy, tmp_path / "restoration")
        net = write_yaml(tmp_path / "r.yaml", toy, network="restoration")
        train_yaml(net, tmp_path / "restoration")
        train_yaml(config, tmp_path / name, **more)
        evaluate(tmp_path / name)
        page = tmp_path / f"{name}.md"
        assert main(["report", str(tmp_path / name), "-o", str(page)]) == 0
        assert ("t-SNE" in page.read_text()) is drawn
        assert "Grad-CAM" in page.read_text()
        assert not list(tmp_path.glob("*.new"))


@pytest.mark.parametrize("number", range(1, 11))
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


def test_there_is_no_table_11(tmp_path: Path) -> None:
    with pytest.raises(
        TrainingError, match="table 11: expected one of 1, 2, 3, 4, 5, 6, 7, 8, 9, 10"
    ):
        steps(11, tmp_path, tmp_path, [1])


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


def test_a_run_is_measured_on_another_device(
    toy: Path, trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    prepare(Watch(), tmp_path / "watch")
    config = write_yaml(tmp_path / "s.yaml", toy, network="student")
    train_yaml(config, tmp_path / "run")
    capsys.readouterr()
    assert main(["evaluate", str(tmp_path / "run"), "--on", str(tmp_path / "watch")]) == 0
    assert 0 <= json.loads(capsys.readouterr().out)[str(tmp_path / "run")]["macro_auc"] <= 1
    (kept,) = (tmp_path / "run").glob("scores-a-watch-*.json")
    said = json.loads(kept.read_text())
    assert [(c["name"], c["positives"]) for c in said["per_class"]] == [("AF", 20)]
    assert main(["evaluate", str(tmp_path / "run"), "--on", str(toy)]) == 1
    assert "was trained on" in capsys.readouterr().err
    data = [{"cache": str(tmp_path / "watch"), "train": [0], "validation": [1], "test": [2]}]
    restores = restoring(tmp_path, toy, trained / "restoration")
    train_yaml(restores, tmp_path / "on", data=data, classes=["AF"])
    assert main(["evaluate", str(tmp_path / "on"), "--on", str(toy)]) == 1
    assert "which was trained on" in capsys.readouterr().err


def test_a_record_is_judged_by_all_its_windows(tmp_path: Path) -> None:
    class Quotes(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x[:, 0, :3]

    prepare(Long(), tmp_path / "long")
    pool = Pool([(Cache(tmp_path / "long"), [5])], CLASSES)
    rows, windows = pool.every_window()
    each = pool.leads(rows, windows)[:, 0, :3].numpy()
    assert len(rows) > len(pool)
    said = predict_records(Quotes(), AllLeads(), pool)
    expected = [each[rows == row].mean(axis=0) for row in range(len(pool))]
    np.testing.assert_allclose(said, expected, atol=1e-5)


def test_thresholds_of_the_records_measured_are_told(
    toy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for test, in_sample, says in ((5, False, "validation"), (4, True, "test folds (too high)")):
        data = [{"cache": str(toy), "train": [1, 2, 3], "validation": [4], "test": [test]}]
        config = write_yaml(tmp_path / "s.yaml", toy, network="student", data=data)
        run = tmp_path / f"run-{test}"
        train_yaml(config, run)
        capsys.readouterr()
        assert evaluate(run)["thresholds_in_sample"] is in_sample
        assert ("F1 and F2 are too high" in capsys.readouterr().out) is in_sample
        assert main(["evaluate", str(run)]) == 0
        printed = capsys.readouterr()
        assert json.loads(printed.out)[str(run)].keys() >= {"macro_f1"}, "figures alone"
        assert ("F1 and F2 are too high" in printed.err) is in_sample
        assert main(["report", str(run), "-o", str(tmp_path / "page.md")]) == 0
        assert f"| {says} |" in (tmp_path / "page.md").read_text()
