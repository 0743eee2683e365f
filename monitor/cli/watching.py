"""Whether anybody is watched, as ``leadone doctor`` tells it: from the daemon itself."""

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from alerts.conditions import Alarm
from alerts.gateway import GATEWAY
from monitor.cli.daemon_client import NoAnswerError, NotRunningError, status_of
from monitor.cli.errors import CommandError
from monitor.cli.times import local, span
from monitor.clock import AHEAD_NS
from monitor.config import Config
from monitor.storage.database import DatabaseError
from monitor.storage.history import History

_PRIORITIES = ("high", "medium", "low")


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        about: what, in a word or two.
        well: whether it is as it should be; None where that is for the reader to say.
        text: one line; if it is not well, what was found and what to do.
    """

    about: str
    well: bool | None
    text: str


@dataclass(frozen=True, slots=True)
class Daemon:
    """The daemon of a database, as it answered.

    Attributes:
        status: what it said of itself (``monitor.status``); None if it did not.
        why_not: why it did not.
    """

    status: dict[str, Any] | None
    why_not: CommandError | None = None

    @property
    def is_dead(self) -> bool:
        """Whether it does not run, or stands still: nobody is watched then."""
        return isinstance(self.why_not, NotRunningError | NoAnswerError)


def ask_daemon(config: Config) -> Daemon:
    """Ask the daemon of the configured database how it is."""
    try:
        return Daemon(status_of(config.database.get_secret_value()))
    except (CommandError, DatabaseError) as error:
        why_not = error if isinstance(error, CommandError) else CommandError(str(error))
        return Daemon(None, why_not)


def worst_first(findings: Iterable[Finding]) -> list[Finding]:
    """What is wrong, then what is for the reader to say, then what is well."""
    return sorted(findings, key=lambda found: (False, None, True).index(found.well))


def verdict(daemon: Daemon, findings: Sequence[Finding]) -> Finding:
    """All of it in one line: whether somebody is watched, and whether something is wrong."""
    wrong = sum(found.well is False for found in findings)
    return Finding("verdict", wrong == 0, _verdict(daemon, wrong))


def _verdict(daemon: Daemon, wrong: int) -> str:
    status = daemon.status
    if status is None:
        return f"NOBODY IS WATCHED: {daemon.why_not}" if daemon.is_dead else str(daemon.why_not)
    watched = [patient["id"] for patient in status["patients"] if patient["watched"]]
    unseen = [patient["id"] for patient in status["patients"] if not patient["watched"]]
    if not watched:
        return f"NOBODY IS WATCHED: leadone is running, but reads nothing of {_all(unseen)}"
    text = f"leadone is running and watches {_all(watched)}"
    if unseen:
        text = f"{text}, BUT READS NOTHING OF {_all(unseen)}"
    if status["database"]["error"] is not None:
        return f"{text}; it CANNOT STORE what it sees: {status['database']['error']}"
    others = wrong - len(unseen)
    if others > 0:
        return f"{text}; {others} other {'thing is' if others == 1 else 'things are'} wrong"
    return text


def daemon_findings(daemon: Daemon) -> Iterator[Finding]:
    """How the daemon is, and whom it watches; nothing of patients where it did not answer."""
    status = daemon.status
    if status is None:
        yield Finding("leadone", False, str(daemon.why_not))
        return
    yield from _storage(status["database"])
    if status["stalled"] is not None:
        yield Finding("leadone", False, f"stands still: {status['stalled']}")
    else:
        since = local(status["since_ns"])
        text = f"version {status['version']} runs as process {status['pid']} since {since}"
        yield Finding("leadone", True, text)
    for patient in status["patients"]:
        about = f"patient {patient['id']}"
        if patient["watched"]:
            yield Finding(about, True, "is being watched")
        else:
            yield Finding(about, False, f"nothing is read: {patient['why']}")
        until_ns = patient["paused_until_ns"]
        if until_ns is not None:
            yield Finding(about, None, f"alarms are paused until {local(until_ns)}")
    for key, about in (("model", "model in use"), ("rhythm_model", "watch for lethal rhythms")):
        if status[key] is not None:
            yield Finding(about, False, status[key])
    for channel in status["channels"]:
        if channel["wrong"] is not None:
            yield Finding(f"channel {channel['name']}", False, channel["wrong"])


def _storage(database: dict[str, Any]) -> Iterator[Finding]:
    if database["error"] is None:
        return
    kept = (
        "what is seen goes to a file until it can"
        if database["spooling"]
        else "what is seen is kept in memory until it can"
    )
    text = f"leadone cannot store: {database['error']}; hearts are watched all the same, and {kept}"
    yield Finding("storage", False, text)


def last_seen(config: Config, history: History) -> Iterator[Finding]:
    """Of each patient, what was stored last: what there is to say without a daemon."""
    now_ns = time.time_ns()
    until_ns = now_ns + AHEAD_NS
    streams = history.streams()
    for patient in config.patients:
        mine = [stream for stream in streams if stream.patient == patient.id]
        ends = [history.last_window_end(stream, until_ns=until_ns) for stream in mine]
        last_ns = max((end for end in ends if end is not None), default=None)
        if last_ns is None:
            text = "is not watched; nothing was ever seen: leadone pair, or docs/mqtt.md"
        else:
            ago = span(max(now_ns - last_ns, 0) / 1e9)
            text = f"is not watched; was seen last {ago} ago"
        yield Finding(f"patient {patient.id}", False, text)


def alarms_of(daemon: Daemon) -> list[Finding] | None:
    """The alarms that are on; None where the daemon did not say."""
    if daemon.status is None:
        return None
    rows = sorted(daemon.status["alarms"], key=lambda row: _PRIORITIES.index(row["priority"]))
    return [
        _alarm(row["patient"], row["condition"], row["priority"], row["started_ns"], row["id"])
        for row in rows
        if row["ended_ns"] is None
    ]


def stored_alarms(alarms: Iterable[Alarm]) -> Iterator[Finding]:
    """The alarms that are on as they are stored."""
    for alarm in alarms:
        yield _alarm(
            alarm.patient, alarm.condition, alarm.priority.value, alarm.started_ns, alarm.id
        )


def _alarm(patient: str, condition: str, priority: str, started_ns: int, id_: str) -> Finding:
    text = (
        f"{condition} of {patient} since {local(started_ns)}, "
        f"{priority} priority (leadone alarms show {id_[:8]})"
    )
    # What ails the gateway is wrong with the installation; what ails a heart is not.
    return Finding("alarm", False if patient == GATEWAY else None, text)


def _all(names: Sequence[str]) -> str:
    """``anna``, ``anna and boris``, ``anna, boris and karl``."""
    *most, last = names
    return f"{', '.join(most)} and {last}" if most else last
