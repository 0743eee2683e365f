"""The clock of the host, as a source follows it that has no other."""

import time
from typing import Final

STEPPED: Final = "host clock set"
"""Why samples do not follow each other where the clock of the host was set."""

# By how much UTC must run away from the steady clock to have been set.
_STEP_NS: Final = 1_000_000_000


class HostClock:
    """Tells by how much the host's UTC was set since this was made."""

    def __init__(self) -> None:
        self._begun_ns = self._ahead_ns()
        self._stepped_ns = 0

    @property
    def stepped_ns(self) -> int:
        """By how much, in nanoseconds."""
        stepped_ns = self._ahead_ns() - self._begun_ns
        if abs(stepped_ns - self._stepped_ns) > _STEP_NS:
            self._stepped_ns = stepped_ns
        return self._stepped_ns

    def _ahead_ns(self) -> int:
        return time.time_ns() - time.clock_gettime_ns(time.CLOCK_BOOTTIME)
