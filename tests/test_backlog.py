"""What was stored and has no verdict gets one, however old, and no gap covers it."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import structlog.testing
from sqlalchemy import create_engine, text
from watching import (
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

from alerts.conditions import Alarm, Observation
from alerts.engine import Engine
from alerts.lethal import RhythmEngine
from ingest.chunk import Chunk, Stream
from ingest.rr import RrIntervals
from monitor import backlog as backlog_module
from monitor.alarms import Alarms
from monitor.backlog import Backlog, Search
from monitor.daemon import Daemon
from monitor.earlier_run import known_streams
from monitor.quality import Reason
from monitor.results import WindowResult
from monitor.resume import backlog, ends, recent, restore
from monitor.resume import starts as begun
from monitor.ring import Ring
from monitor.spans import union, within, without
from monitor.storage.maintenance import check
from monitor.storage.records import Examined, Record
from monitor.storage.unread import SignalHistory
from monitor.storage.writer import Writer
from monitor.window import NOT_RUNNING, Gap, Window

DAY = 86_400
PATCH = Stream("anna", "patch")


@pytest.fixture
def url(tmp_path: Path) -> str:
    return new_database(tmp_path)


@pytest.fixture(autouse=True)
def no_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backlog_module, "_LEAST_REST_S", 0.0)
    monkeypatch.setattr(backlog_module, "_MOST_REST_S", 0.0)


async def store(url: str, *records: Record) -> None:
    writer = started(url)
    for at in range(0, len(records), 4000):
        await writer.store(*records[at : at + 4000])
    await asyncio.to_thread(writer.stop)


def execute(url: str, line: str, **values: Any) -> list[Any]:
    engine = create_engine(url)
    with engine.begin() as connection:
        done = connection.execute(text(line), values)
        rows = list(done) if done.returns_rows else []
    engine.dispose()
    return rows


class Looking:
    """Makes up for what is missing, as the daemon does beside everything else."""

    def __init__(self, url: str, *, analyzer: Any = None, **lengths: float) -> None:
        self._url = url
        self._analyzer = analyzer or FakeAnalyzer()
        self._lengths = {"length_s": 10.0, "hop_s": 5.0, **lengths}
        self.batches: list[int] = []

    async def analyze(self, given: list[Window]) -> list[WindowResult]:
        self.batches.append(len(given))
        return self._analyzer.analyze(given)

    def at(self, writer: Writer, now_s: float) -> Backlog:
        with SignalHistory(self._url) as history:
            stored = ends(history, now_ns=T0 + round(now_s * S))
        return Backlog(self._url, writer, self.analyze, until=stored, **self._lengths)

    async def look(self, now_s: float = 1e7, *, first: bool = True) -> None:
        writer = started(self._url)
        try:
            async with asyncio.timeout(60):
                await self.at(writer, now_s)._pass(first=first)
        finally:
            await asyncio.to_thread(writer.stop)


def made(url: str) -> list[float]:
    """The starts of all windows, in the order in which they were stored (SQLite)."""
    rows = execute(url, "SELECT start_ns FROM windows ORDER BY rowid")
    return [round((row.start_ns - T0) / S, 3) for row in rows]


def examined(url: str, stream: Stream = STREAM) -> Examined:
    with SignalHistory(url) as history:
        return history.examined(stream)


# --- stretches of time


def test_stretches_are_joined_subtracted_and_cut() -> None:
    assert union([(5, 7), (0, 3), (3, 4), (9, 9), (6, 8)]) == [(0, 4), (5, 8)]
    assert union([(0, 3), (5, 8)], bridge_ns=2) == [(0, 8)]
    assert without([(0, 10), (20, 30)], [(2, 3), (8, 22), (40, 50)]) == [(0, 2), (3, 8), (22, 30)]
    assert without([(0, 10)], [(2, 3)], more_than_ns=2) == [(3, 10)]
    assert without([(0, 10)], [(0, 10)]) == []
    assert within([(0, 4), (5, 8), (9, 12)], 2, 10) == [(2, 4), (5, 8), (9, 10)]
    assert within([(0, 4)], 4, 9) == []


# --- which windows


async def test_hours_without_a_verdict_get_the_windows_that_would_have_come(url: str) -> None:
    await store(url, *seconds(*range(2 * 3600 + 17)))
    looking = Looking(url)
    await looking.look()
    # As one ring cuts them, without one lost or doubled where pieces meet.
    whole = [*range(0, 7206, 5), 7207]
    assert starts(windows(url)) == whole
    assert uncovered(segments(url), windows(url)) == []
    assert max(looking.batches) <= 4
    # The newest first: pieces of some minutes, each of which is read forward.
    order = made(url)
    assert min(order[:128]) > 5_900
    assert order[-1] < 3600
    assert examined(url) == Examined(STREAM, T0 + 7217 * S)
    assert check(url) == []


@pytest.mark.parametrize(("length_s", "hop_s"), [(10, 10), (5, 1), (60, 7)])
async def test_whatever_windows_are_configured(url: str, length_s: float, hop_s: float) -> None:
    chunks = [ramp(7 * i, 7) for i in range(100)]
    ring = Ring(STREAM, length_s=length_s, hop_s=hop_s)
    expected = [w for chunk in chunks for w in ring.add(chunk).windows] + ring.finish()
    await store(url, *chunks)
    await Looking(url, length_s=length_s, hop_s=hop_s).look()
    assert starts(windows(url)) == starts(expected)


@pytest.mark.parametrize("true_rate", [98.0, 102.0])
async def test_whatever_the_rate_is_indeed(url: str, true_rate: float) -> None:
    chunks = [
        Chunk(
            STREAM,
            T0 + round(k * 130 / true_rate * S),
            100.0,
            np.arange(k * 130, k * 130 + 130, dtype=np.float32),
        )
        for k in range(1000)
    ]
    await store(url, *chunks)
    await Looking(url).look()
    assert uncovered(segments(url), windows(url)) == []
    count = len(windows(url))
    assert count == pytest.approx(1326 / 5, abs=12)
    await Looking(url).look()
    assert len(windows(url)) == count


async def test_holes_in_what_was_read_are_found(url: str) -> None:
    """Runs of their own, one within read signal, and one with the last samples of a run."""
    await store(url, *seconds(*range(100), *range(130, 160), *range(163, 200), *range(300, 304)))
    await Looking(url).look()
    whole = starts(windows(url))
    # Windows go on over a short hole, and end before a long one.
    assert whole == [*range(0, 91, 5), *range(130, 191, 5), 300]
    assert gaps(url) == [
        Gap(STREAM, T0 + 100 * S, T0 + 130 * S, "no data"),
        Gap(STREAM, T0 + 160 * S, T0 + 163 * S, "no data"),
        Gap(STREAM, T0 + 200 * S, T0 + 300 * S, "no data"),
    ]
    for lost in ((40, 60), (0, 20), (150, 400)):
        execute(
            url,
            "DELETE FROM windows WHERE start_ns >= :since AND start_ns < :until",
            since=T0 + lost[0] * S,
            until=T0 + lost[1] * S,
        )
        await Looking(url).look()
        assert starts(windows(url)) == whole
    assert len(gaps(url)) == 3


async def test_it_is_looked_for_by_stream_and_the_newest_of_all_first(url: str) -> None:
    await store(url, *seconds(*range(100)), *seconds(*range(5000, 5100), stream=PATCH))
    await Looking(url).look()
    assert made(url) == [*range(5000, 5091, 5), *range(0, 91, 5)]


async def test_nothing_is_done_again(url: str) -> None:
    await store(url, *seconds(*range(100)))
    await Looking(url).look()
    again = Looking(url)
    await again.look()
    assert again.batches == []


async def test_rr_intervals_are_judged_as_if_nothing_had_happened(url: str, tmp_path: Path) -> None:
    rr = np.random.default_rng(3).uniform(0.6, 1.1, 4000)
    ends_s = np.cumsum(rr)
    sent = [
        RrIntervals(STREAM, T0 + round(end * S), (float(r),), 70, True)
        for end, r in zip(ends_s, rr, strict=True)
        if not 1000 < end < 1100
    ]
    (tmp_path / "whole").mkdir()
    whole = new_database(tmp_path / "whole")
    writer = started(whole)
    daemon = Daemon(
        [Told(sent)],  # type: ignore[arg-type]
        writer=writer,
        analyzer=FakeAnalyzer(),
        alarms=Alarms(fake_engine(), writer),
        length_s=10,
        hop_s=5,
    )
    await daemon.run(asyncio.Event())
    expected = [(w.start_ns, w.grade, w.by_class) for w in windows(whole)]
    assert sum(bool(by_class) for *_, by_class in expected) > 500

    await store(url, *sent, *[w for w in windows(whole) if w.end_ns < T0 + 600 * S])
    looking = Looking(url)
    await looking.look()
    assert [(w.start_ns, w.grade, w.by_class) for w in windows(url)] == expected
    (gap,) = gaps(url)
    assert gap == gaps(whole)[0]
    assert looking.batches == []


# --- beside what comes


class Live:
    """A device that sends a second of signal every twentieth of one."""

    name = "live"
    live = True

    def __init__(self, numbers: range) -> None:
        self._numbers = numbers
        self.sent: dict[int, float] = {}

    async def chunks(self) -> AsyncIterator[Chunk]:
        for n in self._numbers:
            await asyncio.sleep(0.05)
            chunk = ramp(n, 1)
            self.sent[chunk.end_ns] = time.monotonic()
            yield chunk


async def test_windows_of_now_come_first_and_nothing_is_told_of_old_ones(url: str) -> None:
    await store(url, *seconds(*range(9000)))
    order: list[float] = []

    class Slow(FakeAnalyzer):
        def analyze(self, given: Any) -> list[WindowResult]:
            time.sleep(0.02 * len(given))
            order.extend(starts(super().analyze(given)))
            return super().analyze(given)

    writer = started(url)
    source = Live(range(20_000, 20_100))
    delays: list[float] = []

    def told(result: WindowResult) -> None:
        assert result.start_ns >= T0 + 20_000 * S
        if result.end_ns in source.sent:
            delays.append(time.monotonic() - source.sent[result.end_ns])

    # All of it has the condition: an alarm would begin with the third window.
    alarms = Alarms(fake_engine(), writer)
    daemon = Daemon(
        [source],
        writer=writer,
        analyzer=Slow(lambda start_s: 0.9 if start_s < 10_000 else 0.0),
        alarms=alarms,
        length_s=10,
        hop_s=5,
        on_result=[told],
    )
    looking = Backlog(
        url,
        writer,
        daemon.read_beside,
        length_s=10,
        hop_s=5,
        until={STREAM: T0 + 9000 * S},
    )
    async with asyncio.timeout(60):
        await daemon.run(asyncio.Event(), beside=looking.run)
    assert len(delays) >= 18
    # Four old ones, 80 ms, and what storing takes on a busy machine.
    assert max(delays) < 1
    old = [start < 10_000 for start in order]
    assert sum(old) > 20
    assert False in old[old.index(True) :]
    with SignalHistory(url) as history:
        assert history.active_alarms() == []


# --- what cannot be read


async def test_a_chunk_that_cannot_be_decoded_gets_a_verdict_all_the_same(url: str) -> None:
    await store(url, *seconds(*range(60)))
    execute(url, "UPDATE segments SET blob = x'1055' WHERE start_ns = :at", at=T0 + 45 * S)
    with structlog.testing.capture_logs() as logs:
        await Looking(url).look()
    (unreadable,) = [log for log in logs if log["event"] == "chunk_unreadable"]
    assert unreadable["start_ns"] == T0 + 45 * S
    assert starts(windows(url)) == [*range(0, 51, 5)]
    again = Looking(url)
    await again.look()
    assert again.batches == []
    # Nor does it keep the daemon from starting.
    with SignalHistory(url) as history:
        (heard,) = [
            chunk
            for chunk in recent(history, [STREAM], now_ns=T0 + 60 * S)
            if chunk.start_ns == T0 + 45 * S
        ]
    assert np.isnan(heard.microvolts).all()


async def test_what_cannot_be_cut_is_not_tried_for_ever(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await store(url, *seconds(*range(60)))
    add = Ring.add

    def breaks(ring: Ring, chunk: Chunk) -> Any:
        if chunk.start_ns == T0 + 30 * S:
            raise ZeroDivisionError
        return add(ring, chunk)

    monkeypatch.setattr(Ring, "add", breaks)
    await Looking(url).look()
    assert uncovered(segments(url), windows(url)) == []
    failed = [w for w in windows(url) if Reason.FAILED in w.grade.reasons]
    assert failed
    assert all(T0 + 20 * S <= w.start_ns < T0 + 31 * S for w in failed)
    again = Looking(url)
    await again.look()
    assert again.batches == []


# --- gaps


async def test_a_gap_over_samples_is_taken_back(url: str) -> None:
    """As versions wrote it that counted from the last window: the end of the signal was in it."""
    false = Gap(STREAM, T0 + 20 * S, T0 + 500 * S, NOT_RUNNING)
    none = Gap(STREAM, T0 + 3 * S, T0 + 12 * S, NOT_RUNNING)
    right = Gap(STREAM, T0 + 520 * S, T0 + 600 * S, NOT_RUNNING)
    strap = Gap(STREAM, T0 + 100 * S, T0 + 110 * S, "out of reach")
    signal = seconds(*range(40), *range(500, 520), *range(600, 620))
    await store(url, *signal, false, none, right, strap)
    await Looking(url).look()
    assert gaps(url) == [Gap(STREAM, T0 + 40 * S, T0 + 500 * S, NOT_RUNNING), strap, right]


async def test_the_time_without_a_watch_begins_with_the_last_sample(url: str) -> None:
    """Whether what a crash left is analysed before, or much later."""
    for hour in (0, 5):
        at = hour * 3600
        await store(url, *seconds(*range(at, at + 30)))
    now_s = 5 * 3600 + 90
    with SignalHistory(url) as history:
        stored = ends(history, now_ns=T0 + now_s * S)
        left = backlog(history, [STREAM], now_ns=T0 + now_s * S, length_s=10, hop_s=5)
    assert stored == {STREAM: T0 + (now_s - 60) * S}
    assert begun(left) == {STREAM: T0 + 5 * 3600 * S}
    writer = started(url)
    daemon = Daemon(
        [Told(seconds(*range(now_s, now_s + 30)))],
        writer=writer,
        analyzer=FakeAnalyzer(),
        alarms=Alarms(fake_engine(), writer),
        length_s=10,
        hop_s=5,
        ended=stored,
    )
    await daemon.run(asyncio.Event(), backlog=left)
    assert gaps(url) == [Gap(STREAM, T0 + (now_s - 60) * S, T0 + now_s * S, NOT_RUNNING)]


# --- how far it was looked


def spans(*numbers: float) -> list[tuple[int, int]]:
    return [(round(a * S), round(b * S)) for a, b in zip(numbers[::2], numbers[1::2], strict=True)]


@pytest.mark.parametrize(
    ("known", "expected"),
    [
        # Nothing is known: from the first sample on.
        ((None,), [(0, 100)]),
        # A day before it was complete.
        ((90,), [(89, 100)]),
        # A look that was cut off, and what came since; then where it went on.
        ((None, 40, 95), [(94, 100), (0, 40)]),
        ((20, 40, 95), [(94, 100), (19, 40)]),
        ((90, 94.5, 95), [(94, 100), (89, 94)]),
        # It was complete later than that.
        ((90, 40, 70), [(89, 100)]),
        # Of a time that has not come.
        ((300,), [(0, 100)]),
        ((300, 0, 98), [(97, 100)]),
        ((300, 250, 280), [(0, 100)]),
    ],
)
def test_a_search_begins_where_the_last_one_ended(
    known: tuple[Any, ...], expected: list[tuple[float, float]]
) -> None:
    ns = [None if day is None else round(day * DAY * S) for day in known]
    search = Search.of(Examined(STREAM, *ns), 0, 100 * DAY * S, 100 * DAY * S)
    assert [(a / DAY / S, b / DAY / S) for a, b in search.ranges] == expected


def test_a_search_says_how_far_it_came() -> None:
    known = Examined(STREAM, 20 * DAY * S, 40 * DAY * S, 95 * DAY * S)
    search = Search.of(known, 0, 100 * DAY * S, 100 * DAY * S)
    # Cut off before it reaches the last one it would know less than that.
    assert search.reached(96 * DAY * S) is None
    assert search.reached(94 * DAY * S) == Examined(
        STREAM, 20 * DAY * S, 40 * DAY * S, 100 * DAY * S
    )
    assert search.reached(30 * DAY * S) == Examined(
        STREAM, 20 * DAY * S, 30 * DAY * S, 100 * DAY * S
    )
    assert search.reached(19 * DAY * S) == Examined(STREAM, 100 * DAY * S)
    assert search.ranges == []
    # A clock that is behind forgets nothing.
    behind = Search.of(Examined(STREAM, 300 * DAY * S), 0, 100 * DAY * S, 100 * DAY * S)
    assert behind.reached(0) == Examined(STREAM, 300 * DAY * S, 0, 100 * DAY * S)


async def test_a_start_looks_no_further_back_than_it_must(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of years that were looked through nothing is read but the last day."""
    await store(url, *[ramp(day * DAY, 60) for day in range(30)])
    await Looking(url).look()
    assert len(windows(url)) == 30 * 11
    looked: list[int] = []
    unread = SignalHistory.unread

    def counted(self: SignalHistory, stream: Stream, since: int, until: int, **more: Any) -> Any:
        looked.append(since)
        return unread(self, stream, since, until, **more)

    monkeypatch.setattr(SignalHistory, "unread", counted)
    await store(url, ramp(30 * DAY, 60))
    await Looking(url).look()
    assert starts(windows(url))[-1] == 30 * DAY + 50
    assert min(looked) >= T0 + 28 * DAY * S
    # Nor are the hours looked at in which there is nothing.
    assert len(looked) < 8


async def test_what_is_cut_off_goes_on_at_the_next_start(url: str) -> None:
    await store(url, *seconds(*range(2 * 3600)))
    looking = Looking(url)
    writer = started(url)
    running = asyncio.create_task(looking.at(writer, 1e7).run())
    await until(lambda: len(looking.batches) >= 120)
    running.cancel()
    async with asyncio.timeout(1):
        await asyncio.gather(running, return_exceptions=True)
    await asyncio.to_thread(writer.stop)
    some = starts(windows(url))
    known = examined(url)
    assert known.clear_ns is None
    assert known.low_ns is not None
    assert known.high_ns == T0 + 2 * 3600 * S
    assert (known.low_ns - T0) / S <= some[0] + 640
    again = Looking(url)
    await again.look()
    assert starts(windows(url)) == [*range(0, 2 * 3600 - 9, 5)]
    assert sum(again.batches) <= 1440 - len(some) + 128
    assert examined(url) == Examined(STREAM, T0 + 2 * 3600 * S)


async def test_it_goes_on_when_the_database_answers_again(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backlog_module, "_RETRY_S", 0.05)
    await store(url, *seconds(*range(60)))
    writer = started(url)
    looking = Looking(url).at(writer, 1e7)
    await asyncio.to_thread((tmp_path / "watch.db").rename, tmp_path / "away")
    with structlog.testing.capture_logs() as logs:
        running = asyncio.create_task(looking.run())
        await asyncio.sleep(0.4)
        # Said once.
        assert [log["event"] for log in logs] == ["backlog_waits"]
        await asyncio.to_thread((tmp_path / "away").rename, tmp_path / "watch.db")
        await until(lambda: "backlog_done" in [log["event"] for log in logs])
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    await asyncio.to_thread(writer.stop)
    assert starts(windows(url)) == [*range(0, 51, 5)]


async def test_while_the_daemon_runs_windows_that_are_on_their_way_are_waited_for(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backlog_module, "_CONFIRM_S", 0.5)
    await store(url, *seconds(*range(40)))
    # A device sends what it had kept: the window comes while it is looked for.
    looking = Looking(url)
    writer = started(url)
    running = asyncio.create_task(looking.at(writer, 1e7)._pass(first=False))
    await asyncio.sleep(0.2)
    ring = Ring(STREAM, length_s=10, hop_s=5)
    late = [w for chunk in seconds(*range(40)) for w in ring.add(chunk).windows]
    # Its last samples are still to be in one.
    await writer.store(*FakeAnalyzer().analyze(late[:-2]))
    await running
    await asyncio.to_thread(writer.stop)
    assert looking.batches == []
    # Hours later nobody brings it any more.
    await looking.look(first=False)
    assert starts(windows(url)) == [*range(0, 31, 5)]


async def test_a_device_that_was_not_seen_for_long_is_no_trouble(url: str) -> None:
    await store(url, *seconds(*range(60)))
    await store(url, Examined(STREAM, T0 + 3 * DAY * S))
    with structlog.testing.capture_logs() as logs:
        await Looking(url).look()
    assert [log["event"] for log in logs] == ["backlog_begun", "backlog_done"]


# --- after a spell of future clock

AHEAD_S = 347 * DAY


async def test_what_is_later_than_now_is_not_taken_for_now(url: str) -> None:
    future = seconds(*range(AHEAD_S, AHEAD_S + 40))
    await store(url, *seconds(*range(60)), *future)
    ring = Ring(STREAM, length_s=10, hop_s=5)
    cut = [w for chunk in seconds(*range(30)) for w in ring.add(chunk).windows]
    cut += [w for chunk in future for w in ring.add(chunk).windows]
    await store(url, *FakeAnalyzer().analyze(cut))
    now_ns = T0 + 62 * S
    with SignalHistory(url) as history:
        soon_ns = now_ns + 60 * S
        assert history.last_sample(STREAM, until_ns=soon_ns) == T0 + 60 * S
        assert history.last_window_end(STREAM, until_ns=soon_ns) == T0 + 30 * S
        assert history.last_sample(STREAM) == T0 + (AHEAD_S + 40) * S
        assert ends(history, now_ns=now_ns) == {STREAM: T0 + 60 * S}
        left = backlog(history, [STREAM], now_ns=now_ns, length_s=10, hop_s=5)
        assert [(c.start_ns - T0) // S for c in left] == [*range(25, 60)]
        heard = recent(history, [STREAM], now_ns=now_ns)
        assert [(c.start_ns - T0) // S for c in heard] == [*range(40, 60)]
        engine = Remembers(fake_engine().policy)
        restore(engine, RhythmEngine(), history, now_ns=now_ns, hop_s=5, left=left)
        assert [(o.start_ns - T0) // S for o in engine.seen] == [0, 5, 10, 15, 20]
        # A device that sent nothing for two weeks, whatever was stored of times to come.
        assert known_streams(history, now_ns) == [STREAM]
        assert known_streams(history, now_ns + 14 * DAY * S) == []


class Remembers(Engine):
    def restore(self, alarms: Iterable[Alarm], observations: Iterable[Observation]) -> None:
        self.seen = list(observations)
        super().restore(alarms, self.seen)


async def test_a_search_looks_at_nothing_that_is_later_than_now(url: str) -> None:
    await store(url, *seconds(*range(60), *range(AHEAD_S, AHEAD_S + 40)))
    # The clock was ahead when it was looked last.
    await store(url, Examined(STREAM, T0 + AHEAD_S * S))
    looking = Looking(url)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(backlog_module.time, "time_ns", lambda: T0 + 62 * S)
        await looking.look(62)
    assert starts(windows(url)) == [*range(0, 51, 5)]
