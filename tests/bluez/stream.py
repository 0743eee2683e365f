"""The ECG stream of a strap: which sample is made when, on which clock, and what becomes of it."""

import random
from abc import abstractmethod
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from .clock import NS, Timer
from .heart_rate import HeartRateSensor

# How a frame goes wrong on the way: it becomes none, two, or another.
Fate = Callable[[bytes], list[bytes]]

CORRUPTIONS: dict[str, Callable[[bytes], bytes]] = {
    "truncated": lambda frame: frame[:-1],
    "header": lambda frame: frame[:5],
    "empty": lambda frame: b"",
    "longer": lambda frame: frame + b"\x00",
}


@dataclass(frozen=True, slots=True)
class Truth:
    """Every sample that the strap has made.

    Attributes:
        utc_ns: int64 [n], when it was sampled.
        microvolts: int32 [n], µV.
        delivered: bool [n], whether it was ever sent to a connected and subscribed host, intact.
    """

    utc_ns: NDArray[np.int64]
    microvolts: NDArray[np.int32]
    delivered: NDArray[np.bool_]


@dataclass(slots=True)
class Frame:
    """One run of samples: the number of the first, and the true time of the last."""

    first: int
    count: int
    last_ns: int
    stamp_ns: int
    worn: bool
    delivered: bool = False


class EcgSensor(HeartRateSensor):
    """A strap that streams ECG.

    Subclasses say how a frame is packed, and start and stop the stream.

    Args:
        signal: float32 µV, played at ``rate`` and repeated for ever; rounded to whole µV.
        rate: true samples per true second.
        drift_ppm: how much faster than the truth the strap's clock runs.
        latency_s: least and greatest delay from the last sample to its arrival.
        off_body: "rail" or "noise": what the inputs show when the strap is not worn.

    Attributes:
        frames: all frames made so far; see ``truth``.
        streaming: whether samples are being made.
        commands: everything written to the strap's control characteristic.
    """

    samples_per_frame: ClassVar[int]
    # The strap's own clock when it is switched on.
    clock_start_ns: ClassVar[int] = 0

    def __init__(
        self,
        signal: NDArray[np.float32],
        *,
        rate: float,
        drift_ppm: float = 0.0,
        latency_s: tuple[float, float] = (0.010, 0.060),
        off_body: str = "rail",
        **others,
    ) -> None:
        super().__init__(**others)
        self.rate = rate
        self.drift_ppm = drift_ppm
        self.off_body = off_body
        self.frames: list[Frame] = []
        self.streaming = False
        self.commands: list[bytes] = []
        self._signal = np.rint(signal).astype(np.int32)
        self._latency_s = latency_s
        self._random = random.Random(self.address)
        self._next: Timer | None = None
        self._made = 0
        self._stream_ns = 0
        self._streamed = 0
        self._fates: deque[Fate] = deque()
        self._delayed: list[tuple[Frame, list[bytes]]] | None = None
        self._clock_zero_ns = 0
        self._clock_value_ns = 0

    def attach(self, clock) -> None:
        super().attach(clock)
        self.reset_clock()

    # What tests call.

    def truth(self) -> Truth:
        """All samples made so far, oldest first."""
        if not self.frames:
            empty = np.empty(0, np.int64)
            return Truth(empty, empty.astype(np.int32), empty.astype(np.bool_))
        counts = [frame.count for frame in self.frames]
        period = NS / self.rate
        utc = [
            frame.last_ns - np.rint(np.arange(frame.count)[::-1] * period).astype(np.int64)
            for frame in self.frames
        ]
        return Truth(
            np.concatenate(utc),
            np.concatenate([self.samples(frame) for frame in self.frames]),
            np.repeat([frame.delivered for frame in self.frames], counts),
        )

    def samples(self, frame: Frame) -> NDArray[np.int32]:
        """The samples of a frame, µV."""
        if frame.worn:
            at = np.arange(frame.first, frame.first + frame.count) % len(self._signal)
            return self._signal[at]
        if self.off_body == "rail":
            return np.full(frame.count, 20_000, np.int32)
        noise = np.random.default_rng(frame.first).normal(0, 3000, frame.count)
        return np.rint(noise).astype(np.int32)

    def drop(self, frames: int = 1) -> None:
        """The next frames are lost on the air."""
        self._fates.extend([lambda frame: []] * frames)

    def duplicate(self, frames: int = 1) -> None:
        """The next frames arrive twice."""
        self._fates.extend([lambda frame: [frame, frame]] * frames)

    def corrupt(self, how: str = "truncated", frames: int = 1) -> None:
        """The next frames are spoilt in one of CORRUPTIONS; their samples count as undelivered."""
        spoil = CORRUPTIONS[how]
        self._fates.extend([lambda frame: [spoil(frame)]] * frames)

    def delay(self, seconds: float) -> None:
        """Frames are held back for this long and then arrive all at once."""
        self._delayed = []
        self.after(seconds, self._deliver_delayed)

    def jump_clock(self, seconds: float) -> None:
        """The strap's own clock jumps, backwards if negative."""
        now = self.clock.time_ns()
        self._clock_value_ns = self.device_ns(now) + round(seconds * NS)
        self._clock_zero_ns = now

    def reset_clock(self) -> None:
        """The strap's own clock starts anew, as after a battery change."""
        self._clock_zero_ns = self.clock.time_ns()
        self._clock_value_ns = self.clock_start_ns

    def device_ns(self, utc_ns: int) -> int:
        """What the strap's own clock shows at a true time."""
        elapsed = utc_ns - self._clock_zero_ns
        return self._clock_value_ns + elapsed + round(elapsed * self.drift_ppm * 1e-6)

    # What subclasses call and fill in.

    @property
    def frame_size(self) -> int:
        return self.samples_per_frame

    @abstractmethod
    def pack(self, samples: NDArray[np.int32], frame: Frame) -> bytes: ...

    @abstractmethod
    def send_frame(self, packed: bytes) -> bool:
        """Notify it; whether somebody was subscribed."""

    def start_stream(self) -> None:
        self.streaming = True
        self._stream_ns = self.clock.time_ns()
        self._streamed = 0
        self._schedule()

    def stop_stream(self) -> None:
        self.streaming = False
        if self._next is not None:
            self._next.cancel()

    def link_down(self) -> None:
        super().link_down()
        # What the radio had queued goes with the link.
        if self._delayed:
            self._delayed.clear()

    def _schedule(self) -> None:
        count = self.frame_size
        ready = self._stream_ns + round((self._streamed + count) * NS / self.rate)
        latency = round(self._random.uniform(*self._latency_s) * NS)
        self._next = self.clock.call_at(ready + latency, lambda: self._make(count, ready))

    def _make(self, count: int, ready: int) -> None:
        frame = Frame(self._made, count, ready, self.device_ns(ready), self.worn)
        self.frames.append(frame)
        self._made += count
        self._streamed += count
        packed = self.pack(self.samples(frame), frame)
        sent = self._fates.popleft()(packed) if self._fates and self.connected else [packed]
        if self._delayed is not None and self.connected:
            self._delayed.append((frame, sent))
        else:
            self._deliver(frame, packed, sent)
        self._schedule()

    def _deliver(self, frame: Frame, intact: bytes, sent: list[bytes]) -> None:
        for packed in sent:
            out = self.send_frame(packed)
            frame.delivered = frame.delivered or (out and packed == intact)

    def _deliver_delayed(self) -> None:
        waiting, self._delayed = self._delayed or [], None
        for frame, sent in waiting:
            self._deliver(frame, self.pack(self.samples(frame), frame), sent)
