"""Discovery: Adapter1's StartDiscovery and what is heard then (doc/org.bluez.Adapter.rst)."""

import asyncio
from collections.abc import Iterable

from dbus_fast import Message, Variant

from .clock import NS, Clock
from .devices import Adapter, Device
from .endpoint import Endpoint, Method
from .known import Known
from .peripheral import Peripheral
from .wire import ADAPTER, BluezError, failed

# In real time, so that scanning needs no stepping of the clock.
ADVERTISE_EVERY_S = 0.02
# A device that was only seen, never used, is forgotten (main.conf, TemporaryTimeout).
TEMPORARY_S = 30.0


class Search:
    """Lets the adapters that search hear the straps that advertise."""

    def __init__(
        self, endpoint: Endpoint, known: Known, peripherals: list[Peripheral], clock: Clock
    ) -> None:
        self._endpoint = endpoint
        self._known = known
        self._peripherals = peripherals
        self._clock = clock
        self._next: asyncio.TimerHandle | asyncio.Handle | None = None

    def methods(self) -> dict[tuple[str, str], Method]:
        return {
            (ADAPTER, "SetDiscoveryFilter"): self._set_filter,
            (ADAPTER, "StartDiscovery"): self._start,
            (ADAPTER, "StopDiscovery"): self._stop,
        }

    def gone(self, client: str) -> None:
        for adapter in self._known.adapters.values():
            adapter.filters.pop(client, None)
            if adapter.searching.pop(client, None) is not None:
                self._changed(adapter)

    def powered_off(self, adapter: Adapter) -> None:
        adapter.searching.clear()
        self._changed(adapter)

    def close(self) -> None:
        if self._next is not None:
            self._next.cancel()
            self._next = None
        for adapter in self._known.adapters.values():
            adapter.searching.clear()
            adapter.filters.clear()

    def _set_filter(self, message: Message) -> None:
        wanted = message.body[0].get("UUIDs")
        uuids = {uuid.lower() for uuid in wanted.value} if wanted else set()
        self._known.adapter(message.path).filters[message.sender] = uuids

    def _start(self, message: Message) -> None:
        adapter = self._known.adapter(message.path)
        if not adapter.powered:
            raise BluezError("NotReady", "Resource Not Ready")
        if message.sender in adapter.searching:
            raise BluezError("InProgress", "Operation already in progress")
        adapter.searching[message.sender] = adapter.filters.get(message.sender, set())
        self._changed(adapter)

    def _stop(self, message: Message) -> None:
        adapter = self._known.adapter(message.path)
        if not adapter.powered:
            raise BluezError("NotReady", "Resource Not Ready")
        if message.sender not in adapter.searching:
            raise failed("No discovery started")
        del adapter.searching[message.sender]
        self._changed(adapter)

    def _changed(self, adapter: Adapter) -> None:
        on = bool(adapter.searching)
        objects = self._endpoint.objects
        if on != objects.value(adapter.path, ADAPTER, "Discovering"):
            objects.update(adapter.path, ADAPTER, {"Discovering": Variant("b", on)})
            if not on:
                for device in self._known.on(adapter):
                    device.unheard()
        if on and self._next is None:
            self._next = asyncio.get_running_loop().call_soon(self._advertise)

    def _advertise(self) -> None:
        """One advertisement of every strap, and again after a while."""
        self._next = None
        searching = [a for a in self._known.adapters.values() if a.searching]
        for adapter in searching:
            for peripheral in self._peripherals:
                if peripheral.connectable and _wanted(peripheral, adapter.searching.values()):
                    self._hear(adapter, peripheral)
            self._forget_unused(adapter)
        if searching:
            loop = asyncio.get_running_loop()
            self._next = loop.call_later(ADVERTISE_EVERY_S, self._advertise)

    def _hear(self, adapter: Adapter, peripheral: Peripheral) -> None:
        device = self._known.find(adapter, peripheral)
        if device is None:
            device = self._known.add(adapter, peripheral, rssi=peripheral.rssi)
        else:
            device.heard(peripheral.rssi)
        device.last_seen_ns = self._clock.time_ns()

    def _forget_unused(self, adapter: Adapter) -> None:
        limit = self._clock.time_ns() - round(TEMPORARY_S * NS)
        for device in self._known.on(adapter):
            if _unused(device) and device.last_seen_ns < limit:
                self._known.remove(device)


def _wanted(peripheral: Peripheral, filters: Iterable[set[str]]) -> bool:
    return any(not uuids or uuids & {*peripheral.advertised} for uuids in filters)


def _unused(device: Device) -> bool:
    return device.temporary and not device.connected and not device.connecting
