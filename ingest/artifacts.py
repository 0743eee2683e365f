"""What disturbs an ECG on its way from the heart to the recorder."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

_MUSCLE_BAND_HZ = (20.0, 150.0)
_MUSCLE_KERNEL_S = 0.15
_MOTION_ENDS = 6.0  # time constants after which a movement is over

_STRENGTH = (0.0, 10_000.0, "µV")
LIMITS: Mapping[str, tuple[float, float, str]] = MappingProxyType(
    {
        "baseline_uv": _STRENGTH,
        "mains_uv": _STRENGTH,
        "mains_hz": (50.0, 60.0, "Hz"),
        "muscle_uv": _STRENGTH,
        "motion_per_minute": (0.0, 60.0, ""),
        "motion_uv": _STRENGTH,
        "gait_uv": _STRENGTH,
        "gait_hz": (1.5, 3.0, "Hz"),
        "electrode_uv": _STRENGTH,
        "brushing_uv": _STRENGTH,
        "brushing_hz": (4.0, 7.0, "Hz"),
        "compressions_uv": _STRENGTH,
        "compressions_per_minute": (80.0, 140.0, ""),
        "tremor_uv": _STRENGTH,
        "tremor_hz": (4.0, 8.0, "Hz"),
    }
)
"""Range and unit of every value of a Noise; of mains_hz, both ends and nothing between."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Noise:
    """How strong each disturbance is; none by default.

    The last five are of a body that moves (see ``ingest.activities``).

    Attributes:
        baseline_uv: RMS of the baseline wander (breathing, drifting electrodes), in µV.
        mains_uv: amplitude of the mains hum, in µV.
        mains_hz: mains frequency, 50 or 60 Hz.
        muscle_uv: RMS of the muscle noise, in µV.
        motion_per_minute: movements of the electrodes per minute, on average.
        motion_uv: typical peak of a movement, in µV.
        gait_uv: RMS of what walking and running do, step by step, in µV.
        gait_hz: steps per second: some 1.8 walking, 2.7 running.
        electrode_uv: RMS of electrodes that move on the skin all the time, in µV.
        brushing_uv: RMS of the sway of an arm that brushes teeth, while it does, in µV.
        brushing_hz: strokes per second.
        compressions_uv: RMS of what chest compressions do, in µV.
        compressions_per_minute: how many of them a minute.
        tremor_uv: RMS of a trembling arm, in µV.
        tremor_hz: how often it trembles, in Hz.

    Raises:
        ValueError: a value is out of range.
    """

    baseline_uv: float = 0.0
    mains_uv: float = 0.0
    mains_hz: float = 50.0
    muscle_uv: float = 0.0
    motion_per_minute: float = 0.0
    motion_uv: float = 1000.0
    gait_uv: float = 0.0
    gait_hz: float = 1.8
    electrode_uv: float = 0.0
    brushing_uv: float = 0.0
    brushing_hz: float = 5.5
    compressions_uv: float = 0.0
    compressions_per_minute: float = 110.0
    tremor_uv: float = 0.0
    tremor_hz: float = 5.0

    def __post_init__(self) -> None:
        if self.mains_hz not in {50.0, 60.0}:
            raise ValueError(f"mains_hz must be 50 or 60, not {self.mains_hz}")
        for name, (low, high, unit) in LIMITS.items():
            value = getattr(self, name)
            if not low <= value <= high:
                least, most = f"{low:g}", f"{high:g} {unit}".strip()
                raise ValueError(f"{name} must be {least} to {most}, not {value}")


class _Movement(NamedTuple):
    """An electrode that shifts and settles, and shakes while it does."""

    start_s: float
    shift_uv: float
    settle_s: float
    shake_uv: float
    shake_hz: float

    def at(self, t: Floats) -> Floats:
        dt = np.maximum(t - self.start_s, 0.0)
        shift = -np.expm1(-dt / 0.05) * np.exp(-dt / self.settle_s)
        shake = np.exp(-0.5 * ((dt - self.settle_s) / (0.4 * self.settle_s)) ** 2)
        return self.shift_uv * shift + self.shake_uv * shake * np.sin(
            2 * np.pi * self.shake_hz * dt
        ) * (dt > 0)


class Disturbances:
    """Renders the noise of one recording, stretch by stretch.

    Args:
        rate: samples per second, in Hz.
        rng: source of all chance in it.
    """

    def __init__(self, rate: float, rng: np.random.Generator) -> None:
        # Slow drift of the electrodes, and breathing.
        self._wander_hz = np.concatenate([rng.uniform(0.02, 0.15, 8), rng.normal(0.25, 0.02, 4)])
        self._wander_phase = rng.uniform(0, 2 * np.pi, 12)
        self._mains_offset_hz = rng.uniform(-0.03, 0.03)
        self._mains_phase = rng.uniform(0, 2 * np.pi)
        self._muscle = Muscle(rate, rng)
        self._movements = Movements(rng)

    def render(self, t: Floats, noise: Noise) -> Floats:
        """Disturb one stretch of time; stretches follow each other without gap.

        Args:
            t: times of the samples, float64 [n], in seconds.
            noise: how strongly.

        Returns:
            What to add to the signal, float64 [n], in µV.
        """
        out = np.zeros(len(t))
        if noise.baseline_uv:
            out += noise.baseline_uv * sinusoids(t, self._wander_hz, self._wander_phase)
        if noise.mains_uv:
            mains_hz = noise.mains_hz + self._mains_offset_hz
            out += noise.mains_uv * np.sin(2 * np.pi * mains_hz * t + self._mains_phase)
        if noise.muscle_uv:
            out += noise.muscle_uv * self._muscle.render(t)
        return out + self._movements.render(t, noise.motion_per_minute, noise.motion_uv)


class Muscle:
    """Renders the noise of muscles, stretch by stretch: band-limited, of varying strength, RMS 1.

    Args:
        rate: samples per second, in Hz.
        rng: source of all chance in it.
    """

    def __init__(self, rate: float, rng: np.random.Generator) -> None:
        self._rng = rng
        self._effort_hz = rng.uniform(0.05, 0.4, 4)
        self._effort_phase = rng.uniform(0, 2 * np.pi, 4)
        self._kernel = _band_pass(rate)
        self._white = rng.standard_normal(len(self._kernel) - 1)

    def render(self, t: Floats) -> Floats:
        """Return the noise at the times ``t``, float64 [n], in seconds: float64 [n]."""
        white = np.concatenate([self._white, self._rng.standard_normal(len(t))])
        self._white = white[len(t) :]
        effort = 1 + 0.35 * sinusoids(t, self._effort_hz, self._effort_phase)
        return effort * np.convolve(white, self._kernel, mode="valid") / math.hypot(1, 0.35)


class Movements:
    """Renders electrodes that shift now and then, stretch by stretch.

    Args:
        rng: source of all chance in it.
    """

    def __init__(self, rng: np.random.Generator) -> None:
        self._rng = rng
        self._until_movement = rng.exponential()
        self._movements: list[_Movement] = []

    def render(self, t: Floats, per_minute: float, uv: float) -> Floats:
        """Render the movements of a stretch of time, and what is left of earlier ones.

        Args:
            t: times of the samples, float64 [n], in seconds.
            per_minute: how many begin a minute, on average.
            uv: their typical peak, in µV.

        Returns:
            What to add to the signal, float64 [n], in µV.
        """
        if per_minute:
            self._move(t, per_minute / 60, uv)
        out = np.zeros(len(t))
        for movement in self._movements:
            out += movement.at(t)
        self._movements = [
            m for m in self._movements if t[-1] < m.start_s + _MOTION_ENDS * m.settle_s
        ]
        return out

    def _move(self, t: Floats, per_second: float, uv: float) -> None:
        """Start the movements that fall into this stretch: a Poisson process."""
        at, end = float(t[0]), float(t[-1])
        while at + self._until_movement / per_second < end:
            at += self._until_movement / per_second
            self._until_movement = self._rng.exponential()
            peak = uv * self._rng.uniform(0.5, 1.5)
            self._movements.append(
                _Movement(
                    start_s=at,
                    shift_uv=peak * self._rng.choice([-1.0, 1.0]),
                    settle_s=self._rng.uniform(0.2, 0.8),
                    shake_uv=0.4 * peak,
                    shake_hz=self._rng.uniform(1.5, 8.0),
                )
            )
        self._until_movement -= (end - at) * per_second


def sinusoids(t: Floats, hz: Floats, phase: Floats) -> Floats:
    """Return the sum of equally strong sinusoids with an RMS of 1 over a long time, float64 [n]."""
    waves = np.sin(2 * np.pi * np.outer(t, hz) + phase)
    return np.asarray(waves.sum(axis=1) * math.sqrt(2 / len(hz)))


def _band_pass(rate: float) -> Floats:
    """Hann-windowed sinc band-pass for muscle noise, unit power gain for white noise."""
    low, high = _MUSCLE_BAND_HZ[0] / rate, min(_MUSCLE_BAND_HZ[1] / rate, 0.45)
    half = round(_MUSCLE_KERNEL_S / 2 * rate)
    n = np.arange(-half, half + 1)
    kernel = (2 * high * np.sinc(2 * high * n) - 2 * low * np.sinc(2 * low * n)) * np.hanning(
        2 * half + 1
    )
    return np.asarray(kernel / np.linalg.norm(kernel), dtype=np.float64)
