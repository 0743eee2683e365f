"""From any data set to the one cached form: windows, conditioned, with their labels."""

import hashlib
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import structlog
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from models.conditioning import condition
from training.datasets.cache import FORMAT, LABELS, MANIFEST, RECORDS, Cache, read_entries
from training.datasets.labels import with_equivalents
from training.datasets.origin import STATE, require_unchanged
from training.datasets.record import Record, Skip, Source
from training.datasets.report import Report, summarize
from training.datasets.splits import hashed_fold
from training.datasets.writer import SETTINGS, CacheWriter, check_settings, settings_of
from training.errors import TrainingError

HOP_S = 5.0
SHORTEST_S = 5.0
# A dropped packet or two; anything longer may hide a beat.
BRIDGED_GAP_S = 0.1
_SHORTEST_HOP_S = 0.1
_FASTEST = 10_000.0
_LONGEST = 100_000

_log = structlog.get_logger()


def prepare(
    source: Source,
    path: Path,
    *,
    origin: Path | None = None,
    rate: float = 100.0,
    length: int = 1000,
    hop: float = HOP_S,
) -> Report:
    """Read every record of ``source``, condition it and write it to the folder ``path``.

    A record longer than a window is cut into windows every ``hop`` seconds and one that ends with
    the record; a shorter one is padded with zeros, unless it is shorter than 5 s. Every window is
    conditioned by itself, as the daemon does. Gaps of up to 0.1 s are bridged by a straight line; a
    lead with a longer one, or without any signal, counts as absent from that window, and a window
    without any lead is dropped. Killed at any moment, the same call goes on where it was.

    Args:
        source: the data set.
        path: the folder to write.
        origin: where the data set lies, to notice when it changes.
        rate: samples per second of the result, in Hz.
        length: samples of a window.
        hop: seconds from one window to the next.

    Returns:
        What was read, written and skipped; it is also kept as ``report.txt`` and ``skipped.csv``.

    Raises:
        TrainingError: the folder holds something else or came of other files, the disk is full, or
            not one record could be used.
    """
    if not (0 < rate <= _FASTEST and 2 <= length <= _LONGEST and hop >= _SHORTEST_HOP_S):
        raise TrainingError(
            f"rate {rate:g} Hz, {length} samples, hop {hop:g} s; expected a rate above 0 and of at"
            f" most {_FASTEST:g} Hz, 2 to {_LONGEST} samples and a hop of at least"
            f" {_SHORTEST_HOP_S:g} s"
        )
    ids = source.ids()
    settings = {
        "format": FORMAT,
        "name": source.name,
        "licence": source.licence,
        "rate": float(rate),
        "length": length,
        "hop_s": float(hop),
        "leads": list(source.leads),
        "columns": list(source.columns),
        "source_records": len(ids),
        "source_ids_sha256": hashlib.sha256("\n".join(ids).encode()).hexdigest(),
    }
    state = None if origin is None else require_unchanged(origin, path)
    if (path / MANIFEST).is_file():
        check_settings(path, settings_of(path) or {}, settings)
        Cache(path)
        (path / SETTINGS).unlink(missing_ok=True)  # of a run that ended just before it did so
        return _report(path, source)
    writer = CacheWriter(path, settings)
    try:
        if state is not None:
            writer.text(STATE, state + "\n")
        with _progress(source.name, len(ids), writer.done) as advance:
            for record in ids[writer.done :]:
                _enter(writer, source, record, (rate, length, hop))
                advance()
        writer.commit()
        report = _report(path, source)
        writer.text("report.txt", str(report))
        writer.text("skipped.csv", report.skipped_csv())
        if not report.written:
            raise TrainingError(
                f"{path}: none of {report.read} records could be used; see skipped.csv there"
            )
        writer.finish()
    finally:
        writer.close()
    return report


def starts(n: int, size: int, hop: int) -> list[int]:
    """First samples of the windows of ``size`` samples in a record of ``n``."""
    if n <= size:
        return [0]
    places = list(range(0, n - size + 1, hop))
    if places[-1] + size < n:
        places.append(n - size)
    return places


def bridge(
    window: NDArray[np.float32], longest: int
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Draw straight lines over short gaps, and find the leads that have long ones.

    Args:
        window: [leads, n]; not finite where there is no sample.
        longest: samples of the longest gap to bridge.

    Returns:
        The window, finite throughout, with zeros for a lead that cannot be used; and bool [leads],
        whether it can.
    """
    missing = ~np.isfinite(window)
    usable = np.ones(len(window), dtype=bool)
    if not missing.any():
        return window, usable
    filled = window.copy()
    time = np.arange(window.shape[1])
    for lead in np.flatnonzero(missing.any(axis=1)):
        edges = np.flatnonzero(np.diff(missing[lead], prepend=False, append=False))
        usable[lead] = (edges[1::2] - edges[::2]).max() <= longest
        if usable[lead]:
            held = ~missing[lead]
            filled[lead, missing[lead]] = np.interp(
                time[missing[lead]], time[held], window[lead, held]
            )
        else:
            filled[lead] = 0
    return filled, usable


def _enter(writer: CacheWriter, source: Source, name: str, form: tuple[float, int, float]) -> None:
    try:
        record = source.read(name)
        written, dropped = _write_windows(writer, source.leads, record, form)
    except Skip as skip:
        writer.skip(name, skip.reason, skip.detail)
        return
    entry: dict[str, Any] = {
        "id": name,
        "patient": record.patient,
        # By patient where a data set has no split of its own, so that nobody is on two sides.
        "fold": hashed_fold(record.patient) if record.fold is None else record.fold,
        "windows": written,
    }
    if dropped:
        entry["dropped"] = dropped
    if record.unknown:
        entry["unknown"] = list(record.unknown)
    writer.record(entry, _labels(record, source.columns))


def _write_windows(
    writer: CacheWriter, leads: tuple[str, ...], record: Record, form: tuple[float, int, float]
) -> tuple[int, dict[str, int]]:
    """How many windows were written, and how many dropped by reason.

    Raises:
        Skip: not one; so nothing has been written.
    """
    rate, length, hop = form
    n = record.signal.shape[1]
    if n < SHORTEST_S * record.rate:
        raise Skip("short", f"{n / record.rate:.1f} s")
    rows = [(leads.index(lead), row) for row, lead in enumerate(record.leads) if lead in leads]
    if not rows:
        raise Skip("no lead", f"it has {', '.join(record.leads)}")
    to, taken = (list(part) for part in zip(*rows, strict=True))
    size = round(length / rate * record.rate)
    written, dropped = 0, {"flat": 0, "gap": 0}
    for at in starts(n, size, round(hop * record.rate)):
        window, usable = bridge(
            record.signal[taken, at : at + size], round(BRIDGED_GAP_S * record.rate)
        )
        z = condition(window, record.rate, target_rate=rate, length=length)
        seen = z.any(axis=1)
        if not seen.any():
            dropped["flat" if usable.any() else "gap"] += 1
            continue
        signals = np.zeros((len(leads), length), dtype=np.float16)
        signals[to] = z
        present = np.zeros(len(leads), dtype=bool)
        present[to] = seen
        writer.window(signals, present)
        written += 1
    if not written:
        raise Skip("gap" if dropped["gap"] else "flat", "in every window")
    return written, {reason: count for reason, count in dropped.items() if count}


def _labels(record: Record, columns: tuple[str, ...]) -> NDArray[np.uint8]:
    """[columns], bit 0 the label, bit 1 whether it is known."""
    positive = with_equivalents(record.positive)
    known = None if record.known is None else with_equivalents(record.known) | positive
    return np.array(
        [(c in positive) | (2 * (known is None or c in known)) for c in columns], dtype=np.uint8
    )


def _report(path: Path, source: Source) -> Report:
    entries = read_entries(path / RECORDS)[0]
    written = sum("skipped" not in e for e in entries)
    labels = np.fromfile(path / LABELS, dtype=np.uint8).reshape(written, len(source.columns))
    return summarize(source.name, source.licence, source.columns, entries, labels)


@contextmanager
def _progress(name: str, total: int, done: int) -> Iterator[Callable[[], None]]:
    """A bar on a terminal, else a line of log at every tenth of the way; yields its advance."""
    if sys.stderr.isatty():
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
        times = (TimeElapsedColumn(), TimeRemainingColumn())
        with Progress(*columns, *times, console=Console(stderr=True)) as bar:
            task = bar.add_task(name, total=total, completed=done)
            yield lambda: bar.advance(task)
        return
    at = done

    def advance() -> None:
        nonlocal at
        at += 1
        if at * 10 // total > (at - 1) * 10 // total:
            _log.info("preparing", data=name, records=at, of=total)

    yield advance
