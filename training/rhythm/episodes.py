"""What of a record is to be heard, and where an alarm is not false."""

from collections.abc import Iterable
from dataclasses import dataclass

from training.rhythm.records import Label, RhythmRecord

VF_S = 10.0
"""Fibrillation or flutter that lasts as long is to be heard; a shorter one is reported apart."""

SHORT_VF_S = 5.0
VT_S = 8.0
ASYSTOLE_S = 5.0

# An episode ends where an annotator saw another rhythm; one that is heard just after was heard.
_LATE_S = 8.0
_EARLY_S = 2.0

_LETHAL = Label.VF | Label.VT


@dataclass(frozen=True, slots=True)
class Episode:
    """A stretch of one lethal rhythm.

    Attributes:
        kind: VF, VT or ASYSTOLE; what may be either of the first two counts as VF.
        start_s: its onset, in seconds from the start of the record.
        end_s: its end.
    """

    kind: Label
    start_s: float
    end_s: float

    @property
    def duration_s(self) -> float:
        """Its length, in seconds."""
        return self.end_s - self.start_s


def episodes(record: RhythmRecord) -> list[Episode]:
    """All episodes of a record of which it is certain that they are lethal, in order.

    Spans of VF and VT that follow each other are episodes of their own.
    """
    found = []
    for span in record.spans:
        if span.label and not span.label & ~_LETHAL:
            kind = Label.VF if span.label & Label.VF else Label.VT
            found.append(Episode(kind, span.start_s, span.end_s))
        elif span.label == Label.ASYSTOLE:
            found.append(Episode(Label.ASYSTOLE, span.start_s, span.end_s))
    return found


def excused(record: RhythmRecord) -> list[tuple[float, float]]:
    """When an alarm may begin without being false: lethal rhythms, and what nobody knows."""
    may = _LETHAL | Label.ASYSTOLE
    return [
        (span.start_s - _EARLY_S, span.end_s + _LATE_S)
        for span in record.spans
        if not span.label or span.label & may
    ]


def is_false(record: RhythmRecord, raised_s: float) -> bool:
    """Whether an alarm that begins at a time is false."""
    return not any(start <= raised_s <= end for start, end in excused(record))


def heard_after(lasting: Iterable[tuple[float, float]], of: Episode) -> float | None:
    """How soon an episode was heard.

    Args:
        lasting: from when to when the watch told of a lethal rhythm, in order, in seconds.
        of: the episode.

    Returns:
        Seconds from its onset; None if it was not heard by a few seconds after its end.
    """
    for start, end in lasting:
        if end >= of.start_s and start <= of.end_s + _LATE_S:
            return max(0.0, start - of.start_s)
    return None
