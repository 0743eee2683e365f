"""The topics that the daemon publishes to; all but the acknowledgement are retained."""

import re
from typing import Final

STATUS: Final = "leadone/v1/status"
"""``online``, or ``offline`` as the last will."""

ANY_STATE: Final = "leadone/v1/+/state"
ANY_ALARM: Final = "leadone/v1/+/alarm"
ANY_ACKNOWLEDGEMENT: Final = "leadone/v1/+/alarm/ack"

_PATIENT = "([A-Za-z0-9_-]{1,64})"
_OURS = re.compile(f"leadone/v1/{_PATIENT}/(state|alarm|alarm/ack)")
_DISCOVERED = re.compile(f"device/leadone_{_PATIENT}/config")


def state(patient: str) -> str:
    """Where the state of a patient is."""
    return f"leadone/v1/{patient}/state"


def alarm(patient: str) -> str:
    """Where the alarms of a patient are."""
    return f"leadone/v1/{patient}/alarm"


def acknowledgement(patient: str) -> str:
    """Where alarms of a patient are acknowledged."""
    return f"leadone/v1/{patient}/alarm/ack"


def discovery(prefix: str, patient: str) -> str:
    """Where Home Assistant looks for what it can know of a patient."""
    return f"{prefix}/device/leadone_{patient}/config"


def parse(topic: str) -> tuple[str, str] | None:
    """The patient and the rest of a topic below ``leadone/v1``; None if it is no such topic."""
    found = _OURS.fullmatch(topic)
    return None if found is None else (found[1], found[2])


def discovered(prefix: str, topic: str) -> str | None:
    """The patient whose discovery a topic is; None if it is none of ours."""
    if not topic.startswith(f"{prefix}/"):
        return None
    found = _DISCOVERED.fullmatch(topic.removeprefix(f"{prefix}/"))
    return None if found is None else found[1]
