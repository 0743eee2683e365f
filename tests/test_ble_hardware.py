"""A real strap, worn, on this machine's own adapter: ``pytest --hardware ADDRESS[,KIND]``.

KIND is polar_h10 (the default), movesense or heart_rate. Everybody else's tests of the same code
run over the virtual BlueZ.
"""

import asyncio
import contextlib
import time

import numpy as np
import pytest

from ingest.ble.device import by_kind
from ingest.ble.link import Adapter, Stage
from ingest.ble.source import BleSource, StrapState
from ingest.chunk import Chunk, Stream
from monitor.ring import Ring


@pytest.fixture
def strap(request: pytest.FixtureRequest) -> tuple[str, str]:
    named = request.config.getoption("--hardware")
    if named is None:
        pytest.skip("needs a strap that somebody wears: --hardware ADDRESS[,KIND]")
    address, _, kind = named.partition(",")
    return address, kind or "polar_h10"


async def _listen(address: str, kind: str, seconds: float) -> tuple[list[object], list[StrapState]]:
    states: list[StrapState] = []
    source = BleSource(
        Stream("somebody", "strap"), address, by_kind(kind), Adapter(), on_state=states.append
    )
    taken: list[object] = []
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds), contextlib.aclosing(source.chunks()) as chunks:
            async for chunk in chunks:
                taken.append(chunk)  # noqa: PERF401 - kept when time is up, too
    return taken, states


async def test_a_real_strap_streams_is_left_and_is_found_again(strap: tuple[str, str]) -> None:
    address, kind = strap
    for _ in range(2):
        taken, states = await _listen(address, kind, 40)
        assert taken, [s.status for s in states]
        assert Stage.STREAMING in {s.status.stage for s in states}
        if by_kind(kind).rate is None:
            continue
        chunks = [c for c in taken if isinstance(c, Chunk)]
        ring = Ring(chunks[0].stream, length_s=10, hop_s=5)
        gaps = [gap for chunk in chunks for gap in ring.add(chunk).gaps]
        signal = np.concatenate([c.microvolts for c in chunks])
        seconds = (chunks[-1].end_ns - chunks[0].start_ns) / 1e9
        assert len(signal) / seconds == pytest.approx(by_kind(kind).rate, rel=0.02)
        assert not gaps
        assert abs(time.time_ns() - chunks[-1].end_ns) < 5e9
        assert 50 < np.ptp(signal) < 40_000
