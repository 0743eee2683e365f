"""Hands over what people are to be told: at least once, in order, and never for nothing.

What is urgent does not stand behind what is not, on no channel.

What is due goes by the steady clock. A notification says in UTC when it is due, by the clock as
the signals took it last (``Outbox.follow``): a clock that is set hastens nothing here, since the
signals move every notification (``ClockSet``) before this hears of it.

What is to be told is in the database before it is here, written with the change that it tells of.
Here it is kept in memory too, so that a database that is away silences nobody.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import IntEnum
from typing import TYPE_CHECKING, TypeVar

import structlog

from alerts.channels.channel import DeliveryError, Message
from alerts.records import Cancelled, ClockSet, Kind, Notification, Output
from alerts.technical import Moment
from monitor.clock import now as present
from monitor.handover import keep
from monitor.metrics import NOTIFICATION_FAILURES, NOTIFICATIONS_SENT, NOTIFICATIONS_WAITING
from monitor.storage.records import Delivery, Record, Settled

if TYPE_CHECKING:
    from alerts.channels.channel import Channel

_log = structlog.get_logger()

_Done = TypeVar("_Done")

SEND_S = 20.0
"""How long a channel may take for one message, in seconds."""

FIRST_RETRY_S = 2.0
LONGEST_RETRY_S = 300.0
# What is urgent must not sit out the return of a network.
URGENT_RETRY_S = 30.0

GIVE_UP_S = 24 * 3600.0
"""What nobody took within a day would be read as news of today."""

RETRYING, DELIVERED, FAILED = "retrying", "delivered", "failed"

_IDLE_S = 1.0
_STORE_S = 5.0  # for what is left to be stored at the end


class Urgency(IntEnum):
    """Which messages go first: what is on and of high priority, the rest, what is over."""

    URGENT = 0
    USUAL = 1
    OVER = 2


@dataclass(slots=True)
class _Item:
    """One notification on one channel of its contact."""

    notification: Notification
    order: int
    attempts: int = 0
    ready_s: float = 0.0
    """By the steady clock; a retry waits for it."""
    first_s: float | None = None


@dataclass(slots=True)
class _Lane:
    """One channel: one message at a time, of each alarm in their order."""

    channel: "Channel"
    items: dict[str, _Item] = field(default_factory=dict)
    sending: str | None = None
    held_until_s: float = 0.0
    wake: asyncio.Event = field(default_factory=asyncio.Event)


class Outbox:
    """Delivers notifications over the channels of their contacts.

    Args:
        channels: of each contact.
        compose: puts a notification into words; None if there is nothing to be told any more.
        store: makes records durable, or leaves them to the writer.
        urgency: which notifications go first; those of one alarm go in their order all the same.
        on_channel: told whether a channel works, and why not.
        now: the time.
    """

    def __init__(
        self,
        channels: Mapping[str, Sequence["Channel"]],
        *,
        compose: Callable[[Notification], Awaitable[Message | None]],
        store: Callable[..., Coroutine[None, None, None]],
        on_channel: Callable[[str, str | None], None],
        urgency: Callable[[Notification], Urgency] = lambda _: Urgency.USUAL,
        now: Callable[[], Moment] = present,
    ) -> None:
        self._compose = compose
        self._store = store
        self._on_channel = on_channel
        self._urgency = urgency
        self._now = now
        begun = now()
        # UTC less the steady clock, as the signals have it.
        self._ahead_ns = begun.utc_ns - begun.steady_ns
        self._of = {
            contact: [_Lane(channel) for channel in some] for contact, some in channels.items()
        }
        self._lanes = [lane for lanes in self._of.values() for lane in lanes]
        self._done: dict[str, dict[str, str]] = {}
        self._abandoned: list[Record] = []
        self._order = 0
        self._storing: set[asyncio.Task[None]] = set()

    @property
    def waiting(self) -> int:
        """How many messages are still to be delivered, due or not."""
        return sum(len(lane.items) for lane in self._lanes)

    @property
    def pending(self) -> list[Notification]:
        """What is still to be delivered, each once."""
        found = (item.notification for lane in self._lanes for item in lane.items.values())
        return list({notification.key: notification for notification in found}.values())

    @property
    def has_channels(self) -> bool:
        """Whether there is anybody to tell."""
        return bool(self._lanes)

    def restore(self, waiting: Iterable[tuple[Notification, Sequence[Delivery]]]) -> None:
        """Take up what an earlier run left; what a channel has taken is not sent there again."""
        for notification, tried in waiting:
            key = notification.key
            done = {d.channel: d.state for d in tried if d.state in (DELIVERED, FAILED)}
            lanes = self._of.get(notification.contact, ())
            if all(lane.channel.name in done for lane in lanes):
                # The contact is no longer configured, or what is left of its channels has it.
                state = DELIVERED if DELIVERED in done.values() else FAILED
                self._abandoned.append(Settled(key, state))
                continue
            self._done[key] = done
            self._put(notification, {d.channel: d.attempts for d in tried})

    def take(self, outputs: Iterable[Output]) -> None:
        """Take in what the signals put out, in its order."""
        for output in outputs:
            match output:
                case Notification():
                    self._put(output, {})
                case ClockSet():
                    self._ahead_ns += output.by_ns
                    for lane in self._lanes:
                        for item in lane.items.values():
                            due_ns = item.notification.due_ns + output.by_ns
                            item.notification = replace(item.notification, due_ns=due_ns)
                case Cancelled():
                    for lane in self._lanes:
                        for key, item in list(lane.items.items()):
                            if item.notification.alarm_id == output.alarm_id:
                                del lane.items[key]
                                self._done.pop(key, None)
        NOTIFICATIONS_WAITING.set(self.waiting)

    def follow(self, ahead_ns: int) -> None:
        """Take over the signals' clock; to be called when all that they put out was taken.

        Args:
            ahead_ns: UTC less the steady clock, in nanoseconds.
        """
        self._ahead_ns = ahead_ns

    def _time(self) -> tuple[int, float]:
        """The time by which things are due, in UTC nanoseconds, and the steady clock in seconds."""
        steady_ns = self._now().steady_ns
        return steady_ns + self._ahead_ns, steady_ns / 1e9

    def _put(self, notification: Notification, attempts: Mapping[str, int]) -> None:
        self._order += 1
        lanes = self._of.get(notification.contact)
        if lanes is None:
            # The contact is no longer configured; the others are.
            _log.warning("nobody to tell", contact=notification.contact, key=notification.key)
            return
        done = self._done.setdefault(notification.key, {})
        for lane in lanes:
            name = lane.channel.name
            if name in done:
                continue
            new = _Item(notification, self._order, attempts.get(name, 0))
            lane.items.setdefault(notification.key, new).notification = notification
            lane.wake.set()

    async def run(self, stop: asyncio.Event) -> None:
        """Deliver until ``stop``; what is under way then is finished, or tried again at a start."""
        tasks = [asyncio.create_task(self._serve(lane)) for lane in self._lanes]
        try:
            if self._abandoned:
                await self._store(*self._abandoned)
            await stop.wait()
            # What is due is sent before the end: the gateway may be switched off for good.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(SEND_S):
                    while any(lane.sending or self._next(lane) for lane in self._lanes):  # noqa: ASYNC110
                        await asyncio.sleep(0.05)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            if self._storing:
                await asyncio.wait(self._storing, timeout=_STORE_S)

    async def _serve(self, lane: _Lane) -> None:
        while True:
            item = self._next(lane)
            if item is None:
                lane.wake.clear()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(self._idle_s(lane)):
                        await lane.wake.wait()
                continue
            key = item.notification.key
            lane.sending = key
            try:
                await self._deliver(lane, item)
            except Exception:  # noqa: BLE001 - whatever happens, the next message has its turn
                _log.exception("delivery failed", channel=lane.channel.name, key=key)
                item.attempts += 1
                self._later(lane, item, None)
            finally:
                lane.sending = None

    def _next(self, lane: _Lane) -> _Item | None:
        """The first due message of an alarm of which no earlier one waits to be tried again.

        What is urgent is tried once though the receiver has asked to be left alone: it asked that
        of something else.
        """
        now_ns, now_s = self._time()
        first: tuple[Urgency, _Item] | None = None
        blocked: set[str] = set()
        for item in sorted(lane.items.values(), key=_by_due):
            notification = item.notification
            if notification.due_ns > now_ns:
                break
            if notification.alarm_id in blocked:
                continue
            blocked.add(notification.alarm_id)
            if item.ready_s > now_s:
                continue
            urgency = self._urgency(notification)
            if now_s < lane.held_until_s and (urgency > Urgency.URGENT or item.attempts):
                continue
            if first is None or urgency < first[0]:
                first = urgency, item
        return None if first is None else first[1]

    def _idle_s(self, lane: _Lane) -> float:
        """How long until ``_next`` may find one; a second at most, for the machine may sleep."""
        now_ns, now_s = self._time()
        of_alarm: dict[str, float] = {}
        soonest = _IDLE_S
        for item in sorted(lane.items.values(), key=_by_due):
            notification = item.notification
            wait_s = max((notification.due_ns - now_ns) / 1e9, item.ready_s - now_s)
            if item.attempts or not self._is_urgent(item):
                wait_s = max(wait_s, lane.held_until_s - now_s)
            wait_s = max(wait_s, of_alarm.get(notification.alarm_id, 0.0))
            of_alarm[notification.alarm_id] = wait_s
            soonest = min(soonest, wait_s)
        return min(_IDLE_S, max(0.01, soonest))

    async def _deliver(self, lane: _Lane, item: _Item) -> None:
        notification, name = item.notification, lane.channel.name
        key = notification.key
        if notification.kind is Kind.REMINDER and self._is_outdated(lane, item):
            # A night without a network is not to end in a hundred reminders.
            await self._settle(lane, item, FAILED, "a later message tells the same")
            return
        message = await self._compose(notification)
        if lane.items.get(key) is not item:
            return  # somebody has answered meanwhile
        if message is None:
            await self._settle(lane, item, FAILED, "nothing to be told any more")
            return
        if item.first_s is None:
            item.first_s = self._time()[1]
        item.attempts += 1
        error = await self._send(lane, item, message)
        if error is not None:
            await self._failed(lane, item, error)
            return
        self._on_channel(name, None)
        _log.info("told", channel=name, key=key, attempts=item.attempts)
        await self._settle(lane, item, DELIVERED, None)

    async def _failed(self, lane: _Lane, item: _Item, error: DeliveryError) -> None:
        """Put off what was not delivered, or give it up."""
        key, name = item.notification.key, lane.channel.name
        if isinstance(error, _OvertakenError):
            # The channel may be slow or stuck: it is not asked again at once.
            self._later(lane, item, None)
            _log.warning("overtaken by what is urgent", channel=name, key=key)
            return
        self._on_channel(name, str(error))
        if lane.items.get(key) is not item:
            return  # somebody has answered meanwhile: it is void, and not tried again
        given_up = self._time()[1] - (item.first_s or 0.0) >= GIVE_UP_S
        if error.permanent or given_up:
            _log.error("not told, for good", channel=name, key=key, reason=str(error))
            await self._settle(lane, item, FAILED, str(error))
            return
        wait_s = self._later(lane, item, error.retry_after_s)
        _log.warning(
            "not told yet", channel=name, key=key, reason=str(error), again_in_s=round(wait_s, 1)
        )
        await self._keep(
            lane, Delivery(key, name, RETRYING, item.attempts, self._now().utc_ns, str(error))
        )

    async def _send(self, lane: _Lane, item: _Item, message: Message) -> DeliveryError | None:
        """As ``send``; given up when something more urgent comes meanwhile."""
        sending = asyncio.create_task(send(lane.channel, message))
        try:
            if self._is_urgent(item) or await self._unless_urgent(lane, sending):
                return await sending
            return _OvertakenError(f"{lane.channel.name}: something urgent came meanwhile")
        finally:
            sending.cancel()
            await asyncio.wait({sending}, timeout=_IDLE_S)

    async def _unless_urgent(self, lane: _Lane, task: asyncio.Task[_Done]) -> bool:
        """Wait until a task is done, or something urgent waits behind it; whether it is done."""
        while not task.done():
            await asyncio.wait({task}, timeout=_IDLE_S)
            if not task.done() and (other := self._next(lane)) and self._is_urgent(other):
                return False
        return True

    def _is_urgent(self, item: _Item) -> bool:
        return self._urgency(item.notification) is Urgency.URGENT

    def _is_outdated(self, lane: _Lane, item: _Item) -> bool:
        """Whether a later message of the same alarm is due as well."""
        (now_ns, _), alarm_id = self._time(), item.notification.alarm_id
        return any(
            other.notification.alarm_id == alarm_id
            and other.notification.due_ns <= now_ns
            and _by_due(other) > _by_due(item)
            for other in lane.items.values()
        )

    def _later(self, lane: _Lane, item: _Item, retry_after_s: float | None) -> float:
        """Put a message off; a receiver that asks to be left alone is."""
        now_s = self._time()[1]
        doublings = min(max(0, item.attempts - 1), 10)
        longest_s = URGENT_RETRY_S if self._is_urgent(item) else LONGEST_RETRY_S
        wait_s = min(FIRST_RETRY_S * 2.0**doublings, longest_s)
        if retry_after_s is not None:
            wait_s = max(wait_s, min(retry_after_s, longest_s))
            lane.held_until_s = now_s + wait_s
        item.ready_s = now_s + wait_s
        return wait_s

    async def _settle(self, lane: _Lane, item: _Item, state: str, error: str | None) -> None:
        """One channel is done with a notification; with the last one it is done altogether."""
        notification, name = item.notification, lane.channel.name
        key = notification.key
        lane.items.pop(key, None)
        NOTIFICATIONS_WAITING.set(self.waiting)
        at_ns = self._now().utc_ns
        records: list[Record] = [Delivery(key, name, state, item.attempts, at_ns, error)]
        done = self._done.setdefault(key, {})
        done[name] = state
        lanes = self._of[notification.contact]
        if all(other.channel.name in done for other in lanes):
            whole = DELIVERED if DELIVERED in done.values() else FAILED
            records.append(Settled(key, whole))
            del self._done[key]
        elif not any(key in other.items for other in lanes):
            del self._done[key]  # void since it was sent
        await self._keep(lane, *records)

    async def _keep(self, lane: _Lane, *records: Record) -> None:
        """Store what became of a message; a slow database keeps nothing urgent waiting."""
        await self._unless_urgent(lane, keep(self._storing, self._store(*records)))


class _OvertakenError(DeliveryError):
    """Nobody knows whether it was delivered: something urgent had to come first."""


async def send(channel: "Channel", message: Message) -> DeliveryError | None:
    """Try once to send a message, for ``SEND_S`` at most; counted.

    Returns:
        Why it was not delivered; None if it was. Whatever a channel raises is such a reason.
    """
    name = channel.name
    error: DeliveryError | None = None
    try:
        async with asyncio.timeout(SEND_S):
            await channel.send(message)
    except TimeoutError:
        error = DeliveryError(f"{name}: no answer within {SEND_S:g} s")
    except DeliveryError as failed:
        error = failed
    except Exception:  # noqa: BLE001 - a fault of a channel is a failure like any other
        _log.exception("channel failed", channel=name, key=message.key)
        error = DeliveryError(f"{name}: it failed by a fault of the program")
    (NOTIFICATIONS_SENT if error is None else NOTIFICATION_FAILURES).labels(name).inc()
    return error


def _by_due(item: _Item) -> tuple[int, int]:
    return item.notification.due_ns, item.order
