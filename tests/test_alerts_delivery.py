"""What people are told of an alarm."""

import time
from collections.abc import Iterator
from dataclasses import replace

import pytest
from structlog.testing import capture_logs

from alerts.conditions import Alarm, Change, Priority, State
from alerts.delivery import LogDelivery, describe

# Saturday 21 November 2026, 06:32 UTC
START_NS = 1_795_242_720 * 1_000_000_000
ALARM = Alarm(
    id="7f0c",
    patient="grandpa",
    condition="class:AF",
    priority=Priority.MEDIUM,
    started_ns=START_NS,
    raised_ns=START_NS + 45 * 1_000_000_000,
)
WHY = "AF: 6 of the last 8 good windows at or over 0.62"
RAISED = Change(ALARM, ALARM.raised_ns, State.ACTIVE, WHY)
OVER = replace(ALARM, ended_ns=START_NS + 3600 * 1_000_000_000)
ENDED = Change(OVER, START_NS + 3600 * 1_000_000_000, State.ENDED, "AF: 6 of 8 under 0.50")


@pytest.fixture(autouse=True)
def berlin(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "CET-1")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def test_an_alarm_in_one_line_in_local_time() -> None:
    assert describe(RAISED, {"AF": "atrial fibrillation"}) == (
        "grandpa: looks like atrial fibrillation since Sat 21 Nov 07:32 – "
        "medium priority, look soon (AF: 6 of the last 8 good windows at or over 0.62)"
    )


def test_its_end_in_one_line() -> None:
    assert describe(ENDED) == (
        "grandpa: over: looks like AF, Sat 21 Nov 07:32 to Sat 21 Nov 08:32 (AF: 6 of 8 under 0.50)"
    )


@pytest.mark.parametrize(
    ("condition", "priority", "expected"),
    [
        ("pause", Priority.HIGH, "heart paused since Sat 21 Nov 07:32 – HIGH priority"),
        ("rate:high", Priority.LOW, "heart beats too fast since Sat 21 Nov 07:32 – low priority"),
        ("rate:low", Priority.MEDIUM, "heart beats too slowly since Sat 21 Nov 07:32 – medium"),
        (
            "rr:AF",
            Priority.LOW,
            "irregular pulse, perhaps atrial fibrillation since Sat 21 Nov 07:32",
        ),
        ("device:AF", Priority.MEDIUM, "AF is silent since Sat 21 Nov 07:32"),
        ("new:thing", Priority.LOW, "new:thing since Sat 21 Nov 07:32"),
    ],
)
def test_other_conditions(condition: str, priority: Priority, expected: str) -> None:
    alarm = replace(ALARM, condition=condition, priority=priority)
    assert expected in describe(replace(RAISED, alarm=alarm), {"AF": "atrial fibrillation"})


def test_log_delivery_warns_of_an_alarm_and_notes_its_end() -> None:
    with capture_logs() as logs:
        delivery = LogDelivery({"AF": "atrial fibrillation"})
        delivery.deliver(RAISED)
        delivery.deliver(ENDED)
    raised, ended = logs
    assert raised == {
        "log_level": "warning",
        "event": describe(RAISED, {"AF": "atrial fibrillation"}),
        "patient": "grandpa",
        "alarm": "7f0c",
        "condition": "class:AF",
        "priority": "medium",
        "state": "active",
    }
    assert ended["log_level"] == "info"
    assert ended["state"] == "ended"
