"""Which alarm rules hold for which patient, with what the configuration changes.

The bundle's, one for a pulse that RR intervals alone call irregular, and those for rate and pauses.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import replace

from alerts.policy import (
    ClassRule,
    IrregularPulseRule,
    Policy,
    PolicyError,
    default_clear_k,
    high_rate_rule,
    irregular_pulse_rule,
    low_rate_rule,
)
from models.bundle import Bundle, BundleError
from monitor import irregularity
from monitor.config import Config, ConfigError
from monitor.config.rules import ClassOverride, RulesConfig


def build_policies(config: Config, bundle: Bundle | None) -> Callable[[str], Policy]:
    """The policy of each patient.

    Args:
        config: the configuration.
        bundle: whose classes raise alarms; None if there is none that can be used. Then there are
            no rules of classes but that of an irregular pulse, and overrides may name any: whether
            they fit cannot be known, and rates and pauses are to be watched all the same.

    Raises:
        ConfigError: if a patient's overrides name a class that there is no alarm for.
        BundleError: if a rule of the bundle cannot be.
    """
    hop_s = config.window.hop
    default = Policy(hop_s=hop_s) if bundle is None else _of_bundle(bundle, hop_s)
    # It has the class's name: who is not to be alarmed about AF is spared both.
    irregular = irregular_pulse_rule(
        "AF",
        threshold=irregularity.THRESHOLD,
        off_threshold=irregularity.OFF_THRESHOLD,
        hop_s=hop_s,
    )
    default = replace(default, classes=(*default.classes, irregular))
    known = None if bundle is None else {rule.name for rule in default.classes}
    problems = _unknown(known, config.alarms.rules, "alarms.rules")
    if not problems:
        default = _changed(default, config.alarms.rules, "alarms.rules", problems)
    policies = {}
    for i, patient in enumerate(config.patients):
        place = f"patients[{i}].alarms"
        unknown = _unknown(known, patient.alarms, place, patient.alarms.chronic)
        problems += unknown
        if not unknown:
            policies[patient.id] = _changed(
                default, patient.alarms, place, problems, patient.alarms.chronic
            )
    if problems:
        raise ConfigError(problems)
    return lambda patient: policies.get(patient, default)


def _of_bundle(bundle: Bundle, hop_s: float) -> Policy:
    try:
        return Policy.from_mapping(bundle.alarm_rules, hop_s=hop_s)
    except PolicyError as error:
        raise BundleError(f"{bundle.path}: alarm of {error}") from error


def _unknown(
    known: Collection[str] | None, rules: RulesConfig, place: str, chronic: Sequence[str] = ()
) -> list[str]:
    if known is None:
        return []
    named = [("classes", name) for name in rules.classes] + [("chronic", name) for name in chronic]
    return [
        f"{place}.{key}.{name}: there is no alarm for this class; "
        f"there are some for {', '.join(sorted(known))}"
        for key, name in named
        if name not in known
    ]


def _changed(
    policy: Policy,
    rules: RulesConfig,
    place: str,
    problems: list[str],
    chronic: Sequence[str] = (),
) -> Policy:
    silent = {name for name, override in rules.classes.items() if not override.enabled}
    silent.update(chronic)
    classes = []
    for rule in policy.classes:
        if rule.name in silent:
            continue
        override = rules.classes.get(rule.name)
        # What RR intervals alone tell has a probability of its own, and its own rule.
        if override is not None and not isinstance(rule, IrregularPulseRule):
            try:
                rule = _overridden(rule, override)  # noqa: PLW2901 - the same rule, changed
            except ValueError as error:
                problems.append(f"{place}.classes.{rule.name}.{error}")
        classes.append(rule)
    policy = replace(policy, classes=tuple(classes))
    if rules.rate.high is not None:
        policy = replace(policy, high_rate=high_rate_rule(rules.rate.high))
    if rules.rate.low is not None:
        policy = replace(policy, low_rate=low_rate_rule(rules.rate.low))
    if rules.pause is not None and policy.pause is not None:
        policy = replace(policy, pause=replace(policy.pause, seconds=rules.pause))
    return policy


def _overridden(rule: ClassRule, override: ClassOverride) -> ClassRule:
    """A class's rule with other numbers.

    Raises:
        ValueError: they do not go together.
    """
    k, n = override.k or rule.k, override.n or rule.n
    rule = replace(rule, k=k, n=n, clear_k=default_clear_k(k, n))
    if override.threshold is not None:
        half = override.threshold / 2
        rule = replace(rule, threshold=override.threshold, off_threshold=half)
    return rule
