"""The clocks of the daemon: UTC, which anybody may set, and one steady clock that nobody can.

There is one steady clock for everything that lasts or is due. It goes on while the machine sleeps,
which ``time.monotonic`` of Linux does not: a strap that was silent for a night was silent for it.
"""

import ctypes
import time
from functools import cache
from typing import Final

from alerts.technical import Moment

AHEAD_NS: Final = 60_000_000_000
"""How far a device's clock may be ahead; what is stored of later was filed by a wrong one."""

_TIME_ERROR: Final = 5
"""What ``adjtimex`` answers where nothing has set the clock right (timex.h)."""

# Two readings further apart had something between them: a stop of the process, or of the machine.
_APART_NS: Final = 1_000_000
_READINGS: Final = 5


def steady_ns() -> int:
    """Read the steady clock: nanoseconds since the machine was started, those asleep included."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


def steady_s() -> float:
    """As ``steady_ns``, in seconds."""
    return steady_ns() / 1e9


def now() -> Moment:
    """Read both clocks at the same moment: what is between them is how far UTC was set."""
    for _ in range(_READINGS):
        before_ns = steady_ns()
        moment = Moment(time.time_ns(), steady_ns())
        if moment.steady_ns - before_ns < _APART_NS:
            break
    return moment


def synchronised() -> bool:
    """Ask the kernel whether a time server or the like has set UTC right; False if it cannot say.

    Reading takes no privilege. Where a sandbox forbids it nobody knows, and the clock is not
    trusted for its own sake.
    """
    adjtimex = _adjtimex()
    # Twice the size of ``struct timex``; all zeros means to change nothing.
    return adjtimex is not None and 0 <= adjtimex(ctypes.create_string_buffer(512)) < _TIME_ERROR


@cache
def _adjtimex() -> "ctypes._NamedFuncPointer | None":
    try:
        return ctypes.CDLL(None).adjtimex
    except (AttributeError, OSError):
        return None
