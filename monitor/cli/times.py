"""Durations and moments as people type them, and times as people read them."""

import re
import time
from datetime import UTC, datetime

from monitor.cli.errors import MisuseError

LAST_NS = 2**63 - 1
"""No time that is stored lies after this one."""

_UNITS = {"ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|m|h|d)?")


def seconds(text: str, option: str) -> float:
    """Seconds of ``90``, ``90s``, ``10m``, ``24h``, ``7d``.

    Raises:
        MisuseError: if it is none of these.
    """
    match = _DURATION.fullmatch(text.strip())
    if match is None:
        raise MisuseError(f"{option}: {text!r} is no duration; expected e.g. 60s, 10m, 24h or 7d")
    return float(match[1]) * _UNITS[match[2] or "s"]


def moment_ns(text: str, option: str) -> int:
    """UTC ns of a duration back from now, or of an ISO time (UTC unless it says otherwise).

    What lies beyond 64 bits (before 1678, after 2261) is moved to where they end.

    Raises:
        MisuseError: if it is neither.
    """
    if _DURATION.fullmatch(text.strip()):
        return _within(time.time_ns() - round(seconds(text, option) * 1e9))
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise MisuseError(
            f"{option}: {text!r} is neither a duration (24h) nor a time (2026-11-21T07:00)"
        ) from None
    utc = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return _within(round(utc.timestamp() * 1e9))


def _within(ns: int) -> int:
    return max(-LAST_NS, min(ns, LAST_NS))


def local(ns: int) -> str:
    """Date and time of day where the reader is."""
    return datetime.fromtimestamp(ns / 1e9, tz=UTC).astimezone().strftime("%Y-%m-%d %H:%M:%S")


def iso(ns: int) -> str:
    """UTC in ISO 8601, to the millisecond, for machines."""
    text = datetime.fromtimestamp(ns // 1_000_000_000, tz=UTC).strftime("%Y-%m-%dT%H:%M:%S")
    return f"{text}.{ns // 1_000_000 % 1000:03d}Z"


def span(duration_s: float) -> str:
    """A length of time as people say it: ``45 s``, ``12 min``, ``3 h 20 min``."""
    if duration_s < 90:
        return f"{duration_s:.0f} s"
    minutes = round(duration_s / 60)
    if minutes < 90:
        return f"{minutes} min"
    return f"{minutes // 60} h {minutes % 60:02d} min"
