"""Tells systemd that the event loop still turns; a daemon that hangs is killed and started anew.

The protocol is that of sd_notify(3) and sd_watchdog_enabled(3): a datagram ``WATCHDOG=1`` to the
socket that the environment names, at least once in each period.
"""

import asyncio
import os
import socket
from collections.abc import Mapping

import structlog

from monitor.stopping import pause

_log = structlog.get_logger()


async def feed(stop: asyncio.Event, environment: Mapping[str, str] = os.environ) -> None:
    """Say so twice in each period until ``stop``; done at once where systemd does not ask."""
    period_s = _period_s(environment)
    address = environment.get("NOTIFY_SOCKET", "")
    if period_s is None or not address:
        return
    # A name that begins with "@" is an abstract one, which the kernel spells with a NUL.
    where = f"\0{address[1:]}" if address.startswith("@") else address
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        sender.setblocking(False)
        while not stop.is_set():
            try:
                sender.sendto(b"WATCHDOG=1", where)
            except OSError as error:
                _log.warning("systemd not told", error=str(error))
            await pause(stop, period_s / 2)


def _period_s(environment: Mapping[str, str]) -> float | None:
    """What systemd allows from one sign of life to the next; None if it asks another process."""
    if environment.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return None
    try:
        period_s = int(environment.get("WATCHDOG_USEC", "")) / 1e6
    except ValueError:
        return None
    return period_s if period_s > 0 else None
