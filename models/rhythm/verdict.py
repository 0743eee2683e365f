"""What the watch for lethal rhythms says, once for each second of signal."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum


class Rhythm(StrEnum):
    """What is seen of a heart."""

    VF = "vf"
    """Ventricular fibrillation or flutter."""

    VT = "vt"
    """Ventricular tachycardia."""

    ASYSTOLE = "asystole"
    """No beat at all, in a signal in which one would be seen."""

    ORGANISED = "organised"
    """QRS complexes that can be trusted, none of the above."""

    UNKNOWN = "unknown"
    """Noise, a lead off, too little signal: it cannot be told."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """The verdict about a run of samples up to one of them; they are counted from its start.

    Attributes:
        end: how many samples there were when it was given.
        rhythm: what is seen.
        since: number of the sample at which that rhythm began, as well as it can be told.
        rate: beats per minute of an organised rhythm or a tachycardia; None where none can be told.
        last_beat: number of the sample of the last QRS complex that could be trusted; None if there
            was none in the run.
        probabilities: of the rhythms in the last seconds alone, before the verdicts of the seconds
            before are weighed in.
    """

    end: int
    rhythm: Rhythm
    since: int
    rate: float | None = None
    last_beat: int | None = None
    probabilities: Mapping[Rhythm, float] = field(default_factory=dict)
