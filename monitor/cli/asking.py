"""``leadone alarms ack``, ``snooze``, ``pause`` and ``resume``: what people ask of the daemon.

It owns the alarms, and answers at once by its socket, whatever the state of the database. Where it
does not, what is asked is stored, and done when it runs again.
"""

import getpass
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alerts.conditions import Alarm, Priority
from alerts.gateway import (
    BEHIND,
    CHANNEL,
    CLOCK,
    DATABASE,
    DISK,
    GATEWAY,
    MODEL,
    RHYTHM_MODEL,
    STALLED,
)
from alerts.ledger import ALL_ALARMS
from alerts.lethal import UNSEEN
from alerts.records import Presence
from alerts.rhythm import LETHAL, is_lethal
from alerts.signals import LETHAL_ANSWER_S, MAX_SILENCE_S
from alerts.technical import BATTERY, OFF_SKIN, SILENT, UNREAD
from models.bundle import Bundle
from monitor.cli.alarms import beginning, brief, class_names, find_alarm, only_one
from monitor.cli.daemon_client import NoAnswerError, NotRunningError, ask, status_of
from monitor.cli.errors import CommandError, MisuseError
from monitor.cli.times import local, seconds
from monitor.config import Config, load_config
from monitor.policies import build_policies
from monitor.service import bundle_or_why_none
from monitor.storage.database import DatabaseError
from monitor.storage.history import History
from monitor.storage.records import Request
from monitor.storage.writer import Writer

# The daemon looks once a second, and stores its answer with what it did.
_ANSWER_S = 5.0
_LOOK_S = 0.05

# A database that another process keeps to itself for longer is not coming back by waiting.
_STORE_S = 10.0

_LONGEST_NAME = 100
_FAILED = "failed: "
_UNANSWERED = Presence.ON, Presence.LATCHED


def acknowledge(
    path: Path, ids: Sequence[str], patient: str | None, by: str | None, *, everything: bool
) -> None:
    """Answer alarms, each by the beginning of its id, or all of a patient's, or all there are.

    Raises:
        MisuseError: it is not exactly one of these.
        CommandError: an alarm is unknown or off, or the daemon does not answer.
    """
    if sum((bool(ids), patient is not None, everything)) != 1:
        raise MisuseError("name alarms by their ids, or give --patient, or --all: one of these")
    asker = _asker(by)
    config = load_config(path)
    if patient is not None:
        _require(config, patient)
    on = _on(config)
    if ids:
        chosen = _chosen(config, on, ids)
    else:
        unanswered = [s for s in on if s.presence in _UNANSWERED]
        chosen = [s for s in unanswered if patient in (None, s.alarm.patient)]
    if not chosen:
        _print("no alarm waits for an answer")
        return
    requests = [("ack", {"alarms": [signal.alarm.id]}) for signal in chosen]
    answers = _ask(config, requests, asker)
    _report(config, [(signal.alarm, "acknowledged") for signal in chosen], answers)
    _warn(chosen)


def snooze(path: Path, ids: Sequence[str], duration: str, by: str | None) -> None:
    """Answer alarms for a time: what is still true then comes on again.

    Raises:
        MisuseError: ``duration`` is none, or over a day.
        CommandError: an alarm is unknown or off, or the daemon does not answer.
    """
    lasts_s = _silence(duration)
    asker = _asker(by)
    config = load_config(path)
    chosen = _chosen(config, _on(config), ids)
    until = local(time.time_ns() + round(lasts_s * 1e9))
    requests = [("snooze", {"alarms": [signal.alarm.id], "seconds": lasts_s}) for signal in chosen]
    answers = _ask(config, requests, asker)
    # Over already, there is nothing that could come on again.
    done = {Presence.LATCHED: "acknowledged, for it is over"}
    said = [(s.alarm, done.get(s.presence, f"snoozed until {until}")) for s in chosen]
    _report(config, said, answers)
    _warn(chosen)


def pause(path: Path, patient: str, kind: str | None, duration: str, by: str | None) -> None:
    """Have nobody told of a patient's alarms, or those of one kind, for a time.

    Raises:
        MisuseError: ``duration`` is none or over a day, or no alarm is of this kind.
        CommandError: there is no such patient, or the daemon does not answer.
    """
    lasts_s = _silence(duration)
    asker = _asker(by)
    config = load_config(path)
    _require(config, patient)
    if kind is not None:
        _require_kind(config, patient, kind)
    request = ("pause", {"patient": patient, "kind": kind, "seconds": lasts_s})
    until = local(time.time_ns() + round(lasts_s * 1e9))
    (answer,) = _ask(config, [request], asker)
    _done(answer)
    _print(
        f"paused until {until}: {patient}, {kind or ALL_ALARMS}; "
        "they are recorded, and nobody is told"
    )
    if kind is None and patient != GATEWAY:
        _print(f"{', '.join(LETHAL)} are told all the same: only a pause of one by --kind holds it")


def resume(path: Path, patient: str, by: str | None) -> None:
    """End all pauses of a patient; what is on by now is told.

    Raises:
        CommandError: there is no such patient or no pause, or the daemon does not answer.
    """
    asker = _asker(by)
    config = load_config(path)
    _require(config, patient)
    (answer,) = _ask(config, [("resume", {"patient": patient})], asker)
    _done(answer)
    _print(f"{patient}: people are told of alarms again")


@dataclass(frozen=True, slots=True)
class _On:
    """An alarm that people are told of, or that somebody has answered."""

    alarm: Alarm
    presence: Presence


def _on(config: Config) -> list[_On]:
    """The alarms that are on: as the daemon knows them, or else as they are stored.

    Raises:
        CommandError: the daemon refuses to say; or none answers, and the database cannot be read.
    """
    url = config.database.get_secret_value()
    try:
        return [_on_from(row) for row in status_of(url)["alarms"]]
    except (NotRunningError, NoAnswerError) as no_daemon:
        try:
            with History(url) as history:
                stored = history.signals(*_UNANSWERED, Presence.ACKNOWLEDGED)
        except DatabaseError as error:
            raise CommandError(f"{error}\n{no_daemon}") from None
        return [_On(signal.alarm, signal.presence) for signal in stored]


def _on_from(row: dict[str, Any]) -> _On:
    alarm = Alarm(
        row["id"],
        row["patient"],
        row["condition"],
        Priority(row["priority"]),
        row["started_ns"],
        row["raised_ns"],
        row["ended_ns"],
    )
    return _On(alarm, Presence(row["presence"]))


def _ask(config: Config, requests: Sequence[tuple[str, dict[str, Any]]], by: str) -> list[str]:
    """Ask the daemon itself; or else by way of the database. Its answers, in their order.

    Raises:
        CommandError: it refuses, or not all of the answers came in time.
        DatabaseError: no daemon answers, and the database takes no requests.
    """
    url = config.database.get_secret_value()
    answers: list[str] = []
    try:
        for what, arguments in requests:
            asked = ask(url, {"ask": what, "arguments": arguments, "by": by})
            answers.append(str(asked["answer"]))
    except (NotRunningError, NoAnswerError):
        # Over a network a daemon on another machine may have the same database.
        return answers + _ask_stored(url, requests[len(answers) :], by)
    return answers


def _ask_stored(url: str, requests: Sequence[tuple[str, dict[str, Any]]], by: str) -> list[str]:
    """Store requests, and wait for the daemon's answers, in their order.

    Raises:
        CommandError: not all of them came in time.
        DatabaseError: the database takes no requests.
    """
    now_ns = time.time_ns()
    records = [
        # The daemon's answer is found by who asked, and when.
        Request(what, arguments, by, now_ns + i)
        for i, (what, arguments) in enumerate(requests)
    ]
    writer = Writer(url)
    writer.start()
    stored = writer.submit(*records)
    writer.stop(_STORE_S)
    stored.result()
    answers: list[str] = []
    deadline_s = time.monotonic() + _ANSWER_S
    with History(url) as history:
        while len(answers) < len(records):
            answer = history.answer(records[len(answers)].at_ns, by)
            if answer is not None:
                answers.append(answer)
            elif time.monotonic() >= deadline_s:
                raise CommandError(
                    "leadone is not running here, or hangs: it will be done when it starts again"
                    + (", if its time is not over by then" if "seconds" in requests[0][1] else "")
                )
            else:
                time.sleep(_LOOK_S)
    return answers


def _report(config: Config, said: Sequence[tuple[Alarm, str]], answers: Sequence[str]) -> None:
    names = class_names(config)
    failed = []
    for (alarm, done), answer in zip(said, answers, strict=True):
        if answer.startswith(_FAILED):
            failed.append(f"{brief(alarm, names)}: {answer.removeprefix(_FAILED)}")
        else:
            _print(f"{done}: {brief(alarm, names)}")
    if failed:
        raise CommandError("\n".join(failed))


def _warn(answered: Sequence[_On]) -> None:
    """Say how long an answer to a lethal rhythm holds."""
    lethal = [s for s in answered if is_lethal(s.alarm.condition) and s.alarm.ended_ns is None]
    if lethal:
        _print(f"it comes on again in {LETHAL_ANSWER_S / 60:g} minutes if the rhythm still lasts")


def _done(answer: str) -> None:
    if answer.startswith(_FAILED):
        raise CommandError(answer.removeprefix(_FAILED))


def _chosen(config: Config, on: Sequence[_On], ids: Sequence[str]) -> list[_On]:
    """The alarms that are meant, each once; all of them must be on."""
    chosen: dict[str, _On] = {}
    for prefix in ids:
        wanted = beginning(prefix)
        found = {one.alarm.id: one for one in on if one.alarm.id.startswith(wanted)}
        if not found:
            raise CommandError(_why_not_on(config, prefix))
        alarm = only_one([one.alarm for one in found.values()], prefix)
        chosen[alarm.id] = found[alarm.id]
    return list(chosen.values())


def _why_not_on(config: Config, prefix: str) -> str:
    """Why no alarm that is on has such an id: it is off, or there never was one."""
    try:
        with History(config.database.get_secret_value()) as history:
            alarm = find_alarm(history, prefix)
    except DatabaseError:
        return f"no alarm that is on has an id that begins with {prefix!r}"
    return (
        f"{prefix}: that alarm ({alarm.patient}, {alarm.condition}) is off: "
        "there is nothing to answer"
    )


def _silence(duration: str) -> float:
    lasts_s = seconds(duration, "--for")
    if not 0 < lasts_s <= MAX_SILENCE_S:
        raise MisuseError(
            f"--for: must be over 0 and at most {MAX_SILENCE_S // 3600}h, not {duration}: "
            "an alarm that is silenced for longer is forgotten"
        )
    return lasts_s


def _asker(by: str | None) -> str:
    """Who asks: as given, or who is logged in; never nobody, as it goes on record."""
    if by is None:
        try:
            by = os.environ.get("SUDO_USER") or getpass.getuser()
        except (KeyError, OSError):
            # A container may run as a number that no account has.
            by = f"user {os.getuid()}"
    name = " ".join("".join(c if c.isprintable() else " " for c in by).split())
    if not 0 < len(name) <= _LONGEST_NAME:
        raise MisuseError(f"--by: must be a name of 1 to {_LONGEST_NAME} characters")
    return name


def _require(config: Config, patient: str) -> None:
    known = [p.id for p in config.patients]
    if patient not in (*known, GATEWAY):
        raise CommandError(f"there is no patient {patient!r}; there is {', '.join(known)}")


def _require_kind(config: Config, patient: str, kind: str) -> None:
    """Refuse a kind that no alarm of the patient is of: a pause of it would pause nothing."""
    named: tuple[str, ...] = (CHANNEL,)
    known = {BEHIND, STALLED, DATABASE, DISK, CLOCK, MODEL, RHYTHM_MODEL, CHANNEL}
    if patient != GATEWAY:
        bundle = bundle_or_why_none(config)
        usable = bundle if isinstance(bundle, Bundle) else None
        hearts = {rule.condition for rule in build_policies(config, usable)(patient).rules}
        named = (SILENT, OFF_SKIN, UNREAD, BATTERY)
        if usable is None:
            # Which classes raise alarms is not known then; one may be on from before.
            named = (*named, "class")
        hearts |= {*LETHAL, UNSEEN}
        known = {*hearts, *(condition.partition(":")[0] for condition in hearts), *named}
    before, _, name = kind.partition(":")
    # Nobody knows all devices there will be.
    if kind not in known and not (before in named and name):
        raise MisuseError(
            f"--kind: {kind!r} is no kind of alarm of {patient}; there are "
            f"{', '.join(sorted(known))}"
        )


def _print(line: str) -> None:
    sys.stdout.write(line + "\n")
