"""``leadone doctor``: is the installation well, and if not, what is to be done."""

import queue
import shutil
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from alerts.conditions import Alarm
from models.bundle import Bundle, BundleError
from models.rhythm.model import RhythmModel, RhythmModelError
from models.runtime import Runtime
from monitor.cli.care_findings import warnings_at
from monitor.cli.rows import print_row
from monitor.cli.setup import prepare
from monitor.cli.times import iso, local, span
from monitor.config import Config
from monitor.contacts import build_channels
from monitor.storage.database import DatabaseError, describe, folder_of, parse_url
from monitor.storage.history import History

if TYPE_CHECKING:
    from paho.mqtt.reasoncodes import ReasonCode

    from ingest.mqtt.broker import Broker

_EXCERPT = 120
_ANSWER_S = 5.0

# A daemon that runs stores a window of somebody every few seconds.
_LATELY_NS = 60_000_000_000
_MONTH_NS = 30 * 86_400 * 10**9


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


def examine(path: Path, *, json_lines: bool) -> int:
    """Look at everything, print what is found; 1 if something is wrong, else 0.

    Raises:
        ConfigError: if the configuration cannot be used: nothing else can be looked at then.
    """
    config, bundle, _ = prepare(path)
    found = [Finding("configuration", True, f"{path}: good")]
    found.append(_model(bundle, config.inference.threads))
    found.append(_rhythm_model())
    for look in (_database, _disk, _contacts, _broker):
        found.extend(look(config))
    found.extend(Finding("warning", None, text) for text in warnings_at(config, path))
    for finding in found:
        if json_lines:
            print_row({"about": finding.about, "well": finding.well, "text": finding.text})
        else:
            mark = {True: "ok  ", False: "WRONG", None: "note"}[finding.well]
            sys.stdout.write(f"{mark:<6}{finding.about}: {finding.text}\n")
    return 1 if any(finding.well is False for finding in found) else 0


def _model(bundle: Bundle | BundleError, threads: int) -> Finding:
    try:
        if isinstance(bundle, BundleError):
            raise bundle
        Runtime(bundle, threads)
    except BundleError as error:
        return Finding("model", False, f"{error}; only lethal rhythms, rates and pauses are seen")
    return Finding("model", True, f"{bundle.name} loads")


def _rhythm_model() -> Finding:
    about = "watch for lethal rhythms"
    try:
        model = RhythmModel()
    except RhythmModelError as error:
        text = f"{error}; fibrillation raises no alarm until leadone is installed anew"
        return Finding(about, False, text)
    return Finding(about, True, f"{model.name} loads, and its checksum is right")


def _database(config: Config) -> Iterator[Finding]:
    url = config.database.get_secret_value()
    try:
        with History(url) as history:
            yield Finding("database", True, f"{describe(parse_url(url))} answers")
            yield from _watch(config, history)
            yield from _straps(history)
            for alarm in history.active_alarms():
                yield Finding("alarm", None, _alarm(alarm))
            waiting = history.waiting()
            late = [n for n, tried in waiting if any(d.error for d in tried)]
            for notification, tried in waiting:
                for delivery in tried:
                    if delivery.error is not None:
                        text = f"{notification.contact}: {delivery.error}"
                        yield Finding(f"message by {delivery.channel}", False, text)
            if waiting and not late:
                yield Finding("messages", None, f"{len(waiting)} are to be sent, all in time")
            yield from _refused(history)
    except DatabaseError as error:
        yield Finding("database", False, str(error))


def _watch(config: Config, history: History) -> Iterator[Finding]:
    """Whether somebody is watched: what was seen last of each patient."""
    now_ns = time.time_ns()
    streams = history.streams()
    for patient in config.patients:
        ends = [history.last_window_end(s) for s in streams if s.patient == patient.id]
        last_ns = max((end for end in ends if end is not None), default=None)
        about = f"patient {patient.id}"
        if last_ns is None:
            yield Finding(about, None, "nothing was ever seen: leadone pair, or docs/mqtt.md")
        elif now_ns - last_ns > _LATELY_NS:
            ago = span((now_ns - last_ns) / 1e9)
            text = f"nothing was seen for {ago}: is the device worn, and leadone running?"
            yield Finding(about, False, text)
        else:
            yield Finding(about, True, "is being watched")


def _straps(history: History) -> Iterator[Finding]:
    """Straps that cannot see what kills first."""
    paired = history.straps()
    if not paired:
        return
    from monitor.cli.devices import NO_ECG, sends_ecg  # noqa: PLC0415 - loads what Bluetooth needs

    for strap, _ in paired:
        if not sends_ecg(strap):
            yield Finding(f"strap {strap.stream}", None, NO_ECG)


def _alarm(alarm: Alarm) -> str:
    return (
        f"{alarm.condition} of {alarm.patient} since {local(alarm.started_ns)}, "
        f"{alarm.priority} priority (leadone alarms show {alarm.id[:8]})"
    )


def _refused(history: History) -> Iterator[Finding]:
    for message in history.refused_messages():
        if time.time_ns() - message.last_ns > _MONTH_NS:
            continue
        begins = message.excerpt[:_EXCERPT].decode(errors="replace")
        shown = "".join(c if c.isprintable() else "·" for c in begins)
        text = (
            f"{message.detail}; first {iso(message.first_ns)} on {message.topic}, "
            f"last {iso(message.last_ns)}; it begins {shown!r}"
        )
        yield Finding(f"refused message ({message.reason})", None, text)


def _disk(config: Config) -> Iterator[Finding]:
    folder = folder_of(config.database.get_secret_value())
    if folder is None:
        return
    try:
        free = shutil.disk_usage(folder).free
    except OSError as error:
        yield Finding("disk", False, f"{folder}: {error.strerror}")
        return
    well = free > 500_000_000
    yield Finding("disk", well, f"{folder}: {free / 1e9:.1f} GB free")


def _contacts(config: Config) -> Iterator[Finding]:
    if not config.alarms.contacts:
        text = "nobody is told of alarms: they are logged and shown only (docs/alarms.md)"
        yield Finding("contacts", None, text)
        return
    channels = build_channels(config)
    count = sum(map(len, channels.values()))
    text = f"{len(channels)} with {count} channels; leadone alarms test tries them"
    yield Finding("contacts", True, text)


def _broker(config: Config) -> Iterator[Finding]:
    if config.mqtt is None:
        return
    from monitor.brokers import broker_of  # noqa: PLC0415 - only where there is a broker

    broker = broker_of(config.mqtt)
    wrong = _probe(broker)
    yield Finding("broker", wrong is None, f"{broker}: {wrong or 'lets us in'}")


def _probe(broker: "Broker") -> str | None:
    """Connect once, beside the daemon's sessions; what is wrong, in one line."""
    from ingest.mqtt.broker import BrokerError, connect, explain, join, make_client  # noqa: PLC0415

    answers: queue.SimpleQueue[ReasonCode] = queue.SimpleQueue()
    try:
        client = make_client(
            broker, suffix="-doctor", persistent=False, manual_ack=False, reconnect=False
        )
    except BrokerError as error:
        return str(error)
    client.on_connect = lambda _client, _data, _flags, reason, _properties: answers.put(reason)
    try:
        connect(client, broker, persistent=False)
        client.loop_start()
        reason = answers.get(timeout=_ANSWER_S)
    except queue.Empty:
        return "the broker does not answer"
    except (OSError, ValueError) as error:
        return explain(error)
    finally:
        client.disconnect()
        join(client)
    return explain(reason) if reason.is_failure else None
