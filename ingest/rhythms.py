"""When a simulated heart beats, and how each beat came about."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from ingest.episodes import EpisodeKind, Placed


class BeatType(StrEnum):
    """Beat annotation codes of PhysioNet."""

    NORMAL = "N"
    VENTRICULAR = "V"


@dataclass(frozen=True, slots=True)
class Beat:
    """One heartbeat.

    Attributes:
        r_s: time of the R peak (of the largest deflection of a ventricular beat), in seconds.
        type: where it came from.
        rr_s: RR interval to which repolarisation has adapted, in seconds.
        pr_s: PR interval, in seconds; None where no P wave precedes.
        st_uv: ST deviation, in µV.
    """

    r_s: float
    type: BeatType
    rr_s: float
    pr_s: float | None
    st_uv: float = 0.0


_PR_S = (0.14, 0.18)  # range of healthy PR intervals from which a heart draws its own
_LF_HZ, _HF_HZ, _BAND_SD_HZ = 0.1, 0.25, 0.01  # Mayer waves, breathing, width of both
_LF_HF_RATIO = 0.5
_TONES = 16  # sinusoids a band
_COUPLING = (0.62, 0.72)  # premature beats come after such a part of a sinus RR interval
_COUPLING_FLOOR_S = 0.36  # never within the refractory period
_REFRACTORY = 0.6  # a sinus impulse this early after a ventricular beat, in RR, is not conducted
_FLUTTER_R_PHASE = 0.4  # where in its flutter wave a conducted beat falls
_QT_MEMORY = 0.7  # repolarisation adapts to RR over a few beats
_LONGEST_QT_RR_S = 1.5


class Tachogram:
    """Fluctuation of the sinus RR interval, zero mean, unit variance, at any time.

    The bimodal RR spectrum of McSharry et al. 2003 (IEEE TBME 50(3), §III): two Gaussians around
    0.1 Hz (Mayer waves) and 0.25 Hz (respiratory sinus arrhythmia), random phases, LF/HF power
    ratio 0.5. The paper inverts a Fourier series of fixed length; here the frequencies are
    drawn from the Gaussians, so the sum has the same spectrum, never repeats and needs no memory.
    """

    def __init__(self, rng: np.random.Generator) -> None:
        self._hz = np.concatenate(
            [rng.normal(_LF_HZ, _BAND_SD_HZ, _TONES), rng.normal(_HF_HZ, _BAND_SD_HZ, _TONES)]
        )
        self._phase = rng.uniform(0, 2 * np.pi, 2 * _TONES)
        lf = _LF_HF_RATIO / (1 + _LF_HF_RATIO)
        self._amplitude = np.sqrt(2 / _TONES * np.repeat([lf, 1 - lf], _TONES))

    def at(self, t: float) -> float:
        """Return the fluctuation at ``t`` seconds."""
        return float(self._amplitude @ np.cos(2 * np.pi * self._hz * t + self._phase))


class Conductor:
    """Turns a timeline of episodes into beats.

    Args:
        rng: source of all chance in it.
    """

    def __init__(self, rng: np.random.Generator) -> None:
        self._rng = rng
        self._tachogram = Tachogram(rng)
        self._pr_s = rng.uniform(*_PR_S)
        self._coupling = rng.uniform(*_COUPLING)
        self._vt_rr_s = rng.uniform(0.33, 0.39)

    def beats(self, timeline: Iterator[Placed]) -> Iterator[Beat]:
        """Yield the beats of an endless timeline in order of time."""
        previous = -self._rng.uniform(0.2, 0.6)
        qt_rr: float | None = None
        for placed in timeline:
            for r_s, kind, pr_s in self._rhythm(placed, previous):
                if r_s >= placed.end_s:
                    break
                rr = min(r_s - previous, _LONGEST_QT_RR_S)
                if qt_rr is None:
                    qt_rr = 60 / _told(placed.episode.heart_rate)
                qt_rr = _QT_MEMORY * qt_rr + (1 - _QT_MEMORY) * rr
                yield Beat(r_s, kind, qt_rr, pr_s, _st_uv(placed))
                previous = r_s

    def _rhythm(
        self, placed: Placed, previous: float
    ) -> Iterator[tuple[float, BeatType, float | None]]:
        match placed.episode.kind:
            case EpisodeKind.ATRIAL_FIBRILLATION:
                return self._fibrillation(placed, previous)
            case EpisodeKind.ATRIAL_FLUTTER:
                return self._flutter(placed, previous)
            case (
                EpisodeKind.VENTRICULAR_ECTOPY
                | EpisodeKind.VENTRICULAR_BIGEMINY
                | EpisodeKind.VENTRICULAR_RUNS
            ):
                return self._ectopy(placed, previous)
            case EpisodeKind.SINUS_ARREST:
                return self._arrest(placed, previous)
            case _:
                return self._sinus(placed, previous)

    def _rr(self, placed: Placed, t: float) -> float:
        """Sinus RR interval that begins at ``t``."""
        mean = 60 / _told(placed.episode.heart_rate)
        # Variability falls with the rate: 35 ms at 60 per minute, 8 ms at 125.
        spread = 0.035 * mean * mean
        return mean + min(spread, 0.08 * mean) * self._tachogram.at(t)

    def _sinus(
        self, placed: Placed, previous: float
    ) -> Iterator[tuple[float, BeatType, float | None]]:
        pr_s = placed.episode.pr_s or self._pr_s
        t = previous
        while True:
            t = max(t + self._rr(placed, t), placed.start_s)
            yield t, BeatType.NORMAL, pr_s

    def _arrest(
        self, placed: Placed, previous: float
    ) -> Iterator[tuple[float, BeatType, float | None]]:
        pause_s = _told(placed.episode.pause_s)
        events = self._events(placed)
        due = next(events)
        t = previous
        while True:
            rr = self._rr(placed, t)
            if t >= due and t + pause_s < placed.end_s:
                rr, due = pause_s, next(events)
            t = max(t + rr, placed.start_s)
            yield t, BeatType.NORMAL, self._pr_s

    def _ectopy(
        self, placed: Placed, previous: float
    ) -> Iterator[tuple[float, BeatType, float | None]]:
        """Premature ventricular beats over a sinus node that they do not reset.

        The sinus impulse that meets a refractory ventricle is lost, which makes the pause after
        a single premature beat fully compensatory.
        """
        always = placed.episode.kind is EpisodeKind.VENTRICULAR_BIGEMINY
        events = self._events(placed)
        due = next(events)
        run = placed.episode.run_beats or 1
        t = previous
        while True:
            t = max(t + self._rr(placed, t), placed.start_s)
            yield t, BeatType.NORMAL, self._pr_s
            if not (always or t >= due):
                continue
            if not always:
                due = next(events)
            rr = self._rr(placed, t)
            v = t
            for beat in range(run):
                gap = max(self._coupling * rr, _COUPLING_FLOOR_S) if beat == 0 else self._vt_rr_s
                v += gap * self._rng.uniform(0.97, 1.03)
                yield v, BeatType.VENTRICULAR, None
            # Let the node tick on unheard, up to one impulse before the next conducted one.
            while t + rr < v + _REFRACTORY * rr:
                t += rr
                rr = self._rr(placed, t)

    def _fibrillation(
        self, placed: Placed, previous: float
    ) -> Iterator[tuple[float, BeatType, float | None]]:
        """RR intervals independent of each other: a refractory time plus a gamma variate."""
        mean = 60 / _told(placed.episode.heart_rate)
        refractory = min(0.28, 0.6 * mean)
        spread = 0.23 * mean
        shape = ((mean - refractory) / spread) ** 2
        t = previous
        while True:
            rr = refractory + self._rng.gamma(shape, (mean - refractory) / shape)
            t = max(t + rr, placed.start_s)
            yield t, BeatType.NORMAL, None

    def _flutter(
        self, placed: Placed, previous: float
    ) -> Iterator[tuple[float, BeatType, float | None]]:
        """Every ``conduction``-th flutter wave is conducted, at a fixed phase of the wave."""
        rr = 60 / _told(placed.episode.heart_rate)
        wave = rr / _told(placed.episode.conduction)
        first = placed.start_s + _FLUTTER_R_PHASE * wave
        earliest = max(previous + 0.3, placed.start_s)
        beat = max(0, math.ceil((earliest - first) / rr))
        while True:
            t = first + beat * rr + self._rng.normal(0, 0.004)
            yield max(t, placed.start_s), BeatType.NORMAL, None
            beat += 1

    def _events(self, placed: Placed) -> Iterator[float]:
        """Times at which something is due: evenly on average, unevenly one by one."""
        gap = 60 / (placed.episode.per_minute or 1.0)
        gap = min(gap, placed.end_s - placed.start_s)
        due = placed.start_s + gap * self._rng.uniform(0.2, 0.4)
        while True:
            yield due
            due += gap * self._rng.uniform(0.7, 1.3)


def _told(value: float | None) -> float:
    """An episode has every setting of its kind filled in."""
    assert value is not None
    return value


def _st_uv(placed: Placed) -> float:
    st_uv = placed.episode.st_uv or 0.0
    return -st_uv if placed.episode.kind is EpisodeKind.ST_DEPRESSION else st_uv
