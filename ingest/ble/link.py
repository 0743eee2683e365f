"""One strap's connection: found, connected, started, listened to, and found again, for ever.

A session goes through named stages, each with a time-out of its own; whatever ends it, the stream
is stopped, the connection closed, and after a pause the next session begins.
"""

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import structlog
from bleak import BleakClient, BleakScanner
from bleak.backends.device import BLEDevice
from bleak.exc import BleakError
from bleak_retry_connector import close_stale_connections_by_address, establish_connection

from ingest.ble.counts import SESSIONS
from ingest.ble.device import Device, DeviceError
from ingest.ble.events import Event, Frame, Pulse
from ingest.ble.trouble import LOST, NOT_SEEN, SILENT, STALE_BOND, Kind, Trouble, trouble

_log = structlog.get_logger()

# Whatever D-Bus, the kernel or the strap can raise at us; anything else is a fault of our own.
_EXPECTED = (BleakError, DeviceError, TimeoutError, OSError, EOFError, KeyError)


# A strap that was reset lets a host with an old bond connect, and drops it at once. A strap that is
# held by a phone does not advertise, and so is not refused this often.
_STALE = 4

# Beyond the search itself, for the calls that begin and end it.
_SLACK_S = 10.0


class Stage(StrEnum):
    """How far a session has come."""

    SEARCHING = "searching"
    CONNECTING = "connecting"
    SETTINGS = "settings"
    STARTING = "starting"
    STREAMING = "streaming"
    WAITING = "waiting"


@dataclass(frozen=True, slots=True)
class Status:
    """What a link does, and what keeps it from streaming.

    Attributes:
        stage: how far it is.
        trouble: what ended the last session; None while streaming and before the first failure.
    """

    stage: Stage
    trouble: Trouble | None = None


@dataclass(frozen=True, slots=True)
class Timing:
    """Time-outs and pauses, in seconds.

    Attributes:
        search: for an advertisement of the strap.
        connect: for the connection with all services.
        settings: for the strap to say what it can do.
        start: for the stream to begin.
        silence: without a packet, after which a connected strap counts as lost.
        stop: for the stop command and the disconnection each.
        first_pause: before the second try; it doubles up to ``longest_pause``.
        longest_pause: a strap that comes back is found after this long at most.
    """

    search: float = 10.0
    connect: float = 45.0
    settings: float = 10.0
    start: float = 15.0
    silence: float = 10.0
    stop: float = 3.0
    first_pause: float = 0.5
    longest_pause: float = 15.0


class Adapter:
    """One Bluetooth adapter, which searches for or connects to one strap at a time.

    BlueZ refuses a second discovery, or a connection during another one, with InProgress.

    Args:
        name: such as ``hci0``; None is the first one.
    """

    def __init__(self, name: str | None = None) -> None:
        self.name = name
        self.busy = asyncio.Lock()

    @property
    def arguments(self) -> Any:
        """The ``bluez`` arguments of bleak's scanner and client."""
        return {} if self.name is None else {"adapter": self.name}


class Link:
    """Keeps one strap connected.

    Args:
        address: of the strap.
        device: its model.
        adapter: shared by all links that use it.
        emit: called with every event, on the event loop.
        on_status: called when the stage or the trouble changes.
        timing: time-outs and pauses.
    """

    def __init__(
        self,
        address: str,
        device: type[Device],
        adapter: Adapter,
        emit: Callable[[Event], None],
        on_status: Callable[[Status], None],
        timing: Timing | None = None,
    ) -> None:
        self._address = address
        self._device = device
        self._adapter = adapter
        self._emit = emit
        self._on_status = on_status
        self._timing = timing or Timing()
        self._status = Status(Stage.WAITING)
        self._heard = 0.0
        self._bonded = False
        self._rebonded = False
        self._log = _log.bind(address=address, device=device.kind)

    async def run(self) -> None:
        """Keep the link up until cancelled; then stop the stream and disconnect."""
        pause = self._timing.first_pause
        refused = 0
        while True:
            wrong = await self._session()
            refused = refused + 1 if wrong.kind is Kind.REFUSED else 0
            if refused >= _STALE and self._bonded:
                wrong = STALE_BOND
            SESSIONS.labels(self._device.kind, wrong.kind.value).inc()
            if self._status.stage is Stage.STREAMING:
                pause = self._timing.first_pause
                self._rebonded = False
            self._log.warning("session ended", cause=wrong.cause, again_in_s=round(pause, 2))
            self._enter(Stage.WAITING, wrong)
            if wrong.kind is Kind.BOND:
                await self._rebond()
            await asyncio.sleep(pause)
            pause = min(2 * pause, self._timing.longest_pause)

    async def _session(self) -> Trouble:
        """Search, connect and stream; what ended it."""
        lost = asyncio.Event()
        try:
            async with contextlib.AsyncExitStack() as stack:
                client = await self._connect(stack, lost)
                if client is None:
                    return NOT_SEEN
                device = self._device()
                self._enter(Stage.SETTINGS)
                async with asyncio.timeout(self._timing.settings):
                    await device.settings(client)
                self._enter(Stage.STARTING)
                stack.push_async_callback(self._stop, device, client)
                async with asyncio.timeout(self._timing.start):
                    await device.start(client, self._take)
                return await self._listen(lost)
        except _EXPECTED as error:
            # Samples may flow before the last of what starts them is done; a link lost between the
            # two is no refusal, whatever BlueZ calls it.
            if self._status.stage is Stage.STREAMING and (
                lost.is_set() or isinstance(error, BleakError)
            ):
                return LOST
            return trouble(error, self._status.stage.value)

    async def _connect(
        self, stack: contextlib.AsyncExitStack, lost: asyncio.Event
    ) -> BleakClient | None:
        """A connected client that ``stack`` disconnects; None if the strap is not to be seen."""
        async with self._adapter.busy:
            self._enter(Stage.SEARCHING)
            # An earlier daemon that was killed may have left the strap connected: it does not
            # advertise then, and its notifications go nowhere.
            # A call that BlueZ never answers must not hold the adapter against all other straps.
            async with asyncio.timeout(self._timing.search + _SLACK_S):
                await close_stale_connections_by_address(self._address)
                found = await self._search()
            if found is None:
                return None
            self._bonded = bool(found.details["props"].get("Paired"))
            self._enter(Stage.CONNECTING)
            async with asyncio.timeout(self._timing.connect):
                client = await establish_connection(
                    BleakClient,
                    found,
                    self._address,
                    disconnected_callback=lambda _: lost.set(),
                    max_attempts=2,
                    # A strap whose firmware was changed has other handles than the cached ones.
                    use_services_cache=False,
                    bluez=self._adapter.arguments,
                )
        stack.push_async_callback(self._disconnect, client)
        return client

    async def _search(self) -> BLEDevice | None:
        return await BleakScanner.find_device_by_address(
            self._address, timeout=self._timing.search, bluez=self._adapter.arguments
        )

    async def _listen(self, lost: asyncio.Event) -> Trouble:
        """Wait until the link is lost or the strap falls silent."""
        loop = asyncio.get_running_loop()
        self._heard = loop.time()
        while True:
            left = self._heard + self._timing.silence - loop.time()
            if left <= 0:
                return SILENT
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(left):
                    await lost.wait()
                    return LOST

    def _take(self, event: Event) -> None:
        # A strap whose ECG has stopped may well go on sending pulses.
        if isinstance(event, Pulse if self._device.rate is None else Frame):
            self._heard = asyncio.get_running_loop().time()
            if self._status.stage is not Stage.STREAMING:
                self._enter(Stage.STREAMING)
        self._emit(event)

    async def _stop(self, device: Device, client: BleakClient) -> None:
        """Tell the strap to stop: it would stream until its battery is empty."""
        if not client.is_connected:
            return
        try:
            async with asyncio.timeout(self._timing.stop):
                await device.stop(client)
        except _EXPECTED as error:
            self._log.warning("strap not stopped", reason=str(error) or type(error).__name__)

    async def _disconnect(self, client: BleakClient) -> None:
        try:
            async with asyncio.timeout(self._timing.stop):
                await client.disconnect()
        except _EXPECTED as error:
            self._log.warning("not disconnected", reason=str(error) or type(error).__name__)

    async def _rebond(self) -> None:
        """Forget a bond that the strap no longer knows and make a new one, once a failure.

        BlueZ asks our own agent (``ingest.ble.agent``), which the daemon has registered.
        """
        if self._rebonded:
            return
        self._rebonded = True
        try:
            async with asyncio.timeout(2 * self._timing.connect), self._adapter.busy:
                found = await self._search()
                if found is None:
                    return
                stale = BleakClient(found, bluez=self._adapter.arguments)
                await stale.unpair()
                found = await self._search()
                if found is None:
                    return
                async with BleakClient(found, bluez=self._adapter.arguments, pair=True):
                    self._log.info("bonded anew")
        except _EXPECTED as error:
            self._log.warning("not bonded", reason=str(error) or type(error).__name__)

    def _enter(self, stage: Stage, wrong: Trouble | None = None) -> None:
        # The trouble stays until samples flow again: a link that searches is still in it.
        kept = None if stage is Stage.STREAMING else (wrong or self._status.trouble)
        status = Status(stage, kept)
        if status != self._status:
            self._status = status
            self._on_status(status)
