import contextlib
import tracemalloc

import numpy as np
import pytest
from storage_samples import MODEL, STREAM, T0, S, bad_window, chunk, ended, gap, raised, window

from ingest.chunk import Stream
from monitor.results import ModelId
from monitor.storage.database import DatabaseError
from monitor.storage.history import History
from monitor.storage.maintenance import upgrade
from monitor.storage.records import Episode, Examined, NoGap, Patient
from monitor.storage.unread import SignalHistory
from monitor.storage.writer import Writer

pytest_plugins = ["postgres"]
PATCH = Stream("anna", "patch")
OTHER = Stream("bert", "H10")


@pytest.fixture
def writer(database_url):
    upgrade(database_url)
    writer = Writer(database_url)
    writer.start()
    yield writer
    writer.stop(2)


@pytest.fixture
def history(writer, database_url):
    with History(database_url) as history:
        yield history


def seconds(records):
    return [(record.start_ns - T0) / S for record in records]


def at(second):
    return T0 + second * S


async def test_ranges_side_by_side_give_everything_once(writer, history):
    await writer.store(*(chunk(i) for i in range(6)), chunk(2, stream=OTHER))
    assert seconds(history.segments("anna", at(0), at(2))) == [0, 1]
    assert seconds(history.segments("anna", at(2), at(6))) == [2, 3, 4, 5]
    assert seconds(history.segments("anna", at(2) + 1, at(4))) == [3]
    assert seconds(history.segments("bert", at(0), at(9))) == [2]
    assert list(history.segments("carl", at(0), at(9))) == []


async def test_devices_are_merged_by_time(writer, history):
    await writer.store(*(chunk(i) for i in (5, 1, 3)), *(window(i) for i in (2, 0)))
    await writer.store(*(chunk(i, stream=PATCH) for i in (4, 0, 2)), window(1, stream=PATCH))
    found = list(history.segments("anna", at(0), at(9)))
    assert seconds(found) == [0, 1, 2, 3, 4, 5]
    assert [c.stream for c in found] == [PATCH, STREAM] * 3
    assert [w.stream.device for w in history.windows("anna", at(0), at(99))] == [
        "H10",
        "patch",
        "H10",
    ]


async def test_what_lasts_is_found_from_within(writer, history):
    first = raised("a1", at=30)
    await writer.store(gap(0, 50), gap(60, 40, "clock set back"), first, ended(first, at=90))
    await writer.store(raised("a2", at=100), raised("b1", patient="bert"))
    assert seconds(history.gaps("anna", at(49), at(50))) == [0]
    assert seconds(history.gaps("anna", at(50), at(60))) == []
    assert seconds(history.gaps("anna", at(50), at(61))) == [60]
    assert [a.id for a in history.alarms("anna", at(89), at(95))] == ["a1", "a2"]
    assert [a.id for a in history.alarms("anna", at(90), at(95))] == ["a2"]
    assert [a.id for a in history.alarms("anna", at(-9), at(0))] == []
    assert [a.id for a in history.active_alarms()] == ["a2", "b1"]


async def test_last_window_end(writer, history):
    assert history.last_window_end(STREAM) is None
    await writer.store(window(4), window(2), window(9, stream=OTHER))
    assert history.last_window_end(STREAM) == at(30)
    assert history.last_window_end(PATCH) is None


async def test_what_is_later_is_left_out(writer, history):
    await writer.store(*(chunk(i) for i in (1, 2, 900)), window(0), window(180))
    assert history.last_sample(STREAM) == at(901)
    assert history.last_sample(STREAM, until_ns=at(900)) == at(3)
    assert history.last_sample(STREAM, until_ns=at(1)) is None
    assert history.last_window_end(STREAM) == at(910)
    assert history.last_window_end(STREAM, until_ns=at(900)) == at(10)


async def test_what_no_window_covers_is_found(writer, database_url):
    signal = [chunk(i) for i in (*range(30), *range(33, 40), *range(90, 95))]
    await writer.store(*signal, chunk(3, stream=OTHER), *(window(i) for i in (0, 1, 3)))
    with SignalHistory(database_url) as history:
        assert history.first_sample(STREAM) == at(0)
        found = history.unread(STREAM, at(0), at(100), length_s=10)
        assert [(u.start_ns, u.end_ns, u.rr) for u in found] == [
            (at(25), at(40), False),
            (at(90), at(95), False),
        ]
        assert found[0].spans == ((at(25), at(30)), (at(33), at(40)))
        assert history.unread(STREAM, at(0), at(25), length_s=10) == []
        (clipped,) = history.unread(STREAM, at(27), at(35), length_s=10)
        assert (clipped.start_ns, clipped.end_ns) == (at(27), at(35))
        assert [c.start_ns for c in history.chunks(STREAM, at(2), at(4))] == [at(2), at(3)]


async def test_how_far_a_stream_was_looked_through_is_replaced(writer, database_url):
    with SignalHistory(database_url) as history:
        assert history.examined(STREAM) == Examined(STREAM, None)
        for known in (Examined(STREAM, None, at(5), at(9)), Examined(STREAM, at(9))):
            await writer.store(known, Examined(OTHER, at(1)))
            assert history.examined(STREAM) == known


async def test_a_gap_that_is_none_is_taken_out(writer, database_url):
    cause = "leadone was not running"
    false = gap(0, 50, cause)
    await writer.store(false, gap(0, 50), gap(0, 50, cause, stream=OTHER), chunk(7), chunk(8))
    with SignalHistory(database_url) as history:
        assert history.left_of(false, least_ns=S) == [(at(0), at(7)), (at(9), at(50))]
        await writer.store(NoGap(false), gap(0, 7, cause), gap(9, 50, cause))
        kept = [(g.start_ns, g.end_ns, g.cause) for g in history.gaps_of(STREAM, at(0), at(60))]
        assert kept == [
            (at(0), at(7), cause),
            (at(0), at(50), gap().cause),
            (at(9), at(50), cause),
        ]
        assert len(list(history.gaps("bert", at(0), at(60)))) == 1


async def test_patients(writer, history):
    await writer.store(chunk(stream=OTHER), Patient("anna", "Anna"))
    assert history.patients() == [Patient("anna", "Anna"), Patient("bert", None)]


async def test_reads_while_the_writer_writes(writer, history):
    await writer.store(*(chunk(i) for i in range(1000)))
    reading = history.segments("anna", at(0), at(5000))
    assert next(reading).start_ns == at(0)
    # It neither waits for the reader, nor shows it what came later.
    await writer.store(*(chunk(i) for i in range(1000, 1100)))
    assert len(list(reading)) == 999
    assert len(list(history.segments("anna", at(0), at(5000)))) == 1100


async def test_reads_in_little_memory(writer, history):
    long = np.random.default_rng(0).normal(0, 100, 10_000).astype(np.float32)
    for i in range(0, 600, 100):
        await writer.store(*(chunk(k, microvolts=long) for k in range(i, i + 100)))
    tracemalloc.start()
    try:
        assert sum(len(c.microvolts) for c in history.segments("anna", at(0), at(5000))) == 6e6
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    # 21 MB are read, 24 MB come of it.
    assert peak < 12e6


async def test_readers_cannot_write(writer, history):
    with pytest.raises(Exception, match=r"read-?only"), history._engine.begin() as connection:
        connection.exec_driver_sql("DELETE FROM patients")


async def test_episodes(writer, history):
    af, none = (0.9, 0.1, 0.1), (0.1, 0.1, 0.1)
    windows = [
        window(0, p=none),
        window(1, p=af, heart_rate=100.0),
        window(2, p=(0.95, 0.8, 0.1), heart_rate=None),
        bad_window(3),
        window(4, p=none),
        window(9, p=(0.75, 0.1, 0.99), heart_rate=110.0),  # 25 s after the last one's end
        window(18, p=af, heart_rate=90.0),  # 35 s after: another one
        window(60, p=(0.74, 0.1, 0.1)),
        window(70, p=af, model=None, probabilities=None),
    ]
    await writer.store(*windows, window(1, stream=OTHER, p=af))
    thresholds = {"AF": 0.75, "PVC": 0.5}
    probability = lambda p: float(np.float32(p))  # noqa: E731
    assert history.episodes("anna", at(0), at(999), thresholds) == [
        Episode("class:AF", at(5), at(55), 3, probability(0.95), 105.0),
        Episode("class:PVC", at(10), at(20), 1, probability(0.8), None),
        Episode("class:AF", at(90), at(100), 1, probability(0.9), 90.0),
    ]
    assert history.episodes("anna", at(11), at(90), {"AF": 0.6}) == [
        Episode("class:AF", at(45), at(55), 1, 0.75, 110.0)
    ]
    assert history.episodes("anna", at(0), at(999), {}) == []


async def test_episodes_across_devices_and_models(writer, history):
    turned = ModelId("tiny", "sha256:cd", MODEL.classes[::-1])
    await writer.store(
        window(0, p=(0.9, 0, 0)),
        window(1, p=(0.1, 0.1, 0.8), model=turned, stream=PATCH, heart_rate=80.0),
    )
    assert history.episodes("anna", at(0), at(99), {"AF": 0.5}) == [
        Episode("class:AF", at(0), at(15), 2, float(np.float32(0.9)), 75.0)
    ]


async def test_a_reader_that_is_left_gives_its_connection_back(writer, history):
    await writer.store(*(chunk(i) for i in range(600)))
    for _ in range(40):
        with contextlib.closing(history.segments("anna", at(0), at(999))) as reading:
            next(reading)


async def test_errors_name_the_database(postgres):
    url = postgres.new_database()
    upgrade(url)
    with History(url) as history:
        postgres.stop()
        try:
            with pytest.raises(DatabaseError, match=r"postgresql://leadone:\*\*\*@/test") as caught:
                history.patients()
        finally:
            postgres.start()
        assert "s3cret" not in str(caught.value)
        assert "\n" not in str(caught.value)
        # And it is well again by itself.
        assert history.patients() == []
