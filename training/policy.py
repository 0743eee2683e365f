"""Which classes become alarms by default, and from which probability."""

from dataclasses import dataclass

import numpy as np
import structlog
from numpy.typing import NDArray

from models.bundle import AlarmRule
from training.calibrate import at_precision

_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class _Wanted:
    priority: str
    precision: float
    k: int
    n: int


# The wanted precision is that of one window; k of n make it far better. For AF both are chosen in
# docs/alarm-figures.md: a lower precision alarms in sinus rhythm, a higher one alarms late, and six
# of eight at a lower one alarm later than five of seven at this. That is for the tiny student; base
# still has six of eight at 0.87, and would need 0.94 at five of seven (bench.alarms --bundle).
# Only what comes and goes and somebody can act on: a bundle branch block is there for life, and an
# alarm that never ends is an alarm nobody hears. With a 5 s hop 5 of 7 windows is 40 s of heart.
_WANTED = {
    "AF": _Wanted("medium", 0.90, 5, 7),
    "AFL": _Wanted("medium", 0.80, 6, 8),
    "BIGU": _Wanted("low", 0.80, 6, 8),
    "STD": _Wanted("medium", 0.80, 10, 12),
}


def alarm_rules(
    probabilities: NDArray[np.float32],
    labels: NDArray[np.float32],
    known: NDArray[np.bool_],
    classes: tuple[str, ...],
) -> dict[str, AlarmRule]:
    """Default rules for the classes that reach their wanted precision per window.

    Args:
        probabilities: calibrated, [records, classes], on validation records.
        labels: [records, classes], 0 or 1.
        known: [records, classes], whether the label is known.
        classes: abbreviations in that order.
    """
    rules = {}
    for name, wanted in _WANTED.items():
        if name in classes:
            c = classes.index(name)
            rows = known[:, c]
            threshold = at_precision(probabilities[rows, c], labels[rows, c], wanted.precision)
            if threshold is None:
                _log.warning("no alarm: precision not reached", cls=name, wanted=wanted.precision)
                continue
            rules[name] = AlarmRule(
                priority=wanted.priority,
                threshold=round(threshold, 4),
                off_threshold=round(threshold / 2, 4),
                k=wanted.k,
                n=wanted.n,
            )
    return rules
