"""What a chest strap says, once decoded."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """A run of ECG samples of one packet.

    Attributes:
        clock_ns: the device's own time of the last sample, in nanoseconds since the device's own
            epoch; None where the device sends no time.
        microvolts: float32 [n], in µV.
    """

    clock_ns: int | None
    microvolts: NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Pulse:
    """One Heart Rate Measurement.

    Attributes:
        heart_rate: beats per minute; None where the sensor has none (it sends 0).
        rr_s: RR intervals in seconds, oldest first.
        contact: whether the electrodes touch the skin, None where the sensor does not say.
    """

    heart_rate: int | None
    rr_s: tuple[float, ...]
    contact: bool | None


@dataclass(frozen=True, slots=True)
class Battery:
    """What is left in the battery, in percent, 0 to 100."""

    percent: int


Event = Frame | Pulse | Battery
Emit = Callable[[Event], None]


class MalformedError(ValueError):
    """A packet that does not follow its format; the message says what was expected."""


class DeviceError(Exception):
    """The device answered, but not what we need; the message says what to do."""
