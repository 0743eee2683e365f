"""kill -9 at any moment: what was committed is there, and its windows are made up for."""

import asyncio
import json
import math
import random
import signal
import sqlite3
import time
from contextlib import closing
from pathlib import Path

import pytest
from program import Program, simulator, write_config
from storage_samples import facts
from watching import ALWAYS, S, started, uncovered

from ingest.chunk import Chunk, Stream
from ingest.episodes import Episode, EpisodeKind, Script
from ingest.simulator import SimulatorSource
from monitor.results import WindowResult
from monitor.storage.history import History
from monitor.storage.maintenance import check
from monitor.window import NOT_RUNNING, Gap

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


# --- hours later

ANNA = Stream("anna", "sim")
HOURS = 5


def unread(seconds: int, until_ns: int) -> list[Chunk]:
    """Signal of anna's, as an analysis that stands still leaves it: stored, without windows."""
    script = Script((Episode(EpisodeKind.SINUS_RHYTHM, seconds),))
    source = SimulatorSource(ANNA, script, seed=5, speed=math.inf, start_ns=until_ns - seconds * S)

    async def chunks() -> list[Chunk]:
        return [chunk async for chunk in source.chunks()]

    return asyncio.run(chunks())


def sleep_for_hours(folder: Path) -> None:
    """Let all that is stored be of some hours ago."""
    with closing(sqlite3.connect(folder / "leadone.db")) as connection, connection:
        for table, columns in {
            "segments": ("start_ns",),
            "windows": ("start_ns",),
            "gaps": ("start_ns", "end_ns"),
            "examined": ("clear_ns", "low_ns", "high_ns"),
        }.items():
            shifted = ", ".join(f"{name} = {name} - {HOURS * 3600 * S}" for name in columns)
            connection.execute(f"UPDATE {table} SET {shifted}")


def stored(url: str) -> tuple[list[Chunk], list[tuple[int, int, float]], list[Gap]]:
    """Chunks, windows (start, end, seconds since 1970 at which they were seen) and gaps of anna."""
    with History(url) as history:
        return (
            list(history.segments("anna", *ALWAYS)),
            [(w.start_ns, w.end_ns, time.time()) for w in history.windows("anna", *ALWAYS)],
            list(history.gaps("anna", *ALWAYS)),
        )


@pytest.mark.parametrize("ended_by", [signal.SIGKILL, signal.SIGTERM])
def test_hours_later_everything_gets_a_verdict_while_hearts_are_watched(
    tmp_path: Path, ended_by: signal.Signals
) -> None:
    config = write_config(tmp_path, [simulator()], window={"length": "5s", "hop": "2s"})
    url = f"sqlite:///{tmp_path}/leadone.db"
    code = 0 if ended_by is signal.SIGTERM else -ended_by
    with Program("run", "-c", config, folder=tmp_path) as program:
        program.until_logged("backlog_done")
        program.until(lambda: len(stored(url)[1]) >= 2)
        assert program.end(ended_by).code == code
    chunks, windows, _ = stored(url)
    between_ns = chunks[0].start_ns - (HOURS * 3600 + 50) * S
    writer = started(url)
    writer.submit(*unread(1600, chunks[0].start_ns - 100 * S)).result(60)
    # As an earlier version would have said it.
    false = Gap(ANNA, windows[-1][1] - 2 * S, chunks[-1].end_ns + 4 * S, NOT_RUNNING)
    writer.submit(false).result(60)
    writer.stop()
    sleep_for_hours(tmp_path)
    chunks, _, _ = stored(url)
    last_ns = chunks[-1].end_ns
    old = len(chunks)

    # It is ended once more in the midst of it, and nothing is lost or done twice.
    with Program("run", "-c", config, folder=tmp_path) as program:
        program.until(lambda: len(stored(url)[1]) > 150)
        begun = time.monotonic()
        assert program.end(ended_by).code == code
        assert time.monotonic() - begun < 5
    chunks = stored(url)[0]
    assert uncovered(chunks[:old], everything(url)[1])

    seen: dict[int, float] = {}
    with Program("run", "-c", config, folder=tmp_path) as program:
        program.until_logged("ready")
        ready_ns = time.time_ns()

        def done() -> bool:
            for start_ns, end_ns, at in stored(url)[1]:
                if end_ns > ready_ns + 2 * S:
                    seen.setdefault(start_ns, at - end_ns / 1e9)
            return '"event": "backlog_done"' in program.err and len(seen) >= 3

        program.until(done)
        assert program.end(signal.SIGTERM).code == 0
        (finished,) = [
            line
            for line in map(json.loads, program.err.splitlines())
            if line["event"] == "backlog_done"
        ]
    chunks, windows, gaps = stored(url)
    assert uncovered(chunks, everything(url)[1]) == []
    # No window twice: one every two seconds, and the last one.
    of_old = [start for start, _, _ in windows if start < between_ns]
    assert of_old == sorted(set(of_old))
    assert len(of_old) == 799
    assert 0 < finished["windows"] < 799
    # Windows of now came all the while, each within a hop.
    assert max(seen.values()) < 2
    with closing(sqlite3.connect(tmp_path / "leadone.db")) as connection:
        order = [
            start for (start,) in connection.execute("SELECT start_ns FROM windows ORDER BY rowid")
        ]
    # The newest first: pieces of some 128 windows.
    made = [start for start in order if start < between_ns]
    assert min(made[:100]) > sorted(made)[-140]
    assert made.index(min(made)) > len(made) - 140
    # There are no samples in any gap.
    for gap in gaps:
        assert not [
            c for c in chunks if c.start_ns < gap.end_ns - S and c.end_ns > gap.start_ns + S
        ]
    first_new = next(chunk.start_ns for chunk in chunks if chunk.start_ns > last_ns)
    assert Gap(ANNA, last_ns, first_new, NOT_RUNNING) in gaps
    assert check(url) == []
