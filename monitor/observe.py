"""From results to what the alarm engine sees of them."""

from collections.abc import Iterable
from dataclasses import replace

from alerts.conditions import Alarm, Observation
from alerts.technical import Moment
from ingest.chunk import Stream
from monitor.results import WindowResult

# A pause is told ahead of the windows that wait to be read, and of what a crash left unread; they
# are worked off within minutes. After that nothing older than the pause is to be expected: windows
# of a time before it are of a clock that was set back.
_OLDER_COME_NS = 900_000_000_000


def observation(result: WindowResult) -> Observation:
    """What the alarm engine sees of a result."""
    return Observation(
        patient=result.stream.patient,
        start_ns=result.start_ns,
        end_ns=result.end_ns,
        good=result.grade.good,
        probabilities=result.by_class,
        heart_rate=result.heart_rate,
        longest_rr_s=result.longest_rr_s,
    )


class Observer:
    """Makes observations of the results of all streams; old windows end no pause.

    A pause is told when it is seen, windows when they are read. One that ended before the pause
    was seen says nothing of whether it is over, however late it is read; so what it says of
    beats is left out.
    """

    def __init__(self) -> None:
        # By stream; by patient those that an earlier run left active: nobody knows of which stream.
        self._paused: dict[Stream | str, tuple[int, int]] = {}

    def restore(self, alarms: Iterable[Alarm], now: Moment) -> None:
        """Take up pauses that an earlier run told of."""
        for alarm in alarms:
            if alarm.condition == "pause":
                self._paused[alarm.patient] = (alarm.raised_ns, now.steady_ns)

    def paused(self, stream: Stream, seen: Observation, now: Moment) -> None:
        """Take in that the alarm engine was told of a pause in a stream."""
        self._paused[stream] = (seen.end_ns, now.steady_ns)

    def window(self, result: WindowResult, limit_s: float | None, now: Moment) -> Observation:
        """What the engine sees of a result.

        Args:
            result: of the window.
            limit_s: the shortest pause of the patient that counts, in seconds; None where none
                does.
            now: the time.
        """
        seen = observation(result)
        if limit_s is None or seen.longest_rr_s is None or seen.longest_rr_s >= limit_s:
            return seen
        for whose in (result.stream, result.stream.patient):
            if (paused := self._paused.get(whose)) is None:
                continue
            end_ns, told_ns = paused
            if now.steady_ns - told_ns > _OLDER_COME_NS:
                del self._paused[whose]
            elif seen.end_ns <= end_ns:
                return replace(seen, longest_rr_s=None)
        return seen
