"""Watch a run of samples for lethal rhythms: a verdict a second."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from models.rhythm.beats import Peaks, cycle_rate, find_peaks
from models.rhythm.decision import Decision, Second, Settled, Thresholds
from models.rhythm.frontend import LENGTH_S, LOWEST_RATE, SHORTEST_S, filtered
from models.rhythm.verdict import Rhythm, Verdict

# Noise, and whether the line moves at all, are looked for in so much.
_LATELY_S = 3.0
_FLAT_S = 2.0
# No more than a step of an ADC, or two: as ``monitor.quality`` has it.
_FLAT_UV = 5.0
# An R peak is at its height for a sample or two; a rail holds much more.
_RAIL_SHARE = 0.04


class Classifier(Protocol):
    """What tells rhythms apart in a window, such as ``models.rhythm.model.RhythmModel``."""

    @property
    def thresholds(self) -> Thresholds:
        """What the decision rests on."""

    def probabilities(self, windows: NDArray[np.float32]) -> NDArray[np.float32]:
        """Of [b, ``SAMPLES``] in µV, [b, 5]."""


@dataclass(frozen=True, slots=True, eq=False)
class Line:
    """What the samples themselves tell, apart from the classifier.

    Attributes:
        noise_uv: usual bend from sample to sample in the last seconds, in µV: waves are smooth.
        is_flat: whether the line does not move at all.
        is_clipped: whether it stands at its highest and at its lowest value by turns, as at the
            rails of an amplifier: what such a signal shows is not the heart's shape.
    """

    noise_uv: float
    is_flat: bool
    is_clipped: bool

    @classmethod
    def of(cls, microvolts: NDArray[np.floating], rate: float) -> "Line":
        """Look at the end of a stretch, [n] in µV at ``rate`` Hz."""
        lately = microvolts[-round(_LATELY_S * rate) :]
        bend = np.abs(lately[2:] - 2 * lately[1:-1] + lately[:-2])
        middle = len(bend) // 2
        noise_uv = float(np.partition(bend, middle)[middle]) if len(bend) else 0.0
        still = microvolts[-round(_FLAT_S * rate) :]
        top, bottom = lately.max(), lately.min()
        least = _RAIL_SHARE * len(lately)
        is_clipped = bool(
            np.count_nonzero(lately == top) > least and np.count_nonzero(lately == bottom) > least
        )
        return cls(noise_uv, float(still.max() - still.min()) <= _FLAT_UV, is_clipped)


class RhythmWatch:
    """Watches one run of samples that follow each other without a gap.

    Args:
        model: what classifies a few seconds.
        rate: samples per second, in Hz.

    Raises:
        ValueError: ``rate`` is below 50 Hz.
    """

    def __init__(self, model: Classifier, rate: float) -> None:
        if not rate >= LOWEST_RATE:
            raise ValueError(f"rhythms take {LOWEST_RATE:g} samples per second, not {rate:g}")
        self._model = model
        self._rate = rate
        self._decision = Decision(model.thresholds)
        self._length = round(LENGTH_S * rate)
        self._samples: NDArray[np.float32] = np.empty(0, np.float32)
        self._total = 0
        self._seconds = int(SHORTEST_S)

    def add(self, microvolts: NDArray[np.float32]) -> list[Verdict]:
        """Take the next samples; give the verdicts that they complete, one for each whole second.

        Args:
            microvolts: float32 [n], in µV, all finite.
        """
        verdicts = []
        at = 0
        while at < len(microvolts):
            due = round(self._seconds * self._rate)
            some = microvolts[at : at + due - self._total]
            self._samples = np.concatenate((self._samples, some))[-self._length :]
            self._total += len(some)
            at += len(some)
            if self._total == due:
                verdicts.append(self._verdict())
                self._seconds += 1
        return verdicts

    def _verdict(self) -> Verdict:
        window = filtered(self._samples, self._rate)
        probabilities = self._model.probabilities(window[None])[0]
        peaks = find_peaks(window, self._decision.reference_uv)
        line = Line.of(self._samples, self._rate)
        settled = self._decision.step(second_of(self._seconds, probabilities, peaks, line))
        rates = {Rhythm.ORGANISED: peaks.rate}
        if settled.rhythm is Rhythm.VT:
            rates[Rhythm.VT] = cycle_rate(window)
        return self._told(settled, rates.get(settled.rhythm), probabilities)

    def _told(
        self, settled: Settled, rate: float | None, probabilities: NDArray[np.float32]
    ) -> Verdict:
        last_s = settled.last_beat_s
        names = (Rhythm.VF, Rhythm.VT, Rhythm.ASYSTOLE, Rhythm.ORGANISED, Rhythm.UNKNOWN)
        return Verdict(
            end=self._total,
            rhythm=settled.rhythm,
            since=min(self._total, round(settled.since_s * self._rate)),
            rate=rate,
            last_beat=None if last_s is None else max(0, round(last_s * self._rate)),
            probabilities=dict(zip(names, map(float, probabilities), strict=True)),
        )


def second_of(end_s: float, probabilities: NDArray[np.float32], peaks: Peaks, line: Line) -> Second:
    """Put together what a second tells.

    Args:
        end_s: its end, in seconds from the start of the run.
        probabilities: float32 [5], of ``models.rhythm.model.CLASSES``.
        peaks: of the window that ends with it.
        line: of the samples that end with it.
    """
    vf, vt, asystole, organised, _ = map(float, probabilities)
    return Second(
        end_s=end_s,
        vf=vf,
        vt=vt,
        asystole=asystole,
        organised=organised,
        beats=len(peaks.at_s),
        last_beat_s=float(peaks.at_s[-1]) if len(peaks.at_s) else None,
        quiet_s=LENGTH_S if peaks.last_s is None else peaks.last_s,
        height_uv=peaks.height_uv,
        top_uv=peaks.top_uv,
        noise_uv=line.noise_uv,
        is_flat=line.is_flat,
        is_clipped=line.is_clipped,
    )
