"""Why there was an alarm of a device or of the gateway: what it looks at, and what was seen."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from program import Leadone, simulator, write_config

from alerts.conditions import Alarm, Change, Priority, State
from ingest.chunk import Stream
from monitor.cli.explain_machine import looks_at
from monitor.quality import Grade, Quality, Reason
from monitor.results import WindowResult
from monitor.storage.maintenance import upgrade
from monitor.storage.records import Patient
from monitor.storage.writer import Writer
from monitor.window import Gap

pytest_plugins = ["in_process"]

S = 1_000_000_000
NOON = 1_795_262_400 * S  # 2026-11-21T12:00:00Z
STREAM = Stream("anna", "h10")
ID = "aaaa1111-0000-4000-8000-000000000001"


def window(number: int, *reasons: Reason, stream: Stream = STREAM) -> WindowResult:
    """The window of 10 s that begins 5 s times ``number`` after noon."""
    return WindowResult(
        stream=stream,
        start_ns=NOON + number * 5 * S,
        duration_s=10.0,
        grade=Grade(Quality.BAD, reasons) if reasons else Grade(Quality.GOOD),
        heart_rate=None if reasons else 70.0,
        longest_rr_s=None if reasons else 1.0,
        r_peaks_s=np.empty(0),
        model=None,
        probabilities=None,
    )


def alarm(
    condition: str, patient: str = "anna", *, started_s: float, raised_s: float, ended_s: float
) -> Alarm:
    times = (NOON + round(s * S) for s in (started_s, raised_s, ended_s))
    return Alarm(ID, patient, condition, Priority.MEDIUM, *times)


def stored(folder: Path, some: Alarm, reason: str, over: str, *records: Any) -> Path:
    """A configuration whose database holds one alarm that has ended, and what was seen."""
    assert some.ended_ns is not None
    path = write_config(folder, [simulator("anna")])
    url = f"sqlite:///{folder}/leadone.db"
    upgrade(url)
    writer = Writer(url)
    writer.start()
    on = Alarm(*(getattr(some, name) for name in Alarm.__slots__[:6]))
    changes = [
        Change(on, on.raised_ns, State.ACTIVE, reason),
        Change(some, some.ended_ns, State.ENDED, over),
    ]
    writer.submit(Patient("anna"), *records, *changes).result()
    writer.stop()
    return path


@pytest.fixture
def electrodes(tmp_path: Path) -> Path:
    """A minute that can be read, three off the skin, one that can be read: two devices."""
    some = alarm("electrodes:h10", started_s=60, raised_s=185, ended_s=250)
    windows = [window(i, *([Reason.CONTACT] if 12 <= i < 48 else [])) for i in range(60)]
    other = [window(i, stream=Stream("anna", "patch")) for i in range(60)]
    gaps = [
        Gap(STREAM, NOON + 190 * S, NOON + 195 * S, "no data"),
        Gap(Stream("anna", "patch"), NOON + 60 * S, NOON + 65 * S, "no data"),
    ]
    reason = "h10: electrodes off the skin: wet the electrodes, tighten the strap"
    over = "h10: the electrodes touch the skin"
    return stored(tmp_path, some, reason, over, *windows, *other, *gaps)


def test_electrodes_off_the_skin_are_explained(leadone: Leadone, electrodes: Path) -> None:
    done = leadone("alarms", "explain", "aaaa", "-c", electrodes)
    assert (done.code, done.err) == (0, "")
    lines = done.out.splitlines()
    assert "h10 is off the skin (electrodes:h10): raised" in lines[0]
    assert lines[1] == (
        "looks at: electrodes:h10, medium: windows that show electrodes off the skin "
        "(contact, flat, saturated) for 120 s, and no other between; over with the first good "
        "window"
    )
    assert lines[2].endswith(
        "active: h10: electrodes off the skin: wet the electrodes, tighten the strap"
    )
    assert lines[3].endswith("ended: h10: the electrodes touch the skin")
    # From half a minute before it began (12:00:30) to its end (12:04:10).
    seen = [line.partition(": ")[2] for line in lines if line.startswith("seen: ")]
    assert [line.rpartition(": ")[2] for line in seen] == [
        "good (6 windows)",
        "contact (36 windows)",
        "good (2 windows)",
    ]
    assert all(line.startswith("anna/h10, ") for line in seen)
    assert [line for line in lines if line.startswith("gap: ")] == [
        line for line in lines if "(h10)" in line
    ]
    assert "in the 120 s before it was raised h10 gave 23 windows: 23 contact" in done.out
    # Nothing of hearts.
    for word in ("rule", "probability", "per minute", "class:", "rate:", "pause"):
        assert word not in done.out.replace("resume", ""), word


def test_the_same_for_tools(leadone: Leadone, electrodes: Path) -> None:
    done = leadone("alarms", "explain", "aaaa", "-c", electrodes, "--json")
    assert (done.code, done.err) == (0, "")
    looked, active, ended, *rest = done.rows
    assert looked == {"looks_at": "electrodes:h10", "priority": "medium", "off_skin_s": 120.0}
    assert (active["change"], active["at"]) == ("active", "2026-11-21T12:03:05.000Z")
    assert (ended["change"], ended["at"]) == ("ended", "2026-11-21T12:04:10.000Z")
    windows = [row for row in rest if "window" in row]
    assert len(windows) == 44
    assert {row["device"] for row in windows} == {"h10"}
    first = next(row for row in windows if row["reasons"])
    assert first == {
        "patient": "anna",
        "window": "2026-11-21T12:01:00.000Z",
        "device": "h10",
        "duration_s": 10.0,
        "quality": "bad",
        "reasons": ["contact"],
        "heart_rate": None,
        "longest_rr_s": None,
    }
    assert [row["gap"] for row in rest if "gap" in row] == ["no data"]
    assert [row["alarm"] for row in rest if "alarm" in row] == [ID]
    assert not any("rule" in row for row in rest)


def test_a_signal_that_cannot_be_read_is_explained(leadone: Leadone, tmp_path: Path) -> None:
    some = alarm("signal:h10", started_s=0, raised_s=600, ended_s=700)
    windows = [window(i, *([Reason.NOISY] if i % 6 else [])) for i in range(120)]
    path = stored(tmp_path, some, "h10: only 17 %", "h10: can be read", *windows)
    out = leadone("alarms", "explain", ID, "-c", path).out
    assert (
        "looks at: signal:h10, medium: good windows cover less than 25% of 600 s in which the "
        "device is neither silent nor off the skin; over when they cover 75% of 60 s"
    ) in out
    # The last window ends five seconds later.
    assert "in the 600 s before it was raised h10 gave 119 windows: 99 noisy, 20 good" in out


def test_of_a_long_alarm_its_beginning_and_its_end_are_shown(
    leadone: Leadone, tmp_path: Path
) -> None:
    some = alarm("electrodes:h10", started_s=60, raised_s=180, ended_s=8000)
    windows = [window(i, Reason.CONTACT) for i in range(12, 1600)]
    path = stored(tmp_path, some, "h10: off", "h10: on", *windows)
    out = leadone("alarms", "explain", ID, "-c", path).out
    seen = [line.rpartition(": ")[2] for line in out.splitlines() if "seen: " in line]
    # Two minutes up to 12:03:00, and the last two before 14:13:20.
    assert seen == ["contact (24 windows)", "contact (24 windows)"]


def test_a_silent_strap_is_explained(leadone: Leadone, tmp_path: Path) -> None:
    some = alarm("device:h10", started_s=60, raised_s=180, ended_s=400)
    gap = Gap(STREAM, NOON + 60 * S, NOON + 399 * S, "out of reach")
    path = stored(tmp_path, some, "h10: not in range", "h10: samples flow again", window(0), gap)
    out = leadone("alarms", "explain", ID, "-c", path).out
    assert "device:h10, medium: no samples for 120 s; over when samples flow again" in out
    assert "in the 120 s before it was raised h10 gave no window" in out
    assert ": out of reach (h10)" in out


def test_an_alarm_of_the_gateway_is_explained(leadone: Leadone, tmp_path: Path) -> None:
    some = alarm("behind", "gateway", started_s=60, raised_s=90, ended_s=300)
    windows = [window(i, *([Reason.SKIPPED] if 12 <= i < 36 else [])) for i in range(60)]
    path = stored(tmp_path, some, "24 windows were not read", "all are read again", *windows)
    done = leadone("alarms", "explain", ID, "-c", path)
    assert (done.code, done.err) == (0, "")
    assert (
        "looks at: behind, medium: watching is falling behind: raised after 30 s of it; over "
        "after 120 s without"
    ) in done.out
    assert "active: 24 windows were not read" in done.out
    seen = [line.rpartition(": ")[2] for line in done.out.splitlines() if "seen: " in line]
    assert seen == ["good (12 windows)", "skipped (24 windows)", "good (24 windows)"]
    looked = leadone("alarms", "explain", ID, "-c", path, "--json").rows[0]
    assert looked == {"looks_at": "behind", "priority": "medium", "wrong_s": 30, "right_s": 120}


@pytest.mark.parametrize(
    ("condition", "patient", "line"),
    [
        (
            "battery:h10",
            "anna",
            "battery at 15 % or less, as the device says; over at 20 % or more",
        ),
        (
            "channel:anna-ntfy",
            "gateway",
            "messages by anna-ntfy do not arrive: raised after 60 s of it; over as soon as it ends",
        ),
        ("disk", "gateway", "disk is nearly full: raised at once; over as soon as it ends"),
        ("new-kind", "gateway", "new-kind: raised at once; over as soon as it ends"),
    ],
)
def test_what_each_kind_looks_at(condition: str, patient: str, line: str) -> None:
    some = alarm(condition, patient, started_s=0, raised_s=1, ended_s=2)
    assert looks_at(some).line == line
