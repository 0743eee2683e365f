"""Reading, writing and subscribing: GattCharacteristic1 (doc/org.bluez.GattCharacteristic.rst)."""

from collections.abc import Callable
from typing import Any

from dbus_fast import Message, Variant

from .devices import Device
from .endpoint import Endpoint, Method
from .known import Known
from .links import Links
from .pairing import Agents
from .peripheral import INSUFFICIENT_AUTHENTICATION, AttError, Peripheral
from .wire import CHARACTERISTIC, BluezError, att_error, failed


class Attributes:
    """Passes what clients ask on to the straps."""

    def __init__(self, endpoint: Endpoint, known: Known, links: Links, agents: Agents) -> None:
        self._objects = endpoint.objects
        self._known = known
        self._links = links
        self._agents = agents

    def methods(self) -> dict[tuple[str, str], Method]:
        return {
            (CHARACTERISTIC, "ReadValue"): self._read,
            (CHARACTERISTIC, "WriteValue"): self._write,
            (CHARACTERISTIC, "StartNotify"): self._start_notify,
            (CHARACTERISTIC, "StopNotify"): self._stop_notify,
        }

    def gone(self, client: str) -> None:
        for device in self._known.devices.values():
            for path, listeners in device.listeners.items():
                if client in listeners:
                    listeners.discard(client)
                    self._listeners_changed(device, path)

    def _find(self, path: str) -> tuple[Device, str]:
        device = self._known.devices[path.partition("/service")[0]]
        if not device.connected:
            raise failed("Not connected")
        return device, device.uuids[path]

    async def _secured(self, message: Message, operation: Callable[[Peripheral, str], Any]) -> Any:
        """Do it, and where the strap demands a bond, try to make one first, as the kernel does."""
        device, uuid = self._find(message.path)
        try:
            device.peripheral.check_security(uuid)
        except AttError as error:
            if device.paired or not self._agents.answers(message.sender):
                raise att_error(error.code) from None
            try:
                await self._links.bond(device, message.sender)
            except BluezError:
                raise att_error(INSUFFICIENT_AUTHENTICATION) from None
        try:
            return operation(device.peripheral, uuid)
        except AttError as error:
            raise att_error(error.code) from None

    async def _read(self, message: Message) -> tuple[str, bytes]:
        value = await self._secured(message, lambda strap, uuid: strap.read(uuid))
        # BlueZ publishes what was read, so that a subscriber hears it like a notification.
        self._objects.update(message.path, CHARACTERISTIC, {"Value": Variant("ay", value)})
        return "ay", value

    async def _write(self, message: Message) -> None:
        value = bytes(message.body[0])
        await self._secured(message, lambda strap, uuid: strap.write(uuid, value))

    async def _start_notify(self, message: Message) -> None:
        device, _ = self._find(message.path)
        flags = self._objects.value(message.path, CHARACTERISTIC, "Flags")
        if not {"notify", "indicate"} & {*flags}:
            raise BluezError("NotSupported", "Operation is not supported")
        listeners = device.listeners.setdefault(message.path, set())
        if message.sender in listeners:
            raise BluezError("InProgress", "Already notifying")
        await self._secured(message, lambda strap, uuid: None)
        listeners.add(message.sender)
        self._listeners_changed(device, message.path)

    def _stop_notify(self, message: Message) -> None:
        device, _ = self._find(message.path)
        listeners = device.listeners.get(message.path, set())
        if message.sender not in listeners:
            raise failed("No notify session started")
        listeners.discard(message.sender)
        self._listeners_changed(device, message.path)

    def _listeners_changed(self, device: Device, path: str) -> None:
        on = bool(device.listeners[path])
        if on != self._objects.value(path, CHARACTERISTIC, "Notifying"):
            self._objects.update(path, CHARACTERISTIC, {"Notifying": Variant("b", on)})
        uuid = device.uuids[path]
        if device.connected and on != (uuid in device.peripheral.subscribed):
            device.peripheral.subscribe(uuid, on)
