"""Writes a trained system as a bundle: graph, weights, manifest and model card."""

import warnings
from pathlib import Path
from typing import Any

import onnx
import torch
import yaml
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file

from models import vocabulary
from models.bundle import GRAPH, MANIFEST, AlarmRule, Bundle
from models.leads import LEADS
from models.system import LeadOneSystem
from training.card import model_card
from training.config import commit
from training.data import LENGTH, RATE
from training.datasets.cache import sha256
from training.optimize import optimized, unceil_pools


def export_graph(system: LeadOneSystem, path: Path) -> None:
    """Write the system as one ONNX graph with a free batch axis."""
    names = ("leads", "logits", "probabilities")
    with warnings.catch_warnings():
        # The exporter that is to replace this one needs onnxscript and gives a larger graph; torch
        # is pinned, so that the day of the change is ours to choose.
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.onnx.export(
            optimized(system, LENGTH),
            (torch.zeros(2, 1, LENGTH),),
            path,
            input_names=["lead_one"],
            output_names=list(names),
            dynamic_axes={name: {0: "batch"} for name in ("lead_one", *names)},
            opset_version=17,
            dynamo=False,
        )
    graph = onnx.load(path)
    unceil_pools(graph)
    onnx.save(graph, path)
    onnx.checker.check_model(graph, full_check=True)


def write_bundle(
    folder: Path,
    system: LeadOneSystem,
    classes: tuple[str, ...],
    thresholds: NDArray[Any],
    alarms: dict[str, AlarmRule],
    *,
    version: str,
    sizes: dict[str, str],
    method: str | None,
    rebalanced: bool,
    data: list[dict[str, str]],
) -> Bundle:
    """Write everything but the metrics, which are measured on what was written.

    Args:
        folder: named like the bundle.
        system: the networks, with their calibration.
        classes: abbreviations, in the order of the outputs.
        thresholds: calibrated probabilities [classes] from which a window is positive.
        alarms: rules by class.
        version: of the bundle.
        sizes: of the networks, ``restoration`` and ``student``.
        method: what the student was distilled by, None if by labels alone.
        rebalanced: whether its last layers were then trained once more (``training.balance``).
        data: what was trained on, as ``provenance.data_of`` says it.
    """
    made_by = commit()  # before a bundle that is kept with the code differs from it
    folder.mkdir(parents=True, exist_ok=True)
    export_graph(system, folder / GRAPH)
    for part in ("restoration", "student"):
        weights = folder / f"{part}.safetensors"
        save_file(getattr(system, part).state_dict(), weights)
        weights.chmod(0o644)  # the library writes for its owner alone; the daemon is another user
    manifest: dict[str, Any] = {
        "format": 1,
        "name": folder.name,
        "version": version,
        "lead": "I",
        "rate": RATE,
        "window_s": LENGTH / RATE,
        "leads": list(LEADS),
        "networks": sizes,
        "strides": list(system.student.strides),
        "method": method,
        "rebalanced": rebalanced,
        "classes": [
            _class(c, system, i, float(t), alarms.get(c))
            for i, (c, t) in enumerate(zip(classes, thresholds, strict=True))
        ],
        "metrics": {},
        "data": data,
        "commit": made_by,
        "graph_sha256": sha256(folder / GRAPH),
    }
    _dump(folder, manifest)
    return Bundle(folder)


def load_system(bundle: Bundle) -> LeadOneSystem:
    """A bundle's networks in PyTorch, with its calibration."""
    networks = bundle.manifest.networks
    system = LeadOneSystem(
        networks["restoration"], networks["student"], len(bundle.classes), bundle.manifest.strides
    )
    for part in ("restoration", "student"):
        weights = load_file(bundle.path / f"{part}.safetensors")
        getattr(system, part).load_state_dict(weights)
    slope, offset = bundle.calibration
    system.slope.copy_(torch.tensor(slope))
    system.offset.copy_(torch.tensor(offset))
    return system.eval()


def write_metrics(bundle: Bundle, metrics: dict[str, object]) -> None:
    """Put measured figures into the manifest and write the model card from it."""
    manifest = yaml.safe_load((bundle.path / MANIFEST).read_text(encoding="utf-8"))
    manifest["metrics"] = metrics
    _dump(bundle.path, manifest)
    card = model_card(Bundle(bundle.path).manifest)
    (bundle.path / "README.md").write_text(card, encoding="utf-8")


def _class(
    abbreviation: str,
    system: LeadOneSystem,
    place: int,
    threshold: float,
    alarm: AlarmRule | None,
) -> dict[str, Any]:
    diagnosis = vocabulary.lookup(abbreviation)
    return {
        "abbreviation": abbreviation,
        "name": diagnosis.name,
        "snomed": diagnosis.snomed,
        "scp": list(diagnosis.scp),
        "slope": float(system.slope[place]),
        "offset": float(system.offset[place]),
        "threshold": round(threshold, 6),
        "alarm": alarm.model_dump() if alarm else None,
    }


def _dump(folder: Path, manifest: dict[str, Any]) -> None:
    text = yaml.safe_dump(manifest, sort_keys=False, allow_unicode=True, width=100)
    (folder / MANIFEST).write_text(text, encoding="utf-8")
