"""Sees a pause while it lasts: what windows every few seconds would tell late, or never.

A window is complete seconds after a pause has begun, and one that holds hardly a beat is graded
bad, for nothing can be read in it. Here the beats before the pause vouch for it: the ten seconds up
to now must be good, and the last R peak in them long ago. From then on the line is held against the
QRS complexes that were seen before, until such come back.

An electrode that comes off must not be taken for a heart that stands still. What came off is flat,
at a rail, or picks up more than a body lets through; a heart that pauses leaves breath, muscle and
the amplifier's noise as they were.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

import numpy as np
import structlog
from numpy.typing import NDArray

from alerts.conditions import Observation
from ingest.chunk import Chunk, Stream
from monitor.beats import Beats
from monitor.filters import LOWEST_RATE, Bands, split
from monitor.metrics import WINDOWS_FAILED
from monitor.quality import Reason, assess
from monitor.window import Window

_log = structlog.get_logger()

# The grade of ``monitor.quality`` was fitted on windows of this length.
_LENGTH_S = 10.0

# How long to wait for the next look where there is no beat to count from.
_RETRY_S = 1.0

# The engine remembers a number of observations; one a hop leaves most of that to the windows.
_REPEAT_S = 5.0

# A QRS complex is at least this high beside the usual one: in the QRS band or, as a wide one of the
# ventricles, in the whole ECG. P waves stay below both.
_LIKE_A_BEAT = 0.25
_SWINGS_LIKE_A_BEAT = 0.35
_QRS_HALF_S = 0.06
_SWING_S = 0.2

# Beats are as high as before to within this for a whole window before they vouch for anything, or a
# burst of artefacts passes for a heart and the heart after it for none.
_AS_BEFORE = 2.5

# What has this share of its swing in the QRS band is a narrow QRS complex and no P wave.
_NARROW = 0.3

# ST segment and T wave belong to the beat before, a rising QRS complex to the one after.
_AFTER_BEAT_S = 0.45
_BEFORE_BEAT_S = 0.15

# The noise of a body stays within this of what it was before the pause, and a little for the steps
# of an ADC. Whoever faints goes limp, but the mains hum and the amplifier go on.
_LOUDER = 2.0
_QUIETER = 4.0
_NOISE_UV = 3.0

# For so long in a pause QRS complexes as before it are looked for. A heart may go on with lower
# ones; then the windows alone decide.
_VOUCHED_S = 300.0

# An R peak is known to within a sample of the filtered signal, of 125 Hz, and so is the next.
_RESOLUTION_S = 0.016

# A step between chunks beyond this is missing samples and not a device's own idea of its rate.
_RATE_ERROR = 0.03
_MOST_JITTER_S = 0.05

_NOBODY = Stream("", "")


@dataclass(frozen=True, slots=True)
class _Known:
    """The heart as it was last seen in a good window.

    Attributes:
        beat: number in the run of the sample at the last R peak.
        height: usual height of a QRS complex in its band, in µV.
        swing: from the lowest to the highest point of a QRS complex, usually, in µV.
        noise: as ``_Line.noise`` has it, in µV.
    """

    beat: int
    height: float
    swing: float
    noise: float


@dataclass(frozen=True, slots=True, eq=False)
class _Line:
    """A stretch of samples and its bands, all in µV."""

    samples: NDArray[np.float32]
    rate: float
    bands: Bands

    @classmethod
    def of(cls, samples: NDArray[np.float32], rate: float) -> Self | None:
        """None for samples that do not vary."""
        x = samples.astype(np.float64)
        bands = split(x, rate)
        if bands is None:
            return None
        # They come in units of the largest deviation.
        unit = float(np.abs(x - x.mean()).max())
        return cls(samples, rate, Bands(bands.rate, bands.ecg * unit, bands.qrs * unit))

    def heights(self, peaks_s: NDArray[np.float64]) -> NDArray[np.float64]:
        """Of the QRS complexes at R peaks in their band, [b]."""
        highest: NDArray[np.float64] = self._around(self.bands.qrs, peaks_s, _QRS_HALF_S).max(
            axis=1
        )
        return highest

    def swings(self, peaks_s: NDArray[np.float64]) -> NDArray[np.float64]:
        """From the lowest to the highest point about R peaks, [b]."""
        around = self._around(self.bands.ecg, peaks_s, _SWING_S / 2)
        swings: NDArray[np.float64] = np.ptp(around, axis=1)
        return swings

    def _around(
        self, band: NDArray[np.float64], peaks_s: NDArray[np.float64], half_s: float
    ) -> NDArray[np.float64]:
        half = round(half_s * self.bands.rate)
        at = np.round(peaks_s * self.bands.rate).astype(np.intp)
        around = np.clip(at[:, None] + np.arange(-half, half + 1), 0, len(band) - 1)
        values: NDArray[np.float64] = band[around]
        return values

    def last_beat(self, begin_s: float, end_s: float | None, known: _Known) -> float | None:
        """When there was last something as high or as wide as a beat, or a part of it."""
        rate = self.bands.rate
        first = round(begin_s * rate)
        last = None if end_s is None else round(end_s * rate)
        high = np.flatnonzero(self.bands.qrs[first:last] >= _LIKE_A_BEAT * known.height)
        at = [int(high[-1])] if len(high) else []
        ecg = self.bands.ecg[first:last]
        width = round(_SWING_S * rate)
        if len(ecg) > width:
            swings = np.ptp(np.lib.stride_tricks.sliding_window_view(ecg, width), axis=1)
            wide = np.flatnonzero(swings >= _SWINGS_LIKE_A_BEAT * known.swing)
            at += [int(wide[-1]) + width // 2] if len(wide) else []
        return (first + max(at)) / rate if at else None

    def noise(self, begin_s: float, end_s: float | None) -> float:
        """The usual bend from sample to sample, in µV: waves are smooth, QRS complexes short."""
        last = None if end_s is None else round(end_s * self.rate)
        some = self.samples[round(begin_s * self.rate) : last]
        return float(np.median(np.abs(np.diff(some, 2)))) if len(some) > 2 else 0.0

    def is_a_body(self, begin_s: float, end_s: float | None, known: _Known) -> bool:
        """Whether the noise is about what it was before."""
        noise = self.noise(begin_s, end_s)
        return (
            noise <= _LOUDER * known.noise + _NOISE_UV
            and known.noise <= _QUIETER * noise + _NOISE_UV
        )

    def is_calm(self, begin_s: float, end_s: float | None, known: _Known) -> bool:
        """Whether there is a body, nothing like a beat, and no heart that artefacts outshone."""
        return (
            self.last_beat(begin_s, end_s, known) is None
            and self.is_a_body(begin_s, end_s, known)
            and not self._beats_on(begin_s, end_s)
        )

    def _beats_on(self, begin_s: float, end_s: float | None) -> bool:
        """Whether, by itself, it is a good window of narrow QRS complexes."""
        last = None if end_s is None else round(end_s * self.rate)
        quiet = self.samples[round(begin_s * self.rate) : last]
        _, beats = assess(Window(_NOBODY, 0, self.rate, quiet))
        line = _Line.of(quiet, self.rate)
        if beats is None or line is None or not len(beats.r_peaks_s):
            return False
        return bool(
            np.median(line.heights(beats.r_peaks_s))
            > _NARROW * np.median(line.swings(beats.r_peaks_s))
        )


class PauseWatch:
    """Watches one stream, chunk by chunk, for times without a beat.

    It looks when a pause could have become long enough: every three or four seconds in an ordinary
    heart, at the cost of grading one window, and every second in noise or in a pause.

    Args:
        stream: whose samples come.
        limit_s: the shortest time without a beat that counts, in seconds, as the patient's
            ``alerts.policy.PauseRule`` has it.
    """

    def __init__(self, stream: Stream, limit_s: float) -> None:
        self._stream = stream
        self._limit_s = limit_s
        self._begin(0.0)

    def _begin(self, rate: float) -> None:
        """Start a run of samples that follow each other; all counts are of its samples."""
        self._rate = rate
        self._samples: NDArray[np.float32] = np.empty(0, dtype=np.float32)
        self._total = 0  # how many there were
        self._due = 0  # how many there must be for the next look
        self._told = 0  # how many there were when a pause was told of
        self._known: _Known | None = None
        self._height = 0.0  # of a QRS complex, usually
        self._steady = 0  # how many there were when it was first of that height
        self._end_ns: int | None = None
        self._last_s = 0.0

    def add(self, chunk: Chunk) -> Observation | None:
        """Take the next chunk; say if up to its end there has been no beat for too long.

        After missing samples, lost contact, another rate or a clock step beats must be seen anew,
        for twenty seconds. Of a chunk longer than ten seconds only the end is looked at.

        Returns:
            Once a pause is long enough, and every five seconds while it goes on, what the alarm
            engine is to see: the time since the last beat, its last ten seconds at most. It says
            nothing but ``longest_rr_s``. None at all other times.
        """
        if not len(chunk.microvolts) or not chunk.rate >= LOWEST_RATE:
            return None
        if not self._follows(chunk):
            self._begin(chunk.rate)
        if chunk.contact is False or not np.isfinite(chunk.microvolts).all():
            self._begin(chunk.rate)
            return None
        self._end_ns = chunk.end_ns
        self._last_s = len(chunk.microvolts) / chunk.rate
        length = round(_LENGTH_S * self._rate)
        self._samples = np.concatenate((self._samples, chunk.microvolts))[-length:]
        self._total += len(chunk.microvolts)
        if self._total < max(length, self._due):
            return None
        pause = self._look()
        if pause is None:
            return None
        self._told = self._total
        begin, end = pause
        end_ns = chunk.end_ns - self._ns(self._total - end)
        begin_ns = end_ns - min(self._ns(end - begin), round(_LENGTH_S * 1e9))
        return Observation(
            self._stream.patient,
            begin_ns,
            end_ns,
            good=True,
            longest_rr_s=max((end - begin) / self._rate, self._limit_s),
        )

    def _follows(self, chunk: Chunk) -> bool:
        if self._end_ns is None or chunk.rate != self._rate:
            return False
        tolerance_s = 1.5 / self._rate + min(_RATE_ERROR * self._last_s, _MOST_JITTER_S)
        return abs(chunk.start_ns - self._end_ns) <= tolerance_s * 1e9

    def _ns(self, count: int) -> int:
        return round(count / self._rate * 1e9)

    def _look(self) -> tuple[int, int] | None:
        """The pause to tell of, from its last beat to the next or to now; None without one."""
        self._wait(_RETRY_S)
        grade, beats = assess(Window(_NOBODY, 0, self._rate, self._samples))
        if not set(grade.reasons) <= {Reason.NOISY}:
            self._known = None
            return None
        line = _Line.of(self._samples, self._rate)
        if line is None:
            return None
        over = self._learn(line, beats) if beats is not None else None
        if over is not None:
            return over
        if self._known is None or not self._holds(self._known, line):
            self._known = None
            return None
        return self._lasting(self._known, line)

    def _wait(self, seconds: float) -> None:
        self._due = self._total + max(1, round(seconds * self._rate))

    def _learn(self, line: _Line, beats: Beats) -> tuple[int, int] | None:
        """Take in the beats of a good window; a pause that was over before it was seen to last."""
        heights = line.heights(beats.r_peaks_s)
        if not len(heights):
            return None
        # P waves of a heart whose ventricles stand still make good windows too, by themselves.
        known = self._known
        usual = float(np.median(heights)) if not known or not self._is_told(known) else known.height
        high = heights >= _LIKE_A_BEAT * usual
        if not high.any():
            return None
        peaks_s = beats.r_peaks_s[high]
        peaks = [self._number(float(at_s)) for at_s in peaks_s]
        self._known = _Known(
            beat=peaks[-1],
            height=float(np.median(heights[high])),
            swing=float(np.median(line.swings(peaks_s))),
            noise=line.noise(0.0, float(peaks_s[-1]) + _AFTER_BEAT_S),
        )
        if not 1 / _AS_BEFORE < self._known.height / (self._height or 1e-9) < _AS_BEFORE:
            self._steady = self._total
        self._height = self._known.height
        if not self._is_steady():
            return None
        for i in np.flatnonzero(np.diff(peaks_s) >= self._limit_s - _RESOLUTION_S):
            begin_s, end_s = peaks_s[i] + _AFTER_BEAT_S, peaks_s[i + 1] - _BEFORE_BEAT_S
            if self._told <= peaks[i] and line.is_calm(begin_s, end_s, self._known):
                return peaks[i], peaks[i + 1]
        return None

    def _holds(self, known: _Known, line: _Line) -> bool:
        """Whether what was known of the heart still is."""
        if self._is_told(known):
            return self._total - known.beat <= _VOUCHED_S * self._rate
        # What came since may have been a beat, and others with it.
        return line.last_beat(self._quiet_s(known.beat), None, known) is None

    def _lasting(self, known: _Known, line: _Line) -> tuple[int, int] | None:
        """A pause that goes on."""
        told = self._is_told(known)
        begin, quiet_s = known.beat, self._quiet_s(known.beat)
        last_s = line.last_beat(quiet_s, None, known)
        if last_s is not None:
            begin, quiet_s = self._number(last_s), last_s
        missing_s = self._limit_s - (self._total - begin) / self._rate
        if missing_s > 0:
            self._wait(missing_s)
            return None
        if not (line.is_a_body if told else line.is_calm)(quiet_s, None, known):
            self._known = None
            return None
        lately = told and self._total - self._told < _REPEAT_S * self._rate
        return (begin, self._total) if self._is_steady() and not lately else None

    def _is_told(self, known: _Known) -> bool:
        """Whether the pause since the last beat has been told of."""
        return self._told > known.beat

    def _quiet_s(self, beat: int) -> float:
        """When in the ten seconds a beat is over, T wave and all."""
        at_s = (beat - self._total + len(self._samples)) / self._rate
        return max(0.0, at_s + _AFTER_BEAT_S)

    def _is_steady(self) -> bool:
        return bool(self._total - self._steady >= _LENGTH_S * self._rate)

    def _number(self, at_s: float) -> int:
        """Number in the run of the sample at a time in the ten seconds."""
        return self._total - len(self._samples) + round(at_s * self._rate)


class Pauses:
    """Watches all streams of a daemon, ahead of everything that takes time.

    Args:
        limit_s: gives the shortest pause of a patient that counts, in seconds; None where none
            does.
    """

    def __init__(self, limit_s: Callable[[str], float | None]) -> None:
        self._limit_s = limit_s
        self._watches: dict[Stream, PauseWatch] = {}

    def add(self, chunk: Chunk) -> Observation | None:
        """Take what a source gave and say what ``PauseWatch.add`` does; it never raises."""
        stream = chunk.stream
        try:
            watch = self._watches.get(stream)
            if watch is None:
                limit_s = self._limit_s(stream.patient)
                if limit_s is None:
                    return None
                watch = self._watches[stream] = PauseWatch(stream, limit_s)
            # A millisecond every few chunks, and nothing for the others: another thread costs more.
            return watch.add(chunk)
        except Exception:  # noqa: BLE001 - the windows still tell of it
            self._watches.pop(stream, None)
            WINDOWS_FAILED.inc()
            _log.exception("pauses not looked for", stream=str(stream), start_ns=chunk.start_ns)
            return None
