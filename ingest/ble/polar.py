"""Polar H10: ECG by Polar's Measurement Data service (PMD), heart rate, contact and battery.

The format is that of "Polar Measurement Data Specification for 3rd Party", a document of Polar's
SDK for Bluetooth devices.
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

CONTROL = "fb005c81-02e7-f387-1cad-8acd2d8df0c8"
DATA = "fb005c82-02e7-f387-1cad-8acd2d8df0c8"
_OLD_CONTROL = "fb005c52-02e7-f387-1cad-8acd2d8df0c8"

_ECG = 0x00  # measurement type
_GET_SETTINGS, _START, _STOP = 0x01, 0x02, 0x03
_RATE, _RESOLUTION = 0x00, 0x01
_VALUE_SIZES = {_RATE: 2, _RESOLUTION: 2, 0x02: 2, 0x04: 1, 0x05: 4}  # also range, channels, factor

GET_ECG_SETTINGS = bytes((_GET_SETTINGS, _ECG))
START_ECG = bytes((_START, _ECG, _RATE, 1, 130, 0, _RESOLUTION, 1, 14, 0))
STOP_ECG = bytes((_STOP, _ECG))

_SUCCESS, _ALREADY = 0, 6
_STATUS = {
    1: "invalid operation",
    2: "invalid measurement type",
    3: "not supported",
    4: "invalid length",
    5: "invalid parameter",
    7: "invalid resolution",
    8: "invalid sample rate",
    9: "invalid range",
    10: "invalid MTU",
    11: "invalid number of channels",
    12: "invalid state",
    13: "in charger",
}
_REMEDY = {
    10: "its packets do not fit the connection: use a Bluetooth adapter that allows an MTU of 232",
    13: "take it off the charger",
}
_USUAL_REMEDY = "take the sensor off the strap for a minute and put it on again"


@dataclass(frozen=True, slots=True)
class Reply:
    """An indication of the control point.

    Attributes:
        operation: the request that it answers.
        status: 0 is success.
        parameters: what follows.
    """

    operation: int
    status: int
    parameters: bytes


def decode_features(packet: bytes) -> bool:
    """Whether a device can measure ECG, from what reading its control point gives.

    Raises:
        MalformedError: it is not a list of features.
    """
    if len(packet) < 2 or packet[0] != 0x0F:
        raise MalformedError(f"PMD features: expected 0f and two bytes, got {packet[:8].hex(' ')}")
    return bool(packet[1] & 1 << _ECG)


def decode_reply(packet: bytes) -> Reply:
    """Decode an indication of the control point: ``f0``, operation, type, status, more, parameters.

    Raises:
        MalformedError: it is none.
    """
    if len(packet) < 4 or packet[0] != 0xF0:
        raise MalformedError(f"PMD reply: expected f0 and 3 bytes, got {packet[:8].hex(' ')}")
    return Reply(packet[1], packet[3], packet[5:])


def decode_settings(parameters: bytes) -> dict[int, tuple[int, ...]]:
    """Decode the parameters of a reply about settings: what a measurement can be had with.

    Returns:
        The possible values by type of setting: 0 is the rate in Hz, 1 the resolution in bits.

    Raises:
        MalformedError: it is cut off, or has a setting of unknown size.
    """
    settings: dict[int, tuple[int, ...]] = {}
    at = 0
    while at < len(parameters):
        size = _VALUE_SIZES.get(parameters[at])
        if size is None:
            raise MalformedError(f"PMD settings: unknown setting {parameters[at]}")
        if at + 1 == len(parameters):
            raise MalformedError("PMD settings: expected a number of values, got the end")
        end = at + 2 + parameters[at + 1] * size
        if end > len(parameters):
            raise MalformedError(f"PMD settings: expected {end} bytes, got {len(parameters)}")
        settings[parameters[at]] = tuple(
            int.from_bytes(parameters[i : i + size], "little") for i in range(at + 2, end, size)
        )
        at = end
    return settings


def decode_ecg(packet: bytes) -> Frame:
    """Decode a packet of ECG.

    It is the measurement type 0, the time of the last sample as u64 in ns, the frame type 0, and
    any number of samples as signed 24-bit integers in µV; all of it little-endian.

    Raises:
        MalformedError: it is not ECG, compressed (the H10 sends none), empty, or cut off.
    """
    if len(packet) < 13 or (len(packet) - 10) % 3:
        raise MalformedError(f"PMD ECG: expected 10 bytes and 3 a sample, got {len(packet)} bytes")
    if packet[0] != _ECG or packet[9] != 0:
        raise MalformedError(
            f"PMD ECG: expected measurement and frame type 0, got {packet[0]} and {packet[9]}"
        )
    samples = np.frombuffer(packet, np.uint8, offset=10).reshape(-1, 3)
    # In the upper three bytes of 32 bits, shifted down with their sign.
    wide = np.zeros((len(samples), 4), np.uint8)
    wide[:, 1:] = samples
    microvolts = (wide.view("<i4")[:, 0] >> 8).astype(np.float32)
    return Frame(int.from_bytes(packet[1:9], "little"), microvolts)


class PolarH10:
    """Polar H10, the chest strap."""

    kind: ClassVar[str] = "polar_h10"
    label: ClassVar[str] = "Polar H10"
    gives: ClassVar[tuple[str, ...]] = ("ECG 130 Hz", "heart rate", "RR", "contact", "battery")
    rate: ClassVar[float | None] = 130.0

    def __init__(self) -> None:
        self._inbox = Inbox(self.kind)
        self._awaited: tuple[int, asyncio.Future[Reply]] | None = None

    @classmethod
    def recognises(cls, name: str, services: Collection[str]) -> bool:  # noqa: ARG003
        """Whether it is named as one: it does not advertise the PMD service."""
        return name.startswith("Polar H10")

    async def settings(self, client: BleakClient) -> None:
        """Subscribe to the PMD service and ask whether it has ECG of 130 Hz and 14 bits.

        Raises:
            DeviceError: it has not; the message says what to do.
        """
        services = client.services
        if (
            services.get_characteristic(CONTROL) is None
            or services.get_characteristic(DATA) is None
        ):
            if services.get_characteristic(_OLD_CONTROL) is not None:
                raise DeviceError(
                    "the strap has an older kind of ECG interface (FB005C52), which is not "
                    "supported: use another H10, or pair it as a heart rate strap"
                )
            raise DeviceError(
                "the strap shows no ECG interface: close every other app that uses it, take the "
                "sensor off the strap for a minute and put it on again"
            )
        try:
            if not decode_features(bytes(await client.read_gatt_char(CONTROL))):
                raise DeviceError("the strap measures no ECG: pair it as a heart rate strap")
            await self._inbox.subscribe(client, CONTROL, self._take_reply)
            reply = await self._ask(client, GET_ECG_SETTINGS)
            if reply.status != _SUCCESS:
                raise _refusal("its settings", reply.status)
            settings = decode_settings(reply.parameters)
        except MalformedError as error:
            raise DeviceError(f"the strap answers nonsense ({error}): {_USUAL_REMEDY}") from error
        if 130 not in settings.get(_RATE, ()) or 14 not in settings.get(_RESOLUTION, ()):
            raise DeviceError(
                f"the strap offers ECG of {settings.get(_RATE, ())} Hz and "
                f"{settings.get(_RESOLUTION, ())} bits, not of 130 Hz and 14 bits: {_USUAL_REMEDY}"
            )

    async def start(self, client: BleakClient, emit: Emit) -> None:
        """Start the ECG, heart rate and battery.

        Raises:
            DeviceError: the strap refuses.
        """
        # A stream that nobody stopped still runs, and comes as soon as it is subscribed to.
        await self._inbox.subscribe(client, DATA, lambda packet: emit(decode_ecg(packet)))
        await heart_rate.listen(client, self._inbox, emit)
        reply = await self._ask(client, START_ECG)
        if reply.status not in {_SUCCESS, _ALREADY}:
            raise _refusal("to start the ECG", reply.status)

    async def stop(self, client: BleakClient) -> None:
        """Stop the ECG: the strap would go on, even off the body, until its battery is empty.

        Raises:
            DeviceError: the strap refuses.
        """
        reply = await self._ask(client, STOP_ECG)
        if reply.status not in {_SUCCESS, _ALREADY}:
            raise _refusal("to stop the ECG", reply.status)

    async def _ask(self, client: BleakClient, request: bytes) -> Reply:
        """Write to the control point; its answer comes as an indication, maybe before the write."""
        answered: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        self._awaited = (request[0], answered)
        try:
            await client.write_gatt_char(CONTROL, request, response=True)
            return await answered
        finally:
            self._awaited = None

    def _take_reply(self, packet: bytes) -> None:
        reply = decode_reply(packet)
        if self._awaited is None:
            return
        # The type is not compared: Polar's document shows one of ACC in the answer about ECG.
        operation, answered = self._awaited
        if reply.operation == operation and not answered.done():
            answered.set_result(reply)


def _refusal(what: str, status: int) -> DeviceError:
    reason = _STATUS.get(status, "unknown reason")
    remedy = _REMEDY.get(status, _USUAL_REMEDY)
    return DeviceError(f"the strap refused {what} ({reason}, {status}): {remedy}")
