"""A virtual Polar H10.

Polar Measurement Data as in polarofficial/polar-ble-sdk, technical_documentation/
online_measurement.pdf: service FB005C80, control point FB005C81, data FB005C82.
"""

import struct
from collections.abc import Sequence
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from .clock import NS, Timer
from .heart_rate import SERVICES
from .peripheral import AttError, Characteristic, Service, uuid16
from .stream import EcgSensor, Frame

PMD_SERVICE = "fb005c80-02e7-f387-1cad-8acd2d8df0c8"
PMD_CONTROL = "fb005c81-02e7-f387-1cad-8acd2d8df0c8"
PMD_DATA = "fb005c82-02e7-f387-1cad-8acd2d8df0c8"

GET_SETTINGS, START, STOP = 1, 2, 3
ECG = 0

OK = 0
INVALID_OP = 1
INVALID_TYPE = 2
NOT_SUPPORTED = 3
INVALID_LENGTH = 4
INVALID_PARAMETER = 5
ALREADY_IN_STATE = 6
INVALID_RESOLUTION = 7
INVALID_RATE = 8
INVALID_MTU = 10

# Seconds from 2000-01-01, where the strap's time counts from, to 2019-01-01, where it starts.
EPOCH_2019_S = 6940 * 86_400
# From 1970-01-01 to 2000-01-01.
EPOCH_2000_S = 946_684_800
# The strap falls asleep, and forgets the time, so long after it has left both body and link.
ASLEEP_AFTER_S = 60

_CCCD_IMPROPERLY_CONFIGURED = 0xFD
_ECG_SETTINGS = bytes.fromhex("00 01 82 00 01 01 0E 00")


class H10(EcgSensor):
    """Plays ``signal`` as ECG frames of 73 samples.

    Once started, the stream goes on over lost links and off the body until it is told to stop (or
    the strap falls asleep): a START after a reconnection gets status 6.

    Attributes:
        start_status: if set, the status that START is answered with, e.g. 13 in the charger.
        stops: how often it was told to stop.
    """

    samples_per_frame = 73
    clock_start_ns = EPOCH_2019_S * NS
    manufacturer: ClassVar[dict[int, bytes]] = {0x006B: bytes.fromhex("332508ba")}
    secure = frozenset({PMD_CONTROL, PMD_DATA})
    services = (
        *SERVICES,
        Service(
            PMD_SERVICE,
            (
                Characteristic(PMD_CONTROL, ("read", "write", "indicate")),
                Characteristic(PMD_DATA, ("notify",)),
            ),
        ),
    )
    advertised = (*EcgSensor.advertised, uuid16(0xFEEE))

    def __init__(
        self,
        signal: NDArray[np.float32],
        *,
        name: str = "Polar H10 12345678",
        address: str = "A0:9E:1A:00:00:01",
        rate: float = 129.9,
        rr_s: Sequence[float] = (0.8,),
        **others,
    ) -> None:
        super().__init__(signal, name=name, address=address, rate=rate, rr_s=rr_s, **others)
        self.start_status: int | None = None
        self._asleep: Timer | None = None

    @property
    def stops(self) -> int:
        return sum(command[:2] == bytes([STOP, ECG]) for command in self.commands)

    @property
    def frame_size(self) -> int:
        # 3 bytes of the notification, 10 of the frame's head.
        return min(self.samples_per_frame, (self.mtu - 13) // 3)

    def send_raw(self, data: bytes) -> bool:
        """Notify anything as measurement data; whether somebody was subscribed."""
        return self.send(PMD_DATA, data)

    def power_cycle(self) -> None:
        """The stream ends and the clock starts in 2019."""
        self.stop_stream()
        self.reset_clock()

    def take_off(self) -> None:
        super().take_off()
        self._alone()

    def put_on(self) -> None:
        super().put_on()
        self._alone()

    def link_up(self, link, encrypted: bool) -> None:
        super().link_up(link, encrypted)
        self._alone()

    def link_down(self) -> None:
        super().link_down()
        self._alone()

    def _alone(self) -> None:
        """Fall asleep some time after both body and link are gone."""
        if self._asleep is not None:
            self._asleep.cancel()
            self._asleep = None
        if not self.worn and not self.connected:
            self._asleep = self.after(ASLEEP_AFTER_S, self.power_cycle)

    def read(self, uuid: str) -> bytes:
        if uuid == PMD_CONTROL:
            # Features: bit 0 ECG, bit 2 acceleration.
            return b"\x0f\x05".ljust(17, b"\x00")
        return super().read(uuid)

    def write(self, uuid: str, value: bytes) -> None:
        if uuid != PMD_CONTROL:
            raise AttError(0x03)
        if PMD_CONTROL not in self.subscribed:
            raise AttError(_CCCD_IMPROPERLY_CONFIGURED)
        self.commands.append(value)
        op, kind, parameters = value[0] if value else 0, value[1:2], value[2:]
        status, answer = self._obey(op, kind, parameters)
        more = b"\x00" + answer if status == OK else b""
        self.send_soon(PMD_CONTROL, bytes([0xF0, op, *(kind or b"\x00"), status]) + more)

    def _obey(self, op: int, kind: bytes, parameters: bytes) -> tuple[int, bytes]:
        if op not in (GET_SETTINGS, START, STOP):
            return INVALID_OP, b""
        if not kind:
            return INVALID_LENGTH, b""
        if kind[0] != ECG:
            return NOT_SUPPORTED if kind[0] == 2 else INVALID_TYPE, b""
        if op == GET_SETTINGS:
            return OK, _ECG_SETTINGS
        if op == STOP:
            if not self.streaming:
                return ALREADY_IN_STATE, b""
            self.stop_stream()
            return OK, b""
        return self._start(parameters), b""

    def _start(self, parameters: bytes) -> int:
        if self.start_status is not None:
            return self.start_status
        if self.mtu < 64:
            return INVALID_MTU
        if len(parameters) % 4 or not parameters:
            return INVALID_LENGTH
        settings = {kind: value for kind, _, value in struct.iter_unpack("<BBH", parameters)}
        if settings.keys() != {0, 1}:
            return INVALID_PARAMETER
        if settings[0] != 130:
            return INVALID_RATE
        if settings[1] != 14:
            return INVALID_RESOLUTION
        if self.streaming:
            return ALREADY_IN_STATE
        self.start_stream()
        return OK

    def pack(self, samples: NDArray[np.int32], frame: Frame) -> bytes:
        head = struct.pack("<BQB", ECG, frame.stamp_ns, 0)
        return head + samples.astype("<i4").view(np.uint8).reshape(-1, 4)[:, :3].tobytes()

    def send_frame(self, packed: bytes) -> bool:
        return self.send(PMD_DATA, packed)

    def _contact_flags(self) -> int:
        # The H10 leaves the contact bits out of many of its packets.
        return 0 if self._measurements % 3 == 0 else super()._contact_flags()
