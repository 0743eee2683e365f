"""From a run's configuration to its weights."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import structlog
import torch
from numpy.typing import NDArray

from training.classes import resolve
from training.config import CONFIG, RunConfig, load_config, read_made, save_config
from training.data import RATE
from training.datasets.cache import MANIFEST, Cache, sha256
from training.datasets.splits import labelled
from training.errors import TrainingError
from training.fit import BEST, CHECKPOINT, Task, fit, require_finished
from training.networks import start_from
from training.pool import Pool, check_alike
from training.stages.classifier import Classifier
from training.stages.contrast import Contrast
from training.stages.masked import Masked
from training.stages.restoration import Restoration

_log = structlog.get_logger()


def train(config: RunConfig, run: Path) -> dict[str, float]:
    """Train what ``config`` says into the folder ``run``, or go on with it.

    Returns:
        The figures of the best validation.

    Raises:
        TrainingError: if the folder holds another run, or anything a person can mend.
    """
    selections = select(config)
    for cache, _ in selections["train"]:
        made_for_rate = config.augment or config.crop or config.network == "contrast"
        if made_for_rate and cache.rate != RATE:
            raise TrainingError(
                f"{cache.path}: {cache.rate:g} Hz; augment, crop and contrast are made for "
                f"{RATE:g} Hz"
            )
    # Restoring leads takes no labels, so its data need not have any.
    restores = config.network == "restoration"
    classes = () if restores else resolve(config.classes, selections["train"])
    made = {
        "classes": list(classes),
        "data": [
            {"name": cache.name, "fingerprint": cache.fingerprint, "licence": cache.licence}
            for cache, _ in selections["train"]
        ],
    }
    for before in config.rests_on:
        if before.resolve() == run.resolve():
            raise TrainingError(f"{run}: rests on itself; name another folder")
        check_windows(config, before)
        require_finished(before, load_config(before / CONFIG).schedule)
    _check_kinds(config)
    with _alone(run):
        if held := [name for name in (CHECKPOINT, BEST) if (run / name).exists()]:
            if not (run / CONFIG).exists():
                raise TrainingError(f"{run}: holds a {held[0]} but no {CONFIG}; remove it")
            require_same(config, run)
        torch.manual_seed(config.seed)  # before the task, which draws its first weights
        pool, validation = (Pool(selections[kind], classes) for kind in ("train", "validation"))
        task = _task(config, pool, validation)
        if not (run / CHECKPOINT).exists():
            weights = {str(before): sha256(before / BEST) for before in config.rests_on}
            save_config(config, run, {**made, "rests_on": weights})
        best = fit(task, config.schedule, run)
    _log.info("done", run=str(run), **{k: round(v, 4) for k, v in best.items()})
    return best


def _task(config: RunConfig, train: Pool, validation: Pool) -> Task:
    task: Task
    if config.network == "restoration":
        task = Restoration(config, train, validation)
    elif config.network == "masked":
        task = Masked(config, train, validation)
    elif config.network == "contrast":
        task = Contrast(config, train, validation)
    else:
        task = Classifier(config, train, validation, labels_used(config, train))
    if config.start is not None:
        start_from(task.network, config.start, train.classes)
    return task


def _check_kinds(config: RunConfig) -> None:
    """Refuse a teacher that is none, and a restoration net that is none."""
    wanted = [(before, "teachers", "teacher") for before in config.teachers]
    if config.restoration is not None:
        wanted.append((config.restoration, "restoration", "restoration"))
    for before, key, kind in wanted:
        if (found := load_config(before / CONFIG).network) != kind:
            raise TrainingError(f"{key}: {before} is the run of a {found}; expected a {kind}'s")


@contextmanager
def _alone(run: Path) -> Iterator[None]:
    """Make the folder of a run if need be, and hold it against other processes."""
    try:
        run.mkdir(parents=True, exist_ok=True)
        folder = os.open(run, os.O_RDONLY)
    except OSError as error:
        raise TrainingError(f"{run}: {error.strerror}; expected a folder to fill") from error
    try:
        try:
            fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise TrainingError(f"{run}: another process is training it") from None
        yield
    finally:
        os.close(folder)


def require_same(config: RunConfig, run: Path) -> None:
    """Refuse the folder of a run that is another than ``config`` would make now.

    Raises:
        TrainingError: if its configuration differs, or its data was prepared or a run that it
            rests on was trained anew since.
    """
    held, wanted = load_config(run / CONFIG).model_dump(), config.model_dump()
    if other := [key for key in wanted if held[key] != wanted[key]]:
        raise TrainingError(
            f"{run}: holds a run of another configuration ({', '.join(other)}); name another "
            "folder or remove this one"
        )
    began_with = [data["fingerprint"] for data in read_made(run)["data"]]
    if began_with != [cache.fingerprint for cache, _ in select(config)["train"]]:
        raise TrainingError(
            f"{run}: holds a run of other data, prepared anew since; name another folder or "
            "remove this one"
        )
    # A run of an earlier version does not say; one that is gone is missed by who needs it.
    for before, weights in read_made(run)["rests_on"].items():
        if (Path(before) / BEST).is_file() and sha256(Path(before) / BEST) != weights:
            raise TrainingError(
                f"{run}: rests on {before}, which was trained anew since; name another folder or "
                "remove this one"
            )


def check_windows(config: RunConfig, other: Path) -> None:
    """Refuse a run that learnt from windows of another kind than a configuration's.

    Raises:
        TrainingError: if rates or lengths differ.
    """
    theirs = load_config(other / CONFIG).data[0].cache
    if (theirs / MANIFEST).is_file():  # else nobody can tell
        check_alike([Cache(config.data[0].cache), Cache(theirs)])


def select(config: RunConfig) -> dict[str, list[tuple[Cache, list[int] | None]]]:
    """The caches of each split with their folds; one that a split takes nothing of is left out.

    Raises:
        TrainingError: if nothing is trained or validated on, or a fold is both trained on and
            validated or measured on.
    """
    opened = [(Cache(d.cache), d) for d in config.data]
    result: dict[str, Any] = {
        kind: [(cache, getattr(d, kind)) for cache, d in opened if getattr(d, kind) != []]
        for kind in ("train", "validation", "test")
    }
    if not result["train"] or not result["validation"]:
        raise TrainingError("data: no folds to train on, or none to validate on")
    trained = folds_of(result["train"])
    for kind in ("validation", "test"):
        for cache, folds in folds_of(result[kind]).items():
            if both := folds & trained.get(cache, set()):
                raise TrainingError(
                    f"data: {kind}: fold {', '.join(map(str, sorted(both)))} of {cache} is trained "
                    "on too (without a list under train all are); expected others"
                )
    return result


def folds_of(selection: list[tuple[Cache, list[int] | None]]) -> dict[Path, set[int]]:
    """Which folds of each cache a split takes."""
    result: dict[Path, set[int]] = {}
    for cache, folds in selection:
        there = set(cache.folds.tolist())
        result.setdefault(cache.path, set()).update(there if folds is None else there & set(folds))
    return result


def labels_used(config: RunConfig, pool: Pool) -> NDArray[np.bool_]:
    """Bool [records]: those whose labels a run may look at (``labelled`` of all, by seed)."""
    return labelled(np.arange(len(pool)), config.labelled, config.seed)
