"""The clock of a sensor: from its own time to UTC.

A packet is late by the wait for the next connection event at least, and by seconds when the radio
is bad; it is never early. So the smallest difference between arrival and the sensor's own time,
over a minute, is how the two clocks differ, up to a constant least latency (10 to 20 ms with
Bluetooth Low Energy) that nothing here can know and that stays in the times. Within that, times
follow the sensor's clock: it drifts by less than Bluetooth allows a sleep clock, 500 ppm (Core
Specification 5.4, vol. 6, part B, 4.2.2).

At first, and whenever the sensor's clock jumps, the difference is not known: samples are held for
five seconds, because one packet alone may be late by anything. Times never go back, unless the
host's clock is set back, and packets without loss between them follow each other without gap; what
was found wrong is made up for a quarter of a sample at a time.
"""

from collections import deque
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ingest.host import STEPPED

_HOLD_NS = 5_000_000_000  # nine packets of a Polar H10: one of them is prompt
_WINDOW_NS = 60_000_000_000  # longer than packets are held up at a time
_MOST_DRIFT = 500e-6
_MOST_BACK = 0.25  # of a sample, per packet
_APART_NS = 1_000  # the instants of two packets, at least; less would be lost in a float of UTC

# What contradicts the difference found is no packet that came quicker, but another clock.
_JUMP_NS = 100_000_000
_JUMP_HELD_NS = _WINDOW_NS  # while it is only being found
_LOST_NS = 1_000_000_000  # without a clock: what nothing makes up for within a window
_HOST_STEP_NS = 50_000_000

_REPEATS = 128  # packets among which a repeated one is looked for
_RATE_ERROR = 0.05  # how far a sensor may be from its nominal rate
_RATE_TOLERANCE = 0.005  # the share by which the declared rate may be wrong
_MEASURED_NS = 2_000_000_000  # before that it may still be anything within the error
_MEMORY_NS = 600_000_000_000  # over which the rate is measured


@dataclass(frozen=True, slots=True, eq=False)
class Placed:
    """A packet with its place in UTC.

    Attributes:
        microvolts: float32 [n], in µV, as they were given.
        start_ns: UTC time of the first sample, in nanoseconds since 1970.
        rate: samples per second to declare, in Hz: the nominal rate, unless the sensor is off by
            more than 0.5 %; then the one measured while the first samples were held. It stays, and
            ``start_ns`` follows the true rate.
        missing: samples lost between the packet before and this one.
        anchored: why this packet does not follow from the one before by the sensor's clock; None
            where it does.
    """

    microvolts: NDArray[np.float32]
    start_ns: int
    rate: float
    missing: int
    anchored: str | None


@dataclass(frozen=True, slots=True, eq=False)
class _Packet:
    microvolts: NDArray[np.float32]
    last_ns: int  # the sensor's time of its last sample
    monotonic_ns: int


class SensorClock:
    """Places the packets of one sensor in UTC; keep it for as long as the sensor is known.

    Attributes:
        repeats: packets that were delivered again, and left out.

    Args:
        nominal_rate: samples per second, in Hz.
    """

    def __init__(self, nominal_rate: float) -> None:
        self.repeats = 0
        self._nominal_rate = nominal_rate
        self._rate = nominal_rate
        self._period = 1e9 / nominal_rate  # of a sample, by the sensor's clock, in ns
        self._measured_ns, self._measured_n = 0.0, 0.0
        self._recent: dict[int, NDArray[np.float32]] = {}
        self._last: _Packet | None = None
        self._lowest: deque[tuple[int, int]] = deque()  # sensor's time, UTC less it; both rising
        self._anchor: str | None = "first"  # why the difference is being found; None: it is known
        self._held: list[_Packet] = []
        self._offset = 0  # UTC less sensor's time, as applied to the last packet
        self._placed_ns = 0  # the sensor's time of the last packet placed
        self._end_ns: int | None = None  # UTC time just after it
        self._instant_ns: int | None = None  # of its last sample, at the rate declared, if unsure
        self._host: tuple[int, int] | None = None
        self._host_stepped = False

    def place(
        self, microvolts: NDArray[np.float32], last_ns: int | None, utc_ns: int, monotonic_ns: int
    ) -> list[Placed]:
        """Take the next packet; give those whose place is known by now, in order.

        Samples of a sensor without a clock follow each other at the nominal rate; that some were
        lost shows after a minute, as an anchor.

        Args:
            microvolts: float32 [n], n > 0, in µV.
            last_ns: the sensor's own time of the last sample, in ns; None where it has no clock.
            utc_ns: when it arrived, ``time.time_ns()``; this clock of the host may be set.
            monotonic_ns: when it arrived, ``time.monotonic_ns()``.
        """
        self._follow_host(utc_ns, monotonic_ns)
        if last_ns is None:
            has_clock, n_ns = False, round(len(microvolts) * self._period)
            last_ns = utc_ns if self._last is None else self._last.last_ns + n_ns
        elif self._is_repeat(microvolts, last_ns):
            self.repeats += 1
            return []
        else:
            has_clock = True
        packet = _Packet(microvolts, last_ns, monotonic_ns)
        placed: list[Placed] = []
        if why := self._jump(packet, utc_ns - last_ns, has_clock):
            placed += self.flush()
            self._anchor = why
            self._lowest.clear()
            self._measured_ns, self._measured_n = 0.0, 0.0
        elif self._last is not None and has_clock:
            self._measure(last_ns - self._last.last_ns, len(microvolts))
        self._last = packet
        self._note(last_ns, utc_ns - last_ns)
        if self._anchor is None:
            placed.append(self._put(packet))
            return placed
        self._held.append(packet)
        if monotonic_ns - self._held[0].monotonic_ns >= _HOLD_NS:
            placed += self.flush()
        return placed

    def flush(self) -> list[Placed]:
        """Give what is still held, placed as well as it can be; call it when the link is lost."""
        held, self._held = self._held, []
        if not held:
            return []
        placed = [self._put_anchor(held[0], self._anchor)]
        self._anchor = None
        return placed + [self._put(packet) for packet in held[1:]]

    def _follow_host(self, utc_ns: int, monotonic_ns: int) -> None:
        """Where the host's clock was set, shift all that is known by as much."""
        if self._host is not None:
            step = (utc_ns - self._host[0]) - (monotonic_ns - self._host[1])
            if abs(step) > _HOST_STEP_NS:
                self._lowest = deque((at, offset + step) for at, offset in self._lowest)
                self._offset += step
                if self._end_ns is not None:
                    self._end_ns += step
                    self._host_stepped = True
                if self._instant_ns is not None:
                    self._instant_ns += step
        self._host = (utc_ns, monotonic_ns)

    def _is_repeat(self, microvolts: NDArray[np.float32], last_ns: int) -> bool:
        known = self._recent.get(last_ns)
        if known is not None and np.array_equal(known, microvolts):
            return True
        self._recent.pop(last_ns, None)
        self._recent[last_ns] = microvolts
        if len(self._recent) > _REPEATS:
            del self._recent[next(iter(self._recent))]
        return False

    def _jump(self, packet: _Packet, offset: int, has_clock: bool) -> str | None:
        """Why the packet's time cannot be had from what is known, None if it can."""
        if self._last is None:
            return None
        n = len(packet.microvolts)
        step_ns = packet.last_ns - self._last.last_ns
        if step_ns / self._period - n < -(2 + _RATE_ERROR * n):
            return "device clock jumped back"
        lowest = self._lowest[0][1]
        if self._held:
            jumped = offset < lowest - _JUMP_HELD_NS
        else:
            # Not by the lowest alone: it rises where everything was late for a minute.
            jumped = offset < min(lowest, self._offset) - _JUMP_NS
        if jumped:
            return "device clock jumped"
        if step_ns > _WINDOW_NS:
            return "long silence"
        if not has_clock and not self._held and lowest > self._offset + _LOST_NS:
            return "samples lost"
        return None

    def _measure(self, step_ns: int, n: int) -> None:
        """Measure the sample period over packets without loss between them."""
        if self._measured_ns < _MEASURED_NS:
            near = abs(step_ns / n * self._nominal_rate / 1e9 - 1) < _RATE_ERROR
        else:
            near = abs(step_ns / self._period - n) < 0.5
        if not near:
            return
        if self._measured_ns > _MEMORY_NS:
            self._measured_ns, self._measured_n = self._measured_ns / 2, self._measured_n / 2
        self._measured_ns += step_ns
        self._measured_n += n
        self._period = self._measured_ns / self._measured_n
        off = abs(self._rate * self._period / 1e9 - 1)
        if off > _RATE_TOLERANCE and self._measured_ns > _MEASURED_NS:
            self._rate = round(1e9 / self._period, 2)

    def _note(self, last_ns: int, offset: int) -> None:
        """Keep the least offset of the window first in ``_lowest``."""
        while self._lowest and self._lowest[-1][1] >= offset:
            self._lowest.pop()
        self._lowest.append((last_ns, offset))
        while self._lowest[0][0] < last_ns - _WINDOW_NS:
            self._lowest.popleft()

    def _put_anchor(self, packet: _Packet, why: str | None) -> Placed:
        """Place a packet by the offset alone, but after all that was placed before."""
        n_ns = round((len(packet.microvolts) - 1) * self._period)
        start_ns = packet.last_ns + self._lowest[0][1] - n_ns
        missing = 0
        if self._end_ns is not None:
            gap = (start_ns - self._end_ns) / self._period
            # Samples are lost by the packet; less is the uncertainty of the anchor.
            if gap > 2:
                missing = round(self._better_count(packet, gap))
            else:
                start_ns = self._end_ns
        return self._placed(packet, start_ns, missing, why)

    def _better_count(self, packet: _Packet, gap: float) -> float:
        """The samples lost by the sensor's clock, where that agrees with the gap in UTC."""
        step_ns = packet.last_ns - self._placed_ns
        count = step_ns / self._period - len(packet.microvolts)
        likely = abs(count - gap) * self._period < _JUMP_NS + _MOST_DRIFT * abs(step_ns)
        return count if likely else gap

    def _put(self, packet: _Packet) -> Placed:
        """Place a packet by the sensor's clock."""
        n = len(packet.microvolts)
        step_ns = packet.last_ns - self._placed_ns
        missing = max(0, round(step_ns / self._period) - n)
        wrong = self._lowest[0][1] - self._offset
        self._offset += round(
            min(max(wrong, -_MOST_BACK * self._period), max(0, step_ns) * _MOST_DRIFT)
        )
        start_ns = packet.last_ns + self._offset - round((n - 1) * self._period)
        if self._end_ns is not None:
            start_ns = max(start_ns, self._end_ns - round(self._period / 2))
        return self._placed(packet, start_ns, missing, None)

    def _placed(self, packet: _Packet, start_ns: int, missing: int, anchored: str | None) -> Placed:
        n = len(packet.microvolts)
        if self._instant_ns is not None:
            start_ns = max(start_ns, self._instant_ns + _APART_NS)
        # Until the period is measured it may be some samples a packet shorter than is declared;
        # then it is not, and lateness must not add up.
        unsure = self._measured_ns < _MEASURED_NS
        self._instant_ns = start_ns + round((n - 1) * 1e9 / self._rate) if unsure else None
        self._offset = start_ns + round((n - 1) * self._period) - packet.last_ns
        self._placed_ns = packet.last_ns
        self._end_ns = start_ns + round(n * self._period)
        if self._host_stepped:
            self._host_stepped = False
            anchored = anchored or STEPPED
        return Placed(packet.microvolts, start_ns, self._rate, missing, anchored)
