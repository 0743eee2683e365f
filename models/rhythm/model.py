"""The shipped classifier of rhythms: loaded on its own, so that no bundle can silence it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from models.manifest import ManifestError, parse_manifest, read_graph
from models.rhythm.decision import Thresholds
from models.rhythm.frontend import LENGTH_S, RATE
from models.runtime import session_options

SHIPPED = Path(__file__).parent / "lead1-rhythm"
GRAPH = "model.onnx"
MANIFEST = "rhythm.yaml"
CLASSES = ("vf", "vt", "asystole", "organised", "noise")
"""What the graph tells apart, in the order of its outputs."""


class RhythmModelError(Exception):
    """The classifier of rhythms is missing, damaged or of another format."""


class Manifest(BaseModel):
    """The content of ``rhythm.yaml``.

    Attributes:
        format: of this file.
        name: of the model.
        version: of the model.
        rate: samples per second that the graph reads, in Hz.
        length_s: seconds that it reads.
        classes: in the order of its outputs.
        thresholds: what the decision rests on.
        metrics: what was measured, and on what.
        data: what it was trained on, with licences.
        commit: of the code that made it.
        graph_sha256: checksum of the graph.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: Literal[1]
    name: str
    version: int = Field(ge=1)
    rate: float
    length_s: float
    classes: tuple[str, ...]
    thresholds: Thresholds
    metrics: Mapping[str, Any]
    data: tuple[Mapping[str, str], ...]
    commit: str
    graph_sha256: str


class RhythmModel:
    """Tells rhythms apart in a few seconds of signal; one thread at a time may call it.

    Args:
        path: its folder; the shipped one by default.

    Raises:
        RhythmModelError: one line that says what is wrong with it.
    """

    def __init__(self, path: Path = SHIPPED) -> None:
        self.manifest = _manifest(path / MANIFEST)
        try:
            graph = read_graph(path / GRAPH, self.digest, MANIFEST)
        except ManifestError as error:
            raise RhythmModelError(str(error)) from error
        try:
            self._session = ort.InferenceSession(
                graph, session_options(1), providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # ONNX Runtime's own exceptions share no base class
            raise RhythmModelError(f"{path / GRAPH}: does not load: {error}") from error

    @property
    def name(self) -> str:
        """Name and version, as in reports."""
        return f"{self.manifest.name} {self.manifest.version}"

    @property
    def digest(self) -> str:
        """SHA-256 of the graph, in hexadecimal digits."""
        return self.manifest.graph_sha256

    @property
    def thresholds(self) -> Thresholds:
        """What the decision rests on."""
        return self.manifest.thresholds

    def probabilities(self, windows: NDArray[np.float32]) -> NDArray[np.float32]:
        """Say what windows may be.

        Args:
            windows: float32 [b, ``models.rhythm.frontend.SAMPLES``], in µV.

        Returns:
            float32 [b, 5], of ``CLASSES``; each row sums to 1.
        """
        found: NDArray[np.float32] = self._session.run(["probabilities"], {"microvolts": windows})[
            0
        ]
        return found


def _manifest(path: Path) -> Manifest:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise RhythmModelError(f"{path}: cannot be read: {error}") from error
    try:
        manifest = parse_manifest(path, text, Manifest)
    except ManifestError as error:
        raise RhythmModelError(str(error)) from error
    for key, found, expected in (
        ("rate", manifest.rate, RATE),
        ("length_s", manifest.length_s, LENGTH_S),
        ("classes", manifest.classes, CLASSES),
    ):
        if found != expected:
            raise RhythmModelError(f"{path}: {key}: expected {expected}, found {found}")
    return manifest
