"""The Heart Rate Service and the Battery Service, and straps that have nothing more."""

import struct
from collections.abc import Collection
from typing import ClassVar

from bleak import BleakClient
from bleak.uuids import normalize_uuid_16

from ingest.ble.events import Battery, DeviceError, Emit, MalformedError, Pulse
from ingest.ble.packets import Inbox

SERVICE = normalize_uuid_16(0x180D)
MEASUREMENT = normalize_uuid_16(0x2A37)
BATTERY_LEVEL = normalize_uuid_16(0x2A19)

_WIDE = 0x01  # the heart rate has 16 bits
_CONTACT = 0x02
_CONTACT_KNOWN = 0x04
_ENERGY = 0x08
_INTERVALS = 0x10


def decode_pulse(packet: bytes) -> Pulse:
    """Decode a Heart Rate Measurement (Bluetooth Heart Rate Service 1.0, section 3.1).

    RR intervals come in units of 1/1024 s; one of 0 is none and is left out.

    Raises:
        MalformedError: it is shorter or longer than its flags say.
    """
    if not packet:
        raise MalformedError("heart rate: expected flags, got an empty packet")
    flags = packet[0]
    at = 3 if flags & _WIDE else 2
    heart_rate = int.from_bytes(packet[1:at], "little")
    if flags & _ENERGY:
        at += 2
    left = len(packet) - at
    if left < 0 or left % 2 or (left and not flags & _INTERVALS):
        expected = f"{at} bytes" + (" and 2 for every RR interval" if flags & _INTERVALS else "")
        raise MalformedError(
            f"heart rate: expected {expected} with flags {flags:#04x}, got {len(packet)} bytes"
        )
    intervals = struct.unpack_from(f"<{left // 2}H", packet, at)
    return Pulse(
        heart_rate=heart_rate or None,
        rr_s=tuple(interval / 1024 for interval in intervals if interval),
        contact=bool(flags & _CONTACT) if flags & _CONTACT_KNOWN else None,
    )


def decode_battery(packet: bytes) -> Battery:
    """Decode a Battery Level (Bluetooth Battery Service 1.0, section 3.1): one byte, in percent.

    Raises:
        MalformedError: it is not one byte of 0 to 100.
    """
    if len(packet) != 1 or packet[0] > 100:
        raise MalformedError(f"battery: expected one byte of 0 to 100, got {packet[:8].hex(' ')}")
    return Battery(packet[0])


async def listen(client: BleakClient, inbox: Inbox, emit: Emit) -> None:
    """Receive heart rate and battery level from now on, as far as the strap has them.

    Raises:
        BleakError: the strap has them but refuses.
    """
    services = client.services
    if services.get_characteristic(MEASUREMENT) is not None:
        await inbox.subscribe(client, MEASUREMENT, lambda packet: emit(decode_pulse(packet)))
    level = services.get_characteristic(BATTERY_LEVEL)
    if level is None:
        return

    def take(packet: bytes) -> None:
        emit(decode_battery(packet))

    if "read" in level.properties:
        inbox.give(bytes(await client.read_gatt_char(level)), take)
    if "notify" in level.properties:
        await inbox.subscribe(client, BATTERY_LEVEL, take)


class HeartRateStrap:
    """Any strap with the Heart Rate Service: heart rate and RR intervals, no waveform."""

    kind: ClassVar[str] = "heart_rate"
    label: ClassVar[str] = "Heart rate strap"
    gives: ClassVar[tuple[str, ...]] = ("heart rate", "RR", "battery")
    rate: ClassVar[float | None] = None

    @classmethod
    def recognises(cls, name: str, services: Collection[str]) -> bool:  # noqa: ARG003
        """Whether it advertises the Heart Rate Service."""
        return SERVICE in services

    async def settings(self, client: BleakClient) -> None:
        """Check that the service is there.

        Raises:
            DeviceError: it is not.
        """
        if client.services.get_characteristic(MEASUREMENT) is None:
            raise DeviceError(
                "the device has no Heart Rate Service: check that its address is that of the strap"
            )

    async def start(self, client: BleakClient, emit: Emit) -> None:
        """Subscribe; the strap sends about once a second."""
        await listen(client, Inbox(self.kind), emit)

    async def stop(self, client: BleakClient) -> None:
        """End the subscription."""
        await client.stop_notify(MEASUREMENT)
