"""What tests of the local socket share: a daemon that says what it is told to, and its words."""

import asyncio
import contextlib
import os
import time
from collections.abc import AsyncIterator
from typing import Any

from monitor.control import Control, claim
from monitor.storage.records import Request

S = 1_000_000_000


def said(*streams: dict[str, Any], **more: Any) -> dict[str, Any]:
    """What a daemon that is well says, with these streams; ``more`` takes the place of it."""
    patients = {stream["patient"]: True for stream in streams}
    return {
        "pid": os.getpid(),
        "version": "0.1.0",
        "since_ns": time.time_ns() - 600 * S,
        "utc_ns": time.time_ns(),
        "database": {"error": None, "spooling": False},
        "model": None,
        "rhythm_model": None,
        "stalled": None,
        "patients": [
            {"id": id_, "watched": True, "why": None, "paused_until_ns": None} for id_ in patients
        ],
        "streams": list(streams),
        "alarms": [],
        "channels": [],
    } | more


def stream(patient: str, device: str, **more: Any) -> dict[str, Any]:
    """A device that streams and can be read; ``more`` takes the place of it."""
    return {
        "patient": patient,
        "device": device,
        "kind": "mqtt",
        "sending": True,
        "arrived_s": 0.4,
        "sample_ns": time.time_ns(),
        "read_s": 2.0,
        "why": None,
        "battery": None,
        "strap": None,
    } | more


@contextlib.asynccontextmanager
async def daemon_says(database: str, status: dict[str, Any]) -> AsyncIterator[list[Request]]:
    """Answer in the place of a daemon; gives what it is asked for."""
    asked: list[Request] = []

    def take(request: Request) -> str:
        asked.append(request)
        return f"{request.what}: done"

    async def stored(_within_s: float) -> None:
        pass

    stop = asyncio.Event()
    with claim(database) as listening:
        assert listening is not None
        control = Control(listening, status=lambda: status, request=take, stored=stored)
        running = asyncio.create_task(control.run(stop))
        try:
            yield asked
        finally:
            stop.set()
            await running
