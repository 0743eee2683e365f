import asyncio
import contextlib
import resource
import threading
import time
from dataclasses import replace

import numpy as np
import pytest
import structlog
from prometheus_client import REGISTRY
from sqlalchemy import create_engine, event, text
from storage_samples import (
    MODEL,
    T0,
    S,
    bad_window,
    chunk,
    ended,
    facts,
    gap,
    raised,
    window,
)

from ingest.chunk import Stream
from monitor.storage import database
from monitor.storage import writer as writer_module
from monitor.storage.codec import CodecError
from monitor.storage.database import DatabaseError
from monitor.storage.history import History
from monitor.storage.maintenance import check, upgrade
from monitor.storage.records import Patient, RefusedMessage
from monitor.storage.writer import Writer

pytest_plugins = ["postgres"]
ALWAYS = (0, 2**62)


@pytest.fixture
def url(database_url):
    upgrade(database_url)
    return database_url


@contextlib.contextmanager
def writing(url, **options):
    writer = Writer(url, **options)
    writer.start()
    try:
        yield writer
    finally:
        writer.stop(2)


def raw(url):
    """An engine that knows nothing of ours."""
    return create_engine(url.replace("postgresql:", "postgresql+psycopg:"))


def statement(url, sql):
    engine = raw(url)
    with engine.begin() as connection:
        connection.execute(text(sql))
    engine.dispose()


@contextlib.contextmanager
def locked(url):
    """Somebody else holds the segments."""
    engine = raw(url)
    with engine.connect() as connection:
        if url.startswith("sqlite"):
            connection.connection.driver_connection.isolation_level = None
            connection.exec_driver_sql("BEGIN IMMEDIATE")
        else:
            connection.execute(text("LOCK TABLE segments"))
        yield
        connection.rollback()
    engine.dispose()


def metric(name):
    return REGISTRY.get_sample_value(name)


def stored(url, kind, patient="anna"):
    with History(url) as history:
        return list(getattr(history, kind)(patient, *ALWAYS))


async def until(condition, seconds=10.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)


async def test_every_record_comes_back(url):
    marked = np.array([1, np.nan, 3], np.float32)
    chunks = [
        chunk(0),
        chunk(1, contact=False, sequence=None),
        chunk(2, contact=None, microvolts=marked),
        chunk(3, microvolts=np.empty(0, np.float32), rate=130.00123),
    ]
    windows = [window(0), bad_window(1), window(2, heart_rate=None)]
    windows.append(window(3, model=None, probabilities=None))
    gaps = [gap(0, 7), gap(60, 0, "clock set back")]
    first, other = raised("a1"), raised("a2", at=40)
    changes = [first, other, ended(first)]
    with writing(url) as writer:
        await writer.store(Patient("anna", "Anna Example"), *chunks, *windows)
        await writer.store(*gaps, *changes)
        await writer.store()
    assert [*map(facts, stored(url, "segments"))] == [*map(facts, chunks)]
    assert [*map(facts, stored(url, "windows"))] == [*map(facts, windows)]
    assert stored(url, "gaps") == sorted(gaps, key=lambda g: g.start_ns)
    with History(url) as history:
        assert history.patients() == [Patient("anna", "Anna Example")]
        assert history.alarms("anna", *ALWAYS) == [changes[2].alarm, other.alarm]
        assert history.active_alarms() == [other.alarm]
        assert history.changes("a1") == [first, changes[2]]
        assert history.changes("a2") == [other]
        assert history.changes("a3") == []
    assert check(url) == []


async def test_repeated_records_are_stored_once_and_segments_counted(url):
    new, old = "leadone_segments_stored_total", "leadone_segments_repeated_total"
    before = metric(new), metric(old)
    change = raised()
    records = [chunk(0), chunk(1), window(0), bad_window(1), gap(), change, ended(change)]
    with writing(url) as writer:
        await writer.store(*records, chunk(0))
        await writer.store(*records)
        # The batch may have been another one.
        await writer.store(window(0, p=(0.9000001, 0.2, 0.1)))
        # Delivered again, without what came after it.
        await writer.store(change)
    with History(url) as history:
        assert history.active_alarms() == []
    with writing(url) as writer:
        await writer.store(*records)
    assert len(stored(url, "segments")) == 2
    assert [*map(facts, stored(url, "windows"))] == [facts(window(0)), facts(bad_window(1))]
    assert stored(url, "gaps") == [gap()]
    with History(url) as history:
        assert history.changes("a1") == [change, ended(change)]
        assert history.active_alarms() == []
    assert (metric(new), metric(old)) == (before[0] + 2, before[1] + 5)


async def test_a_clock_set_back_loses_nothing(url):
    with writing(url) as writer:
        await writer.store(chunk(0), window(0))
        await writer.store(chunk(0, seed=99), window(0, r_peaks_s=np.array([0.5, 1.5])))
        await writer.store(chunk(0, rate=131.0), chunk(0, contact=False), chunk(0, sequence=5))
    assert len(stored(url, "segments")) == 5
    assert len(stored(url, "windows")) == 2


POISON = [
    pytest.param(chunk(1, microvolts=np.zeros(3)), CodecError, id="samples are float64"),
    pytest.param(chunk(1, rate=0.0), ValueError, id="no rate"),
    pytest.param(chunk(1, start_ns=2**70), Exception, id="start beyond 64 bits"),
    pytest.param(chunk(1, stream=Stream("a\0", "d")), ValueError, id="NUL in a patient's id"),
    pytest.param(window(1, p=(0.1, 0.2)), ValueError, id="too few probabilities"),
    pytest.param(
        window(1, model=replace(MODEL, classes=("X", "Y", "Z"))), ValueError, id="other classes"
    ),
    pytest.param(gap(cause="x" * 300), ValueError, id="long cause"),
    pytest.param(replace(raised(), reason=None), Exception, id="NULL"),
]


@pytest.mark.parametrize(("poison", "error"), POISON)
async def test_a_poisoned_record_fails_alone(url, poison, error):
    with writing(url) as writer:
        await writer.store(window(0))
        with locked(url):
            # All of these wait for one another, and then go into one transaction.
            first = writer.submit(chunk(0))
            await asyncio.sleep(0.1)
            good = [writer.submit(chunk(i)) for i in range(10, 14)]
            bad = writer.submit(chunk(20), poison)
            good += [writer.submit(chunk(i)) for i in range(14, 18)]
        for future in [first, *good]:
            await asyncio.wrap_future(future)
        with pytest.raises(error):
            await asyncio.wrap_future(bad)
        await writer.store(chunk(30))
        assert writer.healthy
    starts = [(c.start_ns - T0) // S for c in stored(url, "segments")]
    assert starts == [0, *range(10, 18), 30]


async def test_full_means_wait(url):
    with writing(url, capacity=3) as writer:
        with locked(url):
            tasks = [asyncio.create_task(writer.store(chunk(i))) for i in range(5)]
            blocked = threading.Thread(target=writer.submit, args=(chunk(9),))
            await asyncio.sleep(0.1)
            blocked.start()
            await asyncio.sleep(0.2)
            assert metric("leadone_write_queue_records") == 3
            assert blocked.is_alive()
            assert not any(task.done() for task in tasks)
        await asyncio.gather(*tasks)
        await until(lambda: not blocked.is_alive())
        blocked.join()
        # More at once than it ever holds is no reason never to take them.
        await asyncio.wait_for(writer.store(*map(chunk, range(10, 20))), 10)
    assert metric("leadone_write_queue_records") == 0
    assert len(stored(url, "segments")) == 16


async def test_who_stops_waiting_does_not_take_the_record_back(url):
    with writing(url) as writer, locked(url):
        task = asyncio.create_task(writer.store(chunk(0)))
        await asyncio.sleep(0.1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert len(stored(url, "segments")) == 1


async def test_stop_drains(url):
    writer = Writer(url)
    writer.start()
    futures = [writer.submit(chunk(i)) for i in range(200)]
    assert writer.stop() == 0
    assert all(future.done() for future in futures)
    assert len(stored(url, "segments")) == 200
    assert not writer.healthy
    with pytest.raises(DatabaseError, match="not running"):
        await writer.store(chunk())
    with pytest.raises(DatabaseError, match="not running"):
        writer.submit(chunk())


async def test_stop_in_an_outage_reports_what_is_lost(url, monkeypatch):
    monkeypatch.setattr(database, "BUSY_TIMEOUT_S", 0.05)
    writer = Writer(url, capacity=4)
    writer.start()
    with structlog.testing.capture_logs() as logs, locked(url):
        first = asyncio.create_task(writer.store(chunk(0), chunk(1)))
        await asyncio.sleep(0.1)
        second = asyncio.create_task(writer.store(chunk(2)))
        third = asyncio.create_task(writer.store(chunk(3), chunk(4)))  # waits outside
        await asyncio.sleep(0.1)
        began = time.monotonic()
        assert await asyncio.to_thread(writer.stop, 0.5) == 3
        assert time.monotonic() - began < 3
        for task in (first, second, third):
            with pytest.raises(DatabaseError):
                await task
    assert [log["records"] for log in logs if log["event"] == "records_lost"] == [3]


async def test_rows_deleted_behind_its_back(url):
    with writing(url) as writer:
        await writer.store(chunk(0), raised())
        for table in ("segments", "devices", "alarm_changes", "alarms", "patients"):
            statement(url, f"DELETE FROM {table}")
        await writer.store(chunk(1))
    assert len(stored(url, "segments")) == 1
    assert check(url) == []


@contextlib.contextmanager
def few_pages(url, monkeypatch):
    """SQLite may not grow its file."""
    limit = 20

    def open_engine(*args, **options):
        engine = database.open_engine(*args, **options)

        @event.listens_for(engine, "connect")
        def connect(connection, _):
            connection.execute(f"PRAGMA max_page_count = {limit}")

        return engine

    monkeypatch.setattr(writer_module, "open_engine", open_engine)

    def relieve():
        nonlocal limit
        limit = 100_000

    yield relieve


@contextlib.contextmanager
def small_files(url, monkeypatch):
    """The system may not let any file grow."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    # An empty database has 80 kB; what the test writes does not fit into file and log together.
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))

    def relieve():
        resource.setrlimit(resource.RLIMIT_FSIZE, before)

    try:
        yield relieve
    finally:
        relieve()


@pytest.mark.parametrize("full", [few_pages, small_files])
async def test_a_full_disk_is_waited_for(tmp_path, monkeypatch, full):
    url = f"sqlite:///{tmp_path}/test.db"
    upgrade(url)
    monkeypatch.setattr(writer_module, "_LAST_RETRY_S", 0.2)
    failures = metric("leadone_write_failures_total")
    with (
        full(url, monkeypatch) as relieve,
        structlog.testing.capture_logs() as logs,
        writing(url) as writer,
    ):
        tasks = [asyncio.create_task(writer.store(chunk(i))) for i in range(1000)]
        await until(lambda: metric("leadone_write_failures_total") > failures + 2)
        assert not writer.healthy
        assert "full" in writer.last_error or "disk I/O" in writer.last_error
        assert not all(task.done() for task in tasks)
        relieve()
        await asyncio.gather(*tasks)
        assert writer.healthy
        assert writer.last_error is None
    assert [log["event"] for log in logs] == ["database_unavailable", "database_available"]
    assert len(stored(url, "segments")) == 1000
    assert check(url) == []


async def test_a_database_that_does_not_answer_is_no_healthy_one(postgres, monkeypatch):
    url = postgres.new_database()
    upgrade(url)
    monkeypatch.setattr(writer_module, "_NO_ANSWER_S", 0.3)
    with writing(url) as writer:
        await writer.store(chunk(0))
        engine = raw(url)
        with engine.connect() as other:
            other.execute(text("LOCK TABLE segments IN EXCLUSIVE MODE"))
            waiting = asyncio.create_task(writer.store(chunk(1)))
            await until(lambda: not writer.healthy)
            assert "no answer for" in writer.last_error
            assert "s3cret" not in writer.last_error
            assert not waiting.done()
            other.rollback()
        engine.dispose()
        await waiting
        assert writer.healthy


async def test_a_server_that_goes_and_comes_back(postgres, monkeypatch):
    url = postgres.new_database()
    upgrade(url)
    monkeypatch.setattr(writer_module, "_LAST_RETRY_S", 0.2)
    with writing(url) as writer:
        await writer.store(chunk(0))
        postgres.stop()
        try:
            tasks = [asyncio.create_task(writer.store(chunk(i))) for i in range(1, 20)]
            await until(lambda: not writer.healthy)
            assert "s3cret" not in writer.last_error
            assert not any(task.done() for task in tasks)
        finally:
            postgres.start()
        await asyncio.gather(*tasks)
        assert writer.healthy
    assert len(stored(url, "segments")) == 20


def test_start_needs_the_tables(database_url):
    with pytest.raises(DatabaseError):
        Writer(database_url).start()
    if database_url.startswith("sqlite"):
        with pytest.raises(DatabaseError, match="unable to open"):
            History(database_url)
    upgrade(database_url)
    statement(database_url, "UPDATE alembic_version SET version_num = '0000'")
    with pytest.raises(DatabaseError, match="its schema is 0000, this program needs 0007"):
        Writer(database_url).start()


async def test_a_name_reaches_no_log(url):
    with structlog.testing.capture_logs() as logs, writing(url) as writer:
        for name in ("Anna Example\0", "Anna Example" * 30):
            with pytest.raises(ValueError, match="text of") as caught:
                await writer.store(Patient("anna", name))
            assert "Anna" not in str(caught.value)
        await writer.store(Patient("anna", "Anna Example"))
        await writer.store(Patient("anna", "Anna Other"))
    assert len(logs) == 2
    assert "Anna" not in repr(logs)
    assert "Anna" not in repr(Patient("anna", "Anna Example"))
    with History(url) as history:
        assert [patient.name for patient in history.patients()] == ["Anna Other"]


async def test_two_writers_on_one_database(url):
    failures = metric("leadone_write_failures_total")
    with writing(url) as one, writing(url) as other:
        await asyncio.gather(
            *(one.store(chunk(i)) for i in range(100)),
            *(other.store(chunk(i)) for i in range(50, 150)),
        )
    assert metric("leadone_write_failures_total") == failures
    assert len(stored(url, "segments")) == 150


async def test_of_refused_messages_the_first_is_kept(url):
    first = RefusedMessage("size", 100, 100, "leadone/v1/x/y/ecg", "10 MB\0", b"\x00{")
    again = RefusedMessage("size", 200, 200, "elsewhere", "11 MB", b"[")
    other = RefusedMessage("format", 150, 150, "t", "no JSON", b"")
    with writing(url) as writer:
        await writer.store(first, other)
        await writer.store(again)
    with History(url) as history:
        assert history.refused_messages() == [replace(first, last_ns=200, detail="10 MB\\0"), other]
