"""The shipped bundle: what it says, what it refuses, and that both runtimes agree on it."""

import math
import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml

from models import vocabulary
from models.bundle import BUNDLES, DEFAULT, GRAPH, MANIFEST, Bundle, BundleError, find_bundle
from models.runtime import Runtime

REQUIRED = [
    "NSR", "AF", "AFL", "PVC", "PAC", "IAVB", "CLBBB", "CRBBB", "SB", "STach", "STD", "PR", "TInv"
]  # fmt: skip


@pytest.fixture(scope="module", params=["lead1-base", "lead1-tiny"])
def bundle(request: pytest.FixtureRequest) -> Bundle:
    return find_bundle(request.param)


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    shutil.copytree(BUNDLES / DEFAULT, tmp_path / "copy")
    return tmp_path / "copy"


def heart(rate: float = 130, seconds: float = 10) -> np.ndarray:
    """Something that looks like beats: the numbers do not matter, only that they are not flat."""
    t = np.arange(round(rate * seconds)) / rate
    return (900 * np.exp(-(((t % 0.8) - 0.4) ** 2) / 0.0004)).astype(np.float32)


def test_has_the_classes_that_were_promised(bundle: Bundle) -> None:
    assert set(REQUIRED) <= set(bundle.classes)
    for entry in bundle.manifest.classes:
        diagnosis = vocabulary.lookup(entry.abbreviation)
        assert (entry.name, entry.snomed) == (diagnosis.name, diagnosis.snomed)


def test_says_how_good_it_is_and_on_what(bundle: Bundle) -> None:
    metrics = bundle.manifest.metrics
    assert metrics["ptbxl_fold9_lead_one"]["macro_auc"] >= 0.84
    assert metrics["cinc2017_af_against_rest"]["auc"] >= 0.95
    assert {d["name"] for d in bundle.manifest.data} == {"PTB-XL", "Challenge 2017"}
    assert all(
        "PhysioNet" in d["licence"] and "to train" in d["used"] for d in bundle.manifest.data
    )
    card = (bundle.path / "README.md").read_text(encoding="utf-8")
    for said in ("Not a medical device", "What it cannot see", "False alarms"):
        assert said in card


def test_alarms_only_for_its_own_classes(bundle: Bundle) -> None:
    assert "AF" in bundle.alarm_rules
    assert set(bundle.alarm_rules) <= set(bundle.classes)
    for rule in bundle.alarm_rules.values():
        assert rule["off_threshold"] < rule["threshold"]
        assert rule["k"] <= rule["n"]


def test_onnx_runtime_agrees_with_pytorch(bundle: Bundle) -> None:
    torch = pytest.importorskip("torch")
    from training.export import load_system

    system = load_system(bundle)
    runtime = Runtime(bundle)
    rng = np.random.default_rng(7)
    inputs = np.stack(
        [runtime.prepare(heart() + rng.normal(0, sigma, 1300), 130) for sigma in (1, 50, 500)]
        + [np.zeros(1000, np.float32)]
    )
    ours = runtime.infer(inputs)
    with torch.inference_mode():
        leads, logits, probabilities = system(torch.from_numpy(inputs[:, None]))
    assert np.abs(ours.leads - leads.numpy()).max() < 1e-4
    assert np.abs(ours.logits - logits.numpy()).max() < 1e-3
    assert np.abs(ours.probabilities - probabilities.numpy()).max() < 1e-4


def test_a_batch_says_what_its_windows_say_alone(bundle: Bundle) -> None:
    runtime = Runtime(bundle)
    rng = np.random.default_rng(3)
    inputs = rng.normal(size=(5, bundle.length)).astype(np.float32)
    together = runtime.infer(inputs).probabilities
    alone = np.concatenate([runtime.infer(x[None]).probabilities for x in inputs])
    assert np.abs(together - alone).max() < 1e-5


def test_the_measured_lead_is_not_restored_but_kept(bundle: Bundle) -> None:
    runtime = Runtime(bundle)
    x = runtime.prepare(heart(), 130)
    leads = runtime.infer(x[None]).leads
    assert leads.shape == (1, 12, bundle.length)
    assert np.array_equal(leads[0, 0], x)


def test_a_graph_that_was_exchanged_is_refused(copy: Path) -> None:
    with (copy / GRAPH).open("ab") as f:
        f.write(b"x")
    with pytest.raises(BundleError, match=r"model.onnx: not the graph"):
        Runtime(Bundle(copy))


@pytest.mark.parametrize("name", [GRAPH, MANIFEST])
def test_a_missing_file_is_named(copy: Path, name: str) -> None:
    (copy / name).unlink()
    with pytest.raises(BundleError, match=name):
        Runtime(Bundle(copy))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('format: 1\nname: "x', "not YAML: line 2: found unexpected end of stream$"),
        ("[]", "document"),
        ("format: 2", "format"),
        ("\x00", "not YAML"),
        ("name: 2026-13-45", "not YAML"),
        ("[" * 5_000, "not YAML"),
    ],
)
def test_a_garbled_manifest_is_one_line(copy: Path, text: str, said: str) -> None:
    (copy / MANIFEST).write_text(text, encoding="utf-8")
    with pytest.raises(BundleError, match=said) as caught:
        Bundle(copy)
    assert "\n" not in str(caught.value)


def test_a_misspelt_key_is_named(copy: Path) -> None:
    manifest = yaml.safe_load((copy / MANIFEST).read_text(encoding="utf-8"))
    manifest["classes"][3]["treshold"] = 0.5
    (copy / MANIFEST).write_text(yaml.safe_dump(manifest), encoding="utf-8")
    with pytest.raises(BundleError, match=r"classes\.3\.treshold"):
        Bundle(copy)


def test_a_graph_with_other_outputs_is_refused(copy: Path) -> None:
    manifest = yaml.safe_load((copy / MANIFEST).read_text(encoding="utf-8"))
    del manifest["classes"][-1]
    (copy / MANIFEST).write_text(yaml.safe_dump(manifest), encoding="utf-8")
    with pytest.raises(BundleError, match="classes"):
        Runtime(Bundle(copy))


@pytest.mark.parametrize(
    ("key", "value"), [("window_s", math.inf), ("window_s", 1e6), ("rate", 1e9)]
)
def test_an_input_that_no_gateway_has_the_memory_for_is_refused(
    copy: Path, key: str, value: float
) -> None:
    manifest = yaml.safe_load((copy / MANIFEST).read_text(encoding="utf-8"))
    (copy / MANIFEST).write_text(yaml.safe_dump(manifest | {key: value}), encoding="utf-8")
    with pytest.raises(BundleError, match=key):
        Bundle(copy)


def test_a_name_that_no_file_can_have_is_refused() -> None:
    with pytest.raises(BundleError, match="cannot be looked into: File name too long"):
        find_bundle("x" * 300)


def test_an_unknown_name_lists_the_shipped() -> None:
    with pytest.raises(BundleError, match=DEFAULT):
        find_bundle("lead2-huge")
