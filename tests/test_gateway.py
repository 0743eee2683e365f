"""The gateway's own alarms: database, disk, clock, time, model and channels."""

import asyncio
import hashlib
import math
import re
import shutil
import signal
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
from notify_servers import Answer
from program import Program, simulator, write_config
from storage_samples import window
from watching import STREAM, T0, S, until

from alerts.conditions import Alarm, Change, Priority, State
from alerts.gateway import GATEWAY, GatewayWatch
from alerts.technical import Moment
from ingest.chunk import Chunk
from ingest.episodes import Episode, EpisodeKind, Script
from ingest.simulator import SimulatorSource
from models.bundle import DEFAULT, Bundle, find_bundle
from monitor import irregularity
from monitor.gateway import Gateway
from monitor.progress import Progress, Stage
from monitor.quality import Grade, Quality, Reason
from monitor.results import WindowResult
from monitor.storage.history import History

if TYPE_CHECKING:
    from collections.abc import Callable

    from house import House

    Make = Callable[..., House]

pytest_plugins = ["house"]


class Usage(NamedTuple):
    """As ``shutil.disk_usage`` gives it."""

    total: int
    used: int
    free: int


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """The disk of the gateway: 64 GB, and what is free of it."""
    made = SimpleNamespace(free=30_000_000_000, error=None)

    def usage(_: object) -> Usage:
        if made.error is not None:
            raise made.error
        return Usage(64_000_000_000, 64_000_000_000 - made.free, made.free)

    monkeypatch.setattr("monitor.gateway.shutil", SimpleNamespace(disk_usage=usage))
    return made


class Watched:
    """A gateway that is looked at each second, by a clock that is set by hand."""

    def __init__(self, *left: Alarm, channels: tuple[str, ...] = ("bob", "eve")) -> None:
        self.now_s = 0.0
        self.set_by_s = 0.0
        self.writer = SimpleNamespace(last_error=None, failures=0)
        self.progress = Progress(lambda: round(self.now_s * S))
        self.changes: list[Change] = []
        self.gateway = Gateway(
            GatewayWatch(left),
            self.writer,  # type: ignore[arg-type]
            "sqlite:////var/lib/leadone/leadone.db",
            channels,
            self.changes.extend,
            progress=self.progress,
            now=lambda: Moment(
                (1_800_000_000 + round(self.now_s + self.set_by_s)) * S, round(self.now_s * S)
            ),
        )

    def sleep(self, seconds: int) -> None:
        for _ in range(seconds):
            self.now_s += 1
            self.gateway._look()
            if self.now_s % 60 == 0:
                self.gateway._look_slowly()

    def window(self, *reasons: Reason, model: Any = "its own", **changes: Any) -> None:
        grade = Grade(Quality.BAD, reasons) if reasons else Grade(Quality.GOOD)
        changes |= {"grade": grade}
        if model != "its own" or reasons:
            changes["model"] = None if reasons else model
        result: WindowResult = window(0, **changes)
        self.gateway.result(result)

    @property
    def told(self) -> list[tuple[str, State]]:
        return [(change.alarm.condition, change.state) for change in self.changes]


def left(condition: str) -> Alarm:
    return Alarm("id", GATEWAY, condition, Priority.MEDIUM, T0, T0)


def test_all_is_well(disk: SimpleNamespace) -> None:
    watched = Watched()
    for _ in range(60):
        watched.window()
        watched.gateway.channel("bob", None)
        watched.sleep(5)
    assert watched.told == []


def test_a_database_that_is_away_for_a_minute(disk: SimpleNamespace) -> None:
    watched = Watched()
    watched.writer.last_error = "sqlite: database is locked"
    watched.sleep(50)
    watched.writer.last_error = None
    watched.sleep(5)
    watched.writer.last_error = "sqlite: database is locked"
    watched.sleep(60)
    assert watched.told == []
    watched.sleep(2)
    (raised,) = watched.changes
    assert (raised.alarm.patient, raised.alarm.condition) == (GATEWAY, "database")
    assert raised.reason == "sqlite: database is locked"
    assert raised.alarm.raised_ns - raised.alarm.started_ns == 60 * S
    watched.writer.last_error = None
    watched.sleep(12)
    assert watched.told[1:] == [("database", State.ENDED)]


def test_a_disk_that_is_nearly_full(disk: SimpleNamespace) -> None:
    watched = Watched()
    watched.sleep(60)
    disk.free = 499_000_000
    watched.sleep(60)
    assert watched.told == [("disk", State.ACTIVE)]
    assert watched.changes[0].reason == "/var/lib/leadone: 499 MB free"
    disk.free = 501_000_000
    watched.sleep(60)
    assert watched.told[1:] == [("disk", State.ENDED)]
    # A disk that cannot be asked is no good one; and the other looks go on.
    disk.error = OSError(5, "Input/output error")
    watched.sleep(60)
    assert watched.changes[2].reason == "/var/lib/leadone: Input/output error"


def test_a_small_disk_may_be_nearly_full_without_being_so(disk: SimpleNamespace) -> None:
    """Two in a hundred of a card of 8 GB."""
    watched = Watched()
    small = Usage(8_000_000_000, 0, 161_000_000)
    shutil_of_gateway = SimpleNamespace(disk_usage=lambda _: small)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("monitor.gateway.shutil", shutil_of_gateway)
        watched.sleep(120)
    assert watched.told == []


def test_a_clock_that_cannot_be_right(disk: SimpleNamespace) -> None:
    watched = Watched()
    watched.set_by_s = -1_800_000_000.0
    watched.sleep(60)
    assert watched.told == [("clock", State.ACTIVE)]
    assert watched.changes[0].reason == "the gateway's clock says 1970-01-01"
    watched.set_by_s = 0.0
    watched.sleep(60)
    assert watched.told[1:] == [("clock", State.ENDED)]
    (raised, ended) = (change.alarm for change in watched.changes)
    assert ended.ended_ns is not None
    assert ended.ended_ns >= raised.raised_ns


def test_windows_that_nobody_had_the_time_to_read(disk: SimpleNamespace) -> None:
    watched = Watched()
    for _ in range(8):
        watched.window(Reason.SKIPPED)
        watched.sleep(5)
    assert watched.told == [("behind", State.ACTIVE)]
    watched.sleep(100)
    assert len(watched.changes) == 1
    watched.sleep(100)
    assert watched.told[1:] == [("behind", State.ENDED)]


@pytest.mark.parametrize(
    ("stage", "words"),
    [
        (Stage.INTAKE, "taking in the signal of anna/strap has stood still for 40 s"),
        (Stage.ANALYSIS, "the analysis of anna/strap has stood still for 40 s"),
        (Stage.STORAGE, "storing the signal of anna/strap has stood still for 40 s"),
    ],
)
@pytest.mark.parametrize("asks", [True, False])
def test_what_stands_still_is_told_within_a_minute_with_its_stage(
    disk: SimpleNamespace, stage: Stage, words: str, asks: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if asks:
        monkeypatch.setenv("NOTIFY_SOCKET", "/run/systemd/notify")
        monkeypatch.setenv("WATCHDOG_USEC", "90000000")
    watched = Watched()
    watched.sleep(5)
    watched.progress.enter(stage, STREAM)
    watched.sleep(30)
    watched.progress.leave(stage, STREAM)
    watched.progress.enter(stage, STREAM)
    watched.sleep(39)
    assert watched.told == []
    watched.sleep(2)
    (raised,) = watched.changes
    assert (raised.alarm.condition, raised.alarm.priority) == ("stalled", Priority.HIGH)
    then = "leadone is restarted by itself" if asks else "restart leadone"
    assert re.sub("4[01] s", "40 s", raised.reason) == f"{words}; {then}"
    watched.sleep(60)
    watched.progress.leave(stage, STREAM)
    watched.sleep(12)
    assert watched.told[1:] == [("stalled", State.ENDED)]


def test_a_database_that_is_away_for_an_hour_is_no_stall(disk: SimpleNamespace) -> None:
    """A restart would bring it no nearer, and lose what waits for it in memory."""
    watched = Watched()
    watched.progress.enter(Stage.STORAGE, STREAM)
    watched.writer.last_error = "sqlite: disk I/O error"
    for _ in range(720):
        watched.sleep(5)
        watched.writer.failures += 1
    assert watched.told == [("database", State.ACTIVE)]
    # But a thread that does not come back to say so is one.
    watched.sleep(45)
    assert watched.told[1:] == [("stalled", State.ACTIVE)]


def test_a_model_that_fails_at_window_after_window(disk: SimpleNamespace) -> None:
    watched = Watched()
    watched.window()
    for _ in range(2):
        watched.window(Reason.FAILED)
        watched.sleep(5)
    # Noise says nothing of the model, nor does a strap without a waveform.
    watched.window(Reason.NOISY)
    watched.window(model=irregularity.MODEL)
    watched.window(model=None)
    assert watched.gateway.model_works
    watched.window(Reason.FAILED)
    watched.sleep(1)
    assert watched.told == [("model", State.ACTIVE)]
    assert not watched.gateway.model_works
    watched.window()
    watched.sleep(1)
    assert watched.told[1:] == [("model", State.ENDED)]
    assert watched.gateway.model_works


def test_a_model_that_was_not_loaded_stays_away(disk: SimpleNamespace) -> None:
    watched = Watched()
    watched.gateway.no_model("lead1: graph does not load")
    for _ in range(100):
        watched.window(model=None)
        watched.sleep(5)
    assert watched.told == [("model", State.ACTIVE)]
    assert watched.changes[0].reason == "lead1: graph does not load"
    assert not watched.gateway.model_works


def test_a_watch_for_lethal_rhythms_that_was_not_loaded_is_told_until_it_is(
    disk: SimpleNamespace,
) -> None:
    watched = Watched()
    watched.gateway.no_rhythm_model("rhythm.json: checksum is wrong")
    watched.sleep(100)
    assert watched.told == [("rhythm-model", State.ACTIVE)]
    assert watched.changes[0].reason == "rhythm.json: checksum is wrong"
    assert watched.changes[0].alarm.priority is Priority.MEDIUM
    # The model of windows has nothing to do with it.
    assert watched.gateway.model_works
    later = Watched(watched.changes[0].alarm)
    later.sleep(1)
    assert later.told == [("rhythm-model", State.ENDED)]


def test_a_channel_that_fails_for_a_minute(disk: SimpleNamespace) -> None:
    watched = Watched()
    watched.gateway.channel("bob", "bob: connection refused")
    watched.sleep(60)
    assert watched.told == []
    watched.sleep(2)
    assert watched.told == [("channel:bob", State.ACTIVE)]
    watched.gateway.channel("bob", None)
    watched.sleep(1)
    assert watched.told[1:] == [("channel:bob", State.ENDED)]


def test_a_restart_keeps_what_is_not_known_to_be_over(disk: SimpleNamespace) -> None:
    disk.free = 1
    kept = ("disk", "model", "channel:bob")
    watched = Watched(*map(left, kept), left("channel:former"), left("behind"), left("database"))
    watched.sleep(60)
    # The database is there; of the former channel nobody will ever know more.
    assert sorted(watched.told) == [("channel:former", State.ENDED), ("database", State.ENDED)]
    watched.sleep(120)
    assert watched.told[2:] == [("behind", State.ENDED)]
    watched.window()
    watched.gateway.channel("bob", None)
    disk.free = 30_000_000_000
    watched.sleep(60)
    assert sorted(watched.told[3:]) == sorted((c, State.ENDED) for c in kept)
    assert {change.alarm.id for change in watched.changes} == {"id"}


# --- in the whole service

RAISED = (("bob", "raised"), ("eve", "raised"))
ENDED = (("bob", "ended"), ("eve", "ended"))


def about(house: "House", condition: str) -> list[tuple[str, str]]:
    """To whom what was told of one condition."""
    return [
        who_what
        for who_what, message in zip(house.told, house.messages, strict=True)
        if message["data"]["condition"] == condition
    ]


async def test_a_locked_database_is_told_and_so_is_its_end(
    make: "Make", monkeypatch: pytest.MonkeyPatch
) -> None:
    from house import impatient

    impatient(monkeypatch)
    house = make()
    async with house.running():
        await house.see(1)
        locked = sqlite3.connect(house.url.removeprefix("sqlite:///"), isolation_level=None)
        locked.execute("BEGIN IMMEDIATE")
        house.strap.send(5)
        await house.quiet()
        await house.quiet()
        house.clock.sleep(61)
        await house.until_told(*RAISED)
        assert house.messages[0]["title"] == "Gateway: trouble with the database"
        locked.execute("ROLLBACK")
        locked.close()
        await until(lambda: len(house.signals) == 1, 40)
        await house.quiet()
        house.clock.sleep(11)
        await house.until_told(*RAISED, *ENDED)


async def test_a_full_disk_outlives_a_restart_and_is_no_lost_signal(
    make: "Make", disk: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("monitor.gateway._SLOWLY_S", 0.02)
    disk.free = 1
    house = make()
    async with house.running():
        await house.until_told(*RAISED)
        house.clock.sleep(300)
        await house.quiet()
    async with house.running():
        await house.until_told(*RAISED)
        disk.free = 30_000_000_000
        await house.until_told(*RAISED, *ENDED)


async def test_a_model_that_fails_is_told_and_the_daemon_runs_on(make: "Make") -> None:
    house = make()
    async with house.running():
        await house.see(1)
        house.heart.fails = True
        house.strap.send(15)
        await house.until_told(*RAISED)
        assert house.messages[0]["title"] == "Gateway: rhythms are not being recognised"
        house.heart.fails = False
        await house.see(1)
        await house.until_told(*RAISED, *ENDED)


async def test_a_channel_that_is_away_is_told_once_it_is_back(make: "Make") -> None:
    """And on the others meanwhile."""
    house = make()
    house.answers = {"/bob": Answer(503)}
    house.heart.af = 0.9
    async with house.running():
        await house.see(3)
        await until(lambda: len(house.told) >= 2, 40)
        await house.quiet()
        house.clock.sleep(61)
        await until(lambda: ("eve", "raised") in about(house, "channel:bob-webhook"), 40)
        house.answers = {}
        await until(lambda: ("eve", "ended") in about(house, "channel:bob-webhook"), 40)
        assert about(house, "class:AF")[-1] == ("bob", "raised")


# --- a model that cannot be loaded


def broken_bundle(folder: Path, *, digest: bool) -> Path:
    """The shipped bundle with a graph that is none; with ``digest`` its manifest knows it so."""
    shipped = find_bundle(DEFAULT).path
    shutil.copytree(shipped, folder / "bundle")
    garbage = b"this is no graph"
    (folder / "bundle" / "model.onnx").write_bytes(garbage)
    if not digest:
        return folder / "bundle"
    manifest = folder / "bundle" / "bundle.yaml"
    old = hashlib.sha256((shipped / "model.onnx").read_bytes()).hexdigest()
    new = hashlib.sha256(garbage).hexdigest()
    manifest.write_text(manifest.read_text().replace(old, new))
    return folder / "bundle"


async def test_without_a_model_rates_and_pauses_are_watched_all_the_same(
    make: "Make", tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from monitor.analysis import Analyzer

    house = make()
    monkeypatch.setattr("monitor.service.Analyzer", Analyzer)
    house.bundle = Bundle(broken_bundle(tmp_path, digest=True))
    script = Script((Episode(EpisodeKind.SINUS_ARREST, 60, pause_s=4.5),))
    simulator = SimulatorSource(
        STREAM, script, seed=1, speed=math.inf, start_ns=house.clock.time_ns() - 60 * S
    )

    class Patient:
        name = "simulated"
        live = True

        async def chunks(self) -> AsyncIterator[Chunk]:
            async for chunk in simulator.chunks():
                yield chunk
            await asyncio.Event().wait()

    house.strap = Patient()  # type: ignore[assignment]
    async with house.running():
        await until(lambda: len(about(house, "model")) == 2, 40)
        await until(lambda: len(about(house, "pause")) >= 2, 40)
    with History(house.url) as history:
        good = [w for w in history.windows("anna", 0, 2**62) if w.grade.good]
    assert good
    assert {w.model for w in good} == {None}
    assert all(w.heart_rate is not None for w in good)


def test_a_graph_that_is_not_the_manifests_is_not_run_and_the_heart_is_watched(
    tmp_path: Path,
) -> None:
    """It is not known what its numbers mean; but nobody must go unwatched for that."""
    bundle = broken_bundle(tmp_path, digest=False)
    config = write_config(tmp_path, [simulator()], bundle=str(bundle))
    with Program("run", "-c", config, folder=tmp_path) as program:
        program.until_logged("ready")
        program.until(lambda: "rhythms" in program.err or "gateway" in program.err)
        done = program.end(signal.SIGTERM)
    assert done.code == 0
    assert "not the graph bundle.yaml was written for" in done.err
