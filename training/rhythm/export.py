"""Write a fitted network as the rhythm model that a gateway loads."""

import copy
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import onnx
import torch
import yaml
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from models.rhythm.decision import Thresholds
from models.rhythm.frontend import LENGTH_S, RATE, SAMPLES
from models.rhythm.model import CLASSES, GRAPH, MANIFEST, RhythmModel
from training.config import commit
from training.datasets.cache import sha256
from training.rhythm.network import RhythmNet

WEIGHTS = "network.safetensors"


class _Flat(nn.Module):
    """Convolutions along a line as convolutions over a picture one sample high.

    ONNX Runtime has its fast kernels for pictures alone: the whole takes a third less.
    """

    def __init__(self, layers: nn.Sequential) -> None:
        super().__init__()
        self.layers = nn.Sequential(*map(_flat, layers))

    def forward(self, line: Tensor) -> Tensor:
        return cast("Tensor", self.layers(line.unsqueeze(2))).squeeze(2)


def _flat(layer: nn.Module) -> nn.Module:
    if isinstance(layer, nn.Conv1d):
        (kernel,), (stride,) = layer.kernel_size, layer.stride
        conv = nn.Conv2d(
            layer.in_channels,
            layer.out_channels,
            (1, kernel),
            stride=(1, stride),
            padding=(0, kernel // 2),
            bias=False,
        )
        conv.weight.data = layer.weight.data.unsqueeze(2)
        return conv
    if isinstance(layer, nn.BatchNorm1d):
        norm = nn.BatchNorm2d(layer.num_features)
        norm.load_state_dict(layer.state_dict())
        return norm
    return layer


class _Probabilities(nn.Module):
    """The network with its outputs as probabilities."""

    def __init__(self, net: RhythmNet) -> None:
        super().__init__()
        self.net = copy.deepcopy(net)
        self.net.features = _Flat(net.features)  # type: ignore[assignment]

    def forward(self, microvolts: Tensor) -> Tensor:
        return torch.softmax(self.net(microvolts), dim=1)


def write_model(
    folder: Path,
    net: RhythmNet,
    thresholds: Thresholds,
    *,
    version: int,
    metrics: Mapping[str, Any],
    data: Sequence[Mapping[str, str]],
) -> RhythmModel:
    """Write graph, weights and manifest.

    Args:
        folder: made if it is not there.
        net: fitted.
        thresholds: what the decision rests on.
        version: of the model.
        metrics: what was measured.
        data: what it was trained on, with licences.
    """
    made_by = commit()
    folder.mkdir(parents=True, exist_ok=True)
    _export(net, folder / GRAPH)
    save_file(net.state_dict(), folder / WEIGHTS)
    (folder / WEIGHTS).chmod(0o644)  # the library writes for its owner alone
    manifest = {
        "format": 1,
        "name": "lead1-rhythm",
        "version": version,
        "rate": RATE,
        "length_s": LENGTH_S,
        "classes": list(CLASSES),
        "thresholds": thresholds.model_dump(),
        "metrics": dict(metrics),
        "data": [dict(d) for d in data],
        "commit": made_by,
        "graph_sha256": sha256(folder / GRAPH),
    }
    text = yaml.safe_dump(manifest, sort_keys=False, allow_unicode=True, width=100)
    (folder / MANIFEST).write_text(text, encoding="utf-8")
    return RhythmModel(folder)


def _export(net: RhythmNet, path: Path) -> None:
    with warnings.catch_warnings():
        # As in ``training.export``: the exporter that is to replace this one needs onnxscript.
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.onnx.export(
            _Probabilities(net).eval(),
            (torch.zeros(2, SAMPLES),),
            path,
            input_names=["microvolts"],
            output_names=["probabilities"],
            dynamic_axes={"microvolts": {0: "batch"}, "probabilities": {0: "batch"}},
            opset_version=17,
            dynamo=False,
        )
    onnx.checker.check_model(onnx.load(path), full_check=True)


def load_net(folder: Path) -> RhythmNet:
    """The network of a model in PyTorch, which the parity test holds the graph to."""
    net = RhythmNet()
    net.load_state_dict(load_file(folder / WEIGHTS))
    return net.eval()
