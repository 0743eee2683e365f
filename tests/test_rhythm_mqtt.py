"""Recorded fibrillation that a device publishes over MQTT: the daemon is killed, or hindered."""

import json
import signal
import sqlite3
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from numpy.typing import NDArray
from paho.mqtt.client import CallbackAPIVersion, Client, MQTTv5
from program import Program, write_config
from watching import segments, uncovered, windows

from alerts.rhythm import LETHAL
from ingest.recordings import read_recording
from monitor.storage.history import History
from monitor.storage.maintenance import check

if TYPE_CHECKING:
    from mosquitto import Mosquitto

pytest_plugins = ["mosquitto"]
pytestmark = pytest.mark.data

# MIT-BIH Malignant Ventricular Ectopy, record 426: annotated "(VF" from 645 s on, after "(N".
RECORD, ONSET_S, RATE = "vfdb/426", 645, 250
SINUS_S = 7


class Device:
    """Publishes a second of the recording each second, whoever listens; the broker keeps it."""

    def __init__(self, port: int, microvolts: NDArray[np.float32]) -> None:
        self.sent = 0
        self._microvolts = microvolts
        self._client = Client(CallbackAPIVersion.VERSION2, client_id="strap", protocol=MQTTv5)
        self._client.connect("127.0.0.1", port)
        self._client.loop_start()
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._publish, daemon=True)

    def __enter__(self) -> "Device":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join()
        self._client.disconnect()
        self._client.loop_stop()

    def _publish(self) -> None:
        begun_s, start_ns = time.monotonic(), time.time_ns()
        for second in range(len(self._microvolts) // RATE):
            # A message is sent when its last sample has been taken.
            if self._end.wait(begun_s + second + 1 - time.monotonic()):
                return
            samples = self._microvolts[second * RATE : (second + 1) * RATE]
            payload = {
                "t0": start_ns + second * 10**9,
                "fs": RATE,
                "unit": "uV",
                "seq": second,
                "samples": [round(float(sample), 1) for sample in samples],
            }
            self._client.publish("leadone/v1/anna/strap/ecg", json.dumps(payload), qos=1)
            self.sent = second + 1


class Home:
    """The daemon as a process, and a file of what people were told."""

    def __init__(self, folder: Path, broker: "Mosquitto") -> None:
        self._folder = folder
        self._told = folder / "told"
        script = folder / "tell"
        script.write_text(f"#!/bin/sh\n{{ cat; echo; }} >> {self._told}\n")
        script.chmod(0o755)
        channels = [{"type": "command", "command": [str(script)]}]
        self._config = write_config(
            folder,
            [],
            patients=[{"id": "anna"}],
            mqtt={"url": broker.url, "home_assistant": None},
            alarms={"contacts": [{"name": "eve", "channels": channels}]},
        )
        self.url = f"sqlite:///{folder}/leadone.db"

    def program(self) -> Program:
        return Program("run", "-c", self._config, folder=self._folder)

    @property
    def raised(self) -> list[str]:
        """The lethal rhythms that people were told of, without what reminds of them."""
        lines = self._told.read_text().splitlines() if self._told.exists() else []
        told = [json.loads(line)["data"] for line in lines]
        return [d["condition"] for d in told if d["condition"] in LETHAL and d["kind"] == "raised"]

    def is_settled(self) -> bool:
        """Whether it is stored that there is an alarm, and that somebody was told of it."""
        with History(self.url) as history:
            told = [
                delivery
                for alarm in history.active_alarms()
                if alarm.condition in LETHAL
                for _, _, delivery in history.deliveries(alarm.id)
            ]
        return any(delivery is not None for delivery in told)


@pytest.fixture
def microvolts(data: Path) -> NDArray[np.float32]:
    """Two minutes: first sinus rhythm, then fibrillation."""
    path = data / f"{RECORD}.hea"
    if not path.exists():
        pytest.skip(f"needs {path}")
    recording = read_recording(path)
    assert recording.rate == RATE
    begin_s = ONSET_S - SINUS_S
    samples: NDArray[np.float32] = recording.segments[0].microvolts[0]
    return samples[begin_s * RATE : (begin_s + 120) * RATE]


def test_killed_while_a_device_publishes_fibrillation_it_is_heard_after_the_restart_and_once(
    microvolts: NDArray[np.float32], tmp_path: Path, mosquitto: "Callable[..., Mosquitto]"
) -> None:
    broker = mosquitto(tmp_path / "broker")
    home = Home(tmp_path, broker)
    device = Device(broker.port, microvolts)
    with home.program() as program:
        program.until_logged("ready")
        with device:
            # Nobody can know yet, and no window was stored.
            program.until(lambda: device.sent == SINUS_S + 2)
            assert program.end(signal.SIGKILL).code == -signal.SIGKILL
            assert home.raised == []
            begun_s = time.monotonic()
            with home.program() as second:
                second.until(lambda: bool(home.raised), 20)
                assert time.monotonic() - begun_s <= 10
                # Killed once more when that is on record: it is known, and told no second time.
                second.until(home.is_settled)
                assert second.end(signal.SIGKILL).code == -signal.SIGKILL
            with home.program() as third:
                third.until_logged("ready")
                time.sleep(8)
                assert third.process.poll() is None
                assert third.end(signal.SIGTERM).code == 0
    # A tachycardia that becomes fibrillation is one of each.
    assert sorted(home.raised) == sorted(set(home.raised))
    assert check(home.url) == []
    with History(home.url) as history:
        alarms = [alarm for alarm in history.active_alarms() if alarm.condition in LETHAL]
    assert sorted(alarm.condition for alarm in alarms) == sorted(home.raised)
    # What was seen before the first window was stored is analysed all the same.
    (first, *_) = segments(home.url)
    onset_ns = min(alarm.started_ns for alarm in alarms)
    assert (onset_ns - first.start_ns) / 1e9 == pytest.approx(SINUS_S, abs=5)
    assert uncovered(segments(home.url), windows(home.url)) == []


def test_it_is_heard_while_the_database_is_locked_and_nothing_is_acknowledged(
    microvolts: NDArray[np.float32], tmp_path: Path, mosquitto: "Callable[..., Mosquitto]"
) -> None:
    broker = mosquitto(tmp_path / "broker")
    home = Home(tmp_path, broker)
    device = Device(broker.port, microvolts)
    with home.program() as program:
        program.until_logged("ready")
        locked = sqlite3.connect(tmp_path / "leadone.db", isolation_level=None)
        locked.execute("BEGIN EXCLUSIVE")
        try:
            with device:
                program.until(lambda: bool(home.raised))
                assert device.sent <= SINUS_S + 15
            assert not home.is_settled()
        finally:
            locked.execute("ROLLBACK")
            locked.close()
        program.until(home.is_settled)
        assert program.end(signal.SIGTERM).code == 0
    assert sorted(home.raised) == sorted(set(home.raised))
    assert check(home.url) == []
    assert len(segments(home.url)) >= SINUS_S
