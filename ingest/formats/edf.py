"""EDF and EDF+ files, continuous (EDF+C) or with gaps (EDF+D).

After https://www.edfplus.info/specs/edf.html and https://www.edfplus.info/specs/edfplus.html. An
own reader, because pyedflib refuses EDF+D.
"""

import datetime as dt
import math
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import structlog
from numpy.typing import NDArray

from ingest.formats.recording import Recording, RecordingError, Segment
from ingest.formats.shared import (
    KNOWN_LEADS,
    check_amount,
    check_leads,
    check_rate,
    decode,
    file_size,
    listed,
    microvolts_per,
    parse_date,
    quoted,
    utc_ns,
)

log = structlog.get_logger(__name__)

_BLOCK = 256  # bytes of the fixed header, and of what the header holds on each signal
_SIGNAL_FIELDS = (
    ("label", 16),
    ("transducer", 80),
    ("unit", 8),
    ("physical minimum", 8),
    ("physical maximum", 8),
    ("digital minimum", 8),
    ("digital maximum", 8),
    ("prefilter", 80),
    ("samples", 8),
    ("reserved", 32),
)
_ECG_LABEL = re.compile(r"(?:ECG|EKG)\b[ :]*", re.IGNORECASE)
# The first annotation of a data record: its time after the start, and after that maybe texts.
_ONSET = re.compile(rb"([+-]\d{1,12}(?:\.\d{0,12})?)\x14")


@dataclass(frozen=True, slots=True)
class _Signal:
    label: str
    unit: str
    physical: tuple[str, str]
    digital: tuple[str, str]
    samples: int  # in each data record
    first: int  # position of its samples in the data record

    @property
    def is_annotation(self) -> bool:
        return self.label == "EDF Annotations"

    @property
    def lead(self) -> str:
        """``ECG V1`` is how EDF+ spells lead V1."""
        return _ECG_LABEL.sub("", self.label, count=1) or self.label

    @property
    def is_ecg(self) -> bool:
        known = self.lead.casefold() in KNOWN_LEADS
        return known or _ECG_LABEL.match(self.label) is not None


@dataclass(frozen=True, slots=True)
class _Header:
    path: Path
    kind: str  # "EDF+C", "EDF+D", or other text in a plain EDF
    start_ns: int | None
    n_bytes: int
    n_records: int
    record_s: float
    signals: tuple[_Signal, ...]


def read_edf(path: Path) -> Recording:
    """Read an EDF file.

    Of signals in volts those that are labelled as ECG are its leads, or all where none is.

    Raises:
        RecordingError: the file breaks the format, or has no usable signal.
        OSError: it cannot be read.
    """
    header = _read_header(path)
    chosen = _leads(header)
    rate = chosen[0].samples / header.record_s
    check_rate(path, rate)
    width = sum(signal.samples for signal in header.signals)
    check_amount(path, 1, header.n_records * width)
    raw = np.fromfile(path, "<i2", header.n_records * width, offset=header.n_bytes)
    if raw.size != header.n_records * width:
        raise RecordingError(f"{path}: shrank while it was read")
    records = raw.reshape(header.n_records, width)
    segments = []
    for first, end, start_s in _runs(header, records, rate):
        rows = [_to_microvolts(path, records[first:end], signal) for signal in chosen]
        segments.append(Segment(start_s, np.stack(rows)))
    return Recording(
        name=path.stem,
        leads=tuple(signal.lead for signal in chosen),
        rate=rate,
        start_ns=header.start_ns,
        segments=tuple(segments),
    )


def _read_header(path: Path) -> _Header:
    size = file_size(path)
    with path.open("rb") as file:
        fixed = file.read(_BLOCK)
        if len(fixed) < _BLOCK or fixed[:8].strip() != b"0":
            raise RecordingError(
                f"{path}: begins with {quoted(decode(fixed[:8]))};"
                " expected EDF, which begins with '0' and a header of 256 bytes"
            )
        n_signals = _whole(path, "number of signals", fixed[252:256])
        block = file.read(n_signals * _BLOCK)
    n_bytes = _BLOCK * (n_signals + 1)
    if len(block) != n_signals * _BLOCK:
        raise RecordingError(f"{path}: {size} bytes; the header alone is {n_bytes}: truncated?")
    if _whole(path, "size of the header", fixed[184:192]) != n_bytes:
        raise RecordingError(
            f"{path}: size of the header is {quoted(decode(fixed[184:192]).strip())};"
            f" expected {n_bytes} for {n_signals} signals"
        )
    signals = _signals(path, block, n_signals)
    record_s = _number(path, "duration of a data record", fixed[244:252])
    if record_s <= 0:
        raise RecordingError(f"{path}: data records last {record_s:g} s; expected more than 0")
    record_bytes = 2 * sum(signal.samples for signal in signals)
    if record_bytes == 0:
        raise RecordingError(f"{path}: data records hold no samples; expected at least one")
    held = (size - n_bytes) // record_bytes
    kind = decode(fixed[192:197])
    return _Header(
        path=path,
        kind=kind,
        start_ns=_start_ns(fixed, kind),
        n_bytes=n_bytes,
        n_records=_number_of_records(path, fixed[236:244], held),
        record_s=record_s,
        signals=signals,
    )


def _signals(path: Path, block: bytes, n_signals: int) -> tuple[_Signal, ...]:
    """The header keeps each field of all signals together, beginning with all labels."""
    columns: dict[str, list[str]] = {}
    position = 0
    for name, width in _SIGNAL_FIELDS:
        ends = range(position + width, position + width * n_signals + 1, width)
        columns[name] = [decode(block[end - width : end]).strip() for end in ends]
        position += width * n_signals
    signals = []
    first = 0
    for index in range(n_signals):
        label = columns["label"][index]
        text = columns["samples"][index]
        samples = _whole(path, f"samples of {quoted(label)} in a data record", text.encode())
        signals.append(
            _Signal(
                label=label,
                unit=columns["unit"][index],
                physical=(columns["physical minimum"][index], columns["physical maximum"][index]),
                digital=(columns["digital minimum"][index], columns["digital maximum"][index]),
                samples=samples,
                first=first,
            )
        )
        first += samples
    return tuple(signals)


def _number_of_records(path: Path, field: bytes, held: int) -> int:
    """As the header says; -1 is a recorder that never came to fill it in."""
    if field.strip() == b"-1":
        return held
    promised = _whole(path, "number of data records", field)
    if held < promised:
        raise RecordingError(
            f"{path}: holds {held} data records; the header promises {promised}: truncated?"
        )
    if held > promised:
        log.warning("samples_beyond_header", path=str(path), promised=promised, held=held)
    return promised


def _leads(header: _Header) -> tuple[_Signal, ...]:
    """The signals that are leads; the others, which are left out, are logged."""
    signals = [signal for signal in header.signals if not signal.is_annotation]
    volts = [s for s in signals if microvolts_per(s.unit) is not None and s.samples > 0]
    chosen = [signal for signal in volts if signal.is_ecg] or volts
    if not chosen:
        units = listed(f"{s.label} in {s.unit or 'no unit'}" for s in signals) or "no signals"
        raise RecordingError(f"{header.path}: {units}; expected one in nV, uV, mV or V")
    if len({signal.samples for signal in chosen}) > 1:
        rates = listed(f"{s.label} {s.samples / header.record_s:g} Hz" for s in chosen)
        raise RecordingError(f"{header.path}: {rates}; expected one rate for all ECG leads")
    check_leads(header.path, [signal.lead for signal in chosen])
    others = [signal.label for signal in signals if signal not in chosen]
    if others:
        log.warning("signals_not_leads", path=str(header.path), signals=others)
    return tuple(chosen)


def _runs(header: _Header, records: NDArray[np.int16], rate: float) -> list[tuple[int, int, float]]:
    """Runs of data records that follow on one another: first, end, and start in seconds."""
    if header.n_records == 0:
        return []
    annotation = next((s for s in header.signals if s.is_annotation and s.samples), None)
    if header.kind == "EDF+D":
        if annotation is None:
            raise RecordingError(
                f"{header.path}: EDF+D without 'EDF Annotations'; expected them to time the records"
            )
        onsets = [_onset(header, records, annotation, i) for i in range(header.n_records)]
    elif header.kind == "EDF+C" and annotation is not None:
        # Only the fraction of a second that the header's start time has no room for.
        onsets = [_onset(header, records, annotation, 0)]
    else:
        onsets = [0.0]

    # Onsets are rounded to what the recorder prints, often milliseconds.
    slack_s = max(1 / rate, 1e-3)
    starts = [(0, onsets[0])]
    for index, onset in enumerate(onsets[1:], 1):
        first, start_s = starts[-1]
        late_s = onset - (start_s + (index - first) * header.record_s)
        if late_s < -slack_s:
            raise RecordingError(
                f"{header.path}: data record {index + 1} begins {-late_s:g} s before the end of"
                " the one before it; expected records in order"
            )
        if late_s > slack_s:
            starts.append((index, onset))
    ends = [first for first, _ in starts[1:]] + [header.n_records]
    return [(first, end, start_s) for (first, start_s), end in zip(starts, ends, strict=True)]


def _onset(header: _Header, records: NDArray[np.int16], annotation: _Signal, index: int) -> float:
    """When a data record begins, in seconds after the start time of the header."""
    cells = records[index, annotation.first : annotation.first + annotation.samples]
    text = cells.tobytes()
    match = _ONSET.match(text)
    if match is None or float(match[1]) < 0:
        raise RecordingError(
            f"{header.path}: data record {index + 1} is timed {text[:16]!r}; expected e.g. '+12.5'"
        )
    return float(match[1])


def _to_microvolts(path: Path, records: NDArray[np.int16], signal: _Signal) -> NDArray[np.float32]:
    """float32 [records × samples], in µV, by the straight line through both pairs of extremes."""
    name = quoted(signal.label)
    low, high = (_number(path, f"physical range of {name}", t.encode()) for t in signal.physical)
    dig_low, dig_high = (
        _number(path, f"digital range of {name}", t.encode()) for t in signal.digital
    )
    unit = microvolts_per(signal.unit) or 0.0
    if low == high or dig_low >= dig_high:
        raise RecordingError(
            f"{path}: {name} maps digital {dig_low:g} to {dig_high:g} on physical {low:g} to"
            f" {high:g}; expected two ranges"
        )
    raw = records[:, signal.first : signal.first + signal.samples].astype(np.float64)
    with np.errstate(over="ignore", invalid="ignore"):  # refused with the whole recording
        physical = (raw - dig_low) * ((high - low) / (dig_high - dig_low)) + low
        return (physical * unit).astype(np.float32).reshape(-1)


def _start_ns(fixed: bytes, kind: str) -> int | None:
    """Start in nanoseconds since 1970, None where the header has no valid one."""
    match = re.fullmatch(
        rb"(\d\d)\.(\d\d)\.(\d\d)(\d\d)\.(\d\d)\.(\d\d)", fixed[168:184].replace(b":", b".")
    )
    if match is None:
        return None
    day, month, year, hours, minutes, seconds = map(int, match.groups())
    # Two digits of year stand for 1985 to 2084; EDF+ gives all four in another place as well.
    date: dt.date | None = parse_date(f"{day}/{month}/{year + (1900 if year >= 85 else 2000)}")
    if kind.startswith("EDF+"):
        words = decode(fixed[88:168]).split()
        if len(words) > 1 and words[0] == "Startdate":
            date = parse_date(words[1]) or date
    if date is None or hours >= 24 or minutes >= 60 or seconds >= 60:
        return None
    return utc_ns(date, hours * 3600 + minutes * 60 + seconds)


def _whole(path: Path, what: str, field: bytes) -> int:
    text = decode(field).strip()
    if not (text.isascii() and text.isdigit()):
        raise RecordingError(f"{path}: {what} is {quoted(text)}; expected a whole number")
    return int(text)


def _number(path: Path, what: str, field: bytes) -> float:
    text = decode(field).strip()
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise RecordingError(f"{path}: {what} is {quoted(text)}; expected a number")
    return value
