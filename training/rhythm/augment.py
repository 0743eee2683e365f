"""Vary windows of known rhythm, and make those that recordings hold too few of."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.rhythm.frontend import RATE, SAMPLES
from training.rhythm.records import Label

Floats = NDArray[np.float32]

_T = np.arange(SAMPLES) / RATE

_AMPLIFIED_UV = 20_000.0

# Noise of this size, beside the heart's, may hide it; beneath that QRS complexes are to be seen.
_HIDING = 0.8

_LETHAL = int(Label.VF | Label.VT)
_NOT_LETHAL = int(Label.ORGANISED | Label.NOISE)


@dataclass(frozen=True, slots=True, eq=False)
class Augmenter:
    """Varies windows by chance.

    Attributes:
        noise: float32 [k, ``SAMPLES``], recorded windows full of noise, of people who are trained
            on, in µV.
        rng: source of all chance.
    """

    noise: Floats
    rng: np.random.Generator

    def vary(self, inputs: Floats, labels: NDArray[np.uint8]) -> tuple[Floats, NDArray[np.uint8]]:
        """Vary a batch: size, polarity, pace, noise, and how much of the past is known.

        Args:
            inputs: [b, ``SAMPLES``], in µV; not changed.
            labels: [b].

        Returns:
            The varied windows and their labels: noise over a heart may hide it.
        """
        rng = self.rng
        x, y = inputs.copy(), labels.copy()
        n = len(x)
        for i in np.flatnonzero(rng.random(n) < 0.5):
            x[i] = _paced(x[i], rng.uniform(0.85, 1.18))
        asystole = y == Label.ASYSTOLE
        gain = np.exp(rng.uniform(-0.9, 0.9, n))
        gain[asystole] = np.exp(rng.uniform(-0.5, 0.3, int(asystole.sum())))
        # A recorder of unknown gain: a heart is a heart at any size.
        unknown = (rng.random(n) < 0.03) & ~asystole
        gain[unknown] = np.exp(rng.uniform(-2.5, 5.0, int(unknown.sum())))
        # What is tens of millivolts was written as its amplifier gave it.
        amplified = (x.std(axis=1) > _AMPLIFIED_UV) & (rng.random(n) < 0.7)
        gain[amplified] *= 1e-3
        x *= (gain * np.where(rng.random(n) < 0.35, -1, 1))[:, None].astype(np.float32)
        for i in np.flatnonzero(rng.random(n) < 0.35):
            self._disturb(x, y, i)
        short = np.flatnonzero(rng.random(n) < 0.15)
        for i in short:
            x[i, : rng.integers(0, SAMPLES // 2)] = 0.0
        return x, y

    def _disturb(self, x: Floats, y: NDArray[np.uint8], i: np.intp) -> None:
        """Lay recorded noise or a rhythmic movement over a window."""
        rng = self.rng
        size = float(x[i, -300:].std()) + 1.0
        if y[i] == Label.ASYSTOLE:
            return
        if rng.random() < 0.5 or y[i] & _LETHAL:
            noise = self.noise[rng.integers(len(self.noise))]
            share = rng.uniform(0.1, 0.5) if y[i] & _LETHAL else np.exp(rng.uniform(-2, 1.2))
        else:
            noise = movement(rng)
            share = np.exp(rng.uniform(-1.0, 1.6))
        x[i] += noise * np.float32(share * size / (float(noise.std()) + 1e-3))
        if y[i] & Label.ORGANISED and share > _HIDING:
            y[i] = _NOT_LETHAL


def _paced(window: Floats, factor: float) -> Floats:
    """The same at another pace; the end stays where it is."""
    at = SAMPLES - 1 - (SAMPLES - 1 - np.arange(SAMPLES)) * factor
    paced: NDArray[np.float64] = np.interp(at, np.arange(SAMPLES), window, left=0.0)
    return paced.astype(np.float32)


def movement(rng: np.random.Generator) -> Floats:
    """A rhythmic movement of the electrodes: a walk, a tooth-brush, a tremor, compressions."""
    hz = rng.choice([rng.uniform(0.9, 3.2), rng.uniform(3.0, 8.0)])
    drift = np.cumsum(rng.normal(0, 0.02, SAMPLES)) * rng.uniform(0, 1)
    phase = 2 * np.pi * hz * _T + drift + rng.uniform(0, 2 * np.pi)
    out = np.zeros(SAMPLES)
    for harmonic in range(1, rng.integers(2, 6)):
        weight = rng.uniform(0.2, 1.0) / harmonic
        out += weight * np.sin(harmonic * phase + rng.uniform(0, 2 * np.pi))
    swell = 0.3 + _smooth(rng, rng.uniform(0.1, 1.0))
    bursts = rng.normal(0, rng.uniform(0, 0.6), SAMPLES) * np.clip(out, 0, None)
    return ((out * swell) + bursts).astype(np.float32)


def _smooth(rng: np.random.Generator, hz: float) -> NDArray[np.float64]:
    """A slow positive curve around 0.5 to 1."""
    knots = max(3, int(SAMPLES / RATE * hz) + 2)
    return np.interp(_T, np.linspace(0, _T[-1], knots), rng.uniform(0.2, 1.5, knots))


def surrogate(window: Floats, rng: np.random.Generator) -> Floats:
    """Noise with the spectrum of a recorded window and phases of chance: no beat is left in it.

    After Theiler et al. (1992), Physica D 58:77-94.
    """
    spectrum = np.fft.rfft(window)
    phases = np.exp(2j * np.pi * rng.random(len(spectrum)))
    return np.fft.irfft(np.abs(spectrum) * phases, SAMPLES).astype(np.float32)


def asystole(noise: Floats, rng: np.random.Generator) -> Floats:
    """A heart that stands still, as a recorder sees it: drift, muscle, perhaps P waves.

    Args:
        noise: [``SAMPLES``], a recorded window whose spectrum the noise has.
        rng: source of all chance.
    """
    size_uv = np.exp(rng.uniform(np.log(1.5), np.log(45.0)))
    out = surrogate(noise, rng)
    out *= np.float32(size_uv / (float(out.std()) + 1e-3))
    out += rng.normal(0, np.exp(rng.uniform(np.log(0.5), np.log(15.0))), SAMPLES)
    slow = np.exp(rng.uniform(np.log(1.0), np.log(120.0)))
    out += slow * np.sin(2 * np.pi * rng.uniform(0.1, 0.9) * _T + rng.uniform(0, 6.3))
    if rng.random() < 0.25:
        out += _p_waves(rng)
    if rng.random() < 0.35:  # the last beats are still in sight
        out = _after_beats(out, rng)
    return out.astype(np.float32)


def _p_waves(rng: np.random.Generator) -> NDArray[np.float64]:
    height_uv, width_s = rng.uniform(20, 130), rng.uniform(0.02, 0.04)
    out = np.zeros(SAMPLES)
    at = rng.uniform(0, 1)
    while at < _T[-1]:
        out += height_uv * np.exp(-0.5 * ((_T - at) / width_s) ** 2)
        at += rng.uniform(0.95, 1.05) * 60 / rng.uniform(45, 110)
    return out


def _after_beats(out: NDArray[np.floating], rng: np.random.Generator) -> Floats:
    """Beats up to three seconds or more before the end."""
    r_uv, width_s = np.exp(rng.uniform(np.log(200), np.log(2000))), rng.uniform(0.008, 0.04)
    t_uv = r_uv * rng.uniform(0.05, 0.4)
    rr = rng.uniform(0.4, 1.2)
    at = _T[-1] - rng.uniform(3.2, 6.0)
    beats = np.zeros(SAMPLES)
    while at > -0.5:
        beats += r_uv * np.exp(-0.5 * ((_T - at) / width_s) ** 2)
        beats -= r_uv * 0.3 * np.exp(-0.5 * ((_T - at - 2.2 * width_s) / width_s) ** 2)
        beats += t_uv * np.exp(-0.5 * ((_T - at - 0.28) / 0.06) ** 2)
        at -= rr * rng.uniform(0.95, 1.05)
    return (out + beats).astype(np.float32)
