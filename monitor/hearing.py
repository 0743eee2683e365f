"""What the watch for lethal rhythms makes of stored signal: why it raised an alarm, or none.

It is the watch itself that runs, and the engine itself that decides. One thing it cannot know:
where the runs of samples began, if the daemon heard them otherwise than they are stored.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from alerts.conditions import Alarm, Change, State
from alerts.lethal import RhythmEngine
from alerts.rhythm import RhythmSeen
from ingest.chunk import Chunk, Stream
from models.rhythm.model import RhythmModel
from monitor.rhythms import StreamRhythms

_S = 1_000_000_000

BEFORE_NS = 60 * _S
"""So much of the signal before a moment is heard for what the watch knew by then."""


@dataclass(frozen=True, slots=True)
class Heard:
    """A verdict, and what it changes.

    Attributes:
        seen: the verdict.
        changes: of alarms.
    """

    seen: RhythmSeen
    changes: tuple[Change, ...]


def hear_again(
    chunks: Iterable[Chunk], model: RhythmModel, *, active: Iterable[Alarm] = ()
) -> Iterator[Heard]:
    """Run the watch and its engine over stored chunks of one patient, by their start.

    Args:
        chunks: of all devices.
        model: what tells rhythms apart.
        active: alarms that were on before the first, ended since or not.
    """
    engine = RhythmEngine()
    engine.restore(replace(alarm, ended_ns=None) for alarm in active)
    streams: dict[Stream, StreamRhythms] = {}
    for chunk in chunks:
        rhythms = streams.setdefault(chunk.stream, StreamRhythms(chunk.stream, model))
        for seen in rhythms.add(chunk):
            yield Heard(seen, tuple(engine.step(seen)))


def around(alarm: Alarm) -> list[tuple[int, int]]:
    """The times, in UTC ns, of the verdicts that led to an alarm, and of those that ended it."""
    begun = (min(alarm.started_ns, alarm.raised_ns - 20 * _S), alarm.raised_ns + 5 * _S)
    if alarm.ended_ns is None:
        return [begun]
    return [begun, (max(begun[1], alarm.ended_ns - 40 * _S), alarm.ended_ns + _S)]


def outcome(alarm: Alarm, heard: Sequence[Heard]) -> list[str]:
    """Whether the watch, run again, comes to the same; in lines."""
    changes = [
        change
        for one in heard
        for change in one.changes
        if change.alarm.condition == alarm.condition
    ]
    raised = [c.at_ns for c in changes if c.state is State.ACTIVE and c.at_ns == c.alarm.raised_ns]
    why = (
        "not raised by the watch of today, run again: the model or the run of samples was another, "
        "or the signal is not stored"
    )
    if any(abs(at_ns - alarm.raised_ns) <= _S for at_ns in raised):
        why = "raised by the watch, run again over the stored signal, at the same second"
    elif raised:
        later_s = (raised[0] - alarm.raised_ns) / _S
        why = (
            f"raised by the watch of today, run again, {abs(later_s):.0f} s "
            f"{'later' if later_s > 0 else 'sooner'}: the model or the run of samples was another"
        )
    found = [why]
    if alarm.ended_ns is None:
        found.append("it is still true")
    return found


def seconds_of(heard: Iterable[RhythmSeen]) -> Mapping[str, int]:
    """How many seconds each rhythm was seen for, most first."""
    counts: dict[str, int] = {}
    for seen in heard:
        counts[seen.rhythm.value] = counts.get(seen.rhythm.value, 0) + 1
    return dict(sorted(counts.items(), key=lambda pair: -pair[1]))
