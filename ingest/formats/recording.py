"""What a reader of recordings returns, and the one error it raises."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


class RecordingError(Exception):
    """A recording cannot be used; ``str()`` is one line: path, what is wrong, what was expected."""

    def __str__(self) -> str:
        # Paths and header fields may hold line breaks and control characters.
        text = super().__str__()
        return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


@dataclass(frozen=True, slots=True, eq=False)
class Segment:
    """A stretch of a recording without a gap.

    Attributes:
        start_s: time of the first sample after the start of the recording, in seconds.
        microvolts: float32 [leads, n], in µV; NaN where the recorder marked a sample invalid.
    """

    start_s: float
    microvolts: NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class Recording:
    """A finished ECG recording.

    Attributes:
        name: the name of its file, without the extension.
        leads: the name of each row of samples, as the file spells it; unique but for case.
        rate: samples per second, in Hz.
        start_ns: time of the start in nanoseconds since 1970, None where the file does not say.
            No format states a time zone; the time is taken as UTC.
        segments: in order of time; between two there is a gap, for which nothing is stored.
        comments: the free text of the header, one string a line.
    """

    name: str
    leads: tuple[str, ...]
    rate: float
    start_ns: int | None
    segments: tuple[Segment, ...]
    comments: tuple[str, ...] = ()

    @property
    def duration_s(self) -> float:
        """Seconds from the start to the end of the last sample, gaps included."""
        if not self.segments:
            return 0.0
        last = self.segments[-1]
        return last.start_s + len(last.microvolts[0]) / self.rate

    def lead_index(self, name: str) -> int:
        """The row of the lead called ``name``, in any case.

        Raises:
            RecordingError: there is no such lead; the message lists those there are.
        """
        for index, lead in enumerate(self.leads):
            if lead.casefold() == name.casefold():
                return index
        raise RecordingError(f"{self.name}: no lead {name!r}; it has {', '.join(self.leads)}")

    def default_lead(self) -> str:
        """Lead I where the recording has it, else its first lead."""
        return next((lead for lead in self.leads if lead.casefold() == "i"), self.leads[0])
