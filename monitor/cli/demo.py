"""``leadone demo``: the whole daemon on simulated patients, in a terminal."""

import asyncio
import json
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from rich.console import Console
from rich.live import Live

from alerts.conditions import Change
from alerts.delivery import describe
from ingest.activities import IMITATORS
from ingest.chunk import Stream
from ingest.episodes import Episode, EpisodeKind, Script
from ingest.simulator import Noise, SimulatorSource
from models.bundle import Bundle
from monitor import logs
from monitor.board import Board
from monitor.cli.dashboard import render
from monitor.cli.errors import MisuseError
from monitor.cli.times import iso, seconds
from monitor.config import Config
from monitor.service import open_bundle, serve
from monitor.stopping import stop_on_signals

_REFRESH_S = 0.25
_NOISE = Noise(baseline_uv=60, mains_uv=10, muscle_uv=12)

# Anna's fibrillation is the alarm the demonstration is about: it begins early enough to be raised
# and ended within a minute at five times life.
_SCRIPTS = {
    "anna": Script(
        (
            Episode(EpisodeKind.SINUS_RHYTHM, 40, heart_rate=68),
            Episode(EpisodeKind.ATRIAL_FIBRILLATION, 100, heart_rate=112),
            Episode(EpisodeKind.SINUS_RHYTHM, 400, heart_rate=72),
        ),
        noise=_NOISE,
    ),
    "boris": Script(
        (
            Episode(EpisodeKind.SINUS_RHYTHM, 60, heart_rate=58),
            Episode(EpisodeKind.VENTRICULAR_ECTOPY, 120, heart_rate=62, per_minute=8),
            Episode(EpisodeKind.SINUS_RHYTHM, 60, heart_rate=58, electrode_off_s=((10, 40),)),
            Episode(EpisodeKind.SINUS_ARREST, 60, heart_rate=60, pause_s=4.6, per_minute=2),
            Episode(EpisodeKind.SINUS_RHYTHM, 240, heart_rate=58),
        ),
        noise=_NOISE,
    ),
    "clara": Script(
        (
            Episode(EpisodeKind.SINUS_RHYTHM, 60, heart_rate=84),
            Episode(EpisodeKind.SINUS_TACHYCARDIA, 120, heart_rate=148),
            Episode(EpisodeKind.FIRST_DEGREE_AV_BLOCK, 120, heart_rate=66, pr_s=0.29),
            Episode(EpisodeKind.SINUS_RHYTHM, 240, heart_rate=80, lost_s=((20, 26),)),
        ),
        noise=_NOISE,
    ),
}

_SHOWN_TO = "dora"
_SHOWN_S = 40
_SHOWABLE = {
    "vf": EpisodeKind.VENTRICULAR_FIBRILLATION,
    "vt": EpisodeKind.VENTRICULAR_TACHYCARDIA,
} | {kind.value: kind for kind in EpisodeKind}
_TORN_OFF = "electrode_off"


def showing(names: Iterable[str]) -> Script:
    """Return a script of what is asked for, after 20 s of sinus rhythm, with more in between.

    Args:
        names: kinds of episodes, ``vf``, ``vt``, movements that imitate them, ``electrode_off``.

    Raises:
        MisuseError: one of the names is nothing that can be shown.
    """
    # An alarm of a lethal rhythm ends after half a minute without it.
    sinus = Episode(EpisodeKind.SINUS_RHYTHM, 45, heart_rate=70)
    episodes = [Episode(EpisodeKind.SINUS_RHYTHM, 20, heart_rate=70)]
    for name in names:
        if name in _SHOWABLE:
            episodes.append(Episode(_SHOWABLE[name], _SHOWN_S))
        elif name in IMITATORS:
            episodes.append(
                Episode(EpisodeKind.SINUS_RHYTHM, _SHOWN_S, heart_rate=70, noise=IMITATORS[name])
            )
        elif name == _TORN_OFF:
            off = ((0.0, float(_SHOWN_S)),)
            episodes.append(Episode(EpisodeKind.SINUS_RHYTHM, _SHOWN_S, electrode_off_s=off))
        else:
            known = ", ".join([*_SHOWABLE, *IMITATORS, _TORN_OFF])
            raise MisuseError(f"--show: must be one of {known}, not {name!r}")
        episodes.append(sinus)
    return Script(tuple(episodes), noise=_NOISE)


def run_demo(
    duration: str | None, speed: float, *, show: Sequence[str] = (), json_lines: bool
) -> None:
    """Run until ``duration`` is over or somebody presses Ctrl-C.

    Args:
        duration: how long, as on the command line.
        speed: how many times faster than life.
        show: what one more patient has, one after the other.
        json_lines: print JSON.

    Raises:
        MisuseError: if ``duration`` is none, or something cannot be shown.
    """
    scripts = _SCRIPTS | ({_SHOWN_TO: showing(show)} if show else {})
    limit_s = None if duration is None else seconds(duration, "--for")
    if limit_s is not None and limit_s <= 0:
        raise MisuseError("--for: must be more than 0")
    with tempfile.TemporaryDirectory(prefix="leadone-demo-") as folder:
        config = Config.model_validate(
            {
                "database": f"sqlite:///{Path(folder) / 'demo.db'}",
                "patients": [{"id": patient} for patient in scripts],
                "sources": [
                    {
                        "type": "simulator",
                        "patient": patient,
                        "device": "sim",
                        "script": [
                            {"kind": e.kind.value, "duration": e.duration_s}
                            for e in script.episodes
                        ],
                    }
                    for patient, script in scripts.items()
                ],
            }
        )
        asyncio.run(_demo(config, scripts, limit_s, speed, json_lines=json_lines))


async def _demo(
    config: Config,
    scripts: Mapping[str, Script],
    limit_s: float | None,
    speed: float,
    *,
    json_lines: bool,
) -> None:
    # Before anything else, so that the folder goes whenever the end comes.
    stop = asyncio.Event()
    stop_on_signals(stop)
    console = Console()
    live = console.is_terminal and not json_lines
    logs.configure("error" if live else "warning")
    bundle = open_bundle(config)
    names = bundle.class_names
    board = Board(bundle.thresholds, tuple(scripts))
    sources = [
        SimulatorSource(
            Stream(patient, "sim"), script, seed=seed, speed=speed, repeat=True, chunk_s=0.5
        )
        for seed, (patient, script) in enumerate(scripts.items(), start=1)
    ]
    loop = asyncio.get_running_loop()
    if limit_s is not None:
        loop.call_later(limit_s, stop.set)

    gone: list[BrokenPipeError] = []

    def tell(change: Change) -> None:
        if live or gone:
            return
        line = json.dumps(_change_json(change)) if json_lines else describe(change, names)
        try:
            sys.stdout.write(line + "\n")
            sys.stdout.flush()
        except BrokenPipeError as error:
            # Whoever read this (head, less) has had enough.
            gone.append(error)
            stop.set()

    serving = asyncio.create_task(
        serve(
            config,
            sources,
            bundle,
            stop=stop,
            on_result=[board.result],
            on_change=[board.change, tell],
            on_rhythm=[board.rhythm],
        )
    )
    if live:
        await _draw(console, board, bundle, serving, speed)
    elif not json_lines:
        await _print_status(board, bundle, serving)
    await serving
    if gone:
        raise gone[0]


async def _draw(
    console: Console, board: Board, bundle: Bundle, serving: asyncio.Task[None], speed: float
) -> None:
    loop = asyncio.get_running_loop()
    started = loop.time()
    with Live(console=console, auto_refresh=False, transient=False) as live:
        while not serving.done():
            live.update(render(board, bundle, loop.time() - started, speed), refresh=True)
            await asyncio.wait({serving}, timeout=_REFRESH_S)
        live.update(render(board, bundle, loop.time() - started, speed), refresh=True)


async def _print_status(board: Board, bundle: Bundle, serving: asyncio.Task[None]) -> None:
    """Where there is no terminal: a line a patient as soon as there is a window, then each 10 s."""
    console = Console(width=110)
    loop = asyncio.get_running_loop()
    printed: float | None = None
    while not serving.done():
        await asyncio.wait({serving}, timeout=_REFRESH_S)
        everybody = all(now.windows for now in board.patients.values())
        due = printed is None or loop.time() - printed >= 10
        if everybody and due:
            console.print(render(board, bundle, None, None))
            printed = loop.time()


def _change_json(change: Change) -> dict[str, object]:
    alarm = change.alarm
    return {
        "patient": alarm.patient,
        "condition": alarm.condition,
        "priority": alarm.priority,
        "state": change.state,
        "at": iso(change.at_ns),
        "started": iso(alarm.started_ns),
        "reason": change.reason,
    }
