"""Knows whether the path of a sample moves: what waits in each stage, and since when none has left.

A queue that is long but moves is no stall, and windows that are skipped for lack of time are none
either: of those ``monitor.gateway`` says that watching falls behind.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum

from ingest.chunk import Stream


class Stage(StrEnum):
    """A part of the path that something may wait in, in the order of the path."""

    INTAKE = "intake"
    """A chunk that was received, and is not yet handed to the writer and cut into windows."""
    ANALYSIS = "analysis"
    """A window that was cut, and is not yet concluded."""
    STORAGE = "storage"
    """A record that was given to the writer, and is not yet durable."""


# One thread works for all streams there, in turn: whatever it finishes, it works, and a stream
# whose turn is late is not one that stands still.
_SHARED = frozenset({Stage.ANALYSIS, Stage.STORAGE})


@dataclass(frozen=True, slots=True)
class Stall:
    """That a stage stands still.

    Attributes:
        stage: which.
        stream: the one that has waited there longest.
        seconds: for how long nothing has left it although something waits.
    """

    stage: Stage
    stream: Stream
    seconds: float


@dataclass(slots=True)
class _Waiting:
    """How many wait, and since when: the first came, or the last one left."""

    count: int
    since_ns: int


class Progress:
    """Counts what enters and leaves each stage, by stream.

    It holds something only of streams of which something waits, and costs some microseconds a
    chunk.

    Args:
        now_ns: a clock that nobody sets, in nanoseconds, and that stands still while the machine
            sleeps, as everything it measures does, and as systemd's watchdog.
    """

    def __init__(self, now_ns: Callable[[], int] = time.monotonic_ns) -> None:
        self._now_ns = now_ns
        self._streams: dict[Stage, dict[Stream, _Waiting]] = {stage: {} for stage in Stage}
        self._whole = {stage: _Waiting(0, 0) for stage in Stage}

    def enter(self, stage: Stage, stream: Stream) -> None:
        """Take note that something of a stream waits in a stage from now on."""
        now_ns, whole = self._now_ns(), self._whole[stage]
        waiting = self._streams[stage].setdefault(stream, _Waiting(0, now_ns))
        waiting.count += 1
        if not whole.count:
            whole.since_ns = now_ns
        whole.count += 1

    def leave(self, stage: Stage, stream: Stream, *, skipped: bool = False) -> None:
        """Take note that something has left a stage.

        Args:
            stage: which.
            stream: whose it was.
            skipped: whether it was given up unread, which does not show that the stage works.
        """
        waiting = self._streams[stage].get(stream)
        if waiting is None:
            return
        now_ns, whole = self._now_ns(), self._whole[stage]
        waiting.count -= 1
        whole.count -= 1
        if not skipped:
            waiting.since_ns = whole.since_ns = now_ns
        if not waiting.count:
            del self._streams[stage][stream]

    @contextmanager
    def within(self, stage: Stage, stream: Stream) -> Iterator[None]:
        """Something of a stream waits in a stage for as long as this lasts."""
        self.enter(stage, stream)
        try:
            yield
        finally:
            self.leave(stage, stream)

    def works(self, stage: Stage) -> None:
        """Take note that a stage works, although nothing may leave it, as while it tries again."""
        now_ns = self._now_ns()
        for waiting in (self._whole[stage], *self._streams[stage].values()):
            waiting.since_ns = now_ns

    def waits(self, stage: Stage, stream: Stream) -> bool:
        """Whether something of a stream waits in a stage."""
        return stream in self._streams[stage]

    def stands_still(self, stage: Stage, limit_s: float) -> Stall | None:
        """Say whether nothing has left one stage for longer than that though something waits."""
        streams = self._streams[stage]
        if not streams:
            return None
        stream, waiting = min(streams.items(), key=lambda item: item[1].since_ns)
        if stage in _SHARED:
            waiting = self._whole[stage]
        seconds = (self._now_ns() - waiting.since_ns) / 1e9
        return Stall(stage, stream, seconds) if seconds > limit_s else None

    def stalled(self, limit_s: float) -> Stall | None:
        """Say whether a stage stands still, and which.

        Args:
            limit_s: for how long nothing must have left it although something waits, in seconds.

        Returns:
            Of several the last in the path, which holds up those before it; None if all move.
        """
        for stage in reversed(Stage):
            if (stall := self.stands_still(stage, limit_s)) is not None:
                return stall
        return None
