"""Connections and bonds: Device1 (doc/org.bluez.Device.rst, src/device.c, src/error.h)."""

import asyncio

from dbus_fast import Message, Variant

from .clock import NS, Clock
from .devices import Device
from .endpoint import Endpoint, Method
from .known import Known
from .pairing import Agents
from .wire import ADAPTER, DEVICE, BluezError, failed

POLL_S = 0.005
# How long BlueZ waits for a device that does not answer, in time of the clock.
CONNECT_TIMEOUT_S = 20.0
# From the connection to the failure of its encryption, in real time.
REFUSE_AFTER_S = 0.05


class Links:
    """Brings links up and down. ``known`` is set by its owner."""

    known: Known

    def __init__(self, endpoint: Endpoint, agents: Agents, clock: Clock) -> None:
        self._endpoint = endpoint
        self._agents = agents
        self._clock = clock

    def methods(self) -> dict[tuple[str, str], Method]:
        return {
            (ADAPTER, "RemoveDevice"): self._remove,
            (DEVICE, "Connect"): lambda message: self._connect(self._device(message)),
            (DEVICE, "Disconnect"): self._disconnect,
            (DEVICE, "Pair"): self._pair,
            (DEVICE, "CancelPairing"): self._cancel_pairing,
        }

    def disconnected(self, device: Device, reason: str) -> None:
        """The link is gone; ``reason`` is one of org.bluez.Reason (doc/org.bluez.Device.rst)."""
        device.cancelled = True
        if not device.connected:
            return
        self.silently_disconnected(device)
        device.set(ServicesResolved=Variant("b", False))
        device.set(Connected=Variant("b", False))
        said = [f"org.bluez.Reason.{reason}", f"Connection terminated: {reason}"]
        self._endpoint.send(
            Message.new_signal(device.path, DEVICE, "Disconnected", signature="ss", body=said)
        )

    def silently_disconnected(self, device: Device) -> None:
        """What the strap sees of it."""
        if device.connected:
            device.connected = False
            device.peripheral.link_down()

    def aborted(self, message: Message, error: BluezError) -> None:
        """With this error the controller was connected for a moment, and clients see that."""
        if (message.member, error.text) == ("Connect", "le-connection-abort-by-local"):
            device = self._device(message)
            for now in (True, False):
                device.set(Connected=Variant("b", now))

    async def bond(self, device: Device, client: str) -> None:
        """Ask the agent; then both sides remember the key.

        Raises:
            BluezError: nobody says yes, or the link was lost meanwhile.
        """
        asked = self._agents.ask(client, device.path, device.peripheral.asks)
        device.pairing = asyncio.ensure_future(asked)
        try:
            await asyncio.wait({device.pairing})
            if device.pairing.cancelled():
                raise BluezError("AuthenticationCanceled", "Authentication Canceled")
            device.pairing.result()
        finally:
            device.pairing.cancel()
            device.pairing = None
        if not device.connected:
            raise BluezError("AuthenticationFailed", "Authentication Failed")
        device.paired = device.peripheral.bonded = device.peripheral.encrypted = True
        device.temporary = False
        self.known.bond(device)
        device.set(Paired=Variant("b", True), Bonded=Variant("b", True))

    def _device(self, message: Message) -> Device:
        return self.known.devices[message.path]

    def _remove(self, message: Message) -> None:
        device = self.known.unbond(message.body[0])
        self.disconnected(device, "Local")
        self.known.remove(device)

    async def _connect(self, device: Device) -> None:
        if device.connecting:
            raise BluezError("InProgress", "In Progress")
        if device.connected:
            return
        if not device.adapter.powered:
            raise BluezError("NotReady", "Resource Not Ready")
        device.temporary = False
        device.connecting, device.cancelled = True, False
        try:
            await self._reach(device)
        finally:
            device.connecting = False
        peripheral = device.peripheral
        device.connected = True
        peripheral.link_up(device, encrypted=device.paired and peripheral.bonded)
        device.set(Connected=Variant("b", True))
        loop = asyncio.get_running_loop()
        if device.paired and not peripheral.bonded:
            # The strap has lost its half of the key.
            loop.call_later(REFUSE_AFTER_S, self.disconnected, device, "Authentication")
        else:
            loop.call_soon(self._resolve, device)

    async def _reach(self, device: Device) -> None:
        """Wait until the strap takes the connection, as long as BlueZ would."""
        end = self._clock.time_ns() + round(CONNECT_TIMEOUT_S * NS)
        while True:
            if device.cancelled:
                raise failed("br-connection-canceled")
            if device.peripheral.connectable:
                return
            if self._clock.time_ns() >= end:
                raise failed("le-connection-timeout")
            await asyncio.sleep(POLL_S)

    def _resolve(self, device: Device) -> None:
        """The discovery of services, which follows the connection by itself."""
        peripheral = device.peripheral
        if not device.connected or not peripheral.resolves:
            return
        device.resolve()
        uuids = sorted({*peripheral.advertised, *(service.uuid for service in peripheral.services)})
        device.set(UUIDs=Variant("as", uuids), ServicesResolved=Variant("b", True))
        for path, uuid in device.uuids.items():
            if device.listeners.get(path):
                peripheral.subscribe(uuid, True)

    def _disconnect(self, message: Message) -> None:
        device = self._device(message)
        if device.connecting:
            device.cancelled = True
        elif device.connected:
            self.disconnected(device, "Local")
        else:
            raise BluezError("NotConnected", "Not Connected")

    async def _pair(self, message: Message) -> None:
        device = self._device(message)
        if device.paired:
            raise BluezError("AlreadyExists", "Already Exists")
        if device.pairing is not None:
            raise BluezError("InProgress", "In Progress")
        fresh = not device.connected
        if fresh:
            try:
                await self._connect(device)
            except BluezError as error:
                if error.text == "Resource Not Ready":
                    raise
                raise BluezError("ConnectionAttemptFailed", "Page Timeout") from error
        try:
            await self.bond(device, message.sender)
        except BluezError:
            if fresh:
                self.disconnected(device, "Authentication")
            raise

    def _cancel_pairing(self, message: Message) -> None:
        device = self._device(message)
        if device.pairing is None:
            raise BluezError("DoesNotExist", "Does Not Exist")
        device.pairing.cancel()
