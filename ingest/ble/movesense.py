"""Movesense: ECG by its GATT SensorData Protocol (GSP), heart rate and battery.

The protocol is Movesense's "GATT SensorData Protocol specification" (GD-77, version 1.0). What an
ECG packet holds it does not say; that is known from measurements of several devices: a timestamp
as u32 in ms, then 16 samples without a count.
"""

import asyncio
from collections.abc import Collection
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from bleak import BleakClient

from ingest.ble import heart_rate
from ingest.ble.events import DeviceError, Emit, Frame, MalformedError
from ingest.ble.packets import Inbox

SERVICE = "34802252-7185-4d5d-b431-630e7050e8f0"
COMMAND = "34800001-7185-4d5d-b431-630e7050e8f0"
RESPONSE = "34800002-7185-4d5d-b431-630e7050e8f0"

_RATE = 128
_SAMPLES = 16  # ArraySize of /Meas/ECG/Info
_REFERENCE = 1  # ours; answers and data carry it
SUBSCRIBE_ECG = bytes((1, _REFERENCE)) + f"/Meas/ECG/{_RATE}".encode()
UNSUBSCRIBE_ECG = bytes((2, _REFERENCE))

_ANSWER, _DATA, _CONTINUED = 1, 2, 3

# The width of a sample tells its unit: raw counts have 32 bits, of 1/(20 × 2^17) V each; firmware
# that has converted them sends µV in 16 bits.
_NARROW_BYTES = 4 + 2 * _SAMPLES
_WIDE_BYTES = 4 + 4 * _SAMPLES
_MICROVOLTS_PER_COUNT = 1e6 / 20 / (1 << 17)

# The timestamp is that of the first sample.
_TO_LAST_NS = round((_SAMPLES - 1) / _RATE * 1e9)


@dataclass(frozen=True, slots=True)
class Packet:
    """A notification: what it is (1 answer, 2 data, 3 data continued), whose, and the rest."""

    type: int
    reference: int
    payload: bytes


def decode_packet(packet: bytes) -> Packet:
    """Split a notification.

    Raises:
        MalformedError: it is too short, or of no known type.
    """
    if len(packet) < 2 or packet[0] not in {_ANSWER, _DATA, _CONTINUED}:
        raise MalformedError(
            f"GSP: expected a type of 1 to 3 and a reference, got {packet[:8].hex(' ')}"
        )
    return Packet(packet[0], packet[1], packet[2:])


def decode_status(payload: bytes) -> int:
    """The status of an answer, in the numbers of HTTP.

    Raises:
        MalformedError: there is none.
    """
    if len(payload) < 2:
        raise MalformedError(f"GSP answer: expected a status of 2 bytes, got {len(payload)}")
    return int.from_bytes(payload[:2], "little")


def decode_ecg(payload: bytes) -> Frame:
    """Decode the payload of ECG data, put together where it was continued.

    The time is that of the last sample, as nominal rate and the time of the first give it.

    Raises:
        MalformedError: it is not a timestamp and 16 samples.
    """
    if len(payload) == _WIDE_BYTES:
        counts = np.frombuffer(payload, "<i4", offset=4)
        microvolts = (counts * _MICROVOLTS_PER_COUNT).astype(np.float32)
    elif len(payload) == _NARROW_BYTES:
        microvolts = np.frombuffer(payload, "<i2", offset=4).astype(np.float32)
    else:
        raise MalformedError(
            f"GSP ECG: expected {_NARROW_BYTES} or {_WIDE_BYTES} bytes, got {len(payload)}"
        )
    first_ms = int.from_bytes(payload[:4], "little")
    return Frame(first_ms * 1_000_000 + _TO_LAST_NS, microvolts)


class Movesense:
    """Movesense sensors whose firmware has the GATT SensorData Protocol."""

    kind: ClassVar[str] = "movesense"
    label: ClassVar[str] = "Movesense"
    gives: ClassVar[tuple[str, ...]] = ("ECG 128 Hz", "heart rate", "RR", "battery")
    rate: ClassVar[float | None] = float(_RATE)

    def __init__(self) -> None:
        self._inbox = Inbox(self.kind)
        self._emit: Emit | None = None
        self._status: asyncio.Future[int] | None = None
        self._begun = b""  # data whose continuation has not come yet

    @classmethod
    def recognises(cls, name: str, services: Collection[str]) -> bool:
        """Whether it is named as one; there is no room in its advertisement for the service."""
        return name.startswith("Movesense") or SERVICE in services

    async def settings(self, client: BleakClient) -> None:
        """Check that the firmware has the protocol, and listen to it.

        Raises:
            DeviceError: it has not.
        """
        if client.services.get_characteristic(COMMAND) is None:
            raise DeviceError(
                "the sensor's firmware has no GATT SensorData Protocol: install the default "
                "firmware 2.3 or later with Movesense's own app"
            )
        await self._inbox.subscribe(client, RESPONSE, self._take)

    async def start(self, client: BleakClient, emit: Emit) -> None:
        """Subscribe to the ECG; an answer or the first data says that it worked.

        Raises:
            DeviceError: the sensor refuses.
        """
        self._emit = emit
        await heart_rate.listen(client, self._inbox, emit)
        self._status = asyncio.get_running_loop().create_future()
        await client.write_gatt_char(COMMAND, SUBSCRIBE_ECG, response=True)
        status = await self._status
        if status >= 400:
            raise DeviceError(
                f"the sensor refused ECG of {_RATE} Hz (status {status}): take it off its holder "
                "for a minute and put it on again"
            )

    async def stop(self, client: BleakClient) -> None:
        """End the subscription, so that the sensor may sleep."""
        await client.write_gatt_char(COMMAND, UNSUBSCRIBE_ECG, response=True)

    def _take(self, notification: bytes) -> None:
        packet = decode_packet(notification)
        if packet.reference != _REFERENCE:
            return
        if packet.type == _ANSWER:
            self._answered(decode_status(packet.payload))
            return
        # The sample firmware answers a subscription with nothing but its data.
        self._answered(200)
        unfinished = b""
        if packet.type == _DATA:
            unfinished, self._begun = self._begun, packet.payload
        elif self._begun:
            self._begun += packet.payload
        else:
            raise MalformedError("GSP ECG: data is continued that never began")
        if len(self._begun) >= _WIDE_BYTES or len(self._begun) == _NARROW_BYTES:
            payload, self._begun = self._begun, b""
            frame = decode_ecg(payload)
            if self._emit is not None:
                self._emit(frame)
        if unfinished:
            raise MalformedError(f"GSP ECG: {len(unfinished)} bytes were never continued")

    def _answered(self, status: int) -> None:
        if self._status is not None and not self._status.done():
            self._status.set_result(status)
