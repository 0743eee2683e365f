"""What the rules for lethal rhythms take in: one verdict a second about one device's signal."""

from dataclasses import dataclass
from enum import StrEnum


class Rhythm(StrEnum):
    """What is seen of a heart, second by second.

    The first three are conditions of the same name: no blood is pumped, or soon none will be.
    """

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


LETHAL = (Rhythm.VF, Rhythm.VT, Rhythm.ASYSTOLE)
"""The rhythms that raise an alarm of high priority by themselves."""


def is_lethal(condition: str) -> bool:
    """Whether a condition is that of a lethal rhythm, which nothing may hold back."""
    return condition in LETHAL


@dataclass(frozen=True, slots=True, kw_only=True)
class RhythmSeen:
    """The verdict about one device's signal up to an instant; there is one for each second of it.

    Attributes:
        patient: whose heart.
        device: whose signal.
        at_ns: UTC end of the signal it rests on, in nanoseconds since 1970.
        rhythm: what is seen.
        since_ns: UTC onset of that rhythm, as well as it can be told.
        rate: beats per minute of an organised rhythm or a tachycardia; None where none can be told.
        last_beat_ns: UTC time of the last QRS complex that could be trusted; None if there was none
            since the signal began.
        contact: whether the electrodes touch the skin; None where the device does not say.
    """

    patient: str
    device: str
    at_ns: int
    rhythm: Rhythm
    since_ns: int
    rate: float | None = None
    last_beat_ns: int | None = None
    contact: bool | None = None
