"""Quiet hours: when what is of low priority waits for the morning."""

from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo

S = 1_000_000_000


@dataclass(frozen=True, slots=True)
class QuietHours:
    """A time of every day, by the clock on the wall; past midnight if ``end`` is before ``start``.

    Attributes:
        start: local time of day at which it begins.
        end: local time of day at which it is over.
        zone: where that wall is.

    Raises:
        ValueError: if ``start`` is ``end``, so that it were never or always quiet.
    """

    start: time
    end: time
    zone: ZoneInfo

    def __post_init__(self) -> None:
        if self.start == self.end:
            raise ValueError(f"quiet hours: start and end are both {self.start:%H:%M}")

    def after(self, utc_ns: int) -> int:
        """The first time from ``utc_ns`` on that is not quiet, in nanoseconds since 1970."""
        today = datetime.fromtimestamp(utc_ns // S, tz=UTC).astimezone(self.zone).date()
        for day in (today - timedelta(days=1), today):
            start_ns = self._utc_ns(day, self.start)
            end_ns = self._utc_ns(
                day if self.start < self.end else day + timedelta(days=1), self.end
            )
            # Compared in UTC: in the hour that an autumn night has twice, the clock on the wall
            # would show the quiet time a second time.
            if start_ns <= utc_ns < end_ns:
                return end_ns
        return utc_ns

    def _utc_ns(self, day: date, at: time) -> int:
        # A time that a spring night leaves out is as long after midnight as it would have been.
        return int(datetime.combine(day, at, tzinfo=self.zone).timestamp()) * S
