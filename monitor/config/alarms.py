"""The ``alarms:`` section: who is told, how, and when."""

import re
from datetime import time
from typing import Annotated, Literal, Self
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import AfterValidator, Field, model_validator
from pydantic_core import PydanticCustomError

from monitor.config.problems import InconsistentError, suggest
from monitor.config.rules import RulesConfig
from monitor.config.section import Section
from monitor.config.values import Identifier, Seconds, Secret, Text, between, not_empty


def _http(value: str) -> str:
    try:
        parts = urlsplit(value)
        usable = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        usable = False
    if not usable:
        raise PydanticCustomError("url", "expected a URL that begins with https:// or http://")
    return value


def _time_of_day(value: str) -> str:
    if not re.fullmatch(r"([01][0-9]|2[0-3]):[0-5][0-9]", value):
        raise PydanticCustomError("time", "expected a time of day in quotes, such as '22:00'")
    return value


def _zone(value: str) -> str:
    try:
        ZoneInfo(value)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise PydanticCustomError("zone", "expected a time zone, such as Europe/Berlin") from None
    return value


def _telephone(value: str) -> str:
    if not re.fullmatch(r"\+?[0-9][0-9 -]{1,19}", value):
        raise PydanticCustomError("telephone", "expected a telephone number, such as '112'")
    return value


HttpUrl = Annotated[Text, AfterValidator(_http)]
TimeOfDay = Annotated[Text, AfterValidator(_time_of_day)]
Zone = Annotated[Text, AfterValidator(_zone)]


class AppriseConfig(Section):
    """One of the hundred services that Apprise knows: ntfy, Telegram, e-mail, Pushover, SMS …."""

    type: Literal["apprise"] = Field(title="Type", description="A service that Apprise knows.")
    url: Secret = Field(
        title="URL",
        description="Apprise URL such as ntfys://ntfy.sh/topic, or {env: …} or {file: …}.",
    )


class WebhookConfig(Section):
    """A program of your own, told by HTTP."""

    type: Literal["webhook"] = Field(title="Type", description="A signed JSON document by POST.")
    url: HttpUrl = Field(title="URL", description="Where it is posted to.")
    secret: Secret = Field(
        title="Secret", description="Key of the signature, or {env: …} or {file: …}."
    )


class CommandConfig(Section):
    """A program on the gateway."""

    type: Literal["command"] = Field(title="Type", description="A program on this machine.")
    command: Annotated[tuple[Text, ...], not_empty] = Field(
        title="Command", description="Program and arguments, as a list; no shell comes between."
    )


class SoundConfig(Section):
    """A speaker of the gateway."""

    type: Literal["sound"] = Field(title="Type", description="A tone on this machine's speaker.")


ChannelConfig = Annotated[
    AppriseConfig | WebhookConfig | CommandConfig | SoundConfig, Field(discriminator="type")
]


class ContactConfig(Section):
    """Somebody who is told of alarms."""

    name: Identifier = Field(title="Name", description="Short name, used in logs.")
    channels: Annotated[tuple[ChannelConfig, ...], not_empty] = Field(
        title="Channels", description="How they are told: each of these is used."
    )


class StepConfig(Section):
    """One rung of a ladder."""

    after: Annotated[Seconds, between(0, 86_400)] = Field(
        default=0.0,
        title="After (seconds)",
        description="How long nobody has answered by then; 0s: at once.",
    )
    contacts: Annotated[tuple[Identifier, ...], not_empty] = Field(
        title="Contacts", description="Names of those who are told."
    )


class LadderConfig(Section):
    """Who is told of alarms of one priority."""

    steps: Annotated[tuple[StepConfig, ...], not_empty] | None = Field(
        default=None,
        title="Steps",
        description="One after the other until somebody answers; by default everybody at once.",
    )
    repeat: Annotated[Seconds, between(60, 86_400)] | None = Field(
        default=None,
        title="Repeat (seconds)",
        description="Remind until somebody answers; by default 5m (high), 30m (medium), never.",
    )

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        times = [step.after for step in self.steps or ()]
        if times != sorted(times):
            raise InconsistentError([("steps", "must be in the order of after")])
        return self


class LethalLadderConfig(Section):
    """Who is told of lethal rhythms: somebody at once, and again and again until one answers."""

    steps: Annotated[tuple[StepConfig, ...], not_empty] | None = Field(
        default=None,
        title="Steps",
        description="The first at 0s; by default those of high priority, a minute apart at most.",
    )
    repeat: Annotated[Seconds, between(15, 300)] = Field(
        default=30.0,
        title="Repeat (seconds)",
        description="Remind until somebody answers: 15s to 5m.",
    )

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        times = [step.after for step in self.steps or ()]
        if times != sorted(times):
            raise InconsistentError([("steps", "must be in the order of after")])
        if times and times[0] > 0:
            raise InconsistentError([("steps[0].after", "must be 0s: a lethal rhythm cannot wait")])
        return self


class EscalationConfig(Section):
    """Who is told, by priority."""

    lethal: LethalLadderConfig = Field(
        default_factory=LethalLadderConfig,
        title="Lethal",
        description="For lethal rhythms (vf, vt, asystole).",
    )
    high: LadderConfig = Field(
        default_factory=LadderConfig, title="High", description="For high priority."
    )
    medium: LadderConfig = Field(
        default_factory=LadderConfig, title="Medium", description="For medium priority."
    )
    low: LadderConfig = Field(
        default_factory=LadderConfig, title="Low", description="For low priority."
    )


class QuietHoursConfig(Section):
    """When alarms of low priority wait for the morning; the others never do."""

    start: TimeOfDay = Field(title="Start", description="Local time of day, such as '22:00'.")
    end: TimeOfDay = Field(title="End", description="Local time of day, such as '07:00'.")
    timezone: Zone = Field(title="Time zone", description="Where, such as Europe/Berlin.")

    @model_validator(mode="after")
    def _differ(self) -> Self:
        if self.start == self.end:
            raise InconsistentError([("end", "must not be the start")])
        return self

    @property
    def times(self) -> tuple[time, time, ZoneInfo]:
        """Start, end and zone."""
        return (
            time.fromisoformat(self.start),
            time.fromisoformat(self.end),
            ZoneInfo(self.timezone),
        )


class HeartbeatConfig(Section):
    """A message that all is well, so that silence means something."""

    every: Literal["day", "week"] = Field(
        default="day", title="Every", description="day, or week (on Mondays)."
    )
    at: TimeOfDay = Field(
        default="09:00", title="At", description="Local time of day, such as '09:00'."
    )
    timezone: Zone = Field(title="Time zone", description="Where, such as Europe/Berlin.")
    contacts: Annotated[tuple[Identifier, ...], not_empty] = Field(
        title="Contacts", description="Names of those who are told."
    )


class DeadManConfig(Section):
    """An address outside that misses us when we are gone (healthchecks.io and the like)."""

    url: Secret = Field(
        title="URL", description="It is fetched only while hearts are truly being analysed."
    )
    every: Annotated[Seconds, between(10, 3600)] = Field(
        default=60.0, title="Every (seconds)", description="How often: 10s to 1h."
    )


class AlarmsConfig(Section):
    """Who is told of alarms, how, and when. Without contacts they are logged and shown only."""

    rules: RulesConfig = Field(
        default_factory=RulesConfig,
        title="Rules",
        description="What raises an alarm of anybody, where it is not as usual.",
    )
    contacts: tuple[ContactConfig, ...] = Field(
        default=(), title="Contacts", description="Who can be told."
    )
    escalation: EscalationConfig = Field(
        default_factory=EscalationConfig,
        title="Escalation",
        description="Who is told of which priority, and when.",
    )
    emergency_number: Annotated[Text, AfterValidator(_telephone)] = Field(
        default="112",
        title="Emergency number",
        description="Whom to call when somebody does not breathe, in quotes, such as '112'.",
    )
    quiet_hours: QuietHoursConfig | None = Field(
        default=None,
        title="Quiet hours",
        description="When alarms of low priority wait for the morning.",
    )
    heartbeat: HeartbeatConfig | None = Field(
        default=None, title="Heartbeat", description="A message that all is well."
    )
    dead_man: DeadManConfig | None = Field(
        default=None,
        title="Dead-man's switch",
        description="An address outside that misses us when we are gone.",
    )

    @model_validator(mode="after")
    def _check_together(self) -> Self:
        problems: list[tuple[str, str]] = []
        names: dict[str, int] = {}
        for i, contact in enumerate(self.contacts):
            if contact.name in names:
                first = f"contacts[{names[contact.name]}]"
                problems.append((f"contacts[{i}].name", f"is already the name of {first}"))
            names.setdefault(contact.name, i)
        told = [
            (f"escalation.{priority}.steps[{i}].contacts", step.contacts)
            for priority in ("lethal", "high", "medium", "low")
            for i, step in enumerate(getattr(self.escalation, priority).steps or ())
        ]
        if self.heartbeat is not None:
            told.append(("heartbeat.contacts", self.heartbeat.contacts))
        problems += [
            (f"{place}[{i}]", f"no contact has this name{suggest(name, names)}")
            for place, contacts in told
            for i, name in enumerate(contacts)
            if name not in names
        ]
        if problems:
            raise InconsistentError(problems)
        return self
