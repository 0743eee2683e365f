"""A gateway whose clock is wrong loses no ECG for that, and says which clocks disagree."""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from no_time_server import WITHIN
from paho.mqtt.client import CallbackAPIVersion, Client, MQTTv5
from program import Program, write_config
from test_mqtt_source import SECOND, START_NS, Door, as_json

from ingest.chunk import Stream
from ingest.mqtt.trust import Trust
from monitor.clock_trouble import disagreement, impossible
from monitor.storage.history import History

if TYPE_CHECKING:
    from faketime import FakeTime
    from mosquitto import Mosquitto

pytest_plugins = ["mosquitto", "faketime"]

HOUR, DAY = 3600.0, 86_400.0
ANN = Stream("ann", "chest")
ALWAYS = (0, 2**62)


class Gateway:
    """A gateway whose clock is behind by so much, and devices that send a second each second."""

    def __init__(self, behind_s: float = 0.0, *, synchronised: bool = False) -> None:
        self.now_s = 0
        self.behind_s = behind_s
        self.synchronised = synchronised
        self.trust = Trust(60.0, lambda: self.synchronised)

    @property
    def _now(self) -> tuple[int, int]:
        now_ns = self.now_s * SECOND
        return START_NS + now_ns - round(self.behind_s * SECOND), now_ns

    def live(self, seconds: int, *ahead_s: float) -> None:
        """Let devices send, whose clocks are ahead of the truth by so much."""
        for _ in range(seconds):
            self.now_s += 1
            for number, ahead in enumerate(ahead_s):
                end_ns = START_NS + round((self.now_s + ahead) * SECOND)
                self.trust.hear(Stream("ann", f"d{number}"), end_ns, self._now[1])

    def kept(self, *ago_s: float) -> None:
        """Let messages come at once that the broker has kept."""
        for ago in ago_s:
            end_ns = START_NS + round((self.now_s - ago) * SECOND)
            self.trust.hear(Stream("ann", "d0"), end_ns, self._now[1])

    @property
    def trusted(self) -> bool:
        return self.trust.trusted(*self._now)

    @property
    def apart(self) -> dict[str, int]:
        found = self.trust.apart(*self._now)
        return {stream.device: round(seconds) for stream, seconds in found.items()}


def test_the_kernel_s_word_is_enough() -> None:
    gateway = Gateway(5 * HOUR, synchronised=True)
    gateway.live(60, 0)
    assert gateway.trusted
    assert gateway.apart == {"d0": 5 * HOUR}


def test_nobody_knows_at_first_and_then_one_device_agrees() -> None:
    gateway = Gateway()
    assert not gateway.trusted
    gateway.live(60, 0)
    assert gateway.trusted
    assert gateway.apart == {}


@pytest.mark.parametrize("behind_s", [5 * HOUR, 56 * 365 * DAY, 61.0])
def test_a_gateway_that_is_behind_is_found_out_at_once(behind_s: float) -> None:
    gateway = Gateway(behind_s)
    gateway.live(2, 0)
    assert gateway.apart == {"d0": behind_s}
    gateway.live(60, 0)
    assert not gateway.trusted
    gateway.behind_s = 0
    assert gateway.trusted
    assert gateway.apart == {}


@pytest.mark.parametrize("behind_s", [-DAY, -600.0])
def test_a_gateway_that_is_ahead_is_found_out_within_a_minute(behind_s: float) -> None:
    gateway = Gateway(behind_s)
    gateway.live(62, 0)
    assert not gateway.trusted
    assert gateway.apart == {"d0": behind_s}


def test_what_the_broker_kept_makes_no_clock_agree() -> None:
    """Of the last six hours, by a gateway that is five behind: some of it seems to be of now."""
    gateway = Gateway(5 * HOUR)
    for ago in range(6 * 3600, 0, -1):
        gateway.kept(ago)
        if ago % 100 == 0:
            gateway.now_s += 1
            assert not gateway.trusted


def test_of_three_devices_one_is_wrong() -> None:
    gateway = Gateway()
    gateway.live(62, 0, 2 * HOUR, 0)
    assert gateway.trusted
    assert gateway.apart == {"d1": 2 * HOUR}


def test_of_two_one_is_wrong_and_nobody_knows_which() -> None:
    gateway = Gateway()
    gateway.live(62, 0, 2 * HOUR)
    assert not gateway.trusted
    gateway.live(1, 0, 0)
    gateway.now_s += 601  # and was not heard any more
    gateway.live(62, 0)
    assert gateway.trusted


def test_invented_names_do_not_fill_the_memory() -> None:
    gateway = Gateway()
    for number in range(2000):
        gateway.trust.hear(Stream("ann", f"d{number}"), START_NS, number)
    assert len(gateway.trust._heard) <= 256


# --- who is let in


def test_no_message_is_refused_for_its_time_until_the_clock_is_trusted() -> None:
    door = Door()
    door.synchronised = False
    door.behind_s = 5 * HOUR
    ends = [door.knock("chest", as_json(seq)) for seq in range(3000)]
    assert set(ends) == {"taken"}  # as many as that are no flood either
    door.behind_s = -30 * DAY
    assert door.knock("chest", as_json(3001)) == "taken"
    door.synchronised = True
    assert door.knock("chest", as_json(3002)) == "time"
    door.behind_s = 5 * HOUR
    assert door.knock("chest", as_json(3003)) == "time"
    door.behind_s = 0
    # A backlog of an hour is no flood, now as ever, though what came before was of the future.
    hour = [as_json(seq, t0=START_NS - (3600 - seq) * SECOND) for seq in range(3600)]
    assert {door.knock("chest", payload) for payload in hour} == {"taken"}


# --- what people read


def test_what_is_said_names_the_device_and_what_to_do() -> None:
    assert impossible(START_NS) is None
    assert impossible(5 * SECOND) == "the gateway's clock says 1970-01-01"
    assert disagreement({}, synchronised=False) is None
    assert disagreement({ANN: 5 * HOUR}, synchronised=False) == (
        "the gateway's clock disagrees with its devices: chest of ann is 5 hours ahead of it; no "
        "time server has set the gateway's: see that it reaches one, or set the clock that is "
        "wrong; until then ECG is taken by the device's time"
    )
    many = {Stream("ann", f"d{n}"): -n * DAY for n in range(3, 9)}
    said = disagreement(many, synchronised=True)
    assert said is not None
    assert "d8 of ann is 8 days behind it, d7 of ann" in said
    assert "3 more are too; a time server has set the gateway's, so set the device's" in said


# --- the program


def publish(port: int, payloads: list[bytes]) -> None:
    client = Client(CallbackAPIVersion.VERSION2, client_id="device", protocol=MQTTv5)
    client.max_inflight_messages_set(200)
    client.connect("127.0.0.1", port)
    client.loop_start()
    for info in [client.publish("leadone/v1/ann/chest/ecg", p, qos=1) for p in payloads]:
        info.wait_for_publish(20)
    client.disconnect()
    client.loop_stop()


def second(seq: int, t0_ns: int) -> bytes:
    samples = [(7 * seq + i) % 501 for i in range(130)]
    return json.dumps(
        {"t0": t0_ns, "fs": 130, "unit": "uV", "seq": seq, "samples": samples}
    ).encode()


def stored(url: str) -> list[int | None]:
    with History(url) as history:
        return [chunk.sequence for chunk in history.segments("ann", *ALWAYS)]


@pytest.mark.parametrize(
    ("ahead", "said"),
    [
        ("-5h", "chest of ann is 5 hours ahead of it; no time server"),
        ("@1970-01-01 00:10:00", "the gateway's clock says 1970-01-01"),
    ],
)
def test_what_the_broker_kept_is_stored_by_a_gateway_that_wakes_in_the_past(
    mosquitto: Callable[..., "Mosquitto"],
    tmp_path: Path,
    fake_time: "FakeTime",
    ahead: str,
    said: str,
) -> None:
    broker = mosquitto(tmp_path / "broker")
    config = write_config(
        tmp_path,
        [],
        patients=[{"id": "ann"}],
        mqtt={"url": broker.url, "home_assistant": None},
        log={"level": "info", "format": "json"},
    )
    url = f"sqlite:///{tmp_path}/leadone.db"
    with Program("run", "-c", config, folder=tmp_path) as program:
        program.until(lambda: "Sending SUBACK to leadone\n" in broker.log)
        program.process.kill()
    # An hour and more of messages, a few of each minute: by the clock that is wrong the first
    # third of them is of the past, and the rest of the future.
    begun_ns = time.time_ns() - round(8 * HOUR) * SECOND
    payloads = [second(n, begun_ns + n * 150 * SECOND) for n in range(190)]
    publish(broker.port, payloads)

    fake_time.set(ahead)
    with Program("run", "-c", config, folder=tmp_path, env=fake_time.env, within=WITHIN) as program:
        program.until(lambda: len(stored(url)) == 190)
        # Now and then one that is live.
        begun_s = time.monotonic()
        number = 190

        def alarms() -> dict[str, Any]:
            with History(url) as history:
                return {alarm.condition: alarm for alarm in history.active_alarms()}

        def live() -> None:
            nonlocal number
            publish(broker.port, [second(number, time.time_ns() - SECOND)])
            number += 1

        live()
        program.until(lambda: "clock" in alarms())
        assert time.monotonic() - begun_s < 120
        assert said in program.err
        fake_time.set("+0")
        for _ in range(3):
            live()
        program.until(lambda: "clock" not in alarms())
        program.until(lambda: len(stored(url)) == number)
    assert stored(url) == list(range(number))
    assert "MQTT message refused" not in program.err
