"""R peaks, heart rate and pauses, on made-up and on recorded hearts."""

import csv
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from ingest.chunk import Stream
from monitor.beats import find_beats
from monitor.quality import assess
from monitor.window import Window
from training.shards import read_shard

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # wfdb 4.3 uses what pandas 3.1 deprecates
    import wfdb

Signal = NDArray[np.float64]


def heart(
    beats: Signal, *, rate: float = 250.0, seconds: float = 10.0, noise_uv: float = 10.0
) -> Signal:
    """A narrow QRS of 1 mV with P and T waves at every time in ``beats``, on a little noise."""
    t = np.arange(round(seconds * rate)) / rate
    signal = np.random.default_rng(5).normal(0, noise_uv, t.size)
    for at in beats:
        for lag, height, width in (
            (-0.16, 100, 0.025),
            (-0.03, -100, 0.01),
            (0.0, 1000, 0.012),
            (0.03, -200, 0.01),
            (0.25, 250, 0.045),
        ):
            signal += height * np.exp(-0.5 * ((t - at - lag) / width) ** 2)
    return signal


def every(rr_s: float, *, first: float = 0.5, last: float = 9.8) -> Signal:
    return np.arange(first, last, rr_s)


@pytest.mark.parametrize("rate", [50.0, 100.0, 125.0, 130.0, 256.4, 500.0, 1000.0, 2000.0])
def test_peaks_are_found_at_any_rate(rate: float) -> None:
    truth = every(0.8)
    beats = find_beats(heart(truth, rate=rate), rate)
    assert beats.r_peaks_s == pytest.approx(truth, abs=0.015)
    assert beats.heart_rate == pytest.approx(75, abs=0.5)


@pytest.mark.parametrize("bpm", [25, 40, 75, 150, 200, 240])
def test_peaks_are_found_at_any_heart_rate(bpm: int) -> None:
    truth = every(60 / bpm)
    beats = find_beats(heart(truth), 250.0)
    assert len(beats.r_peaks_s) == len(truth)
    assert beats.heart_rate == pytest.approx(bpm, rel=0.01)


@pytest.mark.parametrize("factor", [0.1, -1.0, 5.0, 1000.0])
def test_neither_scale_nor_polarity_nor_an_offset_matters(factor: float) -> None:
    truth = every(0.9)
    beats = find_beats(factor * heart(truth) + 1e5, 250.0)
    assert beats.r_peaks_s == pytest.approx(truth, abs=0.015)


def test_float32_gives_what_float64_gives() -> None:
    signal = heart(every(0.9)).astype(np.float32)
    one, other = find_beats(signal, 250.0), find_beats(signal.astype(np.float64), 250.0)
    assert one.r_peaks_s.tolist() == other.r_peaks_s.tolist()


def test_a_pause_is_the_longest_rr() -> None:
    truth = every(0.8)
    truth = truth[(truth < 3.5) | (truth > 7.0)]
    beats = find_beats(heart(truth), 250.0)
    assert beats.r_peaks_s == pytest.approx(truth, abs=0.015)
    assert beats.longest_rr_s == pytest.approx(np.diff(truth).max(), abs=0.02)


def test_a_pause_that_runs_to_an_edge_counts_up_to_it() -> None:
    beats = find_beats(heart(every(0.8, last=6.0)), 250.0)
    assert beats.longest_rr_s == pytest.approx(10.0 - beats.r_peaks_s[-1])
    late = find_beats(heart(every(0.8, first=4.0)), 250.0)
    assert late.longest_rr_s == pytest.approx(late.r_peaks_s[0])


def test_wide_inverted_ectopic_beats_are_beats() -> None:
    rate, normal = 250.0, np.array([0.5, 1.3, 2.1, 4.5, 5.3, 6.1, 8.5, 9.3])
    ectopic = np.array([2.65, 6.65])
    t = np.arange(2500) / rate
    signal = heart(normal, rate=rate)
    for at in ectopic:
        signal += -1200 * np.exp(-0.5 * ((t - at) / 0.035) ** 2)
        signal += 400 * np.exp(-0.5 * ((t - at - 0.28) / 0.07) ** 2)
    found = find_beats(signal, rate).r_peaks_s
    assert found == pytest.approx(np.sort(np.concatenate([normal, ectopic])), abs=0.04)


def test_tall_t_waves_are_not_beats() -> None:
    rate, truth = 250.0, every(0.8)
    t = np.arange(2500) / rate
    signal = heart(truth, rate=rate)
    for at in truth:
        signal += 900 * np.exp(-0.5 * ((t - at - 0.27) / 0.05) ** 2)
    assert find_beats(signal, rate).r_peaks_s == pytest.approx(truth, abs=0.015)


def test_a_peak_cut_by_the_end_is_not_listed_but_ends_an_interval() -> None:
    truth = np.array([1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.95])
    beats = find_beats(heart(truth), 250.0)
    assert beats.r_peaks_s == pytest.approx(truth[:-1], abs=0.015)
    assert beats.heart_rate == pytest.approx(60 * 8 / 8.95, abs=0.5)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_missing_sample_leaves_no_beats(bad: float) -> None:
    signal = heart(every(0.8))
    signal[1000] = bad
    beats = find_beats(signal, 250.0)
    assert beats.r_peaks_s.size == 0
    assert beats.heart_rate is None
    assert beats.longest_rr_s == 10.0


@pytest.mark.parametrize("rate", [50.0, 250.0, 2000.0])
@pytest.mark.parametrize("n", [0, 1, 2, 3, 10, 60])
def test_very_short_windows_have_few_beats_and_raise_nothing(n: int, rate: float) -> None:
    beats = find_beats(heart(every(0.1), rate=rate)[:n], rate)
    assert beats.r_peaks_s.size <= 1 + 5 * n / rate
    assert beats.longest_rr_s <= n / rate


@pytest.mark.parametrize("rate", [0.0, -250.0, 49.9, np.nan])
def test_a_rate_no_qrs_can_be_seen_at_is_refused(rate: float) -> None:
    with pytest.raises(ValueError, match="samples per second"):
        find_beats(np.ones(500), rate)


@given(
    arrays(np.float64, st.integers(1, 700), elements=st.floats()),
    st.floats(50, 2000),
)
@example(np.array([1.7e308, -1.7e308] * 300), 250.0)
@example(np.array([5e-324, 0.0] * 300), 250.0)
@settings(max_examples=150, deadline=None)
def test_whatever_comes_peaks_are_in_the_window_and_ascend(samples: Signal, rate: float) -> None:
    beats = find_beats(samples, rate)
    duration = len(samples) / rate
    assert (beats.r_peaks_s >= 0).all()
    assert (beats.r_peaks_s < duration).all()
    assert (np.diff(beats.r_peaks_s) > 0).all()
    assert 0 <= beats.longest_rr_s <= duration + 1e-9
    assert beats.heart_rate is None or beats.heart_rate > 0


def lead1(data: Path) -> Iterator[tuple[str, Signal, Signal]]:
    """Every third record of the subjects that no weight was fitted on: name, µV, R peaks."""
    with (data / "lead1" / "rpeaks.csv").open() as file:
        peaks = {row["record"]: row["samples"].split() for row in csv.DictReader(file)}
    for record in read_shard(data / "lead1" / "all.npz"):
        subject, _, number = record.id.partition("-")
        if int(subject) % 2 and int(number) % 3 == 0:
            beats = np.array(peaks[record.id], np.float64) / record.rate
            yield record.id, record.signal[0] * 100.0, beats


@pytest.mark.data
def test_recorded_r_peaks_are_found(data: Path) -> None:
    annotated = found = hit = true = windows = good = 0
    for name, microvolts, beats in lead1(data):
        window = Window(Stream(name, "lead1"), 0, 125.0, microvolts.astype(np.float32))
        windows += 1
        ours = assess(window)[1]
        if ours is None:
            continue
        good += 1
        near = np.abs(beats[:, None] - ours.r_peaks_s) <= 0.0751
        annotated, hit = annotated + len(beats), hit + int(near.any(axis=1).sum())
        found, true = found + len(ours.r_peaks_s), true + int(near.any(axis=0).sum())
    assert windows > 800
    assert good / windows >= 0.98
    assert hit / annotated >= 0.9985
    assert true / found >= 0.9960


@pytest.mark.data
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # wfdb's, of pandas
@pytest.mark.parametrize(
    ("record", "least_good", "least_right"),
    [("100", 1, 1), ("101", 0.98, 0.99), ("103", 1, 1), ("105", 0.9, 0.98), ("109", 1, 0.98)],
)
def test_recorded_heart_rates_are_right(
    data: Path, record: str, least_good: float, least_right: float
) -> None:
    path = str(data / "samples" / "mitdb" / record)
    signal = wfdb.rdrecord(path, channel_names=["MLII"]).p_signal[:, 0] * 1000
    annotation = wfdb.rdann(path, "atr")
    at = annotation.sample[np.isin(annotation.symbol, list("NLRAVFQ"))]
    right = []
    windows = 0
    for start in range(0, len(signal) - 3600 + 1, 3600):
        inside = at[(at >= start) & (at < start + 3600)] / 360
        microvolts = signal[start : start + 3600].astype(np.float32)
        windows += 1
        beats = assess(Window(Stream(record, "mitdb"), 0, 360.0, microvolts))[1]
        if beats is not None:
            assert beats.heart_rate is not None
            mean = 60 * (len(inside) - 1) / (inside[-1] - inside[0])
            right.append(abs(beats.heart_rate - mean) <= 2)
    assert len(right) / windows >= least_good
    assert np.mean(right) >= least_right
