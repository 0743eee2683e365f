"""How often an alarm rule is wrong, counted on the windows of records that lack the class.

Windows of one record are anything but independent, so that the rate cannot be had from the share of
false windows: the rule itself is run over each record.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import chi2

from models.bundle import AlarmRule
from training.errors import TrainingError


@dataclass(frozen=True, slots=True)
class FalseAlarms:
    """False alarms of one class.

    Short records estimate it badly, either way: an alarm that would stay on for hours counts once
    in half a minute, and one that needs longer than the record is never seen.

    Attributes:
        records: those long enough that the rule could raise.
        too_short: those with fewer than k windows; in none of the figures.
        hours: monitored in all.
        records_with_alarm: how many of ``records`` raised at least once.
        alarms: how often the rule raised.
        per_hour: alarms per monitored hour; None if nothing was long enough.
        low: lower end of its exact 95 % confidence interval, as if alarms were independent.
        high: upper end.
    """

    records: int
    too_short: int
    hours: float
    records_with_alarm: int
    alarms: int
    per_hour: float | None
    low: float | None
    high: float | None


def false_alarms(
    probabilities: Sequence[NDArray[np.floating]], durations_s: Sequence[float], rule: AlarmRule
) -> FalseAlarms:
    """Run an alarm rule over records without the class.

    Args:
        probabilities: of each record those of its good windows in order, [windows].
        durations_s: of each record, in seconds.
        rule: over its threshold in k of the last n windows it raises. It can raise anew once it has
            ended as the daemon ends it: under ``off_threshold`` in as many windows.

    Raises:
        TrainingError: if the numbers of records differ.
    """
    if len(probabilities) != len(durations_s):
        raise TrainingError(
            f"false alarms: expected a duration a record, got {len(probabilities)} records and "
            f"{len(durations_s)} durations"
        )
    long_enough = [
        (windows, duration)
        for windows, duration in zip(probabilities, durations_s, strict=True)
        if len(windows) >= rule.k
    ]
    raised = [_raised(windows, rule) for windows, _ in long_enough]
    hours = sum(duration for _, duration in long_enough) / 3600
    low, high = poisson_interval(sum(raised))
    return FalseAlarms(
        records=len(long_enough),
        too_short=len(probabilities) - len(long_enough),
        hours=hours,
        records_with_alarm=sum(count > 0 for count in raised),
        alarms=sum(raised),
        per_hour=sum(raised) / hours if hours else None,
        low=low / hours if hours else None,
        high=high / hours if hours else None,
    )


def poisson_interval(events: int) -> tuple[float, float]:
    """The exact 95 % confidence interval of a Poisson mean (Garwood 1936)."""
    low = float(chi2.ppf(0.025, 2 * events)) / 2 if events else 0.0
    return low, float(chi2.ppf(0.975, 2 * events + 2)) / 2


def _raised(probability: NDArray[np.floating], rule: AlarmRule) -> int:
    over, under = probability >= rule.threshold, probability < rule.off_threshold
    clear_k = max(rule.k, rule.n - rule.k + 1)
    times, active = 0, False
    for newest in range(len(probability)):
        recent = slice(max(0, newest + 1 - rule.n), newest + 1)
        if active:
            active = not (under[newest] and under[recent].sum() >= clear_k)
        elif over[newest] and over[recent].sum() >= rule.k:
            times, active = times + 1, True
    return times
