"""What a LiteHeart step costs beside a plain distillation step, and what each pair of sizes costs.

``python -m bench.training [--write FILE]``. Weights are random: time and memory do not depend on
them. Everything is measured in turns within one run.
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime as ort
import torch
from torch import Tensor, nn

from bench import machine
from models.classifier import SIZES, ConvTransformer
from models.restoration import WIDTHS
from models.runtime import session_options
from models.system import LeadOneSystem
from training.config import RunConfig
from training.export import export_graph
from training.fit import mixed
from training.losses import Outputs, Shape, Targets, methods
from training.mixing import region_mix

BATCH = 64
CLASSES = 38
STEPS = 12
REPETITIONS = 30
PROCESSES = 7
TEACHER_SAMPLES = 5000
SAMPLES = 1000
# As the bundles have them; small is not shipped.
STRIDES = (2, 2, 4)


_KEPT = ", the teacher's outputs kept"
_WITHOUT = round(RunConfig.model_fields["unlabelled"].default * BATCH)


@dataclass(frozen=True, slots=True)
class StepCost:
    """One training step.

    Attributes:
        name: of the method.
        records: how many it takes, those without labels among them.
        seconds: median.
    """

    name: str
    records: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Efficiency:
    """One network or pair, on one thread of ONNX Runtime, one window at a time.

    Attributes:
        name: of the pair, restoration and student.
        parameters: how many.
        operations: multiplications with addition, of convolutions, linear layers and attention.
        latency_ms: median processor time.
        memory_mb: what the resident set grows by (``bench.session_memory``), median of processes.
    """

    name: str
    parameters: int
    operations: int
    latency_ms: float
    memory_mb: float


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print, or write to a file."""
    parser = argparse.ArgumentParser(prog="python -m bench.training", description=__doc__)
    parser.add_argument("--write", type=Path, help="Markdown file to write")
    parsed = parser.parse_args(arguments)
    page = _page(machine.describe(), step_costs(), efficiency(), _runtime_alone_mb())
    if parsed.write is None:
        sys.stdout.write(page)
    else:
        parsed.write.write_text(page, encoding="utf-8")
    return 0


def step_costs() -> list[StepCost]:
    """A training step of every method, as its runs take it.

    LiteHeart's has records without labels beside its batch: a quarter as many (tables 1, 2 and 4)
    or as many again (table 9). The teacher looks at each batch, as it must when records are mixed;
    of KD and of LiteHeart without mixing there is also a step that does without, the teacher's
    outputs kept. Restored leads are read from the cache, as in the tables.
    """
    torch.manual_seed(0)
    teacher = ConvTransformer(SIZES["teacher-256"], 12, CLASSES, (4, 4, 4)).eval()
    real, restored = torch.randn(2, 2 * BATCH, 12, SAMPLES)
    labels = (torch.rand(BATCH, CLASSES) < 0.1).float()
    steps = {
        name: _step(name, teacher, real, restored, labels, without=_WITHOUT * kind.unlabelled)
        for name, kind in methods().items()
    }
    steps[f"kd{_KEPT}"] = _step("kd", teacher, real, restored, labels, kept=True)
    steps["liteheart, as many again without"] = _step(
        "liteheart", teacher, real, restored, labels, without=BATCH
    )
    steps[f"liteheart, as many again, unmixed{_KEPT}"] = _step(
        "liteheart", teacher, real, restored, labels, without=BATCH, kept=True
    )
    taken: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(STEPS):
        for name, (_, step) in steps.items():
            began = time.perf_counter()
            step()
            taken[name].append(time.perf_counter() - began)
    return [
        StepCost(name, steps[name][0], statistics.median(times[1:]))
        for name, times in taken.items()
    ]


def _step(
    name: str,
    teacher: ConvTransformer,
    real: Tensor,
    restored: Tensor,
    labels: Tensor,
    *,
    without: int = 0,
    kept: bool = False,
) -> tuple[int, Callable[[], None]]:
    """How many records one step of a method takes, those ``without`` labels last, and the step.

    With the teacher's outputs ``kept`` nothing is mixed.
    """
    student = ConvTransformer(SIZES["base"], 12, CLASSES, (4, 4, 4))
    kind = methods()[name]
    method = kind(Shape(student.width, teacher.width, CLASSES, 2 * BATCH))
    optimizer = torch.optim.AdamW([*student.parameters(), *method.parameters()], 1e-3)
    generator = torch.Generator().manual_seed(0)
    sides = [BATCH, without] if without else [BATCH]
    rows = torch.split(torch.arange(sum(sides)), sides)

    def say(theirs: Tensor) -> Outputs:
        with torch.no_grad(), mixed():
            z = teacher.features(theirs)
            return Outputs(teacher.classify(z).float(), z.float())

    said_before = [say(real[at]) for at in rows]

    def step() -> None:
        ours = [restored[at] for at in rows]
        theirs = [real[at] for at in rows]
        truth = [labels[: len(at)] for at in rows]
        if kind.mixes and not kept:
            for side, at in enumerate(rows):
                groups = torch.zeros(len(at), dtype=torch.int64)
                mix = region_mix(groups, 12, SAMPLES, generator)
                ours[side], theirs[side] = mix.signals(ours[side]), mix.signals(theirs[side])
                truth[side] = mix.labels(truth[side])
        with mixed():
            z = student.features(torch.cat(ours))
            logits = student.classify(z)
        said = [
            Outputs(y, features)
            for y, features in zip(
                torch.split(logits.float(), sides), torch.split(z.float(), sides), strict=True
            )
        ]
        loss = nn.functional.binary_cross_entropy_with_logits(said[0].logits, truth[0])
        for side, at in enumerate(rows):
            heard = said_before[side] if kept else say(theirs[side])
            targets = Targets(truth[side], torch.ones_like(truth[side]), at)
            loss = loss + method(said[side], heard, targets)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()

    return sum(sides), step


def efficiency() -> list[Efficiency]:
    """The teacher of the paper first, then every pair of sizes."""
    result = []
    with tempfile.TemporaryDirectory(prefix="leadone-bench-") as folder, machine.one_core():
        teacher = ConvTransformer(SIZES["teacher"], 12, CLASSES, (4, 4, 4)).eval()
        path = Path(folder) / "teacher.onnx"
        twelve = torch.zeros(1, 12, TEACHER_SAMPLES)
        _export(teacher, twelve, path)
        result.append(_measured("teacher, 12 leads at 500 Hz", teacher, twelve, path))
        for restoration in WIDTHS:
            for student in ("tiny", "small", "base"):
                system = LeadOneSystem(restoration, student, CLASSES, STRIDES).eval()
                path = Path(folder) / f"{restoration}-{student}.onnx"
                export_graph(system, path)
                one = torch.zeros(1, 1, SAMPLES)
                result.append(_measured(f"{restoration} + {student}", system, one, path))
    return result


def _export(net: nn.Module, x: Tensor, path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of tracing, and of the exporter's age
        torch.onnx.export(net, (x,), path, input_names=["x"], opset_version=17, dynamo=False)


def _measured(name: str, net: nn.Module, x: Tensor, path: Path) -> Efficiency:
    session = ort.InferenceSession(path, session_options(1), providers=["CPUExecutionProvider"])
    (given,) = session.get_inputs()
    inputs = {given.name: np.random.default_rng(0).standard_normal(x.shape).astype(np.float32)}
    times = []
    for _ in range(REPETITIONS):
        began = time.thread_time()
        session.run(None, inputs)
        times.append(time.thread_time() - began)
    memory_mb = statistics.median(_grown_mb(path) for _ in range(PROCESSES))
    parameters = sum(p.numel() for p in net.parameters())
    median = 1e3 * statistics.median(times[2:])
    return Efficiency(name, parameters, _operations(net, x), median, memory_mb)


def _grown_mb(path: Path) -> float:
    done = subprocess.run(
        [sys.executable, "-m", "bench.session_memory", str(path)],
        capture_output=True,
        check=True,
        text=True,
    )
    return float(done.stdout)


def _operations(net: nn.Module, x: Tensor) -> int:
    """Multiply-adds of one input, counted while it runs."""
    total = 0

    def count(module: nn.Module, _: object, out: Tensor) -> None:
        nonlocal total
        if isinstance(module, nn.Conv1d):
            total += out.numel() * module.in_channels // module.groups * module.kernel_size[0]
        elif isinstance(module, nn.Linear):
            total += out.numel() * module.in_features
        else:  # scores and their sum: twice time x time x width
            total += 2 * out.shape[1] ** 2 * out.shape[2]

    hooks = [
        m.register_forward_hook(count)
        for m in net.modules()
        if isinstance(m, (nn.Conv1d, nn.Linear)) or type(m).__name__ == "_Attention"
    ]
    with torch.inference_mode():
        net(x)
    for hook in hooks:
        hook.remove()
    return total


def _runtime_alone_mb() -> float:
    """What a graph of one addition makes the resident set grow by: ONNX Runtime itself."""

    class Add(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x + 1

    with tempfile.TemporaryDirectory(prefix="leadone-bench-") as folder:
        path = Path(folder) / "add.onnx"
        _export(Add(), torch.zeros(1), path)
        return statistics.median(_grown_mb(path) for _ in range(PROCESSES))


def _page(
    here: dict[str, str], costs: list[StepCost], sizes: list[Efficiency], alone_mb: float
) -> str:
    (kd,) = (c for c in costs if c.name == "kd")
    steps = "\n".join(
        f"| {c.name} | {c.records} | {1e3 * c.seconds:.0f} | {c.seconds / kd.seconds:.2f} "
        f"| {c.seconds / c.records / (kd.seconds / kd.records):.2f} |"
        for c in sorted(costs, key=lambda c: c.name)
    )
    teacher = sizes[0]
    rows = "\n".join(
        f"| {e.name} | {e.parameters / 1e6:.2f} | {e.operations / 1e9:.3f} | {e.latency_ms:.2f} "
        f"| {teacher.latency_ms / e.latency_ms:.1f} | {e.memory_mb:.1f} "
        f"| {teacher.memory_mb / e.memory_mb:.1f} "
        f"| {(teacher.memory_mb - alone_mb) / (e.memory_mb - alone_mb):.1f} |"
        for e in sizes
    )
    strides = "·".join(map(str, STRIDES))
    about = "; ".join(f"{k}: {v}" for k, v in here.items())
    return f"""# Cost of training and of each size

`python -m bench.training --write docs/efficiency.md`. {about}.

## A training step

Median of {STEPS - 1} steps of {BATCH} labelled records, in turns; student base, teacher 256 wide
and 8 layers deep, strides 4·4·4 at 100 Hz, the teacher looking at every batch. LiteHeart takes
{_WITHOUT} records without labels beside them (`unlabelled`, tables 1, 2 and 4), or as many again
as have labels (table 9). Where nothing is mixed the teacher's outputs can be kept: a step is then
the student's alone, as two lines have it for KD and for LiteHeart without mixing.

| method | records | ms | times kd | times kd, a record |
| --- | --- | --- | --- | --- |
{steps}

A LiteHeart step was to cost at most 1.5 times one of KD. The last column is for the same number of
records; the rest of what it costs are records without labels, which KD has no use for.

## Sizes

Wanted: tiny + tiny 50 times as fast as the teacher, tiny + base 8 times, with 15 times less memory.
These two pairs are the ones that ship.

Restoration net + student at 100 Hz, strides {strides}, one window, one thread, ONNX Runtime. Memory
is the median of {PROCESSES} processes. {alone_mb:.1f} MB of each are the runtime itself (a graph of
one addition takes as much); the last column is without them.

| networks | M parameters | G operations | ms | × faster | MB | × less | × less, nets alone |
| --- | --- | --- | --- | --- | --- | --- | --- |
{rows}
"""


if __name__ == "__main__":
    sys.exit(main())
