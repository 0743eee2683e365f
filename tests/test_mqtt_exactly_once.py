"""Whatever is published with QoS 1 is in the database exactly once, whoever is killed meanwhile."""

import contextlib
import hashlib
import json
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from paho.mqtt.client import CallbackAPIVersion, Client, MQTTErrorCode, MQTTv5
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from program import Program, write_config

from ingest.chunk import Chunk
from monitor.storage.history import History
from monitor.storage.maintenance import check, upgrade

if TYPE_CHECKING:
    from mosquitto import Mosquitto

pytest_plugins = ["mosquitto"]

RATE = 130
STREAMS = [("anna", "strap"), ("boris", "strap"), ("boris", "second")]
ALWAYS = (0, 2**62)
KILLS = 20


class Devices:
    """Devices that publish a second of signal every so often, and keep it until it is taken."""

    def __init__(self, port: int, every_s: float) -> None:
        self._every_s = every_s
        self._random = np.random.default_rng(7)
        self._start_ns = time.time_ns() - 3600 * 10**9
        self.sent: dict[tuple[str, str], list[np.ndarray]] = {stream: [] for stream in STREAMS}
        self._end = False
        self.connected = threading.Event()
        self.client = Client(
            CallbackAPIVersion.VERSION2,
            client_id="devices",
            protocol=MQTTv5,
            reconnect_on_failure=False,
        )
        self.client.max_inflight_messages_set(50)
        self.client.max_queued_messages_set(0)
        self.client.on_connect = lambda *_: self.connected.set()
        self._port = port
        self._closed = False
        self.may_connect = threading.Event()
        self._looping = threading.Thread(target=self._loop, daemon=True)
        self._thread = threading.Thread(target=self._publish, daemon=True)

    def connect(self) -> None:
        """Connect, and again whenever the connection is lost and ``may_connect`` is set."""
        self._looping.start()
        assert self.connected.wait(10)

    def _loop(self) -> None:
        # Not paho's own thread, which would connect again before the daemon does.
        properties = Properties(PacketTypes.CONNECT)
        properties.SessionExpiryInterval = 3600
        self.client.connect("127.0.0.1", self._port, clean_start=False, properties=properties)
        while not self._closed:
            if self.client.loop(0.02) == MQTTErrorCode.MQTT_ERR_SUCCESS:
                continue
            self.connected.clear()
            if self.may_connect.wait(0.02):
                with contextlib.suppress(OSError):
                    self.client.reconnect()

    def start(self) -> None:
        self._thread.start()

    def _publish(self) -> None:
        second = 0
        while not self._end:
            for stream in STREAMS:
                samples = self._random.integers(-3000, 3000, RATE)
                self.sent[stream].append(samples)
                payload = {
                    "t0": self._start_ns + second * 10**9,
                    "fs": RATE,
                    "unit": "uV",
                    "seq": second,
                    "samples": samples.tolist(),
                }
                topic = f"leadone/v1/{stream[0]}/{stream[1]}/ecg"
                self.client.publish(topic, json.dumps(payload), qos=1)
            second += 1
            time.sleep(self._every_s)

    def finish(self) -> None:
        """Publish no more, and wait until the broker has taken everything."""
        self._end = True
        self._thread.join()
        deadline = time.monotonic() + 60
        while self.client._out_messages:
            assert time.monotonic() < deadline, len(self.client._out_messages)
            time.sleep(0.05)

    def close(self) -> None:
        self.client.disconnect()
        self._closed = True
        self._looping.join()


def configured(folder: Path, broker: "Mosquitto", protocol: str = "5") -> Path:
    path = write_config(
        folder,
        [],
        patients=[{"id": "anna"}, {"id": "boris"}],
        mqtt={"url": broker.url, "protocol": protocol, "home_assistant": None},
        log={"level": "info", "format": "json"},
    )
    upgrade(database(folder))
    return path


def database(folder: Path) -> str:
    return f"sqlite:///{folder}/leadone.db"


def stored(folder: Path, stream: tuple[str, str]) -> list[Chunk]:
    with History(database(folder)) as history:
        found = history.segments(stream[0], *ALWAYS)
        return [chunk for chunk in found if chunk.stream.device == stream[1]]


def until(done: Callable[[], Any], seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def digest(parts: list[np.ndarray]) -> str:
    return hashlib.sha256(np.concatenate(parts).astype("<f4").tobytes()).hexdigest()


def compare(folder: Path, devices: Devices) -> None:
    """By count, order of time, and checksum."""
    for stream in STREAMS:
        sent = devices.sent[stream]
        until(lambda: len(stored(folder, stream)) >= len(sent))  # noqa: B023 - at once
        chunks = stored(folder, stream)
        assert [c.sequence for c in chunks] == list(range(len(sent)))
        assert len({c.start_ns for c in chunks}) == len(sent)
        assert sum(len(c.microvolts) for c in chunks) == RATE * len(sent)
        assert digest([c.microvolts for c in chunks]) == digest(sent)
    assert check(database(folder)) == []


def sessions(broker: "Mosquitto") -> int:
    """How often the daemon was let in; as "leadone", not as "leadone-out"."""
    return broker.log.count(" as leadone (")


def test_the_daemon_is_killed_twenty_times(
    mosquitto: Callable[..., "Mosquitto"], tmp_path: Path
) -> None:
    broker = mosquitto(tmp_path / "broker")
    path = configured(tmp_path, broker)
    devices = Devices(broker.port, every_s=0.05)
    devices.connect()
    pauses = np.random.default_rng(1)
    # The broker keeps what comes while nobody listens only for a session that it knows.
    with Program("run", "-c", path, folder=tmp_path) as daemon:
        daemon.until_logged("connected to the MQTT broker")
        until(lambda: "Sending SUBACK to leadone\n" in broker.log)
        devices.start()
        time.sleep(0.5)
        daemon.process.kill()
    for _ in range(KILLS - 1):
        with Program("run", "-c", path, folder=tmp_path) as daemon:
            daemon.until_logged("connected to the MQTT broker")
            # Under load, at any moment of taking, storing and acknowledging.
            time.sleep(float(pauses.uniform(0, 0.7)))
            daemon.process.kill()
    with Program("run", "-c", path, folder=tmp_path):
        devices.finish()
        compare(tmp_path, devices)
    devices.close()
    assert min(map(len, devices.sent.values())) > 10 * KILLS


def test_the_broker_is_stopped_and_started_twenty_times(
    mosquitto: Callable[..., "Mosquitto"], tmp_path: Path
) -> None:
    """By SIGTERM: after SIGKILL, Mosquitto has forgotten messages that it had confirmed.

    It confirms before it writes anything down, and what is on its way to the daemon dies with its
    sockets. No subscriber can bring that back.
    """
    broker = mosquitto(tmp_path / "broker", "autosave_on_changes false")
    path = configured(tmp_path, broker)
    devices = Devices(broker.port, every_s=0.02)
    devices.may_connect.set()
    pauses = np.random.default_rng(2)
    with Program("run", "-c", path, folder=tmp_path) as daemon:
        daemon.until_logged("connected to the MQTT broker")
        until(lambda: "Sending SUBACK to leadone\n" in broker.log)
        devices.connect()
        devices.start()
        for _ in range(KILLS):
            time.sleep(float(pauses.uniform(0.1, 0.6)))
            broker.stop()
            time.sleep(float(pauses.uniform(0, 0.3)))
            broker.start()
            assert devices.connected.wait(20)
        devices.finish()
        compare(tmp_path, devices)
    devices.close()
    assert min(map(len, devices.sent.values())) > 100


def test_an_older_protocol_keeps_the_same_promise(
    mosquitto: Callable[..., "Mosquitto"], tmp_path: Path
) -> None:
    broker = mosquitto(tmp_path / "broker")
    path = configured(tmp_path, broker, "3.1.1")
    devices = Devices(broker.port, every_s=0.05)
    devices.connect()
    for round_ in range(3):
        with Program("run", "-c", path, folder=tmp_path) as daemon:
            daemon.until_logged("connected to the MQTT broker")
            if not round_:
                until(lambda: "Sending SUBACK to leadone\n" in broker.log)
                devices.start()
            time.sleep(0.5)
            daemon.process.kill()
    with Program("run", "-c", path, folder=tmp_path):
        devices.finish()
        compare(tmp_path, devices)
    devices.close()
