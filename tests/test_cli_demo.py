"""The program as a process: the demo, signals, and pipes that close."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from program import Program, simulator, write_config

from ingest.activities import IMITATORS
from ingest.episodes import EpisodeKind
from ingest.simulator import simulate
from monitor.cli.demo import showing
from monitor.storage.history import History
from monitor.storage.maintenance import check


def left_in(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir() if path.name.startswith("leadone-demo-")]


def test_the_demo_tells_alarms_as_json_and_leaves_nothing(tmp_path: Path) -> None:
    with Program("demo", "--for", "5s", "--speed", 20, "--json", folder=tmp_path) as program:
        done = program.end()
    assert done.code == 0
    assert done.err == ""
    # A machine that is busy may not get as far as an alarm; whatever is told is one.
    for row in done.rows:
        assert list(row) == [
            "patient",
            "condition",
            "priority",
            "state",
            "at",
            "started",
            "reason",
        ]
        assert row["patient"] in ("anna", "boris", "clara")
    assert left_in(tmp_path) == []


def test_the_demo_shows_what_is_asked_for(tmp_path: Path) -> None:
    asked = ("demo", "--show", "vf", "--show", "tremor", "--for", "60s", "--speed", 20)
    with Program(*asked, folder=tmp_path) as program:
        program.until(lambda: "dora" in program.out)
        done = program.end(signal.SIGTERM)
    assert (done.code, done.err) == (0, "")
    assert left_in(tmp_path) == []


def test_what_cannot_be_shown_is_told_with_what_can(tmp_path: Path) -> None:
    with Program("demo", "--show", "vf", "--show", "sleep", folder=tmp_path) as program:
        done = program.end()
    assert done.code != 0
    assert done.complaint.startswith("--show: must be one of vf, vt, sinus_rhythm, ")
    assert done.complaint.endswith(", tremor, electrode_off, not 'sleep'")


def test_each_comes_after_sinus_rhythm() -> None:
    sinus, vf, again, brushing, after = showing(["vf", "tooth_brushing"]).episodes
    assert (sinus.kind, sinus.duration_s) == (EpisodeKind.SINUS_RHYTHM, 20)
    assert (vf.kind, vf.noise) == (EpisodeKind.VENTRICULAR_FIBRILLATION, None)
    assert brushing.kind is EpisodeKind.SINUS_RHYTHM
    assert brushing.noise is not None
    assert brushing.noise.brushing_uv > 0
    # Longer than what an alarm of a lethal rhythm needs to end.
    assert again.duration_s == after.duration_s > 30


@pytest.mark.parametrize("name", [*EpisodeKind, *IMITATORS, "vt", "electrode_off"])
def test_everything_simulated_can_be_shown(name: str) -> None:
    simulation = simulate(showing([name]), seed=4, duration_s=60)
    assert np.isfinite(simulation.microvolts).all()
    assert np.ptp(simulation.microvolts[round(0.5 * 130) : 20 * 130]) > 400


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_demo_ends_when_told(tmp_path: Path, number: signal.Signals) -> None:
    """Without a terminal it prints a table as soon as everybody has a window."""
    with Program("demo", "--speed", 20, folder=tmp_path) as program:
        program.until(lambda: "clara" in program.out)
        done = program.end(number)
    assert (done.code, done.err) == (0, "")
    assert "Not a medical device." in done.out
    for patient in ("anna", "boris", "clara"):
        assert patient in done.out
    assert left_in(tmp_path) == []


def test_the_demo_ends_when_nobody_reads_it_any_more(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [
            *(sys.executable, "-c", "from monitor.cli import main; main()"),
            *("demo", "--json", "--speed", "100"),
        ],
        cwd=Path(__file__).parents[1],
        env=os.environ | {"TMPDIR": str(tmp_path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        assert process.stderr is not None
        # Anna's fibrillation or Clara's tachycardia: at this speed within some seconds.
        assert json.loads(process.stdout.readline())["state"] == "active"
        process.stdout.close()
        assert process.wait(60) == 1
        assert process.stderr.read() == ""
        process.stderr.close()
    finally:
        process.kill()
        process.wait()
    assert left_in(tmp_path) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_daemon_finishes_what_is_in_flight_when_told(
    tmp_path: Path, number: signal.Signals
) -> None:
    path = write_config(
        tmp_path, [simulator(), simulator("boris")], window={"length": "5s", "hop": "1s"}
    )
    url = f"sqlite:///{tmp_path}/leadone.db"

    def stored(what: str) -> int:
        with History(url) as history:
            return len(list(getattr(history, what)("anna", 0, 2**62)))

    with Program("run", "-c", path, folder=tmp_path) as program:
        program.until_logged("ready")
        program.until(lambda: stored("segments") >= 2)
        done = program.end(number)
    assert (done.code, done.out) == (0, "")
    logs = [json.loads(line) for line in done.err.splitlines()]
    assert logs[-1]["event"] == "stopped"
    assert check(url) == []
    # What had come so far is a window, however short.
    assert stored("windows") >= 1
    with History(url) as history:
        chunks = list(history.segments("anna", 0, 2**62))
        last = history.last_window_end(chunks[-1].stream)
    assert last == pytest.approx(chunks[-1].end_ns, abs=10_000_000)
