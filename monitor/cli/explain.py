"""``leadone alarms explain``: what led to an alarm, or why there was none."""

import itertools
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from alerts.conditions import Alarm, State
from alerts.engine import MEMORY, Weight
from alerts.lethal import is_of_rhythm
from alerts.policy import PauseRule, Policy, RateRule, Rule
from alerts.records import Pause
from models.bundle import Bundle, BundleError
from monitor import irregularity
from monitor.cli.alarms import brief, class_names, find_alarm
from monitor.cli.errors import CommandError, MisuseError
from monitor.cli.explain_machine import Machine, is_of_machine, lines, look_again
from monitor.cli.explain_machine import rows as machine_rows
from monitor.cli.explain_rhythm import Signal, hear_alarm, hear_time, print_people, rows
from monitor.cli.explain_rows import alarm_json, gap_json, rule_json, window_json
from monitor.cli.rows import print_row
from monitor.cli.times import LAST_NS, local, moment_ns
from monitor.config import Config, load_config
from monitor.explain import Explained, Verdict, rule_line, run_again, verdicts
from monitor.policies import build_policies
from monitor.service import bundle_or_why_none
from monitor.storage.history import History
from monitor.window import Gap

_S = 1_000_000_000

_NOBODY = Verdict(None, "nobody is told of any alarm: alarms.contacts is empty")

# What is shown around a moment: the evidence for most rules, and what came of it.
_BEFORE_NS = 120 * _S
_AFTER_NS = 60 * _S

# A run of windows of which each says the same as the one before is one line in a table.
_ALIKE = 3


@dataclass(frozen=True, slots=True)
class _Question:
    """What is asked.

    Attributes:
        patient: about whom.
        spans: the times to show, in UTC ns: of windows that start in them.
        alarm: about which alarm; None: about all there could have been.
    """

    patient: str
    spans: tuple[tuple[int, int], ...]
    alarm: Alarm | None = None


@dataclass(frozen=True, slots=True)
class _Found:
    """What there is to show.

    Attributes:
        rules: those asked about.
        windows: by time.
        gaps: without samples.
        alarms: that were stored of this time.
        pauses: in which nobody was told.
        verdicts: what to conclude.
        signal: heard again, of an alarm that the watch for lethal rhythms raised.
        machine: seen around an alarm of a device or of the gateway; there are no windows then.
    """

    rules: tuple[Rule, ...]
    windows: list[Explained]
    gaps: list[Gap]
    alarms: list[Alarm]
    pauses: list[Pause]
    verdicts: list[Verdict]
    signal: Signal | None = None
    machine: Machine | None = None


def explain(path: Path, about: str, at: str | None, since: str | None, *, json_lines: bool) -> None:
    """Print windows, rules and conclusions about an alarm, or a time of a patient.

    Args:
        path: the configuration.
        about: a patient, or the beginning of an alarm's id.
        at: around when; by default now.
        since: from when, to the end.
        json_lines: print JSON.

    Raises:
        CommandError: ``about`` is neither.
        MisuseError: times are given for an alarm, or two of them.
    """
    config = load_config(path)
    if at is not None and since is not None:
        raise MisuseError("give --at or --since, not both")
    with History(config.database.get_secret_value()) as history:
        question = _question(config, history, about, at, since)
        found = _find(config, history, question)
    if json_lines:
        _print_json(found)
    else:
        _print_people(config, question, found)


def _question(
    config: Config, history: History, about: str, at: str | None, since: str | None
) -> _Question:
    stored = {patient.id for patient in history.patients()}
    if about in stored | {patient.id for patient in config.patients}:
        if since is not None:
            return _Question(about, ((moment_ns(since, "--since"), LAST_NS),))
        at_ns = time.time_ns() if at is None else moment_ns(at, "--at")
        return _Question(about, ((at_ns - _BEFORE_NS, at_ns + _AFTER_NS),))
    try:
        alarm = find_alarm(history, about)
    except CommandError as error:
        raise type(error)(f"{about!r} is no patient, and {error}") from None
    if at is not None or since is not None:
        raise MisuseError("--at and --since are for patients: an alarm has its own time")
    raised = (
        min(alarm.started_ns, alarm.raised_ns - _BEFORE_NS) - _BEFORE_NS // 4,
        alarm.raised_ns,
    )
    if alarm.ended_ns is None:
        return _Question(alarm.patient, (raised,), alarm)
    ended = (max(alarm.ended_ns - _BEFORE_NS, raised[1]), alarm.ended_ns)
    return _Question(alarm.patient, (raised, ended), alarm)


def _find(config: Config, history: History, question: _Question) -> _Found:
    if question.alarm is not None and is_of_machine(question.alarm):
        return _find_of_machine(config, history, question, question.alarm)
    bundle = bundle_or_why_none(config)
    usable = bundle if isinstance(bundle, Bundle) else None
    policy = build_policies(config, usable)(question.patient)
    patient, about = question.patient, question.alarm
    since_ns, until_ns = question.spans[0][0], question.spans[-1][1]
    of_time = history.alarms(patient, since_ns, until_ns)
    windows = [
        one
        for one in _windows(history, question, policy, of_time, config.window.hop)
        if any(start <= one.result.start_ns < end for start, end in question.spans)
    ]
    gaps = [
        gap
        for gap in history.gaps(patient, since_ns, until_ns)
        if any(gap.start_ns < end and gap.end_ns > start for start, end in question.spans)
    ]
    signal = None
    configured = next((p for p in config.patients if p.id == patient), None)
    if about is None:
        rules = policy.rules
        thresholds = {**(usable.thresholds if usable else {}), **irregularity.THRESHOLDS}
        concluded = verdicts(windows, policy, configured, thresholds)
        concluded += hear_time(history, patient, since_ns, min(until_ns, time.time_ns()))
        alarms = of_time
        for alarm in alarms:
            if alarm.raised_ns > since_ns:
                concluded += _about_alarm(alarm, _rules_of(alarm, policy), windows)[:1]
    else:
        rules = _rules_of(about, policy)
        alarms = [about]
        if is_of_rhythm(about):
            signal = hear_alarm(history, about)
            concluded = [*signal.verdicts]
        else:
            concluded = _about_alarm(about, rules, windows)
    pauses = _pauses(history, question)
    concluded += [_paused(pause) for pause in pauses]
    if isinstance(bundle, BundleError):
        concluded.append(Verdict(None, f"nothing can be said of the model's classes: {bundle}"))
    if not config.alarms.contacts:
        concluded.append(_NOBODY)
    return _Found(rules, windows, gaps, alarms, pauses, concluded, signal)


def _find_of_machine(config: Config, history: History, question: _Question, alarm: Alarm) -> _Found:
    """What there is to show of an alarm that no rule of the heart has raised."""
    machine = look_again(history, alarm, question.spans)
    pauses = _pauses(history, question)
    concluded = [*machine.verdicts, *map(_paused, pauses)]
    if not config.alarms.contacts:
        concluded.append(_NOBODY)
    return _Found((), [], [*machine.gaps], [alarm], pauses, concluded, machine=machine)


def _pauses(history: History, question: _Question) -> list[Pause]:
    """Those of the patient that reach into the time, and cover the alarm if it is about one."""
    since_ns, until_ns = question.spans[0][0], question.spans[-1][1]
    return [
        pause
        for pause in history.pauses(since_ns)
        if pause.patient == question.patient
        and pause.from_ns < until_ns
        and (pause.until_ns if pause.ended_ns is None else pause.ended_ns) > since_ns
        and (question.alarm is None or pause.covers(question.alarm))
    ]


def _paused(pause: Pause) -> Verdict:
    return Verdict(
        pause.kind,
        f"alarms were recorded and nobody was told: paused by {pause.by} from "
        f"{local(pause.from_ns)} to {local(pause.ended_ns or pause.until_ns)}",
    )


def _rules_of(alarm: Alarm, policy: Policy) -> tuple[Rule, ...]:
    return tuple(rule for rule in policy.rules if rule.condition == alarm.condition)


def _windows(
    history: History, question: _Question, policy: Policy, alarms: Iterable[Alarm], hop_s: float
) -> Iterator[Explained]:
    since_ns, until_ns = question.spans[0][0], question.spans[-1][1]
    before_ns = since_ns - round(MEMORY * hop_s * _S)
    # By when they were raised: what was raised by the first window is to be raised once more.
    active = {a.condition: a for a in alarms if a.raised_ns <= since_ns}
    return run_again(
        question.patient,
        policy,
        history.windows(question.patient, since_ns, until_ns),
        before=history.windows(question.patient, before_ns, since_ns),
        active=active.values(),
    )


def _about_alarm(
    alarm: Alarm, rules: Sequence[Rule], windows: Sequence[Explained]
) -> list[Verdict]:
    """Whether the rules, run again, come to the same."""
    if is_of_rhythm(alarm):
        why = f"raised by the watch for lethal rhythms: leadone alarms explain {alarm.id[:8]}"
        return [Verdict(alarm.condition, why)]
    if is_of_machine(alarm):
        why = f"comes of no rule of the heart: leadone alarms explain {alarm.id[:8]}"
        return [Verdict(alarm.condition, why)]
    if not rules:
        why = "no rule raises it any more: the configuration or the model has changed since"
        return [Verdict(alarm.condition, why)]
    found = []
    changes = [c for one in windows for c in one.changes if c.alarm.condition == alarm.condition]
    raised = [c.at_ns for c in changes if c.state is State.ACTIVE]
    if alarm.raised_ns in raised:
        found.append(Verdict(alarm.condition, "raised by the rule, run again, at the same window"))
    elif isinstance(rules[0], PauseRule):
        found.append(Verdict(alarm.condition, "seen while it lasted, ahead of the windows"))
    elif raised:
        found.append(
            Verdict(
                alarm.condition,
                f"raised by the rule of today, run again, at {local(raised[0])}: rules or the "
                "order of windows were others then",
            )
        )
    else:
        found.append(
            Verdict(
                alarm.condition,
                "not raised by the rule of today, run again: rules, model or the order of windows "
                "were others then",
            )
        )
    if alarm.ended_ns is None:
        return [*found, Verdict(alarm.condition, "it is still true")]
    if alarm.ended_ns in (c.at_ns for c in changes if c.state is State.ENDED):
        found.append(Verdict(alarm.condition, "ended by the rule, run again, at the same window"))
    return found


# For people.


def _print_people(config: Config, question: _Question, found: _Found) -> None:
    console = Console(markup=False, highlight=False)
    names = class_names(config)
    for alarm in found.alarms:
        end = "is still on" if alarm.ended_ns is None else f"ended {local(alarm.ended_ns)}"
        _line(f"{brief(alarm, names)}: raised {local(alarm.raised_ns)}, {end}")
    for rule in found.rules:
        _line(f"rule: {rule_line(rule, config.window.hop)}")
    if found.windows:
        only = None if question.alarm is None else question.alarm.condition
        console.print(_table(question.patient, found, only))
    for line in lines(found.machine) if found.machine is not None else ():
        _line(line)
    if found.signal is not None:
        print_people(console, found.signal)
    for gap in found.gaps:
        _line(
            f"gap: {local(gap.start_ns)} to {local(gap.end_ns)}: {gap.cause} ({gap.stream.device})"
        )
    if question.alarm is None and not found.alarms:
        _line("no alarm:")
    for verdict in found.verdicts:
        _line(f"  {verdict.condition or question.patient}: {verdict.why}")


def _table(patient: str, found: _Found, only: str | None) -> Table:
    table = Table(title=f"{patient}, {local(found.windows[0].result.start_ns)[:10]}")
    table.add_column("window", no_wrap=True)
    table.add_column("signal")
    table.add_column("/min", justify="right", no_wrap=True)
    table.add_column("longest RR", justify="right", no_wrap=True)
    table.add_column("what speaks for it: value, windows for / against / of the last")
    for _, run in itertools.groupby(found.windows, key=_alike if only is None else _itself):
        some = list(run)
        shown = some if len(some) <= _ALIKE else some[:1]
        for one in shown:
            _add(table, one, only)
        if len(shown) < len(some):
            table.add_row("…", f"{len(some) - len(shown)} more like it")
    return table


def _alike(one: Explained) -> object:
    """The same for windows of which nothing is to be told that the first one does not tell."""
    if one.changes or one.speaking or one.on:
        return _itself(one)
    return one.result.grade


def _itself(one: Explained) -> object:
    return one.result.stream, one.result.start_ns


def _add(table: Table, one: Explained, only: str | None) -> None:
    result = one.result
    shown = [
        weight
        for weight in one.weights
        if (weight.rule.condition == only if only else _is_telling(weight, one))
    ]
    lines = [_weight_line(weight) for weight in shown]
    lines += [
        f"{'RAISED' if c.state is State.ACTIVE else 'ENDED'}: {c.reason}"
        for c in one.changes
        if only in (None, c.alarm.condition)
    ]
    table.add_row(
        local(result.start_ns)[11:],
        "good" if result.grade.good else ", ".join(result.grade.reasons),
        "--" if result.heart_rate is None else f"{result.heart_rate:.0f}",
        "--" if result.longest_rr_s is None else f"{result.longest_rr_s:.1f} s",
        "\n".join(lines),
    )


def _is_telling(weight: Weight, one: Explained) -> bool:
    return weight.speaking_for > 0 or weight.rule.condition in one.on


def _weight_line(weight: Weight) -> str:
    value = "--" if weight.value is None else _value(weight.rule, weight.value)
    return (
        f"{weight.rule.condition} {value}, {weight.speaking_for} / {weight.speaking_against} / "
        f"{weight.of}"
    )


def _value(rule: Rule, value: float) -> str:
    match rule:
        case RateRule():
            return f"{value:.0f}"
        case PauseRule():
            return f"{value:.1f} s"
    return f"{value:.2f}"


# For tools.


def _print_json(found: _Found) -> None:
    for rule in found.rules:
        print_row(rule_json(rule))
    for row in machine_rows(found.machine) if found.machine is not None else ():
        print_row(row)
    by_time = [(one.result.start_ns, window_json(one)) for one in found.windows]
    by_time += [(gap.start_ns, gap_json(gap)) for gap in found.gaps]
    for _, row in sorted(by_time, key=lambda pair: pair[0]):
        print_row(row)
    for verdict_row in rows(found.signal) if found.signal is not None else ():
        print_row(verdict_row)
    for alarm in found.alarms:
        print_row(alarm_json(alarm))
    for verdict in found.verdicts:
        print_row({"condition": verdict.condition, "why": verdict.why})


def _line(text: str) -> None:
    sys.stdout.write(text + "\n")
