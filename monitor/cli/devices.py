"""``leadone devices``: how every device is."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from ingest.ble.device import by_kind
from ingest.ble.link import Stage
from ingest.chunk import Stream
from monitor.cli.errors import CommandError
from monitor.cli.in_time import read_in_time
from monitor.cli.rows import print_row
from monitor.cli.times import LAST_NS, iso, span
from monitor.cli.watching import Daemon, ask_daemon
from monitor.clock import AHEAD_NS
from monitor.config import Config, load_config
from monitor.devices import GONE_S
from monitor.storage.database import DatabaseError
from monitor.storage.history import History
from monitor.storage.records import Strap, StrapState

RESTART = "now restart leadone: sudo systemctl restart leadone"
"""What to do after a strap was paired or unpaired."""

NO_ECG = (
    "sends no ECG: it cannot see ventricular fibrillation, a heart that quivers and pumps no "
    "blood; only ECG shows that (docs/bluetooth.md)"
)
"""What cannot be seen by a strap that sends heart rate and RR intervals only."""

# A device that is listened to gives a sample a second; longer ago than this, it is not.
_FRESH_NS = 60_000_000_000


_MQTT = "MQTT"


@dataclass(frozen=True, slots=True)
class _Row:
    """A device as ``leadone devices`` tells of it.

    Attributes:
        stream: whose it is, and what it is called.
        model: what it is, for people.
        strap: the strap that is paired; None of any other device.
        state: what is known of its link.
        last_ns: UTC time of its last sample, in nanoseconds.
        missing_s: how much of today is missing, in seconds; None where that is not known.
        battery: percent; None where it is not known.
        running: whether a daemon runs that answers; None if it does not say more than that.
        live: what that said of it (``monitor.status``); None if nothing.
    """

    stream: Stream
    model: str
    strap: Strap | None
    state: StrapState | None
    last_ns: int | None
    missing_s: float | None
    battery: int | None
    running: bool | None
    live: dict[str, Any] | None

    @property
    def streaming(self) -> bool:
        """Whether its samples arrive: only the daemon knows."""
        return self.live is not None and bool(self.live["sending"])


def show_devices(path: Path, *, json_lines: bool) -> None:
    """Print what is known of every strap, every configured device and every one of a broker.

    Raises:
        CommandError: neither does a daemon answer nor can the database be read.
    """
    config = load_config(path)
    daemon = ask_daemon(config)
    unread: str | None = None
    try:
        url = config.database.get_secret_value()
        stored = read_in_time(url, lambda history: _stored(config, history, time.time_ns()))
    except DatabaseError as error:
        if daemon.status is None:
            raise CommandError(f"{daemon.why_not}\n{error}") from None
        stored, unread = {}, str(error)
    rows = list(_rows(config, daemon, stored))
    if json_lines:
        for row in rows:
            print_row(_row_json(row))
        return
    console = Console(markup=False, highlight=False)
    for why in (daemon.why_not, unread):
        if why is not None:
            console.print(str(why), soft_wrap=True)
    if rows:
        _print_table(console, rows)
    else:
        console.print("No device: find a strap with `leadone scan`, then `leadone pair` it.")


def _print_table(console: Console, rows: Sequence[_Row]) -> None:
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
        table.add_row(
            row.stream.device,
            row.stream.patient,
            row.model,
            state,
            "--" if row.battery is None else f"{row.battery} %",
            "never" if row.last_ns is None else f"{span(_age_s(row.last_ns))} ago",
            "--" if row.missing_s is None else span(row.missing_s),
        )
    console.print(table)
    for line in advised:
        console.print(line, soft_wrap=True)


@dataclass(frozen=True, slots=True)
class _Stored:
    """What the database has of a device: as in ``_Row``."""

    strap: Strap | None
    state: StrapState | None
    last_ns: int | None
    missing_s: float | None


def _stored(config: Config, history: History, now_ns: int) -> dict[Stream, _Stored]:
    """The straps that are paired, the configured sources, and what a broker's devices sent."""
    local = datetime.fromtimestamp(now_ns / 1e9, tz=UTC).astimezone()
    midnight = local.replace(hour=0, minute=0, second=0, microsecond=0)
    today_ns = round(midnight.timestamp()) * 1_000_000_000
    until_ns = now_ns + AHEAD_NS
    straps = {strap.stream: (strap, state) for strap, state in history.straps()}
    configured = [Stream(s.patient, s.device) for s in config.sources]
    ends = {
        stream: history.last_sample(stream, until_ns=until_ns)
        for stream in dict.fromkeys([*straps, *configured, *history.streams()])
    }
    missing: dict[Stream, int] = {}
    for patient in {stream.patient for stream in ends}:
        for gap in history.gaps(patient, today_ns, LAST_NS):
            lost = min(gap.end_ns, now_ns) - max(gap.start_ns, today_ns)
            missing[gap.stream] = missing.get(gap.stream, 0) + max(lost, 0)
    found: dict[Stream, _Stored] = {}
    for stream, last_ns in ends.items():
        strap, state = straps.get(stream, (None, None))
        if strap is None and stream not in configured and not _of_broker(config, last_ns, now_ns):
            continue
        lost_ns = missing.get(stream, 0)
        if strap is not None and last_ns is not None and not is_fresh(last_ns):
            # It is stored as a gap when samples come again.
            lost_ns += max(now_ns - max(last_ns, today_ns), 0)
        missing_s = None if last_ns is None else lost_ns / 1e9
        found[stream] = _Stored(strap, state, last_ns, missing_s)
    return found


def _of_broker(config: Config, last_ns: int | None, now_ns: int) -> bool:
    """Whether a stream that is none of ours is a device of the broker that is still watched."""
    return config.mqtt is not None and last_ns is not None and now_ns - last_ns < GONE_S * 1e9


def _rows(config: Config, daemon: Daemon, stored: dict[Stream, _Stored]) -> Iterator[_Row]:
    types = {Stream(s.patient, s.device): s.type for s in config.sources}
    said = [] if daemon.status is None else daemon.status["streams"]
    live = {Stream(row["patient"], row["device"]): row for row in said}
    nothing = _Stored(None, None, None, None)
    running = None if daemon.status is None and not daemon.is_dead else not daemon.is_dead
    for stream in dict.fromkeys([*stored, *types, *live]):
        known, now = stored.get(stream, nothing), live.get(stream)
        strap, state = known.strap, known.state
        if now is not None and now["strap"] is not None:
            strap, state = _strap_from(stream, now)
        model = types.get(stream, _MQTT) if strap is None else _label(strap.kind)
        last_ns = known.last_ns
        if now is not None and now["sample_ns"] is not None:
            last_ns = max(now["sample_ns"], last_ns or 0)
        battery = None if state is None else state.battery
        if now is not None:
            battery = now["battery"]
        yield _Row(
            stream,
            model,
            strap,
            state,
            last_ns,
            known.missing_s,
            battery,
            running,
            now,
        )


def _strap_from(stream: Stream, live: dict[str, Any]) -> tuple[Strap, StrapState]:
    """A strap as the daemon told of it."""
    row = live["strap"]
    state = StrapState(
        stream,
        row["stage"],
        row["cause"],
        row["advice"],
        row["since_ns"],
        live["battery"],
        row["battery_ns"],
    )
    return Strap(stream, row["address"], row["model"], row["adapter"], row["paired_ns"]), state


def _state(row: _Row) -> tuple[str, str | None]:
    """What a device does, and what to do about it."""
    if not row.running:
        return "not known" if row.running is None else "not watched", None
    if row.live is None:
        # Paired since the daemon started.
        return "not yet tried", RESTART
    if row.streaming:
        why = row.live["why"]
        return ("streaming", None) if why is None else ("not read", why)
    if row.state is not None and row.state.cause is not None:
        return row.state.cause, row.state.advice
    if row.state is not None and row.state.stage != Stage.STREAMING:
        return row.state.stage, row.state.advice
    return "silent", row.live["why"]


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
            "battery_at": None if state.battery_ns is None else iso(state.battery_ns),
        }
    return {
        "device": row.stream.device,
        "patient": row.stream.patient,
        "model": row.model if strap is None else strap.kind,
        "running": row.running,
        "streaming": row.streaming,
        "unread": None if row.live is None else row.live["why"],
        "battery": row.battery,
        "last_sample": None if row.last_ns is None else iso(row.last_ns),
        "missing_today_s": None if row.missing_s is None else round(row.missing_s, 1),
        **of_strap,
    }


def is_fresh(last_ns: int | None) -> bool:
    """Whether a device whose last sample is of this time is being listened to."""
    return last_ns is not None and abs(time.time_ns() - last_ns) < _FRESH_NS


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
