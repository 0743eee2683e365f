"""What storage takes and gives that no other part defines."""

from dataclasses import dataclass, field

from alerts.conditions import Change
from ingest.chunk import Chunk
from monitor.results import WindowResult
from monitor.window import Gap


@dataclass(frozen=True, slots=True)
class Patient:
    """Somebody who is watched.

    Attributes:
        id: what the configuration calls them; may be logged.
        name: their name, None if not given; kept out of ``repr`` so that it never reaches a log.
    """

    id: str
    name: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Episode:
    """Windows near each other in which one class was found.

    Attributes:
        condition: ``class:AF``, as an alarm would name it.
        start_ns: UTC start of the first window, in nanoseconds since 1970.
        end_ns: UTC end of the last window.
        windows: how many windows found it.
        max_probability: the highest probability among them.
        heart_rate: mean beats per minute of those windows, None if none has a heart rate.
    """

    condition: str
    start_ns: int
    end_ns: int
    windows: int
    max_probability: float
    heart_rate: float | None


Record = Chunk | WindowResult | Gap | Change | Patient
"""What the writer stores."""
