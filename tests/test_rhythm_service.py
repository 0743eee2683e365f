"""A heart that fibrillates is heard by the whole service, whatever else is broken meanwhile."""

import sqlite3
import threading
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import structlog
from prometheus_client import REGISTRY
from pydantic import TypeAdapter
from rhythm_watches import MODEL, ORGANISED, VF, Watches
from test_gateway import ENDED, RAISED, about
from watching import STREAM, T0, S, new_database, started, until

from alerts.records import Presence
from alerts.rhythm import Rhythm, RhythmSeen
from ingest.chunk import Chunk, Stream
from ingest.rr import RrIntervals
from models.rhythm import verdict
from models.rhythm.model import RhythmModelError
from monitor.config import SourceConfig
from monitor.results import WindowResult
from monitor.resume import recent
from monitor.rhythms import Rhythms
from monitor.storage.history import History
from monitor.window import Window

if TYPE_CHECKING:
    from collections.abc import Callable

    from house import House

    Make = Callable[..., House]

pytest_plugins = ["house"]


# --- all streams


def ecg(start_s: float, level: float, patient: str = "anna") -> Chunk:
    samples = np.full(100, level, np.float32)
    return Chunk(Stream(patient, "strap"), T0 + round(start_s * S), 100.0, samples)


class Heard:
    """A watch over all streams, and what it tells."""

    def __init__(self, watch: Any = None, *, model: Any = MODEL) -> None:
        self.seen: list[RhythmSeen] = []
        self.beats: list[tuple[str, int]] = []
        self.watches = Watches()
        self.rhythms = Rhythms(
            model,
            on_seen=[self.seen.append],
            on_beat=lambda patient, at_ns: self.beats.append((patient, at_ns)),
            watch=watch or self.watches,
        )


def test_each_stream_is_watched_by_itself() -> None:
    heard = Heard()
    for n in range(4):
        heard.rhythms.add(ecg(n, ORGANISED))
        heard.rhythms.add(ecg(n, VF, "boris"))
    # After two seconds in which there is too little of each.
    assert [s.rhythm.value for s in heard.seen[:4]] == ["unknown"] * 4
    assert [(s.patient, s.rhythm.value) for s in heard.seen[4:]] == [
        ("anna", "organised"),
        ("boris", "vf"),
    ] * 2
    assert heard.watches.runs == [400, 400]


def test_a_watch_that_fails_begins_anew_and_ends_no_other() -> None:
    watches = Watches()

    class Fails:
        """Fails at the second second of Anna's first run."""

        def __init__(self, rate: float) -> None:
            self._watch = watches(MODEL, rate)
            self._first = len(watches.made) == 1

        def add(self, microvolts: Any) -> Any:
            if self._first and len(self._watch.samples):
                raise ZeroDivisionError
            return self._watch.add(microvolts)

    failed = REGISTRY.get_sample_value("leadone_rhythms_failed_total") or 0.0
    heard = Heard(lambda _model, rate: Fails(rate))
    with structlog.testing.capture_logs() as logs:
        for n in range(5):
            heard.rhythms.add(ecg(n, VF))
            heard.rhythms.add(ecg(n, VF, "boris"))
    assert [log["start_ns"] for log in logs] == [T0 + S]
    assert logs[0]["stream"] == "anna/strap"
    assert REGISTRY.get_sample_value("leadone_rhythms_failed_total") == failed + 1
    told = [(s.patient, round((s.at_ns - T0) / S), s.rhythm.value) for s in heard.seen]
    # While it cannot tell it says so: a heart that cannot be seen is told of.
    unknown = [(n, "unknown") for n in (1, 2, 3, 4)]
    assert [t[1:] for t in told if t[0] == "anna"] == [*unknown, (5, "vf")]
    vf = [(n, "vf") for n in (3, 4, 5)]
    assert [t[1:] for t in told if t[0] == "boris"] == [*unknown[:2], *vf]


def test_beats_of_a_strap_without_a_waveform_are_told() -> None:
    heard = Heard(model=None)
    packet = RrIntervals(STREAM, T0, (0.8, 0.9), 70, None)
    heard.rhythms.add(packet)
    for untold in (
        replace(packet, rr_s=()),
        replace(packet, contact=False),
        replace(packet, rr_s=(0.8, 70.0)),
    ):
        heard.rhythms.add(untold)
    heard.rhythms.add(ecg(0, VF))
    assert heard.beats == [("anna", T0)]
    assert heard.seen == []


# --- what is heard once more after a crash


async def stored(url: str, *records: Any) -> None:
    writer = started(url)
    await writer.store(*records)
    writer.stop()


async def test_after_a_crash_the_last_seconds_are_heard_again(tmp_path: Any) -> None:
    url = new_database(tmp_path)
    of_before = replace(ecg(0, VF, "boris"), start_ns=T0 - 3600 * S)
    await stored(url, *[ecg(n, n) for n in range(60)], of_before)
    with History(url) as history:
        assert heard_again(history, STREAM) == [*range(40, 60)]
        # Nothing of who was never seen, nor of more than an hour ago.
        assert heard_again(history, Stream("anna", "patch"), of_before.stream) == []
        assert recent(history, [STREAM], now_ns=T0 + 3700 * S) == []


def heard_again(history: History, *streams: Stream) -> list[int]:
    """The seconds, from ``T0``, of the chunks."""
    return [
        round((chunk.start_ns - T0) / S) for chunk in recent(history, streams, now_ns=T0 + 61 * S)
    ]


# --- the whole service


async def test_fibrillation_is_told_before_there_is_a_window(make: "Make") -> None:
    house = make()
    async with house.running():
        house.strap.send(4, VF)
        await house.until_told(*RAISED)
        assert sorted(about(house, "vf")) == [*RAISED]
        # Three seconds, where a window takes ten.
        with History(house.url) as history:
            assert history.last_window_end(STREAM) is None
            (alarm,) = history.active_alarms()
        assert alarm.raised_ns - alarm.started_ns == S
        # It is over after half a minute of beats, and stays until somebody answers.
        house.strap.send(29)
        await house.quiet()
        assert house.signals[0].presence is Presence.ON
        house.strap.send(1)
        await until(lambda: house.signals[0].presence is Presence.LATCHED, 40)


async def test_it_is_told_while_the_inference_thread_hangs(make: "Make") -> None:
    house = make()
    held = threading.Event()
    analyze = house.heart.analyze

    def hang(windows: Sequence[Window]) -> list[WindowResult]:
        assert held.wait(60)
        return analyze(windows)

    house.heart.analyze = hang  # type: ignore[method-assign]
    try:
        async with house.running():
            house.strap.send(30)
            house.strap.send(4, VF)
            await house.until_told(*RAISED)
            assert house.messages[0]["data"]["condition"] == "vf"
            held.set()
    finally:
        held.set()


async def test_it_is_told_while_the_database_is_locked(
    make: "Make", monkeypatch: pytest.MonkeyPatch
) -> None:
    from house import impatient

    impatient(monkeypatch)
    house = make()
    async with house.running():
        await house.see(1)
        locked = sqlite3.connect(house.url.removeprefix("sqlite:///"), isolation_level=None)
        locked.execute("BEGIN EXCLUSIVE")
        try:
            house.strap.send(4, VF)
            await house.until_told(*RAISED)
            assert house.signals == []
        finally:
            locked.execute("ROLLBACK")
            locked.close()
        await until(lambda: [s.alarm.condition for s in house.signals] == ["vf"], 40)
        await house.until_told(*RAISED)


async def test_after_a_restart_it_is_not_told_again_and_goes_on(make: "Make") -> None:
    house = make()
    async with house.running():
        house.strap.send(4, VF)
        await house.until_told(*RAISED)
    async with house.running():
        house.strap.send(10, VF)
        await house.until_told(*RAISED)
    with History(house.url) as history:
        (alarm,) = history.active_alarms()
    assert alarm.condition == "vf"


async def test_what_was_stored_and_not_heard_is_heard_at_the_next_start(make: "Make") -> None:
    house = make()
    now_ns = house.clock.time_ns()
    left = [replace(ecg(0, VF), start_ns=now_ns - (9 - n) * S) for n in range(4)]
    await stored(house.url, *left)
    source = {"type": "replay", "patient": "anna", "device": "strap", "records": ["none.csv"]}
    sources = [TypeAdapter(SourceConfig).validate_python(source)]
    house.config = house.config.model_copy(update={"sources": sources})
    async with house.running():
        await house.until_told(*RAISED)
        assert sorted(about(house, "vf")) == [*RAISED]


async def test_a_model_that_cannot_be_loaded_is_told_and_the_daemon_runs_on(
    make: "Make", monkeypatch: pytest.MonkeyPatch
) -> None:
    house = make()

    def load() -> None:
        raise RhythmModelError("rhythm: checksum is wrong")

    monkeypatch.setattr("monitor.service.RhythmModel", load)
    async with house.running():
        await house.see(2)
        await house.until_told(*RAISED)
        (first, _) = house.messages
        assert first["title"] == "Gateway: the watch for cardiac arrest does not work"
        assert first["data"]["reason"] == "rhythm: checksum is wrong"
    monkeypatch.setattr("monitor.service.RhythmModel", lambda: MODEL)
    async with house.running():
        await house.until_told(*RAISED, *ENDED)


def test_the_rhythms_of_alerts_and_models_are_the_same() -> None:
    assert [rhythm.value for rhythm in Rhythm] == [rhythm.value for rhythm in verdict.Rhythm]
