"""``leadone devices``: how every device is."""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from ingest.ble.device import by_kind
from ingest.ble.link import Stage
from ingest.chunk import Stream
from monitor.cli.rows import print_row
from monitor.cli.times import LAST_NS, iso, span
from monitor.config import Config, load_config
from monitor.storage.history import History
from monitor.storage.records import Strap, StrapState
from monitor.straps import STOPPED

RESTART = "now restart leadone: sudo systemctl restart leadone"
"""What to do after a strap was paired or unpaired."""

NO_ECG = (
    "sends no ECG: it cannot see ventricular fibrillation, a heart that quivers and pumps no "
    "blood; only ECG shows that (docs/bluetooth.md)"
)
"""What cannot be seen by a strap that sends heart rate and RR intervals only."""

# A device that is listened to gives a sample a second; longer ago than this, it is not.
_FRESH_NS = 60_000_000_000


@dataclass(frozen=True, slots=True)
class _Row:
    """A device as ``leadone devices`` tells of it."""

    stream: Stream
    model: str
    strap: Strap | None
    state: StrapState | None
    last_ns: int | None
    missing_s: float | None


def show_devices(path: Path, *, json_lines: bool) -> None:
    """Print what is known of every strap and every configured device."""
    config = load_config(path)
    with History(config.database.get_secret_value()) as history:
        rows = list(_rows(config, history, time.time_ns()))
    if json_lines:
        for row in rows:
            print_row(_row_json(row))
        return
    console = Console(markup=False, highlight=False)
    if not rows:
        console.print("No device: find a strap with `leadone scan`, then `leadone pair` it.")
        return
    table = Table()
    for name in ("device", "patient", "model", "state"):
        table.add_column(name, overflow="fold")
    for name in ("battery", "last sample", "missing today"):
        table.add_column(name, justify="right")
    advised = []
    for row in rows:
        state, advice = _state(row)
        if advice is not None:
            advised.append(f"{row.stream}: {state}: {advice}")
        if row.strap is not None and not sends_ecg(row.strap):
            advised.append(f"{row.stream} {NO_ECG}")
        battery = None if row.state is None else row.state.battery
        table.add_row(
            row.stream.device,
            row.stream.patient,
            row.model,
            state,
            "--" if battery is None else f"{battery} %",
            "never" if row.last_ns is None else f"{span(_age_s(row.last_ns))} ago",
            "--" if row.missing_s is None else span(row.missing_s),
        )
    console.print(table)
    for line in advised:
        console.print(line, soft_wrap=True)


def _rows(config: Config, history: History, now_ns: int) -> Iterator[_Row]:
    local = datetime.fromtimestamp(now_ns / 1e9, tz=UTC).astimezone()
    midnight = local.replace(hour=0, minute=0, second=0, microsecond=0)
    today_ns = round(midnight.timestamp()) * 1_000_000_000
    straps = history.straps()
    configured = [(Stream(s.patient, s.device), s.type) for s in config.sources]
    missing: dict[Stream, int] = {}
    for patient in {stream.patient for stream, _ in configured} | {
        strap.stream.patient for strap, _ in straps
    }:
        for gap in history.gaps(patient, today_ns, LAST_NS):
            lost = min(gap.end_ns, now_ns) - max(gap.start_ns, today_ns)
            missing[gap.stream] = missing.get(gap.stream, 0) + max(lost, 0)
    for strap, state in straps:
        last_ns = history.last_sample(strap.stream)
        lost_ns = missing.get(strap.stream, 0)
        if last_ns is not None and not is_fresh(last_ns):
            # It is stored as a gap when samples come again.
            lost_ns += max(now_ns - max(last_ns, today_ns), 0)
        never = last_ns is None
        missing_s = None if never else lost_ns / 1e9
        yield _Row(strap.stream, _label(strap.kind), strap, state, last_ns, missing_s)
    for stream, type_ in configured:
        last_ns = history.last_sample(stream)
        missing_s = None if last_ns is None else missing.get(stream, 0) / 1e9
        yield _Row(stream, type_, None, None, last_ns, missing_s)


def _state(row: _Row) -> tuple[str, str | None]:
    """What a device does, and what to do about it."""
    state, fresh = row.state, is_fresh(row.last_ns)
    if row.strap is None:
        return "streaming" if fresh else "silent", None
    if state is None:
        return "not yet tried", RESTART
    if state.stage == STOPPED:
        return "leadone is stopped", "sudo systemctl start leadone"
    if state.stage == Stage.STREAMING and not fresh:
        # Whoever died had no time to say so.
        return "silent", "see whether leadone runs: systemctl status leadone"
    return state.cause or state.stage, state.advice


def _row_json(row: _Row) -> dict[str, Any]:
    strap, state = row.strap, row.state
    of_strap: dict[str, Any] = {}
    if strap is not None:
        of_strap = {
            "address": strap.address,
            "adapter": strap.adapter,
            "ecg": sends_ecg(strap),
        }
    if state is not None:
        of_strap |= {
            "stage": state.stage,
            "since": iso(state.since_ns),
            "cause": state.cause,
            "advice": state.advice,
            "battery": state.battery,
            "battery_at": None if state.battery_ns is None else iso(state.battery_ns),
        }
    return {
        "device": row.stream.device,
        "patient": row.stream.patient,
        "model": row.model if strap is None else strap.kind,
        "streaming": is_fresh(row.last_ns) and (state is None or state.stage == Stage.STREAMING),
        "last_sample": None if row.last_ns is None else iso(row.last_ns),
        "missing_today_s": None if row.missing_s is None else round(row.missing_s, 1),
        **of_strap,
    }


def is_fresh(last_ns: int | None) -> bool:
    """Whether a device whose last sample is of this time is being listened to."""
    return last_ns is not None and time.time_ns() - last_ns < _FRESH_NS


def sends_ecg(strap: Strap) -> bool:
    """Whether a strap sends a waveform; one of a kind that is not known is not spoken ill of."""
    try:
        return by_kind(strap.kind).rate is not None
    except ValueError:
        return True


def _label(kind: str) -> str:
    try:
        return by_kind(kind).label
    except ValueError:
        return kind


def _age_s(last_ns: int) -> float:
    # Of a device whose clock is ahead, it is not negative.
    return max(time.time_ns() - last_ns, 0) / 1e9
