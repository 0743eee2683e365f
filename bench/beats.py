"""Measures the beat detector and the quality grade on recordings, with sleepecg beside them.

python -m bench.beats [--data DIR] [--json]
"""

import argparse
import csv
import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import wfdb
from numpy.typing import NDArray
from sleepecg.heartbeats import detect_heartbeats

from ingest.chunk import Stream
from monitor.beats import Beats, find_beats
from monitor.quality import Grade, assess
from monitor.window import Window
from training.shards import read_shard

DATA = Path(__file__).parents[2] / "shared" / "data"
WINDOW_S = 10.0
STEP_S = 5.0
TOLERANCE_S = 0.075
RATE_TOLERANCE = 2.0

_STREAM = Stream("bench", "bench")
# What wfdb calls a beat: https://physionet.org/physiotools/wag/annot-5.htm
_BEATS = frozenset("NLRBAaJSVrFejnE/fQ?")

Signal = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Sample:
    """A window with what is known of it.

    Attributes:
        record: which record it is of.
        samples: float64 [n], in µV.
        rate: samples per second, in Hz.
        beats: float64 [b], seconds to each annotated R peak; empty where none is annotated.
        label: the record's label, where it has one.
    """

    record: str
    samples: Signal
    rate: float
    beats: Signal
    label: str = ""


@dataclass(frozen=True, slots=True)
class PeakFigures:
    """R peaks against annotated ones, in the windows graded good and, of both detectors, in all."""

    windows: int
    good: float
    sensitivity: float
    precision: float
    sensitivity_all: float
    precision_all: float
    rival_sensitivity_all: float
    rival_precision_all: float


@dataclass(frozen=True, slots=True)
class RateFigures:
    """Share of windows with a heart rate within 2 bpm of 60 / mean (or median) annotated RR."""

    windows: int
    good: float
    right: float
    right_by_median: float
    right_all: float
    rival_right: float
    rival_right_all: float


@dataclass(frozen=True, slots=True)
class LabelFigures:
    """Share of a label's windows graded good."""

    windows: int
    good: float


@dataclass(frozen=True, slots=True)
class TimeFigures:
    """Median time a window takes, in milliseconds."""

    ours_ms: float
    rival_ms: float


def tuning_half(record: str) -> bool:
    """Whether a ``lead1`` record is of a subject that weights were fitted on."""
    return int(record.partition("-")[0]) % 2 == 0


def lead1_windows(data: Path) -> Iterator[Sample]:
    with (data / "lead1" / "rpeaks.csv").open() as file:
        peaks = {row["record"]: row["samples"].split() for row in csv.DictReader(file)}
    for record in read_shard(data / "lead1" / "all.npz"):
        # 10,000 counts are a volt.
        microvolts = record.signal[0] * 100.0
        beats = np.array(peaks[record.id], np.float64) / record.rate
        yield Sample(record.id, microvolts, record.rate, beats)


def mitdb_windows(data: Path) -> Iterator[Sample]:
    for header in sorted((data / "samples" / "mitdb").glob("*.hea")):
        path = str(header.with_suffix(""))
        record = wfdb.rdrecord(path, channel_names=["MLII"])
        annotation = wfdb.rdann(path, "atr")
        beat = np.array([symbol in _BEATS for symbol in annotation.symbol])
        at = annotation.sample[beat] / record.fs
        microvolts = record.p_signal[:, 0] * 1000
        for start, samples in _cut(microvolts, record.fs, STEP_S):
            inside = at[(at >= start) & (at < start + WINDOW_S)]
            yield Sample(header.stem, samples, float(record.fs), inside - start)


def cinc_windows(data: Path) -> Iterator[Sample]:
    with (data / "cinc2017" / "labels.csv").open() as file:
        labels = {row["record"]: row["label"] for row in csv.DictReader(file)}
    for shard in sorted((data / "cinc2017").glob("*.npz")):
        for record in read_shard(shard):
            for _, samples in _cut(record.signal[0].astype(np.float64), record.rate, WINDOW_S):
                yield Sample(record.id, samples, record.rate, np.empty(0), labels[record.id])


def _cut(signal: Signal, rate: float, step_s: float) -> Iterator[tuple[float, Signal]]:
    n, step = round(WINDOW_S * rate), round(step_s * rate)
    for start in range(0, len(signal) - n + 1, step):
        yield start / rate, signal[start : start + n]


def judged(sample: Sample) -> tuple[Grade, Beats | None]:
    return assess(Window(_STREAM, 0, sample.rate, sample.samples.astype(np.float32)))


def rival(sample: Sample) -> Signal:
    found: NDArray[np.int64] = detect_heartbeats(sample.samples, sample.rate)
    return found / sample.rate


def ours(sample: Sample) -> Signal:
    """All beats, also of a window graded bad."""
    return find_beats(sample.samples.astype(np.float32), sample.rate).r_peaks_s


def mean_rate(times: Signal) -> float:
    """60 / mean RR, in beats per minute; NaN with fewer than two beats."""
    return 60 * (len(times) - 1) / (times[-1] - times[0]) if len(times) > 1 else np.nan


class _Peaks:
    """Counts of annotated and found peaks, and of those of each that have a partner."""

    def __init__(self) -> None:
        self.counts = np.zeros(4, np.int64)

    def add(self, annotated: Signal, found: Signal) -> None:
        apart = np.abs(annotated[:, None] - found) <= TOLERANCE_S + 1e-6
        self.counts += [
            len(annotated),
            apart.any(axis=1).sum(),
            len(found),
            apart.any(axis=0).sum(),
        ]

    @property
    def sensitivity(self) -> float:
        return float(self.counts[1] / max(1, self.counts[0]))

    @property
    def precision(self) -> float:
        return float(self.counts[3] / max(1, self.counts[2]))


def peak_figures(samples: Iterable[Sample]) -> PeakFigures:
    trusted, everything, beside = _Peaks(), _Peaks(), _Peaks()
    windows = good = 0
    for sample in samples:
        windows += 1
        beats = judged(sample)[1]
        if beats is not None:
            good += 1
            trusted.add(sample.beats, beats.r_peaks_s)
        everything.add(sample.beats, ours(sample))
        beside.add(sample.beats, rival(sample))
    return PeakFigures(
        windows,
        good / max(1, windows),
        trusted.sensitivity,
        trusted.precision,
        everything.sensitivity,
        everything.precision,
        beside.sensitivity,
        beside.precision,
    )


def rate_figures(samples: Iterable[Sample]) -> RateFigures:
    rows = []
    for sample in samples:
        if len(sample.beats) < 2:
            continue
        grade, beats = judged(sample)
        mean, median = mean_rate(sample.beats), 60 / float(np.median(np.diff(sample.beats)))
        rate = np.nan if beats is None or beats.heart_rate is None else beats.heart_rate
        measured = [
            rate - mean,
            rate - median,
            mean_rate(ours(sample)) - mean,
            mean_rate(rival(sample)) - mean,
        ]
        rows.append([grade.good, *(np.abs(measured) <= RATE_TOLERANCE)])
    table = np.array(rows, np.bool_).reshape(-1, 5)
    good = table[table[:, 0]]
    return RateFigures(
        len(table),
        float(table[:, 0].mean()),
        float(good[:, 1].mean()),
        float(good[:, 2].mean()),
        float(table[:, 3].mean()),
        float(good[:, 4].mean()),
        float(table[:, 4].mean()),
    )


def lead1_figures(data: Path) -> dict[str, PeakFigures]:
    """``lead1`` by half of its subjects: weights were fitted on "fitted", not on "held out"."""
    samples = list(lead1_windows(data))
    return {
        "fitted": peak_figures(s for s in samples if tuning_half(s.record)),
        "held out": peak_figures(s for s in samples if not tuning_half(s.record)),
    }


def mitdb_figures(data: Path) -> dict[str, RateFigures]:
    """MIT-BIH, lead MLII: each record, and "all"; in view when thresholds were chosen."""
    samples = list(mitdb_windows(data))
    records = sorted({s.record for s in samples})
    by_record = {r: rate_figures(s for s in samples if s.record == r) for r in records}
    return {**by_record, "all": rate_figures(samples)}


def cinc_figures(data: Path) -> dict[str, LabelFigures]:
    """Challenge 2017: the share graded good of the windows of each label."""
    grades: dict[str, list[bool]] = {}
    for sample in cinc_windows(data):
        grades.setdefault(sample.label, []).append(judged(sample)[0].good)
    return {k: LabelFigures(len(v), sum(v) / len(v)) for k, v in sorted(grades.items())}


def time_figures(data: Path) -> dict[str, TimeFigures]:
    """What one window takes, at 125 and at 360 Hz."""
    sets = {"125 Hz": list(lead1_windows(data))[::20], "360 Hz": list(mitdb_windows(data))[::8]}
    return {
        name: TimeFigures(_median_ms(judged, samples), _median_ms(rival, samples))
        for name, samples in sets.items()
    }


def _median_ms(call: Callable[[Sample], object], samples: list[Sample]) -> float:
    call(samples[0])
    took = []
    for sample in samples:
        start = time.perf_counter()
        call(sample)
        took.append(time.perf_counter() - start)
    return 1000 * float(np.median(took))


def markdown(title: str, rows: dict[str, dict[str, float]]) -> str:
    heads = list(next(iter(rows.values())))
    lines = [f"### {title}", "", f"| | {' | '.join(h.replace('_', ' ') for h in heads)} |"]
    lines.append("| --- |" + " ---: |" * len(heads))
    for name, row in rows.items():
        cells = [
            f"{row[h]:,}"
            if isinstance(row[h], int)
            else f"{row[h]:.2f}"
            if h.endswith("ms")
            else f"{row[h]:.2%}"
            for h in heads
        ]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _rows(
    figures: Mapping[str, PeakFigures | RateFigures | LabelFigures | TimeFigures],
) -> dict[str, dict[str, float]]:
    return {name: asdict(row) for name, row in figures.items()}


def main() -> None:
    parser = argparse.ArgumentParser(prog="bench.beats", description=__doc__)
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    data = arguments.data
    plain = {
        "R peaks, lead1, ±75 ms": _rows(lead1_figures(data)),
        "Heart rate, MIT-BIH, ±2 bpm": _rows(mitdb_figures(data)),
        "Graded good, Challenge 2017": _rows(cinc_figures(data)),
        "Time a window": _rows(time_figures(data)),
    }
    if arguments.json:
        print(json.dumps(plain, indent=2))
    else:
        print("\n".join(markdown(title, rows) for title, rows in plain.items()))


if __name__ == "__main__":
    main()
