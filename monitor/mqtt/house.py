"""Tells the house over MQTT how the patients are, and takes its acknowledgements."""

import asyncio
import contextlib
import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial

import structlog

from alerts.rhythm import LETHAL, RhythmSeen
from ingest.chunk import Stream
from ingest.mqtt.broker import Broker
from monitor.board import RHYTHMS
from monitor.clock import steady_s
from monitor.mqtt import topics
from monitor.mqtt.acknowledgement import LONGEST, RefusedError, decode
from monitor.mqtt.connection import ConnectError, Connection, Incoming
from monitor.mqtt.counts import ACKNOWLEDGEMENTS, ACKNOWLEDGEMENTS_REFUSED, CONNECTED
from monitor.mqtt.discovery import device_config
from monitor.mqtt.leftovers import Leftovers
from monitor.mqtt.state import AlarmNotice, PatientState, alarms_as_json
from monitor.results import WindowResult
from monitor.rhythms import NAMES
from monitor.stopping import pause

_log = structlog.get_logger()

# A state is said at most so often; an alarm at once.
_STATE_S = 1.0

# Everything but discovery is said again so often: who listens can tell a daemon that hangs.
_AGAIN_S = 30.0

_FIRST_RETRY_S = 1.0
_LAST_RETRY_S = 60.0
# A connection that lasts so long was none of those that are refused as soon as they are made.
_STEADY_S = 5.0

# How long the last word may take.
_FAREWELL_S = 2.0

# A refusal is logged so often at most, for each reason.
_REFUSED_S = 60.0
_TOPIC_SHOWN = 160


class MqttOut:
    """Keeps what the broker retains of the patients equal to what is known of them.

    Only the newest counts: there is a set of topics to be said anew and no queue, so a broker that
    is away costs nothing.

    Args:
        broker: where.
        patients: name for people, or None, by id.
        class_names: names for people, by class abbreviation.
        discovery: Home Assistant's discovery prefix; None tells it nothing.
        acknowledge: called on the event loop with a patient, the id of an alarm or None for all of
            them, and who acknowledges; whether that alarm is on is for it to find out.
        now_ns: UTC time, in nanoseconds since 1970.
    """

    def __init__(
        self,
        broker: Broker,
        patients: Mapping[str, str | None],
        class_names: Mapping[str, str],
        *,
        discovery: str | None,
        acknowledge: Callable[[str, str | None, str], None],
        now_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        self._broker = broker
        self._states = {patient: PatientState(class_names) for patient in patients}
        self._alarms: dict[str, Sequence[AlarmNotice]] = dict.fromkeys(patients, ())
        self._acknowledge = acknowledge
        self._now_ns = now_ns
        self._prefix = discovery
        # In the order they are said in: alarms first, and "online" when what it is said of is true.
        self._payloads: dict[str, Callable[[], str]] = {}
        for patient in patients:
            self._payloads[topics.alarm(patient)] = partial(self._alarm, patient)
        for patient in patients:
            self._payloads[topics.state(patient)] = partial(self._state, patient)
        self._spaced = {topics.state(patient) for patient in patients}
        self._payloads[topics.STATUS] = partial(str, "online")
        self._repeated = tuple(self._payloads)
        if discovery is not None:
            rhythms = [class_names[r] for r in RHYTHMS if r in class_names]
            rhythms += [NAMES[rhythm] for rhythm in LETHAL]
            for patient, name in patients.items():
                config = json.dumps(device_config(patient, name, rhythms))
                self._payloads[topics.discovery(discovery, patient)] = partial(str, config)
        self._dirty: set[str] = set()
        self._said_s: dict[str, float] = {}
        self._refused_s: dict[str, float] = {}
        self._tried = False
        self._accepted = False
        self._wake = asyncio.Event()
        self._leftovers = Leftovers(patients, discovery)

    def result(self, result: WindowResult) -> None:
        """Take in a stored result."""
        patient = result.stream.patient
        if (state := self._states.get(patient)) is not None:
            state.result(result, now_ns=self._now_ns(), now_s=steady_s())
            self._soil(topics.state(patient))

    def rhythm(self, seen: RhythmSeen) -> None:
        """Take in a verdict of the watch for lethal rhythms; told at once if it is news."""
        state = self._states.get(seen.patient)
        if state is not None and state.rhythm(seen, now_ns=self._now_ns(), now_s=steady_s()):
            self._soil(topics.state(seen.patient))

    def device(
        self,
        stream: Stream,
        *,
        connected: bool | None = None,
        battery: int | None = None,
        contact: bool | None = None,
    ) -> None:
        """Take in what a device says of itself; None is no news."""
        if (state := self._states.get(stream.patient)) is not None:
            state.device(stream, connected, battery, contact)
            self._soil(topics.state(stream.patient))

    def alarms(self, patient: str, alarms: Sequence[AlarmNotice]) -> None:
        """Take in all alarms of a patient that are on now."""
        if patient in self._alarms:
            self._alarms[patient] = tuple(alarms)
            self._soil(topics.alarm(patient))

    async def run(self, stop: asyncio.Event) -> None:
        """Connect, again and again for ever, and tell, until ``stop`` is set."""
        stopping = asyncio.create_task(stop.wait())
        stopping.add_done_callback(lambda _: self._wake.set())
        retry_s, told = _FIRST_RETRY_S, ""
        try:
            while not stop.is_set():
                begun_s = steady_s()
                why = await self._tell(stop)
                if stop.is_set():
                    break
                if steady_s() - begun_s >= _STEADY_S:
                    retry_s, told = _FIRST_RETRY_S, ""
                # One line for each new cause, not for each attempt.
                if told != why:
                    told = why
                    _log.warning("mqtt: cannot tell the house; trying on", reason=why)
                await pause(stop, retry_s)
                retry_s = min(2 * retry_s, _LAST_RETRY_S)
        finally:
            stopping.cancel()

    async def _tell(self, stop: asyncio.Event) -> str:
        """Connect and tell until ``stop`` is set or there is no connection; returns why not."""
        connection = self._connection()
        try:
            await connection.open()
        except ConnectError as error:
            return str(error)
        try:
            await self._serve(connection, stop)
        finally:
            CONNECTED.set(0)
            await connection.close(orderly=stop.is_set())
        return connection.why or ""

    def _connection(self) -> Connection:
        listen = [topics.ANY_ACKNOWLEDGEMENT, *self._leftovers.listened]
        if self._prefix is not None:
            listen.append(f"{self._prefix}/status")
        return Connection(
            self._broker,
            will=(topics.STATUS, "offline"),
            subscriptions=listen,
            longest=LONGEST,
            on_message=self._take,
            on_refused=self._renounce,
            on_change=self._wake.set,
        )

    async def _serve(self, connection: Connection, stop: asyncio.Event) -> None:
        """Tell what is new until the connection ends or ``stop`` is set."""
        _log.info("mqtt: telling the house", broker=str(self._broker))
        CONNECTED.set(1)
        self._said_s.clear()
        self._tried = self._accepted
        self._dirty.update(self._payloads)
        now_s = steady_s()
        self._leftovers.begin(now_s)
        again_s = now_s + _AGAIN_S
        while connection.why is None and not stop.is_set():
            self._wake.clear()
            now_s = steady_s()
            if now_s >= again_s:
                again_s = now_s + _AGAIN_S
                self._dirty.update(self._repeated)
            self._tidy(connection, now_s)
            next_s = min(again_s, self._say(connection, now_s), self._leftovers.due_s or math.inf)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(max(next_s - now_s, 0.0)):
                    await self._wake.wait()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_FAREWELL_S):
                await self._say_goodbye(connection)

    def _say(self, connection: Connection, now_s: float) -> float:
        """Publish what is to be said now; returns when there is more, on the same clock."""
        next_s = math.inf
        for topic in [topic for topic in self._payloads if topic in self._dirty]:
            # The next confirmation wakes us.
            if not connection.has_room or not (topic in self._repeated or self._may(connection)):
                break
            due_s = self._said_s.get(topic, -math.inf) + _STATE_S
            if topic in self._spaced and due_s > now_s:
                next_s = min(next_s, due_s)
                continue
            self._dirty.discard(topic)
            self._said_s[topic] = now_s
            payload = self._payloads[topic]()
            connection.publish(topic, payload)
            if not payload:
                # Cleared, and none of ours: once is enough.
                del self._payloads[topic]
        return next_s

    def _may(self, connection: Connection) -> bool:
        """Whether to go on to discovery.

        One first, and alone: if it is refused, the refusal must not get lost with the connection.
        """
        if not self._accepted:
            if not connection.idle:
                return False
            # Had the one before been refused, there would be none left.
            self._accepted, self._tried = self._tried, True
        return True

    def _renounce(self, topic: str, why: str) -> None:
        """Say no more on a topic that the broker refused.

        Mosquitto (2.0.22 and earlier, issue 2579) breaks the connection of an MQTT 5 client that
        publishes where it may not: to insist would be to say nothing at all.
        """
        where = {topic} if topic in self._repeated else {*self._payloads} - {*self._repeated}
        for renounced in where:
            self._payloads.pop(renounced, None)
        _log.warning(
            "mqtt: the broker does not let us publish; not tried again", topic=topic, reason=why
        )

    async def _say_goodbye(self, connection: Connection) -> None:
        self._say(connection, math.inf)
        while not connection.has_room and connection.why is None:
            await self._woken()
        connection.publish(topics.STATUS, "offline")
        while not connection.idle and connection.why is None:
            await self._woken()

    async def _woken(self) -> None:
        self._wake.clear()
        await self._wake.wait()

    def _tidy(self, connection: Connection, now_s: float) -> None:
        """Clear what an earlier run left, when it is time to."""
        listened = self._leftovers.listened
        if (left := self._leftovers.take(now_s)) is None:
            return
        connection.unsubscribe(listened)
        for topic in left:
            _log.info("mqtt: clearing what an earlier run left", topic=topic)
            self._payloads[topic] = str
            self._dirty.add(topic)

    def _soil(self, topic: str) -> None:
        self._dirty.add(topic)
        self._wake.set()

    def _state(self, patient: str) -> str:
        state = self._states[patient]
        return json.dumps(state.as_json(now_ns=self._now_ns(), now_s=steady_s()))

    def _alarm(self, patient: str) -> str:
        return json.dumps(alarms_as_json(self._alarms[patient]))

    def _take(self, message: Incoming) -> None:
        """Take in a message from the broker."""
        if message.topic == f"{self._prefix}/status":
            if message.payload == b"online" and not message.retained:
                _log.info("mqtt: Home Assistant has started")
                self._dirty.update(self._payloads)
                self._wake.set()
        elif message.topic.endswith("/ack"):
            self._take_acknowledgement(message)
        else:
            self._leftovers.hear(
                message.topic, retained=message.retained, empty=not message.payload
            )

    def _take_acknowledgement(self, message: Incoming) -> None:
        parsed = topics.parse(message.topic)
        if message.retained:
            self._refuse("retained", message, "an acknowledgement must not be retained")
            return
        if parsed is None or parsed[0] not in self._states:
            self._refuse("patient", message, "no such patient")
            return
        try:
            said = decode(message.payload)
        except RefusedError as error:
            self._refuse("payload", message, str(error))
            return
        ACKNOWLEDGEMENTS.inc()
        try:
            self._acknowledge(parsed[0], said.alarm, said.by)
        except Exception:  # noqa: BLE001 - telling the house goes on
            _log.exception("mqtt: acknowledgement failed", patient=parsed[0])

    def _refuse(self, reason: str, message: Incoming, detail: str) -> None:
        ACKNOWLEDGEMENTS_REFUSED.labels(reason).inc()
        now_s = steady_s()
        # Whoever floods us must not flood the log too.
        if now_s - self._refused_s.get(reason, -math.inf) >= _REFUSED_S:
            self._refused_s[reason] = now_s
            topic = message.topic[:_TOPIC_SHOWN]
            _log.warning("mqtt: acknowledgement refused", topic=topic, reason=detail)
