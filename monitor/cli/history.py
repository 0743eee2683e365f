"""``leadone history`` and ``episodes``: the database for people and for tools."""

import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from alerts.conditions import Alarm
from models.bundle import Bundle
from monitor import irregularity
from monitor.board import likeliest_rhythm, positives
from monitor.cli.errors import MisuseError
from monitor.cli.patient import require_stored
from monitor.cli.rows import print_row
from monitor.cli.times import LAST_NS, iso, local, moment_ns, span
from monitor.config import Config, load_config
from monitor.results import WindowResult
from monitor.service import open_bundle
from monitor.storage.history import History
from monitor.storage.records import Episode
from monitor.window import Gap

# A table of a day is read at a glance; the steps are those of a clock.
_STEPS_S = (60, 300, 900, 3600, 6 * 3600, 24 * 3600)
_MOST_ROWS = 48


@dataclass(slots=True)
class _Row:
    """What happened in one step of the clock."""

    start_ns: int
    windows: int = 0
    good: int = 0
    rates: list[float] = field(default_factory=list)
    rhythms: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)


def show_history(
    path: Path, patient: str, since: str, until: str | None, *, json_lines: bool
) -> None:
    """Print windows (JSON) or a table of rates, rhythms and quality, with the gaps."""
    config = load_config(path)
    since_ns, until_ns = _range(since, until)
    bundle = open_bundle(config)
    with _history(config, patient) as history:
        windows = history.windows(patient, since_ns, until_ns)
        if json_lines:
            for result in windows:
                print_row(_window_json(result, bundle))
            for gap in history.gaps(patient, since_ns, until_ns):
                print_row(_gap_json(gap))
            return
        rows = _rows(windows, since_ns, time.time_ns() if until is None else until_ns)
        gaps = list(history.gaps(patient, since_ns, until_ns))
    console = Console(markup=False, highlight=False)
    if not rows and not gaps:
        end = "" if until is None else f" and before {local(until_ns)}"
        console.print(f"{patient}: nothing since {local(since_ns)}{end}")
        return
    console.print(_table(patient, rows))
    for gap in gaps:
        length = (gap.end_ns - gap.start_ns) / 1e9
        console.print(
            f"gap  {local(gap.start_ns)}  {span(abs(length))}  {gap.cause} ({gap.stream.device})"
        )


def show_episodes(
    path: Path, patient: str, since: str, until: str | None, *, json_lines: bool
) -> None:
    """Print stretches in which a class was at or over its threshold, then the alarms."""
    config = load_config(path)
    since_ns, until_ns = _range(since, until)
    bundle = open_bundle(config)
    # Sinus rhythm and a normal ECG are not what anybody looks for among episodes.
    thresholds = {c: t for c, t in _thresholds(bundle).items() if c not in ("NSR", "NECG")}
    names = bundle.class_names
    names[irregularity.IRREGULAR_AF] = "irregular pulse, perhaps AF (RR intervals alone)"
    with _history(config, patient) as history:
        episodes = history.episodes(patient, since_ns, until_ns, thresholds)
        alarms = history.alarms(patient, since_ns, until_ns)
    if json_lines:
        for e in episodes:
            print_row(
                {
                    "class": _class(e),
                    "start": iso(e.start_ns),
                    "end": iso(e.end_ns),
                    "windows": e.windows,
                    "max_probability": round(e.max_probability, 4),
                    "heart_rate": _rounded(e.heart_rate, 1),
                }
            )
        return
    console = Console(markup=False, highlight=False)
    table = Table(title=f"{patient}: what was seen, and how sure that is at most")
    table.add_column("from", no_wrap=True)
    table.add_column("for", justify="right", no_wrap=True)
    table.add_column("what")
    table.add_column("sure", justify="right", no_wrap=True)
    table.add_column("/min", justify="right", no_wrap=True)
    for e in episodes:
        table.add_row(
            local(e.start_ns),
            span((e.end_ns - e.start_ns) / 1e9),
            names.get(_class(e), _class(e)),
            f"{e.max_probability:.2f}",
            "--" if e.heart_rate is None else f"{e.heart_rate:.0f}",
        )
    console.print(table if episodes else f"{patient}: no episodes in this time")
    for alarm in alarms:
        console.print(_alarm_line(alarm), soft_wrap=True)


def _range(since: str, until: str | None) -> tuple[int, int]:
    since_ns = moment_ns(since, "--since")
    # Played faster than life, what is stored reaches into the future.
    until_ns = LAST_NS if until is None else moment_ns(until, "--until")
    if since_ns >= until_ns:
        raise MisuseError("--since must be before --until")
    return since_ns, until_ns


def _history(config: Config, patient: str) -> History:
    history = History(config.database.get_secret_value())
    try:
        require_stored(patient, [p.id for p in history.patients()])
    except BaseException:
        history.close()
        raise
    return history


def _rows(windows: Iterator[WindowResult], since_ns: int, until_ns: int) -> list[_Row]:
    whole_s = (until_ns - since_ns) / 1e9
    step_s = next((s for s in _STEPS_S if whole_s / s <= _MOST_ROWS), _STEPS_S[-1])
    rows: list[_Row] = []
    for result in windows:
        start_ns = result.start_ns - result.start_ns % (step_s * 1_000_000_000)
        if not rows or rows[-1].start_ns != start_ns:
            rows.append(_Row(start_ns))
        row = rows[-1]
        row.windows += 1
        if not result.grade.good:
            row.reasons.update(result.grade.reasons)
            continue
        row.good += 1
        if result.heart_rate is not None:
            row.rates.append(result.heart_rate)
        rhythm = likeliest_rhythm(result)
        if rhythm is not None:
            row.rhythms[rhythm[0]] += 1
        elif irregularity.IRREGULAR_AF in positives(result, irregularity.THRESHOLDS):
            row.rhythms["irregular pulse"] += 1
    return rows


def _table(patient: str, rows: list[_Row]) -> Table:
    table = Table(title=f"{patient}: beats per minute, rhythm, signal")
    table.add_column("from", no_wrap=True)
    for rate in ("least", "mean", "most", "good"):
        table.add_column(rate, justify="right", no_wrap=True)
    table.add_column("rhythm")
    table.add_column("not read because")
    for row in rows:
        rates = row.rates
        table.add_row(
            # Steps are of whole minutes.
            local(row.start_ns).rpartition(":")[0],
            *(f"{v:.0f}" for v in (min(rates), sum(rates) / len(rates), max(rates)))
            if rates
            else ("--", "--", "--"),
            f"{100 * row.good / row.windows:.0f} %",
            ", ".join(f"{r} {100 * n / row.good:.0f} %" for r, n in row.rhythms.most_common(3)),
            ", ".join(f"{r} {n}" for r, n in row.reasons.most_common()),
        )
    return table


def _window_json(result: WindowResult, bundle: Bundle) -> dict[str, Any]:
    return {
        "device": result.stream.device,
        "start": iso(result.start_ns),
        "duration_s": round(result.duration_s, 3),
        "quality": result.grade.quality,
        "reasons": list(result.grade.reasons),
        "heart_rate": _rounded(result.heart_rate, 1),
        "longest_rr_s": _rounded(result.longest_rr_s, 3),
        "probabilities": {c: round(p, 5) for c, p in result.by_class.items()},
        "positive": positives(result, _thresholds(bundle)),
    }


def _thresholds(bundle: Bundle) -> dict[str, float]:
    return {**bundle.thresholds, **irregularity.THRESHOLDS}


def _gap_json(gap: Gap) -> dict[str, Any]:
    return {
        "device": gap.stream.device,
        "gap": gap.cause,
        "start": iso(gap.start_ns),
        "end": iso(gap.end_ns),
    }


def _alarm_line(alarm: Alarm) -> str:
    end = "still active" if alarm.ended_ns is None else f"to {local(alarm.ended_ns)}"
    return (
        f"{alarm.priority} alarm: {alarm.patient}, {alarm.condition.removeprefix('class:')}, "
        f"{local(alarm.started_ns)} {end}"
    )


def _rounded(value: float | None, digits: int) -> float | None:
    return None if value is None else round(value, digits)


def _class(episode: Episode) -> str:
    return episode.condition.removeprefix("class:")
