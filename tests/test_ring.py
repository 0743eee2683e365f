"""Windows and gaps of one stream."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ingest.chunk import Chunk, Stream
from monitor.metrics import SAMPLES_FILLED_LATE
from monitor.ring import Ring
from monitor.window import Gap, Window

STREAM = Stream("anna", "strap")
RATE = 100.0
SECOND = 1_000_000_000
T0 = 1_700_000_000 * SECOND


def ramp(start_s: float, seconds: float, *, rate: float = RATE, step_ns: int = 0) -> Chunk:
    """Samples that say which sample of the signal they are."""
    first = round(start_s * rate)
    samples = np.arange(first, first + round(seconds * rate), dtype=np.float32)
    return Chunk(STREAM, T0 + round(start_s * SECOND) + step_ns, rate, samples)


def run(chunks: list[Chunk], *, finish: bool = True) -> tuple[list[Window], list[Gap]]:
    ring = Ring(STREAM, length_s=10, hop_s=5)
    windows, gaps = [], []
    for chunk in chunks:
        cut = ring.add(chunk)
        windows += cut.windows
        gaps += cut.gaps
    return windows + (ring.finish() if finish else []), gaps


def starts(windows: list[Window]) -> list[float]:
    return [(w.start_ns - T0) / SECOND for w in windows]


def test_windows_follow_each_other_by_the_hop_and_hold_the_right_samples() -> None:
    windows, gaps = run([ramp(s, 1) for s in range(30)])
    assert starts(windows) == [0, 5, 10, 15, 20]
    assert gaps == []
    for window in windows:
        first = (window.start_ns - T0) / SECOND * RATE
        assert np.array_equal(window.microvolts, first + np.arange(1000))
        assert window.rate == RATE


def test_the_end_of_a_run_is_one_more_window_that_ends_with_it() -> None:
    windows, _ = run([ramp(s, 1) for s in range(13)])
    assert starts(windows) == [0, 3]
    assert windows[-1].microvolts[-1] == 1299


def test_a_run_shorter_than_a_window_is_one_short_window() -> None:
    windows, _ = run([ramp(s, 1) for s in range(6)])
    assert [w.duration_s for w in windows] == [6]


def test_a_short_gap_is_filled_with_nan_and_recorded() -> None:
    windows, gaps = run([ramp(s, 1) for s in range(20) if s != 12])
    assert gaps == [Gap(STREAM, T0 + 12 * SECOND, T0 + 13 * SECOND, "no data")]
    assert starts(windows) == [0, 5, 10]
    missing = [int(np.isnan(w.microvolts).sum()) for w in windows]
    assert missing == [0, 100, 100]


def test_nothing_is_drawn_across_a_gap_of_two_hours() -> None:
    late = 7200 + 17
    windows, gaps = run([ramp(s, 1) for s in [*range(17), *range(late, late + 12)]])
    assert gaps == [Gap(STREAM, T0 + 17 * SECOND, T0 + late * SECOND, "no data")]
    assert starts(windows) == [0, 5, 7, late, late + 2]
    assert not any(np.isnan(w.microvolts).any() for w in windows)


def test_a_repeated_chunk_changes_nothing() -> None:
    once = [ramp(s, 1) for s in range(15)]
    again = [*once[:8], once[6], once[7], *once[8:]]
    windows, gaps = run(again)
    reference, _ = run(once)
    assert gaps == []
    assert starts(windows) == starts(reference)
    for a, b in zip(windows, reference, strict=True):
        assert np.array_equal(a.microvolts, b.microvolts)


def test_an_overlapping_chunk_gives_only_what_is_new() -> None:
    windows, gaps = run([ramp(0, 8), ramp(6, 6)])
    assert gaps == []
    assert np.array_equal(windows[0].microvolts, np.arange(1000))


def test_a_late_chunk_goes_into_its_gap() -> None:
    order = [0, 1, 2, 3, 5, 4, 6, 7, 8, 9]
    windows, _ = run([ramp(s, 1) for s in order])
    assert np.array_equal(windows[0].microvolts, np.arange(1000))


def test_a_clock_set_back_begins_a_new_run() -> None:
    back = -3600 * SECOND
    chunks = [ramp(s, 1) for s in range(12)] + [ramp(s, 1, step_ns=back) for s in range(12, 24)]
    windows, gaps = run(chunks)
    assert [g.cause for g in gaps] == ["clock set back"]
    assert gaps[0].end_ns - gaps[0].start_ns == back
    assert starts(windows) == [0, 2, 12 - 3600, 14 - 3600]
    assert not any(np.isnan(w.microvolts).any() for w in windows)


def test_a_clock_set_back_by_less_than_the_ring_holds_is_not_a_repeat() -> None:
    chunks = [ramp(s, 1) for s in range(12)] + [
        ramp(s, 1, step_ns=-3 * SECOND) for s in range(12, 24)
    ]
    windows, gaps = run(chunks)
    assert [g.cause for g in gaps] == ["clock set back"]
    assert starts(windows)[2:] == [9, 11]


def test_a_device_slower_than_it_says_is_followed_without_gaps() -> None:
    true_rate = 98.0
    chunks = [
        Chunk(
            STREAM,
            T0 + round(k * 100 / true_rate * SECOND),
            RATE,
            np.arange(k * 100, k * 100 + 100, dtype=np.float32),
        )
        for k in range(60)
    ]
    windows, gaps = run(chunks, finish=False)
    assert gaps == []
    for window in windows:
        assert window.rate == pytest.approx(true_rate, rel=0.003)
        assert window.start_ns - T0 == pytest.approx(
            float(window.microvolts[0]) / true_rate * SECOND, abs=0.02 * SECOND
        )


def test_another_rate_begins_a_new_run() -> None:
    windows, _ = run(
        [ramp(s, 1) for s in range(11)] + [ramp(s, 1, rate=250) for s in range(11, 22)]
    )
    assert [w.rate for w in windows] == [100, 100, 250, 250]


def test_electrodes_off_anywhere_in_a_window_is_off() -> None:
    def touched(second: int, contact: bool | None) -> Chunk:
        c = ramp(second, 1)
        return Chunk(c.stream, c.start_ns, c.rate, c.microvolts, contact)

    windows, _ = run([touched(s, s != 3) for s in range(15)])
    assert [w.contact for w in windows] == [False, True]
    windows, _ = run([touched(s, None) for s in range(10)])
    assert [w.contact for w in windows] == [None]


@settings(max_examples=300, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(1, 400), st.one_of(st.just(0), st.integers(-2000, 4000))),
        min_size=1,
        max_size=40,
    )
)
def test_whatever_comes_windows_hold_only_what_was_sent(plan: list[tuple[int, int]]) -> None:
    """Any lengths, gaps and steps: no sample is invented, and memory stays bounded."""
    ring = Ring(STREAM, length_s=10, hop_s=5)
    now, index, sent = T0, 0, 0
    windows: list[Window] = []
    late: set[int] = set()
    for n, jump in plan:
        now += round(jump / RATE * SECOND)
        chunk = Chunk(STREAM, now, RATE, np.arange(index, index + n, dtype=np.float32))
        filled = SAMPLES_FILLED_LATE._value.get()
        windows += ring.add(chunk).windows
        if SAMPLES_FILLED_LATE._value.get() > filled:
            # Put into the gap it belongs to, out of the order in which samples are numbered here,
            # and perhaps after the windows over that gap were cut.
            late.update(range(index, index + n))
        assert len(ring._samples) <= 2000 + 1000 + n
        now, index, sent = chunk.end_ns, index + n, sent + n
    windows += ring.finish()
    held = np.concatenate([w.microvolts for w in windows])
    values = set(held[~np.isnan(held)].astype(int).tolist())
    assert values <= set(range(sent))
    assert set(range(sent)) - late <= values
    for window in windows:
        known = [v for v in window.microvolts.tolist() if not np.isnan(v) and int(v) not in late]
        assert (np.diff(known) > 0).all()


@pytest.mark.parametrize(
    "plan", [[(1, 0), (1, 600), (400, 0), (1, -1001)], [(1, 0), (1, 2), (1, -2)]]
)
def test_samples_that_come_late_into_their_gap_are_counted(plan: list[tuple[int, int]]) -> None:
    before = SAMPLES_FILLED_LATE._value.get()
    test_whatever_comes_windows_hold_only_what_was_sent.hypothesis.inner_test(plan)
    assert SAMPLES_FILLED_LATE._value.get() == before + 1
