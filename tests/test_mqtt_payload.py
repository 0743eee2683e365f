"""The payload that a device sends: what is read from it, and what is refused."""

import gc
import json
import math
import time
import tracemalloc
from collections import Counter
from collections.abc import Callable
from random import Random
from typing import Any

import cbor2
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ingest.mqtt.limits import Limits, Pace
from ingest.mqtt.payload import (
    Mapping,
    Message,
    Reason,
    RefusedError,
    check_time,
    decode,
    one_line,
)
from ingest.mqtt.topics import TopicMap

LIMITS = Limits()
MAPPING = Mapping()
# 2026-11-21T07:00:00Z: 20778 days and 7 hours after 1970.
SEVEN_NS = (20778 * 86400 + 7 * 3600) * 10**9
GOOD = {
    "t0": "2026-11-21T07:00:00.000Z",
    "fs": 130,
    "unit": "uV",
    "seq": 17,
    "samples": [1, -2.5, None],
}


def as_json(document: object) -> bytes:
    return json.dumps(document).encode()


ENCODERS = pytest.mark.parametrize("encode", [as_json, cbor2.dumps], ids=["json", "cbor"])


def refusal(payload: bytes, mapping: Mapping = MAPPING, limits: Limits = LIMITS) -> RefusedError:
    with pytest.raises(RefusedError) as caught:
        decode(payload, mapping, limits)
    assert caught.value.detail.isprintable()
    assert len(caught.value.detail) <= 1000
    return caught.value


@ENCODERS
def test_a_message_is_read(encode: Callable[[object], bytes]) -> None:
    message = decode(encode(GOOD), MAPPING, LIMITS)
    assert message.t0_ns == SEVEN_NS
    assert message.rate == 130.0
    assert message.microvolts.dtype == np.float32
    np.testing.assert_array_equal(message.microvolts, np.float32([1, -2.5, math.nan]))
    assert (message.sequence, message.contact, message.battery) == (17, None, None)


@ENCODERS
def test_optional_fields_are_read(encode: Callable[[object], bytes]) -> None:
    message = decode(encode(GOOD | {"contact": False, "battery": 83}), MAPPING, LIMITS)
    assert (message.contact, message.battery) == (False, 83)
    without = {k: v for k, v in GOOD.items() if k != "seq"}
    assert decode(encode(without), MAPPING, LIMITS).sequence is None
    nothing = GOOD | {"seq": None, "contact": None, "battery": None}
    message = decode(encode(nothing), MAPPING, LIMITS)
    assert (message.sequence, message.contact, message.battery) == (None, None, None)


@pytest.mark.parametrize(
    ("t0", "expected_ns"),
    [
        ("2026-11-21T07:00:00Z", SEVEN_NS),
        ("2026-11-21T08:30:00+01:30", SEVEN_NS),
        ("2026-11-21 02:00:00.5-0500", SEVEN_NS + 500_000_000),
        ("2026-11-21T07:00:00.123456789Z", SEVEN_NS + 123_456_789),
        (SEVEN_NS + 1, SEVEN_NS + 1),
    ],
)
def test_the_time_is_kept_to_the_nanosecond(t0: object, expected_ns: int) -> None:
    assert decode(as_json(GOOD | {"t0": t0}), MAPPING, LIMITS).t0_ns == expected_ns


@pytest.mark.parametrize(
    ("how", "t0", "expected_ns"),
    [
        ("ms", SEVEN_NS // 10**6, SEVEN_NS),
        ("ms", SEVEN_NS / 10**6 + 0.5, SEVEN_NS + 500_000),
        ("s", SEVEN_NS // 10**9, SEVEN_NS),
        ("s", SEVEN_NS / 10**9 + 0.25, SEVEN_NS + 250_000_000),
        ("iso", "2026-11-21T07:00:00Z", SEVEN_NS),
        ("ns", SEVEN_NS, SEVEN_NS),
    ],
)
def test_time_of_devices_that_were_there_first(how: Any, t0: object, expected_ns: int) -> None:
    assert decode(as_json(GOOD | {"t0": t0}), Mapping(time=how), LIMITS).t0_ns == expected_ns


@pytest.mark.parametrize(
    ("how", "t0"),
    [
        ("iso", SEVEN_NS),
        ("ns", "2026-11-21T07:00:00Z"),
        ("ns", float(SEVEN_NS)),
        ("ms", "1795244400000"),
        ("s", 1e300),
        ("s", -1.5),
        ("s", True),
    ],
)
def test_time_written_another_way_is_refused(how: Any, t0: object) -> None:
    assert refusal(as_json(GOOD | {"t0": t0}), Mapping(time=how)).reason is Reason.TIME


@pytest.mark.parametrize(
    ("unit", "expected"),
    [("uV", 2.0), ("µV", 2.0), ("μV", 2.0), ("mV", 2000.0), ("V", 200_000.0), (0.5, 1.0)],
)
def test_units(unit: object, expected: float) -> None:
    samples = [0.2] if unit == "V" else [2]
    message = decode(as_json(GOOD | {"unit": unit, "samples": samples}), MAPPING, LIMITS)
    assert message.microvolts[0] == pytest.approx(expected)


def test_fields_may_have_other_names_and_lie_deeper() -> None:
    mapping = Mapping(
        samples="data.ecg",
        t0="ts",
        seq="data.n",
        contact="leads.on",
        battery="bat",
        time="ms",
        constant_fs=250,
        constant_unit=0.73,
    )
    document = {
        "ts": SEVEN_NS // 10**6,
        "data": {"ecg": [100, 200], "n": 3},
        "leads": {"on": True},
        "bat": 55.0,
        "firmware": "1.2",
    }
    message = decode(as_json(document), mapping, LIMITS)
    assert (message.t0_ns, message.rate, message.sequence) == (SEVEN_NS, 250.0, 3)
    assert (message.contact, message.battery) == (True, 55)
    np.testing.assert_allclose(message.microvolts, [73, 146])
    # what the payload says itself comes before the constant
    document |= {"fs": 500, "unit": "uV"}
    message = decode(as_json(document), mapping, LIMITS)
    assert message.rate == 500.0
    np.testing.assert_array_equal(message.microvolts, [100, 200])


def test_the_format_is_told_by_the_first_byte() -> None:
    assert decode(b" \r\n\t" + as_json(GOOD), MAPPING, LIMITS).sequence == 17
    assert refusal(as_json(GOOD), Mapping(format="cbor")).reason is Reason.FORMAT
    assert refusal(cbor2.dumps(GOOD), Mapping(format="json")).reason is Reason.FORMAT


@ENCODERS
@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"t0": None}, Reason.FIELDS),
        ({"t0": True}, Reason.TIME),
        ({"t0": 1.5e18}, Reason.TIME),
        ({"t0": -1}, Reason.TIME),
        ({"t0": 2**63}, Reason.TIME),
        ({"t0": 10**18 * 10}, Reason.TIME),
        ({"t0": "2026-11-21T07:00:00"}, Reason.TIME),  # without its zone
        ({"t0": "2026-02-30T07:00:00Z"}, Reason.TIME),
        ({"t0": "2026-11-21T24:00:00Z"}, Reason.TIME),
        ({"t0": "2026-11-21T07:00:00+99:00"}, Reason.TIME),
        ({"t0": "٢٠٢٦-11-21T07:00:00Z"}, Reason.TIME),  # digits, but not these
        (
            {"t0": "\ud83d".encode("utf-16", "surrogatepass").decode("utf-16", "replace")},
            Reason.TIME,
        ),
        ({"t0": "2026-11-21T07:00:00Z" * 1000}, Reason.TIME),
        ({"t0": [SEVEN_NS]}, Reason.TIME),
        ({"fs": None}, Reason.FIELDS),
        ({"fs": "130"}, Reason.RATE),
        ({"fs": True}, Reason.RATE),
        ({"fs": 49.9}, Reason.RATE),
        ({"fs": 1000.1}, Reason.RATE),
        ({"fs": -130}, Reason.RATE),
        ({"fs": {}}, Reason.RATE),
        ({"unit": None}, Reason.FIELDS),
        ({"unit": "MV"}, Reason.UNIT),
        ({"unit": ""}, Reason.UNIT),
        ({"unit": 0}, Reason.UNIT),
        ({"unit": -1}, Reason.UNIT),
        ({"unit": True}, Reason.UNIT),
        ({"unit": ["uV"]}, Reason.UNIT),
        ({"unit": 1.7e308}, Reason.SAMPLES),
        ({"seq": -1}, Reason.SEQUENCE),
        ({"seq": 2**53 + 1}, Reason.SEQUENCE),
        ({"seq": 17.0}, Reason.SEQUENCE),
        ({"seq": "17"}, Reason.SEQUENCE),
        ({"seq": True}, Reason.SEQUENCE),
        ({"samples": None}, Reason.FIELDS),
        ({"samples": []}, Reason.SAMPLES),
        ({"samples": {}}, Reason.SAMPLES),
        ({"samples": "123"}, Reason.SAMPLES),
        ({"samples": 1}, Reason.SAMPLES),
        ({"samples": [1, True]}, Reason.SAMPLES),
        ({"samples": [1, "2"]}, Reason.SAMPLES),
        ({"samples": [[1], [2]]}, Reason.SAMPLES),
        ({"samples": [1_000_001]}, Reason.SAMPLES),
        ({"samples": [-1_000_001]}, Reason.SAMPLES),
        ({"samples": [2**63]}, Reason.SAMPLES),
        ({"samples": [1] * 20_001}, Reason.SAMPLES),
        ({"contact": 1}, Reason.FIELDS),
        ({"contact": "yes"}, Reason.FIELDS),
        ({"battery": True}, Reason.FIELDS),
        ({"battery": 101}, Reason.FIELDS),
        ({"battery": -1}, Reason.FIELDS),
        ({"battery": "83"}, Reason.FIELDS),
    ],
)
def test_a_wrong_field_is_refused(
    encode: Callable[[object], bytes], change: dict[str, object], reason: Reason
) -> None:
    error = refusal(encode(GOOD | change))
    assert error.reason is reason
    assert next(iter(change)) in error.detail or reason is Reason.SAMPLES


def test_limits_are_taken_themselves() -> None:
    document = GOOD | {"samples": [1e6, -1e6] * 10_000, "fs": 50, "seq": 2**53, "battery": 100}
    message = decode(as_json(document), MAPPING, LIMITS)
    assert len(message.microvolts) == 20_000
    assert decode(as_json(GOOD | {"fs": 1000}), MAPPING, LIMITS).rate == 1000.0


GOOD_JSON = as_json(GOOD)


@pytest.mark.parametrize(
    "payload",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"hello", id="words"),
        pytest.param(b"[]", id="list"),
        pytest.param(b"{", id="cut short"),
        pytest.param(GOOD_JSON[:-1], id="cut one short"),
        pytest.param(GOOD_JSON + b"{}", id="two"),
        pytest.param(b"\xef\xbb\xbf" + GOOD_JSON, id="byte order mark"),
        pytest.param(GOOD_JSON.replace(b"null", b"NaN"), id="NaN"),
        pytest.param(GOOD_JSON.replace(b"null", b"Infinity"), id="Infinity"),
        pytest.param(GOOD_JSON.replace(b"null", b"-Infinity"), id="-Infinity"),
        pytest.param(GOOD_JSON.replace(b"{", b'{"fs": 130, ', 1), id="duplicate key"),
        pytest.param(GOOD_JSON.replace(b"uV", b"\xff\xfe"), id="not UTF-8"),
        pytest.param(b'{"a":' * 50_000, id="deep maps"),
        pytest.param(b'{"a":' + b"[" * 200_000, id="deep lists"),
        pytest.param(b'{"a":' + b"[" * 900 + b"]" * 900, id="deep and cut"),
        pytest.param(b'{"a":' + b"9" * 200_000 + b"}", id="huge integer"),
        pytest.param(b"\x81" * 100_000, id="cbor deep"),
        pytest.param(b"\xa1\x61a" * 50_000, id="cbor deep maps"),
        pytest.param(b"\xc1" * 100_000, id="cbor deep tags"),
        pytest.param(b"\x9a\x3b\x9a\xca\x00", id="cbor 1e9 elements"),
        pytest.param(b"\xa1\x67samples\x9a\x3b\x9a\xca\x00\x01\x02", id="cbor 1e9 samples"),
        pytest.param(b"\xa1\x67samples\x9b" + b"\x7f" * 8, id="cbor 2^63 samples"),
        pytest.param(b"\xa1\x67samples\x5a\x3b\x9a\xca\x00abc", id="cbor 1e9 bytes"),
        pytest.param(b"\xbb" + b"\x7f" * 8, id="cbor 2^63 fields"),
        pytest.param(b"\xa1\x61a\xc2\x59\xff\xff" + b"\xff" * 0xFFFF, id="cbor bignum"),
        pytest.param(b"\xa1\x61a\xc4\x82\x1a\x7f\xff\xff\xff\x01", id="cbor decimal"),
        pytest.param(b"\xa1\x61a\xc5\x82\x1a\x7f\xff\xff\xff\x01", id="cbor bigfloat"),
        pytest.param(b"\xa1\x61a\xd8\x23\x66(a+)+$", id="cbor regular expression"),
        pytest.param(b"\xd8\x1c\xa1\x61a\xd8\x1d\x00", id="cbor cycle"),
        pytest.param(b"\xa1\x61a\xd9\x01\x00\x82\x63abc\xd8\x19\x00", id="cbor string references"),
        pytest.param(b"\xd8\x55\x48" + b"\0" * 8, id="cbor unknown tag"),
        pytest.param(b"\xd9\xd9\xf7" + cbor2.dumps(GOOD), id="cbor self-described"),
        pytest.param(b"\xa2\x61a\x01\x61a\x02", id="cbor duplicate key"),
        pytest.param(b"\xa1\x61\xff\x01", id="cbor not UTF-8"),
        pytest.param(cbor2.dumps(GOOD) + b"\x00", id="cbor and more"),
        pytest.param(cbor2.dumps([GOOD]), id="cbor list"),
        pytest.param(b"\xff", id="cbor break"),
        pytest.param(b"\xf7", id="cbor undefined"),
    ],
)
def test_hostile_payloads_are_refused_at_once(payload: bytes) -> None:
    tracemalloc.start()
    try:
        start = time.perf_counter()
        error = refusal(payload)
        taken = time.perf_counter() - start
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert error.reason is Reason.FORMAT
    assert taken < 0.5
    assert peak < 20e6


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_cbor_has_no_other_missing_sample_than_null(value: float) -> None:
    for samples in ([1, value], [value], [None, value]):
        assert refusal(cbor2.dumps(GOOD | {"samples": samples})).reason is Reason.SAMPLES
    assert refusal(cbor2.dumps(GOOD | {"fs": value})).reason is Reason.RATE
    assert refusal(cbor2.dumps(GOOD | {"unit": value})).reason is Reason.UNIT
    assert refusal(cbor2.dumps(GOOD | {"t0": value}), Mapping(time="s")).reason is Reason.TIME
    assert refusal(cbor2.dumps(GOOD | {"battery": value})).reason is Reason.FIELDS


def test_integers_beyond_floats_are_refused() -> None:
    huge = int("9" * 400)
    assert refusal(as_json(GOOD | {"samples": [huge]})).reason is Reason.SAMPLES
    assert refusal(as_json(GOOD | {"fs": huge})).reason is Reason.RATE
    assert refusal(as_json(GOOD | {"t0": huge})).reason is Reason.TIME
    assert refusal(as_json(GOOD | {"t0": huge}), Mapping(time="s")).reason is Reason.TIME
    assert refusal(as_json(GOOD).replace(b"130", b"1e999")).reason is Reason.RATE


def test_ten_megabytes_are_refused_unread() -> None:
    payload = b'{"samples": [' + b"1," * 5_000_000
    start = time.perf_counter()
    assert refusal(payload).reason is Reason.SIZE
    assert time.perf_counter() - start < 0.01
    exact = GOOD_JSON + b" " * (LIMITS.payload - len(GOOD_JSON))
    assert decode(exact, MAPPING, LIMITS).sequence == 17
    assert refusal(exact + b" ").reason is Reason.SIZE


def test_a_refusal_is_one_line_without_control_characters() -> None:
    error = refusal(as_json(GOOD | {"unit": "\x1b[2J\n\u202eevil\ud800"}))
    assert error.detail.isascii()
    assert "\\x1b" in error.detail
    assert one_line("a\nb\x1b\u202e" + "x" * 1000, 20) == "a\\nb\\x1b\\u202e" + "x" * 14 + "…"


def test_the_clock_is_held_against_the_gateways() -> None:
    limits = Limits(ahead=60, age=3600)
    check_time(SEVEN_NS, limits, SEVEN_NS - 60 * 10**9)
    check_time(SEVEN_NS, limits, SEVEN_NS + 3600 * 10**9)
    for now_ns in (SEVEN_NS - 61 * 10**9, SEVEN_NS + 3601 * 10**9):
        with pytest.raises(RefusedError) as caught:
            check_time(SEVEN_NS, limits, now_ns)
        assert caught.value.reason is Reason.TIME


def test_a_second_of_ecg_is_read_in_a_fraction_of_a_millisecond() -> None:
    payload = as_json(GOOD | {"samples": [i * 1.1 for i in range(130)]})
    best = math.inf
    for _ in range(20):
        start = time.perf_counter()
        decode(payload, MAPPING, LIMITS)
        best = min(best, time.perf_counter() - start)
    assert best < 0.5e-3


# Values of all kinds, and those that nearly are a message.
LEAVES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(-(2**64), 2**64 - 1),
    st.floats(),
    st.text(max_size=20),
    st.sampled_from(["uV", "mV", "2026-11-21T07:00:00Z", 130, SEVEN_NS]),
)
TREES = st.recursive(
    LEAVES,
    lambda inner: (
        st.lists(inner, max_size=5)
        | st.dictionaries(st.sampled_from([*GOOD, "contact", "battery", "data"]), inner, max_size=5)
    ),
    max_leaves=20,
)
SAMPLES = st.lists(st.one_of(st.none(), st.floats(-2e6, 2e6), st.integers()), max_size=8)
GOOD_FIELDS = st.fixed_dictionaries(
    {
        "t0": st.sampled_from([SEVEN_NS, GOOD["t0"]]),
        "fs": st.floats(50, 1000),
        "unit": st.sampled_from(["uV", "mV", 1e-3]),
        "samples": st.lists(st.one_of(st.none(), st.floats(-1e3, 1e3)), min_size=1, max_size=8),
    },
    optional={
        "seq": st.integers(0, 2**53),
        "contact": st.booleans(),
        "battery": st.integers(0, 100),
    },
)
# A good message, some of it overwritten.
NEARLY = st.builds(
    lambda good, bad: good | bad,
    GOOD_FIELDS,
    st.dictionaries(
        st.sampled_from([*GOOD, "contact", "battery"]), st.one_of(SAMPLES, TREES), max_size=1
    ),
)


def _json(document: object) -> bytes:
    return json.dumps(document).encode("utf-8", "surrogatepass")


def _cbor(document: object) -> bytes:
    try:
        return cbor2.dumps(document)
    except (ValueError, cbor2.CBOREncodeError):  # a lone surrogate
        return b""


def _spoilt(payload: bytes, place: int, byte: int, keep: int) -> bytes:
    """The payload with one byte changed, and cut off somewhere."""
    if not payload:
        return payload
    spoilt = bytearray(payload)
    spoilt[place % len(payload)] = byte
    return bytes(spoilt[: 1 + keep % len(payload)])


ENCODED = st.one_of(NEARLY, TREES).flatmap(
    lambda document: st.sampled_from([_json(document), _cbor(document)])
)
PAYLOADS = st.one_of(
    st.binary(max_size=200),
    st.binary(max_size=200).map(lambda tail: b"\xa1\x67samples" + tail),
    st.binary(max_size=50).map(lambda tail: b'{"samples":' + tail),
    ENCODED,
    st.builds(_spoilt, ENCODED, st.integers(0, 2**16), st.integers(0, 255), st.integers(0, 2**16)),
)
MAPPINGS = st.builds(
    Mapping,
    format=st.sampled_from(["auto", "json", "cbor"]),
    time=st.sampled_from([None, "iso", "ns", "ms", "s"]),
    samples=st.sampled_from(["samples", "data.samples", "samples.samples"]),
    constant_fs=st.sampled_from([None, 250.0]),
    constant_unit=st.sampled_from([None, "mV", 0.7]),
)


def holds(message: Message) -> None:
    """What is true of every message that is taken."""
    finite = message.microvolts[np.isfinite(message.microvolts)]
    assert message.microvolts.dtype == np.float32
    assert 1 <= len(message.microvolts) <= LIMITS.samples
    assert np.all(np.abs(finite) <= 1e6)
    assert not np.any(np.isinf(message.microvolts))
    assert 0 <= message.t0_ns < 2**63
    assert LIMITS.rate[0] <= message.rate <= LIMITS.rate[1]
    assert message.sequence is None or 0 <= message.sequence <= 2**53
    assert message.battery is None or 0 <= message.battery <= 100
    assert message.contact in (None, True, False)


def fuzz(examples: int, *, random: bool = True) -> dict[str, int]:
    """Decode ``examples`` payloads made up by hypothesis; return how many ended how."""
    ends: Counter[str] = Counter()

    def run(payload: bytes, mapping: Mapping) -> None:
        try:
            message = decode(payload, mapping, LIMITS)
        except RefusedError as error:
            end, detail = error.reason.value, error.detail
        else:
            holds(message)
            end, detail = "taken", ""
        assert detail.isprintable() or not detail
        ends[end] += 1

    # hypothesis remembers all that it made up in one go
    for start in range(0, examples, 5000):
        settings(
            max_examples=min(5000, examples - start),
            deadline=None,
            database=None,
            derandomize=not random,
            suppress_health_check=list(HealthCheck),
        )(given(PAYLOADS, MAPPINGS)(run))()
    return dict(ends)


def test_no_payload_raises_anything_but_a_refusal() -> None:
    ends = fuzz(600, random=False)
    assert ends["taken"] > 10
    assert {"format", "fields", "time"} <= set(ends)


def batter(count: int, seed: int = 0) -> int:
    """Decode ``count`` good messages with a few bytes changed; return how many were still taken.

    Far quicker than ``fuzz``, which makes up more: for many.
    """
    random = Random(seed)
    good = [as_json(GOOD | {"contact": True, "battery": 8}), cbor2.dumps(GOOD | {"battery": 8.5})]
    taken = 0
    for turn in range(count):
        payload = bytearray(good[turn % 2])
        for _ in range(random.randrange(4)):
            place = random.randrange(len(payload))
            match random.randrange(4):
                case 0:
                    payload[place] = random.randrange(256)
                case 1:
                    del payload[place : place + random.randrange(9)]
                case 2:
                    payload[place:place] = payload[: random.randrange(40)]
                case _:
                    payload[place:place] = random.randbytes(random.randrange(9))
            if not payload:
                break
        try:
            holds(decode(bytes(payload), MAPPING, LIMITS))
        except RefusedError:
            continue
        taken += 1
    return taken


def test_battered_messages_leave_no_memory_behind() -> None:
    batter(500)
    tracemalloc.start()
    try:
        assert 1000 < batter(4000, seed=1) < 3000
        gc.collect()
        left = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert left < 200_000


@pytest.mark.parametrize(
    ("topic", "heard", "expected"),
    [
        ("leadone/v1/{patient}/{device}/ecg", "leadone/v1/ann/chest/ecg", ("ann", "chest")),
        ("leadone/v1/{patient}/{device}/ecg", "leadone/v1/ann/chest/ecg/", None),
        ("leadone/v1/{patient}/{device}/ecg", "leadone/v1/ann//ecg", None),
        ("leadone/v1/{patient}/{device}/ecg", "leadone/v1/../chest/ecg", ("..", "chest")),
        ("leadone/v1/{patient}/{device}/ecg", "leadone/v1/a\nb/chest/ecg", ("a\nb", "chest")),
        ("{patient}/{device}/#", "ann/chest", ("ann", "chest")),
        ("{patient}/{device}/#", "ann/chest/a/b", ("ann", "chest")),
        ("{patient}/{device}/#", "ann/chestnut/a/b", ("ann", "chestnut")),
        ("{patient}/{device}", "$SYS/uptime", None),
        ("a+b.c/{patient}".replace("a+b.c", "a.b"), "aXb/ann", None),
        ("a.b/{patient}/+", "a.b/ann/", ("ann", "fixed")),
        ("a.b/{patient}/+", "a.b/ann/x/y", None),
    ],
)
def test_topics_match(topic: str, heard: str, expected: tuple[str, str] | None) -> None:
    fixed = None if "{device}" in topic else "fixed"
    assert TopicMap(topic, device=fixed).match(heard) == expected


def test_topics_with_nobody_in_them() -> None:
    topic = TopicMap("#", patient="ann", device="esp32")
    assert topic.filter == "#"
    assert topic.match("any/thing") == ("ann", "esp32")
    assert topic.match("$SYS/uptime") is None
    assert TopicMap().filter == "leadone/v1/+/+/ecg"


@pytest.mark.parametrize(
    "topic",
    [
        *("", "a\0b/{patient}/{device}", "a/{patient}/{patient}/{device}", "{patient}/x"),
        *("{patient}/{device}/#/x", "{patient}/{device}/x#", "{patient}/{device}+", "a{patient}"),
        *("{patient}/{device}/{room}", "x" * 65536 + "/{patient}/{device}"),
    ],
)
def test_topics_that_cannot_be(topic: str) -> None:
    with pytest.raises(ValueError, match=r"topic|stand|level"):
        TopicMap(topic)


def test_a_patient_is_either_fixed_or_named_by_the_topic() -> None:
    with pytest.raises(ValueError, match="patient is fixed"):
        TopicMap("{patient}/{device}", patient="ann")


SECOND = 10**9


def test_pace_takes_a_backlog_and_stops_a_flood() -> None:
    pace = Pace(20, now_ns=0)
    for i in range(100_000):  # more than a day in an instant, each second of it new
        assert not pace.exhausted(0)
        pace.spend()
        pace.earn(i * SECOND, (i + 1) * SECOND)
    taken = 0
    for _ in range(10_000):  # the same second for ever
        if not pace.exhausted(0):
            pace.spend()
            pace.earn(0, SECOND)
            taken += 1
    assert taken == 512
    assert not pace.exhausted(SECOND // 20)  # a twentieth of a second later there is one more
    pace.spend()
    assert pace.exhausted(SECOND // 20)
