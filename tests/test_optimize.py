"""The network that is exported computes what the trained one does."""

from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
onnx = pytest.importorskip("onnx")

import onnxruntime  # noqa: E402

from models.system import LeadOneSystem  # noqa: E402
from training.optimize import optimized, unceil_pools  # noqa: E402

NAMES = ("leads", "logits", "probabilities")


def trained(restoration: str, student: str) -> LeadOneSystem:
    """A system in which nothing is at its initial value, biases and statistics included."""
    torch.manual_seed(7)
    system = LeadOneSystem(restoration, student, 5).eval()
    with torch.no_grad():
        for p in system.parameters():
            p.add_(0.05 * torch.randn_like(p))
        for module in system.modules():
            if isinstance(module, torch.nn.BatchNorm1d):
                module.running_mean.normal_(0, 0.3)
                module.running_var.uniform_(0.3, 2)
        system.slope.uniform_(0.5, 2)
        system.offset.normal_()
    return system


@pytest.mark.parametrize(
    ("restoration", "student", "length"),
    [
        ("tiny", "small", 1000),
        ("tiny", "tiny", 1000),
        ("small", "tiny", 1000),
        ("tiny", "tiny", 952),
    ],
)
def test_computes_the_same(restoration: str, student: str, length: int) -> None:
    system = trained(restoration, student)
    x = torch.randn(3, 1, length)
    with torch.no_grad():
        expected, got = system(x), optimized(system, length)(x)
    for name, a, b in zip(NAMES, expected, got, strict=True):
        assert a.shape == b.shape
        assert a.std() > 0.01, name  # or the test could not fail
        assert (a - b).abs().max() < 1e-5, name


def test_leaves_the_system_as_it_is() -> None:
    system = trained("tiny", "tiny")
    before = {k: v.clone() for k, v in system.state_dict().items()}
    optimized(system, 1000)
    after = system.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[k], after[k]) for k in before)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("batch", [1, 3])
def test_its_graph_computes_the_same(tmp_path: Path, batch: int) -> None:
    """In ONNX Runtime, pools without rounding up, at batches other than that of the export."""
    system = trained("tiny", "small")
    path = tmp_path / "model.onnx"
    torch.onnx.export(
        optimized(system, 1000),
        (torch.zeros(2, 1, 1000),),
        path,
        input_names=["lead_one"],
        output_names=list(NAMES),
        dynamic_axes={name: {0: "batch"} for name in ("lead_one", *NAMES)},
        opset_version=17,
        dynamo=False,
    )
    graph = onnx.load(path)
    unceil_pools(graph)
    pools = [n for n in graph.graph.node if n.op_type == "AveragePool"]
    assert [list(a.ints) for n in pools for a in n.attribute if a.name == "pads"] == [
        [0, 0, 0, 0],
        [0, 0, 0, 2],
        [0, 0, 0, 1],
    ]  # 1000, 250 and 63 samples by 4, 4 and 2
    onnx.checker.check_model(graph, full_check=True)
    x = torch.randn(batch, 1, 1000)
    session = onnxruntime.InferenceSession(
        graph.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    got = session.run(list(NAMES), {"lead_one": x.numpy()})
    with torch.no_grad():
        expected = [t.numpy() for t in system(x)]
    for a, b in zip(expected, got, strict=True):
        assert np.abs(a - b).max() < 1e-5
