"""Paired straps through the whole service, over the virtual BlueZ, and in the database."""

import asyncio
import contextlib
import functools
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import structlog
from bluez.bus import PrivateBus
from bluez.clock import Clock, RealClock
from bluez.ecg import synthetic
from bluez.h10 import H10
from bluez.service import Bluez
from bluez.strap import Strap as HeartRateStrap
from bluez.timing import QUICK
from program import Program, write_config
from prometheus_client import REGISTRY
from sqlalchemy.exc import IntegrityError
from watching import (
    ALWAYS,
    T0,
    FakeAnalyzer,
    S,
    Told,
    fake_engine,
    gaps,
    new_database,
    segments,
    started,
    windows,
)

from alerts.conditions import Alarm, Change, Observation, State
from alerts.engine import Engine
from alerts.lethal import RhythmEngine
from alerts.policy import Policy
from ingest.chunk import Chunk, Stream
from ingest.rr import RrIntervals
from models.bundle import DEFAULT, find_bundle
from monitor import straps as straps_module
from monitor.alarms import Alarms
from monitor.config import Config, ConfigError
from monitor.daemon import Daemon
from monitor.resume import backlog, restore
from monitor.service import serve
from monitor.storage.history import History
from monitor.storage.maintenance import check, upgrade
from monitor.storage.records import Record, Strap, StrapState, Unpaired
from monitor.storage.writer import Writer

pytest_plugins = ["bluez.fixtures", "postgres"]

ADDRESS = "A0:9E:1A:00:00:01"
H10_STREAM = Stream("anna", "h10")
PAIRED = Strap(H10_STREAM, ADDRESS, "polar_h10", None, T0)
PULSE = Strap(Stream("anna", "tickr"), "C0:00:00:00:00:01", "heart_rate", None, T0)


@pytest.fixture
def clock() -> Clock:
    return RealClock(speed=20)


@pytest.fixture
def url(tmp_path: Path) -> str:
    return new_database(tmp_path)


def store(url: str, *records: Record) -> None:
    writer = started(url)
    writer.submit(*records).result()
    writer.stop()


def config(url: str, **more: Any) -> Config:
    return Config.model_validate({"database": url, "patients": [{"id": "anna"}]} | more)


def state_of(url: str, address: str = ADDRESS) -> StrapState | None:
    with History(url) as history:
        return next(state for strap, state in history.straps() if strap.address == address)


def metric(name: str, device: str = "h10") -> float | None:
    return REGISTRY.get_sample_value(f"leadone_strap_{name}", {"patient": "anna", "device": device})


async def until(done: Callable[[], object], seconds: float = 20.0) -> None:
    async with asyncio.timeout(seconds):
        while not done():  # noqa: ASYNC110 - what is waited for has no event
            await asyncio.sleep(0.02)


class Service:
    """A running service, on the virtual straps' clock."""

    def __init__(self, url: str, **more: Any) -> None:
        self.changes: list[Change] = []
        self.stop = asyncio.Event()
        self._task = asyncio.create_task(
            serve(
                config(url, **more),
                [],
                find_bundle(DEFAULT),
                stop=self.stop,
                on_change=[self.changes.append],
            )
        )

    @property
    def technical(self) -> list[tuple[str, State]]:
        told = [(c.alarm.condition, c.state) for c in self.changes]
        return [(condition, state) for condition, state in told if ":" in condition]

    async def end(self) -> None:
        self.stop.set()
        async with asyncio.timeout(20):
            await self._task


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch, clock: Clock) -> None:
    made = functools.partial(
        straps_module.Straps, timing=QUICK, now_ns=clock.time_ns, monotonic_ns=clock.time_ns
    )
    monkeypatch.setattr("monitor.earlier_run.Straps", made)
    monkeypatch.setattr(straps_module, "_LOOK_S", 0.05)
    monkeypatch.setattr(straps_module, "_AGENT_AGAIN_S", 0.05)
    monkeypatch.setattr("alerts.technical.SILENT_S", 20.0)
    monkeypatch.setattr("alerts.technical.OFF_SKIN_S", 20.0)
    monkeypatch.setattr("alerts.technical.UNREAD_S", 60.0)


@contextlib.asynccontextmanager
async def serving(url: str, **more: Any) -> AsyncIterator[Service]:
    service = Service(url, **more)
    try:
        yield service
    finally:
        await service.end()


# --- through the service


async def test_a_paired_strap_is_watched_and_its_state_is_kept(
    bluez: Bluez, url: str, quick: None
) -> None:
    h10 = bluez.add(H10(synthetic()))
    store(url, PAIRED)
    async with serving(url):
        await until(lambda: len(windows(url)) >= 5)
        state = state_of(url)
        assert state is not None
        assert (state.stage, state.cause, state.battery) == ("streaming", None, 80)
        assert metric("connected") == 1
        assert metric("battery_percent") == 80
    truth = h10.truth()
    samples = np.concatenate([c.microvolts for c in segments(url)])
    assert np.array_equal(samples, truth.microvolts[truth.delivered][: len(samples)])
    good = [w for w in windows(url) if w.grade.good]
    assert len(good) >= 4
    assert all(w.heart_rate == pytest.approx(75, abs=2) for w in good)
    stopped = state_of(url)
    assert stopped is not None
    assert (stopped.stage, stopped.battery) == ("stopped", 80)
    assert stopped.since_ns > state.since_ns
    assert metric("connected") == 0
    assert h10.stops == 1


async def test_a_strap_that_leaves_is_one_alarm_that_says_what_to_do(
    bluez: Bluez, url: str, quick: None
) -> None:
    h10 = bluez.add(H10(synthetic()))
    store(url, PAIRED)
    async with serving(url) as first:
        await until(lambda: len(windows(url)) >= 2)
        h10.out_of_range()
        await until(lambda: first.technical)
        (raised,) = [c for c in first.changes if c.state is State.ACTIVE]
        assert raised.alarm.condition == "device:h10"
        assert raised.reason.startswith("h10: strap not seen: check that the strap is worn")
        state = state_of(url)
        assert state is not None
        assert state.stage != "streaming"
        assert state.cause in ("strap not seen", "link lost", "connection refused")
        # It goes on, and is not told again.
        await asyncio.sleep(1.5)
        assert first.technical == [("device:h10", State.ACTIVE)]
    async with serving(url) as second:
        await asyncio.sleep(1.5)
        assert second.changes == []
        h10.back_in_range()
        await until(lambda: second.technical)
        assert second.technical == [("device:h10", State.ENDED)]
        (ended,) = second.changes
        assert ended.alarm.id == raised.alarm.id
        await until(lambda: any(gap.cause == "leadone was not running" for gap in gaps(url)))
    with History(url) as history:
        assert [a.id for a in history.alarms("anna", *ALWAYS)] == [raised.alarm.id]
        assert history.active_alarms() == []
        stored = history.changes(raised.alarm.id)
    assert (stored[0], stored[-1]) == (raised, ended)
    assert check(url) == []


async def test_a_run_that_was_killed_while_it_streamed_ends_no_alarm(
    system_bus: PrivateBus, bleak_bus: None, url: str, quick: None
) -> None:
    raised = straps_module.DeviceWatch("anna", "h10").battery(straps_module.Moment(T0, 0), 5)
    assert raised is not None
    alarm = replace(raised.alarm, condition="device:h10")
    store(url, PAIRED, NOW, replace(raised, alarm=alarm))
    async with serving(url) as service:
        await until(lambda: (state := state_of(url)) is not None and state.stage != "streaming")
        await asyncio.sleep(0.5)
    assert service.changes == []
    with History(url) as history:
        assert history.active_alarms() == [alarm]


async def test_electrodes_off_and_an_empty_battery(bluez: Bluez, url: str, quick: None) -> None:
    h10 = bluez.add(H10(synthetic(), off_body="rail"))
    h10.battery = 15
    store(url, PAIRED)
    async with serving(url) as service:
        await until(lambda: service.technical == [("battery:h10", State.ACTIVE)])
        await until(lambda: len(windows(url)) >= 2)
        h10.take_off()
        await until(lambda: ("electrodes:h10", State.ACTIVE) in service.technical)
        (off,) = [c for c in service.changes if c.alarm.condition == "electrodes:h10"]
        assert "wet the electrodes" in off.reason
        h10.put_on()
        await until(lambda: ("electrodes:h10", State.ENDED) in service.technical)
        h10.battery = 90
        await until(lambda: ("battery:h10", State.ENDED) in service.technical)
    assert len(service.technical) == 4


async def test_a_strap_that_sends_noise_is_told_of(bluez: Bluez, url: str, quick: None) -> None:
    noise = np.random.default_rng(1).normal(0, 100, 30 * 130).astype(np.float32)
    bluez.add(H10(noise))
    store(url, PAIRED)
    async with serving(url) as service:
        await until(lambda: service.technical == [("signal:h10", State.ACTIVE)])
    by_condition = {change.alarm.condition: change for change in service.changes}
    assert "could be read as a heart" in by_condition.pop("signal:h10").reason
    # That the heart cannot be seen is told sooner; it is not taken for one that has stopped.
    assert by_condition.keys() == {"unseen"}
    (first, *_) = segments(url)
    raised = by_condition["unseen"].alarm
    assert (raised.raised_ns - first.start_ns) / S == pytest.approx(20, abs=1)
    assert not any(w.grade.good for w in windows(url))


async def test_a_link_that_comes_and_goes_is_told_of(bluez: Bluez, url: str, quick: None) -> None:
    h10 = bluez.add(H10(synthetic()))
    store(url, PAIRED)
    async with serving(url) as service:
        async with asyncio.timeout(30):
            while not service.technical:
                await until(lambda: h10.connected)
                # Four seconds of the strap's time: never a whole window.
                await asyncio.sleep(0.2)
                h10.lose_link()
        assert ("signal:h10", State.ACTIVE) in service.technical
        assert ("device:h10", State.ACTIVE) not in service.technical


async def test_two_straps_one_without_ecg_one_that_wants_a_bond(
    bluez: Bluez, url: str, quick: None
) -> None:
    h10 = bluez.add(H10(synthetic(), needs_pairing=True))
    bluez.add(HeartRateStrap(rr_s=(0.75,)))
    store(url, PAIRED, PULSE)
    async with serving(url):
        await until(lambda: {w.stream.device for w in windows(url)} == {"h10", "tickr"})
        # BlueZ forgets our agent when it is restarted; the strap is reset as well.
        await bluez.restart()
        h10.forget_bond()
        links = h10.links
        await until(lambda: h10.links > links + 1 and h10.bonded)
        pulse = state_of(url, PULSE.address)
        assert pulse is not None
    rates = [w.heart_rate for w in windows(url) if w.stream.device == "tickr" and w.grade.good]
    assert rates
    assert rates == [pytest.approx(80, abs=1)] * len(rates)


async def test_without_bluetooth_the_service_runs_and_says_so_once(
    system_bus: PrivateBus, bleak_bus: None, url: str, quick: None
) -> None:
    store(url, PAIRED)
    with structlog.testing.capture_logs() as logs:
        async with serving(url) as service:
            await until(lambda: service.technical)
    (raised,) = service.changes
    assert "bluetooth" in raised.reason.lower()
    assert len([log for log in logs if "pairing requests" in log["event"]]) == 1


async def test_an_alarm_of_a_strap_that_was_unpaired_ends(url: str, tmp_path: Path) -> None:
    source = {"type": "replay", "patient": "anna", "device": "holter", "records": ["none.csv"]}
    watch = straps_module.DeviceWatch("anna", "h10")
    moment = straps_module.Moment(T0, 0)
    raised = watch.battery(moment, 5)
    assert raised is not None
    store(url, raised)
    path = write_config(tmp_path, [source], database=url)
    with Program("run", "-c", path, folder=tmp_path) as program:
        assert (await asyncio.to_thread(program.end)).code == 0
    with History(url) as history:
        assert history.active_alarms() == []
        assert history.changes(raised.alarm.id)[-1].reason == "h10 is no longer paired"


async def test_killed_and_started_again_it_goes_on(
    bluez_process: Callable[[dict[str, Any]], Any], tmp_path: Path
) -> None:
    bluez_process({"straps": [{"kind": "h10"}]})
    url = new_database(tmp_path)
    store(url, PAIRED)
    more = {"window": {"length": "5s", "hop": "1s"}, "patients": [{"id": "anna"}]}
    path = write_config(tmp_path, [], database=url, **more)
    with Program("run", "-c", path, folder=tmp_path) as program:
        await asyncio.to_thread(program.until, lambda: len(windows(url)) >= 2)
        program.end(signal.SIGKILL)
    before = segments(url)
    with Program("run", "-c", path, folder=tmp_path) as program:
        after = len(windows(url)) + 3
        await asyncio.to_thread(program.until, lambda: len(windows(url)) >= after)
        done = program.end(signal.SIGTERM)
    assert done.code == 0, done.err
    chunks = segments(url)
    assert len(chunks) > len(before)
    # What was stored is there; the time between is one gap, and nothing overlaps.
    ends = np.array([c.end_ns for c in chunks[:-1]])
    starts = np.array([c.start_ns for c in chunks[1:]])
    pauses = (starts - ends) / 1e9
    assert pauses.min() > -0.01
    (gap,) = [g for g in gaps(url) if g.end_ns - g.start_ns > 0.1 * S]
    assert (gap.end_ns - gap.start_ns) / S == pytest.approx(pauses.max(), abs=0.2)
    assert check(url) == []


def test_a_start_without_straps_loads_no_bluetooth() -> None:
    code = (
        "import sys; import monitor.cli.run; from monitor.straps import Straps;"
        "assert Straps((), ()).sources() == [];"
        "print([m for m in sys.modules if m.split('.')[0] in ('bleak', 'dbus_fast')])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=Path(__file__).parents[1],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.stdout, done.stderr) == ("[]\n", "")


# --- RR intervals that a crash left unjudged


def packets(first: int, end: int, *, hole: tuple[int, int] = (0, 0)) -> list[RrIntervals]:
    """One a second, of a heart that beats every 0.8 s."""
    sent = []
    for second in range(first, end):
        beats = range((second - 1) * 5 // 4 + 1, second * 5 // 4 + 1)
        rr_s = tuple(0.8 + 0.001 * (beat % 7) for beat in beats)
        if not hole[0] <= second < hole[1]:
            sent.append(RrIntervals(PULSE.stream, T0 + second * S, rr_s, 75, True))
    return sent


class Steps(Engine):
    """Remembers what it is given."""

    def __init__(self) -> None:
        super().__init__(lambda _: Policy())
        self.restored: list[Observation] = []
        self.stepped: list[Observation] = []

    def restore(self, alarms: Iterable[Alarm], observations: Iterable[Observation]) -> None:
        self.restored = list(observations)
        super().restore(alarms, self.restored)

    def step(self, observation: Observation) -> list[Change]:
        self.stepped.append(observation)
        return super().step(observation)


def seen(url: str) -> list[Any]:
    return [
        (w.start_ns, w.duration_s, w.grade, w.heart_rate, w.r_peaks_s.tobytes(), w.by_class)
        for w in windows(url)
    ]


async def watched(url: str, source: Any, engine: Engine | None = None, **more: Any) -> Engine:
    engine = engine or fake_engine()
    writer = started(url)
    daemon = Daemon(
        [source],
        writer=writer,
        analyzer=FakeAnalyzer(),
        alarms=Alarms(engine, writer),
        length_s=10,
        hop_s=5,
    )
    async with asyncio.timeout(30):
        await daemon.run(asyncio.Event(), **more)
    return engine


@pytest.mark.parametrize(
    ("hole", "killed_s"), [((0, 0), 203), ((170, 190), 228), ((170, 190), 203), ((30, 45), 64)]
)
async def test_after_a_crash_they_are_judged_as_if_there_had_been_none(
    tmp_path: Path, hole: tuple[int, int], killed_s: int
) -> None:
    sent = packets(0, 300, hole=hole)
    (tmp_path / "whole").mkdir()
    whole, url = new_database(tmp_path / "whole"), new_database(tmp_path)
    await watched(whole, Told(sent))

    killed_ns = T0 + killed_s * S
    before = [p for p in sent if p.end_ns <= killed_ns]
    # The last one is unjudged, though it was complete.
    judged = [w for w in windows(whole) if w.end_ns <= killed_ns - 5 * S]
    told = [g for g in gaps(whole) if g.end_ns <= killed_ns]
    store(url, *before, *judged, *told)
    engine = fake_engine()
    with History(url) as history:
        left = backlog(history, [PULSE.stream], now_ns=killed_ns, length_s=10, hop_s=5)
        restore(engine, RhythmEngine(), history, now_ns=killed_ns, hop_s=5, left=left)
    assert left
    rest = [p for p in sent if p.end_ns > killed_ns]
    await watched(url, Told(rest), engine, backlog=left)
    assert sum(bool(by_class) for *_, by_class in seen(whole)) > 10
    assert seen(url) == seen(whole)
    assert gaps(url) == gaps(whole)
    assert check(url) == []
    # Nothing is left behind by the clean end.
    with History(url) as history:
        later = backlog(history, [PULSE.stream], now_ns=T0 + 301 * S, length_s=10, hop_s=5)
    assert later == []


async def test_windows_that_are_cut_again_count_once_in_the_engine(url: str) -> None:
    sent = packets(0, 203)
    await watched(url, Told(sent[:201]))
    store(url, *sent[201:])
    with History(url) as history:
        left = backlog(history, [PULSE.stream], now_ns=T0 + 204 * S, length_s=10, hop_s=5)
        engine = Steps()
        restore(engine, RhythmEngine(), history, now_ns=T0 + 204 * S, hop_s=5, left=left)
    await watched(url, Told([]), engine, backlog=left)
    starts = [o.start_ns for o in [*engine.restored, *engine.stepped]]
    assert len(starts) == len(set(starts))
    assert starts == sorted(starts)


# --- what a start refuses


async def refused(url: str, **more: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        await serve(config(url, **more), [], find_bundle(DEFAULT), stop=asyncio.Event())
    (problem,) = caught.value.problems
    return problem


async def test_nothing_to_watch(url: str) -> None:
    assert "leadone pair ADDRESS" in await refused(url)


async def test_a_strap_of_somebody_who_is_not_configured(url: str) -> None:
    store(url, replace(PAIRED, stream=Stream("zoe", "h10")))
    problem = await refused(url)
    assert "'zoe'" in problem
    assert f"leadone unpair {ADDRESS}" in problem


async def test_a_strap_of_the_same_name_as_a_source(url: str) -> None:
    store(url, PAIRED)
    source = {"type": "replay", "patient": "anna", "device": "h10", "records": ["x"]}
    assert f"leadone unpair {ADDRESS}" in await refused(url, sources=[source])


async def test_a_kind_that_this_version_does_not_know(url: str) -> None:
    store(url, replace(PAIRED, kind="patch"))
    assert "patch" in await refused(url)


# --- in the database

NOW = StrapState(H10_STREAM, "streaming", None, None, T0 + 5 * S, 70, T0 + 6 * S)


async def test_straps_and_their_states_come_back(database_url: str) -> None:
    upgrade(database_url)
    other = replace(PULSE, adapter="hci1")
    lost = StrapState(other.stream, "waiting", "link lost", "go nearer " * 40, T0, None, None)
    store(database_url, other, PAIRED, lost)
    store(database_url, replace(NOW, battery=71))
    store(database_url, NOW)
    with History(database_url) as history:
        assert history.straps() == [(PAIRED, NOW), (other, lost)]
    assert check(database_url) == []


async def test_pairing_again_forgets_the_state_and_unpairing_the_strap(database_url: str) -> None:
    upgrade(database_url)
    chunk = Chunk(H10_STREAM, T0, 130.0, np.zeros(130, np.float32))
    store(database_url, PAIRED, NOW, chunk)
    new = replace(PAIRED, address="A0:9E:1A:00:00:02", paired_ns=T0 + 9 * S)
    store(database_url, new)
    with History(database_url) as history:
        assert history.straps() == [(new, None)]
    store(database_url, Unpaired(ADDRESS))
    store(database_url, Unpaired(new.address))
    # The daemon, which has not been restarted, goes on telling.
    store(database_url, NOW)
    with History(database_url) as history:
        assert history.straps() == []
        assert history.last_sample(H10_STREAM) == T0 + S
        assert history.last_sample(Stream("anna", "other")) is None


async def test_an_address_is_paired_once(database_url: str) -> None:
    upgrade(database_url)
    store(database_url, PAIRED)
    writer = Writer(database_url)
    writer.start()
    try:
        with pytest.raises(IntegrityError):
            await writer.store(replace(PAIRED, stream=Stream("boris", "h10")))
    finally:
        writer.stop()
    with History(database_url) as history:
        assert history.straps() == [(PAIRED, None)]
