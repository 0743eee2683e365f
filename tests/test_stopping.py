"""Waiting that heeds the end of a run, and never loses a cancellation."""

import asyncio

import pytest

from monitor.stopping import pause


async def test_a_pause_ends_with_its_time_or_with_the_run() -> None:
    stop = asyncio.Event()
    await pause(stop, 0.01)
    assert not stop.is_set()
    stop.set()
    await pause(stop, 60)


@pytest.mark.parametrize("turns", range(4))
async def test_who_is_cancelled_just_as_a_pause_ends_is_cancelled(turns: int) -> None:
    async def watch() -> None:
        while True:
            await pause(stop, 60)
            stop.clear()

    stop = asyncio.Event()
    task = asyncio.create_task(watch())
    await asyncio.sleep(0.01)
    stop.set()
    for _ in range(turns):
        await asyncio.sleep(0)
    task.cancel()
    done, _ = await asyncio.wait({task}, timeout=1)
    assert done, "the cancellation was lost"
    assert task.cancelled()
