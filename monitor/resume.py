"""Takes up where an earlier run stopped, however it stopped."""

from collections.abc import Iterable, Iterator
from dataclasses import replace

from alerts.engine import MEMORY, Engine
from ingest.chunk import Chunk, Stream
from monitor.observe import observation
from monitor.storage.history import History

# What is older is history: an alarm about it would come too late to mean now.
_LOOK_BACK_S = 3600

# Segments are found by their start; one that began this long ago may still reach into the present.
_LONGEST_CHUNK_S = 300


def restore(engine: Engine, history: History, *, now_ns: int, hop_s: float) -> None:
    """Give the engine the alarms that were active and the windows it had seen."""
    since_ns = now_ns - round(MEMORY * hop_s * 1e9)
    recent = [
        observation(result)
        for patient in history.patients()
        for result in history.windows(patient.id, since_ns, _FOREVER_NS)
    ]
    engine.restore(history.active_alarms(), recent)


def backlog(
    history: History, streams: Iterable[Stream], *, now_ns: int, length_s: float, hop_s: float
) -> list[Chunk]:
    """Chunks that are durable but whose windows are not: what a crash left behind.

    Each stream's begin one window's overlap before its last stored window ended, so that its next
    window is the one that would have come, to within a sample.
    """
    left: list[Chunk] = []
    since_ns = now_ns - _LOOK_BACK_S * _SECOND_NS
    overlap_ns = round((length_s - hop_s) * 1e9)
    for stream in streams:
        done_ns = history.last_window_end(stream)
        start_ns = since_ns if done_ns is None else max(since_ns, done_ns - overlap_ns)
        chunks = list(_from(history, stream, start_ns))
        # A window's end is known to a thousandth of its length, as its rate is.
        known_ns = None if done_ns is None else done_ns + round(length_s * 1e6)
        if any(known_ns is None or chunk.end_ns > known_ns for chunk in chunks):
            left.extend(chunks)
    return left


def _from(history: History, stream: Stream, start_ns: int) -> Iterator[Chunk]:
    """All that is stored of a stream from a moment on, without the samples before it."""
    for chunk in history.segments(
        stream.patient, start_ns - _LONGEST_CHUNK_S * _SECOND_NS, _FOREVER_NS
    ):
        if chunk.stream != stream:
            continue
        before = round((start_ns - chunk.start_ns) / 1e9 * chunk.rate)
        if before <= 0:
            yield chunk
        elif before < len(chunk.microvolts):
            yield replace(
                chunk,
                start_ns=chunk.start_ns + round(before / chunk.rate * 1e9),
                microvolts=chunk.microvolts[before:],
            )


_SECOND_NS = 1_000_000_000
_FOREVER_NS = 2**63 - 1
