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
from monitor.observe import observation
from monitor.rr import LOOK_BACK_S, RrRing
from monitor.storage.history import History

# What is older is history: an alarm about it would come too late to mean now.
_LOOK_BACK_S = 3600

_ON = tuple(presence for presence in Presence if presence is not Presence.OFF)
_TWICE = "on twice: another leadone raised it too; the other one stays"
_UNTOLD = "raised by a run that tells nobody, such as a replay"

_OF_CLASS = "class:"

# Enough for a verdict about the first second that comes, and less than ends an alarm (30 s).
_HEARD_S = 20

# Segments are found by their start; one that began this long ago may still reach into the present.
_LONGEST_CHUNK_S = 300


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
        for result in history.windows(patient.id, since_ns, _FOREVER_NS)
        if result.start_ns < again.get(result.stream, _FOREVER_NS)
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
    """What is durable but whose windows are not: what a crash left behind.

    The chunks of a stream begin one window's overlap before its last stored window ended, so that
    the next window is the one that would have come, to within a sample. Its RR intervals begin a
    minute before, as far as the next window looks back; the windows in that minute are cut once
    more, as they were, and are found to be stored.
    """
    left: list[Chunk | RrIntervals] = []
    since_ns = now_ns - _LOOK_BACK_S * _SECOND_NS
    overlap_ns = round((length_s - hop_s) * 1e9)
    for stream in streams:
        done_ns = history.last_window_end(stream)
        start_ns = since_ns if done_ns is None else max(since_ns, done_ns - overlap_ns)
        chunks = list(_from(history, stream, start_ns))
        # A window's end is known to a thousandth of its length, as its rate is.
        known_ns = since_ns if done_ns is None else done_ns + round(length_s * 1e6)
        if any(chunk.end_ns > known_ns for chunk in chunks):
            left.extend(chunks)
        left.extend(_rr_from(history, stream, done_ns, since_ns, length_s=length_s, hop_s=hop_s))
    return left


def recent(history: History, streams: Iterable[Stream], *, now_ns: int) -> list[Chunk]:
    """What the watch for lethal rhythms is to hear once more, to go on where it was killed.

    Of each stream the last seconds of what is stored, if they are of the last hour. Everything
    before them was heard before it was stored, and may be over; what has raised an alarm in them
    finds that alarm still active, for nothing ends one so soon.
    """
    found: list[Chunk] = []
    for stream in streams:
        last_ns = history.last_sample(stream)
        if last_ns is not None and now_ns - last_ns <= _LOOK_BACK_S * _SECOND_NS:
            found.extend(_from(history, stream, last_ns - _HEARD_S * _SECOND_NS))
    return found


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


def _rr_from(
    history: History,
    stream: Stream,
    done_ns: int | None,
    since_ns: int,
    *,
    length_s: float,
    hop_s: float,
) -> list[RrIntervals]:
    """The RR intervals that are to be judged, with those that are looked back on."""
    if done_ns is None or done_ns < since_ns:
        start_ns, done_ns = since_ns, since_ns
    else:
        hops = math.ceil(max(LOOK_BACK_S - length_s, 0) / hop_s)
        start_ns = done_ns - round(length_s * 1e9) - hops * round(hop_s * 1e9)
    packets = [
        packet
        for packet in history.rr_intervals(stream.patient, start_ns + 1, _FOREVER_NS)
        if packet.stream == stream
    ]
    if not any(packet.end_ns > done_ns for packet in packets):
        return []
    if start_ns == done_ns:
        return packets
    # A ring begins its first window where its first packet begins: this one, without a beat, lays
    # the windows over those that are stored.
    packets.insert(0, RrIntervals(stream, start_ns, (), None, None))
    ring = RrRing(stream, length_s=length_s, hop_s=hop_s)
    first = 0
    for i, packet in enumerate(packets):
        # A gap is stored before the window that ends with it: both are, and all before them.
        if any(gap.start_ns <= done_ns for gap in ring.add(packet).gaps):
            first = i
    return packets[first:]


_SECOND_NS = 1_000_000_000
_FOREVER_NS = 2**63 - 1
