"""A table of methods over seeds, as a page."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from training.errors import TrainingError
from training.evaluation.seeds import paired, summary
from training.files import disk, replacing, write_text
from training.report.figures import class_auc
from training.report.page import (
    Cell,
    Column,
    Measured,
    Picture,
    Section,
    Table,
    Text,
    markdown,
    page,
)
from training.results import SCORES, read_scores
from training.tables import UNMIXED, Step

_COLUMNS = {
    "ranking_loss": Column("ranking loss", "lowest"),
    "coverage": Column("coverage", "lowest", 2),
    "mean_average_precision": Column("MAP %", "highest", 2),
    "macro_auc": Column("AUC %", "highest", 2),
    "macro_f1": Column("F1 %", "highest", 2),
    "macro_f2": Column("F2 %", "highest", 2),
}
_PERCENT = {"mean_average_precision", "macro_auc", "macro_f1", "macro_f2"}
_TITLES = {
    1: "Table 1: 10 % labels, lead I",
    2: "Table 2: 5 % labels, lead I",
    3: "Table 3: all labels, superclasses and subclasses, lead I, random crops and finer strides",
    4: "Table 4: LiteHeart at three sizes, 10 % labels",
    5: "Table 5: trained on PTB-XL, measured on another device, lead I",
    6: "Table 6: which lead to measure, all labels",
    7: "Table 7: how to teach the shipped student, all labels, short runs",
    8: "Table 8: what the teacher learnt before, and several teachers, 10 % labels, lead I",
    9: "Table 9: 10 % labels, lead I, random crops and finer strides",
    10: "Table 10: table 1 with other weights, and with parts of LiteHeart alone",
}
_MANY = 40
_DRAWN = ("baseline", "kd", "mvkt", "liteheart", UNMIXED, "teacher (12 leads)")


def comparison(
    number: int, steps: Sequence[Step], runs: Path, name: str = SCORES
) -> tuple[str, list[Section]]:
    """The page of a finished table.

    Args:
        number: of the table.
        steps: its runs (``training.tables.steps``).
        runs: the folder they are in.
        name: of the file of scores in each run.

    Raises:
        TrainingError: if one has not been evaluated.
    """
    scores: dict[str, list[dict[str, Any]]] = {}
    for step in steps:
        if step.config.network in {"teacher", "student"}:
            scores.setdefault(step.label, []).append(read_scores(runs / step.run, name))
    # Macro figures over other classes, such as those of a teacher of all, would not compare.
    compared = _names(scores[steps[-1].label])
    scores = {label: each for label, each in scores.items() if _names(each) == compared}
    schedule = steps[-1].config.schedule
    sizes = dict.fromkeys(s.config.size for s in steps if s.config.network == "student")
    measured = "9 measured" if number != 5 else "the other data set measured"
    text = (
        f"PTB-XL, folds 1-7 to train, 8 to choose and for thresholds, {measured}. "
        f"{_seeds(max(len(s) for s in scores.values()))}. "
        f"Students: {', '.join(sizes)}, {schedule.steps} steps of {schedule.batch} records."
    )
    sections = [Section("Figures", [Text(text), *_tables(number, scores)])]
    if "baseline" in scores and "teacher (12 leads)" in scores and number != 3:
        sections.append(Section("Gap to the teacher", [Text(_gap(scores))]))
    ours = UNMIXED if UNMIXED in scores else "liteheart"
    if ours in scores and len(scores[ours]) > 1:
        sections.append(Section("Over the seeds", [_intervals(ours, scores)]))
    sections += _per_class(number, scores)
    return _TITLES[number], sections


def write(title: str, sections: Sequence[Section], out: Path | None) -> None:
    """Write a page to an .html or, with its pictures beside it, an .md; to stdout without a path.

    Raises:
        TrainingError: if the path has another suffix or cannot be written.
    """
    text, pictures = markdown(title, sections)
    if out is None:
        sys.stdout.write(text)
        return
    check_suffix(out)
    with disk(out):
        out.parent.mkdir(parents=True, exist_ok=True)
    if out.suffix == ".html":
        write_text(out, page(title, sections))
        return
    # The page last: one that is there has all of its pictures.
    for name, data in pictures.items():
        with replacing(out.parent / name) as file:
            file.write(data)
    write_text(out, text)


def check_suffix(out: Path | None) -> None:
    """Refuse a page of another kind, before anything is trained for it.

    Raises:
        TrainingError: if the path has another suffix.
    """
    if out is not None and out.suffix not in {".html", ".md"}:
        raise TrainingError(f"{out}: expected a path that ends in .html or .md")


def _names(scores: list[dict[str, Any]]) -> list[str]:
    return [c["name"] for c in scores[0]["per_class"]]


def _tables(number: int, scores: dict[str, list[dict[str, Any]]]) -> list[Table]:
    if number == 3:
        return [
            _table(
                f"{name}, {prefix}*", {k: [_part(s, prefix) for s in v] for k, v in scores.items()}
            )
            for name, prefix in (("Superclasses", "SUPER_"), ("Subclasses", "SUB_"))
        ]
    classes = _names(next(iter(scores.values())))
    figures = {k: [s["figures"] for s in v] for k, v in scores.items()}
    over = ", ".join(classes) if len(classes) <= _MANY else f"{len(classes)} classes"
    return [_table(f"Macro over {over}", figures)]


def _table(caption: str, figures: dict[str, list[dict[str, float]]]) -> Table:
    first = next(iter(figures.values()))[0]
    names = [n for n in _COLUMNS if n in first]
    rows: list[Sequence[Cell]] = []
    references: list[Sequence[Cell]] = []
    for label, each in figures.items():
        means = summary([{n: f[n] for n in names} for f in each])
        cells: list[Cell] = [label]
        for n in names:
            by = 100 if n in _PERCENT else 1
            deviation = means[n].deviation
            cells.append(
                Measured(by * means[n].mean, None if deviation is None else by * deviation)
            )
        (references if label.startswith("teacher") else rows).append(cells)
    return Table(caption, [Column("method"), *(_COLUMNS[n] for n in names)], rows, references)


def _part(scores: dict[str, Any], prefix: str) -> dict[str, float]:
    """Macro figures over the classes whose name begins so."""
    some = [c for c in scores["per_class"] if c["name"].startswith(prefix)]
    return {
        "mean_average_precision": float(np.mean([c["average_precision"] for c in some])),
        "macro_auc": float(np.mean([c["auc"] for c in some])),
        "macro_f1": float(np.mean([c["f1"] for c in some])),
        "macro_f2": float(np.mean([c["f2"] for c in some])),
    }


def _per_class(number: int, scores: dict[str, list[dict[str, Any]]]) -> list[Section]:
    """The AUC of each class: as a table, and as a picture unless twelve leads are compared."""
    drawn = {n: s for n, s in scores.items() if number in {4, 6} or n in _DRAWN}
    classes = _names(next(iter(scores.values())))
    if not drawn or len(classes) > _MANY:
        return []
    aucs = {name: [_class_mean(s, c) for c in classes] for name, s in drawn.items()}
    columns = [Column("class"), *(Column(n.removeprefix("lead "), digits=1) for n in aucs)]
    rows: list[Sequence[Cell]] = [
        [c, *(100 * v[i] for v in aucs.values())] for i, c in enumerate(classes)
    ]
    table = Table("AUC of each class, %", columns, rows)
    if number == 6:
        return [Section("Per class", [table])]
    picture = Picture(f"table-{number}-auc", class_auc(classes, aucs), "AUC of each class")
    return [Section("Per class", [table, picture])]


def _seeds(count: int) -> str:
    return "One seed" if count == 1 else f"{count} seeds: mean and sample standard deviation"


def _gap(scores: dict[str, list[dict[str, Any]]]) -> str:
    def f1(label: str) -> float:
        return float(np.mean([s["figures"]["macro_f1"] for s in scores[label]]))

    low, high = f1("baseline"), f1("teacher (12 leads)")
    lines = [
        f"{label}: {100 * (f1(label) - low) / (high - low):.0f} %"
        for label in scores
        if label not in {"baseline", "teacher (12 leads)"}
    ]
    return (
        f"Share of the F1 gap between baseline ({100 * low:.2f} %) and teacher "
        f"({100 * high:.2f} %) that a method closes. " + "; ".join(lines) + "."
    )


def _intervals(ours: str, scores: dict[str, list[dict[str, Any]]]) -> Table:
    """How far one method is ahead of each other one, and how sure so many seeds make that."""
    names = ("macro_auc", "mean_average_precision", "macro_f1")
    rows: list[Sequence[Cell]] = []
    for label, each in scores.items():
        if label == ours or label.startswith("teacher") or len(each) != len(scores[ours]):
            continue
        ahead = paired(
            *([{n: s["figures"][n] for n in names} for s in of] for of in (scores[ours], each))
        )
        rows.append(
            [
                label,
                *(
                    f"{100 * d.mean:+.2f} ({100 * d.low:+.2f} to {100 * d.high:+.2f})"
                    for d in (ahead[n] for n in names)
                    if d.low is not None and d.high is not None
                ),
            ]
        )
    caption = (
        f"{ours} less each other, seed by seed: mean and 95 % confidence interval (paired t of "
        f"{len(scores[ours])} seeds)"
    )
    return Table(caption, [Column("method"), *(Column(_COLUMNS[n].name) for n in names)], rows)


def _class_mean(scores: list[dict[str, Any]], name: str) -> float:
    found = [c["auc"] for s in scores for c in s["per_class"] if c["name"] == name]
    return float(np.mean(found)) if found else float("nan")
