"""The path of a strap that sends RR intervals only: its windows, and what is said of them.

The windows are as long and as near each other as those of an ECG, so that the alarm rules for rate
and pauses, which count windows, mean the same time whatever the strap sends. The AF indication of a
window (``monitor.irregularity``) looks further back, over the minute that ends with it: ten beats
tell nothing of irregularity. Until a minute has come without a gap there is none.

An interval is of the moment at which its packet came; straps send no time. So a window's intervals
are checked against the time between the packets that bound them: beats that the strap left out, or
told twice, show as a difference.

A pause is seen when the beat after it comes. A strap that tells of no beat at all may have lost the
skin as well as the heart: such a window is bad, as one of an ECG without any QRS is.
"""

from collections import deque
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from ingest.chunk import Stream
from ingest.rr import RrIntervals
from monitor import irregularity
from monitor.analysis import SHORTEST_S
from monitor.quality import Grade, Quality, Reason
from monitor.results import WindowResult
from monitor.window import Gap

SILENCE_NS = 5_000_000_000
"""So long without a packet ends a run: straps send one a second, with or without a beat in it."""

# A beat comes up to a second before its packet, at both ends of a stretch, and the radio adds to
# it: what intervals and clock disagree by for that reason alone.
_JITTER_S = 2.0

# An arrival this much before the last one is disorder; more is a clock that was set back.
_DISORDER_NS = 1_000_000_000

# 240 per minute. What is shorter is a T wave or a step, and more than this share of them is noise.
_SHORTEST_RR_S = 0.25
_ARTEFACTS = 0.1
# From here on an interval is a pause, and no part of a rhythm; and a strap that has told of no beat
# for so long may not be on the skin.
_LONGEST_BEAT_S = 4.0
# No heart comes back by itself after longer; the strap was off.
_LONGEST_PAUSE_S = 20.0

LOOK_BACK_S = 60.0
"""How far a window looks back for the rhythm, in seconds."""

_FEWEST = 30

_RR_END_S = 64.0
_MOST_INTERVALS = 255

# Several times what a look back and a window hold; for a source whose clock stands still.
_MOST_PACKETS = 2048


@dataclass(frozen=True, slots=True, eq=False)
class Stretch:
    """The RR intervals that ended in a stretch of time.

    Attributes:
        rr_s: float64 [n], in seconds, oldest first.
        elapsed_s: the time from the last packet with intervals before it to the last in it.
        silent_s: the time from the last packet with intervals in it to its end.
        contact: False if any packet in it said the electrodes are off; None if none said.
    """

    rr_s: NDArray[np.float64]
    elapsed_s: float
    silent_s: float
    contact: bool | None

    @property
    def complete(self) -> bool:
        """Whether the intervals account for the time."""
        return (
            len(self.rr_s) > 1
            and self.silent_s <= _LONGEST_BEAT_S
            and abs(float(self.rr_s.sum()) - self.elapsed_s) <= _JITTER_S
            and float(self.rr_s.max()) <= _LONGEST_PAUSE_S
        )

    @property
    def noisy(self) -> bool:
        """Whether too many intervals are too short for a heart."""
        return float(np.mean(self.rr_s < _SHORTEST_RR_S)) > _ARTEFACTS


@dataclass(frozen=True, slots=True, eq=False)
class RrWindow:
    """A fixed length of one stream's RR intervals.

    Attributes:
        stream: whose heart it is.
        start_ns: UTC time of its start, in nanoseconds since 1970.
        duration_s: its length, in seconds.
        beats: the intervals in it.
        minute: those of the minute that ends with it; None where no whole minute came unbroken.
    """

    stream: Stream
    start_ns: int
    duration_s: float
    beats: Stretch
    minute: Stretch | None


@dataclass(frozen=True, slots=True)
class RrCut:
    """What one packet led to."""

    windows: list[RrWindow] = field(default_factory=list)
    gaps: list[Gap] = field(default_factory=list)


class RrRing:
    """Cuts windows from the RR intervals of a stream, as ``monitor.ring`` does from samples.

    A run ends where packets stay away for 5 s, unless the next one's intervals account for that
    time, or where the clock is set back.

    Args:
        stream: whose heart it is.
        length_s: length of a window, in seconds.
        hop_s: from the start of one window to that of the next, in seconds.
    """

    def __init__(self, stream: Stream, *, length_s: float, hop_s: float) -> None:
        self.stream = stream
        self._length_ns = round(length_s * 1e9)
        self._hop_ns = round(hop_s * 1e9)
        self._begin()

    def add(self, packet: RrIntervals) -> RrCut:
        """Take the next packet; give the windows that are now complete and the gap before it.

        A packet that is here already changes nothing.
        """
        cut = RrCut()
        if self._is_repeat(packet):
            return cut
        if self._packets:
            gap = self._gap_before(packet)
            if gap is not None:
                cut.gaps.append(gap)
                cut.windows.extend(self.finish())
        self._append(packet)
        cut.windows.extend(self._complete())
        return cut

    def finish(self) -> list[RrWindow]:
        """End the run; give the one window that holds what no window has held yet, if any.

        It is of full length and ends with the run; if the run is shorter than a window, so is it.
        """
        windows = []
        if self._packets and self._end_ns > self._covered_ns:
            start = max(self._end_ns - self._length_ns, self._start_ns)
            windows.append(self._window(start, self._end_ns))
        self._begin()
        return windows

    def _begin(self) -> None:
        # Each with the time at which it came, which never runs backwards.
        self._packets: deque[tuple[int, RrIntervals]] = deque(maxlen=_MOST_PACKETS)
        self._start_ns = 0
        self._next_ns = 0  # start of the next window
        self._covered_ns = 0  # end of the last window
        self._end_ns = 0

    def _append(self, packet: RrIntervals) -> None:
        if self._packets:
            self._end_ns = max(self._end_ns, packet.end_ns)
        else:
            self._start_ns = self._next_ns = self._covered_ns = start_ns(packet)
            self._end_ns = packet.end_ns
        self._packets.append((self._end_ns, packet))

    def _is_repeat(self, packet: RrIntervals) -> bool:
        return any(
            known.end_ns == packet.end_ns
            and known.rr_s == packet.rr_s
            and known.heart_rate == packet.heart_rate
            and known.contact == packet.contact
            for _, known in self._packets
        )

    def _gap_before(self, packet: RrIntervals) -> Gap | None:
        silence_ns = packet.end_ns - self._end_ns
        if silence_ns < -_DISORDER_NS:
            return Gap(self.stream, self._end_ns, packet.end_ns, "clock set back")
        begun_ns = start_ns(packet)
        if silence_ns > SILENCE_NS and begun_ns - self._end_ns > _JITTER_S * 1e9:
            return Gap(self.stream, self._end_ns, begun_ns, packet.gap_cause or "no data")
        return None

    def _complete(self) -> list[RrWindow]:
        windows = []
        while self._next_ns + self._length_ns <= self._end_ns:
            windows.append(self._window(self._next_ns, self._next_ns + self._length_ns))
            self._next_ns += self._hop_ns
        if windows:
            # The run may end at any moment, and its last window is yet to look back from there.
            self._forget(self._covered_ns - round(LOOK_BACK_S * 1e9))
        return windows

    def _forget(self, before_ns: int) -> None:
        """Drop what no window needs: all before the last packet with beats up to a moment."""
        at = [i for i, (ns, p) in enumerate(self._packets) if ns <= before_ns and p.rr_s]
        for _ in range(at[-1] if at else 0):
            self._packets.popleft()

    def _window(self, start: int, end: int) -> RrWindow:
        minute = end - round(LOOK_BACK_S * 1e9)
        self._covered_ns = end
        return RrWindow(
            self.stream,
            start,
            (end - start) / 1e9,
            self._stretch(start, end),
            self._stretch(minute, end) if minute >= self._start_ns else None,
        )

    def _stretch(self, start: int, end: int) -> Stretch:
        inside = [(ns, p) for ns, p in self._packets if start < ns <= end]
        since = max((ns for ns, p in self._packets if ns <= start and p.rr_s), default=None)
        last = max((ns for ns, p in inside if p.rr_s), default=start)
        contacts = [p.contact for _, p in inside]
        return Stretch(
            np.array([rr for _, p in inside for rr in p.rr_s], np.float64),
            (last - (self._start_ns if since is None else since)) / 1e9,
            (end - last) / 1e9,
            None if all(c is None for c in contacts) else False not in contacts,
        )


def is_possible(packet: RrIntervals) -> bool:
    """Whether a Heart Rate Measurement can hold it.

    That is a rate and intervals of 16 bits, these in 1/1024 s (GATT Specification Supplement, Heart
    Rate Measurement), in an attribute of 512 bytes at most (Core Specification, Vol. 3, Part F).
    """
    rate = packet.heart_rate
    return (
        (rate is None or 0 <= rate <= 0xFFFF)
        and len(packet.rr_s) <= _MOST_INTERVALS
        and all(0 < rr < _RR_END_S for rr in packet.rr_s)
    )


def start_ns(packet: RrIntervals) -> int:
    """UTC time at which the first interval of a packet began, in nanoseconds since 1970."""
    return packet.end_ns - round(sum(packet.rr_s) * 1e9)


def judge(window: RrWindow) -> WindowResult:
    """Grade a window and say what its RR intervals tell: rate, longest interval, AF indication."""
    beats = window.beats
    reasons = []
    if beats.contact is False:
        reasons.append(Reason.CONTACT)
    if window.duration_s < SHORTEST_S or not beats.complete:
        reasons.append(Reason.GAP)
    elif beats.noisy:
        reasons.append(Reason.NOISY)
    good = not reasons
    found = _af_probability(window.minute) if good else None
    return WindowResult(
        stream=window.stream,
        start_ns=window.start_ns,
        duration_s=window.duration_s,
        grade=Grade(Quality.GOOD) if good else Grade(Quality.BAD, tuple(reasons)),
        heart_rate=60 / float(beats.rr_s.mean()) if good else None,
        longest_rr_s=float(beats.rr_s.max()) if good else None,
        r_peaks_s=_r_peaks(window) if good else np.empty(0),
        model=None if found is None else irregularity.MODEL,
        probabilities=None if found is None else np.array([found], np.float32),
    )


def _af_probability(minute: Stretch | None) -> float | None:
    if minute is None or minute.contact is False or not minute.complete or minute.noisy:
        return None
    rr_s = minute.rr_s
    rhythm = rr_s[(rr_s >= _SHORTEST_RR_S) & (rr_s <= _LONGEST_BEAT_S)]
    return irregularity.probability(rhythm) if len(rhythm) >= _FEWEST else None


def _r_peaks(window: RrWindow) -> NDArray[np.float64]:
    """When the beats were, from the last packet backwards: float64 [b], seconds from the start."""
    rr_s = window.beats.rr_s
    last = window.duration_s - window.beats.silent_s
    times = last - np.concatenate((np.cumsum(rr_s[::-1])[::-1], [0.0]))
    return times[times >= 0]
