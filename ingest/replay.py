"""Recordings as a source: what was recorded then is delivered as if it were live."""

import asyncio
import time
from collections.abc import AsyncIterator

import numpy as np

from ingest.chunk import Chunk, Stream
from ingest.host import STEPPED, HostClock
from ingest.recordings import Recording, Segment


class ReplaySource:
    """Delivers one lead of a recording, at its own pace or faster.

    A chunk comes when its last sample would have been recorded. Deadlines are reckoned from the
    start, so that delays do not add up; after a stall what is overdue comes at once, and no more.
    A gap is a jump of ``Chunk.start_ns``, and takes as long as it took then.

    Attributes:
        name: ``replay:`` and the name of the recording.
    """

    def __init__(
        self,
        recording: Recording,
        stream: Stream,
        *,
        lead: str | None = None,
        speed: float = 1.0,
        start_ns: int | None = None,
        chunk_s: float = 1.0,
        host: HostClock | None = None,
    ) -> None:
        """Choose what is replayed, and how.

        Args:
            recording: where the samples come from.
            stream: whose they are said to be.
            lead: which lead; by default lead I, or the first where there is none.
            speed: how many times faster than recorded; ``math.inf`` is as fast as it goes.
            start_ns: UTC time given to the start of the recording, in nanoseconds since 1970; by
                default its own, or the present where it has none.
            chunk_s: length of a chunk in seconds, rounded to whole samples, at least one.
            host: whose clock the times follow when it is set, as those of a device would; None to
                keep to ``start_ns``.

        Raises:
            RecordingError: the recording has no such lead.
            ValueError: ``speed`` or ``chunk_s`` are not positive, or ``chunk_s`` is not finite.
        """
        if not speed > 0:
            raise ValueError(f"speed is {speed}; expected more than 0")
        if not 0 < chunk_s < float("inf"):
            raise ValueError(f"chunk_s is {chunk_s}; expected more than 0 s")
        self.name = f"replay:{recording.name}"
        self.live = False
        self._recording = recording
        self._stream = stream
        self._lead = recording.lead_index(lead or recording.default_lead())
        self._speed = speed
        self._start_ns = recording.start_ns if start_ns is None else start_ns
        self._host = host
        self._chunk_samples = max(1, round(chunk_s * recording.rate))

    async def chunks(self) -> AsyncIterator[Chunk]:
        """Yield the chunks of the recording, once, each when it is due."""
        loop = asyncio.get_running_loop()
        begun = loop.time()
        start_ns = time.time_ns() if self._start_ns is None else self._start_ns
        rate = self._recording.rate
        stepped_ns = 0
        for segment in self._recording.segments:
            samples = segment.microvolts.shape[1]
            for first in range(0, samples, self._chunk_samples):
                end = min(first + self._chunk_samples, samples)
                due = begun + (segment.start_s + end / rate) / self._speed
                # Even a wait of nothing lets the rest of the loop run.
                await asyncio.sleep(max(0.0, due - loop.time()))
                before_ns = stepped_ns
                stepped_ns = 0 if self._host is None else self._host.stepped_ns
                cause = None if stepped_ns == before_ns else STEPPED
                yield self._chunk(segment, first, end, start_ns + stepped_ns, cause)

    def _chunk(
        self, segment: Segment, first: int, end: int, start_ns: int, cause: str | None
    ) -> Chunk:
        """Samples ``first`` to ``end`` of a segment, timed by number: no error adds up."""
        rate = self._recording.rate
        offset_ns = round(segment.start_s * 1e9) + round(first * 1e9 / rate)
        return Chunk(
            stream=self._stream,
            start_ns=start_ns + offset_ns,
            rate=rate,
            microvolts=np.ascontiguousarray(segment.microvolts[self._lead, first:end]),
            gap_cause=cause,
        )
