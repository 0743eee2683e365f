"""The ECG of a beat sequence, from the dynamic model of McSharry et al.

ECGSYN (McSharry, Clifford, Tarassenko, Smith: A dynamical model for generating synthetic
electrocardiogram signals. IEEE TBME 50(3):289-294, 2003), eq. 1, third component:

    z' = - Σ a_i Δθ_i exp(-Δθ_i² / 2b_i²) - (z - z0),     Δθ_i = (θ - θ_i) mod 2π,  θ' = ω = 2π/RR

On the limit cycle θ is known in closed form, and within a beat of constant ω the sum is the time
derivative of G(t) = Σ A_i exp(-(t - t_i)² / 2s_i²) with A_i = a_i b_i² / ω, s_i = b_i / ω and
t_i = θ_i / ω. Waves are therefore written here as peak (µV), place and width (s), and

    z' = G' - (z - z0),   solved by   z = z0 + G - w,   w' = G - w,

which is exact for any sampling rate but for the slow w (time constant 1 s), integrated exactly for
a G linear between samples. z0, the paper's breathing baseline (eq. 2), is left to
``ingest.artifacts``.

The paper multiplies every b_i and θ_i by α = √(h/60), h the heart rate: all times then follow √RR.
That is Bazett's law for the QT interval, and it is kept for the T wave; a real QRS hardly changes
with the rate and a PR interval only little, so that their times follow RR⁰ and RR^¼.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ingest.rhythms import Beat, BeatType

Floats = NDArray[np.float64]

BEFORE_R_S = 0.6
"""No wave of a beat begins earlier before its R peak."""
AFTER_R_S = 1.0
"""No wave of a beat ends later after its R peak."""

_QRS_ONSET_S = 0.040  # before R
_P_ONSET_S = 0.050  # before the peak of P
_J_ST_S = (0.075, 0.145)  # the two Gaussians of an ST segment
_ST_WIDTH_S = 0.042
_ST_SHARE = 0.708  # so that the two add up to 1 halfway
_LEFT_ONSET_S = 0.090  # onset of a QRS that begins in the right ventricle, before its peak
_SPIKE_S = 0.020  # from a pacemaker's spike to the onset of QRS
# A spike lasts half a millisecond; what a device that records up to some 40 Hz makes of it, longer.
_SPIKE_WIDTH_S = 0.004
_P_SHARES, _P_AT_S, _P_WIDTH_S = (0.75, 0.55), (-0.012, 0.016), 0.017


class Waves(NamedTuple):
    """Gaussians of one beat: peak µV [w], place in s from the R peak [w], width (1 σ) in s [w]."""

    peak_uv: Floats
    at_s: Floats
    width_s: Floats


@dataclass(frozen=True, slots=True)
class Anatomy:
    """What lead I of one patient looks like: peaks of the waves in µV, and atrial activity.

    Attributes:
        p, q, r, s, t: peaks of the sinus beat, in µV (Q and S positive, drawn downwards).
        pvc: peak of a premature ventricular beat, in µV, negative where it points down.
        f_hz: rate of the fibrillatory waves, in Hz.
        f_uv: amplitude of the fibrillatory waves, in µV.
        flutter_uv: amplitude of the flutter waves, in µV.
    """

    p: float
    q: float
    r: float
    s: float
    t: float
    pvc: float
    f_hz: float
    f_uv: float
    flutter_uv: float

    @classmethod
    def draw(cls, rng: np.random.Generator) -> "Anatomy":
        """Draw a patient from the range of healthy lead-I recordings."""
        r = float(np.clip(720 * np.exp(0.22 * rng.standard_normal()), 480, 1100))
        return cls(
            p=rng.uniform(70, 120),
            q=rng.uniform(0.02, 0.09) * r,
            r=r,
            s=rng.uniform(0.06, 0.22) * r,
            t=rng.uniform(0.26, 0.38) * r,
            pvc=rng.uniform(0.8, 1.2) * r * (1.0 if rng.random() < 0.5 else -0.8),
            f_hz=rng.uniform(5.0, 7.5),
            f_uv=rng.uniform(30, 50),
            flutter_uv=rng.uniform(80, 110),
        )

    def waves(self, beat: Beat, rng: np.random.Generator) -> Waves:
        """Return the waves of one beat, slightly different from beat to beat."""
        # Breathing turns the heart in the chest: the whole beat grows and shrinks by some percent.
        turn = 1 + 0.035 * np.sin(2 * np.pi * 0.25 * beat.r_s) + 0.015 * rng.standard_normal()
        p, t = 1 + 0.06 * rng.standard_normal(2)
        qt = np.sqrt(beat.rr_s)
        match beat.type:
            case BeatType.VENTRICULAR:
                rows = self._ventricular(qt, beat.twist)
            case BeatType.LEFT_BUNDLE_BRANCH_BLOCK | BeatType.PACED:
                rows = self._from_the_right(beat, p, qt)
            case _:
                rows = self._conducted(beat, p, t, qt)
        peak, at, width = np.array(rows).T
        return Waves(turn * peak, at, width)

    def _conducted(
        self, beat: Beat, p: float, t: float, qt: float
    ) -> list[tuple[float, float, float]]:
        lift = 1 + 0.4 * np.clip(beat.st_uv / 200, -1, 1)  # T goes along with ST
        rows = [
            (-self.q, -0.026, 0.007),
            (self.r, 0.0, 0.0095),
            (-self.s, 0.028, 0.009),
            # A T wave rises more slowly than it falls: two Gaussians.
            (0.45 * lift * t * self.t, 0.235 * qt, 0.050 * qt),
            (0.70 * lift * t * self.t, 0.282 * qt, 0.032 * qt),
        ]
        if beat.type is BeatType.RIGHT_BUNDLE_BRANCH_BLOCK:
            # The right ventricle comes late and slowly, away from lead I: a broad, slurred S.
            rows.append((-0.40 * self.r, 0.058, 0.021))
        rows += self._atrial(beat, p, _QRS_ONSET_S)
        if beat.st_uv:
            rows += [(_ST_SHARE * beat.st_uv, at, _ST_WIDTH_S) for at in _J_ST_S]
        return rows

    def _from_the_right(self, beat: Beat, p: float, qt: float) -> list[tuple[float, float, float]]:
        """QRS that begins in the right ventricle: left bundle branch block, or a pacemaker there.

        In lead I a broad, notched R of 0.12 s and more without Q or S, and T the other way
        (Surawicz et al., AHA/ACCF/HRS recommendations for the standardization and interpretation
        of the electrocardiogram, part III. Circulation 119:e235-e240, 2009).
        """
        rows = [
            (0.60 * self.r, -0.048, 0.018),
            (0.90 * self.r, 0.0, 0.021),
            (-0.45 * self.t, 0.200 * qt, 0.060 * qt),
            (-0.60 * self.t, 0.280 * qt, 0.040 * qt),
        ]
        if beat.spike_uv:
            rows.append((beat.spike_uv, -_LEFT_ONSET_S - _SPIKE_S, _SPIKE_WIDTH_S))
        return rows + self._atrial(beat, p, _LEFT_ONSET_S)

    def _atrial(self, beat: Beat, p: float, onset_s: float) -> list[tuple[float, float, float]]:
        """P wave of a beat whose QRS begins ``onset_s`` before its peak, if it has one."""
        if beat.pr_s is None:
            return []
        at = -onset_s - beat.pr_s * beat.rr_s**0.25 + _P_ONSET_S
        return [
            (share * p * self.p, at + place, _P_WIDTH_S)
            for share, place in zip(_P_SHARES, _P_AT_S, strict=True)
        ]

    def _ventricular(self, qt: float, twist: float) -> list[tuple[float, float, float]]:
        """Wide QRS, its T wave the other way; a downward one starts with a small r."""
        rows = self._premature(qt)
        if not twist:
            return rows
        # What the turning axis takes from the one shape it gives to another, a smaller one across
        # it: the trace narrows where it twists, and does not vanish.
        across = (0.3 * math.sin(twist) * self.pvc, 0.035, 0.035)
        return [(math.cos(twist) * peak, at, width) for peak, at, width in rows] + [across]

    def _premature(self, qt: float) -> list[tuple[float, float, float]]:
        t = [
            (-0.12 * self.pvc, 0.150, 0.045),
            (-0.26 * self.pvc, 0.225 * qt, 0.055 * qt),
            (-0.24 * self.pvc, 0.285 * qt, 0.042 * qt),
        ]
        if self.pvc < 0:
            return [(-0.45 * self.pvc, -0.062, 0.014), (self.pvc, 0.0, 0.027), *t]
        return [
            (0.25 * self.pvc, -0.045, 0.018),
            (self.pvc, 0.0, 0.026),
            (0.35 * self.pvc, 0.050, 0.020),
            *t,
        ]


def render(t: Floats, r_s: float, waves: Waves, out: Floats) -> None:
    """Add the Gaussians of one beat to a stretch of signal.

    Args:
        t: times of the samples, float64 [n], ascending, in seconds.
        r_s: R peak of the beat, in seconds.
        waves: its waves.
        out: where to add them, float64 [n], in µV.
    """
    low, high = np.searchsorted(t, (r_s - BEFORE_R_S, r_s + AFTER_R_S))
    u = (t[low:high] - r_s - waves.at_s[:, None]) / waves.width_s[:, None]
    out[low:high] += waves.peak_uv @ np.exp(-0.5 * u * u)


def fibrillatory_waves(t: Floats, anatomy: Anatomy) -> Floats:
    """Return the atrial signal of fibrillation, float64 [n], in µV.

    A sawtooth of slowly varying rate and amplitude: Stridh and Sörnmo, Spatiotemporal QRST
    cancellation techniques for analysis of atrial fibrillation. IEEE TBME 48(1):105-111, 2001.
    """
    swing_hz, sway_hz = 0.4, 0.23
    phase = 2 * np.pi * anatomy.f_hz * t + swing_hz / sway_hz * np.sin(2 * np.pi * sway_hz * t)
    strength = anatomy.f_uv * (1 + 0.35 * np.sin(2 * np.pi * 0.11 * t))
    return np.asarray(strength * _sawtooth(phase, 3))


def p_waves(t: Floats, start_s: float, per_minute: float, anatomy: Anatomy) -> Floats:
    """Return P waves that no QRS answers, float64 [n], in µV.

    Args:
        t: times of the samples, float64 [n], ascending, in seconds.
        start_s: from when the atria count, in seconds.
        per_minute: how many P waves a minute.
        anatomy: whose.
    """
    waves = Waves(
        anatomy.p * np.array(_P_SHARES), np.array(_P_AT_S), np.full(len(_P_AT_S), _P_WIDTH_S)
    )
    out = np.zeros(len(t))
    step = 60 / per_minute
    first = math.floor((t[0] - BEFORE_R_S - start_s) / step)
    last = math.ceil((t[-1] + AFTER_R_S - start_s) / step)
    for i in range(first, last + 1):
        at = start_s + (i + 0.5) * step
        render(t, at + 0.03 * step * math.sin(2 * math.pi * 0.25 * at), waves, out)
    return out


def flutter_waves(t: Floats, wave_s: float, anatomy: Anatomy) -> Floats:
    """Return the atrial signal of flutter, float64 [n], in µV: a wave every ``wave_s`` seconds."""
    return anatomy.flutter_uv * _sawtooth(2 * np.pi / wave_s * t, 4)


def _sawtooth(phase: Floats, harmonics: int) -> Floats:
    """Sawtooth of unit amplitude from its first harmonics."""
    m = np.arange(1, harmonics + 1)
    return np.asarray(np.sin(np.outer(phase, m)) @ (2 / (np.pi * m)))


class Relaxation:
    """The term -(z - z0) of the model: pulls the trace back to its baseline within a second.

    Args:
        rate: samples per second, in Hz.
    """

    def __init__(self, rate: float) -> None:
        self._h = 1 / rate
        self._decay = np.exp(-self._h)
        # ∫₀ʰ e^-(h-s) G(s) ds for G linear from its last to its present value.
        share = (1 - self._decay) / self._h
        self._last_weight, self._weight = share - self._decay, 1 - share
        self._w = 0.0
        self._last = 0.0

    def apply(self, g: Floats) -> Floats:
        """Return z - z0, float64 [n], for the next stretch G, float64 [n], of at most a minute."""
        forcing = self._weight * g
        forcing[0] += self._last_weight * self._last
        forcing[1:] += self._last_weight * g[:-1]
        # w_k = E w_(k-1) + f_k, unrolled: E^k (w_0 + Σ E^-j f_j). E^-j stays small for a stretch.
        power = np.exp(-self._h * np.arange(1, len(g) + 1))
        w = power * (self._w + np.cumsum(forcing / power))
        self._w, self._last = float(w[-1]), float(g[-1])
        return np.asarray(g - w)
