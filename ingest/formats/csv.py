"""CSV files: a column a lead, one row a sample, maybe with a column of times.

Lines that begin with ``#`` are comments; ``# rate=130 unit=uV`` in one states rate and unit. A row
of lead names may come first. Columns are parted by commas, semicolons or tabs.
"""

from __future__ import annotations  # array[float] cannot be evaluated before Python 3.12

import math
import re
from array import array
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ingest.formats.recording import Recording, RecordingError, Segment
from ingest.formats.shared import (
    KNOWN_LEADS,
    MAX_SAMPLES,
    check_leads,
    check_rate,
    decode,
    file_size,
    microvolts_per,
    quoted,
)

_MAX_LINE_BYTES = 2**16
_TIME_NAMES = frozenset({"time", "t", "time_s"})
_DECLARATION = re.compile(r"\b(rate|unit)=([^\s,;]+)")


@dataclass(slots=True)
class _Table:
    """What the file holds: numbers as they stand there."""

    path: Path
    comments: list[str] = field(default_factory=list)
    declared: dict[str, str] = field(default_factory=dict)
    names: list[str] | None = None
    width: int = 0  # columns
    delimiter: str | None = None
    numbers: array[float] = field(default_factory=lambda: array("d"))  # row by row
    lines: array[int] = field(default_factory=lambda: array("q"))  # line number of each row

    def column(self, index: int) -> NDArray[np.float64]:
        """All numbers of one column."""
        return np.frombuffer(self.numbers, np.float64)[index :: self.width]


def read_csv(path: Path, rate: float | None, unit: str | None) -> Recording:
    """Read a CSV file.

    A single lead whose name is no lead's counts as lead I. Blank cells and ``nan`` are invalid
    samples. Where times jump by more than a sample and a half there is a gap.

    Args:
        path: the file.
        rate: samples per second, in Hz, if neither a comment nor the times say.
        unit: of the samples, if no comment says.

    Raises:
        RecordingError: a cell is no number, or rate or unit are not stated, or twice.
        OSError: the file cannot be read.
    """
    table = _read_table(path)
    if rate is not None:
        check_rate(path, rate)
    rate = _declared_rate(table, rate)
    scale = _scale(table, unit)
    names = table.names or []
    time_at = next((i for i, name in enumerate(names) if name.casefold() in _TIME_NAMES), None)
    lead_at = [i for i in range(table.width) if i != time_at]
    leads = _lead_names(table, [names[i] for i in lead_at] if names else [""] * len(lead_at))

    starts: list[tuple[int, float]] = [(0, 0.0)]  # first row and time of each segment
    if time_at is not None:
        times = _times(table, table.column(time_at))
        rate = _rate_of(table, times, rate)
        jumps = np.flatnonzero(np.diff(times) > 1.5 / rate) + 1
        starts += [(int(row), float(times[row] - times[0])) for row in jumps]
    if rate is None:
        raise RecordingError(
            f"{path}: no rate; expected one given, a line '# rate=130', or a column 'time'"
        )
    samples = np.stack([_to_microvolts(table, table.column(i), scale) for i in lead_at])
    ends = [row for row, _ in starts[1:]] + [samples.shape[1]]
    return Recording(
        name=path.stem,
        leads=leads,
        rate=rate,
        start_ns=None,
        segments=tuple(
            Segment(start_s, samples[:, row:end])
            for (row, start_s), end in zip(starts, ends, strict=True)
        ),
        comments=tuple(table.comments),
    )


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """Line numbers, from 1, and lines."""
    file_size(path)
    with path.open("rb") as file:
        number = 0
        while raw := file.readline(_MAX_LINE_BYTES):
            number += 1
            if len(raw) == _MAX_LINE_BYTES:
                raise RecordingError(
                    f"{path}: line {number}: longer than {_MAX_LINE_BYTES} bytes; expected CSV"
                )
            yield number, raw


def _read_table(path: Path) -> _Table:
    table = _Table(path)
    blank: list[int] = []  # lines that are samples only if more follow
    for number, raw in _lines(path):
        if not blank and _add_plain(table, number, raw):
            continue
        line = decode(raw).strip(" \r\n")
        if line.startswith("#"):
            table.comments.append(line[1:].strip())
            _declare(table, number, line)
        elif not line:
            blank.append(number)
        elif not table.width:
            blank.clear()
            _begin(table, number, line)
        else:
            for empty in blank:
                _add(table, empty, "")
            blank.clear()
            _add(table, number, line)
    if not table.lines:
        raise RecordingError(f"{path}: no rows of numbers; expected at least one")
    return table


def _add_plain(table: _Table, number: int, raw: bytes) -> bool:
    """Take a row of nothing but numbers, the quick way: a day has ten million."""
    delimiter = table.delimiter
    try:
        row = [float(cell) for cell in raw.split(delimiter.encode() if delimiter else None)]
    except ValueError:
        return False
    if not row or len(row) != table.width:
        return False
    _extend(table, number, row)
    return True


def _split(line: str, delimiter: str | None) -> list[str]:
    cells = line.split(delimiter) if delimiter else [line]
    return [cell.strip().strip('"') for cell in cells]


def _declare(table: _Table, number: int, line: str) -> None:
    for key, value in _DECLARATION.findall(line):
        if table.declared.setdefault(key, value) != value:
            raise RecordingError(
                f"{table.path}: line {number}: {key} {quoted(value)};"
                f" expected the {quoted(table.declared[key])} stated before"
            )


def _begin(table: _Table, number: int, line: str) -> None:
    """Take the first row: names if a cell is no number, else samples."""
    table.delimiter = next((d for d in "\t;," if d in line), None)
    cells = _split(line, table.delimiter)
    table.width = len(cells)
    try:
        row = _numbers(cells)
    except ValueError:
        table.names = cells
    else:
        _extend(table, number, row)


def _numbers(cells: list[str]) -> list[float]:
    return [float(cell) if cell else math.nan for cell in cells]


def _add(table: _Table, number: int, line: str) -> None:
    cells = _split(line, table.delimiter)
    if len(cells) != table.width:
        raise RecordingError(
            f"{table.path}: line {number}: {len(cells)} columns; expected {table.width}"
        )
    for cell in cells:
        try:
            float(cell or "nan")
        except ValueError:
            raise RecordingError(
                f"{table.path}: line {number}: {quoted(cell)} is not a number; expected e.g. -12.5"
            ) from None
    _extend(table, number, _numbers(cells))


def _extend(table: _Table, number: int, row: list[float]) -> None:
    table.numbers.extend(row)
    table.lines.append(number)
    if len(table.numbers) > MAX_SAMPLES:
        raise RecordingError(
            f"{table.path}: line {number}: too long; expected at most {MAX_SAMPLES} numbers"
        )


def _declared_rate(table: _Table, given: float | None) -> float | None:
    text = table.declared.get("rate")
    if text is None:
        return given
    try:
        rate = float(text.lower().removesuffix("hz"))
    except ValueError:
        raise RecordingError(f"{table.path}: rate is {quoted(text)}; expected Hz") from None
    check_rate(table.path, rate)
    if given not in (None, rate):
        raise RecordingError(f"{table.path}: states {rate:g} Hz; expected the given {given:g} Hz")
    return rate


def _scale(table: _Table, given: str | None) -> float:
    """µV in one unit of the file."""
    stated = table.declared.get("unit")
    unit = stated or given
    if unit is None:
        raise RecordingError(
            f"{table.path}: no unit; expected one given, or a line '# unit=uV' (nV, uV, mV or V)"
        )
    scale = microvolts_per(unit)
    if scale is None:
        raise RecordingError(f"{table.path}: unit is {quoted(unit)}; expected nV, uV, mV or V")
    if given is not None and microvolts_per(given) != scale:
        raise RecordingError(f"{table.path}: states {unit}; expected the given {quoted(given)}")
    return scale


def _lead_names(table: _Table, names: list[str]) -> tuple[str, ...]:
    if not names:
        raise RecordingError(f"{table.path}: only a column of times; expected one of samples")
    if len(names) == 1:
        return (names[0] if names[0].casefold() in KNOWN_LEADS else "I",)
    if not all(names):
        raise RecordingError(
            f"{table.path}: {len(names)} columns; expected a first row that names each lead"
        )
    check_leads(table.path, names)
    return tuple(names)


def _times(table: _Table, times: NDArray[np.float64]) -> NDArray[np.float64]:
    """The column of times, in seconds, checked to advance with every row."""
    bad = np.flatnonzero(~np.isfinite(times))
    if bad.size:
        raise RecordingError(
            f"{table.path}: line {table.lines[bad[0]]}: no time; expected one in every row"
        )
    late = np.flatnonzero(np.diff(times) <= 0) + 1
    if late.size:
        row = int(late[0])
        raise RecordingError(
            f"{table.path}: line {table.lines[row]}: time {times[row]:.9g} s;"
            f" expected more than the {times[row - 1]:.9g} s before it"
        )
    return times


def _rate_of(table: _Table, times: NDArray[np.float64], declared: float | None) -> float:
    """The declared rate if the times bear it out, else the rate that they show, in Hz."""
    steps = np.diff(times)
    if steps.size == 0:
        if declared is None:
            raise RecordingError(f"{table.path}: one row; expected two to tell the rate by")
        return declared
    # Printed times are rounded, so that steps differ; what is much longer than most is a gap.
    usual = float(np.mean(steps[steps <= 2.5 * np.median(steps)]))
    if declared is not None:
        if not 0.9 <= usual * declared <= 1.1:
            raise RecordingError(
                f"{table.path}: times advance by {usual:g} s a row;"
                f" expected {1 / declared:g} s at {declared:g} Hz"
            )
        return declared
    # Rounding matters least over the longest stretch without a gap.
    edges = np.concatenate(([0], np.flatnonzero(steps > 1.5 * usual) + 1, [times.size]))
    longest = int(np.argmax(np.diff(edges)))
    run = times[edges[longest] : edges[longest + 1]]
    rate = (run.size - 1) / float(run[-1] - run[0]) if run.size > 1 else 1 / usual
    check_rate(table.path, rate)
    # A whole number of Hz that puts every sample within half a period of its time is what is meant.
    grid = np.arange(run.size) / round(rate)
    return float(round(rate)) if np.abs(run - run[0] - grid).max() <= 0.5 / rate else rate


def _to_microvolts(table: _Table, column: NDArray[np.float64], scale: float) -> NDArray[np.float32]:
    values = column * scale
    bad = np.flatnonzero(np.abs(values) > np.finfo(np.float32).max)
    if bad.size:
        raise RecordingError(
            f"{table.path}: line {table.lines[bad[0]]}: a value beyond any voltage;"
            " expected a finite number"
        )
    return values.astype(np.float32)
