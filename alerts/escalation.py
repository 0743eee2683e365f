"""Who is told of an alarm, when, and how often: the plan of one patient."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Self

from alerts.conditions import Alarm, Priority, State
from alerts.quiet import QuietHours
from alerts.rhythm import is_lethal

# Until somebody answers. A high priority alarm asks for action now; five minutes is what another
# look at a telephone takes. Medium asks for a look soon.
HIGH_REPEAT_S = 300.0
MEDIUM_REPEAT_S = 1800.0

# More often is no reminder but a reason to switch the telephone off.
MIN_REPEAT_S = 60.0

# Of a heart that pumps no blood: each minute without chest compressions costs 7 to 10 % of the
# chance to live (Larsen et al., Annals of Emergency Medicine 1993). Who has not answered within
# half a minute sleeps on, and the next one on the ladder is not to wait for longer than a minute.
LETHAL_REPEAT_S = 30.0
MIN_LETHAL_REPEAT_S = 15.0
LETHAL_STEP_S = 60.0

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
        ValueError: if the steps are not in the order of their times, or ``repeat_s`` is under
            ``least_repeat_s``.
    """

    least_repeat_s: ClassVar[float] = MIN_REPEAT_S

    steps: tuple[Step, ...] = ()
    repeat_s: float | None = None
    latching: bool = False

    def __post_init__(self) -> None:
        times = [step.after_s for step in self.steps]
        if times != sorted(times):
            raise ValueError("steps: must be in the order of after_s")
        if self.repeat_s is not None and not self.least_repeat_s <= self.repeat_s < math.inf:
            raise ValueError(
                f"repeat_s: must be {self.least_repeat_s:g} seconds or more, not {self.repeat_s}"
            )


@dataclass(frozen=True, slots=True)
class LethalLadder(Ladder):
    """Who is told of lethal rhythms: somebody at once, and again and again until one answers.

    Attributes:
        repeat_s: as ``Ladder``, and never None.

    Raises:
        ValueError: if the first step is not at once, it does not repeat or not latch, or as
            ``Ladder``.
    """

    least_repeat_s: ClassVar[float] = MIN_LETHAL_REPEAT_S

    repeat_s: float | None = LETHAL_REPEAT_S
    latching: bool = True

    def __post_init__(self) -> None:
        # Not super(): a dataclass with slots is another class than the one super() would know.
        Ladder.__post_init__(self)
        if self.steps and self.steps[0].after_s > 0:
            raise ValueError("steps: the first must be at once")
        if self.repeat_s is None or not self.latching:
            raise ValueError("lethal rhythms are repeated and latch")

    @classmethod
    def after(cls, steps: Sequence[Step]) -> Self:
        """The ladder of other alarms' steps: the first at once, a minute at most between two."""
        quick: list[Step] = []
        at_s = 0.0
        for before, step in zip((*steps[:1], *steps), steps, strict=False):
            at_s += min(step.after_s - before.after_s, LETHAL_STEP_S)
            quick.append(Step(at_s, step.contacts))
        return cls(tuple(quick))


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Who is told of one patient's alarms, when, and how often.

    Attributes:
        high: for high priority.
        lethal: for lethal rhythms, which are of high priority; None for the same people as
            ``high``, sooner (``LethalLadder.after``).
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
    lethal: LethalLadder | None = None
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
        lethal = self._lethal.steps
        steps = (*lethal, *self.high.steps, *self.medium.steps, *self.low.steps)
        return frozenset(contact for step in steps for contact in step.contacts)

    @property
    def _lethal(self) -> LethalLadder:
        return LethalLadder.after(self.high.steps) if self.lethal is None else self.lethal

    def ladder_of(self, alarm: Alarm) -> Ladder:
        """The ladder for an alarm: that of its priority, but for lethal rhythms."""
        return self._lethal if is_lethal(alarm.condition) else self.ladder(alarm.priority)

    def ladder(self, priority: Priority) -> Ladder:
        """The ladder for alarms of one priority."""
        by_priority = {
            Priority.HIGH: self.high,
            Priority.MEDIUM: self.medium,
            Priority.LOW: self.low,
        }
        return by_priority[priority]

    def repeat_s(self, alarm: Alarm) -> float | None:
        """How long until who was told of an alarm is reminded, in seconds; None for never.

        A lethal rhythm that is over is reminded of as any alarm of high priority: what is over must
        not use up what a messaging service lets through in a day.
        """
        if is_lethal(alarm.condition) and alarm.state is State.ENDED:
            return self.high.repeat_s or self._lethal.repeat_s
        return self.ladder_of(alarm).repeat_s
