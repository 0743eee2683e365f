"""A D-Bus daemon of the tests' own, and what can be asked of it."""

import asyncio
import select
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from dbus_fast import Message, MessageType
from dbus_fast.aio import MessageBus

_CONFIG = """\
<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig>
  <type>custom</type>
  <listen>unix:path={socket}</listen>
  <auth>EXTERNAL</auth>
  <policy context="default">
    <allow send_destination="*" eavesdrop="true"/>
    <allow eavesdrop="true"/>
    <allow own="*"/>
  </policy>
  {denied}
</busconfig>
"""


# Only calls: the service itself is to answer others.
_DENIED = """\
<policy context="mandatory">
    <deny send_destination="org.bluez" send_type="method_call"/>
  </policy>"""


def installed() -> bool:
    return shutil.which("dbus-daemon") is not None


class PrivateBus:
    """A running dbus-daemon; ``address`` goes into DBUS_SYSTEM_BUS_ADDRESS.

    Args:
        denied: nobody may call BlueZ, as a user who is not in its group.
    """

    def __init__(self, *, denied: bool = False) -> None:
        # Not pytest's own temporary folder: a socket's path may have 107 bytes.
        self._home = Path(tempfile.mkdtemp(prefix="leadone-bus-"))
        config = self._home / "bus.conf"
        policy = _DENIED if denied else ""
        config.write_text(_CONFIG.format(socket=self._home / "socket", denied=policy))
        self._process = subprocess.Popen(
            [
                "dbus-daemon",
                f"--config-file={config}",
                "--nofork",
                "--nopidfile",
                "--print-address",
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout is not None
        ready, _, _ = select.select([self._process.stdout], [], [], 10)
        self.address = self._process.stdout.readline().strip() if ready else ""
        if not self.address:
            self._process.kill()
            _, said = self._process.communicate()
            shutil.rmtree(self._home)
            raise RuntimeError(f"dbus-daemon did not start: {said.strip()}")

    def close(self) -> None:
        self._process.terminate()
        self._process.communicate(timeout=10)
        shutil.rmtree(self._home)


@dataclass(frozen=True, slots=True)
class Census:
    """What must not grow from one reconnection to the next.

    Attributes:
        tasks: of the running event loop.
        descriptors: open files of this process.
        connections: clients on the bus, the service and the daemon itself included.
        match_rules: of all clients.
    """

    tasks: int
    descriptors: int
    connections: int
    match_rules: int


def _descriptors() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


async def census(address: str) -> Census:
    """Count them; ``address`` is that of the bus."""
    tasks = len(asyncio.all_tasks())
    descriptors = _descriptors()
    bus = await MessageBus(bus_address=address).connect()
    try:
        names = await _ask(bus, "org.freedesktop.DBus", "ListNames")
        rules = await _ask(bus, "org.freedesktop.DBus.Debug.Stats", "GetAllMatchRules")
    finally:
        bus.disconnect()
        await bus.wait_for_disconnect()
    connections = sum(name.startswith(":") for name in names) - 1
    return Census(tasks, descriptors, connections, sum(map(len, rules.values())))


async def _ask(bus: MessageBus, interface: str, member: str):
    reply = await bus.call(
        Message(
            destination="org.freedesktop.DBus",
            path="/org/freedesktop/DBus",
            interface=interface,
            member=member,
        )
    )
    assert reply.message_type is MessageType.METHOD_RETURN, reply.body
    return reply.body[0]
