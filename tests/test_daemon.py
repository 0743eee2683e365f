"""The daemon: nothing is lost, nothing is told twice, and one thing that fails fails alone."""

import asyncio
import contextlib
import functools
import math
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import structlog
from prometheus_client import REGISTRY
from watching import (
    ALWAYS,
    STREAM,
    T0,
    FakeAnalyzer,
    S,
    Told,
    fake_engine,
    gaps,
    new_database,
    ramp,
    seconds,
    segments,
    started,
    starts,
    uncovered,
    until,
    windows,
)

from alerts.conditions import Alarm, Change, Priority, State
from alerts.engine import Engine
from alerts.lethal import RhythmEngine
from alerts.policy import Policy
from alerts.records import Presence, Signal
from ingest.chunk import Chunk, Stream
from ingest.episodes import Episode, EpisodeKind, Script
from ingest.simulator import SimulatorSource, simulate
from ingest.source import Source
from models.bundle import DEFAULT, find_bundle
from models.runtime import Runtime
from monitor import daemon as daemon_module
from monitor.alarms import Alarms
from monitor.analysis import Analyzer
from monitor.backlog import Backlog
from monitor.config import Config
from monitor.daemon import Daemon
from monitor.progress import Progress, Stage
from monitor.quality import Reason
from monitor.results import WindowResult
from monitor.resume import backlog, restore
from monitor.ring import Ring
from monitor.service import serve
from monitor.storage import database
from monitor.storage import writer as writer_module
from monitor.storage.history import History
from monitor.storage.maintenance import check
from monitor.storage.writer import Writer
from monitor.window import Gap, Window

SINUS = Episode(EpisodeKind.SINUS_RHYTHM, 40)
SCRIPT = Script((SINUS,))


@pytest.fixture
def url(tmp_path: Path) -> str:
    return new_database(tmp_path)


@pytest.fixture(scope="module")
def runtime() -> Runtime:
    return Runtime(find_bundle(DEFAULT))


@pytest.fixture(autouse=True)
def quick_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(daemon_module, "_FIRST_RETRY_S", 0.01)


def metric(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(f"leadone_{name}_total", labels) or 0.0


def watch(
    url: str,
    *sources: Source,
    analyzer: Any = None,
    engine: Engine | None = None,
    length_s: float = 10.0,
    hop_s: float = 5.0,
    on_result: Iterable[Callable[[WindowResult], None]] = (),
    on_change: Iterable[Callable[[Change], None]] = (),
    on_chunk: Iterable[Callable[[Any], None]] = (),
) -> Daemon:
    writer = started(url)
    return Daemon(
        sources,
        writer=writer,
        analyzer=analyzer or FakeAnalyzer(),
        alarms=Alarms(engine or fake_engine(), writer, on_change=list(on_change)),
        length_s=length_s,
        hop_s=hop_s,
        on_chunk=list(on_chunk),
        on_result=list(on_result),
    )


async def run(daemon: Daemon, stop: asyncio.Event | None = None, **options: Any) -> None:
    """Run to the end; a daemon that hangs fails its test rather than the whole suite."""
    async with asyncio.timeout(60):
        await daemon.run(stop or asyncio.Event(), **options)


def cut(chunks: Iterable[Chunk], length_s: float = 10.0, hop_s: float = 5.0) -> list[Window]:
    """The windows of one stream, as a ring of its own gives them."""
    ring: Ring | None = None
    found: list[Window] = []
    for chunk in chunks:
        ring = ring or Ring(chunk.stream, length_s=length_s, hop_s=hop_s)
        found += ring.add(chunk).windows
    return found + (ring.finish() if ring else [])


# --- the path of a sample


async def test_what_a_result_is_about_is_durable_before_it_is_told(url: str) -> None:
    checked = []

    def look(result: WindowResult) -> None:
        durable = {(chunk.start_ns - T0) // S for chunk in segments(url)}
        start = (result.start_ns - T0) // S
        assert durable.issuperset(range(start, start + 10))
        assert start in starts(windows(url))
        checked.append(result)

    with structlog.testing.capture_logs() as logs:
        await run(watch(url, Told(seconds(*range(31))), on_result=[look]))
    assert starts(checked) == [0, 5, 10, 15, 20, 21]
    # What a listener raises is logged: here it would be a failed assertion.
    assert [log["event"] for log in logs] == ["source ended"]


async def test_results_are_those_of_the_analyzer_on_the_same_windows(
    url: str, runtime: Runtime
) -> None:
    source = SimulatorSource(STREAM, SCRIPT, seed=5, speed=math.inf, start_ns=T0)
    await run(watch(url, source, analyzer=Analyzer(runtime)))
    found = windows(url)
    assert starts(found) == [0, 5, 10, 15, 20, 25, 30]
    expected = [Analyzer(runtime).analyze([window])[0] for window in cut(segments(url))]
    for stored, fresh in zip(found, expected, strict=True):
        assert stored.grade.good
        assert (stored.start_ns, stored.duration_s) == (fresh.start_ns, fresh.duration_s)
        assert stored.grade == fresh.grade
        assert stored.heart_rate == fresh.heart_rate
        assert stored.longest_rr_s == fresh.longest_rr_s
        assert np.array_equal(stored.r_peaks_s, fresh.r_peaks_s)
        assert stored.model == fresh.model
        assert stored.probabilities is not None
        assert fresh.probabilities is not None
        # One batch or another: the same to the last bits but one.
        assert np.allclose(stored.probabilities, fresh.probabilities, atol=1e-5)


async def test_patients_do_not_mix(url: str) -> None:
    streams = [Stream("anna", "strap"), Stream("anna", "patch"), Stream("boris", "strap")]
    sources = [Told(seconds(*range(20 + 5 * i), stream=s)) for i, s in enumerate(streams)]
    await run(watch(url, *sources))
    found = windows(url, "anna") + windows(url, "boris")
    for i, stream in enumerate(streams):
        assert starts(r for r in found if r.stream == stream) == [*range(0, 11 + 5 * i, 5)]


async def test_gaps_are_stored_with_their_cause(url: str) -> None:
    lost = Script((Episode(EpisodeKind.SINUS_RHYTHM, 60, lost_s=((12, 14), (25, 45))),))
    source = SimulatorSource(STREAM, lost, seed=1, speed=math.inf, start_ns=T0)
    await run(watch(url, source))
    found = [
        (round((g.start_ns - T0) / S, 1), round((g.end_ns - T0) / S, 1), g.cause) for g in gaps(url)
    ]
    assert found == [(12, 14, "no data"), (25, 45, "no data")]
    # The long gap is drawn over by no window, the short one is inside some.
    near = S // 50
    for result in windows(url):
        assert result.end_ns <= T0 + 25 * S + near or result.start_ns >= T0 + 45 * S - near
    assert uncovered(segments(url), windows(url)) == []


async def test_a_clock_set_back_is_a_gap_and_loses_nothing(url: str) -> None:
    late = [replace(c, start_ns=c.start_ns - 3600 * S) for c in seconds(*range(12, 24))]
    await run(watch(url, Told([*seconds(*range(12)), *late])))
    assert gaps(url) == [Gap(STREAM, T0 + 12 * S, T0 + (12 - 3600) * S, "clock set back")]
    assert len(segments(url)) == 24
    assert starts(windows(url)) == [12 - 3600, 14 - 3600, 0, 2]


async def test_stop_loses_nothing_that_is_in_flight(url: str, runtime: Runtime) -> None:
    stop = asyncio.Event()
    seen: list[WindowResult] = []

    def count(result: WindowResult) -> None:
        seen.append(result)
        if len(seen) == 9:
            stop.set()

    class Noted:
        """Keeps what the source gave, whether or not the daemon took it."""

        name = "noted"
        live = False
        given = 0

        async def chunks(self) -> Any:
            source = SimulatorSource(
                STREAM, SCRIPT, seed=2, speed=math.inf, start_ns=T0, repeat=True, chunk_s=0.7
            )
            async for chunk in source.chunks():
                self.given += 1
                yield chunk

    source = Noted()
    daemon = watch(url, source, analyzer=Analyzer(runtime), on_result=[count])
    await run(daemon, stop)
    held, found = segments(url), windows(url)
    assert len(held) == source.given
    assert [w.start_ns for w in cut(held)] == [r.start_ns for r in found]
    assert found[-1].end_ns == pytest.approx(held[-1].end_ns, abs=S // 100)
    assert len(seen) == len(found) >= 9
    assert check(url) == []


async def test_stop_during_an_endless_wait_for_chunks(url: str) -> None:
    class Silent:
        name = "silent"
        live = False
        closed = False

        async def chunks(self) -> Any:
            try:
                yield ramp(0, 7)
                await asyncio.Event().wait()
            finally:
                self.closed = True

    source, stop = Silent(), asyncio.Event()
    running = asyncio.create_task(run(watch(url, source), stop))
    await until(lambda: len(segments(url)) == 1)
    stop.set()
    await running
    assert source.closed
    assert [(r.start_ns, r.duration_s) for r in windows(url)] == [(T0, 7.0)]


async def test_the_path_waits_rather_than_growing(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A slow network holds the source back; nothing is dropped, and no queue grows."""
    monkeypatch.setattr(daemon_module, "_WINDOWS_WAITING", 4)
    ahead = []

    class Slow(FakeAnalyzer):
        def analyze(self, windows: Any) -> list[WindowResult]:
            last = windows[-1].end_ns
            ahead.append((source.given[-1].end_ns - last) / S)
            return super().analyze(windows)

    source = Told(seconds(*range(600)))
    await run(watch(url, source, analyzer=Slow()))
    assert len(windows(url)) == 119
    # At most the queue, and the window for which there was no room, at 5 s each.
    assert max(ahead) <= 5 * (4 + 1 + 1)


async def test_live_devices_do_not_wait_for_a_slow_network(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Raw segments are all stored at once; of the windows the oldest are stored unread."""
    monkeypatch.setattr(daemon_module, "_WINDOWS_WAITING", 4)
    go_on = threading.Event()

    class Stuck(FakeAnalyzer):
        def analyze(self, windows: Any) -> list[WindowResult]:
            go_on.wait(20)
            return super().analyze(windows)

    before = metric("windows_skipped")
    streams = [STREAM, Stream("boris", "strap"), Stream("clara", "strap")]
    chunks = [ramp(n, 1, stream=stream) for n in range(100) for stream in streams]
    running = asyncio.create_task(run(watch(url, Told(chunks, live=True), analyzer=Stuck())))
    try:
        await until(lambda: sum(len(segments(url, s.patient)) for s in streams) == 300)
    finally:
        go_on.set()
    await running
    for stream in streams:
        found = windows(url, stream.patient)
        assert starts(found) == [*range(0, 91, 5)]
        assert found[-1].grade.good
    skipped = sum(
        w.grade.reasons == (Reason.SKIPPED,) for s in streams for w in windows(url, s.patient)
    )
    assert metric("windows_skipped") - before == skipped
    # Of 57, a batch of eight was read, four waited, and a few were not cut yet.
    assert skipped > 20
    assert check(url) == []


async def test_a_chunk_is_acknowledged_when_it_is_durable(url: str) -> None:
    stored_then: list[int] = []
    chunks = [
        replace(chunk, acknowledge=lambda: stored_then.append(len(segments(url))))
        for chunk in seconds(*range(5))
    ]
    # The last one is delivered again.
    await run(watch(url, Told([*chunks, chunks[-1]], live=True)))
    assert stored_then == [1, 2, 3, 4, 5, 5]


async def test_what_the_writer_gave_up_is_not_acknowledged(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "BUSY_TIMEOUT_S", 0.05)
    monkeypatch.setattr(daemon_module, "PATIENCE_S", 0.05)
    acknowledged: list[int] = []
    chunk = replace(ramp(0, 1), acknowledge=lambda: acknowledged.append(1))
    daemon = watch(url, Told([chunk], live=True))
    monkeypatch.setattr(
        daemon._writer, "stop", functools.partial(daemon._writer.stop, timeout_s=0.2)
    )
    with locked(url):
        await run(daemon)
    assert segments(url) == []
    assert acknowledged == []


# --- what fails, fails alone


async def test_a_source_that_fails_is_logged_counted_and_opened_again(url: str) -> None:
    broken = OSError("no such adapter")
    source = Told([*seconds(*range(6)), broken, broken, *seconds(*range(6, 12))], "polar anna")
    other = Told(seconds(*range(12), stream=Stream("boris", "strap")))
    before = metric("source_failures", source="polar anna")
    with structlog.testing.capture_logs() as logs:
        await run(watch(url, source, other))
    assert metric("source_failures", source="polar anna") == before + 2
    failures = [log for log in logs if log["event"] == "source failed"]
    assert [log["source"] for log in failures] == ["polar anna"] * 2
    # It waits longer each time, until something comes again.
    assert [log["retry_s"] for log in failures] == [0.01, 0.02]
    assert source.opened == 3
    assert len(segments(url)) == len(segments(url, "boris")) == 12
    assert starts(windows(url)) == [0, 2]


async def test_a_window_that_cannot_be_analysed_fails_alone(url: str) -> None:
    before = metric("windows_failed")
    with structlog.testing.capture_logs() as logs:
        await run(
            watch(url, Told([ramp(0, 100)]), analyzer=FakeAnalyzer(fails_at=frozenset({20, 45})))
        )
    assert metric("windows_failed") == before + 2
    failed = [log["start_ns"] for log in logs if log["event"] == "window failed"]
    assert failed == [T0 + 20 * S, T0 + 45 * S]
    found = windows(url)
    assert starts(found) == [*range(0, 91, 5)]
    unread = [w for w in found if w.grade.reasons == (Reason.FAILED,)]
    assert starts(unread) == [20, 45]


async def test_a_listener_that_fails_ends_nothing(url: str) -> None:
    told: list[WindowResult] = []
    changes: list[Change] = []

    def fails(_: object) -> None:
        raise RuntimeError("no terminal")

    with structlog.testing.capture_logs() as logs:
        await run(
            watch(
                url,
                Told(seconds(*range(30))),
                analyzer=FakeAnalyzer(lambda _: 0.9),
                on_result=[fails, told.append],
                on_change=[fails, changes.append],
            )
        )
    assert starts(told) == starts(windows(url)) == [0, 5, 10, 15, 20]
    assert [c.state for c in changes] == [State.ACTIVE]
    assert [log["event"] for log in logs if log["log_level"] == "error"] == ["not told"] * 6


async def test_an_engine_that_fails_keeps_nobody_from_being_watched(url: str) -> None:
    def policy(patient: str) -> Policy:
        if patient == "anna":
            raise ValueError("no policy for anna")
        return Policy()

    boris = Stream("boris", "strap")
    sources = [Told(seconds(*range(20))), Told(seconds(*range(20), stream=boris))]
    with structlog.testing.capture_logs() as logs:
        await run(watch(url, *sources, engine=Engine(policy)))
    assert starts(windows(url)) == starts(windows(url, "boris")) == [0, 5, 10]
    failed = [log["stream"] for log in logs if log["event"] == "alarms failed"]
    assert failed == ["anna/strap"] * 3


async def test_an_analysis_that_ends_ends_the_run_loudly(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a full queue and nobody to empty it, there is much that could wait for ever."""
    monkeypatch.setattr(daemon_module, "_WINDOWS_WAITING", 2)
    daemon = watch(url, Told([ramp(0, 200)]))

    async def dies() -> None:
        await until(daemon._windows.full)
        raise MemoryError

    monkeypatch.setattr(daemon, "_analyze", dies)
    with pytest.raises(MemoryError):
        await run(daemon, backlog=[ramp(-300, 200)])


@contextlib.contextmanager
def locked(url: str) -> Iterator[None]:
    """Somebody else writes, and does not come to an end."""
    connection = sqlite3.connect(url.removeprefix("sqlite:///"), isolation_level=None)
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
    finally:
        connection.execute("ROLLBACK")
        connection.close()


async def test_a_database_that_is_away_stops_no_watch(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "BUSY_TIMEOUT_S", 0.05)
    monkeypatch.setattr(writer_module, "_LAST_RETRY_S", 0.1)
    monkeypatch.setattr(daemon_module, "PATIENCE_S", 0.2)
    told: list[WindowResult] = []
    changes: list[Change] = []
    source = Told(seconds(*range(200)))
    daemon = watch(
        url,
        source,
        analyzer=FakeAnalyzer(lambda s: 0.9 if 30 <= s < 100 else 0.1),
        on_result=[told.append],
        on_change=[changes.append],
    )
    with locked(url):
        running = asyncio.create_task(run(daemon))
        # Raised and ended, while not a single row can be written.
        await until(lambda: len(changes) == 2)
        assert [c.state for c in changes] == [State.ACTIVE, State.ENDED]
        assert segments(url) == []
    await running
    assert len(segments(url)) == 200
    assert starts(windows(url)) == starts(told) == [*range(0, 191, 5)]
    with History(url) as history:
        assert history.changes(changes[0].alarm.id) == changes
    assert check(url) == []


async def test_a_result_that_no_database_takes_is_counted_and_its_alarm_told(url: str) -> None:
    class Odd(FakeAnalyzer):
        def analyze(self, windows: Any) -> list[WindowResult]:
            # One probability for two classes.
            return [
                replace(r, probabilities=r.probabilities[:1]) if starts([r]) == [15] else r
                for r in super().analyze(windows)
            ]

    before = metric("results_refused")
    told: list[WindowResult] = []
    with structlog.testing.capture_logs() as logs:
        await run(watch(url, Told(seconds(*range(30))), analyzer=Odd(), on_result=[told.append]))
    assert starts(told) == [0, 5, 10, 15, 20]
    assert starts(windows(url)) == [0, 5, 10, 20]
    assert metric("results_refused") == before + 1
    assert "not stored" in [log["event"] for log in logs]


# --- what waits for nothing


def pausing(pause_s: float = 9.0, after_s: float = 0.0) -> list[Chunk]:
    """Half a minute of sinus rhythm, a pause that is told at 40 s or so, and sinus rhythm."""
    episodes = [
        Episode(EpisodeKind.SINUS_RHYTHM, 30),
        Episode(EpisodeKind.SINUS_ARREST, 38, per_minute=1.5, pause_s=pause_s),
    ]
    if after_s:
        episodes.append(Episode(EpisodeKind.SINUS_RHYTHM, after_s))
    microvolts = simulate(Script(tuple(episodes)), rate=130.0, seed=1).microvolts
    return [
        Chunk(STREAM, T0 + n * S, 130.0, microvolts[130 * n : 130 * (n + 1)])
        for n in range(len(microvolts) // 130 if after_s else 60)
    ]


def pauses(url: str) -> list[tuple[State, float]]:
    """States of pauses and when they began, in seconds from ``T0``."""
    with History(url) as history:
        return [
            (change.state, (change.at_ns - T0) / S)
            for alarm in history.alarms("anna", *ALWAYS)
            for change in history.changes(alarm.id)
            if alarm.condition == "pause"
        ]


class Held(FakeAnalyzer):
    """Analyses nothing until it is let go."""

    def __init__(self) -> None:
        super().__init__()
        self.go_on = threading.Event()

    def analyze(self, windows: Any) -> list[WindowResult]:
        assert self.go_on.wait(60)
        return super().analyze(windows)


@pytest.mark.parametrize("after_s", [0.0, 30.0])
async def test_a_pause_waits_for_neither_inference_nor_database(
    url: str, after_s: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(daemon_module, "PATIENCE_S", 0.1)
    analyzer, changes = Held(), []
    # Most of them lie before the pause, and all are read after it was told.
    chunks = pausing(after_s=after_s)
    daemon = watch(
        url,
        Told(chunks, live=True),
        analyzer=analyzer,
        engine=Engine(lambda _: Policy()),
        on_change=[changes.append],
    )
    with locked(url):
        running = asyncio.create_task(run(daemon))
        await until(lambda: bool(changes))
        assert (changes[0].alarm.condition, changes[0].state) == ("pause", State.ACTIVE)
        assert windows(url) == []
    analyzer.go_on.set()
    await running
    assert len(windows(url)) > 10
    states = pauses(url)
    # Without more, too few windows end after the pause was seen to end it, and more than enough
    # before that.
    assert [state for state, _ in states] == [State.ACTIVE, State.ENDED][: 2 if after_s else 1]
    assert states[0][1] < 50


async def test_pauses_of_a_recording_are_those_of_their_time(url: str) -> None:
    """It is heard as fast as the disk takes it, minutes ahead of the windows that are read."""
    first = pausing(after_s=40)
    shift_ns = first[-1].end_ns - T0
    second = [replace(chunk, start_ns=chunk.start_ns + shift_ns) for chunk in pausing(after_s=40)]

    class Slow(FakeAnalyzer):
        def analyze(self, windows: Any) -> list[WindowResult]:
            time.sleep(0.2)
            return super().analyze(windows)

    engine = Engine(lambda _: Policy())
    await run(watch(url, Told([*first, *second]), analyzer=Slow(), engine=engine))
    assert [state for state, _ in pauses(url)] == [State.ACTIVE, State.ENDED] * 2


@pytest.mark.parametrize(("ago_s", "told"), [(5, True), (70, False)])
async def test_a_pause_that_an_earlier_run_stored_is_told_if_it_is_of_now(
    url: str, ago_s: float, told: bool
) -> None:
    """As after a kill in the middle of one."""
    heard = [chunk for chunk in pausing() if chunk.end_ns <= T0 + 46 * S]
    shift_ns = time.time_ns() - round(ago_s * S) - heard[-1].end_ns
    recent = [replace(chunk, start_ns=chunk.start_ns + shift_ns) for chunk in heard]
    changes: list[Change] = []
    daemon = watch(url, engine=Engine(lambda _: Policy()), on_change=[changes.append])
    await run(daemon, recent=recent)
    assert [change.alarm.condition for change in changes] == ["pause"] * told


async def test_a_backlog_raises_no_pause_of_now_nor_breaks_the_run_of_what_comes(url: str) -> None:
    """What is of now is heard while the backlog of the stream waits, and only that."""
    chunks = pausing(after_s=60)
    await leave_behind(url, chunks)
    late = [replace(chunk, start_ns=chunk.start_ns + 600 * S) for chunk in pausing()]
    analyzer, changes = Held(), []
    daemon = watch(
        url,
        Told(late, live=True),
        analyzer=analyzer,
        engine=Engine(lambda _: Policy()),
        on_change=[changes.append],
    )
    running = asyncio.create_task(run(daemon, backlog=chunks))
    await until(lambda: bool(changes))
    assert changes[0].at_ns > T0 + 600 * S
    analyzer.go_on.set()
    await running
    # The windows of the backlog, read later, have not ended it.
    assert [state for state, _ in pauses(url)] == [State.ACTIVE]


async def test_a_dead_analysis_is_seen_and_a_slow_one_is_not(url: str) -> None:
    analyzer, progress = Held(), Progress()
    writer = started(url)
    daemon = Daemon(
        [Told(seconds(*range(40)), live=True)],
        writer=writer,
        analyzer=analyzer,
        alarms=Alarms(fake_engine(), writer),
        length_s=10,
        hop_s=5,
        progress=progress,
    )
    running = asyncio.create_task(run(daemon))
    await until(lambda: progress.stalled(0.5) is not None)
    stall = progress.stalled(0.5)
    assert stall is not None
    assert (stall.stage, stall.stream) == (Stage.ANALYSIS, STREAM)
    analyzer.go_on.set()
    await running
    assert progress.stalled(0) is None


async def test_a_writer_that_never_comes_round_is_seen_and_not_waited_for(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The thread hangs: no error, and chunks are heard, cut and read all the same."""
    hangs, progress = threading.Event(), Progress()
    monkeypatch.setattr(daemon_module, "PATIENCE_S", 0.3)
    write = Writer._write

    def hang(writer: Writer, groups: Any, **how: Any) -> bool:
        hangs.wait(60)
        return write(writer, groups, **how)

    monkeypatch.setattr(Writer, "_write", hang)
    results: list[WindowResult] = []
    writer = started(url)
    daemon = Daemon(
        [Told(seconds(*range(300)), live=True)],
        writer=writer,
        analyzer=FakeAnalyzer(),
        alarms=Alarms(fake_engine(), writer),
        length_s=10,
        hop_s=5,
        on_result=[results.append],
        progress=progress,
    )
    running = asyncio.create_task(run(daemon))
    await until(lambda: len(results) >= 58, 20)
    await until(lambda: progress.stalled(0.5) is not None)
    stall = progress.stalled(0.5)
    assert stall is not None
    assert stall.stage is Stage.STORAGE
    hangs.set()
    await running
    assert len(segments(url)) == 300
    assert progress.stalled(0) is None


# --- what stops no source from being heard


async def test_everybody_is_heard_while_inference_hangs_after_a_start(url: str) -> None:
    """Twenty devices of one broker, and more windows of before than may wait."""
    streams = [Stream(f"p{n}", "strap") for n in range(20)]
    # None of them is through with it before there are too many.
    left = [ramp(0, 180, stream=stream) for stream in streams]
    left += [ramp(180, 5, stream=stream) for stream in streams]
    durable: list[int] = []
    live = [
        replace(ramp(185 + n, 1, stream=stream), acknowledge=lambda: durable.append(1))
        for n in range(40)
        for stream in streams
    ]
    analyzer = Held()
    heard: list[Chunk] = []
    daemon = watch(url, Told(live, live=True), analyzer=analyzer, on_chunk=[heard.append])
    running = asyncio.create_task(run(daemon, backlog=left))
    try:
        await until(lambda: len(heard) == 800, 20)
        await until(lambda: len(durable) == 800, 20)
        assert daemon._windows.full()
        assert all(daemon._left[stream] for stream in streams)
    finally:
        analyzer.go_on.set()
    await running
    for stream in streams:
        stored, found = segments(url, stream.patient), windows(url, stream.patient)
        assert len(stored) == 40
        assert starts(found) == [*range(0, 216, 5)]
        assert uncovered(stored, found) == []
        assert gaps(url, stream.patient) == []


async def test_what_comes_while_a_backlog_hangs_is_left_to_the_background(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Memory is bounded; what is left is no gap, and is found in the database."""
    monkeypatch.setattr(daemon_module, "_WINDOWS_WAITING", 2)
    monkeypatch.setattr(daemon_module, "_PARKED", 20)
    await leave_behind(url, seconds(*range(80)))
    _, left = taken_up(url, T0 + 100 * S)
    assert len(left) == 80
    before = metric("chunks_left_to_backlog")
    analyzer = Held()
    daemon = watch(url, Told(seconds(*range(100, 160)), live=True), analyzer=analyzer)
    daemon._ended = {STREAM: T0 + 80 * S}
    with structlog.testing.capture_logs() as logs:
        running = asyncio.create_task(run(daemon, backlog=left))
        try:
            await until(lambda: metric("chunks_left_to_backlog") - before == 40)
        finally:
            analyzer.go_on.set()
        await running
    assert [log["start_ns"] for log in logs if log["event"] == "chunks_left_to_backlog"] == [
        T0 + 100 * S
    ]
    gap = Gap(STREAM, T0 + 80 * S, T0 + 100 * S, "leadone was not running")
    assert gaps(url) == [gap]
    assert starts(windows(url)) == [*range(0, 71, 5), 140, 145, 150]
    # As the hourly look does, or the next start.
    writer = started(url)

    async def read(windows: list[Window]) -> list[WindowResult]:
        return FakeAnalyzer().analyze(windows)

    looking = Backlog(
        url, writer, read, length_s=10, hop_s=5, until={STREAM: segments(url)[-1].end_ns}
    )
    await looking._pass(first=True)
    await asyncio.to_thread(writer.stop)
    assert uncovered(segments(url), windows(url)) == []
    assert gaps(url) == [gap]


@pytest.mark.parametrize(("asked", "most"), [(False, 20_000), (True, 20_000), (True, 50)])
async def test_a_writer_that_hangs_with_all_it_can_hold_makes_nobody_deaf(
    url: str, asked: bool, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What its sender does not keep is given up and counted; the rest only without end."""
    hangs = threading.Event()
    monkeypatch.setattr(daemon_module, "PATIENCE_S", 0.1)
    monkeypatch.setattr(daemon_module, "_MOST_UNSTORED", 5)
    monkeypatch.setattr(daemon_module, "_CHUNKS_UNDER_WAY", 10)
    monkeypatch.setattr(daemon_module, "_MOST_UNDER_WAY", most)
    write = Writer._write

    def hang(writer: Writer, groups: Any, **how: Any) -> bool:
        hangs.wait(60)
        return write(writer, groups, **how)

    monkeypatch.setattr(Writer, "_write", hang)
    before = metric("records_lost")
    acknowledged: list[int] = []
    chunks = seconds(*range(600))
    if asked:
        chunks = [replace(c, acknowledge=lambda: acknowledged.append(1)) for c in chunks]
    heard: list[Chunk] = []
    with structlog.testing.capture_logs() as logs:
        running = asyncio.create_task(
            run(watch(url, Told(chunks, live=True), on_chunk=[heard.append]))
        )
        try:
            await until(lambda: len(heard) == 600, 10)
            assert acknowledged == []
        finally:
            hangs.set()
        await running
    lost = metric("records_lost") - before
    assert len(segments(url)) == 600 - lost
    assert len(acknowledged) == (600 - lost if asked else 0)
    kept = asked and most > 600
    assert [log["event"] for log in logs].count("chunks_lost") == (0 if kept else 1)
    assert (lost == 0) is kept


async def test_a_run_ends_though_a_database_hangs_on_all_threads_of_the_loop(url: str) -> None:
    answers = threading.Event()
    hanging = [asyncio.create_task(asyncio.to_thread(answers.wait, 60)) for _ in range(64)]
    try:
        async with asyncio.timeout(10):
            await watch(url, Told(seconds(*range(12)))).run(asyncio.Event())
    finally:
        answers.set()
        await asyncio.gather(*hanging)
    assert starts(windows(url)) == [0, 2]


# --- alarms


def afib(start_s: float, end_s: float) -> Callable[[float], float]:
    return lambda s: 0.9 if start_s <= s < end_s else 0.1


async def test_an_alarm_is_raised_and_ended_once_and_kept(url: str) -> None:
    changes: list[Change] = []
    await run(
        watch(
            url,
            Told(seconds(*range(150))),
            analyzer=FakeAnalyzer(afib(40, 90)),
            on_change=[changes.append],
        )
    )
    raised, ended = changes
    assert (raised.state, ended.state) == (State.ACTIVE, State.ENDED)
    assert raised.alarm.id == ended.alarm.id
    assert (raised.alarm.patient, raised.alarm.condition) == ("anna", "class:AF")
    # The third window that speaks for it, and the third against it, each at its end.
    assert raised.alarm.started_ns == T0 + 40 * S
    assert raised.at_ns == T0 + 60 * S
    assert ended.at_ns == T0 + 110 * S
    with History(url) as history:
        assert history.alarms("anna", *ALWAYS) == [ended.alarm]
        assert history.changes(raised.alarm.id) == changes
        assert history.active_alarms() == []


def taken_up(url: str, now_ns: int, streams: Iterable[Stream] = (STREAM,)) -> Any:
    """Engine and backlog as a start of the service takes them from the database."""
    engine = fake_engine()
    with History(url) as history:
        restore(engine, RhythmEngine(), history, now_ns=now_ns, hop_s=5)
        left = backlog(history, streams, now_ns=now_ns, length_s=10, hop_s=5)
    return engine, left


async def leave_behind(url: str, chunks: Iterable[Chunk]) -> None:
    """Segments without windows, as a crash leaves them."""
    writer = started(url)
    await writer.store(*chunks)
    await asyncio.to_thread(writer.stop)


def _signal(alarm: Alarm) -> Signal:
    return Signal(
        alarm=alarm,
        presence=Presence.ON,
        since_ns=T0,
        bout=alarm.id,
        bout_count=1,
        bout_started_ns=T0,
    )


@pytest.mark.parametrize("told_of", ["a", "b"])
async def test_an_alarm_that_two_processes_raised_does_not_keep_a_start_from_watching(
    url: str, told_of: str
) -> None:
    """As a replay leaves one that runs beside the daemon and ends while there is AF."""
    writer = started(url)
    for n, name in enumerate("ab"):
        alarm = Alarm(name, "anna", "class:AF", Priority.MEDIUM, T0, T0 + n * S)
        await writer.store(Change(alarm, T0 + n * S, State.ACTIVE, "AF"))
        if name == told_of:
            await writer.store(_signal(alarm))
    await asyncio.to_thread(writer.stop)
    engine = fake_engine()
    with History(url) as history:
        (double,) = restore(engine, RhythmEngine(), history, now_ns=T0 + 60 * S, hop_s=5)
    assert [a.id for a in engine.active("anna")] == [told_of]
    assert (double.alarm.id, double.state) == ("b" if told_of == "a" else "a", State.ENDED)
    assert double.alarm.ended_ns == T0 + 60 * S


async def test_a_restart_neither_forgets_an_alarm_nor_repeats_it(url: str) -> None:
    analyzer = FakeAnalyzer(afib(40, 120))
    first: list[Change] = []
    await run(
        watch(url, Told(seconds(*range(80))), analyzer=analyzer, on_change=[first.append]),
    )
    assert [c.state for c in first] == [State.ACTIVE]
    await leave_behind(url, seconds(*range(80, 97)))

    engine, left = taken_up(url, T0 + 98 * S)
    assert [a.id for a in engine.active("anna")] == [first[0].alarm.id]
    second: list[Change] = []
    daemon = watch(
        url,
        Told(seconds(*range(97, 180))),
        analyzer=analyzer,
        engine=engine,
        on_change=[second.append],
    )
    await run(daemon, backlog=left)
    assert [c.state for c in second] == [State.ENDED]
    assert second[0].alarm.id == first[0].alarm.id
    assert second[0].at_ns == T0 + 140 * S
    with History(url) as history:
        assert history.changes(first[0].alarm.id) == first + second
        assert len(history.alarms("anna", *ALWAYS)) == 1
    # Nor does it show in the windows.
    assert starts(windows(url)) == [*range(0, 171, 5)]
    assert gaps(url) == []


async def test_evidence_from_before_a_restart_counts(url: str) -> None:
    analyzer = FakeAnalyzer(afib(40, 999))
    await run(watch(url, Told(seconds(*range(55))), analyzer=analyzer))
    engine, left = taken_up(url, T0 + 56 * S)
    # Two windows speak for it; one that is read again must not be the third.
    assert left == []
    changes: list[Change] = []
    source = Told(seconds(*range(50, 60)))
    await run(
        watch(url, source, analyzer=analyzer, engine=engine, on_change=[changes.append]),
    )
    assert [c.at_ns for c in changes] == [T0 + 60 * S]


async def test_what_a_crash_left_is_analysed_and_the_time_after_it_is_a_gap(url: str) -> None:
    await run(watch(url, Told(seconds(*range(30)))))
    await leave_behind(url, seconds(*range(30, 48)))
    engine, left = taken_up(url, T0 + 90 * S)
    source = Told(seconds(*range(90, 102)))
    await run(watch(url, source, engine=engine), backlog=left)
    assert starts(windows(url)) == [0, 5, 10, 15, 20, 25, 30, 35, 38, 90, 92]
    assert gaps(url) == [Gap(STREAM, T0 + 48 * S, T0 + 90 * S, "no data")]


async def test_a_stop_while_a_backlog_is_read_loses_none_of_it(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(daemon_module, "_WINDOWS_WAITING", 2)
    await leave_behind(url, seconds(*range(100)))
    stop = asyncio.Event()
    _, left = taken_up(url, T0 + 100 * S)
    assert len(left) == 100
    source = Told(seconds(*range(100, 110)))
    await run(watch(url, source, on_result=[lambda _: stop.set()]), stop, backlog=left)
    # What came meanwhile is heard and durable, and waits for its turn.
    assert len(source.given) == 1
    assert segments(url)[-1].start_ns == T0 + 100 * S
    some = len(windows(url))
    assert some < 10
    _, left = taken_up(url, T0 + 101 * S)
    await run(watch(url), backlog=left)
    assert len(windows(url)) >= 19
    assert uncovered(segments(url), windows(url)) == []


async def test_signal_is_heard_before_it_is_stored_and_while_a_backlog_waits(url: str) -> None:
    await leave_behind(url, seconds(*range(40)))
    _, left = taken_up(url, T0 + 40 * S)
    held = threading.Event()
    heard: list[tuple[float, int]] = []

    class Waits(FakeAnalyzer):
        def analyze(self, windows: Any) -> list[WindowResult]:
            assert held.wait(30)
            return super().analyze(windows)

    def hear(chunk: Any) -> None:
        heard.append(((chunk.start_ns - T0) / S, len(segments(url))))
        if len(heard) == 8:
            held.set()

    daemon = watch(
        url,
        Told(seconds(*range(40, 45)), live=True),
        analyzer=Waits(),
        on_chunk=[lambda _: 1 / 0, hear],
    )
    await run(daemon, backlog=left, recent=left[-3:])
    # Those of before, then each ahead of its own storing.
    assert [at for at, _ in heard] == [37, 38, 39, 40, 41, 42, 43, 44]
    assert [stored for _, stored in heard[:4]] == [40] * 4
    assert all(stored <= at for at, stored in heard[3:])
    assert starts(windows(url)) == [0, 5, 10, 15, 20, 25, 30, 35]
    assert uncovered(segments(url), windows(url)) == []


async def test_a_stop_while_a_backlog_is_read_stores_no_window_cut_short(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would stand in the place of the one that is due, which begins where it begins."""
    await run(watch(url, Told(seconds(*range(15)))))
    await leave_behind(url, seconds(*range(15, 18)))
    stop = asyncio.Event()
    add = Ring.add

    def stops(ring: Ring, chunk: Chunk) -> Any:
        if chunk.start_ns >= T0 + 11 * S:
            stop.set()
        return add(ring, chunk)

    with monkeypatch.context() as patched:
        patched.setattr(Ring, "add", stops)
        await run(watch(url), stop, backlog=backlog_of(url, 19))
    assert starts(windows(url)) == [0, 5]
    await run(watch(url), backlog=backlog_of(url, 19))
    assert uncovered(segments(url), windows(url)) == []


async def test_a_chunk_that_breaks_the_ring_does_not_break_every_start(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await leave_behind(url, seconds(*range(40)))
    add = Ring.add

    def breaks(ring: Ring, chunk: Chunk) -> Any:
        if chunk.start_ns == T0 + 17 * S:
            raise ZeroDivisionError
        return add(ring, chunk)

    monkeypatch.setattr(Ring, "add", breaks)
    engine, left = taken_up(url, T0 + 41 * S)
    with structlog.testing.capture_logs() as logs:
        await run(watch(url, engine=engine), backlog=left)
    assert [log["start_ns"] for log in logs if log["event"] == "chunk failed"] == [T0 + 17 * S]
    assert starts(windows(url))[-1] == 30


def backlog_of(url: str, now_s: float, length_s: float = 10, hop_s: float = 5) -> list[Chunk]:
    with History(url) as history:
        now_ns = T0 + round(now_s * S)
        return backlog(history, [STREAM], now_ns=now_ns, length_s=length_s, hop_s=hop_s)


@pytest.mark.parametrize("hop_s", [5.0, 10.0, 2.0])
async def test_the_next_window_after_a_crash_is_the_one_that_would_have_come(
    url: str, hop_s: float
) -> None:
    """Whatever the chunks: a broker's message may be longer than the windows overlap."""
    chunks = [ramp(7 * i, 7) for i in range(9)]
    await run(watch(url, Told(chunks[:4]), hop_s=hop_s))
    await leave_behind(url, chunks[4:])
    left = backlog_of(url, 70, hop_s=hop_s)
    end_s = (windows(url)[-1].end_ns - T0) / S
    assert (left[0].start_ns - T0) / S == pytest.approx(end_s - (10 - hop_s), abs=0.011)
    assert left[0].microvolts[0] == round((end_s - (10 - hop_s)) * 100)
    await run(watch(url, hop_s=hop_s), backlog=left)
    assert uncovered(segments(url), windows(url)) == []
    later = [s for s in starts(windows(url)) if s > end_s - 10]
    assert later[0] == pytest.approx(end_s - (10 - hop_s))


@pytest.mark.parametrize("true_rate", [98.0, 100.0, 102.0])
async def test_a_clean_stop_leaves_nothing_behind(url: str, true_rate: float) -> None:
    """Nor does it where the device's clock is off, and a window's length is not exact."""
    chunks = [
        Chunk(
            STREAM,
            T0 + round(k * 130 / true_rate * S),
            100.0,
            np.arange(k * 130, k * 130 + 130, dtype=np.float32),
        )
        for k in range(37)
    ]
    await run(watch(url, Told(chunks)))
    assert uncovered(segments(url), windows(url)) == []
    assert backlog_of(url, 60) == []


async def test_a_backlog_reaches_back_an_hour_and_is_of_the_asked_streams(url: str) -> None:
    other = Stream("anna", "patch")
    await leave_behind(url, [*seconds(*range(30)), *seconds(15, 16, 17, stream=other)])
    left = backlog_of(url, 3610)
    assert {c.stream for c in left} == {STREAM}
    assert (left[0].start_ns - T0) // S == 10
    assert len(left) == 20
    assert backlog_of(url, 7200) == []
    with History(url) as history:
        assert backlog(history, [Stream("zoe", "x")], now_ns=T0, length_s=10, hop_s=5) == []


# --- the service


async def test_the_service_starts_twice_on_one_database(tmp_path: Path) -> None:
    """The first start creates it; the second finds everybody in it, and no backlog."""
    url = f"sqlite:///{tmp_path}/new.db"
    config = Config.model_validate(
        {
            "database": url,
            "patients": [{"id": "anna", "name": "Anna Example"}],
            "sources": [
                {
                    "type": "simulator",
                    "patient": "anna",
                    "device": "strap",
                    "script": [{"kind": "sinus_rhythm", "duration": 60}],
                }
            ],
        }
    )
    ready = []
    for seed in (1, 2):
        source = SimulatorSource(
            STREAM, SCRIPT, seed=seed, speed=math.inf, start_ns=T0 + seed * 60 * S
        )
        with structlog.testing.capture_logs() as logs:
            async with asyncio.timeout(60):
                await serve(config, [source], find_bundle(DEFAULT), stop=asyncio.Event())
        ready += [log for log in logs if log["event"] == "ready"]
        assert logs[-1]["event"] == "stopped"
    assert [log["backlog_chunks"] for log in ready] == [0, 0]
    assert starts(windows(url)) == [60 + s for s in range(0, 31, 5)] + [
        120 + s for s in range(0, 31, 5)
    ]
    with History(url) as history:
        assert [(p.id, p.name) for p in history.patients()] == [("anna", "Anna Example")]
    # The first run's signal ended at 100 s, the second's began at 120 s.
    (gap,) = gaps(url)
    assert gap.cause == "leadone was not running"
    assert (gap.start_ns - T0) / S == pytest.approx(100, abs=0.02)
    assert gap.end_ns == T0 + 120 * S
