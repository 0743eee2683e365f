"""What BlueZ knows: its adapters, the devices it has met, and the bonds it keeps on disk."""

from collections.abc import Iterable

from dbus_fast import Variant

from .devices import Adapter, Device, Dropper, path_of
from .objects import Objects
from .peripheral import Peripheral
from .wire import DEVICE, BluezError


class Known:
    """Adapters by name, devices by path."""

    def __init__(self, objects: Objects, links: Dropper, adapters: Iterable[str]) -> None:
        self.adapters = {name: Adapter(name, n) for n, name in enumerate(adapters)}
        self.devices: dict[str, Device] = {}
        self._objects = objects
        self._links = links
        self._bonds: set[tuple[str, str]] = set()

    def adapter(self, path: str) -> Adapter:
        return next(adapter for adapter in self.adapters.values() if adapter.path == path)

    def on(self, adapter: Adapter) -> list[Device]:
        return [device for device in self.devices.values() if device.adapter is adapter]

    def find(self, adapter: Adapter, peripheral: Peripheral) -> Device | None:
        return self.devices.get(path_of(adapter, peripheral))

    def add(self, adapter: Adapter, peripheral: Peripheral, rssi: int | None = None) -> Device:
        device = Device(self._links, self._objects, adapter, peripheral)
        device.paired = self.is_bonded(adapter, peripheral)
        device.temporary = not device.paired
        self.devices[device.path] = device
        heard = {} if rssi is None else {"RSSI": Variant("n", rssi)}
        self._objects.add(device.path, {DEVICE: device.properties() | heard})
        return device

    def remove(self, device: Device) -> None:
        del self.devices[device.path]
        self._objects.remove(device.path)

    def is_bonded(self, adapter: Adapter, peripheral: Peripheral) -> bool:
        return (adapter.name, peripheral.address) in self._bonds

    def bond(self, device: Device) -> None:
        self._bonds.add((device.adapter.name, device.peripheral.address))

    def unbond(self, path: str) -> Device:
        """Forget the bond of the device at this path.

        Raises:
            BluezError: there is no such device.
        """
        if path not in self.devices:
            raise BluezError("DoesNotExist", "Does Not Exist")
        device = self.devices[path]
        self._bonds.discard((device.adapter.name, device.peripheral.address))
        return device
