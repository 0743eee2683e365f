"""Adapters and devices as BlueZ knows them, and their properties."""

import asyncio
from typing import Protocol

from dbus_fast import Variant

from .objects import Objects
from .peripheral import Peripheral
from .wire import CHARACTERISTIC, DEVICE, SERVICE


class Adapter:
    """One controller; ``searching`` maps a client to the service UUIDs it filters by."""

    def __init__(self, name: str, number: int) -> None:
        self.name = name
        self.path = f"/org/bluez/{name}"
        self.address = f"00:1A:7D:DA:71:{number:02X}"
        self.powered = True
        self.searching: dict[str, set[str]] = {}
        self.filters: dict[str, set[str]] = {}

    def properties(self) -> dict[str, Variant]:
        return {
            "Address": Variant("s", self.address),
            "AddressType": Variant("s", "public"),
            "Name": Variant("s", "virtual"),
            "Alias": Variant("s", "virtual"),
            "Class": Variant("u", 0),
            "Powered": Variant("b", self.powered),
            "Discoverable": Variant("b", False),
            "Pairable": Variant("b", True),
            "Discovering": Variant("b", False),
            "UUIDs": Variant("as", []),
            "Modalias": Variant("s", "usb:v1D6Bp0246d0555"),
            "Roles": Variant("as", ["central", "peripheral"]),
        }


class Dropper(Protocol):
    def disconnected(self, device: "Device", reason: str) -> None: ...


class Device:
    """A peripheral as one adapter knows it: the host's end of the link.

    Attributes:
        temporary: seen, never used; forgotten when it is no longer seen.
        uuids: of the characteristics, by path; known once services were resolved.
        listeners: the clients that started notifications, by path. BlueZ keeps them over a
            disconnection and switches notifications on again after it.
    """

    def __init__(
        self, links: Dropper, objects: Objects, adapter: Adapter, peripheral: Peripheral
    ) -> None:
        self._links = links
        self._objects = objects
        self.adapter = adapter
        self.peripheral = peripheral
        self.path = path_of(adapter, peripheral)
        self.connected = False
        self.connecting = False
        self.cancelled = False
        self.paired = False
        self.pairing: asyncio.Future[None] | None = None
        self.temporary = True
        self.last_seen_ns = 0
        self.uuids: dict[str, str] = {}
        self.listeners: dict[str, set[str]] = {}

    # The Link that the peripheral sees.

    def notify(self, uuid: str, value: bytes) -> None:
        path = next(path for path, known in self.uuids.items() if known == uuid)
        self._objects.update(path, CHARACTERISTIC, {"Value": Variant("ay", value)})

    def drop(self, reason: str) -> None:
        self._links.disconnected(self, reason)

    # What the service does with it.

    def set(self, **changed: Variant) -> None:
        self._objects.update(self.path, DEVICE, changed)

    def heard(self, rssi: int) -> None:
        """An advertisement; reception is never the same twice."""
        last = self._objects.interfaces(self.path)[DEVICE].get("RSSI")
        again = last is not None and last.value == rssi
        self.set(RSSI=Variant("n", rssi + again))

    def unheard(self) -> None:
        self._objects.update(self.path, DEVICE, {}, removed=("RSSI",))

    def properties(self) -> dict[str, Variant]:
        peripheral = self.peripheral
        makers = {maker: Variant("ay", data) for maker, data in peripheral.manufacturer.items()}
        return {
            "Address": Variant("s", peripheral.address),
            "AddressType": Variant("s", "public"),
            "Name": Variant("s", peripheral.name),
            "Alias": Variant("s", peripheral.name),
            "Paired": Variant("b", self.paired),
            "Bonded": Variant("b", self.paired),
            "Trusted": Variant("b", False),
            "Blocked": Variant("b", False),
            "LegacyPairing": Variant("b", False),
            "Connected": Variant("b", False),
            "UUIDs": Variant("as", list(peripheral.advertised)),
            "Adapter": Variant("o", self.adapter.path),
            "ManufacturerData": Variant("a{qv}", makers),
            "ServicesResolved": Variant("b", False),
        }

    def resolve(self) -> None:
        """Publish services and characteristics, once."""
        if self.uuids:
            return
        handle = 0x000A
        for service in self.peripheral.services:
            at = f"{self.path}/service{handle:04x}"
            properties = {
                "UUID": Variant("s", service.uuid),
                "Device": Variant("o", self.path),
                "Primary": Variant("b", True),
                "Includes": Variant("ao", []),
            }
            self._objects.add(at, {SERVICE: properties})
            for characteristic in service.characteristics:
                handle += 1
                path = f"{at}/char{handle:04x}"
                self.uuids[path] = characteristic.uuid
                properties = {
                    "UUID": Variant("s", characteristic.uuid),
                    "Service": Variant("o", at),
                    "Value": Variant("ay", b""),
                    "Flags": Variant("as", list(characteristic.flags)),
                    "Notifying": Variant("b", False),
                    "MTU": Variant("q", self.peripheral.mtu),
                }
                self._objects.add(path, {CHARACTERISTIC: properties})
                # The value and its configuration have handles of their own.
                handle += 2
            handle += 1


def path_of(adapter: Adapter, peripheral: Peripheral) -> str:
    return f"{adapter.path}/dev_{peripheral.address.replace(':', '_')}"
