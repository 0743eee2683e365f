"""When a simulated heart beats, and how each beat came about."""

import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

import numpy as np

from ingest.episodes import PULSELESS, EpisodeKind, Placed, told


class BeatType(StrEnum):
    """Beat annotation codes of PhysioNet."""

    NORMAL = "N"
    VENTRICULAR = "V"
    LEFT_BUNDLE_BRANCH_BLOCK = "L"
    RIGHT_BUNDLE_BRANCH_BLOCK = "R"
    PACED = "/"


@dataclass(frozen=True, slots=True)
class Beat:
    """One heartbeat.

    Attributes:
        r_s: time of the R peak (of the largest deflection of a ventricular beat), in seconds.
        type: where it came from.
        rr_s: RR interval to which repolarisation has adapted, in seconds.
        pr_s: PR interval, in seconds; None where no P wave precedes.
        st_uv: ST deviation, in µV.
        spike_uv: height of the pacemaker's spike before it, in µV.
        twist: how far its axis has turned from where such a beat usually points, in rad.
    """

    r_s: float
    type: BeatType
    rr_s: float
    pr_s: float | None
    st_uv: float = 0.0
    spike_uv: float = 0.0
    twist: float = 0.0


class _Impulse(NamedTuple):
    """What sets off a beat: when, in seconds, of which type, PR interval in s, twist in rad."""

    r_s: float
    type: BeatType
    pr_s: float | None
    twist: float = 0.0


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
_FIRST_QT_RR_S = 0.8  # of a heart that begins without a rate

# A premature beat this long after R falls on the T wave: such a beat can set off
# ventricular fibrillation (Smirk, R waves interrupting T waves. Br Heart J 11:23-36, 1949).
_R_ON_T_S = (0.30, 0.36)
_SECOND_S = (0.26, 0.32)  # and the second one, on the T wave of the first
_VT_WARM_UP, _VT_WARM_UP_BEATS = 0.12, 3.0  # a tachycardia begins a little slower
# Beats in which the axis of torsades turns by 180° (first described by Dessertenne, La tachycardie
# ventriculaire à deux foyers opposés variables. Arch Mal Coeur Vaiss 59:263-272, 1966).
_HALF_TWIST_BEATS = (5.0, 12.0)
_CONDUCTED = {
    EpisodeKind.LEFT_BUNDLE_BRANCH_BLOCK: BeatType.LEFT_BUNDLE_BRANCH_BLOCK,
    EpisodeKind.RIGHT_BUNDLE_BRANCH_BLOCK: BeatType.RIGHT_BUNDLE_BRANCH_BLOCK,
}
_REGULAR = {  # type of the beats, and standard deviation of their intervals in s
    EpisodeKind.SUPRAVENTRICULAR_TACHYCARDIA: (BeatType.NORMAL, 0.004),
    EpisodeKind.PACED_RHYTHM: (BeatType.PACED, 0.0005),
}
_VENTRICULAR = PULSELESS | {EpisodeKind.VENTRICULAR_TACHYCARDIA}
_STUNNED_S = (-0.2, 1.2)  # how much later than an RR interval a heart that stood still begins again


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
        timeline: the episodes, without end.
    """

    def __init__(self, rng: np.random.Generator, timeline: Iterator[Placed]) -> None:
        self._rng = rng
        self._tachogram = Tachogram(rng)
        self._pr_s = rng.uniform(*_PR_S)
        self._coupling = rng.uniform(*_COUPLING)
        self._vt_rr_s = rng.uniform(0.33, 0.39)
        self._rhythms: dict[EpisodeKind, Callable[[Placed, float], Iterator[_Impulse]]] = {
            EpisodeKind.ATRIAL_FIBRILLATION: self._fibrillation,
            EpisodeKind.ATRIAL_FLUTTER: self._flutter,
            EpisodeKind.VENTRICULAR_ECTOPY: self._ectopy,
            EpisodeKind.VENTRICULAR_BIGEMINY: self._ectopy,
            EpisodeKind.VENTRICULAR_RUNS: self._ectopy,
            EpisodeKind.SINUS_ARREST: self._arrest,
            EpisodeKind.VENTRICULAR_TACHYCARDIA: self._ventricular_tachycardia,
            EpisodeKind.TORSADES: self._torsades,
            EpisodeKind.VENTRICULAR_FIBRILLATION: self._trigger,
            EpisodeKind.VENTRICULAR_FLUTTER: self._trigger,
            EpisodeKind.ASYSTOLE: lambda _placed, _previous: iter(()),
            EpisodeKind.SUPRAVENTRICULAR_TACHYCARDIA: self._regular,
            EpisodeKind.PACED_RHYTHM: self._regular,
        }
        self._moments = self._beats(timeline)
        self._coming = next(self._moments)

    def until(self, end_s: float) -> Iterator[Beat]:
        """Yield the beats that follow the last one yielded, up to ``end_s`` seconds, in order."""
        while self._coming[0] < end_s:
            beat = self._coming[1]
            self._coming = next(self._moments)
            if beat is not None:
                yield beat

    def _beats(self, timeline: Iterator[Placed]) -> Iterator[tuple[float, Beat | None]]:
        """Yield every beat with its time, and None when an episode ends, for some have no beat."""
        previous = -self._rng.uniform(0.2, 0.6)
        qt_rr: float | None = None
        for placed in timeline:
            rhythm = self._rhythms.get(placed.episode.kind, self._sinus)
            after = previous
            if placed.after in PULSELESS and placed.episode.kind not in _VENTRICULAR:
                after = placed.start_s + self._rng.uniform(*_STUNNED_S)
            for r_s, kind, pr_s, twist in rhythm(placed, after):
                if r_s >= placed.end_s:
                    break
                rr = min(r_s - previous, _LONGEST_QT_RR_S)
                if qt_rr is None:
                    rate = placed.episode.heart_rate
                    qt_rr = _FIRST_QT_RR_S if rate is None else 60 / rate
                qt_rr = _QT_MEMORY * qt_rr + (1 - _QT_MEMORY) * rr
                spike_uv = placed.episode.spike_uv or 0.0
                yield r_s, Beat(r_s, kind, qt_rr, pr_s, _st_uv(placed), spike_uv, twist)
                previous = r_s
            yield placed.end_s, None

    def _rr(self, placed: Placed, t: float) -> float:
        """Sinus RR interval that begins at ``t``."""
        mean = 60 / told(placed.episode.heart_rate)
        # Variability falls with the rate: 35 ms at 60 per minute, 8 ms at 125.
        spread = 0.035 * mean * mean
        return mean + min(spread, 0.08 * mean) * self._tachogram.at(t)

    def _sinus(self, placed: Placed, previous: float) -> Iterator[_Impulse]:
        pr_s = placed.episode.pr_s or self._pr_s
        beat = _CONDUCTED.get(placed.episode.kind, BeatType.NORMAL)
        t = previous
        while True:
            t = max(t + self._rr(placed, t), placed.start_s)
            yield _Impulse(t, beat, pr_s)

    def _arrest(self, placed: Placed, previous: float) -> Iterator[_Impulse]:
        pause_s = told(placed.episode.pause_s)
        events = self._events(placed)
        due = next(events)
        t = previous
        while True:
            rr = self._rr(placed, t)
            if t >= due and t + pause_s < placed.end_s:
                rr, due = pause_s, next(events)
            t = max(t + rr, placed.start_s)
            yield _Impulse(t, BeatType.NORMAL, self._pr_s)

    def _ectopy(self, placed: Placed, previous: float) -> Iterator[_Impulse]:
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
            yield _Impulse(t, BeatType.NORMAL, self._pr_s)
            if not (always or t >= due):
                continue
            if not always:
                due = next(events)
            rr = self._rr(placed, t)
            v = t
            for beat in range(run):
                gap = max(self._coupling * rr, _COUPLING_FLOOR_S) if beat == 0 else self._vt_rr_s
                v += gap * self._rng.uniform(0.97, 1.03)
                yield _Impulse(v, BeatType.VENTRICULAR, None)
            # Let the node tick on unheard, up to one impulse before the next conducted one.
            while t + rr < v + _REFRACTORY * rr:
                t += rr
                rr = self._rr(placed, t)

    def _fibrillation(self, placed: Placed, previous: float) -> Iterator[_Impulse]:
        """RR intervals independent of each other: a refractory time plus a gamma variate."""
        mean = 60 / told(placed.episode.heart_rate)
        refractory = min(0.28, 0.6 * mean)
        spread = 0.23 * mean
        shape = ((mean - refractory) / spread) ** 2
        t = previous
        while True:
            rr = refractory + self._rng.gamma(shape, (mean - refractory) / shape)
            t = max(t + rr, placed.start_s)
            yield _Impulse(t, BeatType.NORMAL, None)

    def _flutter(self, placed: Placed, previous: float) -> Iterator[_Impulse]:
        """Every ``conduction``-th flutter wave is conducted, at a fixed phase of the wave."""
        rr = 60 / told(placed.episode.heart_rate)
        wave = rr / told(placed.episode.conduction)
        first = placed.start_s + _FLUTTER_R_PHASE * wave
        earliest = max(previous + 0.3, placed.start_s)
        beat = max(0, math.ceil((earliest - first) / rr))
        while True:
            t = first + beat * rr + self._rng.normal(0, 0.004)
            yield _Impulse(max(t, placed.start_s), BeatType.NORMAL, None)
            beat += 1

    def _regular(self, placed: Placed, previous: float) -> Iterator[_Impulse]:
        """A clock, of flesh or made, that nothing disturbs and no P wave announces."""
        beat, jitter_s = _REGULAR[placed.episode.kind]
        rr = 60 / told(placed.episode.heart_rate)
        t = previous
        while True:
            t = max(t + rr + jitter_s * self._rng.standard_normal(), placed.start_s)
            yield _Impulse(t, beat, None)

    def _trigger(self, placed: Placed, previous: float) -> Iterator[_Impulse]:
        """The premature beats out of which ventricles begin to fibrillate or flutter.

        The first comes as the episode begins, or as soon as the last beat lets it; the second falls
        on its T wave. Ventricles that stood still or fibrillated before need none.
        """
        if placed.after in PULSELESS:
            return
        t = max(placed.start_s, previous + self._rng.uniform(*_R_ON_T_S))
        yield _Impulse(t, BeatType.VENTRICULAR, None)
        t += self._rng.uniform(*_SECOND_S)
        yield _Impulse(t, BeatType.VENTRICULAR, None)

    def _ventricular_tachycardia(self, placed: Placed, previous: float) -> Iterator[_Impulse]:
        """One focus, one shape: a premature beat, then a regular run that warms up to its rate."""
        rr = 60 / told(placed.episode.heart_rate)
        t = max(placed.start_s, previous + max(rr, _COUPLING_FLOOR_S))
        for beat in itertools.count():
            yield _Impulse(t, BeatType.VENTRICULAR, None)
            warm_up = 1 + _VT_WARM_UP * math.exp(-beat / _VT_WARM_UP_BEATS)
            t += rr * warm_up + self._rng.normal(0, 0.004)

    def _torsades(self, placed: Placed, previous: float) -> Iterator[_Impulse]:
        """Ventricular beats whose axis turns around the baseline, from an R on T."""
        rr = 60 / told(placed.episode.heart_rate)
        t = max(placed.start_s, previous + self._rng.uniform(*_R_ON_T_S))
        twist, step = 0.0, math.pi / self._rng.uniform(*_HALF_TWIST_BEATS)
        while True:
            yield _Impulse(t, BeatType.VENTRICULAR, None, twist)
            t += rr * max(0.8, 1 + 0.05 * self._rng.standard_normal())
            if (twist + step) // math.pi > twist // math.pi:
                step = math.pi / self._rng.uniform(*_HALF_TWIST_BEATS)
            twist += step

    def _events(self, placed: Placed) -> Iterator[float]:
        """Times at which something is due: evenly on average, unevenly one by one."""
        gap = 60 / (placed.episode.per_minute or 1.0)
        gap = min(gap, placed.end_s - placed.start_s)
        due = placed.start_s + gap * self._rng.uniform(0.2, 0.4)
        while True:
            yield due
            due += gap * self._rng.uniform(0.7, 1.3)


def _st_uv(placed: Placed) -> float:
    st_uv = placed.episode.st_uv or 0.0
    return -st_uv if placed.episode.kind is EpisodeKind.ST_DEPRESSION else st_uv
