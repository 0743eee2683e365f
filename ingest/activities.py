"""What a body that moves does to its ECG: the disturbances that are taken for a lethal rhythm.

A rhythmic movement is a fundamental and its harmonics, whose frequency and strength vary a little;
for chest compressions this is the model of Ruiz de Gauna et al. (Rhythm analysis during
cardiopulmonary resuscitation: past, present, and future. BioMed Res Int 2014:386010). What differs
is the rate, how many harmonics there are, and which muscles and electrodes go along.

Arms that tremble or brush teeth have passed for ventricular tachycardia, and people have been
treated for it, though the QRS complexes of a healthy heart could be seen in between (Knight et al.:
Clinical consequences of electrocardiographic artifact mimicking ventricular tachycardia. N Engl J
Med 341:1270-1274, 1999; Case report: differentiating artifact from true ventricular tachycardia. Am
Fam Physician 74:921, 2006). Electrodes that move on the skin are the most troublesome noise of all:
it looks like ectopic beats and no simple filter removes it (Moody, Muldrow, Mark: A noise stress
test for arrhythmia detectors. Computers in Cardiology 11:381-384, 1984).
"""

from collections.abc import Mapping
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from ingest.artifacts import Movements, Muscle, Noise, sinusoids

Floats = NDArray[np.float64]

IMITATORS: Mapping[str, Noise] = MappingProxyType(
    {
        "walking": Noise(baseline_uv=60, muscle_uv=15, gait_uv=150, gait_hz=1.8),
        "running": Noise(baseline_uv=100, muscle_uv=30, gait_uv=350, gait_hz=2.7),
        "electrode_motion": Noise(baseline_uv=60, muscle_uv=12, electrode_uv=250),
        "tooth_brushing": Noise(baseline_uv=60, muscle_uv=15, brushing_uv=300),
        "chest_compressions": Noise(baseline_uv=60, muscle_uv=12, compressions_uv=700),
        "tremor": Noise(baseline_uv=40, muscle_uv=15, tremor_uv=200),
    }
)
"""What people do whose heart is then said to have stopped, as strong as it usually is."""

_RAMP_S = 0.5  # nobody starts or stops moving from one sample to the next
_EDGE = 6.0  # how abruptly bouts of brushing begin and end
_BRUSHING = 1.1  # in standard deviations: brushing goes on for some 86 % of the time
_EM_HZ, _EM_TONES = (0.3, 12.0), 48
_EM_PER_MINUTE = 15.0


class _Cycle:
    """A movement that repeats, as a function of time, with an RMS of 1.

    Args:
        rng: source of all chance in it.
        weights: amplitude of each harmonic by its number.
        wander: how far the frequency strays, RMS, as a part of it.
        swell: how far the strength strays, RMS, as a part of it.
    """

    def __init__(
        self, rng: np.random.Generator, weights: Mapping[int, float], wander: float, swell: float
    ) -> None:
        self._harmonics = np.array(list(weights))
        amplitude = np.array(list(weights.values())) * rng.uniform(0.75, 1.25, len(weights))
        self._amplitude = amplitude * np.sqrt(2 / np.sum(amplitude**2))
        self._phase = rng.uniform(0, 2 * np.pi, len(weights))
        self._slow_hz = rng.uniform(0.03, 0.2, (2, 4))
        self._slow_phase = rng.uniform(0, 2 * np.pi, (2, 4))
        self._wander = wander
        self._swell = swell

    def phase(self, t: Floats, hz: float) -> Floats:
        """Return where in the movement it is, float64 [n], in rad."""
        # The integral of a frequency that strays: time itself is stretched.
        waves = np.sin(2 * np.pi * np.outer(t, self._slow_hz[0]) + self._slow_phase[0])
        late = waves @ (self._wander * np.sqrt(2 / 4) / (2 * np.pi * self._slow_hz[0]))
        return np.asarray(2 * np.pi * hz * (t + late))

    def at(self, t: Floats, hz: float) -> Floats:
        """Return the movement at the times ``t``, float64 [n], in seconds: float64 [n]."""
        waves = np.sin(np.outer(self.phase(t, hz), self._harmonics) + self._phase)
        strength = 1 + self._swell * sinusoids(t, self._slow_hz[1], self._slow_phase[1])
        return np.asarray(strength * (waves @ self._amplitude) / np.hypot(1, self._swell))


class Activities:
    """Renders the movements of one person, stretch by stretch.

    Args:
        rate: samples per second, in Hz.
        rng: source of all chance in it.
    """

    def __init__(self, rate: float, rng: np.random.Generator) -> None:
        # By strides of two steps, the even harmonics being the steps: no two legs are the same.
        self._gait = _Cycle(
            rng, {1: 0.3, 2: 1.0, 3: 0.2, 4: 0.6, 6: 0.4, 8: 0.25, 10: 0.15}, 0.02, 0.2
        )
        self._brushing = _Cycle(rng, {1: 1.0, 2: 0.3, 3: 0.12}, 0.04, 0.3)
        self._compressions = _Cycle(rng, {1: 1.0, 2: 0.55, 3: 0.35, 4: 0.2, 5: 0.12}, 0.02, 0.12)
        self._tremor = _Cycle(rng, {1: 1.0, 2: 0.35, 3: 0.15}, 0.02, 0.3)
        self._bout_hz = rng.uniform(0.05, 0.2, 4)
        self._bout_phase = rng.uniform(0, 2 * np.pi, 4)
        low, high = np.log(_EM_HZ)
        self._em_hz = np.exp(rng.uniform(low, high, _EM_TONES))
        self._em_phase = rng.uniform(0, 2 * np.pi, _EM_TONES)
        self._muscle = Muscle(rate, rng)
        self._movements = Movements(rng)
        self._strengths: dict[str, float] = {}
        self._rates: dict[str, float] = {}

    def render(self, t: Floats, noise: Noise) -> Floats:
        """Move through one stretch of time; stretches follow each other without gap.

        Args:
            t: times of the samples, float64 [n], in seconds.
            noise: what is done, and how strongly.

        Returns:
            What to add to the signal, float64 [n], in µV.
        """
        out = np.zeros(len(t))
        muscle_uv = np.zeros(len(t))
        electrode_uv = self._strength("electrode", t, noise.electrode_uv)
        if (uv := self._strength("gait", t, noise.gait_uv)).any():
            # A step shakes the trunk, its muscles and the electrodes on it.
            out += (
                0.95 * uv * self._gait.at(t, self._rate("gait", noise.gait_uv, noise.gait_hz / 2))
            )
            muscle_uv += 0.1 * uv
            electrode_uv = np.hypot(electrode_uv, 0.3 * uv)
        if (uv := self._strength("brushing", t, noise.brushing_uv)).any():
            hz = self._rate("brushing", noise.brushing_uv, noise.brushing_hz)
            bouts = sinusoids(t, self._bout_hz, self._bout_phase)
            uv = uv / (1 + np.exp(-_EDGE * (bouts + _BRUSHING)))
            out += uv * self._brushing.at(t, hz)
            # The muscle over the heart works with every stroke.
            muscle_uv += 0.35 * uv * np.abs(np.sin(self._brushing.phase(t, hz) / 2))
        if (uv := self._strength("compressions", t, noise.compressions_uv)).any():
            per_minute = noise.compressions_per_minute
            hz = self._rate("compressions", noise.compressions_uv, per_minute / 60)
            out += uv * self._compressions.at(t, hz)
        if (uv := self._strength("tremor", t, noise.tremor_uv)).any():
            hz = self._rate("tremor", noise.tremor_uv, noise.tremor_hz)
            out += uv * self._tremor.at(t, hz)
            muscle_uv += 0.1 * uv * np.abs(np.sin(self._tremor.phase(t, hz) / 2))
        if muscle_uv.any():
            out += muscle_uv * self._muscle.render(t)
        if electrode_uv.any():
            # Strength falls with the frequency: equal power in every octave.
            out += 0.95 * electrode_uv * sinusoids(t, self._em_hz, self._em_phase)
        moving_uv = float(electrode_uv[-1])
        return out + self._movements.render(t, _EM_PER_MINUTE if moving_uv else 0.0, 2 * moving_uv)

    def _strength(self, name: str, t: Floats, target_uv: float) -> Floats:
        """Strength of one activity, float64 [n], in µV: on its way from the last one."""
        last_uv = self._strengths.get(name, 0.0)
        way = np.minimum((t - t[0]) / _RAMP_S, 1)
        strength = last_uv + (target_uv - last_uv) * way
        self._strengths[name] = float(strength[-1])
        return np.asarray(strength)

    def _rate(self, name: str, uv: float, hz: float) -> float:
        """Frequency of one activity, in Hz: what fades away keeps the one it had."""
        if uv:
            self._rates[name] = hz
        return self._rates.get(name, hz)
