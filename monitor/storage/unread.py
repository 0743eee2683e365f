"""Finds what is stored and has no window, and gaps that are none."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from sqlalchemy import Connection, ScalarSelect, select

from ingest.chunk import Stream
from ingest.rr import RrIntervals
from monitor.rr import SILENCE_NS
from monitor.spans import Span, total, union, within, without
from monitor.storage.history import History
from monitor.storage.records import Examined
from monitor.storage.rows import segment_end_ns
from monitor.storage.schema import (
    DeviceRow,
    ExaminedRow,
    GapRow,
    RrIntervalsRow,
    SegmentRow,
    WindowRow,
)
from monitor.window import Gap

LONGEST_CHUNK_NS = 300_000_000_000
"""Segments are found by their start; one that began this long ago may still reach into a range."""

# The longest window that can be configured is a minute.
_LONGEST_WINDOW_NS = 120_000_000_000

# Rows held at once while a gap, which may last for months, is compared with what is stored.
_ROWS = 1024


@dataclass(frozen=True, slots=True)
class Unread:
    """Signal of one run that no window covers.

    Attributes:
        start_ns: UTC time of its first sample, in nanoseconds since 1970.
        end_ns: UTC time just after its last one.
        spans: where between them there are samples.
        rr: whether it is RR intervals without a waveform.
    """

    start_ns: int
    end_ns: int
    spans: tuple[Span, ...]
    rr: bool


class SignalHistory(History):
    """A history that tells what of the stored signal has no verdict."""

    def examined(self, stream: Stream) -> Examined:
        """How far a stream was looked through."""
        query = select(ExaminedRow.clear_ns, ExaminedRow.low_ns, ExaminedRow.high_ns)
        with self._reading() as connection:
            found = connection.execute(
                query.where(ExaminedRow.device_id == _device(stream))
            ).one_or_none()
        return Examined(stream, None) if found is None else Examined(stream, *found)

    def first_sample(self, stream: Stream) -> int | None:
        """UTC time, in nanoseconds, of a stream's first sample or RR interval; None without any."""
        segment = (
            select(SegmentRow.start_ns)
            .where(SegmentRow.device_id == _device(stream))
            .order_by(SegmentRow.start_ns)
            .limit(1)
        )
        packet = (
            select(RrIntervalsRow.end_ns, RrIntervalsRow.rr)
            .where(RrIntervalsRow.device_id == _device(stream))
            .order_by(RrIntervalsRow.end_ns)
            .limit(1)
        )
        with self._reading() as connection:
            firsts: list[int] = list(connection.execute(segment).scalars())
            firsts += [_rr_start_ns(*row) for row in connection.execute(packet)]
        return min(firsts, default=None)

    def samples(self, stream: Stream, since_ns: int, until_ns: int, *, rr: bool) -> list[Span]:
        """When there are samples in a range, or RR intervals."""
        with self._reading() as connection:
            return union((_rr if rr else _ecg)(connection, stream, since_ns, until_ns))

    def unread(
        self, stream: Stream, since_ns: int, until_ns: int, *, length_s: float
    ) -> list[Unread]:
        """What is stored of a range and lies in no window.

        Args:
            stream: whose.
            since_ns: UTC time of the range's start, in nanoseconds since 1970.
            until_ns: UTC time of its end; some hours later at most, as it is held as a whole.
            length_s: length of a window, in seconds: where samples are missing for less than
                that, windows go on.

        Returns:
            By end.
        """
        with self._reading() as connection:
            covered = union(_windows(connection, stream, since_ns, until_ns))
            found = [
                Unread(spans[0][0], spans[-1][1], tuple(spans), rr)
                for rr, stored in ((False, _ecg), (True, _rr))
                for spans in _uncovered(
                    union(stored(connection, stream, since_ns, until_ns)), covered, length_s
                )
            ]
        return sorted(found, key=lambda unread: unread.end_ns)

    def packets(self, stream: Stream, since_ns: int, until_ns: int) -> list[RrIntervals]:
        """The RR intervals of one stream that end in ``[since_ns, until_ns)``, by end."""
        return [
            packet
            for packet in self.rr_intervals(stream.patient, since_ns, until_ns)
            if packet.stream == stream
        ]

    def gaps_of(self, stream: Stream, since_ns: int, until_ns: int) -> list[Gap]:
        """The gaps of one stream that lie in a range or reach into it, by start."""
        query = (
            select(GapRow.start_ns, GapRow.end_ns, GapRow.cause)
            .where(
                GapRow.device_id == _device(stream),
                GapRow.start_ns < until_ns,
                GapRow.end_ns > since_ns,
            )
            .order_by(GapRow.start_ns, GapRow.end_ns)
        )
        with self._reading() as connection:
            return [Gap(stream, *row) for row in connection.execute(query)]

    def left_of(self, gap: Gap, *, least_ns: int) -> list[Span]:
        """In which parts of a gap, each longer than ``least_ns``, there are no samples indeed."""
        segments = select(SegmentRow.start_ns, SegmentRow.n, SegmentRow.rate).where(
            SegmentRow.device_id == _device(gap.stream),
            SegmentRow.start_ns >= gap.start_ns - LONGEST_CHUNK_NS,
            SegmentRow.start_ns < gap.end_ns,
        )
        packets = select(RrIntervalsRow.end_ns, RrIntervalsRow.rr).where(
            RrIntervalsRow.device_id == _device(gap.stream),
            RrIntervalsRow.end_ns > gap.start_ns,
            RrIntervalsRow.end_ns <= gap.end_ns,
        )
        held: list[Span] = []
        options = {"yield_per": _ROWS}
        with self._reading() as connection:
            # Joined as they come: a gap of months may be full of samples.
            for part in connection.execute(
                segments.order_by(SegmentRow.start_ns), execution_options=options
            ).partitions():
                new = [(start, segment_end_ns(start, n, rate)) for start, n, rate in part]
                held = union([*held, *new], bridge_ns=least_ns)
            for rows in connection.execute(
                packets.order_by(RrIntervalsRow.end_ns), execution_options=options
            ).partitions():
                spans = [(_rr_start_ns(end, rr), end) for end, rr in rows]
                held = union([*held, *spans], bridge_ns=max(least_ns, SILENCE_NS))
        return without([(gap.start_ns, gap.end_ns)], held, more_than_ns=least_ns)


def tolerance_ns(length_s: float) -> int:
    """How exactly the end of a window is known: a thousandth of its length, and some samples."""
    return max(20_000_000, round(length_s * 1e6))


def _uncovered(samples: list[Span], covered: list[Span], length_s: float) -> list[list[Span]]:
    """The samples of each stretch of a run that no window covers."""
    exact_ns = tolerance_ns(length_s)
    runs = union(samples, bridge_ns=round(length_s * 1e9) - 1)
    found = []
    for start, end in without(runs, covered, more_than_ns=exact_ns):
        spans = within(samples, start, end)
        if total(spans) > exact_ns:
            found.append(spans)
    return found


def _ecg(connection: Connection, stream: Stream, since_ns: int, until_ns: int) -> list[Span]:
    query = select(SegmentRow.start_ns, SegmentRow.n, SegmentRow.rate).where(
        SegmentRow.device_id == _device(stream),
        SegmentRow.start_ns >= since_ns - LONGEST_CHUNK_NS,
        SegmentRow.start_ns < until_ns,
    )
    return _clipped(
        ((start, segment_end_ns(start, n, rate)) for start, n, rate in connection.execute(query)),
        since_ns,
        until_ns,
    )


def _rr(connection: Connection, stream: Stream, since_ns: int, until_ns: int) -> list[Span]:
    """From packet to packet, whether there is a beat in them or not."""
    query = (
        select(RrIntervalsRow.end_ns, RrIntervalsRow.rr)
        .where(
            RrIntervalsRow.device_id == _device(stream),
            RrIntervalsRow.end_ns >= since_ns - SILENCE_NS,
            RrIntervalsRow.end_ns < until_ns + SILENCE_NS,
        )
        .order_by(RrIntervalsRow.end_ns)
    )
    spans: list[Span] = []
    last_ns: int | None = None
    for end_ns, rr in connection.execute(query):
        known = last_ns is not None and end_ns - last_ns <= SILENCE_NS
        spans.append((last_ns if known and last_ns else _rr_start_ns(end_ns, rr), end_ns))
        last_ns = end_ns
    return _clipped(spans, since_ns, until_ns)


def _windows(connection: Connection, stream: Stream, since_ns: int, until_ns: int) -> list[Span]:
    query = select(WindowRow.start_ns, WindowRow.duration_s).where(
        WindowRow.device_id == _device(stream),
        WindowRow.start_ns >= since_ns - _LONGEST_WINDOW_NS,
        WindowRow.start_ns < until_ns,
    )
    return _clipped(
        ((start, start + round(seconds * 1e9)) for start, seconds in connection.execute(query)),
        since_ns,
        until_ns,
    )


def _clipped(spans: Iterable[Span], since_ns: int, until_ns: int) -> list[Span]:
    return [(max(start, since_ns), min(end, until_ns)) for start, end in spans]


def _rr_start_ns(end_ns: int, rr: bytes) -> int:
    return end_ns - round(float(np.frombuffer(rr[: len(rr) // 8 * 8], "<f8").sum()) * 1e9)


def _device(stream: Stream) -> ScalarSelect[int]:
    return (
        select(DeviceRow.id)
        .filter_by(patient_id=stream.patient, device=stream.device)
        .scalar_subquery()
    )
