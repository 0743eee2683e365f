"""How the first bundle is made: labels, augmentation, calibration, the stages end to end."""

from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("sklearn")

from models.bundle import AlarmRule  # noqa: E402
from models.runtime import Runtime  # noqa: E402
from models.system import LeadOneSystem  # noqa: E402
from training.augment import augment, zscore  # noqa: E402
from training.calibrate import at_precision, best_f_beta, platt  # noqa: E402
from training.data import (  # noqa: E402
    Cinc2017,
    PtbXl,
    cinc_split,
    cinc_targets,
    load_cinc2017,
    load_ptbxl,
    shipped_classes,
)
from training.export import write_bundle  # noqa: E402
from training.policy import alarm_rules  # noqa: E402
from training.shards import twelve_leads  # noqa: E402
from training.stages import (  # noqa: E402
    Schedule,
    finetune_student,
    pretrain_restoration,
    validation_logits,
)

# All that a Challenge 2017 reference speaks of.
CLASSES = ("NSR", "AF", "AFL", "PVC", "PAC", "SVARR", "BIGU", "PR", "LVH")


def test_limb_leads_follow_einthoven_and_goldberger() -> None:
    eight = np.arange(8, dtype=float)[:, None] + np.array([[10.0, 20.0]])
    leads = twelve_leads(eight)
    one, two = eight[0], eight[1]
    assert np.allclose(leads[2], two - one)
    assert np.allclose(leads[3:6].sum(axis=0), 0)
    assert np.allclose(leads[6:], eight[2:])


def test_what_a_reference_cannot_know_is_masked() -> None:
    labels, weights = cinc_targets(["N", "A", "O", "~"], CLASSES)
    place = CLASSES.index
    assert labels[0, place("NSR")] == weights[0, place("NSR")] == 1
    assert (labels[0, place("AF")], weights[0, place("AF")]) == (0, 1)
    assert labels[1, place("AF")] == 1
    assert weights[2, place("NSR")] == 0, "another rhythm may still be of sinus origin"
    assert not weights[3].any()
    assert not weights[:, place("LVH")].any()


def test_splits_do_not_depend_on_what_else_there_is() -> None:
    names = [f"A{i:05d}" for i in range(1, 4001)]
    share = {s: sum(cinc_split(n) == s for n in names) for s in ("train", "validation", "test")}
    assert share["train"] == pytest.approx(2800, abs=120)
    assert share["test"] == pytest.approx(800, abs=80)
    assert cinc_split("A00001") == cinc_split("A00001")


def test_augmentation_is_seeded_and_keeps_the_scale() -> None:
    x = zscore(torch.randn(16, 1, 1000, generator=torch.Generator().manual_seed(0)))
    once = augment(x, torch.Generator().manual_seed(5))
    again = augment(x, torch.Generator().manual_seed(5))
    other = augment(x, torch.Generator().manual_seed(6))
    assert torch.equal(once, again)
    assert not torch.equal(once, other)
    present = [row[row != 0] for row in once[:, 0]]
    assert all(abs(float(row.std()) - 1) < 0.05 for row in present)


def test_flipping_turns_some_records_round() -> None:
    x = torch.zeros(200, 1, 1000)
    x[:, :, ::100] = 30.0
    x = zscore(x + 0.01)
    flipped = augment(x, torch.Generator().manual_seed(1), flip=True)
    upright = (flipped.amax(-1) > -flipped.amin(-1)).float().mean().item()
    assert 0.3 < upright < 0.7


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


@pytest.mark.data
def test_the_shipped_classes_are_those_with_fifty_positives(data: Path) -> None:
    classes = shipped_classes(data)
    assert {"AFL", "WPW", "LVH"} <= set(classes)
    assert "STE" not in classes, "22 records in folds 1-8 are too few"
    fold = load_ptbxl(data, [9], classes)
    assert fold.leads.shape == (len(fold.ids), 12, 1000)
    assert fold.labels[:, classes.index("AF")].sum() == 151
    assert len(load_cinc2017(data, "validation").ids) == pytest.approx(682, abs=60)


def test_every_stage_from_records_to_a_bundle_that_runs(tmp_path: Path) -> None:
    """On noise, so that only the plumbing is tested: one epoch each, exported, run, in parity."""
    rng = np.random.default_rng(2)
    leads = rng.normal(size=(64, 12, 1000)).astype(np.float16)
    labels = np.tile(np.eye(2, dtype=np.float32)[:, [0] * len(CLASSES)], (32, 1))
    ptbxl = PtbXl(tuple(map(str, range(64))), leads, labels)
    signals = tuple(rng.normal(0, 300, 4000).astype(np.float32) for _ in range(12))
    cinc = Cinc2017(tuple(map(str, range(12))), signals, 300.0, ("N", "A", "O") * 4)
    schedule = Schedule(epochs=1, batch=16)

    net, error = pretrain_restoration(ptbxl, ptbxl, "tiny", schedule)
    assert np.isfinite(error)
    system = LeadOneSystem("tiny", "tiny", len(CLASSES))
    system.restoration.load_state_dict(net.state_dict())
    before = system.restoration.out.weight.detach().clone()
    auc = finetune_student(
        system, ptbxl, cinc, (ptbxl, cinc), CLASSES, schedule, tmp_path / "best.pt"
    )
    assert 0 <= auc <= 1
    assert torch.equal(system.restoration.out.weight, before), "restoration stays fixed"

    logits, truth, known = validation_logits(system, ptbxl, cinc, CLASSES)
    assert logits.shape == truth.shape == known.shape == (76, len(CLASSES))
    rule = AlarmRule(priority="low", threshold=0.5, off_threshold=0.2, k=1, n=2)
    bundle = write_bundle(
        tmp_path / "bundle",
        system,
        CLASSES,
        np.full(len(CLASSES), 0.5),
        {"AF": rule},
        version="0",
        sizes={"restoration": "tiny", "student": "tiny"},
    )
    assert bundle.alarm_rules == {"AF": rule.model_dump()}
    inputs = leads[:3, 0].astype(np.float32)
    with torch.inference_mode():
        expected = system.eval()(torch.from_numpy(inputs[:, None]))[2].numpy()
    assert np.abs(Runtime(bundle).infer(inputs).probabilities - expected).max() < 1e-4
