"""The ring of one stream: chunks in, overlapping windows and explained gaps out."""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from ingest.chunk import Chunk, Stream
from monitor.metrics import SAMPLES_FILLED_LATE, SAMPLES_REPEATED
from monitor.window import Gap, Window

# A device whose true rate differs from the one it declares (a Polar H10 by up to 2 %) shows as a
# small step at every chunk; it must not be taken for lost samples, which come by the packet.
_RATE_ERROR = 0.03
_MOST_JITTER_S = 0.05

# Measured rates are snapped to steps of this share of the declared one, so that filters designed
# for a rate are found again in their cache.
_RATE_STEP = 5e-4


@dataclass(frozen=True, slots=True)
class Cut:
    """What one chunk led to."""

    windows: list[Window] = field(default_factory=list)
    gaps: list[Gap] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Piece:
    """Where a chunk lies in the run: its first sample's index and time, and its contact."""

    index: int
    start_ns: int
    contact: bool | None


class Ring:
    """Cuts windows from a stream, aware of gaps, repeats and clock steps.

    A *run* is a stretch without a gap as long as a window. Within it shorter gaps are filled with
    NaN, so that the windows over them are stored as what they are. A longer gap, a clock that was
    set back or another rate ends the run: its last samples become one window that ends with them,
    and a new run begins at the next sample. Nothing is ever drawn across a gap.

    Args:
        stream: whose samples these are.
        length_s: length of a window, in seconds.
        hop_s: from the start of one window to that of the next, in seconds.
    """

    def __init__(self, stream: Stream, *, length_s: float, hop_s: float) -> None:
        self.stream = stream
        self._length_s = length_s
        self._hop_s = hop_s
        self._rate = 0.0
        self._begin()

    def add(self, chunk: Chunk) -> Cut:
        """Take the next chunk; give the windows that are now complete and the gaps before it."""
        cut = Cut()
        samples = chunk.microvolts
        if not len(samples):
            return cut
        if self._end_ns is None:
            self._rate = chunk.rate
        elif chunk.rate != self._rate:
            cut.windows.extend(self.finish())
            self._rate = chunk.rate
        start_ns = chunk.start_ns
        if self._end_ns is not None:
            step_s = (start_ns - self._end_ns) / 1e9
            tolerance_s = 1.5 / self._rate + min(_RATE_ERROR * self._last_s, _MOST_JITTER_S)
            if step_s > tolerance_s:
                self._skip(step_s, chunk, cut)
            elif step_s < -tolerance_s:
                left = self._overlap(chunk)
                if left is None:
                    cut.gaps.append(Gap(self.stream, self._end_ns, start_ns, "clock set back"))
                    cut.windows.extend(self.finish())
                else:
                    samples = samples[left:]
                    start_ns += round(left / self._rate * 1e9)
                    if not len(samples):
                        return cut
        self._append(samples, start_ns, chunk.contact)
        cut.windows.extend(self._complete())
        return cut

    def finish(self) -> list[Window]:
        """End the run; give the one window that holds what no window has held yet, if any.

        It is of full length and ends with the run; if the run is shorter than a window, so is it.
        """
        windows = []
        total = self._first + len(self._samples)
        if total > self._covered:
            start = max(total - self._count(self._length_s), self._first)
            windows.append(self._window(start, total))
        self._begin()
        return windows

    def _begin(self) -> None:
        self._samples: NDArray[np.float32] = np.empty(0, dtype=np.float32)
        self._pieces: list[_Piece] = []
        self._first = 0  # index in the run of the oldest sample still held
        self._next = 0  # index of the first sample of the next window
        self._covered = 0  # index just after the last sample that was in a window
        self._end_ns: int | None = None
        self._last_s = 0.0

    def _skip(self, missing_s: float, chunk: Chunk, cut: Cut) -> None:
        """Record a gap; fill a short one with NaN, end the run before a long one."""
        assert self._end_ns is not None
        cause = chunk.gap_cause or "no data"
        cut.gaps.append(Gap(self.stream, self._end_ns, chunk.start_ns, cause))
        if missing_s >= self._length_s:
            cut.windows.extend(self.finish())
            return
        missing = np.full(max(1, self._count(missing_s)), np.nan, dtype=np.float32)
        self._append(missing, self._end_ns, None)

    def _overlap(self, chunk: Chunk) -> int | None:
        """How many of the chunk's samples are already held; None if it contradicts them.

        Samples that fill a gap late are put in their place. A chunk from before everything still
        held, or with other samples at the same time, comes from a clock that was set back.
        """
        held_ns = self._time(self._first)
        at = round((chunk.start_ns - held_ns) / 1e9 * self._rate)
        if at < 0:
            return None
        known = self._samples[at : at + len(chunk.microvolts)]
        offered = chunk.microvolts[: len(known)]
        if np.isnan(known).all():
            known[:] = offered
            SAMPLES_FILLED_LATE.inc(len(known))
        elif np.array_equal(known, offered, equal_nan=True):
            SAMPLES_REPEATED.inc(len(known))
        else:
            return None
        return len(known)

    def _append(self, samples: NDArray[np.float32], start_ns: int, contact: bool | None) -> None:
        self._pieces.append(_Piece(self._first + len(self._samples), start_ns, contact))
        self._samples = np.concatenate((self._samples, samples))
        self._last_s = len(samples) / self._rate
        self._end_ns = start_ns + round(self._last_s * 1e9)

    def _complete(self) -> list[Window]:
        windows = []
        length, hop = self._count(self._length_s), self._count(self._hop_s)
        total = self._first + len(self._samples)
        while self._next + length <= total:
            windows.append(self._window(self._next, self._next + length))
            self._next += hop
        # One window more than the next one needs is kept, to recognise repeats by their samples.
        self._trim(max(self._first, min(self._next, total) - length))
        return windows

    def _trim(self, first: int) -> None:
        self._samples = self._samples[first - self._first :]
        self._first = first
        while len(self._pieces) > 1 and self._pieces[1].index <= first:
            del self._pieces[0]

    def _window(self, start: int, stop: int) -> Window:
        contacts = [
            piece.contact
            for piece, after in zip(
                self._pieces, [*(p.index for p in self._pieces[1:]), stop], strict=True
            )
            if after > start and piece.index < stop
        ]
        contact = None if all(c is None for c in contacts) else False not in contacts
        start_ns = self._time(start)
        rate = (stop - start) / ((self._time(stop) - start_ns) / 1e9)
        step = self._rate * _RATE_STEP
        self._covered = stop
        return Window(
            self.stream,
            start_ns,
            self._rate + round((rate - self._rate) / step) * step,
            self._samples[start - self._first : stop - self._first].copy(),
            contact,
        )

    def _time(self, index: int) -> int:
        """UTC ns of a sample, by the chunk it came with."""
        piece = self._pieces[0]
        for candidate in self._pieces:
            if candidate.index > index:
                break
            piece = candidate
        return piece.start_ns + round((index - piece.index) / self._rate * 1e9)

    def _count(self, seconds: float) -> int:
        return round(seconds * self._rate)
