"""Measures finished runs: thresholds from the validation records, figures on the test records."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import structlog
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from models.leads import LEADS
from training.config import ANY, CONFIG, PRE_TRAINING, RunConfig, load_config, read_made
from training.errors import TrainingError
from training.evaluation.metrics import Scores, choose_thresholds, score
from training.evaluation.restoration import Agreement, agreement, quality
from training.files import write_text
from training.fit import device, mixed, require_finished
from training.networks import load_classifier
from training.pool import Pool
from training.run import check_windows, folds_of, require_same, select
from training.stages.classifier import make_inputs, predict_records
from training.stages.inputs import RestoredLeads

SCORES = "scores.json"
_log = structlog.get_logger()
_BATCH = 128


def evaluate(run: Path, teacher: Path | None = None) -> dict[str, Any]:
    """Score a run on its test folds and keep the figures as ``scores.json`` in it.

    Args:
        run: finished.
        teacher: run of a classifier of twelve leads; whether it says the same of restored leads
            as of real ones is measured too. Only for a restoration run.

    Raises:
        TrainingError: if the run is not trained, has seen no label, or names no test folds.
    """
    config = measurable(run)
    if not any(d.test != [] for d in config.data):
        raise TrainingError(f"{run / CONFIG}: data.test: no folds to evaluate on")
    if config.network == "restoration":
        result = _restoration(config, run, teacher)
    elif teacher is not None:
        raise TrainingError(
            f"{run}: a {config.network}; --teacher judges runs of a restoration net"
        )
    else:
        validation, test = (_predicted(config, run, kind) for kind in ("validation", "test"))
        scores = scored(validation, test)
        result = {"figures": scores.figures(), **scores.to_dict()}
        result["thresholds_in_sample"] = in_sample = _share_folds(config)
        if in_sample:
            _log.warning("F1 and F2 are too high: thresholds chosen on test folds", run=str(run))
    result = {"fingerprints": [d["fingerprint"] for d in read_made(run)["data"]], **result}
    write_scores(run / SCORES, result)
    return result


def measurable(run: Path) -> RunConfig:
    """The configuration of a run that is finished and of a kind that can be measured.

    Raises:
        TrainingError: if it is not.
    """
    config = load_config(run / CONFIG)
    require_same(config, run)
    require_finished(run, config.schedule)
    if config.network in PRE_TRAINING:
        raise TrainingError(
            f"{run}: {config.network} pre-training gives no verdicts to measure; finetune with "
            f"start: {run}"
        )
    return config


def write_scores(path: Path, result: dict[str, Any]) -> None:
    """Keep figures as JSON; a file that is there is whole, whenever the writing is cut off."""
    write_text(path, json.dumps(result, indent=1, ensure_ascii=False) + "\n")


def read_scores(run: Path, name: str = SCORES) -> dict[str, Any]:
    """What ``evaluate`` or ``cross_device`` kept.

    Raises:
        TrainingError: if it is not there or damaged.
    """
    path = run / name
    try:
        result: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        result["figures"]
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise TrainingError(f"{path}: cannot be read; run `evaluate {run}` first") from error
    return result


class Predicted:
    """A pool and what a network says of it: logits [records, classes]."""

    def __init__(self, pool: Pool, logits: NDArray[np.float32]) -> None:
        self.pool, self.logits = pool, logits

    @property
    def probabilities(self) -> NDArray[np.float32]:
        """[records, classes]."""
        result: NDArray[np.float32] = 1 / (1 + np.exp(-self.logits.clip(-60, 60)))
        return result


def scored(validation: Predicted, test: Predicted) -> Scores:
    """The six figures of ``test`` with thresholds that ``validation`` chose."""
    thresholds = choose_thresholds(
        validation.pool.labels, validation.pool.known > 0, validation.probabilities
    )
    return score(
        test.pool.labels, test.pool.known > 0, test.probabilities, test.pool.classes, thresholds
    )


def _share_folds(config: RunConfig) -> bool:
    """Whether a test fold is a validation fold too, so that F1 and F2 are not of other records."""
    chosen = select(config)
    validation, test = folds_of(chosen["validation"]), folds_of(chosen["test"])
    return any(folds & validation.get(cache, set()) for cache, folds in test.items())


def _predicted(config: RunConfig, run: Path, kind: str) -> Predicted:
    net, classes = load_classifier(run)
    pool = Pool(select(config)[kind], classes)
    return Predicted(pool, predict_records(net, make_inputs(config, pool, None), pool))


def _restoration(config: RunConfig, run: Path, teacher: Path | None) -> dict[str, Any]:
    real = _complete(Pool(select(config)["test"], read_made(run)["classes"]), "test")
    if config.lead == ANY:
        if teacher is not None:
            raise TrainingError(f"{run}: restores from any lead; --teacher judges a net of one")
        each = [quality(real.numpy(), _restored(run, x, real), LEADS, x) for x in LEADS]
        moving = [q.correlation for q in each if q.correlation is not None]
        return {
            "figures": {
                "mse": float(np.mean([q.mse for q in each])),
                "correlation": float(np.mean(moving)) if moving else None,
            },
            "sources": [q.to_dict() for q in each],
        }
    restored = _restored(run, config.lead, real)
    measured = quality(real.numpy(), restored, LEADS, config.lead)
    result: dict[str, Any] = {
        "figures": {"mse": measured.mse, "correlation": measured.correlation},
        **measured.to_dict(),
    }
    if teacher is not None:
        verdicts = _verdicts(config, teacher, real, torch.from_numpy(restored))
        result["teacher"] = verdicts.to_dict()
        result["figures"] |= {
            "teacher_agreement": verdicts.agreement,
            "teacher_kappa": verdicts.kappa,
            "teacher_auc_real": verdicts.auc_real,
            "teacher_auc_restored": verdicts.auc_restored,
        }
    return result


def _restored(run: Path, lead: str, real: Tensor) -> NDArray[np.float32]:
    """Twelve leads [records, 12, time] from one of the real ones, which is left as it is."""
    net, place = RestoredLeads(run, lead, None, frozenset()), LEADS.index(lead)
    parts = [net.restore(x[:, place : place + 1]).cpu() for x in torch.split(real, _BATCH)]
    result: NDArray[np.float32] = torch.cat(parts).numpy()
    return result


def _complete(pool: Pool, kind: str) -> Tensor:
    """Real leads [records, 12, time] of the records that have all of them.

    Raises:
        TrainingError: if none has.
    """
    rows = np.flatnonzero(pool.complete)
    if not len(rows):
        raise TrainingError(f"data: {kind}: no record has all twelve leads; expected some")
    return pool.leads(rows, pool.windows(rows))


def _verdicts(config: RunConfig, teacher: Path, real: Tensor, restored: Tensor) -> Agreement:
    """What a teacher says of the test records' leads, at thresholds that validation chose."""
    if (kind := load_config(teacher / CONFIG).network) != "teacher":
        raise TrainingError(f"--teacher: {teacher} is the run of a {kind}; expected a teacher's")
    measurable(teacher)
    check_windows(config, teacher)
    net, classes = load_classifier(teacher)
    pool, test = (Pool(select(config)[kind], classes) for kind in ("validation", "test"))
    thresholds = choose_thresholds(
        pool.labels[pool.complete],
        pool.known[pool.complete] > 0,
        _probabilities(net, _complete(pool, "validation")),
    )
    return agreement(
        _probabilities(net, real),
        _probabilities(net, restored),
        thresholds.f1,
        test.labels[test.complete],
        test.known[test.complete] > 0,
        classes,
    )


@torch.inference_mode()
def _probabilities(net: nn.Module, leads: Tensor) -> NDArray[np.float32]:
    with mixed():
        logits = [net(x.to(device())).float().cpu() for x in torch.split(leads, _BATCH)]
    result: NDArray[np.float32] = torch.cat(logits).sigmoid().numpy()
    return result
