"""The paired straps of a running daemon: sources of samples, each with a state and its alarms.

What Bluetooth needs is loaded only where a strap is paired: it takes memory and time to start.
"""

import asyncio
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import structlog

from alerts.conditions import Alarm, Change
from alerts.technical import DeviceWatch, Moment, device_of, end, is_technical
from ingest.chunk import Stream
from ingest.source import Source
from monitor.clock import steady_ns
from monitor.config import Config, ConfigError
from monitor.handover import PATIENCE_S, attempt, keep
from monitor.metrics import RESULTS_REFUSED, STRAP_BATTERY, STRAP_CONNECTED
from monitor.quality import Reason
from monitor.results import WindowResult
from monitor.stopping import pause
from monitor.storage.records import Strap, StrapState
from monitor.storage.writer import Writer
from monitor.wearing import OFF_SKIN, by_device, look_at_window

if TYPE_CHECKING:
    from ingest.ble import link, source

_log = structlog.get_logger()

STOPPED = "stopped"
"""The stage of a strap that nobody tries to reach."""

_STREAMING = "streaming"
_CONNECTED = ("settings", "starting", _STREAMING)

# How often the alarms are looked at, and a state that changed is stored.
_LOOK_S = 1.0

# A bluetoothd that is not there may be started at any time; there is no need to be quick.
_AGENT_AGAIN_S = 10.0

# A strap without a waveform whose packets hold no beats.
_NO_BEATS = OFF_SKIN | {Reason.GAP}


def check_straps(config: Config, paired: Iterable[Strap]) -> None:
    """Check that a configuration and the straps that are paired fit together.

    Raises:
        ConfigError: with a line for each that does not, or if there is nothing to watch.
    """
    patients = {patient.id for patient in config.patients}
    devices = {Stream(source.patient, source.device) for source in config.sources}
    problems = []
    for strap in paired:
        patient, device = strap.stream.patient, strap.stream.device
        if patient not in patients:
            problems.append(
                f"strap {strap.address} ({device}) is paired with patient {patient!r}, who is not "
                f"in the configuration: add the patient, or: leadone unpair {strap.address}"
            )
        elif strap.stream in devices:
            problems.append(
                f"strap {strap.address} of {patient} is called {device!r}, as one of the "
                f"configured sources is: rename that, or: leadone unpair {strap.address}"
            )
    if problems:
        raise ConfigError(problems)


@dataclass(slots=True)
class _Watched:
    """One strap.

    Attributes:
        strap: which.
        state: as known now.
        alarms: decide.
        stored: the state that the database has, or is being given.
        waveform: whether it sends one.
    """

    strap: Strap
    state: StrapState
    alarms: DeviceWatch
    stored: StrapState | None
    waveform: bool = True


class Straps:
    """Keeps the paired straps of a daemon.

    Args:
        paired: the straps, with their last known states.
        active: the alarms that an earlier run left active, of hearts too.
        timing: of the links.
        now_ns: UTC time, in nanoseconds.
        monotonic_ns: a clock that nobody sets.
    """

    def __init__(
        self,
        paired: Iterable[tuple[Strap, StrapState | None]],
        active: Iterable[Alarm],
        *,
        timing: "link.Timing | None" = None,
        now_ns: Callable[[], int] = time.time_ns,
        monotonic_ns: Callable[[], int] = steady_ns,
    ) -> None:
        self._timing = timing
        self._now_ns = now_ns
        self._monotonic_ns = monotonic_ns
        alarms = by_device(filter(is_technical, active))
        self._of: dict[Stream, _Watched] = {}
        for strap, known in paired:
            stream = strap.stream
            before = known or StrapState(stream, STOPPED, None, None, now_ns(), None, None)
            watch = DeviceWatch(stream.patient, stream.device, alarms.pop(stream, ()))
            # A run that was killed left it as streaming.
            self._of[stream] = _Watched(strap, _stopped(before, now_ns()), watch, known)
        self._orphans = [alarm for some in alarms.values() for alarm in some]
        self._heard_battery: set[Stream] = set()
        self._changes: list[Change] = []
        self._storing: set[asyncio.Task[bool]] = set()

    @property
    def streams(self) -> Collection[Stream]:
        """Of the straps that are paired."""
        return self._of.keys()

    @property
    def states(self) -> list[tuple[Strap, StrapState]]:
        """The straps that are paired, each with its state as known now."""
        return [(watched.strap, watched.state) for watched in self._of.values()]

    def sources(self) -> list[Source]:
        """A source for each strap; those on one adapter take turns on it.

        Raises:
            ConfigError: a strap is of a kind that this version does not know.
        """
        if not self._of:
            return []
        from ingest.ble.device import by_kind  # noqa: PLC0415 - see above
        from ingest.ble.link import Adapter  # noqa: PLC0415 - see above
        from ingest.ble.source import BleSource  # noqa: PLC0415 - see above

        adapters: dict[str | None, Adapter] = {}
        sources: list[Source] = []
        for watched in self._of.values():
            strap = watched.strap
            try:
                device = by_kind(strap.kind)
            except ValueError as error:
                raise ConfigError(
                    [f"strap {strap.address}: {error}: leadone unpair {strap.address}"]
                ) from None
            watched.waveform = device.rate is not None
            sources.append(
                BleSource(
                    strap.stream,
                    strap.address,
                    device,
                    adapters.setdefault(strap.adapter, Adapter(strap.adapter)),
                    on_state=self._note,
                    timing=self._timing,
                    now_ns=self._now_ns,
                    monotonic_ns=self._monotonic_ns,
                )
            )
        return sources

    def result(self, result: WindowResult) -> None:
        """Look whether a window can be read, and whether its electrodes are off the skin."""
        watched = self._of.get(result.stream)
        if watched is None:
            return
        off = OFF_SKIN if watched.waveform else _NO_BEATS
        self._changed(look_at_window(watched.alarms, self._moment(), result, off))

    async def run(
        self,
        writer: Writer,
        stop: asyncio.Event,
        conclude: Callable[[Sequence[Change]], None],
    ) -> None:
        """Store states, hand on alarms, and answer for the straps in pairing.

        Args:
            writer: the started writer.
            stop: ends it.
            conclude: takes what changes about alarms.
        """
        now_ns = self._now_ns()
        for alarm in self._orphans:
            reason = f"{device_of(alarm)} is no longer paired"
            self._changes.append(end(alarm, now_ns, reason))
        answering = asyncio.create_task(self._answer()) if self._of else None
        storing: asyncio.Task[bool] | None = None
        try:
            self._conclude(conclude)
            while self._of and not stop.is_set():
                self._look()
                self._conclude(conclude)
                if storing is None or storing.done():
                    storing = self._keep(writer)
                await pause(stop, _LOOK_S)
            for watched in self._of.values():
                self._become(watched, _stopped(watched.state, self._now_ns()))
            self._keep(writer)
        finally:
            if answering is not None:
                answering.cancel()
                await asyncio.gather(answering, return_exceptions=True)
            # Not for ever: what is left the writer has, and settles when it is stopped.
            if self._storing:
                await asyncio.wait(self._storing, timeout=PATIENCE_S)

    def _moment(self) -> Moment:
        return Moment(self._now_ns(), self._monotonic_ns())

    def _note(self, told: "source.StrapState") -> None:
        """Take in what a source says of its strap."""
        watched = self._of[told.stream]
        before, stage, wrong = watched.state, told.status.stage.value, told.status.trouble
        battery, battery_ns = before.battery, before.battery_ns
        if told.battery is not None:
            self._heard_battery.add(told.stream)
            if told.battery != battery or battery_ns is None:
                battery, battery_ns = told.battery, told.at_ns
        same = (before.stage == _STREAMING) == (stage == _STREAMING)
        state = StrapState(
            stream=told.stream,
            stage=stage,
            cause=None if wrong is None else wrong.cause,
            advice=None if wrong is None else wrong.advice,
            since_ns=before.since_ns if same else told.at_ns,
            battery=battery,
            battery_ns=battery_ns,
        )
        self._become(watched, state)
        if same:
            return
        # Not only at the next look: samples may flow for less than a second.
        self._look_at(watched)

    def _become(self, watched: _Watched, state: StrapState) -> None:
        watched.state = state
        labels = (state.stream.patient, state.stream.device)
        STRAP_CONNECTED.labels(*labels).set(state.stage in _CONNECTED)
        if state.battery is not None:
            STRAP_BATTERY.labels(*labels).set(state.battery)

    def _look(self) -> None:
        for watched in self._of.values():
            try:
                self._look_at(watched)
            except Exception:  # noqa: BLE001 - one strap must not end the watch of the others
                _log.exception("strap not looked at", stream=str(watched.strap.stream))

    def _look_at(self, watched: _Watched) -> None:
        now, state = self._moment(), watched.state
        why = "no samples yet: leadone goes on trying by itself"
        if state.cause is not None:
            why = f"{state.cause}: {state.advice}"
        self._changed(watched.alarms.link(now, streaming=state.stage == _STREAMING, why=why))
        self._changed(watched.alarms.legible(now))
        if state.battery is not None and state.stream in self._heard_battery:
            self._changed(watched.alarms.battery(now, state.battery))

    def _changed(self, change: Change | None) -> None:
        if change is not None:
            self._changes.append(change)

    def _conclude(self, conclude: Callable[[Sequence[Change]], None]) -> None:
        changes, self._changes = self._changes, []
        conclude(changes)

    def _keep(self, writer: Writer) -> asyncio.Task[bool] | None:
        """Store the states that have changed; one at a time, so that the last one stays."""
        new = [w for w in self._of.values() if w.state != w.stored]
        if not new:
            return None
        for watched in new:
            watched.stored = watched.state
        states = [watched.state for watched in new]
        return keep(self._storing, attempt(writer, RESULTS_REFUSED, states))

    async def _answer(self) -> None:
        """Be the one who says yes when BlueZ asks whether a paired strap may be bonded."""
        from dbus_fast.errors import DBusFastError  # noqa: PLC0415 - see above

        from ingest.ble.agent import agent  # noqa: PLC0415 - see above

        addresses = {watched.strap.address for watched in self._of.values()}
        told = False
        while True:
            try:
                async with agent(addresses.__contains__) as gone:
                    told = False
                    await gone.wait()
            except (OSError, EOFError, DBusFastError) as error:
                if not told:
                    _log.warning(
                        "no Bluetooth service to answer pairing requests of; trying on",
                        reason=str(error) or type(error).__name__,
                    )
                told = True
            await asyncio.sleep(_AGENT_AGAIN_S)


def _stopped(state: StrapState, now_ns: int) -> StrapState:
    since_ns = now_ns if state.stage == _STREAMING else state.since_ns
    return replace(state, stage=STOPPED, cause=None, advice=None, since_ns=since_ns)
