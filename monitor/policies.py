"""Which alarm rules hold for which patient: the bundle's, with what the configuration changes."""

from collections.abc import Callable
from dataclasses import replace

from alerts.policy import Policy, PolicyError, high_rate_rule, low_rate_rule
from models.bundle import Bundle, BundleError
from monitor.config import Config, ConfigError, PatientConfig


def build_policies(config: Config, bundle: Bundle) -> Callable[[str], Policy]:
    """The policy of each patient.

    Raises:
        ConfigError: if a patient's overrides name a class that the bundle has no alarm for.
        BundleError: if a rule of the bundle cannot be.
    """
    try:
        default = Policy.from_mapping(bundle.alarm_rules, hop_s=config.window.hop)
    except PolicyError as error:
        raise BundleError(f"{bundle.path}: alarm of {error}") from error
    problems: list[str] = []
    policies = {}
    for i, patient in enumerate(config.patients):
        problems.extend(
            f"patients[{i}].alarms.classes.{name}: the bundle has no alarm for this class; "
            f"it has them for {', '.join(sorted(bundle.alarm_rules))}"
            for name in patient.alarms.classes
            if name not in bundle.alarm_rules
        )
        policies[patient.id] = _for_patient(default, patient)
    if problems:
        raise ConfigError(problems)
    return lambda patient: policies.get(patient, default)


def _for_patient(default: Policy, patient: PatientConfig) -> Policy:
    alarms = patient.alarms
    silent = {name for name, override in alarms.classes.items() if not override.enabled}
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
