"""How people are told of lethal rhythms, and of what is new: nothing holds it back."""

from dataclasses import replace

import pytest
from test_signals import (
    HOUR,
    LADDER,
    NIGHT,
    PLAN,
    T0,
    House,
    S,
    alarm,
    at,
    ended,
    quiet_house,
    raised,
)

from alerts.conditions import Alarm, Change, State
from alerts.escalation import Ladder, LethalLadder, Plan, Step
from alerts.records import Kind, Presence
from alerts.rhythm import LETHAL


def vf(name: str = "v1", at: float = 0) -> Alarm:
    return alarm(name, "vf", raised=at)


def lasts(of: Alarm, seconds: float) -> Change:
    """As the engine gives it every few seconds."""
    return Change(of, T0 + round(seconds * S), State.ACTIVE, "vf: seen")


def test_it_climbs_a_minute_a_step_and_reminds_each_half_minute() -> None:
    house = House()  # others wait ten minutes for the second step
    house.change(0, raised(vf()))
    house.until(125)
    assert house.told == [
        (0, "anna", Kind.RAISED),
        (30, "anna", Kind.REMINDER),
        (60, "ben", Kind.ESCALATED),
        (60, "cleo", Kind.ESCALATED),
        (60, "anna", Kind.REMINDER),
        *[(90, who, Kind.REMINDER) for who in ("anna", "ben", "cleo")],
        (120, "dora", Kind.ESCALATED),
        *[(120, who, Kind.REMINDER) for who in ("anna", "ben", "cleo")],
    ]
    house.acknowledge(125, "v1")
    house.until(200)
    assert house.since(121) == []


def test_that_it_lasts_changes_nothing_until_an_answer_is_old() -> None:
    house = House()
    house.change(0, raised(vf()))
    before = len(house.audits), house.signals["v1"]
    assert house.machine.change(lasts(vf(), 5), at(5)) == []
    assert (len(house.audits), house.signals["v1"]) == before
    house.acknowledge(10, "v1")
    for seconds in range(15, 191, 5):
        house.change(seconds, lasts(vf(), seconds))
    assert house.presence("v1") is Presence.ACKNOWLEDGED
    assert house.since(10) == []
    house.change(195, lasts(vf(), 195))  # 185 s after the answer
    assert house.presence("v1") is Presence.ON
    assert house.signals["v1"].acknowledged_by is None
    house.until(260)
    assert house.since(10) == [
        (195, "anna", Kind.GOES_ON),
        (225, "anna", Kind.REMINDER),
        (255, "ben", Kind.ESCALATED),
        (255, "cleo", Kind.ESCALATED),
        (255, "anna", Kind.REMINDER),
    ]
    assert house.what() == ["raised", "acknowledged", "goes on"]
    # Each answer holds for three minutes.
    house.acknowledge(260, "v1")
    house.change(439, lasts(vf(), 439))
    assert house.since(260) == []
    house.change(441, lasts(vf(), 441))
    assert house.since(260) == [(441, "anna", Kind.GOES_ON)]


def test_so_it_is_after_a_snooze_however_long() -> None:
    house = House()
    house.change(0, raised(vf()))
    house.snooze(10, 4 * HOUR, "v1")
    house.change(185, lasts(vf(), 185))
    assert house.since(10) == []
    house.change(195, lasts(vf(), 195))
    assert house.since(10) == [(195, "anna", Kind.GOES_ON)]
    assert house.signals["v1"].snoozed_until_ns is None


def test_an_answer_holds_when_the_rhythm_is_seen_no_more() -> None:
    house = House()
    house.change(0, raised(vf()))
    house.acknowledge(10, "v1")
    house.until(HOUR)
    assert house.since(10) == []
    house.change(HOUR, ended(vf(), HOUR))
    assert house.presence("v1") is Presence.OFF


def test_the_answer_to_another_alarm_holds_as_it_ever_did() -> None:
    house = House()
    house.change(0, raised(alarm()))
    house.acknowledge(10, "a1")
    house.change(HOUR, raised(alarm()))
    assert house.since(10) == []


@pytest.mark.parametrize("condition", LETHAL)
def test_a_pause_must_name_it(condition: str) -> None:
    house = House()
    of = alarm("v1", condition)
    house.pause(0, HOUR)
    house.change(10, raised(of))
    house.change(10, raised(alarm("a1", "pause", raised=10)))
    assert house.told == [(10, "anna", Kind.RAISED)]
    house.acknowledge(20, "v1")
    house.change(205, lasts(of, 205))
    assert house.since(20) == [(205, "anna", Kind.GOES_ON)]
    house.pause(210, HOUR, condition)
    house.until(HOUR - 1)
    assert house.since(210) == []
    house.until(HOUR)
    assert (HOUR, "anna", Kind.PAUSE_OVER) in house.told


def test_a_pause_of_one_lethal_rhythm_leaves_the_others() -> None:
    house = House()
    house.pause(0, HOUR, "vt")
    house.change(10, raised(alarm("t", "vt", raised=10)))
    house.change(10, raised(vf("v", 10)))
    assert {n.alarm_id for n in house.waiting.values()} == {"v"}


def test_quiet_hours_hold_nothing_back() -> None:
    house, night = quiet_house("2026-11-20T23:30")
    assert house.plan.quiet == NIGHT
    house.change(night, raised(vf(at=night)))
    assert house.told == [(night, "anna", Kind.RAISED)]


def test_it_is_told_whenever_it_comes_and_over_is_reminded_of_less_often() -> None:
    house = House()
    house.change(0, raised(vf()))
    house.change(40, ended(vf(), 40))
    assert house.presence("v1") is Presence.LATCHED
    assert house.since(31) == [(40, "anna", Kind.LATCHED)]
    house.change(45, raised(vf("v2", 45)))
    assert house.since(41) == [(45, "anna", Kind.AGAIN)]
    house.change(80, ended(vf("v2", 45), 80))
    house.until(800)
    after = [when for when, who, kind in house.since(81) if (who, kind) == ("anna", Kind.REMINDER)]
    # As any of high priority: every five minutes.
    assert after == [380, 680]
    house.acknowledge(800, "v2")
    house.until(2000)
    assert house.since(801) == []


def test_a_restart_keeps_an_answer_as_old_as_it_is() -> None:
    house = House()
    house.change(0, raised(vf()))
    house.acknowledge(10, "v1")
    house.until(100)
    house.restart()
    house.change(150, lasts(vf(), 150))
    assert house.since(10) == []
    house.change(195, lasts(vf(), 195))
    assert house.since(10) == [(195, "anna", Kind.GOES_ON)]


def test_a_heart_that_cannot_be_seen_is_not_told_of_as_lost_as_well() -> None:
    house = House()
    house.change(0, raised(alarm("u", "unseen")))
    house.change(0, raised(vf()))
    house.lose(20)
    assert house.since(20) == [(20, "anna", Kind.SIGNAL_LOST)]
    assert house.signals["v1"].signal_lost
    assert not house.signals["u"].signal_lost


# --- what is new is not delayed by reminders of what is over


@pytest.mark.parametrize("reminded", [290, 305])
def test_a_new_bout_is_told_at_once_though_an_older_one_was_just_reminded_of(
    reminded: int,
) -> None:
    """Whether that was over by then or not."""
    house = House()
    house.change(0, raised(alarm()))
    house.change(reminded, ended(alarm(), reminded))
    house.until(309)
    assert (300, "anna", Kind.REMINDER) in house.told
    house.change(310, raised(alarm("a2", raised=310)))
    assert house.since(310) == [(310, "anna", Kind.AGAIN)]


def test_nor_by_the_message_that_the_older_one_is_over() -> None:
    house = House()
    house.change(0, raised(alarm()))
    house.change(20, ended(alarm(), 20))
    house.until(64)
    assert house.since(1) == [(60, "anna", Kind.LATCHED)]
    house.change(65, raised(alarm("a2", raised=65)))
    assert house.since(61) == [(65, "anna", Kind.AGAIN)]


# --- the ladder


def test_the_usual_ladder_is_that_of_high_priority_made_quick() -> None:
    assert LethalLadder.after(LADDER).steps == (
        Step(0, ("anna",)),
        Step(60, ("ben", "cleo")),
        Step(120, ("dora",)),
    )
    slow = (Step(600, ("anna",)), Step(630, ("ben",)), Step(2000, ("dora",)))
    assert [step.after_s for step in LethalLadder.after(slow).steps] == [0, 30, 90]
    assert LethalLadder.after(()).steps == ()
    for condition in LETHAL:
        assert PLAN.ladder_of(alarm("x", condition)) == LethalLadder.after(LADDER)
    assert PLAN.ladder_of(alarm()) == PLAN.high


def test_a_ladder_of_its_own() -> None:
    plan = replace(PLAN, lethal=LethalLadder((Step(0, ("eva",)),), repeat_s=15))
    house = House(plan)
    house.change(0, raised(vf()))
    house.until(31)
    assert house.told == [
        (0, "eva", Kind.RAISED),
        (15, "eva", Kind.REMINDER),
        (30, "eva", Kind.REMINDER),
    ]
    assert "eva" in plan.contacts
    assert Plan(high=Ladder((Step(0, ("a",)),))).contacts == {"a"}


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"repeat_s": 14.9}, "repeat_s: must be 15 seconds or more, not 14.9"),
        ({"repeat_s": None}, "lethal rhythms are repeated and latch"),
        ({"latching": False}, "lethal rhythms are repeated and latch"),
        ({"steps": LADDER[1:]}, "steps: the first must be at once"),
        ({"steps": LADDER[::-1]}, "steps: must be in the order of after_s"),
    ],
)
def test_a_lethal_ladder_that_makes_no_sense_is_refused(
    how: dict[str, object], message: str
) -> None:
    with pytest.raises(ValueError, match=f"^{message}$"):
        LethalLadder(**how)  # type: ignore[arg-type]
