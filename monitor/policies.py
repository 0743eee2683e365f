"""Which alarm rules hold for which patient, with what the configuration changes.

The bundle's, one for a pulse that RR intervals alone call irregular, and those for rate and pauses.
"""

from collections.abc import Callable
from dataclasses import replace

from alerts.policy import (
    Policy,
    PolicyError,
    high_rate_rule,
    irregular_pulse_rule,
    low_rate_rule,
)
from models.bundle import Bundle, BundleError
from monitor import irregularity
from monitor.config import Config, ConfigError, PatientConfig


def build_policies(config: Config, bundle: Bundle) -> Callable[[str], Policy]:
    """The policy of each patient.

    Raises:
        ConfigError: if a patient's overrides name a class that there is no alarm for.
        BundleError: if a rule of the bundle cannot be.
    """
    try:
        default = Policy.from_mapping(bundle.alarm_rules, hop_s=config.window.hop)
    except PolicyError as error:
        raise BundleError(f"{bundle.path}: alarm of {error}") from error
    # It has the class's name: who is not to be alarmed about AF is spared both.
    irregular = irregular_pulse_rule(
        "AF",
        threshold=irregularity.THRESHOLD,
        off_threshold=irregularity.OFF_THRESHOLD,
        hop_s=config.window.hop,
    )
    default = replace(default, classes=(*default.classes, irregular))
    known = {rule.name for rule in default.classes}
    problems: list[str] = []
    policies = {}
    for i, patient in enumerate(config.patients):
        named = [f"classes.{name}" for name in patient.alarms.classes]
        named += [f"chronic.{name}" for name in patient.alarms.chronic]
        problems.extend(
            f"patients[{i}].alarms.{place}: there is no alarm for this class; "
            f"there are some for {', '.join(sorted(known))}"
            for place in named
            if place.partition(".")[2] not in known
        )
        policies[patient.id] = _for_patient(default, patient)
    if problems:
        raise ConfigError(problems)
    return lambda patient: policies.get(patient, default)


def _for_patient(default: Policy, patient: PatientConfig) -> Policy:
    alarms = patient.alarms
    silent = {name for name, override in alarms.classes.items() if not override.enabled}
    silent.update(alarms.chronic)
    policy = replace(
        default, classes=tuple(rule for rule in default.classes if rule.name not in silent)
    )
    if alarms.rate.high is not None:
        policy = replace(policy, high_rate=high_rate_rule(alarms.rate.high))
    if alarms.rate.low is not None:
        policy = replace(policy, low_rate=low_rate_rule(alarms.rate.low))
    if alarms.pause is not None and policy.pause is not None:
        policy = replace(policy, pause=replace(policy.pause, seconds=alarms.pause))
    return policy
