"""Cross-validate by person, then fit on everybody, and write what a gateway loads."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import structlog

from models.rhythm.decision import Thresholds
from models.rhythm.model import MANIFEST, SHIPPED, RhythmModel
from training.errors import TrainingError
from training.files import write_text
from training.rhythm.card import card
from training.rhythm.choose import DEFAULT, Track, choose, summary
from training.rhythm.export import load_net, write_model
from training.rhythm.fit import fit
from training.rhythm.folds import FOLDS, fold_of
from training.rhythm.records import RhythmRecord, read_records
from training.rhythm.simulated import SEED, simulated_records
from training.rhythm.stills import stills
from training.rhythm.windows import Windows, cut, joined

CONFIG = "rhythm.json"
EVERYBODY = "all"

DATA = (
    {
        "name": "MIT-BIH Malignant Ventricular Ectopy",
        "licence": "Greenwald 1986, PhysioNet, ODC-By 1.0",
        "used": "14 records, their first channel",
    },
    {
        "name": "Creighton University Ventricular Tachyarrhythmia",
        "licence": "Nolle et al. 1986, PhysioNet, ODC-By 1.0",
        "used": "15 records, episodes read by eye",
    },
    {
        "name": "MIT-BIH Arrhythmia",
        "licence": "Moody and Mark 2001, PhysioNet, ODC-By 1.0",
        "used": "38 records, their first channel",
    },
    {
        "name": "PhysioNet/CinC Challenge 2017",
        "licence": "Clifford et al. 2017, PhysioNet, ODC-By 1.0",
        "used": "6,822 records",
    },
    {
        "name": "CPSC 2021",
        "licence": "Wang et al. 2021, PhysioNet, CC BY 4.0",
        "used": "9 records of three people",
    },
    {
        "name": "Lead-I database",
        "licence": "Bernal-Romero and Ramirez-Cortes 2024, CC BY 4.0",
        "used": "4,500 records of 450 people",
    },
    {
        "name": "PTB-XL 1.0.3",
        "licence": "Wagner et al. 2020, PhysioNet, CC BY 4.0",
        "used": "folds 1-9, hearts that imitate a tachycardia; leads I, II, V1, V5",
    },
)

# Seconds between the windows of a record that are trained on: neighbours say nearly the same.
_EVERY_S = {"mitdb": 2, "cpsc2021": 2, "cinc2017": 3, "lead1": 3, "ptbxl": 2}

_STILLS_EACH = 12

_log = structlog.get_logger()


def train(data: Path, run: Path, *, steps: int, seed: int) -> None:
    """Train the networks of all folds and that of everybody; what is there already is kept.

    Args:
        data: the folder of recordings (``training.rhythm.records.read_records``).
        run: folder of the run: one folder each for ``fold0`` … and ``all``.
        steps: of optimisation, for each.
        seed: of everything left to chance.

    Raises:
        TrainingError: data are missing, or the run was begun with other numbers.
    """
    _begin(run, {"steps": steps, "seed": seed, "folds": FOLDS})
    records = _records(data)
    folds = fold_of(record.person for record in records)
    parts = [cut(record) for record in records]
    tracks: list[Track] = []
    for fold in range(FOLDS):
        here = [i for i, record in enumerate(records) if folds[record.person] == fold]
        others = sorted(set(range(len(records))) - set(here))
        model = _fitted(run / f"fold{fold}", records, parts, others, steps=steps, seed=seed + fold)
        # What is counted was not learnt from.
        tracks += [Track.of(records[i], parts[i], model.probabilities, fold) for i in here]
    chosen = {}
    for fold in range(FOLDS):
        chosen[fold] = choose(track for track in tracks if track.fold != fold)
        _finish(run / f"fold{fold}", chosen[fold], {})
    everybody = range(len(records))
    _fitted(run / EVERYBODY, records, parts, everybody, steps=steps, seed=seed + FOLDS)
    _finish(run / EVERYBODY, choose(tracks), summary(tracks, chosen))


def ship(run: Path, version: int) -> Path:
    """Put the network of everybody in the place of the shipped one, with its card.

    Args:
        run: a finished run of ``train``.
        version: of the model.

    Returns:
        The folder.

    Raises:
        TrainingError: the run is not finished.
    """
    folder = run / EVERYBODY
    if not (folder / MANIFEST).exists():
        raise TrainingError(f"{folder}: no model; expected a finished run of training rhythm")
    manifest = RhythmModel(folder).manifest
    if not manifest.metrics:
        raise TrainingError(f"{folder}: no thresholds were chosen; run training rhythm to its end")
    made = write_model(
        SHIPPED,
        load_net(folder),
        manifest.thresholds,
        version=version,
        metrics=manifest.metrics,
        data=manifest.data,
    )
    write_text(SHIPPED / "README.md", card(made.manifest))
    return SHIPPED


def _records(data: Path) -> list[RhythmRecord]:
    real = list(read_records(data))
    mitdb = [record for record in real if record.source == "mitdb"]
    made = [still.record for still in stills(mitdb, data, _STILLS_EACH, SEED)]
    return [*real, *made, *simulated_records()]


def _begin(run: Path, wanted: dict[str, Any]) -> None:
    path = run / CONFIG
    if path.exists():
        found = json.loads(path.read_text(encoding="utf-8"))
        if found != wanted:
            raise TrainingError(f"{path}: the run was begun with {found}; expected {wanted}")
        return
    run.mkdir(parents=True, exist_ok=True)
    write_text(path, json.dumps(wanted) + "\n")


def _fitted(
    folder: Path,
    records: Sequence[RhythmRecord],
    parts: Sequence[Windows],
    chosen: Sequence[int],
    *,
    steps: int,
    seed: int,
) -> RhythmModel:
    """The model of some records; fitted if it is not there."""
    if (folder / MANIFEST).exists():
        return RhythmModel(folder)
    some = [_thinned(parts[i], _EVERY_S.get(records[i].source, 1)) for i in chosen]
    windows = joined(some)
    persons = [records[chosen[i]].person for i in windows.records.tolist()]
    sources = [records[chosen[i]].source for i in windows.records.tolist()]
    _log.info("fitting", folder=str(folder), windows=len(windows.labels))
    net = fit(windows, persons, sources, steps=steps, seed=seed)
    return write_model(folder, net, DEFAULT, version=1, metrics={}, data=DATA)


def _thinned(windows: Windows, every_s: int) -> Windows:
    kept = (windows.ends_s.astype(np.int64) % every_s == 0) & (windows.labels != 0)
    return Windows(
        windows.inputs[kept], windows.labels[kept], windows.ends_s[kept], windows.records[kept]
    )


def _finish(folder: Path, thresholds: Thresholds, metrics: Mapping[str, Any]) -> None:
    """Put thresholds and figures into a model's manifest."""
    manifest = RhythmModel(folder).manifest
    write_model(
        folder,
        load_net(folder),
        thresholds,
        version=manifest.version,
        metrics=metrics,
        data=manifest.data,
    )
