"""kill -9 at any moment: what was committed is there, and its windows are made up for."""

import random
import signal
import time
from pathlib import Path

import pytest
from program import Program, simulator, write_config
from storage_samples import facts
from watching import ALWAYS, uncovered

from ingest.chunk import Chunk
from monitor.results import WindowResult
from monitor.storage.history import History
from monitor.storage.maintenance import check

PATIENTS = ("anna", "boris", "clara", "dora")


def everything(url: str) -> tuple[list[Chunk], list[WindowResult]]:
    chunks: list[Chunk] = []
    windows: list[WindowResult] = []
    with History(url) as history:
        for patient in PATIENTS:
            chunks += history.segments(patient, *ALWAYS)
            windows += history.windows(patient, *ALWAYS)
    return chunks, windows


def run_and_kill(folder: Path, config: Path, url: str, moments: random.Random) -> list[Chunk]:
    """What a reader saw just before the daemon was killed."""
    with Program("run", "-c", config, folder=folder) as program:
        program.until_logged("ready")
        # From before the first window to some windows later: they come each second after five.
        time.sleep(moments.uniform(0.5, 6.0))
        seen, _ = everything(url)
        assert program.end(signal.SIGKILL).code == -signal.SIGKILL
    return seen


@pytest.mark.parametrize("seed", [1, 2])
def test_what_was_committed_survives_and_its_windows_are_made_up_for(
    tmp_path: Path, seed: int
) -> None:
    config = write_config(
        tmp_path,
        [simulator(patient, seed=i) for i, patient in enumerate(PATIENTS)],
        window={"length": "5s", "hop": "1s"},
    )
    url = f"sqlite:///{tmp_path}/leadone.db"
    moments = random.Random(seed)
    seen: list[Chunk] = []
    for _ in range(2):
        seen += run_and_kill(tmp_path, config, url, moments)
        assert check(url) == []
        there = {(c.stream, c.start_ns): facts(c) for c in everything(url)[0]}
        for chunk in seen:
            assert there[chunk.stream, chunk.start_ns] == facts(chunk)
    assert len(seen) > 2 * len(PATIENTS)

    # What a stop cuts off of a backlog is left to the start after it.
    for start in range(5):
        with Program("run", "-c", config, folder=tmp_path) as program:
            program.until_logged("ready")
            time.sleep(start)
            assert program.end(signal.SIGTERM).code == 0
        missing = uncovered(*everything(url))
        if not missing:
            break
    assert missing == []
    assert check(url) == []
