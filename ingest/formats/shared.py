"""What the readers have in common: limits, units, lead names, dates, safe access to files."""

import datetime as dt
import re
import stat
from collections.abc import Iterable, Sequence
from pathlib import Path

from ingest.formats.recording import RecordingError

RATE_RANGE_HZ = (50.0, 4000.0)
# 1 GiB as float32: a day of twelve leads at 250 Hz, or of three at 1000 Hz, fits.
MAX_SAMPLES = 2**28

_LIMB_LEADS = {"i", "ii", "iii", "avr", "avl", "avf", "mli", "mlii", "mliii"}
_CHEST_LEADS = {"v1", "v2", "v3", "v4", "v5", "v6", "v7", "v8", "v9", "v3r", "v4r", "v5r", "v6r"}
KNOWN_LEADS = frozenset(_LIMB_LEADS | _CHEST_LEADS | {"x", "y", "z"})  # in lower case

_MICROVOLTS = {"nv": 1e-3, "uv": 1.0, "μv": 1.0, "mv": 1e3, "v": 1e6}
_MONTHS = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"]


def microvolts_per(unit: str) -> float | None:
    """How many µV one ``unit`` is, None where it is not a voltage. Case does not matter."""
    return _MICROVOLTS.get(unit.strip().casefold())


def quoted(text: str) -> str:
    """``text`` for an error message: in quotes, cut where it is long."""
    return repr(text if len(text) <= 40 else text[:40] + "…")


def listed(names: Iterable[str]) -> str:
    """``names`` for an error message: parted by commas, cut where there are many."""
    text = ", ".join(names)
    return text if len(text) <= 200 else text[:200] + " …"


def decode(raw: bytes) -> str:
    """Text of a header: UTF-8, or else Latin-1, which is what older recorders write."""
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        return raw.decode("latin-1")


def file_size(path: Path) -> int:
    """Size in bytes of a regular file; a pipe or device, which might never end, is refused.

    Raises:
        RecordingError: ``path`` is not a regular file.
        OSError: it cannot be looked at.
    """
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        kind = "a folder" if stat.S_ISDIR(status.st_mode) else "not a regular file"
        raise RecordingError(f"{path}: {kind}; expected a file")
    return status.st_size


def check_rate(where: object, rate: float) -> None:
    """Refuse a sampling rate at which no ECG is recorded; it is a mistake or an attack.

    Raises:
        RecordingError: ``rate``, in Hz, is outside ``RATE_RANGE_HZ`` or not a number.
    """
    low, high = RATE_RANGE_HZ
    if not low <= rate <= high:
        raise RecordingError(f"{where}: rate {rate:g} Hz; expected {low:g} to {high:g} Hz")


def check_leads(where: object, leads: Sequence[str]) -> None:
    """Refuse leads that cannot be told apart by name.

    Raises:
        RecordingError: two of ``leads`` have the same name, but for case.
    """
    if len({lead.casefold() for lead in leads}) < len(leads):
        raise RecordingError(f"{where}: leads {listed(leads)}; expected each name only once")


def check_amount(where: object, leads: int, samples: int) -> None:
    """Refuse, before any memory is taken, what is too large to hold.

    Raises:
        RecordingError: ``leads`` × ``samples`` is more than ``MAX_SAMPLES``.
    """
    if leads * samples > MAX_SAMPLES:
        raise RecordingError(
            f"{where}: {leads} leads of {samples} samples; expected at most {MAX_SAMPLES} in all"
        )


def parse_date(text: str) -> dt.date | None:
    """A date written ``1/05/2000`` or ``12-May-2020``, day first; None if it is not one."""
    match = re.fullmatch(r"(\d{1,2})[/-](\d{1,2}|[A-Za-z]{3})[/-](\d{4})", text, re.ASCII)
    if match is None:
        return None
    day, month, year = match.groups()
    try:
        number = int(month) if month.isdigit() else _MONTHS.index(month.lower()) + 1
        return dt.date(int(year), number, int(day))
    except ValueError:
        return None


def utc_ns(date: dt.date, seconds: float) -> int | None:
    """Nanoseconds since 1970 of ``seconds`` after midnight; None if 64 bits cannot hold them."""
    days = (date - dt.date(1970, 1, 1)).days
    nanoseconds = days * 86_400_000_000_000 + round(seconds * 1e9)
    return nanoseconds if abs(nanoseconds) < 2**63 else None
