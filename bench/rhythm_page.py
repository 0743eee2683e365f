"""Put what was measured of lethal rhythms on one page, each false alarm with its picture."""

import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from alerts.strip import strip_png
from bench.machine import describe
from training.evaluation.false_alarms import poisson_interval
from training.rhythm.episodes import ASYSTOLE_S, SHORT_VF_S, VF_S, VT_S
from training.rhythm.records import Label, RhythmRecord

if TYPE_CHECKING:
    from bench.rhythm_segments import SegmentCount
    from bench.rhythms import FalseAlarm, HeardEpisode, Measured

_STRIP_S = 10.0
_RESAMPLED = 2000
_DAY_H = 24.0

_HEAD = """# Lethal rhythms: heard, missed, and heard for nothing

Written by `make rhythms` (`python -m training rhythm`, then `python -m bench.rhythms`).

**No fibrillation in lead I of a chest strap was ever measured, here or by others.** What follows
is of Holter and bedside recordings, mostly leads like MLII, and of simulated hearts, which are told
apart from recorded ones.

"""

_HOW = """
## How it is measured

Five networks, each trained without a fifth of the people of each data set; each person is heard by
the network that never saw them, with thresholds chosen on the other four fifths. Recordings go
second by second through the daemon's own watch and rules (`monitor/rhythms.py`, `alerts/lethal.py`),
each record as a patient of its own. The shipped model is a sixth network, of the same recipe, that
saw everybody; what it does on people it never saw is what this page says, not more.

The recipe (what is trained on, when stillness is an asystole, how sure a second must be to count as
organised) was changed three times after a look at an earlier state of this page, so that figures
are a little better here than on other people; networks and thresholds of a fold saw none of its
people.

An episode is an annotated stretch. It is heard if `vf` or `vt` (`asystole` for an asystole) is told
between its onset and 8 s after its end; times are from the annotated onset, those of CUDB were read
by eye to ± 2 s. Five seconds or more between two annotated beats of MIT-BIH are an asystole too. An
alarm is false if it is raised more than 2 s before, or more than 8 s after, any stretch annotated
as VF, VT, asystole or high-grade ectopic activity, or as nothing at all. NOISE stretches count as
signal without a lethal rhythm, though in VFDB 426 fibrillation may well go on beneath them.
Intervals of 95 %: of shares by resampling people with replacement, of counts those of Poisson.
"""


def page(
    measured: "Measured",
    records: Mapping[str, RhythmRecord],
    folder: Path | None,
) -> str:
    """Write the page as Markdown.

    Args:
        measured: what it tells.
        records: by id, for pictures.
        folder: for pictures, beside the page; None: none are drawn.
    """
    parts = [_HEAD, _wanted(measured), _HOW, "\n## Episodes, by person\n\n", _people(measured)]
    parts += ["\n## Ten-second segments by themselves\n\n", _segment_table(measured.segments)]
    parts += ["\n## False alarms\n\n", _false(measured, records, folder)]
    parts += ["\n## Hearts that cannot be seen\n\n", _unseen(measured)]
    parts += ["\n## Simulated hearts\n\n", _simulated(measured)]
    machine = ", ".join(f"{key} {value}" for key, value in describe().items())
    parts.append(f"\n## Where\n\n{machine}\n")
    return "".join(parts)


def _wanted(measured: "Measured") -> str:
    vf = _some(measured, Label.VF, VF_S)
    short = [e for e in _some(measured, Label.VF, SHORT_VF_S) if e.episode.duration_s < VF_S]
    vt = _some(measured, Label.VT, VT_S)
    real = _some(measured, Label.ASYSTOLE, ASYSTOLE_S)
    still = [s for s in measured.stills if s is not None]
    after = [e.after_s for e in (*vf, *vt, *real) if e.after_s is not None]
    missed = sorted({e.person for e in vf if e.after_s is None})
    hours = sum(measured.hours.values())
    false = len(measured.false)
    low, high = poisson_interval(false)
    rows = [
        ("VF/flutter ≥ 10 s heard", "≥ 97 %, one person missed at most", _share(vf) + _who(missed)),
        ("VF/flutter of 5 to 10 s", "reported", _share(short)),
        ("VT ≥ 8 s heard", "≥ 88 %", _share(vt)),
        ("asystole ≥ 5 s, recorded", "all", _share(real)),
        (
            f"asystole in recorded noise ({len(measured.stills)})",
            "≥ 97 %",
            f"{100 * len(still) / max(1, len(measured.stills)):.1f} %, median {_median(still)} s",
        ),
        (
            "onset to alarm, VF, VT, asystole",
            "median ≤ 7 s, p95 ≤ 15 s",
            f"median {_median(after)} s, p95 {_p95(after)} s",
        ),
        *_segment_rows(measured.segments),
        (
            f"false `vf`, `vt`, `asystole` in {hours:.0f} h of other signal",
            "≤ 2",
            f"{false} ({low:.1f} to {high:.1f})",
        ),
        (
            "of these in people without any annotated lethal rhythm",
            "",
            _of_the_well(measured),
        ),
        (
            "cannot be seen, MIT-BIH, NOISE and simulated activity, a patient-day",
            "≤ 3",
            _per_day(
                [
                    *(c for kind, c in measured.unseen.items() if not kind.startswith("Challenge")),
                    *((c.unseen, c.hours) for c in measured.simulated if not c.lethal),
                ]
            ),
        ),
        ("cost, ms of a core for a second of signal", "≤ 0.3", f"{measured.cost_ms:.2f}"),
    ]
    lines = ["| what | to reach | measured |", "| --- | --- | --- |"]
    lines += [f"| {a} | {b} | {c} |" for a, b, c in rows]
    return "\n".join(lines) + "\n"


def _of_the_well(measured: "Measured") -> str:
    """Lethal alarms of hearts that never were in danger."""
    sick = {e.record for e in measured.episodes}
    false = [f for f in measured.false if f.record not in sick]
    hours = sum(h for source, h in measured.hours.items() if source not in {"vfdb", "cudb"})
    few = [f for f in false if not f.record.startswith(("vfdb/", "cudb/"))]
    low, high = poisson_interval(len(few))
    return f"{len(few)} ({low:.1f} to {high:.1f}) in {hours:.0f} h beside VFDB and CUDB"


def _some(measured: "Measured", kind: Label, least_s: float) -> "list[HeardEpisode]":
    return [
        e for e in measured.episodes if e.episode.kind is kind and e.episode.duration_s >= least_s
    ]


def _share(episodes: "Sequence[HeardEpisode]") -> str:
    if not episodes:
        return "none there"
    by_person: dict[str, tuple[int, int]] = {}
    for e in episodes:
        n, k = by_person.get(e.person, (0, 0))
        by_person[e.person] = n + 1, k + (e.after_s is not None)
    return interval_of(by_person)


def interval_of(by_person: Mapping[str, tuple[int, int]]) -> str:
    """A share with its interval, people resampled with replacement.

    Args:
        by_person: how many there were of each, and how many of them count.
    """
    counts = np.array(list(by_person.values()), np.float64)
    n, k = counts.sum(axis=0)
    rng = np.random.default_rng(1)
    drawn = counts[rng.integers(len(counts), size=(_RESAMPLED, len(counts)))].sum(axis=1)
    low, high = np.percentile(100 * drawn[:, 1] / drawn[:, 0], (2.5, 97.5))
    return (
        f"{100 * k / n:.1f} % ({low:.0f} to {high:.0f}), {k:.0f} of {n:.0f}, {len(counts)} people"
    )


def _who(missed: Sequence[str]) -> str:
    return f"; missed in {', '.join(missed)}" if missed else ""


def _median(values: Sequence[float]) -> str:
    return f"{np.median(values):.1f}" if values else "–"


def _p95(values: Sequence[float]) -> str:
    return f"{np.percentile(values, 95):.1f}" if values else "–"


def _per_day(counts: Iterable[tuple[int, float]]) -> str:
    some = list(counts)
    events, hours = sum(n for n, _ in some), sum(h for _, h in some)
    if not hours:
        return "–"
    low, high = poisson_interval(events)
    day = _DAY_H / hours
    return f"{events * day:.1f} ({low * day:.1f} to {high * day:.1f}), {events} in {hours:.1f} h"


def _segment_rows(segments: "Sequence[SegmentCount]") -> Iterator[tuple[str, str, str]]:
    by_kind = {s.kind: s for s in segments}
    for kind, wanted, lethal in (
        ("coarse VF", "≥ 95 % (DF80: 90)", True),
        ("rapid VT", "≥ 88 % (DF80: 75)", True),
        ("normal sinus rhythm", "≥ 99.8 % (DF80: 99)", False),
        ("other rhythm", "≥ 99 % (DF80: 95)", False),
        ("asystole", "≥ 98 % (DF80: 95)", False),
    ):
        if kind in by_kind:
            what = "sensitivity" if lethal else "specificity"
            yield f"segments: {kind}, {what}", wanted, _rate(by_kind[kind], lethal=lethal)


def _rate(count: "SegmentCount", *, lethal: bool) -> str:
    of_run = {p: (n, r if lethal else n - r) for p, (n, _, r) in count.persons.items()}
    alone, total = count.total(1), count.total()
    share = 100 * (alone if lethal else total - alone) / total
    return f"{interval_of(of_run)}; by themselves {share:.1f} %"


def _segment_table(segments: "Sequence[SegmentCount]") -> str:
    text = (
        "Defibrillators are tested with ten seconds of one rhythm, of a heart that is not known; the\n"
        "watch sees a heart so in its first ten seconds alone, four of which it says nothing. Told in\n"
        "the run is what it said at the segment's end when it had heard the record up to there.\n\n"
        "| kind | segments | people | told in the run | told by themselves |\n"
        "| --- | ---: | ---: | ---: | ---: |\n"
    )
    for s in segments:
        text += f"| {s.kind} | {s.total()} | {len(s.persons)} | {s.total(2)} | {s.total(1)} |\n"
    return text


def _people(measured: "Measured") -> str:
    text = (
        "Long enough to be heard; ✗ is missed. In brackets for how much of its time it was told of: an\n"
        "alarm stays on, but where that is little thirty seconds may pass for an organised rhythm, and\n"
        "people are told that it is over.\n\n"
        "| person | what | episodes | heard after, s |\n| --- | --- | ---: | --- |\n"
    )
    groups: dict[tuple[str, str], list[str]] = {}
    least = {Label.VF: VF_S, Label.VT: VT_S, Label.ASYSTOLE: ASYSTOLE_S}
    names = {Label.VF: "VF", Label.VT: "VT", Label.ASYSTOLE: "asystole"}
    for e in measured.episodes:
        if e.episode.duration_s >= least[e.episode.kind]:
            heard = "✗" if e.after_s is None else f"{e.after_s:.0f} ({100 * e.told:.0f} %)"
            groups.setdefault((e.person, names[e.episode.kind]), []).append(heard)
    for (person, kind), after in sorted(groups.items()):
        text += f"| {person} | {kind} | {len(after)} | {', '.join(after)} |\n"
    return text


def _false(measured: "Measured", records: Mapping[str, RhythmRecord], folder: Path | None) -> str:
    text = "| data set | hours | false |\n| --- | ---: | ---: |\n"
    for source, hours in measured.hours.items():
        count = sum(f.record.startswith(f"{source}/") for f in measured.false)
        text += f"| {source} | {hours:.1f} | {count} |\n"
    if folder is not None:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
    for number, false in enumerate(measured.false, 1):
        when = f"{false.alarm.raised_s:.0f} s"
        text += f"\n{number}. `{false.alarm.condition}` in {false.record} at {when}"
        text += f" (annotated: {false.note or 'nothing'})\n"
        if folder is not None:
            name = f"{number}-{false.record.replace('/', '-')}.png"
            (folder / name).write_bytes(_picture(false, records[false.record]))
            text += f"\n   ![ten seconds up to the alarm]({folder.name}/{name})\n"
    return text


def _picture(false: "FalseAlarm", record: RhythmRecord) -> bytes:
    end = round(false.alarm.raised_s * record.rate)
    samples = record.microvolts[max(0, end - round(_STRIP_S * record.rate)) : end]
    title = (
        f"{record.id}: {false.alarm.condition}",
        f"ten seconds to {false.alarm.raised_s:.0f} s",
    )
    return strip_png(samples, record.rate, (), title, "lead as recorded")


def _unseen(measured: "Measured") -> str:
    text = "| signal | a patient-day |\n| --- | --- |\n"
    for kind, count in measured.unseen.items():
        text += f"| {kind} | {_per_day([count])} |\n"
    active = [(c.unseen, c.hours) for c in measured.simulated if not c.lethal]
    return text + f"| simulated activity | {_per_day(active)} |\n"


def _simulated(measured: "Measured") -> str:
    text = (
        "`docs/simulator.md` says what they do; seeds are others than in training. 'A little', "
        "'usual'\nand 'much' are half, once and twice the strength there.\n\n"
        "| heart | hearts | hours | heard | median, s |\n| --- | ---: | ---: | ---: | ---: |\n"
    )
    for c in measured.simulated:
        if c.lethal:
            median = "–" if c.median_s is None else f"{c.median_s:.1f}"
            text += f"| {c.kind} | {c.hearts} | {c.hours:.2f} | {c.heard} | {median} |\n"
    text += (
        "\n| not lethal | hours | false alarms | cannot be seen |\n| --- | ---: | ---: | ---: |\n"
    )
    for c in measured.simulated:
        if not c.lethal:
            text += f"| {c.kind} | {c.hours:.1f} | {c.heard} | {c.unseen} |\n"
    return text
