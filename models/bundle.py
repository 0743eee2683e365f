"""A bundle: one folder with the graph, what its numbers mean and how good it was measured."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, model_validator

from models.manifest import ManifestError, parse_manifest, read_graph

BUNDLES = Path(__file__).parent / "bundles"
DEFAULT = "lead1-tiny"
GRAPH = "model.onnx"
MANIFEST = "bundle.yaml"

_Probability = Annotated[float, Field(gt=0, lt=1)]


class BundleError(Exception):
    """A bundle that cannot be used; the message names the file and what was expected."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class AlarmRule(_Strict):
    """When a class is sustained: over ``threshold`` in ``k`` of the last ``n`` good windows."""

    priority: str = Field(pattern="^(high|medium|low)$")
    threshold: _Probability
    off_threshold: _Probability
    k: int = Field(ge=1)
    n: int = Field(ge=1)


class BundleClass(_Strict):
    """One output of the graph.

    ``slope`` and ``offset`` are its Platt scaling, which the graph contains: probability =
    sigmoid(slope · logit + offset). From ``threshold`` on it counts as positive in one window;
    ``alarm`` is how the class becomes an alarm, None for classes that never do.
    """

    abbreviation: str
    name: str
    snomed: str | None
    scp: tuple[str, ...]
    slope: float = Field(gt=0)
    offset: float
    threshold: _Probability
    alarm: AlarmRule | None = None


class Manifest(_Strict):
    """The content of ``bundle.yaml``.

    ``strides`` are those of the student's convolution blocks, which its weights do not show.
    ``method`` is what it was distilled by; if ``rebalanced``, its last layers were then trained
    once more by labels, rare classes weighed more.
    """

    format: int = Field(ge=1, le=1)
    name: str
    version: str
    lead: str
    rate: float = Field(gt=0, le=1000)
    window_s: float = Field(gt=0, le=60)
    leads: tuple[str, ...]
    networks: Mapping[str, str]
    strides: tuple[int, int, int] = (4, 4, 2)
    method: str | None = None
    rebalanced: bool = False
    classes: tuple[BundleClass, ...] = Field(min_length=1)
    metrics: Mapping[str, Any]
    data: tuple[Mapping[str, str], ...]
    commit: str
    graph_sha256: str

    @model_validator(mode="after")
    def _classes_are_unique(self) -> "Manifest":
        names = [c.abbreviation for c in self.classes]
        if len(set(names)) != len(names):
            raise ValueError("classes: each abbreviation may stand only once")
        return self


class Bundle:
    """A bundle on disk, with a checked manifest.

    Its graph is read, and held against the manifest, by whoever runs it: rates and pauses can be
    watched without.

    Args:
        path: the folder.

    Raises:
        BundleError: if the manifest is missing or garbled.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        manifest = path / MANIFEST
        try:
            text = manifest.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as e:
            raise BundleError(f"{path}: not a bundle: {e}") from e
        try:
            self.manifest = parse_manifest(manifest, text, Manifest)
        except ManifestError as e:
            raise BundleError(str(e)) from e

    @property
    def digest(self) -> str:
        """SHA-256 of the graph that the manifest was written for, in hexadecimal digits."""
        return self.manifest.graph_sha256

    def read_graph(self) -> bytes:
        """The graph.

        Raises:
            BundleError: if it is missing or not the one that the manifest was written for.
        """
        try:
            return read_graph(self.path / GRAPH, self.digest, MANIFEST)
        except ManifestError as e:
            raise BundleError(str(e)) from e

    @property
    def name(self) -> str:
        """Name and version, as stored beside every result."""
        return f"{self.manifest.name} {self.manifest.version}"

    @property
    def classes(self) -> tuple[str, ...]:
        """Class abbreviations in the order of the graph's outputs."""
        return tuple(c.abbreviation for c in self.manifest.classes)

    @property
    def class_names(self) -> dict[str, str]:
        """Plain names by class abbreviation."""
        return {c.abbreviation: c.name for c in self.manifest.classes}

    @property
    def thresholds(self) -> dict[str, float]:
        """Probability from which a single window is positive, by abbreviation."""
        return {c.abbreviation: c.threshold for c in self.manifest.classes}

    @property
    def calibration(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Platt scaling of each class, as the graph has it: slopes and offsets."""
        classes = self.manifest.classes
        return tuple(c.slope for c in classes), tuple(c.offset for c in classes)

    @property
    def alarm_rules(self) -> dict[str, dict[str, Any]]:
        """How classes become alarms, by abbreviation, as plain mappings."""
        return {
            c.abbreviation: c.alarm.model_dump()
            for c in self.manifest.classes
            if c.alarm is not None
        }

    @property
    def window_s(self) -> float:
        """Seconds of one input."""
        return self.manifest.window_s

    @property
    def length(self) -> int:
        """Samples of one input."""
        return round(self.manifest.rate * self.window_s)


def find_bundle(name: str) -> Bundle:
    """Open a shipped bundle by name or any bundle by path.

    Raises:
        BundleError: if there is none, with the names of those shipped.
    """
    shipped = BUNDLES / name
    try:
        if "/" not in name and shipped.is_dir():
            return Bundle(shipped)
        path = Path(name)
        if path.is_dir():
            return Bundle(path)
        names = ", ".join(sorted(p.name for p in BUNDLES.iterdir() if p.is_dir()))
    except OSError as e:
        raise BundleError(f"{name}: cannot be looked into: {e.strerror}") from e
    raise BundleError(f"{name}: no such bundle; expected a folder or one of: {names}")
