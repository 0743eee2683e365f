"""What somebody says on ``leadone/v1/{patient}/alarm/ack``."""

import json
import re
from dataclasses import dataclass
from typing import Final

LONGEST: Final = 1024
"""Bytes of the longest payload that is looked at."""

UNNAMED: Final = "MQTT"
"""Who acknowledges where the payload does not say."""

_ID = re.compile(r"[A-Za-z0-9-]{1,64}")
_LONGEST_NAME = 64
_EXPECTED = 'expected nothing, the id of an alarm, or {"id": "...", "by": "..."}'


class RefusedError(ValueError):
    """No acknowledgement: one line that says why."""


@dataclass(frozen=True, slots=True)
class Acknowledgement:
    """Somebody has seen to an alarm.

    Attributes:
        alarm: its id; None for all of the patient's.
        by: who.
    """

    alarm: str | None
    by: str


def decode(payload: bytes) -> Acknowledgement:
    """Read a payload: empty, the id of an alarm, or JSON with the optional keys ``id`` and ``by``.

    Raises:
        RefusedError: if it is none of these.
    """
    if len(payload) > LONGEST:
        raise RefusedError(f"{len(payload)} bytes: {_EXPECTED}")
    try:
        text = payload.decode("utf-8").strip()
        said = json.loads(text) if text.startswith("{") else {"id": text or None}
    except (ValueError, RecursionError):
        raise RefusedError(f"neither an id nor JSON: {_EXPECTED}") from None
    alarm, by = said.get("id"), said.get("by")
    if alarm is not None and not (isinstance(alarm, str) and _ID.fullmatch(alarm)):
        raise RefusedError(f"id is not that of an alarm: {_EXPECTED}")
    if by is None:
        by = UNNAMED
    # What is printable cannot forge a line of a log.
    elif not (isinstance(by, str) and by.isprintable() and 0 < len(by.strip()) <= _LONGEST_NAME):
        raise RefusedError(f"by is not a name of 1 to {_LONGEST_NAME} characters: {_EXPECTED}")
    return Acknowledgement(alarm, by.strip())
