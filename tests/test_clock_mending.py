"""What was stored by a clock that was wrong is moved once it is set, and nothing else is."""

import signal
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from no_time_server import WITHIN
from program import Program, simulator, write_config
from storage_samples import window
from watching import ALWAYS, S, started, uncovered

from alerts.conditions import Alarm, Change, Priority, State
from alerts.gateway import GATEWAY
from alerts.technical import Moment
from ingest.chunk import Chunk, Stream
from ingest.rr import RrIntervals
from monitor.mending import ClockMender
from monitor.storage.history import History
from monitor.storage.maintenance import check, upgrade
from monitor.storage.records import ClockMended, Record
from monitor.window import Gap

if TYPE_CHECKING:
    from faketime import FakeTime

pytest_plugins = ["faketime", "postgres"]

HOUR, DAY = 3600, 86_400
STRAP, OTHER = Stream("anna", "strap"), Stream("boris", "shirt")
# The truth at the start of the run, which the gateway does not know.
T0 = 1_795_300_000 * S


def chunk(at_s: float, *, stream: Stream = STRAP) -> Chunk:
    samples = np.full(100, round(at_s) % 97, np.float32)
    return Chunk(stream, T0 + round(at_s * S), 100.0, samples)


class Gateway:
    """A daemon's writer with a mender before it, by clocks that are set by hand."""

    def __init__(self, url: str, ahead_s: float, ended_s: float | None = None) -> None:
        self.now_s = 0.0
        self.ahead_s = ahead_s
        self.synchronised = False
        self.writer = started(url)
        self.mender = ClockMender(
            [STRAP],
            {} if ended_s is None else {STRAP: T0 + round(ended_s * S)},
            self.writer,
            synchronised=lambda: self.synchronised,
            now=self.now,
        )
        self.mended: list[ClockMended] = []

    def now(self) -> Moment:
        utc_ns = T0 + round((self.now_s + self.ahead_s) * S)
        return Moment(utc_ns, round(self.now_s * S))

    def store(self, *records: Record) -> None:
        self.mender.note(records)
        self.writer.submit(*records).result()

    def strap(self, seconds: int) -> None:
        """Let it send, by the clock of the gateway."""
        for _ in range(seconds):
            self.now_s += 1
            self.store(chunk(self.now_s - 1 + self.ahead_s))
            self.look()

    def look(self) -> None:
        mended = self.mender.look()
        if mended:
            self.writer.submit(*mended).result()
            self.mended += mended

    def window(self, end_s: float) -> None:
        """A window that ended at a time of the truth is stored, by the clock of the gateway."""
        start_ns = T0 + round((end_s - 10 + self.ahead_s) * S)
        self.store(replace(window(0), stream=STRAP, start_ns=start_ns, duration_s=10.0))


@pytest.fixture
def url(database_url: str) -> str:
    upgrade(database_url)
    return database_url


def seconds(url: str, patient: str = "anna") -> list[float]:
    """When what is stored was, in seconds since the start."""
    with History(url) as history:
        return [(c.start_ns - T0) / S for c in history.segments(patient, *ALWAYS)]


def gaps(url: str) -> list[tuple[float, float, str]]:
    with History(url) as history:
        found = history.gaps("anna", *ALWAYS)
        return [((g.start_ns - T0) / S, (g.end_ns - T0) / S, g.cause) for g in found]


@pytest.mark.parametrize("ahead_s", [-5 * HOUR, DAY, -50 * 365 * DAY, -90.5, 90.5])
def test_all_is_where_it_belongs(url: str, ahead_s: float) -> None:
    gateway = Gateway(url, ahead_s)
    gateway.strap(200)
    gateway.window(200)
    gateway.store(RrIntervals(STRAP, T0 + round((200 + ahead_s) * S), (0.8, 0.9), 70, None))
    gateway.store(
        Gap(STRAP, T0 + round((50 + ahead_s) * S), T0 + round((110 + ahead_s) * S), "lost")
    )
    was, gateway.ahead_s = gateway.ahead_s, 0
    step = "host clock set" if was < 0 else "clock set back"
    gateway.strap(1)
    gateway.store(Gap(STRAP, T0 + round((200 + was) * S), T0 + 200 * S, step))
    # Held up by inference.
    gateway.store(
        replace(window(1), stream=STRAP, start_ns=T0 + round((190 + was) * S), duration_s=10.0)
    )
    gateway.strap(39)
    gateway.window(240)
    assert gateway.mended == []
    gateway.strap(30)
    assert seconds(url) == list(range(270))
    with History(url) as history:
        starts = [(w.start_ns - T0) / S for w in history.windows("anna", *ALWAYS)]
        assert sorted(starts) == [190, 190, 230]
        (packet,) = history.rr_intervals("anna", *ALWAYS)
        assert packet.end_ns == T0 + 200 * S
    assert gaps(url) == [(50, 110, "lost")]
    gateway.writer.stop()
    assert check(url) == []


def test_what_is_not_of_this_run_or_has_its_own_clock_stays(url: str) -> None:
    earlier = [chunk(s + 0.5) for s in range(-5 * HOUR, -5 * HOUR + 100)]
    lost = Gap(STRAP, T0 + (50 - 5 * HOUR) * S, T0 + (70 - 5 * HOUR) * S + S // 4, "lost")
    writer = started(url)
    writer.submit(*earlier).result()
    writer.stop()
    gateway = Gateway(url, -5 * HOUR, ended_s=-600)
    gateway.store(*[chunk(s, stream=OTHER) for s in range(100)])
    gateway.strap(50)
    # Of the earlier signal, which is analysed first.
    read = [
        replace(window(n), stream=STRAP, start_ns=T0 + round((n + 0.5 - 5 * HOUR) * S))
        for n in range(0, 90, 5)
    ]
    gateway.store(*read, lost)
    gateway.window(10)
    gateway.window(15)
    gateway.strap(50)
    gateway.ahead_s = 0
    gateway.strap(61)
    with History(url) as history:
        starts = [w.start_ns for w in history.windows("anna", *ALWAYS)]
        assert starts == [*(w.start_ns for w in read), T0, T0 + 5 * S]
    assert seconds(url) == [s + 0.5 for s in range(-5 * HOUR, -5 * HOUR + 100)] + list(range(161))
    assert seconds(url, "boris") == list(range(100))
    # The clock that was behind had not shown it.
    assert gaps(url) == [
        (50 - 5 * HOUR, 70.25 - 5 * HOUR, "lost"),
        (-600, 0, "leadone was not running"),
    ]
    gateway.writer.stop()


def test_a_time_before_the_run_that_was_never_is_taken_back(url: str) -> None:
    gateway = Gateway(url, DAY, ended_s=-600)
    gateway.strap(10)
    gateway.store(Gap(STRAP, T0 - 600 * S, T0 + DAY * S, "leadone was not running"))
    gateway.ahead_s = 0
    gateway.strap(61)
    assert gaps(url) == [(-600, 0, "leadone was not running")]
    gateway.writer.stop()


def test_alarms_too(url: str) -> None:
    gateway = Gateway(url, -5 * HOUR)
    gateway.store(chunk(0, stream=OTHER))

    def change(id_: str, patient: str, at_s: int, ended_s: int | None = None) -> Change:
        raised_ns = T0 + at_s * S
        ended_ns = None if ended_s is None else T0 + ended_s * S
        alarm = Alarm(id_, patient, "pause", Priority.HIGH, raised_ns - S, raised_ns, ended_ns)
        if ended_ns is None:
            return Change(alarm, raised_ns, State.ACTIVE, "seen")
        return Change(alarm, ended_ns, State.ENDED, "over")

    gateway.strap(100)
    gateway.store(change("a", "anna", 100 - 5 * HOUR))
    gateway.store(change("b", "boris", 100))  # by the clock of its device
    gateway.store(change("g", GATEWAY, 100 - 5 * HOUR))
    gateway.store(change("a", "anna", 100 - 5 * HOUR, 110 - 5 * HOUR))
    gateway.ahead_s = 0
    gateway.strap(61)
    gateway.writer.submit(*gateway.mended).result()  # once more, as after a connection was lost
    gateway.store(change("g", GATEWAY, 100 - 5 * HOUR, 161))
    with History(url) as history:
        found = {a.id: a for p in ("anna", "boris", GATEWAY) for a in history.alarms(p, *ALWAYS)}
        for alarm in found.values():
            assert (alarm.started_ns, alarm.raised_ns) == (T0 + 99 * S, T0 + 100 * S)
        assert found["a"].ended_ns == T0 + 110 * S
        assert found["g"].ended_ns == T0 + 161 * S
        assert [c.at_ns for c in history.changes("a")] == [T0 + 100 * S, T0 + 110 * S]
        assert [c.at_ns for c in history.changes("b")] == [T0 + 100 * S]
    gateway.writer.stop()


def test_a_clock_that_was_right_is_believed_whatever_comes(url: str) -> None:
    gateway = Gateway(url, 0)
    gateway.strap(10)
    gateway.synchronised = True
    gateway.strap(10)
    gateway.ahead_s = HOUR
    gateway.strap(100)
    assert gateway.mended == []
    gateway.writer.stop()


def test_a_clock_that_is_set_twice(url: str) -> None:
    gateway = Gateway(url, -50 * 365 * DAY)
    gateway.strap(20)
    gateway.ahead_s = -5 * HOUR
    gateway.strap(20)
    gateway.ahead_s = 0
    gateway.strap(70)
    gateway.ahead_s = -DAY  # by hand, and wrong
    gateway.strap(70)
    gateway.ahead_s = 0
    gateway.synchronised = True
    gateway.strap(70)
    assert seconds(url) == list(range(250))
    gateway.strap(5)
    assert not len(gateway.mender._rows)
    gateway.writer.stop()


def test_memory_is_bounded(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("monitor.mending._MOST_ROWS", 50)
    gateway = Gateway(url, -DAY)
    gateway.strap(100)
    assert len(gateway.mender._rows) == 50
    gateway.ahead_s = 0
    gateway.strap(61)
    assert seconds(url)[-111:] == [*range(50), *range(100, 161)]
    gateway.writer.stop()


def test_a_watch_by_a_clock_five_hours_behind_tells_the_truth_in_the_end(
    tmp_path: Path, fake_time: "FakeTime"
) -> None:
    config = write_config(tmp_path, [simulator()])
    url = f"sqlite:///{tmp_path}/leadone.db"
    upgrade(url)
    stream = Stream("anna", "sim")
    begun_ns = time.time_ns()
    # Of an earlier run, at the very times that the clock will show; it was not analysed.
    earlier = [
        replace(chunk(0), stream=stream, start_ns=begun_ns - (5 * HOUR - 2 * n) * S)
        for n in range(60)
    ]
    writer = started(url)
    writer.submit(*earlier).result()
    writer.stop()
    fake_time.set("-5h")
    with Program("run", "-c", config, folder=tmp_path, env=fake_time.env, within=WITHIN) as program:
        ready_ns = time.time_ns()
        program.until_logged("ready")
        with History(url) as history:
            program.until(lambda: len(list(history.segments("anna", *ALWAYS))) >= 75)
        fake_time.set("+0")
        time.sleep(13)
        assert program.end(signal.SIGTERM).code == 0
        assert '"event": "clock_mended"' in program.err
    ended_ns = time.time_ns()
    with History(url) as history:
        segments = list(history.segments("anna", *ALWAYS))
        kept, mended = segments[:60], segments[60:]
        assert [c.start_ns for c in kept] == [c.start_ns for c in earlier]
        assert mended[0].start_ns >= begun_ns - S
        assert mended[-1].end_ns <= ended_ns + S
        assert (mended[-1].end_ns - mended[0].start_ns) / S > 25
        starts = np.diff([c.start_ns / S for c in mended])
        assert np.all(np.abs(starts - 1) < 0.2)
        windows = list(history.windows("anna", begun_ns - S, ended_ns + S))
        assert uncovered(mended, windows) == []
        wrong = (begun_ns - round(4.9 * HOUR) * S, begun_ns - S)
        assert list(history.windows("anna", *wrong)) == []
        assert min(w.start_ns for w in windows) >= ready_ns - 3 * S
        # Within the earlier signal there is one each second; and then this, which is the truth.
        *_, last = history.gaps("anna", *ALWAYS)
        assert last.cause == "leadone was not running"
        assert abs(last.start_ns - earlier[-1].end_ns) < S // 100
        assert last.end_ns == mended[0].start_ns
    assert check(url) == []
