"""Bytes of straps: published vectors, round trips, malformed packets, and a million fuzzed ones.

The encoders here are written from the format descriptions, not from the decoders.
"""

import asyncio
import contextlib
import struct
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from bleak.exc import BleakGATTProtocolError, BleakGATTProtocolErrorCode
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from ingest.ble import heart_rate, movesense, polar
from ingest.ble.counts import MALFORMED
from ingest.ble.device import DEVICES, DeviceError, by_kind, recognise
from ingest.ble.events import Battery, Event, Frame, MalformedError, Pulse
from ingest.ble.heart_rate import HeartRateStrap, decode_battery, decode_pulse
from ingest.ble.movesense import Movesense
from ingest.ble.packets import Inbox
from ingest.ble.polar import PolarH10


def hexa(text: str) -> bytes:
    return bytes.fromhex(text)


# Encoders.


def encode_h10(clock_ns: int, microvolts: list[int]) -> bytes:
    samples = b"".join(value.to_bytes(3, "little", signed=True) for value in microvolts)
    return b"\x00" + clock_ns.to_bytes(8, "little") + b"\x00" + samples


def encode_settings(settings: dict[int, list[int]]) -> bytes:
    sizes = {0: 2, 1: 2, 2: 2, 4: 1, 5: 4}
    return b"".join(
        bytes((kind, len(values)))
        + b"".join(value.to_bytes(sizes[kind], "little") for value in values)
        for kind, values in settings.items()
    )


def encode_counts(first_ms: int, counts: list[int]) -> bytes:
    return struct.pack("<I16i", first_ms, *counts)


def encode_microvolts(first_ms: int, microvolts: list[int]) -> bytes:
    return struct.pack("<I16h", first_ms, *microvolts)


def encode_pulse(
    rate: int, rr: list[int], *, wide: bool, contact: bool | None, energy: int | None
) -> bytes:
    flags = wide | {None: 0, False: 4, True: 6}[contact] | (energy is not None) << 3
    flags |= bool(rr) << 4
    packet = struct.pack("<BH" if wide else "<BB", flags, rate)
    if energy is not None:
        packet += struct.pack("<H", energy)
    return packet + struct.pack(f"<{len(rr)}H", *rr)


# Polar H10. Vectors from "Polar Measurement Data Specification for 3rd Party" (polar-ble-sdk,
# technical_documentation), unless it says otherwise.


def test_h10_answers_with_its_ecg_settings_as_published() -> None:
    reply = polar.decode_reply(hexa("F0 01 00 00 00 00 01 82 00 01 01 0E 00"))
    assert (reply.operation, reply.status) == (1, 0)
    assert polar.decode_settings(reply.parameters) == {0: (130,), 1: (14,)}


def test_settings_of_other_measurements_as_published() -> None:
    # Acceleration of the H10, and of the Verity Sense with its channels.
    reply = polar.decode_reply(
        hexa("F0 01 02 00 00 00 04 19 00 32 00 64 00 C8 00 01 01 10 00 02 03 02 00 04 00 08 00")
    )
    assert polar.decode_settings(reply.parameters) == {
        0: (25, 50, 100, 200),
        1: (16,),
        2: (2, 4, 8),
    }
    reply = polar.decode_reply(hexa("F0 01 02 00 00 00 01 34 00 01 01 10 00 02 01 08 00 04 01 03"))
    assert polar.decode_settings(reply.parameters) == {0: (52,), 1: (16,), 2: (8,), 4: (3,)}


def test_requests_are_as_published() -> None:
    assert hexa("01 00") == polar.GET_ECG_SETTINGS
    assert hexa("03 00") == polar.STOP_ECG
    # The start command is not spelt out for ECG there; this is what public clients send.
    assert hexa("02 00 00 01 82 00 01 01 0E 00") == polar.START_ECG


def test_replies_without_parameters_as_published() -> None:
    for text, operation in (("F0 02 02 00 00 01", 2), ("F0 03 02 00 00", 3)):
        reply = polar.decode_reply(hexa(text))
        assert (reply.operation, reply.status) == (operation, 0)


def test_features_say_whether_there_is_ecg() -> None:
    # The Verity Sense as published, without ECG; an H10 has bits 0 (ECG) and 2 (acceleration).
    verity_sense = hexa("0F 6E 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00")
    assert not polar.decode_features(verity_sense)
    assert polar.decode_features(hexa("0F 05 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00"))


def test_h10_frame_by_published_parts() -> None:
    # The timestamp is the document's example, 68 00 00 its sample of 104 µV (polar-ble-sdk, #35).
    frame = polar.decode_ecg(hexa("00 EA 54 A2 42 8B 45 52 08 00 68 00 00 FF FF FF 00 00 80"))
    assert frame.clock_ns == 599618164814402794
    assert frame.microvolts.dtype == np.float32
    assert frame.microvolts.tolist() == [104, -1, -8388608]


def test_h10_frame_of_full_size() -> None:
    # 73 samples in 229 bytes, as an H10 sends them.
    packet = encode_h10(1, list(range(-36, 37)))
    assert len(packet) == 229
    assert polar.decode_ecg(packet).microvolts.tolist() == list(range(-36, 37))


@given(
    st.integers(0, 2**64 - 1), st.lists(st.integers(-(2**23), 2**23 - 1), min_size=1, max_size=160)
)
def test_h10_frames_round_trip(clock_ns: int, microvolts: list[int]) -> None:
    frame = polar.decode_ecg(encode_h10(clock_ns, microvolts))
    assert frame.clock_ns == clock_ns
    assert frame.microvolts.tolist() == microvolts


@pytest.mark.parametrize(
    "packet",
    [
        b"",
        encode_h10(1, []),
        encode_h10(1, [1, 2])[:-1],
        encode_h10(1, [1, 2]) + b"\0",
        b"\x02" + encode_h10(1, [1])[1:],
        encode_h10(1, [1])[:9] + b"\x80" + encode_h10(1, [1])[10:],
        encode_h10(1, [1])[:9] + b"\x01" + encode_h10(1, [1])[10:],
    ],
    ids=["nothing", "no samples", "cut", "too long", "acceleration", "compressed", "other type"],
)
def test_what_is_no_h10_frame_is_malformed(packet: bytes) -> None:
    with pytest.raises(MalformedError, match="PMD ECG: expected"):
        polar.decode_ecg(packet)


@given(
    st.dictionaries(
        st.sampled_from([0, 1, 2, 4, 5]), st.lists(st.integers(0, 255), max_size=8), max_size=5
    )
)
def test_settings_round_trip(settings: dict[int, list[int]]) -> None:
    decoded = polar.decode_settings(encode_settings(settings))
    assert decoded == {kind: tuple(values) for kind, values in settings.items()}


@pytest.mark.parametrize("text", ["00", "00 01", "00 01 82", "00 02 82 00", "63 01 00", "00 FF 00"])
def test_settings_cut_off_or_unknown_are_malformed(text: str) -> None:
    with pytest.raises(MalformedError, match="PMD settings"):
        polar.decode_settings(hexa(text))


@pytest.mark.parametrize("text", ["", "F0", "F0 01 00", "0F 05 00 00", "00 01 00 00"])
def test_what_is_no_reply_is_malformed(text: str) -> None:
    with pytest.raises(MalformedError, match="PMD reply"):
        polar.decode_reply(hexa(text))


@pytest.mark.parametrize("text", ["", "0F", "F0 01 00 00"])
def test_what_is_no_list_of_features_is_malformed(text: str) -> None:
    with pytest.raises(MalformedError, match="PMD features"):
        polar.decode_features(hexa(text))


# Movesense. The one published measurement that gives both forms of the same samples
# (sokolmarek/movesense-commander, docs/gsp-protocol.md): raw counts and µV at 8617 ms.

RAW = [20835, 20488, 20147, 19833]
CONVERTED = [7948, 7816, 7685, 7566]


def test_movesense_counts_and_microvolts_agree_as_measured() -> None:
    wide = movesense.decode_ecg(encode_counts(8617, RAW * 4))
    narrow = movesense.decode_ecg(encode_microvolts(8617, CONVERTED * 4))
    assert wide.microvolts == pytest.approx(np.array(CONVERTED * 4), abs=0.6)
    assert narrow.microvolts.tolist() == CONVERTED * 4
    # Sixteen samples of 128 Hz after the first are 117.1875 ms.
    assert wide.clock_ns == narrow.clock_ns == 8_734_187_500


def test_movesense_by_hand() -> None:
    # 1000 ms; 2^17 counts are 50 mV.
    payload = hexa("E8 03 00 00" + "00 00 02 00" + "00 00 FE FF" + "00 00 00 00" * 14)
    frame = movesense.decode_ecg(payload)
    assert frame.microvolts.tolist() == [50_000, -50_000, *[0] * 14]
    assert frame.clock_ns == 1_117_187_500


@given(
    st.integers(0, 2**32 - 1),
    st.lists(st.integers(-(2**31), 2**31 - 1), min_size=16, max_size=16),
    st.lists(st.integers(-(2**15), 2**15 - 1), min_size=16, max_size=16),
)
def test_movesense_round_trips(first_ms: int, counts: list[int], microvolts: list[int]) -> None:
    wide = movesense.decode_ecg(encode_counts(first_ms, counts))
    expected = np.array([count * 50_000 / 2**17 for count in counts])
    np.testing.assert_allclose(wide.microvolts, expected, rtol=1e-6)
    narrow = movesense.decode_ecg(encode_microvolts(first_ms, microvolts))
    assert narrow.microvolts.tolist() == microvolts
    assert wide.clock_ns == narrow.clock_ns == first_ms * 1_000_000 + 117_187_500


@pytest.mark.parametrize("size", [0, 4, 35, 37, 66, 67, 69, 72])
def test_movesense_of_another_size_is_malformed(size: int) -> None:
    with pytest.raises(MalformedError, match="GSP ECG: expected 36 or 68 bytes"):
        movesense.decode_ecg(bytes(size))


def test_movesense_packets_and_status() -> None:
    packet = movesense.decode_packet(hexa("01 07 C8 00"))
    assert (packet.type, packet.reference) == (1, 7)
    assert movesense.decode_status(packet.payload) == 200
    for text in ("", "02", "00 01", "04 01 00"):
        with pytest.raises(MalformedError, match="GSP: expected"):
            movesense.decode_packet(hexa(text))
    with pytest.raises(MalformedError, match="status"):
        movesense.decode_status(b"\xc8")


# Heart Rate Measurement and Battery Level, by hand from the services' specifications.


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("00 48", Pulse(72, (), None)),
        ("02 48", Pulse(72, (), None)),
        ("04 48", Pulse(72, (), False)),
        ("06 48", Pulse(72, (), True)),
        ("01 48 01", Pulse(328, (), None)),
        ("10 3C 00 04", Pulse(60, (1.0,), None)),
        ("16 3C 00 04 00 02", Pulse(60, (1.0, 0.5), True)),
        ("14 00", Pulse(None, (), False)),
        ("08 3C 34 12", Pulse(60, (), None)),
        ("1F 3C 00 34 12 00 03 FF FF", Pulse(60, (0.75, 65535 / 1024), True)),
        ("10 3C 00 00 00 04", Pulse(60, (1.0,), None)),
    ],
)
def test_pulse_by_hand(text: str, expected: Pulse) -> None:
    assert decode_pulse(hexa(text)) == expected


@given(
    st.integers(0, 65535),
    st.lists(st.integers(1, 65535), max_size=9),
    st.sampled_from([None, False, True]),
    st.none() | st.integers(0, 65535),
)
def test_pulses_round_trip_with_all_flags(
    rate: int, rr: list[int], contact: bool | None, energy: int | None
) -> None:
    for wide in (True, False) if rate < 256 else (True,):
        packet = encode_pulse(rate, rr, wide=wide, contact=contact, energy=energy)
        pulse = decode_pulse(packet)
        assert pulse == Pulse(rate or None, tuple(value / 1024 for value in rr), contact)


@pytest.mark.parametrize(
    "text", ["", "00", "01 48", "08 48", "08 48 01", "10 48 01", "00 48 00 04", "1F 3C 00 34"]
)
def test_pulses_cut_off_or_too_long_are_malformed(text: str) -> None:
    with pytest.raises(MalformedError, match="heart rate: expected"):
        decode_pulse(hexa(text))


def test_battery() -> None:
    assert [decode_battery(bytes([p])).percent for p in (0, 57, 100)] == [0, 57, 100]
    for packet in (b"", b"\x65", b"\xff", b"\x10\x00"):
        with pytest.raises(MalformedError, match="battery: expected"):
            decode_battery(packet)


# Fuzzing.


def decoders() -> dict[Callable[[bytes], object], list[bytes]]:
    """Everything that takes bytes from the radio, with valid packets for it."""
    h10, sensor = PolarH10(), Movesense()
    sensor._emit = lambda _: None
    data = encode_counts(8617, RAW * 4)
    return {
        polar.decode_ecg: [encode_h10(1, list(range(n))) for n in (1, 20, 73)],
        polar.decode_reply: [hexa("F0 01 00 00 00 00 01 82 00 01 01 0E 00"), hexa("F0 03 02 00")],
        polar.decode_settings: [hexa("00 01 82 00 01 01 0E 00"), hexa("04 01 03")],
        polar.decode_features: [hexa("0F 05 00 00")],
        movesense.decode_ecg: [data, encode_microvolts(1, CONVERTED * 4)],
        movesense.decode_packet: [b"\x02\x01" + data],
        movesense.decode_status: [b"\xc8\x00"],
        decode_pulse: [hexa("16 3C 00 04 00 02"), hexa("1F 3C 00 34 12 00 03"), hexa("00 48")],
        decode_battery: [b"\x39"],
        h10._take_reply: [hexa("F0 02 00 00 00")],
        sensor._take: [
            b"\x02\x01" + data,
            b"\x02\x01" + data[:40],
            b"\x03\x01" + data[40:],
            b"\x01\x01\xc8\x00",
        ],
    }


def test_a_million_fuzzed_packets_raise_nothing_but_malformed() -> None:
    rng = np.random.default_rng(4)
    fed = decoded = 0
    for decode, valid in decoders().items():
        before = decoded
        # Random bytes of random lengths, and valid packets with some bytes changed or cut.
        noise = memoryview(rng.bytes(1 << 20))
        starts = rng.integers(0, (1 << 20) - 256, 52_000).tolist()
        lengths = np.minimum(rng.geometric(0.04, 52_000) - 1, 244).tolist()
        packets = [bytes(noise[a : a + n]) for a, n in zip(starts, lengths, strict=True)]
        which = rng.integers(0, len(valid), 42_000).tolist()
        places = rng.integers(0, 1 << 16, (42_000, 2)).tolist()
        values = rng.integers(0, 256, 42_000).tolist()
        for w, (at, end), value in zip(which, places, values, strict=True):
            packet = bytearray(valid[w])
            packet[at % min(len(packet), 12)] = value
            packets.append(bytes(packet[: 1 + end % (2 * len(packet))]))
        for packet in packets:
            fed += 1
            try:
                decode(packet)
            except MalformedError:
                continue
            decoded += 1
        assert decoded > before, decode
        # Half a packet may still wait for its continuation.
        with contextlib.suppress(MalformedError):
            decode(valid[0])
        decode(valid[0])
    assert fed >= 1_000_000
    assert 0.05 < decoded / fed < 0.95


def test_packets_between_nonsense_still_get_through() -> None:
    rng = np.random.default_rng(5)
    inbox, got = Inbox("polar_h10"), []

    def take(packet: bytes) -> None:
        got.append(polar.decode_ecg(packet))

    before = MALFORMED.labels("polar_h10")._value.get()
    for i in range(1000):
        inbox.give(rng.bytes(int(rng.integers(0, 12))), take)
        inbox.give(encode_h10(i, [i]), take)
    assert [frame.clock_ns for frame in got] == list(range(1000))
    assert MALFORMED.labels("polar_h10")._value.get() - before == 1000


def test_nonsense_is_logged_once_a_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    times = iter((1000.0, 1001.0, 1059.0, 1060.0, 1061.0))
    clock = SimpleNamespace(monotonic=lambda: next(times))
    monkeypatch.setattr("ingest.ble.packets.time", clock)
    inbox = Inbox("heart_rate")
    with capture_logs() as logs:
        for _ in range(5):
            inbox.give(b"", decode_pulse)
    assert len(logs) == 2
    assert logs[0]["reason"] == "heart rate: expected flags, got an empty packet"


# Devices, on a client that answers as they say.


class Client:
    """What a device uses of BleakClient: characteristics, and ``answer`` to what is written."""

    def __init__(self, *uuids: str, answer: Callable[[bytes], list[tuple[str, bytes]]]) -> None:
        self.uuids = set(uuids)
        self.services = self
        self.values: dict[str, bytes] = {}
        self.written: list[bytes] = []
        self.notified: dict[str, Callable[[Any, bytearray], None]] = {}
        self._answer = answer

    def get_characteristic(self, uuid: str) -> SimpleNamespace | None:
        if uuid not in self.uuids:
            return None
        return SimpleNamespace(uuid=uuid, properties=["read", "notify"])

    async def start_notify(self, uuid: str, callback: Callable[[Any, bytearray], None]) -> None:
        assert uuid in self.uuids
        self.notified[uuid] = callback

    async def stop_notify(self, uuid: str) -> None:
        del self.notified[uuid]

    async def read_gatt_char(self, which: Any) -> bytearray:
        return bytearray(self.values[getattr(which, "uuid", which)])

    async def write_gatt_char(self, uuid: str, data: bytes, response: bool) -> None:
        assert uuid in self.uuids
        assert response
        self.written.append(bytes(data))
        for notified, packet in self._answer(bytes(data)):
            self.send(notified, packet)

    def send(self, uuid: str, packet: bytes) -> None:
        self.notified[uuid](None, bytearray(packet))


def h10(
    status: dict[int, int] | None = None,
    settings: str = "00 01 82 00 01 01 0E 00",
    *uuids: str,
) -> Client:
    """An H10 that answers its requests with these statuses."""

    def answer(request: bytes) -> list[tuple[str, bytes]]:
        assert polar.CONTROL in client.notified, "written before subscribing"
        assert request[0] == 1 or polar.DATA in client.notified
        code = (status or {}).get(request[0], 0)
        parameters = hexa(settings) if request[0] == 1 and code == 0 else b""
        reply = bytes((0xF0, request[0], 0, code, 0)) + parameters
        # An answer to something else comes first, as with a second central.
        return [(polar.CONTROL, hexa("F0 09 00 00 00")), (polar.CONTROL, reply)]

    uuids = uuids or (polar.CONTROL, polar.DATA, heart_rate.MEASUREMENT, heart_rate.BATTERY_LEVEL)
    client = Client(*uuids, answer=answer)
    client.values = {polar.CONTROL: hexa("0F 05 00 00"), heart_rate.BATTERY_LEVEL: b"\x4d"}
    return client


async def test_an_h10_from_settings_to_stop() -> None:
    client, device = h10(), PolarH10()
    events: list[Event] = []
    await device.settings(client)
    await device.start(client, events.append)
    client.send(polar.DATA, encode_h10(2, [5, -5]))
    client.send(heart_rate.MEASUREMENT, hexa("16 3C 00 04"))
    client.send(heart_rate.BATTERY_LEVEL, b"\x4c")
    client.send(heart_rate.BATTERY_LEVEL, b"\xff")
    await device.stop(client)
    assert client.written == [polar.GET_ECG_SETTINGS, polar.START_ECG, polar.STOP_ECG]
    battery, frame, *others = events
    assert battery == Battery(77)
    assert isinstance(frame, Frame)
    assert (frame.clock_ns, frame.microvolts.tolist()) == (2, [5, -5])
    assert others == [Pulse(60, (1.0,), True), Battery(76)]


async def test_an_h10_that_streams_already_is_fine() -> None:
    client, device = h10({2: 6, 3: 6}), PolarH10()
    await device.settings(client)
    await device.start(client, lambda _: None)
    await device.stop(client)


@pytest.mark.parametrize(
    ("status", "message"),
    [
        (10, r"refused to start the ECG \(invalid MTU, 10\): .*adapter that allows an MTU of 232"),
        (13, r"in charger, 13\): take it off the charger"),
        (12, r"invalid state, 12\): take the sensor off the strap"),
        (99, r"unknown reason, 99\)"),
    ],
)
async def test_an_h10_that_refuses_says_what_to_do(status: int, message: str) -> None:
    client, device = h10({2: status}), PolarH10()
    await device.settings(client)
    with pytest.raises(DeviceError, match=message):
        await device.start(client, lambda _: None)


@pytest.mark.parametrize(
    ("client", "message"),
    [
        (h10({1: 3}), r"refused its settings \(not supported, 3\)"),
        (h10(None, "00 01 C8 00 01 01 0E 00"), r"offers ECG of \(200,\) Hz"),
        (h10(None, "00 01 82"), "answers nonsense"),
        (h10(None, "", "fb005c52-02e7-f387-1cad-8acd2d8df0c8"), "FB005C52"),
        (h10(None, "", heart_rate.MEASUREMENT), "shows no ECG interface"),
    ],
    ids=["refused", "other rate", "nonsense", "old band", "no PMD"],
)
async def test_an_h10_that_is_none_says_what_to_do(client: Client, message: str) -> None:
    with pytest.raises(DeviceError, match=message):
        await PolarH10().settings(client)


async def test_a_polar_without_ecg_is_refused() -> None:
    client = h10()
    client.values[polar.CONTROL] = hexa("0F 6E 00 00")
    with pytest.raises(DeviceError, match="measures no ECG"):
        await PolarH10().settings(client)


async def test_an_h10_that_never_answers_is_left_to_the_time_out_of_the_caller() -> None:
    client, device = h10(), PolarH10()
    client._answer = lambda _: [(polar.CONTROL, hexa("F0 02 00 00 00"))]  # of another operation
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await device.settings(client)
    # An answer that comes too late disturbs nobody.
    client.send(polar.CONTROL, hexa("F0 01 00 00 00 00 01 82 00 01 01 0E 00"))


async def test_insufficient_authentication_is_passed_on() -> None:
    client, device = h10(), PolarH10()

    async def refuse(which: Any) -> bytearray:
        raise BleakGATTProtocolError(BleakGATTProtocolErrorCode.INSUFFICIENT_AUTHENTICATION)

    client.read_gatt_char = refuse
    with pytest.raises(BleakGATTProtocolError):
        await device.settings(client)


def movesense_client(*answers: str) -> Client:
    return Client(
        movesense.COMMAND,
        movesense.RESPONSE,
        answer=lambda _: [(movesense.RESPONSE, hexa(answer)) for answer in answers],
    )


async def test_a_movesense_from_settings_to_stop() -> None:
    client, device = movesense_client("01 01 C8 00"), Movesense()
    events: list[Event] = []
    await device.settings(client)
    await device.start(client, events.append)
    data = encode_counts(1000, RAW * 4)
    client.send(movesense.RESPONSE, b"\x02\x01" + data)
    client.send(movesense.RESPONSE, b"\x02\x09" + data)  # somebody else's
    client.send(movesense.RESPONSE, b"\x02\x01" + data[:50])
    client.send(movesense.RESPONSE, b"\x03\x01" + data[50:])
    await device.stop(client)
    assert client.written == [b"\x01\x01/Meas/ECG/128", b"\x02\x01"]
    assert [frame.clock_ns for frame in events] == [1_117_187_500] * 2
    assert [len(frame.microvolts) for frame in events] == [16] * 2


async def test_a_movesense_that_answers_with_data_only_has_started() -> None:
    client = movesense_client("02 01" + encode_microvolts(1000, CONVERTED * 4).hex())
    device, events = Movesense(), []
    await device.settings(client)
    async with asyncio.timeout(1):
        await device.start(client, events.append)
    assert events[0].microvolts.tolist() == CONVERTED * 4


async def test_a_movesense_whose_continuation_is_lost_goes_on() -> None:
    client, device = movesense_client("01 01 C8 00"), Movesense()
    events: list[Event] = []
    await device.settings(client)
    await device.start(client, events.append)
    before = MALFORMED.labels("movesense")._value.get()
    data = encode_counts(1000, RAW * 4)
    for packet in (b"\x02" + b"\x01" + data[:50], b"\x02\x01" + data, b"\x03\x01" + data[50:]):
        client.send(movesense.RESPONSE, packet)
    assert len(events) == 1
    assert MALFORMED.labels("movesense")._value.get() - before == 2


async def test_a_movesense_that_refuses_says_what_to_do() -> None:
    client, device = movesense_client("01 01 AD 01"), Movesense()
    await device.settings(client)
    with pytest.raises(DeviceError, match=r"status 429\): take it off"):
        await device.start(client, lambda _: None)
    with pytest.raises(DeviceError, match="no GATT SensorData Protocol"):
        await Movesense().settings(Client(heart_rate.MEASUREMENT, answer=lambda _: []))


async def test_a_heart_rate_strap_from_settings_to_stop() -> None:
    client = Client(heart_rate.MEASUREMENT, heart_rate.BATTERY_LEVEL, answer=lambda _: [])
    client.values[heart_rate.BATTERY_LEVEL] = b"\xf0"  # nonsense is no reason to have no pulse
    device, events = HeartRateStrap(), []
    await device.settings(client)
    await device.start(client, events.append)
    client.send(heart_rate.MEASUREMENT, hexa("10 3C 00 04"))
    client.send(heart_rate.MEASUREMENT, hexa("10 3C 00"))
    await device.stop(client)
    assert events == [Pulse(60, (1.0,), None)]
    assert heart_rate.MEASUREMENT not in client.notified
    with pytest.raises(DeviceError, match="no Heart Rate Service"):
        await device.settings(Client(answer=lambda _: []))


HRS = "0000180d-0000-1000-8000-00805f9b34fb"


@pytest.mark.parametrize(
    ("name", "services", "kind"),
    [
        ("Polar H10 8A2B3C4D", [HRS], "polar_h10"),
        ("Polar H10 8A2B3C4D", [], "polar_h10"),
        ("Polar H9 11223344", [HRS], "heart_rate"),
        ("Movesense 174630000192", [HRS], "movesense"),
        ("", ["34802252-7185-4D5D-B431-630E7050E8F0"], "movesense"),
        ("TICKR 1234", [HRS.upper()], "heart_rate"),
        ("JBL Flip", ["0000110b-0000-1000-8000-00805f9b34fb"], None),
        ("", [], None),
    ],
)
def test_devices_are_recognised(name: str, services: list[str], kind: str | None) -> None:
    found = recognise(name, services)
    assert (found.kind if found else None) == kind


def test_devices_are_found_by_kind() -> None:
    assert [by_kind(device.kind) for device in DEVICES] == list(DEVICES)
    with pytest.raises(ValueError, match="one of polar_h10, movesense, heart_rate: fitbit"):
        by_kind("fitbit")
