"""``leadone publish``: recordings played to an MQTT broker as a device would send them.

Also the load generator: ``--copies N`` plays them for as many patients at once.
"""

import asyncio
import json
import math
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import structlog
from pydantic import TypeAdapter, ValidationError

from ingest.chunk import Chunk, Stream
from ingest.recordings import Recording, read_recording
from ingest.replay import ReplaySource
from monitor.brokers import broker_of
from monitor.cli.errors import CommandError, MisuseError
from monitor.cli.times import seconds
from monitor.config.mqtt import MqttConfig
from monitor.config.problems import explain as explain_problems
from monitor.config.values import Identifier
from monitor.stopping import stop_on_signals

if TYPE_CHECKING:
    from paho.mqtt.client import Client
    from paho.mqtt.reasoncodes import ReasonCode

    from ingest.mqtt.broker import Broker

_log = structlog.get_logger()

# What Mosquitto takes at once by default (max_inflight_messages). While the broker is away, playing
# waits with this many in hand, and catches up when it is back.
_IN_FLIGHT = 20
_ANSWER_S = 10.0
# How long Ctrl-C still waits for what is in flight.
_FAREWELL_S = 3.0

_OPTIONS = {
    "mqtt.url": "--url",
    "mqtt.username": "--username",
    "mqtt.password": "--password-file",
    "mqtt.ca": "--ca",
    "mqtt.certificate": "--cert",
    "mqtt.key": "--key",
}

Form = Literal["json", "cbor"]


@dataclass(frozen=True, slots=True)
class Access:
    """Where the broker is, and what it wants to see.

    Attributes:
        url: ``mqtt://HOST[:PORT]`` or ``mqtts://HOST[:PORT]``.
        username: None where the broker asks for none.
        password_file: file that holds the password and nothing else.
        ca: certificate of whoever signed the broker's; by default the system's.
        certificate: this client's own, with ``key``.
        key: the private key of ``certificate``.
    """

    url: str
    username: str | None = None
    password_file: Path | None = None
    ca: Path | None = None
    certificate: Path | None = None
    key: Path | None = None


@dataclass(frozen=True, slots=True)
class Playing:
    """What is played, and how.

    Attributes:
        records: paths of the recordings, played one after the other.
        patient: whose they are said to be.
        device: name of the device that is played.
        copies: for how many patients at once; where it is more than one, they are called
            ``patient-1`` and on, their devices ``device-1`` and on.
        speed: how many times faster than recorded.
        lead: which lead; by default lead I, or the first where there is none.
        form: how messages are written.
        chunk: length of a message as people type it: ``1s``.
    """

    records: Sequence[Path]
    patient: str
    device: str
    copies: int = 1
    speed: float = 1.0
    lead: str | None = None
    form: Form = "json"
    chunk: str = "1s"


def publish_records(access: Access, playing: Playing) -> None:
    """Play until the recordings end and the broker has taken everything, or until Ctrl-C.

    Raises:
        MisuseError: if an option makes no sense.
        CommandError: if the broker cannot be reached, or does not take what is sent.
        RecordingError: if a recording cannot be read or has no such lead.
    """
    chunk_s = seconds(playing.chunk, "--chunk")
    if not chunk_s > 0:
        raise MisuseError("--chunk: must be more than 0")
    streams = _streams(playing)
    broker = _broker(access, f"{playing.patient}-{playing.device}")
    recordings = [read_recording(record) for record in playing.records]
    for recording in recordings:
        recording.lead_index(playing.lead or recording.default_lead())
    asyncio.run(_run(_Link(broker), streams, playing, recordings, chunk_s))


def encode(chunk: Chunk, form: Form) -> bytes:
    """A chunk as a message of ``docs/schema/ecg-message.json``, rounded to 0.1 µV."""
    rounded: list[float] = chunk.microvolts.astype(np.float64).round(1).tolist()
    message = {
        "t0": chunk.start_ns,
        "fs": int(chunk.rate) if float(chunk.rate).is_integer() else chunk.rate,
        "unit": "uV",
        "seq": chunk.sequence,
        # JSON has no NaN: what is missing is null.
        "samples": [None if math.isnan(value) else value for value in rounded],
    }
    if form == "json":
        return json.dumps(message, separators=(",", ":"), allow_nan=False).encode()
    import cbor2  # noqa: PLC0415 - only those who want it wait for it

    return cbor2.dumps(message)


def _streams(playing: Playing) -> list[Stream]:
    names = [(playing.patient, playing.device)]
    if playing.copies > 1:
        names = [
            (f"{playing.patient}-{n}", f"{playing.device}-{n}")
            for n in range(1, playing.copies + 1)
        ]
    identifier: TypeAdapter[str] = TypeAdapter(Identifier)
    # The last is the longest.
    for option, name in zip(("--patient", "--device"), names[-1], strict=True):
        try:
            identifier.validate_python(name)
        except ValidationError as error:
            raise MisuseError(f"{option}: {error.errors()[0]['msg']}") from None
    return [Stream(*name) for name in names]


def _broker(access: Access, client_id: str) -> "Broker":
    password = None if access.password_file is None else {"file": str(access.password_file)}
    given = {
        "url": access.url,
        "username": access.username,
        "password": password,
        "ca": access.ca,
        "certificate": access.certificate,
        "key": access.key,
    }
    try:
        mqtt = MqttConfig.model_validate({k: v for k, v in given.items() if v is not None})
    except ValidationError as error:
        problems = explain_problems(error, MqttConfig.model_json_schema())
        raise MisuseError("\n".join(map(_as_option, problems))) from None
    return replace(broker_of(mqtt), client_id=client_id)


def _as_option(problem: str) -> str:
    key, separator, rest = problem.partition(":")
    return f"{_OPTIONS.get(f'mqtt.{key}', key)}{separator}{rest}"


def _for_people(text: str) -> str:
    """What is said in terms of the configuration, in terms of the command."""
    for key, option in _OPTIONS.items():
        text = text.replace(key, option)
    return text


async def _run(
    link: "_Link",
    streams: Sequence[Stream],
    playing: Playing,
    recordings: Sequence[Recording],
    chunk_s: float,
) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    stop_on_signals(stop)
    began = loop.time()
    work = asyncio.create_task(_send_all(link, streams, playing, recordings, chunk_s))
    stopped = asyncio.create_task(stop.wait())
    try:
        await asyncio.wait({work, stopped}, return_when=asyncio.FIRST_COMPLETED)
        if work.done():
            work.result()
        else:
            work.cancel()
            with suppress(TimeoutError):
                async with asyncio.timeout(_FAREWELL_S):
                    await link.drained()
    finally:
        work.cancel()
        stopped.cancel()
        await asyncio.gather(work, stopped, return_exceptions=True)
        await asyncio.to_thread(link.close)
    took_s = loop.time() - began
    sys.stdout.write(f"{link.messages} messages, {link.samples} samples, {took_s:.1f} s\n")
    if link.unacknowledged:
        raise CommandError(f"{link.unacknowledged} more messages were not acknowledged")


async def _send_all(
    link: "_Link",
    streams: Sequence[Stream],
    playing: Playing,
    recordings: Sequence[Recording],
    chunk_s: float,
) -> None:
    await link.connect()
    try:
        async with asyncio.TaskGroup() as devices:
            for i, stream in enumerate(streams):
                # Devices do not all speak at the same moment.
                delay_s = i / len(streams) * chunk_s / playing.speed
                devices.create_task(_play(link, stream, playing, recordings, chunk_s, delay_s))
    except ExceptionGroup as group:
        # What stops one stops them all.
        raise group.exceptions[0] from None
    await link.drained()


async def _play(
    link: "_Link",
    stream: Stream,
    playing: Playing,
    recordings: Sequence[Recording],
    chunk_s: float,
    delay_s: float,
) -> None:
    """Play one device: from now on; faster than life, it is dated back so as to end now."""
    await asyncio.sleep(delay_s)
    whole_s = sum(recording.duration_s for recording in recordings)
    start_ns = time.time_ns() - round(max(0.0, whole_s - whole_s / playing.speed) * 1e9)
    # Not 0, or a second run would look like the first one sent again.
    sequence = start_ns // 1_000_000_000
    topic = f"leadone/v1/{stream.patient}/{stream.device}/ecg"
    for recording in recordings:
        source = ReplaySource(
            recording,
            stream,
            lead=playing.lead,
            speed=playing.speed,
            start_ns=start_ns,
            chunk_s=chunk_s,
        )
        async for chunk in source.chunks():
            message = encode(replace(chunk, sequence=sequence), playing.form)
            await link.send(topic, message, len(chunk.microvolts))
            sequence += 1
        start_ns += round(recording.duration_s * 1e9)


class _Link:
    """Sends with QoS 1, a bounded number at a time, and outlives the broker's absences.

    Attributes:
        messages: how many the broker has acknowledged.
        samples: how many were in those.
    """

    def __init__(self, broker: "Broker") -> None:
        self.messages = 0
        self.samples = 0
        self._broker = broker
        self._where = str(broker)
        self._client: Client | None = None
        self._answer: asyncio.Future[ReasonCode]  # to the first attempt to connect
        self._stood = False
        self._sent: dict[int, tuple[str, int]] = {}  # topic and samples, by message id
        self._room = asyncio.Semaphore(_IN_FLIGHT)
        self._idle = asyncio.Event()
        self._idle.set()
        self._refused: str | None = None

    @property
    def unacknowledged(self) -> int:
        """How many messages were sent and not yet taken."""
        return len(self._sent)

    async def connect(self) -> None:
        """Connect, or say why not; whenever the connection breaks later, that is waited out.

        Raises:
            CommandError: the broker cannot be reached, or does not let us in.
        """
        from ingest.mqtt.broker import BrokerError, connect, explain, make_client  # noqa: PLC0415

        loop = asyncio.get_running_loop()
        self._answer = loop.create_future()
        try:
            client = make_client(self._broker, persistent=False, manual_ack=False)
        except BrokerError as error:
            raise CommandError(_for_people(str(error))) from None
        self._listen(client, loop)
        self._client = client
        try:
            await asyncio.to_thread(connect, client, self._broker, persistent=False)
            client.loop_start()
            async with asyncio.timeout(_ANSWER_S):
                code = await self._answer
        except (OSError, ValueError) as error:
            raise CommandError(f"{self._where}: {_for_people(explain(error))}") from None
        if code.is_failure:
            raise CommandError(f"{self._where}: {_for_people(explain(code))}")
        self._stood = True

    async def send(self, topic: str, payload: bytes, samples: int) -> None:
        """Send a message as soon as there is room for it.

        Raises:
            CommandError: the broker refused an earlier one.
        """
        await self._room.acquire()
        self._check()
        assert self._client is not None
        # Without a connection paho keeps it; what is not acknowledged is sent when it is back.
        sent = self._client.publish(topic, payload, qos=1)
        self._sent[sent.mid] = topic, samples
        self._idle.clear()

    async def drained(self) -> None:
        """Wait until everything is acknowledged.

        Raises:
            CommandError: the broker refused a message.
        """
        await self._idle.wait()
        self._check()

    def close(self) -> None:
        """Disconnect, and wait for paho's thread."""
        if self._client is not None:
            self._client.disconnect()
            self._client.loop_stop()

    def _listen(self, client: "Client", loop: asyncio.AbstractEventLoop) -> None:
        """Bring what paho calls from a thread of its own to the event loop."""

        def on_connect(
            _: object, __: object, ___: object, code: "ReasonCode", ____: object
        ) -> None:
            loop.call_soon_threadsafe(self._connected, code)

        def on_disconnect(
            _: object, __: object, ___: object, code: "ReasonCode", ____: object
        ) -> None:
            loop.call_soon_threadsafe(self._disconnected, code)

        def on_publish(_: object, __: object, mid: int, code: "ReasonCode", ___: object) -> None:
            loop.call_soon_threadsafe(self._acknowledged, mid, code)

        client.on_connect = on_connect
        client.on_disconnect = on_disconnect
        client.on_publish = on_publish

    def _connected(self, code: "ReasonCode") -> None:
        from ingest.mqtt.broker import explain  # noqa: PLC0415

        if not self._answer.done():
            self._answer.set_result(code)
        elif self._stood and code.is_failure:
            reason = _for_people(explain(code))
            _log.warning("broker refuses", broker=self._where, reason=reason)
        elif self._stood:
            _log.warning("broker is back", broker=self._where)

    def _disconnected(self, code: "ReasonCode") -> None:
        if not self._answer.done():
            self._answer.set_exception(ConnectionResetError())
        elif self._stood and code.is_failure:
            _log.warning("broker is away, waiting for it", broker=self._where)

    def _acknowledged(self, mid: int, code: "ReasonCode") -> None:
        from ingest.mqtt.broker import explain  # noqa: PLC0415

        topic, samples = self._sent.pop(mid)
        if code.is_failure:
            self._refused = f"{topic}: {_for_people(explain(code))}"
        else:
            self.messages += 1
            self.samples += samples
        if not self._sent:
            self._idle.set()
        self._room.release()

    def _check(self) -> None:
        if self._refused is not None:
            raise CommandError(self._refused)
