"""The rules: which numbers are accepted, and how a mistake in a bundle is named."""

import math
from dataclasses import replace

import pytest

from alerts.conditions import Observation, Priority
from alerts.policy import (
    ClassRule,
    PauseRule,
    Policy,
    PolicyError,
    RateRule,
    Rule,
    high_rate_rule,
    low_rate_rule,
)

AF = ClassRule(
    name="AF", threshold=0.62, off_threshold=0.5, k=6, n=8, clear_k=6, priority=Priority.MEDIUM
)
ENTRY: dict[str, object] = {
    "threshold": 0.62,
    "off_threshold": 0.5,
    "k": 6,
    "n": 8,
    "priority": "medium",
}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"n": 0}, r"^n: "),
        ({"n": 61, "k": 60, "clear_k": 60}, r"^n: "),
        ({"k": 0}, r"^k: "),
        ({"k": 9}, r"^k: "),
        ({"clear_k": 2}, r"^clear_k: .* from n - k \+ 1 = 3 to n = 8, not 2$"),
        ({"clear_k": 9}, r"^clear_k: "),
        ({"threshold": 1.0}, r"^threshold: "),
        ({"threshold": 0.0}, r"^threshold: "),
        ({"threshold": math.nan}, r"^threshold: "),
        ({"off_threshold": 0.63}, r"^off_threshold: "),
        ({"off_threshold": 0.0}, r"^off_threshold: "),
        ({"name": ""}, r"^name: "),
    ],
)
def test_class_rule_refuses(change: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(AF, **change)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("rule", "change", "message"),
    [
        (high_rate_rule(), {"off": 131.0}, r"^off: must be at most"),
        (low_rate_rule(), {"off": 39.0}, r"^off: must be at least"),
        (high_rate_rule(), {"limit": math.inf}, r"^limit: "),
        (low_rate_rule(), {"limit": -1.0}, r"^limit: "),
        (PauseRule(), {"seconds": 0.0}, r"^seconds: "),
        (PauseRule(), {"clear_k": 5}, r"^clear_k: "),
    ],
)
def test_rate_and_pause_rules_refuse(
    rule: RateRule | PauseRule, change: dict[str, float], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        replace(rule, **change)  # type: ignore[arg-type]


def test_policy_refuses_two_rules_for_one_condition() -> None:
    with pytest.raises(ValueError, match=r"^class:AF: has two rules$"):
        Policy(classes=(AF, replace(AF, threshold=0.9)))
    with pytest.raises(ValueError, match=r"^rate:high: has two rules$"):
        Policy(low_rate=high_rate_rule())


def test_policy_refuses_a_hop_of_no_time() -> None:
    with pytest.raises(ValueError, match=r"^hop_s: "):
        Policy(hop_s=0)


def test_the_order_of_rules_puts_the_pause_first() -> None:
    conditions = [rule.condition for rule in Policy(classes=(AF,)).rules]
    assert conditions == ["pause", "rate:high", "rate:low", "class:AF"]
    assert [rule.condition for rule in Policy(pause=None, high_rate=None).rules] == ["rate:low"]


def test_limits_themselves_speak_for_and_off_values_not_yet_against() -> None:
    cases: list[tuple[Rule, float, float, float]] = [
        # rule, at the limit, at the off value, past the off value
        (AF, 0.62, 0.5, 0.4999),
        (high_rate_rule(140), 140, 130, 129.9),
        (low_rate_rule(38), 38, 43, 43.1),
    ]
    for rule, limit, off, past in cases:
        assert rule.speaks_for(limit)
        assert not rule.speaks_for(off)
        assert not rule.speaks_against(off)
        assert rule.speaks_against(past)
    assert PauseRule(seconds=3).speaks_for(3)
    assert PauseRule(seconds=3).speaks_against(2.99)


def test_each_rule_measures_its_own() -> None:
    seen = Observation("p", 0, 1, True, {"AF": 0.7}, heart_rate=61, longest_rr_s=1.2)
    assert AF.measure(seen) == 0.7
    assert replace(AF, name="PVC").measure(seen) is None
    assert high_rate_rule().measure(seen) == 61
    assert PauseRule().measure(seen) == 1.2


def test_from_mapping_reads_a_bundle() -> None:
    pvc = {
        "threshold": 0.8,
        "off_threshold": 0.8,
        "k": 2,
        "n": 8,
        "clear_k": 8,
        "priority": "low",
    }
    policy = Policy.from_mapping({"AF": ENTRY, "PVC": pvc}, hop_s=2)
    assert policy.hop_s == 2
    assert policy.pause == PauseRule()
    assert policy.classes[0] == AF
    assert policy.classes[1].clear_k == 8
    assert policy.classes[1].priority is Priority.LOW


def test_clear_k_defaults_to_as_many_as_are_needed() -> None:
    frequent = Policy.from_mapping({"AF": ENTRY | {"k": 2}})
    assert frequent.classes[0].clear_k == 7


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        ({"AF": {k: v for k, v in ENTRY.items() if k != "n"}}, r"^AF\.n: missing$"),
        ({"AF": ENTRY | {"treshold": 1}}, r"^AF\.treshold: unknown key; known are threshold, "),
        ({"AF": ENTRY | {"threshold": "0.6"}}, r"^AF\.threshold: must be a number, not '0\.6'$"),
        ({"AF": ENTRY | {"threshold": True}}, r"^AF\.threshold: must be a number"),
        ({"AF": ENTRY | {"threshold": 62}}, r"^AF\.threshold: must be between 0 and 1, not 62$"),
        ({"AF": ENTRY | {"k": 6.0}}, r"^AF\.k: must be a whole number"),
        ({"AF": ENTRY | {"k": True}}, r"^AF\.k: must be a whole number"),
        ({"AF": ENTRY | {"k": 9}}, r"^AF\.k: must be from 1 to n = 8, not 9$"),
        (
            {"AF": ENTRY | {"priority": "urgent"}},
            r"^AF\.priority: must be one of high, medium, low, not 'urgent'$",
        ),
        ({"AF": ENTRY | {"priority": ["high"]}}, r"^AF\.priority: "),
        ({"AF": 0.62}, r"^AF: must be a mapping of "),
        ({1: ENTRY}, r"^1: a class abbreviation must be text$"),
    ],
)
def test_from_mapping_names_the_key_at_fault(classes: dict[str, object], message: str) -> None:
    with pytest.raises(PolicyError, match=message) as caught:
        Policy.from_mapping(classes)
    assert "\n" not in str(caught.value)
