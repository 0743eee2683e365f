"""What stands still is told from what is slow, long or skipped."""

import contextlib

import pytest
from watching import STREAM

from ingest.chunk import Stream
from monitor.progress import Progress, Stage, Stall

OTHER = Stream("boris", "patch")


class Clock:
    """A steady clock that is moved on by hand."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> int:
        return round(self.now_s * 1e9)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def progress(clock: Clock) -> Progress:
    return Progress(clock)


@pytest.mark.parametrize("stage", Stage)
def test_what_waits_and_does_not_leave_is_a_stall(
    progress: Progress, clock: Clock, stage: Stage
) -> None:
    clock.now_s += 500
    assert progress.stalled(40) is None
    progress.enter(stage, STREAM)
    clock.now_s += 40
    assert progress.stalled(40) is None
    clock.now_s += 1
    assert progress.stalled(40) == Stall(stage, STREAM, 41.0)
    progress.leave(stage, STREAM)
    assert progress.stalled(0) is None


@pytest.mark.parametrize("stage", Stage)
def test_a_long_queue_that_moves_is_none(progress: Progress, clock: Clock, stage: Stage) -> None:
    for _ in range(500):
        progress.enter(stage, STREAM)
    for _ in range(100):
        clock.now_s += 30
        progress.leave(stage, STREAM)
        assert progress.stalled(31) is None
    clock.now_s += 32
    assert progress.stalled(31) == Stall(stage, STREAM, 32.0)


def test_one_stream_that_is_not_taken_in_is_seen_beside_others_that_are(
    progress: Progress, clock: Clock
) -> None:
    progress.enter(Stage.INTAKE, STREAM)
    for _ in range(50):
        with progress.within(Stage.INTAKE, OTHER):
            clock.now_s += 1
    assert progress.stalled(40) == Stall(Stage.INTAKE, STREAM, 50.0)


@pytest.mark.parametrize("stage", [Stage.ANALYSIS, Stage.STORAGE])
def test_whose_turn_is_late_with_the_one_thread_does_not_stand_still(
    progress: Progress, clock: Clock, stage: Stage
) -> None:
    """A backlog of one patient, as after a crash, lies before the windows of another."""
    for _ in range(500):
        progress.enter(stage, OTHER)
    progress.enter(stage, STREAM)
    for _ in range(400):
        clock.now_s += 1
        progress.leave(stage, OTHER)
        assert progress.stalled(5) is None
    clock.now_s += 10
    # And of those that wait it is the one that has waited longest.
    assert progress.stalled(5) == Stall(stage, STREAM, 10.0)


def test_windows_that_are_skipped_do_not_hide_a_dead_thread(
    progress: Progress, clock: Clock
) -> None:
    """With hundreds of devices the queue is full within seconds, and each window soon skipped."""
    streams = [Stream(f"p{i}", "strap") for i in range(20)]
    for second in range(60):
        for stream in streams:
            progress.enter(Stage.ANALYSIS, stream)
            if second:
                progress.leave(Stage.ANALYSIS, stream, skipped=True)
        clock.now_s += 1
    stall = progress.stalled(40)
    assert stall is not None
    assert stall.seconds == 60


def test_the_last_stage_holds_up_those_before_it(progress: Progress, clock: Clock) -> None:
    for stage in Stage:
        progress.enter(stage, STREAM)
        clock.now_s += 10
    stall = progress.stalled(5)
    assert stall is not None
    assert stall.stage is Stage.STORAGE


def test_a_writer_that_tries_again_does_not_stand_still(progress: Progress, clock: Clock) -> None:
    """A database that is away is told of by itself; a restart would lose what waits in memory."""
    progress.enter(Stage.STORAGE, STREAM)
    for _ in range(100):
        clock.now_s += 5
        progress.works(Stage.STORAGE)
    assert progress.stalled(10) is None
    clock.now_s += 11
    assert progress.stalled(10) == Stall(Stage.STORAGE, STREAM, 11.0)


def test_what_failed_has_left_too_and_nothing_is_kept(progress: Progress, clock: Clock) -> None:
    for i in range(100):
        stream = Stream(f"p{i}", "strap")
        with contextlib.suppress(ZeroDivisionError), progress.within(Stage.INTAKE, stream):
            assert progress.waits(Stage.INTAKE, stream)
            raise ZeroDivisionError
        assert not progress.waits(Stage.INTAKE, stream)
    progress.leave(Stage.INTAKE, STREAM)  # never came in
    clock.now_s += 100
    assert progress.stalled(1) is None
    assert progress._streams[Stage.INTAKE] == {}
