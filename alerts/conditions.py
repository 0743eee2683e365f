"""What the alarm engine takes in and gives out.

An alarm has a *condition*: something true of a patient, with a beginning and an end. How people are
told of it (the *signal*) is kept apart from it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum


class Priority(StrEnum):
    """How soon somebody must act; after the three levels of IEC 60601-1-8."""

    HIGH = "high"
    MEDIUM = "medium"
    LOW = "low"


class State(StrEnum):
    """The state a change leads to."""

    ACTIVE = "active"
    ENDED = "ended"


@dataclass(frozen=True, slots=True)
class Observation:
    """One window of one patient, as the engine sees it.

    Attributes:
        patient: whose heart.
        start_ns: UTC time of the window's start, in nanoseconds since 1970.
        end_ns: UTC time of its end.
        good: whether it was fit to be read; a bad window is no evidence for or against anything.
        probabilities: calibrated probability by class abbreviation; empty in a bad window.
        heart_rate: beats per minute, None where unknown.
        longest_rr_s: longest time without a beat, in seconds, None where unknown.
    """

    patient: str
    start_ns: int
    end_ns: int
    good: bool
    probabilities: Mapping[str, float] = field(default_factory=dict)
    heart_rate: float | None = None
    longest_rr_s: float | None = None


@dataclass(frozen=True, slots=True)
class Alarm:
    """A condition that is or was true of a patient.

    Attributes:
        id: unique for ever (UUID4 as text).
        patient: whose heart.
        condition: ``class:AF``, ``rr:AF``, ``rate:high``, ``rate:low``, ``pause``; ``vf``, ``vt``,
            ``asystole`` or ``unseen`` (``alerts.lethal``); or a technical one: ``device:``,
            ``electrodes:``, ``signal:`` or ``battery:`` and the device (``alerts.technical``), or
            one of ``alerts.gateway``.
        priority: how soon somebody must act.
        started_ns: UTC start of the first window that speaks for it, or onset of the rhythm.
        raised_ns: UTC end of the window, or of the signal of the verdict, that raised it.
        ended_ns: UTC end of what ended it, and never before ``raised_ns``, even if the
            clock was set back; None while it is active.
    """

    id: str
    patient: str
    condition: str
    priority: Priority
    started_ns: int
    raised_ns: int
    ended_ns: int | None = None

    @property
    def state(self) -> State:
        """Active until it has ended."""
        return State.ACTIVE if self.ended_ns is None else State.ENDED


@dataclass(frozen=True, slots=True)
class Change:
    """One change of state of an alarm, with what led to it.

    Attributes:
        alarm: the alarm as it is after the change.
        at_ns: UTC end of the deciding window.
        state: the state it changed to.
        reason: one line for people, e.g. ``AF: 6 of the last 8 good windows at or over 0.62``.
    """

    alarm: Alarm
    at_ns: int
    state: State
    reason: str
