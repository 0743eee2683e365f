"""A connection to the bus that owns org.bluez: calls in, replies and signals out."""

import asyncio
import contextlib
import inspect
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any

from dbus_fast import Message, MessageFlag, MessageType, RequestNameReply, Variant
from dbus_fast.aio import MessageBus

from .objects import INTROSPECTABLE, OBJECT_MANAGER, PROPERTIES, Objects
from .wire import BluezError

SETTLE_S = 10.0

# What a method returns: nothing, or a signature of one argument and its value; or a coroutine.
Result = tuple[str, Any] | None
Method = Callable[[Message], Result | Awaitable[Result]]


class Endpoint:
    """Dispatches calls to ``methods`` and keeps an eye on the clients.

    Args:
        address: of the bus.
        gone: called with the unique name of a client that has left the bus.

    Attributes:
        objects: what is published.
        calls: the members called so far, the latest last.
        failures: the member and the error of calls that are to fail; None: no answer at all.
    """

    def __init__(self, address: str, gone: Callable[[str], None]) -> None:
        self.methods: dict[tuple[str, str], Method] = {
            (OBJECT_MANAGER, "GetManagedObjects"): self._get_managed_objects,
            (INTROSPECTABLE, "Introspect"): self._introspect,
            (PROPERTIES, "Get"): self._get,
            (PROPERTIES, "GetAll"): self._get_all,
        }
        self.objects = Objects(self.send)
        self.calls: deque[str] = deque(maxlen=10_000)
        self.failures: list[tuple[str, BluezError | None]] = []
        self.on_failure: Callable[[Message, BluezError], None] = lambda message, error: None
        self._address = address
        self._gone = gone
        self._bus: MessageBus | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._clients: set[str] = set()
        self._unread = False

    async def open(self, publish: Callable[[], None]) -> None:
        """Connect, publish the objects, and only then own the name."""
        self._bus = await MessageBus(bus_address=self._address).connect()
        self._bus.add_message_handler(self._handle)
        rule = "type='signal',sender='org.freedesktop.DBus',member='NameOwnerChanged'"
        await self._ask_daemon("AddMatch", "s", [rule])
        names = await self._ask_daemon("ListNames")
        self._clients = {name for name in names if name.startswith(":")} - {self._bus.unique_name}
        publish()
        owned = await self._bus.request_name("org.bluez")
        assert owned is RequestNameReply.PRIMARY_OWNER, owned

    async def end_tasks(self) -> None:
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def release(self) -> None:
        """Give the name back; the answer means that all that was sent has left."""
        await self._ask_daemon("ReleaseName", "s", ["org.bluez"])

    async def close(self) -> None:
        bus, self._bus = self._bus, None
        if bus is not None:
            bus.disconnect()
            await bus.wait_for_disconnect()

    @property
    def is_open(self) -> bool:
        return self._bus is not None

    def send(self, message: Message) -> None:
        self._unread = True
        if self._bus is not None:
            self._bus.send(message)

    async def call(self, message: Message) -> Message:
        assert self._bus is not None
        reply = await self._bus.call(message)
        assert reply is not None
        return reply

    async def settle(self) -> None:
        """Return when every client has read all that was sent to it so far.

        Messages from one sender arrive in order, so an answered ping means just that.

        Raises:
            TimeoutError: a client does not read.
        """
        if self._bus is None or not self._unread:
            return
        self._unread = False
        async with asyncio.timeout(SETTLE_S):
            await asyncio.gather(*(self._ping(client) for client in self._clients))

    async def _ping(self, client: str) -> None:
        peer = "org.freedesktop.DBus.Peer"
        # The service may be stopped meanwhile: then there is nothing to wait for.
        with contextlib.suppress(EOFError):
            if self._bus is not None:
                await self._bus.call(
                    Message(destination=client, path="/", interface=peer, member="Ping")
                )

    async def _ask_daemon(self, member: str, signature: str = "", body: list[Any] | None = None):
        reply = await self.call(
            Message(
                destination="org.freedesktop.DBus",
                path="/org/freedesktop/DBus",
                interface="org.freedesktop.DBus",
                member=member,
                signature=signature,
                body=body or [],
            )
        )
        assert reply.message_type is MessageType.METHOD_RETURN, reply.body
        return reply.body[0] if reply.body else None

    def _handle(self, message: Message) -> Message | bool | None:
        if message.message_type is MessageType.SIGNAL:
            if message.member == "NameOwnerChanged" and not message.body[2]:
                self._clients.discard(message.body[0])
                self._gone(message.body[0])
            return None
        peer = message.interface == "org.freedesktop.DBus.Peer"
        if message.message_type is not MessageType.METHOD_CALL or peer:
            return None
        self._clients.add(message.sender)
        self.calls.append(message.member)
        try:
            return self._call(message)
        except BluezError as error:
            return error.reply(message)

    def _call(self, message: Message) -> Message | bool:
        for n, (member, error) in enumerate(self.failures):
            if member == message.member:
                del self.failures[n]
                if error is None:
                    return True
                self.on_failure(message, error)
                return error.reply(message)
        result = self._method(message)(message)
        if inspect.isawaitable(result):
            task = asyncio.ensure_future(self._answer(message, result))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
            return True
        return _reply(message, result)

    def _method(self, message: Message) -> Method:
        method = self.methods.get((message.interface, message.member))
        if method is not None and message.interface in (OBJECT_MANAGER, INTROSPECTABLE):
            return method
        if message.path not in self.objects:
            raise BluezError("UnknownObject", f"No such object: {message.path}", dbus=True)
        known = {*self.objects.interfaces(message.path), PROPERTIES}
        if method is None or message.interface not in known:
            said = f'Method "{message.member}" with signature "{message.signature}" on interface '
            said += f'"{message.interface}" doesn\'t exist'
            raise BluezError("UnknownMethod", said, dbus=True)
        return method

    async def _answer(self, message: Message, work: Awaitable[Result]) -> None:
        try:
            reply = _reply(message, await work)
        except BluezError as error:
            reply = error.reply(message)
        if MessageFlag.NO_REPLY_EXPECTED not in message.flags:
            self.send(reply)

    def _get_managed_objects(self, _: Message) -> Result:
        return "a{oa{sa{sv}}}", self.objects.managed()

    def _introspect(self, message: Message) -> Result:
        inside = self.objects.interfaces(message.path) if message.path in self.objects else {}
        named = "".join(f'<interface name="{interface}"/>' for interface in inside)
        return "s", f"<node>{named}</node>"

    def _get(self, message: Message) -> Result:
        interface, name = message.body
        known: dict[str, Variant] = self.objects.interfaces(message.path).get(interface, {})
        if name not in known:
            raise BluezError("InvalidArgs", f"No such property {name!r}", dbus=True)
        return "v", known[name]

    def _get_all(self, message: Message) -> Result:
        return "a{sv}", self.objects.interfaces(message.path).get(message.body[0], {})


def _reply(message: Message, result: Result) -> Message:
    if result is None:
        return Message.new_method_return(message)
    signature, value = result
    return Message.new_method_return(message, signature, [value])
