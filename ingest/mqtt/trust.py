"""Whether the gateway's clock can be held against the times of messages.

A gateway without a clock of its own wakes up hours behind, or in 1970. Held against that, every
right message is of the future, and to refuse it is to lose it. So the gateway's clock counts only
when the kernel says that a time server has set it, or when more devices agree with it than
disagree.

A message is never of the future: a device whose messages are, by more than is let pass, disagrees
at once. That its messages are of the past tells nothing by itself, for they may have waited in the
broker; only when they come as fast as they were made, for two spells, is it known how late they
are.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from ingest.chunk import Stream

# How long is listened for the promptest message, and how much two such spells may differ where
# messages come as they are made.
_SPELL_NS: Final = 20_000_000_000
_DRIFT_NS: Final = 5_000_000_000

# What a device may lag behind: some collect a minute, and a bad network holds messages up.
_BEHIND_S: Final = 120.0

# Who was not heard for so long has no say any more.
_HEARD_NS: Final = 600_000_000_000

# Devices that are remembered; those that are never let in could be any number.
_DEVICES: Final = 256


@dataclass(slots=True)
class _Heard:
    """What the messages of one device tell of its clock, in its UTC less the steady clock.

    Attributes:
        begun_ns: when the present spell began, by the steady clock.
        last_ns: when it was heard last.
        ahead_ns: of the promptest message of the spell.
        before_ns: of that of the spell before; None if there was none.
        settled_ns: as they are known to be; None as long as they are not.
    """

    begun_ns: int
    last_ns: int
    ahead_ns: int
    before_ns: int | None = None
    settled_ns: int | None = None

    @property
    def most_ns(self) -> int:
        """The least that its clock can be ahead."""
        return self.ahead_ns if self.before_ns is None else max(self.ahead_ns, self.before_ns)


class Trust:
    """Compares the gateway's clock with those of its devices.

    Args:
        ahead_s: how far a message may be in the future, in seconds.
        synchronised: whether something that knows the time has set the gateway's clock.
    """

    def __init__(self, ahead_s: float, synchronised: Callable[[], bool]) -> None:
        self._ahead_s = ahead_s
        self._synchronised = synchronised
        self._heard: dict[Stream, _Heard] = {}

    def hear(self, stream: Stream, end_ns: int, now_ns: int) -> None:
        """Take in the time of a message.

        Args:
            stream: of the device.
            end_ns: the device's UTC time just after the last sample, in nanoseconds since 1970.
            now_ns: when it came, by a clock that nobody sets, in nanoseconds.
        """
        ahead_ns = end_ns - now_ns
        heard = self._heard.pop(stream, None)
        if heard is None or now_ns - heard.last_ns > _HEARD_NS:
            heard = _Heard(now_ns, now_ns, ahead_ns)
        elif now_ns - heard.begun_ns < _SPELL_NS:
            heard.ahead_ns = max(heard.ahead_ns, ahead_ns)
        else:
            before_ns = heard.before_ns
            steady = before_ns is not None and abs(heard.ahead_ns - before_ns) <= _DRIFT_NS
            heard.settled_ns = heard.ahead_ns if steady else None
            heard.begun_ns, heard.before_ns, heard.ahead_ns = now_ns, heard.ahead_ns, ahead_ns
        heard.last_ns = now_ns
        # Behind the others: who was not heard for the longest time goes first.
        self._heard[stream] = heard
        if len(self._heard) > _DEVICES:
            del self._heard[next(iter(self._heard))]

    def trusted(self, utc_ns: int, now_ns: int) -> bool:
        """Whether a message may be refused for its time, by UTC and the steady clock as of now."""
        if self._synchronised():
            return True
        apart = self._compare(utc_ns, now_ns)
        disagree = sum(seconds != 0 for seconds in apart.values())
        # With as many against as for it, refusing would be the one thing that cannot be mended.
        return len(apart) - disagree > disagree

    def apart(self, utc_ns: int, now_ns: int) -> dict[Stream, float]:
        """The devices whose clocks disagree with the gateway's, and how far each is ahead, in s."""
        found = self._compare(utc_ns, now_ns)
        return {stream: seconds for stream, seconds in found.items() if seconds}

    def _compare(self, utc_ns: int, now_ns: int) -> dict[Stream, float]:
        """As ``apart``, with 0 for those that agree; without those that tell nothing yet."""
        found = {}
        gateway_ns = utc_ns - now_ns
        for stream, heard in self._heard.items():
            if now_ns - heard.last_ns > _HEARD_NS:
                continue
            ahead_s = (heard.most_ns - gateway_ns) / 1e9
            if ahead_s > self._ahead_s:
                found[stream] = ahead_s
            elif heard.settled_ns is not None:
                behind_s = (gateway_ns - heard.settled_ns) / 1e9
                found[stream] = -behind_s if behind_s > _BEHIND_S else 0.0
        return found
