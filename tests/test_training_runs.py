"""A run that is stopped, damaged, out of disk or gone wrong, and how it goes on."""

import fcntl
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import yaml

torch = pytest.importorskip("torch")
pytest.importorskip("sklearn")

from toy_runs import Long, Toy, restoring, taught, train_yaml, write_yaml  # noqa: E402

from training.config import load_config  # noqa: E402
from training.datasets.prepare import prepare  # noqa: E402
from training.errors import TrainingError  # noqa: E402
from training.release import assemble  # noqa: E402
from training.results import evaluate  # noqa: E402
from training.run import train  # noqa: E402


def test_a_resumed_run_ends_with_the_same_bits(toy: Path, trained: Path, tmp_path: Path) -> None:
    """Killed after the first checkpoint by SIGKILL, and started again."""
    config = write_yaml(
        tmp_path / "s.yaml",
        toy,
        **taught(trained, "liteheart"),
        labelled=0.5,
        augment=True,
        schedule={"steps": 8, "batch": 8, "validate_every": 2},
    )
    command = [sys.executable, "-m", "training", "distill", "-c", str(config), "-r"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    root = Path(__file__).parents[1]

    def distil(run: str) -> None:
        subprocess.run(
            [*command, str(tmp_path / run)],
            check=True,
            env=environment,
            cwd=root,
            capture_output=True,
        )

    distil("whole")
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
    distil("cut")
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
        train_yaml(config, trained / "teacher")


def turn_a_bit(path: Path) -> None:
    """Of a weight: torch itself would read it as another number."""
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2] ^= 1
    path.write_bytes(raw)


def call_a_member_a_folder(path: Path) -> None:
    """One bit, in what the archive says of its last member."""
    raw = bytearray(path.read_bytes())
    raw[raw.rindex(b"PK\1\2") + 38] ^= 0x10
    path.write_bytes(raw)


def rest_on(run: Path, what: object) -> None:
    content = yaml.safe_load((run / "run.yaml").read_text())
    content["made"]["rests_on"] = what
    (run / "run.yaml").write_text(yaml.safe_dump(content))


def change(run: Path, **parts: object) -> None:
    saved = torch.load(run / "checkpoint.pt", weights_only=True)
    torch.save({**saved, **parts}, run / "checkpoint.pt")


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda run: (run / "checkpoint.pt").write_bytes(b""), "checkpoint.pt: damaged; remove it"),
        (lambda run: (run / "checkpoint.pt").write_bytes(b"x" * 99), "pt: damaged; remove it to t"),
        (lambda run: turn_a_bit(run / "checkpoint.pt"), "checkpoint.pt: damaged; remove it"),
        (lambda run: torch.save([1], run / "checkpoint.pt"), "not a checkpoint of this run"),
        (lambda run: shutil.copy(run / "best.pt", run / "checkpoint.pt"), "not a checkpoint of"),
        (lambda run: change(run, progress="7"), "not a checkpoint of this run; remove it"),
        (lambda run: change(run, optimizer={}), "not a checkpoint of this run"),
        (lambda run: change(run, random={}), "not a checkpoint of this run"),
        (lambda run: (run / "best.pt").write_bytes(b"PK"), "best.pt: damaged; train the run anew"),
        (lambda run: turn_a_bit(run / "best.pt"), "best.pt: damaged; train the run anew"),
        (lambda run: (run / "run.yaml").write_text("made: ["), "run.yaml: not YAML"),
        (
            lambda run: call_a_member_a_folder(run / "best.pt"),
            "best.pt: damaged; train the run anew",
        ),
        (lambda run: rest_on(run, "a word"), r"run.yaml: made.rests_on: expected runs and"),
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
    train_yaml(config, tmp_path / "run")
    history = tmp_path / "run" / "history.jsonl"
    whole = history.read_text()
    history.write_text(whole + '{"step": 6, "lo')
    train_yaml(config, tmp_path / "run")
    assert history.read_text() == whole
    history.write_text('{"step": 2, "lo\n' + whole)
    with pytest.raises(TrainingError, match=r"history.jsonl: line 1 is damaged"):
        train_yaml(config, tmp_path / "run")


@pytest.mark.parametrize("network", ["teacher", "restoration"])
def test_a_state_that_is_no_number_is_neither_kept_nor_gone_on_from(
    network: str, toy: Path, tmp_path: Path
) -> None:
    schedule = {"steps": 3, "batch": 8, "validate_every": 1, "learning_rate": 1e30}
    config = write_yaml(tmp_path / "t.yaml", toy, network=network, schedule=schedule)
    with pytest.raises(TrainingError, match=r"is not a number.*no checkpoint yet"):
        train_yaml(config, tmp_path / "run")
    assert not (tmp_path / "run" / "best.pt").exists()
    better = write_yaml(tmp_path / "t.yaml", toy, network=network)
    assert np.isfinite(train_yaml(better, tmp_path / "run")["score"]), "the folder is free again"


def test_a_run_is_trained_by_one_process_at_a_time(toy: Path, tmp_path: Path) -> None:
    config = write_yaml(tmp_path / "t.yaml", toy, network="teacher")
    (tmp_path / "run").mkdir()
    held = os.open(tmp_path / "run", os.O_RDONLY)
    try:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(TrainingError, match="run: another process is training it"):
            train_yaml(config, tmp_path / "run")
    finally:
        os.close(held)
    train_yaml(config, tmp_path / "run")


def test_a_run_does_not_go_on_with_data_that_was_prepared_anew(tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    prepare(Toy(), cache)
    config = write_yaml(tmp_path / "t.yaml", cache, network="teacher")
    train_yaml(config, tmp_path / "run")
    shutil.rmtree(cache)
    prepare(Toy(), cache)
    train_yaml(config, tmp_path / "run")  # the same bytes
    shutil.rmtree(cache)
    prepare(Long(), cache)
    for go_on in (lambda: train_yaml(config, tmp_path / "run"), lambda: evaluate(tmp_path / "run")):
        with pytest.raises(TrainingError, match=f"^{tmp_path / 'run'}: holds a run of other data"):
            go_on()


def test_a_run_does_not_go_on_with_a_teacher_that_was_trained_anew(
    toy: Path, trained: Path, tmp_path: Path
) -> None:
    shutil.copytree(trained / "teacher", tmp_path / "teacher")
    shutil.copytree(trained / "restoration", tmp_path / "restoration")
    config = write_yaml(tmp_path / "s.yaml", toy, **taught(tmp_path, "liteheart"))
    train_yaml(config, tmp_path / "run")
    train_yaml(config, tmp_path / "run")
    shutil.move(tmp_path / "teacher" / "best.pt", tmp_path / "best.pt")
    evaluate(tmp_path / "run")  # nobody needs it for that
    weights = torch.load(tmp_path / "best.pt", weights_only=True)
    torch.save({k: v + 1 for k, v in weights.items()}, tmp_path / "teacher" / "best.pt")
    says = f"run: rests on {tmp_path / 'teacher'}, which was trained anew since"
    for go_on in (lambda: train_yaml(config, tmp_path / "run"), lambda: evaluate(tmp_path / "run")):
        with pytest.raises(TrainingError, match=says):
            go_on()


def test_a_bundle_is_not_made_with_another_restoration_net(
    toy: Path, trained: Path, tmp_path: Path
) -> None:
    shutil.copytree(trained / "restoration", tmp_path / "restoration")
    train_yaml(restoring(tmp_path, toy, tmp_path / "restoration"), tmp_path / "run")
    weights = torch.load(tmp_path / "restoration" / "best.pt", weights_only=True)
    torch.save({k: v + 1 for k, v in weights.items()}, tmp_path / "restoration" / "best.pt")
    with pytest.raises(TrainingError, match=r"run: rests on .*, which was trained anew since"):
        assemble(tmp_path / "run")


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
            train_yaml(config, tmp_path / "run")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)
    assert train_yaml(config, tmp_path / "run")["score"] >= 0


def test_restored_leads_that_were_not_written_to_their_end(
    toy: Path, trained: Path, tmp_path: Path
) -> None:
    restoration = tmp_path / "restoration"
    shutil.copytree(trained / "restoration", restoration, ignore=shutil.ignore_patterns("*.npy"))
    left, writing = (restoration / f"restored-a-b-0.{process}.new" for process in (1, 2))
    for path in (left, writing):
        path.write_bytes(b"half")
    os.utime(left, (time.time() - 7200,) * 2)
    config = restoring(tmp_path, toy, restoration)
    train_yaml(config, tmp_path / "run")
    assert (left.exists(), writing.exists()) == (False, True)
    (kept,) = restoration.glob("restored-*.npy")
    kept.write_bytes(kept.read_bytes()[:-9])
    with pytest.raises(TrainingError, match=r"restored-.*\.npy: damaged .*; remove it"):
        train_yaml(config, tmp_path / "again")


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
        train_yaml(config, tmp_path / "run")
    assert "\n" not in str(error.value)
    best = train_yaml(config, tmp_path / "run")
    assert best["step"] in {2, 4}


def test_a_start_of_another_kind_is_refused(toy: Path, trained: Path, tmp_path: Path) -> None:
    small = {"network": "teacher", "start": str(trained / "teacher"), "size": "small"}
    config = write_yaml(tmp_path / "t.yaml", toy, **small)
    with pytest.raises(TrainingError, match=r"start: .*teacher: its weights do not fit .* size$"):
        train_yaml(config, tmp_path / "run")
    config = write_yaml(
        tmp_path / "t.yaml", toy, **{**small, "size": "tiny", "start": str(trained / "restoration")}
    )
    with pytest.raises(TrainingError, match="its weights do not fit this network"):
        train_yaml(config, tmp_path / "run")


def test_each_class_starts_from_its_own_verdict(toy: Path, trained: Path, tmp_path: Path) -> None:
    slow = {"steps": 1, "batch": 8, "validate_every": 1, "learning_rate": 1e-9}
    before = load_config(trained / "teacher" / "run.yaml").classes
    for classes in (["PVC", "AF", "NSR"], ["NSR", "AF|PVC"]):
        config = write_yaml(
            tmp_path / "t.yaml",
            toy,
            network="teacher",
            classes=classes,
            start=str(trained / "teacher"),
            schedule=slow,
        )
        run = tmp_path / classes[0]
        train_yaml(config, run)
        for layer in ("out.weight", "out.bias"):
            old, new = (
                torch.load(p / "best.pt", weights_only=True)[layer]
                for p in (trained / "teacher", run)
            )
            for place, name in enumerate(classes):
                if name in before:
                    assert torch.allclose(old[before.index(name)], new[place], atol=1e-6)
        assert len(new) == len(classes)


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
            train_yaml(config, tmp_path / "run")
    assert "\n" not in str(error.value)
    assert train_yaml(config, tmp_path / "run")["score"] >= 0


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
    train_yaml(config, tmp_path / "run")
    old, new = (
        torch.load(p / "best.pt", weights_only=True)
        for p in (trained / "teacher", tmp_path / "run")
    )
    assert torch.allclose(old["hidden.weight"], new["hidden.weight"], atol=1e-6)
    assert new["out.weight"].shape == (2, old["out.weight"].shape[1])
