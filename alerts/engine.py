"""Decides, window by window, which alarms begin and which end.

It has no clock and does no input or output: the same windows always give the same changes.

The order of arrival is taken as the order of events, and time stamps only tell which windows lie
near each other. A clock that is set back therefore neither deafens the engine until the old time is
reached again nor revives what is over. Windows of all of a patient's devices are taken together:
there is one heart, and two devices that see it only make the evidence come in faster.
"""

import math
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from uuid import uuid4

from alerts.conditions import Alarm, Change, Observation, State
from alerts.lethal import is_of_rhythm
from alerts.policy import Policy, Rule

# How many good windows of each patient the engine remembers, and so how many it needs back after a
# restart: 20 minutes of windows every 5 s, more than the longest rule (60 windows, MAX_N) can use.
MEMORY = 240

# Windows count together only if they start within this many times the span that n windows take
# without a loss. With 3, evidence still adds up while two of three windows are bad, but a few
# windows of this morning do not complete those of last night.
AGE_FACTOR = 3


def _new_id() -> str:
    return str(uuid4())


@dataclass(frozen=True, slots=True)
class Weight:
    """How the last good windows of a patient speak about one condition.

    Attributes:
        rule: what they are held against.
        value: what it measures in the newest one; None where that does not tell.
        speaking_for: how many of them speak for it.
        speaking_against: how many speak against it.
        of: how many they are, at most ``rule.n``.
    """

    rule: Rule
    value: float | None
    speaking_for: int
    speaking_against: int
    of: int


@dataclass(slots=True)
class _Patient:
    """What the engine knows of one patient: good windows as they came, and the active alarms."""

    recent: deque[Observation] = field(default_factory=lambda: deque(maxlen=MEMORY))
    active: dict[str, Alarm] = field(default_factory=dict)

    def remember(self, observation: Observation) -> bool:
        """Keep a good window; False if it is bad or has been seen before, and so tells nothing.

        Seen before is a window equal in everything. One with the same start but other content is
        another window: a second device's, or one after the clock was set back.
        """
        if not observation.good or observation in self.recent:
            return False
        self.recent.append(observation)
        return True


class Engine:
    """Turns the windows of all patients into changes of their alarms.

    Args:
        policy_for: gives the policy of a patient; asked at every window, so it should be quick.
        new_id: makes the id of a new alarm (UUID4 as text by default).
    """

    def __init__(
        self, policy_for: Callable[[str], Policy], new_id: Callable[[], str] = _new_id
    ) -> None:
        self._policy_for = policy_for
        self._new_id = new_id
        self._patients: dict[str, _Patient] = {}

    def restore(self, alarms: Iterable[Alarm], observations: Iterable[Observation]) -> None:
        """Take up, before the first step, where an earlier engine stopped; changes nothing else.

        Args:
            alarms: those active at the time; ended ones are passed over, as are those that
                ``alerts.lethal`` raises, on which windows have no say.
            observations: of each patient the last ``MEMORY`` good windows or more, in the order in
                which they were stepped.

        Raises:
            ValueError: if a patient has two active alarms of one condition.
        """
        for observation in observations:
            watched = _watched(observation, self._policy_for(observation.patient))
            self._patient(observation.patient).remember(watched)
        for alarm in alarms:
            if alarm.state is State.ENDED or is_of_rhythm(alarm):
                continue
            active = self._patient(alarm.patient).active
            if alarm.condition in active:
                raise ValueError(
                    f"two active alarms of {alarm.condition} for {alarm.patient}: "
                    f"{active[alarm.condition].id} and {alarm.id}"
                )
            active[alarm.condition] = alarm

    def policy(self, patient: str) -> Policy:
        """The rules that a patient's windows are held against."""
        return self._policy_for(patient)

    def active(self, patient: str) -> tuple[Alarm, ...]:
        """The alarms of a patient that have not ended, oldest first."""
        known = self._patients.get(patient)
        return tuple(known.active.values()) if known else ()

    def step(self, observation: Observation) -> list[Change]:
        """Take in one window and say what it changes, most often nothing.

        A bad window, or one that has been taken in before, changes nothing: an alarm that is active
        when the signal is lost stays active.
        """
        patient = self._patient(observation.patient)
        policy = self._policy_for(observation.patient)
        observation = _watched(observation, policy)
        changes = self._end_unwatched(patient, policy, observation)
        if patient.remember(observation):
            for rule in policy.rules:
                change = self._judge(patient, rule, policy.hop_s, observation)
                if change is not None:
                    changes.append(change)
        return changes

    def weigh(self, patient: str) -> tuple[Weight, ...]:
        """How the windows up to a patient's newest good one speak, for each rule; for people."""
        known = self._patients.get(patient)
        if known is None or not known.recent:
            return ()
        policy = self._policy_for(patient)
        return tuple(_weigh(known.recent, rule, policy.hop_s) for rule in policy.rules)

    def _patient(self, patient: str) -> _Patient:
        return self._patients.setdefault(patient, _Patient())

    def _end_unwatched(
        self, patient: _Patient, policy: Policy, observation: Observation
    ) -> list[Change]:
        # After a restart with another bundle or configuration an active alarm may have no rule
        # left; nothing would ever end it.
        watched = {rule.condition for rule in policy.rules}
        return [
            _end(patient, alarm, observation, f"{alarm.condition} is no longer watched")
            for alarm in list(patient.active.values())
            if alarm.condition not in watched
        ]

    def _judge(
        self, patient: _Patient, rule: Rule, hop_s: float, observation: Observation
    ) -> Change | None:
        """What the newest window, with those before it, changes about one condition."""
        value = _measure(rule, observation)
        if value is None:
            return None
        active = patient.active.get(rule.condition)
        # Only a window that itself speaks for (or against) the condition can tip the balance; one
        # that does not could only do so by bringing older windows near again.
        if not (rule.speaks_for(value) if active is None else rule.speaks_against(value)):
            return None
        evidence = _evidence(patient.recent, rule, hop_s, observation)
        if active is not None:
            against = sum(rule.speaks_against(v) for _, v in evidence)
            if against < rule.clear_k:
                return None
            return _end(patient, active, observation, rule.why_ended(against, len(evidence)))
        starts = [window.start_ns for window, v in evidence if rule.speaks_for(v)]
        if len(starts) < rule.k:
            return None
        alarm = Alarm(
            id=self._new_id(),
            patient=observation.patient,
            condition=rule.condition,
            priority=rule.priority,
            started_ns=min(starts),
            raised_ns=observation.end_ns,
        )
        patient.active[rule.condition] = alarm
        reason = rule.why_raised(len(starts), len(evidence), value)
        return Change(alarm, observation.end_ns, State.ACTIVE, reason)


def _watched(observation: Observation, policy: Policy) -> Observation:
    """The observation with only the classes that have a rule.

    A model tells of dozens of classes and few of them alarm; to keep all of them for each window
    would be most of the memory that one more patient takes.
    """
    of = observation.probabilities
    kept = {rule.key: of[rule.key] for rule in policy.classes if rule.key in of}
    return replace(observation, probabilities=kept)


def _measure(rule: Rule, observation: Observation) -> float | None:
    value = rule.measure(observation)
    return None if value is None or math.isnan(value) else value


def _evidence(
    recent: Iterable[Observation], rule: Rule, hop_s: float, newest: Observation
) -> list[tuple[Observation, float]]:
    """The last n windows near the newest in which the rule finds a value, the newest first."""
    age_ns = AGE_FACTOR * rule.n * hop_s * 1e9
    evidence: list[tuple[Observation, float]] = []
    for window in reversed(list(recent)):
        if abs(window.start_ns - newest.start_ns) > age_ns:
            continue
        value = _measure(rule, window)
        if value is not None:
            evidence.append((window, value))
            if len(evidence) == rule.n:
                break
    return evidence


def _weigh(recent: Sequence[Observation], rule: Rule, hop_s: float) -> Weight:
    values = [value for _, value in _evidence(recent, rule, hop_s, recent[-1])]
    return Weight(
        rule,
        _measure(rule, recent[-1]),
        speaking_for=sum(rule.speaks_for(value) for value in values),
        speaking_against=sum(rule.speaks_against(value) for value in values),
        of=len(values),
    )


def _end(patient: _Patient, alarm: Alarm, observation: Observation, reason: str) -> Change:
    del patient.active[alarm.condition]
    # If the clock was set back meanwhile, the alarm still does not end before it was raised.
    ended = replace(alarm, ended_ns=max(observation.end_ns, alarm.raised_ns))
    return Change(ended, observation.end_ns, State.ENDED, reason)
