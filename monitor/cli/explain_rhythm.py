"""The part of ``leadone alarms explain`` that hears the stored signal again: strip and verdicts."""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.table import Table

from alerts.conditions import Alarm, State
from ingest.chunk import Stream
from monitor.cli.rhythm_model import open_rhythm_model
from monitor.cli.strip import strip
from monitor.cli.times import iso, local
from monitor.explain import Verdict
from monitor.hearing import BEFORE_NS, Heard, around, hear_again, outcome, seconds_of
from monitor.rhythms import NAMES
from monitor.storage.history import History
from monitor.strips import STRIP_NS, Strip, read_strip

_S = 1_000_000_000
_WIDTH, _HEIGHT = 100, 6

# A minute of signal takes some hundredths of a second to hear again; a day would take minutes.
_LONGEST_NS = 3600 * _S

# A run of verdicts that say the same is one line from this length on.
_ALIKE = 3


@dataclass(frozen=True, slots=True)
class Signal:
    """The signal around an alarm of a lethal rhythm, and what the watch says of it.

    Attributes:
        strips: of each device that gave verdicts, the ten seconds up to the alarm.
        heard: the verdicts that led to the alarm, and those that ended it.
        verdicts: whether that comes to the same.
    """

    strips: tuple[tuple[Stream, Strip], ...]
    heard: tuple[Heard, ...]
    verdicts: tuple[Verdict, ...]


def hear_alarm(history: History, alarm: Alarm) -> Signal:
    """Hear the signal that led to an alarm, and that which ended it, once more.

    Raises:
        CommandError: the model cannot be used.
        CodecError: the samples of a chunk cannot be decoded.
    """
    model = open_rhythm_model()
    shown: list[Heard] = []
    for i, (since_ns, until_ns) in enumerate(around(alarm)):
        chunks = history.segments(alarm.patient, since_ns - BEFORE_NS, until_ns)
        heard = hear_again(chunks, model, active=[alarm] if i else [])
        shown += [one for one in heard if since_ns <= one.seen.at_ns <= until_ns]
    devices = sorted({one.seen.device for one in shown})
    strips = []
    for stream in (Stream(alarm.patient, device) for device in devices):
        drawn = read_strip(history, stream, alarm.raised_ns - STRIP_NS, alarm.raised_ns)
        if drawn is not None:
            strips.append((stream, drawn))
    verdicts = [Verdict(alarm.condition, why) for why in outcome(alarm, shown)]
    return Signal(tuple(strips), tuple(shown), tuple(verdicts))


def hear_time(history: History, patient: str, since_ns: int, until_ns: int) -> list[Verdict]:
    """What the watch makes of a time; nothing of one of over an hour, or without signal.

    Raises:
        CommandError: the model cannot be used.
        CodecError: the samples of a chunk cannot be decoded.
    """
    if until_ns - since_ns > _LONGEST_NS:
        return []
    chunks = history.segments(patient, since_ns - BEFORE_NS, until_ns)
    heard = hear_again(chunks, open_rhythm_model())
    counts = seconds_of(one.seen for one in heard if since_ns <= one.seen.at_ns <= until_ns)
    if not counts:
        return []
    told = ", ".join(f"{rhythm} {count} s" for rhythm, count in counts.items())
    return [Verdict(None, f"the watch for lethal rhythms, run again, says: {told}")]


def print_people(console: Console, signal: Signal) -> None:
    """Draw the strips, and list the verdicts."""
    for stream, drawn in signal.strips:
        console.print(f"{stream}, 10 s up to {local(drawn.start_ns + STRIP_NS)}:")
        width = min(console.width, _WIDTH)
        for line in strip(drawn.microvolts, width=width, height=_HEIGHT):
            console.print(line)
    if signal.heard:
        console.print(_table(signal.heard))


def _table(heard: Sequence[Heard]) -> Table:
    table = Table(title="verdicts of the watch for lethal rhythms")
    table.add_column("up to", no_wrap=True)
    table.add_column("device")
    table.add_column("rhythm")
    table.add_column("since", no_wrap=True)
    table.add_column("/min", justify="right", no_wrap=True)
    table.add_column("what it changes")
    for _, run in itertools.groupby(heard, key=_alike):
        some = list(run)
        shown = some if len(some) <= _ALIKE else some[:1]
        for one in shown:
            seen = one.seen
            table.add_row(
                local(seen.at_ns)[11:],
                seen.device,
                NAMES[seen.rhythm],
                local(seen.since_ns)[11:],
                "--" if seen.rate is None else f"{seen.rate:.0f}",
                "\n".join(_changes(one)),
            )
        if len(shown) < len(some):
            table.add_row("…", "", f"{len(some) - len(shown)} more like it")
    return table


def _alike(one: Heard) -> object:
    changes = list(_changes(one))
    return one.seen.device, one.seen.rhythm, one.seen.since_ns, changes or None


def _changes(one: Heard) -> Iterator[str]:
    for change in one.changes:
        if change.state is State.ENDED:
            yield f"ENDED: {change.reason}"
        elif change.at_ns == change.alarm.raised_ns:
            yield f"RAISED: {change.reason}"


def rows(signal: Signal) -> Iterator[dict[str, Any]]:
    """The verdicts for tools."""
    for one in signal.heard:
        seen = one.seen
        yield {
            "verdict": iso(seen.at_ns),
            "device": seen.device,
            "rhythm": seen.rhythm.value,
            "since": iso(seen.since_ns),
            "rate": None if seen.rate is None else round(seen.rate, 1),
            "last_beat": None if seen.last_beat_ns is None else iso(seen.last_beat_ns),
            "changes": [
                {"condition": c.alarm.condition, "state": c.state.value, "reason": c.reason}
                for c in one.changes
            ],
        }
