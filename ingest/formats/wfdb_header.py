"""Header files of WFDB records (``.hea``).

After the specification of PhysioNet, https://physionet.org/physiotools/wag/header-5.htm, and, where
real records bend it, after those of the PhysioNet Challenges of 2017, 2020 and 2021.
"""

import math
import re
from dataclasses import dataclass
from pathlib import Path

from ingest.formats.recording import RecordingError
from ingest.formats.shared import (
    check_rate,
    decode,
    file_size,
    microvolts_per,
    parse_date,
    quoted,
    utc_ns,
)

NULL_FILE = "~"  # stands for samples that nobody recorded
NULL_FORMAT = 0

_MAX_HEADER_BYTES = 2**20
_MAX_NAME = 200  # characters in the name of a file
_DEFAULT_RATE_HZ = 250.0
_DEFAULT_GAIN = 200.0
_FORMAT = re.compile(r"(\d{1,3})(?:x(\d+))?(?::(\d+))?(?:\+(\d{1,12}))?", re.ASCII)
_GAIN = re.compile(r"([^(/]*)(?:\(([^)]*)\))?(?:/(.+))?")
_TIME = re.compile(r"(?:(\d{1,2}):)?(\d{1,2}):(\d{1,2}(?:\.\d{1,9})?)", re.ASCII)


@dataclass(frozen=True, slots=True)
class Signal:
    """One signal line.

    Attributes:
        file: where its samples are, ``NULL_FILE`` if nowhere.
        format: the number of the storage format.
        offset: bytes that precede the first sample in the file.
        gain: ADC units per physical unit.
        baseline: ADC value of 0 physical units.
        unit: the physical unit.
        checksum: sum of the samples modulo 2^16, signed or not; 0 where the line ends before it.
        name: the description, which for ECG is the lead.
    """

    file: str
    format: int
    offset: int
    gain: float
    baseline: int
    unit: str
    checksum: int
    name: str

    @property
    def microvolts_per_step(self) -> float | None:
        """µV per ADC unit, None where the signal is not a voltage."""
        unit = microvolts_per(self.unit)
        return None if unit is None else unit / self.gain


@dataclass(frozen=True, slots=True)
class Header:
    """A header file.

    Attributes:
        path: the file.
        rate: samples per second, in Hz.
        n_samples: samples per signal, None where the header leaves it to the files.
        start_ns: time of the first sample in nanoseconds since 1970, None if unknown.
        n_signals: number of signals.
        signals: the signal lines; none in the header of a multi-segment record.
        segments: (record name, samples) of each segment of a multi-segment record, else None.
        comments: the comment lines without their ``#``.
    """

    path: Path
    rate: float
    n_samples: int | None
    start_ns: int | None
    n_signals: int
    signals: tuple[Signal, ...]
    segments: tuple[tuple[str, int], ...] | None
    comments: tuple[str, ...]


def read_header(path: Path) -> Header:
    """Read one header file.

    Raises:
        RecordingError: it breaks the format, or asks for a feature that is not supported.
        OSError: it cannot be read.
    """
    size = file_size(path)
    if size > _MAX_HEADER_BYTES:
        raise RecordingError(
            f"{path}: {size} bytes; expected a WFDB header of at most {_MAX_HEADER_BYTES}"
        )
    lines: list[tuple[str, str]] = []
    comments: list[str] = []
    for number, raw in enumerate(decode(path.read_bytes()).split("\n"), 1):
        line = raw.strip()
        if line.startswith("#"):
            comments.append(line[1:].strip())
        elif line:
            lines.append((f"{path}: line {number}", line))
    if not lines:
        raise RecordingError(f"{path}: no record line; expected 'name signals rate samples'")

    where, record_line = lines[0]
    fields = record_line.split()
    n_segments = _number_of_segments(where, fields[0])
    n_signals = _count(where, "number of signals", fields[1] if len(fields) > 1 else "")
    rate = _rate(where, fields[2]) if len(fields) > 2 else _DEFAULT_RATE_HZ
    # Zero is the format's word for "not stated".
    n_samples = _count(where, "number of samples", fields[3]) if len(fields) > 3 else 0

    expected = n_signals if n_segments is None else n_segments
    if len(lines) - 1 != expected:
        what = "signal" if n_segments is None else "segment"
        raise RecordingError(
            f"{where}: promises {expected} {what} lines; the file has {len(lines) - 1}"
        )
    return Header(
        path=path,
        rate=rate,
        n_samples=n_samples or None,
        start_ns=_start_ns(fields[4:]),
        n_signals=n_signals,
        signals=()
        if n_segments is not None
        else tuple(_signal(place, line, index) for index, (place, line) in enumerate(lines[1:])),
        segments=None
        if n_segments is None
        else tuple(_segment(place, line) for place, line in lines[1:]),
        comments=tuple(comments),
    )


def _count(where: str, what: str, text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 18):
        raise RecordingError(f"{where}: {what} is {quoted(text)}; expected a whole number")
    return int(text)


def _integer(where: str, what: str, text: str) -> int:
    if re.fullmatch(r"[+-]?\d{1,10}", text, re.ASCII) is None:
        raise RecordingError(f"{where}: {what} is {quoted(text)}; expected a 32-bit integer")
    return int(text)


def _number_of_segments(where: str, text: str) -> int | None:
    _, slash, number = text.partition("/")
    if not slash:
        return None
    n_segments = _count(where, "number of segments", number)
    if n_segments == 0:
        raise RecordingError(f"{where}: promises 0 segments; expected at least 1")
    return n_segments


def _rate(where: str, text: str) -> float:
    # What follows the slash is the frequency of a counter, which has no bearing on the samples.
    number = text.partition("/")[0]
    try:
        rate = float(number)
    except ValueError:
        raise RecordingError(f"{where}: rate is {quoted(number)}; expected Hz") from None
    check_rate(where, rate)
    return rate


def _start_ns(fields: list[str]) -> int | None:
    """Time and date in either order; whatever cannot be read as such leaves the start unknown."""
    date = next((date for date in map(parse_date, fields) if date is not None), None)
    if date is None:
        return None
    time = next((match for match in map(_TIME.fullmatch, fields) if match is not None), None)
    if time is None:
        return utc_ns(date, 0.0)
    hours, minutes, seconds = (float(part or 0) for part in time.groups())
    if hours >= 24 or minutes >= 60 or seconds >= 60:
        return None
    return utc_ns(date, hours * 3600 + minutes * 60 + seconds)


def _file_name(where: str, text: str) -> str:
    """A file beside the header. One that leads out of its folder is refused: headers are input."""
    allowed = text.isprintable() and len(text) <= _MAX_NAME and text not in {".", ".."}
    if not allowed or "/" in text or "\\" in text:
        raise RecordingError(
            f"{where}: names the file {quoted(text)}; expected one in the header's own folder"
        )
    return text


def _signal(where: str, line: str, index: int) -> Signal:
    fields = line.split(maxsplit=8)
    if len(fields) < 2:
        raise RecordingError(f"{where}: {quoted(line)}; expected a file name and a format")
    number, offset = _storage(where, fields[1])
    zero = _integer(where, "ADC zero", fields[4]) if len(fields) > 4 else 0
    gain, baseline, unit = _scale(where, fields[2] if len(fields) > 2 else "")
    return Signal(
        file=_file_name(where, fields[0]),
        format=number,
        offset=offset,
        gain=gain,
        baseline=zero if baseline is None else baseline,
        unit=unit,
        checksum=_integer(where, "checksum", fields[6]) if len(fields) > 6 else 0,
        name=fields[8] if len(fields) > 8 else f"signal {index}",
    )


def _storage(where: str, text: str) -> tuple[int, int]:
    match = _FORMAT.fullmatch(text)
    if match is None:
        raise RecordingError(f"{where}: format is {quoted(text)}; expected e.g. 212 or 16+24")
    number, samples_per_frame, skew, offset = match.groups()
    # Leading zeros aside, only "1" and "0" are the plain case.
    if samples_per_frame is not None and samples_per_frame.lstrip("0") != "1":
        raise RecordingError(
            f"{where}: {quoted(samples_per_frame)} samples per frame; expected 1: signals of"
            " several rates in one record are not supported"
        )
    if skew is not None and skew.strip("0"):
        raise RecordingError(
            f"{where}: signal skewed by {quoted(skew)} samples; expected 0: not supported"
        )
    return int(number), int(offset or 0)


def _scale(where: str, text: str) -> tuple[float, int | None, str]:
    """Gain, baseline (None: that of the ADC) and unit of ``200``, ``1000/mV``, ``200(1024)/uV``."""
    match = _GAIN.fullmatch(text)
    if match is None:
        raise RecordingError(f"{where}: gain is {quoted(text)}; expected e.g. 200(1024)/mV")
    number, baseline, unit = match.groups()
    try:
        gain = float(number or 0)
    except ValueError:
        gain = math.nan
    gain = gain or _DEFAULT_GAIN
    if not (math.isfinite(gain) and math.isfinite(1e6 / gain)):
        raise RecordingError(f"{where}: gain is {quoted(number)}; expected a sensible number")
    return (
        gain,
        None if baseline is None else _integer(where, "baseline", baseline),
        unit or "mV",
    )


def _segment(where: str, line: str) -> tuple[str, int]:
    fields = line.split()
    if len(fields) != 2:
        raise RecordingError(f"{where}: {quoted(line)}; expected a record name and its samples")
    return _file_name(where, fields[0]), _count(where, "number of samples", fields[1])
