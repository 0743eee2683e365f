"""From the chunks of a stream, as they come, to the runs that the watch for lethal rhythms sees."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rhythm_watches import MODEL, ORGANISED, UNKNOWN, VF, Watches
from watching import STREAM, T0, S

from alerts.rhythm import Rhythm, RhythmSeen
from ingest.chunk import Chunk
from monitor.rhythms import StreamRhythms, rate_of

RATE = 100.0
RNG = np.random.default_rng(1)
# A little of something, so that no two seconds have the same samples.
GRAIN = RNG.uniform(-50, 50, 100_000).astype(np.float32)


def signal(start_s: float, seconds: float, level: float = ORGANISED, rate: float = RATE) -> Chunk:
    first = round(start_s * rate)
    samples = GRAIN[first : first + round(seconds * rate)] + np.float32(level)
    return Chunk(STREAM, T0 + round(start_s * S), rate, samples)


def watched(*chunks: Chunk) -> tuple[list[RhythmSeen], Watches]:
    watches = Watches()
    rhythms = StreamRhythms(STREAM, MODEL, watches)
    return [seen for chunk in chunks for seen in rhythms.add(chunk)], watches


def told(seen: list[RhythmSeen]) -> list[tuple[float, str, float]]:
    """End, rhythm and onset, in seconds from ``T0``."""
    return [((s.at_ns - T0) / S, s.rhythm.value, (s.since_ns - T0) / S) for s in seen]


def settled(seen: list[RhythmSeen]) -> list[RhythmSeen]:
    """Without what is said where there is too little for a verdict."""
    return [one for one in seen if one.rhythm is not Rhythm.UNKNOWN]


def lost(chunk: Chunk) -> Chunk:
    return replace(chunk, microvolts=np.full_like(chunk.microvolts, np.nan))


def test_a_verdict_has_its_time_its_onset_and_its_beat() -> None:
    seen = settled(watched(signal(0, 5), signal(5, 3, VF))[0])
    assert told(seen) == [
        (3, "organised", 2),
        (4, "organised", 2),
        (5, "organised", 2),
        (6, "vf", 5),
        (7, "vf", 5),
        (8, "vf", 5),
    ]
    assert {(s.patient, s.device) for s in seen} == {("anna", "strap")}
    assert [s.rate for s in seen] == [70.0] * 3 + [None] * 3
    # The last sample of the fifth second begins 10 ms before its end.
    assert [s.last_beat_ns for s in seen] == [T0 + S * n // 100 for n in (299, 399, *[499] * 4)]


@settings(deadline=None, max_examples=50)
@given(st.lists(st.integers(1, 300), min_size=1, max_size=30))
def test_how_a_signal_is_cut_into_chunks_changes_nothing(counts: list[int]) -> None:
    ends = np.minimum(np.cumsum(counts) / RATE, 20.0)
    starts = np.concatenate(([0.0], ends[:-1]))
    whole = signal(0, float(ends[-1]))
    cut = [signal(a, b - a) for a, b in zip(starts, ends, strict=True)]
    seen, watches = watched(*cut)
    assert seen == watched(whole)[0]
    np.testing.assert_array_equal(watches.made[0].samples, whole.microvolts)


def test_an_onset_of_long_ago_keeps_its_time() -> None:
    seen, _ = watched(*(signal(n, 1) for n in range(400)))
    assert {s.since_ns for s in settled(seen)} == {T0 + 2 * S}


def test_one_lost_frame_is_bridged() -> None:
    seen, watches = watched(signal(0, 4, VF), signal(4.5, 3.5, VF))
    assert [at for at, _, _ in told(seen)] == [1, 2, 3, 4, 5, 6, 7, 8]
    assert watches.runs == [800]


def test_a_bridge_is_the_signal_before_it_backwards_and_meets_both_ends() -> None:
    # A wave of 4 Hz about a line that climbs 100 µV a second.
    at_s = np.arange(0, 8, 1 / RATE)
    wave = (300 * np.cos(2 * np.pi * 4 * at_s) + 100 * at_s).astype(np.float32)
    chunk = Chunk(STREAM, T0, RATE, wave)
    _, watches = watched(
        replace(chunk, microvolts=wave[:400]),
        replace(chunk, microvolts=wave[450:], start_ns=T0 + round(4.5 * S)),
    )
    # Four waves a second are two in half a second: mirrored at a peak, they go on as they were.
    bridge = watches.made[0].samples[400:450]
    np.testing.assert_allclose(bridge, wave[400:450], atol=80)
    assert np.abs(np.diff(watches.made[0].samples[395:455])).max() < 90


def test_samples_that_are_not_finite_are_lost_ones() -> None:
    chunk = signal(0, 6)
    broken = chunk.microvolts.copy()
    broken[250:300] = np.nan
    broken[310] = np.inf
    seen, watches = watched(replace(chunk, microvolts=broken))
    assert [at for at, _, _ in told(seen)] == [1, 2, 3, 4, 5, 6]
    np.testing.assert_array_equal(watches.made[0].samples[300:310], chunk.microvolts[300:310])
    assert watches.runs == [600]


def test_after_a_longer_gap_a_run_begins_anew() -> None:
    seen, watches = watched(signal(0, 4), signal(5.1, 4, VF))
    assert told(seen) == [
        (1, "unknown", 0),
        (2, "unknown", 0),
        (3, "organised", 2),
        (4, "organised", 2),
        (6.1, "unknown", 5.1),
        (7.1, "unknown", 5.1),
        (8.1, "vf", 7.1),
        (9.1, "vf", 7.1),
    ]
    assert watches.runs == [400, 400]


def test_a_bridge_is_never_longer_than_the_signal_before_it() -> None:
    # Half a second in every one and a half: of that much line nothing can be told.
    _, watches = watched(*(signal(1.5 * n, 0.5) for n in range(4)))
    assert watches.runs == [50, 50, 50, 50]
    # Half a second in every second.
    _, watches = watched(*(signal(n, 0.5) for n in range(4)))
    assert watches.runs == [350]


def test_repeats_and_overlaps_are_left_out() -> None:
    chunks = [signal(0, 2), signal(1, 2), signal(1, 1), signal(2.5, 1.5)]
    seen, watches = watched(*chunks)
    np.testing.assert_array_equal(watches.made[0].samples, signal(0, 4).microvolts)
    assert watches.runs == [400]
    assert [at for at, _, _ in told(seen)] == [1, 2, 3, 4]


def test_a_clock_that_is_set_back_begins_a_run() -> None:
    before = replace(signal(100, 4), start_ns=T0 + 100 * S)
    after = replace(signal(104, 4, VF), start_ns=T0 + 10 * S)
    seen, watches = watched(before, after)
    seen = settled(seen)
    assert watches.runs == [400, 400]
    assert told(seen)[2:] == [(13, "vf", 12), (14, "vf", 12)]
    # The beat before is of a time to come.
    assert [s.last_beat_ns for s in seen[2:]] == [None, None]


def test_a_small_correction_of_the_clock_does_not() -> None:
    seen, watches = watched(signal(0, 4), replace(signal(4, 2, VF), start_ns=T0 + round(3.7 * S)))
    assert watches.runs == [600]
    assert [(s.at_ns - T0) / S for s in seen[-2:]] == [4.7, 5.7]


def test_a_rate_that_is_not_quite_as_declared_is_followed() -> None:
    # 100 samples that last 1.01 s each.
    chunks = [replace(signal(n, 1), start_ns=T0 + round(1.01 * n * S)) for n in range(200)]
    seen, watches = watched(*chunks)
    assert watches.runs == [20_000]
    assert (seen[-1].at_ns - T0) / S == pytest.approx(1.01 * 199 + 1)


def test_another_rate_begins_a_run() -> None:
    _, watches = watched(signal(0, 4), signal(4, 4, rate=130.0), signal(8, 4))
    assert watches.runs == [400, 520, 400]


def test_signal_of_before_that_comes_between_signal_of_now_does_not_break_it() -> None:
    now = [signal(100 + n, 1) for n in range(6)]
    then = [signal(n, 1, VF) for n in range(6)]
    seen, watches = watched(*(c for pair in zip(now, then, strict=True) for c in pair))
    assert watches.runs == [600, 600]
    assert [at for at, rhythm, _ in told(seen) if rhythm == "vf"] == [3, 4, 5, 6]
    assert [at for at, rhythm, _ in told(seen) if rhythm == "organised"] == [103, 104, 105, 106]


def test_electrodes_off_the_skin_tell_nothing_and_end_the_run() -> None:
    off = [replace(signal(4 + 0.5 * n, 0.5, VF), contact=False) for n in range(5)]
    seen, watches = watched(signal(0, 4), *off, signal(6.5, 3.5, VF))
    assert told(seen)[4:] == [
        (5, "unknown", 4),
        (6, "unknown", 4),
        (7.5, "unknown", 6.5),
        (8.5, "unknown", 6.5),
        (9.5, "vf", 8.5),
    ]
    assert [s.contact for s in seen[3:]] == [None, False, False, None, None, None]
    assert [s.last_beat_ns for s in seen[4:]] == [T0 + round(3.99 * S)] * 5
    assert watches.runs == [400, 350]


def test_what_is_lost_for_more_than_a_second_cannot_be_told() -> None:
    gone = [lost(signal(4 + n, 1)) for n in range(5)]
    seen, watches = watched(signal(0, 4), *gone, signal(9, 3))
    # The first second might have been bridged.
    assert told(seen)[4:] == [
        *((n, "unknown", 4) for n in range(6, 10)),
        *((n, "unknown", 9) for n in (10, 11)),
        (12, "organised", 11),
    ]
    assert watches.runs == [400, 300]


def test_one_lost_chunk_is_bridged() -> None:
    seen, watches = watched(signal(0, 4), lost(signal(4, 1)), signal(5, 1))
    assert [at for at, _, _ in told(seen)] == [1, 2, 3, 4, 5, 6]
    assert watches.runs == [600]


def test_a_rate_that_shows_no_qrs_cannot_be_told() -> None:
    seen, watches = watched(signal(0, 3, rate=40.0))
    assert told(seen) == [(n, "unknown", 0) for n in (1, 2, 3)]
    assert watches.runs == []


def test_an_empty_chunk_is_nothing() -> None:
    seen, watches = watched(signal(0, 3), signal(3, 0), signal(3, 1))
    assert [at for at, _, _ in told(seen)] == [1, 2, 3, 4]
    assert watches.runs == [400]


@pytest.mark.parametrize(
    ("rhythm", "rate", "beat_s", "shown"),
    [
        (Rhythm.ORGANISED, 71.0, 0.2, 70.0),
        (Rhythm.VT, 180.0, 0.2, 180.0),
        (Rhythm.VT, None, 0.2, None),
        (Rhythm.VF, None, 3.0, None),
        (Rhythm.ASYSTOLE, None, 3.0, None),
        (Rhythm.UNKNOWN, None, 3.0, 70.0),
        (Rhythm.UNKNOWN, None, 6.0, None),
        (Rhythm.UNKNOWN, None, None, None),
    ],
)
def test_no_rate_where_no_beat_is_seen(
    rhythm: Rhythm, rate: float | None, beat_s: float | None, shown: float | None
) -> None:
    seen = RhythmSeen(
        patient="anna",
        device="strap",
        at_ns=T0,
        rhythm=rhythm,
        since_ns=T0,
        rate=rate,
        last_beat_ns=None if beat_s is None else T0 - round(beat_s * S),
    )
    assert rate_of(seen, 70.0) == shown
    assert rate_of(None, 70.0) == 70.0
    assert rate_of(seen, None) == (shown if rhythm is Rhythm.VT else None)


def test_what_cannot_be_told_by_the_watch_is_unknown() -> None:
    seen, _ = watched(signal(0, 4, UNKNOWN))
    assert told(seen) == [
        (1, "unknown", 0),
        (2, "unknown", 0),
        (3, "unknown", 2),
        (4, "unknown", 2),
    ]


def test_a_link_that_never_holds_for_a_verdict_shows_no_heart() -> None:
    """Two and a half seconds in every four: too little each time, and yet there is signal."""
    seen, watches = watched(*(signal(4 * n, 2.5) for n in range(5)))
    assert watches.runs == [250] * 5
    assert told(seen) == [(4 * n + s, "unknown", 4 * n) for n in range(5) for s in (1, 2)]
    assert {one.last_beat_ns for one in seen} == {None}
    # Frames of half a second each second are counted by the time that they take.
    seen, _ = watched(*(signal(1.6 * n, 0.6) for n in range(10)))
    assert [at for at, _, _ in told(seen)] == [*range(1, 16)]


def test_signal_in_pieces_too_short_to_tell_is_told_of_second_by_second() -> None:
    """Six of ten samples are lost, never for a second: no run lasts, and no gap is long."""
    pieces = signal(0, 30)
    pieces.microvolts[1000:] = np.where(
        np.arange(2000) % 100 < 60, np.float32(np.nan), pieces.microvolts[1000:]
    )
    seconds = np.split(pieces.microvolts, 30)
    cut = [replace(pieces, start_ns=T0 + n * S, microvolts=part) for n, part in enumerate(seconds)]
    seen, _ = watched(*cut)
    assert told(seen)[2:] == [
        *((at, "organised", 2) for at in range(3, 12)),  # one such gap is bridged
        *((at + 0.6, "unknown", 11.6) for at in range(12, 30)),
    ]
    assert {s.last_beat_ns for s in seen[11:]} == {seen[10].last_beat_ns}


def test_what_no_electrode_gives_is_lost() -> None:
    """A device that makes up samples of over a volt shows no heart, and a spike hides none."""
    spike = signal(0, 5)
    spike.microvolts[250:255] = 1e9
    whole, _ = watched(spike)
    assert [rhythm for _, rhythm, _ in told(whole)] == ["unknown"] * 2 + ["organised"] * 3
    made_up = replace(signal(5, 8), microvolts=np.full(800, 3e38, np.float32))
    seen, watches = watched(signal(0, 5), made_up)
    assert told(seen)[5:] == [(at, "unknown", 5) for at in range(7, 14)]
    assert watches.runs == [500]
