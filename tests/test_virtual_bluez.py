"""The virtual BlueZ, asked by an unmodified bleak, and by a client that others wrote."""

import asyncio
import contextlib
import json
import signal
from collections.abc import AsyncIterator, Awaitable, Callable

import bleakheart
import numpy as np
import pytest
from bleak import BleakClient, BleakScanner
from bleak.backends.device import BLEDevice
from bleak.exc import (
    BleakBluetoothNotAvailableError,
    BleakBluetoothNotAvailableReason,
    BleakDBusError,
    BleakError,
    BleakGATTProtocolError,
)
from bluez.bus import census
from bluez.clock import NS, SteppedClock
from bluez.ecg import resampled, synthetic
from bluez.faults import Fault, play
from bluez.h10 import H10, PMD_CONTROL, PMD_DATA
from bluez.heart_rate import BATTERY_LEVEL, HEART_RATE_MEASUREMENT, HEART_RATE_SERVICE
from bluez.movesense import GSP_NOTIFY, GSP_WRITE, Movesense
from bluez.peripheral import Peripheral
from bluez.service import Bluez
from bluez.strap import Strap
from dbus_fast import BusType, DBusError
from dbus_fast.aio import MessageBus
from dbus_fast.message import Message
from dbus_fast.service import ServiceInterface, dbus_method

pytest_plugins = ["bluez.fixtures"]

GET_SETTINGS = bytes.fromhex("01 00")
START = bytes.fromhex("02 00 00 01 82 00 01 01 0E 00")
STOP = bytes.fromhex("03 00")


@pytest.fixture
def clock() -> SteppedClock:
    return SteppedClock()


async def find(peripheral: Peripheral, **arguments) -> BLEDevice:
    found = await BleakScanner.find_device_by_address(peripheral.address, timeout=5, **arguments)
    assert found is not None
    return found


@contextlib.asynccontextmanager
async def streaming(h10: H10) -> AsyncIterator[tuple[BleakClient, list[bytes]]]:
    """A connected client, and the data frames that arrive."""
    frames: list[bytes] = []
    async with BleakClient(await find(h10)) as client:
        answers: asyncio.Queue[bytes] = asyncio.Queue()
        await client.start_notify(PMD_CONTROL, lambda _, data: answers.put_nowait(bytes(data)))
        await client.start_notify(PMD_DATA, lambda _, data: frames.append(bytes(data)))
        await client.write_gatt_char(PMD_CONTROL, START, response=True)
        assert (await asyncio.wait_for(answers.get(), 5))[:3] == bytes([0xF0, 2, 0])
        yield client, frames


def decoded(frame: bytes) -> tuple[int, list[int]]:
    """Timestamp and samples of a PMD ECG frame, by the published layout."""
    assert frame[0] == 0
    assert frame[9] == 0
    samples = [
        int.from_bytes(frame[at : at + 3], "little", signed=True) for at in range(10, len(frame), 3)
    ]
    return int.from_bytes(frame[1:9], "little"), samples


async def until(reached: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not reached():  # noqa: ASYNC110 - what is waited for has no event of its own
            await asyncio.sleep(0.002)


async def test_a_scan_finds_name_strength_and_services(bluez: Bluez) -> None:
    bluez.add(H10(synthetic(), rssi=-71))
    bluez.add(Strap())
    bluez.add(Strap("asleep", "C0:00:00:00:00:09")).take_off()

    found = await BleakScanner.discover(timeout=0.2, return_adv=True)

    assert found.keys() == {"A0:9E:1A:00:00:01", "C0:00:00:00:00:01"}
    device, said = found["A0:9E:1A:00:00:01"]
    assert device.name == "Polar H10 12345678"
    assert said.rssi in (-71, -70)
    assert HEART_RATE_SERVICE in said.service_uuids


async def test_a_scan_hears_a_strap_again_and_again(bluez: Bluez) -> None:
    bluez.add(Strap())
    heard = []
    async with BleakScanner(lambda _, said: heard.append(said.rssi)):
        await until(lambda: len(heard) > 4)
    assert len(set(heard)) > 1


async def test_settings_and_start_are_answered_as_the_h10_does(bluez: Bluez) -> None:
    h10 = bluez.add(H10(synthetic()))
    answers = []
    async with BleakClient(await find(h10)) as client:
        with pytest.raises(BleakGATTProtocolError, match="CCCD"):
            await client.write_gatt_char(PMD_CONTROL, GET_SETTINGS, response=True)
        assert (await client.read_gatt_char(PMD_CONTROL))[:2] == b"\x0f\x05"
        await client.start_notify(PMD_CONTROL, lambda _, data: answers.append(data.hex(" ")))
        wrong_rate = bytes.fromhex("02 00 00 01 C8 00 01 01 0E 00")
        for command in (GET_SETTINGS, STOP, wrong_rate, START, START, STOP):
            await client.write_gatt_char(PMD_CONTROL, command, response=True)
        await until(lambda: len(answers) == 6)

    assert answers == [
        "f0 01 00 00 00 00 01 82 00 01 01 0e 00",
        "f0 03 00 06",
        "f0 02 00 08",
        "f0 02 00 00 00",
        "f0 02 00 06",
        "f0 03 00 00 00",
    ]
    assert h10.stops == 2


async def test_reading_what_one_is_subscribed_to_is_heard_as_a_notification(bluez: Bluez) -> None:
    h10 = bluez.add(H10(synthetic()))
    heard = []
    async with BleakClient(await find(h10)) as client:
        await client.start_notify(PMD_CONTROL, lambda _, data: heard.append(bytes(data[:2])))
        await client.read_gatt_char(PMD_CONTROL)
        await until(lambda: bool(heard))
    assert heard == [b"\x0f\x05"]


async def test_frames_hold_the_samples_played_and_the_time_of_the_last(
    bluez: Bluez, clock: SteppedClock
) -> None:
    # A ramp with the extremes of 24 bits: every sample tells where it comes from.
    ramp = np.arange(-400, 400, dtype=np.float32)
    ramp[100:102] = -8_388_608, 8_388_607
    h10 = bluez.add(H10(ramp, rate=129.9, drift_ppm=60))
    switched_on = clock.time_ns()
    await clock.advance(3600)

    async with streaming(h10) as (_, frames):
        started = clock.time_ns()
        await clock.advance(10)

    assert [len(frame) for frame in frames] == [229] * 17
    stamps, samples = zip(*map(decoded, frames), strict=True)
    np.testing.assert_array_equal(np.concatenate(samples), np.tile(ramp, 2)[: 17 * 73])
    # 2019-01-01 in seconds since 2000-01-01, and the strap's clock runs 60 ppm fast.
    for n, stamp in enumerate(stamps, start=1):
        true_s = (started - switched_on) / NS + n * 73 / 129.9
        assert stamp / NS == pytest.approx(599_616_000 + true_s * 1.00006, abs=1e-6)

    truth = h10.truth()
    assert truth.delivered.all()
    np.testing.assert_array_equal(truth.microvolts, np.concatenate(samples))
    expected = np.arange(1, 17 * 73 + 1) / 129.9 * NS
    np.testing.assert_allclose(truth.utc_ns - started, expected, rtol=0, atol=1.5)


async def test_a_frame_arrives_a_little_after_its_last_sample(
    bluez: Bluez, clock: SteppedClock
) -> None:
    h10 = bluez.add(H10(synthetic(), latency_s=(0.02, 0.05)))
    arrived = []
    async with streaming(h10) as (client, _):
        await client.stop_notify(PMD_DATA)
        await client.start_notify(PMD_DATA, lambda *_: arrived.append(clock.time_ns()))
        await clock.advance(20)
    late = np.array(arrived) - [frame.last_ns for frame in h10.frames]
    assert len(late) == 35
    assert late.min() >= 0.02 * NS
    assert late.max() <= 0.05 * NS
    assert np.ptp(late) > 0.01 * NS


async def test_twenty_lost_links_leave_nothing_behind(
    bluez: Bluez, clock: SteppedClock, system_bus
) -> None:
    h10 = bluez.add(H10(synthetic()))
    found = await find(h10)
    counts = []
    for lost in range(20):
        gone = asyncio.Event()
        client = BleakClient(found, disconnected_callback=lambda _, gone=gone: gone.set())
        await client.connect()
        frames = []
        await client.start_notify(PMD_CONTROL, lambda *_: None)
        await client.start_notify(PMD_DATA, lambda _, data, to=frames: to.append(data))
        await client.write_gatt_char(PMD_CONTROL, START, response=True)
        await clock.advance(1)
        assert frames
        h10.lose_link()
        await asyncio.wait_for(gone.wait(), 5)
        assert not client.is_connected
        await client.disconnect()
        if lost in (1, 19):
            await asyncio.sleep(0.05)
            counts.append(await census(system_bus.address))
    assert h10.links == 20
    assert counts[0] == counts[1]


async def test_samples_made_without_a_link_count_as_undelivered(
    bluez: Bluez, clock: SteppedClock
) -> None:
    h10 = bluez.add(H10(np.arange(10_000, dtype=np.float32)))
    heard = []
    async with streaming(h10) as (_, frames):
        await clock.advance(5)
        heard += frames
        h10.out_of_range(30)
        await bluez.settle()
    await clock.advance(31)
    async with streaming(h10) as (_, frames):
        await clock.advance(5)
        heard += frames
    truth = h10.truth()
    samples = np.concatenate([decoded(frame)[1] for frame in heard])
    np.testing.assert_array_equal(truth.microvolts[truth.delivered], samples)
    missing = np.flatnonzero(~truth.delivered)
    np.testing.assert_array_equal(np.diff(missing), 1)
    assert len(missing) / 129.9 == pytest.approx(31, abs=73 / 129.9)


async def test_dropped_doubled_spoilt_and_delayed_frames(bluez: Bluez, clock: SteppedClock) -> None:
    h10 = bluez.add(H10(np.arange(10_000, dtype=np.float32)))
    async with streaming(h10) as (_, frames):
        h10.drop()
        h10.duplicate()
        h10.corrupt("truncated")
        h10.delay(3.5)
        await clock.advance(3.4)
        assert frames == []
        await clock.advance(0.2)
        assert [len(frame) for frame in frames] == [229, 229, 228, 229, 229, 229]
        assert frames[0] == frames[1]
        h10.send_raw(b"\xff")
        await clock.settle()
        assert frames[-1] == b"\xff"
    delivered = [frame.delivered for frame in h10.frames]
    assert delivered == [False, True, False, True, True, True]


async def test_the_straps_clock_jumps_and_starts_anew(bluez: Bluez, clock: SteppedClock) -> None:
    h10 = bluez.add(H10(synthetic(), rate=130))
    async with streaming(h10) as (_, frames):
        await clock.advance(1.2)
        h10.jump_clock(-5)
        await clock.advance(1)
        h10.reset_clock()
        await clock.advance(1)
    stamps = [decoded(frame)[0] for frame in frames]
    period = 73 * NS / 130
    np.testing.assert_allclose(np.diff(stamps)[:2], [period, period - 5 * NS], atol=10)
    assert stamps[-1] < 599_616_001 * NS


@pytest.mark.parametrize("off_body", ["rail", "noise"])
async def test_off_the_body_the_stream_goes_on_without_an_ecg(
    bluez: Bluez, clock: SteppedClock, off_body: str
) -> None:
    h10 = bluez.add(H10(synthetic(), off_body=off_body))
    contact = []
    async with streaming(h10) as (client, frames):
        await client.start_notify(
            HEART_RATE_MEASUREMENT, lambda _, data: contact.append((data[0], data[1]))
        )
        h10.take_off()
        await clock.advance(70)
        assert client.is_connected
        assert len(frames) == pytest.approx(70 * 129.9 / 73, abs=1)
        samples = np.concatenate([decoded(frame)[1] for frame in frames])
        assert np.median(np.abs(samples)) > 1500
        # Flags: contact supported and absent, or not told. No beats.
        assert set(contact) == {(0x04, 0), (0x00, 0)}
    assert h10.streaming
    await clock.advance(61)
    assert not h10.streaming
    assert h10.device_ns(clock.time_ns()) < (599_616_000 + 2) * NS


async def test_heart_rate_and_battery(bluez: Bluez, clock: SteppedClock) -> None:
    h10 = bluez.add(H10(synthetic(), rr_s=(0.75,)))
    packets, battery = [], []
    async with BleakClient(await find(h10)) as client:
        await client.start_notify(HEART_RATE_MEASUREMENT, lambda _, data: packets.append(data))
        await client.start_notify(BATTERY_LEVEL, lambda _, data: battery.append(data[0]))
        h10.battery = 57
        await clock.advance(30)
        assert (await client.read_gatt_char(BATTERY_LEVEL))[0] == 57
    assert battery[0] == 57
    assert {packet[0] for packet in packets} == {0x10, 0x16}
    assert {packet[1] for packet in packets} == {80}
    intervals = b"".join(bytes(packet[2:]) for packet in packets)
    assert {intervals[at : at + 2] for at in range(0, len(intervals), 2)} == {b"\x00\x03"}
    assert len(intervals) / 2 == pytest.approx(30 / 0.75, abs=1)
    assert sum(len(beats.rr_1024) for beats in h10.beats) == len(intervals) / 2


async def test_movesense_streams_microvolts_in_16_bits(bluez: Bluez, clock: SteppedClock) -> None:
    ramp = np.arange(-3000, 3000, dtype=np.float32)
    sensor = bluez.add(Movesense(ramp))
    booted = clock.time_ns()
    await clock.advance(100)
    packets = []
    async with BleakClient(await find(sensor)) as client:
        await client.start_notify(GSP_NOTIFY, lambda _, data: packets.append(bytes(data)))
        await client.write_gatt_char(GSP_WRITE, b"\x01\x63/Meas/ECG/128/mV\0", response=True)
        await until(lambda: bool(packets))
        started = clock.time_ns()
        await clock.advance(2.1)
        await client.write_gatt_char(GSP_WRITE, b"\x02\x63", response=True)
        await until(lambda: packets[-1][0] == 1)
    assert packets[0] == packets[-1] == b"\x01\x63\xc8\x00"
    data = packets[1:-1]
    assert {(packet[:2], len(packet)) for packet in data} == {(b"\x02\x63", 38)}
    np.testing.assert_array_equal(
        np.concatenate([np.frombuffer(packet[6:], "<i2") for packet in data]),
        ramp[: 16 * len(data)],
    )
    assert len(data) == 16
    first_ms = (started - booted) / 1e6 + 1000 / 128
    stamps = [int.from_bytes(packet[2:6], "little") for packet in data]
    np.testing.assert_allclose(stamps, first_ms + np.arange(16) * 125, atol=1)
    assert sensor.stops == 1


async def test_movesense_counts_are_continued_in_a_second_packet(
    bluez: Bluez, clock: SteppedClock
) -> None:
    sensor = bluez.add(Movesense(np.full(1000, 381.469726563, np.float32)))
    sensor.mtu = 60
    packets = []
    async with BleakClient(await find(sensor)) as client:
        await client.start_notify(GSP_NOTIFY, lambda _, data: packets.append(bytes(data)))
        await client.write_gatt_char(GSP_WRITE, b"\x01\x01/Meas/ECG/128", response=True)
        await clock.advance(0.2)
    _, part, rest = packets
    assert (part[0], rest[0]) == (2, 3)
    counts = np.frombuffer(part[6:] + rest[2:], "<i4")
    # 381 µV is the nearest whole number; a count is 0.38147 µV.
    np.testing.assert_array_equal(counts, np.full(16, 999))


async def test_an_adapter_that_is_switched_off(bluez: Bluez, clock: SteppedClock) -> None:
    h10 = bluez.add(H10(synthetic()))
    found = await find(h10)
    gone = asyncio.Event()
    async with BleakClient(found, disconnected_callback=lambda _: gone.set()) as client:
        bluez.power("hci0", False)
        await asyncio.wait_for(gone.wait(), 5)
        assert not client.is_connected
    with pytest.raises(BleakBluetoothNotAvailableError) as raised:
        await BleakScanner.discover(timeout=0.1)
    assert raised.value.reason is BleakBluetoothNotAvailableReason.POWERED_OFF
    with pytest.raises(BleakDBusError) as refused:
        await BleakScanner.discover(timeout=0.1, bluez={"adapter": "hci0"})
    assert refused.value.dbus_error == "org.bluez.Error.NotReady"
    with pytest.raises(BleakDBusError, match="Resource Not Ready"):
        await BleakClient(found).connect()

    bluez.power("hci0", True)
    await bluez.settle()
    async with BleakClient(await find(h10)) as client:
        assert client.is_connected


@pytest.mark.parametrize("adapters", [("hci0", "hci1")])
async def test_two_adapters_and_two_straps(bluez: Bluez, clock: SteppedClock) -> None:
    h10, strap = bluez.add(H10(synthetic())), bluez.add(Strap())
    on_second = {"adapter": "hci1"}
    async with (
        BleakClient(await find(h10, bluez={"adapter": "hci0"})),
        BleakClient(await find(strap, bluez=on_second), bluez=on_second) as client,
    ):
        assert h10.connected
        assert strap.connected
        assert bluez.device(strap, "hci1").connected
        # A connected strap does not advertise.
        assert await BleakScanner.discover(timeout=0.1) == []
        bluez.power("hci0", False)
        await until(lambda: not h10.connected)
        assert client.is_connected


@pytest.mark.parametrize(
    ("error", "text"), [("InProgress", "In Progress"), ("Failed", "br-connection-canceled")]
)
async def test_connections_that_fail(bluez: Bluez, error: str, text: str) -> None:
    h10 = bluez.add(H10(synthetic()))
    bluez.fail_next("Connect", error, text, times=2)
    found = await find(h10)
    for _ in range(2):
        with pytest.raises(BleakDBusError, match=text) as raised:
            await BleakClient(found).connect()
        assert raised.value.dbus_error == f"org.bluez.Error.{error}"
    async with BleakClient(found) as client:
        assert client.is_connected


async def test_le_connection_abort_by_local_is_retried_by_bleak(bluez: Bluez) -> None:
    h10 = bluez.add(H10(synthetic()))
    bluez.fail_next("Connect", "Failed", "le-connection-abort-by-local", times=3)
    async with BleakClient(await find(h10)):
        pass
    assert bluez.calls.count("Connect") == 4


async def test_a_strap_that_another_central_has(bluez: Bluez, clock: SteppedClock) -> None:
    h10 = bluez.add(H10(synthetic()))
    found = await find(h10)
    h10.hold(60)
    assert await BleakScanner.discover(timeout=0.1) == []
    connecting = asyncio.ensure_future(BleakClient(found).connect())
    await until(lambda: "Connect" in bluez.calls)
    await clock.advance(20)
    with pytest.raises(BleakDBusError, match="le-connection-timeout"):
        await connecting
    await clock.advance(40)
    async with BleakClient(found) as client:
        assert client.is_connected


async def test_a_connection_is_made_when_the_strap_comes_back(
    bluez: Bluez, clock: SteppedClock
) -> None:
    h10 = bluez.add(H10(synthetic()))
    found = await find(h10)
    h10.out_of_range(10)
    client = BleakClient(found)
    connecting = asyncio.ensure_future(client.connect())
    await until(lambda: "Connect" in bluez.calls)
    assert not h10.connected
    await clock.advance(11)
    await connecting
    assert h10.connected
    await client.disconnect()


async def test_a_connection_that_is_given_up(bluez: Bluez) -> None:
    h10 = bluez.add(H10(synthetic()))
    found = await find(h10)
    h10.out_of_range()
    with pytest.raises(TimeoutError):
        await BleakClient(found, timeout=0.2).connect()
    h10.back_in_range()
    await asyncio.sleep(0.05)
    assert not h10.connected


async def test_services_that_are_never_resolved(bluez: Bluez) -> None:
    h10 = bluez.add(H10(synthetic()))
    h10.resolves = False
    with pytest.raises(TimeoutError):
        await BleakClient(await find(h10), timeout=0.3).connect()
    await until(lambda: not h10.connected)


async def test_a_call_that_is_never_answered(bluez: Bluez) -> None:
    h10 = bluez.add(H10(synthetic()))
    async with BleakClient(await find(h10)) as client:
        bluez.hang_next("ReadValue")
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(client.read_gatt_char(BATTERY_LEVEL), 0.1)
        assert (await client.read_gatt_char(BATTERY_LEVEL))[0] == 80


async def test_an_unused_device_is_forgotten(bluez: Bluez, clock: SteppedClock) -> None:
    h10 = bluez.add(H10(synthetic()))
    found = await find(h10)
    h10.out_of_range()
    await clock.advance(31)
    await BleakScanner.discover(timeout=0.1)
    with pytest.raises(BleakError, match="device 'dev_A0_9E_1A_00_00_01' not found"):
        await BleakClient(found).connect()


class _Agent(ServiceInterface):
    def __init__(self, *, yes: bool) -> None:
        super().__init__("org.bluez.Agent1")
        self.yes = yes
        self.asked: list[object] = []

    def _answer(self, *asked: object) -> None:
        self.asked.append(asked)
        if not self.yes:
            raise DBusError("org.bluez.Error.Rejected", "no")

    @dbus_method()
    def RequestAuthorization(self, device: "o"):  # noqa: N802, F821
        self._answer("authorization", device)

    @dbus_method()
    def RequestConfirmation(self, device: "o", passkey: "u"):  # noqa: N802, F821
        self._answer("confirmation", device, passkey)


@contextlib.asynccontextmanager
async def agent(*, yes: bool = True, capability: str = "NoInputNoOutput") -> AsyncIterator[_Agent]:
    bus = await MessageBus(bus_type=BusType.SYSTEM).connect()
    answering = _Agent(yes=yes)
    bus.export("/agent", answering)
    for member, signature, body in (
        ("RegisterAgent", "os", ["/agent", capability]),
        ("RequestDefaultAgent", "o", ["/agent"]),
    ):
        reply = await bus.call(
            Message(
                destination="org.bluez",
                path="/org/bluez",
                interface="org.bluez.AgentManager1",
                member=member,
                signature=signature,
                body=body,
            )
        )
        assert reply.error_name is None, reply.body
    yield answering
    bus.disconnect()
    await bus.wait_for_disconnect()


async def test_pairing_needs_an_agent_that_says_yes(bluez: Bluez) -> None:
    h10 = bluez.add(H10(synthetic(), needs_pairing=True))
    path = "/org/bluez/hci0/dev_A0_9E_1A_00_00_01"
    async with BleakClient(await find(h10)) as client:
        with pytest.raises(BleakDBusError, match="Not paired"):
            await client.start_notify(PMD_CONTROL, lambda *_: None)
        with pytest.raises(BleakDBusError, match="Authentication Failed") as raised:
            await client.pair()
        assert raised.value.dbus_error == "org.bluez.Error.AuthenticationFailed"
        async with agent(yes=False) as refusing:
            with pytest.raises(BleakDBusError, match="Authentication Failed"):
                await client.pair()
            assert refusing.asked == [("authorization", path)]
        async with agent() as willing:
            await client.pair()
            assert willing.asked == [("authorization", path)]
        await client.start_notify(PMD_CONTROL, lambda *_: None)
        await client.write_gatt_char(PMD_CONTROL, START, response=True)
    # The bond holds over connections, and for a daemon that starts anew.
    await bluez.restart()
    async with BleakClient(await find(h10)) as client:
        await client.read_gatt_char(PMD_CONTROL)


async def test_a_strap_that_demands_a_bond_gets_it_by_itself_if_there_is_an_agent(
    bluez: Bluez,
) -> None:
    h10 = bluez.add(H10(synthetic(), needs_pairing=True))
    async with agent() as answering, BleakClient(await find(h10)) as client:
        assert (await client.read_gatt_char(PMD_CONTROL))[0] == 0x0F
        assert len(answering.asked) == 1
    assert h10.bonded


async def test_a_number_to_compare(bluez: Bluez) -> None:
    h10 = bluez.add(H10(synthetic(), needs_pairing=True))
    h10.asks = "confirmation"
    async with (
        agent(capability="DisplayYesNo") as answering,
        BleakClient(await find(h10)) as client,
    ):
        await client.pair()
        ((what, _, number),) = answering.asked
    assert (what, number) == ("confirmation", 123_456)


async def test_a_stale_bond_throws_the_host_out_until_it_pairs_anew(bluez: Bluez) -> None:
    h10 = bluez.add(H10(synthetic(), needs_pairing=True))
    async with agent():
        async with BleakClient(await find(h10), pair=True):
            pass
        h10.forget_bond()
        stale = BleakClient(await find(h10))
        for _ in range(2):
            with pytest.raises(BleakError, match="disconnected"):
                await stale.connect()
        await stale.unpair()
        async with BleakClient(await find(h10), pair=True) as client:
            await client.read_gatt_char(PMD_CONTROL)


@pytest.mark.parametrize("crash", [False, True])
async def test_bluetoothd_starts_anew(bluez: Bluez, clock: SteppedClock, crash: bool) -> None:
    h10 = bluez.add(H10(synthetic()))
    gone = asyncio.Event()
    client = BleakClient(await find(h10), disconnected_callback=lambda _: gone.set())
    await client.connect()
    restart = asyncio.ensure_future(bluez.restart(crash=crash, away_s=0.2))
    await until(lambda: not h10.connected)
    await asyncio.sleep(0.05)
    # bleak hears of an orderly end only.
    assert gone.is_set() is not crash
    with pytest.raises((BleakError, EOFError)):
        await BleakScanner.discover(timeout=0.1, bluez={"adapter": "hci0"})
    await restart
    with contextlib.suppress(BleakDBusError):
        await client.disconnect()
    async with streaming(h10) as (_, frames):
        await clock.advance(2)
        assert len(frames) == 3


async def test_a_client_that_leaves_the_bus_no_longer_listens(bluez: Bluez) -> None:
    h10 = bluez.add(H10(synthetic()))
    client = BleakClient(await find(h10))
    await client.connect()
    await client.start_notify(PMD_CONTROL, lambda *_: None)
    assert PMD_CONTROL in h10.subscribed
    client._backend._bus.disconnect()
    await until(lambda: PMD_CONTROL not in h10.subscribed)
    # BlueZ keeps the link of a program that has died.
    assert h10.connected
    h10.lose_link()
    await until(lambda: not client.is_connected)
    await client.disconnect()


async def test_a_script_of_faults(bluez: Bluez, clock: SteppedClock) -> None:
    h10 = bluez.add(H10(synthetic()))
    play(
        bluez,
        [
            Fault(5, "drop", {"frames": 2}),
            Fault(10, "out_of_range", {"seconds": 20}),
            Fault(40, "power", {"adapter": "hci0", "on": False}, target="bluez"),
            Fault(50, "restart", {"away_s": 0}, target="bluez"),
        ],
    )
    async with streaming(h10) as (client, frames):
        await clock.advance(9.9)
        assert len(frames) == 15
        await clock.advance(0.2)
        assert not client.is_connected
    await clock.advance(20)
    assert h10.in_range
    await clock.advance(10)
    await bluez.settle()
    with pytest.raises(BleakBluetoothNotAvailableError):
        await BleakScanner.discover(timeout=0.1)
    before = bluez.device(h10)
    await clock.advance(10)
    await until(lambda: bluez.device(h10) is not before)
    with pytest.raises(ValueError, match="fault not known for a strap: explode"):
        Fault(0, "explode")


async def _read_with_bleakheart(client: BleakClient, advance: Callable[[float], Awaitable]) -> list:
    heard: list = []
    pmd = bleakheart.PolarMeasurementData(client, callback=heard.append)
    assert await pmd.available_measurements() == ["ECG", "ACC"]
    settings = await pmd.available_settings("ECG")
    assert (settings["SAMPLE_RATE"], settings["RESOLUTION"]) == ([130], [14])
    assert (await pmd.start_streaming("ECG"))[0] == 0
    await advance(20)
    assert (await pmd.stop_streaming("ECG"))[0] == 0
    return heard


@pytest.mark.data
async def test_a_public_client_reads_the_real_ecg_that_is_played(
    bluez: Bluez, clock: SteppedClock, data
) -> None:
    # Level-4 MAT: 24 bytes of head, then int16 in µV (A00001.hea: 300 Hz, 1000/mV).
    recording = np.fromfile(data / "samples/cinc2017/A00001.mat", "<i2", offset=24)
    played = resampled(recording, 300)
    h10 = bluez.add(H10(played))
    async with BleakClient(await find(h10)) as client:
        heard = await _read_with_bleakheart(client, clock.advance)
        beats: list = []
        heart = bleakheart.HeartRate(client, callback=beats.append)
        await heart.start_notify()
        await clock.advance(10)
    assert {kind for kind, _, _ in heard} == {"ECG"}
    samples = np.concatenate([payload for _, _, payload in heard])
    assert len(samples) == 35 * 73
    np.testing.assert_array_equal(samples, np.rint(played[: len(samples)]))
    periods = np.diff([stamp for _, stamp, _ in heard])
    np.testing.assert_allclose(periods, 73 / 129.9 * NS, atol=2)
    assert {payload for _, _, payload, _ in beats} == {(75, 800)}
    assert h10.stops == 1


async def test_an_hour_takes_seconds(bluez: Bluez, clock: SteppedClock) -> None:
    h10 = bluez.add(H10(synthetic()))
    count = 0

    def take(*_) -> None:
        nonlocal count
        count += 1

    async with streaming(h10) as (client, _):
        await client.stop_notify(PMD_DATA)
        await client.start_notify(PMD_DATA, take)
        async with asyncio.timeout(60):
            await clock.advance(3600.1)
    assert count == int(3600 * 129.9 / 73)


async def test_a_process_of_its_own(bluez_process) -> None:
    first = bluez_process(
        {
            "straps": [{"kind": "h10", "rr_s": [0.9]}],
            "speed": 20,
            "faults": [{"at_s": 40, "do": "lose_link"}],
        }
    )
    found = await BleakScanner.find_device_by_address("A0:9E:1A:00:00:01", timeout=5)
    gone = asyncio.Event()
    async with BleakClient(found, disconnected_callback=lambda _: gone.set()) as client:
        frames: list[bytearray] = []
        await client.start_notify(PMD_CONTROL, lambda *_: None)
        await client.start_notify(PMD_DATA, lambda _, data: frames.append(data))
        await client.write_gatt_char(PMD_CONTROL, START, response=True)
        await asyncio.wait_for(gone.wait(), 10)
    first.send_signal(signal.SIGTERM)
    told, _ = await asyncio.to_thread(first.communicate)
    (strap,) = json.loads(told)["straps"]
    assert strap["links"] == 1
    assert strap["commands"] == [START.hex()]
    assert strap["delivered"] == 73 * len(frames) > 0
    # The stream has gone on without us.
    assert strap["made"] >= strap["delivered"]
    bluez_process({"straps": [{"kind": "strap"}]})
    await asyncio.sleep(0.1)
    assert await BleakScanner.find_device_by_address("C0:00:00:00:00:01", timeout=5)
