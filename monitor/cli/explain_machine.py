"""The part of ``leadone alarms explain`` about devices and the gateway: what is looked at and seen.

No rule of the heart raises their alarms, and so none is shown: what they look at are durations,
shares and percentages of ``alerts.technical``, and the patience of ``alerts.gateway``.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from alerts import technical
from alerts.conditions import Alarm, Change
from alerts.gateway import is_gateways, patience_of
from alerts.technical import device_of, is_technical
from alerts.wording import what_of
from monitor.cli.explain_rows import window_json
from monitor.cli.times import iso, local
from monitor.explain import Explained, Verdict
from monitor.results import WindowResult
from monitor.storage.history import History
from monitor.wearing import OFF_SKIN
from monitor.window import Gap

_S = 1_000_000_000
_WHOLE_NS = 3600 * _S

# Windows of one grade that lie further apart are told one by one.
_APART_NS = 30 * _S


@dataclass(frozen=True, slots=True)
class Looked:
    """What one kind of alarm looks at.

    Attributes:
        numbers: its limits by name, in seconds unless the name says otherwise.
        line: the same for people.
        within_s: how much of the time before an alarm decides, in seconds; 0 if windows do not.
    """

    numbers: dict[str, float]
    line: str
    within_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Machine:
    """What there is to show of an alarm of a device or of the gateway.

    Attributes:
        alarm: which.
        looked: what is looked at.
        changes: what happened to it.
        windows: around it, by time: of the device; of all, for the gateway.
        gaps: likewise.
        verdicts: what to conclude.
    """

    alarm: Alarm
    looked: Looked
    changes: tuple[Change, ...]
    windows: tuple[WindowResult, ...]
    gaps: tuple[Gap, ...]
    verdicts: tuple[Verdict, ...]


def is_of_machine(alarm: Alarm) -> bool:
    """Whether an alarm is of a device or of the gateway, and of no heart."""
    return is_technical(alarm) or is_gateways(alarm)


def look_again(history: History, alarm: Alarm, spans: Sequence[tuple[int, int]]) -> Machine:
    """Gather what was seen around an alarm of a device or of the gateway.

    Args:
        history: where it was stored.
        alarm: which.
        spans: times to show, in UTC ns, in order; what lies between too, if all is within an hour.
    """
    looked = looks_at(alarm)
    patients = [alarm.patient]
    if is_gateways(alarm):
        patients = [patient.id for patient in history.patients()]
    since_ns, until_ns = spans[0][0], spans[-1][1]
    if until_ns - since_ns <= _WHOLE_NS:
        spans = [(since_ns, until_ns)]
    decisive_ns = alarm.raised_ns - round(looked.within_s * _S)
    windows = [
        window
        for patient in patients
        for window in history.windows(patient, min(since_ns, decisive_ns), until_ns)
        if _is_meant(alarm, window.stream.device)
    ]
    shown = [w for w in windows if any(start <= w.start_ns < end for start, end in spans)]
    gaps = [
        gap
        for patient in patients
        for gap in history.gaps(patient, since_ns, until_ns)
        if _is_meant(alarm, gap.stream.device)
        and any(gap.start_ns < end and gap.end_ns > start for start, end in spans)
    ]
    verdicts = []
    if looked.within_s:
        decisive = [w for w in windows if decisive_ns <= w.start_ns and w.end_ns <= alarm.raised_ns]
        verdicts.append(Verdict(alarm.condition, _summary(alarm, looked, decisive)))
    if alarm.ended_ns is None:
        verdicts.append(Verdict(alarm.condition, "it is still true"))
    changes = tuple(history.changes(alarm.id))
    return Machine(alarm, looked, changes, tuple(shown), tuple(gaps), tuple(verdicts))


def looks_at(alarm: Alarm) -> Looked:
    """What the alarms of this kind look at."""
    if is_gateways(alarm):
        wrong_s, right_s = patience_of(alarm.condition)
        begins = f"after {wrong_s:g} s of it" if wrong_s else "at once"
        over = f"after {right_s:g} s without" if right_s else "as soon as it ends"
        line = f"{what_of(alarm)}: raised {begins}; over {over}"
        return Looked({"wrong_s": wrong_s, "right_s": right_s}, line)
    return _OF_DEVICES[alarm.condition.partition(":")[0]]


_OF_DEVICES = {
    technical.SILENT: Looked(
        {"silent_s": technical.SILENT_S},
        f"no samples for {technical.SILENT_S:g} s; over when samples flow again",
        technical.SILENT_S,
    ),
    technical.OFF_SKIN: Looked(
        {"off_skin_s": technical.OFF_SKIN_S},
        f"windows that show electrodes off the skin ({', '.join(sorted(OFF_SKIN))}) for "
        f"{technical.OFF_SKIN_S:g} s, and no other between; over with the first good window",
        technical.OFF_SKIN_S,
    ),
    technical.UNREAD: Looked(
        {
            "unread_s": technical.UNREAD_S,
            "unread_share": technical.UNREAD_SHARE,
            "read_s": technical.READ_S,
            "read_share": technical.READ_SHARE,
        },
        f"good windows cover less than {technical.UNREAD_SHARE:.0%} of {technical.UNREAD_S:g} s in "
        "which the device is neither silent nor off the skin; over when they cover "
        f"{technical.READ_SHARE:.0%} of {technical.READ_S:g} s",
        technical.UNREAD_S,
    ),
    technical.BATTERY: Looked(
        {"low_percent": technical.LOW_BATTERY, "good_percent": technical.GOOD_BATTERY},
        f"battery at {technical.LOW_BATTERY} % or less, as the device says; over at "
        f"{technical.GOOD_BATTERY} % or more",
    ),
}


def _is_meant(alarm: Alarm, device: str) -> bool:
    return is_gateways(alarm) or device == device_of(alarm)


def _summary(alarm: Alarm, looked: Looked, windows: Sequence[WindowResult]) -> str:
    """What the windows of the time that decides were like."""
    before = f"in the {looked.within_s:g} s before it was raised {device_of(alarm)} gave"
    if not windows:
        return f"{before} no window"
    counts = Counter(map(_grade, windows))
    told = ", ".join(f"{count} {grade}" for grade, count in counts.most_common())
    return f"{before} {len(windows)} windows: {told}"


def _grade(window: WindowResult) -> str:
    return "good" if window.grade.good else " and ".join(window.grade.reasons)


def lines(machine: Machine) -> Iterator[str]:
    """The same for people, a line each; gaps and conclusions come after."""
    alarm = machine.alarm
    yield f"looks at: {alarm.condition}, {alarm.priority}: {machine.looked.line}"
    for change in machine.changes:
        yield f"{local(change.at_ns)}  {change.state}: {change.reason}"
    by_stream = sorted(machine.windows, key=lambda w: (str(w.stream), w.start_ns))
    for run in _runs(by_stream):
        begun, ended = local(run[0].start_ns), local(run[-1].end_ns)[11:]
        count = f"{len(run)} window" + "s" * (len(run) > 1)
        yield f"seen: {run[0].stream}, {begun} to {ended}: {_grade(run[0])} ({count})"


def _runs(windows: Sequence[WindowResult]) -> Iterator[list[WindowResult]]:
    """Windows of one device and grade that follow on each other."""
    run: list[WindowResult] = []
    for window in windows:
        if run and (
            (window.stream, _grade(window)) != (run[-1].stream, _grade(run[-1]))
            or window.start_ns - run[-1].end_ns > _APART_NS
        ):
            yield run
            run = []
        run.append(window)
    if run:
        yield run


def rows(machine: Machine) -> Iterator[dict[str, Any]]:
    """The same for tools; gaps and conclusions come after."""
    alarm = machine.alarm
    yield {"looks_at": alarm.condition, "priority": alarm.priority.value, **machine.looked.numbers}
    for change in machine.changes:
        yield {"change": change.state.value, "at": iso(change.at_ns), "reason": change.reason}
    for window in machine.windows:
        row = window_json(Explained(window, (), (), frozenset()))
        for of_rules in ("evidence", "on", "changes"):
            del row[of_rules]
        yield {"patient": window.stream.patient} | row
