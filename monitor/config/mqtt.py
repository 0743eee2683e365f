"""The ``mqtt:`` section: one broker, for ECG that comes in and for what the house is told."""

import math
from pathlib import Path
from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, StrictInt, model_validator
from pydantic_core import PydanticCustomError

from ingest.mqtt.payload import Mapping
from ingest.mqtt.topics import TopicMap
from monitor.config.problems import InconsistentError
from monitor.config.section import Section
from monitor.config.values import Identifier, Number, Seconds, Secret, Text, between, not_empty

_PORTS = {"mqtt": 1883, "mqtts": 8883}


def _url(value: str) -> str:
    try:
        parts = urlsplit(value)
        usable = parts.scheme in _PORTS and parts.hostname and parts.port != 0
    except ValueError:  # a port that is no number
        usable = False
    if not usable:
        raise PydanticCustomError(
            "url", "expected mqtt://HOST or mqtts://HOST, with :PORT if it is not 1883 or 8883"
        )
    if parts.username is not None or parts.path not in ("", "/") or parts.query:
        raise PydanticCustomError(
            "url", "only host and port; user and password have keys of their own"
        )
    return value


def _protocol(value: object) -> object:
    # YAML reads the one as a number and the other as text.
    return "5" if value == 5 and not isinstance(value, bool) else value


def _unit(value: object) -> object:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if value in ("uV", "mV", "V") or (number and 0 < float(str(value)) < math.inf):
        return value
    raise PydanticCustomError("unit", "expected uV, mV, V, or the microvolts of one count")


class TopicConfig(Section):
    """A topic to listen to, and how its messages are written."""

    topic: Text = Field(
        title="Topic",
        description="Where ECG comes in; {patient} and {device} stand for one level each.",
    )
    patient: Identifier | None = Field(
        default=None, title="Patient", description="Whose it is, where the topic does not say."
    )
    device: Identifier | None = Field(
        default=None, title="Device", description="Its name, where the topic does not say."
    )
    format: Literal["auto", "json", "cbor"] = Field(
        default="auto",
        title="Format",
        description="json, cbor, or auto: JSON if it begins with a brace, else CBOR.",
    )
    fields: dict[Literal["samples", "t0", "fs", "unit", "seq", "contact", "battery"], Text] = Field(
        default_factory=dict,
        title="Fields",
        description="Where the payload has what, as dotted paths; else by its usual name.",
    )
    fs: Annotated[Number, Field(gt=0, le=10_000)] | None = Field(
        default=None,
        title="Sample rate (Hz)",
        description="Samples per second, where the payload does not say.",
    )
    unit: Annotated[Literal["uV", "mV", "V"] | float, BeforeValidator(_unit)] | None = Field(
        default=None,
        title="Unit",
        description="uV, mV, V or microvolts per count, where the payload does not say.",
    )
    time: Literal["iso", "ns", "ms", "s"] | None = Field(
        default=None,
        title="Time",
        description="How t0 is written: iso text, or ns, ms, s since 1970; by default iso or ns.",
    )

    @model_validator(mode="after")
    def _usable(self) -> Self:
        try:
            self.topic_map()
        except ValueError as error:
            raise InconsistentError([("topic", str(error))]) from None
        return self

    def topic_map(self) -> TopicMap:
        """The topic as ``ingest`` takes it."""
        mapping = Mapping(
            format=self.format,
            time=self.time,
            constant_fs=self.fs,
            constant_unit=self.unit,
            **self.fields,
        )
        return TopicMap(self.topic, self.patient, self.device, mapping)


class LimitsConfig(Section):
    """What a message may be; what is beyond it is refused, counted, and shown by doctor."""

    payload: Annotated[StrictInt, Field(ge=1024, le=16 * 1024 * 1024)] = Field(
        default=262_144, title="Payload (bytes)", description="Longest payload."
    )
    samples: Annotated[StrictInt, Field(ge=1, le=1_000_000)] = Field(
        default=20_000, title="Samples", description="Most samples of one message."
    )
    rate: tuple[Annotated[Number, Field(gt=0)], Annotated[Number, Field(gt=0)]] = Field(
        default=(50.0, 1000.0),
        title="Sample rates (Hz)",
        description="Lowest and highest samples per second.",
    )
    per_second: Annotated[Number, Field(gt=0, le=1000)] = Field(
        default=20.0,
        title="Messages per second",
        description="Most messages of one device for one second of its signal.",
    )
    ahead: Annotated[Seconds, between(1, 86_400)] = Field(
        default=60.0, title="Ahead (seconds)", description="How far a time may lie in the future."
    )
    age: Annotated[Seconds, between(60, 366 * 86_400)] = Field(
        default=7 * 86_400.0,
        title="Age (seconds)",
        description="How far a time may lie in the past: what a device may have kept for later.",
    )
    devices: Annotated[StrictInt, Field(ge=1, le=1000)] = Field(
        default=8, title="Devices", description="Most devices of one patient."
    )


class MqttConfig(Section):
    """A broker."""

    url: Annotated[Text, AfterValidator(_url)] = Field(
        title="URL", description="mqtt://HOST or, encrypted, mqtts://HOST; a :PORT may follow."
    )
    protocol: Annotated[Literal["5", "3.1.1"], BeforeValidator(_protocol)] = Field(
        default="5", title="Protocol", description="MQTT version: 5 or 3.1.1."
    )
    client_id: Identifier = Field(
        default="leadone",
        title="Client id",
        description="Name of the session at the broker; no two clients may share it.",
    )
    username: Text | None = Field(default=None, title="User", description="User at the broker.")
    password: Secret | None = Field(
        default=None,
        title="Password",
        description="Its password, {env: VARIABLE} or {file: PATH} that has it.",
    )
    ca: Path | None = Field(
        default=None,
        title="CA certificate",
        description="File with the authority that signed the broker's; by default the system's.",
    )
    certificate: Path | None = Field(
        default=None, title="Client certificate", description="File; the key goes with it."
    )
    key: Path | None = Field(
        default=None, title="Client key", description="File; the certificate goes with it."
    )
    topics: Annotated[tuple[TopicConfig, ...], not_empty] = Field(
        default=(TopicConfig(topic="leadone/v1/{patient}/{device}/ecg"),),
        title="Topics",
        description="What is listened to; by default leadone/v1/{patient}/{device}/ecg.",
    )
    limits: LimitsConfig = Field(
        default_factory=LimitsConfig, title="Limits", description="What a message may be."
    )
    home_assistant: Text | None = Field(
        default="homeassistant",
        title="Home Assistant",
        description="Prefix of its discovery topics; null: no discovery.",
    )

    @property
    def host(self) -> str:
        """The broker's host name or address."""
        host = urlsplit(self.url).hostname
        assert host is not None  # it was checked
        return host

    @property
    def port(self) -> int:
        """The broker's port."""
        parts = urlsplit(self.url)
        return parts.port or _PORTS[parts.scheme]

    @property
    def tls(self) -> bool:
        """Whether the connection is encrypted."""
        return urlsplit(self.url).scheme == "mqtts"

    @property
    def secret(self) -> str | None:
        """The password."""
        return None if self.password is None else self.password.get_secret_value()

    @model_validator(mode="after")
    def _check_together(self) -> Self:
        problems = []
        if (self.certificate is None) != (self.key is None):
            missing = "key" if self.key is None else "certificate"
            problems.append((missing, "missing: certificate and key go together"))
        if not self.tls:
            problems += [
                (key, "only with mqtts://")
                for key in ("ca", "certificate", "key")
                if getattr(self, key) is not None
            ]
        if self.password is not None and self.username is None:
            problems.append(("username", "missing: a password needs one"))
        if self.limits.rate[0] >= self.limits.rate[1]:
            problems.append(("limits.rate", "the first must be less than the second"))
        if problems:
            raise InconsistentError(problems)
        return self
