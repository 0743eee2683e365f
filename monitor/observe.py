"""From a result to what the alarm engine sees of it."""

from alerts.conditions import Observation
from monitor.results import WindowResult


def observation(result: WindowResult) -> Observation:
    """What the alarm engine sees of a result."""
    return Observation(
        patient=result.stream.patient,
        start_ns=result.start_ns,
        end_ns=result.end_ns,
        good=result.grade.good,
        probabilities=result.by_class,
        heart_rate=result.heart_rate,
        longest_rr_s=result.longest_rr_s,
    )
