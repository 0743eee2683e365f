"""What a bundle could also be: other calibration, 8-bit weights. Measured, to justify what it is.

``python -m bench.choices --data FOLDER [--bundle NAME] [--write FILE]``.
"""

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray
from onnxruntime.quantization import (
    CalibrationDataReader,
    QuantFormat,
    QuantType,
    quantize_dynamic,
    quantize_static,
)
from onnxruntime.quantization.shape_inference import quant_pre_process
from sklearn.isotonic import IsotonicRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedKFold

from bench import machine
from models.bundle import DEFAULT, GRAPH, find_bundle
from models.runtime import Runtime, session_options
from training.calibrate import platt
from training.data import VALIDATION_FOLD, load_ptbxl

PARTS = 5
LEAST = 10
SHOWN = 256
REPETITIONS = 200


@dataclass(frozen=True, slots=True)
class Calibrated:
    """One way to make probabilities of logits, on records it was not fitted on.

    Attributes:
        brier: mean squared error of the probabilities, the mean over classes.
        log_loss: in nats, the same; probabilities are kept within 1e-4 of 0 and 1.
        error: expected calibration error over ten bins of equal numbers of records, the same.
    """

    brier: float
    log_loss: float
    error: float


@dataclass(frozen=True, slots=True)
class Quantized:
    """One graph.

    Attributes:
        macro_auc: on PTB-XL fold 9 from lead I.
        difference: greatest change of a probability against the shipped graph.
        latency_ms: median of one window on one thread, all graphs in turns.
        size_mb: of the file.
    """

    macro_auc: float
    difference: float
    latency_ms: float
    size_mb: float


def calibrations(logits: NDArray[np.float32], labels: NDArray[np.float32]) -> dict[str, Calibrated]:
    """Compare calibrations by cross-validation; classes with fewer than ten positives are left out.

    Args:
        logits: [records, classes] on records the network was not trained on.
        labels: [records, classes], 0 or 1.
    """
    fits: dict[str, Callable[[NDArray[Any], NDArray[Any], NDArray[Any]], NDArray[Any]]] = {
        "none": lambda _x, _y, new: _sigmoid(new),
        "Platt (shipped)": _platt,
        "isotonic": _isotonic,
    }
    figures: dict[str, list[tuple[float, float, float]]] = {name: [] for name in fits}
    for c in np.flatnonzero(labels.sum(axis=0) >= LEAST):
        x, y = logits[:, c], labels[:, c]
        parts = list(StratifiedKFold(PARTS, shuffle=True, random_state=1).split(x, y))
        for name, fit in fits.items():
            said = np.empty(len(x))
            for train, test in parts:
                said[test] = fit(x[train], y[train], x[test])
            figures[name].append((_brier(said, y), _log_loss(said, y), _error(said, y)))
    return {name: Calibrated(*np.mean(each, axis=0).tolist()) for name, each in figures.items()}


def quantizations(graph: bytes, shown: NDArray[np.float32], test: NDArray[np.float32],
                  labels: NDArray[np.float32]) -> dict[str, Quantized]:  # fmt: skip
    """Compare the shipped graph with 8-bit ones.

    Args:
        graph: ONNX.
        shown: windows [n, 1, time] that static quantization takes its ranges from.
        test: windows [records, 1, time].
        labels: [records, classes] of these.
    """
    with tempfile.TemporaryDirectory() as folder:
        paths = _graphs(graph, shown, Path(folder))
        sessions = {
            name: ort.InferenceSession(str(path), session_options(1), ["CPUExecutionProvider"])
            for name, path in paths.items()
        }
        said = {
            name: np.concatenate([_run(s, x) for x in np.array_split(test, len(test) // 64 + 1)])
            for name, s in sessions.items()
        }
        took: dict[str, list[float]] = {name: [] for name in sessions}
        for i in range(REPETITIONS):
            for name, session in sessions.items():
                start = time.perf_counter()
                _run(session, test[i % len(test)][None])
                took[name].append(time.perf_counter() - start)
        first = next(iter(said.values()))
        return {
            name: Quantized(
                macro_auc=float(roc_auc_score(labels, said[name])),
                difference=float(np.abs(said[name] - first).max()),
                latency_ms=1000 * statistics.median(took[name][10:]),
                size_mb=paths[name].stat().st_size / 1e6,
            )
            for name in sessions
        }


def _graphs(graph: bytes, shown: NDArray[np.float32], folder: Path) -> dict[str, Path]:
    plain, ready, dynamic, static = (folder / f"{n}.onnx" for n in ("float", "pre", "dyn", "stat"))
    plain.write_bytes(graph)
    quant_pre_process(plain, ready, skip_symbolic_shape=True)
    quantize_dynamic(ready, dynamic, weight_type=QuantType.QInt8, op_types_to_quantize=["MatMul"])
    quantize_static(
        ready,
        static,
        _Shown(shown),
        quant_format=QuantFormat.QDQ,
        per_channel=True,
        op_types_to_quantize=["Conv", "MatMul", "Gemm"],
    )
    return {
        "float32 (shipped)": plain,
        "8 bits, attention and linear layers": dynamic,
        "8 bits, convolutions too": static,
    }


class _Shown(CalibrationDataReader):  # type: ignore[misc]
    def __init__(self, windows: NDArray[np.float32]) -> None:
        self._left: Iterator[NDArray[np.float32]] = iter(windows)

    def get_next(self) -> dict[str, NDArray[np.float32]] | None:
        """The next input of the graph, None at the end."""
        window = next(self._left, None)
        return None if window is None else {"lead_one": window[None]}


def _run(session: ort.InferenceSession, windows: NDArray[np.float32]) -> NDArray[np.float32]:
    result: NDArray[np.float32] = session.run(["probabilities"], {"lead_one": windows})[0]
    return result


def _platt(x: NDArray[Any], y: NDArray[Any], new: NDArray[Any]) -> NDArray[Any]:
    slope, offset = platt(x[:, None], y[:, None], np.ones((len(x), 1), bool))
    return _sigmoid(slope[0] * new + offset[0])


def _isotonic(x: NDArray[Any], y: NDArray[Any], new: NDArray[Any]) -> NDArray[Any]:
    result: NDArray[Any] = IsotonicRegression(out_of_bounds="clip").fit(x, y).predict(new)
    return result


def _sigmoid(x: NDArray[Any]) -> NDArray[Any]:
    return 1 / (1 + np.exp(-x.astype(np.float64)))


def _brier(said: NDArray[Any], y: NDArray[Any]) -> float:
    return float(np.square(said - y).mean())


def _log_loss(said: NDArray[Any], y: NDArray[Any]) -> float:
    p = said.clip(1e-4, 1 - 1e-4)
    return float(-(y * np.log(p) + (1 - y) * np.log(1 - p)).mean())


def _error(said: NDArray[Any], y: NDArray[Any]) -> float:
    parts = np.array_split(np.argsort(said, kind="stable"), 10)
    return float(sum(len(p) * abs(said[p].mean() - y[p].mean()) for p in parts) / len(said))


def _page(name: str, where: dict[str, str], calibrated: dict[str, Calibrated],
          quantized: dict[str, Quantized]) -> str:  # fmt: skip
    places = "\n".join(f"- {key}: {value}" for key, value in where.items())
    first = "\n".join(
        f"| {n} | {c.brier:.5f} | {c.log_loss:.4f} | {c.error:.4f} |" for n, c in calibrated.items()
    )
    second = "\n".join(
        f"| {n} | {q.macro_auc:.4f} | {q.difference:.3f} | {q.latency_ms:.2f} | {q.size_mb:.2f} |"
        for n, q in quantized.items()
    )
    return f"""# Choices

Written by `python -m bench.choices` (bundle {name}): what a bundle could also be.

## Calibration

PTB-XL fold 9 from lead I, {PARTS}-fold cross-validation, mean over classes with {LEAST} positives.

| probabilities | Brier | log loss | calibration error |
| --- | ---: | ---: | ---: |
{first}

## Quantization

PTB-XL fold 9 from lead I; one window at a time on one thread, graphs in turns.

| graph | macro AUC | greatest change of a probability | ms | MB |
| --- | ---: | ---: | ---: | ---: |
{second}

## Where

{places}
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print, or write to a file."""
    parser = argparse.ArgumentParser(prog="python -m bench.choices", description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="packed recordings")
    parser.add_argument("--bundle", default=DEFAULT, help=f"name or path (default {DEFAULT})")
    parser.add_argument("--write", type=Path, help="Markdown file to write")
    parsed = parser.parse_args(arguments)
    where = machine.describe()
    bundle = find_bundle(parsed.bundle)
    records = load_ptbxl(parsed.data, [VALIDATION_FOLD], bundle.classes)
    test = records.leads[:, :1].astype(np.float32)
    shown = load_ptbxl(parsed.data, [VALIDATION_FOLD - 1], bundle.classes).leads[:SHOWN, :1]
    runtime = Runtime(bundle)
    logits = np.concatenate(
        [runtime.infer(x[:, 0]).logits for x in np.array_split(test, len(test) // 64 + 1)]
    )
    graph = (bundle.path / GRAPH).read_bytes()
    page = _page(
        bundle.name,
        where,
        calibrations(logits, records.labels),
        quantizations(graph, shown.astype(np.float32), test, records.labels),
    )
    if parsed.write is None:
        sys.stdout.write(page)
    else:
        parsed.write.write_text(page, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
