"""Straps that are found, listened to, lost and found again, over the virtual BlueZ."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any

import numpy as np
import psutil
import pytest
from bleak import BleakClient, BleakScanner
from bluez.bus import Census, PrivateBus, census
from bluez.clock import Clock, RealClock, SteppedClock
from bluez.ecg import synthetic
from bluez.h10 import H10
from bluez.service import Bluez
from bluez.timing import QUICK

from ingest.ble.agent import agent
from ingest.ble.link import Adapter, Stage
from ingest.ble.polar import PolarH10
from ingest.ble.source import BleSource, StrapState
from ingest.ble.trouble import Kind
from ingest.chunk import Chunk, Stream
from monitor.ring import Ring

pytest_plugins = ["bluez.fixtures"]

STREAM = Stream("grandpa", "h10")


class Watch:
    """Collects what a source yields and says."""

    def __init__(self, source: Callable[..., BleSource]) -> None:
        self.chunks: list[Any] = []
        self.states: list[StrapState] = []
        self.source = source(on_state=self.states.append)
        self._changed = asyncio.Event()

    async def run(self) -> None:
        async with contextlib.aclosing(self.source.chunks()) as chunks:
            async for chunk in chunks:
                self.chunks.append(chunk)

    async def until(self, done: Callable[[], object], seconds: float = 10.0) -> None:
        async with asyncio.timeout(seconds):
            while not done():  # noqa: ASYNC110 - what is waited for has no event
                await asyncio.sleep(0.01)

    @property
    def samples(self) -> int:
        return sum(len(c.microvolts) for c in self.chunks if isinstance(c, Chunk))

    @property
    def troubles(self) -> list[Kind]:
        return [s.status.trouble.kind for s in self.states if s.status.trouble is not None]

    @property
    def stage(self) -> Stage:
        return self.states[-1].status.stage if self.states else Stage.WAITING

    @property
    def streaming(self) -> bool:
        return self.stage is Stage.STREAMING


@contextlib.asynccontextmanager
async def watching(
    clock: Clock, address: str = "A0:9E:1A:00:00:01", adapter: Adapter | None = None
) -> AsyncIterator[Watch]:
    def source(**more: Any) -> BleSource:
        return BleSource(
            STREAM,
            address,
            PolarH10,
            adapter or Adapter(),
            timing=QUICK,
            now_ns=clock.time_ns,
            monotonic_ns=clock.time_ns,
            **more,
        )

    watch = Watch(source)
    task = asyncio.create_task(watch.run())
    try:
        yield watch
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


@pytest.fixture
def clock() -> Clock:
    return RealClock(speed=20)


def stored(watch: Watch) -> tuple[np.ndarray, np.ndarray]:
    """UTC ns and µV of every sample that came."""
    at = [
        c.start_ns + np.rint(np.arange(len(c.microvolts)) / c.rate * 1e9).astype(np.int64)
        for c in watch.chunks
    ]
    return np.concatenate(at), np.concatenate([c.microvolts for c in watch.chunks])


async def test_a_user_who_may_not_use_bluetooth_is_told_so(
    clock: Clock, bleak_bus: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    from bluez.fixtures import close_bleak

    bus = PrivateBus(denied=True)
    monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", bus.address)
    service = Bluez(bus.address, clock, ("hci0",))
    await service.start()
    try:
        async with watching(clock) as watch:
            await watch.until(lambda: watch.troubles)
        wrong = next(s.status.trouble for s in watch.states if s.status.trouble is not None)
        assert wrong.cause == "not allowed to use bluetooth"
        assert "usermod -aG bluetooth" in wrong.advice
    finally:
        await service.stop()
        await close_bleak()
        bus.close()


async def test_samples_come_through_as_they_were_made(bluez: Bluez, clock: Clock) -> None:
    h10 = bluez.add(H10(synthetic()))
    async with watching(clock) as watch:
        await watch.until(lambda: watch.samples >= 30 * 73)
    _, got = stored(watch)
    truth = h10.truth()
    assert np.array_equal(got, truth.microvolts[truth.delivered][: len(got)])
    assert h10.stops == 1, "a strap that is not stopped streams until its battery is empty"
    assert not h10.connected


class TestAnHour:
    """An hour, simulated, of which the link is lost again and again and the strap forgets time."""

    @pytest.fixture
    def clock(self) -> SteppedClock:
        return SteppedClock()

    async def test_every_missing_second_is_accounted_for(
        self, bluez: Bluez, clock: SteppedClock
    ) -> None:
        """What came lies where it was made to within 20 ms, the rest is a gap with its cause."""
        h10 = bluez.add(H10(synthetic(), drift_ppm=60, latency_s=(0.010, 0.060)))
        ring = Ring(STREAM, length_s=10, hop_s=5)
        async with watching(clock) as watch:
            for minute in range(60):
                await watch.until(lambda: watch.stage in {Stage.STARTING, Stage.STREAMING})
                await clock.advance(50)
                if minute % 20 == 10:
                    h10.reset_clock()
                if minute % 5 == 0:
                    h10.drop(2)
                    h10.duplicate(3)
                await clock.advance(10)
                if minute % 3 == 1:
                    h10.out_of_range()
                    await watch.until(lambda: not watch.streaming)
                    await clock.advance(7)
                    h10.back_in_range()
            await watch.until(lambda: watch.streaming)
            await clock.advance(5)
        truth = h10.truth()
        at, got = stored(watch)
        made = truth.utc_ns[truth.delivered][: len(at)]
        assert np.array_equal(got, truth.microvolts[truth.delivered][: len(got)])
        assert len(made) > 3400 * h10.rate
        assert (np.diff(at) > 0).all()
        late_ms = (at - made) / 1e6 - 10
        assert np.abs(late_ms).max() < 20
        gaps = [gap for chunk in watch.chunks for gap in ring.add(chunk).gaps]
        lost = truth.utc_ns[~truth.delivered]
        inside = lost[(lost > made[0]) & (lost < made[-1])]
        seconds = sum(g.end_ns - g.start_ns for g in gaps) / 1e9
        assert seconds == pytest.approx(len(inside) / h10.rate, abs=len(gaps) / h10.rate)
        assert {g.cause for g in gaps} == {"link lost", "packets lost on the air"}


async def test_a_strap_that_is_away_is_found_when_it_is_back(bluez: Bluez, clock: Clock) -> None:
    h10 = bluez.add(H10(synthetic()))
    async with watching(clock) as watch:
        await watch.until(lambda: watch.streaming)
        h10.out_of_range()
        await watch.until(lambda: Kind.NOT_SEEN in watch.troubles)
        advice = [s.status.trouble.advice for s in watch.states if s.status.trouble]
        assert "worn" in advice[-1]
        h10.back_in_range()
        await watch.until(lambda: watch.streaming)


async def test_a_strap_that_somebody_else_holds_is_taken_when_it_is_free(
    bluez: Bluez, clock: Clock
) -> None:
    h10 = bluez.add(H10(synthetic()))
    h10.hold()
    async with watching(clock) as watch:
        await watch.until(lambda: Kind.NOT_SEEN in watch.troubles)
        h10.release()
        await watch.until(lambda: watch.streaming)


@pytest.mark.parametrize(
    ("member", "error"),
    [("Connect", "InProgress"), ("Connect", "Failed"), ("StartDiscovery", "InProgress")],
)
async def test_a_refusal_is_tried_again(
    bluez: Bluez, clock: Clock, member: str, error: str
) -> None:
    bluez.add(H10(synthetic()))
    bluez.fail_next(member, error, "le-connection-abort-by-local", times=3)
    async with watching(clock) as watch:
        await watch.until(lambda: watch.streaming)


@pytest.mark.parametrize(
    "member",
    ["Connect", "WriteValue", "StartNotify", "StartDiscovery"],
)
async def test_a_call_that_hangs_is_given_up_and_tried_again(
    bluez: Bluez, clock: Clock, member: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ingest.ble.link._SLACK_S", 1.0)
    h10 = bluez.add(H10(synthetic()))
    bluez.hang_next(member)
    async with watching(clock) as watch:
        await watch.until(lambda: watch.streaming, 20)
        assert watch.troubles
    assert h10.stops


async def test_an_adapter_that_is_switched_off_and_on(bluez: Bluez, clock: Clock) -> None:
    bluez.add(H10(synthetic()))
    async with watching(clock) as watch:
        await watch.until(lambda: watch.streaming)
        bluez.power("hci0", False)
        await watch.until(lambda: Kind.NO_BLUETOOTH in watch.troubles)
        bluez.power("hci0", True)
        await watch.until(lambda: watch.streaming)


@pytest.mark.parametrize("crash", [False, True])
async def test_a_bluetooth_service_that_is_restarted(
    bluez: Bluez, clock: Clock, crash: bool
) -> None:
    bluez.add(H10(synthetic()))
    async with watching(clock) as watch:
        for _ in range(2):
            await watch.until(lambda: watch.streaming)
            before = len(watch.troubles)
            await bluez.restart(crash=crash, away_s=0.5)
            await watch.until(lambda: len(watch.troubles) > before, 20)  # noqa: B023
        await watch.until(lambda: watch.streaming, 20)


async def test_no_bluetooth_service_at_all(system_bus: object, bleak_bus: None) -> None:
    async with watching(RealClock()) as watch:
        await watch.until(lambda: Kind.NO_BLUETOOTH in watch.troubles)
    wrong = next(s.status.trouble for s in watch.states if s.status.trouble)
    assert "bluetooth" in wrong.advice.lower()


async def test_a_bond_that_the_strap_forgot_is_made_anew(bluez: Bluez, clock: Clock) -> None:
    h10 = bluez.add(H10(synthetic(), needs_pairing=True))
    async with agent({h10.address}.__contains__), watching(clock) as watch:
        await watch.until(lambda: watch.streaming)
        h10.forget_bond()
        h10.lose_link()
        before = watch.samples
        await watch.until(lambda: watch.streaming and watch.samples > before, 20)
        assert Kind.BOND in watch.troubles


async def test_without_an_agent_the_advice_is_to_pair(bluez: Bluez, clock: Clock) -> None:
    bluez.add(H10(synthetic(), needs_pairing=True))
    async with watching(clock) as watch:
        await watch.until(lambda: Kind.BOND in watch.troubles)
    wrong = next(s.status.trouble for s in watch.states if s.status.trouble)
    assert "leadone pair" in wrong.advice


async def test_the_agent_refuses_what_is_not_ours(bluez: Bluez, clock: Clock) -> None:
    bluez.add(H10(synthetic(), needs_pairing=True))
    async with agent(set().__contains__), watching(clock) as watch:
        await watch.until(lambda: Kind.BOND in watch.troubles)
        assert not watch.samples


async def test_a_connected_strap_that_is_silent_is_connected_anew(
    bluez: Bluez, clock: Clock
) -> None:
    h10 = bluez.add(H10(synthetic()))
    async with watching(clock) as watch:
        await watch.until(lambda: watch.streaming)
        h10.stop_stream()
        # Its pulses go on.
        await watch.until(lambda: Kind.SILENT in watch.troubles)
        await watch.until(lambda: watch.streaming)


async def test_two_straps_on_one_adapter(bluez: Bluez, clock: Clock) -> None:
    straps = [bluez.add(H10(synthetic(), address=f"A0:9E:1A:00:00:0{i}")) for i in (1, 2)]
    adapter = Adapter("hci0")
    async with (
        watching(clock, straps[0].address, adapter) as one,
        watching(clock, straps[1].address, adapter) as two,
    ):
        for _ in range(3):
            await one.until(lambda: one.streaming and two.streaming)
            for strap in straps:
                strap.lose_link()
            await one.until(lambda: not one.streaming and not two.streaming)
        await one.until(lambda: one.streaming and two.streaming)


async def test_an_earlier_daemon_left_the_strap_connected(bluez: Bluez, clock: Clock) -> None:
    h10 = bluez.add(H10(synthetic()))
    found = await BleakScanner.find_device_by_address(h10.address, timeout=2)
    assert found is not None
    left = BleakClient(found)
    await left.connect()
    async with watching(clock) as watch:
        await watch.until(lambda: watch.streaming)
    await left.disconnect()


async def test_a_thousand_lost_links_leave_nothing_behind(
    bluez: Bluez, clock: Clock, system_bus: PrivateBus
) -> None:
    h10 = bluez.add(H10(synthetic()))
    process = psutil.Process()
    counted: dict[int, tuple[Census, int]] = {}
    async with watching(clock) as watch:
        for time in range(1, 1002):
            await watch.until(lambda: watch.streaming, 30)
            if time in {100, 1001}:
                await bluez.settle()
                counted[time] = await census(system_bus.address), process.memory_info().rss
            h10.lose_link()
            await watch.until(lambda: not watch.streaming)
    assert counted[1001][0] == counted[100][0]
    grown = counted[1001][1] - counted[100][1]
    assert grown < 8e6, "what the virtual strap remembers of its own frames is the most of it"
    assert h10.links == 1001
    ended = [s.status.trouble for s in watch.states if s.status.stage is Stage.WAITING]
    assert [wrong.kind for wrong in ended if wrong] == [Kind.LOST] * len(ended)
    assert len(ended) >= 1000


class TestTwoAdapters:
    @pytest.fixture
    def adapters(self) -> tuple[str, ...]:
        return ("hci0", "hci1")

    async def test_a_strap_is_reached_by_the_adapter_it_was_given(
        self, bluez: Bluez, clock: Clock
    ) -> None:
        straps = [bluez.add(H10(synthetic(), address=f"A0:9E:1A:00:00:0{i}")) for i in (1, 2)]
        async with (
            watching(clock, straps[0].address, Adapter("hci0")) as one,
            watching(clock, straps[1].address, Adapter("hci1")) as two,
        ):
            await one.until(lambda: one.streaming and two.streaming)
            bluez.power("hci1", False)
            await two.until(lambda: Kind.NO_BLUETOOTH in two.troubles)
            assert one.streaming
            assert straps[0].connected
            assert not straps[1].connected
            bluez.power("hci1", True)
            await two.until(lambda: two.streaming)
        assert Kind.NO_BLUETOOTH not in one.troubles
