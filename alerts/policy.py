"""When a patient's windows add up to an alarm: the rules, and the numbers they start from."""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, Self

from alerts.conditions import Observation, Priority
from alerts.priorities import PRIORITIES, priority_of

# The limits at which the National Early Warning Score 2 (Royal College of Physicians, 2017) gives a
# heart rate its highest score: over 130 and at or under 40 per minute. It asks for an urgent look,
# not for the crash team, and a rate alone is often stairs or deep sleep; hence medium priority.
HIGH_RATE_BPM = 130.0
LOW_RATE_BPM = 40.0

# How far the rate must come back before the alarm ends, so that a heart at the limit raises one
# alarm and not one a minute.
HIGH_RATE_MARGIN_BPM = 10.0
LOW_RATE_MARGIN_BPM = 5.0

# A fast rate must last about three quarters of a minute (8 windows of 10 s, one every 5 s), which a
# flight of stairs does not. Too slow a rate has no such innocent cause while awake, but deep sleep
# and single blocked beats touch the limit: half a minute (5 windows of 10 s, one every 5 s).
HIGH_RATE_K, HIGH_RATE_N = 6, 8
LOW_RATE_K, LOW_RATE_N = 5, 6

# Bedside monitors commonly call four seconds without a beat asystole and give it their highest
# priority. Cardiology counts pauses from 3 s on, but those are frequent in healthy sleep and seldom
# treated, and at 40 beats per minute one R peak that the detector missed looks like 3 s; 4 s takes
# two. Whoever is watched for pauses sets 3 s for that patient.
PAUSE_S = 4.0

# Half a minute of good windows without a pause ends the alarm: more than the windows' overlap, so
# that what two windows see of one pause is one alarm, and short enough to tell two spells apart.
PAUSE_CLEAR_N = 6

# RR intervals without a waveform cannot tell fibrillation from many ectopic beats. What is to be
# told of them lasts three minutes, in five windows of six, and is of low priority. (An ESC/EHRA
# diagnosis takes 30 s, of an ECG.)
IRREGULAR_PULSE_S = 180.0
IRREGULAR_PULSE_SHARE = 5 / 6

# A bundle that asks for more evidence than five minutes of windows is mistaken.
MAX_N = 60


class PolicyError(ValueError):
    """The class rules of a bundle are not what they should be."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule(ABC):
    """Something that must be seen in k of the last n good windows to raise an alarm.

    Attributes:
        priority: how soon somebody must act once it is raised.
        k: how many of the last ``n`` good windows must speak for it to raise it.
        n: how many good windows are looked at.
        clear_k: how many of the last ``n`` good windows must speak against it to end it. More than
            ``n - k``, so that the same windows can never both raise and end it: what has just ended
            cannot rise again, nor what has just risen end, on old evidence.

    Raises:
        ValueError: if not 1 ≤ k ≤ n ≤ 60 or not n - k < clear_k ≤ n.
    """

    priority: Priority
    k: int
    n: int
    clear_k: int

    def __post_init__(self) -> None:
        if not 1 <= self.n <= MAX_N:
            raise ValueError(f"n: must be from 1 to {MAX_N}, not {self.n}")
        if not 1 <= self.k <= self.n:
            raise ValueError(f"k: must be from 1 to n = {self.n}, not {self.k}")
        if not self.n - self.k < self.clear_k <= self.n:
            raise ValueError(
                f"clear_k: must be from n - k + 1 = {self.n - self.k + 1} to n = {self.n}, "
                f"not {self.clear_k}"
            )

    @property
    @abstractmethod
    def condition(self) -> str:
        """The condition this rule raises, as in ``Alarm.condition``."""

    @abstractmethod
    def measure(self, observation: Observation) -> float | None:
        """What this rule looks at in a good window; None where the window does not tell."""

    @abstractmethod
    def speaks_for(self, value: float) -> bool:
        """Whether a measured value is evidence for the condition."""

    @abstractmethod
    def speaks_against(self, value: float) -> bool:
        """Whether a measured value is evidence that the condition is over."""

    @abstractmethod
    def why_raised(self, count: int, of: int, value: float) -> str:
        """One line for people: ``count`` of the last ``of`` windows, ``value`` in the last one."""

    @abstractmethod
    def why_ended(self, count: int, of: int) -> str:
        """One line for people: ``count`` of the last ``of`` windows spoke against it."""


def default_clear_k(k: int, n: int) -> int:
    """As many windows to end a condition as to raise it, and never fewer than ``Rule`` allows."""
    return max(k, n - k + 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassRule(Rule):
    """A class of the model whose calibrated probability is high in k of n windows.

    Attributes:
        name: the class's abbreviation, e.g. ``AF``.
        threshold: probability at or over which a window speaks for the class.
        off_threshold: probability under which a window speaks against it.

    Raises:
        ValueError: if not 0 < off_threshold ≤ threshold < 1, or as ``Rule``.
    """

    name: str
    threshold: float
    off_threshold: float

    def __post_init__(self) -> None:
        # Not super(): a dataclass with slots is another class than the one super() would know.
        Rule.__post_init__(self)
        if not self.name:
            raise ValueError("name: must not be empty")
        if not 0 < self.threshold < 1:
            raise ValueError(f"threshold: must be between 0 and 1, not {self.threshold}")
        if not 0 < self.off_threshold <= self.threshold:
            raise ValueError(
                f"off_threshold: must be over 0 and at most threshold = {self.threshold}, "
                f"not {self.off_threshold}"
            )

    @property
    def condition(self) -> str:
        """``class:`` and the abbreviation."""
        return f"class:{self.name}"

    @property
    def key(self) -> str:
        """By which name the class's probability is found in an observation."""
        return self.name

    def measure(self, observation: Observation) -> float | None:
        """The class's probability."""
        return observation.probabilities.get(self.key)

    def speaks_for(self, value: float) -> bool:
        """At or over the threshold."""
        return value >= self.threshold

    def speaks_against(self, value: float) -> bool:
        """Under the off-threshold."""
        return value < self.off_threshold

    def why_raised(self, count: int, of: int, value: float) -> str:  # noqa: ARG002
        """E.g. ``AF: 6 of the last 8 good windows at or over 0.62``."""
        return f"{self.name}: {count} of the last {of} good windows at or over {self.threshold:.2f}"

    def why_ended(self, count: int, of: int) -> str:
        """E.g. ``AF: 6 of the last 8 good windows under 0.50``."""
        return f"{self.name}: {count} of the last {of} good windows under {self.off_threshold:.2f}"


@dataclass(frozen=True, slots=True, kw_only=True)
class IrregularPulseRule(ClassRule):
    """A class that the RR intervals alone make likely: no waveform was seen, so it is told as less.

    It looks at a probability of its own, ``rr:`` and the class's abbreviation, never at the
    model's, and raises a condition of its own; to be silent about the class is to be silent about
    both.
    """

    @property
    def condition(self) -> str:
        """``rr:`` and the abbreviation."""
        return f"rr:{self.name}"

    @property
    def key(self) -> str:
        """As the condition."""
        return self.condition

    def why_raised(self, count: int, of: int, value: float) -> str:  # noqa: ARG002
        """One line that says how little it rests on.

        E.g. ``irregular pulse, perhaps AF, by RR intervals alone: 30 of the last 36 good windows at
        or over 0.50``.
        """
        return (
            f"irregular pulse, perhaps {self.name}, by RR intervals alone: "
            f"{count} of the last {of} good windows at or over {self.threshold:.2f}"
        )

    def why_ended(self, count: int, of: int) -> str:
        """E.g. ``irregular pulse, by RR intervals: 30 of the last 36 good windows under 0.25``."""
        return (
            f"irregular pulse, by RR intervals: {count} of the last {of} good windows under "
            f"{self.off_threshold:.2f}"
        )


def irregular_pulse_rule(
    name: str, *, threshold: float, off_threshold: float, hop_s: float
) -> IrregularPulseRule:
    """The rule for a class that RR intervals make likely: for three minutes, and of low priority.

    Args:
        name: the class's abbreviation.
        threshold: probability at or over which a window speaks for the class.
        off_threshold: probability under which a window speaks against it.
        hop_s: time from the start of one window to that of the next, in seconds; where it is under
            three seconds, ``MAX_N`` windows are less than three minutes.
    """
    n = min(MAX_N, math.ceil(IRREGULAR_PULSE_S / hop_s))
    k = math.ceil(IRREGULAR_PULSE_SHARE * n)
    return IrregularPulseRule(
        name=name,
        threshold=threshold,
        off_threshold=off_threshold,
        k=k,
        n=n,
        clear_k=default_clear_k(k, n),
        priority=priority_of("rr"),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class RateRule(Rule):
    """A heart rate beyond a limit in k of n windows.

    Attributes:
        side: whether the rate is too ``high`` or too ``low``.
        limit: beats per minute at or beyond which a window speaks for the condition.
        off: beats per minute back from which a window speaks against it: under it for ``high``,
            over it for ``low``.

    Raises:
        ValueError: if a rate is not a positive number, ``off`` lies beyond ``limit``, or as
            ``Rule``.
    """

    side: Literal["high", "low"]
    limit: float
    off: float

    def __post_init__(self) -> None:
        Rule.__post_init__(self)
        for key, rate in (("limit", self.limit), ("off", self.off)):
            if not 0 < rate < math.inf:
                raise ValueError(f"{key}: must be a positive number of beats per minute")
        if self.side == "high" and self.off > self.limit:
            raise ValueError(f"off: must be at most limit = {self.limit:g}, not {self.off:g}")
        if self.side == "low" and self.off < self.limit:
            raise ValueError(f"off: must be at least limit = {self.limit:g}, not {self.off:g}")

    @property
    def condition(self) -> str:
        """``rate:high`` or ``rate:low``."""
        return f"rate:{self.side}"

    def measure(self, observation: Observation) -> float | None:
        """The heart rate."""
        return observation.heart_rate

    def speaks_for(self, value: float) -> bool:
        """At the limit or beyond."""
        return value >= self.limit if self.side == "high" else value <= self.limit

    def speaks_against(self, value: float) -> bool:
        """Well back from the limit."""
        return value < self.off if self.side == "high" else value > self.off

    def why_raised(self, count: int, of: int, value: float) -> str:
        """E.g. ``heart rate: 6 of the last 8 good windows at or over 130 per minute, now 142``."""
        beyond = "over" if self.side == "high" else "under"
        return (
            f"heart rate: {count} of the last {of} good windows at or {beyond} "
            f"{self.limit:g} per minute, now {value:.0f}"
        )

    def why_ended(self, count: int, of: int) -> str:
        """E.g. ``heart rate: 6 of the last 8 good windows under 120 per minute``."""
        back = "under" if self.side == "high" else "over"
        return f"heart rate: {count} of the last {of} good windows {back} {self.off:g} per minute"


def high_rate_rule(limit: float = HIGH_RATE_BPM) -> RateRule:
    """The rule for too fast a heart, with the usual hysteresis under ``limit`` (per minute)."""
    return RateRule(
        side="high",
        limit=limit,
        off=limit - HIGH_RATE_MARGIN_BPM,
        k=HIGH_RATE_K,
        n=HIGH_RATE_N,
        clear_k=default_clear_k(HIGH_RATE_K, HIGH_RATE_N),
        priority=priority_of("rate:high"),
    )


def low_rate_rule(limit: float = LOW_RATE_BPM) -> RateRule:
    """The rule for too slow a heart, with the usual hysteresis over ``limit`` (per minute)."""
    return RateRule(
        side="low",
        limit=limit,
        off=limit + LOW_RATE_MARGIN_BPM,
        k=LOW_RATE_K,
        n=LOW_RATE_N,
        clear_k=default_clear_k(LOW_RATE_K, LOW_RATE_N),
        priority=priority_of("rate:low"),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class PauseRule(Rule):
    """A time without a beat; one good window raises it, ``n`` without it in a row end it.

    Attributes:
        seconds: the shortest pause that counts, in seconds.

    Raises:
        ValueError: if ``seconds`` is not positive, or as ``Rule``.
    """

    priority: Priority = PRIORITIES["pause"]
    k: int = 1
    n: int = PAUSE_CLEAR_N
    clear_k: int = PAUSE_CLEAR_N
    seconds: float = PAUSE_S

    def __post_init__(self) -> None:
        Rule.__post_init__(self)
        if not 0 < self.seconds < math.inf:
            raise ValueError("seconds: must be a positive number")

    @property
    def condition(self) -> str:
        """``pause``."""
        return "pause"

    def measure(self, observation: Observation) -> float | None:
        """The longest time without a beat."""
        return observation.longest_rr_s

    def speaks_for(self, value: float) -> bool:
        """A pause."""
        return value >= self.seconds

    def speaks_against(self, value: float) -> bool:
        """No pause."""
        return value < self.seconds

    def why_raised(self, count: int, of: int, value: float) -> str:  # noqa: ARG002
        """E.g. ``pause: 5.2 s without a beat``."""
        return f"pause: {value:.1f} s without a beat"

    def why_ended(self, count: int, of: int) -> str:  # noqa: ARG002
        """E.g. ``pause: none of 4 s or more in the last 6 good windows``."""
        return f"pause: none of {self.seconds:g} s or more in the last {of} good windows"


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """All that raises an alarm for one patient.

    Attributes:
        classes: one rule for each class that is watched.
        high_rate: the rule for too fast a heart, None to leave it unwatched.
        low_rate: the rule for too slow a heart, None to leave it unwatched.
        pause: the rule for pauses, None to leave them unwatched.
        hop_s: time from the start of one window to the start of the next, in seconds.

    Raises:
        ValueError: if ``hop_s`` is not positive or two rules watch the same condition.
    """

    classes: tuple[ClassRule, ...] = ()
    high_rate: RateRule | None = field(default_factory=high_rate_rule)
    low_rate: RateRule | None = field(default_factory=low_rate_rule)
    pause: PauseRule | None = field(default_factory=PauseRule)
    hop_s: float = 5.0

    def __post_init__(self) -> None:
        if not 0 < self.hop_s < math.inf:
            raise ValueError(f"hop_s: must be a positive number of seconds, not {self.hop_s}")
        seen = set()
        for rule in self.rules:
            if rule.condition in seen:
                raise ValueError(f"{rule.condition}: has two rules")
            seen.add(rule.condition)

    @property
    def rules(self) -> tuple[Rule, ...]:
        """Every rule, in the order in which their changes are reported."""
        others = (self.pause, self.high_rate, self.low_rate)
        return (*(rule for rule in others if rule is not None), *self.classes)

    @classmethod
    def from_mapping(cls, classes: Mapping[str, object], *, hop_s: float = 5.0) -> Self:
        """The default policy with the class rules of a model bundle.

        Args:
            classes: by class abbreviation, a mapping of ``threshold``, ``off_threshold``, ``k``,
                ``n``, ``priority`` (``high``, ``medium``, ``low``) and, if wanted, ``clear_k``
                (otherwise ``default_clear_k``).
            hop_s: time from the start of one window to the next, in seconds.

        Raises:
            PolicyError: one line that names the key at fault, e.g. ``AF.threshold: missing``.
        """
        return cls(
            classes=tuple(_class_rule(name, entry) for name, entry in classes.items()),
            hop_s=hop_s,
        )


_REQUIRED = ("threshold", "off_threshold", "k", "n", "priority")


def _class_rule(name: object, entry: object) -> ClassRule:
    if not isinstance(name, str):
        raise PolicyError(f"{name!r}: a class abbreviation must be text")
    if not isinstance(entry, Mapping):
        raise PolicyError(f"{name}: must be a mapping of {', '.join(_REQUIRED)}")
    for key in entry:
        if key not in (*_REQUIRED, "clear_k"):
            raise PolicyError(
                f"{name}.{key}: unknown key; known are {', '.join(_REQUIRED)}, clear_k"
            )
    for key in _REQUIRED:
        if key not in entry:
            raise PolicyError(f"{name}.{key}: missing")
    try:
        k = _integer(entry, "k")
        n = _integer(entry, "n")
        return ClassRule(
            name=name,
            priority=_priority(entry),
            threshold=_number(entry, "threshold"),
            off_threshold=_number(entry, "off_threshold"),
            k=k,
            n=n,
            clear_k=_integer(entry, "clear_k") if "clear_k" in entry else default_clear_k(k, n),
        )
    except ValueError as error:
        raise PolicyError(f"{name}.{error}") from None


def _number(entry: Mapping[str, object], key: str) -> float:
    value = entry[key]
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise PolicyError(f"{key}: must be a number, not {value!r}")
    return value


def _integer(entry: Mapping[str, object], key: str) -> int:
    value = entry[key]
    if isinstance(value, bool) or not isinstance(value, int):
        raise PolicyError(f"{key}: must be a whole number, not {value!r}")
    return value


def _priority(entry: Mapping[str, object]) -> Priority:
    value = entry["priority"]
    try:
        return Priority(value)  # type: ignore[arg-type]  # it says so itself if it is not text
    except ValueError:
        raise PolicyError(
            f"priority: must be one of {', '.join(Priority)}, not {value!r}"
        ) from None
