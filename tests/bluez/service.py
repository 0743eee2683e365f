"""org.bluez, played on a D-Bus connection: what a central that uses GATT can see of BlueZ 5.8x.

The parts are in ``search`` (discovery), ``links`` (connections and bonds), ``attributes`` (GATT)
and ``pairing`` (agents).
"""

import asyncio
from collections.abc import Iterable
from typing import TypeVar

from dbus_fast import Message, Variant

from .attributes import Attributes
from .clock import Clock, RealClock
from .devices import Adapter, Device
from .endpoint import Endpoint
from .known import Known
from .links import Links
from .objects import PROPERTIES
from .pairing import Agents
from .peripheral import Peripheral
from .search import Search
from .wire import ADAPTER, AGENT_MANAGER, DEVICE, BluezError

P = TypeVar("P", bound=Peripheral)


class Bluez:
    """The service. Use ``start`` and ``stop``, or the fixture ``bluez``.

    Args:
        address: of the bus.
        clock: the time that peripherals live in.
        adapters: the names of the controllers.

    Attributes:
        peripherals: the straps in the world; see ``add``.
        calls: the names of the methods that were called, the latest last.
    """

    def __init__(
        self, address: str, clock: Clock | None = None, adapters: Iterable[str] = ("hci0",)
    ) -> None:
        self.clock = clock or RealClock()
        self.peripherals: list[Peripheral] = []
        self._endpoint = Endpoint(address, self._client_gone)
        self.calls = self._endpoint.calls
        self._agents = Agents(self._endpoint)
        self._links = Links(self._endpoint, self._agents, self.clock)
        self._known = Known(self._endpoint.objects, self._links, adapters)
        self._links.known = self._known
        self._search = Search(self._endpoint, self._known, self.peripherals, self.clock)
        self._attributes = Attributes(self._endpoint, self._known, self._links, self._agents)
        # A restart that a script of faults began is over before the service is stopped for good.
        self._turn = asyncio.Lock()
        self._endpoint.on_failure = self._links.aborted
        self._endpoint.methods |= {
            (PROPERTIES, "Set"): self._set,
            **self._agents.methods(),
            **self._search.methods(),
            **self._links.methods(),
            **self._attributes.methods(),
        }

    async def start(self) -> None:
        """Own org.bluez, with nothing but the adapters and the bonded devices."""
        async with self._turn:
            await self._endpoint.open(self._publish)

    async def stop(self, *, crash: bool = False) -> None:
        """Leave the bus: in good order, or as a process that was killed, without a word."""
        async with self._turn:
            await self._stop(crash=crash)

    async def _stop(self, *, crash: bool) -> None:
        if not self._endpoint.is_open:
            return
        await self._endpoint.end_tasks()
        self._search.close()
        self._agents.clear()
        if crash:
            # The kernel ends the links of a killed bluetoothd; no client hears of it.
            await self._endpoint.close()
        for device in self._known.devices.values():
            self._links.disconnected(device, "Local")
        self._endpoint.objects.remove("/org/bluez")
        self._known.devices.clear()
        if not crash:
            await self._endpoint.release()
        await self._endpoint.close()

    async def restart(self, *, crash: bool = False, away_s: float = 0.05) -> None:
        """``systemctl restart bluetooth``: the name is lost and owned again, all objects new.

        Bonds are kept. ``away_s`` is in real seconds.
        """
        async with self._turn:
            await self._stop(crash=crash)
            await asyncio.sleep(away_s)
            await self._endpoint.open(self._publish)
            await self.settle()

    async def settle(self) -> None:
        """Return when every client has read all that was sent to it so far."""
        await self._endpoint.settle()

    def add(self, peripheral: P) -> P:
        """Put a strap into the world. Every adapter hears it."""
        self.peripherals.append(peripheral)
        peripheral.attach(self.clock)
        return peripheral

    def power(self, adapter: str, on: bool) -> None:
        """Switch an adapter, as ``bluetoothctl power`` or rfkill does."""
        self._power(self._known.adapters[adapter], on)

    def fail_next(self, member: str, error: str = "Failed", text: str = "", times: int = 1) -> None:
        """Let the next calls of a method fail, e.g. ("Connect", "InProgress", times=3).

        ``text`` is such as "br-connection-canceled" or "le-connection-abort-by-local".
        """
        self._endpoint.failures += [(member, BluezError(error, text or error))] * times

    def hang_next(self, member: str, times: int = 1) -> None:
        """Let the next calls of this method go unanswered."""
        self._endpoint.failures += [(member, None)] * times

    def device(self, peripheral: Peripheral, adapter: str = "hci0") -> Device | None:
        """What BlueZ knows of a strap, if it does."""
        return self._known.find(self._known.adapters[adapter], peripheral)

    def _publish(self) -> None:
        objects = self._endpoint.objects
        objects.add("/org/bluez", {AGENT_MANAGER: {}})
        for adapter in self._known.adapters.values():
            objects.add(adapter.path, {ADAPTER: adapter.properties()})
            for peripheral in self.peripherals:
                if self._known.is_bonded(adapter, peripheral):
                    self._known.add(adapter, peripheral)

    def _client_gone(self, client: str) -> None:
        """BlueZ ends what a client began when it leaves the bus, but keeps the links."""
        self._agents.gone(client)
        self._search.gone(client)
        self._attributes.gone(client)

    def _set(self, message: Message) -> None:
        interface, name, value = message.body
        if (interface, name) == (ADAPTER, "Powered"):
            self._power(self._known.adapter(message.path), value.value)
        elif (interface, name) in ((DEVICE, "Trusted"), (DEVICE, "Alias"), (ADAPTER, "Alias")):
            if interface == DEVICE:
                self._known.devices[message.path].temporary = False
            self._endpoint.objects.update(message.path, interface, {name: value})
        else:
            raise BluezError("PropertyReadOnly", f"Property {name!r} is not writable", dbus=True)

    def _power(self, adapter: Adapter, on: bool) -> None:
        if adapter.powered == on:
            return
        adapter.powered = on
        if not on:
            for device in self._known.on(adapter):
                self._links.disconnected(device, "Local")
            self._search.powered_off(adapter)
        self._endpoint.objects.update(adapter.path, ADAPTER, {"Powered": Variant("b", on)})
