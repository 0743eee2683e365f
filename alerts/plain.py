"""Conditions in plain words, and what to do about them.

It gives no medical advice beyond looking at the person and calling for help.
"""

from collections.abc import Mapping
from typing import NamedTuple

from alerts.conditions import Alarm
from alerts.rhythm import LETHAL


class Plain(NamedTuple):
    """A condition in plain words; ``{}`` is what stands behind the colon."""

    what: str
    do: str


LOOK = "Look at the person. If they are unwell, call the emergency number."
LOOK_NOW = (
    "Go and look at the person now. If they are unwell or do not answer, call the emergency number."
)
_SKIN = "Wet the electrodes, tighten the strap and see that it sits on the skin."
_UNWATCHED = "Until then nobody watches this heart."
_UNWATCHED_ALL = "Until then hearts may not be watched."

# Lines of a few words: who reads them was asleep, and is alone with somebody who may be dying.
LETHAL_LINES = (
    "Speak to them loudly.\n"
    "No answer and no normal breathing: call {number}, start chest compressions, "
    "fetch a defibrillator.\n"
    "Awake and talking: look at the electrodes."
)

_BY_CONDITION = {
    "vf": Plain("cardiac arrest? ventricular fibrillation", LETHAL_LINES),
    "vt": Plain("dangerous rhythm: ventricular tachycardia", LETHAL_LINES),
    "asystole": Plain("cardiac arrest? no heartbeat", LETHAL_LINES),
    "unseen": Plain("heart cannot be seen", f"See whether they are well. {_SKIN} {_UNWATCHED}"),
    "rate:high": Plain("heart beats too fast", LOOK),
    "rate:low": Plain("heart beats too slowly", LOOK),
    "pause": Plain("heart paused", LOOK),
    "clock": Plain(
        "a clock is wrong",
        "Set the gateway's clock, or see that it reaches the internet; or set the device's. "
        "Times may be wrong so far.",
    ),
    "behind": Plain(
        "watching is falling behind",
        f"See what else runs on the gateway, or restart it. {_UNWATCHED_ALL}",
    ),
    "stalled": Plain(
        "part of the watch stands still",
        f"If this is not over in five minutes, restart the gateway. {_UNWATCHED_ALL}",
    ),
    "database": Plain(
        "trouble with the database",
        "See that the gateway's disk has room and works, and its database runs; leadone doctor "
        "says more. Hearts are watched and alarms told all the same.",
    ),
    "disk": Plain(
        "disk is nearly full",
        "Make room on the gateway's disk. When it is full, nothing more is stored.",
    ),
    "channel:dead-man": Plain(
        "watchdog outside is not reached",
        "See that the gateway reaches the internet. Whoever misses it outside may ask after it.",
    ),
    "rhythm-model": Plain(
        "the watch for cardiac arrest does not work",
        "Run leadone doctor, then install leadone anew. Until then fibrillation raises no alarm; "
        "rate and pauses are watched.",
    ),
    "model": Plain(
        "rhythms are not being recognised",
        "The model cannot be used: run leadone doctor. Only lethal rhythms, rate and pauses are "
        "watched.",
    ),
}

_BY_KIND = {
    "class": Plain("looks like {}", LOOK),
    "rr": Plain("irregular pulse, perhaps {}", LOOK),
    "device": Plain(
        "{} is silent",
        f"See that it is worn, charged and near the gateway. {_UNWATCHED}",
    ),
    "electrodes": Plain("{} is off the skin", f"{_SKIN} {_UNWATCHED}"),
    "signal": Plain("signal of {} cannot be read", f"{_SKIN} {_UNWATCHED}"),
    "battery": Plain("battery of {} is low", "Change or charge it today."),
    "channel": Plain(
        "messages by {} do not arrive",
        "See that it is set up as it should be: leadone alarms test. Until then, look elsewhere.",
    ),
}

HEART = ("class", "rr", "rate", "pause", "unseen", *LETHAL)
SURE = {"rr": "less than usual: from the pulse alone, without the shape of the waves"}


def plain_of(alarm: Alarm, names: Mapping[str, str]) -> tuple[Plain, str]:
    """The words for a condition, and what is to stand in them."""
    if alarm.condition in _BY_CONDITION:
        return _BY_CONDITION[alarm.condition], ""
    kind, _, subject = alarm.condition.partition(":")
    if kind not in _BY_KIND:
        # A newer version may have left it in the database.
        return Plain("{}", "See the dashboard for what this is."), one_line(alarm.condition)
    # A device may well be called AF.
    named = names.get(subject, subject) if kind in ("class", "rr") else subject
    return _BY_KIND[kind], one_line(named)


def one_line(text: str) -> str:
    """The text on one line, without what steers a terminal."""
    printable = "".join(c if c.isprintable() else " " for c in text)
    return " ".join(printable.split())
