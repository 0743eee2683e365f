"""``leadone start-failed``: tell people that the daemon does not run, whatever keeps it from that.

systemd runs it whenever the daemon has ended (``ExecStopPost``). It needs neither database nor
model: it counts in a small file, and from the third failure in a row on it tells those who are told
of alarms of high priority, once, and again each hour that it goes on. A configuration that was
broken by an edit tells nobody of anything: the last one that was good does.
"""

import asyncio
import json
import os
import signal
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import structlog

from monitor import last_words

if TYPE_CHECKING:
    from alerts.channels.channel import Channel, Message
    from monitor.config import Config

_log = structlog.get_logger()

# One crash is taken up by the next start and told by nobody; three in a row are no accident.
_MOST_FAILURES = 2

# From one end to the next: whoever ran for longer than this between them was well.
_GOOD_RUN_S = 600.0

_REMIND_S = 3600.0

# A channel that fails is not tried at every start: that comes every few seconds, and waits for it.
_RETRY_S = 60.0

# The next start waits for this. The unit allows 60 s.
_LIMIT_S = 50

_FILE = "start-failures.json"

_RESULTS = {
    "exit-code": "it ended with exit status {status}",
    "signal": "it was killed by signal {status}",
    "core-dump": "it crashed with signal {status}",
    "watchdog": "it hung, and was killed",
    "oom-kill": "it took more memory than it may have, and was killed",
    "timeout": "it did not start or stop in time, and was killed",
}
"""What ``$SERVICE_RESULT`` means; ``status`` is ``$EXIT_STATUS`` (systemd.exec(5))."""


@dataclass(slots=True)
class Failures:
    """The failures in a row so far.

    Attributes:
        boot: since which start of the machine; ``at_s`` and the like mean nothing in another.
        count: how many there were.
        at_s: when the last one was, on the clock that goes on while the machine sleeps.
        since_ns: when the first one was, UTC in nanoseconds since 1970.
        tried_s: when each channel was last tried, by its name.
        told_s: when each channel last delivered, by its name.
    """

    boot: str
    count: int = 0
    at_s: float = 0.0
    since_ns: int = 0
    tried_s: dict[str, float] = field(default_factory=dict)
    told_s: dict[str, float] = field(default_factory=dict)


def note_end(path: Path, environment: Mapping[str, str] = os.environ) -> None:
    """Take in how the daemon has ended, and tell people if it does not run.

    Args:
        path: the configuration.
        environment: with what systemd says of the end.
    """
    result = environment.get("SERVICE_RESULT", "")
    if result in ("", "success"):
        # Somebody has stopped it, or it is begun anew by hand.
        last_words.remove(_FILE)
        return
    # Whatever hangs here must not keep the daemon from its next start.
    signal.alarm(_LIMIT_S)
    try:
        failures = _count()
        why = last_words.take_error() or _RESULTS.get(result, f"it ended: {result}").format(
            status=environment.get("EXIT_STATUS", "?")
        )
        _log.warning("start_failed", in_a_row=failures.count, reason=why)
        if failures.count > _MOST_FAILURES:
            _tell(path, failures, why)
    finally:
        signal.alarm(0)


def _count() -> Failures:
    now_s = time.clock_gettime(time.CLOCK_BOOTTIME)
    failures = _read()
    if failures is None or not 0 <= now_s - failures.at_s <= _GOOD_RUN_S:
        failures = Failures(_boot(), since_ns=time.time_ns())
    failures.count += 1
    failures.at_s = now_s
    _write(failures)
    return failures


def _read() -> Failures | None:
    content = last_words.read(_FILE)
    try:
        failures = None if content is None else Failures(**json.loads(content))
        return failures if failures is not None and failures.boot == _boot() else None
    except (TypeError, ValueError):
        return None


def _write(failures: Failures) -> None:
    if not last_words.write(_FILE, json.dumps(asdict(failures)).encode()):
        _log.warning(
            "start_failures_not_counted",
            reason="neither $RUNTIME_DIRECTORY nor $STATE_DIRECTORY can be written: nobody is told",
        )


def _boot() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


def _tell(path: Path, failures: Failures, why: str) -> None:
    from monitor.contacts import build_channels  # noqa: PLC0415 - most ends are told to nobody

    config = _configuration(path)
    if config is None:
        return
    contacts = _contacts(config)
    channels = [
        c for name, some in build_channels(config).items() if name in contacts for c in some
    ]
    due = [channel for channel in channels if _is_due(channel.name, failures)]
    if not channels:
        _log.warning("start_failure_not_told", reason="alarms.contacts is empty")
    if not due:
        return
    for channel in due:
        failures.tried_s[channel.name] = failures.at_s
    # Before: one that hangs must not be tried at the next start again.
    _write(failures)
    asyncio.run(_send_all(due, failures, why))
    _write(failures)


def _configuration(path: Path) -> "Config | None":
    """The configuration, or if it cannot be used the last one that was good; None without any."""
    from monitor.config import ConfigError, load_config  # noqa: PLC0415 - see above
    from monitor.contacts import build_channels  # noqa: PLC0415 - see above

    for file in (path, *last_words.kept_configurations()):
        try:
            config = load_config(file)
            build_channels(config)
        except ConfigError as error:
            _log.error("configuration_unusable", reason=error.problems[0])
        else:
            return config
    _log.error("start_failure_not_told", reason="no configuration says who is to be told")
    return None


def _contacts(config: "Config") -> set[str]:
    """Everybody who is told of alarms of high priority, of anybody."""
    from alerts.gateway import GATEWAY  # noqa: PLC0415 - see above
    from monitor.contacts import build_plans  # noqa: PLC0415 - see above

    plan_for = build_plans(config)
    patients = (GATEWAY, *(patient.id for patient in config.patients))
    return {name for p in patients for step in plan_for(p).high.steps for name in step.contacts}


def _is_due(channel: str, failures: Failures) -> bool:
    told_s, tried_s = failures.told_s.get(channel), failures.tried_s.get(channel)
    if tried_s is not None and failures.at_s - tried_s < _RETRY_S:
        return False
    return told_s is None or failures.at_s - told_s >= _REMIND_S


async def _send_all(channels: Sequence["Channel"], failures: Failures, why: str) -> None:
    from monitor.outbox import send  # noqa: PLC0415 - see above

    async def one(channel: "Channel") -> None:
        message = _message(failures, why, again=channel.name in failures.told_s)
        error = await send(channel, message)
        if error is None:
            failures.told_s[channel.name] = failures.at_s
            _log.warning("start_failure_told", channel=channel.name)
        else:
            _log.error("start_failure_not_told", channel=channel.name, reason=str(error))

    await asyncio.gather(*map(one, channels))


def _message(failures: Failures, why: str, *, again: bool) -> "Message":
    from alerts.channels.channel import Message  # noqa: PLC0415 - see above
    from alerts.conditions import Priority  # noqa: PLC0415 - see above

    since = datetime.fromtimestamp(failures.since_ns / 1e9, tz=UTC).astimezone()
    still = "Still: " if again else ""
    thread = f"not-running:{failures.since_ns}"
    return Message(
        key=f"{thread}:{failures.count}",
        thread=thread,
        priority=Priority.HIGH,
        title=f"URGENT: {still}Lead One does not run",
        body=(
            f"Lead One has failed {failures.count} times in a row since {since:%a %H:%M}. Hearts "
            "are not watched, or only now and then. It is started again and again.\n"
            "What to do: look after those it watches, and have somebody look at the gateway "
            "(journalctl -u leadone).\n"
            f"Why: {why}"
        ),
        data={
            "kind": "not_running",
            "failures": failures.count,
            "since_ns": failures.since_ns,
            "reason": why,
        },
    )
