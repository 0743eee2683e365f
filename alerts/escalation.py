"""Who is told of an alarm, when, and how often: the plan of one patient."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Self

from alerts.conditions import Priority
from alerts.quiet import QuietHours

# Until somebody answers. A high priority alarm asks for action now; five minutes is what another
# look at a telephone takes. Medium asks for a look soon.
HIGH_REPEAT_S = 300.0
MEDIUM_REPEAT_S = 1800.0

# More often is no reminder but a reason to switch the telephone off.
MIN_REPEAT_S = 60.0

# What comes back within half an hour is the same trouble: fibrillation that comes and goes all
# night is one thread of messages, with a new message each half hour at most.
BOUT_S = 1800.0
GROUP_S = 1800.0


@dataclass(frozen=True, slots=True)
class Step:
    """One rung of a ladder.

    Attributes:
        after_s: how long after the alarm, if nobody has answered by then, in seconds.
        contacts: who is told then.

    Raises:
        ValueError: if ``after_s`` is not a time from 0 on, or there is nobody to tell.
    """

    after_s: float
    contacts: tuple[str, ...]

    def __post_init__(self) -> None:
        if not 0 <= self.after_s < math.inf:
            raise ValueError(f"after_s: must be 0 seconds or more, not {self.after_s}")
        if not self.contacts:
            raise ValueError("contacts: must name at least one")


@dataclass(frozen=True, slots=True)
class Ladder:
    """Who is told of the alarms of one priority.

    Attributes:
        steps: one after the other; without any, alarms are recorded and nobody is told.
        repeat_s: how long until those who were told are reminded, in seconds; None for never.
        latching: whether an alarm that is over stays until somebody has answered it.

    Raises:
        ValueError: if the steps are not in the order of their times, or ``repeat_s`` is under 60.
    """

    steps: tuple[Step, ...] = ()
    repeat_s: float | None = None
    latching: bool = False

    def __post_init__(self) -> None:
        times = [step.after_s for step in self.steps]
        if times != sorted(times):
            raise ValueError("steps: must be in the order of after_s")
        if self.repeat_s is not None and not MIN_REPEAT_S <= self.repeat_s < math.inf:
            raise ValueError(
                f"repeat_s: must be {MIN_REPEAT_S:g} seconds or more, not {self.repeat_s}"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Who is told of one patient's alarms, when, and how often.

    Attributes:
        high: for high priority.
        medium: for medium priority.
        low: for low priority.
        quiet: when nobody is told of low priority; None for never. Medium and high do not heed it.
        bout_s: a condition that comes back within this of its end belongs to the same bout, in
            seconds.
        group_s: within a bout of medium or low priority people are told at most once in this time
            that the condition is back, in seconds.

    Raises:
        ValueError: if ``bout_s`` or ``group_s`` is not a time from 0 on.
    """

    high: Ladder = field(default_factory=lambda: Ladder(repeat_s=HIGH_REPEAT_S, latching=True))
    medium: Ladder = field(default_factory=lambda: Ladder(repeat_s=MEDIUM_REPEAT_S))
    low: Ladder = field(default_factory=Ladder)
    quiet: QuietHours | None = None
    bout_s: float = BOUT_S
    group_s: float = GROUP_S

    def __post_init__(self) -> None:
        for key, seconds in (("bout_s", self.bout_s), ("group_s", self.group_s)):
            if not 0 <= seconds < math.inf:
                raise ValueError(f"{key}: must be 0 seconds or more, not {seconds}")

    @classmethod
    def telling(cls, contacts: Sequence[str], quiet: QuietHours | None = None) -> Self:
        """The plan of a patient for whom no ladder was written: everybody is told at once."""
        steps = (Step(0, tuple(contacts)),) if contacts else ()
        return cls(
            high=Ladder(steps, HIGH_REPEAT_S, latching=True),
            medium=Ladder(steps, MEDIUM_REPEAT_S),
            low=Ladder(steps),
            quiet=quiet,
        )

    @property
    def contacts(self) -> frozenset[str]:
        """Everybody who is told of anything."""
        steps = (*self.high.steps, *self.medium.steps, *self.low.steps)
        return frozenset(contact for step in steps for contact in step.contacts)

    def ladder(self, priority: Priority) -> Ladder:
        """The ladder for alarms of one priority."""
        by_priority = {
            Priority.HIGH: self.high,
            Priority.MEDIUM: self.medium,
            Priority.LOW: self.low,
        }
        return by_priority[priority]
