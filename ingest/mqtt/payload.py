"""The message of a device: lead-I samples with the time of the first, as JSON or CBOR.

``{"t0": "2026-11-21T07:00:00.000Z", "fs": 130, "unit": "uV", "seq": 17, "samples": [12, null]}``

JSON is RFC 8259, CBOR is RFC 8949 without tags, ``t0`` is RFC 3339 or counted since 1970. The
fields may have other names and lie deeper; see ``Mapping``.
"""

import io
import json
import math
import re
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from enum import StrEnum
from types import NoneType
from typing import Any, Final, Literal, NoReturn

import numpy as np
from numpy.typing import NDArray

from ingest.mqtt.limits import Limits

MICROVOLTS: Final = {"uV": 1.0, "µV": 1.0, "μV": 1.0, "mV": 1e3, "V": 1e6}
"""Microvolts in each unit that a payload or the configuration may name."""

_TIME_NS: Final = {"ns": 1, "ms": 1_000_000, "s": 1_000_000_000}

# No electrode on a body delivers a volt.
_MAX_MICROVOLTS = 1e6
_MAX_SEQUENCE = 2**53  # the integers that every JSON implementation agrees on (RFC 8259, 6)
_MAX_NS = 2**63
_TIMES: Final = {
    None: "text as 2026-11-21T07:00:00.000Z or whole nanoseconds since 1970",
    "iso": "text as 2026-11-21T07:00:00.000Z",
    "ns": "whole nanoseconds since 1970",
    "ms": "milliseconds since 1970",
    "s": "seconds since 1970",
}
_MAX_DEPTH = 16
_LONGEST_DETAIL = 200

_RFC3339 = re.compile(
    r"([0-9]{4})-([0-9]{2})-([0-9]{2})[Tt ]([0-9]{2}):([0-9]{2}):([0-9]{2})"
    r"(?:\.([0-9]{1,9}))?(?:([Zz])|([+-])([0-9]{2}):?([0-9]{2}))"
)
_JSON = re.compile(rb"[ \t\r\n]*\{")
# All tags that cbor2 gives a meaning to: dates, bignums, decimals, regular expressions, MIME …
_CBOR_TAGS = (
    *(0, 1, 2, 3, 4, 5, 25, 28, 29, 30, 35, 36, 37, 52, 54, 100, 256, 258, 260, 261),
    *(1004, 43000, 55799),
)


class Reason(StrEnum):
    """Why a message is refused."""

    TOPIC = "topic"
    PATIENT = "patient"
    DEVICE = "device"
    RETAINED = "retained"
    SIZE = "size"
    FORMAT = "format"
    FIELDS = "fields"
    SAMPLES = "samples"
    RATE = "rate"
    UNIT = "unit"
    TIME = "time"
    SEQUENCE = "sequence"
    TOO_FAST = "too fast"


class RefusedError(ValueError):
    """A message that is not taken; ``detail`` names the place and what was expected, in a line."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = one_line(detail)


@dataclass(frozen=True, slots=True)
class Mapping:
    """Where a payload has what; each field is a dotted path, as ``data.ecg``.

    Attributes:
        format: ``auto`` is JSON where the payload begins with a brace, else CBOR.
        samples: field of the samples.
        t0: field of the time of the first sample.
        fs: field of the sample rate in Hz.
        unit: field of the unit, or of a number of microvolts per count.
        seq: field of the message's running number.
        contact: field that says whether the electrodes touch the skin.
        battery: field of the battery's percent.
        time: how ``t0`` is written: as ``iso`` text, or as a number of ``ns``, ``ms`` or ``s``
            since 1970; None takes text and whole nanoseconds.
        constant_fs: sample rate in Hz where the payload has no such field.
        constant_unit: likewise the unit, one of ``MICROVOLTS`` or microvolts per count.
    """

    format: Literal["auto", "json", "cbor"] = "auto"
    samples: str = "samples"
    t0: str = "t0"
    fs: str = "fs"
    unit: str = "unit"
    seq: str = "seq"
    contact: str = "contact"
    battery: str = "battery"
    time: Literal["iso", "ns", "ms", "s"] | None = None
    constant_fs: float | None = None
    constant_unit: str | float | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Message:
    """What a device sent; it depends on the payload alone, so that it can be known again.

    Attributes:
        t0_ns: UTC time of the first sample, in nanoseconds since 1970.
        rate: samples per second, in Hz.
        microvolts: float32 [n], in µV; NaN where a sample is missing.
        sequence: the message's running number.
        contact: whether the electrodes touch the skin.
        battery: percent.
    """

    t0_ns: int
    rate: float
    microvolts: NDArray[np.float32]
    sequence: int | None
    contact: bool | None
    battery: int | None

    @property
    def end_ns(self) -> int:
        """UTC time just after the last sample, in nanoseconds."""
        return self.t0_ns + round(len(self.microvolts) / self.rate * 1e9)


def decode(payload: bytes, mapping: Mapping, limits: Limits) -> Message:
    """Read a payload.

    Whether its time is a plausible one depends on the clock: see ``check_time``.

    Raises:
        RefusedError: if it is not a message; nothing else is ever raised.
    """
    if len(payload) > limits.payload:
        raise RefusedError(Reason.SIZE, f"{len(payload)} bytes; at most {limits.payload} are taken")
    if mapping.format == "json" or (mapping.format == "auto" and _JSON.match(payload)):
        document = _from_json(payload)
    else:
        document = _from_cbor(payload)
    if not isinstance(document, dict):
        raise RefusedError(Reason.FORMAT, f"expected a map of fields, found {_show(document)}")
    samples = _samples(document, mapping.samples, limits)
    return Message(
        t0_ns=_time_ns(document, mapping),
        rate=_rate(document, mapping, limits),
        microvolts=_microvolts(samples, mapping.samples, _scale(document, mapping)),
        sequence=_sequence(document, mapping.seq),
        contact=_contact(document, mapping.contact),
        battery=_battery(document, mapping.battery),
    )


def check_time(t0_ns: int, limits: Limits, now_ns: int) -> None:
    """Hold the time of a message against the gateway's, both UTC in nanoseconds since 1970.

    Raises:
        RefusedError: if it is too far in the future or in the past.
    """
    ahead = (t0_ns - now_ns) / 1e9
    if ahead > limits.ahead:
        raise RefusedError(
            Reason.TIME,
            f"the first sample is {ahead:.0f} s in the future; at most {limits.ahead:g} s are "
            "taken: set the device's clock, or the gateway's",
        )
    if -ahead > limits.age:
        raise RefusedError(
            Reason.TIME,
            f"the first sample is {-ahead:.0f} s old; at most {limits.age:g} s are taken",
        )


def one_line(text: str, longest: int = _LONGEST_DETAIL) -> str:
    """``text`` as one line that is safe to print, whoever wrote it."""
    # Cut first: what is thrown away need not be escaped.
    cut = text if len(text) <= longest else text[: longest - 1] + "…"
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in cut
    )


def _from_json(payload: bytes) -> object:
    try:
        return _JSON_DECODER.decode(payload.decode("utf-8"))
    except RefusedError:
        raise
    except UnicodeDecodeError as error:
        detail = f"not UTF-8 at byte {error.start}"
    except json.JSONDecodeError as error:
        detail = f"not JSON: {error.msg} at character {error.pos}"
    except RecursionError:
        detail = "nested too deeply"
    except ValueError:
        detail = "has a number of thousands of digits"
    raise RefusedError(Reason.FORMAT, detail)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise RefusedError(Reason.FORMAT, "a field stands there twice")
    return found


def _constant(name: str) -> NoReturn:
    raise RefusedError(Reason.FORMAT, f"{name} is not JSON; a missing sample is null")


_JSON_DECODER = json.JSONDecoder(object_pairs_hook=_unique, parse_constant=_constant)


def _from_cbor(payload: bytes) -> object:
    import cbor2  # noqa: PLC0415  # only where there is a message to read

    def refuse(*_: object) -> NoReturn:
        # A tag can stand for numbers of any size, regular expressions and references.
        raise RefusedError(Reason.FORMAT, "has a CBOR tag; none is taken")

    stream = io.BytesIO(payload)
    try:
        document: object = cbor2.CBORDecoder(
            stream,
            tag_hook=refuse,
            semantic_decoders=dict.fromkeys(_CBOR_TAGS, refuse),
            read_size=1,  # not beyond the end of the map
            max_depth=_MAX_DEPTH,
            allow_duplicate_keys=False,
        ).decode()
    except Exception as error:  # noqa: BLE001  # whatever a decoder makes of hostile bytes
        cause = error.__cause__
        if isinstance(cause, RefusedError):
            raise cause from None
        raise RefusedError(Reason.FORMAT, f"neither JSON nor CBOR: {error}") from None
    if stream.read(1):
        raise RefusedError(Reason.FORMAT, "bytes follow the CBOR map")
    return document


def _find(document: dict[str, Any], path: str) -> Any:
    """What stands at ``path``; None, as for a null, where nothing does."""
    found: Any = document
    for name in path.split("."):
        if not isinstance(found, dict):
            return None
        found = found.get(name)
    return found


def _need(document: dict[str, Any], path: str) -> Any:
    found = _find(document, path)
    if found is None:
        raise RefusedError(Reason.FIELDS, f"has no field {_show(path)}")
    return found


def _number(value: object) -> float | None:
    """``value`` if it is a finite number."""
    if type(value) not in (int, float):  # nor a bool, which is an int to Python
        return None
    try:
        number = float(value)  # type: ignore[arg-type]
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


def _samples(document: dict[str, Any], path: str, limits: Limits) -> list[float | None]:
    samples = _need(document, path)
    if not isinstance(samples, list) or not samples:
        raise RefusedError(
            Reason.SAMPLES, f"{path}: expected a list of numbers, found {_show(samples)}"
        )
    if len(samples) > limits.samples:
        raise RefusedError(
            Reason.SAMPLES, f"{path}: {len(samples)} samples; at most {limits.samples} are taken"
        )
    if not {int, float, NoneType}.issuperset(map(type, samples)):
        wrong = next(s for s in samples if type(s) not in (int, float, NoneType))
        raise RefusedError(
            Reason.SAMPLES, f"{path}: expected numbers and nulls only, found {_show(wrong)}"
        )
    return samples


def _microvolts(samples: list[float | None], path: str, scale: float) -> NDArray[np.float32]:
    missing = samples.count(None)
    if missing:
        samples = [math.nan if s is None else s for s in samples]
    try:
        with np.errstate(over="ignore"):
            microvolts = np.array(samples, dtype=np.float64) * scale
    except OverflowError:
        microvolts = np.array([math.inf])
    # NaN compares false: what is neither within the range nor null is refused.
    if np.count_nonzero(np.abs(microvolts) <= _MAX_MICROVOLTS) != len(microvolts) - missing:
        raise RefusedError(
            Reason.SAMPLES, f"{path}: expected values from -1 V to 1 V; a missing sample is null"
        )
    return microvolts.astype(np.float32)


def _rate(document: dict[str, Any], mapping: Mapping, limits: Limits) -> float:
    value = _find(document, mapping.fs)
    if value is None:
        value = mapping.constant_fs
    if value is None:
        raise RefusedError(Reason.FIELDS, f"has no field {_show(mapping.fs)}")
    rate = _number(value)
    low, high = limits.rate
    if rate is None or not low <= rate <= high:
        raise RefusedError(
            Reason.RATE, f"{mapping.fs}: expected {low:g} to {high:g} Hz, found {_show(value)}"
        )
    return rate


def _scale(document: dict[str, Any], mapping: Mapping) -> float:
    value = _find(document, mapping.unit)
    if value is None:
        value = mapping.constant_unit
    if value is None:
        raise RefusedError(Reason.FIELDS, f"has no field {_show(mapping.unit)}")
    scale = MICROVOLTS.get(value) if isinstance(value, str) else _number(value)
    if scale is None or scale <= 0:
        raise RefusedError(
            Reason.UNIT,
            f"{mapping.unit}: expected uV, mV, V or microvolts per count, found {_show(value)}",
        )
    return scale


def _time_ns(document: dict[str, Any], mapping: Mapping) -> int:
    value = _need(document, mapping.t0)
    found: int | None = None
    if mapping.time in (None, "iso"):
        found = _rfc3339_ns(value) if isinstance(value, str) else None
    if found is None and mapping.time != "iso":
        unit_ns = _TIME_NS[mapping.time or "ns"]
        if type(value) is int:
            found = value * unit_ns
        elif unit_ns > 1 and type(value) is float and 0 <= value < _MAX_NS:
            # Not for nanoseconds: a float cannot hold those since 1970.
            whole = int(value)
            found = whole * unit_ns + round((value - whole) * unit_ns)
    if found is None or not 0 <= found < _MAX_NS:
        raise RefusedError(
            Reason.TIME, f"{mapping.t0}: expected {_TIMES[mapping.time]}, found {_show(value)}"
        )
    return found


def _rfc3339_ns(text: str) -> int | None:
    match = _RFC3339.fullmatch(text)
    if match is None:
        return None
    *date, fraction, _, sign, hours, minutes = match.groups()
    try:
        offset = timedelta()
        if sign is not None:
            offset = timedelta(hours=int(hours), minutes=int(minutes)) * (-1 if sign == "-" else 1)
        whole = datetime(*map(int, date), tzinfo=timezone(offset))  # type: ignore[arg-type,misc]
    except ValueError:
        return None
    seconds = (whole - _EPOCH) // timedelta(seconds=1)
    return seconds * 1_000_000_000 + int((fraction or "0").ljust(9, "0"))


_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)  # noqa: UP017


def _sequence(document: dict[str, Any], path: str) -> int | None:
    value = _find(document, path)
    if value is None:
        return None
    if type(value) is not int or not 0 <= value <= _MAX_SEQUENCE:
        raise RefusedError(
            Reason.SEQUENCE, f"{path}: expected an integer from 0 to 2^53, found {_show(value)}"
        )
    return value


def _contact(document: dict[str, Any], path: str) -> bool | None:
    value = _find(document, path)
    if value is None or isinstance(value, bool):
        return value
    raise RefusedError(Reason.FIELDS, f"{path}: expected true or false, found {_show(value)}")


def _battery(document: dict[str, Any], path: str) -> int | None:
    value = _find(document, path)
    if value is None:
        return None
    percent = _number(value)
    if percent is None or not 0 <= percent <= 100:
        raise RefusedError(Reason.FIELDS, f"{path}: expected 0 to 100, found {_show(value)}")
    return round(percent)


def _show(value: object) -> str:
    """A value for people: what it is, and no more of it than a line holds."""
    match value:
        case str():
            shown = ascii(value[:40]) + ("…" if len(value) > 40 else "")
        case None | bool():
            shown = json.dumps(value)
        case int():
            shown = str(value) if abs(value) < 10**20 else "a number of more than 20 digits"
        case float():
            shown = str(value)
        case []:
            shown = "an empty list"
        case list() | dict() | bytes():
            shown = {list: "a list", dict: "a map", bytes: "a byte string"}[type(value)]
        case _:
            shown = "something else"
    return shown
