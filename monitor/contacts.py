"""From configured contacts to channels and to the plan of who is told when."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from alerts.conditions import Priority
from alerts.escalation import HIGH_REPEAT_S, MEDIUM_REPEAT_S, Ladder, LethalLadder, Plan, Step
from alerts.quiet import QuietHours
from monitor.config import Config, ConfigError
from monitor.config.alarms import (
    AppriseConfig,
    ChannelConfig,
    CommandConfig,
    LadderConfig,
    LethalLadderConfig,
    SoundConfig,
    StepConfig,
    WebhookConfig,
)

if TYPE_CHECKING:
    from alerts.channels.channel import Channel

_REPEAT_S = {Priority.HIGH: HIGH_REPEAT_S, Priority.MEDIUM: MEDIUM_REPEAT_S, Priority.LOW: None}


def build_channels(config: Config) -> dict[str, list["Channel"]]:
    """The channels of each contact.

    Raises:
        ConfigError: a line for each channel that cannot be used.
    """
    channels: dict[str, list[Channel]] = {}
    problems = []
    for i, contact in enumerate(config.alarms.contacts):
        made = channels.setdefault(contact.name, [])
        for j, configured in enumerate(contact.channels):
            name = f"{contact.name}-{configured.type}"
            if any(channel.name == name for channel in made):
                name = f"{name}-{j + 1}"
            try:
                made.append(_channel(name, configured))
            except ValueError as error:
                problems.append(f"alarms.contacts[{i}].channels[{j}]: {error}")
    if problems:
        raise ConfigError(problems)
    return channels


def _channel(name: str, configured: ChannelConfig) -> "Channel":
    # Each is imported where it is used: Apprise alone takes a second and 20 MB.
    match configured:
        case AppriseConfig():
            from alerts.channels.apprise import AppriseChannel  # noqa: PLC0415

            return AppriseChannel(name, configured.url.get_secret_value())
        case WebhookConfig():
            from alerts.channels.webhook import WebhookChannel  # noqa: PLC0415

            return WebhookChannel(name, configured.url, configured.secret.get_secret_value())
        case CommandConfig():
            from alerts.channels.command import CommandChannel  # noqa: PLC0415

            return CommandChannel(name, configured.command)
        case SoundConfig():
            from alerts.channels.sound import SoundChannel  # noqa: PLC0415

            return SoundChannel(name)


def build_plans(config: Config) -> Callable[[str], Plan]:
    """Who is told of each patient's alarms, when; what is not configured is told to everybody."""
    everybody = tuple(contact.name for contact in config.alarms.contacts)
    named: Mapping[str, tuple[str, ...]] = {
        patient.id: patient.alarms.contacts
        for patient in config.patients
        if patient.alarms.contacts is not None
    }
    plans: dict[tuple[str, ...] | None, Plan] = {}

    def plan_for(patient: str) -> Plan:
        only = named.get(patient)
        if only not in plans:
            plans[only] = _plan(config, everybody, only)
        return plans[only]

    return plan_for


def _plan(config: Config, everybody: tuple[str, ...], only: tuple[str, ...] | None) -> Plan:
    alarms = config.alarms
    of = {
        priority: _ladder(getattr(alarms.escalation, priority.value), priority, everybody, only)
        for priority in Priority
    }
    lethal = _lethal_ladder(
        alarms.escalation.lethal, of[Priority.HIGH].steps, everybody if only is None else only
    )
    quiet = None if alarms.quiet_hours is None else QuietHours(*alarms.quiet_hours.times)
    return Plan(
        high=of[Priority.HIGH],
        medium=of[Priority.MEDIUM],
        low=of[Priority.LOW],
        lethal=lethal,
        quiet=quiet,
    )


def _ladder(
    configured: LadderConfig,
    priority: Priority,
    everybody: tuple[str, ...],
    only: tuple[str, ...] | None,
) -> Ladder:
    steps = _steps(configured.steps or (), everybody if only is None else only)
    repeat_s = _REPEAT_S[priority] if configured.repeat is None else configured.repeat
    return Ladder(steps, repeat_s, latching=priority is Priority.HIGH)


def _lethal_ladder(
    configured: LethalLadderConfig, high: tuple[Step, ...], wanted: tuple[str, ...]
) -> LethalLadder:
    if configured.steps is None:
        return replace(LethalLadder.after(high), repeat_s=configured.repeat)
    steps = _steps(configured.steps, wanted)
    # Nobody may be left for the first; the next is told at once then.
    early_s = steps[0].after_s if steps else 0.0
    kept = (replace(step, after_s=step.after_s - early_s) for step in steps)
    return LethalLadder(tuple(kept), configured.repeat)


def _steps(configured: Sequence[StepConfig], wanted: tuple[str, ...]) -> tuple[Step, ...]:
    # A step of which nobody is among the patient's own contacts is no step.
    steps = tuple(
        Step(step.after, kept)
        for step in configured
        if (kept := tuple(name for name in step.contacts if name in wanted))
    )
    # Nor may that leave nobody at all.
    return steps or ((Step(0.0, wanted),) if wanted else ())
