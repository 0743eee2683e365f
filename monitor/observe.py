"""From a result to what the alarm engine sees of it."""

from alerts.conditions import Observation
from monitor.results import WindowResult


def observation(result: WindowResult) -> Observation:
    """What the alarm engine sees of a result."""
    probabilities: dict[str, float] = {}
    if result.model is not None and result.probabilities is not None:
        probabilities = dict(zip(result.model.classes, result.probabilities.tolist(), strict=True))
    return Observation(
        patient=result.stream.patient,
        start_ns=result.start_ns,
        end_ns=result.end_ns,
        good=result.grade.good,
        probabilities=probabilities,
        heart_rate=result.heart_rate,
        longest_rr_s=result.longest_rr_s,
    )
