"""What the house is told over MQTT, and what it may say."""

import asyncio
import contextlib
import json
import signal
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import home_assistant
import jinja2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from paho.mqtt.client import Client, MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion
from structlog.testing import capture_logs

from alerts.conditions import Priority
from ingest.chunk import Stream
from ingest.mqtt.broker import Broker
from monitor.mqtt import acknowledgement, connection, counts, discovery, house, leftovers, state
from monitor.mqtt.house import MqttOut
from monitor.mqtt.state import AlarmNotice, PatientState
from monitor.quality import Grade, Quality, Reason
from monitor.results import ModelId, WindowResult

pytest_plugins = ["mosquitto"]

S = 10**9
# 2026-11-21T07:00:00Z by `date -u -d 2026-11-21T07:00:00Z +%s`.
SEVEN = 1_795_244_400 * S
NAMES = {"NSR": "sinus rhythm", "AF": "atrial fibrillation", "PVC": "ventricular extrasystole"}
ALARM = AlarmNotice(
    "7b1c8c1e-5d0c-4a52-9a4e-1f2d3c4b5a69",
    "class:AF",
    Priority.MEDIUM,
    SEVEN - 60 * S,
    "looks like atrial fibrillation",
)


def window(
    *reasons: Reason,
    patient: str = "grandpa",
    device: str = "chest",
    start_ns: int = SEVEN,
    rate: float | None = 71.4,
    probabilities: dict[str, float] | None = None,
) -> WindowResult:
    """A window of 10 s; a good one, classified, if there is no reason against it."""
    classes = {"NSR": 0.2, "AF": 0.9, "PVC": 0.95} if probabilities is None else probabilities
    model = ModelId("m", "0", tuple(classes)) if classes and not reasons else None
    return WindowResult(
        Stream(patient, device),
        start_ns,
        10.0,
        Grade(Quality.BAD, reasons) if reasons else Grade(Quality.GOOD),
        None if reasons else rate,
        None,
        np.empty(0),
        model,
        None if model is None else np.array(list(classes.values()), np.float32),
    )


def said(patient: PatientState, after_s: float = 0.0) -> dict[str, Any]:
    """The state at 07:00:11, or so much later."""
    return patient.as_json(now_ns=SEVEN + round((11 + after_s) * S), now_s=1000.0 + after_s)


def hear(patient: PatientState, result: WindowResult, after_s: float = 0.0) -> None:
    patient.result(result, now_ns=SEVEN + round((11 + after_s) * S), now_s=1000.0 + after_s)


def test_a_good_window_becomes_the_state_of_the_contract() -> None:
    patient = PatientState(NAMES)
    hear(patient, window())
    patient.device(Stream("grandpa", "chest"), True, 83, None)
    assert said(patient) == {
        "at": "2026-11-21T07:00:11.000Z",
        "heart_rate": 71,
        "rhythm": "atrial fibrillation",  # not the extrasystoles: those are likelier, but no rhythm
        "verdict": None,
        "verdict_since": None,
        "quality": "good",
        "reasons": [],
        "contact": True,
        "battery": 83,
        "window": {"start": "2026-11-21T07:00:00.000Z", "seconds": 10},
        "connected": True,
        "device": "chest",
    }


def test_of_a_patient_nobody_has_heard_nothing_is_known() -> None:
    assert said(PatientState(NAMES)) == {
        "at": "2026-11-21T07:00:11.000Z",
        "heart_rate": None,
        "rhythm": None,
        "verdict": None,
        "verdict_since": None,
        "quality": None,
        "reasons": [],
        "contact": None,
        "battery": None,
        "window": None,
        "connected": False,
        "device": None,
    }


def test_a_bad_window_has_no_rate_and_no_rhythm_but_reasons() -> None:
    patient = PatientState(NAMES)
    hear(patient, window())
    hear(patient, window(Reason.NOISY, Reason.CONTACT, start_ns=SEVEN + 5 * S), 5)
    now = said(patient, 5)
    assert (now["heart_rate"], now["rhythm"]) == (None, None)
    assert (now["quality"], now["reasons"]) == ("bad", ["noisy", "contact"])
    assert now["contact"] is False
    assert now["window"]["start"] == "2026-11-21T07:00:05.000Z"


def test_rr_intervals_alone_tell_a_rate_and_no_rhythm() -> None:
    patient = PatientState(NAMES)
    hear(patient, window(probabilities={}))
    assert (said(patient)["heart_rate"], said(patient)["rhythm"]) == (71, None)


@pytest.mark.parametrize(
    ("after_s", "heart_rate", "connected"), [(90, 71, True), (90.1, None, False)]
)
def test_the_values_of_a_silent_device_are_of_no_use(
    after_s: float, heart_rate: int | None, connected: bool
) -> None:
    patient = PatientState(NAMES)
    hear(patient, window())
    now = said(patient, after_s)
    assert (now["heart_rate"], now["connected"]) == (heart_rate, connected)
    assert now["quality"] == (None if heart_rate is None else "good")
    assert now["window"] == {"start": "2026-11-21T07:00:00.000Z", "seconds": 10}


def test_the_rate_goes_with_the_connection_and_comes_back_with_it() -> None:
    patient, chest = PatientState(NAMES), Stream("grandpa", "chest")
    hear(patient, window())
    patient.device(chest, False, None, None)
    assert (said(patient)["heart_rate"], said(patient)["connected"]) == (None, False)
    patient.device(chest, True, None, None)
    hear(patient, window(start_ns=SEVEN + 5 * S), 5)
    assert (said(patient, 5)["heart_rate"], said(patient, 5)["connected"]) == (71, True)


def test_what_a_device_says_of_its_contact_counts_more_than_the_window() -> None:
    patient = PatientState(NAMES)
    hear(patient, window())
    patient.device(Stream("grandpa", "chest"), None, None, False)
    assert said(patient)["contact"] is False


def test_yesterdays_window_is_not_the_present() -> None:
    patient = PatientState(NAMES)
    hear(patient, window(start_ns=SEVEN - 24 * 3600 * S))
    now = said(patient)
    assert (now["heart_rate"], now["window"]) == (None, None)
    assert now["connected"] is True  # the device does send


def test_an_older_window_does_not_replace_a_newer_one() -> None:
    patient = PatientState(NAMES)
    hear(patient, window(start_ns=SEVEN))
    hear(patient, window(start_ns=SEVEN - 5 * S, rate=140.0), 1)
    assert said(patient, 1)["heart_rate"] == 71
    # But a clock that was set back is believed as soon as the other value is stale.
    hear(patient, window(start_ns=SEVEN - 5 * S, rate=140.0), 100)
    assert said(patient, 100)["heart_rate"] == 140


def test_of_two_devices_one_stays_until_the_other_is_better() -> None:
    patient = PatientState(NAMES)
    hear(patient, window(device="chest"))
    hear(patient, window(device="patch", rate=75.0))
    assert said(patient)["device"] == "chest"
    hear(patient, window(Reason.NOISY, device="chest", start_ns=SEVEN + 5 * S), 5)
    assert said(patient, 5)["device"] == "chest"
    hear(patient, window(device="patch", start_ns=SEVEN + 5 * S, rate=75.0), 5)
    assert (said(patient, 5)["device"], said(patient, 5)["heart_rate"]) == ("patch", 75)
    patient.device(Stream("grandpa", "patch"), False, None, None)
    hear(patient, window(Reason.NOISY, device="chest", start_ns=SEVEN + 10 * S), 10)
    assert (said(patient, 10)["device"], said(patient, 10)["quality"]) == ("chest", "bad")


def test_the_most_urgent_alarm_comes_first_and_gives_the_priority() -> None:
    urgent = AlarmNotice(
        "f", "pause", Priority.HIGH, SEVEN, "pause between heartbeats", "Anna", SEVEN + S // 2
    )
    assert state.alarms_as_json([ALARM, urgent]) == {
        "state": "alarm",
        "priority": "high",
        "alarms": [
            {
                "id": "f",
                "condition": "pause",
                "priority": "high",
                "since": "2026-11-21T07:00:00.000Z",
                "text": "pause between heartbeats",
                "acknowledged": {"by": "Anna", "at": "2026-11-21T07:00:00.500Z"},
            },
            {
                "id": "7b1c8c1e-5d0c-4a52-9a4e-1f2d3c4b5a69",
                "condition": "class:AF",
                "priority": "medium",
                "since": "2026-11-21T06:59:00.000Z",
                "text": "looks like atrial fibrillation",
                "acknowledged": None,
            },
        ],
    }
    assert state.alarms_as_json([]) == {"state": "none", "priority": None, "alarms": []}


# Acknowledgements


@pytest.mark.parametrize(
    ("payload", "alarm", "by"),
    [
        (b"", None, "MQTT"),
        (b" \n", None, "MQTT"),
        (b"7b1c8c1e-5d0c\n", "7b1c8c1e-5d0c", "MQTT"),
        (b"{}", None, "MQTT"),
        (b'{"id": null, "by": "Home Assistant"}', None, "Home Assistant"),
        ('{"id": "7b1c", "by": " Jürgen "}'.encode(), "7b1c", "Jürgen"),
        (discovery.ACKNOWLEDGE.encode(), None, "Home Assistant"),
    ],
)
def test_acknowledgements_are_understood(payload: bytes, alarm: str | None, by: str) -> None:
    assert acknowledgement.decode(payload) == acknowledgement.Acknowledgement(alarm, by)


GARBAGE = [
    b"\xff\xfe",
    b"not an id",
    b"../../etc/passwd",
    b"[]",
    b'"7b1c"',
    b"{",
    b'{"id": 5}',
    b'{"id": ["7b1c"]}',
    b'{"id": ""}',
    b'{"by": ""}',
    b'{"by": "   "}',
    b'{"by": true}',
    b'{"by": "a\\nforged line"}',
    b'{"by": "' + b"x" * 65 + b'"}',
    b'{"id":' + b"[" * 1000,
    b"7" * 65,
    b" " * 1025,
]


@pytest.mark.parametrize("payload", GARBAGE)
def test_garbage_is_no_acknowledgement(payload: bytes) -> None:
    with pytest.raises(acknowledgement.RefusedError) as refused:
        acknowledgement.decode(payload)
    assert "\n" not in str(refused.value)


@given(st.binary(max_size=1100) | st.text(max_size=80).map(str.encode))
def test_no_payload_raises_anything_else(payload: bytes) -> None:
    try:
        taken = acknowledgement.decode(payload)
    except acknowledgement.RefusedError:
        return
    assert taken.by.isprintable()
    assert taken.alarm is None or len(taken.alarm) <= 64


# Home Assistant


def config(name: str | None = "Opa Jürgen") -> dict[str, Any]:
    return discovery.device_config("grandpa", name, [NAMES["NSR"], NAMES["AF"]])


@pytest.mark.parametrize("name", [None, "Opa Jürgen"])
def test_discovery_follows_home_assistants_schema(name: str | None) -> None:
    topic = "homeassistant/device/leadone_grandpa/config"
    assert home_assistant.errors(topic, config(name)) == []
    assert home_assistant.errors(topic, discovery.device_config("x", None, [])) == []
    assert config(name)["device"]["name"] == (name or "grandpa")


def test_discovery_has_what_the_house_wants_to_see() -> None:
    components = config()["components"]
    assert {key: c["platform"] for key, c in components.items()} == {
        "heart_rate": "sensor",
        "rhythm": "sensor",
        "verdict": "sensor",
        "quality": "sensor",
        "battery": "sensor",
        "connection": "binary_sensor",
        "alarm": "binary_sensor",
        "acknowledge": "button",
    }
    assert components["heart_rate"]["unit_of_measurement"] == "bpm"
    assert components["battery"]["device_class"] == "battery"
    assert components["alarm"]["device_class"] == "problem"
    assert components["connection"]["device_class"] == "connectivity"
    assert components["acknowledge"]["command_topic"] == "leadone/v1/grandpa/alarm/ack"
    # Stable: Home Assistant knows the history of an entity by it.
    assert components["heart_rate"]["unique_id"] == "leadone_grandpa_heart_rate"
    assert config()["availability_topic"] == "leadone/v1/status"


@pytest.mark.parametrize(
    ("path", "value", "complaint"),
    [
        (("components", "battery", "unit_of_meas"), "%", "'unit_of_meas' was unexpected"),
        (("components", "battery", "unit_of_measurement"), "V", "'%' was expected"),
        (("components", "quality", "state_class"), "measurement", "False schema"),
        (("components", "quality", "device_class"), "battery", "'enum' was expected"),
        (("components", "alarm", "device_class"), "trouble", "is not one of"),
        (("components", "alarm", "state_topic"), "leadone/#", "does not match"),
        (("components", "alarm", "platform"), "bell", "is not one of"),
        (("components", "acknowledge", "command_topic"), None, "is not of type 'string'"),
        (("device", "identifiers"), [], "should be non-empty"),
        (("origin", "url"), "https://x", "'url' was unexpected"),
        (("dev",), {}, "'dev' was unexpected"),
        (("components", "alarm", "unique_id"), "leadone_grandpa_battery", "is there twice"),
    ],
)
def test_the_schema_can_refuse(path: tuple[str, ...], value: object, complaint: str) -> None:
    payload = config()
    part: Any = payload
    for key in path[:-1]:
        part = part[key]
    part[path[-1]] = value
    wrong = home_assistant.errors("homeassistant/device/leadone_grandpa/config", payload)
    assert any(complaint in line for line in wrong), wrong


def shown(key: str, payload: dict[str, Any]) -> str:
    """What Home Assistant makes of a payload; ``None`` it takes for unknown."""
    template = config()["components"][key]["value_template"]
    return jinja2.Environment(autoescape=True).from_string(template).render(value_json=payload)


def test_templates_find_their_values() -> None:
    patient = PatientState(NAMES)
    nothing = said(patient)
    hear(patient, window())
    patient.device(Stream("grandpa", "chest"), None, 83, None)
    good = said(patient)
    keys = ["heart_rate", "rhythm", "quality", "battery", "connection"]
    assert [shown(k, good) for k in keys] == ["71", "atrial fibrillation", "good", "83", "ON"]
    assert [shown(k, nothing) for k in keys] == ["None", "None", "None", "None", "OFF"]
    assert shown("alarm", state.alarms_as_json([ALARM])) == "ON"
    assert shown("alarm", state.alarms_as_json([])) == "OFF"
    template = config()["components"]["quality"]["json_attributes_template"]
    filters = jinja2.Environment(autoescape=False)
    filters.filters["tojson"] = json.dumps
    rendered = filters.from_string(template).render(value_json=good)
    assert json.loads(rendered) == {"reasons": [], "contact": True, "device": "chest"}


def test_every_enum_value_is_among_the_options() -> None:
    components = config()["components"]
    assert set(components["quality"]["options"]) == {"good", "bad"}
    patient = PatientState(NAMES)
    hear(patient, window())
    assert said(patient)["rhythm"] in components["rhythm"]["options"]


def test_a_daemon_that_hangs_expires_and_one_that_does_not_never_does() -> None:
    expire = {c["expire_after"] for c in config()["components"].values() if "expire_after" in c}
    assert expire == {180}
    assert 3 * house._AGAIN_S < 180


# With a real broker


class House:
    """Somebody in the house who listens to everything.

    Attributes:
        seen: all messages, in order, as (topic, payload, retained).
    """

    def __init__(self, port: int, **auth: str) -> None:
        self.seen: list[tuple[str, str, bool]] = []
        self.client = Client(CallbackAPIVersion.VERSION2)
        if auth:
            self.client.username_pw_set(**auth)
        self.client.on_message = self._note
        listening = threading.Event()
        self.client.on_connect = lambda c, *_: c.subscribe("#", 1)
        self.client.on_subscribe = lambda *_: listening.set()
        self.client.reconnect_delay_set(1, 1)
        self.client.connect("127.0.0.1", port)
        self.client.loop_start()
        assert listening.wait(5)

    def _note(self, _client: Client, _data: object, message: MQTTMessage) -> None:
        self.seen.append((message.topic, message.payload.decode(errors="replace"), message.retain))

    def say(self, topic: str, payload: str | bytes = "", *, retain: bool = False) -> None:
        self.client.publish(topic, payload, 1, retain).wait_for_publish(5)

    def last(self, topic: str) -> Any:
        """The newest payload, decoded; None if there is none or it is empty."""
        payload = next((p for t, p, _ in reversed(self.seen) if t == topic), "")
        return json.loads(payload) if payload.startswith("{") else payload or None

    def all(self, topic: str) -> list[str]:
        return [p for t, p, _ in self.seen if t == topic]

    def close(self) -> None:
        self.client.disconnect()
        self.client.loop_stop()


@contextlib.contextmanager
def listening(port: int, **auth: str) -> Iterator[House]:
    listener = House(port, **auth)
    try:
        yield listener
    finally:
        listener.close()


async def until(true: Callable[[], object], what: str = "", timeout_s: float = 8.0) -> None:
    deadline = asyncio.get_running_loop().time() + timeout_s
    while not true():
        assert asyncio.get_running_loop().time() < deadline, f"never: {what}"
        await asyncio.sleep(0.01)


def out(
    port: int,
    *,
    protocol: Any = "5",
    patients: dict[str, str | None] | None = None,
    prefix: str | None = "homeassistant",
    acknowledge: Callable[[str, str | None, str], None] = lambda *_: None,
    **auth: str,
) -> MqttOut:
    broker = Broker("127.0.0.1", port, protocol=protocol, **auth)
    people = {"grandpa": "Opa Jürgen", "anna": None} if patients is None else patients
    return MqttOut(
        broker,
        people,
        NAMES,
        discovery=prefix,
        acknowledge=acknowledge,
        now_ns=lambda: SEVEN + 11 * S,
    )


@contextlib.asynccontextmanager
async def running(mqtt: MqttOut) -> AsyncIterator[asyncio.Event]:
    stop = asyncio.Event()
    task = asyncio.create_task(mqtt.run(stop))
    try:
        yield stop
    finally:
        stop.set()
        await asyncio.wait_for(task, 10)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(house, "_FIRST_RETRY_S", 0.05)
    monkeypatch.setattr(house, "_LAST_RETRY_S", 0.2)


STATE, ALARMS = "leadone/v1/grandpa/state", "leadone/v1/grandpa/alarm"
STATUS, DISCOVERY = "leadone/v1/status", "homeassistant/device/leadone_grandpa/config"
LAST = "homeassistant/device/leadone_anna/config"


@pytest.mark.parametrize("protocol", ["5", "3.1.1"])
async def test_all_that_is_known_is_retained(mosquitto: Any, tmp_path: Path, protocol: str) -> None:
    broker = mosquitto(tmp_path)
    mqtt = out(broker.port, protocol=protocol)
    mqtt.result(window())
    mqtt.device(Stream("grandpa", "chest"), connected=True, battery=83)
    mqtt.alarms("grandpa", [ALARM])
    with listening(broker.port) as live:
        async with running(mqtt):
            await until(lambda: live.last(LAST), "all of it")
            # After them: whoever sees it can rely on what they say.
            before = [topic for topic, _, _ in live.seen]
            assert before.index(STATUS) > max(before.index(STATE), before.index(ALARMS))
            with listening(broker.port) as later:
                await until(lambda: len(later.seen) == 7, "all that is retained")
                assert all(retained for _, _, retained in later.seen)
                assert later.last(STATE)["heart_rate"] == 71
                assert later.last(STATE)["battery"] == 83
                assert later.last(ALARMS)["priority"] == "medium"
                assert later.last("leadone/v1/anna/state")["heart_rate"] is None
                assert later.last("leadone/v1/anna/alarm")["state"] == "none"
                for patient in ("grandpa", "anna"):
                    topic = f"homeassistant/device/leadone_{patient}/config"
                    assert home_assistant.errors(topic, later.last(topic)) == []
            mqtt.alarms("grandpa", [])
            await until(lambda: live.last(ALARMS)["state"] == "none", "the end of the alarm")
        # An orderly end is told as well.
        await until(lambda: live.last(STATUS) == "offline", "offline")
        # The name of a patient is in no topic, and in nothing but the discovery.
        for topic, payload, _ in live.seen:
            assert "rgen" not in topic
            assert "rgen" not in payload or topic == DISCOVERY


async def test_without_a_prefix_home_assistant_is_told_nothing(
    mosquitto: Any, tmp_path: Path
) -> None:
    broker = mosquitto(tmp_path)
    with listening(broker.port) as live:
        async with running(out(broker.port, prefix=None)):
            await until(lambda: live.last(STATUS) == "online", "online")
            assert {topic.partition("/")[0] for topic, _, _ in live.seen} == {"leadone"}


PROGRAM = """
import asyncio, sys
from ingest.mqtt.broker import Broker
from monitor.mqtt.house import MqttOut
broker = Broker("127.0.0.1", int(sys.argv[1]))
out = MqttOut(broker, {"grandpa": None}, {}, discovery=None, acknowledge=print)
asyncio.run(out.run(asyncio.Event()))
"""


async def test_the_broker_tells_when_the_daemon_is_killed(mosquitto: Any, tmp_path: Path) -> None:
    broker = mosquitto(tmp_path)
    with listening(broker.port) as live:
        daemon = subprocess.Popen(  # noqa: ASYNC220
            [sys.executable, "-c", PROGRAM, str(broker.port)]
        )
        try:
            await until(lambda: live.last(STATUS) == "online", "online", 30)
        finally:
            daemon.send_signal(signal.SIGKILL)
            daemon.wait()
        await until(lambda: live.last(STATUS) == "offline", "the last will")
    with listening(broker.port) as later:
        await until(lambda: later.last(STATUS) == "offline", "the last will, retained")


async def test_a_connection_that_breaks_is_made_anew(mosquitto: Any, tmp_path: Path) -> None:
    broker = mosquitto(tmp_path)
    with capture_logs() as logs, listening(broker.port) as live:
        async with running(out(broker.port)):
            await until(lambda: live.last(STATUS) == "online", "online")
            # Another client of that name: the broker ends the first one's connection.
            rival = Client(CallbackAPIVersion.VERSION2, "leadone-out")
            rival.connect("127.0.0.1", broker.port)
            rival.loop_start()
            await until(lambda: "offline" in live.all(STATUS), "the last will")
            rival.disconnect()
            rival.loop_stop()
            await until(lambda: live.last(STATUS) == "online", "online again")
    reasons = [line["reason"] for line in logs if line["log_level"] == "warning"]
    assert reasons == ["the connection broke"]


async def test_a_daemon_that_is_cut_short_leaves_its_last_will(
    mosquitto: Any, tmp_path: Path
) -> None:
    broker = mosquitto(tmp_path)
    with listening(broker.port) as live:
        task = asyncio.create_task(out(broker.port).run(asyncio.Event()))
        await until(lambda: live.last(STATUS) == "online", "online")
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await until(lambda: live.last(STATUS) == "offline", "the last will")
    assert "Received DISCONNECT from leadone-out" not in broker.log


async def test_a_broker_that_comes_back_empty_learns_everything_anew(
    mosquitto: Any, tmp_path: Path
) -> None:
    broker = mosquitto(tmp_path)
    mqtt = out(broker.port)
    async with running(mqtt):
        with listening(broker.port) as live:
            await until(lambda: live.last(STATUS) == "online", "online")
        broker.kill()
        # What changes meanwhile takes one place, however often it does.
        for rate in range(60, 100):
            mqtt.result(window(start_ns=SEVEN + rate, rate=float(rate)))
        await asyncio.sleep(0.3)
        mqtt.alarms("grandpa", [ALARM])
        (tmp_path / "mosquitto.db").unlink(missing_ok=True)
        broker.start()
        with listening(broker.port) as again:
            await until(lambda: again.last(LAST), "all of it")
            assert again.last(STATUS) == "online"
            assert again.last(STATE)["heart_rate"] == 99
            assert again.last(ALARMS)["state"] == "alarm"
            assert again.last(DISCOVERY)["device"]["name"] == "Opa Jürgen"
            assert len(again.all(STATE)) == 1


async def test_a_broker_that_is_not_there_is_told_of_once(tmp_path: Path) -> None:
    mqtt = out(1)
    with capture_logs() as logs:
        async with running(mqtt):  # nobody listens on port 1
            await asyncio.sleep(0.4)
    assert len([line for line in logs if line["log_level"] == "warning"]) == 1


async def test_a_wrong_password_is_told_of_once_and_never_shown(
    mosquitto: Any, tmp_path: Path
) -> None:
    passwords = tmp_path / "passwords"
    subprocess.run(  # noqa: ASYNC221
        ["mosquitto_passwd", "-b", "-c", passwords, "leadone", "right"], check=True
    )
    broker = mosquitto(tmp_path, f"allow_anonymous false\npassword_file {passwords}")
    with capture_logs() as logs:
        async with running(out(broker.port, username="leadone", password="wr0ng")):
            await until(lambda: broker.log.count("not authorised") > 2, "three attempts")
    warnings = [line for line in logs if line["log_level"] == "warning"]
    assert len(warnings) == 1
    assert "wr0ng" not in str(logs)


async def test_what_the_access_rules_forbid_is_told_of_once(mosquitto: Any, tmp_path: Path) -> None:
    rules = tmp_path / "rules"
    rules.write_text("topic read #\ntopic write leadone/#\n", encoding="utf-8")
    broker = mosquitto(tmp_path, f"allow_anonymous true\nacl_file {rules}")
    before = counts.REFUSED._value.get()
    with capture_logs() as logs, listening(broker.port) as live:
        async with running(out(broker.port)):
            await until(lambda: any("let us" in line["event"] for line in logs), "a refusal")
            # Mosquitto breaks the connection then; with the next one there is peace.
            await asyncio.sleep(0.3)
            await until(lambda: live.last(STATUS) == "online", "online, still or again")
            assert broker.log.count("Denied PUBLISH") == 1
    told = [line["event"] for line in logs if "let us" in line["event"]]
    # Of the discovery of two patients, one is enough to know.
    assert len(told) == 1
    assert counts.REFUSED._value.get() - before == 1


async def test_home_assistant_that_starts_is_told_everything(
    mosquitto: Any, tmp_path: Path
) -> None:
    broker = mosquitto(tmp_path)
    with listening(broker.port) as live:
        async with running(out(broker.port)):
            await until(lambda: live.last(LAST), "all of it")
            live.say("homeassistant/status", "offline")
            live.say("homeassistant/status", "online")
            await until(lambda: len(live.all(LAST)) == 2, "all of it again")
            assert len(live.all(DISCOVERY)) == 2
            assert len(live.all(ALARMS)) == 2
            assert len(live.all(STATUS)) == 2
            await until(lambda: len(live.all(STATE)) == 2, "the state again")


async def test_states_are_spaced_and_alarms_are_not(
    mosquitto: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(house, "_STATE_S", 0.5)
    broker = mosquitto(tmp_path)
    mqtt = out(broker.port)
    with listening(broker.port) as live:
        async with running(mqtt):
            await until(lambda: live.last(STATUS) == "online", "online")
            started = asyncio.get_running_loop().time()
            for step in range(10):
                mqtt.result(window(start_ns=SEVEN + step, rate=60.0 + step))
                mqtt.alarms("grandpa", [ALARM] if step % 2 == 0 else [])
                expected = step + 2
                await until(lambda n=expected: len(live.all(ALARMS)) == n, "an alarm at once")
            assert asyncio.get_running_loop().time() - started < 0.5
            assert len(live.all(STATE)) == 1
            await until(lambda: live.last(STATE)["heart_rate"] == 69, "the newest state")
            assert len(live.all(STATE)) == 2


async def test_what_does_not_change_is_said_again_now_and_then(
    mosquitto: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(house, "_AGAIN_S", 0.2)
    monkeypatch.setattr(house, "_STATE_S", 0.0)
    broker = mosquitto(tmp_path)
    with listening(broker.port) as live:
        async with running(out(broker.port)):
            await until(lambda: live.last(LAST), "all of it")
            await until(lambda: len(live.all(STATUS)) == 3, "online thrice")
            assert len(live.all(STATE)) == 3
            assert len(live.all(ALARMS)) == 3
            assert len(live.all(DISCOVERY)) == 1


async def test_an_alarm_is_acknowledged(mosquitto: Any, tmp_path: Path) -> None:
    broker = mosquitto(tmp_path)
    heard: list[tuple[str, str | None, str]] = []
    threads = set()

    def acknowledge(patient: str, alarm: str | None, by: str) -> None:
        threads.add(threading.current_thread())
        heard.append((patient, alarm, by))

    with listening(broker.port) as live:
        async with running(out(broker.port, acknowledge=acknowledge)):
            await until(lambda: live.last(DISCOVERY), "the button")
            await until(lambda: live.last(STATUS) == "online", "online")
            button = live.last(DISCOVERY)["components"]["acknowledge"]
            live.say(button["command_topic"], button["payload_press"])
            live.say("leadone/v1/anna/alarm/ack", ALARM.id)
            live.say("leadone/v1/anna/alarm/ack")
            await until(lambda: len(heard) == 3, "three acknowledgements")
    assert heard == [
        ("grandpa", None, "Home Assistant"),
        ("anna", ALARM.id, "MQTT"),
        ("anna", None, "MQTT"),
    ]
    assert threads == {threading.main_thread()}


async def test_what_is_no_acknowledgement_is_counted_logged_and_harmless(
    mosquitto: Any, tmp_path: Path
) -> None:
    def refused(reason: str) -> float:
        return counts.ACKNOWLEDGEMENTS_REFUSED.labels(reason)._value.get()

    broker = mosquitto(tmp_path)
    heard: list[tuple[str, str | None, str]] = []

    def acknowledge(patient: str, alarm: str | None, by: str) -> None:
        heard.append((patient, alarm, by))
        if alarm == "boom":
            raise RuntimeError("database gone")

    before = {reason: refused(reason) for reason in ("payload", "patient", "retained")}
    with capture_logs() as logs, listening(broker.port) as live:
        live.say("leadone/v1/grandpa/alarm/ack", "old", retain=True)
        async with running(out(broker.port, acknowledge=acknowledge)):
            await until(lambda: live.last(STATUS) == "online", "online")
            for payload in (*GARBAGE, b"x" * 200_000):
                live.say("leadone/v1/grandpa/alarm/ack", payload)
            for patient in ("nobody", "grandpa;", "Großvater", "x" * 5000):
                live.say(f"leadone/v1/{patient}/alarm/ack")
            live.say("leadone/v1/grandpa/alarm/ack", "boom")
            live.say("leadone/v1/grandpa/alarm/ack", "fine")
            await until(lambda: ("grandpa", "fine", "MQTT") in heard, "the good one")
    assert [alarm for _, alarm, _ in heard] == ["boom", "fine"]
    assert refused("payload") - before["payload"] == len(GARBAGE) + 1
    assert refused("patient") - before["patient"] == 4
    assert refused("retained") - before["retained"] == 1
    lines = [line for line in logs if line["event"] == "mqtt: acknowledgement refused"]
    assert len(lines) == 3  # of each reason the first
    assert all(len(line["topic"]) <= 160 for line in lines)
    assert any(line["event"] == "mqtt: acknowledgement failed" for line in logs)


async def test_patients_who_are_gone_are_cleared_and_strangers_left_alone(
    mosquitto: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leftovers, "PATIENCE_S", 0.5)
    broker = mosquitto(tmp_path)
    gone = [
        "leadone/v1/gone/state",
        "leadone/v1/gone/alarm",
        "homeassistant/device/leadone_gone/config",
    ]
    kept = [
        # Another daemon's: it speaks while we listen.
        "leadone/v1/neighbour/state",
        "homeassistant/device/leadone_neighbour/config",
        "homeassistant/device/leadonely/config",
        "homeassistant/device/0AFFD2/config",
        "leadone/v1/gone/chest/ecg",
        "leadone/v1/status/state/of/things",
        "leadone/v2/gone/state",
    ]
    with listening(broker.port) as live:
        for topic in (*gone, *kept):
            live.say(topic, "{}", retain=True)
        async with running(out(broker.port)):
            await until(lambda: live.last(STATUS) == "online", "online")
            live.say("leadone/v1/neighbour/state", '{"at": "now"}', retain=True)
            await until(lambda: all(live.last(t) is None for t in gone), "clearing")
            await asyncio.sleep(0.1)
            # Once is enough: nobody listens to these any longer.
            assert "UNSUBSCRIBE" in broker.log
    with listening(broker.port) as later:
        await until(lambda: later.last(STATUS), "what is retained")
        await asyncio.sleep(0.1)
        retained = {topic for topic, _, _ in later.seen}
    assert retained >= {*kept, STATE, ALARMS, DISCOVERY}
    assert not retained & set(gone)


async def test_a_broker_that_confirms_nothing_costs_no_memory_and_no_time() -> None:
    """It lets us in and then reads no further: what is unconfirmed stays bounded."""
    greeted = asyncio.Event()
    silent: list[asyncio.StreamWriter] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        silent.append(writer)
        await reader.read(2048)
        writer.write(bytes([0x20, 2, 0, 0]))  # CONNACK of MQTT 3.1.1, accepted
        greeted.set()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    people: dict[str, str | None] = {f"p{n}": None for n in range(50)}
    mqtt = out(port, protocol="3.1.1", patients=people)
    published: list[str] = []
    publish = Client.publish

    def note(self: Client, topic: str, *rest: Any, **named: Any) -> Any:
        published.append(topic)
        return publish(self, topic, *rest, **named)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Client, "publish", note)
        async with running(mqtt):
            await greeted.wait()
            for step in range(300):
                for patient in people:
                    mqtt.result(window(patient=patient, start_ns=SEVEN + step))
                await asyncio.sleep(0)
            await until(lambda: published, "something said")
            await asyncio.sleep(0.2)
            stopped = asyncio.get_running_loop().time()
        assert asyncio.get_running_loop().time() - stopped < 8
    assert len(published) == connection._UNCONFIRMED
    for writer in silent:
        writer.close()
    server.close()
    await server.wait_closed()
