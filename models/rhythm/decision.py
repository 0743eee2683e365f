"""Weigh what each second tells with the seconds before it: one settled verdict a second.

A second by itself is wrong too often to wake anybody. Evidence for a lethal rhythm is summed (a
one-sided cumulative sum of log odds, after Page 1954, Biometrika 41:100-115): it raises the alarm
when the sum is high enough, so that seconds which leave no doubt raise it sooner than doubtful
ones, and falls again by the same rule.
"""

import math
from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict, Field

from models.rhythm.verdict import Rhythm

# A second says no more than this, for or against, in natural log odds.
_MOST = 6.0
_LEAST_P = 1e-4

# Which of the two lethal rhythms it is goes by the last seconds, and changes only if it is clear:
# fibrillation runs into tachycardia and back.
_NAME_DECAY = 0.8
_NAME_CLEAR = 2.0

# A window is what its last three seconds are, and is told so when half of them are.
_SEEN_AFTER_S = 2.0

# Shorter times without a beat are pauses, which have a rule of their own; and a QRS complex is
# known to a few hundredths of a second.
_STILL_S = 4.8

# Within this a beat of today is one: between two of them is the longest time that nobody doubts.
_BEAT_S = 3.0

# A heart that goes on for so long with lower QRS complexes than were known is known anew: the strap
# was moved, or what was known was an artefact.
_ANEW_S = 8

# An electrode that moves throws the line further than any beat, and the amplifier takes seconds to
# come back: what is quiet then is no heart that stands still.
_THROWN = 2.0

# A heart is known after so many seconds of beats; and one artefact among them is not to count as
# more than this beside what is usual.
_KNOWN_S = 10
_MOST_LEARNT = 1.5

# What comes off the skin is flat, or picks up more than a body lets through: as in
# ``monitor.pauses``, where the factors are reasoned.
_LOUDER = 2.0
_QUIETER = 4.0
_NOISE_UV = 3.0


class Thresholds(BaseModel):
    """The numbers that the decision rests on; they come with the model.

    Attributes:
        bias: how sure a second must be of a lethal rhythm to speak for it, in log odds.
        raise_at: sum from which a lethal rhythm is told.
        most: the sum goes no higher, so that the end of a rhythm is seen soon.
        still_bias: as ``bias``, for an asystole.
        still_raise_at: as ``raise_at``, for an asystole.
        organised: probability from which a second shows a beating heart.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    bias: float
    raise_at: float = Field(gt=0)
    most: float = Field(gt=0)
    still_bias: float
    still_raise_at: float = Field(gt=0)
    organised: float = Field(gt=0, lt=1)


@dataclass(frozen=True, slots=True)
class Second:
    """What one second of a run tells by itself.

    Attributes:
        end_s: its end, in seconds from the start of the run.
        vf, vt, asystole, organised: probabilities of the last seconds; what is left is noise.
        beats: how many QRS complexes may be in the window.
        last_beat_s: time from the last of them to the end, in seconds; None if there is none.
        quiet_s: time since there was something a third as steep as the patient's usual QRS complex.
        height_uv: steepness of the window's peaks (``models.rhythm.beats``).
        top_uv: the steepest place in it.
        noise_uv: usual bend of the last seconds' samples.
        is_flat: whether the line does not move at all, as no body leaves it.
        is_clipped: whether it stands at one rail and the other: no QRS complex can be trusted.
    """

    end_s: float
    vf: float
    vt: float
    asystole: float
    organised: float
    beats: int
    last_beat_s: float | None
    quiet_s: float
    height_uv: float
    top_uv: float
    noise_uv: float
    is_flat: bool
    is_clipped: bool = False


@dataclass(frozen=True, slots=True)
class Settled:
    """The verdict of one second; times in seconds from the start of the run.

    Attributes:
        rhythm: what is seen.
        since_s: since when.
        last_beat_s: when there was last a beat that can be trusted; None if never.
    """

    rhythm: Rhythm
    since_s: float
    last_beat_s: float | None


class Decision:
    """Decides on one run, second by second.

    Args:
        thresholds: those of the model.
    """

    def __init__(self, thresholds: Thresholds) -> None:
        self._thresholds = thresholds
        self._lethal = CumulativeSum(thresholds.bias, thresholds.raise_at, thresholds.most)
        self._still = CumulativeSum(
            thresholds.still_bias, thresholds.still_raise_at, 2 * thresholds.still_raise_at
        )
        self._vf = self._vt = 0.0
        self._rhythm = Rhythm.UNKNOWN
        self._since_s = 0.0
        self._last_beat_s: float | None = None
        self._was_lethal = False
        self.reference_uv: float | None = None
        """Steepness of the patient's usual QRS complexes; None while none were seen."""
        self._noise_uv = 0.0
        self._lower_s = 0
        self._known_s = 0

    def step(self, second: Second) -> Settled:
        """Take in the next second."""
        self._lethal.add(second.vf + second.vt, second.end_s)
        self._still.add(second.asystole, second.end_s)
        rhythm, since_s = self._seen(second)
        if rhythm is Rhythm.ORGANISED:
            self._learn(second)
        if rhythm is not self._rhythm:
            self._since_s = max(since_s, 0.0)
            self._rhythm = rhythm
        return Settled(rhythm, min(self._since_s, second.end_s), self._last_beat_s)

    def _seen(self, second: Second) -> tuple[Rhythm, float]:
        if self._lethal.is_over:
            self._was_lethal = True
            return self._named(second), self._lethal.since_s
        self._vf = self._vt = 0.0
        if self._still.is_over and self._is_still(second):
            return Rhythm.ASYSTOLE, second.end_s - second.quiet_s
        if self._beats(second):
            return Rhythm.ORGANISED, second.end_s
        return Rhythm.UNKNOWN, second.end_s

    def _named(self, second: Second) -> Rhythm:
        self._vf = _NAME_DECAY * self._vf + second.vf
        self._vt = _NAME_DECAY * self._vt + second.vt
        if self._rhythm not in {Rhythm.VF, Rhythm.VT}:
            return Rhythm.VF if self._vf >= self._vt else Rhythm.VT
        if self._vf > _NAME_CLEAR * self._vt:
            return Rhythm.VF
        if self._vt > _NAME_CLEAR * self._vf:
            return Rhythm.VT
        return self._rhythm

    def _is_still(self, second: Second) -> bool:
        """Whether a heart that was seen stands still, and no electrode came off."""
        if second.is_flat or second.quiet_s < _STILL_S:
            return False
        if self.reference_uv is None:
            return self._was_lethal
        return (
            (self._known_s >= _KNOWN_S or self._was_lethal)
            and second.top_uv <= _THROWN * self.reference_uv
            and second.noise_uv <= _LOUDER * self._noise_uv + _NOISE_UV
            and self._noise_uv <= _QUIETER * second.noise_uv + _NOISE_UV
        )

    def _beats(self, second: Second) -> bool:
        seems = second.organised >= self._thresholds.organised and second.beats > 0
        if not seems or second.is_clipped:
            self._lower_s = 0
            return False
        if second.quiet_s <= _BEAT_S:
            self._lower_s = 0
            return True
        self._lower_s += 1
        if self._lower_s < _ANEW_S:
            return False
        self.reference_uv, self._lower_s = None, 0
        return True

    def _learn(self, second: Second) -> None:
        """Take in how the heart looks when it beats."""
        if second.last_beat_s is not None:
            beat_s = second.end_s - second.last_beat_s
            self._last_beat_s = max(beat_s, self._last_beat_s or 0.0)
        share = 0.1
        if self.reference_uv is None:
            self.reference_uv, self._noise_uv = second.height_uv, second.noise_uv
            self._known_s = 1
        else:
            height_uv = min(second.height_uv, _MOST_LEARNT * self.reference_uv)
            self.reference_uv += share * (height_uv - self.reference_uv)
            self._known_s += 1
            self._noise_uv += share * (second.noise_uv - self._noise_uv)


class CumulativeSum:
    """A one-sided cumulative sum of log odds.

    Args:
        bias: taken off each second's log odds.
        raise_at: over this it is over; until it falls under half of it.
        most: it goes no higher.
    """

    def __init__(self, bias: float, raise_at: float, most: float) -> None:
        self._bias, self._raise_at, self._most = bias, raise_at, most
        self._value = 0.0
        self.is_over = False
        self.since_s = 0.0

    def add(self, probability: float, end_s: float) -> None:
        """Take in a second that ends at ``end_s``."""
        p = min(max(probability, _LEAST_P), 1 - _LEAST_P)
        odds = min(max(math.log(p / (1 - p)), -_MOST), _MOST)
        if self._value == 0.0:
            self.since_s = max(0.0, end_s - _SEEN_AFTER_S)
        self._value = min(max(self._value + odds - self._bias, 0.0), self._most)
        self.is_over = self._value > self._raise_at * (0.5 if self.is_over else 1.0)
