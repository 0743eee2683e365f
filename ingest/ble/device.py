"""The models of straps that are known, behind one protocol."""

from collections.abc import Collection
from typing import ClassVar, Protocol

from bleak import BleakClient

from ingest.ble.events import DeviceError, Emit
from ingest.ble.heart_rate import HeartRateStrap
from ingest.ble.movesense import Movesense
from ingest.ble.polar import PolarH10

__all__ = ["DEVICES", "Device", "DeviceError", "Emit", "by_kind", "recognise"]


class Device(Protocol):
    """One model of strap. Adding one is adding a module and naming it in ``DEVICES``.

    An object belongs to one connection. None of its methods has a time-out of its own: wrap them
    in ``asyncio.timeout``. They raise DeviceError where the device answers with something that we
    cannot use, and pass on what bleak raises.

    Attributes:
        kind: its name in configuration and metrics.
        label: its name for people.
        gives: what it delivers, for people.
        rate: nominal samples per second; None where it sends no ECG.
    """

    kind: ClassVar[str]
    label: ClassVar[str]
    gives: ClassVar[tuple[str, ...]]
    rate: ClassVar[float | None]

    @classmethod
    def recognises(cls, name: str, services: Collection[str]) -> bool:
        """Whether a device with this advertised name and these service UUIDs is one of these."""
        ...

    async def settings(self, client: BleakClient) -> None:
        """Ask the connected device for what we need, before it is started.

        Raises:
            DeviceError: it cannot give that; the message says what to do.
        """
        ...

    async def start(self, client: BleakClient, emit: Emit) -> None:
        """Subscribe and start the stream; ``emit`` is called from the event loop from then on.

        Raises:
            DeviceError: the device refuses; the message says what to do.
        """
        ...

    async def stop(self, client: BleakClient) -> None:
        """Stop the stream, so that the device may sleep and its battery does not drain."""
        ...


# In order of preference: an H10 has the Heart Rate Service as well.
DEVICES: tuple[type[Device], ...] = (PolarH10, Movesense, HeartRateStrap)


def recognise(name: str, services: Collection[str]) -> type[Device] | None:
    """The model of an advertising device, None if it is none that we know.

    Args:
        name: its advertised name, "" if it has none.
        services: the UUIDs of the services it advertises, in bleak's form (128 bits).
    """
    services = frozenset(uuid.lower() for uuid in services)
    return next((device for device in DEVICES if device.recognises(name, services)), None)


def by_kind(kind: str) -> type[Device]:
    """The model of this kind.

    Raises:
        ValueError: there is none of that name; the message lists what there is.
    """
    for device in DEVICES:
        if device.kind == kind:
            return device
    raise ValueError(f"kind of device must be one of {', '.join(d.kind for d in DEVICES)}: {kind}")
