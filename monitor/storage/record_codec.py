"""Records to bytes and back, readable by any later version of the program.

A group of records is a CBOR map: ``records``, and what the spool says about the group. A dataclass
is a map of its fields, with its name under the empty key, and so are enumerations, arrays and
dictionaries; a list is read as a tuple. Nothing depends on where a class lives, nor on the order of
its fields: what another version added is left out, what it removed is no longer asked for.
"""

import dataclasses
import typing
from collections.abc import Iterable, Mapping
from enum import Enum
from functools import cache
from typing import Any

import cbor2
import numpy as np
import structlog

from monitor import metrics
from monitor.storage.records import Record

_log = structlog.get_logger(__name__)

# No field is called so.
_KIND = ""
_ARRAY, _DICT = "array", "dict"

# What lives in the process alone: whom to tell that a chunk is durable.
_NOT_KEPT = frozenset({"acknowledge"})


class UnreadableError(ValueError):
    """Bytes that are no group of records."""


def encode_group(records: Iterable[Record], about: Mapping[str, Any] | None = None) -> bytes:
    """Turn records that are stored as one into bytes.

    Args:
        records: any number.
        about: CBOR values that ``decode_group`` gives back, with any key but ``records``.

    Raises:
        TypeError: a record holds what cannot be kept.
    """
    plain = [_plain(record) for record in records]
    try:
        return cbor2.dumps({**(about or {}), "records": plain})
    except cbor2.CBOREncodeError as error:
        raise TypeError(f"a record that cannot be kept: {error}") from error


def decode_group(payload: bytes) -> tuple[tuple[Record, ...], dict[str, Any]]:
    """Read what ``encode_group`` wrote, perhaps by another version of the program.

    A record or field that this version does not know is left out, counted and logged.

    Returns:
        The records, and what was said about the group.

    Raises:
        UnreadableError: it is no group of records.
    """
    try:
        about = cbor2.loads(payload)
        found = about.pop("records")
        count = len(found)
    except Exception as error:
        raise UnreadableError(f"no group of records: {error}") from error
    records: list[Record] = []
    for i in range(count):
        kind = found[i].get(_KIND) if isinstance(found[i], dict) else type(found[i]).__name__
        try:
            record = _value(found[i])
            if type(record).__name__ not in _record_names():
                raise UnreadableError("not a record")  # noqa: TRY301 - all are told alike
        except Exception as error:  # noqa: BLE001 - whatever another version wrote
            metrics.SPOOL_UNKNOWN.inc()
            _log.error("spooled_record_unknown", kind=str(kind), error=str(error))
        else:
            records.append(record)
    return tuple(records), about


def _plain(value: Any) -> Any:
    """The value in terms of CBOR."""
    if isinstance(value, Enum):
        return {_KIND: type(value).__name__, "value": value.value}
    if dataclasses.is_dataclass(value):
        fields = {
            field.name: _plain(getattr(value, field.name))
            for field in dataclasses.fields(value)
            if field.name not in _NOT_KEPT
        }
        return {_KIND: type(value).__name__, **fields}
    plain = value
    match value:
        case np.ndarray():
            if value.dtype.hasobject:
                raise TypeError(f"an array of {value.dtype}")
            shape = list(value.shape)
            plain = {_KIND: _ARRAY, "dtype": value.dtype.str, "shape": shape, "of": value.tobytes()}
        case np.generic():
            plain = value.item()
        case dict():
            # JSON inside, and left as it is.
            plain = {_KIND: _DICT, "of": value}
        case tuple() | list():
            plain = [_plain(item) for item in value]
    return plain


def _value(plain: Any) -> Any:
    """What ``_plain`` was given.

    Raises:
        Exception: any, where it is nothing that this version can make.
    """
    if isinstance(plain, list | tuple):
        return tuple(_value(item) for item in plain)
    if not isinstance(plain, dict):
        return plain
    match kind := plain[_KIND]:
        case "array":
            flat = np.frombuffer(plain["of"], np.dtype(plain["dtype"]))
            return flat.reshape(plain["shape"])
        case "dict":
            return dict(plain["of"])
        case _:
            known = _kinds()[kind]
    if issubclass(known, Enum):
        return known(plain["value"])
    names = {field.name for field in dataclasses.fields(known)}
    fields = {name: value for name, value in plain.items() if name != _KIND}
    if unknown := fields.keys() - names:
        metrics.SPOOL_UNKNOWN.inc()
        _log.warning("spooled_fields_unknown", kind=kind, fields=sorted(map(str, unknown)))
    return known(**{name: _value(value) for name, value in fields.items() if name in names})


@cache
def _record_names() -> frozenset[str]:
    return frozenset(kind.__name__ for kind in typing.get_args(Record))


@cache
def _kinds() -> dict[str, type[Any]]:
    """Every dataclass and enumeration that a record consists of, by name."""
    kinds: dict[str, type[Any]] = {}
    waiting: list[Any] = list(typing.get_args(Record))
    while waiting:
        kind = waiting.pop()
        waiting += typing.get_args(kind)
        if not isinstance(kind, type) or kinds.get(kind.__name__) is kind:
            continue
        if dataclasses.is_dataclass(kind):
            waiting += typing.get_type_hints(kind).values()
        elif not issubclass(kind, Enum):
            continue
        assert kind.__name__ not in kinds, f"two kinds called {kind.__name__}"
        kinds[kind.__name__] = kind
    return kinds
