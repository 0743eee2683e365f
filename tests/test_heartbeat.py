"""The message that all is well, and the sign of life that is missed outside."""

import asyncio
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
import structlog
from notify_servers import Answer, free_port, http_server
from prometheus_client import REGISTRY
from storage_samples import bad_window, ended, raised, window
from watching import STREAM, fake_engine, new_database, started, until

from alerts.channels.channel import DeliveryError, Message
from alerts.conditions import Priority
from alerts.lethal import RhythmEngine
from alerts.wording import Watch
from ingest.chunk import Stream
from monitor import heartbeat as heartbeat_module
from monitor.config import Config
from monitor.config.alarms import HeartbeatConfig
from monitor.dead_man import DeadMan
from monitor.heartbeat import GIVE_UP_S, Heartbeat, watch_of
from monitor.progress import Stage
from monitor.quality import Grade, Quality, Reason
from monitor.results import WindowResult
from monitor.storage.database import DatabaseError
from monitor.storage.history import History
from monitor.storage.records import Record
from monitor.straps import Straps
from monitor.watchers import Watchers

S = 10**9
DAY_S = 86_400
BERLIN = ZoneInfo("Europe/Berlin")


def ns(local: str) -> int:
    """UTC nanoseconds of a time in Berlin."""
    return int(datetime.fromisoformat(local).replace(tzinfo=BERLIN).timestamp()) * S


class FakeChannel:
    def __init__(self, name: str, *errors: Exception) -> None:
        self.name = name
        self.errors = list(errors)
        self.tried = 0
        self.taken: list[Message] = []

    async def send(self, message: Message) -> None:
        self.tried += 1
        if self.errors:
            raise self.errors.pop(0)
        self.taken.append(message)


class FakeHistory:
    """Of a heart at 70 a minute that was read all the time; away as often as it is told."""

    def __init__(self, away: int = 0) -> None:
        self.away = away
        self.threads: set[int] = set()

    def readable(self, patient: str, since_ns: int, until_ns: int) -> list[Any]:
        self.threads.add(threading.get_ident())
        if self.away:
            self.away -= 1
            raise DatabaseError("away")
        return [(since_ns, until_ns, 70.0)]

    def alarms(self, patient: str, since_ns: int, until_ns: int) -> list[Any]:
        return []


class Clocks:
    """Wall and steady clock, a second further for each millisecond, and set when asked to."""

    def __init__(self, local: str) -> None:
        self.utc_ns = ns(local)
        self.steady_s = 0.0

    def set(self, local: str) -> None:
        self.utc_ns = ns(local)

    def sleep(self, seconds: float) -> None:
        self.utc_ns += round(seconds * S)
        self.steady_s += seconds

    @property
    def local(self) -> str:
        return f"{datetime.fromtimestamp(self.utc_ns / S, tz=BERLIN):%Y-%m-%d %H:%M}"


def heartbeat(
    clocks: Clocks | None = None,
    *channels: FakeChannel,
    works: list[tuple[str, str | None]] | None = None,
    history: Any = None,
    **configured: Any,
) -> Heartbeat:
    clocks = clocks or Clocks("2026-11-21 12:00")
    config = HeartbeatConfig.model_validate(
        {"at": "09:00", "timezone": "Europe/Berlin", "contacts": ["bob"]} | configured
    )
    return Heartbeat(
        config,
        {"anna": "Anna Example", "boris": None},
        {"bob": list(channels)},
        history or FakeHistory(),
        on_channel=lambda name, wrong: None if works is None else works.append((name, wrong)),
        now_ns=lambda: clocks.utc_ns,
        monotonic_s=lambda: clocks.steady_s,
    )


# --- when


@pytest.mark.parametrize(
    ("at", "now", "due"),
    [
        ("09:00", "2026-11-21 08:59:59", "2026-11-21 09:00"),
        ("09:00", "2026-11-21 09:00:00", "2026-11-22 09:00"),
        ("00:00", "2026-11-21 23:59:59", "2026-11-22 00:00"),
        # Nights with an hour less and an hour more.
        ("09:00", "2026-03-28 09:00:00", "2026-03-29 09:00"),
        ("09:00", "2026-10-24 09:00:00", "2026-10-25 09:00"),
        # A time that does not come that day, and one that comes twice: once each.
        ("02:30", "2026-03-28 12:00:00", "2026-03-29 03:30"),
        ("02:30", "2026-03-29 03:30:00", "2026-03-30 02:30"),
        ("02:30", "2026-10-24 12:00:00", "2026-10-25 02:30"),
        ("02:30", "2026-10-25 02:30:00", "2026-10-26 02:30"),
    ],
)
def test_a_day_is_one_of_the_clock_on_the_wall(at: str, now: str, due: str) -> None:
    assert heartbeat(at=at).next_after(ns(now)) == ns(due)


def test_a_day_may_have_23_or_25_hours() -> None:
    spring, autumn = ns("2026-03-28 09:00"), ns("2026-10-24 09:00")
    assert heartbeat().next_after(spring) - spring == 23 * 3600 * S
    assert heartbeat().next_after(autumn) - autumn == 25 * 3600 * S


def test_a_week_ends_on_monday() -> None:
    weekly = heartbeat(every="week")
    # 23 November 2026 is one.
    assert weekly.next_after(ns("2026-11-21 12:00")) == ns("2026-11-23 09:00")
    assert weekly.next_after(ns("2026-11-23 08:59:59")) == ns("2026-11-23 09:00")
    assert weekly.next_after(ns("2026-11-23 09:00")) == ns("2026-11-30 09:00")


class Running:
    """A heartbeat that runs while a test moves the clocks."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, made: Heartbeat, clocks: Clocks) -> None:
        monkeypatch.setattr(heartbeat_module, "_LOOK_S", 0.001)
        self._sleep = asyncio.sleep

        async def sleep(seconds: float) -> None:
            """What waits for a retry waits by the test's clock."""
            end_s = clocks.steady_s + seconds
            while clocks.steady_s < end_s:
                await self._sleep(0.001)

        monkeypatch.setattr(heartbeat_module.asyncio, "sleep", sleep)
        self._clocks = clocks
        self._stop = asyncio.Event()
        self._task = asyncio.create_task(made.run(self._stop))

    async def wait(self) -> None:
        """Let it do what is to be done."""
        for _ in range(20):
            await self._sleep(0.002)

    async def go_on(self, seconds: float, step_s: float = 60.0) -> None:
        await self.wait()
        for _ in range(round(seconds / step_s)):
            self._clocks.sleep(step_s)
            await self._sleep(0.003)
        await self.wait()

    async def end(self) -> None:
        self._stop.set()
        async with asyncio.timeout(5):
            await self._task


async def test_it_comes_each_day_and_says_what_the_day_was_like(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clocks, channel, history = Clocks("2026-11-21 08:55"), FakeChannel("bob-web"), FakeHistory()
    running = Running(monkeypatch, heartbeat(clocks, channel, history=history), clocks)
    await running.go_on(4 * 60)
    assert channel.taken == []
    await running.go_on(2 * 60)
    (message,) = channel.taken
    assert message.title == "Lead One is still watching"
    anna, boris = message.body.splitlines()
    assert anna.startswith("Anna Example: good signal for 24 h (100 %) since Fri 20 Nov 09:00")
    assert boris.startswith("boris: ")
    assert message.priority is Priority.LOW
    assert threading.get_ident() not in history.threads
    await running.go_on(DAY_S - 3600, step_s=3600)
    assert len(channel.taken) == 1
    await running.go_on(3600)
    assert len(channel.taken) == 2
    assert len({message.key for message in channel.taken}) == 2
    await running.end()


async def test_started_after_the_time_it_comes_the_next_day(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clocks, channel = Clocks("2026-11-21 09:00"), FakeChannel("bob-web")
    running = Running(monkeypatch, heartbeat(clocks, channel), clocks)
    await running.go_on(DAY_S - 1800, step_s=1800)
    assert channel.tried == 0
    await running.go_on(1800, step_s=600)
    assert [m.data["to_ns"] for m in channel.taken] == [ns("2026-11-22 09:00")]
    await running.end()


async def test_a_clock_that_is_set_brings_no_message_of_a_time_that_never_was(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A gateway without a clock of its own wakes up years ago, until it reaches the network."""
    clocks, channel = Clocks("2023-01-01 00:00"), FakeChannel("bob-web")
    running = Running(monkeypatch, heartbeat(clocks, channel), clocks)
    await running.go_on(300)
    clocks.set("2026-11-21 15:00")
    await running.go_on(300)
    assert channel.tried == 0
    # Set back by days, it does not wait until then.
    clocks.set("2026-11-18 08:50")
    await running.go_on(900)
    assert len(channel.taken) == 1
    # Set back by minutes, it does not come again.
    clocks.set("2026-11-18 08:58")
    await running.go_on(900)
    assert len(channel.taken) == 1
    await running.end()


# --- to whom


async def test_it_is_tried_again_for_an_hour(monkeypatch: pytest.MonkeyPatch) -> None:
    errors = [DeliveryError("away") for _ in range(5)]
    clocks, works = Clocks("2026-11-21 08:59"), list[tuple[str, str | None]]()
    away, good = FakeChannel("away", *errors), FakeChannel("good")
    running = Running(monkeypatch, heartbeat(clocks, away, good, works=works), clocks)
    await running.go_on(120)
    assert len(good.taken) == 1
    assert away.taken == []
    await running.go_on(600, step_s=10)
    assert len(away.taken) == 1
    assert len(good.taken) == 1
    assert works.count(("away", "away")) == 5
    assert works[-1] == ("away", None)
    await running.end()


async def test_after_an_hour_and_where_it_can_only_fail_it_is_given_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clocks = Clocks("2026-11-21 08:59")
    away = FakeChannel("away", *[DeliveryError("away") for _ in range(200)])
    wrong = FakeChannel("wrong", DeliveryError("401", permanent=True))
    running = Running(monkeypatch, heartbeat(clocks, away, wrong), clocks)
    await running.go_on(GIVE_UP_S + 300)
    tried = away.tried
    # 10, 20, 40 … 300 s apart.
    assert 10 <= tried <= 20
    assert wrong.tried == 1
    await running.go_on(3600)
    assert away.tried == tried
    await running.end()


async def test_without_a_database_nobody_is_told_that_all_is_well(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clocks, channel = Clocks("2026-11-21 08:59"), FakeChannel("bob-web")
    history = FakeHistory(away=2)
    running = Running(monkeypatch, heartbeat(clocks, channel, history=history), clocks)
    await running.go_on(300)
    assert channel.tried == 0
    await running.go_on(600)
    assert len(channel.taken) == 1
    history.away = 10_000
    with structlog.testing.capture_logs() as logs:
        await running.go_on(DAY_S + 3600, step_s=600)
    assert len(channel.taken) == 1
    assert [log["event"] for log in logs] == ["no heartbeat"]
    await running.end()


class HangingHistory(FakeHistory):
    """Gives no answer until it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.go = threading.Event()
        self.asked = 0

    def readable(self, patient: str, since_ns: int, until_ns: int) -> list[Any]:
        self.asked += 1
        self.go.wait(30)
        return super().readable(patient, since_ns, until_ns)


async def test_a_database_that_hangs_takes_no_threads_from_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(heartbeat_module, "_READ_S", 0.01)
    clocks, channel = Clocks("2026-11-21 08:59"), FakeChannel("bob-web")
    history = HangingHistory()
    running = Running(monkeypatch, heartbeat(clocks, channel, history=history), clocks)
    # More days than the loop has threads of its own.
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(2))
    with structlog.testing.capture_logs() as logs:
        await running.go_on(4 * DAY_S, step_s=1200)
    assert history.asked == 2
    assert channel.tried == 0
    assert {log["event"] for log in logs} == {"no heartbeat"}
    assert len(logs) == 4
    async with asyncio.timeout(5):
        await asyncio.to_thread(int)
    history.go.set()
    await running.go_on(DAY_S, step_s=1200)
    assert len(channel.taken) == 1
    await running.end()


# --- of what


@pytest.fixture
def url(tmp_path: Path) -> str:
    return new_database(tmp_path)


def store(url: str, *records: Record) -> None:
    writer = started(url)
    writer.submit(*records).result()
    writer.stop()


T0 = window(0).start_ns


def watched(url: str, from_s: float, to_s: float, patient: str = "anna") -> Watch:
    with History(url) as history:
        return watch_of(history, patient, None, T0 + round(from_s * S), T0 + round(to_s * S))


def test_time_that_two_windows_or_two_devices_cover_counts_once(url: str) -> None:
    patch = Stream("anna", "patch")
    # 0-10, 5-15, 10-20 s; bad 15-25; 30-40; another device 35-45 and 90-100 s.
    store(
        url,
        *(window(i) for i in (0, 1, 2, 6)),
        bad_window(3),
        window(7, stream=patch),
        window(18, stream=patch),
    )
    assert watched(url, 0, 1000).good_s == 20 + 15 + 10
    # What reaches beyond the end is not counted.
    assert watched(url, 0, 95).good_s == 20 + 15 + 5
    assert watched(url, 20, 30).good_s == 0


def test_a_wrong_rate_in_a_hundred_windows_does_not_show(url: str) -> None:
    windows = [window(i, heart_rate=60.0 + i % 41) for i in range(300)]
    windows[7] = replace(windows[7], heart_rate=280.0)
    windows[8] = replace(windows[8], heart_rate=21.0)
    windows[9] = replace(windows[9], heart_rate=None)
    store(url, *windows)
    day = watched(url, 0, 5 * 300)
    assert (day.lowest_rate, day.highest_rate) == (60.0, 100.0)


def test_an_alarm_counts_on_the_day_on_which_it_was_raised(url: str) -> None:
    first = raised("a1", at=30)
    store(url, first, ended(first, at=90), raised("a2", at=200), raised("b1", "boris", at=40))
    assert watched(url, 0, 100).alarms == 1
    assert watched(url, 0, 300).alarms == 2
    assert watched(url, 40, 300).alarms == 1
    nothing = watched(url, 0, 100, "zoe")
    assert (nothing.good_s, nothing.lowest_rate, nothing.alarms) == (0, None, 0)


# --- the dead-man's switch

_GRADES = {
    "good": Grade(Quality.GOOD),
    "noisy": Grade(Quality.BAD, (Reason.NOISY,)),
    "off the skin": Grade(Quality.BAD, (Reason.CONTACT,)),
    "skipped": Grade(Quality.BAD, (Reason.SKIPPED,)),
    "failed": Grade(Quality.BAD, (Reason.FAILED,)),
}


class Switch:
    """A dead-man's switch by a clock that is set by hand."""

    def __init__(self, url: str, every_s: float = 60.0, hop_s: float = 5.0) -> None:
        self.now_s = 1000.0
        self.works = True
        self.told: list[tuple[str, str | None]] = []
        self.dead_man = DeadMan(
            url,
            every_s,
            hop_s=hop_s,
            works=lambda: self.works,
            on_channel=lambda name, wrong: self.told.append((name, wrong)),
            monotonic_s=lambda: self.now_s,
        )
        self.stop = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def window(self, grade: str = "good") -> None:
        result: WindowResult = replace(window(0), grade=_GRADES[grade])
        self.dead_man.result(result)

    async def __aenter__(self) -> "Switch":
        self._task = asyncio.create_task(self.dead_man.run(self.stop))
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._task is not None
        self.stop.set()
        async with asyncio.timeout(5):
            await self._task


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("monitor.dead_man._LOOK_S", 0.005)


@pytest.mark.parametrize(
    ("grade", "counts"),
    [
        ("good", True),
        ("noisy", True),
        ("off the skin", True),
        ("skipped", False),
        ("failed", False),
    ],
)
def test_a_window_that_was_read_counts_whatever_was_read(grade: str, counts: bool) -> None:
    switch = Switch("http://127.0.0.1:9/")
    assert not switch.dead_man.is_analysing
    switch.window(grade)
    assert switch.dead_man.is_analysing is counts


@pytest.mark.parametrize(("hop_s", "fresh_s"), [(5.0, 60.0), (60.0, 180.0)])
def test_it_counts_for_a_minute_or_three_hops(hop_s: float, fresh_s: float) -> None:
    switch = Switch("http://127.0.0.1:9/", hop_s=hop_s)
    switch.window()
    switch.now_s += fresh_s - 0.1
    assert switch.dead_man.is_analysing
    switch.works = False
    assert not switch.dead_man.is_analysing
    switch.works = True
    switch.now_s += 0.2
    assert not switch.dead_man.is_analysing


async def test_what_stands_still_is_not_vouched_for_outside_either(tmp_path: Path) -> None:
    url = new_database(tmp_path)
    dead_man = {"url": "http://127.0.0.1:9/"}
    config = Config.model_validate(
        {"database": url, "patients": [{"id": "anna"}], "alarms": {"dead_man": dead_man}}
    )
    writer = started(url)
    with History(url) as history:
        engine, rhythms, straps = fake_engine(), RhythmEngine(), Straps((), ())
        parts = Watchers(
            config, {}, history, history, writer, engine, rhythms, {}, straps, (), attended=True
        )
        assert parts._dead_man is not None
        parts._dead_man.result(replace(window(0), grade=_GRADES["good"]))
        parts.progress.enter(Stage.STORAGE, STREAM)
        assert parts._dead_man.is_analysing
        parts.progress._now_ns = lambda: time.monotonic_ns() + 61 * S
        assert not parts._dead_man.is_analysing
    await asyncio.to_thread(writer.stop)


async def quiet() -> None:
    await asyncio.sleep(0.05)


async def test_the_address_is_fetched_only_while_hearts_are_analysed() -> None:
    with http_server() as server:
        async with Switch(f"{server.url}/s3cret") as switch:
            await quiet()
            assert server.requests == []
            switch.window()
            await until(lambda: len(switch.told) == 1, 5)
            switch.now_s += 59.9
            switch.window()
            await quiet()
            assert len(server.requests) == 1
            switch.now_s += 0.2
            await until(lambda: len(switch.told) == 2, 5)
            # Nothing is read any more.
            switch.now_s += 61.0
            await quiet()
            assert len(server.requests) == 2
            # Read, but not stored.
            switch.works = False
            switch.window()
            await quiet()
            assert len(server.requests) == 2
            switch.works = True
            await until(lambda: len(switch.told) == 3, 5)
    assert {(r.method, r.path) for r in server.requests} == {("GET", "/s3cret")}
    assert switch.told == [("dead-man", None)] * 3


async def test_what_fails_is_counted_and_logged_once_for_each_cause() -> None:
    def failures() -> float:
        return REGISTRY.get_sample_value("leadone_dead_man_failures_total") or 0.0

    before = failures()
    answers = (Answer(500), Answer(500), Answer(404), Answer(200))
    with structlog.testing.capture_logs() as logs, http_server(*answers) as server:
        async with Switch(f"{server.url}/s3cret") as switch:
            for number in range(1, 5):
                switch.window()
                await until(lambda n=number: len(switch.told) == n, 5)  # type: ignore[misc]
                switch.now_s += 60.0
    assert [wrong for _, wrong in switch.told] == [
        "answered 500 Internal Server Error",
        "answered 500 Internal Server Error",
        "answered 404 Not Found",
        None,
    ]
    assert [log.get("reason", log["event"]) for log in logs] == [
        "answered 500 Internal Server Error",
        "answered 404 Not Found",
        "dead-man's switch answers again",
    ]
    assert failures() - before == 3
    assert "s3cret" not in str(logs)


async def one_ping(url: str) -> str | None:
    async with Switch(url) as switch:
        switch.window()
        await until(lambda: bool(switch.told), 10)
    return switch.told[0][1]


async def test_a_login_page_is_no_answer() -> None:
    moved = Answer(302, {"Location": "http://192.168.0.1/login"})
    with http_server(moved) as server:
        assert await one_ping(server.url) == (
            "answered 302 Found: give the address that it redirects to"
        )
        assert len(server.requests) == 1


async def test_nobody_there() -> None:
    assert await one_ping(f"http://127.0.0.1:{free_port()}/s3cret") == (
        "no connection: connection refused"
    )


async def test_a_server_that_hangs_holds_up_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("monitor.dead_man._READ_S", 0.2)
    with http_server(Answer(manner="hang")) as server:
        began = time.monotonic()
        assert await one_ping(server.url) == "no connection: no answer in time"
        assert time.monotonic() - began < 5


async def test_an_address_that_is_none_never_ends_the_run_or_shows() -> None:
    wrong = await one_ping("https://s3cret:pass word@[::/x")
    assert wrong is not None
    assert "s3cret" not in wrong


def test_an_alarm_says_what_to_do() -> None:
    from alerts.conditions import Alarm
    from alerts.records import Kind
    from alerts.wording import Notice, text_of

    alarm = Alarm("a", "gateway", "channel:dead-man", Priority.MEDIUM, T0, T0)
    text = text_of(Notice(kind=Kind.RAISED, alarm=alarm, now_ns=T0))
    assert text.title == "Gateway: watchdog outside is not reached"
    assert "internet" in text.body
