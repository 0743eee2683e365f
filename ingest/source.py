"""The one interface of everything that delivers ECG."""

from collections.abc import AsyncIterator
from typing import Protocol

from ingest.chunk import Chunk


class Source(Protocol):
    """Delivers chunks until it has no more or its iterator is closed.

    A source never blocks the event loop, and never skips or reorders what its device sent:
    what a consumer does not see as samples must show as a jump of ``Chunk.start_ns``.
    """

    name: str

    def chunks(self) -> AsyncIterator[Chunk]:
        """Yield chunks in the order in which the device sent them."""
        ...
