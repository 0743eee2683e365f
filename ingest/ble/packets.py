"""How the notifications of a strap reach its decoders."""

import time
from collections.abc import Callable

import structlog
from bleak import BleakClient
from bleak.backends.characteristic import BleakGATTCharacteristic

from ingest.ble.counts import MALFORMED
from ingest.ble.events import MalformedError

_log = structlog.get_logger()

_QUIET_S = 60.0  # a strap that sends nonsense must not fill the log


class Inbox:
    """Takes the packets of one connection; a malformed one is counted, logged and skipped.

    Args:
        kind: of the device, as in its metrics.
    """

    def __init__(self, kind: str) -> None:
        self._kind = kind
        self._quiet_until = 0.0

    async def subscribe(
        self, client: BleakClient, uuid: str, take: Callable[[bytes], None]
    ) -> None:
        """Have ``take`` called with every packet of a characteristic.

        Raises:
            BleakError: the characteristic is not there, or cannot be subscribed to.
        """

        def on_packet(_: BleakGATTCharacteristic, packet: bytearray) -> None:
            self.give(bytes(packet), take)

        await client.start_notify(uuid, on_packet)

    def give(self, packet: bytes, take: Callable[[bytes], None]) -> None:
        """Call ``take`` with a packet, which may find it malformed."""
        try:
            take(packet)
        except MalformedError as error:
            MALFORMED.labels(self._kind).inc()
            now = time.monotonic()
            if now >= self._quiet_until:
                self._quiet_until = now + _QUIET_S
                _log.warning("malformed packet skipped", device=self._kind, reason=str(error))
