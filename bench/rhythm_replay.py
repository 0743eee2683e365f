"""Run recordings through the daemon's own watch for lethal rhythms and its alarm rules."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from alerts.conditions import State
from alerts.lethal import RhythmEngine
from alerts.rhythm import Rhythm, RhythmSeen
from ingest.chunk import Chunk, Stream
from models.rhythm.model import RhythmModel
from monitor.rhythms import StreamRhythms
from training.rhythm.records import RhythmRecord

# As live sources send.
_CHUNK_S = 1.0


@dataclass(frozen=True, slots=True)
class Raised:
    """An alarm there would have been; times in seconds from the start of the record.

    Attributes:
        condition: ``vf``, ``vt``, ``asystole`` or ``unseen``.
        raised_s: when.
        ended_s: when it was over; None if it went on to the end.
    """

    condition: str
    raised_s: float
    ended_s: float | None


@dataclass(frozen=True, slots=True)
class Spell:
    """A time of one verdict; in seconds from the start of the record.

    Attributes:
        rhythm: the verdict.
        start_s: end of the first second with it.
        end_s: end of the last one.
    """

    rhythm: Rhythm
    start_s: float
    end_s: float


@dataclass(frozen=True, slots=True)
class Heard:
    """What the watch made of a record.

    Attributes:
        spells: its verdicts, in order.
        alarms: in order.
    """

    spells: tuple[Spell, ...]
    alarms: tuple[Raised, ...]

    def lasting(
        self, rhythms: Sequence[Rhythm] = (Rhythm.VF, Rhythm.VT)
    ) -> list[tuple[float, float]]:
        """When one of some rhythms was told of, from when to when."""
        return [(s.start_s, s.end_s) for s in self.spells if s.rhythm in rhythms]


def replay(record: RhythmRecord, model: RhythmModel) -> Heard:
    """Have a record watched as if it came from a device, second by second."""
    engine = RhythmEngine()
    raised: dict[str, Raised] = {}
    seen: list[RhythmSeen] = []
    for one in _verdicts(record, model):
        seen.append(one)
        for change in engine.step(one):
            alarm = change.alarm
            ended_s = None if alarm.ended_ns is None else alarm.ended_ns / 1e9
            if change.state is State.ENDED or alarm.id not in raised:
                raised[alarm.id] = Raised(alarm.condition, alarm.raised_ns / 1e9, ended_s)
    return Heard(tuple(_spells(seen)), tuple(raised.values()))


def _verdicts(record: RhythmRecord, model: RhythmModel) -> Iterator[RhythmSeen]:
    stream = Stream(record.person, record.id)
    rhythms = StreamRhythms(stream, model)
    step = max(1, round(_CHUNK_S * record.rate))
    for first in range(0, len(record.microvolts), step):
        start_ns = round(first / record.rate * 1e9)
        samples = np.ascontiguousarray(record.microvolts[first : first + step])
        yield from rhythms.add(Chunk(stream, start_ns, record.rate, samples))


def _spells(seen: Sequence[RhythmSeen]) -> Iterator[Spell]:
    begun = 0
    for i, (one, after) in enumerate(pairwise([*seen, None])):
        assert one is not None
        if after is None or after.rhythm is not one.rhythm:
            yield Spell(one.rhythm, seen[begun].at_ns / 1e9, one.at_ns / 1e9)
            begun = i + 1
