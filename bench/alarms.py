"""How often the alarm rules speak of hearts in sinus rhythm, and how soon of those in fibrillation.

python -m bench.alarms --data FOLDER [--windows FILE] [--write FILE]

Recordings are read once, by the code that watches patients; the rules are then run over what was
seen. Reading takes minutes: ``--windows`` keeps what was seen in a file from one run to the next,
which is to be deleted when the pipeline has changed.
"""

import argparse
import csv
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from alerts.conditions import Change, Observation, Priority, State
from alerts.engine import Engine
from alerts.policy import ClassRule, PauseRule, Policy, default_clear_k
from ingest.chunk import Chunk, Stream
from ingest.recordings import Recording, Segment, read_recording
from ingest.simulator import Episode, EpisodeKind, Noise, Script, simulate
from models.bundle import DEFAULT, find_bundle
from models.runtime import Runtime
from monitor.analysis import Analyzer
from monitor.pauses import PauseWatch
from monitor.simulate import observe
from training.datasets.splits import hashed_split
from training.evaluation.false_alarms import poisson_interval
from training.shards import read_shard

LENGTH_S, HOP_S = 10.0, 5.0
EPISODE_S = 3600.0
DAY_S = 86_400.0
SINUS_MITDB = ("100", "101", "103")
ORDERS = 10
CURVE_ORDERS = 5
THRESHOLDS = (0.4, 0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.9)
K_OF_N = ((4, 6), (5, 7), (5, 8), (6, 8), (8, 10))

PAUSES_S = (4.0, 4.5, 5.0, 6.0, 8.0, 10.0, 15.0)
PATIENTS = 12
NOISES = {
    "little": Noise(baseline_uv=20, mains_uv=2, muscle_uv=4),
    "usual": Noise(baseline_uv=60, mains_uv=10, muscle_uv=12),
    "strong": Noise(baseline_uv=100, mains_uv=20, muscle_uv=25),
    "usual, 4 movements a minute": Noise(
        baseline_uv=60, mains_uv=10, muscle_uv=12, motion_per_minute=4, motion_uv=800
    ),
}


@dataclass(frozen=True, slots=True, eq=False)
class Seen:
    """What the engine sees of one recording.

    Attributes:
        record: its name.
        label: N, A, O or ~ of Challenge 2017; N of the MIT-BIH records in sinus rhythm.
        held_out: whether the model was neither trained, stopped nor calibrated on it.
        duration_s: its length, in seconds.
        observations: in order; times count from its start.
    """

    record: str
    label: str
    held_out: bool
    duration_s: float
    observations: tuple[Observation, ...]


@dataclass(frozen=True, slots=True)
class Quiet:
    """Alarms on hearts that are not in fibrillation.

    Attributes:
        days: of signal.
        per_day: alarms per patient-day by condition, the mean over orders.
        low: lower end of the exact 95 % interval of their sum, as if alarms were independent.
        high: upper end.
        records: how often an alarm of a condition was raised in a record, over all orders.
    """

    days: float
    per_day: dict[str, float]
    low: float
    high: float
    records: dict[tuple[str, str], int]


@dataclass(frozen=True, slots=True)
class Loud:
    """Alarms on episodes of fibrillation.

    Attributes:
        hours: of different signal.
        episodes: of one hour, over all orders.
        alarmed: the share that raised the alarm.
        median_s: time to it, of those that did.
        most_s: of nine in ten of them, in seconds.
    """

    hours: float
    episodes: int
    alarmed: float
    median_s: float
    most_s: float


def watch(data: Path, analyzer: Analyzer, labels: str = "NAO") -> Iterator[Seen]:
    """Read the sinus-rhythm records of MIT-BIH and the Challenge 2017 records of some labels."""
    for name in SINUS_MITDB:
        recording = read_recording(data / "samples" / "mitdb" / f"{name}.hea")
        yield _seen(recording, recording.default_lead(), "N", analyzer, held_out=True)
    with (data / "cinc2017" / "labels.csv").open(newline="", encoding="utf-8") as f:
        reference = {row["record"]: row["label"] for row in csv.DictReader(f)}
    for path in sorted((data / "cinc2017").glob("part*.npz")):
        for record in read_shard(path):
            label = reference[record.id]
            if label in labels:
                signal = Segment(0.0, record.signal[:1].astype(np.float32))
                recording = Recording(record.id, ("I",), record.rate, None, (signal,))
                held_out = hashed_split(record.id) == "test"
                yield _seen(recording, "I", label, analyzer, held_out=held_out)


def _seen(
    recording: Recording, lead: str, label: str, analyzer: Analyzer, *, held_out: bool
) -> Seen:
    limit_s = PauseRule().seconds
    observations = observe(
        recording, lead, analyzer, length_s=LENGTH_S, hop_s=HOP_S, pause_s=limit_s
    )
    return Seen(recording.name, label, held_out, recording.duration_s, tuple(observations))


def save(path: Path, records: Sequence[Seen]) -> None:
    """Write what was seen as .npz, with the probability of AF as the only one."""
    rows = [(i, o) for i, record in enumerate(records) for o in record.observations]
    np.savez_compressed(
        path,
        record=np.array([r.record for r in records]),
        label=np.array([r.label for r in records]),
        held_out=np.array([r.held_out for r in records]),
        duration_s=np.array([r.duration_s for r in records]),
        of=np.array([i for i, _ in rows]),
        ns=np.array([(o.start_ns, o.end_ns) for _, o in rows]),
        good=np.array([o.good for _, o in rows]),
        values=np.array([[_nan(v) for v in _values(o)] for _, o in rows]),
    )


def load(path: Path) -> list[Seen]:
    """Read what ``save`` wrote."""
    with np.load(path) as stored:
        arrays = {name: stored[name] for name in stored.files}
    of: list[list[Observation]] = [[] for _ in arrays["record"]]
    for i, (start_ns, end_ns), good, values in zip(
        arrays["of"], arrays["ns"].tolist(), arrays["good"], arrays["values"].tolist(), strict=True
    ):
        af, heart_rate, longest_rr_s = (None if np.isnan(v) else v for v in values)
        probabilities = {} if af is None else {"AF": af}
        of[i].append(
            Observation("", start_ns, end_ns, bool(good), probabilities, heart_rate, longest_rr_s)
        )
    return [
        Seen(str(record), str(label), bool(held_out), float(duration_s), tuple(observations))
        for record, label, held_out, duration_s, observations in zip(
            arrays["record"],
            arrays["label"],
            arrays["held_out"],
            arrays["duration_s"],
            of,
            strict=True,
        )
    ]


def _values(seen: Observation) -> tuple[float | None, float | None, float | None]:
    return seen.probabilities.get("AF"), seen.heart_rate, seen.longest_rr_s


def _nan(value: float | None) -> float:
    return np.nan if value is None else value


def chain(records: Sequence[Seen]) -> Iterator[tuple[str, Observation]]:
    """Records one after the other, as if of one patient, each observation with its record.

    No window lies across a join, only the engine counts on. A join takes no time.
    """
    start_ns = 0
    for record in records:
        for o in record.observations:
            yield (
                record.record,
                replace(o, start_ns=start_ns + o.start_ns, end_ns=start_ns + o.end_ns),
            )
        start_ns += round(record.duration_s * 1e9)


def quiet(records: Sequence[Seen], policy: Policy, orders: int) -> Quiet:
    """Alarms on records chained into days, in several random orders."""
    days = sum(r.duration_s for r in records) / DAY_S
    raised: Counter[tuple[str, str]] = Counter()
    for order in _orders(records, orders):
        engine = Engine(lambda _: policy)
        for record, seen in chain(order):
            for change in engine.step(seen):
                if change.state is State.ACTIVE:
                    raised[change.alarm.condition, record] += 1
    per_day: Counter[str] = Counter()
    for (condition, _), count in raised.items():
        per_day[condition] += count
    low, high = poisson_interval(round(raised.total() / orders))
    return Quiet(
        days,
        {rule.condition: per_day[rule.condition] / orders / days for rule in policy.rules},
        low / days,
        high / days,
        dict(raised),
    )


def loud(records: Sequence[Seen], policy: Policy, condition: str, orders: int) -> Loud:
    """Time to alarm on records chained into episodes of an hour, in several random orders.

    What is left at the end of an order, shorter than an hour, is not counted.
    """
    times: list[float] = []
    episodes = 0
    for order in _orders(records, orders):
        for episode in _episodes(order):
            episodes += 1
            raised = _first(episode, policy, condition)
            if raised is not None:
                times.append(raised.alarm.raised_ns / 1e9)
    return Loud(
        sum(r.duration_s for r in records) / 3600,
        episodes,
        len(times) / episodes if episodes else 0.0,
        float(np.median(times)) if times else np.inf,
        float(np.percentile(times, 90)) if times else np.inf,
    )


def _orders(records: Sequence[Seen], orders: int) -> Iterator[list[Seen]]:
    for seed in range(orders):
        order = np.random.default_rng(seed).permutation(len(records))
        yield [records[i] for i in order]


def _episodes(records: Sequence[Seen]) -> Iterator[list[Seen]]:
    episode: list[Seen] = []
    for record in records:
        episode.append(record)
        if sum(r.duration_s for r in episode) >= EPISODE_S:
            yield episode
            episode = []


def _first(records: Sequence[Seen], policy: Policy, condition: str) -> Change | None:
    engine = Engine(lambda _: policy)
    for _, seen in chain(records):
        for change in engine.step(seen):
            if change.state is State.ACTIVE and change.alarm.condition == condition:
                return change
    return None


@dataclass(frozen=True, slots=True)
class Pauses:
    """Simulated pauses of one length in one noise.

    Attributes:
        pauses: how many there were.
        seen: how many were told of within six seconds, or before the next beat was a second old.
        median_s: time from the last beat to the end of the chunk that told, in seconds.
        worst_s: the longest.
    """

    pauses: int
    seen: int
    median_s: float
    worst_s: float


def simulated_pauses(noise: Noise, pause_s: float) -> Pauses:
    """Pauses of patients with rates from 45 to 95 per minute, in chunks of one second at 130 Hz."""
    delays: list[float] = []
    pauses = 0
    for seed in range(PATIENTS):
        rate = (45.0, 60.0, 75.0, 95.0)[seed % 4]
        script = Script(
            (
                Episode(EpisodeKind.SINUS_RHYTHM, 30, heart_rate=rate),
                Episode(
                    EpisodeKind.SINUS_ARREST, 180, heart_rate=rate, per_minute=1, pause_s=pause_s
                ),
            ),
            noise=noise,
        )
        simulation = simulate(script, rate=130.0, seed=seed)
        told = pauses_told(simulation.microvolts, simulation.rate)
        peaks = simulation.truth.r_peaks_s
        for i in np.flatnonzero(np.diff(peaks) >= 0.99 * pause_s):
            pauses += 1
            near = told[(told > peaks[i] + 0.9 * pause_s) | (told > peaks[i] + 3.5)]
            near = near[near < max(peaks[i + 1] + 1.0, peaks[i] + 6.0)]
            delays += [float(near[0] - peaks[i])] if len(near) else []
    worst = max(delays) if delays else np.inf
    median = float(np.median(delays)) if delays else np.inf
    return Pauses(pauses, len(delays), median, worst)


def pauses_told(microvolts: NDArray[np.float32], rate: float) -> NDArray[np.float64]:
    """Ends of the chunks at which the watch told of a pause, in seconds."""
    stream = Stream("bench", "bench")
    pauses = PauseWatch(stream, PauseRule().seconds)
    size = round(rate)
    return np.array(
        [
            chunk.end_ns / 1e9
            for first in range(0, len(microvolts), size)
            if pauses.add(
                chunk := Chunk(
                    stream, round(first / rate * 1e9), rate, microvolts[first : first + size]
                )
            )
        ]
    )


def watch_share() -> float:
    """Part of one core that the pause watch of 100 patients takes."""
    script = Script((Episode(EpisodeKind.SINUS_RHYTHM, 600, heart_rate=70),), noise=NOISES["usual"])
    simulation = simulate(script, seed=1)
    begun = time.process_time()
    pauses_told(simulation.microvolts, simulation.rate)
    return 100 * (time.process_time() - begun) / 600


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print, or write to a file."""
    parser = argparse.ArgumentParser(prog="python -m bench.alarms", description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--bundle", default=DEFAULT)
    parser.add_argument("--windows", type=Path, help=".npz to keep what was seen in")
    parser.add_argument("--write", type=Path, help="Markdown file to write")
    options = parser.parse_args(arguments)
    if not (options.data / "cinc2017").is_dir():
        sys.stderr.write(f"{options.data}: expected the folder of ECG recordings\n")
        return 2
    bundle = find_bundle(options.bundle)
    if options.windows is not None and options.windows.is_file():
        records = load(options.windows)
    else:
        records = list(watch(options.data, Analyzer(Runtime(bundle))))
        if options.windows is not None:
            save(options.windows, records)
    text = _page(bundle.name, records, Policy.from_mapping(bundle.alarm_rules, hop_s=HOP_S))
    if options.write is None:
        sys.stdout.write(text)
    else:
        options.write.write_text(text, encoding="utf-8")
        sys.stdout.write(f"{options.write}: written\n")
    return 0


def _page(bundle: str, records: Sequence[Seen], policy: Policy) -> str:
    sinus, af = _of(records, "N"), _of(records, "A")
    still, soon = quiet(sinus, policy, ORDERS), loud(af, policy, "class:AF", ORDERS)
    still_out = quiet(_held_out(sinus), policy, ORDERS)
    other = _of(records, "O")
    others, others_out = (quiet(some, policy, ORDERS) for some in (other, _held_out(other)))
    soon_out = loud(_held_out(af), policy, "class:AF", 4 * ORDERS)
    told = {
        (noise, pause_s): simulated_pauses(NOISES[noise], pause_s)
        for noise in NOISES
        for pause_s in PAUSES_S
    }
    usual = [told["usual", pause_s] for pause_s in PAUSES_S]
    worst = (
        f"{max(p.worst_s for p in usual):.1f} s, {sum(p.seen for p in usual)} of "
        f"{sum(p.pauses for p in usual)} seen"
    )
    pauses = "\n".join(
        f"| {noise} | {pause_s:g} | {p.pauses} | {p.seen / p.pauses:.0%} | {p.median_s:.1f} "
        f"| {p.worst_s:.1f} |"
        for (noise, pause_s), p in told.items()
    )
    return f"""# Alarms: false ones, and how soon true ones come

Written by `python -m bench.alarms` (bundle {bundle}, default rules).

| what | wanted | measured | on records held out from training |
| --- | --- | --- | --- |
| physiological alarms on sinus rhythm | ≤ 1 a patient-day | {_total(still)} | {_total(still_out)} |
| hours of atrial fibrillation alarmed | ≥ 95 % | {_share(soon)} | {_share(soon_out)} |
| time to that alarm, median | ≤ 60 s | {_time(soon)} | {_time(soon_out)} |
| pause of 4 s or more, from its start to the signal, usual noise, worst | ≤ 6 s | {worst} | |
| pause watch of 100 patients | ≤ 15 % of a core | {watch_share():.1%} | |

## How it is measured

Sinus rhythm is every Challenge 2017 record labelled N and MIT-BIH 100, 101 and 103,
{still.days:.2f} days of signal; atrial fibrillation is every Challenge record labelled A,
{soon.hours:.1f} hours, put together to episodes of one hour. Held out are the test records of the
project's own split of the Challenge (a fifth, {still_out.days:.2f} days and {soon_out.hours:.1f}
hours) and MIT-BIH: held out from training, stopping and calibration. The rule for AF was chosen
with an eye to both columns of this page, so that it is a little better here than elsewhere. Lead,
rings, windows (10 s, every 5 s), grade, model, pause watch and engine are the daemon's.

Records are put end to end, and times count the signal alone. Each is cut into windows by itself,
the last of which ends with it, so no window and no pause lies across a join; the engine alone
counts on, as it does for a patient whose signal is lost for a moment. A Challenge record of 30 s
gives five windows: a rule that takes more is never fulfilled by one heart alone. That makes false
alarms of a peculiar heart rarer than they would be in a day of it, and alarms in fibrillation
later, for a record whose windows the model or the grade does not like delays those beside it. The
order of the records is drawn at random, {ORDERS} times; figures are means over the orders, which
all hold the same hearts. The interval is that of a Poisson count in one pass. The pause watch
vouches for nothing in the first 20 s of a record.

## Sinus rhythm

{_conditions(still, still_out)}

Which records they were raised in, and in how many of the orders:

{_raised(still)}

## Other rhythms

Every Challenge 2017 record labelled O, "other rhythm": extrasystoles, blocks, flutter, tachycardia
and bradycardia, nobody says which; {others.days:.2f} days, {others_out.days:.2f} of them held out.
An alarm for AF is false here as far as the label goes; one for a rate may well be right. End to
end these are days of one trouble after another, which no patient has.

{_conditions(others, others_out)}

Records in which AF was raised, in half of the orders or more:

{_raised(others, "class:AF", ORDERS // 2)}

## Threshold and k of n for atrial fibrillation

False alarms a patient-day in sinus rhythm and in other rhythms, share of the hours alarmed, median
time to the alarm; the off-threshold is half of the threshold. The default is {_default(policy)}.

| k of n | threshold | false: sinus | other | alarmed | median | held out, false: sinus | other \
| alarmed | median |
| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |
{_curve(sinus, other, af)}

## Pauses

Simulated patients at 45 to 95 beats per minute, 130 samples per second in chunks of one second; the
time is from the last beat to the end of the chunk that tells.

| noise | pause, s | pauses | seen | median, s | worst, s |
| --- | ---: | ---: | ---: | ---: | ---: |
{pauses}
"""


def _conditions(every: Quiet, held_out: Quiet) -> str:
    rows = "\n".join(
        f"| {condition} | {per_day:.2f} | {held_out.per_day[condition]:.2f} |"
        for condition, per_day in every.per_day.items()
    )
    return f"| condition | alarms a patient-day | held out |\n| --- | ---: | ---: |\n{rows}"


def _raised(figures: Quiet, only: str | None = None, least: int = 1) -> str:
    rows = "\n".join(
        f"| {condition} | {record} | {count} of {ORDERS} |"
        for (condition, record), count in sorted(figures.records.items())
        if only in {None, condition} and count >= least
    )
    return f"| condition | record | orders |\n| --- | --- | ---: |\n{rows}"


def _curve(sinus: Sequence[Seen], other: Sequence[Seen], af: Sequence[Seen]) -> str:
    lines = []
    for k, n in K_OF_N:
        for threshold in THRESHOLDS:
            rule = ClassRule(
                name="AF",
                threshold=threshold,
                off_threshold=threshold / 2,
                k=k,
                n=n,
                clear_k=default_clear_k(k, n),
                priority=Priority.MEDIUM,
            )
            policy = Policy(classes=(rule,), high_rate=None, low_rate=None, pause=None)
            cells = [f"{k} of {n}", f"{threshold:.2f}"]
            for some, orders in ((list, CURVE_ORDERS), (_held_out, 4 * CURVE_ORDERS)):
                seen = loud(some(af), policy, rule.condition, orders)
                cells += [
                    f"{quiet(some(each), policy, CURVE_ORDERS).per_day[rule.condition]:.2f}"
                    for each in (sinus, other)
                ]
                cells += [f"{seen.alarmed:.0%}", f"{seen.median_s:.0f} s"]
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _of(records: Sequence[Seen], label: str) -> list[Seen]:
    return [record for record in records if record.label == label]


def _held_out(records: Sequence[Seen]) -> list[Seen]:
    return [record for record in records if record.held_out]


def _total(q: Quiet) -> str:
    return f"{sum(q.per_day.values()):.2f} ({q.low:.1f} to {q.high:.1f}) in {q.days:.2f} days"


def _share(figures: Loud) -> str:
    return f"{figures.alarmed:.0%} of {figures.episodes}"


def _time(figures: Loud) -> str:
    return f"{figures.median_s:.0f} s, nine in ten by {figures.most_s:.0f} s"


def _default(policy: Policy) -> str:
    rule = next(rule for rule in policy.classes if rule.name == "AF")
    return f"{rule.k} of {rule.n} at {rule.threshold:.2f}"


if __name__ == "__main__":
    raise SystemExit(main())
