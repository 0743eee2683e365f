"""One connection to the broker, from CONNECT to its end, between paho's thread and the event loop.

A new connection has a new client: what an old one had not yet got rid of is stale by then, and a
certificate that was renewed meanwhile is read again.
"""

import asyncio
import contextlib
import socket
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import structlog
from paho.mqtt.client import Client, MQTTMessage
from paho.mqtt.enums import MQTTErrorCode
from paho.mqtt.reasoncodes import ReasonCode

from ingest.mqtt.broker import Broker, BrokerError, connect, explain, join, make_client
from monitor.mqtt.counts import INCOMING_DROPPED, PUBLISHED, REFUSED

_log = structlog.get_logger()

# Unconfirmed messages at a time; what else there is to say waits, and is replaced by newer.
_UNCONFIRMED = 20

# Messages on their way from paho's thread to the event loop; more are dropped, and counted.
_INCOMING = 256

_CONNECT_S = 10.0
_CLOSE_S = 3.0
_QOS = 1


class ConnectError(OSError):
    """There is no connection: one line that says why."""


@dataclass(frozen=True, slots=True)
class Incoming:
    """A message from the broker.

    Attributes:
        topic: where it was published.
        payload: at most as long as asked for, and a byte more where it was longer.
        retained: it was published before we subscribed.
    """

    topic: str
    payload: bytes
    retained: bool


class Connection:
    """Publishes with QoS 1 and takes messages; everything here is called on the event loop.

    Args:
        broker: which.
        will: topic and payload of the last will, retained.
        subscriptions: topics to listen to.
        longest: bytes of a payload that are taken over.
        on_message: called with every message.
        on_refused: called with a topic we may not publish to, and why.
        on_change: called when the connection ends or there is room for another message.
    """

    def __init__(
        self,
        broker: Broker,
        *,
        will: tuple[str, str],
        subscriptions: Sequence[str],
        longest: int,
        on_message: Callable[[Incoming], None],
        on_refused: Callable[[str, str], None],
        on_change: Callable[[], None],
    ) -> None:
        self._broker = broker
        self._will = will
        self._subscriptions = subscriptions
        self._longest = longest
        self._on_message = on_message
        self._on_refused = on_refused
        self._on_change = on_change
        self._loop = asyncio.get_running_loop()
        self._client: Client | None = None
        self._greeted: asyncio.Future[ReasonCode] = self._loop.create_future()
        self._ended = asyncio.Event()
        self._unconfirmed: dict[int, str] = {}
        self._room = threading.Semaphore(_INCOMING)
        self.why: str | None = None
        """Why the connection ended; None while it lasts."""

    async def open(self) -> None:
        """Connect and subscribe.

        Raises:
            ConnectError: if that fails; there is nothing to close then.
        """
        try:
            client = make_client(
                self._broker, suffix="-out", persistent=False, manual_ack=False, reconnect=False
            )
        except (BrokerError, OSError) as error:
            raise ConnectError(explain(error)) from None
        self._client = client
        client.will_set(*self._will, qos=_QOS, retain=True)
        client.on_connect = self._connected
        client.on_disconnect = self._disconnected
        client.on_subscribe = self._subscribed
        client.on_publish = self._confirmed
        client.on_message = self._received
        connecting = asyncio.ensure_future(
            asyncio.to_thread(connect, client, self._broker, persistent=False)
        )
        try:
            await asyncio.shield(connecting)
            client.loop_start()
            async with asyncio.timeout(_CONNECT_S):
                reason = await self._greeted
        except asyncio.CancelledError:
            await asyncio.wait({connecting})
            await self.close(orderly=False)
            raise
        except (OSError, ValueError) as error:
            await self.close(orderly=False)
            raise ConnectError(
                "the broker does not answer" if isinstance(error, TimeoutError) else explain(error)
            ) from None
        if reason.is_failure:
            await self.close(orderly=False)
            raise ConnectError(explain(reason))
        for topic in self._subscriptions:
            client.subscribe(topic, _QOS)

    @property
    def idle(self) -> bool:
        """Whether all that was published is confirmed."""
        return not self._unconfirmed

    @property
    def has_room(self) -> bool:
        """Whether another message may be published."""
        return self.why is None and len(self._unconfirmed) < _UNCONFIRMED

    def publish(self, topic: str, payload: str) -> None:
        """Publish a retained message; an empty one clears the topic."""
        if self._client is None or not self.has_room:
            return
        sent = self._client.publish(topic, payload, _QOS, retain=True)
        if sent.rc == MQTTErrorCode.MQTT_ERR_SUCCESS:
            self._unconfirmed[sent.mid] = topic

    def unsubscribe(self, topics: Sequence[str]) -> None:
        """Listen to some topics no longer."""
        if self._client is not None and self.why is None:
            self._client.unsubscribe(list(topics))

    async def close(self, *, orderly: bool) -> None:
        """End the connection within seconds; with the last will unless it ends in order."""
        client, self._client = self._client, None
        if client is None:
            return
        if orderly:
            client.disconnect()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_CLOSE_S):
                    await self._ended.wait()
        if isinstance(left := client.socket(), socket.socket):
            # The thread would wait for as long as the connection hangs. Not the method of a TLS
            # socket, which takes its state away from under that thread.
            with contextlib.suppress(OSError):
                socket.socket.shutdown(left, socket.SHUT_RDWR)
        await asyncio.to_thread(join, client)

    # What follows is called on paho's thread, and hands over to the event loop.

    def _post(self, call: Callable[..., None], *args: object) -> None:
        # The loop may have been closed without waiting for this thread.
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(call, *args)

    def _connected(
        self, _client: Client, _data: Any, _flags: Any, reason: ReasonCode, _properties: Any
    ) -> None:
        self._post(self._greet, reason)

    def _disconnected(
        self, _client: Client, _data: Any, _flags: Any, reason: ReasonCode, _properties: Any
    ) -> None:
        self._post(self._end, reason)

    def _subscribed(
        self, _client: Client, _data: Any, _mid: int, reasons: list[ReasonCode], _properties: Any
    ) -> None:
        for reason in reasons:
            if reason.is_failure:
                self._post(self._deaf, explain(reason))

    def _confirmed(
        self, _client: Client, _data: Any, mid: int, reason: ReasonCode, _properties: Any
    ) -> None:
        self._post(self._confirm, mid, reason)

    def _received(self, _client: Client, _data: Any, message: MQTTMessage) -> None:
        if not self._room.acquire(blocking=False):
            INCOMING_DROPPED.inc()
            return
        payload = bytes(message.payload[: self._longest + 1])
        try:
            topic = message.topic
        except UnicodeDecodeError:
            topic = ""
        self._post(self._take, Incoming(topic, payload, message.retain))

    # And this on the event loop.

    def _greet(self, reason: ReasonCode) -> None:
        if not self._greeted.done():
            self._greeted.set_result(reason)

    def _end(self, reason: ReasonCode) -> None:
        if self._ended.is_set():
            return
        # That is what paho makes of a connection that ends without a word.
        self.why = "the connection broke" if reason == "Unspecified error" else explain(reason)
        self._ended.set()
        if not self._greeted.done():
            self._greeted.set_exception(ConnectionError(self.why))
        self._on_change()

    def _deaf(self, why: str) -> None:
        _log.warning("mqtt: the broker does not let us listen", reason=why)

    def _confirm(self, mid: int, reason: ReasonCode) -> None:
        topic = self._unconfirmed.pop(mid, "")
        if reason.is_failure:
            REFUSED.inc()
            self._on_refused(topic, explain(reason))
        else:
            PUBLISHED.inc()
        self._on_change()

    def _take(self, message: Incoming) -> None:
        self._room.release()
        self._on_message(message)
