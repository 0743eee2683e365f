"""The last beat and the last heart rate of each patient, with their times.

What people read of a heart must not be older than it looks: a rate of before the heart stood still
is not its rate.
"""

from collections import deque
from dataclasses import dataclass, field

from alerts.rhythm import Rhythm, RhythmSeen
from monitor.results import WindowResult

S = 1_000_000_000

NOW_S = 15.0
"""What is seen in signal no older than this is of now: windows come every few seconds."""

# After so long without a beat none is seen, and with it there is no heart rate.
_NO_BEAT_S = 4.0

# A rate that is older by this than the last beat says nothing of what was before.
_BEFORE_S = 60.0

# What is told as a beat just before a heart stops may be of the last that it does, and then the
# rate of these seconds is none: what it was before is a rate of before them.
_LAST_S = 8.0

_WITHOUT_BEATS = (Rhythm.VF, Rhythm.ASYSTOLE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pulse:
    """What can be said of a patient's beats. All times are UTC, in nanoseconds since 1970.

    Attributes:
        rate: the last heart rate, per minute; None where none is known.
        rate_ns: when it was.
        beating: whether beats are seen now; None where nothing is seen now.
        beat_ns: the last beat; None where none is known.
    """

    rate: float | None = None
    rate_ns: int = 0
    beating: bool | None = None
    beat_ns: int | None = None


@dataclass(slots=True)
class _Device:
    """The newest of what one device has shown."""

    verdict: RhythmSeen | None = None
    window_ns: int | None = None
    window_beat_ns: int | None = None
    fast_ns: int | None = None
    """When a tachycardia was last seen, each beat of which cannot be told."""
    rate: float | None = None
    rate_ns: int = 0
    earlier: deque[tuple[int, float]] = field(default_factory=lambda: deque(maxlen=30))
    """Rates and when they were, the newest last."""

    @property
    def sees_none(self) -> bool:
        """Whether it is known to see a heart without beats: peaks in windows are none then."""
        return self.verdict is not None and self.verdict.rhythm in _WITHOUT_BEATS

    def keep_rate(self, rate: float, at_ns: int, now_ns: int) -> None:
        # What lies in the future is of a clock that has been set back since.
        if at_ns >= self.rate_ns or self.rate_ns > now_ns:
            self.rate, self.rate_ns = rate, at_ns
            self.earlier.append((at_ns, rate))

    def rates_before(self, beat_ns: int | None) -> list[tuple[int, float]]:
        """Rates some seconds before the last beat, and when; the last known if there are none."""
        before = [
            (at_ns, rate)
            for at_ns, rate in self.earlier
            if beat_ns is not None and _LAST_S <= (beat_ns - at_ns) / S <= _BEFORE_S
        ]
        return before or list(self.earlier)[-1:]

    def beat_ns(self, now_ns: int) -> int | None:
        """The last beat, by verdicts and, where these do not gainsay it, windows."""
        beats = [] if self.sees_none else [self.window_beat_ns]
        beats += [] if self.verdict is None else [self.verdict.last_beat_ns]
        beats.append(self.fast_ns)
        return max((ns for ns in beats if ns is not None and ns <= now_ns + S), default=None)

    def beating(self, now_ns: int) -> bool | None:
        """Whether it sees beats now; None if it shows nothing now."""
        ends = [self.window_ns, None if self.verdict is None else self.verdict.at_ns]
        shown = [ns for ns in ends if ns is not None and abs(now_ns - ns) <= NOW_S * S]
        if not shown:
            return None
        if self.verdict is not None and self.verdict.at_ns in shown:
            if self.sees_none:
                return False
            if self.verdict.contact is False:
                return None
            if self.verdict.rhythm is Rhythm.VT:
                return True
        beat_ns = self.beat_ns(now_ns)
        return beat_ns is not None and max(shown) - beat_ns < _NO_BEAT_S * S


class Pulses:
    """The pulses of all patients, from windows and from verdicts about their rhythm."""

    def __init__(self) -> None:
        self._devices: dict[str, dict[str, _Device]] = {}

    def result(self, result: WindowResult) -> None:
        """Take in a window; a bad one tells nothing."""
        if not result.grade.good:
            return
        device = self._device(result.stream.patient, result.stream.device)
        device.window_ns = result.end_ns
        if len(result.r_peaks_s):
            beat_ns = result.start_ns + round(float(result.r_peaks_s[-1]) * S)
        elif result.heart_rate is not None:
            beat_ns = result.end_ns
        else:
            return
        device.window_beat_ns = beat_ns
        if result.heart_rate is not None and not device.sees_none:
            device.keep_rate(result.heart_rate, beat_ns, result.end_ns)

    def rhythm(self, seen: RhythmSeen) -> None:
        """Take in a verdict."""
        device = self._device(seen.patient, seen.device)
        device.verdict = seen
        if seen.rate is not None and seen.rhythm in (Rhythm.ORGANISED, Rhythm.VT):
            device.keep_rate(seen.rate, seen.at_ns, seen.at_ns)
        if seen.rhythm is Rhythm.VT:
            device.fast_ns = seen.at_ns

    def at(self, patient: str, now_ns: int) -> Pulse:
        """What can be said now; of several devices by the one that sees most."""
        devices = self._devices.get(patient, {}).values()
        seen = [(device.beating(now_ns), device) for device in devices]
        known = [b for b, _ in seen if b is not None]
        beating = any(known) if known else None
        telling = [device for b, device in seen if b or not beating]
        beats = [ns for device in telling if (ns := device.beat_ns(now_ns)) is not None]
        beat_ns = max(beats, default=None)
        rates = [(d.rate_ns, d.rate) for d in telling if d.rate is not None]
        if beating is False:
            rates = [one for d in telling for one in d.rates_before(beat_ns)]
        rate_ns, rate = max(rates, default=(0, None))
        if beating is False and (beat_ns is None or beat_ns - rate_ns > _BEFORE_S * S):
            rate = None
        return Pulse(rate=rate, rate_ns=rate_ns, beating=beating, beat_ns=beat_ns)

    def _device(self, patient: str, device: str) -> _Device:
        return self._devices.setdefault(patient, {}).setdefault(device, _Device())
