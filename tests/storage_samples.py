"""Records for the storage tests."""

from dataclasses import replace

import numpy as np

from alerts.conditions import Alarm, Change, Priority, State
from ingest.chunk import Chunk, Stream
from monitor.quality import Grade, Quality, Reason
from monitor.results import ModelId, WindowResult
from monitor.window import Gap

S = 10**9
T0 = 1_790_000_000 * S
STREAM = Stream("anna", "H10")
MODEL = ModelId("tiny", "sha256:ab", ("AF", "PVC", "1AVB"))


def chunk(i=0, *, stream=STREAM, seed=None, **changes):
    """Second ``i`` of a stream, at 130 Hz."""
    walk = np.random.default_rng(i if seed is None else seed).normal(0, 15, 130)
    samples = np.rint(np.cumsum(walk)).astype(np.float32) + 0
    return replace(Chunk(stream, T0 + i * S, 130.0, samples, True, i), **changes)


def window(i=0, *, stream=STREAM, p=(0.9, 0.2, 0.1), **changes):
    """The good window from second ``5 * i`` on."""
    good = WindowResult(
        stream=stream,
        start_ns=T0 + 5 * i * S,
        duration_s=10.0,
        grade=Grade(Quality.GOOD),
        heart_rate=70.0 + i,
        longest_rr_s=0.93,
        r_peaks_s=np.arange(11) * 0.857 + 0.1 / 3 + i,
        model=MODEL,
        probabilities=np.array(p, np.float32),
    )
    return replace(good, **changes)


def bad_window(i=0, **changes):
    return window(
        i,
        grade=Grade(Quality.BAD, (Reason.GAP, Reason.NOISY)),
        heart_rate=None,
        longest_rr_s=None,
        r_peaks_s=np.empty(0),
        model=None,
        probabilities=None,
        **changes,
    )


def gap(start=0, end=7, cause="sensor went away", stream=STREAM):
    return Gap(stream, T0 + start * S, T0 + end * S, cause)


def raised(id_="a1", patient="anna", at=30):
    alarm = Alarm(id_, patient, "class:AF", Priority.HIGH, T0, T0 + at * S)
    return Change(alarm, T0 + at * S, State.ACTIVE, "AF: 6 of the last 8 good windows over 0.62")


def ended(change, at=90):
    alarm = replace(change.alarm, ended_ns=T0 + at * S)
    return Change(alarm, T0 + at * S, State.ENDED, "AF: 8 good windows under 0.62")


def facts(record):
    """Everything in a chunk or window, so that two can be compared, bit by bit."""

    def plain(value):
        return (value.dtype.str, value.tobytes()) if isinstance(value, np.ndarray) else value

    return tuple(plain(getattr(record, name)) for name in record.__dataclass_fields__)
