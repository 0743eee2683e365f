"""What is wrong with the gateway's clock, in a line that says what to do."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Final

from ingest.chunk import Stream

# The day on which this was written: no clock that is right shows an earlier one.
_EARLIEST_S: Final = 1_795_219_200  # 2026-11-21
# The gateways this runs on do not last so long.
_LATEST_S: Final = _EARLIEST_S + 25 * 365 * 86_400

# Of more devices nobody wants to read.
_NAMED: Final = 3

_SET: Final = (
    "a time server has set the gateway's, so set the device's; what it sends from another time "
    "is refused until then"
)
_UNSET: Final = (
    "no time server has set the gateway's: see that it reaches one, or set the clock that is "
    "wrong; until then ECG is taken by the device's time"
)


def impossible(utc_ns: int) -> str | None:
    """Say that UTC cannot be what it is, in nanoseconds since 1970; None if it can."""
    if _EARLIEST_S <= utc_ns / 1e9 <= _LATEST_S:
        return None
    return f"the gateway's clock says {datetime.fromtimestamp(utc_ns // 10**9, UTC):%Y-%m-%d}"


def disagreement(apart: Mapping[Stream, float], *, synchronised: bool) -> str | None:
    """Say which devices' clocks disagree with the gateway's; None if there is none.

    Args:
        apart: how far each of those is ahead, in seconds.
        synchronised: whether a time server or the like has set the gateway's.
    """
    if not apart:
        return None
    worst = sorted(apart.items(), key=lambda item: -abs(item[1]))
    named = [
        f"{stream.device} of {stream.patient} is {_span(abs(seconds))} "
        f"{'ahead of' if seconds > 0 else 'behind'} it"
        for stream, seconds in worst[:_NAMED]
    ]
    more = len(worst) - len(named)
    named += [f"{more} more are too"] if more else []
    which = ", ".join(named)
    advice = _SET if synchronised else _UNSET
    return f"the gateway's clock disagrees with its devices: {which}; {advice}"


def _span(seconds: float) -> str:
    for unit, of_s in (("days", 86_400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * of_s:
            return f"{seconds / of_s:.0f} {unit}"
    return f"{seconds:.0f} seconds"
