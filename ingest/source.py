"""The one interface of everything that delivers ECG, or RR intervals in its stead."""

from collections.abc import AsyncIterator
from typing import Protocol

from ingest.chunk import Chunk
from ingest.rr import RrIntervals


class Source(Protocol):
    """Delivers chunks until it has no more or its iterator is closed.

    A strap that sends no waveform gives ``RrIntervals`` where another gives a ``Chunk``.

    A source never blocks the event loop, and never skips or reorders what its device sent:
    what a consumer does not see as samples must show as a jump of ``Chunk.start_ns`` (or of
    ``RrIntervals.end_ns``).

    Attributes:
        name: for the log.
        live: whether its devices go on sending whatever becomes of what they sent, so that nobody
            gains by waiting; a recording is not live. A live source may have many streams.
    """

    name: str
    live: bool

    def chunks(self) -> AsyncIterator[Chunk | RrIntervals]:
        """Yield chunks in the order in which the device sent them."""
        ...
