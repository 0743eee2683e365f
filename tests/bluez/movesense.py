"""A virtual Movesense sensor with the GATT SensorData Protocol.

movesense.com/docs/esw/gatt_sensordata_protocol, and for what the document leaves out (payloads of
measurements) sokolmarek/movesense-commander, docs/gsp-protocol.md: ``/Meas/ECG/128`` gives counts
of 0.381469726563 µV as int32, ``/Meas/ECG/128/mV`` gives µV as int16, 16 samples a packet, after
the time of the first sample in ms since the sensor started, as uint32.
"""

import struct

import numpy as np
from numpy.typing import NDArray

from .clock import NS
from .heart_rate import SERVICES
from .peripheral import AttError, Characteristic, Service, uuid16
from .stream import EcgSensor, Frame

GSP_SERVICE = "34802252-7185-4d5d-b431-630e7050e8f0"
GSP_WRITE = "34800001-7185-4d5d-b431-630e7050e8f0"
GSP_NOTIFY = "34800002-7185-4d5d-b431-630e7050e8f0"

HELLO, SUBSCRIBE, UNSUBSCRIBE = 0, 1, 2
RESPONSE, DATA, DATA_PART2 = 1, 2, 3
MICROVOLTS_PER_COUNT = 0.381469726563
RATES = (125, 128, 200, 250, 256, 500, 512)


class Movesense(EcgSensor):
    """Plays ``signal`` at the rate it is asked for, times ``rate_error``.

    A packet longer than the MTU allows is continued in a second one. The stream ends with the link.
    """

    samples_per_frame = 16
    services = (
        *SERVICES,
        Service(
            GSP_SERVICE,
            (Characteristic(GSP_WRITE, ("write",)), Characteristic(GSP_NOTIFY, ("notify",))),
        ),
    )
    # The name leaves no room for the UUID of the service.
    advertised = (uuid16(0xFDF3), *EcgSensor.advertised)

    def __init__(
        self,
        signal: NDArray[np.float32],
        *,
        name: str = "Movesense 174630000192",
        address: str = "0C:8C:DC:00:00:01",
        rate_error: float = 1.0,
        **others,
    ) -> None:
        super().__init__(signal, name=name, address=address, rate=128.0, **others)
        self.rate_error = rate_error
        self._reference = 0
        self._counts = False

    @property
    def stops(self) -> int:
        """How often it was told to stop."""
        return sum(command[:1] == bytes([UNSUBSCRIBE]) for command in self.commands)

    def write(self, uuid: str, value: bytes) -> None:
        if uuid != GSP_WRITE:
            raise AttError(0x03)
        self.commands.append(value)
        if len(value) < 2:
            return
        op, reference = value[0], value[1]
        if op == HELLO:
            said = b"\0".join([b"174630000192", b"Movesense", b"0C8CDC000001", b"virtual", b"1"])
            self.send_soon(GSP_NOTIFY, bytes([RESPONSE, reference, 1]) + said + b"\0")
            return
        status = self._obey(op, reference, value[2:])
        self.send_soon(GSP_NOTIFY, struct.pack("<BBH", RESPONSE, reference, status))

    def _obey(self, op: int, reference: int, payload: bytes) -> int:
        """HTTP's status codes."""
        if op == UNSUBSCRIBE:
            if not self.streaming or reference != self._reference:
                return 404
            self.stop_stream()
            return 200
        if op != SUBSCRIBE:
            return 501
        parts = payload.rstrip(b"\0").decode(errors="replace").split("/")
        known = parts[:3] == ["", "Meas", "ECG"] and len(parts) in (4, 5)
        if not known or parts[3] not in map(str, RATES) or parts[4:] not in ([], ["mV"]):
            return 404
        if self.streaming:
            return 409
        self._reference = reference
        self._counts = len(parts) == 4
        self.rate = int(parts[3]) * self.rate_error
        self.start_stream()
        return 200

    def link_down(self) -> None:
        super().link_down()
        self.stop_stream()

    def pack(self, samples: NDArray[np.int32], frame: Frame) -> bytes:
        first_ns = frame.stamp_ns - round((frame.count - 1) * NS / self.rate)
        milliseconds = first_ns // 1_000_000 & 0xFFFF_FFFF
        if self._counts:
            values = np.rint(samples / MICROVOLTS_PER_COUNT).astype("<i4")
        else:
            values = np.clip(samples, -32_768, 32_767).astype("<i2")
        return struct.pack("<I", milliseconds) + values.tobytes()

    def send_frame(self, packed: bytes) -> bool:
        room = self.mtu - 5
        out = self.send(GSP_NOTIFY, bytes([DATA, self._reference]) + packed[:room])
        if len(packed) > room:
            rest = packed[room:]
            out = self.send(GSP_NOTIFY, bytes([DATA_PART2, self._reference]) + rest) and out
        return out
