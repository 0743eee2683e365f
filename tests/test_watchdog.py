"""systemd hears that the daemon moves, and hears nothing when it hangs or stands still."""

import asyncio
import os
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import structlog
from test_systemd import UNIT, Unit
from watching import STREAM, until

from alerts import gateway as alerts_gateway
from monitor import gateway, watchdog
from monitor.progress import Progress, Stage

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
    task = asyncio.create_task(watchdog.feed(stop, Progress(), where))
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
        task = asyncio.create_task(watchdog.feed(stop, Progress(), where))
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
    assert not watchdog.is_asked(where)
    stop = asyncio.Event()
    task = asyncio.create_task(watchdog.feed(stop, Progress(), where))
    await asyncio.sleep(0.05)
    stop.set()
    await asyncio.wait_for(task, 1)
    assert heard(systemd) == 0


async def test_a_socket_that_is_gone_ends_nothing(tmp_path: Path) -> None:
    stop = asyncio.Event()
    where = {"NOTIFY_SOCKET": str(tmp_path / "none"), "WATCHDOG_USEC": "20000"}
    task = asyncio.create_task(watchdog.feed(stop, Progress(), where))
    await asyncio.sleep(0.1)
    assert not task.done()
    stop.set()
    await task


@pytest.mark.parametrize("stage", Stage)
async def test_what_stands_still_is_not_vouched_for_until_it_moves(
    systemd: socket.socket, stage: Stage
) -> None:
    where = {"NOTIFY_SOCKET": systemd.getsockname(), "WATCHDOG_USEC": "100000"}
    now_s = 0.0
    progress = Progress(lambda: round(now_s * 1e9))
    stop = asyncio.Event()
    with structlog.testing.capture_logs() as logs:
        task = asyncio.create_task(watchdog.feed(stop, progress, where))
        progress.enter(stage, STREAM)
        now_s = watchdog.STALLED_S
        await asyncio.sleep(0.2)
        assert heard(systemd) >= 2
        now_s += 0.5
        await asyncio.sleep(0.05)
        heard(systemd)
        await asyncio.sleep(0.3)
        assert heard(systemd) == 0
        progress.leave(stage, STREAM)
        await asyncio.sleep(0.1)
        assert heard(systemd) >= 1
        stop.set()
        await asyncio.wait_for(task, 1)
    assert [log["event"] for log in logs] == ["stalled", "stall_over"]
    assert logs[0] == {
        "event": "stalled",
        "log_level": "error",
        "stage": stage.value,
        "stream": "anna/strap",
        "seconds": 60.5,
        "restart": True,
    }


async def test_a_stall_is_logged_though_no_systemd_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watchdog, "_LOOK_S", 0.01)
    now_s = 0.0
    progress = Progress(lambda: round(now_s * 1e9))
    progress.enter(Stage.ANALYSIS, STREAM)
    now_s = 61.0
    stop = asyncio.Event()
    with structlog.testing.capture_logs() as logs:
        task = asyncio.create_task(watchdog.feed(stop, progress, {}))
        await until(lambda: bool(logs))
        await asyncio.sleep(0.05)
        stop.set()
        await asyncio.wait_for(task, 1)
    assert [(log["event"], log["restart"]) for log in logs] == [("stalled", False)]


def test_systemd_has_begun_it_anew_within_three_minutes_and_people_were_told_before() -> None:
    """The last sign of life goes out when it is just not called a stall yet."""
    unit = Unit(UNIT.read_text(encoding="utf-8"))

    def seconds(key: str) -> float:
        return float(unit.one("Service", key).removesuffix("s"))

    told_s = gateway._STILL_S + alerts_gateway._PATIENCE[alerts_gateway.STALLED].wrong_s
    assert told_s <= watchdog.STALLED_S - 15
    killed_s = watchdog.STALLED_S + seconds("WatchdogSec") + seconds("TimeoutAbortSec")
    assert killed_s + seconds("RestartSec") <= 180 - 15
    # Two looks and a lost one lie between two signs of life.
    assert seconds("WatchdogSec") >= 30


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
