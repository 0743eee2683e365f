"""Any finished runs on one page: figures, learning curves, classes, what is looked at."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from models.leads import LEADS
from training.config import CONFIG, load_config
from training.evaluation.gradcam import grad_cam, lead_saliency
from training.fit import device, read_history
from training.networks import load_classifier
from training.pool import Pool
from training.report.comparison import check_suffix, write
from training.report.figures import FEWEST, Heat, class_auc, curves, heat_strips, strips, tsne
from training.report.page import Cell, Column, Picture, Section, Table
from training.results import SCORES, read_scores
from training.run import select
from training.stages.classifier import make_inputs
from training.stages.inputs import WHOLE, Batch

_DRAWN = 7
_THRESHOLDS = {None: "", False: "validation", True: "test folds (too high)"}
_FEATURES = 1000


def report(runs: Sequence[Path], out: Path, title: str) -> None:
    """Write the page; runs that have not been evaluated show their learning curves alone."""
    check_suffix(out)
    sections = [Section("Figures", [_figures(runs)]), Section("Training", _curves(runs))]
    measured = [r for r in runs if (r / SCORES).is_file() and _network(r) != "restoration"]
    if measured:
        sections.append(Section("Per class", [_per_class(measured[:_DRAWN])]))
    students = [r for r in measured if load_config(r / CONFIG).restoration is not None]
    if students and (pictures := _looks(students[0])):
        sections.append(Section("Restored leads", pictures))
    write(title, sections, out)


def _network(run: Path) -> str:
    return load_config(run / CONFIG).network


def _figures(runs: Sequence[Path]) -> Table:
    rows: list[list[Cell]] = []
    for run in runs:
        config = load_config(run / CONFIG)
        scores = read_scores(run) if (run / SCORES).is_file() else {}
        said = scores.get("figures", {})
        rows.append(
            [
                str(run),
                config.network,
                config.method or "",
                config.size,
                *(
                    said.get(k)
                    for k in ("mean_average_precision", "macro_auc", "macro_f1", "macro_f2", "mse")
                ),
                _THRESHOLDS[scores.get("thresholds_in_sample")],
            ]
        )
    heads = [
        "run",
        "network",
        "method",
        "size",
        "MAP",
        "AUC",
        "F1",
        "F2",
        "restoration MSE",
        "F1, F2: thresholds from",
    ]
    return Table("On the test folds of each run", [Column(h) for h in heads], rows)


def _curves(runs: Sequence[Path]) -> list[Picture]:
    loss, score = {}, {}
    for run in runs[:_DRAWN]:
        lines = read_history(run)
        at = [line["step"] for line in lines]
        loss[str(run)] = (at, [line["loss"] for line in lines])
        score[str(run)] = (at, [line["validation_score"] for line in lines])
    return [
        Picture("training-loss", curves(loss, "step", "loss"), "Training loss"),
        Picture("validation-score", curves(score, "step", "score"), "Validation score"),
    ]


def _per_class(runs: Sequence[Path]) -> Picture:
    table: dict[str, dict[str, float]] = {}
    for run in runs:
        said = read_scores(run)
        table[str(run)] = {c["name"]: c["auc"] for c in said["per_class"]}
    classes = list(dict.fromkeys(c for aucs in table.values() for c in aucs))[:60]
    values = {n: [aucs.get(c, float("nan")) for c in classes] for n, aucs in table.items()}
    return Picture("auc-per-class", class_auc(classes, values), "AUC of each class")


def _looks(run: Path) -> list[Picture]:
    """Strips, Grad-CAM and t-SNE of a student's first test records that have all leads, if any."""
    config = load_config(run / CONFIG)
    net, classes = load_classifier(run)
    pool = Pool(select(config)["test"], classes)
    rows = np.flatnonzero(pool.complete)[:_FEATURES]
    if not len(rows):
        return []
    windows = pool.windows(rows)
    real = pool.leads(rows, windows)
    restored = make_inputs(config, pool, None)(real, Batch(pool, rows, windows, WHOLE))
    with torch.inference_mode():
        features = torch.cat([net.features(x) for x in torch.split(restored.to(device()), 128)])  # type: ignore[operator]
    common = int(pool.labels[rows].sum(axis=0).argmax())
    # The record and the class that the network is surest of, the commonest class aside.
    with torch.inference_mode():
        logits = net.classify(features).cpu()  # type: ignore[operator]
    right = torch.where(torch.from_numpy(pool.labels[rows]) > 0, logits, -torch.inf)
    right[:, common] = -torch.inf
    record, target = divmod(int(right.argmax()), len(classes))
    one, other = restored[record : record + 1], real[record : record + 1]
    pictures = [
        Picture(
            "strips",
            strips(other[0].numpy(), one[0].numpy(), pool.parts[0].cache.rate, LEADS),
            "Real leads, and what was restored from one of them",
        ),
    ]
    groups, names = _groups(pool.labels[rows], classes)
    if names and len(rows) >= FEWEST:  # else there is nothing to tell apart
        clouds = tsne({str(run): features.cpu().numpy()}, groups, names, seed=1)
        pictures.append(Picture("features", clouds, "t-SNE of the student's features"))
    if hasattr(net, "blocks"):
        heat = grad_cam(net, net.blocks, one.to(device()), target)[0].cpu().numpy()  # type: ignore[arg-type]
        bears = lead_saliency(net, one.to(device()), target)[0].cpu()
        share = bears / bears.sum().clamp(min=1e-12)
        shown = [LEADS.index(name) for name in ("I", "II", "V1", "V5")]
        pictures.append(
            Picture(
                "grad-cam",
                heat_strips(
                    [
                        Heat(label, leads[0, i].numpy(), heat)
                        for i in shown
                        for label, leads in (
                            (f"{LEADS[i]} restored, share {share[i]:.0%}", one.cpu()),
                            (f"{LEADS[i]} real", other),
                        )
                    ],
                    pool.parts[0].cache.rate,
                ),
                f"Grad-CAM of {classes[target]} over restored leads, and over the real ones, which "
                "it was not shown; each lead's share of all that bears on its verdict",
            )
        )
    return pictures


def _groups(
    labels: NDArray[np.float32], classes: Sequence[str]
) -> tuple[NDArray[np.int64], list[str]]:
    """The rarest of the six commonest classes that each record has, -1 for none, and their names.

    The commonest of all is left out: sinus rhythm would colour nearly everything.
    """
    order = np.argsort(-labels.sum(axis=0), kind="stable")[1:7]
    groups = np.full(len(labels), -1, dtype=np.int64)
    for place, c in enumerate(order):
        groups[labels[:, c] > 0] = place
    return groups, [classes[int(c)] for c in order]
