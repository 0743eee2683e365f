"""What a run is made from: configuration, classes, records; and what is refused at once."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("sklearn")

from dataset_samples import write_shard
from toy_runs import Toy, Watch, taught, train_yaml, write_yaml

from training.__main__ import main
from training.classes import resolve
from training.config import commit, load_config, parse_config
from training.cross_device import cross_device
from training.datasets.cache import Cache
from training.datasets.prepare import prepare
from training.datasets.record import Record
from training.errors import TrainingError
from training.pool import Pool, Shuffle
from training.results import evaluate


def test_a_class_of_several_columns_is_positive_where_any_is(toy: Path) -> None:
    pool = Pool([(Cache(toy), None)], ["AF|PVC", "NSR"])
    assert np.array_equal(pool.labels[:, 0], 1 - pool.labels[:, 1])


def test_it_is_negative_only_where_all_of_them_are_known(toy: Path, tmp_path: Path) -> None:
    prepare(Watch(), tmp_path / "watch")
    pool = Pool([(Cache(tmp_path / "watch"), None)], ["AF|PVC"])
    fibrillates = np.arange(60) % 3 == 0
    assert np.array_equal(pool.labels[:, 0] > 0, fibrillates)
    assert np.array_equal(pool.known[:, 0] > 0, fibrillates), "PVC is not known there"


@pytest.mark.parametrize(
    ("folds", "says"),
    [
        ({"validation": [4], "test": [5]}, "validation: fold 4 of .* is trained on too"),
        ({"train": [1, 2, 5], "validation": [4], "test": [5]}, "test: fold 5 of .* is trained on"),
    ],
)
def test_no_fold_is_trained_and_measured_on(
    folds: dict[str, list[int]], says: str, toy: Path, tmp_path: Path
) -> None:
    data = [{"cache": str(toy), **folds}]
    config = write_yaml(tmp_path / "s.yaml", toy, network="student", data=data)
    with pytest.raises(TrainingError, match=says):
        train_yaml(config, tmp_path / "run")


def test_a_run_rests_on_finished_runs_of_the_right_kind(
    toy: Path, trained: Path, tmp_path: Path
) -> None:
    schedule = {"steps": 4, "batch": 8, "validate_every": 2}
    begun = write_yaml(tmp_path / "t.yaml", toy, network="teacher", schedule=schedule)
    train_yaml(begun, tmp_path / "begun")
    history = tmp_path / "begun" / "history.jsonl"
    history.write_text(history.read_text().splitlines()[0] + "\n")  # as one killed after step 2
    unfinished = "begun: stopped at step 2 of 4"
    with pytest.raises(TrainingError, match=unfinished):
        evaluate(tmp_path / "begun")
    for change, says in (
        ({"teachers": [str(tmp_path / "begun")]}, unfinished),
        ({"teachers": [str(trained / "restoration")]}, "is the run of a restoration; expected a"),
        ({"restoration": str(trained / "teacher")}, "restoration: .* is the run of a teacher"),
        ({"start": str(tmp_path / "s")}, "s: rests on itself"),
    ):
        config = write_yaml(tmp_path / "s.yaml", toy, **{**taught(trained, "liteheart"), **change})
        with pytest.raises(TrainingError, match=says):
            train_yaml(config, tmp_path / "s")


def test_a_finished_run_is_not_written_over_though_its_checkpoint_is_gone(
    toy: Path, tmp_path: Path
) -> None:
    config = write_yaml(tmp_path / "s.yaml", toy, network="student")
    train_yaml(config, tmp_path / "run")
    (tmp_path / "run" / "checkpoint.pt").unlink()
    with pytest.raises(TrainingError, match=r"another configuration \(seed\)"):
        train_yaml(config, tmp_path / "run", seed=5)


def test_a_method_needs_records_that_its_teacher_can_see(
    toy: Path, trained: Path, tmp_path: Path
) -> None:
    prepare(Watch(), tmp_path / "watch")
    data = [{"cache": str(tmp_path / "watch"), "train": [0], "validation": [1, 2]}]
    kd = {**taught(trained, "kd"), "data": data, "classes": ["AF"]}
    with pytest.raises(TrainingError, match="no training record has all twelve leads"):
        train_yaml(write_yaml(tmp_path / "s.yaml", toy, **kd), tmp_path / "run")


@pytest.mark.parametrize("steps", [1, 5])
def test_a_run_may_be_of_very_few_steps(steps: int, toy: Path, tmp_path: Path) -> None:
    schedule = {"steps": steps, "batch": 8, "validate_every": 1}
    train_yaml(
        write_yaml(tmp_path / "s.yaml", toy, network="student"), tmp_path / "r", schedule=schedule
    )


def test_without_git_a_commit_is_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    assert commit() == "unknown"


def test_a_list_of_classes_may_name_sets(toy: Path) -> None:
    selection = [(Cache(toy), None)]
    assert resolve(["PVC", "all"], selection) == ("PVC", "AF", "NSR")
    with pytest.raises(TrainingError, match="no data set of this run has often"):
        resolve(["all", "often"], selection)
    assert resolve(["AF|WPW"], selection) == ("AF|WPW",)
    with pytest.raises(TrainingError, match=r"no data set of this run has AF\|TYPO"):
        resolve(["AF|TYPO"], selection)
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
        ["table", "9", "--cache", str(toy), "--runs", str(tmp_path)],
    ]
    for command in commands:
        assert main(command) == 1, command
        said = [x for x in capsys.readouterr().err.splitlines() if "[info " not in x]
        assert len(said) == 1, said


def test_what_says_nothing_is_refused(
    toy: Path, trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, other = str(trained / "teacher"), str(tmp_path / "other")
    for command, says in (
        (["evaluate", run, "--folds", "1"], "--folds: goes with --on alone"),
        (["evaluate", run, "--data", other], "--data: goes with --bundle alone"),
        (["evaluate", "--bundle", "x", "--on", other], "--on: goes with folders of runs alone"),
        (["evaluate", "--bundle", "x", "--teacher", run], "--teacher: goes with folders of runs"),
        (["evaluate", run, "--on", other, "--teacher", run], "--teacher: says nothing of another"),
        (["table", "1", "--cache", str(toy), "--seeds", "2", "2"], "--seeds 2 2: one stands there"),
        (["table", "1", "--cache", other, "-o", "t.pdf"], "t.pdf: expected a path that ends in"),
        (["report", other, "-o", "t.pdf"], "t.pdf: expected a path that ends in .html or .md"),
        (["evaluate", str(trained / "restoration"), "--teacher", str(trained / "restoration")],
         "is the run of a restoration; expected a teacher's"),
        (["evaluate", str(trained / "restoration"), "--on", str(toy)], "a restoration net; --on"),
    ):  # fmt: skip
        assert main(command) == 1, command
        said = capsys.readouterr().err
        assert says in said
        assert said.count("\n") == 1, said


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (
            "network: student\nnetwork: teacher\n",
            "line 2, column 1: the key 'network' is given twice",
        ),
        ("schedule:\n  steps: 1\n  steps: 3\n", "line 3, column 3: the key 'steps' is given twice"),
        ("seed: 2020-99-99\n", "not YAML: line 1, column 7: looks like a number, a date or a tag"),
        ("[" * 5000, "not YAML: nested too deeply"),
    ],
)
def test_yaml_that_means_nothing_is_one_line(tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / "r.yaml").write_text(text)
    with pytest.raises(TrainingError, match=says) as error:
        load_config(tmp_path / "r.yaml")
    assert "\n" not in str(error.value)


def test_an_anchor_may_be_merged(tmp_path: Path) -> None:
    (tmp_path / "r.yaml").write_text(
        "network: teacher\ndata: [&d {cache: a, train: [1]}, {<<: *d, cache: b}]\n"
    )
    first, second = load_config(tmp_path / "r.yaml").data
    assert (first.train, second.train, second.cache) == ([1], [1], Path("b"))


@pytest.mark.parametrize("to", ["/dev/full", "closed"])
def test_output_that_nobody_can_take_is_one_line(to: str) -> None:
    command = [
        sys.executable,
        "-m",
        "training",
        "distill",
        "-c",
        "x",
        "-r",
        "x",
        "--method",
        "list",
    ]
    root = Path(__file__).parents[1]
    if to == "closed":
        process = subprocess.Popen(
            command, cwd=root, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        process.stdout.close()
        assert process.stderr is not None
        said = process.stderr.read()
        process.stderr.close()
        assert process.wait() == 1
        assert said == "output: Broken pipe\n"
        return
    with Path(to).open("w") as full:
        done = subprocess.run(
            command, cwd=root, stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )
    assert done.returncode == 1
    assert done.stderr == "output: No space left on device\n"


def test_a_command_whose_output_is_closed_does_its_work(toy: Path, tmp_path: Path) -> None:
    command = f"{sys.executable} -m training prepare {tmp_path / 'x'} -o {tmp_path / 'c'} >&-"
    (tmp_path / "x").mkdir()
    write_shard(tmp_path / "x" / "all.npz", {"1-1": np.arange(1000)[None]}, ("I",), 100.0, 1)
    done = subprocess.run(
        ["/bin/sh", "-c", command],
        cwd=Path(__file__).parents[1],
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert Cache(tmp_path / "c").ids == ("1-1",)


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
        train_yaml(config, tmp_path / "r")


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
        train_yaml(config, tmp_path / "run")


def test_windows_of_two_kinds_are_not_mixed(toy: Path, tmp_path: Path) -> None:
    prepare(Toy(), tmp_path / "fast", rate=250)
    cut = write_yaml(tmp_path / "t.yaml", tmp_path / "fast", network="teacher", crop=0.5)
    says = "250 Hz; augment, crop and contrast are made for 100 Hz"
    with pytest.raises(TrainingError, match=says):
        train_yaml(cut, tmp_path / "run")
    run = tmp_path / "run-of-toy"
    train_yaml(write_yaml(tmp_path / "s.yaml", toy, network="student"), run)
    with pytest.raises(TrainingError, match="fast: windows of 1000 samples at 100 Hz and"):
        cross_device(run, Cache(tmp_path / "fast"), None)
    more = write_yaml(tmp_path / "m.yaml", tmp_path / "fast", network="student", start=str(run))
    with pytest.raises(TrainingError, match="windows of 1000 samples at 250 Hz and"):
        train_yaml(more, tmp_path / "more")
    parts = [(Cache(toy), None), (Cache(tmp_path / "fast"), None)]
    with pytest.raises(TrainingError, match="1000 samples at 100 Hz and 1000 samples at 250 Hz"):
        Pool(parts, ["AF"])  # type: ignore[arg-type]


def test_data_without_the_lead_is_refused(toy: Path, tmp_path: Path) -> None:
    prepare(Watch(), tmp_path / "watch")
    run = tmp_path / "run"
    train_yaml(write_yaml(tmp_path / "s.yaml", toy, network="student", lead="II"), run)
    with pytest.raises(TrainingError, match=r"watch: has no lead II"):
        cross_device(run, Cache(tmp_path / "watch"), None)
