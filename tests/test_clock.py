"""A sensor's clock in UTC: an hour with everything that goes wrong, and what must never happen."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ingest.chunk import Chunk, Stream
from ingest.clock import Placed, SensorClock
from monitor.ring import Ring

START_NS = 1_795_000_000_000_000_000  # 2026
EPOCH_2019_NS = 599_616_000_000_000_000  # of an H10 that was never set: since 2000
LEAST_S = 0.015  # the least latency, which stays in the mapped times
N = 73


@dataclass
class Sent:
    """One packet: when its samples were taken, by UTC and by the sensor, and when it arrived."""

    first: int  # number of its first sample
    start_ns: int  # UTC of the first sample
    last_ns: int | None
    arrived_ns: int
    monotonic_ns: int
    n: int = N
    lost: bool = False
    repeat: bool = False

    @property
    def samples(self) -> np.ndarray:
        return np.arange(self.first, self.first + self.n, dtype=np.float32)


@dataclass
class Sensor:
    """A sensor of a true rate and drift whose clock may be set; seeded."""

    rate: float = 129.9
    drift: float = 60e-6
    n: int = N
    resolution_ns: int = 1
    late_s: float = 0.020  # mean of the latency beyond the least
    resets: dict[float, int] = field(default_factory=dict)  # time in s -> what its clock says then
    stalls: list[tuple[float, float]] = field(default_factory=list)  # nothing gets through
    lost: list[tuple[float, float]] = field(default_factory=list)  # what is sampled then is lost
    repeats: float = 0.0
    clock: bool = True
    seed: int = 1

    def packets(self, duration_s: float) -> list[Sent]:
        rng = np.random.default_rng(self.seed)
        sent: list[Sent] = []
        clock_at, clock_ns = 0.0, EPOCH_2019_NS
        resets = sorted(self.resets.items())
        last_arrival = 0.0
        for first in range(0, int(duration_s * self.rate), self.n):
            start, last = first / self.rate, (first + self.n - 1) / self.rate
            while resets and resets[0][0] <= last:
                clock_at, clock_ns = resets.pop(0)
            device_ns = clock_ns + round((last - clock_at) * (1 - self.drift) * 1e9)
            device_ns -= device_ns % self.resolution_ns
            arrival = last + LEAST_S + rng.exponential(self.late_s)
            for a, b in self.stalls:
                if a <= arrival < b:
                    arrival = b
            arrival = last_arrival = max(arrival, last_arrival)
            packet = Sent(
                first,
                START_NS + round(start * 1e9),
                device_ns if self.clock else None,
                START_NS + round(arrival * 1e9),
                round(arrival * 1e9),
                self.n,
                lost=any(a <= start < b for a, b in self.lost),
            )
            sent.append(packet)
            if not packet.lost and rng.random() < self.repeats:
                back = sent[-int(rng.integers(1, 20)) :][0]
                if not back.lost:
                    times = {"arrived_ns": packet.arrived_ns, "monotonic_ns": packet.monotonic_ns}
                    sent.append(replace(back, repeat=True, **times))
        return sent


def play(clock: SensorClock, sent: list[Sent]) -> Iterator[Placed]:
    for packet in sent:
        if not packet.lost:
            yield from clock.place(
                packet.samples, packet.last_ns, packet.arrived_ns, packet.monotonic_ns
            )
    yield from clock.flush()


def errors_s(sent: list[Sent], placed: list[Placed]) -> np.ndarray:
    """Mapped less true time of the first sample of every packet, in s; not the least latency."""
    truth = {packet.first: packet.start_ns for packet in sent}
    return np.array([p.start_ns - truth[int(p.microvolts[0])] for p in placed]) / 1e9 - LEAST_S


def numbers(placed: list[Placed]) -> list[int]:
    return [int(p.microvolts[0]) for p in placed]


def lost_before(placed: list[Placed]) -> list[int]:
    """How many samples are truly lost before each packet but the first."""
    return [int(b.microvolts[0]) - int(a.microvolts[-1]) - 1 for a, b in pairwise(placed)]


HOUR = Sensor(
    resets={1203.0: 599_616_000_000_000_000, 2507.0: 848_000_000_000_000_000},
    stalls=[(300, 330), (700, 712), (1190, 1215), (2000, 2030), (2031, 2050), (3000, 3029)],
    lost=[(100, 101), (250, 262), (310, 320), (1500, 1545), (2490, 2520), (2800, 2990)],
    repeats=0.05,
)


@pytest.fixture(scope="module", params=[1, 2, 3, 4, 5])
def hour(request: pytest.FixtureRequest) -> tuple[list[Sent], SensorClock, list[Placed]]:
    """An hour of 129.9 Hz instead of 130, 60 ppm drift, two resets, stalls, losses, repeats."""
    clock = SensorClock(130.0)
    sent = replace(HOUR, seed=request.param).packets(3600)
    return sent, clock, list(play(clock, sent))


def test_an_hour_is_placed_within_20_ms(hour: tuple[list[Sent], SensorClock, list[Placed]]) -> None:
    sent, _, placed = hour
    assert np.abs(errors_s(sent, placed)).max() < 0.020


def test_an_hour_comes_out_once_and_in_order(
    hour: tuple[list[Sent], SensorClock, list[Placed]],
) -> None:
    sent, clock, placed = hour
    assert numbers(placed) == [p.first for p in sent if not p.lost and not p.repeat]
    assert clock.repeats == sum(p.repeat for p in sent) > 100


def test_what_an_hour_lost_is_counted(hour: tuple[list[Sent], SensorClock, list[Placed]]) -> None:
    _, _, placed = hour
    truth = lost_before(placed)
    assert sum(truth) > 30_000
    for p, lost in zip(placed[1:], truth, strict=True):
        # By the sensor's clock to the sample; where it jumped by UTC, as well as that is known.
        jumped = (p.anchored or "").startswith("device clock")
        assert abs(p.missing - lost) <= (2 if jumped else 0), p
    assert [p.anchored for p in placed if p.anchored] == [
        "first",
        "device clock jumped back",
        "device clock jumped",
        "long silence",
    ]


def test_an_hour_abuts_and_never_overlaps(
    hour: tuple[list[Sent], SensorClock, list[Placed]],
) -> None:
    _, _, placed = hour
    period_ns = 1e9 / HOUR.rate
    assert {p.rate for p in placed} == {130.0}
    for a, b in pairwise(placed):
        gap = (b.start_ns - a.start_ns) / period_ns - len(a.microvolts) - b.missing
        assert abs(gap) < (2.5 if b.missing else 0.3)


def test_the_ring_finds_the_gaps_of_an_hour_and_no_others(
    hour: tuple[list[Sent], SensorClock, list[Placed]],
) -> None:
    _, _, placed = hour
    stream = Stream("anna", "h10")
    ring = Ring(stream, length_s=10, hop_s=5)
    gaps = []
    for p in placed:
        gaps += ring.add(Chunk(stream, p.start_ns, p.rate, p.microvolts)).gaps
    truth = [lost / HOUR.rate for lost in lost_before(placed) if lost]
    assert {gap.cause for gap in gaps} == {"no data"}
    assert [(g.end_ns - g.start_ns) / 1e9 for g in gaps] == pytest.approx(truth, abs=0.025)


def test_without_latency_the_mapping_is_exact() -> None:
    clock = SensorClock(130.0)
    sent = Sensor(rate=130.0, drift=0.0, late_s=0.0).packets(60)
    placed = list(play(clock, sent))
    assert len(placed) == len(sent) > 100
    assert np.abs(errors_s(sent, placed)).max() < 1e-6


@pytest.mark.parametrize("drift", [-400e-6, -60e-6, 60e-6, 300e-6])
def test_drift_is_followed(drift: float) -> None:
    sent = Sensor(drift=drift).packets(1800)
    placed = list(play(SensorClock(130.0), sent))
    # A minute of drift is what the window can lag behind by.
    assert np.abs(errors_s(sent, placed)).max() < 0.005 + 0.010 + 60 * abs(drift)
    assert [p.anchored for p in placed[1:] if p.anchored] == []


@pytest.mark.parametrize(
    ("true", "declared"), [(129.9, 130.0), (130.5, 130.0), (127.4, 127.4), (132.6, 132.6)]
)
def test_a_rate_that_is_off_is_no_loss(true: float, declared: float) -> None:
    sent = Sensor(rate=true, lost=[(60, 61)]).packets(300)
    placed = list(play(SensorClock(130.0), sent))
    assert len({p.rate for p in placed}) == 1
    assert placed[0].rate == pytest.approx(declared, abs=0.02)
    assert [p.missing for p in placed[1:]] == lost_before(placed)
    assert np.abs(errors_s(sent, placed)).max() < 0.020


def test_a_timestamp_in_milliseconds_is_good_enough() -> None:
    sensor = Sensor(rate=128.02, n=16, resolution_ns=1_000_000, lost=[(100, 103)], late_s=0.01)
    sent = sensor.packets(600)
    placed = list(play(SensorClock(128.0), sent))
    assert [p.missing for p in placed[1:]] == lost_before(placed)
    assert sum(p.missing for p in placed) >= 24 * 16
    assert np.abs(errors_s(sent, placed)).max() < 0.020


def test_packets_held_up_at_the_start_are_placed_when_they_were_taken() -> None:
    sent = Sensor(stalls=[(0, 30)]).packets(60)
    placed = list(play(SensorClock(130.0), sent))
    assert np.abs(errors_s(sent, placed)).max() < 0.020


def test_samples_are_held_for_five_seconds_at_an_anchor_and_never_after() -> None:
    clock = SensorClock(130.0)
    out = [
        len(clock.place(packet.samples, packet.last_ns, packet.arrived_ns, packet.monotonic_ns))
        for packet in Sensor(late_s=0.0).packets(20)
    ]
    assert out[:9] == [0] * 9
    assert out[9] == 10
    assert set(out[10:]) == {1}


def test_a_short_connection_gives_what_it_held() -> None:
    clock = SensorClock(130.0)
    sent = Sensor().packets(2)
    placed = list(play(clock, sent))
    assert numbers(placed) == [p.first for p in sent]
    assert clock.flush() == []


def test_delay_that_lasts_for_minutes_is_not_taken_for_time() -> None:
    # Everything is 4 s late for 150 s; after a minute the times give way by 500 ppm at most.
    sent = Sensor(drift=0.0).packets(900)
    for packet in sent:
        now = packet.monotonic_ns
        late = 0
        if 300e9 < now < 450e9:
            late = 4_000_000_000
        elif 450e9 <= now < 454e9:
            late = 454_000_000_000 - now  # behind those
        packet.arrived_ns += late
        packet.monotonic_ns += late
    placed = list(play(SensorClock(130.0), sent))
    assert np.abs(errors_s(sent, placed)).max() < 0.020 + 95 * 500e-6
    assert [p.anchored for p in placed if p.anchored] == ["first"]
    assert sum(p.missing for p in placed) == 0


@pytest.mark.parametrize("step_s", [3600.0, -3600.0, 0.4, -0.4])
def test_the_clock_of_the_host_is_followed_at_once(step_s: float) -> None:
    sent = Sensor().packets(120)
    for packet in sent:
        if packet.monotonic_ns > 60e9:
            packet.arrived_ns += round(step_s * 1e9)
    placed = list(play(SensorClock(130.0), sent))
    late = errors_s(sent, placed)
    set_at = next(i for i, p in enumerate(placed) if p.anchored == "host clock set")
    assert np.abs(late[:set_at]).max() < 0.020
    assert np.abs(late[set_at:] - step_s).max() < 0.020
    assert sum(p.missing for p in placed) == 0
    assert sum(p.anchored is not None for p in placed) == 2


def test_a_reset_during_the_first_seconds_loses_nothing() -> None:
    sent = Sensor(resets={2.0: EPOCH_2019_NS - 10**15, 6.0: EPOCH_2019_NS + 10**17}).packets(60)
    placed = list(play(SensorClock(130.0), sent))
    assert numbers(placed) == [p.first for p in sent]
    assert np.abs(errors_s(sent, placed))[20:].max() < 0.040


def test_a_sensor_without_a_clock_is_placed_by_count() -> None:
    sensor = Sensor(
        rate=130.0, drift=0.0, clock=False, stalls=[(100, 128)], lost=[(200, 210), (400, 401)]
    )
    sent = sensor.packets(600)
    placed = list(play(SensorClock(130.0), sent))
    error = np.abs(errors_s(sent, placed))
    before = [p.first < 200 * 130 for p in sent if not p.lost]
    assert error[before].max() < 0.020
    # The ten seconds show after a minute in which nothing made up for them; one second does not
    # stand out, but is found by and by.
    late = [i for i, p in enumerate(placed) if p.anchored == "samples lost"]
    assert 270 * 130 < placed[late[0]].microvolts[0] < 280 * 130
    assert abs(placed[late[0]].missing - 10 * 130) <= 2 * N
    assert error[late[0] : late[0] + 100].max() < 0.020


def test_a_rate_that_is_a_little_off_does_not_add_up_over_long_packets() -> None:
    clock, n, rate = SensorClock(130.0), 400, 130.0 * 1.004
    placed: list[Placed] = []
    for i in range(1, 601):
        now = round(i * n / rate * 1e9)
        samples = np.full(n, i, dtype=np.float32)
        placed += clock.place(samples, 10**18 + now, START_NS + now, now)
    assert len(placed) == 600
    late = placed[-1].start_ns - START_NS - 599 * n / rate * 1e9
    assert abs(late) < 0.020 * 1e9


packets = st.tuples(
    st.integers(1, 100),  # samples
    st.integers(0, 3),  # packets lost before it
    st.floats(0, 3),  # delay in s
    st.sampled_from([0] * 20 + [-1_000_000_000_000, -700_000_000, 900_000_000, 10**17]),  # jump
    st.sampled_from([False] * 10 + [True]),  # delivered again
    st.sampled_from([0.0] * 20 + [30.0, 90.0]),  # silence before it
)


@settings(max_examples=300, deadline=None)
# The clock goes back by what was lost just before: the period seems 2 % shorter than is declared.
@example(
    [
        (1, 0, 0.0, 0, False, 0.0),
        (46, 1, 0.0, 0, False, 0.0),
        (45, 2, 0.0, -700_000_000, False, 0.0),
    ],
    True,
    130.0,
)
@given(st.lists(packets, min_size=1, max_size=60), st.booleans(), st.floats(129.4, 130.6))
def test_whatever_comes_nothing_is_lost_doubled_or_set_back(
    script: list[tuple[int, int, float, int, bool, float]], has_clock: bool, rate: float
) -> None:
    clock = SensorClock(130.0)
    now, jumped, first, arrival = 1000.0, 0, 0, 0.0
    given_first, repeats = [], 0
    placed: list[Placed] = []
    for n, lost, delay, jump, again, silence in script:
        now += lost * n / rate + silence + n / rate
        jumped += jump
        arrival = max(arrival, now + delay)
        samples = np.arange(first, first + n, dtype=np.float32)
        device_ns = 10**18 + round(now * 1e9) + jumped if has_clock else None
        times = (START_NS + round(arrival * 1e9), round(arrival * 1e9))
        placed += clock.place(samples, device_ns, *times)
        if again and has_clock:
            placed += clock.place(samples.copy(), device_ns, *times)
            repeats += 1
        given_first.append(first)
        first += n
    placed += clock.flush()
    assert numbers(placed) == given_first
    assert clock.repeats == repeats
    for a, b in pairwise(placed):
        # The instants of samples rise, at the spacing that the chunk declares.
        assert b.start_ns > a.start_ns + (len(a.microvolts) - 1) / a.rate * 1e9
        assert b.missing >= 0
        assert math.isfinite(b.rate)
        assert 0.94 < b.rate / 130 < 1.06


@pytest.mark.parametrize("last_ns", [0, 2**64 - 1])
def test_extreme_clocks_do_no_harm(last_ns: int) -> None:
    clock = SensorClock(130.0)
    samples = np.zeros(N, np.float32)
    placed = clock.place(samples, last_ns, START_NS, 0)
    placed += clock.place(samples + 1, 2**64 - 1 - last_ns, START_NS + 10**9, 10**9)
    placed += clock.place(samples + 2, 5, START_NS + 2 * 10**9, 2 * 10**9)
    placed += clock.flush()
    assert len(placed) == 3
    assert all(abs(p.start_ns - START_NS) < 5e9 for p in placed)
