"""How people are told of alarms: every case worked out by hand."""

from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import UTC, datetime, time
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest

from alerts.conditions import Alarm, Change, Priority, State
from alerts.escalation import Ladder, Plan, Step
from alerts.quiet import QuietHours
from alerts.records import (
    Audit,
    Cancelled,
    ClockSet,
    Kind,
    Notification,
    Output,
    Pause,
    Presence,
    Signal,
)
from alerts.signals import Signals
from alerts.technical import Moment

S = 10**9
MINUTE, HOUR = 60, 3600
T0 = int(datetime(2026, 11, 20, 12, tzinfo=UTC).timestamp()) * S
BERLIN = ZoneInfo("Europe/Berlin")

# The first at once, the neighbour after ten minutes, the ambulance service after twenty.
LADDER = (Step(0, ("anna",)), Step(600, ("ben", "cleo")), Step(1200, ("dora",)))
PLAN = Plan(
    high=Ladder(LADDER, repeat_s=300, latching=True),
    medium=Ladder(LADDER[:2], repeat_s=1800),
    low=Ladder(LADDER[:1]),
)
NIGHT = QuietHours(time(22), time(7), BERLIN)


def at(seconds: float, clock: float = 0) -> Moment:
    """So long after noon; the clock was set by ``clock`` seconds."""
    return Moment(T0 + round((seconds + clock) * S), 7 * S + round(seconds * S))


def alarm(
    name: str = "a1",
    condition: str = "pause",
    priority: Priority = Priority.HIGH,
    raised: float = 0,
) -> Alarm:
    raised_ns = T0 + round(raised * S)
    return Alarm(name, "grandpa", condition, priority, raised_ns - 10 * S, raised_ns)


def raised(of: Alarm) -> Change:
    return Change(of, of.raised_ns, State.ACTIVE, f"{of.condition} seen")


def ended(of: Alarm, seconds: float) -> Change:
    end_ns = T0 + round(seconds * S)
    return Change(replace(of, ended_ns=end_ns), end_ns, State.ENDED, f"{of.condition} over")


class House:
    """Signals with a store: what an outbox keeps and who was told what, when."""

    def __init__(self, plan: Plan = PLAN) -> None:
        self.plan = plan
        self.clock = 0.0
        self.seconds = 0.0
        self.signals: dict[str, Signal] = {}
        self.pauses: dict[str, Pause] = {}
        self.waiting: dict[str, Notification] = {}
        self.audits: list[Audit] = []
        self.told: list[tuple[float, str, Kind]] = []
        self.machine = self.fresh()

    def fresh(self) -> Signals:
        return Signals(lambda _: self.plan, new_id=lambda: f"p{len(self.pauses) + 1}")

    def restart(self) -> None:
        self.machine = self.fresh()
        self.machine.restore(
            self.signals.values(), self.pauses.values(), list(self.waiting.values())
        )

    def store(self, outputs: Iterable[Output]) -> None:
        for output in outputs:
            match output:
                case Signal():
                    self.signals[output.alarm.id] = output
                case Pause():
                    self.pauses[output.id] = output
                case Notification():
                    self.waiting[output.key] = output
                case Cancelled():
                    self.waiting = {
                        k: n for k, n in self.waiting.items() if n.alarm_id != output.alarm_id
                    }
                case ClockSet(by_ns):
                    for key, n in self.waiting.items():
                        self.waiting[key] = replace(n, due_ns=n.due_ns + by_ns)
                case Audit():
                    self.audits.append(output)

    def do(self, seconds: float, act: Callable[[Signals, Moment], list[Output]]) -> None:
        """Let time pass with a tick whenever something is due, then do it; deliver."""
        self.until(seconds)
        self.store(act(self.machine, at(seconds, self.clock)))
        self.deliver(seconds)

    def until(self, seconds: float) -> None:
        while True:
            self.store(self.machine.tick(at(self.seconds, self.clock)))
            self.deliver(self.seconds)
            due_ns = self.machine.next_due()
            due = None if due_ns is None else (due_ns - T0) / S - self.clock
            if due is None or due > seconds:
                break
            self.seconds = max(due, self.seconds)
        self.seconds = seconds
        self.store(self.machine.tick(at(seconds, self.clock)))
        self.deliver(seconds)

    def deliver(self, seconds: float) -> None:
        now_ns = at(seconds, self.clock).utc_ns
        for key, n in sorted(self.waiting.items(), key=lambda item: item[1].due_ns):
            if n.due_ns <= now_ns:
                self.told.append((seconds, n.contact, n.kind))
                del self.waiting[key]

    def change(self, seconds: float, change: Change) -> None:
        self.do(seconds, lambda machine, now: machine.change(change, now))

    def acknowledge(self, seconds: float, *ids: str, by: str = "anna") -> None:
        self.do(seconds, lambda machine, now: machine.acknowledge(ids, by, now))

    def snooze(self, seconds: float, until: float, *ids: str) -> None:
        until_ns = at(until, self.clock).utc_ns
        self.do(seconds, lambda machine, now: machine.snooze(ids, until_ns, "anna", now))

    def pause(self, seconds: float, until: float, kind: str | None = None) -> None:
        until_ns = at(until, self.clock).utc_ns
        self.do(seconds, lambda machine, now: machine.pause("grandpa", kind, until_ns, "anna", now))

    def resume(self, seconds: float, name: str) -> None:
        self.do(seconds, lambda machine, now: machine.resume(name, "anna", now))

    def lose(self, seconds: float, lost: bool = True) -> None:
        self.do(seconds, lambda machine, now: machine.signal_lost("grandpa", lost, now))

    def presence(self, name: str = "a1") -> Presence:
        return self.signals[name].presence

    def what(self) -> list[str]:
        return [audit.what for audit in self.audits]

    def since(self, seconds: float) -> list[tuple[float, str, Kind]]:
        return [line for line in self.told if line[0] >= seconds]


def test_an_alarm_climbs_the_whole_ladder_and_reminds_until_somebody_answers() -> None:
    house = House()
    house.change(0, raised(alarm()))
    # All of it is stored at once: a crash cannot cancel it.
    assert [(n.contact, n.kind, (n.due_ns - T0) / S) for n in house.waiting.values()] == [
        ("ben", Kind.ESCALATED, 600),
        ("cleo", Kind.ESCALATED, 600),
        ("dora", Kind.ESCALATED, 1200),
        ("anna", Kind.REMINDER, 300),
    ]
    house.until(1300)
    everybody = [(600, "ben", Kind.ESCALATED), (600, "cleo", Kind.ESCALATED)]
    assert sorted(house.told) == sorted(
        [
            (0, "anna", Kind.RAISED),
            (300, "anna", Kind.REMINDER),
            *everybody,
            # Whoever was told by then is reminded; dora at 1200 is told anyway.
            (600, "anna", Kind.REMINDER),
            *[(900, who, Kind.REMINDER) for who in ("anna", "ben", "cleo")],
            (1200, "dora", Kind.ESCALATED),
            *[(1200, who, Kind.REMINDER) for who in ("anna", "ben", "cleo")],
        ]
    )
    signal = house.signals["a1"]
    assert signal.presence is Presence.ON
    assert signal.told == ("anna", "ben", "cleo", "dora")
    assert (signal.bout, signal.bout_count, signal.bout_started_ns) == ("a1", 1, T0)
    house.acknowledge(1300, "a1", by="dora")
    house.until(HOUR)
    assert house.since(1250) == []
    assert house.waiting == {}
    signal = house.signals["a1"]
    assert signal.presence is Presence.ACKNOWLEDGED
    assert (signal.acknowledged_by, signal.acknowledged_ns) == ("dora", T0 + 1300 * S)
    assert house.what() == ["raised", "acknowledged"]
    assert house.audits[-1].by == "dora"
    house.change(HOUR, ended(alarm(), HOUR))
    assert house.since(HOUR) == [(HOUR, who, Kind.ENDED) for who in ("anna", "ben", "cleo", "dora")]
    assert house.presence() is Presence.OFF
    assert house.machine.on("grandpa") == ()


def test_high_priority_stays_when_it_is_over_until_somebody_answers() -> None:
    house = House()
    house.change(0, raised(alarm()))
    house.change(40, ended(alarm(), 40))
    assert house.presence() is Presence.LATCHED
    house.until(700)
    assert [line for line in house.told if line[0] > 0] == [
        (60, "anna", Kind.LATCHED),  # a minute after the last message
        (300, "anna", Kind.REMINDER),
        (600, "ben", Kind.ESCALATED),
        (600, "cleo", Kind.ESCALATED),
        (600, "anna", Kind.REMINDER),
    ]
    house.acknowledge(700, "a1")
    house.until(HOUR)
    assert house.presence() is Presence.OFF
    assert house.since(700) == []
    assert house.what() == ["raised", "latched", "acknowledged"]


@pytest.mark.parametrize("priority", [Priority.MEDIUM, Priority.LOW])
def test_other_priorities_end_by_themselves_and_who_was_told_hears_it_once(
    priority: Priority,
) -> None:
    house = House()
    of = alarm(priority=priority)
    house.change(0, raised(of))
    house.change(100, ended(of, 100))
    house.change(110, ended(of, 110))
    house.until(HOUR)
    assert house.told == [(0, "anna", Kind.RAISED), (100, "anna", Kind.ENDED)]
    assert house.presence() is Presence.OFF
    assert house.what() == ["raised", "ended"]


def test_who_was_not_told_does_not_hear_of_the_end() -> None:
    late = Plan(medium=Ladder((Step(60, ("anna",)),)))
    house = House(late)
    of = alarm(priority=Priority.MEDIUM)
    house.change(0, raised(of))
    house.change(59, ended(of, 59))
    house.until(HOUR)
    assert house.told == []


def test_an_answer_holds_for_that_alarm_alone() -> None:
    house = House()
    house.change(0, raised(alarm()))
    house.acknowledge(10, "a1")
    house.change(20, raised(alarm("b1", "rate:low", Priority.MEDIUM, raised=20)))
    assert house.since(10) == [(20, "anna", Kind.RAISED)]
    assert [signal.alarm.id for signal in house.machine.on("grandpa")] == ["a1", "b1"]


def test_an_answered_alarm_that_worsens_is_told_anew() -> None:
    house = House()
    house.change(0, raised(alarm(priority=Priority.MEDIUM)))
    house.acknowledge(10, "a1")
    house.change(20, raised(alarm(priority=Priority.MEDIUM)))  # another reason, no other priority
    house.change(25, raised(alarm(priority=Priority.LOW)))
    assert house.presence() is Presence.ACKNOWLEDGED
    house.change(30, raised(alarm(priority=Priority.HIGH)))
    signal = house.signals["a1"]
    assert signal.presence is Presence.ON
    assert signal.acknowledged_by is signal.acknowledged_ns is None
    house.until(1230)
    assert house.since(10)[0] == (30, "anna", Kind.WORSENED)
    assert (1230, "dora", Kind.ESCALATED) in house.told
    assert house.what() == ["raised", "acknowledged", "worsened"]
    # It latches by the worst it has been.
    house.change(1240, ended(alarm(priority=Priority.LOW), 1240))
    assert house.presence() is Presence.LATCHED


def test_the_ladder_of_an_alarm_that_worsens_begins_anew() -> None:
    house = House()
    house.change(0, raised(alarm(priority=Priority.MEDIUM)))
    house.change(100, raised(alarm(priority=Priority.HIGH)))
    house.until(701)
    assert house.since(100) == [
        (100, "anna", Kind.WORSENED),
        (400, "anna", Kind.REMINDER),
        (700, "ben", Kind.ESCALATED),
        (700, "cleo", Kind.ESCALATED),
        (700, "anna", Kind.REMINDER),
    ]


def test_a_new_occurrence_after_an_answer_is_told_at_once_in_the_same_thread() -> None:
    house = House()
    house.change(0, raised(alarm()))
    house.acknowledge(5, "a1")
    house.change(40, ended(alarm(), 40))
    house.change(45, raised(alarm("a2", raised=45)))
    assert house.since(45) == [(45, "anna", Kind.AGAIN)]
    signal = house.signals["a2"]
    assert (signal.bout, signal.bout_count, signal.bout_started_ns) == ("a1", 2, T0)
    assert {n.thread for n in house.waiting.values()} == {"a1"}


def test_pauses_one_after_the_other_are_told_once_a_minute_and_still_climb_the_ladder() -> None:
    house = House()
    # Forty pauses, each half a minute long, one each 35 s: nobody answers.
    for number in range(40):
        start = 35 * number
        of = alarm(f"a{number}", raised=start)
        house.change(start, raised(of))
        house.change(start + 30, ended(of, start + 30))
    at_600 = [line for line in house.told if line[2] is Kind.ESCALATED]
    assert at_600 == [
        (600, "ben", Kind.ESCALATED),
        (600, "cleo", Kind.ESCALATED),
        (1200, "dora", Kind.ESCALATED),
    ]
    to_anna = [when for when, who, _ in house.told if who == "anna"]
    assert to_anna[0] == 0
    gaps = [b - a for a, b in pairwise(to_anna)]
    assert min(gaps) >= 60
    assert max(gaps) <= 120
    assert [s.alarm.id for s in house.machine.on("grandpa")] == ["a39"]
    assert house.signals["a39"].bout_count == 40
    assert {s.bout for s in house.signals.values()} == {"a0"}
    assert all(house.presence(f"a{number}") is Presence.OFF for number in range(39))
    assert house.what().count("superseded") == 39


def test_fibrillation_that_comes_and_goes_all_night_is_one_thread() -> None:
    house = House()
    for number in range(96):  # eight hours; each five minutes one minute of it
        start = 300 * number
        of = alarm(f"f{number}", "class:AF", Priority.MEDIUM, raised=start)
        house.change(start, raised(of))
        house.change(start + 60, ended(of, start + 60))
    begins = [when for when, _, kind in house.told if kind is not Kind.ENDED]
    # One each half hour; each with its end, and each of those is told at once.
    assert begins == [1800 * n for n in range(16)]
    ends = [when for when, _, kind in house.told if kind is Kind.ENDED]
    assert ends == [when + 60 for when in begins]
    assert len({signal.bout for signal in house.signals.values()}) == 1
    # After half an hour of peace it is another bout.
    later = 300 * 95 + 60 + 1801
    house.change(later, raised(alarm("g", "class:AF", Priority.MEDIUM, raised=later)))
    assert house.signals["g"].bout == "g"
    assert house.told[-1] == (later, "anna", Kind.RAISED)


def test_what_is_held_back_in_a_bout_is_told_if_it_lasts() -> None:
    house = House()
    first = alarm("f1", "class:AF", Priority.MEDIUM)
    house.change(0, raised(first))
    house.change(60, ended(first, 60))
    house.change(120, raised(alarm("f2", "class:AF", Priority.MEDIUM, raised=120)))
    house.until(2400)
    assert house.since(61) == [
        (1800, "anna", Kind.AGAIN),
        (2400, "ben", Kind.ESCALATED),  # ten minutes after the first heard of it
        (2400, "cleo", Kind.ESCALATED),
    ]


def test_what_latched_before_anybody_heard_that_it_is_back_is_handed_on() -> None:
    house = House(replace(PLAN, medium=replace(PLAN.medium, latching=True)))
    first, second, third = (
        alarm(f"f{n}", "class:AF", Priority.MEDIUM, raised=60 * n) for n in (0, 1, 2)
    )
    house.change(0, raised(first))
    house.acknowledge(1, "f0")
    house.change(30, ended(first, 30))
    house.change(60, raised(second))  # to be told at 1800
    house.change(90, ended(second, 90))
    assert house.presence("f1") is Presence.LATCHED
    house.change(120, raised(third))
    house.until(1900)
    assert house.since(60) == [(1800, "anna", Kind.AGAIN)]
    assert {n.alarm_id for n in house.waiting.values()} == {"f2"}


def test_an_alarm_that_goes_on_after_its_end_has_new_keys() -> None:
    house = House()
    house.change(0, raised(alarm()))
    house.change(40, ended(alarm(), 40))
    used = house.signals["a1"].issued
    house.change(200, raised(alarm()))
    assert house.told[-1] == (200, "anna", Kind.AGAIN)
    assert min(int(key.rpartition(":")[2]) for key in house.waiting) > used
    assert house.presence() is Presence.ON


def test_who_climbs_the_ladder_at_that_very_time_is_not_reminded_as_well() -> None:
    twice = (Step(0, ("anna",)), Step(300, ("anna", "ben")))
    house = House(Plan(high=Ladder(twice, repeat_s=300)))
    house.change(0, raised(alarm()))
    house.until(599)
    assert house.since(1) == [(300, "anna", Kind.ESCALATED), (300, "ben", Kind.ESCALATED)]
    house.until(600)
    assert house.since(301) == [(600, "anna", Kind.REMINDER), (600, "ben", Kind.REMINDER)]


def test_a_worse_priority_is_not_held_back_in_a_bout() -> None:
    house = House()
    first = alarm("f1", "class:AF", Priority.LOW)
    house.change(0, raised(first))
    house.change(60, ended(first, 60))
    house.change(120, raised(alarm("f2", "class:AF", Priority.MEDIUM, raised=120)))
    assert house.told[-1] == (120, "anna", Kind.AGAIN)


def test_a_snooze_ends_by_itself_if_the_condition_has_not() -> None:
    house = House()
    house.change(0, raised(alarm()))
    house.snooze(10, HOUR, "a1")
    signal = house.signals["a1"]
    assert signal.presence is Presence.ACKNOWLEDGED
    assert signal.snoozed_until_ns == T0 + HOUR * S
    house.until(HOUR + 600)
    assert sorted(house.since(10)) == sorted(
        [
            (HOUR, "anna", Kind.SNOOZE_OVER),
            (HOUR + 300, "anna", Kind.REMINDER),
            (HOUR + 600, "anna", Kind.REMINDER),
            (HOUR + 600, "ben", Kind.ESCALATED),
            (HOUR + 600, "cleo", Kind.ESCALATED),
        ]
    )
    assert house.presence() is Presence.ON
    assert house.what() == ["raised", "snoozed", "snooze over"]


def test_a_snoozed_alarm_that_ends_is_over_and_a_full_answer_outlasts_a_snooze() -> None:
    house = House()
    house.change(0, raised(alarm()))
    house.change(0, raised(alarm("b1", "rate:low", Priority.MEDIUM)))
    house.snooze(10, HOUR, "a1", "b1")
    house.acknowledge(20, "b1")
    house.change(30, ended(alarm(), 30))
    house.until(2 * HOUR)
    assert house.since(10) == [(30, "anna", Kind.ENDED)]
    assert (house.presence("a1"), house.presence("b1")) == (Presence.OFF, Presence.ACKNOWLEDGED)


def test_the_first_answer_stands() -> None:
    house = House()
    house.change(0, raised(alarm()))
    house.acknowledge(10, "a1", by="anna")
    house.acknowledge(20, "a1", by="ben")
    assert house.signals["a1"].acknowledged_by == "anna"
    assert [(a.what, a.by) for a in house.audits[1:]] == [
        ("acknowledged", "anna"),
        ("acknowledged", "ben"),
    ]


@pytest.mark.parametrize(
    ("until", "why"),
    [
        (0, "its end is past already; it must be within the next 24 hours"),
        (10, "its end is past already; it must be within the next 24 hours"),
        (10 + 24 * HOUR + 1, "must end within the next 24 hours"),
    ],
)
def test_nothing_is_silenced_for_longer_than_a_day_or_into_the_past(until: float, why: str) -> None:
    house = House()
    house.change(0, raised(alarm()))
    with pytest.raises(ValueError, match=f"^snooze: {why}$"):
        house.snooze(10, until, "a1")
    with pytest.raises(ValueError, match=f"^pause: {why}$"):
        house.pause(10, until)
    assert house.presence() is Presence.ON
    assert house.pauses == {}


def test_what_is_unknown_or_over_cannot_be_answered_and_nothing_else_is_then() -> None:
    house = House()
    other = alarm("b1", "rate:low", Priority.MEDIUM)
    house.change(0, raised(alarm()))
    house.change(0, raised(other))
    house.change(5, ended(other, 5))
    for wrong in ("b1", "zz"):
        with pytest.raises(ValueError, match=rf"^alarm '{wrong}' is unknown or off$"):
            house.acknowledge(10, "a1", wrong)
        with pytest.raises(ValueError, match=rf"^alarm '{wrong}' is unknown or off$"):
            house.snooze(10, 60, wrong)
    assert house.presence() is Presence.ON
    with pytest.raises(ValueError, match=r"^pause 'p9' is unknown or has ended$"):
        house.resume(10, "p9")


def test_a_pause_holds_everything_back_and_its_end_tells_what_is_on() -> None:
    house = House()
    house.change(0, raised(alarm()))
    house.pause(10, HOUR)
    over, on = (alarm(f"{c}:h10", f"{c}:h10", Priority.MEDIUM) for c in ("device", "battery"))
    house.change(20, raised(over))
    house.change(30, raised(on))
    house.change(40, ended(over, 40))
    house.until(HOUR - 1)
    assert house.since(10) == []
    assert [s.alarm.id for s in house.machine.on("grandpa")] == ["a1", "battery:h10"]
    house.until(HOUR)
    assert house.since(10) == [(HOUR, "anna", Kind.PAUSE_OVER)] * 2
    assert house.pauses["p1"].ended_ns == T0 + HOUR * S
    house.until(HOUR + 1200)
    assert (HOUR + 1200, "dora", Kind.ESCALATED) in house.told
    assert [what for what in house.what() if "pause" in what] == ["paused", "pause over"]


def test_what_latched_in_a_pause_is_told_at_its_end() -> None:
    house = House()
    house.pause(0, HOUR)
    house.change(10, raised(alarm(raised=10)))
    house.change(50, ended(alarm(raised=10), 50))
    house.resume(600, "p1")
    assert house.told == [(600, "anna", Kind.PAUSE_OVER)]
    assert house.presence() is Presence.LATCHED


def test_who_knew_of_an_alarm_hears_after_the_pause_that_it_is_over() -> None:
    house = House()
    of = alarm("b1", "rate:low", Priority.MEDIUM)
    house.change(0, raised(of))
    house.pause(10, HOUR)
    house.change(20, ended(of, 20))
    house.until(30)
    assert house.since(10) == []
    house.resume(40, "p1")
    house.until(2 * HOUR)
    assert house.since(10) == [(40, "anna", Kind.ENDED)]


def test_an_end_that_waits_for_a_pause_is_told_when_it_ends_early_after_a_restart_too() -> None:
    house = House()
    of = alarm("b1", "rate:low", Priority.MEDIUM)
    house.change(0, raised(of))
    house.pause(10, HOUR)
    house.change(20, ended(of, 20))
    house.restart()
    house.resume(40, "p1")
    assert house.since(10) == [(40, "anna", Kind.ENDED)]


def test_an_end_that_is_due_but_was_not_delivered_is_not_put_off_by_a_later_pause() -> None:
    house = House()
    of = alarm("b1", "rate:low", Priority.MEDIUM)
    house.change(0, raised(of))
    house.store(house.machine.change(ended(of, 20), at(20)))  # and the network is away
    due = dict(house.waiting)
    house.restart()
    house.store(house.machine.pause("grandpa", None, at(HOUR).utc_ns, "anna", at(30)))
    assert house.waiting == due


@pytest.mark.parametrize(
    ("kind", "held"),
    [("class", {"af"}), ("class:AF", {"af"}), ("pause", {"p"}), ("class:VT", set()), ("a", set())],
)
def test_a_pause_of_one_kind_leaves_the_others(kind: str, held: set[str]) -> None:
    house = House()
    house.pause(0, HOUR, kind)
    house.change(10, raised(alarm("af", "class:AF", Priority.MEDIUM, 10)))
    house.change(10, raised(alarm("p", "pause", Priority.HIGH, 10)))
    assert len(house.told) == 2 - len(held)
    assert {n.alarm_id for n in house.waiting.values()} == {"af", "p"} - held
    assert house.machine.pauses("anna") == ()


def test_of_two_pauses_both_must_end_and_a_new_one_replaces_one_of_its_kind() -> None:
    house = House()
    house.change(0, raised(alarm()))
    house.pause(10, HOUR)
    house.pause(20, 2 * HOUR, "pause")
    house.pause(30, 600)
    assert [p.id for p in house.machine.pauses("grandpa")] == ["p2", "p3"]
    house.until(2 * HOUR - 1)
    assert house.since(10) == []
    house.until(2 * HOUR)
    assert house.since(10) == [(2 * HOUR, "anna", Kind.PAUSE_OVER)]


def test_an_answered_alarm_stays_answered_after_a_pause() -> None:
    house = House()
    house.change(0, raised(alarm()))
    house.acknowledge(5, "a1")
    house.pause(10, 600)
    house.until(HOUR)
    assert house.since(5) == []
    assert house.presence() is Presence.ACKNOWLEDGED


def test_a_snooze_that_is_over_in_a_pause_is_told_after_it_once() -> None:
    house = House()
    house.change(0, raised(alarm()))
    house.snooze(5, 300, "a1")
    house.pause(10, 600)
    house.until(599)
    assert house.since(5) == []
    assert house.presence() is Presence.ON
    house.until(700)
    assert house.since(5) == [(600, "anna", Kind.PAUSE_OVER)]


def test_a_snooze_and_a_pause_that_end_together_tell_once() -> None:
    house = House()
    house.change(0, raised(alarm()))
    house.snooze(5, 600, "a1")
    house.pause(10, 600)
    house.until(700)
    assert house.since(5) == [(600, "anna", Kind.SNOOZE_OVER)]


def test_an_alarm_whose_signal_is_lost_stays_and_says_so_once() -> None:
    house = House()
    house.change(0, raised(alarm("af", "class:AF", Priority.MEDIUM)))
    house.change(0, raised(alarm("d", "device:h10", Priority.MEDIUM)))
    for seconds in (100, 101, 200):
        house.lose(seconds)
    house.lose(300, lost=False)
    house.lose(400)
    house.until(1000)
    lost = [line for line in house.told if line[2] is Kind.SIGNAL_LOST]
    assert lost == [(100, "anna", Kind.SIGNAL_LOST)]
    assert house.signals["af"].signal_lost
    assert not house.signals["d"].signal_lost
    assert house.presence("af") is Presence.ON
    assert house.what()[2:] == ["signal lost", "signal back", "signal lost"]
    assert (600, "ben", Kind.ESCALATED) in house.told


def test_in_a_pause_or_in_quiet_hours_nobody_is_told_that_the_signal_is_lost() -> None:
    house, evening = quiet_house("2026-11-20T21:50")
    house.change(evening, raised(alarm("n", "class:PVC", Priority.LOW, evening)))
    house.change(evening, raised(alarm("p", "pause", Priority.HIGH, evening)))
    house.pause(evening + 1, evening + HOUR, "pause")
    house.lose(evening + 1200)  # at 22:10
    assert house.since(evening + 1) == []
    assert house.waiting == {}
    assert house.signals["n"].signal_lost
    assert house.signals["p"].signal_lost


def test_the_steps_of_a_low_ladder_begin_in_the_morning() -> None:
    house, night = quiet_house("2026-11-20T23:30")
    _, morning = quiet_house("2026-11-21T07:00")
    house.plan = replace(PLAN, quiet=NIGHT, low=Ladder(LADDER[:2]))
    house.change(night, raised(alarm("b", "battery:h10", Priority.LOW, night)))
    house.until(morning + HOUR)
    assert house.told == [
        (morning, "anna", Kind.RAISED),
        (morning + 600, "ben", Kind.ESCALATED),
        (morning + 600, "cleo", Kind.ESCALATED),
    ]


def test_an_end_that_waits_for_the_morning_waits_for_the_end_of_a_pause_as_well() -> None:
    house, evening = quiet_house("2026-11-20T21:50")
    _, morning = quiet_house("2026-11-21T07:00")
    of = alarm("b1", "battery:h10", Priority.LOW, evening)
    house.change(evening, raised(of))
    house.change(evening + 1200, ended(of, evening + 1200))
    house.pause(morning - HOUR, morning + HOUR)
    house.until(morning + 2 * HOUR)
    assert house.told[1:] == [(morning + HOUR, "anna", Kind.ENDED)]


def quiet_house(clock: str) -> tuple[House, int]:
    house = House(replace(PLAN, quiet=NIGHT))
    local = datetime.fromisoformat(clock).replace(tzinfo=BERLIN)
    return house, int(local.timestamp()) - T0 // S


def test_low_priority_waits_for_the_morning_and_no_other_does() -> None:
    house, night = quiet_house("2026-11-20T23:30")
    _, morning = quiet_house("2026-11-21T07:00")
    house.change(night, raised(alarm("b", "battery:h10", Priority.LOW, night)))
    house.change(night, raised(alarm("m", "class:AF", Priority.MEDIUM, night)))
    house.change(night, raised(alarm("h", "pause", Priority.HIGH, night)))
    assert sorted(n.alarm_id for n in house.waiting.values() if n.kind is Kind.RAISED) == ["b"]
    house.acknowledge(night + 1, "m", "h")
    house.until(morning)
    assert house.since(night + 1) == [(morning, "anna", Kind.RAISED)]


def test_low_priority_that_is_over_by_morning_wakes_nobody_at_all() -> None:
    house, night = quiet_house("2026-11-20T23:30")
    of = alarm("b", "battery:h10", Priority.LOW, night)
    house.change(night, raised(of))
    house.change(night + 60, ended(of, night + 60))
    house.until(night + 24 * HOUR)
    assert house.told == []


def test_the_end_of_a_low_alarm_waits_too_and_is_void_if_it_comes_back() -> None:
    house, evening = quiet_house("2026-11-20T21:50")
    _, morning = quiet_house("2026-11-21T07:00")
    of = alarm("b1", "battery:h10", Priority.LOW, evening)
    house.change(evening, raised(of))
    house.change(evening + 1200, ended(of, evening + 1200))
    again = alarm("b2", "battery:h10", Priority.LOW, evening + 7200)
    house.change(evening + 7200, raised(again))
    house.until(morning - 1)
    assert house.told == [(evening, "anna", Kind.RAISED)]
    # For her it was never over; and if it ends before she hears of it again, it is now.
    house.change(morning - 1, ended(again, morning - 1))
    house.until(morning + HOUR)
    assert house.told[1:] == [(morning, "anna", Kind.ENDED)]


@pytest.mark.parametrize(
    ("now", "then"),
    [
        ("2026-11-20T21:59:59+01:00", None),
        ("2026-11-20T22:00:00+01:00", "2026-11-21T07:00:00+01:00"),
        ("2026-11-21T06:59:59+01:00", "2026-11-21T07:00:00+01:00"),
        ("2026-11-21T07:00:00+01:00", None),
        # The nights in which clocks change: ten and eight hours long.
        ("2026-10-24T22:30:00+02:00", "2026-10-25T07:00:00+01:00"),
        ("2026-03-28T22:30:00+01:00", "2026-03-29T07:00:00+02:00"),
    ],
)
def test_quiet_hours(now: str, then: str | None) -> None:
    now_ns = int(datetime.fromisoformat(now).timestamp()) * S
    expected = now_ns if then is None else int(datetime.fromisoformat(then).timestamp()) * S
    assert NIGHT.after(now_ns) == expected


def test_quiet_hours_within_a_day_and_in_an_hour_that_comes_twice_or_never() -> None:
    def after(hours: QuietHours, now: str) -> str:
        ns = hours.after(int(datetime.fromisoformat(now).timestamp()) * S)
        return datetime.fromtimestamp(ns // S, tz=UTC).isoformat(timespec="minutes")

    noon = QuietHours(time(13), time(15), BERLIN)
    assert after(noon, "2026-11-20T13:30+01:00") == "2026-11-20T14:00+00:00"
    early = QuietHours(time(22), time(2, 30), BERLIN)
    # 02:30 comes twice on 25 October: it is over with the first, and not quiet a second time.
    assert after(early, "2026-10-25T02:10+02:00") == "2026-10-25T00:30+00:00"
    assert after(early, "2026-10-25T02:10+01:00") == "2026-10-25T01:10+00:00"
    # 02:30 does not come on 29 March: what would have been half past two is half past three.
    assert after(early, "2026-03-29T01:10+01:00") == "2026-03-29T01:30+00:00"
    with pytest.raises(ValueError, match="start and end are both 07:00"):
        QuietHours(time(7), time(7), BERLIN)


def test_a_restart_tells_nothing_anew_and_forgets_nothing() -> None:
    house = House()
    house.change(0, raised(alarm()))
    house.change(0, raised(alarm("b1", "rate:low", Priority.MEDIUM)))
    house.snooze(10, HOUR, "b1")
    house.pause(20, 2 * HOUR, "class")
    house.change(30, raised(alarm("c1", "class:AF", Priority.MEDIUM, 30)))
    before = dict(house.signals), dict(house.waiting), len(house.audits), len(house.told)
    house.restart()
    house.until(40)
    house.restart()
    house.until(50)
    assert (dict(house.signals), dict(house.waiting), len(house.audits), len(house.told)) == before
    house.until(2 * HOUR)
    told = house.since(50)
    assert told[0] == (300, "anna", Kind.REMINDER)
    assert (1200, "dora", Kind.ESCALATED) in told
    assert (HOUR, "anna", Kind.SNOOZE_OVER) in told
    assert (2 * HOUR, "anna", Kind.PAUSE_OVER) in told


def test_what_is_on_is_never_taken_for_what_is_off() -> None:
    house = House()
    house.change(0, raised(alarm()))
    over = replace(house.signals["a1"], alarm=alarm("a0"), presence=Presence.OFF)
    machine = house.fresh()
    machine.restore([house.signals["a1"], over], [], [])
    assert [signal.alarm.id for signal in machine.on("grandpa")] == ["a1"]


def test_after_hours_without_power_what_was_due_is_told_once() -> None:
    house = House()
    house.change(0, raised(alarm()))
    house.restart()
    night = 8 * HOUR
    house.machine.tick(at(night))  # and a crash before that is stored
    house.restart()
    house.store(house.machine.tick(at(night)))
    house.deliver(night)
    assert sorted(house.since(1)) == sorted(
        [
            (night, "anna", Kind.REMINDER),
            (night, "ben", Kind.ESCALATED),
            (night, "cleo", Kind.ESCALATED),
            (night, "dora", Kind.ESCALATED),
        ]
    )
    assert {(n.due_ns - T0) / S for n in house.waiting.values()} == {night + 300}


@pytest.mark.parametrize("set_by", [-30 * 24 * HOUR, -HOUR, -3, 3, HOUR, 30 * 24 * HOUR])
def test_a_clock_that_is_set_moves_nothing_that_is_to_come(set_by: float) -> None:
    house = House()
    house.change(0, raised(alarm()))
    house.change(0, raised(alarm("b1", "rate:low", Priority.MEDIUM)))
    house.change(0, raised(alarm("c1", "class:AF", Priority.MEDIUM)))
    house.snooze(10, HOUR, "b1")
    house.pause(20, 2 * HOUR, "class")
    house.clock = set_by
    house.until(2 * HOUR)
    told = house.since(30)
    assert told[0] == (300, "anna", Kind.REMINDER)
    assert [line for line in told if line[2] is not Kind.REMINDER] == [
        (600, "ben", Kind.ESCALATED),
        (600, "cleo", Kind.ESCALATED),
        (1200, "dora", Kind.ESCALATED),
        (HOUR, "anna", Kind.SNOOZE_OVER),
        (HOUR + 600, "ben", Kind.ESCALATED),
        (HOUR + 600, "cleo", Kind.ESCALATED),
        (2 * HOUR, "anna", Kind.PAUSE_OVER),
    ]


def test_a_clock_that_was_set_back_while_nobody_looked_delays_nothing_for_long() -> None:
    house = House()
    house.change(0, raised(alarm()))
    house.change(0, raised(alarm("b1", "rate:low", Priority.MEDIUM)))
    house.snooze(10, HOUR, "b1")
    house.until(200)
    house.restart()
    house.clock = -10 * 24 * HOUR
    house.until(300)
    house.restart()  # a second one moves nothing more
    house.until(2 * HOUR)
    told = house.since(200)
    # The last that had happened was the snooze at 10 s; it is now 200 s and not known to be later.
    assert told[0] == (490, "anna", Kind.REMINDER)
    assert (790, "ben", Kind.ESCALATED) in told
    assert (HOUR + 190, "anna", Kind.SNOOZE_OVER) in told
    assert house.told.count((HOUR + 190, "anna", Kind.SNOOZE_OVER)) == 1


def test_a_clock_that_is_slewed_is_not_set() -> None:
    house = House()
    house.change(0, raised(alarm()))
    keys = list(house.waiting)
    for step in range(1, 10):
        out = house.machine.tick(Moment(T0 + step * 20 * S + step * S, 7 * S + step * 20 * S))
        assert out == []
    assert list(house.waiting) == keys


def test_contacts_that_a_new_configuration_brings_hear_of_what_is_on() -> None:
    house = House(Plan())
    house.change(0, raised(alarm()))
    house.until(600)
    assert house.told == []
    assert house.presence() is Presence.ON
    house.plan = PLAN
    house.restart()
    house.until(700)
    assert house.told == [(600, "anna", Kind.RAISED)]


def test_the_end_of_an_unknown_alarm_is_nothing_and_its_going_on_is_an_alarm() -> None:
    house = House()
    house.change(0, ended(alarm(), 0))
    assert house.signals == {}
    house.change(10, raised(alarm()))  # raised by an earlier version, which had no signals
    assert house.told == [(10, "anna", Kind.RAISED)]


def test_another_active_alarm_of_the_same_condition_takes_the_place_of_the_first() -> None:
    house = House()
    house.change(0, raised(alarm()))
    house.acknowledge(5, "a1")
    house.change(10, raised(alarm("a2", raised=10)))
    assert house.since(5) == [(10, "anna", Kind.AGAIN)]
    assert [s.alarm.id for s in house.machine.on("grandpa")] == ["a2"]
    house.change(20, ended(alarm(), 20))
    assert house.presence("a2") is Presence.ON


def test_the_plan_of_a_patient_without_a_ladder_tells_everybody_at_once() -> None:
    plan = Plan.telling(["anna", "ben"])
    for priority in Priority:
        assert plan.ladder(priority).steps == (Step(0, ("anna", "ben")),)
    assert [plan.ladder(p).repeat_s for p in Priority] == [300, 1800, None]
    assert [plan.ladder(p).latching for p in Priority] == [True, False, False]
    assert Plan.telling([]).high.steps == ()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Step(-1, ("anna",)), "after_s: must be 0 seconds or more, not -1"),
        (lambda: Step(float("nan"), ("anna",)), "after_s: must be 0 seconds or more, not nan"),
        (lambda: Step(0, ()), "contacts: must name at least one"),
        (lambda: Ladder(LADDER[::-1]), "steps: must be in the order of after_s"),
        (lambda: Ladder(repeat_s=59), "repeat_s: must be 60 seconds or more, not 59"),
        (lambda: Plan(bout_s=-1), "bout_s: must be 0 seconds or more, not -1"),
        (lambda: Plan(group_s=float("inf")), "group_s: must be 0 seconds or more, not inf"),
    ],
)
def test_a_plan_that_makes_no_sense_is_refused(make: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}$"):
        make()
