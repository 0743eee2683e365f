"""Trained on one kind of device, tested on another (LiteHeart, section 2.6)."""

from pathlib import Path
from typing import Any

import numpy as np

from training.config import read_made
from training.datasets.cache import Cache
from training.errors import TrainingError
from training.networks import load_classifier
from training.pool import Pool, check_alike
from training.provenance import lineage
from training.results import Predicted, measurable, scored, write_scores
from training.run import select
from training.stages.classifier import make_inputs, predict_records


def cross_device(run: Path, cache: Cache, folds: list[int] | None) -> dict[str, Any]:
    """Score a run on a data set it was not trained on, and keep that beside its other scores.

    The classes are those that the run knows and of which the other set has positives. A record's
    logits are the means over its windows; thresholds come from the run's own validation records.

    Args:
        run: of a classifier.
        cache: the other data set.
        folds: of it, None for all.

    Raises:
        TrainingError: if the run is not finished or gives no verdicts, was trained on this very
            data set, or they share no class.
    """
    config = measurable(run)
    if config.network == "restoration":
        raise TrainingError(f"{run}: a restoration net; --on measures classifiers")
    if any(Cache(d.cache).fingerprint == cache.fingerprint for d in config.data):
        raise TrainingError(f"{run}: was trained on {cache.path}; expected another data set")
    for before in lineage(run):
        if any(data["fingerprint"] == cache.fingerprint for data in read_made(before)["data"]):
            raise TrainingError(
                f"{run}: rests on {before}, which was trained on {cache.path}; expected another "
                "data set"
            )
    check_alike([Cache(config.data[0].cache), cache])
    net, classes = load_classifier(run)
    every = Pool([(cache, folds)], classes)
    shared = np.flatnonzero((every.labels * every.known).sum(axis=0) > 0)
    if not len(shared):
        raise TrainingError(f"{cache.path}: has no positive of any class of {run}")
    names = [classes[i] for i in shared]
    other, own = Pool([(cache, folds)], names), Pool(select(config)["validation"], names)
    own_logits, other_logits = (
        predict_records(net, make_inputs(config, pool, None), pool)[:, shared]
        for pool in (own, other)
    )
    scores = scored(Predicted(own, own_logits), Predicted(other, other_logits))
    result = {"figures": scores.figures(), **scores.to_dict()}
    write_scores(run / scores_name(cache, folds), result)
    return result


def scores_name(cache: Cache, folds: list[int] | None = None) -> str:
    """File, in the folder of a run, of its scores on another data set or on folds of it."""
    of = "" if folds is None else f"-folds-{'-'.join(map(str, sorted(folds)))}"
    return f"scores-{cache.name.lower().replace(' ', '-')}-{cache.fingerprint[:8]}{of}.json"
