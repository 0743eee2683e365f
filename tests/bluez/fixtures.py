"""Pytest fixtures of the virtual BlueZ.

    pytest_plugins = ["bluez.fixtures"]          # in the test module
    from bluez.ecg import synthetic
    from bluez.h10 import H10

    async def test_it(bluez):                    # bleak now talks to this BlueZ
        h10 = bluez.add(H10(synthetic(), drift_ppm=60))
        ...                                      # scan, connect, start with bleak
        h10.lose_link(); h10.out_of_range(30); h10.jump_clock(-5); h10.drop(3); h10.delay(20)
        bluez.power("hci0", False); await bluez.restart(); bluez.fail_next("Connect", "InProgress")
        truth = h10.truth()                      # utc_ns, microvolts, delivered: every sample made

Time is real unless the module (or class) overrides the fixture ``clock``: ``RealClock(speed=50)``
runs faster; with ``SteppedClock()`` nothing moves but by ``await clock.advance(seconds)`` (an hour
takes seconds). Pass ``clock.time_ns`` and ``clock.sleep`` to the code under test. Override
``adapters`` for more than hci0. ``await census(system_bus.address)`` counts what must not leak.
``bluez_process(script)`` runs the service in a process of its own (see ``__main__``).
"""

import asyncio
import contextlib
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from bleak.backends.bluezdbus import manager as bleak_manager
from conftest import absent

from .bus import PrivateBus, installed
from .clock import Clock, RealClock, SteppedClock
from .service import Bluez


@pytest.fixture
def system_bus(monkeypatch: pytest.MonkeyPatch) -> Iterator[PrivateBus]:
    """A D-Bus of its own, which bleak takes for the system's."""
    if not installed():
        absent("dbus-daemon (Debian: dbus-daemon)")
    bus = PrivateBus()
    monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", bus.address)
    yield bus
    bus.close()


@pytest.fixture
async def bleak_bus(system_bus: PrivateBus) -> AsyncIterator[None]:
    """Closes the connection that bleak keeps for as long as the event loop lives."""
    yield
    await close_bleak()


async def close_bleak() -> None:
    manager = bleak_manager._global_instances.pop(asyncio.get_running_loop(), None)
    if manager is None or manager._bus is None:
        return
    manager._bus.disconnect()
    if manager._bus_watcher_task is not None:
        with contextlib.suppress(Exception):
            await manager._bus_watcher_task


@pytest.fixture
def clock() -> Clock:
    return RealClock()


@pytest.fixture
def adapters() -> tuple[str, ...]:
    return ("hci0",)


@pytest.fixture
async def bluez(
    system_bus: PrivateBus, bleak_bus: None, clock: Clock, adapters: tuple[str, ...]
) -> AsyncIterator[Bluez]:
    """org.bluez in the test's own event loop."""
    service = Bluez(system_bus.address, clock, adapters)
    await service.start()
    if isinstance(clock, SteppedClock):
        clock.settlers.append(service.settle)
    yield service
    await service.stop()


@pytest.fixture
def bluez_process(
    system_bus: PrivateBus, bleak_bus: None, tmp_path: Path
) -> Iterator[Callable[[dict[str, Any]], "subprocess.Popen[str]"]]:
    """Starts org.bluez in another process; it is ready when the call returns.

    Terminate it, and its output is one JSON object: see ``__main__``.
    """
    running: list[subprocess.Popen[str]] = []

    def start(script: dict[str, Any]) -> "subprocess.Popen[str]":
        file = tmp_path / f"script{len(running)}.yaml"
        file.write_text(yaml.safe_dump(script))
        process = subprocess.Popen(
            [
                *(sys.executable, "-m", "tests.bluez"),
                *("--bus", system_bus.address, "--script", str(file)),
            ],
            cwd=Path(__file__).parents[2],
            stdout=subprocess.PIPE,
            text=True,
        )
        running.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        return process

    yield start
    for process in running:
        if process.poll() is None:
            process.terminate()
        process.communicate(timeout=10)
