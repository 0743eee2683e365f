"""What runs beside the path of a sample: alarms, straps, devices, the gateway, and the house."""

import asyncio
import socket
from collections.abc import Callable, Collection, Coroutine, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from alerts.conditions import Change
from alerts.engine import Engine
from alerts.escalation import Plan
from alerts.gateway import DEAD_MAN, GatewayWatch
from alerts.lethal import RhythmEngine
from alerts.records import Signal
from alerts.rhythm import RhythmSeen
from alerts.technical import is_technical
from ingest.chunk import Chunk, Stream
from ingest.rr import RrIntervals
from monitor import watchdog
from monitor.alarms import Alarms
from monitor.composing import Help
from monitor.config import Config
from monitor.contacts import build_plans
from monitor.control import Control
from monitor.devices import Devices
from monitor.gateway import Gateway
from monitor.handover import attempt, keep
from monitor.mending import ClockMender
from monitor.metrics import RESULTS_REFUSED
from monitor.progress import Progress
from monitor.results import WindowResult
from monitor.sources import timed_by_gateway
from monitor.status import Status
from monitor.storage.history import History
from monitor.storage.writer import Writer
from monitor.straps import Straps

if TYPE_CHECKING:
    from alerts.channels.channel import Channel
    from ingest.mqtt.source import DeviceState, MqttSource, Rejection
    from monitor.dead_man import DeadMan
    from monitor.heartbeat import Heartbeat


class Watchers:
    """Puts them together.

    Args:
        config: the configuration.
        class_names: plain names by class abbreviation; none without a bundle.
        state: reads what an earlier run left.
        history: of the database that is written to; it need not answer.
        writer: the started writer.
        engine: decides on conditions of hearts, restored.
        rhythms: decides on lethal rhythms, restored.
        channels: of each contact.
        straps: that are paired.
        on_change: called with every condition that begins or ends.
        attended: whether people are told; if not, conditions are stored and nothing else runs.
        listening: from ``monitor.control.claim``; None: nobody can ask the daemon itself.
    """

    def __init__(
        self,
        config: Config,
        class_names: Mapping[str, str],
        state: History,
        history: History,
        writer: Writer,
        engine: Engine,
        rhythms: RhythmEngine,
        channels: Mapping[str, Sequence["Channel"]],
        straps: Straps,
        on_change: Sequence[Callable[[Change], None]],
        *,
        attended: bool,
        listening: socket.socket | None = None,
    ) -> None:
        self._config = config
        self._state = state
        self._history = history
        self._writer = writer
        self._straps = straps
        self._attended = attended
        self.progress = Progress()
        self._devices: Devices | None = None
        self._keeping: set[asyncio.Task[bool]] = set()
        changes = list(on_change)
        signals: list[Callable[[str], None]] = []
        self._house = None
        if attended and config.mqtt is not None:
            from monitor.brokers import House  # noqa: PLC0415 - only where there is a broker

            self._house = House(config, class_names, self._on, self._acknowledge)
            changes.append(self._house.change)
            signals.append(self._house.signals)
        self._mender = self._make_mender() if attended else None
        self.alarms = Alarms(
            engine,
            writer,
            rhythms=rhythms,
            plan_for=build_plans(config) if attended else lambda _: Plan(),
            channels=channels,
            history=history,
            patients=config.names,
            class_names=class_names,
            help_for=Help(config.alarms.emergency_number, config.emergency_notes),
            on_change=changes,
            on_signals=signals,
            on_channel=self._channel,
            on_store=None if self._mender is None else self._mender.note,
            attended=attended,
        )
        names_of_channels = [channel.name for some in channels.values() for channel in some]
        if config.alarms.dead_man is not None:
            names_of_channels.append(DEAD_MAN)
        self.gateway = Gateway(
            GatewayWatch(state.active_alarms()),
            writer,
            config.database.get_secret_value(),
            names_of_channels,
            self.alarms.conclude,
            progress=self.progress,
        )
        self.status = Status(
            config,
            writer,
            self.alarms,
            self.gateway,
            straps=lambda: straps.states,
            stalled=self.gateway.stalled,
            spooling=lambda: writer.spooling,
        )
        self._control: Control | None = None
        if listening is not None:
            self._control = Control(
                listening,
                status=self.status.report,
                request=self.alarms.request,
                stored=self.alarms.stored,
            )
        self._dead_man = self._make_dead_man() if attended else None
        self._heartbeat = self._make_heartbeat(channels) if attended else None
        if attended:
            self.alarms.restore(state)
            if self._house is not None:
                for patient in config.patients:
                    self._house.signals(patient.id)

    def listen(self, known: Collection[Stream]) -> "MqttSource":
        """The source of the configured broker's devices, which are watched from now on.

        Args:
            known: those that sent lately.
        """
        from monitor.brokers import ecg_source  # noqa: PLC0415 - only where there is a broker

        assert self._config.mqtt is not None
        self.status.expect(known)
        others = {*self._straps.streams}
        others.update(Stream(s.patient, s.device) for s in self._config.sources)
        self._devices = Devices(
            known,
            filter(is_technical, self._state.active_alarms()),
            ours=lambda stream: stream not in others,
            conclude=self.alarms.conclude,
            on_sending=[] if self._house is None else [self._house.sending],
        )
        patients = [patient.id for patient in self._config.patients]
        source = ecg_source(self._config.mqtt, patients, self._refused, self._device)
        self.gateway.compare_clocks(source.clocks_apart)
        return source

    def _make_mender(self) -> ClockMender:
        streams = {*self._straps.streams, *timed_by_gateway(self._config.sources)}
        ends = {stream: self._state.last_sample(stream) for stream in streams}
        ended = {stream: end_ns for stream, end_ns in ends.items() if end_ns is not None}
        return ClockMender(streams, ended, self._writer)

    def _make_dead_man(self) -> "DeadMan | None":
        configured = self._config.alarms.dead_man
        if configured is None:
            return None
        from monitor.dead_man import DeadMan  # noqa: PLC0415 - only where there is one

        return DeadMan(
            configured.url.get_secret_value(),
            configured.every,
            hop_s=self._config.window.hop,
            works=lambda: (
                self._writer.healthy
                and self.gateway.model_works
                and self.progress.stalled(watchdog.STALLED_S) is None
            ),
            on_channel=self._channel,
        )

    def _make_heartbeat(self, channels: Mapping[str, Sequence["Channel"]]) -> "Heartbeat | None":
        configured = self._config.alarms.heartbeat
        if configured is None:
            return None
        from monitor.heartbeat import Heartbeat  # noqa: PLC0415 - only where there is one

        return Heartbeat(
            configured,
            self._config.names,
            channels,
            self._history,
            on_channel=self._channel,
            on_delivered=self._delivered,
        )

    @property
    def on_result(self) -> list[Callable[[WindowResult], None]]:
        """Whoever looks at stored results."""
        listeners: list[Callable[[WindowResult], None]] = [
            self.alarms.result,
            self.gateway.result,
            self._straps.result,
            self.status.result,
        ]
        if self._devices is not None:
            listeners.append(self._devices.result)
        if self._house is not None:
            listeners.append(self._house.out.result)
        if self._dead_man is not None:
            listeners.append(self._dead_man.result)
        return listeners

    def chunk(self, chunk: Chunk | RrIntervals) -> None:
        """Take in what a source gave, before the watch for lethal rhythms does."""
        self.status.chunk(chunk)
        if isinstance(chunk, Chunk):
            self.alarms.samples(chunk)

    @property
    def on_rhythm(self) -> list[Callable[[RhythmSeen], None]]:
        """Whoever looks at the verdicts of the watch for lethal rhythms, alarms first."""
        listeners: list[Callable[[RhythmSeen], None]] = [self.alarms.rhythm, self.status.rhythm]
        if self._house is not None:
            listeners.append(self._house.out.rhythm)
        return listeners

    def running(self, stop: asyncio.Event) -> list[Coroutine[Any, Any, None]]:
        """Everything that runs until ``stop``, to be made tasks of."""
        conclude = self.alarms.conclude
        running = [self._straps.run(self._writer, stop, conclude)]
        if self._attended:
            running += [self.alarms.run(self._history, stop), self.gateway.run(stop)]
            running.append(watchdog.feed(stop, self.progress))
        if self._control is not None:
            running.append(self._control.run(stop))
        if self._mender is not None:
            running.append(self._mender.run(stop))
        if self._devices is not None:
            running.append(self._devices.run(stop))
        if self._house is not None:
            running.append(self._house.out.run(stop))
        if self._dead_man is not None:
            running.append(self._dead_man.run(stop))
        if self._heartbeat is not None:
            running.append(self._heartbeat.run(stop))
        return running

    def _on(self, patient: str) -> tuple[Signal, ...]:
        return self.alarms.on(patient)

    def _acknowledge(self, patient: str, alarm_id: str | None, by: str) -> None:
        self.alarms.acknowledge(patient, alarm_id, by)

    def _channel(self, name: str, wrong: str | None) -> None:
        self.status.channel(name, wrong)
        self.gateway.channel(name, wrong)

    def _delivered(self, channel: str) -> None:
        from monitor.proofs import proof  # noqa: PLC0415 - only where there is a heartbeat

        proven = proof(channel, "heartbeat")
        keep(self._keeping, attempt(self._writer, RESULTS_REFUSED, [proven]))

    def _refused(self, rejection: "Rejection") -> None:
        from monitor.brokers import refused  # noqa: PLC0415 - only where there is a broker

        keep(self._keeping, attempt(self._writer, RESULTS_REFUSED, [refused(rejection)]))

    def _device(self, state: "DeviceState") -> None:
        if state.battery is not None:
            self.status.battery(state.stream, state.battery)
        if self._devices is not None and state.battery is not None:
            self._devices.battery(state.stream, state.battery)
        if self._house is not None:
            self._house.out.device(state.stream, battery=state.battery, contact=state.contact)
