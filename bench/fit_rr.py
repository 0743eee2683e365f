"""Fits the regression of the RR irregularity, and prints its weights and figures.

python -m bench.fit_rr [--data DIR]

The intervals are those of the R peaks that the beat detector finds in Challenge 2017: records
labelled A (atrial fibrillation) against N and O (any other rhythm), with at least 20 intervals;
those labelled too noisy are left out. Weights are fitted on 70 % of the records by a hash of their
name, the figures are of the 20 % that were never looked at (the last 10 %, validation, helped to
choose among signs and thresholds). Then the false positives among minutes of recordings without
fibrillation: MIT-BIH with its annotated beats, and simulated hearts.
"""

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import wfdb
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from bench.beats import DATA
from ingest.episodes import PULSELESS, Episode, EpisodeKind, Script
from ingest.simulator import simulate
from monitor import irregularity
from monitor.beats import find_beats
from monitor.irregularity import FEWEST, SIGNS, THRESHOLD, probability, signs
from training.data import load_cinc2017

Signal = NDArray[np.float64]
_MINUTE_S = 60.0
_STEP_S = 15.0
# Beat annotations of WFDB: https://physionet.org/physiotools/wag/annot-5.htm
_BEATS = frozenset("NLRBAaJSVrFejnE/fQ?")


@dataclass(frozen=True)
class Records:
    """RR intervals of Challenge 2017 records, [n] each in seconds, and the records' labels."""

    rr_s: list[Signal]
    labels: NDArray[np.str_]

    @property
    def signs(self) -> Signal:
        """One row a record."""
        return np.array([signs(rr) for rr in self.rr_s])

    @property
    def af(self) -> NDArray[np.bool_]:
        """Which records are labelled AF."""
        return np.char.equal(self.labels, "A")


@dataclass(frozen=True, slots=True)
class Figures:
    """Records and how well they are told apart; specificity among all others, N alone, O alone."""

    records: int
    af: int
    auc: float
    sensitivity: float
    specificity: float
    specificity_n: float
    specificity_o: float


def load(data: Path, split: str) -> Records:
    found = load_cinc2017(data, split)
    rr_s, labels = [], []
    for lead, label in zip(found.lead_one, found.reference, strict=True):
        rr = find_beats(lead, found.rate).rr_s
        if label != "~" and len(rr) >= FEWEST:
            rr_s.append(rr)
            labels.append(label)
    return Records(rr_s, np.array(labels))


def figures(records: Records) -> Figures:
    p = np.array([probability(rr) for rr in records.rr_s])
    low, labels, af = p < THRESHOLD, records.labels, records.af
    return Figures(
        len(p),
        int(af.sum()),
        float(roc_auc_score(af, p)),
        float((~low[af]).mean()),
        *(float(low[at].mean()) for at in (~af, labels == "N", labels == "O")),
    )


def minutes(beats: Signal) -> Iterator[Signal]:
    """The RR intervals of every minute, one every 15 s."""
    for start in np.arange(0, beats[-1] - _MINUTE_S, _STEP_S):
        yield np.diff(beats[(beats >= start) & (beats < start + _MINUTE_S)])


def mitdb_beats(data: Path) -> Iterator[tuple[str, Signal]]:
    for header in sorted((data / "samples" / "mitdb").glob("*.hea")):
        path = str(header.with_suffix(""))
        annotation = wfdb.rdann(path, "atr")
        beat = np.array([symbol in _BEATS for symbol in annotation.symbol])
        yield f"MIT-BIH {header.stem}", annotation.sample[beat] / wfdb.rdheader(path).fs


def simulated_beats() -> Iterator[tuple[str, Signal]]:
    # Where nothing beats there are no intervals to judge.
    for kind in (kind for kind in EpisodeKind if kind not in PULSELESS):
        for seed in range(5):
            truth = simulate(Script((Episode(kind, 180.0),)), seed=seed).truth
            yield f"simulated {kind}", truth.r_peaks_s


def main() -> None:
    parser = argparse.ArgumentParser(prog="bench.fit_rr", description=__doc__)
    parser.add_argument("--data", type=Path, default=DATA)
    data = parser.parse_args().data
    train = load(data, "train")
    model = LogisticRegression(C=10, max_iter=2000).fit(train.signs, train.af)
    weights, bias = model.coef_[0].round(2), model.intercept_[0].round(2)
    print(dict(zip(SIGNS, weights.tolist(), strict=True)), "bias", bias)
    setattr(irregularity, "_WEIGHTS", weights)  # noqa: B010
    setattr(irregularity, "_BIAS", bias)  # noqa: B010
    for split in ("validation", "test"):
        print(split, figures(load(data, split)))
    found: dict[str, list[float]] = {}
    for name, beats in [*mitdb_beats(data), *simulated_beats()]:
        found.setdefault(name, []).extend(probability(rr) for rr in minutes(beats))
    for name, p in found.items():
        print(
            f"{name}: {np.mean(np.array(p) >= THRESHOLD):.0%} of {len(p)} minutes over "
            f"{THRESHOLD}, median {np.median(p):.2f}, most {max(p):.2f}"
        )


if __name__ == "__main__":
    main()
