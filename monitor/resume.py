"""Takes up where an earlier run stopped, however it stopped."""

import math
from collections.abc import Iterable, Iterator
from dataclasses import replace

from alerts.conditions import Alarm, Change
from alerts.engine import MEMORY, Engine
from alerts.gateway import is_gateways
from alerts.lethal import RhythmEngine
from alerts.records import Presence
from alerts.technical import end, is_technical
from ingest.chunk import Chunk, Stream
from ingest.rr import RrIntervals
from monitor.clock import AHEAD_NS
from monitor.observe import observation
from monitor.rr import LOOK_BACK_S, RrRing, start_ns
from monitor.storage.history import FOREVER_NS, History
from monitor.storage.unread import LONGEST_CHUNK_NS

# What is older is history: an alarm about it would come too late to mean now.
_LOOK_BACK_S = 3600

# As much of a stream is analysed before what comes next, in order, so that alarms go on as if
# nothing had happened: what a daemon leaves that was begun anew because its analysis stood still
# (three minutes), and some dozens of windows, a matter of seconds. ``monitor.backlog`` makes up for
# what is older.
_JUST_BEFORE_S = 180

_ON = tuple(presence for presence in Presence if presence is not Presence.OFF)
_TWICE = "on twice: another leadone raised it too; the other one stays"
_UNTOLD = "raised by a run that tells nobody, such as a replay"

_OF_CLASS = "class:"

# Enough for a verdict about the first second that comes, and less than ends an alarm (30 s).
_HEARD_S = 20


def restore(
    engine: Engine,
    rhythms: RhythmEngine,
    history: History,
    *,
    now_ns: int,
    hop_s: float,
    left: Iterable[Chunk | RrIntervals] = (),
    classes: bool = True,
    attended: bool = False,
) -> list[Change]:
    """Give the engines the alarms of hearts that were active, and the windows that were seen.

    Args:
        engine: a new one.
        rhythms: a new one.
        history: of the earlier run.
        now_ns: UTC time, in nanoseconds.
        hop_s: from one window to the next, in seconds.
        left: the ``backlog``; windows that will be cut from it once more are left out.
        classes: whether there is a bundle that tells of classes. Where there is none their alarms
            stay as they are, for the next run: nobody knows whether they are over.
        attended: whether people are told of alarms.

    Returns:
        The ends, to be stored, of alarms that are not taken up. Of two that two processes at once
        (a replay beside the daemon) have raised of one condition the one that people were told of
        stays, or else the older. One that was raised by a run that tells nobody is not taken up by
        one that does: what is still true is raised anew, and told.
    """
    since_ns = now_ns - round(MEMORY * hop_s * 1e9)
    again: dict[Stream, int] = {}
    for packet in left:
        if isinstance(packet, RrIntervals):
            again.setdefault(packet.stream, packet.end_ns)
    recent = [
        observation(result)
        for patient in history.patients()
        for result in history.windows(patient.id, since_ns, now_ns + AHEAD_NS)
        if result.start_ns < again.get(result.stream, FOREVER_NS)
    ]
    hearts = [a for a in history.active_alarms() if not is_technical(a) and not is_gateways(a)]
    signalled = {signal.alarm.id for signal in history.signals(*_ON)}
    hearts.sort(key=lambda alarm: (alarm.id not in signalled, alarm.raised_ns))
    taken_up: dict[tuple[str, str], Alarm] = {}
    ended = []
    for alarm in hearts:
        what = alarm.patient, alarm.condition
        if attended and alarm.id not in signalled:
            ended.append(end(alarm, now_ns, _UNTOLD))
        elif what in taken_up:
            ended.append(end(alarm, now_ns, _TWICE))
        else:
            taken_up[what] = alarm
    known = [
        alarm for alarm in taken_up.values() if classes or not alarm.condition.startswith(_OF_CLASS)
    ]
    engine.restore(known, recent)
    rhythms.restore(taken_up.values())
    return ended


def backlog(
    history: History, streams: Iterable[Stream], *, now_ns: int, length_s: float, hop_s: float
) -> list[Chunk | RrIntervals]:
    """What is durable but whose windows are not, of just before: what a crash left behind.

    That is the last minutes that are stored of a stream, if they are of the last hour; what is
    older is left to ``monitor.backlog``.

    The chunks of a stream begin one window's overlap before its last stored window ended, or some
    windows later, so that the next window is one that would have come, to within a sample. Its RR
    intervals begin a minute before, as far as the next window looks back; the windows in that
    minute are cut once more, as they were, and are found to be stored.
    """
    left: list[Chunk | RrIntervals] = []
    overlap_ns = round((length_s - hop_s) * 1e9)
    until_ns = now_ns + AHEAD_NS
    for stream in streams:
        last_ns = history.last_sample(stream, until_ns=until_ns)
        if last_ns is None:
            continue
        since_ns = max(now_ns - _LOOK_BACK_S * _SECOND_NS, last_ns - _JUST_BEFORE_S * _SECOND_NS)
        done_ns = history.last_window_end(stream, until_ns=until_ns)
        begun_ns = since_ns
        if done_ns is not None:
            begun_ns = on_grid(done_ns - overlap_ns, since_ns, round(hop_s * 1e9))
        chunks = list(_from(history, stream, begun_ns, until_ns))
        # A window's end is known to a thousandth of its length, as its rate is.
        known_ns = since_ns if done_ns is None else done_ns + round(length_s * 1e6)
        if any(chunk.end_ns > known_ns for chunk in chunks):
            left.extend(chunks)
        left.extend(
            _rr_from(history, stream, done_ns, since_ns, until_ns, length_s=length_s, hop_s=hop_s)
        )
    return left


def ends(history: History, *, now_ns: int) -> dict[Stream, int]:
    """Where the stored signal of each stream ends: UTC time, in nanoseconds since 1970."""
    found = {
        stream: history.last_sample(stream, until_ns=now_ns + AHEAD_NS)
        for stream in history.streams()
    }
    return {stream: end_ns for stream, end_ns in found.items() if end_ns is not None}


def on_grid(origin_ns: int, since_ns: int, hop_ns: int) -> int:
    """The first of the moments a hop apart, from ``origin_ns`` on, that is not before another."""
    return origin_ns + max(0, -(-(since_ns - origin_ns) // hop_ns)) * hop_ns


def starts(left: Iterable[Chunk | RrIntervals]) -> dict[Stream, int]:
    """Where the ``backlog`` of each stream begins: UTC time, in nanoseconds since 1970."""
    found: dict[Stream, int] = {}
    for packet in left:
        begun_ns = start_ns(packet) if isinstance(packet, RrIntervals) else packet.start_ns
        found[packet.stream] = min(begun_ns, found.get(packet.stream, FOREVER_NS))
    return found


def recent(history: History, streams: Iterable[Stream], *, now_ns: int) -> list[Chunk]:
    """What the watch for lethal rhythms is to hear once more, to go on where it was killed.

    Of each stream the last seconds of what is stored, if they are of the last hour. Everything
    before them was heard before it was stored, and may be over; what has raised an alarm in them
    finds that alarm still active, for nothing ends one so soon.
    """
    found: list[Chunk] = []
    until_ns = now_ns + AHEAD_NS
    for stream in streams:
        last_ns = history.last_sample(stream, until_ns=until_ns)
        if last_ns is not None and now_ns - last_ns <= _LOOK_BACK_S * _SECOND_NS:
            found.extend(_from(history, stream, last_ns - _HEARD_S * _SECOND_NS, until_ns))
    return found


def _from(history: History, stream: Stream, begun_ns: int, until_ns: int) -> Iterator[Chunk]:
    """What is stored of a stream from a moment on, without the samples before it."""
    for chunk in history.chunks(stream, begun_ns - LONGEST_CHUNK_NS, until_ns):
        rest = samples_since(chunk, begun_ns)
        if rest is not None:
            yield rest


def samples_since(chunk: Chunk, begun_ns: int) -> Chunk | None:
    """A chunk without its samples before a moment; None if there are no others."""
    before = round((begun_ns - chunk.start_ns) / 1e9 * chunk.rate)
    if before <= 0:
        return chunk
    if before >= len(chunk.microvolts):
        return None
    return replace(
        chunk,
        start_ns=chunk.start_ns + round(before / chunk.rate * 1e9),
        microvolts=chunk.microvolts[before:],
    )


def _rr_from(
    history: History,
    stream: Stream,
    done_ns: int | None,
    since_ns: int,
    until_ns: int,
    *,
    length_s: float,
    hop_s: float,
) -> list[RrIntervals]:
    """The RR intervals that are to be judged, with those that are looked back on."""
    if done_ns is None or done_ns < since_ns:
        begun_ns, done_ns = since_ns, since_ns
    else:
        begun_ns = done_ns - round(length_s * 1e9) - look_back_ns(length_s, hop_s)
    packets = [
        packet
        for packet in history.rr_intervals(stream.patient, begun_ns + 1, until_ns)
        if packet.stream == stream
    ]
    if not any(packet.end_ns > done_ns for packet in packets):
        return []
    if begun_ns == done_ns:
        return packets
    # A ring begins its first window where its first packet begins: this one, without a beat, lays
    # the windows over those that are stored.
    packets.insert(0, RrIntervals(stream, begun_ns, (), None, None))
    ring = RrRing(stream, length_s=length_s, hop_s=hop_s)
    first = 0
    for i, packet in enumerate(packets):
        # A gap is stored before the window that ends with it: both are, and all before them.
        if any(gap.start_ns <= done_ns for gap in ring.add(packet).gaps):
            first = i
    return packets[first:]


def look_back_ns(length_s: float, hop_s: float) -> int:
    """How long before a window of RR intervals a ring must begin, in whole hops."""
    return math.ceil(max(LOOK_BACK_S - length_s, 0) / hop_s) * round(hop_s * 1e9)


_SECOND_NS = 1_000_000_000
