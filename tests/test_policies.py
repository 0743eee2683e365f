"""What the configuration changes of the bundle's alarm rules."""

import pytest

from alerts.conditions import Observation, Priority
from models.bundle import DEFAULT, find_bundle
from monitor.config import Config, ConfigError
from monitor.config.model import WindowConfig
from monitor.policies import build_policies


def configured(**alarms: object) -> Config:
    return Config.model_validate(
        {
            "patients": [{"id": "anna"}, {"id": "boris", "alarms": alarms}],
            "sources": [
                {
                    "type": "replay",
                    "patient": "anna",
                    "device": "strap",
                    "records": ["anna.edf"],
                }
            ],
            "window": {"length": 12, "hop": 4},
        }
    )


def test_everybody_has_the_bundle_s_rules() -> None:
    bundle = find_bundle(DEFAULT)
    policy = build_policies(configured(), bundle)("anna")
    assert {rule.name for rule in policy.classes} == set(bundle.alarm_rules)
    assert policy.hop_s == 4
    af = next(rule for rule in policy.classes if rule.condition == "class:AF")
    assert af.threshold == bundle.alarm_rules["AF"]["threshold"]


@pytest.mark.parametrize(("hop", "n", "k"), [(1, 60, 50), (4, 45, 38), (5, 36, 30), (12, 15, 13)])
def test_an_irregular_pulse_lasts_three_minutes_whatever_the_hop(hop: int, n: int, k: int) -> None:
    config = configured().model_copy(update={"window": WindowConfig(length=12, hop=hop)})
    rules = {
        rule.condition: rule for rule in build_policies(config, find_bundle(DEFAULT))("anna").rules
    }
    rule = rules["rr:AF"]
    assert (rule.n, rule.k, rule.priority) == (n, k, Priority.LOW)
    # Neither sees the other's probability.
    of_waveform = Observation("anna", 0, 10, good=True, probabilities={"AF": 0.99})
    of_pulse = Observation("anna", 0, 10, good=True, probabilities={"rr:AF": 0.99})
    assert rule.measure(of_waveform) is rules["class:AF"].measure(of_pulse) is None
    assert rule.measure(of_pulse) == rules["class:AF"].measure(of_waveform) == 0.99


def test_overrides_hold_for_their_patient_alone() -> None:
    policies = build_policies(
        configured(classes={"AF": {"enabled": False}}, rate={"high": 150, "low": 35}, pause="3s"),
        find_bundle(DEFAULT),
    )
    boris, anna = policies("boris"), policies("anna")
    assert "AF" not in {rule.name for rule in boris.classes}
    assert boris.high_rate is not None
    assert boris.low_rate is not None
    assert boris.pause is not None
    assert (boris.high_rate.limit, boris.low_rate.limit, boris.pause.seconds) == (150, 35, 3)
    assert "AF" in {rule.name for rule in anna.classes}
    assert anna.pause is not None
    assert anna.pause.seconds != 3


def test_a_class_without_an_alarm_is_named_with_its_place() -> None:
    with pytest.raises(ConfigError, match=r"patients\[1\]\.alarms\.classes\.NSR: .*AF"):
        build_policies(configured(classes={"NSR": {"enabled": True}}), find_bundle(DEFAULT))


def test_without_a_bundle_there_are_all_rules_but_those_of_its_classes() -> None:
    """And whatever the configuration says of classes is no reason to watch nobody."""
    overrides = {"NSR": {"enabled": True}, "AF": {"k": 9, "n": 3}}
    config = configured(classes=overrides, chronic=["PVC"], rate={"low": 35})
    policies = build_policies(config, None)
    conditions = ["pause", "rate:high", "rate:low", "rr:AF"]
    for patient in ("anna", "boris"):
        assert [rule.condition for rule in policies(patient).rules] == conditions
    assert policies("boris").hop_s == 4
    low = policies("boris").low_rate
    assert low is not None
    assert low.limit == 35
    silenced = build_policies(configured(chronic=["AF"]), None)("boris")
    assert [rule.condition for rule in silenced.rules] == conditions[:-1]


def test_somebody_not_configured_is_watched_like_everybody() -> None:
    policies = build_policies(configured(), find_bundle(DEFAULT))
    assert policies("carla") == policies("anna")


def test_the_rules_of_a_class_can_be_tuned_for_everybody_and_for_one() -> None:
    bundle = find_bundle(DEFAULT)
    config = Config.model_validate(
        {
            "patients": [
                {"id": "anna"},
                {"id": "boris", "alarms": {"classes": {"AF": {"threshold": 0.9}}}},
            ],
            "alarms": {
                "rules": {
                    "classes": {"AF": {"threshold": 0.6, "k": 4, "n": 6}},
                    "rate": {"low": 35},
                    "pause": "5s",
                }
            },
        }
    )
    policy_for = build_policies(config, bundle)
    for patient, threshold in (("anna", 0.6), ("boris", 0.9)):
        policy = policy_for(patient)
        af, rr = (
            next(r for r in policy.classes if r.condition == c) for c in ("class:AF", "rr:AF")
        )
        assert (af.threshold, af.off_threshold) == (threshold, threshold / 2)
        assert (af.k, af.n, af.clear_k) == (4, 6, 4)
        assert rr.threshold != threshold
        assert policy.low_rate is not None
        assert policy.low_rate.limit == 35
        assert policy.pause is not None
        assert policy.pause.seconds == 5


def test_numbers_that_do_not_go_together_name_their_place() -> None:
    bundle = find_bundle(DEFAULT)
    n = bundle.alarm_rules["AF"]["n"]
    config = Config.model_validate(
        {
            "patients": [{"id": "anna", "alarms": {"classes": {"AF": {"k": n + 1}}}}],
            "alarms": {"rules": {"classes": {"PVC": {"k": 2}}}},
        }
    )
    with pytest.raises(ConfigError) as caught:
        build_policies(config, bundle)
    assert caught.value.problems == (
        "alarms.rules.classes.PVC: there is no alarm for this class; there are some for AF",
        f"patients[0].alarms.classes.AF.k: must be from 1 to n = {n}, not {n + 1}",
    )
