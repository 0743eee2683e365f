"""What ventricles do that no longer beat: fibrillation and flutter as lead I sees them.

Fibrillation is a narrow band around a dominant frequency that wanders. So it is on the surface ECG
of man: one spectral peak, on average at 4.8 Hz, that moves more from second to second than that of
a tachycardia and is less high (Clayton, Murray, Campbell: Objective features of the surface
electrocardiogram during ventricular tachyarrhythmias. Eur Heart J 16:1115-1119, 1995). It waxes and
wanes with the beating of the frequencies within the band. By its height from peak to peak it is
coarse or, below 200 µV, fine (Kerber et al.: Automatic external defibrillators for public access
defibrillation. Circulation 95:1677-1682, 1997).

Flutter is one frequency that hardly moves: a sine without QRS or T (the VFL of MIT-BIH).

Both are functions of time, without memory, and so the same at every sampling rate.
"""

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

_TONES = 16  # sinusoids a band
_BAND_SD_HZ = 0.35  # width of the band around the frequency of the moment
_WANDER_SD_HZ = 0.3  # how far that frequency moves
_STEADY = 0.2  # share of the power that does not wax and wane
_HARMONIC, _SUBHARMONIC = 0.25, 0.2  # amplitudes of the bands at twice and 0.6 of the frequency
_BELOW = 0.6
# Height from peak to peak over RMS: twice the mean envelope of a narrow band, √(π/2) RMS.
_HEIGHT_RMS = 2.5

_FLUTTER_WANDER_SD_HZ = 0.05
_FLUTTER_SWELL = 0.08  # RMS by which its height varies
_FLUTTER_HARMONIC = 0.15  # a flutter wave is a little steeper on one side


class Ventricles:
    """The electrical activity of ventricles without a beat, of one patient.

    Args:
        rng: source of all chance in it.
    """

    def __init__(self, rng: np.random.Generator) -> None:
        self._wander_hz = rng.uniform(0.02, 0.15, 6)
        self._wander_phase = rng.uniform(0, 2 * np.pi, 6)
        self._swell_hz = rng.uniform(0.02, 0.1, 4)
        self._swell_phase = rng.uniform(0, 2 * np.pi, 4)
        self._offset_hz = rng.normal(0, _BAND_SD_HZ, (3, _TONES))
        self._offset_phase = rng.uniform(0, 2 * np.pi, (3, _TONES))
        self._flutter_phase = rng.uniform(0, 2 * np.pi)

    def fibrillation(self, t: Floats, dominant_hz: float, amplitude_uv: float) -> Floats:
        """Return ventricular fibrillation.

        Args:
            t: times of the samples, float64 [n], in seconds.
            dominant_hz: the frequency around which it wanders, in Hz.
            amplitude_uv: typical height of a wave from peak to peak, in µV.

        Returns:
            float64 [n], in µV.
        """
        phase = 2 * np.pi * dominant_hz * t + self._wander(t, _WANDER_SD_HZ)
        main, above, below = (self._band(t, i) for i in range(3))
        main = np.sqrt(_STEADY) + np.sqrt(1 - _STEADY) * main
        wave = np.real(
            main * (np.exp(1j * phase) + _HARMONIC * above * np.exp(2j * phase))
            + _SUBHARMONIC * below * np.exp(1j * _BELOW * phase)
        )
        rms = np.sqrt((1 + _HARMONIC**2 + _SUBHARMONIC**2) / 2)
        return np.asarray(amplitude_uv / _HEIGHT_RMS / rms * self._swell(t, 0.2) * wave)

    def flutter(self, t: Floats, waves_per_minute: float, amplitude_uv: float) -> Floats:
        """Return ventricular flutter.

        Args:
            t: times of the samples, float64 [n], in seconds.
            waves_per_minute: how many waves a minute.
            amplitude_uv: typical height of a wave from peak to peak, in µV.

        Returns:
            float64 [n], in µV.
        """
        phase = 2 * np.pi * waves_per_minute / 60 * t + self._wander(t, _FLUTTER_WANDER_SD_HZ)
        wave = np.sin(phase) + _FLUTTER_HARMONIC * np.sin(2 * phase + self._flutter_phase)
        return np.asarray(amplitude_uv / 2 * self._swell(t, _FLUTTER_SWELL) * wave)

    def _wander(self, t: Floats, sd_hz: float) -> Floats:
        """Phase of a frequency that moves by ``sd_hz`` RMS, float64 [n], in rad: its integral."""
        deviation = sd_hz * np.sqrt(2 / len(self._wander_hz))
        waves = np.sin(2 * np.pi * np.outer(t, self._wander_hz) + self._wander_phase)
        return np.asarray(waves @ (deviation / self._wander_hz))

    def _swell(self, t: Floats, sd: float) -> Floats:
        """Strength that drifts around 1 by ``sd`` RMS, float64 [n]."""
        waves = np.sin(2 * np.pi * np.outer(t, self._swell_hz) + self._swell_phase)
        return np.asarray(1 + sd * np.sqrt(2 / len(self._swell_hz)) * waves.sum(axis=1))

    def _band(self, t: Floats, i: int) -> NDArray[np.complex128]:
        """One band shifted to 0 Hz: complex [n], Gaussian in effect, of unit power."""
        angles = 2 * np.pi * np.outer(t, self._offset_hz[i]) + self._offset_phase[i]
        return np.asarray(np.exp(1j * angles).sum(axis=1) / np.sqrt(_TONES))
