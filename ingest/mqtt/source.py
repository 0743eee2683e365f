"""All devices that speak MQTT, as one source of chunks."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from dataclasses import dataclass

from ingest.chunk import Chunk, Stream
from ingest.mqtt.admission import Admission
from ingest.mqtt.broker import Broker
from ingest.mqtt.counts import ACCEPTED
from ingest.mqtt.limits import Limits
from ingest.mqtt.link import Delivery, Link
from ingest.mqtt.order import Order, Ordered
from ingest.mqtt.payload import RefusedError
from ingest.mqtt.refusals import Refusals, Rejection
from ingest.mqtt.topics import TopicMap
from ingest.mqtt.trust import Trust

__all__ = ["DeviceState", "MqttSource", "Rejection"]


@dataclass(frozen=True, slots=True)
class DeviceState:
    """What is known of a device beside its samples.

    Attributes:
        stream: of the device.
        contact: whether the electrodes touch the skin; None until it has said so.
        battery: percent; None until it has said so.
        at_ns: UTC time of the message that brought the change, in nanoseconds since 1970.
    """

    stream: Stream
    contact: bool | None
    battery: int | None
    at_ns: int


class MqttSource:
    """Takes ECG from a broker.

    A message is acknowledged when its chunk is, so that the broker delivers again what a crash
    keeps from becoming durable. What is delivered again makes the same chunk again.

    Args:
        broker: to be connected to.
        topics: to listen to.
        limits: of every device.
        patients: those whose signal is taken.
        on_reject: told of refused messages, the first of each reason and one a minute.
        on_device: told when the contact or the battery of a device changes.
        now_ns: UTC time, in nanoseconds.
        monotonic_ns: a clock that nobody sets.
        synchronised: whether something that knows the time has set the clock of ``now_ns``; while
            nobody knows, no message is refused for its time (``ingest.mqtt.trust``).
    """

    def __init__(
        self,
        broker: Broker,
        topics: Sequence[TopicMap],
        limits: Limits,
        patients: Collection[str],
        *,
        on_reject: Callable[[Rejection], None],
        on_device: Callable[[DeviceState], None],
        now_ns: Callable[[], int] = time.time_ns,
        monotonic_ns: Callable[[], int] = time.monotonic_ns,
        synchronised: Callable[[], bool] = lambda: True,
    ) -> None:
        self.name = f"mqtt {broker}"
        self.live = True
        self._broker = broker
        self._filters = [topic.filter for topic in topics]
        self._payload = limits.payload
        self._trust = Trust(limits.ahead, synchronised)
        self._admission = Admission(topics, limits, patients, self._forget, self._trust)
        self._refusals = Refusals(on_reject)
        self._on_device = on_device
        self._now_ns = now_ns
        self._monotonic_ns = monotonic_ns
        self._orders: dict[Stream, Order] = {}
        # Those among them in which messages wait for earlier ones: of hundreds, a few at most.
        self._held: dict[Stream, Order] = {}
        self._states: dict[Stream, tuple[bool | None, int | None]] = {}

    def clocks_apart(self) -> dict[Stream, float]:
        """The devices whose clocks disagree with the gateway's, and how far each is ahead, in s."""
        return self._trust.apart(self._now_ns(), self._monotonic_ns())

    async def chunks(self) -> AsyncIterator[Chunk]:
        """Yield what the devices send, for ever; closing it disconnects from the broker."""
        waiting = asyncio.Event()
        link = Link(self._broker, self._filters, self._payload, waiting.set)
        running = asyncio.create_task(link.run())
        running.add_done_callback(lambda _: waiting.set())
        try:
            while True:
                waiting.clear()
                while (delivery := link.take()) is not None:
                    for chunk in self._receive(delivery):
                        yield chunk
                    for chunk in self._release():
                        yield chunk
                    # However much comes, others have their turn.
                    await asyncio.sleep(0)
                for chunk in self._release():
                    yield chunk
                if running.done():
                    await running  # it ends by a fault of its own only: raise it
                await self._wait(waiting)
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)

    async def _wait(self, waiting: asyncio.Event) -> None:
        """Wait for a message, or until one that waits for others has waited long enough."""
        due_ns = [order.due_ns for order in self._held.values() if order.due_ns is not None]
        timeout = None
        if due_ns:
            timeout = max(0.0, (min(due_ns) - self._monotonic_ns()) / 1e9)
        try:
            async with asyncio.timeout(timeout):
                await waiting.wait()
        except TimeoutError:
            pass

    def _receive(self, delivery: Delivery) -> list[Chunk]:
        now_ns, utc_ns = self._monotonic_ns(), self._now_ns()
        try:
            stream, message = self._admission.admit(
                delivery.topic,
                delivery.payload,
                retained=delivery.retained,
                again=delivery.again,
                utc_ns=utc_ns,
                now_ns=now_ns,
            )
        except RefusedError as error:
            self._refusals.refuse(error, delivery.topic, delivery.payload, utc_ns, now_ns)
            delivery.acknowledge()
            return []
        ACCEPTED.inc()
        order = self._orders.setdefault(stream, Order())
        chunks = [
            self._chunk(stream, ordered)
            for ordered in order.take(message, delivery.acknowledge, now_ns)
        ]
        if order.due_ns is not None:
            self._held[stream] = order
        return chunks

    def _release(self) -> list[Chunk]:
        """What has waited long enough for messages that did not come."""
        if not self._held:
            return []
        now_ns = self._monotonic_ns()
        chunks = [
            self._chunk(stream, ordered)
            for stream, order in self._held.items()
            for ordered in order.release(now_ns)
        ]
        self._held = {s: order for s, order in self._held.items() if order.due_ns is not None}
        return chunks

    def _chunk(self, stream: Stream, ordered: Ordered) -> Chunk:
        message = ordered.message
        known = contact, battery = self._states.get(stream, (None, None))
        if message.contact is not None:
            contact = message.contact
        if message.battery is not None:
            battery = message.battery
        if (contact, battery) != known:
            self._states[stream] = contact, battery
            self._on_device(DeviceState(stream, contact, battery, message.t0_ns))
        return Chunk(
            stream,
            message.t0_ns,
            message.rate,
            message.microvolts,
            contact=message.contact,
            sequence=message.sequence,
            gap_cause=ordered.gap_cause,
            acknowledge=ordered.receipt.settle,
        )

    def _forget(self, stream: Stream) -> None:
        self._orders.pop(stream, None)
        self._held.pop(stream, None)
        self._states.pop(stream, None)
