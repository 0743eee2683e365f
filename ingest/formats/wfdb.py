"""WFDB records: a header beside one or more files of samples, in formats 16 and 212.

The Challenges' MATLAB v4 ``.mat`` files are format 16 behind 24 bytes (``16+24``). Formats after
https://physionet.org/physiotools/wag/signal-5.htm.
"""

from itertools import groupby
from pathlib import Path

import numpy as np
import structlog
from numpy.typing import NDArray

from ingest.formats.recording import Recording, RecordingError, Segment
from ingest.formats.shared import check_amount, check_leads, file_size, listed, quoted
from ingest.formats.wfdb_header import NULL_FILE, NULL_FORMAT, Header, Signal, read_header

log = structlog.get_logger(__name__)

# The value that marks a sample as invalid is the lowest that the format can hold.
_INVALID = {16: -(2**15), 212: -(2**11)}


def read_wfdb(path: Path) -> Recording:
    """Read the record whose header is at ``path``.

    Raises:
        RecordingError: header or samples break the format, or are not supported.
        OSError: a file cannot be read.
    """
    header = read_header(path)
    if header.segments is None:
        leads = _lead_names(header)
        if not leads:
            units = listed(f"{s.name} in {s.unit}" for s in header.signals) or "no signals"
            raise RecordingError(f"{path}: {units}; expected one in nV, uV, mV or V")
        samples = _samples(header)
        segments: tuple[Segment, ...] = (Segment(0.0, samples),)
    else:
        leads, segments = _multi_segment(header, header.segments)
    return Recording(
        name=path.stem,
        leads=leads,
        rate=header.rate,
        start_ns=header.start_ns,
        segments=segments,
        comments=header.comments,
    )


def _lead_names(header: Header) -> tuple[str, ...]:
    """Names of the voltages among the signals; the others are no leads, and are left out."""
    leads = tuple(s.name for s in header.signals if s.microvolts_per_step is not None)
    check_leads(header.path, leads)
    others = [f"{s.name} in {s.unit}" for s in header.signals if s.microvolts_per_step is None]
    if others:
        log.warning("signals_not_leads", path=str(header.path), signals=others)
    return leads


def _samples(header: Header) -> NDArray[np.float32]:
    """float32 [leads, n] in µV of a single-segment record; n = 0 where it stores none at all."""
    leads = [signal for signal in header.signals if signal.microvolts_per_step is not None]
    files = _files(header)
    if not files:
        return np.empty((len(leads), 0), np.float32)
    held = {path: _frames_held(path, signals) for path, signals in files}
    n_samples = header.n_samples or min(held.values())
    for path, frames in held.items():
        if frames < n_samples:
            raise RecordingError(
                f"{path}: holds {frames} samples of each signal;"
                f" the header promises {n_samples}: truncated?"
            )
        if frames > n_samples:
            log.warning("samples_beyond_header", path=str(path), promised=n_samples, held=frames)
    check_amount(header.path, len(header.signals), n_samples)

    samples = np.full((len(leads), n_samples), np.nan, np.float32)
    for path, signals in files:
        raw = _read_frames(path, signals, n_samples)
        if header.n_samples is not None:  # else the format says: no checksum
            _verify(path, raw, signals)
        for column, signal in enumerate(signals):
            scale = signal.microvolts_per_step
            if scale is not None:
                row = samples[leads.index(signal)]
                # What overflows float32 becomes infinite, and is refused with the whole recording.
                with np.errstate(over="ignore", invalid="ignore"):
                    row[:] = (raw[:, column].astype(np.float64) - signal.baseline) * scale
                row[raw[:, column] == _INVALID[signal.format]] = np.nan
    return samples


def _files(header: Header) -> list[tuple[Path, list[Signal]]]:
    """The files of samples with the signals that are interleaved in each, in the header's order."""
    stored = [s for s in header.signals if s.file != NULL_FILE and s.format != NULL_FORMAT]
    files: list[tuple[Path, list[Signal]]] = []
    for name, group in groupby(stored, key=lambda signal: signal.file):
        signals = list(group)
        if any(name == path.name for path, _ in files):
            raise RecordingError(
                f"{header.path}: signals of {name} stand apart; expected them on adjacent lines"
            )
        if len({(s.format, s.offset) for s in signals}) > 1:
            raise RecordingError(
                f"{header.path}: signals of {name} differ in format; expected one for all"
            )
        if signals[0].format not in _INVALID:
            raise RecordingError(
                f"{header.path}: {name} is in format {signals[0].format}; expected 16 or 212"
            )
        files.append((header.path.with_name(name), signals))
    return files


def _frames_held(path: Path, signals: list[Signal]) -> int:
    """How many samples of each signal the file has room for."""
    size = max(0, file_size(path) - signals[0].offset)
    values = size // 2 if signals[0].format == 16 else size * 2 // 3
    return values // len(signals)


def _read_frames(path: Path, signals: list[Signal], n_samples: int) -> NDArray[np.int16]:
    """int16 [n_samples, signals], in ADC units."""
    count = n_samples * len(signals)
    if signals[0].format == 16:
        raw = np.fromfile(path, "<i2", count, offset=signals[0].offset).astype(np.int16, copy=False)
    else:
        packed = np.fromfile(path, np.uint8, (count * 3 + 1) // 2, offset=signals[0].offset)
        raw = unpack_212(packed, count)
    if raw.size != count:
        raise RecordingError(f"{path}: shrank while it was read")
    return raw.reshape(n_samples, len(signals))


def unpack_212(packed: NDArray[np.uint8], count: int) -> NDArray[np.int16]:
    """Unpack format 212: pairs of 12-bit two's complement values in three bytes.

    Args:
        packed: uint8 [ceil(1.5 count)]; an odd last value takes two bytes.
        count: the number of values.

    Returns:
        int16 [count].
    """
    triples = np.zeros(((count + 1) // 2, 3), np.int16)
    triples.reshape(-1)[: packed.size] = packed
    pairs = np.empty((len(triples), 2), np.int16)
    pairs[:, 0] = triples[:, 0] | (triples[:, 1] & 0x0F) << 8
    pairs[:, 1] = triples[:, 2] | (triples[:, 1] & 0xF0) << 4
    # Bit 11 is the sign: lift it to bit 15 and shift back with it.
    return (pairs.reshape(-1)[:count] << 4) >> 4


def _verify(path: Path, raw: NDArray[np.int16], signals: list[Signal]) -> None:
    """Hold the samples against the header's checksums, the sum of each signal modulo 2^16.

    A stated 0 is not checked, nor is the initial value: the 2017 Challenge left the one out of
    every header and has the other wrong in some.
    """
    for signal, total in zip(signals, raw.sum(axis=0, dtype=np.int64), strict=True):
        if signal.checksum and (signal.checksum - int(total)) % 2**16:
            raise RecordingError(
                f"{path}: checksum of {quoted(signal.name)} is {total % 2**16};"
                f" expected the {signal.checksum % 2**16} of the header: damaged?"
            )


def _multi_segment(
    header: Header, parts: tuple[tuple[str, int], ...]
) -> tuple[tuple[str, ...], tuple[Segment, ...]]:
    """Leads and segments of a record that is a sequence of records and of gaps (``~``).

    Where the first part has no samples it only lays out the leads, of which the parts that follow
    may lack some (variable layout); otherwise all parts must have the same.
    """
    length = sum(n_samples for _, n_samples in parts)
    if header.n_samples is not None and header.n_samples != length:
        raise RecordingError(
            f"{header.path}: promises {header.n_samples} samples; its segments add up to {length}"
        )
    stored = sum(n_samples for name, n_samples in parts if name != NULL_FILE)
    check_amount(header.path, header.n_signals, stored)

    leads: tuple[str, ...] = ()
    position = 0
    runs: list[tuple[int, list[NDArray[np.float32]]]] = []  # first sample, adjoining parts
    run_end = -1
    for index, (name, n_samples) in enumerate(parts):
        if name != NULL_FILE and (n_samples > 0 or index == 0):
            part = _part(header, name, n_samples)
            names = _lead_names(part)
            leads = leads or names
            samples = _samples(part) if n_samples else np.empty((0, 0), np.float32)
            if samples.size:  # else it is a gap as far as ECG goes
                if run_end != position:
                    runs.append((position, []))
                fixed = parts[0][1] > 0
                runs[-1][1].append(_place(part.path, samples, names, leads, fixed=fixed))
                run_end = position + n_samples
        position += n_samples
    segments = tuple(
        Segment(first / header.rate, run[0] if len(run) == 1 else np.concatenate(run, axis=1))
        for first, run in runs
    )
    return leads, segments


def _part(header: Header, name: str, n_samples: int) -> Header:
    """The header of one segment, checked against the record that it belongs to."""
    part = read_header(header.path.with_name(f"{name}.hea"))
    if part.segments is not None:
        raise RecordingError(f"{part.path}: segments within a segment; expected signals")
    if part.rate != header.rate:
        raise RecordingError(
            f"{part.path}: rate {part.rate:g} Hz; expected the record's {header.rate:g} Hz"
        )
    if len(part.signals) > header.n_signals:
        raise RecordingError(
            f"{part.path}: {len(part.signals)} signals; the record has {header.n_signals}"
        )
    if n_samples and part.n_samples != n_samples:
        raise RecordingError(
            f"{part.path}: promises {part.n_samples} samples; the record says {n_samples}"
        )
    return part


def _place(
    path: Path,
    samples: NDArray[np.float32],
    names: tuple[str, ...],
    leads: tuple[str, ...],
    *,
    fixed: bool,
) -> NDArray[np.float32]:
    """Rows of a part in the record's order of leads; NaN for a lead that the part lacks."""
    if names == leads:
        return samples
    if fixed or not set(names) <= set(leads):
        raise RecordingError(
            f"{path}: leads {listed(names)}; expected the record's {listed(leads)}"
        )
    placed = np.full((len(leads), samples.shape[1]), np.nan, np.float32)
    placed[[leads.index(name) for name in names]] = samples
    return placed
