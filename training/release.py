"""From the run of a student to a shipped bundle: calibration, thresholds, alarm rules, metrics."""

import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import structlog
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError

from models import vocabulary
from models.bundle import BUNDLES, Bundle
from models.classifier import SIZES
from models.runtime import Runtime
from models.system import LeadOneSystem
from training.calibrate import platt
from training.config import CONFIG, load_config
from training.data import LENGTH, RATE
from training.errors import TrainingError
from training.evaluate import metrics
from training.evaluation.metrics import thresholds
from training.export import write_bundle, write_metrics
from training.networks import load_classifier, load_restoration
from training.policy import alarm_rules
from training.pool import Pool
from training.provenance import data_of, methods_of
from training.results import measurable
from training.run import select
from training.stages.classifier import reads_restored

_BATCH = 128
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_FINDINGS = frozenset(d.abbreviation for d in vocabulary.ALL)
_log = structlog.get_logger()


def release(run: Path, name: str, version: str, data: Path) -> Bundle:
    """Calibrate a student on its validation records and write it as a shipped bundle.

    Columns that the vocabulary does not have, such as the Challenge's own classes, helped in
    training and are left behind.

    Args:
        run: of a student that reads restored leads.
        name: of the bundle.
        version: of the bundle.
        data: folder of packed recordings that the bundle's metrics are measured on.

    Raises:
        TrainingError: if the name is none of a folder, the run is of another kind, or its
            validation records cannot calibrate.
    """
    if not _NAME.fullmatch(name):
        raise TrainingError(f"--bundle {name!r}: expected letters, digits, '.', '_' and '-' alone")
    system, classes = assemble(run)
    config = load_config(run / CONFIG)
    pool = Pool(select(config)["validation"], classes)
    _check(run, pool)
    logits, known = _logits(system, pool), pool.known > 0
    slope, offset = platt(logits, pool.labels, known)
    system.slope.copy_(torch.from_numpy(slope))
    system.offset.copy_(torch.from_numpy(offset))
    probabilities = 1 / (1 + np.exp(-(slope * logits + offset)))
    assert config.restoration is not None
    sizes = {"restoration": load_config(config.restoration / CONFIG).size, "student": config.size}
    try:
        # Beside, until all of it is there: what is at the name now may be what a gateway runs.
        with _beside(BUNDLES / f".new-{name}") as folder:
            made = write_bundle(
                folder / name,
                system,
                classes,
                thresholds(pool.labels, known, probabilities, 1),
                alarm_rules(probabilities, pool.labels, known, classes),
                version=version,
                sizes=sizes,
                method=", then ".join(methods_of(config)) or None,
                rebalanced=config.rebalance is not None,
                data=data_of(run),
            )
            write_metrics(made, metrics(Runtime(made), data))
            (BUNDLES / name).mkdir(exist_ok=True)
            for path in made.path.iterdir():
                path.replace(BUNDLES / name / path.name)
    except (OSError, SafetensorError) as error:
        raise TrainingError(f"{BUNDLES / name}: cannot be written ({error})") from error
    _log.info("bundle written", path=str(BUNDLES / name))
    return Bundle(BUNDLES / name)


@contextmanager
def _beside(folder: Path) -> Iterator[Path]:
    """A folder of its own for what is not finished; a killed export leaves it to the next."""
    shutil.rmtree(folder, ignore_errors=True)
    try:
        folder.mkdir()
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _check(run: Path, pool: Pool) -> None:
    """What a daemon feeds its bundle, and both kinds of record of each class."""
    cache = pool.parts[0].cache
    if (cache.rate, cache.length) != (RATE, LENGTH):
        raise TrainingError(
            f"{run}: learnt from {cache.length} samples at {cache.rate:g} Hz; a bundle for the "
            f"daemon is of {LENGTH} at {RATE:g} Hz"
        )
    for c, name in enumerate(pool.classes):
        labels = pool.labels[pool.known[:, c] > 0, c]
        if not 0 < labels.sum() < len(labels):
            raise TrainingError(
                f"{run}: {name}: no positive or no negative validation record; calibration needs "
                "both"
            )


def assemble(run: Path) -> tuple[LeadOneSystem, tuple[str, ...]]:
    """The system a gateway would run, without calibration, and its classes.

    Raises:
        TrainingError: if ``run`` is not finished, or not of a student of lead I that reads restored
            leads.
    """
    config = measurable(run)
    if config.network != "student" or config.restoration is None or config.size not in SIZES:
        raise TrainingError(f"{run}: expected the run of a student that reads restored leads")
    if config.lead != "I":
        raise TrainingError(f"{run}: measures lead {config.lead}; a bundle for the daemon is of I")
    if not reads_restored(config):
        raise TrainingError(f"{run}: reads one lead; a bundle's student reads restored leads")
    net, columns = load_classifier(run)
    if "AF" not in columns:
        raise TrainingError(f"{run}: does not know AF, which a bundle is measured by")
    kept = [i for i, c in enumerate(columns) if c in _FINDINGS]
    weights = {
        k: v[kept] if k in {"out.weight", "out.bias"} else v for k, v in net.state_dict().items()
    }
    size = load_config(config.restoration / CONFIG).size
    system = LeadOneSystem(size, config.size, len(kept), config.strides)
    system.restoration.load_state_dict(
        load_restoration(config.restoration, config.lead).state_dict()
    )
    system.student.load_state_dict(weights)
    return system.eval(), tuple(columns[i] for i in kept)


def _logits(system: LeadOneSystem, pool: Pool) -> NDArray[np.float32]:
    """Logits [records, classes] in full precision, as the graph will compute them."""
    rows = np.arange(len(pool))
    windows = pool.windows(rows)
    with torch.inference_mode():
        parts = [
            system(pool.leads(some, windows[some])[:, :1])[1].numpy()
            for some in np.array_split(rows, max(1, len(rows) // _BATCH))
        ]
    return np.concatenate(parts)
