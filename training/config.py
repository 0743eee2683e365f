"""What a run is: one YAML file, enough to repeat it."""

import os
import platform
import subprocess
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import torch
import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from models.classifier import SIZES
from models.leads import LEADS
from models.restoration import WIDTHS
from models.yaml_text import parse
from training.errors import TrainingError
from training.files import write_text

CONFIG = "run.yaml"
ANY = "any"
# Networks that learn before they see a label, and so give no verdicts.
PRE_TRAINING = ("masked", "contrast")


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Data(_Strict):
    """A prepared data set and its folds; a list left empty takes nothing, one left out all."""

    cache: Path = Field(description="folder that `prepare` wrote")
    train: list[int] | None = Field(None, description="folds to train on")
    validation: list[int] | None = Field([], description="folds to choose and stop on")
    test: list[int] | None = Field([], description="folds `evaluate` measures")


_Stride = Annotated[int, Field(ge=1, le=16)]


class Schedule(_Strict):
    """A one-cycle AdamW run (Smith and Topin 2018), counted in optimizer steps."""

    steps: Annotated[int, Field(ge=1)] = 600
    batch: Annotated[int, Field(ge=2)] = 128
    learning_rate: Annotated[float, Field(gt=0)] = 2e-3
    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    validate_every: Annotated[int, Field(ge=1)] = 50
    patience: Annotated[int, Field(ge=1)] = 10


class RunConfig(_Strict):
    """One run of one network."""

    network: Literal["restoration", "masked", "contrast", "teacher", "student"] = Field(
        description="what is trained; masked, contrast: a teacher or student before it sees a label"
    )
    data: Annotated[list[Data], Field(min_length=1)]
    classes: str | list[str] = Field("common", description="a named set, or label columns")
    lead: Literal[*LEADS, ANY] = Field(  # type: ignore[valid-type]
        "I", description="the lead that is measured; any: one restoration net for each of them"
    )
    labelled: Annotated[float, Field(gt=0, le=1)] = Field(
        1.0, description="share of the training records whose labels are used"
    )
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 1
    size: str = Field("base", description="width and depth, or the name of a backbone")
    strides: tuple[_Stride, _Stride, _Stride] = Field(
        (4, 4, 4), description="of the convolution blocks"
    )
    start: Path | None = Field(None, description="run whose weights to start from")
    restoration: Path | None = Field(None, description="run of the restoration net")
    teachers: list[Path] = Field([], description="runs of the teacher; several are averaged")
    method: str | None = Field(None, description="distillation method; none is the baseline")
    options: dict[str, Annotated[float, Field(allow_inf_nan=False)]] = Field(
        {}, description="hyper-parameters of the method"
    )
    weight: float = Field(
        1, gt=0, allow_inf_nan=False, description="of the method's term beside the labels' loss"
    )
    unlabelled: float = Field(
        0.25,
        gt=0,
        le=1,
        description="records without labels in a step, of a method that uses them, as a share of "
        "those with labels",
    )
    restores: bool = Field(
        False, description="the student reads restored leads though its method does not ask for it"
    )
    mix: float | None = Field(
        None,
        ge=0,
        le=1,
        description="share of the batches whose regions are mixed (CutMix); left out, all if the "
        "method mixes, else none",
    )
    crop: float = Field(
        0, ge=0, le=1, description="share of the batches cut to 2.56 s of each record, at random"
    )
    rebalance: float | None = Field(
        None,
        ge=0,
        le=1,
        description="only the last two layers learn, and a positive label counts (negatives / "
        "positives) to the power of this times a negative one",
    )
    augment: bool = Field(False, description="wearable noise on the measured lead")
    resample: bool = Field(False, description="before that, beat-wise resampling of it (STAR)")
    faults: bool = Field(
        False, description="before that, electrode off for a while, errors of gain and of rate"
    )
    schedule: Schedule = Schedule()

    @property
    def rests_on(self) -> list[Path]:
        """The runs whose networks this one takes up or asks."""
        runs = (self.start, self.restoration, *self.teachers)
        return [run for run in runs if run is not None]

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.network == "restoration" and self.size not in WIDTHS:
            raise ValueError(f"size: {self.size!r}; a restoration net is one of {list(WIDTHS)}")
        if self.network != "restoration" and self.lead == ANY:
            raise ValueError(f"lead: {ANY!r} is for a restoration net; expected one of {LEADS}")
        if self.method and not self.teachers:
            raise ValueError(f"method {self.method!r} needs teachers: runs of a trained teacher")
        if self.network == "student" and self.augment and not self.restoration:
            raise ValueError("augment needs a restoration net that has seen noise too")
        if self.rebalance is not None and not (self.start and self.size in SIZES):
            raise ValueError(f"rebalance: needs start, and a size of {list(SIZES)}")
        for key in ("resample", "faults"):
            if getattr(self, key) and not (self.network == "student" and self.augment):
                raise ValueError(f"{key}: goes with augment, for a student")
        return self


def load_config(path: Path, changes: dict[str, Any] | None = None) -> RunConfig:
    """Read a run's YAML; ``changes`` (dotted keys) go over what it says.

    Raises:
        TrainingError: if the file cannot be read or says what no run can be.
    """
    raw = _read(path)
    raw.pop("made", None)
    for key, value in (changes or {}).items():
        place = raw
        *above, last = key.split(".")
        for part in above:
            place = place.setdefault(part, {})
            if not isinstance(place, dict):
                raise TrainingError(f"{path}: {key}: {part} holds no keys; set the whole of it")
        place[last] = value
    return parse_config(raw, str(path))


def parse_config(raw: dict[str, Any], where: str) -> RunConfig:
    """Check a mapping.

    Raises:
        TrainingError: one line that names each wrong key.
    """
    try:
        return RunConfig.model_validate(raw)
    except ValidationError as error:
        wrong = "; ".join(
            f"{'.'.join(map(str, e['loc'])) or 'run'}: {e['msg']}" for e in error.errors()
        )
        raise TrainingError(f"{where}: {wrong}") from error


def save_config(config: RunConfig, run: Path, made: dict[str, Any]) -> None:
    """Write ``run.yaml``: the configuration, and under ``made`` what it was resolved to.

    Raises:
        TrainingError: if it cannot be written.
    """
    text = yaml.safe_dump(
        {**config.model_dump(mode="json"), "made": {**made, **_surroundings()}},
        sort_keys=False,
        allow_unicode=True,
        width=100,
    )
    write_text(run / CONFIG, text)


def read_made(run: Path) -> dict[str, Any]:
    """What a saved run was resolved to (classes, fingerprints, versions).

    Raises:
        TrainingError: if the folder holds no run.
    """
    path = run / CONFIG
    if not path.is_file():
        raise TrainingError(f"{run}: no {CONFIG}; expected the folder of a run")
    made = _read(path).get("made")
    if not (isinstance(made, dict) and {"classes", "data"} <= made.keys()):
        raise TrainingError(f"{path}: no made.classes and made.data; expected what training wrote")
    if not isinstance(made.setdefault("rests_on", {}), dict):
        raise TrainingError(f"{path}: made.rests_on: expected runs and checksums of their weights")
    return made


def _read(path: Path) -> dict[str, Any]:
    try:
        raw = parse(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise TrainingError(f"{path}: {error.strerror}; expected a run's YAML") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise TrainingError(f"{path}: not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(raw, dict):
        raise TrainingError(f"{path}: expected a mapping with network, data, ...")
    return raw


def commit() -> str:
    """The commit of the code, ``-dirty`` if files differ from it."""
    try:
        done = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"],  # noqa: S607
            capture_output=True,
            text=True,
            check=False,
            cwd=Path(__file__).parent,
        )
    except OSError:  # no git here
        return "unknown"
    return done.stdout.strip() or "unknown"


def _surroundings() -> dict[str, Any]:
    return {
        "commit": commit(),
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "processors": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
    }
