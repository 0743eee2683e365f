"""Is a window fit to be read as a heart, and if not, why."""

from dataclasses import dataclass
from enum import StrEnum


class Quality(StrEnum):
    """The grade of a window: only a good one is classified."""

    GOOD = "good"
    BAD = "bad"


class Reason(StrEnum):
    """Why a window is graded bad."""

    FLAT = "flat"
    SATURATED = "saturated"
    NOISY = "noisy"
    CONTACT = "contact"
    GAP = "gap"


@dataclass(frozen=True, slots=True)
class Grade:
    """A quality with its reasons (none when good)."""

    quality: Quality
    reasons: tuple[Reason, ...] = ()

    @property
    def good(self) -> bool:
        """Whether the window may be classified."""
        return self.quality is Quality.GOOD
