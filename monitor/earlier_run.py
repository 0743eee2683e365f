"""What an earlier run left, read at a start: straps, alarms, and signal that nobody has read."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from alerts.conditions import Change
from alerts.engine import Engine
from alerts.lethal import RhythmEngine
from alerts.technical import device_of
from ingest.chunk import Chunk, Stream
from ingest.rr import RrIntervals
from models.bundle import Bundle
from monitor.config import Config, ConfigError
from monitor.devices import GONE_S
from monitor.resume import backlog, ends, recent, restore
from monitor.storage.database import DatabaseError, describe, parse_url
from monitor.storage.history import History
from monitor.straps import Straps, check_straps


@dataclass(frozen=True, slots=True)
class EarlierRun:
    """What an earlier run left.

    Attributes:
        straps: that are paired.
        known: devices of a broker that sent lately.
        streams: all that are to be expected.
        stored: UTC end of the last sample of each stream, in nanoseconds.
        backlog: chunks that are stored, and their windows not.
        heard: chunks that the watch for lethal rhythms is to hear once more.
        ended: the ends of alarms that are not taken up.
        left_out: straps that are not listened to, and why, a line each.
    """

    straps: Straps
    known: Sequence[Stream]
    streams: Sequence[Stream]
    stored: dict[Stream, int]
    backlog: Sequence[Chunk | RrIntervals]
    heard: Sequence[Chunk]
    ended: Sequence[Change]
    left_out: Sequence[str]


def take_up(
    config: Config,
    bundle: Bundle | None,
    state: History,
    engine: Engine,
    rhythms: RhythmEngine,
    *,
    attended: bool,
    lenient: bool = False,
) -> EarlierRun:
    """Read what an earlier run left, and restore the engines from it.

    Args:
        config: the configuration.
        bundle: what classifies; None where nothing can.
        state: of the earlier run.
        engine: a new one.
        rhythms: a new one.
        attended: whether people are told of alarms.
        lenient: whether a strap that does not fit the configuration, or that this program does not
            know, is left out.

    Raises:
        ConfigError: a paired strap does not fit.
        DatabaseError: the database does not answer.
    """
    now_ns = time.time_ns()
    window = config.window
    left_out: list[str] = []
    straps = Straps((), ())
    if attended:
        straps = _straps(config, state, left_out if lenient else None)
    known = known_streams(state, now_ns) if attended and config.mqtt is not None else []
    own = [Stream(s.patient, s.device) for s in config.sources]
    streams = [*dict.fromkeys((*own, *straps.streams, *known))]
    left = backlog(state, streams, now_ns=now_ns, length_s=window.length, hop_s=window.hop)
    ended = restore(
        engine,
        rhythms,
        state,
        now_ns=now_ns,
        hop_s=window.hop,
        left=left,
        classes=bundle is not None,
        attended=attended,
    )
    stored = ends(state, now_ns=now_ns)
    heard = recent(state, streams, now_ns=now_ns)
    return EarlierRun(straps, known, streams, stored, left, heard, ended, tuple(left_out))


@contextmanager
def readable(url: str) -> Iterator[None]:
    """Raise what stored values make of the program as ``DatabaseError``: they are not its own."""
    try:
        yield
    except (ArithmeticError, LookupError, TypeError, ValueError) as error:
        line = f"{describe(parse_url(url))}: what is stored cannot be understood: {error}"
        raise DatabaseError(line) from error


def known_streams(history: History, now_ns: int) -> list[Stream]:
    """Streams that something came of in the last week.

    Not only those with windows: before its first one a device may have sent fibrillation.
    """
    since_ns = now_ns - GONE_S * 1e9
    return [stream for stream, end_ns in ends(history, now_ns=now_ns).items() if end_ns > since_ns]


def _straps(config: Config, history: History, left_out: list[str] | None) -> Straps:
    """The paired straps; those that do not fit go to ``left_out``, if there is one."""
    paired = history.straps()
    if left_out is None:
        check_straps(config, (strap for strap, _ in paired))
    else:
        fitting = []
        for strap, known in paired:
            try:
                check_straps(config, [strap])
                Straps([(strap, known)], ()).sources()
            except ConfigError as error:
                left_out.append(str(error))
            else:
                fitting.append((strap, known))
        paired = fitting
    active = history.active_alarms()
    if config.mqtt is not None:
        # Those of a broker's devices are of the same kinds, and not left behind by a strap.
        of_straps = {strap.stream for strap, _ in paired}
        active = [a for a in active if Stream(a.patient, device_of(a)) in of_straps]
    return Straps(paired, active)
