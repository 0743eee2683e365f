"""Why there was an alarm, or none: the rules run again over the windows that were stored.

It is the engine itself that runs, so that what is shown is what decides. Two things it cannot show:
windows of several devices are taken in the order of time and not in that in which they came, and a
pause that was seen while it lasted was not seen in a window.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from alerts.conditions import Alarm, Change
from alerts.engine import Engine, Weight
from alerts.policy import ClassRule, PauseRule, Policy, RateRule, Rule
from monitor.config import PatientConfig
from monitor.observe import observation
from monitor.results import WindowResult


@dataclass(frozen=True, slots=True)
class Explained:
    """One window, and what the rules make of it.

    Attributes:
        result: the window.
        weights: how the last windows speak for each rule with it; empty if it is bad.
        changes: what it changes.
        on: the conditions that are true after it.
    """

    result: WindowResult
    weights: tuple[Weight, ...]
    changes: tuple[Change, ...]
    on: frozenset[str]

    @property
    def speaking(self) -> tuple[Weight, ...]:
        """Those of the rules that this very window speaks for."""
        return tuple(w for w in self.weights if _speaks_for(w))


@dataclass(frozen=True, slots=True)
class Verdict:
    """Why one condition raised no alarm, or that it did.

    Attributes:
        condition: which; None for all.
        why: one line.
    """

    condition: str | None
    why: str


def run_again(
    patient: str,
    policy: Policy,
    windows: Iterable[WindowResult],
    *,
    before: Iterable[WindowResult] = (),
    active: Iterable[Alarm] = (),
) -> Iterator[Explained]:
    """Run the rules over windows.

    Args:
        patient: whose windows.
        policy: the patient's rules.
        windows: to explain, in order.
        before: those before them, in order: the engine remembers ``alerts.engine.MEMORY``.
        active: the alarms that were on before the first of ``windows``, ended since or not.
    """
    engine = Engine(lambda _: policy)
    watched = {rule.condition for rule in policy.rules}
    engine.restore(
        (replace(a, ended_ns=None) for a in active if a.condition in watched),
        (observation(result) for result in before),
    )
    for result in windows:
        changes = engine.step(observation(result))
        yield Explained(
            result,
            engine.weigh(patient) if result.grade.good else (),
            tuple(changes),
            frozenset(alarm.condition for alarm in engine.active(patient)),
        )


def rule_line(rule: Rule, hop_s: float) -> str:
    """A rule with its numbers, in one line for people."""
    needs = f"in {rule.k} of the last {rule.n} good windows (one every {hop_s:g} s)"
    over = f"in {rule.clear_k} of {rule.n}"
    match rule:
        case ClassRule():
            kind = "probability" if rule.condition == f"class:{rule.name}" else "by RR intervals"
            return (
                f"{rule.condition}, {rule.priority}: {kind} at or over {rule.threshold:.2f} "
                f"{needs}; over when under {rule.off_threshold:.2f} {over}"
            )
        case RateRule():
            beyond, back = ("over", "under") if rule.side == "high" else ("under", "over")
            return (
                f"{rule.condition}, {rule.priority}: heart rate at or {beyond} {rule.limit:g} per "
                f"minute {needs}; over when {back} {rule.off:g} {over}"
            )
        case PauseRule():
            return (
                f"{rule.condition}, {rule.priority}: {rule.seconds:g} s without a beat, in any "
                f"window or seen while it lasts; over after {rule.clear_k} good windows without"
            )
    return f"{rule.condition}, {rule.priority}: {needs}"


def verdicts(
    explained: Sequence[Explained],
    policy: Policy,
    patient: PatientConfig | None,
    thresholds: Mapping[str, float],
) -> list[Verdict]:
    """Why each condition raised no alarm in some windows, or that it did.

    Args:
        explained: the windows.
        policy: the patient's rules.
        patient: as configured, None for one who is not.
        thresholds: of the bundle, by class: some of its classes have no alarm.
    """
    found = _unread(explained)
    if any(one.weights for one in explained):
        found += [_verdict(rule, i, explained) for i, rule in enumerate(policy.rules)]
    off = _switched_off(patient, policy) if patient is not None else []
    silent = {verdict.condition for verdict in off}
    seen = _without_alarm(explained, policy, thresholds)
    return found + off + [verdict for verdict in seen if verdict.condition not in silent]


def _unread(explained: Sequence[Explained]) -> list[Verdict]:
    if not explained:
        return [Verdict(None, "no window is stored of this time: nothing was seen of the heart")]
    bad = [one.result for one in explained if not one.result.grade.good]
    if not bad:
        return []
    reasons = sorted({reason.value for result in bad for reason in result.grade.reasons})
    return [
        Verdict(
            None,
            f"{len(bad)} of {len(explained)} windows could not be read ({', '.join(reasons)}): "
            "they are no evidence for anything",
        )
    ]


def _verdict(rule: Rule, at: int, explained: Sequence[Explained]) -> Verdict:
    condition = rule.condition
    raised = [c for one in explained for c in one.changes if c.alarm.condition == condition]
    if raised:
        return Verdict(condition, raised[0].reason)
    if condition in explained[0].on:
        return Verdict(condition, "was on already, and stayed on")
    weights = [one.weights[at] for one in explained if one.weights]
    most = max(weights, key=lambda w: (w.speaking_for, w.of))
    if most.speaking_for == 0:
        if all(w.value is None for w in weights):
            return Verdict(condition, "no window tells anything of it")
        return Verdict(condition, f"no window speaks for it; {rule.k} of {rule.n} must")
    return Verdict(
        condition,
        f"at most {most.speaking_for} of the last {most.of} good windows spoke for it; "
        f"{rule.k} of {rule.n} must",
    )


def _switched_off(patient: PatientConfig, policy: Policy) -> list[Verdict]:
    alarms = patient.alarms
    found = [
        Verdict(f"class:{name}", "known and lasting, so never an alarm (alarms.chronic)")
        for name in alarms.chronic
    ]
    found += [
        Verdict(f"class:{name}", f"switched off (alarms.classes.{name}.enabled)")
        for name, override in alarms.classes.items()
        if not override.enabled and name not in alarms.chronic
    ]
    return found + [
        Verdict(condition, "is not watched")
        for condition, rule in (
            ("rate:high", policy.high_rate),
            ("rate:low", policy.low_rate),
            ("pause", policy.pause),
        )
        if rule is None
    ]


def _without_alarm(
    explained: Sequence[Explained], policy: Policy, thresholds: Mapping[str, float]
) -> list[Verdict]:
    """Classes that were seen and that no rule looks at: most of a model's are no emergency."""
    ruled = {rule.key for rule in policy.classes}
    most: dict[str, float] = {}
    for one in explained:
        for name, probability in one.result.by_class.items():
            if name not in ruled and probability >= thresholds.get(name, 2.0):
                most[name] = max(probability, most.get(name, 0.0))
    return [
        Verdict(f"class:{name}", f"seen, {probability:.2f} at most, but there is no alarm for it")
        for name, probability in sorted(most.items())
        if name not in ("NSR", "NECG")
    ]


def _speaks_for(weight: Weight) -> bool:
    return weight.value is not None and weight.rule.speaks_for(weight.value)
