"""How good a system is, by the graph that ships and the records it was not trained on."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score, roc_auc_score

from models.runtime import Runtime
from training.data import VALIDATION_FOLD, Cinc2017, load_cinc2017, load_lead_one, load_ptbxl
from training.evaluation.challenge2017 import RecordVerdict, Score2017, record_features, score2017
from training.evaluation.metrics import delong, macro_auc_interval
from training.evaluation.noise import add_noise
from training.quiet_hours import quiet_hours
from training.windows import prepared, probabilities

SNR_DB = 12.0


@dataclass(frozen=True, slots=True, eq=False)
class Scores:
    """Probabilities [records, classes] with labels of the same shape."""

    labels: NDArray[np.float32]
    probabilities: NDArray[np.float32]


def ptbxl_scores(runtime: Runtime, data: Path) -> Scores:
    """Score PTB-XL fold 9 from lead I alone."""
    records = load_ptbxl(data, [VALIDATION_FOLD], runtime.bundle.classes)
    lead_one = records.leads[:, 0].astype(np.float32)
    return Scores(records.labels, probabilities(runtime, lead_one))


def noisy_scores(
    runtime: Runtime, data: Path, snr_db: float, labels: NDArray[np.float32]
) -> Scores:
    """Score PTB-XL fold 9, whose labels these are, with wearable noise added to lead I."""
    microvolts, rate = load_lead_one(data, VALIDATION_FOLD)
    noisy = add_noise(microvolts, rate, snr_db, seed=1).astype(np.float32)
    windows = np.stack([runtime.prepare(x, rate) for x in noisy])
    return Scores(labels, probabilities(runtime, windows))


def challenge_score(runtime: Runtime, data: Path) -> Score2017:
    """The Challenge's own score on the records held out.

    A bundle says nothing of "other rhythm", so its verdict is a multinomial logistic regression on
    the mean and greatest logit of every class, fitted on the training records.
    """
    features, references = {}, {}
    for split in ("train", "test"):
        records = load_cinc2017(data, split)
        logits, record = [], []
        for i, x in enumerate(records.lead_one):
            windows = prepared(x, records.rate, runtime)
            logits.append(runtime.infer(windows).logits)
            record += [i] * len(windows)
        features[split] = record_features(np.concatenate(logits), np.array(record))
        references[split] = records.reference
    verdict = RecordVerdict(features["train"], references["train"])
    return score2017(references["test"], verdict(features["test"]))


def cinc_af_scores(runtime: Runtime, records: Cinc2017) -> tuple[list[bool], list[float]]:
    """Is it AF, and the mean AF probability over the record's 10 s windows, a record each."""
    af = runtime.bundle.classes.index("AF")
    truth, score = [], []
    for signal, reference in zip(records.lead_one, records.reference, strict=True):
        windows = prepared(signal, records.rate, runtime)
        truth.append(reference == "A")
        score.append(float(probabilities(runtime, windows)[:, af].mean()))
    return truth, score


def metrics(runtime: Runtime, data: Path) -> dict[str, object]:
    """Every figure that goes into the manifest and the model card."""
    ptbxl = ptbxl_scores(runtime, data)
    classes = runtime.bundle.classes
    areas = [delong(y > 0, p) for y, p in zip(ptbxl.labels.T, ptbxl.probabilities.T, strict=True)]
    auc = np.array([area for area, _, _ in areas])
    precision = average_precision_score(ptbxl.labels, ptbxl.probabilities, average=None)
    cinc = load_cinc2017(data, "test")
    truth, score = cinc_af_scores(runtime, cinc)
    clean = [i for i, r in enumerate(cinc.reference) if r != "~"]
    noisy = noisy_scores(runtime, data, SNR_DB, ptbxl.labels)
    challenge = challenge_score(runtime, data)
    reached = ptbxl.probabilities >= np.array(list(runtime.bundle.thresholds.values()))
    hits = (reached & (ptbxl.labels > 0)).sum(axis=0)
    positives, found = ptbxl.labels.sum(axis=0), reached.sum(axis=0)
    return {
        "ptbxl_fold9_lead_one": {
            "measured_on": f"{len(ptbxl.labels)} records, also used to calibrate and stop",
            "macro_auc": round(float(np.mean(auc)), 4),
            "macro_auc_interval": [
                round(end, 4) for end in macro_auc_interval(ptbxl.labels, ptbxl.probabilities)
            ],
            "mean_average_precision": round(float(np.mean(precision)), 4),
            "auc": _by_class(classes, auc),
            "auc_interval": {
                c: [None if end is None else round(end, 3) for end in ends]
                for c, (_, *ends) in zip(classes, areas, strict=True)
            },
            "positives": {c: int(n) for c, n in zip(classes, positives, strict=True)},
            "sensitivity": _by_class(classes, hits / np.maximum(positives, 1)),
            "precision": _by_class(classes, hits / np.maximum(found, 1)),
        },
        "cinc2017_af_against_rest": {
            "measured_on": f"{len(truth)} records held out by name ({sum(truth)} AF)",
            "auc": round(float(roc_auc_score(truth, score)), 4),
            "auc_without_noisy": round(
                float(roc_auc_score([truth[i] for i in clean], [score[i] for i in clean])), 4
            ),
        },
        "ptbxl_fold9_with_wearable_noise": {
            "measured_on": f"the same records, noise at {SNR_DB:g} dB before the filter",
            "macro_auc": round(float(roc_auc_score(noisy.labels, noisy.probabilities)), 4),
        },
        "cinc2017_challenge_score": {
            "measured_on": f"{len(truth)} records held out by name; N, A, O and ~ from the logits "
            "by a logistic regression fitted on the training records",
            "f1": round(challenge.f1, 4),
            "f1_normal": round(challenge.f1_normal, 4),
            "f1_af": round(challenge.f1_af, 4),
            "f1_other": round(challenge.f1_other, 4),
        },
        "false_alarms": quiet_hours(runtime, data),
    }


def _by_class(classes: Sequence[str], values: NDArray[np.floating]) -> dict[str, float]:
    return {c: round(float(v), 3) for c, v in zip(classes, values, strict=True)}
