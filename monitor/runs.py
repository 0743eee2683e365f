"""Runs of samples that follow each other, from what radio, electrodes and clocks make of them."""

from collections import deque
from collections.abc import Iterator
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from models.rhythm.verdict import Verdict

# One frame of a strap over Bluetooth lasts half a second. A heart that fibrillates over a link that
# loses one now and then must be heard; what is missing for longer may have been anything.
BRIDGED_NS = 1_000_000_000
"""A gap of at most this is bridged, in nanoseconds."""

# A step between chunks up to this is a device's own idea of its rate and no missing samples.
_RATE_ERROR = 0.03
_MOST_JITTER_S = 0.05

# No heart gives a hundredth of it, and electrodes less than half: what is larger, a device made up.
# Over MQTT it is refused.
_MOST_UV = 1e6

# Between chunks less than this passes for jitter; within one it is known to be lost.
_MENDED_S = 0.1

# A clock that is corrected by up to this much does not interrupt the samples.
_UNSTEADY_S = 0.5

# So much of a run is kept, to recognise samples that come again.
_HELD_S = 10.0

# Of a run so much is remembered of when its samples were; onsets and beats are told of sooner.
_TIMED_S = 120.0

_SECOND_NS = 1_000_000_000


class Watch(Protocol):
    """What watches one run of samples, as ``models.rhythm.watch.RhythmWatch`` does."""

    def add(self, microvolts: NDArray[np.float32]) -> list[Verdict]:
        """Take the next samples, [n] in µV, all finite; the verdicts that they complete."""
        ...


class Run:
    """Samples that follow each other, and when they were.

    Args:
        watch: watches them.
        rate: samples per second, in Hz.
        start_ns: UTC time of the first, in nanoseconds.
    """

    def __init__(self, watch: Watch, rate: float, start_ns: int) -> None:
        self.rate = rate
        self.has_verdicts = False
        """Whether it was ever long enough for one."""
        self._watch = watch
        self._total = 0
        self._solid = 0  # of them, those since the last bridge
        self._held: NDArray[np.float32] = np.empty(0, dtype=np.float32)
        self._pieces: deque[tuple[int, int]] = deque()  # first sample and its time
        self._end_ns = start_ns
        self._last_s = 0.0
        # Of what was told of last, and since when: it may be hours old.
        self._since = (-1, 0)
        self._beat = (-1, 0)

    def fit(
        self, samples: NDArray[np.float32], start_ns: int
    ) -> tuple[NDArray[np.float32], int] | None:
        """The samples that this run has not, and when they begin; None if they are of another."""
        missing = self._missing(start_ns)
        if missing > 0:
            bridged = missing <= min(BRIDGED_NS / 1e9 * self.rate, self._solid)
            return (samples, start_ns) if bridged else None
        at = len(self._held) + missing
        if missing == 0 or at < 0:
            return None if missing else (samples, start_ns)
        known = self._held[at : at + len(samples)]
        if np.array_equal(known, samples[: len(known)]):
            left = len(known)
            return samples[left:], start_ns + round(left / self.rate * 1e9)
        return (samples, start_ns) if -missing <= _UNSTEADY_S * self.rate else None

    def add(self, samples: NDArray[np.float32], start_ns: int) -> list[Verdict]:
        """Take samples that ``fit`` gave; the verdicts that they complete."""
        verdicts: list[Verdict] = []
        missing = self._missing(start_ns)
        if missing > 0:
            self._pieces.append((self._total, self._end_ns))
            verdicts += self._feed(_bridge(self._held[-missing:], float(samples[0])))
            self._solid = 0
        self._pieces.append((self._total, start_ns))
        self._last_s = len(samples) / self.rate
        self._end_ns = start_ns + round(self._last_s * 1e9)
        self._solid += len(samples)
        return verdicts + self._feed(samples)

    def time(self, number: int) -> int:
        """UTC ns of a sample, by the chunk it came with."""
        of = (piece for piece in reversed(self._pieces) if piece[0] < number)
        index, start_ns = next(of, self._pieces[0])
        return start_ns + round((number - index) / self.rate * 1e9)

    def since_ns(self, number: int) -> int:
        """UTC ns of an onset, as it was when it was first told of."""
        if self._since[0] != number:
            self._since = number, self.time(number)
        return self._since[1]

    def beat_ns(self, number: int) -> int:
        """UTC ns of a beat, as it was when it was first told of."""
        if self._beat[0] != number:
            self._beat = number, self.time(number)
        return self._beat[1]

    def _missing(self, start_ns: int) -> int:
        """How many samples lie between the end and a time; those before it count as negative."""
        step_s = (start_ns - self._end_ns) / 1e9
        tolerance_s = 1.5 / self.rate + min(_RATE_ERROR * self._last_s, _MOST_JITTER_S)
        return 0 if abs(step_s) <= tolerance_s else round(step_s * self.rate)

    def _feed(self, samples: NDArray[np.float32]) -> list[Verdict]:
        held = round(_HELD_S * self.rate)
        self._held = np.concatenate((self._held, samples))[-held:]
        self._total += len(samples)
        timed = self._total - round(_TIMED_S * self.rate)
        while len(self._pieces) > 1 and self._pieces[1][0] <= timed:
            self._pieces.popleft()
        verdicts = self._watch.add(samples)
        self.has_verdicts = self.has_verdicts or bool(verdicts)
        return verdicts


class Blind:
    """Time in which nothing can be told, and the seconds of it that were told of.

    Args:
        since_ns: UTC time of its start, in nanoseconds.
        silent_ns: for so long nothing is told of it.
    """

    def __init__(self, since_ns: int, silent_ns: int) -> None:
        self.since_ns = since_ns
        self._told_ns = since_ns + silent_ns
        self._end_ns = since_ns

    def ends_at(self, at_ns: int) -> bool:
        """Say whether what begins then goes on with it."""
        return abs(at_ns - self._end_ns) <= BRIDGED_NS

    def last_until(self, end_ns: int) -> Iterator[int]:
        """Let it last until then; the UTC ends of the seconds that are complete."""
        self._end_ns = end_ns
        while self._told_ns + _SECOND_NS <= end_ns:
            self._told_ns += _SECOND_NS
            yield self._told_ns


def going_on(blind: Blind | None, start_ns: int, silent_ns: int) -> Blind:
    """Return the time that ``start_ns`` goes on with, or one that begins there."""
    if blind is not None and blind.ends_at(start_ns):
        return blind
    return Blind(start_ns, silent_ns)


def _bridge(before: NDArray[np.float32], to: float) -> NDArray[np.float32]:
    """Mirror samples, [n], and tilt them so that they end at a value.

    Fibrillation goes on in it, and a regular heart beats as often as before; a straight line would
    be a pause. A beat that it invents is at most as late as the gap is long.
    """
    tilt = np.linspace(0.0, to - float(before[0]), len(before) + 2)[1:-1]
    return (before[::-1] + tilt).astype(np.float32)


def possible(microvolts: NDArray[np.float32]) -> NDArray[np.float32]:
    """Take samples, [n] in µV, of over a volt for lost: they become NaN."""
    within = np.abs(microvolts) <= _MOST_UV
    return microvolts if within.all() else np.where(within, microvolts, np.float32(np.nan))


def mended(samples: NDArray[np.float32], rate: float) -> NDArray[np.float32]:
    """Draw a line where samples, [n] at ``rate`` Hz, are not finite for 0.1 s; not at the ends."""
    most = round(_MENDED_S * rate)
    finite = np.isfinite(samples)
    # A line through less than half of it shows nothing.
    if finite.all() or finite.mean() < 0.5:
        return samples
    mended = samples.copy()
    for first, last, there in stretches(finite):
        if not there and first > 0 and last < len(samples) and last - first <= most:
            line = np.linspace(samples[first - 1], samples[last], last - first + 2)
            mended[first:last] = line[1:-1]
    return mended


def stretches(finite: NDArray[np.bool_]) -> list[tuple[int, int, bool]]:
    """From where to where values, [n], are the same, and what they are."""
    if not len(finite):
        return []
    if finite.all():  # as nearly always
        return [(0, len(finite), True)]
    steps = (np.flatnonzero(np.diff(finite)) + 1).tolist()
    first = bool(finite[0])
    bounds = zip([0, *steps], [*steps, len(finite)], strict=True)
    return [(start, end, first is (i % 2 == 0)) for i, (start, end) in enumerate(bounds)]
