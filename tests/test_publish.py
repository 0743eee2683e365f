"""``leadone publish`` with a real Mosquitto: what it sends is what was recorded, and all of it."""

import itertools
import json
import re
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from jsonschema import Draft202012Validator
from paho.mqtt.client import Client, MQTTMessage, MQTTv5
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from program import Leadone, Program

from ingest.mqtt.limits import Limits
from ingest.mqtt.payload import Mapping, Message, decode

if TYPE_CHECKING:
    from mosquitto import Mosquitto

pytest_plugins = ["in_process", "mosquitto"]

Brokers = Callable[..., "Mosquitto"]

SCHEMA = Path(__file__).parents[1] / "docs" / "schema" / "ecg-message.json"
WHO = ("--patient", "grandpa", "--device", "chest")
FAST = ("--speed", "inf")
RATE = 130


def ecg(seconds: float, seed: int = 1) -> np.ndarray:
    """Noise in tenths of a µV, as long as asked."""
    n = round(seconds * RATE)
    return np.random.default_rng(seed).integers(-20000, 20000, n) / 10


def recording(path: Path, values: np.ndarray) -> Path:
    cells = "\n".join("nan" if np.isnan(value) else f"{value:.1f}" for value in values)
    path.write_text(f"# rate={RATE} unit=uV\nI\n{cells}\n")
    return path


class Listener:
    """Keeps whatever is published, over breaks of the connection."""

    def __init__(self, broker: "Mosquitto") -> None:
        self.messages: list[tuple[str, bytes]] = []
        self.session = Properties(PacketTypes.CONNECT)
        self.session.SessionExpiryInterval = 600
        self.subscribed = threading.Event()
        self.client = Client(CallbackAPIVersion.VERSION2, client_id="listener", protocol=MQTTv5)
        self.client.reconnect_delay_set(1, 1)
        self.client.on_connect = lambda client, *_: client.subscribe("leadone/#", qos=1)
        self.client.on_subscribe = lambda *_: self.subscribed.set()
        self.client.on_message = self._on_message
        self.client.connect("127.0.0.1", broker.port, clean_start=False, properties=self.session)
        self.client.loop_start()
        assert self.subscribed.wait(10)

    def until(self, count: int) -> None:
        deadline = time.monotonic() + 10
        while len(self.messages) < count:
            assert time.monotonic() < deadline, len(self.messages)
            time.sleep(0.01)

    def streams(self) -> dict[str, list[Message]]:
        """Decoded, by topic."""
        found: dict[str, list[Message]] = {}
        for topic, payload in self.messages:
            found.setdefault(topic, []).append(decode(payload, Mapping(), Limits()))
        return found

    def _on_message(self, _: Client, __: Any, message: MQTTMessage) -> None:
        assert (message.qos, message.retain) == (1, False)
        self.messages.append((message.topic, message.payload))


@contextmanager
def listening(broker: "Mosquitto") -> Iterator[Listener]:
    listener = Listener(broker)
    try:
        yield listener
    finally:
        listener.client.disconnect()
        listener.client.loop_stop()


@pytest.mark.parametrize("form", ["json", "cbor"])
def test_what_arrives_is_what_was_recorded(
    form: str, mosquitto: Brokers, leadone: Leadone, tmp_path: Path
) -> None:
    values = ecg(7.5)
    values[200:210] = np.nan
    record = recording(tmp_path / "a.csv", values)
    broker = mosquitto(tmp_path / "broker")
    with listening(broker) as listener:
        done = leadone("publish", record, "--url", broker.url, *WHO, *FAST, "--format", form)
        listener.until(8)
    assert (done.code, done.err) == (0, "")
    assert re.fullmatch(r"8 messages, 975 samples, \d+\.\d s\n", done.out)
    (messages,) = listener.streams().values()
    assert {topic for topic, _ in listener.messages} == {"leadone/v1/grandpa/chest/ecg"}
    assert [len(message.microvolts) for message in messages] == [130] * 7 + [65]
    np.testing.assert_array_equal(
        np.concatenate([message.microvolts for message in messages]), values.astype(np.float32)
    )
    first = messages[0]
    assert first.sequence is not None
    for i, message in enumerate(messages):
        assert message.sequence == first.sequence + i
        assert message.t0_ns == first.t0_ns + i * 1_000_000_000
        assert message.rate == RATE
    if form == "json":
        validator = Draft202012Validator(json.loads(SCHEMA.read_text(encoding="utf-8")))
        for _, payload in listener.messages:
            validator.validate(json.loads(payload))
    else:
        assert not any(payload.startswith(b"{") for _, payload in listener.messages)


def test_it_is_as_slow_as_life_and_says_so(
    mosquitto: Brokers, leadone: Leadone, tmp_path: Path
) -> None:
    record = recording(tmp_path / "a.csv", ecg(1.5))
    broker = mosquitto(tmp_path / "broker")
    with listening(broker) as listener:
        before_ns = time.time_ns()
        done = leadone("publish", record, "--url", broker.url, *WHO, "--chunk", "500ms")
        after_ns = time.time_ns()
        listener.until(3)
    assert done.code == 0
    (messages,) = listener.streams().values()
    assert before_ns <= messages[0].t0_ns
    assert messages[-1].end_ns <= after_ns
    assert float(done.out.split()[-2]) >= 1.5


def test_faster_than_life_ends_now_and_reaches_back(
    mosquitto: Brokers, leadone: Leadone, tmp_path: Path
) -> None:
    records = [recording(tmp_path / f"{i}.csv", ecg(60, seed=i)) for i in range(3)]
    broker = mosquitto(tmp_path / "broker")
    with listening(broker) as listener:
        before_ns = time.time_ns()
        done = leadone("publish", *records, "--url", broker.url, *WHO, *FAST)
        after_ns = time.time_ns()
        listener.until(180)
    assert done.code == 0
    (messages,) = listener.streams().values()
    assert before_ns <= messages[-1].end_ns <= after_ns
    gaps = {later.t0_ns - earlier.end_ns for earlier, later in itertools.pairwise(messages)}
    assert gaps == {0}
    np.testing.assert_array_equal(
        np.concatenate([message.microvolts for message in messages]),
        np.concatenate([ecg(60, seed=i) for i in range(3)]).astype(np.float32),
    )


def test_copies_are_patients_of_their_own(
    mosquitto: Brokers, leadone: Leadone, tmp_path: Path
) -> None:
    values = ecg(5)
    record = recording(tmp_path / "a.csv", values)
    broker = mosquitto(tmp_path / "broker")
    with listening(broker) as listener:
        done = leadone("publish", record, "--url", broker.url, *WHO, *FAST, "--copies", 12)
        listener.until(60)
    assert done.out.startswith("60 messages, 7800 samples, ")
    streams = listener.streams()
    assert streams.keys() == {f"leadone/v1/grandpa-{i}/chest-{i}/ecg" for i in range(1, 13)}
    for messages in streams.values():
        np.testing.assert_array_equal(
            np.concatenate([message.microvolts for message in messages]), values.astype(np.float32)
        )


def test_a_second_run_is_not_the_first_one_again(
    mosquitto: Brokers, leadone: Leadone, tmp_path: Path
) -> None:
    record = recording(tmp_path / "a.csv", ecg(1))
    broker = mosquitto(tmp_path / "broker")
    with listening(broker) as listener:
        for _ in range(2):
            assert leadone("publish", record, "--url", broker.url, *WHO).code == 0
        listener.until(2)
    (messages,) = listener.streams().values()
    assert len({message.sequence for message in messages}) == 2
    assert messages[1].t0_ns >= messages[0].end_ns


def test_nothing_is_lost_while_the_broker_is_away(mosquitto: Brokers, tmp_path: Path) -> None:
    values = ecg(60)
    record = recording(tmp_path / "a.csv", values)
    broker = mosquitto(tmp_path / "broker")
    with (
        listening(broker) as listener,
        Program(
            *("publish", record, "--url", broker.url, *WHO, "--speed", 20), folder=tmp_path
        ) as program,
    ):
        for wanted in (5, 25):
            program.until(lambda wanted=wanted: len(listener.messages) >= wanted)
            broker.kill()
            broker.start()
        done = program.end()
        assert done.code == 0, done.err
        listener.until(60)
    assert done.out.startswith("60 messages, 7800 samples, ")
    assert "broker is away" in done.err
    assert "broker is back" in done.err
    # QoS 1 may bring a message twice, and then it is the same one.
    payloads = dict.fromkeys(payload for _, payload in listener.messages)
    messages = sorted(
        (decode(payload, Mapping(), Limits()) for payload in payloads), key=lambda m: m.t0_ns
    )
    assert len(messages) == 60
    assert set(Counter(m.sequence for m in messages).values()) == {1}
    np.testing.assert_array_equal(
        np.concatenate([m.microvolts for m in messages]), values.astype(np.float32)
    )


def test_ctrl_c_ends_it_in_order(mosquitto: Brokers, tmp_path: Path) -> None:
    record = recording(tmp_path / "a.csv", ecg(600))
    broker = mosquitto(tmp_path / "broker")
    with (
        listening(broker) as listener,
        Program(
            *("publish", record, "--url", broker.url, *WHO, "--speed", 10), folder=tmp_path
        ) as program,
    ):
        program.until(lambda: len(listener.messages) >= 5)
        done = program.end(signal.SIGINT, timeout_s=10)
        sent = int(done.out.split()[0])
        listener.until(sent)
    assert (done.code, done.err) == (0, "")
    assert 5 <= sent == len(listener.messages) < 600


def test_ctrl_c_without_the_broker_says_what_is_missing(mosquitto: Brokers, tmp_path: Path) -> None:
    record = recording(tmp_path / "a.csv", ecg(600))
    broker = mosquitto(tmp_path / "broker")
    with (
        listening(broker) as listener,
        Program(
            *("publish", record, "--url", broker.url, *WHO, "--speed", 100), folder=tmp_path
        ) as program,
    ):
        program.until(lambda: len(listener.messages) >= 5)
        broker.stop()
        program.until(lambda: "broker is away" in program.err)
        time.sleep(0.5)  # for messages to wait: at most twenty of the fifty
        done = program.end(signal.SIGINT, timeout_s=20)
    assert done.code == 1
    assert done.err.splitlines()[-1] == "leadone: 20 more messages were not acknowledged"


def test_what_the_broker_does_not_let_it_write_is_told(
    mosquitto: Brokers, leadone: Leadone, tmp_path: Path
) -> None:
    record = recording(tmp_path / "a.csv", ecg(3))
    acl = tmp_path / "acl"
    acl.write_text("topic write leadone/v1/grandma/chest/ecg\n")
    acl.chmod(0o600)
    # With 0, which means no limit, Mosquitto 2.0.11 hangs up instead of answering.
    broker = mosquitto(tmp_path / "broker", f"acl_file {acl}\nmax_queued_messages 1000")
    done = leadone("publish", record, "--url", broker.url, *WHO, *FAST, "--copies", 3)
    assert done.code == 1
    assert re.match(r"leadone/v1/grandpa-\d/chest-\d/ecg: not authorized", done.complaint)
    assert "mqtt." not in done.complaint


def test_a_wrong_password_is_told_and_not_shown(
    mosquitto: Brokers, leadone: Leadone, tmp_path: Path
) -> None:
    record = recording(tmp_path / "a.csv", ecg(1))
    (tmp_path / "passwords").touch(0o600)
    broker = mosquitto(
        tmp_path / "broker", f"allow_anonymous false\npassword_file {tmp_path / 'passwords'}"
    )
    (tmp_path / "secret").write_text("hunter2\n")
    done = leadone(
        *("publish", record, "--url", broker.url, *WHO, "--username", "grandpa"),
        *("--password-file", tmp_path / "secret"),
    )
    assert done.code == 1
    assert "--password-file" in done.complaint
    assert "hunter2" not in done.out + done.err


def test_a_server_that_is_no_broker_is_told(leadone: Leadone, tmp_path: Path) -> None:
    import socket

    record = recording(tmp_path / "a.csv", ecg(1))
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]

        def hang_up() -> None:
            accepted, _ = server.accept()
            accepted.close()

        hanging_up = threading.Thread(target=hang_up)
        hanging_up.start()
        done = leadone("publish", record, "--url", f"mqtt://127.0.0.1:{port}", *WHO)
        hanging_up.join(10)
    assert done.code == 1
    assert done.complaint == f"127.0.0.1:{port}: the broker closed the connection"


@pytest.mark.parametrize(
    ("arguments", "code", "complaint"),
    [
        (["--url", "mqtt://127.0.0.1:1"], 1, "127.0.0.1:1: connection refused"),
        (["--url", "mqtt://no-such-host.invalid"], 1, "no-such-host.invalid:1883: no such host"),
        (["--url", "http://127.0.0.1"], 2, "--url: expected mqtt://HOST"),
        (["--url", "mqtt://anna:hunter2@127.0.0.1"], 2, "--url: only host and port"),
        (["--url", "mqtt://127.0.0.1:port"], 2, "--url: expected mqtt://HOST"),
        (["--chunk", "0s"], 2, "--chunk: must be more than 0"),
        (["--chunk", "soon"], 2, "--chunk: 'soon' is no duration"),
        (["--patient", "../etc"], 2, "--patient: expected 1 to 64 letters"),
        (["--device", "a b"], 2, "--device: expected 1 to 64 letters"),
        (["--patient", "x" * 63, "--copies", "10"], 2, "--patient: expected 1 to 64 letters"),
        (["--password-file", "no-such-file"], 2, "--password-file: the file 'no-such-file' cannot"),
        (["--ca", "ca.crt"], 2, "--ca: only with mqtts://"),
        (["--cert", "x.crt", "--url", "mqtts://127.0.0.1"], 2, "--key: missing"),
        (["--ca", "no-such-file", "--url", "mqtts://127.0.0.1"], 1, "--ca: 'no-such-file' cannot"),
        (["--lead", "V9"], 1, "a: no lead 'V9'; it has I"),
    ],
)
def test_mistakes_are_told_in_a_line(
    arguments: list[str], code: int, complaint: str, leadone: Leadone, tmp_path: Path
) -> None:
    record = recording(tmp_path / "a.csv", ecg(1))
    done = leadone("publish", record, "--url", "mqtt://127.0.0.1:1", *WHO, *arguments)
    assert done.code == code
    assert done.complaint.startswith(complaint)
    assert "hunter2" not in done.err
    assert done.out == ""


def test_a_record_that_is_not_there_is_told(leadone: Leadone, tmp_path: Path) -> None:
    done = leadone("publish", tmp_path / "none.csv", "--url", "mqtt://127.0.0.1:1", *WHO)
    assert done.code == 1
    assert "none.csv" in done.complaint
