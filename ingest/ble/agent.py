"""The pairing agent: it answers BlueZ when one of our straps asks to be bonded.

Without an agent of one's own ``Device1.Pair`` fails on a machine without a desktop, and the agent
of bluetoothctl or bt-agent says no when nobody is there to answer (BlueZ, doc/org.bluez.Agent.rst).
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any, NamedTuple

import structlog
from dbus_fast import BusType, DBusError, Message, MessageType
from dbus_fast.aio import MessageBus
from dbus_fast.service import ServiceInterface, dbus_method

_log = structlog.get_logger()

_PATH = "/leadone/agent"
# A strap has neither a display nor keys; nor, as far as BlueZ need know, have we.
_CAPABILITY = "NoInputNoOutput"
_REJECTED = "org.bluez.Error.Rejected"
_FAREWELL_S = 3.0


class _To(NamedTuple):
    """Whom a D-Bus call is for."""

    destination: str
    path: str
    interface: str


_DBUS = _To("org.freedesktop.DBus", "/org/freedesktop/DBus", "org.freedesktop.DBus")
_MANAGER = _To("org.bluez", "/org/bluez", "org.bluez.AgentManager1")
_OBJECTS = _To("org.bluez", "/", "org.freedesktop.DBus.ObjectManager")
_BLUEZ_COMES_AND_GOES = (
    "type='signal',sender='org.freedesktop.DBus',interface='org.freedesktop.DBus',"
    "member='NameOwnerChanged',arg0='org.bluez'"
)


class _Agent(ServiceInterface):
    """org.bluez.Agent1 that says yes to straps we know and no to everybody else."""

    def __init__(self, known: Callable[[str], bool]) -> None:
        super().__init__("org.bluez.Agent1")
        self._known = known

    @dbus_method()
    def Release(self) -> None:  # noqa: N802 - the names are BlueZ's
        """BlueZ no longer needs us."""

    @dbus_method()
    def Cancel(self) -> None:  # noqa: N802
        """What was asked last is void."""

    @dbus_method()
    def RequestAuthorization(self, device: "o") -> None:  # type: ignore[name-defined] # noqa: N802, F821
        """A pairing without a code: what chest straps do."""
        self._decide(device, "pairing")

    @dbus_method()
    def RequestConfirmation(self, device: "o", passkey: "u") -> None:  # type: ignore[name-defined] # noqa: ARG002, N802, F821
        """A pairing whose code both sides would show."""
        self._decide(device, "pairing")

    @dbus_method()
    def AuthorizeService(self, device: "o", uuid: "s") -> None:  # type: ignore[name-defined] # noqa: ARG002, N802, F821
        """A bonded strap opens a service."""
        self._decide(device, "service")

    @dbus_method()
    def RequestPinCode(self, device: "o") -> "s":  # type: ignore[name-defined] # noqa: N802, F821
        """A code that nobody can enter."""
        raise self._no(device, "a PIN code, which a strap has no keys for")

    @dbus_method()
    def RequestPasskey(self, device: "o") -> "u":  # type: ignore[name-defined] # noqa: N802, F821
        """The same, in digits."""
        raise self._no(device, "a passkey, which a strap has no keys for")

    def _decide(self, device: str, what: str) -> None:
        if not self._known(address_of(device)):
            raise self._no(device, f"{what} of a device that is not ours")
        _log.info("bluetooth authorized", address=address_of(device), what=what)

    def _no(self, device: str, what: str) -> DBusError:
        _log.warning("bluetooth refused", address=address_of(device), what=what)
        return DBusError(_REJECTED, f"leadone does not allow {what}")


def address_of(path: str) -> str:
    """The address in a BlueZ object path such as ``/org/bluez/hci0/dev_A0_9E_1A_00_00_01``."""
    return path.rpartition("dev_")[2].split("/")[0].replace("_", ":").upper()


@contextlib.asynccontextmanager
async def agent(known: Callable[[str], bool]) -> AsyncIterator[asyncio.Event]:
    """Answer BlueZ's questions for the straps that ``known`` says yes to, during the body.

    Yields:
        Set when nobody asks any more: BlueZ or D-Bus was restarted and has forgotten the agent.

    Raises:
        OSError: if there is no D-Bus.
        DBusError: if BlueZ does not take the agent.
    """
    gone = asyncio.Event()

    def watch(message: Message) -> None:
        if message.member == "NameOwnerChanged" and message.body[0] == "org.bluez":
            gone.set()

    async with _system_bus() as bus:
        bus.add_message_handler(watch)
        lost = asyncio.create_task(_lost(bus, gone))
        try:
            await _call(bus, _DBUS, "AddMatch", "s", [_BLUEZ_COMES_AND_GOES])
            bus.export(_PATH, _Agent(known))
            await _call(bus, _MANAGER, "RegisterAgent", "os", [_PATH, _CAPABILITY])
            # bleak's Pair is a call from another connection: only the default agent hears of it.
            await _call(bus, _MANAGER, "RequestDefaultAgent", "o", [_PATH])
            yield gone
        finally:
            with contextlib.suppress(DBusError, OSError, EOFError, TimeoutError):
                async with asyncio.timeout(_FAREWELL_S):
                    await _call(bus, _MANAGER, "UnregisterAgent", "o", [_PATH])
            lost.cancel()
            await asyncio.gather(lost, return_exceptions=True)


async def forget(address: str) -> bool:
    """Remove the bonds of a strap from BlueZ, on all adapters.

    Returns:
        Whether there was one.

    Raises:
        OSError: if there is no D-Bus.
        DBusError: if BlueZ does not answer, or refuses.
    """
    async with _system_bus() as bus:
        (objects,) = await _call(bus, _OBJECTS, "GetManagedObjects", "", [])
        bonded = [
            device["Adapter"].value
            for device in (interfaces.get("org.bluez.Device1") for interfaces in objects.values())
            if device is not None and device["Address"].value == address and device["Paired"].value
        ]
        for adapter in bonded:
            path = f"{adapter}/dev_{address.replace(':', '_')}"
            to = _To("org.bluez", adapter, "org.bluez.Adapter1")
            await _call(bus, to, "RemoveDevice", "o", [path])
    return bool(bonded)


@contextlib.asynccontextmanager
async def _system_bus() -> AsyncIterator[MessageBus]:
    bus = await MessageBus(bus_type=BusType.SYSTEM).connect()
    try:
        yield bus
    finally:
        bus.disconnect()


async def _lost(bus: MessageBus, gone: asyncio.Event) -> None:
    try:
        await bus.wait_for_disconnect()  # type: ignore[no-untyped-call]
    finally:
        gone.set()


async def _call(
    bus: MessageBus, to: _To, member: str, signature: str, body: list[str]
) -> list[Any]:
    reply = await bus.call(Message(*to, member=member, signature=signature, body=body))
    if reply.message_type is MessageType.ERROR:
        raise DBusError._from_message(reply)  # noqa: SLF001 - the library has no other way
    return reply.body
