"""Alarms and people over hours, with crashes and clocks that are set: nothing is lost or doubled.

The machine under test only ever sees what a store keeps of its output. Beside it runs a reference
that knows nothing of notifications: which alarms there are, who answered, what is paused.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, time
from zoneinfo import ZoneInfo

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from alerts.conditions import Alarm, Change, Priority, State
from alerts.escalation import Ladder, LethalLadder, Plan, Step
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
START = int(datetime(2026, 10, 24, 20, tzinfo=UTC).timestamp()) * S  # the clocks change this night
STEPS = (Step(0, ("anna",)), Step(420, ("ben",)))
QUIET = QuietHours(time(22), time(7), ZoneInfo("Europe/Berlin"))
PLAN = Plan(
    high=Ladder(STEPS, repeat_s=300, latching=True),
    lethal=LethalLadder((Step(0, ("anna",)), Step(60, ("ben",))), repeat_s=30),
    medium=Ladder(STEPS, repeat_s=1200),
    low=Ladder(STEPS[:1]),
    quiet=QUIET,
    bout_s=1500,
    group_s=900,
)
# How long an alarm that nobody has answered may go on until somebody hears of it (again).
SILENCE_S = {Priority.HIGH: 300 + 60, Priority.MEDIUM: 1200 + 900}
LETHAL_SILENCE_S = 30
ANSWER_S = 180
RANK = {Priority.LOW: 0, Priority.MEDIUM: 1, Priority.HIGH: 2}
CONDITIONS = {
    "pause": Priority.HIGH,
    "vf": Priority.HIGH,
    "class:AF": Priority.MEDIUM,
    "class:PVC": Priority.LOW,
    "device:h10": Priority.MEDIUM,
}
BEGINS = {
    Kind.RAISED,
    Kind.AGAIN,
    Kind.WORSENED,
    Kind.SNOOZE_OVER,
    Kind.PAUSE_OVER,
    Kind.GOES_ON,
}
ONCE = {Kind.RAISED, Kind.AGAIN, Kind.SIGNAL_LOST, Kind.LATCHED, Kind.ENDED}
SECONDS = st.sampled_from([0, 1, 30, 59, 61, 290, 500, 1000, 2000, 4000, 20_000])
CONDITION = st.sampled_from(sorted(CONDITIONS))


class Store:
    """What a database would hold, and what it would refuse."""

    def __init__(self) -> None:
        self.signals: dict[str, Signal] = {}
        self.pauses: dict[str, Pause] = {}
        self.waiting: dict[str, Notification] = {}
        self.keys: dict[str, Notification] = {}
        self.gone: set[str] = set()
        self.audits: list[Audit] = []

    def apply(self, outputs: list[Output]) -> None:
        for output in outputs:
            match output:
                case Signal():
                    self._signal(output, outputs)
                case Pause():
                    self.pauses[output.id] = output
                case Notification():
                    self._notification(output)
                case Cancelled(alarm_id):
                    void = [k for k, n in self.waiting.items() if n.alarm_id == alarm_id]
                    for key in void:
                        del self.waiting[key]
                    self.gone.update(void)
                case ClockSet(by_ns):
                    for key, n in self.waiting.items():
                        self.waiting[key] = replace(n, due_ns=n.due_ns + by_ns)
                case Audit():
                    self.audits.append(output)

    def _signal(self, new: Signal, outputs: list[Output]) -> None:
        old = self.signals.get(new.alarm.id)
        if old is None or old.presence is not new.presence:
            assert any(isinstance(o, Audit) and o.alarm_id == new.alarm.id for o in outputs)
        assert old is None or old.presence is not Presence.OFF or new.presence is Presence.OFF
        self.signals[new.alarm.id] = new

    def _notification(self, new: Notification) -> None:
        assert new.alarm_id in self.signals
        assert new.key not in self.gone, "told or void already"
        old = self.waiting.get(new.key)
        if old is None:
            assert new.key not in self.keys
            if new.kind in ONCE:
                assert not any(
                    (n.alarm_id, n.contact, n.kind) == (new.alarm_id, new.contact, new.kind)
                    for n in self.keys.values()
                )
        else:
            assert replace(old, due_ns=new.due_ns) == new
        self.waiting[new.key] = self.keys[new.key] = new

    def is_paused(self, alarm: Alarm) -> bool:
        going_on = (pause for pause in self.pauses.values() if pause.ended_ns is None)
        unnamed = () if alarm.condition == "vf" else (None,)
        return any(
            pause.kind in (*unnamed, alarm.condition, alarm.condition.split(":")[0])
            for pause in going_on
        )

    def audible(self) -> set[str]:
        """The alarms that somebody should be hearing of."""
        return {
            name
            for name, signal in self.signals.items()
            if signal.presence in (Presence.ON, Presence.LATCHED)
            and not self.is_paused(signal.alarm)
        }


@dataclass
class Truth:
    """What the reference knows of one alarm."""

    alarm: Alarm
    active: bool = True
    answered: bool = False
    answered_at: float = 0.0
    until: float | None = None
    replaced: bool = False

    def answer(self, now: float, until: float | None) -> None:
        if not self.answered or until is not None or self.until is not None:
            self.answered_at = now  # else the first answer stands
        self.answered, self.until = True, until

    def presence(self) -> Presence:
        if self.replaced:
            return Presence.OFF
        if self.active:
            return Presence.ACKNOWLEDGED if self.answered else Presence.ON
        latched = self.alarm.priority is Priority.HIGH and not self.answered
        return Presence.LATCHED if latched else Presence.OFF


class Nights(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.store = Store()
        self.truth: dict[str, Truth] = {}
        self.silences: dict[str, float] = {}  # when each pause ends, by the steady clock
        self.steady = 0.0
        self.ahead = 0.0
        self.seen_ahead = 0.0
        self.online = True
        self.heard: list[Notification] = []
        self.machine = self.fresh()

    # The house around it.

    def fresh(self) -> Signals:
        return Signals(lambda _: PLAN, new_id=lambda: f"p{len(self.store.pauses) + 1}")

    def restored(self) -> Signals:
        machine = self.fresh()
        machine.restore(
            self.store.signals.values(), self.store.pauses.values(), self.store.waiting.values()
        )
        return machine

    @property
    def now(self) -> Moment:
        return Moment(START + round((self.steady + self.ahead) * S), 5 * S + round(self.steady * S))

    def do(self, act: Callable[[Signals], list[Output]], crash: bool = False) -> None:
        outputs = act(self.machine)
        if crash and self.seen_ahead == self.ahead:
            # Nothing of it was stored: it is done again, by the next run, just the same.
            self.machine = self.restored()
            again = act(self.machine)
            assert sorted(map(repr, again)) == sorted(map(repr, outputs))
        self.seen_ahead = self.ahead
        silent = set(self.store.signals) - self.store.audible()
        keys = set(self.store.keys)
        self.store.apply(outputs)
        for name in self.store.audible():
            if name in silent or keys.isdisjoint(self.keys_of(name)):
                begins = [self.store.keys[key] for key in self.keys_of(name) - keys]
                assert any(n.kind in BEGINS for n in begins), "nobody hears that it is on"
        self.time_in_truth()
        self.deliver()

    def keys_of(self, name: str) -> set[str]:
        return {key for key, n in self.store.keys.items() if n.alarm_id == name}

    def time_in_truth(self) -> None:
        for truth in self.truth.values():
            if truth.until is not None and truth.until <= self.steady:
                truth.until = None
                truth.answered = truth.answered and not truth.active
        self.silences = {name: end for name, end in self.silences.items() if end > self.steady}

    def deliver(self) -> None:
        if not self.online:
            return
        for key, n in list(self.store.waiting.items()):
            if n.due_ns <= self.now.utc_ns:
                signal = self.store.signals[n.alarm_id]
                if n.kind is Kind.ENDED:
                    assert signal.presence is Presence.OFF
                else:
                    assert n.contact in signal.told
                self.heard.append(n)
                self.store.gone.add(key)
                del self.store.waiting[key]

    def current(self, condition: str) -> Truth | None:
        found = [t for t in self.truth.values() if t.alarm.condition == condition]
        return found[-1] if found else None

    def on(self) -> list[str]:
        return [name for name, t in self.truth.items() if t.presence() is not Presence.OFF]

    # What happens.

    @rule(condition=CONDITION, crash=st.booleans())
    def a_condition_begins_or_ends(self, condition: str, crash: bool) -> None:
        now, newest = self.now, self.current(condition)
        if newest is None or not newest.active:
            name = f"{condition}/{len(self.truth)}"
            priority = CONDITIONS[condition]
            alarm = Alarm(name, "grandpa", condition, priority, now.utc_ns - S, now.utc_ns)
            if newest is not None:
                # What was not answered is handed on to the next.
                newest.replaced = newest.replaced or newest.presence() is Presence.LATCHED
            self.truth[name] = Truth(alarm)
            change = Change(alarm, now.utc_ns, State.ACTIVE, "seen")
            self.do(lambda machine: machine.change(change, now), crash)
            if name in self.store.audible() and priority is not Priority.LOW:
                wait_s = 60 if priority is Priority.HIGH else 900
                wait_s = 0 if condition == "vf" else wait_s
                dues = [self.store.keys[key].due_ns for key in self.keys_of(name)]
                assert min(dues) <= now.utc_ns + wait_s * S
        else:
            self.time_in_truth()
            newest.active = False
            ended = replace(newest.alarm, ended_ns=max(now.utc_ns, newest.alarm.raised_ns))
            change = Change(ended, now.utc_ns, State.ENDED, "gone")
            self.do(lambda machine: machine.change(change, now), crash)
            if newest.presence() is Presence.OFF:
                knew = {n.contact for n in self.heard if n.alarm_id == ended.id}
                hear = {
                    n.contact
                    for n in self.store.keys.values()
                    if n.alarm_id == ended.id and n.kind is Kind.ENDED
                }
                assert knew <= hear

    @rule(condition=CONDITION, priority=st.sampled_from(list(Priority)), crash=st.booleans())
    def its_priority_changes(self, condition: str, priority: Priority, crash: bool) -> None:
        truth = self.current(condition)
        if truth is None or not truth.active or condition == "vf":
            return
        now = self.now
        self.time_in_truth()
        worse = RANK[priority] > RANK[truth.alarm.priority]
        change = Change(replace(truth.alarm, priority=priority), now.utc_ns, State.ACTIVE, "worse")
        if worse:
            truth.alarm, truth.answered, truth.until = change.alarm, False, None
        keys = set(self.store.keys)
        self.do(lambda machine: machine.change(change, now), crash)
        if worse and truth.alarm.id in self.store.audible():
            new = [self.store.keys[key] for key in self.keys_of(truth.alarm.id) - keys]
            assert any(n.kind is Kind.WORSENED and n.due_ns == now.utc_ns for n in new)

    @rule(crash=st.booleans())
    def a_lethal_rhythm_lasts(self, crash: bool) -> None:
        truth = self.current("vf")
        if truth is None or not truth.active:
            return
        now = self.now
        self.time_in_truth()
        late = truth.answered and self.steady - truth.answered_at > ANSWER_S
        if late:
            truth.answered, truth.until = False, None
        keys = set(self.store.keys)
        change = Change(truth.alarm, now.utc_ns + 5 * S, State.ACTIVE, "still seen")
        self.do(lambda machine: machine.change(change, now), crash)
        new = [self.store.keys[key] for key in self.keys_of(truth.alarm.id) - keys]
        at_once = [n for n in new if n.kind is Kind.GOES_ON and n.due_ns == now.utc_ns]
        assert bool(at_once) is (late and truth.alarm.id in self.store.audible())

    @rule(data=st.data(), crash=st.booleans())
    @precondition(lambda self: self.on())
    def somebody_answers(self, data: st.DataObject, crash: bool) -> None:
        ids = data.draw(st.lists(st.sampled_from(self.on()), min_size=1, unique=True))
        now = self.now
        self.time_in_truth()
        for name in ids:
            self.truth[name].answer(self.steady, None)
        self.do(lambda machine: machine.acknowledge(ids, "anna", now), crash)

    @rule(data=st.data(), seconds=st.sampled_from([1, 60, 1000, 86_400]), crash=st.booleans())
    @precondition(lambda self: self.on())
    def somebody_snoozes(self, data: st.DataObject, seconds: int, crash: bool) -> None:
        name = data.draw(st.sampled_from(self.on()))
        now = self.now
        self.time_in_truth()
        truth = self.truth[name]
        truth.answer(self.steady, self.steady + seconds if truth.active else None)
        until_ns = now.utc_ns + seconds * S
        self.do(lambda machine: machine.snooze([name], until_ns, "anna", now), crash)

    @rule(
        kind=st.sampled_from([None, "class", "class:AF", "pause", "vf"]),
        seconds=st.sampled_from([1, 60, 1000, 86_400]),
        crash=st.booleans(),
    )
    def somebody_pauses(self, kind: str | None, seconds: int, crash: bool) -> None:
        now = self.now
        self.time_in_truth()
        for name in list(self.silences):
            if self.store.pauses[name].kind == kind:
                del self.silences[name]
        self.silences[f"p{len(self.store.pauses) + 1}"] = self.steady + seconds
        until_ns = now.utc_ns + seconds * S
        self.do(lambda machine: machine.pause("grandpa", kind, until_ns, "anna", now), crash)

    @rule(data=st.data(), crash=st.booleans())
    @precondition(lambda self: self.silences)
    def somebody_resumes(self, data: st.DataObject, crash: bool) -> None:
        name = data.draw(st.sampled_from(sorted(self.silences)))
        now = self.now
        self.time_in_truth()
        self.silences.pop(name, None)
        self.do(lambda machine: machine.resume(name, "anna", now), crash)

    @rule(lost=st.booleans(), crash=st.booleans())
    def the_signal_is_lost_or_back(self, lost: bool, crash: bool) -> None:
        now = self.now
        self.do(lambda machine: machine.signal_lost("grandpa", lost, now), crash)
        for name, truth in self.truth.items():
            if truth.active and not truth.replaced:
                expected = lost and truth.alarm.condition != "device:h10"
                assert self.store.signals[name].signal_lost is expected

    @rule(seconds=SECONDS, crash=st.booleans())
    def time_passes(self, seconds: int, crash: bool) -> None:
        """With a tick whenever the machine asks for one, as the daemon does."""
        end = self.steady + seconds
        self.do(lambda machine: machine.tick(self.now))
        for _ in range(1000):
            due_ns = self.machine.next_due()
            if due_ns is None:
                break
            wait = self.steady + (due_ns - self.now.utc_ns) / S
            if wait > end:
                break
            # The next whole second, so that the two clocks agree on what is over.
            self.steady = max(self.steady, float(-(-round(wait * S) // S)))
            self.do(lambda machine: machine.tick(self.now), crash)
        else:
            raise AssertionError("it asks for a tick and then has nothing to do")
        self.steady = max(end, self.steady)
        self.do(lambda machine: machine.tick(self.now))

    @rule(seconds=SECONDS)
    def nobody_ticks_for_a_while(self, seconds: int) -> None:
        self.steady += seconds
        self.do(lambda machine: machine.tick(self.now))

    @rule(seconds=st.sampled_from([-1_000_000, -86_400, -3600, -300, -3, 3, 300, 3600, 1_000_000]))
    def the_clock_is_set(self, seconds: int) -> None:
        self.ahead += seconds

    @rule(online=st.booleans())
    def the_network_comes_or_goes(self, online: bool) -> None:
        self.online = online

    @rule(seconds=SECONDS)
    def the_daemon_restarts(self, seconds: int) -> None:
        """After a time without power, in which somebody may have set the clock."""
        set_by = self.ahead - self.seen_ahead
        self.machine = self.restored()
        if seconds == 0 and set_by == 0:
            assert not any(isinstance(o, Notification) for o in self.restored().tick(self.now))
        self.steady += seconds
        if set_by:
            self.meet_a_clock_set_unseen()
        self.do(lambda machine: machine.tick(self.now))

    def meet_a_clock_set_unseen(self) -> None:
        """Snoozes and pauses may then be over early, but never last longer than was asked for."""
        lengths = {
            name: s.snoozed_until_ns - s.acknowledged_ns
            for name, s in self.store.signals.items()
            if s.snoozed_until_ns is not None and s.acknowledged_ns is not None
        }
        outputs = self.machine.tick(self.now)
        self.machine = self.restored()  # by what it then put out we see how long they last
        after = {o.alarm.id: o for o in outputs if isinstance(o, Signal)}
        pauses = {o.id: o for o in outputs if isinstance(o, Pause)}
        for name, truth in self.truth.items():
            answered_ns = after.get(name, self.store.signals[name]).acknowledged_ns
            if answered_ns is not None:
                truth.answered_at = self.steady - (self.now.utc_ns - answered_ns) / S
        for name, length_ns in lengths.items():
            signal = after.get(name, self.store.signals[name])
            until_ns = signal.snoozed_until_ns
            left_ns = 0 if until_ns is None else until_ns - self.now.utc_ns
            assert left_ns <= length_ns + 2 * S
            self.truth[name].until = self.steady + left_ns / S
        for name in list(self.silences):
            pause = pauses.get(name, self.store.pauses[name])
            left_ns = 0 if pause.ended_ns is not None else pause.until_ns - self.now.utc_ns
            assert left_ns <= pause.until_ns - pause.from_ns + 2 * S
            self.silences[name] = self.steady + left_ns / S

    # What holds at every moment.

    @invariant()
    def every_alarm_is_as_the_reference_says(self) -> None:
        # A snooze or pause that just ran out shows with the next call.
        expected = {name: truth.presence() for name, truth in self.truth.items()}
        assert {name: s.presence for name, s in self.store.signals.items()} == expected
        going_on = {name for name, pause in self.store.pauses.items() if pause.ended_ns is None}
        assert going_on == set(self.silences)
        shown = {signal.alarm.id: signal for signal in self.machine.on("grandpa")}
        assert shown == {
            name: s for name, s in self.store.signals.items() if s.presence is not Presence.OFF
        }

    @invariant()
    def nobody_is_told_what_is_not_so(self) -> None:
        audible = self.store.audible()
        for n in self.store.waiting.values():
            signal = self.store.signals[n.alarm_id]
            assert n.thread == signal.bout
            if n.kind is Kind.ENDED:
                assert signal.presence is Presence.OFF
            else:
                assert n.alarm_id in audible
            low = signal.alarm.priority is Priority.LOW
            if low and self.seen_ahead == self.ahead and n.due_ns > self.now.utc_ns:
                assert QUIET.after(n.due_ns) == n.due_ns

    @invariant()
    def every_alarm_is_told_or_about_to_be(self) -> None:
        if self.seen_ahead != self.ahead:
            return  # Seen with the next call, which comes before anything is handed over.
        for name in self.store.audible():
            signal = self.store.signals[name]
            waiting = [n for n in self.store.waiting.values() if n.alarm_id == name]
            assert waiting or signal.told
            within_s: float | None = SILENCE_S.get(signal.alarm.priority)
            if signal.alarm.condition == "vf" and signal.presence is Presence.ON:
                within_s = LETHAL_SILENCE_S
            if within_s is not None:
                assert min(n.due_ns for n in waiting) <= self.now.utc_ns + within_s * S

    @invariant()
    def every_transition_is_in_the_audit(self) -> None:
        first = {audit.alarm_id for audit in self.store.audits if audit.what in ("raised", "again")}
        assert set(self.store.signals) <= first
        for name, signal in self.store.signals.items():
            if signal.presence is Presence.OFF:
                last = [a.what for a in self.store.audits if a.alarm_id == name][-1]
                assert last in ("ended", "superseded", "acknowledged", "snoozed")


Nights.TestCase.settings = settings(max_examples=80, stateful_step_count=40, deadline=None)
TestNights = Nights.TestCase
