"""What ``leadone alarms explain`` says, as rows for tools."""

from typing import Any

from alerts.conditions import Alarm
from alerts.policy import ClassRule, PauseRule, RateRule, Rule
from monitor.cli.times import iso
from monitor.explain import Explained
from monitor.window import Gap


def rule_json(rule: Rule) -> dict[str, Any]:
    """A rule with its numbers."""
    row: dict[str, Any] = {
        "rule": rule.condition,
        "priority": rule.priority.value,
        "k": rule.k,
        "n": rule.n,
        "clear_k": rule.clear_k,
    }
    match rule:
        case ClassRule():
            row |= {"threshold": rule.threshold, "off_threshold": rule.off_threshold}
        case RateRule():
            row |= {"limit": rule.limit, "off": rule.off}
        case PauseRule():
            row |= {"seconds": rule.seconds}
    return row


def window_json(one: Explained) -> dict[str, Any]:
    """A window, and what the rules make of it."""
    result = one.result
    return {
        "window": iso(result.start_ns),
        "device": result.stream.device,
        "duration_s": round(result.duration_s, 3),
        "quality": result.grade.quality.value,
        "reasons": [reason.value for reason in result.grade.reasons],
        "heart_rate": None if result.heart_rate is None else round(result.heart_rate, 1),
        "longest_rr_s": None if result.longest_rr_s is None else round(result.longest_rr_s, 3),
        "evidence": {
            weight.rule.condition: {
                "value": None if weight.value is None else round(weight.value, 5),
                "for": weight.speaking_for,
                "against": weight.speaking_against,
                "of": weight.of,
            }
            for weight in one.weights
        },
        "on": sorted(one.on),
        "changes": [
            {"condition": c.alarm.condition, "state": c.state.value, "reason": c.reason}
            for c in one.changes
        ],
    }


def gap_json(gap: Gap) -> dict[str, Any]:
    """A time without samples."""
    return {
        "gap": gap.cause,
        "device": gap.stream.device,
        "start": iso(gap.start_ns),
        "end": iso(gap.end_ns),
    }


def alarm_json(alarm: Alarm) -> dict[str, Any]:
    """An alarm that was stored."""
    return {
        "alarm": alarm.id,
        "condition": alarm.condition,
        "priority": alarm.priority.value,
        "started": iso(alarm.started_ns),
        "raised": iso(alarm.raised_ns),
        "ended": None if alarm.ended_ns is None else iso(alarm.ended_ns),
    }
