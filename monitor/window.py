"""What the ring cuts from a stream: windows of samples, and the gaps between them."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ingest.chunk import Stream

NOT_RUNNING = "leadone was not running"
"""Why there is a gap between the last sample of one run and the first of the next."""


@dataclass(frozen=True, slots=True, eq=False)
class Window:
    """A fixed length of one stream.

    Attributes:
        stream: whose samples these are.
        start_ns: UTC time of the first sample, in nanoseconds since 1970.
        rate: samples per second, in Hz.
        microvolts: float32 [n], in µV; NaN where a sample is missing.
        contact: False if any chunk in the window said the electrodes are off; None if none said.
    """

    stream: Stream
    start_ns: int
    rate: float
    microvolts: NDArray[np.float32]
    contact: bool | None = None

    @property
    def duration_s(self) -> float:
        """Length in seconds."""
        return len(self.microvolts) / self.rate

    @property
    def end_ns(self) -> int:
        """UTC time just after the last sample, in nanoseconds."""
        return self.start_ns + round(self.duration_s * 1e9)


@dataclass(frozen=True, slots=True)
class Gap:
    """A stretch of a stream's time for which there are no samples, and why.

    ``end_ns`` < ``start_ns`` is a clock that was set back by the difference; no time is missing.
    """

    stream: Stream
    start_ns: int
    end_ns: int
    cause: str
