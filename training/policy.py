"""Which classes become alarms by default, and from which probability."""

from dataclasses import dataclass

import numpy as np
import structlog
from numpy.typing import NDArray

from models.bundle import AlarmRule
from training.calibrate import at_precision

# A precision that was seen in fewer positive records is a guess, and so would be the alarm.
_FEWEST_POSITIVES = 20
_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class _Wanted:
    """``precision`` of one window, which a class has to reach to alarm at all, and k of n.

    ``least``: no probability below this is taken for it, whatever the validation records say.
    """

    priority: str
    precision: float
    k: int
    n: int
    least: float = 0.0


# The wanted precision is that of one window; k of n make it far better. For AF all are chosen in
# docs/alarm-figures.md: a lower threshold alarms in sinus rhythm, a higher one alarms late, and
# five of seven take a higher one that alarms later on records held out. The few positive records of
# the validation set leave the threshold of a precision uncertain by a tenth; a calibrated
# probability means the same in both bundles, hence the least.
# Only what comes and goes and somebody can act on: a bundle branch block is there for life, and an
# alarm that never ends is an alarm nobody hears. With a 5 s hop 6 of 8 windows is 45 s of heart.
_WANTED = {
    "AF": _Wanted("medium", 0.90, 6, 8, least=0.70),
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

    Of fewer than 20 positive records none is made.

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
            if (positives := int(labels[rows, c].sum())) < _FEWEST_POSITIVES:
                _log.warning("no alarm: too few positive records", cls=name, records=positives)
                continue
            threshold = at_precision(probabilities[rows, c], labels[rows, c], wanted.precision)
            if threshold is None:
                _log.warning("no alarm: precision not reached", cls=name, wanted=wanted.precision)
                continue
            threshold = max(threshold, wanted.least)
            rules[name] = AlarmRule(
                priority=wanted.priority,
                threshold=round(threshold, 4),
                off_threshold=round(threshold / 2, 4),
                k=wanted.k,
                n=wanted.n,
            )
    return rules
