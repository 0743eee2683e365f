"""``leadone alarms list`` and ``show``: what people are being told, and all that came of it."""

import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from alerts.conditions import Alarm, Change
from alerts.ledger import ALL_ALARMS
from alerts.records import Notification, Pause, Presence, Signal
from alerts.wording import what_of
from models.bundle import BundleError
from monitor.cli.errors import CommandError, MisuseError
from monitor.cli.patient import require_stored
from monitor.cli.rows import print_row
from monitor.cli.times import LAST_NS, iso, local, moment_ns, span
from monitor.config import Config, load_config
from monitor.service import open_bundle
from monitor.storage.history import History
from monitor.storage.records import Delivery

_SHOWN = 8
"""So many characters of an id are shown, which is enough to tell alarms apart for a lifetime."""

_FEWEST = 4


def show_alarms(path: Path, patient: str | None, since: str, *, json_lines: bool) -> None:
    """Print the pauses, the alarms people are being told of, then those that ended lately.

    Raises:
        CommandError: nothing is stored of ``patient``.
    """
    config = load_config(path)
    since_ns = moment_ns(since, "--since")
    now_ns = time.time_ns()
    with History(config.database.get_secret_value()) as history:
        known = [p.id for p in history.patients()]
        wanted = known if patient is None else [require_stored(patient, known)]
        signals = {s.alarm.id: s for s in history.signals() if s.alarm.patient in wanted}
        lately = [a for one in wanted for a in history.alarms(one, since_ns, LAST_NS)]
        # What nobody has answered is shown however long ago it ended.
        alarms = {a.id: a for a in lately} | {
            id_: s.alarm for id_, s in signals.items() if s.presence is not Presence.OFF
        }
        on: list[Alarm] = []
        ended: list[Alarm] = []
        for alarm in sorted(alarms.values(), key=lambda alarm: alarm.started_ns):
            signal = signals.get(alarm.id)
            (on if _is_on(alarm, signal) else ended).append(alarm)
        pauses = [p for p in _going_on(history.pauses(now_ns), now_ns) if p.patient in wanted]
        rows = [
            (alarm, signals.get(alarm.id), history.changes(alarm.id)) for alarm in (*on, *ended)
        ]
    if json_lines:
        for pause in pauses:
            print_row(_pause_json(pause))
        for alarm, signal, changes in rows:
            print_row(_json(alarm, signal, changes, pauses))
        return
    for pause in pauses:
        _print(f"paused until {local(pause.until_ns)} by {pause.by}: {_of(pause)}")
    names = class_names(config)
    for alarm, signal, changes in rows:
        _print(_headline(alarm, signal, names, now_ns))
        for line in (*_state_lines(alarm, signal, pauses), *_change_lines(changes)):
            _print(f"    {line}")
    if not rows:
        _print("no alarms in this time")


def show_alarm(path: Path, prefix: str, *, json_lines: bool) -> None:
    """Print everything of one alarm: changes, who did what, who was told and how.

    Raises:
        CommandError: no alarm's id begins with ``prefix``, or more than one's does.
    """
    config = load_config(path)
    now_ns = time.time_ns()
    with History(config.database.get_secret_value()) as history:
        alarm = find_alarm(history, prefix)
        signal = history.signal(alarm.id)
        changes = history.changes(alarm.id)
        audit = history.audit(alarm.id)
        told = _by_notification(history.deliveries(alarm.id))
        pauses = _going_on(history.pauses(now_ns), now_ns)
    if json_lines:
        print_row(
            _json(alarm, signal, changes, pauses)
            | {
                "audit": [
                    {"at": iso(a.at_ns), "what": a.what, "by": a.by, "detail": a.detail}
                    for a in audit
                ],
                "notifications": [_notification_json(*one) for one in told],
            }
        )
        return
    _print(_headline(alarm, signal, class_names(config), now_ns))
    _print(f"    id {alarm.id}")
    for line in (*_state_lines(alarm, signal, pauses), *_change_lines(changes)):
        _print(f"    {line}")
    _print("what was done:" if audit else "nothing was done about it")
    for entry in audit:
        by = "" if entry.by is None else f" by {entry.by}"
        _print(f"    {local(entry.at_ns)}  {entry.what}{by}: {entry.detail}")
    _print("who was told:" if told else "nobody was to be told")
    for notification, state, deliveries in told:
        _print(
            f"    {local(notification.due_ns)}  {notification.kind.replace('_', ' ')}: "
            f"{notification.contact}: {state}"
        )
        for delivery in deliveries:
            _print(f"        {_delivery_line(delivery)}")


def find_alarm(history: History, prefix: str) -> Alarm:
    """The alarm with an id that begins like this.

    Raises:
        MisuseError: ``prefix`` is too short to mean one.
        CommandError: there is none, or more than one.
    """
    return only_one(history.find_alarms(beginning(prefix)), prefix)


def beginning(prefix: str) -> str:
    """How the id of an alarm begins, as somebody typed it.

    Raises:
        MisuseError: it is too short to mean one.
    """
    wanted = prefix.strip().lower()
    if len(wanted) < _FEWEST:
        raise MisuseError(
            f"{prefix!r} is too short: give {_FEWEST} or more characters of an alarm's id"
        )
    return wanted


def only_one(found: Sequence[Alarm], prefix: str) -> Alarm:
    """The alarm that was meant by how its id begins.

    Raises:
        CommandError: there is none, or more than one.
    """
    if not found:
        raise CommandError(
            f"no alarm has an id that begins with {prefix!r}; leadone alarms list shows them"
        )
    if len(found) > 1:
        some = ", ".join(alarm.id for alarm in found[:3])
        more = ", …" if len(found) > 3 else ""
        raise CommandError(f"{len(found)} alarms have ids that begin with {prefix!r}: {some}{more}")
    return found[0]


def class_names(config: Config) -> dict[str, str]:
    """Plain names by class abbreviation; none where the bundle cannot be used."""
    try:
        return open_bundle(config).class_names
    except BundleError:
        # That must keep nobody from seeing what is on.
        return {}


def brief(alarm: Alarm, names: Mapping[str, str]) -> str:
    """An alarm in a few words, e.g. ``3f2a9c1d grandpa: heart paused (pause)``."""
    return f"{alarm.id[:_SHOWN]} {alarm.patient}: {what_of(alarm, names)} ({alarm.condition})"


def _is_on(alarm: Alarm, signal: Signal | None) -> bool:
    # Beside a daemon that tells people, a replay only records: its alarms have no signal.
    return alarm.ended_ns is None if signal is None else signal.presence is not Presence.OFF


def _going_on(pauses: Iterable[Pause], now_ns: int) -> list[Pause]:
    return [p for p in pauses if p.ended_ns is None and p.until_ns > now_ns]


def _headline(alarm: Alarm, signal: Signal | None, names: Mapping[str, str], now_ns: int) -> str:
    if alarm.ended_ns is None:
        lasts = span(max(now_ns - alarm.started_ns, 0) / 1e9)
        when = f"since {local(alarm.started_ns)}, for {lasts}"
    else:
        when = f"{local(alarm.started_ns)} to {local(alarm.ended_ns)}"
    return f"{_state(alarm, signal)}  {alarm.priority}  {brief(alarm, names)}  {when}"


def _state(alarm: Alarm, signal: Signal | None) -> str:
    if signal is not None and signal.presence is not Presence.OFF:
        return signal.presence.upper()
    return "over" if alarm.ended_ns is not None else "not told"


def _state_lines(alarm: Alarm, signal: Signal | None, pauses: Sequence[Pause]) -> Iterable[str]:
    if signal is not None:
        if signal.presence is Presence.LATCHED:
            yield "it is over, and nobody has answered: acknowledge it"
        if signal.acknowledged_by is not None and signal.acknowledged_ns is not None:
            yield f"{local(signal.acknowledged_ns)}  acknowledged by {signal.acknowledged_by}"
        if signal.snoozed_until_ns is not None:
            yield f"snoozed until {local(signal.snoozed_until_ns)}"
        if signal.signal_lost and alarm.ended_ns is None:
            yield "the signal is lost: nobody can see whether it goes on"
        if signal.bout_count > 1:
            times, first = signal.bout_count, local(signal.bout_started_ns)
            yield f"number {times} of one bout, which began {first}"
    until_ns = _paused_until(alarm, signal, pauses)
    if until_ns is not None:
        yield f"paused until {local(until_ns)}: nobody is told"


def _change_lines(changes: Iterable[Change]) -> Iterable[str]:
    return (f"{local(c.at_ns)}  {c.state}: {c.reason}" for c in changes)


def _delivery_line(delivery: Delivery) -> str:
    tries = "" if delivery.attempts <= 1 else f", {delivery.attempts} tries"
    why = "" if delivery.error is None else f": {delivery.error}"
    return f"{local(delivery.at_ns)}  {delivery.channel}: {delivery.state}{tries}{why}"


def _paused_until(alarm: Alarm, signal: Signal | None, pauses: Sequence[Pause]) -> int | None:
    if not _is_on(alarm, signal):
        return None
    return max((p.until_ns for p in pauses if p.covers(alarm)), default=None)


def _by_notification(
    rows: Iterable[tuple[Notification, str, Delivery | None]],
) -> list[tuple[Notification, str, list[Delivery]]]:
    """Each notification once, with what became of it on each channel."""
    found: dict[str, tuple[Notification, str, list[Delivery]]] = {}
    for notification, state, delivery in rows:
        deliveries = found.setdefault(notification.key, (notification, state, []))[2]
        if delivery is not None:
            deliveries.append(delivery)
    return list(found.values())


def _json(
    alarm: Alarm, signal: Signal | None, changes: Iterable[Change], pauses: Sequence[Pause]
) -> dict[str, Any]:
    return {
        "id": alarm.id,
        "patient": alarm.patient,
        "condition": alarm.condition,
        "priority": alarm.priority.value,
        "state": alarm.state.value,
        "started": iso(alarm.started_ns),
        "raised": iso(alarm.raised_ns),
        "ended": _iso(alarm.ended_ns),
        "changes": [{"at": iso(c.at_ns), "state": c.state, "reason": c.reason} for c in changes],
        "presence": None if signal is None else signal.presence.value,
        "acknowledged_by": None if signal is None else signal.acknowledged_by,
        "acknowledged": None if signal is None else _iso(signal.acknowledged_ns),
        "snoozed_until": None if signal is None else _iso(signal.snoozed_until_ns),
        "paused_until": _iso(_paused_until(alarm, signal, pauses)),
        "signal_lost": signal is not None and signal.signal_lost,
        "bout": None if signal is None else signal.bout,
        "bout_count": None if signal is None else signal.bout_count,
    }


def _pause_json(pause: Pause) -> dict[str, Any]:
    return {
        "paused": pause.patient,
        "kind": pause.kind,
        "from": iso(pause.from_ns),
        "until": iso(pause.until_ns),
        "by": pause.by,
    }


def _notification_json(
    notification: Notification, state: str, deliveries: Iterable[Delivery]
) -> dict[str, Any]:
    return {
        "key": notification.key,
        "kind": notification.kind.value,
        "contact": notification.contact,
        "due": iso(notification.due_ns),
        "state": state,
        "deliveries": [
            {
                "channel": d.channel,
                "state": d.state,
                "attempts": d.attempts,
                "at": iso(d.at_ns),
                "error": d.error,
            }
            for d in deliveries
        ],
    }


def _of(pause: Pause) -> str:
    return f"{pause.patient}, {pause.kind or ALL_ALARMS}"


def _iso(ns: int | None) -> str | None:
    return None if ns is None else iso(ns)


def _print(line: str) -> None:
    # What a broker or a mail server said must not steer the terminal.
    sys.stdout.write("".join(c if c.isprintable() else " " for c in line) + "\n")
