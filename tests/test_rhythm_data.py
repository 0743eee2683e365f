"""Recorded fibrillation through the daemon as it is deployed: killed, hindered, over a bad link."""

import math
import signal
import sqlite3
import subprocess
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from program import Program, write_config
from watching import STREAM, T0, S, write_csv

from alerts.rhythm import LETHAL
from ingest.chunk import Chunk
from ingest.recordings import read_recording
from models.rhythm.model import RhythmModel
from monitor.rhythms import StreamRhythms
from monitor.storage.history import History
from monitor.storage.maintenance import check

pytestmark = pytest.mark.data

RATE = 250.0
# MIT-BIH Malignant Ventricular Ectopy, record 426: annotated "(VF" from 645 s on, after "(N".
RECORD, ONSET_S = "vfdb/426", 645


@pytest.fixture(scope="module")
def recorded(data: Path) -> NDArray[np.float32]:
    path = data / f"{RECORD}.hea"
    if not path.exists():
        pytest.skip(f"needs {path}")
    recording = read_recording(path)
    assert recording.rate == RATE
    samples: NDArray[np.float32] = recording.segments[0].microvolts[0]
    return samples


def part(samples: NDArray[np.float32], begin_s: float, end_s: float) -> NDArray[np.float32]:
    return samples[round(begin_s * RATE) : round(end_s * RATE)]


def frames(samples: NDArray[np.float32], lost: int | None = None) -> Iterator[Chunk]:
    """As a strap sends them, 73 samples at a time; every so many is lost."""
    for i, first in enumerate(range(0, len(samples), 73)):
        if lost is None or i % lost != lost - 1:
            start_ns = T0 + round(first / RATE * 1e9)
            yield Chunk(STREAM, start_ns, RATE, samples[first : first + 73])


@pytest.mark.parametrize("lost", [None, 12, 6])
def test_fibrillation_is_heard_over_a_link_that_loses_frames(
    recorded: NDArray[np.float32], lost: int | None
) -> None:
    rhythms = StreamRhythms(STREAM, RhythmModel())
    begin_s = ONSET_S - 60
    seen = [
        one
        for chunk in frames(part(recorded, begin_s, ONSET_S + 30), lost)
        for one in rhythms.add(chunk)
    ]
    assert len(seen) >= 80
    lethal = [begin_s + (one.at_ns - T0) / S for one in seen if one.rhythm in LETHAL]
    assert ONSET_S < lethal[0] <= ONSET_S + 15
    onset = next(one.since_ns for one in seen if one.rhythm in LETHAL)
    assert begin_s + (onset - T0) / S == pytest.approx(ONSET_S, abs=5)


def test_it_leaves_the_event_loop_to_others(recorded: NDArray[np.float32]) -> None:
    """Less than a hundredth of a second for each second, on the slowest of machines."""
    rhythms = StreamRhythms(STREAM, RhythmModel())
    chunks = list(frames(part(recorded, 0, 120)))
    begun_s = time.process_time()
    for chunk in chunks:
        rhythms.add(chunk)
    assert (time.process_time() - begun_s) / 120 < 0.01


class Ward:
    """The daemon as a process that replays a recording, and a file of what people were told."""

    def __init__(self, folder: Path, samples: NDArray[np.float32]) -> None:
        self.folder = folder
        self.told_path = folder / "told"
        script = folder / "tell"
        script.write_text(f'#!/bin/sh\nprintf "%s\\n" "$LEADONE_TITLE" >> {self.told_path}\n')
        script.chmod(0o755)
        record = write_csv(folder / "record.csv", samples, RATE)
        source = {
            "type": "replay",
            "patient": "anna",
            "device": "strap",
            "records": [str(record)],
        }
        channels = [{"type": "command", "command": [str(script)]}]
        alarms = {"contacts": [{"name": "eve", "channels": channels}]}
        self.config = write_config(folder, [source], alarms=alarms)
        self.url = f"sqlite:///{folder}/leadone.db"

    def program(self, **how: Any) -> Program:
        return Program("run", "-c", self.config, folder=self.folder, **how)

    @property
    def told(self) -> list[str]:
        """Titles of messages about the heart."""
        lines = self.told_path.read_text().splitlines() if self.told_path.exists() else []
        return [line for line in lines if "anna" in line]

    def is_settled(self) -> bool:
        """Whether it is stored that there is an alarm, and that somebody was told of it."""
        with History(self.url) as history:
            told = [d for a in history.active_alarms() for _, _, d in history.deliveries(a.id)]
        return any(delivery is not None for delivery in told)

    def until_told(self, program: Program, within_s: float) -> float:
        """Wait for a message; how long that took, in seconds."""
        begun_s = time.monotonic()
        program.until(lambda: bool(self.told), within_s)
        return time.monotonic() - begun_s


def test_killed_in_fibrillation_it_is_heard_after_the_restart_and_once(
    tmp_path: Path, recorded: NDArray[np.float32]
) -> None:
    ward = Ward(tmp_path, part(recorded, ONSET_S + 5, ONSET_S + 60))
    with ward.program() as program:
        program.until_logged("ready")
        time.sleep(2)
        assert program.end(signal.SIGKILL).code == -signal.SIGKILL
    assert ward.told == []
    begun_s = time.monotonic()
    with ward.program() as program:
        ward.until_told(program, 15)
        assert time.monotonic() - begun_s <= 10
        # Killed once more when that is on record: it is known, and told no second time.
        program.until(ward.is_settled)
        assert program.end(signal.SIGKILL).code == -signal.SIGKILL
    told = ward.told
    assert len(told) == 1
    with ward.program() as program:
        program.until_logged("ready")
        time.sleep(8)
        assert program.process.poll() is None
        assert ward.told == told
        assert program.end(signal.SIGTERM).code == 0
    with History(ward.url) as history:
        assert len([a for a in history.active_alarms() if a.condition in LETHAL]) == 1


def test_it_is_heard_while_the_database_is_locked(
    tmp_path: Path, recorded: NDArray[np.float32]
) -> None:
    ward = Ward(tmp_path, part(recorded, ONSET_S - 5, ONSET_S + 60))
    with ward.program() as program:
        program.until_logged("ready")
        locked = sqlite3.connect(tmp_path / "leadone.db", isolation_level=None)
        locked.execute("BEGIN EXCLUSIVE")
        try:
            # Fibrillation begins after five seconds.
            assert ward.until_told(program, 30) <= 5 + 15
        finally:
            locked.execute("ROLLBACK")
            locked.close()
        assert program.end(signal.SIGTERM).code == 0


def test_killed_in_fibrillation_it_is_heard_after_the_restart_though_the_database_is_locked(
    tmp_path: Path, recorded: NDArray[np.float32]
) -> None:
    ward = Ward(tmp_path, part(recorded, ONSET_S + 5, ONSET_S + 60))
    with ward.program() as program:
        program.until_logged("ready")
        time.sleep(2)
        assert program.end(signal.SIGKILL).code == -signal.SIGKILL
    assert ward.told == []
    locked = sqlite3.connect(tmp_path / "leadone.db", isolation_level=None)
    locked.execute("BEGIN EXCLUSIVE")
    try:
        begun_s = time.monotonic()
        with ward.program() as program:
            ward.until_told(program, 30)
            assert time.monotonic() - begun_s <= 10
            locked.execute("ROLLBACK")
            program.until(ward.is_settled)
            assert program.end(signal.SIGTERM).code == 0
    finally:
        locked.close()
    assert check(ward.url) == []


# Its first argument stays where it is, and nothing else of /tmp, which is a file system of its own
# without a byte left. Nobody outside sees that.
FULL_TMP = """
set -e
mount --bind "$1" /mnt
mount -t tmpfs -o size=16k none /tmp
mkdir -p "$1"
mount --bind /mnt "$1"
if dd if=/dev/zero of=/tmp/full bs=1k count=64 2>/dev/null; then exit 1; fi
shift
exec "$@"
"""


def test_it_is_heard_with_no_room_for_temporary_files(
    tmp_path: Path, recorded: NDArray[np.float32]
) -> None:
    within = ["unshare", "--mount", "sh", "-c", FULL_TMP, "sh", str(tmp_path)]
    if subprocess.run([*within, "true"], check=False, capture_output=True).returncode != 0:
        pytest.skip("needs the right to mount a file system")
    ward = Ward(tmp_path, part(recorded, ONSET_S + 5, ONSET_S + 60))
    with ward.program(within=within, env={"TMPDIR": "/tmp"}) as program:
        program.until_logged("ready")
        assert ward.until_told(program, 20) <= 10
        assert program.end(signal.SIGTERM).code == 0


def test_what_is_not_finite_is_bridged_as_what_is_lost(recorded: NDArray[np.float32]) -> None:
    """Amid fibrillation, half a second of it."""
    samples = part(recorded, ONSET_S - 30, ONSET_S + 20).copy()
    chunk = Chunk(STREAM, T0, RATE, samples)
    gap = slice(round(33 * RATE), round(33.5 * RATE))
    broken = samples.copy()
    broken[gap] = math.nan
    seen = StreamRhythms(STREAM, RhythmModel()).add(replace(chunk, microvolts=broken))
    assert len(seen) == len(StreamRhythms(STREAM, RhythmModel()).add(chunk))
    assert any(one.rhythm in LETHAL for one in seen)
