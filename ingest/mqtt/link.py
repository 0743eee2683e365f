"""Keeps a session with the broker, for ever, and hands on what comes."""

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import structlog
from paho.mqtt.client import MQTT_LOG_ERR, Client, MQTTMessage
from paho.mqtt.reasoncodes import ReasonCode

from ingest.mqtt.broker import Broker, connect, explain, join, make_client
from ingest.mqtt.counts import CONNECTED, DROPPED

_log = structlog.get_logger()

# What waits for the event loop. Beyond either, messages of QoS 0 are dropped, whose sender chose
# that they may be lost; those of QoS 1 cannot be more than the broker sends unacknowledged.
_WAITING: Final = 4096
_WAITING_BYTES: Final = 64 * 1024 * 1024

_FIRST_PAUSE_S: Final = 1.0
_LONGEST_PAUSE_S: Final = 60.0
# How often to look after the network thread, and to ask again for a topic that was refused.
_CARE_S: Final = 5.0
_ASK_AGAIN_S: Final = 60.0

# Connections that end so soon, and how many of them are more than an accident.
_SHORT_S: Final = 10.0
_FLAPS: Final = 3

_SILENT: Final = 141  # what paho gives for a broker that does not answer


@dataclass(frozen=True, slots=True, eq=False)
class Delivery:
    """A message as it came, and how to answer it on the event loop."""

    topic: str
    payload: bytes
    retained: bool
    again: bool
    acknowledge: Callable[[], None]


def _nothing() -> None:
    """Answer a message of QoS 0."""


class Link:
    """One persistent session with the broker.

    Every connection has a client of its own: an acknowledgement can so never reach another
    connection than that of its message, where its number may be another message's; and renewed
    certificates are read without a restart.

    Args:
        broker: to be connected to.
        filters: to subscribe to, at QoS 1.
        payload: bytes of a message beyond which it is cut off, one byte too long.
        on_waiting: called on the event loop when ``take`` has something new.
    """

    def __init__(
        self,
        broker: Broker,
        filters: Sequence[str],
        payload: int,
        on_waiting: Callable[[], None],
    ) -> None:
        self._broker = broker
        self._filters = filters
        self._payload = payload
        self._on_waiting = on_waiting
        self._waiting: deque[Delivery] = deque()
        self._bytes = 0
        self._lock = threading.Lock()
        self._dropping = False
        self._told: str | None = None
        self._flaps = 0

    def take(self) -> Delivery | None:
        """The message that waits longest, or None."""
        with self._lock:
            if not self._waiting:
                return None
            delivery = self._waiting.popleft()
            self._bytes -= len(delivery.payload)
            return delivery

    async def run(self) -> None:
        """Connect, and again whenever that fails or ends, until cancelled."""
        pause_s = _FIRST_PAUSE_S
        while True:
            connection = _Connection(
                self._broker, self._filters, self._payload, self._hear, self._greeted
            )
            began_s = time.monotonic()
            try:
                cause = await connection.last()
            finally:
                CONNECTED.set(0)
            if connection.was_up:
                pause_s = _FIRST_PAUSE_S
                self._flaps = self._flaps + 1 if time.monotonic() - began_s < _SHORT_S else 0
            if self._flaps >= _FLAPS:
                cause += ", again and again: is there another client with the same mqtt.client_id?"
            if cause != self._told:
                self._told = cause
                _log.warning(
                    "no connection to the MQTT broker", broker=str(self._broker), cause=cause
                )
            await asyncio.sleep(pause_s)
            pause_s = min(pause_s * 2, _LONGEST_PAUSE_S)

    def _greeted(self) -> None:
        CONNECTED.set(1)
        if self._flaps < _FLAPS:
            self._told = None
            _log.info("connected to the MQTT broker", broker=str(self._broker))

    def _hear(self, loop: asyncio.AbstractEventLoop, delivery: Delivery) -> None:
        """Take a message in, on the network thread."""
        with self._lock:
            full = len(self._waiting) >= _WAITING or self._bytes >= _WAITING_BYTES
            tell, self._dropping = full and not self._dropping, full
            if full and delivery.acknowledge is _nothing:
                DROPPED.inc()
                if tell:
                    _log.error("MQTT messages of QoS 0 dropped: nothing takes them")
                return
            first = not self._waiting
            self._waiting.append(delivery)
            self._bytes += len(delivery.payload)
        if first:
            loop.call_soon_threadsafe(self._on_waiting)


class _Connection:
    """From one connect to the disconnect that follows."""

    def __init__(
        self,
        broker: Broker,
        filters: Sequence[str],
        payload: int,
        hear: Callable[[asyncio.AbstractEventLoop, Delivery], None],
        greeted: Callable[[], None],
    ) -> None:
        self._broker = broker
        self._filters = filters
        self._payload = payload
        self._hear = hear
        self._greeted = greeted
        self._loop = asyncio.get_running_loop()
        self._ended = asyncio.Event()
        self._client: Client | None = None
        self._cause: str | None = None
        self._tls_said: str | None = None
        self._asked: dict[int, str] = {}
        self._refused: set[str] = set()
        self.was_up = False

    async def last(self) -> str:
        """Connect and stay until that ends; say why, in one line."""
        opening = asyncio.ensure_future(asyncio.to_thread(self._open))
        try:
            client = await asyncio.shield(opening)
        except asyncio.CancelledError:
            await asyncio.wait({opening})
            if not opening.cancelled() and opening.exception() is None:
                await self._close(opening.result())
            raise
        except (OSError, ValueError) as error:
            return explain(error)
        self._client = client
        try:
            client.loop_start()
            await self._care(client)
        finally:
            self._client = None
            await asyncio.shield(self._close(client))
        if self._cause is None and self._tls_said is not None:
            self._cause = explain(self._tls_said)
        if self._cause is None:
            self._cause = "the broker closed the connection"
            if not self.was_up:
                self._cause += f" without an answer: {self._suspicion()}"
        return self._cause

    def _suspicion(self) -> str:
        if not self._broker.tls:
            return "check mqtt.url, its port may speak TLS"
        # Its alert that says so is lost when its end comes in right behind.
        if self._broker.certificate is None:
            return "it may want a certificate of ours, set mqtt.certificate"
        return "it may refuse our certificate (mqtt.certificate)"

    def _open(self) -> Client:
        client = make_client(self._broker, persistent=True, manual_ack=True, reconnect=False)
        client.on_connect = self._on_connect
        client.on_disconnect = self._on_disconnect
        client.on_subscribe = self._on_subscribe
        client.on_message = self._on_message
        client.on_log = self._on_log
        connect(client, self._broker, persistent=True)
        return client

    async def _care(self, client: Client) -> None:
        asked_s = time.monotonic()
        while not self._ended.is_set():
            try:
                async with asyncio.timeout(_CARE_S):
                    await self._ended.wait()
            except TimeoutError:
                # A fault in paho ends its thread without a word.
                if client._thread is None:  # noqa: SLF001
                    self._cause = self._cause or "the network thread ended by a fault"
                    return
            if self._refused and time.monotonic() - asked_s > _ASK_AGAIN_S:
                asked_s = time.monotonic()
                for topic in self._refused:
                    self._ask(client, topic)

    async def _close(self, client: Client) -> None:
        client.disconnect()
        await asyncio.to_thread(join, client)
        # They hold this object and it holds the client: let both go at once.
        client.on_connect = client.on_disconnect = client.on_subscribe = None
        client.on_message = client.on_log = None

    def _ask(self, client: Client, topic: str) -> None:
        _, mid = client.subscribe(topic, qos=1)
        if mid is not None:
            self._asked[mid] = topic

    def _answered(self, mid: int, refused: bool) -> None:
        topic = self._asked.pop(mid)
        if not refused:
            self._refused.discard(topic)
        elif topic not in self._refused:
            self._refused.add(topic)
            _log.error("the MQTT broker does not let us read a topic", topic=topic)

    # What follows is called by paho on its network thread, and must not raise: that would end it.

    def _on_connect(
        self, client: Client, _data: Any, _flags: Any, reason: ReasonCode, _properties: Any
    ) -> None:
        if reason.is_failure:
            self._cause = explain(reason)
            return
        self.was_up = True
        self._loop.call_soon_threadsafe(self._greeted)
        for topic in self._filters:
            self._ask(client, topic)

    def _on_disconnect(
        self, _client: Client, _data: Any, flags: Any, reason: ReasonCode, _properties: Any
    ) -> None:
        if flags.is_disconnect_packet_from_server:
            self._cause = explain(reason)
        elif reason.value == _SILENT:
            self._cause = "the broker does not answer any more"
        self._loop.call_soon_threadsafe(self._ended.set)

    def _on_subscribe(
        self, _client: Client, _data: Any, mid: int, reasons: list[ReasonCode], _properties: Any
    ) -> None:
        refused = any(reason.is_failure for reason in reasons)
        self._loop.call_soon_threadsafe(self._answered, mid, refused)

    def _on_message(self, client: Client, _data: Any, message: MQTTMessage) -> None:
        mid = message.mid

        def acknowledge() -> None:
            # A connection that has ended answers nothing: the broker delivers again.
            if self._client is client:
                client.ack(mid, 1)

        try:
            topic = message.topic
        except UnicodeDecodeError:
            topic = "(not UTF-8)"
        self._hear(
            self._loop,
            Delivery(
                topic,
                bytes(message.payload[: self._payload + 1]),
                message.retain,
                message.dup,
                acknowledge if message.qos else _nothing,
            ),
        )

    def _on_log(self, _client: Client, _data: Any, level: int, text: str) -> None:
        # What TLS has against us comes after the handshake, and paho only logs it.
        if level == MQTT_LOG_ERR and "[SSL" in text:
            self._tls_said = text
