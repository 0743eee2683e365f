"""How well lethal rhythms are heard, and how often one is heard that is none.

python -m bench.rhythms --data FOLDER --runs RUN [--write FILE]

Each recording goes through the daemon's own watch and rules, second by second, with the network of
``python -m training rhythm`` that never saw its person and with thresholds chosen on others.
"""

import argparse
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from alerts.rhythm import LETHAL, Rhythm
from bench.rhythm_page import page
from bench.rhythm_replay import Heard, Raised, replay
from bench.rhythm_segments import SegmentCount, segments
from bench.rhythm_simulated import Kind, SimulatedCount, count, kinds
from models.rhythm.model import RhythmModel
from monitor import logs
from training.rhythm.episodes import Episode, episodes, heard_after, is_false
from training.rhythm.folds import fold_of
from training.rhythm.records import Label, RhythmRecord, read_records
from training.rhythm.stills import stills

SEED = 1
_STILLS, _STILLS_EACH = 200, 8
_PROCESSES = 2

# What is annotated where nobody could read the signal.
_NOISES = {"NOISE stretches of VFDB": "NOISE", "Challenge 2017, too noisy": "~"}

# What is heard of each kind of episode: fibrillation seen as tachycardia is heard all the same.
_ANSWERS = {
    Label.VF: (Rhythm.VF, Rhythm.VT),
    Label.VT: (Rhythm.VF, Rhythm.VT),
    Label.ASYSTOLE: (Rhythm.ASYSTOLE,),
}


@dataclass(frozen=True, slots=True)
class HeardEpisode:
    """An annotated episode, and how soon it was heard.

    Attributes:
        record: in which record.
        person: whose.
        episode: what.
        after_s: seconds from its onset to the verdict; None if it was not heard.
        told: for how much of its time it was told of, 0 to 1.
    """

    record: str
    person: str
    episode: Episode
    after_s: float | None
    told: float


@dataclass(frozen=True, slots=True)
class FalseAlarm:
    """A lethal alarm where no lethal rhythm was.

    Attributes:
        record: in which record.
        alarm: which, and when.
        note: what is annotated there.
        simulated: whether the heart is.
    """

    record: str
    alarm: Raised
    note: str
    simulated: bool = False


@dataclass(slots=True)
class Measured:
    """All that the page tells.

    Attributes:
        episodes: of real recordings.
        false: lethal alarms in real recordings where nothing lethal is.
        hours: of real signal that is not lethal, by data set.
        unseen: "cannot be seen" alarms and their hours, by kind of signal.
        stills: of each asystole put together from recorded noise, seconds to the alarm.
        segments: verdicts of ten-second segments, by kind.
        simulated: what simulated hearts gave.
        cost_ms: of the watch, for each second of signal.
    """

    episodes: list[HeardEpisode] = field(default_factory=list)
    false: list[FalseAlarm] = field(default_factory=list)
    hours: dict[str, float] = field(default_factory=dict)
    unseen: dict[str, tuple[int, float]] = field(default_factory=dict)
    stills: list[float | None] = field(default_factory=list)
    segments: list[SegmentCount] = field(default_factory=list)
    simulated: list[SimulatedCount] = field(default_factory=list)
    cost_ms: float = 0.0


@dataclass(frozen=True, slots=True, eq=False)
class _Job:
    record: RhythmRecord
    model: Path


_models: dict[Path, RhythmModel] = {}


def _model(path: Path) -> RhythmModel:
    """A model, loaded once in each process."""
    if path not in _models:
        _models[path] = RhythmModel(path)
    return _models[path]


def _replayed(jobs: Sequence[_Job]) -> list[Heard]:
    logs.configure("error")
    return [replay(job.record, _model(job.model)) for job in jobs]


def _simulated(job: tuple[Kind, Path]) -> SimulatedCount:
    kind, model = job
    return count(kind, _model(model), SEED)


def measure(everything: Sequence[RhythmRecord], data: Path, runs: Path) -> Measured:
    """Measure everything but the cost, which takes a machine to itself.

    Args:
        everything: all recordings that there are.
        data: their folder.
        runs: that of ``python -m training rhythm``.

    Raises:
        RhythmModelError: a network is missing.
    """
    records = [r for r in everything if r.source != "ptbxl"]
    folds = fold_of(r.person for r in everything)
    measured = Measured()
    with ProcessPoolExecutor(_PROCESSES) as workers:

        def run(some: Iterable[RhythmRecord]) -> Iterator[tuple[RhythmRecord, Heard]]:
            jobs = [_Job(r, runs / f"fold{folds[r.person]}") for r in some]
            parts = [jobs[i : i + 16] for i in range(0, len(jobs), 16)]
            for part, heard in zip(parts, workers.map(_replayed, parts), strict=True):
                yield from zip((job.record for job in part), heard, strict=True)

        of: dict[str, Heard] = {}
        for record, heard in run(records):
            of[record.id] = heard
            _take(measured, record, heard)
        mitdb = [r for r in records if r.source == "mitdb"]
        made = list(stills(mitdb, data, _STILLS_EACH, SEED))[:_STILLS]
        for still, (_, heard) in zip(made, run(s.record for s in made), strict=True):
            measured.stills.append(_soonest(heard, Rhythm.ASYSTOLE, still.onset_s))
        simulated = [(kind, runs / "fold0") for kind in kinds()]
        measured.simulated = list(workers.map(_simulated, simulated))
    measured.segments = segments(records, lambda r: _model(runs / f"fold{folds[r.person]}"), of)
    return measured


def _take(measured: Measured, record: RhythmRecord, heard: Heard) -> None:
    source = record.source
    for episode in episodes(record):
        lasting = heard.lasting(_ANSWERS[episode.kind])
        told_s = sum(
            max(0.0, min(end, episode.end_s) - max(start, episode.start_s))
            for start, end in lasting
        )
        measured.episodes.append(
            HeardEpisode(
                record.id,
                record.person,
                episode,
                heard_after(lasting, episode),
                told_s / episode.duration_s,
            )
        )
    lethal_s = sum(
        s.end_s - s.start_s
        for s in record.spans
        if not s.label or s.label & (Label.VF | Label.VT | Label.ASYSTOLE)
    )
    hours = (record.duration_s - lethal_s) / 3600
    measured.hours[source] = measured.hours.get(source, 0.0) + hours
    for alarm in heard.alarms:
        if alarm.condition in LETHAL and is_false(record, alarm.raised_s):
            note = next((s.note for s in record.spans if s.start_s <= alarm.raised_s < s.end_s), "")
            measured.false.append(FalseAlarm(record.id, alarm, note))
    for kind, some_hours in _kinds(record).items():
        unseen = [a for a in heard.alarms if a.condition == "unseen" and _is_in(record, a, kind)]
        before = measured.unseen.get(kind, (0, 0.0))
        measured.unseen[kind] = before[0] + len(unseen), before[1] + some_hours


def _kinds(record: RhythmRecord) -> dict[str, float]:
    """Hours of the kinds of signal in which the heart ought to be seen."""
    if record.source == "mitdb":
        return {"MIT-BIH": record.duration_s / 3600}
    found = {}
    for kind, note in _NOISES.items():
        noise_s = sum(s.end_s - s.start_s for s in record.spans if s.note == note)
        if noise_s:
            found[kind] = noise_s / 3600
    return found


def _is_in(record: RhythmRecord, alarm: Raised, kind: str) -> bool:
    if kind == "MIT-BIH":
        return True
    return any(
        s.start_s <= alarm.raised_s <= s.end_s for s in record.spans if s.note == _NOISES[kind]
    )


def _soonest(heard: Heard, rhythm: Rhythm, onset_s: float) -> float | None:
    return next(
        (s.start_s - onset_s for s in heard.spells if s.rhythm is rhythm and s.end_s > onset_s),
        None,
    )


def cost_ms(record: RhythmRecord, model: RhythmModel) -> float:
    """Milliseconds of a core for each second of signal, the median of five passes."""
    taken = []
    for _ in range(5):
        started = time.process_time()
        replay(record, model)
        taken.append(1e3 * (time.process_time() - started) / record.duration_s)
    return float(np.median(taken))


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, and print the page or write it with its pictures."""
    parser = argparse.ArgumentParser(prog="python -m bench.rhythms", description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder of the recordings")
    parser.add_argument("--runs", type=Path, required=True, help="run of training rhythm")
    parser.add_argument("--write", type=Path, help="page to write (default: printed)")
    parsed = parser.parse_args(arguments)
    logs.configure("error")
    records = {r.id: r for r in read_records(parsed.data)}
    measured = measure(list(records.values()), parsed.data, parsed.runs)
    mitdb = next(r for r in records.values() if r.source == "mitdb")
    measured.cost_ms = cost_ms(mitdb, _model(parsed.runs / "all"))
    folder = None if parsed.write is None else parsed.write.with_suffix("")
    text = page(measured, records, folder)
    if parsed.write is None:
        sys.stdout.write(text)
    else:
        parsed.write.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
