"""Wearable noise of a known strength, the same every time, to see what a model loses by it.

This measures; ``training.augment`` trains. The two share no code, so that a model is not tested on
the very noise it was trained on.
"""

import numpy as np
from numpy.typing import NDArray

from models.conditioning import HIGH_HZ, LOW_HZ

_WANDER_HZ = (0.05, 2.0)
_MUSCLE_HZ = (10.0, 150.0)
_MOTIONS_PER_S = 0.5
_RISE_S = 0.02


def add_noise(
    microvolts: NDArray[np.floating], rate: float, snr_db: float, seed: int
) -> NDArray[np.float64]:
    """Add baseline wander, muscle noise and electrode motion, a third of the noise power each.

    SNR = 10 log10(P_signal / P_noise). All powers are those between 1 and 47 Hz, since nothing else
    reaches a network: wander has most of its power below and is the larger for it, as on a body.

    - wander: 0.05-2 Hz, power falling as 1/f²;
    - muscle: 10-150 Hz (or half the rate), flat;
    - motion: about one event each 2 s, a step of random height that decays within 0.2-1 s.

    Args:
        microvolts: [records, time], in µV.
        rate: samples per second, in Hz, over 20.
        snr_db: in dB, of each record by itself.
        seed: the noise of a record depends on this and on its row alone.

    Returns:
        float64 [records, time], in µV. A record without power in the band is returned as it is.
    """
    out = np.array(microvolts, dtype=np.float64)
    scale = np.sqrt(band_power(out, rate) / 10 ** (snr_db / 10))
    for row in range(len(out)):
        generator = np.random.default_rng([seed, row])
        out[row] += scale[row] * _noise(out.shape[1], rate, generator)
    return out


def band_power(x: NDArray[np.floating], rate: float) -> NDArray[np.float64]:
    """Mean power between 1 and 47 Hz of [..., time], by Parseval's theorem; µV² for µV."""
    n = x.shape[-1]
    f = np.fft.rfftfreq(n, 1 / rate)
    # Every bin but the first and, of an even length, the last stands for its mirror image too.
    weight = np.where((f == 0) | (2 * f == rate), 1.0, 2.0) * ((f >= LOW_HZ) & (f <= HIGH_HZ))
    power: NDArray[np.float64] = (np.abs(np.fft.rfft(x)) ** 2 * weight).sum(axis=-1) / n**2
    return power


def _noise(time: int, rate: float, generator: np.random.Generator) -> NDArray[np.float64]:
    """Noise [time] of power 1 in the band."""
    f = np.fft.rfftfreq(time, 1 / rate).astype(np.float64)
    # Amplitude 1/f is power 1/f².
    wander = np.where(_between(f, _WANDER_HZ), 1 / np.maximum(f, _WANDER_HZ[0]), 0.0)
    muscle = _between(f, _MUSCLE_HZ).astype(np.float64)
    parts = (
        _coloured(wander, time, generator),
        _coloured(muscle, time, generator),
        _motion(time, rate, generator),
    )
    noise = np.sum([part / np.sqrt(band_power(part, rate)) for part in parts], axis=0)
    # The parts are independent only on the average over records.
    result: NDArray[np.float64] = noise / np.sqrt(band_power(noise, rate))
    return result


def _between(f: NDArray[np.float64], band: tuple[float, float]) -> NDArray[np.bool_]:
    return (f >= band[0]) & (f <= band[1])


def _coloured(
    amplitude: NDArray[np.float64], time: int, generator: np.random.Generator
) -> NDArray[np.float64]:
    return np.fft.irfft(np.fft.rfft(generator.standard_normal(time)) * amplitude, time)


def _motion(time: int, rate: float, generator: np.random.Generator) -> NDArray[np.float64]:
    events = max(1, generator.poisson(_MOTIONS_PER_S * time / rate))
    start_s = generator.uniform(0, 0.9 * time / rate, events)[:, None]
    decay_s = generator.uniform(0.2, 1.0, events)[:, None]
    height = generator.standard_normal(events)[:, None]
    since = np.maximum(np.arange(time) / rate - start_s, 0.0)
    result: NDArray[np.float64] = (
        height * (1 - np.exp(-since / _RISE_S)) * np.exp(-since / decay_s)
    ).sum(axis=0)
    return result
