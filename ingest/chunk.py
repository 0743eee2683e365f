"""What every source yields: a run of lead-I samples with the time of the first."""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Stream:
    """One patient's signal from one device; the key by which everything downstream is kept."""

    patient: str
    device: str

    def __str__(self) -> str:
        return f"{self.patient}/{self.device}"


@dataclass(frozen=True, slots=True, eq=False)
class Chunk:
    """A contiguous run of samples of one stream.

    Attributes:
        stream: whose samples these are.
        start_ns: UTC time of the first sample, in nanoseconds since 1970.
        rate: samples per second, in Hz.
        microvolts: float32 [n], in µV; NaN where the recorder marked a sample invalid.
        contact: whether the electrodes touch the skin, None where the device does not say.
        sequence: the device's own running number, None where it has none.
        gap_cause: why samples are missing before this chunk, where the source knows.
        acknowledge: to be called on the event loop once the chunk is durable, or refused for good;
            None where nobody waits for that.
    """

    stream: Stream
    start_ns: int
    rate: float
    microvolts: NDArray[np.float32]
    contact: bool | None = None
    sequence: int | None = None
    gap_cause: str | None = None
    acknowledge: Callable[[], None] | None = field(default=None, repr=False)

    @property
    def end_ns(self) -> int:
        """UTC time just after the last sample, in nanoseconds."""
        return self.start_ns + round(len(self.microvolts) / self.rate * 1e9)
