"""What a device may send: how much, how often, of which time."""

from dataclasses import dataclass

# What a broker or a device that was away may send at once beyond its pace: as many messages as a
# broker delivers without an answer (ReceiveMaximum in ``broker``), twice.
_BURST = 512.0


@dataclass(frozen=True, slots=True)
class Limits:
    """Beyond these a message is refused.

    Attributes:
        payload: bytes of one message.
        samples: of one message.
        rate: lowest and highest sample rate, in Hz.
        per_second: messages of one device in a second.
        ahead: how far the first sample may be in the future, in seconds.
        age: how far it may be in the past, in seconds.
        devices: of one patient at the same time.
    """

    payload: int = 262144
    samples: int = 20000
    rate: tuple[float, float] = (50.0, 1000.0)
    per_second: float = 20.0
    ahead: float = 60.0
    age: float = 7 * 86400.0
    devices: int = 8


class Pace:
    """Tells a device that floods from one that delivers what waited while a link was down.

    A token bucket. It fills with the time that passes, and with the signal that arrives for the
    first time: an hour that waited in the broker comes within seconds, and none of it is too much.
    """

    def __init__(self, per_second: float, now_ns: int) -> None:
        self._per_second = per_second
        self._full = max(_BURST, 10 * per_second)
        self._tokens = self._full
        self._filled_ns = now_ns
        # Of what agrees with the gateway's clock, and of what does not: after a clock was wrong the
        # one must not keep the other from being new.
        self._newest_ns = [0, 0]

    def exhausted(self, now_ns: int) -> bool:
        """Whether another message is too much at ``now_ns``, by a clock that nobody sets."""
        self._fill((now_ns - self._filled_ns) / 1e9)
        self._filled_ns = now_ns
        return self._tokens < 1

    def spend(self) -> None:
        """Count one message."""
        self._tokens -= 1

    def earn(self, start_ns: int, end_ns: int, *, doubted: bool = False) -> None:
        """Count the signal of an accepted message, from its UTC times in nanoseconds.

        Args:
            start_ns: of its first sample.
            end_ns: just after its last one.
            doubted: whether that is too far from the gateway's clock.
        """
        new_ns = end_ns - max(start_ns, self._newest_ns[doubted])
        if new_ns > 0:
            self._newest_ns[doubted] = end_ns
            self._fill(new_ns / 1e9)

    def _fill(self, seconds: float) -> None:
        self._tokens = min(self._full, self._tokens + seconds * self._per_second)
