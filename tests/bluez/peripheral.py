"""What every virtual strap has in common: name, address, services, and a link that can be lost."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Protocol

from .clock import NS, Clock

INSUFFICIENT_AUTHENTICATION = 0x05


def uuid16(short: int) -> str:
    """A UUID of the Bluetooth SIG in the long form that BlueZ uses."""
    return f"0000{short:04x}-0000-1000-8000-00805f9b34fb"


class AttError(Exception):
    """An error of the attribute protocol (Bluetooth Core 5.4, vol. 3 part F, 3.4.1.1)."""

    def __init__(self, code: int) -> None:
        super().__init__(f"{code:#04x}")
        self.code = code


@dataclass(frozen=True, slots=True)
class Characteristic:
    uuid: str
    flags: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Service:
    uuid: str
    characteristics: tuple[Characteristic, ...]


class Link(Protocol):
    """The host's end of a connection."""

    def notify(self, uuid: str, value: bytes) -> None: ...

    def drop(self, reason: str) -> None: ...


class Peripheral:
    """A device within reach of the virtual adapters.

    Subclasses override ``read``, ``write`` and ``subscribed_changed``.

    Attributes:
        in_range: whether any adapter can hear it; see ``out_of_range``.
        held: another central has it: it neither advertises nor takes a connection.
        worn: it sleeps, and does not advertise, unless worn.
        resolves: whether service discovery ever ends; False plays a connection that hangs there.
        needs_pairing: whether ``secure`` characteristics answer 0x05 until bonded.
        asks: "authorization" (just works) or "confirmation" (a number to compare).
        bonded: whether it remembers a host.
        links: how many connections there have been.
    """

    services: ClassVar[tuple[Service, ...]] = ()
    advertised: ClassVar[tuple[str, ...]] = ()
    manufacturer: ClassVar[dict[int, bytes]] = {}
    secure: ClassVar[frozenset[str]] = frozenset()

    def __init__(
        self, name: str, address: str, *, rssi: int = -60, needs_pairing: bool = False
    ) -> None:
        self.name = name
        self.address = address
        self.rssi = rssi
        self.mtu = 247
        self.in_range = True
        self.held = False
        self.worn = True
        self.resolves = True
        self.needs_pairing = needs_pairing
        self.asks = "authorization"
        self.bonded = False
        self.encrypted = False
        self.links = 0
        self.subscribed: set[str] = set()
        self._link: Link | None = None
        self._clock: Clock | None = None

    # What the service calls.

    def attach(self, clock: Clock) -> None:
        self._clock = clock

    @property
    def clock(self) -> Clock:
        assert self._clock is not None, "add the peripheral to a Bluez first"
        return self._clock

    @property
    def connectable(self) -> bool:
        """Whether it advertises now."""
        return self.in_range and self.worn and not self.held and self._link is None

    def link_up(self, link: Link, encrypted: bool) -> None:
        self._link = link
        self.encrypted = encrypted
        self.links += 1

    def link_down(self) -> None:
        self._link = None
        self.encrypted = False
        for uuid in sorted(self.subscribed):
            self.subscribe(uuid, False)

    def check_security(self, uuid: str) -> None:
        if self.needs_pairing and uuid in self.secure and not self.encrypted:
            raise AttError(INSUFFICIENT_AUTHENTICATION)

    def read(self, uuid: str) -> bytes:
        raise AttError(0x02)

    def write(self, uuid: str, value: bytes) -> None:
        raise AttError(0x03)

    def subscribe(self, uuid: str, on: bool) -> None:
        """The Client Characteristic Configuration was written."""
        (self.subscribed.add if on else self.subscribed.discard)(uuid)
        self.subscribed_changed(uuid, on)

    def subscribed_changed(self, uuid: str, on: bool) -> None:
        """For subclasses."""

    # What subclasses call.

    def send(self, uuid: str, value: bytes) -> bool:
        """Notify or indicate; whether it went out."""
        if self._link is None or uuid not in self.subscribed:
            return False
        self._link.notify(uuid, value)
        return True

    def send_soon(self, uuid: str, value: bytes) -> None:
        """The same, after the write that is being answered."""
        asyncio.get_running_loop().call_soon(self.send, uuid, value)

    def after(self, seconds: float, callback: Callable[[], None]):
        return self.clock.call_at(self.clock.time_ns() + round(seconds * NS), callback)

    # What tests call.

    @property
    def connected(self) -> bool:
        return self._link is not None

    def lose_link(self) -> None:
        """The radio link breaks; the strap advertises again at once."""
        if self._link is not None:
            self._link.drop("Timeout")

    def out_of_range(self, seconds: float | None = None) -> None:
        """Out of reach from now on, or for a span of the clock."""
        self.in_range = False
        self.lose_link()
        if seconds is not None:
            self.after(seconds, self.back_in_range)

    def back_in_range(self) -> None:
        self.in_range = True

    def hold(self, seconds: float | None = None) -> None:
        """Another central connects to it."""
        self.held = True
        self.lose_link()
        if seconds is not None:
            self.after(seconds, self.release)

    def release(self) -> None:
        self.held = False

    def forget_bond(self) -> None:
        """The strap was reset: a host that believes in the bond is thrown out."""
        self.bonded = False
        self.lose_link()

    def take_off(self) -> None:
        self.worn = False

    def put_on(self) -> None:
        self.worn = True
