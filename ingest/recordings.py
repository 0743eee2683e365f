"""Finished recordings from files: WFDB, EDF and CSV, told apart by what is on disk."""

import os
from pathlib import Path

import numpy as np

from ingest.formats.csv import read_csv
from ingest.formats.edf import read_edf
from ingest.formats.recording import Recording, RecordingError, Segment
from ingest.formats.shared import check_leads, check_rate
from ingest.formats.wfdb import read_wfdb

__all__ = ["Recording", "RecordingError", "Segment", "read_recording"]


def read_recording(
    path: str | os.PathLike[str], *, rate: float | None = None, unit: str | None = None
) -> Recording:
    """Read a recording.

    Args:
        path: a WFDB record (its name, ``.hea``, ``.dat`` or ``.mat``), an ``.edf`` or a ``.csv``.
        rate: samples per second, in Hz, of a CSV that does not state it. The other formats carry
            their own, which counts.
        unit: nV, uV, mV or V: that of a CSV that does not state it.

    Raises:
        RecordingError: whatever is wrong with the files, missing ones included.
    """
    where = Path(path)
    try:
        recording = _read(where, rate, unit)
    except OSError as error:
        raise RecordingError(f"{error.filename or where}: {error.strerror or error}") from error
    _check(where, recording)
    return recording


def _read(path: Path, rate: float | None, unit: str | None) -> Recording:
    if "\0" in str(path):
        raise RecordingError(f"{path}: not a path; expected one without a null character")
    suffix = path.suffix.lower()
    if suffix == ".csv":
        return read_csv(path, rate, unit)
    if suffix == ".edf":
        return read_edf(path)
    if suffix == ".hea":
        return read_wfdb(path)
    header = path.with_suffix(".hea") if suffix in {".dat", ".mat"} else Path(f"{path}.hea")
    if not header.is_file():
        kind = "a folder" if path.is_dir() else f"there is no {header.name}"
        raise RecordingError(
            f"{path}: {kind}; expected a WFDB record (with its .hea), an .edf or a .csv"
        )
    return read_wfdb(header)


def _check(path: Path, recording: Recording) -> None:
    """What every recording must hold to, whatever format it came in."""
    check_rate(path, recording.rate)
    check_leads(path, recording.leads)
    if not any(segment.microvolts.size for segment in recording.segments):
        raise RecordingError(f"{path}: holds no samples; expected at least one")
    if any(np.isinf(segment.microvolts).any() for segment in recording.segments):
        raise RecordingError(f"{path}: samples beyond any voltage; expected a sensible gain")
    # Times travel as 64-bit nanoseconds, which end in 2262.
    if (recording.start_ns or 0) + recording.duration_s * 1e9 >= 2**63:
        raise RecordingError(
            f"{path}: ends {recording.duration_s:g} s after its start; expected before 2262"
        )
