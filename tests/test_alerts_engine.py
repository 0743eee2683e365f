"""The engine, window by window: cases by hand, then against a plain reference and restarts."""

import itertools
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from alerts.conditions import Alarm, Change, Observation, Priority, State
from alerts.engine import MEMORY, Engine
from alerts.policy import ClassRule, PauseRule, Policy, RateRule

S = 1_000_000_000
AF = ClassRule(
    name="AF", threshold=0.6, off_threshold=0.4, k=3, n=4, clear_k=3, priority=Priority.MEDIUM
)
FAST = RateRule(side="high", limit=130, off=120, k=2, n=3, clear_k=2, priority=Priority.MEDIUM)
PAUSE = PauseRule(seconds=4, n=3, clear_k=3)
POLICY = Policy(classes=(AF,), high_rate=FAST, pause=PAUSE)


def ids() -> Callable[[], str]:
    numbers = itertools.count(1)
    return lambda: f"alarm-{next(numbers)}"


def window(start_s: float, af: float | None = None, *, patient: str = "p") -> Observation:
    probabilities = {} if af is None else {"AF": af}
    start_ns = round(start_s * S)
    return Observation(patient, start_ns, start_ns + 10 * S, True, probabilities)


def bad(start_s: float) -> Observation:
    return replace(window(start_s), good=False)


def engine_for(policy: Policy = POLICY) -> Engine:
    return Engine(lambda _: policy, ids())


def run(engine: Engine, observations: Iterable[Observation]) -> list[Change]:
    return [change for observation in observations for change in engine.step(observation)]


def af_windows(values: str, start_s: float = 0, hop_s: float = 5) -> list[Observation]:
    """H speaks for AF, m for nothing, L against it, x is a bad window."""
    level = {"H": 0.9, "m": 0.5, "L": 0.1}
    times = itertools.count(start_s, hop_s)
    return [
        bad(t) if value == "x" else window(t, level[value])
        for value, t in zip(values, times, strict=False)
    ]


def outline(changes: list[Change]) -> list[tuple[State, int]]:
    """Each change with the start, in seconds, of the window that decided it."""
    return [(change.state, change.at_ns // S - 10) for change in changes]


A, E = State.ACTIVE, State.ENDED


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ("HH", []),
        ("HHLL", []),
        ("HHH", [(A, 10)]),
        ("HHHHHHHH", [(A, 10)]),
        ("HLHH", [(A, 15)]),
        ("HLLHH", []),
        ("mmmmmmm", []),
        # bad windows tell nothing either way
        ("HHxxxxxH", [(A, 35)]),
        ("HHHxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx", [(A, 10)]),
        ("HHHLLxxL", [(A, 10), (E, 35)]),
        # the end takes clear_k windows under the off-threshold, not merely under the threshold
        ("HHHmmmmmm", [(A, 10)]),
        ("HHHLL", [(A, 10)]),
        ("HHHLLL", [(A, 10), (E, 25)]),
        ("HHHLLmL", [(A, 10), (E, 30)]),
        ("HHHLHLHLHLH", [(A, 10)]),
        # what is over does not rise again on old evidence
        ("HHHLLLHH", [(A, 10), (E, 25)]),
        ("HHHLLLHHH", [(A, 10), (E, 25), (A, 40)]),
    ],
)
def test_af_is_raised_and_ended(values: str, expected: list[tuple[State, int]]) -> None:
    assert outline(run(engine_for(), af_windows(values))) == expected


def test_an_alarm_says_what_when_and_why() -> None:
    raised, ended = run(engine_for(), af_windows("LHHxHLLL", start_s=100))
    assert raised == Change(
        Alarm("alarm-1", "p", "class:AF", Priority.MEDIUM, 105 * S, 130 * S),
        130 * S,
        A,
        "AF: 3 of the last 4 good windows at or over 0.60",
    )
    assert raised.alarm.state is A
    assert ended == Change(
        replace(raised.alarm, ended_ns=145 * S),
        145 * S,
        E,
        "AF: 3 of the last 4 good windows under 0.40",
    )


def test_ids_are_uuid4_by_default() -> None:
    (change,) = run(Engine(lambda _: POLICY), af_windows("HHH"))
    assert len(change.alarm.id) == 36
    assert change.alarm.id[14] == "4"


def test_windows_far_apart_do_not_add_up() -> None:
    # n = 4 windows every 5 s: those of more than 3 × 4 × 5 = 60 s ago are forgotten
    assert run(engine_for(), [*af_windows("HH"), window(66, 0.9)]) == []
    assert outline(run(engine_for(), [*af_windows("HH"), window(60, 0.9)])) == [(A, 60)]


def test_old_windows_do_not_end_an_alarm_either() -> None:
    engine = engine_for()
    run(engine, af_windows("HHHLL"))
    assert run(engine, [window(500, 0.1), window(505, 0.1)]) == []
    assert outline(run(engine, [window(510, 0.1)])) == [(E, 510)]


def test_the_hop_of_the_policy_sets_the_age() -> None:
    slow = replace(POLICY, hop_s=30.0)
    assert outline(run(engine_for(slow), af_windows("HHH", hop_s=100))) == [(A, 200)]


def test_a_class_the_window_does_not_have_is_no_evidence() -> None:
    observations = [*af_windows("HH"), window(10), window(15), *af_windows("H", start_s=20)]
    assert outline(run(engine_for(), observations)) == [(A, 20)]


def test_nan_is_no_evidence() -> None:
    observations = [window(t, float("nan")) for t in range(0, 50, 5)]
    engine = engine_for()
    assert run(engine, observations) == []
    assert outline(run(engine, af_windows("HHH", start_s=50))) == [(A, 60)]


def rate(start_s: float, bpm: float | None) -> Observation:
    return replace(window(start_s), heart_rate=bpm)


def test_heart_rate_with_hysteresis() -> None:
    rates = [140, 80, 131, 125, 125, 125, None, 119, 119, 140]
    changes = run(engine_for(), [rate(5 * i, bpm) for i, bpm in enumerate(rates)])
    assert outline(changes) == [(A, 10), (E, 40)]
    assert changes[0].alarm.condition == "rate:high"
    assert changes[0].reason == (
        "heart rate: 2 of the last 3 good windows at or over 130 per minute, now 131"
    )
    assert changes[1].reason == "heart rate: 2 of the last 3 good windows under 120 per minute"


def test_slow_heart() -> None:
    changes = run(
        engine_for(), [rate(5 * i, bpm) for i, bpm in enumerate([39, 41, 40, 40, 40, 40])]
    )
    assert [change.alarm.condition for change in changes] == ["rate:low"]
    assert changes[0].reason == (
        "heart rate: 5 of the last 6 good windows at or under 40 per minute, now 40"
    )


def pauses(*longest_rr_s: float | None) -> list[Observation]:
    return [replace(window(5 * i), longest_rr_s=rr) for i, rr in enumerate(longest_rr_s)]


def test_a_pause_seen_by_two_windows_is_raised_once() -> None:
    changes = run(engine_for(), pauses(0.8, 5.2, 5.2, 0.8, 0.8, 0.8, 0.8, 0.8))
    assert outline(changes) == [(A, 5), (E, 25)]
    assert changes[0].alarm.priority is Priority.HIGH
    assert changes[0].reason == "pause: 5.2 s without a beat"
    assert changes[1].reason == "pause: none of 4 s or more in the last 3 good windows"


def test_a_pause_ends_only_after_windows_without_one_in_a_row() -> None:
    changes = run(engine_for(), pauses(4.0, 0.8, 0.8, 4.0, 0.8, None, 0.8, 0.8, 6.0))
    assert outline(changes) == [(A, 0), (E, 35), (A, 40)]


# --- pauses seen ahead of the windows


def fast(end_s: float, since_s: float) -> Observation:
    """A pause up to now, of which nothing else is known."""
    end_ns = round(end_s * S)
    start_ns = end_ns - round(min(since_s, 10) * S)
    return Observation("p", start_ns, end_ns, True, {}, None, since_s)


def test_a_pause_seen_ahead_of_its_window_is_raised_once_and_from_its_beginning() -> None:
    # A pause from 18.2 to 27.9 s; windows end at 10, 15, 20 … s.
    longest = [0.8, 0.8, 1.8, 6.8, 7.9, 2.9, 0.8, 0.8]
    windows = pauses(*longest)
    ahead = [fast(22.4, 4.2), fast(27.4, 9.2)]
    seen = sorted([*windows, *ahead], key=lambda o: o.end_ns)
    raised, ended = run(engine_for(), seen)
    assert raised.alarm.started_ns == round(18.2 * S)
    assert raised.at_ns == round(22.4 * S)
    assert raised.reason == "pause: 4.2 s without a beat"
    # Three windows without it, as ever.
    assert outline([ended]) == [(E, 35)]


def test_a_pause_that_goes_on_holds_the_alarm_against_windows_that_see_beats() -> None:
    # P waves alone, as high as the window's scale, can make good windows of a heart at a stand.
    engine = engine_for()
    raised = run(engine, [fast(100, 4)])
    for i in range(1, 60):
        raised += run(engine, [fast(100 + 5 * i, 4 + 5 * i), *pause_free(100 + 5 * i)])
    assert [change.state for change in raised] == [A]
    ended = [change for i in range(60, 65) for change in run(engine, pause_free(100 + 5 * i))]
    assert [change.state for change in ended] == [E]


def pause_free(end_s: float) -> list[Observation]:
    return [replace(window(end_s - 10), longest_rr_s=0.8)]


def test_a_pause_that_goes_on_leaves_other_evidence_alone() -> None:
    engine = engine_for()
    windows = af_windows("HHHLL")
    ahead = [fast(t + 10, 5.0) for t in (0, 5, 10, 15, 20)]
    changes = run(engine, [o for pair in zip(windows, ahead, strict=True) for o in pair])
    assert [(c.alarm.condition, c.state) for c in changes] == [("pause", A), ("class:AF", A)]
    # An hour of it does not count for or against fibrillation.
    assert run(engine, [fast(30 + 5 * i, 15 + 5 * i) for i in range(720)]) == []
    assert {alarm.condition for alarm in engine.active("p")} == {"pause", "class:AF"}


def test_patients_do_not_mix() -> None:
    engine = engine_for()
    pairs = [window(t, 0.9, patient=patient) for t in (0, 5) for patient in ("grandma", "grandpa")]
    assert run(engine, pairs) == []
    (change,) = engine.step(window(10, 0.9, patient="grandpa"))
    assert change.alarm.patient == "grandpa"
    assert engine.active("grandpa") == (change.alarm,)
    assert engine.active("grandma") == engine.active("nobody") == ()


def test_each_patient_has_a_policy() -> None:
    engine = Engine(lambda patient: replace(POLICY, classes=()) if patient == "q" else POLICY)
    quiet = [replace(observation, patient="q") for observation in af_windows("HHH")]
    assert run(engine, quiet) == []
    assert len(run(engine, af_windows("HHH"))) == 1


def test_an_alarm_that_nothing_watches_any_more_is_ended() -> None:
    engine = engine_for()
    (raised,) = run(engine, af_windows("HHH"))
    other = engine_for(replace(POLICY, classes=()))
    other.restore([raised.alarm], af_windows("HHH"))
    (ended,) = other.step(bad(15))
    assert ended.alarm == replace(raised.alarm, ended_ns=25 * S)
    assert ended.reason == "class:AF is no longer watched"
    assert other.step(bad(20)) == []


# --- the clock, and windows seen twice


def test_the_same_window_again_is_not_evidence() -> None:
    engine = engine_for()
    assert run(engine, af_windows("H") * 5) == []
    assert run(engine, pauses(5.0)[:1] * 5)[0].alarm.condition == "pause"


def test_an_ended_pause_is_not_raised_by_its_window_seen_again() -> None:
    engine = engine_for()
    observations = pauses(5.0, 0.8, 0.8, 0.8, 0.8)
    assert len(run(engine, observations)) == 2
    assert run(engine, observations) == []


@pytest.mark.parametrize("back_s", [3, 30, 60, 3600])
def test_a_clock_set_back_does_not_deafen(back_s: int) -> None:
    engine = engine_for()
    run(engine, af_windows("LLLLLLLLLLLLLLLLLLLL", start_s=10_000))
    changes = run(engine, af_windows("HHH", start_s=10_100 - back_s))
    assert outline(changes) == [(A, 10_110 - back_s)]


@pytest.mark.parametrize("back_s", [3, 30, 60, 3600])
def test_an_alarm_ends_after_the_clock_was_set_back_but_never_before_it_was_raised(
    back_s: int,
) -> None:
    engine = engine_for()
    (raised,) = run(engine, af_windows("HHH", start_s=10_000))
    (ended,) = run(engine, af_windows("LLL", start_s=10_015 - back_s))
    assert ended.alarm.id == raised.alarm.id
    assert ended.at_ns == (10_035 - back_s) * S
    assert ended.alarm.ended_ns == max(ended.at_ns, raised.alarm.raised_ns)


def test_an_alarm_starts_with_the_earliest_of_its_windows() -> None:
    (raised,) = run(engine_for(), [window(100, 0.9), window(98, 0.9), window(103, 0.9)])
    assert raised.alarm.started_ns == 98 * S


def test_going_back_near_old_evidence_does_not_raise_what_is_over() -> None:
    engine = engine_for()
    changes = run(engine, [*af_windows("HHH"), *af_windows("LLL", start_s=70)])
    assert [change.state for change in changes] == [A, E]
    # near the old positives again, but out of reach of the windows that ended it
    assert run(engine, [window(2, 0.1), window(3, 0.5)]) == []


# --- restart


def test_restore_continues_a_count_in_progress() -> None:
    engine = engine_for()
    engine.restore([], af_windows("HH"))
    assert outline(run(engine, af_windows("H", start_s=10))) == [(A, 10)]


def test_restore_does_not_repeat_an_alarm_and_passes_over_ended_ones() -> None:
    before = engine_for()
    (raised,) = run(before, af_windows("HHH"))
    engine = engine_for()
    engine.restore([raised.alarm, replace(raised.alarm, id="old", ended_ns=5)], af_windows("HHH"))
    assert engine.active("p") == (raised.alarm,)
    (ended,) = run(engine, af_windows("HHLLL", start_s=15))
    assert ended.state is E
    assert ended.alarm.id == raised.alarm.id


def test_restore_refuses_two_active_alarms_of_one_condition() -> None:
    alarm = Alarm("1", "p", "pause", Priority.HIGH, 0, 1)
    with pytest.raises(ValueError, match="two active alarms of pause for p: 1 and 2"):
        engine_for().restore([alarm, replace(alarm, id="2")], [])


def test_memory_windows_are_enough_for_a_restart() -> None:
    long = ClassRule(
        name="AF", threshold=0.6, off_threshold=0.4, k=60, n=60, clear_k=60, priority=Priority.LOW
    )
    policy = Policy(classes=(long,))
    observations = af_windows("L" * MEMORY + "Hx" * 100 + "L" * 60)
    whole = run(engine_for(policy), observations)
    assert [change.state for change in whole] == [A, E]
    at = MEMORY + 60
    first, second = engine_for(policy), engine_for(policy)
    assert run(first, observations[:at]) == []
    good = [observation for observation in observations[:at] if observation.good]
    second.restore([], good[-MEMORY:])
    assert run(second, observations[at:]) == whole


# --- any sequence: against a reference, and across a restart

JUMPS_S = [5, 5, 5, 5, 5, 5, 5, 1, 7, 40, 70, 600, 0, -5, -3, -25, -3600]


@st.composite
def sequences(draw: st.DrawFn, most: int = 80) -> list[Observation]:
    """Windows as a bad day brings them: lost signal, repeats, late ones, a clock that jumps."""
    observations: list[Observation] = []
    now = 1_000_000
    for _ in range(draw(st.integers(0, most))):
        if observations and draw(st.integers(0, 9)) == 0:
            observations.append(draw(st.sampled_from(observations[-30:])))
            continue
        now += draw(st.sampled_from(JUMPS_S))
        observations.append(
            replace(
                window(now, draw(st.sampled_from([None, 0.1, 0.5, 0.6, 0.9, 0.9]))),
                good=draw(st.sampled_from([True, True, True, False])),
                heart_rate=draw(st.sampled_from([None, 80.0, 125.0, 140.0])),
                longest_rr_s=draw(st.sampled_from([None, 0.8, 0.8, 4.5])),
            )
        )
    return observations


@dataclass
class Limits:
    """One condition, written out again without the rules."""

    condition: str
    value: Callable[[Observation], float | None]
    on: Callable[[float], bool]
    off: Callable[[float], bool]
    k: int
    n: int
    clear: int


LIMITS = [
    Limits("pause", lambda o: o.longest_rr_s, lambda v: v >= 4, lambda v: v < 4, 1, 3, 3),
    Limits("rate:high", lambda o: o.heart_rate, lambda v: v >= 130, lambda v: v < 120, 2, 3, 2),
    Limits(
        "class:AF",
        lambda o: o.probabilities.get("AF"),
        lambda v: v >= 0.6,
        lambda v: v < 0.4,
        3,
        4,
        3,
    ),
]


def reference(observations: list[Observation]) -> list[tuple[str, State, int]]:
    """(condition, state, index of the deciding window), each step worked out from the beginning."""
    fresh = [
        i
        for i, o in enumerate(observations)
        if o.good and o not in [*filter_good(observations[:i])]
    ]
    found = []
    active: set[str] = set()
    for i in fresh:
        for c in LIMITS:
            known = [
                observations[j]
                for j in fresh
                if j <= i
                and c.value(observations[j]) is not None
                and abs(observations[j].start_ns - observations[i].start_ns) <= 15 * c.n * S
            ]
            if not known or known[-1] is not observations[i]:
                continue
            values = [v for o in known[-c.n :] if (v := c.value(o)) is not None]
            if c.condition in active and c.off(values[-1]) and sum(map(c.off, values)) >= c.clear:
                active.remove(c.condition)
                found.append((c.condition, E, i))
            elif c.condition not in active and c.on(values[-1]) and sum(map(c.on, values)) >= c.k:
                active.add(c.condition)
                found.append((c.condition, A, i))
    return found


def filter_good(observations: list[Observation]) -> list[Observation]:
    return [o for o in observations if o.good]


WATCHED = replace(POLICY, low_rate=None)


@given(sequences())
@settings(max_examples=150, deadline=None)
def test_no_alarm_is_lost_or_doubled(observations: list[Observation]) -> None:
    engine = engine_for(WATCHED)
    found = [
        (change.alarm.condition, change.state, i)
        for i, observation in enumerate(observations)
        for change in engine.step(observation)
    ]
    assert found == reference(observations)


@given(sequences(), st.data())
@settings(max_examples=150, deadline=None)
def test_a_restart_anywhere_changes_nothing(
    observations: list[Observation], data: st.DataObject
) -> None:
    at = data.draw(st.integers(0, len(observations)))
    whole = run(engine_for(WATCHED), observations)
    shared_ids = ids()
    first = Engine(lambda _: WATCHED, shared_ids)
    changes = run(first, observations[:at])
    second = Engine(lambda _: WATCHED, shared_ids)
    second.restore(first.active("p"), observations[:at])
    assert changes + run(second, observations[at:]) == whole


class Life(RuleBasedStateMachine):
    """A patient's days with restarts in between; a ledger of alarms is kept from changes alone."""

    def __init__(self) -> None:
        super().__init__()
        self.new_id = ids()
        self.engine = Engine(lambda _: WATCHED, self.new_id)
        self.now = 1_000_000.0
        self.stored: list[Observation] = []
        self.ledger: dict[str, Alarm] = {}

    def next_window(self, af: float) -> Observation:
        """The window five seconds on; a nanosecond's difference keeps it apart from all others."""
        self.now += 5
        fresh = window(self.now, af)
        return replace(fresh, start_ns=fresh.start_ns + len(self.stored))

    def feed(self, observation: Observation) -> None:
        self.stored.append(observation)
        for change in self.engine.step(observation):
            alarm = change.alarm
            assert change.at_ns == observation.end_ns
            assert alarm.state is change.state
            if change.state is State.ACTIVE:
                assert alarm.id not in self.ledger
                assert alarm.condition not in self.active()
                assert alarm.started_ns < alarm.raised_ns == observation.end_ns
            else:
                assert self.ledger[alarm.id] == replace(alarm, ended_ns=None)
                assert alarm.ended_ns is not None
                assert alarm.ended_ns >= alarm.raised_ns
            self.ledger[alarm.id] = alarm

    def active(self) -> dict[str, Alarm]:
        return {a.condition: a for a in self.ledger.values() if a.state is State.ACTIVE}

    @rule(
        af=st.sampled_from([0.1, 0.5, 0.9]),
        bpm=st.sampled_from([None, 80.0, 140.0]),
        rr=st.sampled_from([0.8, 4.5]),
        good=st.booleans(),
    )
    def one_window(self, af: float, bpm: float | None, rr: float, good: bool) -> None:
        self.feed(replace(self.next_window(af), good=good, heart_rate=bpm, longest_rr_s=rr))

    @rule(seconds=st.sampled_from([-86_400, -600, -60, -30, -7, 3, 60, 86_400]))
    def the_clock_jumps(self, seconds: int) -> None:
        self.now += seconds

    @rule(back=st.integers(1, 30))
    @precondition(lambda self: self.stored)
    def a_window_comes_again(self, back: int) -> None:
        before = dict(self.ledger)
        self.feed(self.stored[-min(back, len(self.stored))])
        assert self.ledger == before

    @rule()
    def af_is_never_lost(self) -> None:
        for _ in range(AF.k):
            self.feed(self.next_window(0.9))
        assert "class:AF" in self.active()

    @rule()
    def af_always_ends(self) -> None:
        for _ in range(AF.n):
            self.feed(self.next_window(0.1))
        assert "class:AF" not in self.active()

    @rule()
    def the_daemon_restarts(self) -> None:
        self.engine = Engine(lambda _: WATCHED, self.new_id)
        self.engine.restore(self.ledger.values(), self.stored)

    @invariant()
    def the_engine_and_the_ledger_agree(self) -> None:
        assert {a.condition: a for a in self.engine.active("p")} == self.active()


Life.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestLife = Life.TestCase
