"""A pause is told ahead of the windows that wait to be read: old ones do not end it."""

from dataclasses import replace

import numpy as np
from watching import STREAM, T0, FakeAnalyzer, S

from alerts.conditions import Observation, State
from alerts.engine import Engine
from alerts.policy import PAUSE_CLEAR_N, Policy
from alerts.technical import Moment
from ingest.chunk import Stream
from monitor.observe import Observer, observation
from monitor.results import WindowResult
from monitor.window import Window

PATCH = Stream(STREAM.patient, "patch")


def good(start_s: float, stream: Stream = STREAM) -> WindowResult:
    samples = np.zeros(1000, np.float32)
    return FakeAnalyzer()._result(Window(stream, T0 + round(start_s * S), 100.0, samples))


class Told:
    """An engine that is told of a pause at 100 s, and then of windows."""

    def __init__(self) -> None:
        self.engine, self.observer, self.now_s = Engine(lambda _: Policy()), Observer(), 1000.0
        seen = Observation("anna", T0 + 95 * S, T0 + 100 * S, good=True, longest_rr_s=5.0)
        self.observer.paused(STREAM, seen, self.now)
        (self.raised,) = self.engine.step(seen)

    @property
    def now(self) -> Moment:
        return Moment(T0, round(self.now_s * S))

    def window(self, start_s: float, stream: Stream = STREAM) -> list[State]:
        seen = self.observer.window(good(start_s, stream), 4.0, self.now)
        return [change.state for change in self.engine.step(seen)]


def test_windows_of_before_do_not_end_it_and_as_many_of_after_do() -> None:
    told = Told()
    for start_s in range(0, 91, 5):
        assert told.window(start_s) == []
    states = [told.window(start_s) for start_s in range(95, 150, 5)]
    assert states.index([State.ENDED]) == PAUSE_CLEAR_N - 1
    assert [state for some in states for state in some] == [State.ENDED]


def test_old_and_new_ones_of_another_device_in_turn() -> None:
    """One heart: what the other device has seen since counts."""
    told = Told()
    states = []
    for n in range(PAUSE_CLEAR_N):
        assert told.window(60 + 5 * n) == []
        states += told.window(100 + 5 * n, PATCH)
    assert states == [State.ENDED]


def test_only_what_it_says_of_beats_is_left_out() -> None:
    told = Told()
    seen = told.observer.window(good(80), 4.0, told.now)
    assert seen == replace(observation(good(80)), longest_rr_s=None)
    assert seen.heart_rate == 70.0
    # One that shows a pause itself, or of a patient who is not watched for them, stays as it is.
    pause = replace(good(80), longest_rr_s=4.5)
    assert told.observer.window(pause, 4.0, told.now) == observation(pause)
    assert told.observer.window(good(80), None, told.now) == observation(good(80))


def test_a_clock_that_was_set_back_keeps_it_on_for_minutes_and_not_for_ever() -> None:
    told = Told()
    assert [told.window(start_s - 3600) for start_s in range(0, 100, 5)] == [[]] * 20
    told.now_s += 901
    states = [told.window(start_s - 3600) for start_s in range(900, 1000, 5)]
    assert [state for some in states for state in some] == [State.ENDED]


def test_a_restart_reads_what_the_earlier_run_left_unread_and_it_stays_on() -> None:
    told = Told()
    started, observer = Engine(lambda _: Policy()), Observer()
    started.restore([told.raised.alarm], [])
    observer.restore([told.raised.alarm, replace(told.raised.alarm, condition="vf")], told.now)
    for start_s in range(0, 91, 5):
        assert started.step(observer.window(good(start_s), 4.0, told.now)) == []
    changes = [
        change
        for start_s in range(95, 150, 5)
        for change in started.step(observer.window(good(start_s), 4.0, told.now))
    ]
    assert [change.state for change in changes] == [State.ENDED]
