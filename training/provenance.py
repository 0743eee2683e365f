"""What a bundle came from: methods and data of its run, and of the runs that it rests on."""

from collections.abc import Iterator
from pathlib import Path

from training.config import CONFIG, RunConfig, load_config, read_made

_Folds = set[int] | None
"""None is all of a data set, as in a run's YAML."""


def methods_of(config: RunConfig) -> list[str]:
    """The methods of a run and of those it started from, each once, the first one first.

    Raises:
        TrainingError: if one of the runs is gone.
    """
    before = [] if config.start is None else methods_of(load_config(config.start / CONFIG))
    return before + ([config.method] if config.method and config.method not in before else [])


def data_of(run: Path) -> list[dict[str, str]]:
    """Every data set that a run, its teachers, its restoration net or its start were trained on.

    Returns:
        For each its ``name``, ``licence`` and ``used``, e.g. "folds 1-8 to train, fold 9 to stop
        and calibrate"; a fold that any of the runs was trained on is one to train.

    Raises:
        TrainingError: if one of the runs is gone.
    """
    known: dict[str, tuple[str, str]] = {}
    train: dict[str, _Folds] = {}
    validation: dict[str, _Folds] = {}
    for each in lineage(run):
        trained_on = [d for d in load_config(each / CONFIG).data if d.train != []]
        for data, made in zip(trained_on, read_made(each)["data"], strict=True):
            key = made["fingerprint"]
            known[key] = made["name"], made["licence"]
            train[key] = _union(train.get(key, set()), data.train)
            validation[key] = _union(validation.get(key, set()), data.validation)
    return [
        {"name": name, "licence": licence, "used": _used(train[key], validation[key])}
        for key, (name, licence) in known.items()
    ]


def lineage(run: Path) -> Iterator[Path]:
    """A run, and every run that it rests on.

    Raises:
        TrainingError: if one of them is gone.
    """
    yield run
    for before in load_config(run / CONFIG).rests_on:
        yield from lineage(before)


def _union(folds: _Folds, more: list[int] | None) -> _Folds:
    return None if folds is None or more is None else folds | set(more)


def _used(train: _Folds, validation: _Folds) -> str:
    if validation is not None:
        validation = set() if train is None else validation - train
    uses = ((train, "to train"), (validation, "to stop and calibrate"))
    return ", ".join(f"{_named(folds)} {use}" for folds, use in uses if folds != set())


def _named(folds: _Folds) -> str:
    """E.g. "folds 1-8", "fold 9", "folds 1, 3-5"."""
    if folds is None:
        return "all records"
    runs: list[list[int]] = []
    for fold in sorted(folds):
        if runs and fold == runs[-1][-1] + 1:
            runs[-1].append(fold)
        else:
            runs.append([fold])
    said = ", ".join(f"{r[0]}-{r[-1]}" if len(r) > 1 else str(r[0]) for r in runs)
    return f"fold{'s' if len(folds) > 1 else ''} {said}"
