"""What people read, at three in the morning."""

from dataclasses import replace
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alerts.conditions import Alarm, Priority
from alerts.gateway import GATEWAY
from alerts.records import Kind
from alerts.wording import (
    TITLE_LENGTH,
    Notice,
    Watch,
    lasting,
    still_watching,
    text_of,
    trial,
)

BERLIN = ZoneInfo("Europe/Berlin")
S = 1_000_000_000
MIN = 60 * S
# Saturday 21 November 2026, 02:05 UTC, 03:05 in Berlin
START = 1_795_226_700 * S
NAMES = {"AF": "atrial fibrillation"}
AF = Alarm("7f0c", "grandpa", "class:AF", Priority.MEDIUM, START, START + 45 * S)
PAUSE = Alarm("81aa", "grandpa", "pause", Priority.HIGH, START, START + 5 * S)
RAISED = Notice(
    kind=Kind.RAISED,
    alarm=AF,
    now_ns=START + 12 * MIN,
    patient_name="Grandpa Karl",
    reason="AF: 6 of the last 8 good windows at or over 0.62",
    heart_rate=141.6,
    probability=0.872,
)
LOOK = (
    "What to do: Look at the person. If they are unwell, call the emergency number. "
    "Then acknowledge the alarm, so that nobody else is called."
)
NOW = (
    "What to do: Go and look at the person now. If they are unwell or do not answer, call the "
    "emergency number. Then acknowledge the alarm, so that nobody else is called."
)


def words(notice: Notice) -> tuple[str, list[str]]:
    title, body = text_of(notice, NAMES, BERLIN)
    return title, body.split("\n")


def test_an_alarm() -> None:
    assert words(RAISED) == (
        "Grandpa Karl: looks like atrial fibrillation",
        [
            "Grandpa Karl: looks like atrial fibrillation.",
            "Since 03:05, for 12 min.",
            "Heart rate: 142 per minute.",
            "How sure: 87 %.",
            LOOK,
            "Why: AF: 6 of the last 8 good windows at or over 0.62",
        ],
    )


def test_an_alarm_of_high_priority() -> None:
    notice = Notice(kind=Kind.RAISED, alarm=PAUSE, now_ns=START + 6 * S, reason="pause: 5 s")
    assert words(notice) == (
        "URGENT: grandpa: heart paused",
        ["grandpa: heart paused.", "Since 03:05, for 6 s.", NOW, "Why: pause: 5 s"],
    )


def test_an_escalation() -> None:
    notice = replace(RAISED, kind=Kind.ESCALATED, unanswered_ns=START + 2 * MIN)
    title, lines = words(notice)
    assert title == "Nobody answers: Grandpa Karl: looks like atrial fibrillation"
    assert lines[:2] == [
        "Nobody has answered for 10 min.",
        "Grandpa Karl: looks like atrial fibrillation.",
    ]


def test_a_reminder() -> None:
    title, lines = words(replace(RAISED, kind=Kind.REMINDER, now_ns=START + 65 * MIN))
    assert title == "Still: Grandpa Karl: looks like atrial fibrillation"
    assert lines[1] == "Since 03:05, for 1 h 5 min."


def test_the_seventh_time() -> None:
    notice = replace(RAISED, kind=Kind.AGAIN, count=7, first_ns=START - 115 * MIN)
    title, lines = words(notice)
    assert title == "7th time: Grandpa Karl: looks like atrial fibrillation"
    assert lines[2] == "This is the 7th time since 01:10."


@pytest.mark.parametrize(
    ("count", "expected"),
    [(2, "2nd"), (3, "3rd"), (4, "4th"), (11, "11th"), (12, "12th"), (21, "21st"), (112, "112th")],
)
def test_ordinals(count: int, expected: str) -> None:
    title, _ = words(replace(RAISED, kind=Kind.AGAIN, count=count))
    assert title.startswith(f"{expected} time: ")


def test_it_has_become_worse() -> None:
    worse = replace(RAISED, kind=Kind.WORSENED, alarm=replace(AF, priority=Priority.HIGH))
    title, lines = words(worse)
    assert title == "URGENT: Worse: Grandpa Karl: looks like atrial fibrillation"
    assert lines[0] == "It has become worse."
    assert NOW in lines


@pytest.mark.parametrize("kind", [Kind.SIGNAL_LOST, Kind.REMINDER])
def test_the_signal_is_lost_while_an_alarm_runs(kind: Kind) -> None:
    title, lines = words(replace(RAISED, kind=kind, signal_lost=True))
    lost = "No signal can be read now: nobody can see whether it goes on. The alarm stays."
    assert lost in lines
    assert not any(line.startswith("Heart rate") for line in lines)
    if kind is Kind.SIGNAL_LOST:
        assert title.startswith("Signal lost: Grandpa Karl: looks like atrial")


@pytest.mark.parametrize(
    ("kind", "what"), [(Kind.SNOOZE_OVER, "snooze"), (Kind.PAUSE_OVER, "pause")]
)
def test_the_snooze_or_the_pause_is_over(kind: Kind, what: str) -> None:
    title, _ = words(replace(RAISED, kind=kind, patient_name="Jo"))
    assert title == f"Still, after the {what}: Jo: looks like atrial fibrillation"


def test_it_is_over() -> None:
    over = replace(AF, ended_ns=START + 50 * MIN)
    notice = replace(
        RAISED, kind=Kind.ENDED, alarm=over, reason="AF: 6 of 8", now_ns=START + 51 * MIN
    )
    assert words(notice) == (
        "Over: Grandpa Karl: looks like atrial fibrillation",
        [
            "Grandpa Karl: it is over: looks like atrial fibrillation.",
            "From 03:05 to 03:55, 50 min.",
            "Why: AF: 6 of 8",
        ],
    )


@pytest.mark.parametrize("kind", [Kind.LATCHED, Kind.REMINDER, Kind.ESCALATED])
def test_it_is_over_but_nobody_has_looked(kind: Kind) -> None:
    over = replace(PAUSE, ended_ns=START + 5 * MIN)
    notice = Notice(kind=kind, alarm=over, now_ns=START + 6 * MIN)
    assert words(notice) == (
        "Over, please look: grandpa: heart paused",
        [
            "grandpa: it is over: heart paused.",
            "From 03:05 to 03:10, 5 min.",
            "It is over. But please look, and acknowledge the alarm.",
        ],
    )


def test_from_the_pulse_alone_it_is_less_sure() -> None:
    notice = replace(RAISED, alarm=replace(AF, condition="rr:AF"), probability=0.9)
    title, lines = words(notice)
    assert title == "Grandpa Karl: irregular pulse, perhaps atrial fibrillation"
    assert (
        "How sure: less than usual: from the pulse alone, without the shape of the waves." in lines
    )
    assert not any("90 %" in line for line in lines)


@pytest.mark.parametrize(("probability", "expected"), [(1.0, "99 %"), (0.0, "1 %"), (0.5, "50 %")])
def test_nothing_is_certain(probability: float, expected: str) -> None:
    assert f"How sure: {expected}." in words(replace(RAISED, probability=probability))[1]


@pytest.mark.parametrize(
    ("condition", "what", "do"),
    [
        ("rate:high", "heart beats too fast", "Look at the person."),
        ("rate:low", "heart beats too slowly", "Look at the person."),
        ("device:AF", "AF is silent", "See that it is worn, charged and near the gateway."),
        ("electrodes:chest", "chest is off the skin", "Wet the electrodes"),
        ("signal:chest", "signal of chest cannot be read", "Wet the electrodes"),
        ("battery:chest", "battery of chest is low", "Change or charge it today."),
        ("clock", "a clock is wrong", "Set the gateway's clock"),
        ("behind", "watching is falling behind", "See what else runs"),
        ("stalled", "part of the watch stands still", "If this is not over in five minutes"),
        ("database", "trouble with the database", "See that the gateway's disk has room"),
        ("disk", "disk is nearly full", "Make room"),
        ("model", "rhythms are not being recognised", "The model cannot be used"),
        ("channel:phone", "messages by phone do not arrive", "See that it is set up"),
        ("new:thing", "new:thing", "See the dashboard"),
    ],
)
def test_every_condition_in_plain_words(condition: str, what: str, do: str) -> None:
    alarm = replace(AF, condition=condition)
    title, lines = words(replace(RAISED, alarm=alarm))
    assert title == f"Grandpa Karl: {what}"
    assert lines[0] == f"Grandpa Karl: {what}."
    (to_do,) = [line for line in lines if line.startswith("What to do: ")]
    assert to_do.startswith(f"What to do: {do}")
    # Who is unwell is a matter of the heart, not of a battery.
    heart = condition.startswith("rate")
    assert ("emergency" in to_do) is heart
    assert any(line.startswith("Heart rate") for line in lines) is heart


def test_what_is_no_patients_is_the_gateways() -> None:
    alarm = replace(AF, patient=GATEWAY, condition="disk")
    title, lines = words(replace(RAISED, alarm=alarm, patient_name=None))
    assert title == "Gateway: disk is nearly full"
    assert lines[0] == "Gateway: disk is nearly full."


def test_yesterday_has_its_day() -> None:
    # 03:05 in Berlin is 125 minutes before 05:10, and 185 after midnight.
    early = replace(AF, started_ns=START - 186 * MIN)
    assert words(replace(RAISED, alarm=early))[1][1] == "Since Fri 20 Nov 23:59, for 3 h 18 min."


def test_the_hour_that_comes_twice() -> None:
    # In the night to 25 October 2026 Berlin's clocks go from 03:00 CEST back to 02:00 CET, which is
    # 01:00 UTC: from 02:50 CEST to 02:10 CET are 20 minutes.
    begun = 1_792_889_400 * S
    notice = replace(RAISED, alarm=replace(AF, started_ns=begun), now_ns=begun + 20 * MIN)
    assert words(notice)[1][1] == "Since 02:50, for 20 min."


def test_a_clock_set_back_makes_no_negative_time() -> None:
    assert words(replace(RAISED, now_ns=START - MIN))[1][1] == "Since 03:05, for 0 s."


def test_a_name_over_many_lines_is_one_line() -> None:
    notice = replace(RAISED, patient_name="Karl\r\nBcc: all@example.org", reason="a\nb")
    title, lines = words(notice)
    assert "\n" not in title
    assert "\r" not in title
    assert lines[-1] == "Why: a b"
    assert lines[0].startswith("Karl Bcc: all@example.org: looks like")


@given(
    st.builds(
        Notice,
        kind=st.sampled_from(Kind),
        alarm=st.builds(
            Alarm,
            id=st.just("a"),
            patient=st.text("abc-_", min_size=1, max_size=80),
            condition=st.sampled_from(
                ["class:", "device:", "x", "pause", "channel:", "rr:"]
            ).flatmap(lambda kind: st.text(max_size=80).map(lambda name: kind + name)),
            priority=st.sampled_from(Priority),
            started_ns=st.integers(0, 2 * START),
            raised_ns=st.integers(0, 2 * START),
            ended_ns=st.none() | st.integers(0, 2 * START),
        ),
        now_ns=st.integers(0, 2 * START),
        patient_name=st.none() | st.text(max_size=200),
        count=st.integers(1, 100_000),
    )
)
def test_a_title_fits_whatever_the_names_are(notice: Notice) -> None:
    title, body = text_of(notice, {}, BERLIN)
    assert 0 < len(title) <= TITLE_LENGTH
    assert len(title.splitlines()) == 1
    assert 2 <= len(body.splitlines()) <= 9


def test_of_a_long_name_and_a_long_condition_both_are_seen() -> None:
    name = "Great-grandmother Wilhelmina Alexandra of Upper Something"
    title, _ = words(replace(RAISED, kind=Kind.ESCALATED, patient_name=name))
    assert title == "Nobody answers: Great-grand…: looks like atrial fibrillation"
    assert len(title) == 60


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        (0, "0 s"),
        (59.9, "59 s"),
        (60, "1 min"),
        (3599, "59 min"),
        (3600, "1 h"),
        (3900, "1 h 5 min"),
        (47 * 3600, "47 h"),
        (72 * 3600, "3 days"),
    ],
)
def test_lengths_of_time(seconds: float, expected: str) -> None:
    assert lasting(seconds) == expected


def test_a_test_is_no_alarm() -> None:
    title, body = trial("Jo's phone", START, BERLIN)
    assert title == "Test: this is not an alarm"
    assert body == (
        "Nothing has happened. Alarms will reach you by Jo's phone, as this did.\nSent 03:05."
    )


DAY = Watch(
    patient="grandpa",
    patient_name="Grandpa Karl",
    from_ns=START - 24 * 60 * MIN,
    to_ns=START,
    good_s=22 * 3600 + 10 * 60,
    lowest_rate=47.6,
    highest_rate=112.2,
    alarms=2,
)


def test_still_watching() -> None:
    blind = Watch(patient="jo", from_ns=DAY.from_ns, to_ns=START, good_s=0)
    title, body = still_watching([DAY, blind], START, BERLIN)
    assert title == "Lead One is still watching"
    assert body.split("\n") == [
        (
            "Grandpa Karl: good signal for 22 h 10 min (92 %) since Fri 20 Nov 03:05, "
            "heart rate 48 to 112, 2 alarms."
        ),
        "jo: nothing to be read since Fri 20 Nov 03:05: look at the strap. No alarm.",
    ]


@pytest.mark.parametrize("watches", [[], [replace(DAY, good_s=0)]])
def test_who_has_seen_nothing_does_not_say_that_all_is_well(watches: list[Watch]) -> None:
    assert still_watching(watches, START, BERLIN).title == "Lead One is on, but has seen no heart"


def test_one_alarm_and_no_rate() -> None:
    watch = replace(DAY, lowest_rate=None, highest_rate=None, alarms=1)
    _, body = still_watching([watch], START, BERLIN)
    assert body.endswith("since Fri 20 Nov 03:05, 1 alarm.")
