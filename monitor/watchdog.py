"""Tells systemd that the daemon watches; one that hangs or stands still is killed and started anew.

The protocol is that of sd_notify(3) and sd_watchdog_enabled(3): a datagram ``WATCHDOG=1`` to the
socket that the environment names, at least once in each period. It goes out only while the event
loop turns and no stage of the path of a sample stands still.
"""

import asyncio
import os
import socket
import time
from collections.abc import Mapping

import structlog

from monitor.progress import Progress
from monitor.stopping import pause

_log = structlog.get_logger()

STALLED_S = 60.0
"""What stands still for longer, in seconds, is not waited for: a restart is the only way on.

Longer than it takes to tell people first, and short enough that with the unit's ``WatchdogSec``
systemd has begun the daemon anew within three minutes of the stall."""

# What has begun to move again is to be told of before the period ends.
_LOOK_S = 1.0


async def feed(
    stop: asyncio.Event, progress: Progress, environment: Mapping[str, str] = os.environ
) -> None:
    """Give signs of life until ``stop``, every half period; where nobody asks, only look.

    Args:
        stop: ends it.
        progress: whether the path of a sample moves; a stall is logged, whoever asks.
        environment: names the socket and the period, if systemd asks.
    """
    period_s, where = _asked(environment) or (0.0, "")
    look_s = min(_LOOK_S, period_s / 4 or _LOOK_S)
    stalled = False
    sent_s: float | None = None
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        sender.setblocking(False)
        while not stop.is_set():
            stall = progress.stalled(STALLED_S)
            if stall is not None and not stalled:
                _log.error(
                    "stalled",
                    stage=stall.stage.value,
                    stream=str(stall.stream),
                    seconds=round(stall.seconds, 1),
                    restart=bool(where),
                )
            elif stall is None and stalled:
                _log.info("stall_over")
            stalled = stall is not None
            now_s = time.monotonic()
            if where and not stalled and (sent_s is None or now_s - sent_s >= period_s / 2):
                sent_s = now_s
                _send(sender, where)
            await pause(stop, look_s)


def alive(environment: Mapping[str, str] = os.environ) -> None:
    """Give one sign of life, before something that takes most of a period."""
    if (asked := _asked(environment)) is not None:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.setblocking(False)
            _send(sender, asked[1])


def is_asked(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether systemd waits for signs of life of this process, and restarts it without."""
    return _asked(environment) is not None


def _send(sender: socket.socket, where: str) -> None:
    try:
        sender.sendto(b"WATCHDOG=1", where)
    except OSError as error:
        _log.warning("systemd not told", error=str(error))


def _asked(environment: Mapping[str, str]) -> tuple[float, str] | None:
    """What systemd allows from one sign of life to the next, in seconds, and where it listens."""
    address = environment.get("NOTIFY_SOCKET", "")
    if not address or environment.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return None
    try:
        period_s = int(environment.get("WATCHDOG_USEC", "")) / 1e6
    except ValueError:
        return None
    if period_s <= 0:
        return None
    # A name that begins with "@" is an abstract one, which the kernel spells with a NUL.
    return period_s, f"\0{address[1:]}" if address.startswith("@") else address
