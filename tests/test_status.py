"""What the daemon says of itself: of each patient whether they are watched, and if not, why not."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from program import simulator
from storage_samples import window
from watching import T0, S, fake_engine, new_database, ramp, started

from alerts.conditions import Alarm, Change, Priority, State
from alerts.escalation import Plan
from alerts.gateway import GatewayWatch
from alerts.rhythm import Rhythm, RhythmSeen
from alerts.technical import Moment
from ingest.chunk import Stream
from ingest.rr import RrIntervals
from monitor.alarms import Alarms
from monitor.config import Config
from monitor.gateway import Gateway
from monitor.quality import Grade, Quality, Reason
from monitor.results import WindowResult
from monitor.status import Status
from monitor.storage.history import History
from monitor.storage.records import Request, Strap, StrapState

PATCH = Stream("anna", "patch")
SIM = Stream("boris", "sim")
GOOD = Grade(Quality.GOOD)
STRAP = Strap(Stream("anna", "h10"), "A0:9E:1A:00:00:01", "polar_h10", None, T0)


def bad(*reasons: Reason) -> Grade:
    return Grade(Quality.BAD, reasons)


class Watched:
    """A status whose clock is set by hand, in seconds; ``ahead_s`` is what UTC is wrong by."""

    def __init__(
        self, folder: Path, *straps: tuple[Strap, StrapState], stalled: Any = None
    ) -> None:
        self.now_s = 0.0
        self.ahead_s = 0.0
        self.stalled: str | None = stalled
        self.url = new_database(folder)
        config = Config.model_validate(
            {
                "database": self.url,
                "patients": [{"id": "anna"}, {"id": "boris"}],
                "sources": [simulator("boris")],
            }
        )
        self.writer = started(self.url)
        self.alarms = Alarms(
            fake_engine(), self.writer, plan_for=lambda _: Plan.telling(["me"]), now=self.now
        )
        gateway = Gateway(GatewayWatch(), self.writer, self.url, (), lambda _: None, now=self.now)
        self.gateway = gateway
        self.status = Status(
            config,
            self.writer,
            self.alarms,
            gateway,
            straps=lambda: straps,
            stalled=lambda: self.stalled,
            now=self.now,
        )

    def now(self) -> Moment:
        utc_s = self.now_s + self.ahead_s
        return Moment(T0 + round(utc_s * S), round(self.now_s * S))

    def sends(self, seconds: int, grade: Grade = GOOD, stream: Stream = PATCH) -> None:
        """A chunk each second, and a window each five."""
        for i in range(seconds):
            self.now_s += 1
            self.status.chunk(ramp(self.now_s - 1, 1, stream=stream))
            if i % 5 == 4:
                self.status.result(self.result(self.now_s - 10, grade, stream))

    def result(self, start_s: float, grade: Grade, stream: Stream) -> WindowResult:
        start_ns = T0 + round(start_s * S)
        return replace(window(0, stream=stream), start_ns=start_ns, duration_s=10.0, grade=grade)

    def why(self, patient: str = "anna") -> str | None:
        (row,) = (p for p in self.status.report()["patients"] if p["id"] == patient)
        assert row["watched"] is (row["why"] is None)
        why = row["why"]
        assert why is None or isinstance(why, str)
        return why


@pytest.fixture
def watched(tmp_path: Path) -> Any:
    made: list[Watched] = []

    def make(*straps: tuple[Strap, StrapState]) -> Watched:
        made.append(Watched(tmp_path, *straps))
        return made[-1]

    yield make
    for one in made:
        one.writer.stop()


Make = Callable[..., Watched]


def test_from_the_start_to_the_first_window(watched: Make) -> None:
    it = watched()
    assert it.why() == "no device: leadone pair ADDRESS, or docs/mqtt.md"
    it.now_s = 5
    assert it.why("boris") == "sim: nothing has come from it since leadone started 5 s ago"
    it.sends(4)
    assert it.why() == "patch: it has sent for 3 s, and no window is read yet"
    it.sends(1)
    it.status.result(it.result(it.now_s - 10, GOOD, PATCH))
    assert it.why() is None
    it.now_s = 300
    silent = "sim: nothing has come from it since leadone started 5 min ago: see that it is worn"
    assert str(it.why("boris")).startswith(silent)


def test_a_device_that_falls_silent(watched: Make) -> None:
    it = watched()
    it.sends(60)
    assert it.why() is None
    it.now_s += 59
    assert it.why() is None
    it.now_s += 121
    assert str(it.why()).startswith("patch: nothing has come from it for 3 min: see that it is")
    (row,) = (r for r in it.status.report()["streams"] if r["device"] == "patch")
    assert (row["sending"], row["arrived_s"], row["read_s"]) == (False, 180.0, 180.0)
    it.sends(5)
    assert it.why() is None


@pytest.mark.parametrize(
    ("reason", "says"),
    [
        (Reason.NOISY, "too noisy to see a heart"),
        (Reason.CONTACT, "the electrodes are off the skin"),
        (Reason.FLAT, "a flat line"),
        (Reason.SATURATED, "beyond the scale"),
        (Reason.GAP, "too many samples are missing"),
        (Reason.SKIPPED, "no time to read it"),
        (Reason.FAILED, "leadone failed at reading it"),
    ],
)
def test_signal_that_cannot_be_read_is_not_watched(
    watched: Make, reason: Reason, says: str
) -> None:
    it = watched()
    it.sends(60)
    it.sends(50, bad(reason))
    assert it.why() is None
    it.sends(15, bad(reason))
    why = str(it.why())
    assert why.startswith("patch: it sends, but it could not be read lately: ")
    assert says in why


def test_a_heart_that_fibrillates_is_seen(watched: Make) -> None:
    it = watched()
    it.sends(120, bad(Reason.NOISY))
    seen = RhythmSeen(
        patient="anna", device="patch", at_ns=T0, rhythm=Rhythm.UNKNOWN, since_ns=T0, rate=None
    )
    it.status.rhythm(seen)
    assert it.why() is not None
    it.status.rhythm(replace(seen, rhythm=Rhythm.VF))
    assert it.why() is None


def test_old_signal_that_comes_now_is_no_watch(watched: Make) -> None:
    it = watched()
    it.now_s = 6 * 3600
    for i in range(20):
        it.status.chunk(ramp(i, 1, stream=PATCH))
    it.status.result(it.result(0, GOOD, PATCH))
    assert str(it.why()).startswith("patch: what it sends is 6 h old: its clock or the gateway's")


def test_what_is_read_of_long_ago_says_nothing_of_now(watched: Make) -> None:
    it = watched()
    it.now_s = 3600
    it.sends(5, bad(Reason.NOISY))
    for i in range(100):
        it.status.result(it.result(5 * i, bad(Reason.FLAT), PATCH))
        it.status.result(it.result(5 * i, GOOD, PATCH))
    assert "too noisy to see a heart" in str(it.why())


def test_a_step_of_the_clock_certifies_nobody(watched: Make) -> None:
    it = watched()
    it.ahead_s = -347 * 86_400
    # As seen by the gateway whose clock was set back, what it has read is of next year.
    it.sends(60)
    assert it.why() is None
    it.now_s += 200
    assert it.why() is not None
    it.ahead_s = 0
    assert it.why() is not None


def test_one_device_that_is_read_is_enough(watched: Make) -> None:
    it = watched()
    it.status.expect([Stream("anna", "old")])
    it.now_s = 200
    assert str(it.why()).startswith("old: nothing has come from it since leadone started 3 min")
    it.sends(10)
    assert it.why() is None


def test_what_a_strap_says_of_its_link_is_the_reason(watched: Make) -> None:
    state = StrapState(STRAP.stream, "waiting", "strap not seen", "wear it", T0, 80, T0)
    it = watched((STRAP, state))
    it.now_s = 90
    assert it.why() == "h10: strap not seen: wear it"
    (row,) = (r for r in it.status.report()["streams"] if r["device"] == "h10")
    assert (row["kind"], row["battery"], row["strap"]["stage"]) == ("strap", 80, "waiting")
    # One without a waveform.
    it.status.chunk(RrIntervals(STRAP.stream, it.now().utc_ns, (0.8,), 75, contact=True))
    assert str(it.why()).startswith("h10: it has sent for 0 s")


def test_whatever_stands_still_watches_nobody(watched: Make) -> None:
    it = watched()
    it.sends(60)
    it.stalled = "the analysis has stood still for 40 s"
    assert it.why() == it.why("boris") == "the analysis has stood still for 40 s"


def test_devices_that_come_and_go_are_forgotten(watched: Make) -> None:
    it = watched()
    it.sends(5)
    it.now_s += 8 * 86_400
    it.sends(5, stream=Stream("anna", "new"))
    kinds = {row["device"]: row["kind"] for row in it.status.report()["streams"]}
    assert kinds == {"sim": "simulator", "new": "mqtt"}


def test_channels_and_batteries(watched: Make) -> None:
    it = watched()
    it.status.battery(PATCH, 40)
    it.status.channel("me-ntfy", None)
    it.now_s = 60
    it.status.channel("me-ntfy", "the network is away")
    report = it.status.report()
    assert report["channels"] == [
        {"name": "me-ntfy", "wrong": "the network is away", "delivered_ns": T0}
    ]
    assert [row["battery"] for row in report["streams"]] == [None, 40]


async def test_what_somebody_asks_is_done_at_once_and_stored_beside(watched: Make) -> None:
    it = watched()
    ns = it.now().utc_ns
    some = Alarm("a" * 36, "anna", "pause", Priority.HIGH, ns, ns)
    it.alarms.conclude([Change(some, ns, State.ACTIVE, "5 s without a beat")])
    await it.alarms.stored(10)
    (row,) = it.status.report()["alarms"]
    assert (row["id"], row["condition"], row["presence"]) == (some.id, "pause", "on")
    ack = Request("ack", {"alarms": [some.id]}, "eve", ns + 1)
    assert it.alarms.request(ack) == "acknowledged: 1"
    assert it.status.report()["alarms"][0]["presence"] == "acknowledged"
    pause = Request("pause", {"patient": "anna", "kind": None, "seconds": 60}, "eve", ns + 2)
    assert it.alarms.request(pause) == "paused"
    assert it.status.report()["patients"][0]["paused_until_ns"] == ns + 2 + 60 * S
    nobody = Request("ack", {"alarms": ["b"]}, "eve", ns + 3)
    assert it.alarms.request(nobody).startswith("failed: ")
    await it.alarms.stored(10)
    with History(it.url) as history:
        # Stored with its answer, or the next look at the database would do it once more.
        assert history.requests() == []
        assert history.answer(ns + 1, "eve") == "acknowledged: 1"
        assert str(history.answer(ns + 3, "eve")).startswith("failed: ")
        assert ("acknowledged", "eve") in [(a.what, a.by) for a in history.audit(some.id)]
