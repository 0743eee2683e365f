"""Ten-second segments by themselves, as defibrillators are tested.

AAMI DF80 (now IEC 60601-2-4, 201.7.9.3.103) asks whether a rhythm recognition detector, given a
segment of one rhythm, calls for a shock. A segment here begins with no knowledge of its heart.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from bench.rhythm_replay import Heard
from models.rhythm.beats import cycle_rate
from models.rhythm.frontend import filtered
from models.rhythm.model import RhythmModel
from models.rhythm.verdict import Rhythm
from models.rhythm.watch import RhythmWatch
from training.rhythm.records import Label, RhythmRecord, Span

SEGMENT_S = 10.0

# Fibrillation is coarse from 200 µV, peak to peak, on; below 100 µV it counts as asystole.
_COARSE_UV = 200.0
# Tachycardia is rapid from here on: beats per minute.
RAPID_BPM = 150.0

_SINUS = frozenset({"N", "SBR"})
_KINDS = (
    "coarse VF",
    "fine VF",
    "rapid VT",
    "other VT",
    "normal sinus rhythm",
    "other rhythm",
    "asystole",
)


@dataclass(slots=True)
class SegmentCount:
    """Segments of one kind.

    Attributes:
        kind: what they show.
        persons: by person, how many there were; for how many of them VF or VT was told by
            themselves; and for how many at their end in the run of their record.
    """

    kind: str
    persons: dict[str, tuple[int, int, int]]

    def total(self, column: int = 0) -> int:
        """How many there were (0), were told by themselves (1), or in the run of things (2)."""
        return sum(counts[column] for counts in self.persons.values())


def segments(
    records: Sequence[RhythmRecord],
    model_of: Callable[[RhythmRecord], RhythmModel],
    heard: Mapping[str, Heard],
) -> list[SegmentCount]:
    """Judge every whole segment of every annotated stretch of VFDB, CUDB, MIT-BIH, Challenge 2017.

    Args:
        records: what is judged.
        model_of: the network for a record, which never saw its person.
        heard: what the watch made of each record, by its id.
    """
    counts = {kind: SegmentCount(kind, {}) for kind in _KINDS}
    for record in records:
        if record.source in {"lead1", "cpsc2021"}:
            continue
        model = model_of(record)
        for span, first in _starts(record):
            kind = _kind(record, span, first)
            if kind is None:
                continue
            alone = _is_lethal(record, first, model)
            end_s = first / record.rate + SEGMENT_S
            in_run = any(a <= end_s <= b + 1 for a, b in heard[record.id].lasting())
            n, k, r = counts[kind].persons.get(record.person, (0, 0, 0))
            counts[kind].persons[record.person] = n + 1, k + alone, r + in_run
    return [count for count in counts.values() if count.total()]


def _starts(record: RhythmRecord) -> Iterator[tuple[Span, int]]:
    for span in record.spans:
        for i in range(int((span.end_s - span.start_s) / SEGMENT_S)):
            yield span, round((span.start_s + i * SEGMENT_S) * record.rate)


def _kind(record: RhythmRecord, span: Span, first: int) -> str | None:
    samples = record.microvolts[first : first + round(SEGMENT_S * record.rate)]
    if not np.isfinite(samples).all():
        return None
    if span.label in {Label.VF, Label.VT}:
        # The middle of the segment is all of its kind.
        ecg = filtered(samples[-round(8 * record.rate) :], record.rate)
        if span.label is Label.VF:
            high, low = np.percentile(ecg, (99, 1))
            return "coarse VF" if high - low >= _COARSE_UV else "fine VF"

        rate = cycle_rate(ecg)
        return "rapid VT" if rate is not None and rate > RAPID_BPM else "other VT"
    if span.label is Label.ASYSTOLE:
        return "asystole"
    if span.label is Label.ORGANISED:
        return "normal sinus rhythm" if span.note in _SINUS else "other rhythm"
    return None


def _is_lethal(record: RhythmRecord, first: int, model: RhythmModel) -> bool:
    watch = RhythmWatch(model, record.rate)
    verdicts = watch.add(record.microvolts[first : first + round(SEGMENT_S * record.rate)])
    return any(v.rhythm in {Rhythm.VF, Rhythm.VT} for v in verdicts)
