"""Recordings through the rules that watch patients: which alarms there would have been, and when.

Rings, analysis, pause watch, observations, the watch for lethal rhythms and the engines are the
daemon's own. There is no clock and no
database; the times in all results count from the start of the recording.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from alerts.conditions import Change, Observation, State
from alerts.engine import Engine
from alerts.lethal import RhythmEngine
from alerts.policy import Policy
from alerts.rhythm import Rhythm, RhythmSeen
from ingest.chunk import Chunk, Stream
from ingest.recordings import Recording
from models.rhythm.model import RhythmModel
from monitor.analysis import Analyzer
from monitor.observe import observation
from monitor.pauses import PauseWatch
from monitor.rhythms import StreamRhythms
from monitor.ring import Ring
from monitor.window import Window

# As live sources send; the pause watch hears of a chunk no sooner than at its end.
_CHUNK_S = 1.0
_BATCH = 16


@dataclass(frozen=True, slots=True)
class SimulatedAlarm:
    """An alarm there would have been; times in seconds from the start of the recording.

    Attributes:
        condition: as ``alerts.conditions.Alarm.condition``.
        priority: high, medium or low.
        raised_s: end of what decided: a window, or the signal of a verdict.
        ended_s: when it ended, None if it was still on at the end of the recording.
        reason: why it was raised, one line.
    """

    condition: str
    priority: str
    raised_s: float
    ended_s: float | None
    reason: str


def observe(
    recording: Recording,
    lead: str,
    analyzer: Analyzer,
    *,
    length_s: float,
    hop_s: float,
    pause_s: float | None,
) -> Iterator[Observation]:
    """What the alarm engine would have seen of a recording, in order.

    Args:
        recording: what was recorded.
        lead: the name of the lead to read.
        analyzer: what reads windows.
        length_s: length of a window, in seconds.
        hop_s: from the start of one window to that of the next, in seconds.
        pause_s: the patient's shortest pause that counts, in seconds; None to watch for none.
    """
    waiting: list[Window | Observation] = []
    for seen in _cut(recording, lead, length_s, hop_s, pause_s):
        waiting.append(seen)
        if len(waiting) == _BATCH:
            yield from _analyzed(waiting, analyzer)
            waiting.clear()
    yield from _analyzed(waiting, analyzer)


def hear(recording: Recording, lead: str, model: RhythmModel) -> Iterator[RhythmSeen]:
    """The verdicts of the watch for lethal rhythms on a recording, in order.

    Args:
        recording: what was recorded.
        lead: the name of the lead to read.
        model: what tells rhythms apart.
    """
    rhythms = StreamRhythms(_stream(recording), model)
    for chunk in chunks(recording, lead):
        yield from rhythms.add(chunk)


def simulate(
    observations: Iterable[Observation], policy: Policy, heard: Iterable[RhythmSeen] = ()
) -> list[SimulatedAlarm]:
    """The alarms that a policy, and verdicts, raise on one patient, in the order of time."""
    engine, rhythms = Engine(lambda _: policy), RhythmEngine()
    changes = [change for seen in observations for change in engine.step(seen)]
    changes += [change for seen in heard for change in rhythms.step(seen)]
    raised: dict[str, Change] = {}
    ended_ns: dict[str, int] = {}
    for change in sorted(changes, key=lambda change: change.at_ns):
        if change.state is State.ACTIVE:
            raised.setdefault(change.alarm.id, change)
        else:
            ended_ns[change.alarm.id] = change.at_ns
    return [
        SimulatedAlarm(
            change.alarm.condition,
            change.alarm.priority.value,
            change.alarm.raised_ns / 1e9,
            ended_ns[alarm] / 1e9 if alarm in ended_ns else None,
            change.reason,
        )
        for alarm, change in raised.items()
    ]


def answers(condition: str) -> tuple[str, ...]:
    """The conditions whose alarm tells of one: fibrillation is seen as tachycardia, and back."""
    same = (Rhythm.VF.value, Rhythm.VT.value)
    return same if condition in same else (condition,)


def seconds_to_alarm(
    alarms: Sequence[SimulatedAlarm], condition: str, onset_s: float = 0.0
) -> float | None:
    """From the onset to the first alarm that ``answers``, none if it is on already, or None."""
    return next(
        (
            max(0.0, alarm.raised_s - onset_s)
            for alarm in alarms
            if alarm.condition in answers(condition)
            and (alarm.ended_s is None or alarm.ended_s > onset_s)
        ),
        None,
    )


def chunks(recording: Recording, lead: str, chunk_s: float = _CHUNK_S) -> Iterator[Chunk]:
    """A recording in pieces; their times count from its start."""
    stream = _stream(recording)
    row = recording.lead_index(lead)
    step = max(1, round(chunk_s * recording.rate))
    for segment in recording.segments:
        samples = segment.microvolts[row]
        for first in range(0, len(samples), step):
            start_ns = round((segment.start_s + first / recording.rate) * 1e9)
            yield Chunk(stream, start_ns, recording.rate, samples[first : first + step])


def _stream(recording: Recording) -> Stream:
    return Stream("recording", recording.name)


def _cut(
    recording: Recording, lead: str, length_s: float, hop_s: float, pause_s: float | None
) -> Iterator[Window | Observation]:
    """Windows to analyse and pauses seen ahead of them, in the order in which they are complete."""
    stream = _stream(recording)
    ring = Ring(stream, length_s=length_s, hop_s=hop_s)
    pauses = None if pause_s is None else PauseWatch(stream, pause_s)
    for chunk in chunks(recording, lead):
        pause = pauses.add(chunk) if pauses else None
        if pause is not None:
            yield pause
        yield from ring.add(chunk).windows
    yield from ring.finish()


def _analyzed(seen: Sequence[Window | Observation], analyzer: Analyzer) -> Iterator[Observation]:
    results = iter(analyzer.analyze([one for one in seen if isinstance(one, Window)]))
    for one in seen:
        yield observation(next(results)) if isinstance(one, Window) else one
