"""Fits the two regressions of the beat detector and the quality grade, and prints their weights.

Beats: candidates of every second subject of ``lead1`` against its annotations, and of PTB-XL folds
1-3 against what most other leads of the same record show at that time (leads I, II, V3, V5;
candidates on which the other seven disagree are left out; of records without an ectopic, paced,
fibrillating or wide rhythm every twelfth is used, for they are nearly all); and simulated ectopic
beats, which are wider and smoother than most. To every fifth window noise is added.

Quality: whether all beats of a window were right – in the same recordings, clean and with noise
added – and whether there was a heart to be heard: Challenge 2017 windows by their record's label,
and pure noise.

No MIT-BIH record and no other half of ``lead1`` is fitted on. The few constants that are not
fitted (bands, the two thresholds on probabilities) were chosen with the figures of both in view.
"""

import argparse
import csv
import itertools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression

from bench.beats import DATA, WINDOW_S, cinc_windows, lead1_windows, tuning_half
from ingest.episodes import Episode, EpisodeKind, Script
from ingest.simulator import simulate
from monitor import detector, quality
from monitor.detector import CONTEXT, context, correlations, detect, propose
from monitor.evidence import EVIDENCE, evidence
from monitor.filters import split
from training.shards import read_shard

Signal = NDArray[np.float64]
_RHYTHMS = ("PVC", "BIGU", "TRIGU", "PACE", "AFIB", "AFLT", "CLBBB", "SVTAC", "PSVT", "SVARR")
_LEADS = (0, 1, 4, 6)
_KINDS = ("white", "muscle", "motion", "between", "walk", "hum", "pops")
_ECTOPIC = (
    EpisodeKind.VENTRICULAR_ECTOPY,
    EpisodeKind.VENTRICULAR_BIGEMINY,
    EpisodeKind.VENTRICULAR_RUNS,
)
_NONE: Signal = np.empty(0)


@dataclass(frozen=True)
class Labelled:
    """A window with the times of its beats; ``unsure`` are times at which there may be one."""

    samples: Signal
    rate: float
    beats: Signal
    unsure: Signal


def lead1_labelled(data: Path) -> Iterator[Labelled]:
    for window in lead1_windows(data):
        if tuning_half(window.record):
            yield Labelled(window.samples, window.rate, window.beats, _NONE)


def simulated() -> Iterator[Labelled]:
    for kind, seed in itertools.product(_ECTOPIC, range(6)):
        simulation = simulate(Script((Episode(kind, 60.0),)), rate=130.0, seed=seed)
        beats = simulation.truth.r_peaks_s
        n = round(WINDOW_S * simulation.rate)
        for at in range(0, len(simulation.microvolts) - n + 1, n):
            start = simulation.times_s[at]
            inside = beats[(beats >= start) & (beats < start + WINDOW_S)] - start
            samples = simulation.microvolts[at : at + n].astype(np.float64)
            yield Labelled(samples, simulation.rate, inside, _NONE)


def ptbxl_labelled(data: Path, find: Callable[[Signal, float], Signal]) -> Iterator[Labelled]:
    with (data / "ptbxl100" / "labels.csv").open() as file:
        rhythms = {
            row["ecg_id"]: any(float(row[code]) for code in _RHYTHMS)
            for row in csv.DictReader(file)
        }
    count = 0
    for fold in (1, 2, 3):
        for recording in read_shard(data / "ptbxl100" / f"fold{fold}.npz"):
            count += 1
            if not rhythms[recording.id] and count % 12:
                continue
            signals = recording.signal.astype(np.float64)
            seen = [find(signal, recording.rate) for signal in signals]
            for lead in _LEADS:
                others = np.sort(np.concatenate(seen[:lead] + seen[lead + 1 :]))
                beats, unsure = _consensus(others, len(seen) - 1)
                yield Labelled(signals[lead], recording.rate, beats, unsure)


def proposed(signal: Signal, rate: float) -> Signal:
    bands = split(signal, rate)
    if bands is None:
        return np.empty(0)
    candidates, taken = propose(bands)
    return candidates[taken] / bands.rate


def detected(signal: Signal, rate: float) -> Signal:
    found = detect(signal, rate)
    return np.empty(0) if found is None else found.candidates[found.taken] / found.bands.rate


def _consensus(times: Signal, leads: int) -> tuple[Signal, Signal]:
    """Times at which all leads but at most one see a beat, and those at which fewer do."""
    if not times.size:
        return times, times
    groups = np.split(times, np.flatnonzero(np.diff(times) > 0.1) + 1)
    beats = np.array([np.median(group) for group in groups if len(group) >= leads - 1])
    unsure = np.array([np.median(group) for group in groups if 1 < len(group) < leads - 1])
    return beats, unsure


def near(times: Signal, others: Signal, tolerance: float = 0.12) -> NDArray[np.bool_]:
    if not others.size:
        return np.zeros(len(times), np.bool_)
    apart: Signal = np.abs(times[:, None] - others).min(axis=1)
    return apart < tolerance


def fit_beats(windows: list[Labelled]) -> LogisticRegression:
    columns: list[Signal] = []
    truths: list[NDArray[np.bool_]] = []
    model: LogisticRegression | None = None
    # The second look sees beats chosen by the first: both kinds of context are fitted together.
    for _ in range(2):
        for window in windows:
            bands = split(window.samples, window.rate)
            if bands is None:
                continue
            candidates, taken = propose(bands)
            times, heights = candidates / bands.rate, bands.qrs[candidates]
            alike, swings = correlations(bands, candidates)
            seen = context(times, heights, alike, swings, taken)
            if model is not None:
                taken = model.predict(seen)
                if not taken.any():
                    continue
                seen = context(times, heights, alike, swings, taken)
            sure = (times > 0.1) & (times < len(window.samples) / window.rate - 0.15)
            sure &= (seen[:, 0] > -2.5) & ~near(times, window.unsure)
            columns.append(seen[sure])
            truths.append(near(times, window.beats)[sure])
        model = LogisticRegression(C=100, max_iter=3000).fit(
            np.concatenate(columns), np.concatenate(truths)
        )
    return model


def noise(kind: str, n: int, rate: float, rng: np.random.Generator) -> Signal:
    """[n], of about unit standard deviation."""
    seconds = np.arange(n) / rate
    signal: Signal = rng.normal(size=n)
    match kind:
        case "muscle":
            signal = band(n, rate, 15, 60, rng) * (np.abs(band(n, rate, 0.1, 1, rng)) + 0.2)
        case "motion":
            signal = band(n, rate, 0.5, 6, rng)
        case "between":
            signal = band(n, rate, 3, 20, rng)
        case "walk":
            signal = np.cumsum(signal)
            signal = (signal - signal.mean()) / signal.std()
        case "hum":
            signal = np.sqrt(2) * np.sin(2 * np.pi * (50 * seconds + rng.random()))
        case "pops":
            signal = np.zeros(n)
            for _ in range(rng.integers(1, 6)):
                at, fall_s = rng.integers(0, n), rng.uniform(0.05, 0.6)
                signal[at:] += 6 * rng.normal() * np.exp((seconds[at] - seconds[at:]) / fall_s)
    return signal


def band(n: int, rate: float, low: float, high: float, rng: np.random.Generator) -> Signal:
    spectrum = np.fft.rfft(rng.normal(size=n))
    frequency = np.fft.rfftfreq(n, 1 / rate)
    spectrum[(frequency < low) | (frequency > high)] = 0
    signal: Signal = np.fft.irfft(spectrum, n)
    signal /= signal.std()
    return signal


def recorded_noise(data: Path) -> list[Signal]:
    """What Challenge 2017 calls too noisy, [3000] each at 300 Hz, of unit standard deviation."""
    noisy = (window.samples for window in cinc_windows(data) if window.label == "~")
    return [(signal - signal.mean()) / (signal.std() + 1e-9) for signal in noisy]


def spoilt(
    window: Labelled, recorded: list[Signal], most: float, rng: np.random.Generator
) -> Labelled:
    """The window under noise of 0.2 to ``most`` times its deviation, some of it in bursts."""
    n, rate = len(window.samples), window.rate
    kind = rng.choice([*_KINDS, *["recorded"] * 4])
    if kind == "recorded":
        other = recorded[rng.integers(len(recorded))]
        added = np.interp(np.arange(n) / rate, np.arange(len(other)) / 300, other)
    else:
        added = noise(kind, n, rate, rng)
    if rng.random() < 0.4:
        middle, half = rng.random() * n, rate * rng.uniform(0.25, 2.5)
        added = added * (np.abs(np.arange(n) - middle) < half)
    share = np.exp(rng.uniform(np.log(0.2), np.log(most)))
    return replace(window, samples=window.samples + share * window.samples.std() * added)


def graded(
    windows: list[Labelled], data: Path, recorded: list[Signal], rng: np.random.Generator
) -> Iterator[tuple[Labelled, bool | None]]:
    """Windows, and whether there is a heart to be heard; None where its beats are known."""
    for number, sample in enumerate(cinc_windows(data)):
        if sample.label == "~" or number % 6 == 0:
            yield Labelled(sample.samples, sample.rate, _NONE, _NONE), sample.label != "~"
    for window in windows:
        if window.beats.size and not window.unsure.size:
            yield window, None
            yield spoilt(window, recorded, 6.0, rng), None
    for rate in (125.0, 300.0):
        for kind in _KINDS:
            for _ in range(200):
                yield Labelled(noise(kind, int(10 * rate), rate, rng), rate, _NONE, _NONE), False


def fit_quality(windows: Iterable[tuple[Labelled, bool | None]]) -> LogisticRegression:
    rows: list[Signal] = []
    truths: list[bool] = []
    for window, heart in windows:
        found = detect(window.samples, window.rate)
        signs = None if found is None else evidence(found)
        if found is not None and signs is not None:
            rows.append(signs)
            truths.append(right(found, window) if heart is None else heart)
    return LogisticRegression(max_iter=3000).fit(np.array(rows), np.array(truths))


def right(found: detector.Detection, window: Labelled) -> bool:
    """Whether all beats away from the edges were found, and nothing else."""
    times = found.r_peaks / found.bands.rate
    last = len(window.samples) / window.rate - 0.15

    def inner(all_times: Signal) -> Signal:
        return all_times[(all_times > 0.1) & (all_times < last)]

    return bool(near(inner(times), window.beats).all() and near(inner(window.beats), times).all())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=DATA)
    data = parser.parse_args().data
    rng = np.random.default_rng(2017)
    recorded = recorded_noise(data)
    # What the other leads see is better known with weights fitted on what they saw without.
    for find in (proposed, detected):
        windows = [*lead1_labelled(data), *ptbxl_labelled(data, find), *simulated()]
        # No more of it, nor louder: a detector that has met much noise takes ectopic beats for it.
        noisy = [spoilt(window, recorded, 1.6, rng) for window in windows[::5]]
        show("monitor/detector.py", fit_beats(windows + noisy), CONTEXT, detector)
    judged = graded(windows, data, recorded, rng)
    show("monitor/quality.py", fit_quality(judged), EVIDENCE, quality)


def show(file: str, model: LogisticRegression, names: tuple[str, ...], module: object) -> None:
    weights, bias = model.coef_[0].round(2), model.intercept_[0].round(2)
    print(file, dict(zip(names, weights.tolist(), strict=True)), "bias", bias)
    # What is fitted next is fitted on what these weights give.
    setattr(module, "_WEIGHTS", weights)  # noqa: B010
    setattr(module, "_BIAS", bias)  # noqa: B010


if __name__ == "__main__":
    main()
