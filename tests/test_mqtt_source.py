"""ECG through a real broker: taken, acknowledged when durable, and never lost."""

import asyncio
import json
import re
import shutil
import ssl
import subprocess
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cbor2
import numpy as np
import pytest
from conftest import absent
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.reasoncodes import ReasonCode
from prometheus_client import REGISTRY
from structlog.testing import capture_logs

from ingest.chunk import Chunk, Stream
from ingest.mqtt import link, order
from ingest.mqtt.admission import Admission
from ingest.mqtt.broker import Broker, BrokerError, connect, explain, make_client
from ingest.mqtt.limits import Limits
from ingest.mqtt.payload import Reason, RefusedError
from ingest.mqtt.refusals import Refusals
from ingest.mqtt.source import DeviceState, MqttSource, Rejection
from ingest.mqtt.topics import TopicMap
from ingest.mqtt.trust import Trust

if TYPE_CHECKING:
    from mosquitto import Mosquitto

pytest_plugins = ["mosquitto"]

SECOND = 10**9
TOPIC = "leadone/v1/ann/chest/ecg"
Maker = Callable[..., "Mosquitto"]
# Long enough for a busy machine; nothing waits so long that works.
PATIENCE_S = 20
# Fixed, so that the same number is the same message.
START_NS = time.time_ns() // SECOND * SECOND - 600 * SECOND


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(link, "_FIRST_PAUSE_S", 0.05)
    monkeypatch.setattr(link, "_LONGEST_PAUSE_S", 0.2)


@pytest.fixture(autouse=True)
def _threads() -> Iterator[None]:
    yield
    assert not [t.name for t in threading.enumerate() if t.name.startswith("paho")]


def ecg(seq: int | None, **change: object) -> dict[str, Any]:
    """A second of signal whose samples tell which it is."""
    number = seq or 0
    return {
        "t0": START_NS + number * SECOND,
        "fs": 100,
        "unit": "uV",
        "seq": seq,
        "samples": [number] * 100,
    } | change


def as_json(seq: int | None, **change: object) -> bytes:
    return json.dumps(ecg(seq, **change)).encode()


class Publisher:
    """A device: what it publishes at QoS 1 arrives, whatever the broker goes through meanwhile."""

    def __init__(self, server: "Mosquitto", **options: Any) -> None:
        broker = Broker("127.0.0.1", server.port, client_id="device", **options)
        self.client = make_client(broker, persistent=True, manual_ack=False)
        self.client.reconnect_delay_set(1, 1)
        self._broker = broker

    async def __aenter__(self) -> "Publisher":
        await asyncio.to_thread(connect, self.client, self._broker, persistent=True)
        self.client.loop_start()
        return self

    async def __aexit__(self, *_: object) -> None:
        self.client.disconnect()
        await asyncio.to_thread(self.client.loop_stop)

    async def send(
        self, *payloads: bytes, topic: str = TOPIC, qos: int = 1, retain: bool = False
    ) -> None:
        for payload in payloads:
            await until(self.client.is_connected)
            info = self.client.publish(topic, payload, qos, retain)
            await asyncio.to_thread(info.wait_for_publish, PATIENCE_S)
            assert info.is_published()


class Listener:
    """A daemon's place behind the source."""

    def __init__(self, server: "Mosquitto", limits: Limits, **options: Any) -> None:
        self.rejections: list[Rejection] = []
        self.states: list[DeviceState] = []
        self.chunks: list[Chunk] = []
        self.source = MqttSource(
            Broker("127.0.0.1", server.port, client_id="daemon", **options),
            [TopicMap()],
            limits,
            {"ann", "bob"},
            on_reject=self.rejections.append,
            on_device=self.states.append,
        )

    async def run(self, acknowledge: bool) -> None:
        async with aclosing(self.source.chunks()) as chunks:
            async for chunk in chunks:
                self.chunks.append(chunk)
                if acknowledge:
                    assert chunk.acknowledge is not None
                    chunk.acknowledge()

    @property
    def numbers(self) -> list[int | None]:
        return [chunk.sequence for chunk in self.chunks]


async def until(true: Callable[[], object]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not true():  # noqa: ASYNC110  # what is waited for happens elsewhere
            await asyncio.sleep(0.01)


@asynccontextmanager
async def listening(
    server: "Mosquitto",
    *,
    acknowledge: bool = True,
    connected: bool = True,
    limits: Limits | None = None,
    **options: Any,
) -> AsyncIterator[Listener]:
    listener = Listener(server, limits or Limits(), **options)
    before = server.log.count("Sending SUBACK to daemon")
    greeted = len(server.log)
    running = asyncio.create_task(listener.run(acknowledge))
    try:
        if connected:
            await until(lambda: server.log.count("Sending SUBACK to daemon") > before)
        yield listener
        assert not running.done()
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        if connected and server.process is not None:
            # Mosquitto forgets the acknowledgements it has not read when the next one connects.
            await until(lambda: "Received DISCONNECT from daemon" in server.log[greeted:])


def counted(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(name, labels) or 0.0


BOTH = pytest.mark.parametrize("protocol", ["5", "3.1.1"])


@BOTH
async def test_json_and_cbor_become_chunks(mosquitto: Maker, tmp_path: Path, protocol: str) -> None:
    server = mosquitto(tmp_path)
    async with (
        listening(server, protocol=protocol) as daemon,
        Publisher(server, protocol=protocol) as device,
    ):
        await device.send(as_json(1), cbor2.dumps(ecg(2)))
        await device.send(as_json(1), topic="leadone/v1/bob/esp32/ecg", qos=0)
        await until(lambda: len(daemon.chunks) == 3)
    one, two, other = daemon.chunks
    assert one.stream == two.stream == Stream("ann", "chest")
    assert other.stream == Stream("bob", "esp32")
    assert (one.start_ns, two.start_ns) == (START_NS + SECOND, START_NS + 2 * SECOND)
    assert one.rate == 100.0
    np.testing.assert_array_equal(two.microvolts, np.full(100, 2, np.float32))
    assert (one.sequence, one.contact, one.gap_cause) == (1, None, None)


@BOTH
async def test_a_message_comes_again_until_its_chunk_is_acknowledged(
    mosquitto: Maker, tmp_path: Path, protocol: str
) -> None:
    server = mosquitto(tmp_path)
    async with Publisher(server) as device:
        async with listening(server, acknowledge=False, protocol=protocol) as daemon:
            await device.send(as_json(1), as_json(2))
            await until(lambda: len(daemon.chunks) == 2)
            acknowledge = daemon.chunks[1].acknowledge
            assert acknowledge is not None
            acknowledge()
        await device.send(as_json(3))  # while nobody listens
        async with listening(server, protocol=protocol) as daemon:
            await until(lambda: len(daemon.chunks) >= 2)
            assert daemon.numbers == [1, 3]
            assert daemon.chunks[0].start_ns == START_NS + SECOND
        async with listening(server, protocol=protocol) as daemon:
            await device.send(as_json(4))
            await until(lambda: daemon.chunks)
            assert daemon.numbers == [4]


async def test_acknowledging_a_closed_source_does_nothing(mosquitto: Maker, tmp_path: Path) -> None:
    server = mosquitto(tmp_path)
    async with Publisher(server) as device:
        async with listening(server, acknowledge=False) as daemon:
            await device.send(as_json(1))
            await until(lambda: daemon.chunks)
        late = daemon.chunks[0].acknowledge
        assert late is not None
        late()
        async with listening(server) as daemon:
            await until(lambda: daemon.numbers == [1])


@BOTH
async def test_a_broker_that_dies_loses_nothing(
    mosquitto: Maker, tmp_path: Path, protocol: str
) -> None:
    server = mosquitto(tmp_path)
    async with (
        listening(server, protocol=protocol) as daemon,
        Publisher(server, protocol=protocol) as device,
    ):
        for seq in range(60):
            device.client.publish(TOPIC, as_json(seq), 1)
            await asyncio.sleep(0.005)
            if seq in (20, 40):
                await asyncio.to_thread(server.kill)
                await asyncio.to_thread(server.start)
        await until(lambda: set(daemon.numbers) >= set(range(60)))
    assert daemon.numbers == list(range(60))  # once each, and in order
    for chunk in daemon.chunks:
        assert chunk.start_ns == START_NS + (chunk.sequence or 0) * SECOND
        assert np.all(chunk.microvolts == chunk.sequence)
        assert chunk.gap_cause is None


@BOTH
async def test_what_is_delivered_again_is_answered_by_the_first_chunk(
    mosquitto: Maker, tmp_path: Path, protocol: str
) -> None:
    server = mosquitto(tmp_path)
    async with Publisher(server) as device:
        async with listening(server, acknowledge=False, protocol=protocol) as daemon:
            await device.send(as_json(1), as_json(2))
            await until(lambda: len(daemon.chunks) == 2)
            repeated = counted("leadone_mqtt_messages_repeated_total")
            await asyncio.to_thread(server.stop)
            await asyncio.to_thread(server.start)
            await until(lambda: counted("leadone_mqtt_messages_repeated_total") == repeated + 2)
            for chunk in daemon.chunks:
                assert chunk.acknowledge is not None
                chunk.acknowledge()
            assert daemon.numbers == [1, 2]
            await until(lambda: server.log.count("Received PUBACK from daemon") == 2)
        async with listening(server, protocol=protocol) as daemon:
            await device.send(as_json(3))
            await until(lambda: daemon.chunks)
            assert daemon.numbers == [3]


async def test_a_daemon_that_starts_before_its_broker_waits_for_it(
    mosquitto: Maker, tmp_path: Path
) -> None:
    server = mosquitto(tmp_path)
    server.stop()
    with capture_logs() as logs:
        async with listening(server, connected=False) as daemon:
            await asyncio.sleep(0.5)  # several tries
            server.start()
            async with Publisher(server) as device:
                await until(lambda: "SUBACK to daemon" in server.log)
                await device.send(as_json(1))
                await until(lambda: daemon.chunks)
    told = [entry for entry in logs if entry["event"] == "no connection to the MQTT broker"]
    assert [entry["cause"] for entry in told] == [
        "connection refused: no broker listens at mqtt.url"
    ]
    assert sum(entry["event"] == "connected to the MQTT broker" for entry in logs) == 1


async def test_refused_messages_are_told_once_and_stall_nobody(
    mosquitto: Maker, tmp_path: Path
) -> None:
    server = mosquitto(tmp_path)
    names = [reason.value for reason in Reason]
    before = {n: counted("leadone_mqtt_messages_refused_total", reason=n) for n in names}
    async with Publisher(server) as device:
        await device.send(as_json(1), retain=True)
        with capture_logs() as logs:
            async with listening(server, limits=Limits(payload=5000)) as daemon:
                await device.send(b"hello \x1b[2J", as_json(2, fs="fast"), b"{" + b" " * 10**7)
                await device.send(as_json(3), topic="leadone/v1/eve/chest/ecg")
                await device.send(as_json(3), topic="leadone/v1/ann/ä b/ecg")
                await device.send(as_json(3, t0=START_NS - 8 * 86400 * SECOND))
                await device.send(*[b"again"] * 10, as_json(4))
                await until(lambda: daemon.chunks)
        assert daemon.numbers == [4]
        after = {n: counted("leadone_mqtt_messages_refused_total", reason=n) for n in names}
        assert {n: after[n] - before[n] for n in names if after[n] != before[n]} == {
            "retained": 1,
            "format": 11,
            "rate": 1,
            "size": 1,
            "patient": 1,
            "device": 1,
            "time": 1,
        }
        told = [entry["reason"] for entry in logs if entry["event"] == "MQTT message refused"]
        assert told == ["retained", "format", "rate", "size", "patient", "device", "time"]
        assert [r.reason.value for r in daemon.rejections] == told
        size = daemon.rejections[3]
        assert size.topic == TOPIC
        assert size.excerpt == b"{" + b" " * 1023
        assert daemon.rejections[1].excerpt == b"hello \x1b[2J"
        # they were answered, and do not come again
        async with listening(server) as daemon:
            await device.send(as_json(5))
            await until(lambda: daemon.chunks)
        assert daemon.numbers == [5]
        assert [r.reason for r in daemon.rejections] == [Reason.RETAINED]


async def test_a_gap_is_accepted_though_nothing_more_comes(
    mosquitto: Maker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(order, "PATIENCE_NS", SECOND // 5)
    server = mosquitto(tmp_path)
    async with listening(server) as daemon, Publisher(server) as device:
        await device.send(as_json(1), as_json(4), as_json(3))
        await until(lambda: len(daemon.chunks) == 3)
    assert daemon.numbers == [1, 3, 4]
    assert [chunk.gap_cause for chunk in daemon.chunks] == [None, "message lost, seq 2", None]


async def test_contact_and_battery_are_told_when_they_change(
    mosquitto: Maker, tmp_path: Path
) -> None:
    server = mosquitto(tmp_path)
    async with listening(server) as daemon, Publisher(server) as device:
        await device.send(
            as_json(1),
            as_json(2, contact=True, battery=80),
            as_json(3, contact=True, battery=80),
            as_json(4),
            as_json(5, contact=False),
        )
        await until(lambda: len(daemon.chunks) == 5)
    chest = Stream("ann", "chest")
    assert daemon.states == [
        DeviceState(chest, True, 80, START_NS + 2 * SECOND),
        DeviceState(chest, False, 80, START_NS + 5 * SECOND),
    ]
    assert [chunk.contact for chunk in daemon.chunks] == [None, True, True, None, False]


async def test_beyond_the_bound_only_messages_of_qos_0_are_dropped(
    mosquitto: Maker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(link, "_WAITING", 10)
    server = mosquitto(tmp_path)
    listener = Listener(server, Limits())
    dropped = counted("leadone_mqtt_messages_dropped_total")
    async with Publisher(server) as device, aclosing(listener.source.chunks()) as chunks:
        first = asyncio.ensure_future(anext(chunks))
        await until(lambda: "SUBACK to daemon" in server.log)
        await device.send(as_json(0))
        await first
        # now nothing takes them
        await device.send(*[as_json(seq) for seq in range(1, 31)], qos=0)
        await until(lambda: counted("leadone_mqtt_messages_dropped_total") == dropped + 20)
        await device.send(as_json(31), as_json(32))
        await until(lambda: server.log.count("Sending PUBLISH to daemon") == 33)
        async with asyncio.timeout(PATIENCE_S):
            numbers = [(await anext(chunks)).sequence for _ in range(12)]
    assert numbers == [*range(1, 11), 31, 32]


async def test_a_subscription_that_the_broker_refuses_is_told_and_tried_again(
    mosquitto: Maker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Mosquitto grants every subscription and then sends nothing; others refuse it.
    server = mosquitto(tmp_path)
    monkeypatch.setattr(link, "_CARE_S", 0.05)
    monkeypatch.setattr(link, "_ASK_AGAIN_S", 0.1)
    answers = iter([ReasonCode(PacketTypes.SUBACK, "Not authorized")] * 2)
    granted = link._Connection._on_subscribe

    def refused(self: Any, client: Any, data: Any, mid: int, reasons: Any, more: Any) -> None:
        granted(self, client, data, mid, [next(answers, reasons[0])], more)

    monkeypatch.setattr(link._Connection, "_on_subscribe", refused)
    with capture_logs() as logs:
        async with listening(server):
            await until(lambda: server.log.count("Sending SUBACK to daemon") >= 3)
            asked = 0
            async with asyncio.timeout(PATIENCE_S):
                while (now := server.log.count("Sending SUBACK to daemon")) != asked:
                    asked = now
                    await asyncio.sleep(0.5)
    (error,) = [entry for entry in logs if entry["log_level"] == "error"]
    assert error["event"] == "the MQTT broker does not let us read a topic"
    assert error["topic"] == "leadone/v1/+/+/ecg"


async def test_another_client_with_the_same_name_is_told(mosquitto: Maker, tmp_path: Path) -> None:
    server = mosquitto(tmp_path)
    with capture_logs() as logs:
        async with listening(server, connected=False), listening(server, connected=False):
            await until(lambda: any("same mqtt.client_id" in e.get("cause", "") for e in logs))


# What goes wrong on the way to a broker.


def openssl(folder: Path, *arguments: str) -> None:
    subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True)


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two authorities, and what the first has signed; ``expired`` and ``elsewhere`` are flawed."""
    if shutil.which("openssl") is None:
        absent("the command openssl")
    folder = tmp_path_factory.mktemp("certificates")
    new = ("req", "-newkey", "rsa:2048", "-nodes")
    for name in ("ca", "other"):
        openssl(
            folder,
            *(*new, "-x509", "-days", "30", "-subj", f"/CN={name}"),
            *("-keyout", f"{name}.key", "-out", f"{name}.crt"),
        )
    for name, where, days in (
        ("server", "IP:127.0.0.1,DNS:localhost", "30"),
        ("expired", "IP:127.0.0.1", "-1"),
        ("elsewhere", "DNS:broker.example", "30"),
        ("client", "DNS:client", "30"),
        ("oldca", "DNS:old", "-1"),
    ):
        authority = "CA:TRUE" if name == "oldca" else "CA:FALSE"
        (folder / "extensions").write_text(
            f"subjectAltName={where}\nbasicConstraints={authority}\n", encoding="ascii"
        )
        openssl(
            folder, *new, "-subj", f"/CN={name}", "-keyout", f"{name}.key", "-out", f"{name}.csr"
        )
        openssl(
            folder,
            *("x509", "-req", "-in", f"{name}.csr", "-CA", "ca.crt", "-CAkey", "ca.key"),
            *("-days", days, "-CAcreateserial", "-extfile", "extensions", "-out", f"{name}.crt"),
        )
    lock = ("rsa", "-aes256", "-passout", "pass:x")
    openssl(folder, *lock, "-in", "client.key", "-out", "locked.key")
    return folder


def tls(folder: Path, name: str = "server", extra: str = "") -> str:
    return f"certfile {folder}/{name}.crt\nkeyfile {folder}/{name}.key\n{extra}"


async def cause(server: "Mosquitto", **options: Any) -> str:
    """What is logged of a connection that cannot be made."""
    options = {"host": "127.0.0.1", "port": server.port, "client_id": "daemon"} | options
    broker = Broker(**options)
    source = MqttSource(broker, [TopicMap()], Limits(), {"ann"}, on_reject=print, on_device=print)
    with capture_logs() as logs:
        async with aclosing(source.chunks()) as chunks:
            first = asyncio.ensure_future(anext(chunks))
            await until(lambda: logs)
            first.cancel()
            await asyncio.gather(first, return_exceptions=True)
    assert len(logs) == 1, logs
    assert logs[0]["event"] == "no connection to the MQTT broker"
    assert "s3cret" not in str(logs)
    said: str = logs[0]["cause"]
    return said


async def test_with_tls_and_a_certificate_of_ours(
    mosquitto: Maker, tmp_path: Path, certificates: Path
) -> None:
    ours = {
        "tls": True,
        "ca": certificates / "ca.crt",
        "certificate": certificates / "client.crt",
        "key": certificates / "client.key",
    }
    extra = f"cafile {certificates}/ca.crt\nrequire_certificate true"
    server = mosquitto(tmp_path, tls(certificates, extra=extra))
    async with listening(server, **ours) as daemon, Publisher(server, **ours) as device:
        await device.send(*[as_json(seq, samples=[seq] * 10_000) for seq in range(20)])
        await until(lambda: len(daemon.chunks) == 20)
    assert "certificate of ours" in await cause(server, tls=True, ca=certificates / "ca.crt")


@pytest.mark.parametrize(
    ("certificate", "ca", "expected"),
    [
        ("server", "other", "the broker's certificate is signed by an authority that mqtt.ca does"),
        ("server", None, "the broker's certificate is signed by an authority that mqtt.ca does"),
        ("expired", "ca", "the broker's certificate has expired"),
        ("elsewhere", "ca", "the broker's certificate is for another address than"),
    ],
)
async def test_a_certificate_that_does_not_hold(
    mosquitto: Maker,
    tmp_path: Path,
    certificates: Path,
    certificate: str,
    ca: str | None,
    expected: str,
) -> None:
    server = mosquitto(tmp_path, tls(certificates, certificate))
    said = await cause(server, tls=True, ca=ca and certificates / f"{ca}.crt")
    assert said.startswith(expected)


async def test_a_certificate_for_another_name(
    mosquitto: Maker, tmp_path: Path, certificates: Path
) -> None:
    server = mosquitto(tmp_path, tls(certificates, "elsewhere"))
    said = await cause(server, host="localhost", tls=True, ca=certificates / "ca.crt")
    assert "another host name" in said


async def test_encrypted_and_plain_do_not_meet(
    mosquitto: Maker, tmp_path: Path, certificates: Path
) -> None:
    server = mosquitto(tmp_path / "tls", tls(certificates))
    assert "may speak TLS" in await cause(server)
    plain = mosquitto(tmp_path / "plain")
    said = await cause(plain, tls=True, ca=certificates / "ca.crt")
    assert re.search("does not speak TLS|closed the connection", said)


@BOTH
async def test_a_wrong_password_is_told(mosquitto: Maker, tmp_path: Path, protocol: str) -> None:
    users = tmp_path / "users"
    command = ["mosquitto_passwd", "-b", "-c", str(users), "leadone", "right"]
    await asyncio.to_thread(subprocess.run, command, check=True, capture_output=True)
    server = mosquitto(tmp_path, f"allow_anonymous false\npassword_file {users}")
    for user in ({"username": "leadone", "password": "s3cret"}, {}):
        said = await cause(server, protocol=protocol, **user)
        assert said.startswith("not authorized: check mqtt.username and mqtt.password")
    async with listening(server, protocol=protocol, username="leadone", password="right"):
        pass


async def test_a_host_that_is_not_there(mosquitto: Maker, tmp_path: Path) -> None:
    server = mosquitto(tmp_path)
    assert "no such host" in await cause(server, host="broker.invalid")
    assert "cannot be a name" in await cause(server, host="a" * 64 + ".example")
    server.stop()
    assert "connection refused" in await cause(server)


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"ca": "none.crt"}, "mqtt.ca: '{}/none.crt' cannot be read: No such file or directory"),
        ({"ca": "ca.key"}, "mqtt.ca: '{}/ca.key' is not a certificate in PEM"),
        ({"ca": "oldca.crt"}, "mqtt.ca: the certificate in '{}/oldca.crt' expired on "),
        (
            {"certificate": "none.crt", "key": "client.key"},
            "mqtt.certificate: '{}/none.crt'",
        ),
        (
            {"certificate": "client.crt", "key": "none.key"},
            "mqtt.key: '{}/none.key' cannot",
        ),
        ({"certificate": "client.crt", "key": "ca.key"}, "mqtt.key: '{}/ca.key' is not the key"),
        ({"certificate": "client.csr", "key": "ca.key"}, "mqtt.key: '{}/ca.key' is not a key and"),
        ({"certificate": "client.crt", "key": "locked.key"}, "mqtt.key: the key is locked"),
    ],
)
def test_a_file_that_cannot_be_used(
    certificates: Path, files: dict[str, str], expected: str
) -> None:
    broker = Broker("h", 1, tls=True, **{k: certificates / f for k, f in files.items()})
    with pytest.raises(BrokerError) as caught:
        make_client(broker, persistent=True, manual_ack=True)
    assert str(caught.value).startswith(expected.format(certificates))
    assert explain(caught.value).startswith(expected.format(certificates)[:100])


def test_a_password_is_not_shown() -> None:
    assert "s3cret" not in repr(Broker("h", 1, password="s3cret"))


@pytest.mark.parametrize(
    ("trouble", "expected"),
    [
        (TimeoutError("timed out"), "no answer in time"),
        (OSError(113, "No route to host"), "No route to host"),
        (ConnectionResetError(104, "reset"), "the broker closed the connection"),
        (ssl.SSLError(1, "[SSL: TLSV1_ALERT_UNKNOWN_CA] tlsv1 alert unknown ca"), "does not know"),
        (ssl.SSLError(1, "[SSL: SSLV3_ALERT_CERTIFICATE_EXPIRED] x"), "ours.*expired|expired"),
        (ssl.SSLError(1, "[SSL: SSLV3_ALERT_BAD_CERTIFICATE] x"), "refuses our certificate"),
        ("failed to receive on socket: [Errno 113] No\nroute", r"\] No route"),
        (OSError(), "OSError"),
    ],
)
def test_troubles_are_explained_in_a_line(trouble: BaseException | str, expected: str) -> None:
    said = explain(trouble)
    assert re.search(expected, said)
    assert said.isprintable()


# Who is let in, without a broker.


class Door:
    def __init__(self, **limits: Any) -> None:
        self.now_ns = 0
        self.left: list[Stream] = []
        self.synchronised = True
        self.behind_s = 0.0
        self.admission = Admission(
            [TopicMap()],
            Limits(**limits),
            {"ann", "bob"},
            self.left.append,
            Trust(60.0, lambda: self.synchronised),
        )

    def knock(
        self, device: str, payload: bytes, *, patient: str = "ann", again: bool = False
    ) -> str:
        try:
            self.admission.admit(
                f"leadone/v1/{patient}/{device}/ecg",
                payload,
                retained=False,
                again=again,
                utc_ns=START_NS - round(self.behind_s * SECOND),
                now_ns=self.now_ns,
            )
        except RefusedError as error:
            return error.reason.value
        return "taken"


def test_the_first_refusal_of_each_reason_is_told_and_one_a_minute() -> None:
    told: list[Rejection] = []
    refusals = Refusals(told.append)
    with capture_logs() as logs:
        for now_s, reason in (
            *((0, Reason.SIZE), (1, Reason.SIZE), (2, Reason.RATE), (59, Reason.SIZE)),
            *((60, Reason.SIZE), (61, Reason.SIZE)),
        ):
            error = RefusedError(reason, "too\x1bmuch")
            refusals.refuse(error, "a\nb", b"x" * 2000, at_ns=now_s, now_ns=now_s * SECOND)
    assert [(r.at_ns, r.reason) for r in told] == [
        (0, Reason.SIZE),
        (2, Reason.RATE),
        (60, Reason.SIZE),
    ]
    assert [entry["untold"] for entry in logs] == [0, 0, 2]
    assert (told[0].topic, told[0].detail) == ("a\\nb", "too\\x1bmuch")
    assert told[0].excerpt == b"x" * 1024


def test_patients_have_no_more_devices_than_allowed() -> None:
    door = Door(devices=2)
    assert [door.knock(f"d{i}", as_json(1)) for i in range(3)] == ["taken", "taken", "device"]
    assert door.knock("d2", as_json(1), patient="bob") == "taken"
    door.now_ns = 1800 * SECOND
    assert door.knock("d1", as_json(2)) == "taken"
    door.now_ns = 3600 * SECOND  # d0 has been silent for an hour
    assert door.knock("d2", as_json(1)) == "taken"
    assert door.left == [Stream("ann", "d0")]
    assert door.knock("d0", as_json(1)) == "device"


def test_rubbish_takes_no_place() -> None:
    door = Door(devices=1)
    assert [door.knock(f"d{i}", b"rubbish") for i in range(3)] == ["format"] * 3
    assert door.knock("real", as_json(1)) == "taken"


@pytest.mark.parametrize("payload", [b"rubbish", as_json(1)])
def test_a_flood_is_stopped_and_others_are_heard(payload: bytes) -> None:
    door = Door()
    door.knock("flood", as_json(0))
    door.knock("calm", as_json(0))
    ends = [door.knock("flood", payload) for _ in range(2000)]
    assert 500 < ends.index("too fast") < 600
    assert set(ends[700:]) == {"too fast"}
    assert door.knock("calm", as_json(1)) == "taken"
    assert door.knock("flood", payload, again=True) != "too fast"  # the broker's doing
    door.now_ns = SECOND
    assert door.knock("flood", payload) != "too fast"


def test_invented_names_are_a_flood_too() -> None:
    door = Door()
    ends = [door.knock(f"name{i}", b"rubbish") for i in range(2000)]
    assert set(ends[600:]) == {"too fast"}
    assert door.knock("name", b"rubbish", patient="bob") == "format"


def test_a_backlog_of_an_hour_is_no_flood() -> None:
    door = Door()
    ends = [
        door.knock("chest", as_json(seq, t0=START_NS - (3600 - seq) * SECOND))
        for seq in range(3600)
    ]
    assert set(ends) == {"taken"}


@pytest.mark.parametrize("name", ["..", "a b", "ä", "x" * 65, "a.b", "$x", "a\n"])
def test_names_that_are_no_names(name: str) -> None:
    assert Door().knock(name, as_json(1)) == "device"
    assert Door().knock("chest", as_json(1), patient=name) == "patient"
