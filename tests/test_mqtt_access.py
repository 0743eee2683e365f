"""The example configuration of Mosquitto lets nobody see or send more than it says."""

import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from conftest import absent
from paho.mqtt.client import Client, MQTTMessage, MQTTv5
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.reasoncodes import ReasonCode

if TYPE_CHECKING:
    from mosquitto import Mosquitto

pytest_plugins = ["mosquitto"]

EXAMPLE = Path(__file__).parents[1] / "examples" / "mqtt"
NOBODY = "stranger"  # has a password and no rights
USERS = ("leadone", "grandpa-chest", "grandma-chest", "anna", "homeassistant", NOBODY)

ECG = "leadone/v1/grandpa/chest/ecg"
OTHER_ECG = "leadone/v1/grandma/chest/ecg"
ACK = "leadone/v1/grandpa/alarm/ack"
OTHER_ACK = "leadone/v1/grandma/alarm/ack"
STATE = "leadone/v1/grandpa/state"
OTHER_STATE = "leadone/v1/grandma/state"
ALARM = "leadone/v1/grandpa/alarm"
OTHER_ALARM = "leadone/v1/grandma/alarm"
STATUS = "leadone/v1/status"
DISCOVERY = "homeassistant/device/leadone_grandpa/config"
BIRTH = "homeassistant/status"
EVERYTHING = (
    *(ECG, OTHER_ECG, ACK, OTHER_ACK, STATE, OTHER_STATE),
    *(ALARM, OTHER_ALARM, STATUS, DISCOVERY, BIRTH),
)

READS = {
    "leadone": set(EVERYTHING),
    "grandpa-chest": set(),
    "grandma-chest": set(),
    "anna": {STATE, ALARM, STATUS},
    "homeassistant": {STATE, OTHER_STATE, ALARM, OTHER_ALARM, STATUS, DISCOVERY, BIRTH},
    NOBODY: set(),
}
WRITES = {
    "leadone": {STATE, OTHER_STATE, ALARM, OTHER_ALARM, STATUS, DISCOVERY},
    "grandpa-chest": {ECG},
    "grandma-chest": {OTHER_ECG},
    "anna": {ACK},
    "homeassistant": {ACK, OTHER_ACK, DISCOVERY, BIRTH},
    NOBODY: set(),
}


def password(user: str) -> str:
    return f"password of {user}"


def openssl(*arguments: object) -> None:
    subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True)


def certificates(folder: Path) -> None:
    """As the comment in the example makes them."""
    folder.mkdir(parents=True)
    new = ("-newkey", "rsa:2048", "-nodes")
    openssl(
        *("req", "-x509", *new, "-days", 1, "-subj", "/CN=home CA"),
        *("-keyout", folder / "ca.key", "-out", folder / "ca.crt"),
    )
    openssl(
        *("req", *new, "-subj", "/CN=localhost"),
        *("-keyout", folder / "server.key", "-out", folder / "server.csr"),
    )
    (folder / "server.ext").write_text("subjectAltName=DNS:localhost,IP:127.0.0.1")
    openssl(
        *("x509", "-req", "-in", folder / "server.csr", "-days", 1),
        *("-CA", folder / "ca.crt", "-CAkey", folder / "ca.key", "-CAcreateserial"),
        *("-extfile", folder / "server.ext", "-out", folder / "server.crt"),
    )


def example(folder: Path) -> "Mosquitto":
    """A broker with the example's own files, but for its folders and its port."""
    from mosquitto import Mosquitto

    broker = Mosquitto(folder)
    broker.tls = True
    text = (EXAMPLE / "mosquitto.conf").read_text(encoding="utf-8")
    for there, here in (
        ("listener 8883", f"listener {broker.port} 127.0.0.1"),
        ("/etc/mosquitto", str(folder)),
        ("/var/lib/mosquitto", str(folder)),
    ):
        assert there in text
        text = text.replace(there, here)
    # The tests may run as root, and the user mosquitto is not let into their folders.
    broker.config.write_text(f"user root\n{text}", encoding="utf-8")
    (folder / "acl").write_text((EXAMPLE / "acl").read_text(encoding="utf-8"))
    (folder / "acl").chmod(0o600)
    certificates(folder / "certs")
    (folder / "passwords").touch(0o600)
    for user in USERS:
        subprocess.run(
            ["mosquitto_passwd", "-b", folder / "passwords", user, password(user)],
            check=True,
            capture_output=True,
        )
    return broker


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> "Iterator[Mosquitto]":
    from mosquitto import PROGRAM

    if PROGRAM is None:
        absent("the MQTT broker mosquitto")
    broker = example(tmp_path_factory.mktemp("broker"))
    broker.start()
    yield broker
    broker.stop()


class Guest:
    """A client that keeps what it receives and how each of its messages was answered."""

    def __init__(self, broker: "Mosquitto", user: str | None, secret: str | None = None) -> None:
        self.received: list[tuple[str, bytes]] = []
        self.answers: dict[int, ReasonCode] = {}
        self.welcome: ReasonCode | None = None
        self._changed = threading.Condition()
        self.client = Client(
            CallbackAPIVersion.VERSION2, protocol=MQTTv5, reconnect_on_failure=False
        )
        if user is not None:
            self.client.username_pw_set(user, password(user) if secret is None else secret)
        self.client.tls_set(str(broker.folder / "certs" / "ca.crt"))
        self.client.on_connect = self._on_connect
        self.client.on_message = self._on_message
        self.client.on_publish = self._on_publish
        self.client.on_subscribe = lambda *_: self._tell()
        self.client.connect("localhost", broker.port)
        self.client.loop_start()
        self.until(lambda: self.welcome is not None)

    def until(self, condition: Callable[[], bool]) -> None:
        with self._changed:
            assert self._changed.wait_for(condition, 10)

    def publish(self, topic: str, payload: bytes, *, retain: bool = False) -> ReasonCode:
        """The broker's answer."""
        mid = self.client.publish(topic, payload, qos=1, retain=retain).mid
        self.until(lambda: mid in self.answers)
        return self.answers[mid]

    def subscribe(self, *topics: str) -> None:
        done: list[Any] = []
        self.client.on_subscribe = lambda *_: (done.append(1), self._tell())
        self.client.subscribe([(topic, 1) for topic in topics])
        self.until(lambda: bool(done))

    def _on_connect(self, *arguments: Any) -> None:
        self.welcome = arguments[3]
        self._tell()

    def _on_message(self, _: Client, __: Any, message: MQTTMessage) -> None:
        self.received.append((message.topic, message.payload))
        self._tell()

    def _on_publish(self, _: Client, __: Any, mid: int, code: ReasonCode, ___: Any) -> None:
        self.answers[mid] = code
        self._tell()

    def _tell(self) -> None:
        with self._changed:
            self._changed.notify_all()


@contextmanager
def guest(broker: "Mosquitto", user: str | None, secret: str | None = None) -> Iterator[Guest]:
    made = Guest(broker, user, secret)
    try:
        yield made
    finally:
        made.client.disconnect()
        made.client.loop_stop()


def sender(topic: str) -> str:
    """Somebody who may write it."""
    return next(user for user, topics in WRITES.items() if topic in topics)


@pytest.mark.parametrize("user", USERS)
def test_a_user_receives_what_it_may_and_nothing_else(broker: "Mosquitto", user: str) -> None:
    with guest(broker, user) as reader:
        reader.subscribe("#", *EVERYTHING)
        for topic in EVERYTHING:
            with guest(broker, sender(topic)) as writer:
                assert not writer.publish(topic, f"for {user}".encode()).is_failure
        # Messages to one client keep their order, so after this one there is none on its way.
        with guest(broker, "leadone") as writer:
            writer.publish(STATUS, b"end")
            if READS[user]:
                reader.until(lambda: (STATUS, b"end") in reader.received)
            else:
                reader.publish("x", b"")  # and so is the answer to its own
        mine = {topic for topic, payload in reader.received if payload == f"for {user}".encode()}
    assert mine == READS[user]


@pytest.mark.parametrize("user", USERS)
def test_a_user_sends_what_it_may_and_nothing_else(broker: "Mosquitto", user: str) -> None:
    payload = f"from {user}".encode()
    with guest(broker, "leadone") as reader, guest(broker, user) as writer:
        reader.subscribe(*EVERYTHING)
        accepted = {topic for topic in EVERYTHING if not writer.publish(topic, payload).is_failure}
        with guest(broker, "leadone") as last:
            last.publish(STATUS, b"end")
        reader.until(lambda: (STATUS, b"end") in reader.received)
        arrived = {topic for topic, content in reader.received if content == payload}
    assert accepted == arrived == WRITES[user]


def test_nothing_retained_is_left_by_who_may_not_write_it(broker: "Mosquitto") -> None:
    with guest(broker, NOBODY) as writer:
        for topic in EVERYTHING:
            assert writer.publish(topic, b"forged", retain=True).getName() == "Not authorized"
    with guest(broker, "leadone") as reader:
        reader.subscribe(*EVERYTHING)
        reader.publish(STATUS, b"end")
        reader.until(lambda: (STATUS, b"end") in reader.received)
        assert b"forged" not in {payload for _, payload in reader.received}


def test_a_device_is_no_other_device(broker: "Mosquitto") -> None:
    with guest(broker, "grandpa-chest") as device:
        for topic in (
            "leadone/v1/grandpa/wrist/ecg",
            "leadone/v1/grandma/chest/ecg",
            "leadone/v1/grandpa/chest/ecg/more",
            "leadone/v1/grandpa/chest",
        ):
            assert device.publish(topic, b"{}").is_failure, topic
        assert not device.publish(ECG, b"{}").is_failure


@pytest.mark.parametrize(
    ("user", "secret"),
    [(None, None), ("leadone", "wrong"), ("leadone", ""), ("nobody", "password of leadone")],
    ids=["anonymous", "wrong password", "empty password", "unknown user"],
)
def test_who_is_not_known_is_not_let_in(
    broker: "Mosquitto", user: str | None, secret: str | None
) -> None:
    with guest(broker, user, secret) as refused:
        assert refused.welcome is not None
        assert refused.welcome.getName() == "Not authorized"


def test_there_is_no_way_in_without_tls(broker: "Mosquitto") -> None:
    connect = bytes.fromhex("1010 0004 4d515454 04 02 003c 0004 74657374")
    with socket.create_connection(("127.0.0.1", broker.port), timeout=5) as plain:
        plain.sendall(connect)
        # A TLS alert or nothing, but never a CONNACK (0x20).
        try:
            answer = plain.recv(16)
        except ConnectionResetError:
            answer = b""
        assert not answer.startswith(b"\x20")
    text = (EXAMPLE / "mosquitto.conf").read_text(encoding="utf-8")
    assert [line for line in text.splitlines() if line.startswith("listener")] == ["listener 8883"]


def test_the_broker_proves_who_it_is(broker: "Mosquitto", tmp_path: Path) -> None:
    certificates(tmp_path / "other")
    for authority, name, cause in (
        (tmp_path / "other" / "ca.crt", "localhost", "self-signed certificate|verify failed"),
        (broker.folder / "certs" / "ca.crt", "elsewhere", "not valid for 'elsewhere'"),
    ):
        context = ssl.create_default_context(cafile=authority)
        with (
            socket.create_connection(("127.0.0.1", broker.port), timeout=5) as raw,
            pytest.raises(ssl.SSLCertVerificationError, match=cause),
        ):
            context.wrap_socket(raw, server_hostname=name)


def test_what_waits_for_the_daemon_outlives_a_restart_of_the_broker(broker: "Mosquitto") -> None:
    from paho.mqtt.packettypes import PacketTypes
    from paho.mqtt.properties import Properties

    lasting = Properties(PacketTypes.CONNECT)
    lasting.SessionExpiryInterval = 600
    received: list[bytes] = []

    def daemon() -> Client:
        client = Client(CallbackAPIVersion.VERSION2, client_id="leadone", protocol=MQTTv5)
        client.username_pw_set("leadone", password("leadone"))
        client.tls_set(str(broker.folder / "certs" / "ca.crt"))
        client.on_message = lambda _c, _u, message: received.append(message.payload)
        subscribed = threading.Event()
        client.on_connect = lambda c, *_: c.subscribe("leadone/v1/+/+/ecg", qos=1)
        client.on_subscribe = lambda *_: subscribed.set()
        client.connect("localhost", broker.port, clean_start=False, properties=lasting)
        client.loop_start()
        assert subscribed.wait(10)
        return client

    away = daemon()
    away.disconnect()
    away.loop_stop()
    wanted = [f"{number:04d}".encode() for number in range(1200)]  # more than the default of 1000
    with guest(broker, "grandpa-chest") as device:
        numbers = [device.client.publish(ECG, payload, qos=1).mid for payload in wanted]
        device.until(lambda: set(numbers) <= device.answers.keys())
    broker.stop()
    broker.start()
    back = daemon()
    deadline = time.monotonic() + 10
    while len(received) < len(wanted) and time.monotonic() < deadline:
        time.sleep(0.02)
    back.disconnect()
    back.loop_stop()
    assert received == wanted
