"""How much faster the shipped graph is than the teacher of the paper, side by side."""

import statistics
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime as ort
import torch

from bench.machine import one_core
from models.bundle import Bundle
from models.classifier import SIZES, ConvTransformer
from models.runtime import Runtime, session_options
from training.export import load_system

TEACHER_RATE = 500
TEACHER_CLASSES = 38
REPETITIONS = 40


@dataclass(frozen=True, slots=True)
class Latency:
    """One 10 s window on one thread, medians in ms, and how many times the teacher takes.

    It is the thread's processor time: the latency on an idle core, whatever else the machine does.
    """

    shipped_ms: float
    teacher_ms: float
    ratio: float


@dataclass(frozen=True, slots=True)
class Latencies:
    """On both engines, with the sizes in parameters."""

    shipped_parameters: int
    teacher_parameters: int
    onnxruntime: Latency
    torch: Latency


def latencies(bundle: Bundle) -> Latencies:
    """Time the shipped graph and the teacher, in turns.

    The teacher is that of LiteHeart: 50.5 million parameters, twelve leads at 500 Hz. Its weights
    are random, for nobody published them; the time does not depend on them.
    """
    torch.manual_seed(0)
    teacher = ConvTransformer(SIZES["teacher"], 12, TEACHER_CLASSES, strides=(4, 4, 4)).eval()
    system = load_system(bundle)
    noise = np.random.default_rng(0)
    one = noise.standard_normal((1, bundle.length)).astype(np.float32)
    twelve = noise.standard_normal((1, 12, 10 * TEACHER_RATE)).astype(np.float32)
    threads = torch.get_num_threads()
    with one_core():
        runtime = Runtime(bundle)
        session = _session(teacher)
        on_onnxruntime = _side_by_side(
            lambda: runtime.infer(one), lambda: session.run(None, {"leads": twelve})
        )
        torch.set_num_threads(1)
        one_tensor, twelve_tensor = torch.from_numpy(one[:, None]), torch.from_numpy(twelve)
        with torch.inference_mode():
            on_torch = _side_by_side(lambda: system(one_tensor), lambda: teacher(twelve_tensor))
        torch.set_num_threads(threads)
    return Latencies(_parameters(system), _parameters(teacher), on_onnxruntime, on_torch)


def _side_by_side(shipped: Callable[[], object], teacher: Callable[[], object]) -> Latency:
    """Time both in turns, each right after a run of its own that is not counted.

    In the daemon nothing large runs between two inferences; without that run the shipped graph
    would pay for the teacher's having emptied the processor's caches.
    """
    taken: tuple[list[float], list[float]] = ([], [])
    for _ in range(REPETITIONS):
        for infer, times in zip((shipped, teacher), taken, strict=True):
            infer()
            began = time.thread_time()
            infer()
            times.append(time.thread_time() - began)
    shipped_s, teacher_s = map(statistics.median, taken)
    return Latency(1e3 * shipped_s, 1e3 * teacher_s, teacher_s / shipped_s)


def _session(teacher: ConvTransformer) -> ort.InferenceSession:
    """The teacher exported as bundles are, opened with the options of ``models.runtime``."""
    with tempfile.TemporaryDirectory(prefix="leadone-bench-") as folder:
        path = Path(folder) / "teacher.onnx"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of tracing, and of the exporter's age
            torch.onnx.export(
                teacher,
                (torch.zeros(1, 12, 10 * TEACHER_RATE),),
                path,
                input_names=["leads"],
                output_names=["logits"],
                opset_version=17,
                dynamo=False,
            )
        return ort.InferenceSession(path, session_options(1), providers=["CPUExecutionProvider"])


def _parameters(network: torch.nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())
