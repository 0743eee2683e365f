"""From a student to a bundle: calibration, alarm rules, what is measured, the card."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("sklearn")

from dataset_samples import write_shard  # noqa: E402
from toy_runs import CLASSES, Toy, restoring, taught, train_yaml, write_yaml  # noqa: E402

from models.bundle import DEFAULT, AlarmRule, find_bundle  # noqa: E402
from models.runtime import Runtime  # noqa: E402
from training.calibrate import at_precision, platt  # noqa: E402
from training.card import model_card  # noqa: E402
from training.config import load_config, parse_config, save_config  # noqa: E402
from training.data import load_cinc2017, load_ptbxl  # noqa: E402
from training.datasets.cache import Cache  # noqa: E402
from training.datasets.prepare import prepare  # noqa: E402
from training.datasets.record import Record  # noqa: E402
from training.datasets.splits import hashed_split  # noqa: E402
from training.errors import TrainingError  # noqa: E402
from training.export import write_bundle  # noqa: E402
from training.policy import alarm_rules  # noqa: E402
from training.pool import Pool  # noqa: E402
from training.provenance import data_of, methods_of  # noqa: E402
from training.release import assemble, release  # noqa: E402


def test_an_export_leaves_the_bundle_as_it_is_until_there_is_a_new_one(
    toy: Path, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from training import release as module

    config = restoring(tmp_path, toy, trained / "restoration")
    train_yaml(config, tmp_path / "run")
    bundles = tmp_path / "bundles"
    shutil.copytree(find_bundle(DEFAULT).path, bundles / "mine")
    before = {p.name: p.read_bytes() for p in (bundles / "mine").iterdir()}
    monkeypatch.setattr(module, "BUNDLES", bundles)

    def broken(*_: object) -> dict[str, object]:
        raise FileNotFoundError(2, "No such file", "shard")

    (bundles / ".new-mine" / "mine").mkdir(parents=True)  # of an export that was killed
    (bundles / ".new-mine" / "mine" / "model.onnx").write_bytes(b"half")
    monkeypatch.setattr(module, "metrics", broken)
    with pytest.raises(TrainingError, match=r"mine: cannot be written .*shard"):
        release(tmp_path / "run", "mine", "9", tmp_path)
    assert {p.name: p.read_bytes() for p in (bundles / "mine").iterdir()} == before
    assert [p.name for p in bundles.iterdir()] == ["mine"]
    measured = find_bundle(DEFAULT).manifest.metrics
    classes = dict.fromkeys(CLASSES, 0.9)
    fold9 = {**measured["ptbxl_fold9_lead_one"]}
    fold9 |= dict.fromkeys(("auc", "positives", "sensitivity", "precision"), classes)
    fold9 |= {"auc_interval": dict.fromkeys(CLASSES, (None, None))}
    monkeypatch.setattr(module, "metrics", lambda *_: {**measured, "ptbxl_fold9_lead_one": fold9})
    made = release(tmp_path / "run", "mine", "9", tmp_path)
    assert (made.path, made.manifest.version, made.classes) == (bundles / "mine", "9", CLASSES)
    assert "# mine 9" in (bundles / "mine" / "README.md").read_text()


def test_a_bundle_for_the_daemon_is_of_its_rate(tmp_path: Path) -> None:
    prepare(Toy(), tmp_path / "fast", rate=250)
    config = restoring(tmp_path, tmp_path / "fast", tmp_path / "restoration")
    restores = write_yaml(tmp_path / "r.yaml", tmp_path / "fast", network="restoration")
    train_yaml(restores, tmp_path / "restoration")
    train_yaml(config, tmp_path / "run")
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
    train_yaml(config, tmp_path / "run")
    with pytest.raises(TrainingError, match="PVC: no positive or no negative validation record"):
        release(tmp_path / "run", "none", "0", tmp_path)


def test_a_run_becomes_a_bundle_in_parity_with_its_network(
    toy: Path, trained: Path, tmp_path: Path
) -> None:
    config = write_yaml(
        tmp_path / "s.yaml",
        toy,
        **taught(trained, "liteheart"),
        strides=[2, 2, 4],
    )
    train_yaml(config, tmp_path / "run")
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
        rebalanced=False,
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


def test_the_threshold_of_a_precision_worked_by_hand() -> None:
    probability = np.array([0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9], dtype=np.float32)
    label = np.array([0, 0, 1, 0, 1, 1, 1, 1, 1], dtype=np.float32)
    # From 0.5 on all are right; from 0.3 on 6 of 7 = 0.857.
    assert at_precision(probability, label, 0.9) == pytest.approx(0.5)
    assert at_precision(probability, label, 0.85) == pytest.approx(0.3)


def test_a_precision_that_too_few_records_reach_is_none() -> None:
    probability = np.linspace(0.1, 0.9, 9, dtype=np.float32)
    label = np.array([1, 0, 1, 0, 1, 0, 1, 0, 1], dtype=np.float32)
    assert at_precision(probability, label, 0.99) is None


@pytest.mark.parametrize("name", ["", ".", "..", "../escaped", "a/b", "lead1-tiny\n"])
def test_a_bundle_has_the_name_of_a_folder(name: str, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"--bundle .*: expected letters"):
        release(tmp_path, name, "1", tmp_path)


def test_a_bundle_is_of_a_student_that_reads_restored_leads_and_knows_af(
    toy: Path, trained: Path, tmp_path: Path
) -> None:
    restoration = str(trained / "restoration")
    for change, says in (
        ({"restoration": restoration}, "reads one lead"),
        ({"restoration": restoration, "restores": True, "classes": ["PVC"]}, "does not know AF"),
    ):
        config = write_yaml(tmp_path / "s.yaml", toy, network="student", **change)
        run = tmp_path / says.replace(" ", "-")
        train_yaml(config, run)
        with pytest.raises(TrainingError, match=says):
            release(run, "none", "1", tmp_path)


def test_only_classes_that_reach_their_precision_alarm() -> None:
    rng = np.random.default_rng(1)
    labels = (rng.random((500, 2)) < 0.3).astype(np.float32)
    probabilities = np.stack([0.9 * labels[:, 0] + 0.05, rng.random(500)], axis=1)
    known = np.ones_like(labels, dtype=bool)
    rules = alarm_rules(probabilities.astype(np.float32), labels, known, ("AF", "BIGU"))
    assert set(rules) == {"AF"}


@pytest.mark.parametrize(("positives", "alarms"), [(19, False), (20, True)])
def test_no_alarm_rests_on_a_handful_of_records(positives: int, alarms: bool) -> None:
    labels = (np.arange(500)[:, None] < positives).astype(np.float32)
    rules = alarm_rules(0.9 * labels + 0.05, labels, labels >= 0, ("AFL",))
    assert ("AFL" in rules) is alarms


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


def test_a_bundle_is_not_measured_on_a_part_of_the_records(tmp_path: Path) -> None:
    one, two = (next(n for n in ("A1", "A2", "A3", "A4", "A5", "A6", "A7", "A8", "A9")
                     if hashed_split(n) == split) for split in ("test", "train"))  # fmt: skip
    signal = np.zeros((1, 3000), np.int16)
    folder = tmp_path / "cinc2017"
    folder.mkdir()
    write_shard(folder / "part0.npz", {one: signal, two: signal}, ("I",), 300.0, 1)
    (folder / "labels.csv").write_text(f"record,label\n{one},N\n{two},A\n")
    assert load_cinc2017(tmp_path, "test").ids == (one,)
    more = next(n for n in (f"B{i}" for i in range(99)) if hashed_split(n) == "test")
    (folder / "labels.csv").write_text(f"record,label\n{one},N\n{two},A\n{more},A\n")
    assert load_cinc2017(tmp_path, "train").ids == (two,)
    with pytest.raises(TrainingError, match=f"such as {more}, are in no shard"):
        load_cinc2017(tmp_path, "test")
    (folder / "labels.csv").write_text(f"record,label\n{two},A\n")
    with pytest.raises(TrainingError, match=f"labels.csv: no row for record {one}; expected"):
        load_cinc2017(tmp_path, "test")
    eight = np.zeros((8, 1000), np.int16)
    fold = tmp_path / "ptbxl100"
    fold.mkdir()
    leads = ("I", "II", "V1", "V2", "V3", "V4", "V5", "V6")
    write_shard(fold / "fold9.npz", {"1": eight}, leads, 100.0, 1)
    (fold / "labels.csv").write_text("ecg_id,strat_fold,AFIB\n1,9,1\n2,8,0\n")
    assert load_ptbxl(tmp_path, [9], ("AF",)).labels.tolist() == [[1]]
    (fold / "labels.csv").write_text("ecg_id,strat_fold,AFIB\n1,9,1\n2,9,0\n")
    with pytest.raises(TrainingError, match="such as 2, are in no shard"):
        load_ptbxl(tmp_path, [9], ("AF",))


def test_quiet_hours_are_of_records_that_are_there(tmp_path: Path) -> None:
    from training.quiet_hours import quiet_hours

    runtime = Runtime(find_bundle(DEFAULT))
    (tmp_path / "samples" / "mitdb").mkdir(parents=True)
    with pytest.raises(TrainingError, match="mitdb: no record; expected those of MIT-BIH"):
        quiet_hours(runtime, tmp_path)
    (tmp_path / "samples" / "mitdb" / "100.hea").write_text("100 2 360 650000\nnot a signal\n")
    with pytest.raises(TrainingError, match=r"100\.hea"):
        quiet_hours(runtime, tmp_path)


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
    # Of the others nobody says that they are not in fibrillation.
    healthy = quiet_hours._healthy(data / "lead1" / "subjects.csv")
    assert (len(healthy), "420" in healthy) == (236, False)
    monkeypatch.setattr(quiet_hours, "_healthy", lambda _: {"3"})
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
    assert said["lead1"] == {"hours": 0.03, "hearts": 1, "alarms": {first: 1, second: 0}}


@pytest.mark.parametrize("name", ["lead1-tiny", "lead1-base"])
def test_a_shipped_card_is_the_one_of_its_manifest(name: str) -> None:
    shipped = find_bundle(name)
    card = (shipped.path / "README.md").read_text(encoding="utf-8")
    assert card == model_card(shipped.manifest)
    assert ("trained once more by labels alone" in card) is shipped.manifest.rebalanced
    # Garwood's interval of none in 2.51 hours: 0 to 3.69.
    assert "Alarms raised: AF 0 (0 an hour; 95 %: 0 to 1.5)." in card
