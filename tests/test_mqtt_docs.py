"""What docs/mqtt.md, the examples and the JSON Schema say of messages is what the code does."""

import ast
import json
import math
import re
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import cbor2
import numpy as np
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from ingest.mqtt.limits import Limits
from ingest.mqtt.payload import Mapping, Message, Reason, RefusedError, decode
from ingest.mqtt.topics import TopicMap
from monitor.config.mqtt import MqttConfig

ROOT = Path(__file__).parents[1]
DOCS = (ROOT / "docs" / "mqtt.md").read_text(encoding="utf-8")
ESP32 = (ROOT / "examples" / "mqtt" / "esp32.md").read_text(encoding="utf-8")
SCHEMA = json.loads((ROOT / "docs" / "schema" / "ecg-message.json").read_text(encoding="utf-8"))
VALIDATOR = Draft202012Validator(SCHEMA)
LIMITS = Limits()
NOON = datetime(2026, 11, 21, 7, tzinfo=UTC)
NOON_NS = 1_795_244_400_000_000_000


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)


def topic_map(topic: dict[str, Any]) -> TopicMap:
    """An entry of ``mqtt.topics`` as the daemon reads it."""
    topic = dict(topic)
    mapping = Mapping(
        format=topic.pop("format", "auto"),
        time=topic.pop("time", None),
        constant_fs=topic.pop("fs", None),
        constant_unit=topic.pop("unit", None),
        **topic.pop("fields", {}),
    )
    return TopicMap(mapping=mapping, **topic)


def shapes() -> dict[str, tuple[str, dict[str, Any]]]:
    """Every payload of the documentation beside its entry of ``mqtt.topics``, by its heading."""
    section = DOCS[DOCS.index("## Devices that were there first") :]
    section = section[: section.index("\n## ", 5)]
    found = {}
    for part in section.split("\n### ")[1:]:
        (payload,) = blocks(part, "json")
        (mapping,) = blocks(part, "yaml")
        found[part.splitlines()[0]] = payload, yaml.safe_load(mapping)["mqtt"]["topics"][0]
    (payload,), (mapping,) = blocks(ESP32, "json"), blocks(ESP32, "yaml")
    found["examples/mqtt/esp32.md"] = payload, yaml.safe_load(mapping)["mqtt"]["topics"][0]
    return found


# Worked out by hand from the payloads: time of the first sample after 07:00 UTC in ns, rate in Hz,
# the first three samples in µV, number, contact, battery.
EXPECTED: dict[str, tuple[int, float, list[float], int | None, bool | None, int | None]] = {
    "ESP32 with an AD8232": (0, 250, [1364.113, 1362.647, 1364.846], 17, True, None),
    "Phone as a gateway": (250_000_000, 130, [-31, -28, 12], None, None, 83),
    "Movesense, bridged": (125_000_000, 128, [-46.92077, -44.25049, 78.20129], None, None, None),
    "Short keys in CBOR": (0, 200, [12, float("nan"), -3], 4711, None, None),
    "examples/mqtt/esp32.md": (0, 250, [1364.113, 1362.647, 1364.846], 17, True, None),
}
TOPICS = {
    "ESP32 with an AD8232": ("esp32/7c9ebd/ecg", ("grandpa", "7c9ebd")),
    "Phone as a gateway": ("phones/grandma/h10/ecg", ("grandma", "h10")),
    "Movesense, bridged": ("movesense/213830000123/meas/ecg", ("grandpa", "213830000123")),
    "Short keys in CBOR": ("ward/3/bed/7/ecg", ("grandma", "patch")),
    "examples/mqtt/esp32.md": ("esp32/7c9ebd/ecg", ("grandpa", "7c9ebd")),
}


def test_at_least_three_shapes_are_documented() -> None:
    assert shapes().keys() == EXPECTED.keys() == TOPICS.keys()


@pytest.mark.parametrize("name", EXPECTED)
def test_a_documented_payload_is_read_with_its_mapping(name: str) -> None:
    text, topic = shapes()[name]
    entry = topic_map(topic)
    payload = text.encode()
    if entry.mapping.format == "cbor":
        payload = cbor2.dumps(json.loads(text))
    message = decode(payload, entry.mapping, LIMITS)
    after_ns, rate, first, number, contact, battery = EXPECTED[name]
    assert message.t0_ns == NOON_NS + after_ns
    assert message.rate == rate
    np.testing.assert_allclose(message.microvolts[:3], first, rtol=1e-5)
    assert (message.sequence, message.contact, message.battery) == (number, contact, battery)


@pytest.mark.parametrize("name", TOPICS)
def test_a_documented_topic_is_understood(name: str) -> None:
    topic, whose = TOPICS[name]
    assert topic_map(shapes()[name][1]).match(topic) == whose


def test_the_message_of_the_documentation_is_one() -> None:
    section = DOCS[DOCS.index("## The message") :]
    text = blocks(section, "json")[0]
    VALIDATOR.validate(json.loads(text))
    message = decode(text.encode(), Mapping(), LIMITS)
    assert (message.t0_ns, message.rate, message.sequence) == (NOON_NS, 130, 17)


def test_every_reason_to_refuse_is_documented() -> None:
    section = DOCS[DOCS.index("## Refused messages") :]
    table = re.findall(r"^\| ([a-z ]+) \|", section[: section.index("\n## ", 5)], re.MULTILINE)
    assert set(table) - {"reason"} == {reason.value for reason in Reason}


def test_the_limits_in_the_documentation_are_the_code_s() -> None:
    section = DOCS[DOCS.index("## Limits") :]
    (text,) = blocks(section[: section.index("\n## ", 5)], "yaml")
    said = yaml.safe_load(text)["mqtt"]["limits"]
    assert said == {
        "payload": LIMITS.payload,
        "samples": LIMITS.samples,
        "rate": list(LIMITS.rate),
        "per_second": LIMITS.per_second,
        "ahead": f"{LIMITS.ahead:g}s",
        "age": f"{LIMITS.age / 86_400:g}d",
        "devices": LIMITS.devices,
    }
    properties = SCHEMA["properties"]
    assert properties["samples"]["maxItems"] == LIMITS.samples
    assert [properties["fs"]["minimum"], properties["fs"]["maximum"]] == list(LIMITS.rate)


@pytest.mark.parametrize("text", [DOCS, ESP32], ids=["mqtt.md", "esp32.md"])
def test_every_configuration_shown_is_one(text: str) -> None:
    shown = [yaml.safe_load(block) for block in blocks(text, "yaml")]
    configured = [block["mqtt"] for block in shown if "mqtt" in block]
    assert configured
    for mqtt in configured:
        if "password" in mqtt:
            assert mqtt["password"].keys() == {"file"}  # which is not here
            mqtt["password"] = "secret"
        MqttConfig.model_validate(mqtt)


def test_files_that_the_documentation_names_are_there() -> None:
    for text, where in ((DOCS, ROOT / "docs"), (ESP32, ROOT / "examples" / "mqtt")):
        for target in re.findall(r"\]\(([^)#]+)\)", text):
            if "://" not in target:
                assert (where / target).exists(), target


def test_the_example_publisher_sends_messages_of_the_schema(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sent: list[tuple[str, str, int]] = []

    class Wire:
        def __init__(self, *_: Any, **__: Any) -> None: ...
        def connect(self, *_: Any) -> None: ...
        def loop_start(self) -> None: ...
        def publish(self, topic: str, payload: str, qos: int) -> None:
            sent.append((topic, payload, qos))
            if len(sent) == 3:
                raise KeyboardInterrupt

    monkeypatch.setattr("paho.mqtt.client.Client", Wire)
    monkeypatch.setattr("time.sleep", lambda _: None)
    monkeypatch.setattr("sys.argv", ["publisher.py"])
    source = (ROOT / "examples" / "mqtt" / "publisher.py").read_text(encoding="utf-8")
    assert len(source.splitlines()) < 40
    with pytest.raises(KeyboardInterrupt):
        exec(compile(ast.parse(source), "publisher.py", "exec"), {"__name__": "__main__"})
    messages: list[Message] = []
    for topic, payload, qos in sent:
        assert qos == 1
        assert TopicMap().match(topic) == ("grandpa", "chest")
        VALIDATOR.validate(json.loads(payload))
        messages.append(decode(payload.encode(), Mapping(), LIMITS))
    first, second, third = messages
    assert second.t0_ns == first.end_ns
    assert third.sequence == second.sequence + 1 == first.sequence + 2  # type: ignore[operator]
    # Peaks of 1 mV, 72 a minute: beats at 0.30, 1.13, 1.97 and 2.80 s.
    ecg = np.concatenate([m.microvolts for m in messages])
    (peaks,) = np.nonzero(ecg > 900)
    assert np.unique(np.round(peaks / 130, 1)).tolist() == [0.3, 1.1, 2.0, 2.8]


def test_the_schema_is_one() -> None:
    Draft202012Validator.check_schema(SCHEMA)


times = st.one_of(
    st.integers(min_value=0, max_value=2**63 - 1),
    st.builds(
        lambda moment, zone, form: moment.astimezone(zone).isoformat(timespec=form),
        st.integers(0, 5 * 10**9).map(lambda s: NOON - timedelta(days=9000) + timedelta(seconds=s)),
        st.integers(-14 * 60, 14 * 60).map(lambda m: timezone(timedelta(minutes=m))),
        st.sampled_from(["seconds", "milliseconds", "microseconds"]),
    ),
    st.just("2026-11-21T07:00:00.000Z"),
)
optional = {
    "seq": st.one_of(st.none(), st.integers(0, 2**53)),
    "contact": st.one_of(st.none(), st.booleans()),
    "battery": st.one_of(st.none(), st.integers(0, 100), st.floats(0, 100)),
    "note": st.text(max_size=5),
}
anything = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=4), st.just([]),
    st.just({}), st.sampled_from(["uV", "mV", "V", "uv", "130", 130, -1, 0, 1e9])
)  # fmt: skip


def sane(unit: str | float) -> st.SearchStrategy[dict[str, Any]]:
    most = {"uV": 1e6, "mV": 1e3, "V": 1.0}.get(unit, 0.0) if isinstance(unit, str) else 1e6 / unit
    value = st.one_of(st.none(), st.floats(-most * 0.999, most * 0.999), st.just(0))
    return st.fixed_dictionaries(
        {
            "t0": times,
            "fs": st.one_of(st.floats(50, 1000), st.integers(50, 1000)),
            "unit": st.just(unit),
            "samples": st.lists(value, min_size=1, max_size=20),
        },
        optional=optional,
    )


quick = settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))


@quick
@given(st.one_of(*(sane(unit) for unit in ("uV", "mV", "V", 0.733))))
def test_what_the_schema_takes_the_code_takes(message: dict[str, Any]) -> None:
    VALIDATOR.validate(message)
    for payload in (json.dumps(message).encode(), cbor2.dumps(message)):
        decoded = decode(payload, Mapping(), LIMITS)
        assert len(decoded.microvolts) == len(message["samples"])
        assert decoded.sequence == message.get("seq")
        assert decoded.contact == message.get("contact")


@quick
@given(
    st.one_of(sane("uV"), sane("mV")),
    st.sampled_from(["t0", "fs", "unit", "samples", "seq", "contact", "battery"]),
    anything,
)
def test_schema_and_code_judge_alike(message: dict[str, Any], key: str, value: Any) -> None:
    message = message | {key: value}
    if any(isinstance(v, float) and not math.isfinite(v) for v in message.values()):
        return  # there is no such JSON
    # To JSON, and so to its schema, 7.0 is an integer.
    if key in ("t0", "seq") and isinstance(value, float):
        return
    # Nor does a schema multiply: that so many counts are over a volt, only the code knows.
    if key == "unit" and isinstance(value, int | float):
        return
    try:
        decode(json.dumps(message).encode(), Mapping(), LIMITS)
    except RefusedError:
        taken = False
    else:
        taken = True
    assert taken == VALIDATOR.is_valid(message)


GOOD: dict[str, Any] = {"t0": NOON_NS, "fs": 130, "unit": "uV", "seq": 17, "samples": [1, 2, None]}


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"t0": None}, Reason.FIELDS),
        ({"t0": "2026-11-21T07:00:00"}, Reason.TIME),  # no zone
        ({"t0": "21.11.2026 07:00"}, Reason.TIME),
        ({"t0": str(NOON_NS)}, Reason.TIME),
        ({"t0": -1}, Reason.TIME),
        ({"t0": True}, Reason.TIME),
        ({"t0": 1.5}, Reason.TIME),
        ({"fs": None}, Reason.FIELDS),
        ({"fs": 49.9}, Reason.RATE),
        ({"fs": 1000.1}, Reason.RATE),
        ({"fs": "130"}, Reason.RATE),
        ({"fs": True}, Reason.RATE),
        ({"unit": None}, Reason.FIELDS),
        ({"unit": "kV"}, Reason.UNIT),
        ({"unit": "UV"}, Reason.UNIT),
        ({"unit": 0}, Reason.UNIT),
        ({"unit": -0.7}, Reason.UNIT),
        ({"samples": None}, Reason.FIELDS),
        ({"samples": []}, Reason.SAMPLES),
        ({"samples": "1,2,3"}, Reason.SAMPLES),
        ({"samples": [1, "2"]}, Reason.SAMPLES),
        ({"samples": [1, True]}, Reason.SAMPLES),
        ({"samples": [[1], [2]]}, Reason.SAMPLES),
        ({"samples": [1_000_001]}, Reason.SAMPLES),
        ({"unit": "mV", "samples": [-1000.5]}, Reason.SAMPLES),
        ({"unit": "V", "samples": [1.01]}, Reason.SAMPLES),
        ({"samples": [0] * 20001}, Reason.SAMPLES),
        ({"seq": -1}, Reason.SEQUENCE),
        ({"seq": 2**53 + 1}, Reason.SEQUENCE),
        ({"seq": 1.5}, Reason.SEQUENCE),
        ({"seq": "17"}, Reason.SEQUENCE),
        ({"contact": 1}, Reason.FIELDS),
        ({"contact": "yes"}, Reason.FIELDS),
        ({"battery": 101}, Reason.FIELDS),
        ({"battery": -1}, Reason.FIELDS),
        ({"battery": "83%"}, Reason.FIELDS),
    ],
    ids=lambda value: json.dumps(value)[:40] if isinstance(value, dict) else "",
)
def test_both_refuse(change: dict[str, Any], reason: Reason) -> None:
    message = {key: value for key, value in (GOOD | change).items() if value is not None}
    assert not VALIDATOR.is_valid(message)
    with pytest.raises(RefusedError) as refused:
        decode(json.dumps(message).encode(), Mapping(), LIMITS)
    assert refused.value.reason is reason


@pytest.mark.parametrize("payload", [b"[1, 2]", b"17", b'"text"', b"null", b"true"])
def test_both_refuse_what_is_no_map(payload: bytes) -> None:
    assert not VALIDATOR.is_valid(json.loads(payload))
    with pytest.raises(RefusedError):
        decode(payload, Mapping(format="json"), LIMITS)
