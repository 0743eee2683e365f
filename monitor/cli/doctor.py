"""``leadone doctor``: is the installation well, and if not, what is to be done."""

import queue
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from models.bundle import Bundle, BundleError
from models.rhythm.model import RhythmModel, RhythmModelError
from models.runtime import Runtime
from monitor.cli.care_findings import warnings_at, warnings_of
from monitor.cli.in_time import in_time, read_in_time
from monitor.cli.rows import print_row
from monitor.cli.setup import prepare
from monitor.cli.times import iso
from monitor.cli.watching import (
    Daemon,
    Finding,
    alarms_of,
    ask_daemon,
    daemon_findings,
    last_seen,
    stored_alarms,
    verdict,
    worst_first,
)
from monitor.config import Config
from monitor.contacts import build_channels
from monitor.storage.database import DatabaseError, describe, folder_of, parse_url
from monitor.storage.history import History

if TYPE_CHECKING:
    from paho.mqtt.reasoncodes import ReasonCode

    from ingest.mqtt.broker import Broker

_EXCERPT = 120
_ANSWER_S = 5.0

_MONTH_NS = 30 * 86_400 * 10**9


def examine(path: Path, *, json_lines: bool) -> int:
    """Look at everything, print a verdict and what is found, the worst first.

    Returns:
        1 if something is wrong, else 0.

    Raises:
        ConfigError: if the configuration cannot be used: nothing else can be looked at then.
    """
    config, bundle, _ = prepare(path)
    found = [Finding("configuration", True, f"{path}: good")]
    found.append(_model(bundle, config.inference.threads))
    found.append(_rhythm_model())
    daemon = ask_daemon(config)
    stored = _database(config, daemon)
    found = [*daemon_findings(daemon), *(alarms_of(daemon) or ()), *stored, *found]
    for look in (_disk, _contacts, _broker):
        found.extend(look(config))
    # One that has just given no answer is not waited for again.
    answers = all(finding.well for finding in stored if finding.about == "database")
    warnings = warnings_at(config, path) if answers else warnings_of(config, path, None)
    found.extend(Finding("warning", None, text) for text in warnings)
    found = worst_first(found)
    summary = verdict(daemon, found)
    if not json_lines:
        _print(summary.text)
    for finding in [summary, *found] if json_lines else found:
        if json_lines:
            print_row({"about": finding.about, "well": finding.well, "text": finding.text})
        else:
            mark = {True: "ok  ", False: "WRONG", None: "note"}[finding.well]
            _print(f"{mark:<6}{finding.about}: {finding.text}")
    return 1 if any(finding.well is False for finding in found) else 0


def _print(line: str) -> None:
    # What a broker or a mail server said must not steer the terminal.
    sys.stdout.write("".join(c if c.isprintable() else " " for c in line) + "\n")


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


def _database(config: Config, daemon: Daemon) -> list[Finding]:
    """What is stored, whatever of it the daemon has not said itself, and how the database is."""
    url = config.database.get_secret_value()
    found: list[Finding] = []

    def read(history: History) -> None:
        for finding in _stored(config, daemon, history):
            found.append(finding)  # noqa: PERF402 - one by one: what was read before it hangs counts

    try:
        read_in_time(url, read)
    except DatabaseError as error:
        return [*found, Finding("database", False, str(error))]
    return [*found, Finding("database", True, f"{describe(parse_url(url))} answers")]


def _stored(config: Config, daemon: Daemon, history: History) -> Iterator[Finding]:
    if daemon.is_dead:
        yield from last_seen(config, history)
    yield from _straps(history)
    if daemon.status is None:
        yield from stored_alarms(history.active_alarms())
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


def _straps(history: History) -> Iterator[Finding]:
    """Straps that cannot see what kills first."""
    paired = history.straps()
    if not paired:
        return
    from monitor.cli.devices import NO_ECG, sends_ecg  # noqa: PLC0415 - loads what Bluetooth needs

    for strap, _ in paired:
        if not sends_ecg(strap):
            yield Finding(f"strap {strap.stream}", None, NO_ECG)


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
        free = in_time(lambda: shutil.disk_usage(folder)).free
    except OSError as error:
        yield Finding("disk", False, f"{folder}: {error.strerror or error}")
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
