"""The rules for lethal rhythms and for a heart that cannot be seen, counted by hand."""

from collections.abc import Iterable
from dataclasses import replace
from itertools import count

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alerts.conditions import Alarm, Change, Observation, Priority, State
from alerts.engine import Engine
from alerts.lethal import UNSEEN, RhythmEngine
from alerts.policy import Policy
from alerts.rhythm import Rhythm, RhythmSeen
from alerts.technical import is_update

S = 10**9
T0 = 1_795_226_700 * S
VF, VT, ASYSTOLE = Rhythm.VF, Rhythm.VT, Rhythm.ASYSTOLE
GOOD, NOISE = Rhythm.ORGANISED, Rhythm.UNKNOWN


class Ward:
    """An engine, and all that came of it: when, what, and how it changed."""

    def __init__(self) -> None:
        numbers = count(1)
        self.engine = RhythmEngine(lambda: f"a{next(numbers)}")
        self.log: list[tuple[float, str, str]] = []
        self.changes: list[Change] = []
        self.onset: dict[str, tuple[Rhythm, float]] = {}

    def see(
        self,
        at_s: float,
        rhythm: Rhythm,
        device: str = "strap",
        *,
        beat_s: float | None = None,
        contact: bool | None = None,
        now_s: float | None = None,
    ) -> list[Change]:
        """One verdict; an organised rhythm has a beat half a second ago, the others none."""
        if self.onset.get(device, (None, 0))[0] is not rhythm:
            self.onset[device] = (rhythm, at_s - 5)
        if beat_s is None and rhythm is GOOD:
            beat_s = at_s - 0.5
        seen = RhythmSeen(
            patient="anna",
            device=device,
            at_ns=T0 + round(at_s * S),
            rhythm=rhythm,
            since_ns=T0 + round(self.onset[device][1] * S),
            rate={VT: 182.0, GOOD: 72.0}.get(rhythm),
            last_beat_ns=None if beat_s is None else T0 + round(beat_s * S),
            contact=contact,
        )
        now_ns = None if now_s is None else T0 + round(now_s * S)
        return self.note(at_s, self.engine.step(seen, now_ns))

    def note(self, at_s: float, changes: list[Change]) -> list[Change]:
        self.changes += changes
        for change in changes:
            what = "update" if is_update(change) else str(change.state)
            self.log.append((at_s, change.alarm.condition, what))
        return changes

    def run(
        self, first: int, last: int, rhythm: Rhythm, device: str = "strap", **how: bool
    ) -> None:
        """A verdict for each second from ``first`` to ``last``, both included."""
        for at_s in range(first, last + 1):
            self.see(at_s, rhythm, device, **how)

    def told(self) -> list[tuple[float, str, str]]:
        return [line for line in self.log if line[2] != "update"]

    def active(self) -> list[str]:
        return [alarm.condition for alarm in self.engine.active("anna")]


# --- raised


@pytest.mark.parametrize(
    ("rhythm", "why"),
    [
        (VF, "vf: ventricular fibrillation or flutter for 5 s in the signal of strap"),
        (VT, "vt: ventricular tachycardia at 182 per minute for 5 s in the signal of strap"),
        (ASYSTOLE, "asystole: no beat for 5 s in the signal of strap"),
    ],
)
def test_the_first_verdict_of_a_lethal_rhythm_is_an_alarm(rhythm: Rhythm, why: str) -> None:
    ward = Ward()
    ward.run(1, 9, GOOD)
    assert ward.see(10, rhythm) == [
        Change(
            Alarm("a1", "anna", rhythm.value, Priority.HIGH, T0 + 5 * S, T0 + 10 * S),
            T0 + 10 * S,
            State.ACTIVE,
            why,
        )
    ]


def test_an_onset_after_the_verdict_is_no_onset() -> None:
    seen = RhythmSeen(patient="anna", device="strap", at_ns=T0, rhythm=VF, since_ns=T0 + 5 * S)
    (change,) = RhythmEngine().step(seen)
    assert change.alarm.started_ns == change.alarm.raised_ns == T0
    assert "for 0 s" in change.reason


def test_tachycardia_within_fibrillation_is_the_same_trouble() -> None:
    ward = Ward()
    ward.run(1, 3, VF)
    ward.run(4, 60, VT)
    assert ward.told() == [(1, "vf", "active")]
    # It lasts all the same: what comes next is not its end.
    ward.run(61, 89, GOOD)
    assert ward.active() == ["vf"]
    ward.run(90, 90, GOOD)
    assert ward.active() == []


def test_fibrillation_after_tachycardia_and_asystole_after_fibrillation_are_told() -> None:
    ward = Ward()
    ward.run(1, 3, VT)
    ward.run(4, 6, VF)
    ward.run(7, 9, ASYSTOLE)
    assert ward.told() == [(1, "vt", "active"), (4, "vf", "active"), (7, "asystole", "active")]
    ward.run(10, 39, GOOD)
    assert ward.told()[3:] == [(39, name, "ended") for name in ("vt", "vf", "asystole")]


def test_while_it_lasts_it_is_given_again_every_five_seconds() -> None:
    ward = Ward()
    ward.run(1, 21, VF)
    assert ward.log == [(1, "vf", "active"), *[(at, "vf", "update") for at in (6, 11, 16, 21)]]
    assert {change.alarm.id for change in ward.changes} == {"a1"}
    assert ward.changes[-1].reason == (
        "vf: ventricular fibrillation or flutter for 25 s in the signal of strap"
    )
    ward.run(22, 40, NOISE)
    assert len(ward.log) == 5


# --- over


def test_thirty_seconds_of_organised_rhythm_end_it() -> None:
    ward = Ward()
    ward.run(1, 10, VF)
    ward.run(11, 39, GOOD)
    assert ward.active() == ["vf"]
    (change,) = ward.see(40, GOOD)
    assert change.state is State.ENDED
    assert change.alarm.ended_ns == T0 + 40 * S
    assert change.reason == (
        "vf: 30 s of an organised rhythm at 72 per minute in the signal of strap"
    )


@pytest.mark.parametrize("lethal", [VF, VT, ASYSTOLE])
def test_one_lethal_second_begins_the_count_anew(lethal: Rhythm) -> None:
    ward = Ward()
    ward.run(1, 1, VF)
    ward.run(2, 30, GOOD)
    ward.run(31, 31, lethal)
    ward.run(32, 60, GOOD)
    assert "vf" in ward.active()
    ward.run(61, 61, GOOD)
    assert ward.active() == []


def test_noise_takes_back_from_the_count() -> None:
    ward = Ward()
    ward.run(1, 1, VF)
    ward.run(2, 16, GOOD)  # 15
    ward.run(17, 26, NOISE)  # 5
    ward.run(27, 50, GOOD)  # 29
    assert ward.active() == ["vf"]
    ward.run(51, 51, GOOD)
    assert ward.active() == []

    # Noise in which beats are imagined half of the time is no heart that has come back.
    ward = Ward()
    ward.run(1, 1, VF)
    for start in range(2, 2000, 20):
        ward.run(start, start + 9, GOOD)
        ward.run(start + 10, start + 19, NOISE)
    assert ward.active() == ["vf"]


def test_neither_noise_nor_silence_nor_torn_off_electrodes_end_it() -> None:
    ward = Ward()
    ward.run(1, 10, VF)
    ward.run(11, 400, NOISE)
    ward.run(401, 800, NOISE, contact=False)
    ward.run(4000, 4029, GOOD)
    assert ward.told() == [(1, "vf", "active"), (4029, "vf", "ended")]


# --- two devices, one heart


def test_a_device_that_sees_it_outweighs_one_that_does_not_and_both_are_named() -> None:
    ward = Ward()
    ward.run(1, 10, GOOD, "patch")
    (change,) = ward.see(10, VF)
    assert change.reason == (
        "vf: ventricular fibrillation or flutter for 5 s in the signal of strap; "
        "patch sees an organised rhythm at 72 per minute"
    )
    for at_s in range(11, 100):
        ward.see(at_s, GOOD, "patch")
        ward.see(at_s, VF)
    assert ward.active() == ["vf"]
    # The strap has come off: what the patch sees is all there is.
    for at_s in range(100, 129):
        ward.see(at_s, GOOD, "patch")
        ward.see(at_s, NOISE, contact=False)
    assert ward.active() == ["vf"]
    ward.see(129, GOOD, "patch")
    assert ward.active() == []


def test_what_a_device_saw_long_ago_is_no_disagreement_and_noise_is_said_to_be_none() -> None:
    ward = Ward()
    ward.see(0, GOOD, "patch")
    ward.see(9, NOISE, "vest")
    (change,) = ward.see(11, VF)
    assert change.reason.endswith("in the signal of strap; vest cannot tell")


def test_seconds_of_two_devices_do_not_add_up() -> None:
    ward = Ward()
    ward.run(1, 1, VF)
    for at_s in range(2, 31):
        ward.see(at_s, GOOD)
        ward.see(at_s, GOOD, "patch")
    assert ward.active() == ["vf"]


def test_patients_have_hearts_of_their_own() -> None:
    ward = Ward()
    ward.run(1, 1, VF)
    boris = RhythmSeen(patient="boris", device="strap", at_ns=T0, rhythm=GOOD, since_ns=T0)
    for at_s in range(60):
        ward.engine.step(replace(boris, at_ns=T0 + at_s * S, last_beat_ns=T0 + at_s * S))
    assert ward.active() == ["vf"]
    assert ward.engine.active("boris") == ()


# --- late, twice, out of order, and clocks


def test_signal_that_arrives_late_is_heard_and_ends_nothing_twice_counted() -> None:
    ward = Ward()
    ward.run(1000, 1010, GOOD)
    assert [c.alarm.raised_ns for c in ward.see(580, VF)] == [T0 + 580 * S]
    for _ in range(40):
        ward.see(1011, GOOD)
    assert ward.active() == ["vf"]
    for at_s in (1030, 1020, 1025, *range(1012, 1030)):
        ward.see(at_s, GOOD)  # once 1030 is counted, those before it are late
    assert ward.active() == ["vf"]
    ward.run(1031, 1057, GOOD)
    assert ward.active() == ["vf"]
    ward.run(1058, 1058, GOOD)
    assert ward.active() == []


@pytest.mark.parametrize("device", ["strap", "patch"])
def test_signal_that_was_kept_ends_nothing_that_was_seen_after_it(device: str) -> None:
    """A device is in reach again, and sends a minute of ten minutes ago in each second of now."""
    ward = Ward()
    for at_s in range(700, 760):
        ward.see(at_s, VF, beat_s=699, now_s=at_s)
        for kept_s in range(60 * (at_s - 700), 60 * (at_s - 699)):
            if kept_s < 600:
                ward.see(kept_s, GOOD, device, now_s=at_s)
    assert ward.told() == [(700, "vf", "active")]
    for at_s in range(760, 790):
        ward.see(at_s, GOOD, now_s=at_s)
    assert ward.told()[1:] == [(789, "vf", "ended")]


def test_fibrillation_that_was_kept_is_over_by_what_is_seen_now() -> None:
    ward = Ward()
    for at_s in range(700, 731):
        ward.see(at_s, GOOD, now_s=at_s)
        if at_s == 700:
            ward.see(100, VF, now_s=at_s)
    assert ward.told() == [(100, "vf", "active"), (730, "vf", "ended")]


def test_signal_that_was_kept_does_not_hide_that_the_heart_is_unseen_now() -> None:
    ward = Ward()
    for at_s in range(700, 730):
        ward.see(at_s, NOISE, beat_s=699, now_s=at_s)
        ward.see(at_s - 600, GOOD, now_s=at_s)
    assert ward.told() == [(719, UNSEEN, "active")]


def test_a_clock_that_is_set_back_is_known_by_the_time() -> None:
    ward = Ward()
    ward.see(3600, VF, now_s=3600)
    for at_s in range(1, 31):
        ward.see(at_s, GOOD, now_s=at_s)
    assert ward.told() == [(3600, "vf", "active"), (30, "vf", "ended")]


@pytest.mark.parametrize("by_s", [-3600, 3600])
def test_a_clock_that_is_set_makes_nobody_deaf(by_s: int) -> None:
    ward = Ward()
    ward.run(1, 40, GOOD)
    ward.run(by_s + 41, by_s + 50, VF)
    assert ward.told() == [(by_s + 41, "vf", "active")]
    ward.run(51, 79, GOOD)
    assert ward.active() == ["vf"]
    ward.run(80, 80, GOOD)
    assert ward.active() == []
    ended_ns = ward.changes[-1].alarm.ended_ns
    assert ended_ns is not None
    assert ended_ns >= ward.changes[-1].alarm.raised_ns
    ward.run(by_s + 81, by_s + 100, NOISE)
    assert ward.active() == [UNSEEN]


# --- restarts


def test_what_an_earlier_run_left_goes_on_and_is_not_raised_again() -> None:
    ward = Ward()
    ward.run(1, 1, VF)
    ward.run(1, 21, NOISE, "patch")
    left = ward.engine.active("anna")
    ended = replace(left[0], id="old", ended_ns=T0)
    window = replace(left[0], id="w", condition="pause")
    second = Ward()
    second.engine.restore([ended, window, *left])
    assert second.engine.active("anna") == left
    second.run(30, 34, VF)
    assert second.log == [(30, "vf", "update")]
    second.run(35, 64, GOOD)
    assert second.told() == [(64, "vf", "ended")]
    assert second.changes[-1].alarm.id == left[0].id


def test_two_active_alarms_of_one_condition_are_refused() -> None:
    alarm = Alarm("1", "anna", "vf", Priority.HIGH, T0, T0)
    with pytest.raises(ValueError, match="two active alarms of vf for anna: 1 and 2"):
        RhythmEngine().restore([alarm, replace(alarm, id="2")])


def test_windows_have_no_say() -> None:
    engine = Engine(lambda _: Policy())
    vf = Alarm("1", "anna", "vf", Priority.HIGH, T0, T0)
    engine.restore([vf, replace(vf, id="2", condition=UNSEEN)], [])
    assert engine.active("anna") == ()
    assert engine.step(Observation("anna", T0, T0 + 10 * S, good=True)) == []


# --- a heart that cannot be seen


def test_signal_without_a_beat_for_twenty_seconds_is_told() -> None:
    ward = Ward()
    ward.run(1, 10, GOOD)  # the last beat is at 9.5 s
    ward.run(11, 40, NOISE, contact=None)
    (change,) = ward.changes
    assert ward.told() == [(30, UNSEEN, "active")]
    assert change.alarm.priority is Priority.MEDIUM
    assert change.alarm.started_ns == T0 + 10 * S
    assert change.reason == ("unseen: no beat that can be trusted for 20 s in the signal of strap")


def test_a_signal_that_never_had_a_beat_is_told_too() -> None:
    ward = Ward()
    ward.run(1, 19, NOISE)
    assert ward.active() == []
    ward.run(20, 20, NOISE)
    assert ward.active() == [UNSEEN]


def test_one_beat_amid_the_noise_puts_it_off() -> None:
    ward = Ward()
    ward.run(1, 15, NOISE)
    ward.see(16, NOISE, beat_s=14.0)
    for at_s in range(17, 34):
        ward.see(at_s, NOISE, beat_s=14.0)
    assert ward.active() == []
    ward.see(34, NOISE, beat_s=14.0)
    assert ward.active() == [UNSEEN]


def test_electrodes_off_the_skin_are_another_alarm_and_so_is_silence() -> None:
    ward = Ward()
    ward.run(1, 300, NOISE, contact=False)
    ward.run(301, 319, NOISE, contact=True)
    # Nineteen seconds before a silence, and nineteen after it.
    ward.run(1000, 1018, NOISE, contact=True)
    assert ward.log == []
    ward.run(1019, 1019, NOISE)
    assert ward.active() == [UNSEEN]


def test_a_link_that_comes_and_goes_hides_nothing() -> None:
    ward = Ward()
    for start in (0, 40, 80, 120):
        ward.run(start, start + 4, NOISE)
    assert ward.told() == [(124, UNSEEN, "active")]


def test_it_is_over_after_ten_seconds_with_beats_and_does_not_flap() -> None:
    ward = Ward()
    ward.run(1, 20, NOISE)
    for start in range(21, 80, 10):
        ward.run(start, start + 8, GOOD)
        ward.run(start + 9, start + 9, NOISE)
    assert ward.told() == [(20, UNSEEN, "active")]
    ward.run(81, 89, GOOD)
    assert ward.active() == [UNSEEN]
    (change,) = ward.see(90, GOOD)
    assert (change.state, change.alarm.ended_ns) == (State.ENDED, T0 + 90 * S)
    assert change.reason == "unseen: beats can be trusted again in the signal of strap"


def test_who_is_seen_by_another_device_is_seen() -> None:
    ward = Ward()
    for at_s in range(1, 100):
        ward.see(at_s, GOOD, "patch")
        ward.see(at_s, NOISE)
    assert ward.log == []
    # What one device sends minutes late does not say that nobody is seen now.
    ward.run(-420, -300, NOISE)
    assert ward.log == []
    ward.run(100, 120, NOISE)
    assert ward.told() == [(119, UNSEEN, "active")]
    ward.run(121, 130, GOOD, "patch")
    assert ward.told()[1:] == [(130, UNSEEN, "ended")]


def test_the_beats_of_a_strap_without_a_waveform_are_beats() -> None:
    ward = Ward()
    for at_s in range(1, 60):
        ward.engine.beat("anna", T0 + at_s * S)
        ward.see(at_s, NOISE)
    assert ward.log == []
    ward.run(60, 80, NOISE)
    assert ward.told() == [(79, UNSEEN, "active")]
    # Two spells of beats, five seconds apart: the first of eight seconds, the second of ten.
    for at_s in (*range(81, 90), *range(94, 104)):
        assert ward.note(at_s, ward.engine.beat("anna", T0 + at_s * S)) == []
    ward.note(104, ward.engine.beat("anna", T0 + 104 * S))
    assert ward.told()[1:] == [(104, UNSEEN, "ended")]


def test_a_lethal_rhythm_says_more_than_that_the_heart_cannot_be_seen() -> None:
    ward = Ward()
    ward.run(1, 20, NOISE)
    ward.see(21, VF)
    assert ward.told() == [(20, UNSEEN, "active"), (21, "vf", "active"), (21, UNSEEN, "ended")]
    ward.run(22, 400, NOISE)
    assert ward.active() == ["vf"]
    ward.run(401, 430, GOOD)
    ward.run(431, 450, NOISE)
    assert ward.active() == [UNSEEN]


# --- whatever happens


VERDICTS = st.lists(
    st.tuples(
        st.sampled_from(Rhythm),
        st.sampled_from(["strap", "patch"]),
        st.integers(1, 40),
        st.sampled_from([0, 0, 0, 1, 31, -1, -400, 3600]),
        st.sampled_from([True, False, None]),
    ),
    max_size=30,
)


def runs(ward: Ward, verdicts: Iterable[tuple[Rhythm, str, int, int, bool | None]]) -> None:
    at_s = 0
    for rhythm, device, seconds, jump_s, contact in verdicts:
        at_s += jump_s
        for _ in range(seconds):
            at_s += 1
            ward.see(at_s, rhythm, device, contact=contact)


@given(VERDICTS)
def test_a_lethal_rhythm_is_never_missed_and_never_raised_twice(
    verdicts: list[tuple[Rhythm, str, int, int, bool | None]],
) -> None:
    ward = Ward()
    runs(ward, verdicts)
    on: set[str] = set()
    for change in ward.changes:
        condition = change.alarm.condition
        if change.state is State.ENDED:
            on.remove(condition)
            ended_ns = change.alarm.ended_ns
            assert ended_ns is not None
            assert ended_ns >= change.alarm.raised_ns
        elif is_update(change):
            assert condition in on
        else:
            assert condition not in on
            on.add(condition)
    assert on == set(ward.active())
    last = verdicts[-1][0] if verdicts else None
    if last in (VF, VT, ASYSTOLE):
        assert last.value in on or (last is VT and "vf" in on)
        assert UNSEEN not in on
