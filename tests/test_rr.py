"""A strap that sends RR intervals only is watched too: rate, pauses, and a doubtful word on AF."""

import asyncio
import contextlib
import csv
import itertools
import json
import math
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import structlog
from alembic import command
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from prometheus_client import REGISTRY
from sqlalchemy import create_engine, text
from watching import ALWAYS, STREAM, T0, FakeAnalyzer, S, Told, gaps, new_database, started, windows

from alerts.conditions import Change, Priority, State
from alerts.engine import Engine
from alerts.lethal import RhythmEngine
from ingest.chunk import Chunk, Stream
from ingest.episodes import Episode, EpisodeKind, Script
from ingest.rr import RrIntervals
from ingest.simulator import simulate
from models.bundle import DEFAULT, find_bundle
from monitor.alarms import Alarms
from monitor.beats import find_beats
from monitor.cli.history import show_episodes, show_history
from monitor.config import Config
from monitor.daemon import Daemon
from monitor.irregularity import IRREGULAR_AF, MODEL, THRESHOLD, probability, signs
from monitor.observe import observation
from monitor.policies import build_policies
from monitor.quality import Quality, Reason
from monitor.results import WindowResult
from monitor.resume import restore
from monitor.rr import RrRing, RrWindow, is_possible, judge
from monitor.storage.history import History
from monitor.storage.maintenance import check, current_revision, migrating, upgrade
from monitor.window import Gap
from training.data import load_cinc2017

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # wfdb's own, of pandas
    import wfdb

pytest_plugins = ["postgres"]

Signal = NDArray[np.float64]
BEATS = frozenset("NLRBAaJSVrFejnE/fQ?")


def packet(end_s: float, *rr_s: float, **changes: Any) -> RrIntervals:
    made = RrIntervals(STREAM, T0 + round(end_s * S), tuple(rr_s), 70, True)
    return replace(made, **changes)


def strap(beats: Iterable[float], *, delay_s: float = 0.1, until_s: float = 0.0) -> list[Any]:
    """What a strap sends of a heart that beats at these times: a packet a second, in 1/1024 s."""
    times = np.sort(np.asarray(list(beats), float))
    counts = np.round(times * 1024)
    ends = np.arange(math.floor(times[0]) + 1, math.ceil(max(times[-1], until_s)) + 1)
    sent = []
    for end in ends:
        new = np.flatnonzero((times > end - 1) & (times <= end))
        rr = [(counts[i] - counts[i - 1]) / 1024 for i in new if i]
        sent.append(packet(end + delay_s, *rr))
    return sent


def regular(rate: float, seconds: float) -> Signal:
    return np.arange(0, seconds, 60 / rate)


def policies(**alarms: Any) -> Any:
    config = Config.model_validate(
        {
            "patients": [{"id": "anna", "alarms": alarms}],
            "sources": [
                {
                    "type": "simulator",
                    "patient": "anna",
                    "device": "strap",
                    "script": [{"kind": "sinus_rhythm", "duration": 60}],
                }
            ],
        }
    )
    return build_policies(config, find_bundle(DEFAULT))


def cut(packets: Sequence[RrIntervals]) -> tuple[list[RrWindow], list[Gap]]:
    """Windows and gaps of a ring of windows of 10 s every 5 s."""
    ring = RrRing(STREAM, length_s=10, hop_s=5)
    found: list[RrWindow] = []
    between: list[Gap] = []
    for one in packets:
        step = ring.add(one)
        found += step.windows
        between += step.gaps
    return found + ring.finish(), between


def judged(packets: Sequence[RrIntervals]) -> list[WindowResult]:
    return [judge(window) for window in cut(packets)[0]]


def alarms(results: Iterable[WindowResult], **overrides: Any) -> list[Change]:
    engine = Engine(policies(**overrides))
    return [change for result in results for change in engine.step(observation(result))]


def af(results: Iterable[WindowResult]) -> Signal:
    """The AF probabilities of the windows that have one."""
    return np.array([r.by_class[IRREGULAR_AF] for r in results if r.model is not None])


def starts(results: Iterable[WindowResult | RrWindow]) -> list[float]:
    return [round((r.start_ns - T0) / S, 2) for r in results]


def simulated(*episodes: Episode, seed: int = 3) -> Signal:
    return simulate(Script(episodes), seed=seed).truth.r_peaks_s


# --- windows


def test_a_window_worked_by_hand() -> None:
    beats = [0.5, 1.5, 2.5, 3.5, 5.5, 6.5, 7.5, 8.5, 9.5, 10.5, 11.5]
    (first, second) = judged(strap(beats))
    # The first packet tells of no interval, and comes 0.1 s after the first second.
    assert starts([first, second]) == [1.1, 2.1]
    assert first.duration_s == 10
    assert first.grade.good
    # Of the beats until 10.5, which is told at 11.1: nine intervals, one of them of 2 s.
    assert first.heart_rate == pytest.approx(60 / (10 / 9))
    assert first.longest_rr_s == 2
    # The packet came at the window's end: told beats are laid back from there.
    assert np.diff(first.r_peaks_s).tolist() == [1, 1, 1, 2, 1, 1, 1, 1, 1]
    assert first.r_peaks_s[-1] == 10
    assert (first.model, first.probabilities) == (None, None)


def test_an_indication_comes_after_a_minute_and_then_with_every_window() -> None:
    results = judged(strap(regular(60, 120)))
    known = [r.model is not None for r in results]
    ends = [(r.end_ns - r.start_ns) / S + s for r, s in zip(results, starts(results), strict=True)]
    assert known == [end - ends[0] + 10 >= 60 for end in ends]
    assert {r.model for r in results if r.model} == {MODEL}
    # Never by the name of a class that a waveform shows.
    assert not set(MODEL.classes) & set(find_bundle(DEFAULT).classes)


@pytest.mark.parametrize("rate", [32, 60, 110, 190])
@pytest.mark.parametrize("delay_s", [0.0, 0.6])
def test_a_steady_rate_is_told_in_every_window(rate: float, delay_s: float) -> None:
    results = judged(strap(regular(rate, 90), delay_s=delay_s))
    assert len(results) >= 16
    assert all(r.grade.good for r in results)
    assert [r.heart_rate for r in results] == pytest.approx([rate] * len(results), rel=0.005)
    assert max(af(results)) < 0.1


def test_what_comes_late_or_in_a_burst_is_still_right() -> None:
    """The radio held five packets back for four seconds."""
    sent = strap(regular(75, 120))
    late = [
        replace(p, end_ns=T0 + 64 * S + i) if 60 <= (p.end_ns - T0) / S < 64 else p
        for i, p in enumerate(sent)
    ]
    found, between = cut(late)
    assert between == []
    results = [judge(window) for window in found]
    assert len(results) == len(judged(sent))
    assert all(r.heart_rate == pytest.approx(75, rel=0.005) for r in results if r.grade.good)
    assert sum(not r.grade.good for r in results) <= 3


# --- what cannot be believed


def test_a_lost_contact_is_a_bad_window() -> None:
    sent = strap(regular(60, 90))
    off = [replace(p, contact=not 30 <= (p.end_ns - T0) / S < 33) for p in sent]
    results = judged(off)
    bad = [r for r in results if not r.grade.good]
    assert starts(bad) == [s for s in starts(results) if s < 33 and s + 10 > 30]
    assert all(Reason.CONTACT in r.grade.reasons for r in bad)
    # And for as long as it is in the minute looked back on, nothing is said of AF.
    assert [r.model for r in results] == [None] * len(results)


def test_a_strap_without_beats_is_unread_and_no_pause() -> None:
    sent = strap(regular(60, 40)) + [packet(41.1 + i) for i in range(30)]
    results = judged(sent)
    silent = [r for r in results if (r.start_ns - T0) / S > 42]
    assert len(silent) >= 4
    assert all(r.grade.reasons == (Reason.GAP,) for r in silent)
    assert alarms(results) == []


def test_intervals_that_do_not_account_for_the_time_are_bad() -> None:
    sent = strap(regular(60, 60))
    # Four beats that the strap left out, and others that it told twice.
    holes = [replace(p, rr_s=()) if 20 < i < 25 else p for i, p in enumerate(sent)]
    twice = [replace(p, rr_s=p.rr_s * 2) if 20 < i < 25 else p for i, p in enumerate(sent)]
    for spoilt in (holes, twice):
        bad = [r for r in judged(spoilt) if not r.grade.good]
        assert bad
        assert all(r.grade == replace(bad[0].grade, reasons=(Reason.GAP,)) for r in bad)
        assert all(-1 <= s - 11 <= 15 for s in starts(bad))


def test_steps_between_the_beats_are_noise() -> None:
    beats = np.sort(np.concatenate((regular(75, 60), regular(75, 60)[20::3] + 0.2)))
    results = judged(strap(beats))
    noisy = [r for r in results if r.grade.reasons == (Reason.NOISY,)]
    assert starts(noisy)[0] < 20
    assert [r.grade.good for r in results[-5:]] == [False] * 5


def test_nothing_is_said_of_af_while_the_minute_is_noisy() -> None:
    steps = 20 + np.arange(0, 8, 0.8)
    beats = np.sort(np.concatenate((regular(75, 120), steps + 0.2)))
    results = judged(strap(beats))
    good_but_unsaid = [r for r in results if r.grade.good and r.model is None]
    # Ten steps among some 75 beats: for as long as more than a tenth is within the minute.
    assert [s for s in starts(good_but_unsaid) if s > 50] != []
    assert results[-1].model is MODEL


def test_a_pause_is_no_part_of_the_rhythm() -> None:
    """29 intervals in the minute are too few to judge, and a pause is not the thirtieth."""
    slow = np.arange(36) * 1.9
    pause_at = slow[17]
    beats = np.concatenate((slow[:18], slow[18:] + 5 - 1.9))
    results = judged([packet(b, b - a) for a, b in itertools.pairwise(beats)])
    with_pause = [r for r in results if r.longest_rr_s == pytest.approx(5)]
    assert with_pause
    assert starts(with_pause)[0] > pause_at - 10
    assert [r.model for r in results] == [None] * len(results)
    # Of a pulse as slow without it something is said.
    assert judged([packet(b, 1.9) for b in np.arange(1, 40) * 1.9])[-1].model is MODEL


@pytest.mark.parametrize(
    "bad",
    [
        {"rr_s": (math.nan,)},
        {"rr_s": (0.8, math.inf)},
        {"rr_s": (0.0,)},
        {"rr_s": (-0.8,)},
        {"rr_s": (64.0,)},
        {"rr_s": (0.8,) * 256},
        {"heart_rate": -1},
        {"heart_rate": 65536},
    ],
)
def test_a_packet_that_cannot_be_is_known(bad: dict[str, Any]) -> None:
    assert is_possible(packet(0, 1 / 1024, 65535 / 1024, heart_rate=65535))
    assert is_possible(packet(0, heart_rate=None))
    assert not is_possible(packet(0, **bad))


@settings(max_examples=150, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.one_of(st.integers(-3000, 9000), st.integers(-(2**62), 2**62)),
            st.lists(st.floats(1 / 1024, 63.9), max_size=6),
            st.sampled_from([True, False, None]),
        ),
        max_size=60,
    )
)
def test_whatever_comes_the_watch_goes_on(sent: list[tuple[int, list[float], bool | None]]) -> None:
    now_ns, packets = T0, []
    for step_ms, rr, contact in sent:
        now_ns += step_ms * 1_000_000 if abs(step_ms) < 10_000 else step_ms
        packets.append(replace(packet(0, *rr, contact=contact), end_ns=now_ns))
    for result in judged(packets):
        assert result.duration_s <= 10
        if result.grade.good:
            assert result.heart_rate is not None
            assert result.longest_rr_s is not None
            assert 0 < result.heart_rate < 300
            assert result.longest_rr_s <= 20
            assert (np.diff(result.r_peaks_s) > 0).all()
        else:
            assert (result.heart_rate, result.longest_rr_s, result.model) == (None, None, None)
        assert all(0 <= p <= 1 for p in result.by_class.values())


def test_a_clock_that_stands_still_fills_no_memory() -> None:
    ring = RrRing(STREAM, length_s=10, hop_s=5)
    for i in range(5000):
        ring.add(packet(0, 0.5 + i / 10_000))
    assert len(ring._packets) <= 2048


# --- gaps, repeats, clocks


def test_a_silence_is_a_gap_and_no_window_is_drawn_over_it() -> None:
    sent = [p for p in strap(regular(60, 100)) if not 40 < (p.end_ns - T0) / S < 60]
    found, between = cut(sent)
    # From the last packet before it to the beginning of the first interval told after it.
    assert between == [Gap(STREAM, T0 + 391 * S // 10, T0 + 591 * S // 10, "no data")]
    assert all(w.start_ns + w.duration_s * S <= T0 + 39.2 * S or w.start_ns >= T0 + 59 * S
               for w in found)  # fmt: skip
    assert all(judge(w).grade.good for w in found)


def test_a_silence_for_which_the_next_interval_accounts_is_a_pause_and_no_gap() -> None:
    """Of a strap that sends a packet a beat, not a packet a second."""
    beats = [*range(30), *range(36, 100)]
    sent = [packet(b, b - a) for a, b in itertools.pairwise(beats)]
    found, between = cut(sent)
    assert between == []
    results = [judge(w) for w in found]
    assert max(r.longest_rr_s or 0 for r in results) == 7
    (raised, ended) = alarms(results)
    assert (raised.alarm.condition, raised.alarm.priority) == ("pause", Priority.HIGH)
    assert raised.reason == "pause: 7.0 s without a beat"
    assert ended.state is State.ENDED


def test_a_clock_set_back_ends_the_run_and_loses_no_beat() -> None:
    sent = strap(regular(60, 60))
    back = [replace(p, end_ns=p.end_ns - 3600 * S) if i >= 30 else p for i, p in enumerate(sent)]
    found, between = cut(back)
    assert [g.cause for g in between] == ["clock set back"]
    assert between[0].end_ns < between[0].start_ns
    assert all(judge(w).grade.good for w in found)
    covered = [rr for w in found for rr in w.beats.rr_s]
    assert len(covered) >= sum(len(p.rr_s) for p in sent)


def test_repeats_change_nothing() -> None:
    sent = strap(simulated(Episode(EpisodeKind.ATRIAL_FIBRILLATION, 120)))
    again = [p for i, one in enumerate(sent) for p in (one, *sent[max(0, i - 4) : i + 1])]
    once, twice = judged(sent), judged(again)
    assert starts(twice) == starts(once)
    assert [r.by_class for r in twice] == [r.by_class for r in once]
    assert [r.heart_rate for r in twice] == [r.heart_rate for r in once]


# --- irregularity


def test_signs_worked_by_hand() -> None:
    # All alike: every pair that matches goes on matching, so only the tolerance is left.
    still = signs(np.full(40, 0.8))
    assert still == pytest.approx([math.log(0.06 / 0.8), math.log(0.005), 0])
    # In bigeminy the next interval is as certain, and two beats later it is the same again.
    bigeminy = signs(np.tile([0.6, 1.0], 20))
    assert bigeminy == pytest.approx([math.log(0.06 / 0.8), math.log(0.005), 1])
    with pytest.raises(ValueError, match="expected 20 or more"):
        signs(np.full(19, 0.8))


def test_signs_of_chance_are_those_that_theory_gives() -> None:
    """Lake and Moorman: of independent intervals COSEn is the entropy of their density / mean."""
    rr = np.random.default_rng(1).uniform(0.5, 1.1, 1500)
    entropy, recurrence, turning = signs(rr)
    assert entropy == pytest.approx(math.log(0.6 / 0.8), abs=0.15)
    # The median distance of two points on a line of length L is (1 - 1 / sqrt 2) L.
    assert recurrence == pytest.approx(math.log(0.6 * (1 - 0.5**0.5) / 0.8), abs=0.1)
    assert turning == pytest.approx(2 / 3, abs=0.03)


def breathing(depth: float, rate: float, seconds: float, seed: int = 0) -> Signal:
    """Sinus arrhythmia: every interval longer or shorter by ``depth`` with a breath of 4 s."""
    rng = np.random.default_rng(seed)
    times = [0.0]
    while times[-1] < seconds:
        wave = depth * math.sin(2 * math.pi * times[-1] / 4)
        times.append(times[-1] + 60 / rate * (1 + wave + rng.normal(0, 0.02)))
    return np.array(times)


@pytest.mark.parametrize("depth", [0.05, 0.15, 0.25])
def test_sinus_arrhythmia_is_not_af(depth: float) -> None:
    results = judged(strap(breathing(depth, 62, 420)))
    assert len(af(results)) > 60
    # The most is 0.36, with intervals from 0.73 to 1.21 s in every breath.
    assert af(results).max() < 0.4
    assert alarms(results) == []


@pytest.mark.parametrize(
    "kind",
    [
        EpisodeKind.VENTRICULAR_BIGEMINY,
        EpisodeKind.VENTRICULAR_ECTOPY,
        EpisodeKind.VENTRICULAR_RUNS,
        EpisodeKind.ATRIAL_FLUTTER,
        EpisodeKind.SINUS_BRADYCARDIA,
    ],
)
def test_ectopic_beats_are_not_af(kind: EpisodeKind) -> None:
    results = judged(strap(simulated(Episode(kind, 300))))
    assert len(af(results)) > 40
    assert af(results).max() < 0.35
    assert "rr:AF" not in {c.alarm.condition for c in alarms(results)}


@pytest.mark.parametrize("rate", [70, 105, 140])
def test_fibrillation_is_told_at_any_rate(rate: float) -> None:
    results = judged(
        strap(simulated(Episode(EpisodeKind.ATRIAL_FIBRILLATION, 420, heart_rate=rate)))
    )
    assert np.mean(af(results) >= THRESHOLD) > 0.95


def test_fibrillation_with_a_pause_and_a_step_in_it_is_told_all_the_same() -> None:
    beats = simulated(Episode(EpisodeKind.ATRIAL_FIBRILLATION, 180))
    beats = np.sort(np.append(beats[(beats < 90) | (beats > 94.5)], beats[200] + 0.2))
    results = judged(strap(beats))
    assert np.mean(af(results) >= THRESHOLD) > 0.9


# --- alarms


def test_an_irregular_pulse_is_an_alarm_of_low_priority_after_three_minutes() -> None:
    beats = simulated(
        Episode(EpisodeKind.SINUS_RHYTHM, 120),
        Episode(EpisodeKind.ATRIAL_FIBRILLATION, 400, heart_rate=100),
        Episode(EpisodeKind.SINUS_RHYTHM, 400),
    )
    (raised, ended) = alarms(judged(strap(beats)))
    assert (raised.alarm.condition, raised.alarm.priority) == ("rr:AF", Priority.LOW)
    assert raised.reason == (
        "irregular pulse, perhaps AF, by RR intervals alone: "
        "30 of the last 36 good windows at or over 0.50"
    )
    # Half of the first minute must be over before the look back shows it.
    assert 120 + 145 < (raised.at_ns - T0) / S < 120 + 240
    assert ended.state is State.ENDED
    assert 520 < (ended.at_ns - T0) / S < 520 + 240


def test_a_short_fibrillation_is_no_alarm() -> None:
    beats = simulated(
        Episode(EpisodeKind.SINUS_RHYTHM, 120),
        Episode(EpisodeKind.ATRIAL_FIBRILLATION, 100, heart_rate=100),
        Episode(EpisodeKind.SINUS_RHYTHM, 200),
    )
    results = judged(strap(beats))
    assert af(results).max() > THRESHOLD
    assert alarms(results) == []


def test_who_is_not_alarmed_about_af_is_spared_both() -> None:
    results = judged(strap(simulated(Episode(EpisodeKind.ATRIAL_FIBRILLATION, 420, heart_rate=90))))
    assert [c.alarm.condition for c in alarms(results)] == ["rr:AF"]
    assert alarms(results, classes={"AF": {"enabled": False}}) == []


def test_a_fast_and_a_slow_heart_are_told_as_soon_as_of_an_ecg() -> None:
    beats = np.concatenate((regular(70, 60), 60 + regular(150, 90), 150 + regular(70, 90)))
    (raised, ended) = alarms(judged(strap(beats)))
    assert raised.alarm.condition == "rate:high"
    # Six of eight windows every 5 s: the sixth that is over 130 in the mean ends 35 s on.
    assert 30 <= (raised.at_ns - T0) / S - 60 <= 45
    assert raised.reason.endswith("now 150")
    assert ended.state is State.ENDED
    slow = np.concatenate((regular(70, 60), 60 + regular(36, 60)))
    (low,) = alarms(judged(strap(slow)))
    assert low.alarm.condition == "rate:low"
    assert 25 <= (low.at_ns - T0) / S - 60 <= 40


def test_every_pause_of_a_sinus_arrest_is_an_alarm() -> None:
    arrest = Episode(EpisodeKind.SINUS_ARREST, 180, pause_s=5.0, per_minute=1.0)
    beats = simulated(Episode(EpisodeKind.SINUS_RHYTHM, 60), arrest)
    pauses = np.flatnonzero(np.diff(beats) >= 4)
    assert len(pauses) >= 2
    changes = alarms(judged(strap(beats)))
    assert {c.alarm.condition for c in changes} == {"pause"}
    raised = [c for c in changes if c.state is State.ACTIVE]
    # Told within a window's hop of the beat that ends it.
    for change, at in zip(raised, pauses, strict=True):
        assert 0 <= (change.at_ns - T0) / S - beats[at + 1] <= 6.2
        assert change.reason == "pause: 5.0 s without a beat"


# --- real hearts


@pytest.mark.data
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # wfdb's, of pandas
@pytest.mark.parametrize("record", ["100", "101", "103", "105", "109"])
def test_no_minute_of_mitdb_is_af(data: Path, record: str) -> None:
    """Sinus rhythm and bundle branch block with 120 ectopic beats, half an hour each."""
    path = str(data / "samples" / "mitdb" / record)
    annotation = wfdb.rdann(path, "atr")
    beats = annotation.sample[[s in BEATS for s in annotation.symbol]] / 360
    results = judged(strap(beats))
    # 97 % where the annotators themselves left out what they could not read, 100 % elsewhere.
    assert np.mean([r.grade.good for r in results]) > 0.95
    assert len(af(results)) > 300
    assert af(results).max() < 0.1
    assert alarms(results) == []
    means = [
        60 / np.diff(beats[(beats > s - 1.2) & (beats <= s + 9.9)]).mean() for s in starts(results)
    ]
    off = [abs(r.heart_rate - m) for r, m in zip(results, means, strict=True) if r.heart_rate]
    assert np.percentile(off, 95) < 3


@pytest.mark.data
def test_healthy_subjects_of_lead1_are_not_called_af(data: Path) -> None:
    """What was recorded of each, one ten seconds after the other: minutes with seams in them."""
    with (data / "lead1" / "subjects.csv").open() as file:
        healthy = {row[0] for row in csv.reader(file) if "Healthy" in row}
    rr_s: dict[str, list[Signal]] = {}
    with (data / "lead1" / "rpeaks.csv").open() as file:
        for row in csv.DictReader(file):
            subject = row["record"].partition("-")[0]
            if subject in healthy:
                peaks = np.array(row["samples"].split(), float) / 125
                rr_s.setdefault(subject, []).append(np.diff(peaks))
    assert len(rr_s) == 236
    most = {
        s: max(probability(np.concatenate(rr[i : i + 5])) for i in (0, 5)) for s, rr in rr_s.items()
    }
    # One minute of one man: 48 to 60 per minute, and from breath to breath a quarter of it.
    assert [subject for subject, p in most.items() if p >= THRESHOLD] == ["36"]
    for subject in list(rr_s)[::20]:
        every = np.concatenate(rr_s[subject])
        results = judged(strap(np.concatenate(([0], np.cumsum(every)))))
        rates = [r.heart_rate for r in results if r.heart_rate]
        assert np.mean(rates) == pytest.approx(60 / every.mean(), rel=0.1)
        assert "rr:AF" not in {c.alarm.condition for c in alarms(results)}


@pytest.fixture(scope="module")
def held_out(data: Path) -> dict[str, list[Signal]]:
    """RR intervals of Challenge 2017 records that nothing was fitted on, by label."""
    test = load_cinc2017(data, "test")
    found: dict[str, list[Signal]] = {"A": [], "N": [], "O": []}
    for lead, label in zip(test.lead_one, test.reference, strict=True):
        if label in found and len(found[label]) < 60:
            rr = find_beats(lead, test.rate).rr_s
            if len(rr) >= 20:
                found[label].append(rr)
    return found


@pytest.mark.data
def test_half_a_minute_of_a_hand_held_recorder_tells_most_fibrillation(
    held_out: dict[str, list[Signal]],
) -> None:
    over = {
        label: np.mean([probability(rr) >= THRESHOLD for rr in series])
        for label, series in held_out.items()
    }
    # Of all 1,348 `python -m bench.fit_rr` says 67 %, 0.2 % and 4.6 %.
    assert over["A"] > 0.55
    assert over["N"] <= 0.02
    assert over["O"] <= 0.1


@pytest.mark.data
def test_recorded_fibrillation_is_an_alarm_and_a_normal_heart_is_none(
    held_out: dict[str, list[Signal]],
) -> None:
    """Thirteen people's fibrillation in a row, and thirteen normal hearts."""

    def together(label: str) -> list[Change]:
        rr = np.concatenate(held_out[label][:13])
        rr = rr[(rr > 0.3) & (rr < 2)]
        return alarms(judged(strap(np.concatenate(([0], np.cumsum(rr))))))

    assert "rr:AF" in {c.alarm.condition for c in together("A")}
    assert "rr:AF" not in {c.alarm.condition for c in together("N")}


# --- through the daemon, into a database


@pytest.fixture
def url(tmp_path: Path) -> str:
    return new_database(tmp_path)


async def watched(url: str, *sources: Any, engine: Engine | None = None, **options: Any) -> Any:
    changes: list[Change] = []
    writer = started(url)
    daemon = Daemon(
        sources,
        writer=writer,
        analyzer=FakeAnalyzer(),  # type: ignore[arg-type]
        alarms=Alarms(engine or Engine(policies()), writer, on_change=[changes.append]),
        length_s=10,
        hop_s=5,
        **options,
    )
    async with asyncio.timeout(60):
        await daemon.run(asyncio.Event())
    return changes


def stored(url: str, patient: str = "anna") -> list[RrIntervals]:
    with History(url) as history:
        return list(history.rr_intervals(patient, *ALWAYS))


def facts(packets: Iterable[RrIntervals]) -> list[Any]:
    return [(p.stream, p.end_ns, p.rr_s, p.heart_rate, p.contact) for p in packets]


def metric(name: str) -> float:
    return REGISTRY.get_sample_value(f"leadone_{name}_total") or 0.0


async def test_a_strap_is_watched_from_packet_to_alarm(url: str) -> None:
    beats = simulated(
        Episode(EpisodeKind.SINUS_RHYTHM, 60),
        Episode(EpisodeKind.ATRIAL_FIBRILLATION, 300, heart_rate=100),
        Episode(EpisodeKind.SINUS_RHYTHM, 300),
    )
    sent = strap(beats)
    changes = await watched(url, Told(sent))
    assert facts(stored(url)) == facts(sent)
    results = judged(sent)
    found = windows(url)
    assert [(r.start_ns, r.heart_rate, r.longest_rr_s) for r in found] == [
        (r.start_ns, r.heart_rate, r.longest_rr_s) for r in results
    ]
    assert [r.by_class for r in found] == [r.by_class for r in results]
    assert {r.model for r in found} == {None, MODEL}
    assert [c.state for c in changes] == [State.ACTIVE, State.ENDED]
    assert {c.alarm.condition for c in changes} == {"rr:AF"}
    with History(url) as history:
        assert history.changes(changes[0].alarm.id) == changes
        # By the waveform's name there is no episode of it, by its own there is.
        assert history.episodes("anna", *ALWAYS, {"AF": 0.01}) == []
        (episode,) = history.episodes("anna", *ALWAYS, {IRREGULAR_AF: THRESHOLD})
    assert 60 < (episode.start_ns - T0) / S < 120
    assert gaps(url) == []
    assert check(url) == []


async def test_an_ecg_beside_it_is_watched_as_ever(url: str) -> None:
    """One patient with a patch that sends a waveform and a strap that does not."""
    patch = Stream("anna", "patch")
    ecg = [
        Chunk(patch, T0 + i * S, 100.0, np.arange(i * 100, i * 100 + 100, dtype=np.float32))
        for i in range(40)
    ]
    await watched(url, Told(strap(regular(60, 40))), Told(ecg))
    by_device: dict[str, list[WindowResult]] = {}
    for result in windows(url):
        by_device.setdefault(result.stream.device, []).append(result)
    assert len(by_device["patch"]) == len(by_device["strap"]) == 7
    assert {r.heart_rate for r in by_device["patch"]} == {70}
    assert [r.heart_rate for r in by_device["strap"]] == pytest.approx([60] * 7, rel=1e-3)


async def test_packets_told_again_are_stored_once_and_counted(url: str) -> None:
    sent = strap(regular(60, 30))
    before = metric("segments_repeated")
    await watched(url, Told([*sent[:20], *sent[10:]]))
    assert facts(stored(url)) == facts(sent)
    assert metric("segments_repeated") == before + 10
    assert starts(windows(url)) == starts(judged(sent))


async def test_a_packet_that_cannot_be_is_counted_logged_and_passed_over(url: str) -> None:
    sent = strap(regular(60, 30))
    bad = [
        packet(12.5, math.nan),
        packet(12.6, -1.0),
        packet(12.7, 1e300),
        packet(12.8, 0.8, heart_rate=-9),
    ]
    before = metric("chunks_refused")
    with structlog.testing.capture_logs() as logs:
        await watched(url, Told([*sent[:12], *bad, *sent[12:]]))
    assert metric("chunks_refused") == before + 4
    refused = [log for log in logs if log["event"] == "RR intervals refused"]
    assert [log["stream"] for log in refused] == ["anna/strap"] * 4
    assert facts(stored(url)) == facts(sent)
    assert all(r.grade.quality is Quality.GOOD for r in windows(url))


async def test_gaps_are_stored_with_their_cause_and_a_restart_is_one(url: str) -> None:
    sent = strap(regular(60, 200))
    first = [p for p in sent[:80] if not 40 < (p.end_ns - T0) / S < 60]
    await watched(url, Told(first))
    with History(url) as history:
        ended_ns = history.last_window_end(STREAM)
    assert ended_ns == first[-1].end_ns
    engine = Engine(policies())
    with History(url) as history:
        restore(engine, RhythmEngine(), history, now_ns=T0 + 120 * S, hop_s=5)
    await watched(url, Told(sent[120:]), engine=engine, ended={STREAM: ended_ns})
    causes = [
        (round((g.start_ns - T0) / S), round((g.end_ns - T0) / S), g.cause) for g in gaps(url)
    ]
    assert causes == [(39, 59, "no data"), (80, 120, "leadone was not running")]
    assert check(url) == []


async def test_an_alarm_outlives_a_restart(url: str) -> None:
    beats = simulated(Episode(EpisodeKind.ATRIAL_FIBRILLATION, 600, heart_rate=90))
    sent = strap(beats)
    (raised,) = await watched(url, Told(sent[:360]))
    engine = Engine(policies())
    with History(url) as history:
        restore(engine, RhythmEngine(), history, now_ns=T0 + 361 * S, hop_s=5)
    assert engine.active("anna") == (raised.alarm,)
    assert await watched(url, Told(sent[360:]), engine=engine) == []


async def test_a_window_that_cannot_be_judged_fails_alone(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(window: RrWindow) -> WindowResult:
        if starts([window]) == [10.1]:
            raise ZeroDivisionError
        return judge(window)

    monkeypatch.setattr("monitor.daemon.judge", fails)
    before = metric("windows_failed")
    with structlog.testing.capture_logs() as logs:
        await watched(url, Told(strap(regular(60, 40))))
    assert metric("windows_failed") == before + 1
    assert [log["start_ns"] for log in logs if log["event"] == "window failed"]
    assert 10.1 not in starts(windows(url))
    assert len(windows(url)) == 6


async def test_the_history_tells_it_by_another_name_than_a_waveform_s(
    url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    await watched(url, Told(strap(simulated(Episode(EpisodeKind.ATRIAL_FIBRILLATION, 420)))))
    capsys.readouterr()
    path = tmp_path / "leadone.yaml"
    path.write_text(
        f"database: {url}\npatients: [{{id: anna}}]\n"
        "sources: [{type: replay, patient: anna, device: strap, records: [a.edf]}]\n"
    )
    since = datetime.fromtimestamp(T0 // S, UTC).isoformat()
    show_history(path, "anna", since, None, json_lines=True)
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert {tuple(row["probabilities"]) for row in rows} == {(), ("rr:AF",)}
    assert rows[-1]["positive"] == ["rr:AF"]
    show_episodes(path, "anna", since, None, json_lines=True)
    (episode,) = map(json.loads, capsys.readouterr().out.splitlines())
    assert episode["class"] == "rr:AF"
    show_episodes(path, "anna", since, None, json_lines=False)
    told = capsys.readouterr().out
    assert "irregular pulse" in told
    assert "atrial fibrillation" not in told


# --- storage


async def test_intervals_come_back_bit_for_bit_and_once(database_url: str) -> None:
    upgrade(database_url)
    other = Stream("anna", "band")
    sent = [
        packet(1, 0.8125, 1 / 3),
        packet(2, heart_rate=None, contact=None),
        packet(3, 63.99, contact=False),
        # At the same time, with other content: both are kept.
        packet(3, 0.7, contact=False),
        packet(2.5, 0.9, stream=other),
    ]
    writer = started(database_url)
    await writer.store(*sent)
    await writer.store(*sent)
    with contextlib.closing(History(database_url)) as history:
        found = list(history.rr_intervals("anna", *ALWAYS))
        assert sorted(facts(found), key=repr) == sorted(facts(sent), key=repr)
        assert [p.end_ns for p in found] == sorted(p.end_ns for p in sent)
        part = history.rr_intervals("anna", T0 + 2 * S, T0 + 3 * S)
        assert [(p.end_ns - T0) / S for p in part] == [2, 2.5]
    assert writer.stop() == 0
    assert check(database_url) == []


def execute(url: str, line: str) -> list[Any]:
    engine = create_engine(url.replace("postgresql:", "postgresql+psycopg:"))
    with engine.begin() as connection:
        done = connection.execute(text(line))
        rows = list(done) if done.returns_rows else []
    engine.dispose()
    return rows


def test_a_database_of_the_first_version_is_brought_up_to_date(database_url: str) -> None:
    with migrating(database_url) as config:
        command.upgrade(config, "0001")
    execute(database_url, "INSERT INTO patients (id, name) VALUES ('anna', 'Anna')")
    assert current_revision(database_url) == "0001"
    upgrade(database_url)
    with contextlib.closing(History(database_url)) as history:
        assert [p.id for p in history.patients()] == ["anna"]
        assert list(history.rr_intervals("anna", *ALWAYS)) == []


async def test_check_finds_damaged_intervals(url: str) -> None:
    writer = started(url)
    await writer.store(packet(1, 0.8))
    assert writer.stop() == 0
    execute(url, "UPDATE rr_intervals SET rr = x'10'")
    (problem,) = check(url)
    assert problem.startswith("RR intervals of device 1")
    assert problem.endswith("1 bytes")
