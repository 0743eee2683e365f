"""The Heart Rate and Battery Services, which every strap here has.

Heart Rate Service 1.0 (Heart Rate Measurement, 3.1) and Battery Service 1.0 of the Bluetooth SIG.
"""

import struct
from collections.abc import Sequence
from dataclasses import dataclass

from .clock import NS, Timer
from .peripheral import AttError, Characteristic, Peripheral, Service, uuid16

HEART_RATE_SERVICE = uuid16(0x180D)
HEART_RATE_MEASUREMENT = uuid16(0x2A37)
BATTERY_SERVICE = uuid16(0x180F)
BATTERY_LEVEL = uuid16(0x2A19)

SERVICES = (
    Service(HEART_RATE_SERVICE, (Characteristic(HEART_RATE_MEASUREMENT, ("notify",)),)),
    Service(BATTERY_SERVICE, (Characteristic(BATTERY_LEVEL, ("read", "notify")),)),
)

_CONTACT_SUPPORTED = 0x04
_CONTACT = 0x02
_RR = 0x10


@dataclass(frozen=True, slots=True)
class Beats:
    """The truth of one Heart Rate Measurement.

    Attributes:
        utc_ns: when it was sent.
        rr_1024: RR intervals in 1/1024 s, oldest first.
        delivered: whether somebody was subscribed.
    """

    utc_ns: int
    rr_1024: tuple[int, ...]
    delivered: bool


class HeartRateSensor(Peripheral):
    """A strap that measures once a second.

    Args:
        rr_s: RR intervals in seconds, repeated for ever.

    Attributes:
        beats: what was sent, or would have been.
    """

    services = SERVICES
    advertised = (HEART_RATE_SERVICE,)

    def __init__(
        self, name: str, address: str, *, rr_s: Sequence[float] = (0.8,), **others
    ) -> None:
        super().__init__(name, address, **others)
        self.beats: list[Beats] = []
        self._rr = [round(rr * 1024) for rr in rr_s]
        self._beat = 0
        self._next_beat_ns = 0
        self._battery = 80
        self._measuring: Timer | None = None
        self._measurements = 0

    @property
    def battery(self) -> int:
        """Percent; setting it notifies."""
        return self._battery

    @battery.setter
    def battery(self, percent: int) -> None:
        self._battery = percent
        self.send(BATTERY_LEVEL, bytes([percent]))

    def read(self, uuid: str) -> bytes:
        if uuid == BATTERY_LEVEL:
            return bytes([self._battery])
        raise AttError(0x02)

    def subscribed_changed(self, uuid: str, on: bool) -> None:
        if uuid != HEART_RATE_MEASUREMENT:
            return
        if on and self._measuring is None:
            self._next_beat_ns = self.clock.time_ns()
            self._measuring = self.after(1, self._measure)
        elif not on and self._measuring is not None:
            self._measuring.cancel()
            self._measuring = None

    def _measure(self) -> None:
        now = self.clock.time_ns()
        rr = []
        while self._next_beat_ns <= now:
            interval = self._rr[self._beat % len(self._rr)]
            self._beat += 1
            self._next_beat_ns += interval * NS // 1024
            rr.append(interval)
        rr = rr if self.worn else []
        self._measurements += 1
        delivered = self.send(HEART_RATE_MEASUREMENT, self._packet(rr))
        self.beats.append(Beats(now, tuple(rr), delivered))
        self._measuring = self.after(1, self._measure)

    def _packet(self, rr: list[int]) -> bytes:
        per_minute = round(60 * 1024 * len(rr) / sum(rr)) if rr else 0
        flags = self._contact_flags() | (_RR if rr else 0)
        return struct.pack(f"<BB{len(rr)}H", flags, min(per_minute, 255), *rr)

    def _contact_flags(self) -> int:
        return _CONTACT_SUPPORTED | (_CONTACT if self.worn else 0)
