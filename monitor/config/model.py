"""What may stand in the configuration file.

Every field has a title and a description, so that the JSON schema serves as its documentation.
"""

import math
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import (
    AfterValidator,
    Field,
    SecretStr,
    StrictInt,
    model_validator,
)
from pydantic_core import PydanticCustomError

from alerts.gateway import GATEWAY
from monitor.config.alarms import AlarmsConfig
from monitor.config.episode import EpisodeConfig
from monitor.config.mqtt import MqttConfig
from monitor.config.problems import InconsistentError, suggest
from monitor.config.rules import RulesConfig
from monitor.config.section import Section
from monitor.config.values import DatabaseUrl, Identifier, Number, Seconds, Text, between, not_empty


class WindowConfig(Section):
    """How the signal is cut into the windows that are judged."""

    length: Annotated[Seconds, between(5, 60)] = Field(
        default=10.0, title="Window length (seconds)", description="Length of a window: 5s to 60s."
    )
    hop: Annotated[Seconds, between(1, 60)] = Field(
        default=5.0,
        title="Window hop (seconds)",
        description="From the start of a window to that of the next: 1s to the window's length.",
    )


class AlarmOverrides(RulesConfig):
    """What is different for one patient; what is not given is as for everybody."""

    chronic: tuple[Text, ...] = Field(
        default=(),
        title="Chronic conditions",
        description="Classes that are known and lasting, such as AF, and so no alarm.",
    )
    contacts: Annotated[tuple[Identifier, ...], not_empty] | None = Field(
        default=None,
        title="Contacts",
        description="Who is told of this patient's alarms; by default everybody.",
    )


def _not_the_gateway(value: str) -> str:
    if value == GATEWAY:
        raise PydanticCustomError("reserved", "is what the gateway's own alarms go by")
    return value


class PatientConfig(Section):
    """Somebody whose heart is watched."""

    id: Annotated[Identifier, AfterValidator(_not_the_gateway)] = Field(
        title="Id",
        description="Short name used everywhere, also in logs and messages.",
    )
    name: Text | None = Field(
        default=None,
        title="Name",
        description="The person's name, for the people who look after them; never logged.",
        repr=False,
    )
    emergency_note: Annotated[Text, Field(max_length=500)] | None = Field(
        default=None,
        title="Emergency note",
        description="For messages of lethal rhythms: address, door code, pacemaker or ICD.",
        repr=False,
    )
    alarms: AlarmOverrides = Field(
        default_factory=AlarmOverrides,
        title="Alarms",
        description="What is different from the usual alarms for this patient.",
    )


class _Device(Section):
    """Whose device a source is."""

    patient: Identifier = Field(
        title="Patient", description="Id of the patient whose signal this is."
    )
    device: Identifier = Field(
        title="Device",
        description="Short name of the device; a patient has each name only once.",
    )


class SimulatorConfig(_Device):
    """A simulated patient, for trying things out."""

    type: Literal["simulator"] = Field(title="Type", description="A simulated heart.")
    script: Annotated[tuple[EpisodeConfig, ...], not_empty] = Field(
        title="Script",
        description="What the heart does, one episode after the other, again and again.",
    )
    seed: Annotated[StrictInt, Field(ge=0, lt=2**63)] = Field(
        default=1,
        title="Seed",
        description="The same seed gives the same patient and the same signal.",
    )


class ReplayConfig(_Device):
    """Recordings played as if they were live."""

    type: Literal["replay"] = Field(title="Type", description="Recordings, as if live.")
    records: Annotated[tuple[Path, ...], not_empty] = Field(
        title="Records",
        description="Paths of recordings (WFDB, EDF, CSV), played one after the other.",
    )
    lead: Text | None = Field(
        default=None,
        title="Lead",
        description="Which lead; by default lead I, or the first where there is none.",
    )
    speed: Annotated[Number, Field(gt=0, le=10_000)] = Field(
        default=1.0, title="Speed", description="How many times faster than recorded."
    )


SourceConfig = Annotated[SimulatorConfig | ReplayConfig, Field(discriminator="type")]


class LogConfig(Section):
    """What is logged, and how it looks."""

    level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", title="Level", description="The least important messages that are logged."
    )
    format: Literal["auto", "human", "json"] = Field(
        default="auto",
        title="Format",
        description="human, json (one object a line), or auto: human on a terminal, else json.",
    )


class InferenceConfig(Section):
    """How the model is run."""

    threads: Annotated[StrictInt, Field(ge=1, le=64)] = Field(
        default=1, title="Threads", description="Processor threads the model may use."
    )


class Config(Section):
    """Configuration of leadone."""

    database: DatabaseUrl = Field(
        default=SecretStr("sqlite:////var/lib/leadone/leadone.db"),
        title="Database",
        description="SQLite or PostgreSQL URL, or {env: VARIABLE} or {file: PATH} that has it.",
    )
    bundle: Text | None = Field(
        default=None,
        title="Model bundle",
        description="Name of a shipped bundle or path of one; by default the shipped one.",
    )
    window: WindowConfig = Field(
        default_factory=WindowConfig,
        title="Windows",
        description="How the signal is cut into windows.",
    )
    patients: Annotated[tuple[PatientConfig, ...], not_empty] = Field(
        title="Patients", description="Whose hearts are watched."
    )
    sources: tuple[SourceConfig, ...] = Field(
        default=(),
        title="Sources",
        description="Where their signals come from, beside the chest straps that are paired.",
    )
    mqtt: MqttConfig | None = Field(
        default=None,
        title="MQTT",
        description="A broker that ECG comes from, and that is told what is seen.",
    )
    alarms: AlarmsConfig = Field(
        default_factory=AlarmsConfig,
        title="Alarms",
        description="Who is told of alarms, how, and when.",
    )
    log: LogConfig = Field(
        default_factory=LogConfig, title="Log", description="What is logged, and how it looks."
    )
    inference: InferenceConfig = Field(
        default_factory=InferenceConfig, title="Inference", description="How the model is run."
    )

    @property
    def names(self) -> dict[str, str | None]:
        """Names for people by patient id, None where there is none."""
        return {patient.id: patient.name for patient in self.patients}

    @property
    def emergency_notes(self) -> dict[str, str]:
        """What whoever comes to help must know, by patient id."""
        notes = {patient.id: patient.emergency_note for patient in self.patients}
        return {patient: note for patient, note in notes.items() if note is not None}

    @property
    def private_names(self) -> frozenset[str]:
        """Names that must not be logged: all but those that are also an id, which is logged."""
        ids = {patient.id.casefold() for patient in self.patients}
        names = {patient.name for patient in self.patients if patient.name is not None}
        return frozenset(name for name in names if name.strip().casefold() not in ids)

    @model_validator(mode="after")
    def _check_together(self) -> Self:
        """Check what two places of the file say of each other, and report all of it at once."""
        problems: list[tuple[str, str]] = []
        if self.window.hop > self.window.length:
            text = f"must be at most the window's length, {self.window.length:g} s"
            problems.append(("window.hop", text))
        ids: dict[str, int] = {}
        for i, patient in enumerate(self.patients):
            if patient.id in ids:
                first = f"patients[{ids[patient.id]}]"
                problems.append((f"patients[{i}].id", f"is already the id of {first}"))
            ids.setdefault(patient.id, i)
            problems.extend(
                (f"patients[{i}].alarms.{key}", text)
                for key, text in _impossible_limits(patient.alarms, self.window.length)
            )
        problems.extend(
            (f"alarms.rules.{key}", text)
            for key, text in _impossible_limits(self.alarms.rules, self.window.length)
        )
        streams: dict[tuple[str, str], int] = {}
        for i, source in enumerate(self.sources):
            if source.patient not in ids:
                hint = suggest(source.patient, ids)
                problems.append((f"sources[{i}].patient", f"no patient has this id{hint}"))
            stream = (source.patient, source.device)
            if stream in streams:
                problems.append(
                    (f"sources[{i}].device", f"is already the device of sources[{streams[stream]}]")
                )
            streams.setdefault(stream, i)
        contacts = {contact.name for contact in self.alarms.contacts}
        problems += [
            (
                f"patients[{i}].alarms.contacts[{j}]",
                f"no contact has this name{suggest(name, contacts)}",
            )
            for i, patient in enumerate(self.patients)
            for j, name in enumerate(patient.alarms.contacts or ())
            if name not in contacts
        ]
        for i, topic in enumerate(self.mqtt.topics if self.mqtt else ()):
            if topic.patient is not None and topic.patient not in ids:
                hint = suggest(topic.patient, ids)
                problems.append((f"mqtt.topics[{i}].patient", f"no patient has this id{hint}"))
        if problems:
            raise InconsistentError(problems)
        return self


def _impossible_limits(alarms: RulesConfig, length_s: float) -> list[tuple[str, str]]:
    problems = []
    low = -math.inf if alarms.rate.low is None else alarms.rate.low
    high = math.inf if alarms.rate.high is None else alarms.rate.high
    if low >= high:
        problems.append(("rate.low", f"must be less than high, {high:g}"))
    if alarms.pause is not None and alarms.pause >= length_s:
        text = f"must be shorter than a window, {length_s:g} s, or it is never seen"
        problems.append(("pause", text))
    return problems
