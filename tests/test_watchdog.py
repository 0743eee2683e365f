"""systemd hears that the event loop turns, and hears nothing when it does not."""

import asyncio
import os
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from watching import until

from monitor import watchdog

if TYPE_CHECKING:
    from house import House

pytest_plugins = ["house"]


@pytest.fixture
def systemd(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as made:
        made.bind(str(tmp_path / "notify"))
        made.setblocking(False)
        yield made


def heard(systemd: socket.socket) -> int:
    """How many signs of life have come."""
    count = 0
    while True:
        try:
            assert systemd.recv(99) == b"WATCHDOG=1"
        except BlockingIOError:
            return count
        count += 1


async def test_the_loop_is_heard_while_it_turns_and_only_then(systemd: socket.socket) -> None:
    where = {"NOTIFY_SOCKET": systemd.getsockname(), "WATCHDOG_USEC": "200000"}
    stop = asyncio.Event()
    task = asyncio.create_task(watchdog.feed(stop, where))
    await asyncio.sleep(0.55)
    assert heard(systemd) >= 4
    time.sleep(0.5)  # noqa: ASYNC251 - the loop hangs
    assert heard(systemd) == 0
    await asyncio.sleep(0.15)
    assert heard(systemd) >= 1
    stop.set()
    await asyncio.wait_for(task, 1)


async def test_an_abstract_name(tmp_path: Path) -> None:
    name = f"leadone-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(f"\0{name}")
        systemd.setblocking(False)
        stop = asyncio.Event()
        where = {"NOTIFY_SOCKET": f"@{name}", "WATCHDOG_USEC": "60000000"}
        task = asyncio.create_task(watchdog.feed(stop, where))
        await asyncio.sleep(0.05)
        stop.set()
        await task
        assert heard(systemd) == 1


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"WATCHDOG_USEC": "soon"},
        {"WATCHDOG_USEC": "0"},
        {"WATCHDOG_USEC": "9", "WATCHDOG_PID": "1"},
    ],
)
async def test_who_is_not_asked_says_nothing(systemd: socket.socket, more: dict[str, str]) -> None:
    where = {"NOTIFY_SOCKET": systemd.getsockname(), **more}
    await asyncio.wait_for(watchdog.feed(asyncio.Event(), where), 1)
    assert heard(systemd) == 0


async def test_a_socket_that_is_gone_ends_nothing(tmp_path: Path) -> None:
    stop = asyncio.Event()
    where = {"NOTIFY_SOCKET": str(tmp_path / "none"), "WATCHDOG_USEC": "20000"}
    task = asyncio.create_task(watchdog.feed(stop, where))
    await asyncio.sleep(0.1)
    assert not task.done()
    stop.set()
    await task


async def test_the_daemon_feeds_it(
    make: "Callable[..., House]", systemd: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", systemd.getsockname())
    monkeypatch.setenv("WATCHDOG_USEC", "200000")
    count = 0

    def enough() -> bool:
        nonlocal count
        count += heard(systemd)
        return count >= 3

    async with make().running():
        await until(enough, 20)
