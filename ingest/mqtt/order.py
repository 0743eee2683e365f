"""Puts the numbered messages of one stream in order, and knows again what came before."""

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from ingest.mqtt.counts import LOST, REPEATED
from ingest.mqtt.payload import Message

PATIENCE_NS: Final = 2_000_000_000
"""How long a message that comes early waits for those before it."""
WINDOW: Final = 8
"""How many messages wait before the ones missing are given up."""

# A jump beyond this is a device that counts anew, not messages lost.
_FAR = 1000
# More than the messages of one stream that a broker may deliver again (ReceiveMaximum).
_KNOWN = 512


class Receipt:
    """The acknowledgements that wait for one message to be durable, one for each delivery."""

    __slots__ = ("_settled", "_waiting")

    def __init__(self, acknowledge: Callable[[], None]) -> None:
        self._waiting = [acknowledge]
        self._settled = False

    def add(self, acknowledge: Callable[[], None]) -> None:
        """Tie another delivery of the same message to the first."""
        if self._settled:
            acknowledge()
        else:
            self._waiting.append(acknowledge)

    def settle(self) -> None:
        """Acknowledge every delivery: the message is durable, or refused for good."""
        self._settled = True
        waiting, self._waiting = self._waiting, []
        for acknowledge in waiting:
            acknowledge()


@dataclass(frozen=True, slots=True)
class Ordered:
    """A message whose turn it is; ``gap_cause`` says why others are missing before it."""

    message: Message
    receipt: Receipt
    gap_cause: str | None = None


class Order:
    """The order of one stream.

    A message is known again by its number and its time together, for a device that starts anew
    counts from zero again.
    """

    def __init__(self) -> None:
        self._next: int | None = None
        self._newest_ns = 0
        self._held: dict[int, tuple[int, Ordered]] = {}
        self._known: OrderedDict[tuple[int, int], Receipt] = OrderedDict()

    @property
    def due_ns(self) -> int | None:
        """When to call ``release`` though nothing comes; None if nothing waits."""
        if not self._held:
            return None
        return min(came_ns for came_ns, _ in self._held.values()) + PATIENCE_NS

    def take(self, message: Message, acknowledge: Callable[[], None], now_ns: int) -> list[Ordered]:
        """Take a message in, and return those whose turn has come.

        Args:
            message: as it came.
            acknowledge: answers this delivery of it.
            now_ns: by a clock that nobody sets, in nanoseconds.
        """
        number = message.sequence
        if number is None:
            return [Ordered(message, Receipt(acknowledge))]
        known = self._known.get((number, message.t0_ns))
        if known is not None:
            REPEATED.inc()
            known.add(acknowledge)
            return []
        receipt = self._remember(number, message, acknowledge)
        released: list[Ordered] = []
        cause = None
        if self._anew(number, message.t0_ns):
            released = self._give_up()
            if self._next is not None:
                what = "device restarted" if number < self._next else "numbering jumped"
                cause = f"{what}, seq {self._next - 1} to {number}"
            self._next = number
        elif self._next is not None and number < self._next:
            # Too late: it stands for itself, and its time says where it belongs.
            return [Ordered(message, receipt)]
        self._held[number] = (now_ns, Ordered(message, receipt, cause))
        return released + self.release(now_ns)

    def release(self, now_ns: int) -> list[Ordered]:
        """Return those whose turn has come, or that have waited long enough for others."""
        released: list[Ordered] = []
        while self._held:
            due_ns = self.due_ns
            assert due_ns is not None
            if self._next not in self._held and len(self._held) < WINDOW and now_ns < due_ns:
                break
            released.append(self._first())
        return released

    def _anew(self, number: int, t0_ns: int) -> bool:
        """Whether the device counts anew from here."""
        if self._next is None or number in self._held or number > self._next + _FAR:
            return True
        # A message that is late is older than what came before; one after a restart is not.
        return number < self._next and t0_ns > self._newest_ns

    def _give_up(self) -> list[Ordered]:
        return [self._first() for _ in range(len(self._held))]

    def _first(self) -> Ordered:
        """The lowest number that waits; those before it are lost."""
        number = min(self._held)
        _, ordered = self._held.pop(number)
        assert self._next is not None
        if number > self._next:
            LOST.inc(number - self._next)
            last = f" to {number - 1}" if number - 1 > self._next else ""
            cause = f"message{'s' if last else ''} lost, seq {self._next}{last}"
            ordered = Ordered(ordered.message, ordered.receipt, cause)
        self._next = number + 1
        self._newest_ns = ordered.message.t0_ns
        return ordered

    def _remember(self, number: int, message: Message, acknowledge: Callable[[], None]) -> Receipt:
        receipt = self._known[number, message.t0_ns] = Receipt(acknowledge)
        if len(self._known) > _KNOWN:
            self._known.popitem(last=False)
        return receipt
