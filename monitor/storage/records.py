"""What storage takes and gives that no other part defines."""

from dataclasses import dataclass, field
from typing import Any

from alerts.conditions import Change, State
from alerts.records import Output
from ingest.chunk import Chunk, Stream
from ingest.rr import RrIntervals
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


@dataclass(frozen=True, slots=True)
class Strap:
    """A chest strap that is paired; storing it again replaces it and forgets its state.

    Attributes:
        stream: whose it is, and what it is called.
        address: its Bluetooth address, in capitals; no two straps have the same.
        kind: its model, as in ``ingest.ble.device``.
        adapter: the Bluetooth adapter that reaches it, such as ``hci0``; None is the first one.
        paired_ns: UTC time of the pairing, in nanoseconds since 1970.
    """

    stream: Stream
    address: str
    kind: str
    adapter: str | None
    paired_ns: int


@dataclass(frozen=True, slots=True)
class StrapState:
    """What is known of a paired strap; of one that is not paired nothing is stored.

    Attributes:
        stream: of the strap.
        stage: how far its link is, as in ``ingest.ble.link``, or ``stopped``: nobody tries.
        cause: what keeps samples from flowing; None where nothing is known to.
        advice: what to do about it.
        since_ns: UTC time since which it streams, or does not, in nanoseconds since 1970.
        battery: percent; None until it has said so.
        battery_ns: UTC time at which it said so.
    """

    stream: Stream
    stage: str
    cause: str | None
    advice: str | None
    since_ns: int
    battery: int | None
    battery_ns: int | None


@dataclass(frozen=True, slots=True)
class Unpaired:
    """A strap that is no longer anybody's; what it recorded stays.

    Attributes:
        address: its Bluetooth address, in capitals.
    """

    address: str


@dataclass(frozen=True, slots=True)
class RefusedMessage:
    """A message that was not taken; of each reason the first is kept, and the time of the last.

    Attributes:
        reason: as in ``ingest.mqtt.payload``.
        first_ns: UTC time of the first one, in nanoseconds since 1970.
        last_ns: UTC time of the last one.
        topic: where the first one came from.
        detail: what was wrong with it, in one line.
        excerpt: how its payload begins.
    """

    reason: str
    first_ns: int
    last_ns: int
    topic: str
    detail: str
    excerpt: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Delivery:
    """What became of a notification on one channel; storing it again replaces it.

    Attributes:
        key: of the notification.
        channel: which one.
        state: ``retrying``, ``delivered`` or ``failed``.
        attempts: how many there were.
        at_ns: UTC time of the last one, in nanoseconds since 1970.
        error: why it was not delivered, in one line without secrets.
    """

    key: str
    channel: str
    state: str
    attempts: int
    at_ns: int
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Settled:
    """A notification that is done with.

    Attributes:
        key: of the notification.
        state: ``delivered``, or ``failed`` if no channel of its contact took it.
    """

    key: str
    state: str


@dataclass(frozen=True, slots=True)
class Request:
    """What somebody asks of the running daemon.

    Attributes:
        what: ``ack``, ``snooze``, ``pause``, ``resume`` or ``test``.
        arguments: JSON, as ``monitor.requests`` takes them.
        by: who asks.
        at_ns: UTC time, in nanoseconds since 1970.
        id: given by the database; None before that.
        answer: one line; None until the daemon has seen to it.
    """

    what: str
    arguments: dict[str, Any]
    by: str
    at_ns: int
    id: int | None = None
    answer: str | None = None


@dataclass(frozen=True, slots=True)
class Examined:
    """How far the stored signal of a stream was looked through for what has no window.

    Storing it again replaces it. All times are UTC, in nanoseconds since 1970.

    Attributes:
        stream: whose signal.
        clear_ns: everything that is stored before has a window; None where nothing is known.
        low_ns: so has everything from here to ``high_ns``; None where the look is complete.
        high_ns: see ``low_ns``.
    """

    stream: Stream
    clear_ns: int | None
    low_ns: int | None = None
    high_ns: int | None = None


@dataclass(frozen=True, slots=True)
class NoGap:
    """A stored gap that is none, or not all of it: it is taken out.

    Attributes:
        gap: as it is stored.
    """

    gap: Gap


@dataclass(frozen=True, slots=True)
class ClockMended:
    """Rows that were stored by a clock which was wrong, to be moved by as much as it was set since.

    Attributes:
        by_ns: by how much, in nanoseconds.
        segments: each by its stream and start.
        rr_intervals: each by its stream and end.
        windows: each by its stream and start.
        gaps: each as it was stored, or None for one that was not, and as it is to be, or None.
        changes: of alarms, each by the alarm's id, its time and state; and whether the alarm was
            raised by it.
    """

    by_ns: int
    segments: tuple[tuple[Stream, int], ...] = ()
    rr_intervals: tuple[tuple[Stream, int], ...] = ()
    windows: tuple[tuple[Stream, int], ...] = ()
    gaps: tuple[tuple[Gap | None, Gap | None], ...] = ()
    changes: tuple[tuple[str, int, State, bool], ...] = ()

    def __len__(self) -> int:
        """How many rows these are."""
        return sum(
            map(len, (self.segments, self.rr_intervals, self.windows, self.gaps, self.changes))
        )


Told = Output | Delivery | Settled | Request
"""What is kept of how people are told of alarms."""

Record = (
    Chunk
    | RrIntervals
    | WindowResult
    | Gap
    | Change
    | Patient
    | Strap
    | StrapState
    | Unpaired
    | RefusedMessage
    | Examined
    | NoGap
    | ClockMended
    | Told
)
"""What the writer stores."""
