"""The comparisons: which runs a table needs, in the order in which they build on one another.

Without a GPU the teacher is 256 wide and 8 layers deep at strides 4·4·4 (in tables 3, 8 and 9 as
small as the student, at 2·2·4), batches are of 64 and the steps fewer than the paper's; every
method of a table has the same teacher, student, records, steps and rule of stopping.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import structlog

from models.leads import LEADS
from training.config import PRE_TRAINING, RunConfig, parse_config
from training.cross_device import cross_device, scores_name
from training.datasets.cache import Cache
from training.errors import TrainingError
from training.losses import methods
from training.results import SCORES, evaluate
from training.run import require_same, train

RIVALS = ("kd", "dkd", "cc", "rkd", "dist", "pkt", "psm", "wkd", "mvkt")
LITEHEART = ("liteheart-1", "liteheart-2", "liteheart")
FOLDS = {"train": [1, 2, 3, 4, 5, 6, 7], "validation": [8], "test": [9]}
_FEW = {"batch": 64, "validate_every": 50, "patience": 10}


@dataclass(frozen=True, slots=True)
class Recipe:
    """How teacher and students of a table with few labels learn.

    Attributes:
        name: the folder of the runs.
        labelled: share of the records whose labels are used.
        teacher: keys of the teacher's configuration.
        student: keys of each student's.
    """

    name: str
    labelled: float
    teacher: dict[str, Any]
    student: dict[str, Any]


def _whole(name: str, labelled: float, steps: int) -> Recipe:
    """Whole records, tokens as far apart as the paper's in samples."""
    schedule = {**_FEW, "steps": steps}
    return Recipe(
        name,
        labelled,
        {"size": "teacher-256", "mix": 1, "schedule": {**schedule, "learning_rate": 1e-3}},
        {"schedule": schedule},
    )


_TEN_PERCENT = _whole("labels-10", 0.1, 500)
_FIVE_PERCENT = _whole("labels-5", 0.05, 400)
_STRETCHES: dict[str, Any] = {
    "strides": (2, 2, 4),
    "crop": 0.75,
    "schedule": {"batch": 64, "steps": 700, "validate_every": 100},
}
# Unmixed, a second half without labels costs little, for the teacher's outputs are kept; a quarter
# of it is worse in validation there (AUC 0.008 on seed 1), where mixed it is as good.
_CROPS = Recipe(
    "crops-10",
    0.1,
    {"size": "base", "mix": 0.5, **_STRETCHES},
    {"unlabelled": 1, **_STRETCHES},
)
UNMIXED = "liteheart, unmixed"
# Kinds of pre-training and their steps; a stretch of contrast is a quarter of a record, twice.
_LESS_WEIGHT = (4, 16)
_BEFORE_LABELS = {"masked": 1500, "contrast": 3000}


@dataclass(frozen=True, slots=True)
class Step:
    """One run of a table.

    Attributes:
        run: folder below the folder of all runs.
        label: what the table calls it.
        seed: of the run.
        config: what to train.
    """

    run: str
    label: str
    seed: int
    config: RunConfig


_log = structlog.get_logger()


def steps(number: int, runs: Path, cache: Path, seeds: Sequence[int]) -> list[Step]:
    """All runs of a table, in an order in which each finds what it builds on.

    Raises:
        TrainingError: if there is no such table.
    """
    made: dict[int, Callable[[], Iterator[Step]]] = {
        1: lambda: few_labels(runs, cache, seeds, _TEN_PERCENT),
        2: lambda: few_labels(runs, cache, seeds, _FIVE_PERCENT),
        3: lambda: all_labels(runs, cache, seeds),
        4: lambda: sizes(runs, cache, seeds),
        5: lambda: few_labels(runs, cache, seeds, _TEN_PERCENT),
        6: lambda: each_lead(cache, seeds),
        7: lambda: recipes(runs, cache, seeds),
        8: lambda: pre_training(runs, cache, seeds),
        9: lambda: crops(runs, cache, seeds),
        10: lambda: weights(runs, cache, seeds),
    }
    if number not in made:
        raise TrainingError(f"table {number}: expected one of {', '.join(map(str, made))}")
    first = [] if number == 6 else [restoration(cache)]
    return first + list(made[number]())


def run_table(
    number: int, runs: Path, cache: Path, seeds: Sequence[int], other: Cache | None = None
) -> list[Step]:
    """Train and evaluate whatever of a table is not there yet; killed, it goes on where it was.

    Args:
        number: of the table.
        runs: the folder that they are in.
        cache: prepared PTB-XL.
        seeds: of every method.
        other: a data set of one lead that table 5 measures the students of table 1 on.

    Raises:
        TrainingError: if there is no such table, or a run cannot go on.
    """
    if (number == 5) != (other is not None):
        raise TrainingError("table: --other names the data set that table 5, and only it, needs")
    wanted = steps(number, runs, cache, seeds)
    for place, step in enumerate(wanted):
        if (runs / step.run / SCORES).exists():
            require_same(step.config, runs / step.run)
            continue
        _log.info("table", number=number, run=step.run, place=place + 1, of=len(wanted))
        train(step.config, runs / step.run)
        if step.config.network in PRE_TRAINING:
            continue
        figures = evaluate(runs / step.run)["figures"]
        _log.info("evaluated", run=step.run, **{k: round(v, 4) for k, v in figures.items()})
    if other is None:
        return wanted
    students = [step for step in wanted if step.config.network == "student"]
    for step in students:
        if not (runs / step.run / scores_name(other)).exists():
            _log.info("elsewhere", run=step.run, data=other.name)
            cross_device(runs / step.run, other, None)
    return students


def restoration(cache: Path) -> Step:
    """The restoration net that every table and bundle shares: never trained on folds 8 and 9."""
    config = _config(
        cache,
        network="restoration",
        size="tiny",
        augment=True,
        schedule={"steps": 1200, "batch": 128, "learning_rate": 3e-3, "validate_every": 119},
    )
    return Step("restoration-tiny", "restoration", 1, config)


def few_labels(runs: Path, cache: Path, seeds: Sequence[int], recipe: Recipe) -> Iterator[Step]:
    """Tables 1 and 2, and most of 9: every method on a part of the labels, lead I."""
    name = recipe.name
    for seed in seeds:
        common = {"classes": "paper", "labelled": recipe.labelled, "seed": seed}
        teacher = f"{name}/teacher-{seed}"
        yield Step(
            teacher,
            "teacher (12 leads)",
            seed,
            _config(cache, network="teacher", **common, **recipe.teacher),
        )
        student = {**common, "network": "student", **recipe.student}
        yield Step(f"{name}/baseline-{seed}", "baseline", seed, _config(cache, **student))
        others = [name for name in methods() if name not in RIVALS + LITEHEART]
        for method in (*RIVALS, *others, *LITEHEART):
            restores = methods()[method].restores
            yield Step(
                f"{name}/{method}-{seed}",
                method,
                seed,
                _config(
                    cache,
                    method=method,
                    teachers=[runs / teacher],
                    restoration=runs / "restoration-tiny" if restores else None,
                    **student,
                ),
            )


def crops(runs: Path, cache: Path, seeds: Sequence[int]) -> Iterator[Step]:
    """Table 9: 10 % labels, records cut, and LiteHeart also without the mixing of regions.

    Both keep a network from learning records by heart, and a mixed stretch has little left to read.
    """
    for step in few_labels(runs, cache, seeds, _CROPS):
        yield step
        if step.label == "liteheart":
            config = step.config.model_copy(update={"mix": 0.0})
            yield Step(step.run.replace("liteheart", "unmixed"), UNMIXED, step.seed, config)


def all_labels(runs: Path, cache: Path, seeds: Sequence[int]) -> Iterator[Step]:
    """Table 3: all labels, superclasses and subclasses together, lead I (MVKT-ECG, table 1).

    Everybody learns from stretches, as in table 9. One teacher serves every seed.
    """
    common: dict[str, Any] = {
        **_STRETCHES,
        "classes": "all",
        "schedule": {"steps": 2000, "batch": 128, "validate_every": 200},
    }
    teacher = "all-classes/teacher"
    yield Step(
        teacher,
        "teacher (12 leads)",
        1,
        _config(cache, network="teacher", size="base", mix=0.5, **common),
    )
    for seed in seeds:
        student = {**common, "network": "student", "seed": seed}
        taught = {"teachers": [runs / teacher]}
        ours = {**taught, "method": "liteheart", "restoration": runs / "restoration-tiny"}
        # Mixed as published it loses by crops what it gains (table 9).
        for name, label, change in (
            ("baseline", "baseline", {}),
            ("mvkt", "mvkt", {**taught, "method": "mvkt"}),
            ("unmixed", UNMIXED, {**ours, "mix": 0}),
        ):
            config = _config(cache, **student, **change)
            yield Step(f"all-classes/{name}-{seed}", label, seed, config)


def sizes(runs: Path, cache: Path, seeds: Sequence[int]) -> Iterator[Step]:
    """Table 4: LiteHeart's student at three sizes, 10 % labels, the teachers of table 1."""
    for step in few_labels(runs, cache, seeds, _TEN_PERCENT):
        if step.label.startswith("teacher"):
            yield step
        elif step.label == "liteheart":
            for size in ("tiny", "small", "base"):
                run = step.run if size == "base" else step.run.replace("liteheart", size)
                config = step.config.model_copy(update={"size": size})
                yield Step(run, f"LiteHeart {size}", step.seed, config)


def each_lead(cache: Path, seeds: Sequence[int]) -> Iterator[Step]:
    """Table 6: which lead to measure, by a small student of each with labels alone."""
    for seed in seeds:
        for lead in LEADS:
            config = _config(
                cache,
                network="student",
                size="tiny",
                classes="paper",
                lead=lead,
                seed=seed,
                schedule={**_FEW, "steps": 600},
            )
            yield Step(f"leads/{lead}-{seed}", f"lead {lead}", seed, config)


def recipes(runs: Path, cache: Path, seeds: Sequence[int]) -> Iterator[Step]:
    """Table 7: one thing changed at a time in how a shipped student is taught, in a short run."""
    teacher = Step(
        "all-labels/teacher-1",
        "teacher (12 leads)",
        1,
        _config(
            cache,
            network="teacher",
            size="teacher-256",
            mix=1,
            classes="all",
            schedule={"steps": 1000, "learning_rate": 1e-3, "validate_every": 100},
        ),
    )
    yield teacher
    usual: dict[str, Any] = {
        "strides": (2, 2, 4),
        "restores": True,
        "augment": True,
        "method": "kd",
        "teachers": [runs / teacher.run],
    }
    changes: dict[str, dict[str, Any]] = {
        "kd, whole records, strides 2·2·4": {},
        "strides 4·4·2": {"strides": (4, 4, 2)},
        "labels alone": {"method": None, "teachers": []},
        "regions mixed (liteheart-1)": {"method": "liteheart-1"},
        "beats resampled (STAR)": {"resample": True},
        "electrode off, errors of gain and rate": {"faults": True},
    }
    short = {"steps": 300, "batch": 128, "validate_every": 100}
    for seed in seeds:
        for place, (label, change) in enumerate(changes.items()):
            config = _config(
                cache,
                network="student",
                size="tiny",
                restoration=runs / "restoration-tiny",
                seed=seed,
                schedule=short,
                **{**usual, **change},
            )
            yield Step(f"recipes/{place}-{seed}", label, seed, config)


def pre_training(runs: Path, cache: Path, seeds: Sequence[int]) -> Iterator[Step]:
    """Table 8: table 9's networks after learning without labels, and several teachers averaged."""
    for network, steps in _BEFORE_LABELS.items():
        config = _config(
            cache,
            network=network,
            size="base",
            strides=_STRETCHES["strides"],
            classes=["NSR"],
            schedule={"steps": steps, "batch": 64, "validate_every": 100},
        )
        yield Step(f"before-labels/{network}", network, 1, config)
    teachers: list[Path] = []
    for step in crops(runs, cache, seeds):
        if step.config.network == "teacher":
            yield step
            teachers = [runs / step.run]
            for network in _BEFORE_LABELS:
                start = runs / "before-labels" / network
                config = step.config.model_copy(update={"start": start})
                name = f"before-labels/teacher-{network}-{step.seed}"
                yield Step(name, f"{step.label}, {network} first", step.seed, config)
                teachers.append(runs / name)
        elif step.label == UNMIXED:
            yield step
            changes: dict[str, dict[str, Any]] = {"taught by all three": {"teachers": teachers}}
            for network, teacher in zip(_BEFORE_LABELS, teachers[1:], strict=True):
                taught = {"teachers": [teacher]}
                start = runs / "before-labels" / network
                changes[f"taught by the {network} one"] = taught
                changes[f"{network} first and taught by that one"] = {**taught, "start": start}
            for label, change in changes.items():
                config = step.config.model_copy(update=change)
                name = f"before-labels/{label.replace(' ', '-')}-{step.seed}"
                yield Step(name, f"{step.label}, {label}", step.seed, config)


def weights(runs: Path, cache: Path, seeds: Sequence[int]) -> Iterator[Step]:
    """Table 10: table 1 with less weight on the rivals' terms, and with parts of LiteHeart alone.

    The label loss is a mean over classes, and most sources weigh their terms against one that is
    larger (softmax cross-entropy), so that at their own weights many outweigh it several times.
    """
    restored = {"restores": True, "restoration": runs / "restoration-tiny"}
    parts: dict[str, dict[str, Any]] = {
        "regions mixed": {"mix": 1.0},
        "restored leads": restored,
        "regions mixed, restored leads": {"mix": 1.0, **restored},
    }
    for step in few_labels(runs, cache, seeds, _TEN_PERCENT):
        yield step
        changes: dict[str, dict[str, Any]] = {}
        if step.label == "baseline":
            changes |= parts
        elif step.label == "kd":
            # Both parts at once are LiteHeart-I.
            changes |= {name: parts[name] for name in ("regions mixed", "restored leads")}
        if step.label in RIVALS:
            changes |= {f"weight 1/{n}": {"weight": 1 / n} for n in _LESS_WEIGHT}
        for name, change in changes.items():
            folder = f"{step.label}-{name}".replace(",", "").replace(" ", "-").replace("/", "-")
            config = step.config.model_copy(update=change)
            yield Step(f"weights/{folder}-{step.seed}", f"{step.label}, {name}", step.seed, config)


def _config(cache: Path, **fields: Any) -> RunConfig:
    data = [{"cache": cache, **FOLDS}]
    return parse_config({"data": data, **fields}, "tables")
