"""What people read of a heart that pumps no blood, and how old the numbers are."""

from dataclasses import replace

import pytest
from test_wording import BERLIN, LOOK, MIN, NAMES, NOW, PAUSE, RAISED, START, S, words

from alerts.conditions import Alarm, Priority
from alerts.notice import Notice
from alerts.records import Kind
from alerts.wording import TITLE_LENGTH, text_of

VF = Alarm("v", "grandpa", "vf", Priority.HIGH, START, START + 6 * S)
DO = [
    "What to do:",
    "Speak to them loudly.",
    "No answer and no normal breathing: call 112, start chest compressions, fetch a defibrillator.",
    "Awake and talking: look at the electrodes.",
    (
        "Once help is on the way, or nothing is wrong, acknowledge the alarm. While the rhythm "
        "lasts, it comes on again after 3 minutes."
    ),
]
UNSEEN = (
    "See whether they are well. Wet the electrodes, tighten the strap and see that it sits on the "
    "skin. Until then nobody watches this heart."
)
TOLD = Notice(
    kind=Kind.RAISED,
    alarm=VF,
    now_ns=START + 7 * S,
    patient_name="Karl",
    reason="vf: ventricular fibrillation or flutter for 6 s in the signal of strap",
    heart_rate=72.4,
    no_beat=True,
    beat_ns=START - S,
    emergency_note="Storgatan 5, door code 4711.\nHas an ICD.",
)


def test_fibrillation() -> None:
    assert words(TOLD) == (
        "URGENT: Karl: cardiac arrest? ventricular fibrillation",
        [
            "Karl: cardiac arrest? ventricular fibrillation.",
            *DO,
            "Emergency note: Storgatan 5, door code 4711. Has an ICD.",
            "Since 03:05, for 7 s.",
            "No beat seen since 03:04:59. Before that: 72 per minute.",
            "Why: vf: ventricular fibrillation or flutter for 6 s in the signal of strap",
        ],
    )


@pytest.mark.parametrize(
    ("condition", "title"),
    [
        ("vt", "URGENT: Karl: dangerous rhythm: ventricular tachycardia"),
        ("asystole", "URGENT: Karl: cardiac arrest? no heartbeat"),
    ],
)
def test_the_others_ask_for_the_same(condition: str, title: str) -> None:
    said, lines = words(replace(TOLD, alarm=replace(VF, condition=condition)))
    assert said == title
    assert lines[1:6] == DO


def test_another_country_has_another_number() -> None:
    _, lines = words(replace(TOLD, emergency_number="999"))
    assert lines[3].startswith("No answer and no normal breathing: call 999, start")


def test_the_note_is_for_lethal_rhythms_alone() -> None:
    _, lines = words(replace(RAISED, emergency_note="door code 4711"))
    assert not any("4711" in line for line in lines)
    _, lines = words(replace(TOLD, emergency_note=None))
    assert not any("note" in line for line in lines)


def test_it_goes_on_though_somebody_has_answered() -> None:
    title, lines = words(replace(TOLD, kind=Kind.GOES_ON))
    assert title.startswith("URGENT: It goes on: Karl: cardiac arrest?")
    assert lines[0] == "Somebody has answered, and it still goes on."


def test_a_heart_that_cannot_be_seen() -> None:
    unseen = replace(VF, condition="unseen", priority=Priority.MEDIUM)
    title, lines = words(replace(TOLD, alarm=unseen))
    assert title == "Karl: heart cannot be seen"
    assert lines[2:4] == [
        "No beat seen since 03:04:59. Before that: 72 per minute.",
        f"What to do: {UNSEEN}",
    ]


def test_when_a_rhythm_was_last_seen() -> None:
    now_ns = START + 75 * S
    _, lines = words(replace(TOLD, kind=Kind.REMINDER, now_ns=now_ns, seen_ns=START + 30 * S))
    assert "Last seen at 03:05:30, 45 s ago." in lines
    _, lines = words(replace(TOLD, kind=Kind.REMINDER, now_ns=now_ns))
    assert not any("Last seen" in line for line in lines)


def test_devices_that_disagree_are_both_told_of_and_neither_rate_is_the_hearts() -> None:
    _, lines = words(replace(TOLD, no_beat=False, gainsaid=(("chest", 73.2), ("patch", None))))
    assert lines[8:10] == [
        "But chest sees a heart that beats at 73 per minute: look before you believe either.",
        "But patch sees a heart that beats: look before you believe either.",
    ]
    assert not any(line.startswith("Heart rate") for line in lines)


def test_a_clock_that_was_set_back_makes_no_nonsense() -> None:
    """Now is an hour before it began."""
    _, lines = words(replace(TOLD, now_ns=START - 60 * MIN))
    assert "Since before the clock was set back." in lines
    over = replace(VF, ended_ns=START + MIN)
    _, lines = words(replace(TOLD, kind=Kind.LATCHED, alarm=over, now_ns=START - 60 * MIN))
    assert lines[1] == "That was before the clock was set back."


# --- over before anybody heard of it


@pytest.mark.parametrize(
    ("kind", "prefix"), [(Kind.RAISED, "URGENT: "), (Kind.AGAIN, "URGENT: 2nd time: ")]
)
def test_what_is_over_by_the_time_it_is_told_has_happened(kind: Kind, prefix: str) -> None:
    over = replace(PAUSE, ended_ns=START + 7 * MIN)
    notice = Notice(
        kind=kind, alarm=over, now_ns=START + 8 * MIN, patient_name="Karl", reason="x", count=2
    )
    assert words(notice) == (
        f"{prefix}Karl: heart paused (over since 03:12)",
        [
            "Karl: it is over: heart paused.",
            "From 03:05 to 03:12, 7 min.",
            "This is the 2nd time.",
            "It is over. But please look, and acknowledge the alarm.",
            NOW,
            "Why: x",
        ],
    )


def test_the_title_fits_though_the_name_is_long_and_it_was_yesterday() -> None:
    over = replace(VF, ended_ns=START + 7 * MIN)
    notice = replace(
        TOLD,
        kind=Kind.AGAIN,
        alarm=over,
        count=100_000,
        now_ns=START + 3000 * MIN,
        patient_name="Great-grandmother Wilhelmina Alexandra",
    )
    title, lines = text_of(notice, NAMES, BERLIN)
    assert title == "URGENT: 100000th time: Great-grand…: car… (over since 03:12)"
    assert len(title) == TITLE_LENGTH
    assert "Speak to them loudly." in lines


def test_a_reminder_of_what_is_over_says_so() -> None:
    over = replace(VF, ended_ns=START + 7 * MIN)
    title, lines = words(replace(TOLD, kind=Kind.REMINDER, alarm=over))
    assert title.startswith("Over, please look: Karl")
    assert "Speak to them loudly." not in lines


# --- numbers with their age


def test_a_number_of_now_and_one_that_is_older() -> None:
    _, lines = words(RAISED)
    assert "Heart rate: 142 per minute." in lines
    older = replace(
        RAISED, heart_rate_ns=RAISED.now_ns - 40 * S, probability_ns=RAISED.now_ns - 50 * S
    )
    _, lines = words(older)
    assert "Heart rate: 142 per minute. That was 40 s ago." in lines
    assert "How sure: 87 %. That was 50 s ago." in lines


def test_no_rate_where_no_beat_is_seen() -> None:
    _, lines = words(replace(RAISED, no_beat=True, beat_ns=START, heart_rate=None))
    assert "No beat seen since 03:05:00." in lines
    _, lines = words(replace(RAISED, no_beat=True))
    assert "No beat is seen." in lines
    assert not any("142" in line for line in lines)


def test_signal_that_came_late_is_told_with_its_time() -> None:
    _, lines = words(replace(TOLD, now_ns=START + 9 * MIN, arrived_ns=START + 7 * MIN + 10 * S))
    assert "Seen in signal of 03:05 that arrived 7 min late." in lines
    # Whether it lasted for all that time nobody knows.
    assert "Since 03:05." in lines
    _, lines = words(TOLD)
    assert not any("late" in line for line in lines)


def test_what_to_do_for_others_is_as_it_was() -> None:
    assert LOOK in words(RAISED)[1]
