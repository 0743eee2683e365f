"""Which straps are to be seen, and what each can give."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from dataclasses import dataclass

from bleak import BleakScanner
from bleak.backends.device import BLEDevice
from bleak.backends.scanner import AdvertisementData

from ingest.ble.device import Device, recognise


@dataclass(frozen=True, slots=True)
class Sighting:
    """A strap as it last advertised.

    Attributes:
        address: Bluetooth address.
        name: as advertised, "" if it has none.
        rssi: received signal strength, in dBm.
        device: its model; None if it is none that we know.
    """

    address: str
    name: str
    rssi: int
    device: type[Device] | None


async def sightings(adapter: str | None, seconds: float) -> AsyncGenerator[Sighting, None]:
    """Yield every advertisement received during this time.

    Args:
        adapter: such as ``hci0``; None is the first one.
        seconds: how long to look.

    Raises:
        BleakError: if there is no Bluetooth to look with.
    """
    seen: asyncio.Queue[Sighting] = asyncio.Queue()

    def take(device: BLEDevice, said: AdvertisementData) -> None:
        name = said.local_name or ""
        model = recognise(name, said.service_uuids)
        seen.put_nowait(Sighting(device.address, name, said.rssi, model))

    arguments = {"adapter": adapter} if adapter else {}
    async with BleakScanner(take, bluez=arguments):  # type: ignore[arg-type]
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while True:
                    yield await seen.get()
