"""A writer with a spool: what the database does not take is kept, in its order, once."""

import asyncio
import contextlib
import os
import random
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
import structlog
from prometheus_client import REGISTRY
from sqlalchemy import create_engine, text
from sqlalchemy.exc import OperationalError
from storage_samples import MODEL, chunk, facts, raised, window

from alerts.engine import Engine
from alerts.policy import Policy
from alerts.records import Audit, ClockSet, Kind, Notification
from monitor.alarms import Alarms
from monitor.storage import database, replay, spooling
from monitor.storage import spool as spool_module
from monitor.storage import writer as writer_module
from monitor.storage.batch import BatchWriter
from monitor.storage.commits import Commits
from monitor.storage.database import DatabaseError
from monitor.storage.history import History
from monitor.storage.maintenance import check, upgrade
from monitor.storage.records import Request
from monitor.storage.replay import replay as replay_spool
from monitor.storage.spool import Spool
from monitor.storage.writer import Writer

pytest_plugins = ["postgres"]

BASE_NS = 10**15


@pytest.fixture
def url(database_url):
    upgrade(database_url)
    return database_url


@pytest.fixture
def lite(tmp_path):
    url = f"sqlite:///{tmp_path}/test.db"
    upgrade(url)
    return url


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    monkeypatch.setattr(database, "BUSY_TIMEOUT_S", 0.05)
    monkeypatch.setattr(writer_module, "_SPOOL_AFTER_S", 0.4)
    monkeypatch.setattr(writer_module, "_PROBE_S", 0.1)
    monkeypatch.setattr(writer_module, "_TRY_SPOOL_S", 0.05)
    monkeypatch.setattr(spool_module, "_ASK_AGAIN_S", 0.1)
    monkeypatch.setattr(spooling, "_LOOK_S", 0.05)


def metric(name):
    return REGISTRY.get_sample_value(name)


def path_of(url):
    return url.removeprefix("sqlite:///")


@contextlib.contextmanager
def locked(url):
    """Somebody else writes to a SQLite file."""
    with contextlib.closing(sqlite3.connect(path_of(url), isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        yield
        other.execute("ROLLBACK")


@contextlib.contextmanager
def writing(url, spool, **options):
    writer = Writer(url, spool=spool, **options)
    writer.start()
    try:
        yield writer
    finally:
        assert writer.stop(2) == 0


async def until(condition, seconds=15.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)


def counted(i):
    """Records of which none may be stored twice, nor any two in another order."""
    audit = Audit(at_ns=i, alarm_id=None, patient="anna", what="paused", by="me", detail="x")
    return chunk(i), ClockSet(1), audit


def waiting():
    """A notification whose time every ``ClockSet`` moves."""
    note = Notification(
        key="k",
        alarm_id="a1",
        patient="anna",
        contact="me",
        kind=Kind.RAISED,
        due_ns=BASE_NS,
        thread="a1",
        expires_with_alarm=False,
    )
    return raised(), note


def rows(url, sql):
    engine = create_engine(url.replace("postgresql:", "postgresql+psycopg:"))
    try:
        with engine.connect() as connection:
            return [tuple(row) for row in connection.execute(text(sql))]
    finally:
        engine.dispose()


def audits(url):
    return [n for (n,) in rows(url, "SELECT at_ns FROM alarm_audit ORDER BY id")]


def moved(url):
    ((due_ns,),) = rows(url, "SELECT due_ns FROM notifications")
    return due_ns - BASE_NS


def positions(url):
    """Of files; not the mark of a writer."""
    return rows(url, "SELECT name FROM spool_positions WHERE name NOT LIKE 'writer %'")


def sequences(url):
    with History(url) as history:
        return [c.sequence for c in history.segments("anna", 0, 2**62)]


async def test_an_outage_that_lasts_makes_records_durable_in_the_spool(lite, tmp_path):
    spool = Spool([tmp_path], "db")
    with structlog.testing.capture_logs() as logs, writing(lite, spool) as writer:
        await writer.store(*waiting())
        assert not writer.spooling
        with locked(lite):
            began = time.monotonic()
            await asyncio.gather(*(writer.store(*counted(i)) for i in range(20)))
            assert 0.3 < time.monotonic() - began < 5
            assert writer.spooling
            assert not writer.healthy
            assert "locked" in writer.last_error
            began = time.monotonic()
            await writer.store(*counted(20))
            assert time.monotonic() - began < 1
            assert metric("leadone_spool_bytes") == spool.size > 0
            assert sequences(lite) == []
        await until(lambda: not writer.spooling)
        assert writer.healthy
        await writer.store(*counted(21))
    assert [log["event"] for log in logs] == ["database_unavailable", "database_available"]
    assert audits(lite) == [*range(22)]
    assert sequences(lite) == [*range(22)]
    assert moved(lite) == 22
    assert spool.is_empty
    assert not [*tmp_path.glob("*.spool")]
    assert positions(lite) == []
    assert check(lite) == []


async def test_a_short_outage_needs_no_spool(lite, tmp_path):
    before = metric("leadone_spooled_groups_total")
    with writing(lite, Spool([tmp_path], "db")) as writer:
        with locked(lite):
            task = asyncio.create_task(writer.store(chunk(0)))
            await asyncio.sleep(0.2)
        await task
    assert metric("leadone_spooled_groups_total") == before


async def test_a_server_that_goes_and_comes_back(postgres, tmp_path):
    url = postgres.new_database()
    upgrade(url)
    with writing(url, Spool([tmp_path], "db")) as writer:
        await writer.store(*waiting())
        postgres.stop()
        try:
            for i in range(10):
                await asyncio.gather(*(writer.store(*counted(10 * i + j)) for j in range(10)))
            assert writer.spooling
            assert "s3cret" not in writer.last_error
        finally:
            postgres.start()
        await until(lambda: not writer.spooling)
    assert audits(url) == sorted(audits(url)) == [*range(100)]
    assert moved(url) == 100


async def test_what_comes_during_the_replay_is_stored_behind_it(lite, tmp_path, monkeypatch):
    monkeypatch.setattr(replay, "_GROUPS", 3)
    with writing(lite, Spool([tmp_path], "db")) as writer:
        await writer.store(*waiting())
        with locked(lite):
            await asyncio.gather(*(writer.store(*counted(i)) for i in range(300)))
        i = 300
        while writer.spooling:
            await writer.store(*counted(i))
            i += 1
    assert i > 310
    assert audits(lite) == [*range(i)]


async def test_a_poisoned_group_is_refused_at_once_or_passed_over(lite, tmp_path):
    before = metric("leadone_spooled_groups_refused_total")
    with writing(lite, Spool([tmp_path], "db")) as writer:
        await writer.store(window(0))
        with locked(lite):
            await writer.store(chunk(0))
            with pytest.raises(ValueError, match="rate"):
                await writer.store(chunk(1, rate=0.0))
            # Only the database knows that this one is none.
            unknown = replace(waiting()[1], key="other", alarm_id="lost")
            other = window(1, model=replace(MODEL, classes=("X", "Y", "Z")))
            await writer.store(other, unknown, *counted(9))
            await writer.store(chunk(2))
        await until(lambda: not writer.spooling)
        assert writer.healthy
    # What is beside it is no worse for that.
    assert sequences(lite) == [0, 2, 9]
    assert audits(lite) == [9]
    assert metric("leadone_spooled_groups_refused_total") == before + 1


async def test_stop_leaves_to_the_spool_what_the_database_does_not_take(lite, tmp_path):
    writer = Writer(lite, spool=Spool([tmp_path], "db"))
    writer.start()
    await writer.store(*waiting())
    with locked(lite):
        tasks = [asyncio.create_task(writer.store(*counted(i))) for i in range(5)]
        await asyncio.sleep(0.05)
        assert await asyncio.to_thread(writer.stop, 0.2) == 0
        await asyncio.gather(*tasks)
    assert audits(lite) == []
    with writing(lite, Spool([tmp_path], "db")) as again:
        assert again.spooling
        assert again.healthy
        await again.store(*counted(5))
        await until(lambda: not again.spooling)
    assert audits(lite) == [*range(6)]
    assert moved(lite) == 6


async def test_a_driver_that_hangs_does_not_keep_a_stop_from_spooling(postgres, tmp_path):
    url = postgres.new_database()
    upgrade(url)
    writer = Writer(url, spool=Spool([tmp_path], "db"))
    writer.start()
    await writer.store(*waiting())
    engine = create_engine(url.replace("postgresql:", "postgresql+psycopg:"))
    with engine.connect() as other:
        other.execute(text("LOCK TABLE alarm_audit IN EXCLUSIVE MODE"))
        first = asyncio.create_task(writer.store(*counted(0)))
        await asyncio.sleep(0.3)
        second = asyncio.create_task(writer.store(*counted(1)))
        await asyncio.sleep(0.1)
        assert await asyncio.to_thread(writer.stop, 0.3) == 0
        await asyncio.gather(first, second)
        # Now the transaction that hung is committed after all.
        other.rollback()
    engine.dispose()
    await asyncio.to_thread(writer._thread.join, 10)
    assert audits(url) == [0]
    assert replay_spool(Spool([tmp_path], "db"), url) == 2
    assert audits(url) == [0, 1]
    assert moved(url) == 2


async def test_a_driver_that_hangs_keeps_nothing_from_becoming_durable(postgres, tmp_path):
    url = postgres.new_database()
    upgrade(url)
    engine = create_engine(url.replace("postgresql:", "postgresql+psycopg:"))
    with writing(url, Spool([tmp_path], "db")) as writer:
        await writer.store(*waiting())
        for table, i in (("alarm_audit", 0), ("spool_positions", 100), ("notifications", 200)):
            with engine.connect() as other:
                other.execute(text(f"LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE"))
                first = asyncio.create_task(writer.store(*counted(i)))
                await asyncio.sleep(0.1)
                await asyncio.gather(*(writer.store(*counted(i + j)) for j in range(1, 50)))
                await first
                assert writer.spooling
                assert not [n for n in audits(url) if n >= i] if table != "alarm_audit" else True
                other.rollback()
            await asyncio.gather(*(writer.store(*counted(i + j)) for j in range(50, 60)))
            await until(lambda: not writer.spooling)
            assert writer.healthy
    engine.dispose()
    expected = [i + j for i in (0, 100, 200) for j in range(60)]
    assert audits(url) == expected
    assert moved(url) == len(expected)


async def test_a_driver_that_hangs_before_it_writes(postgres, tmp_path):
    url = postgres.new_database()
    upgrade(url)
    engine = create_engine(url.replace("postgresql:", "postgresql+psycopg:"))
    end_all = (
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE datname = current_database() AND pid != pg_backend_pid()"
    )
    with writing(url, Spool([tmp_path], "db")) as writer:
        await writer.store(*waiting())
        with engine.connect() as other:
            # A new connection asks first what the last one has done, and gets no answer.
            other.execute(text("LOCK TABLE spool_positions IN ACCESS EXCLUSIVE MODE"))
            other.execute(text(end_all))
            await asyncio.gather(*(writer.store(*counted(i)) for i in range(20)))
            other.rollback()
        await writer.store(*counted(20))
        await until(lambda: not writer.spooling)
    engine.dispose()
    assert audits(url) == [*range(21)]
    assert moved(url) == 21


async def test_a_driver_that_hangs_and_a_spool_that_takes_nothing(postgres, tmp_path):
    url = postgres.new_database()
    upgrade(url)
    engine = create_engine(url.replace("postgresql:", "postgresql+psycopg:"))
    with writing(url, Spool([], "db"), capacity=80) as writer:
        await writer.store(*waiting())
        with engine.connect() as other:
            other.execute(text("LOCK TABLE segments"))
            told = [asyncio.create_task(writer.store(raised(f"b{i}"))) for i in range(5)]
            await asyncio.sleep(0.1)
            for i in range(300):
                last = asyncio.create_task(writer.store(chunk(i)))
                await asyncio.sleep(0.01)
            other.rollback()
        await asyncio.gather(*told, last)
        await until(lambda: not writer.spooling)
    engine.dispose()
    found = sequences(url)
    assert found[-40:] == [*range(260, 300)]
    with History(url) as history:
        assert len(history.active_alarms()) == 6


async def test_a_commit_whose_end_nobody_knows_is_not_done_twice(url, tmp_path, monkeypatch):
    write, fails = BatchWriter.write, [3]

    def broken(self, connection, batch, also=None):
        counts = write(self, connection, batch, also)
        if batch.told and fails[0]:
            fails[0] -= 1
            raise OperationalError("COMMIT", {}, OSError("connection lost"))
        return counts

    with writing(url, Spool([tmp_path], "db")) as writer:
        await writer.store(*waiting())
    monkeypatch.setattr(BatchWriter, "write", broken)
    with writing(url, Spool([tmp_path], "db")) as writer:
        await asyncio.gather(*(writer.store(*counted(i)) for i in range(5)))
    assert audits(url) == [*range(5)]
    # Nor if the outage goes on, and it went to the spool.
    fails[0] = 1
    connect = Commits.connection

    def connection(self):
        if away:
            raise OSError("no route to the server")
        return connect(self)

    away = False
    monkeypatch.setattr(Commits, "connection", connection)
    with writing(url, Spool([tmp_path], "db")) as writer:
        first = asyncio.create_task(writer.store(*counted(5)))
        await until(lambda: fails[0] == 0)
        away = True
        await first
        await writer.store(*counted(6))
        assert writer.spooling
        away = False
        await until(lambda: not writer.spooling)
    assert audits(url) == [*range(7)]
    assert moved(url) == 7


async def test_a_start_without_a_database_never_looks_at_it(tmp_path):
    url = f"sqlite:///{tmp_path}/missing/test.db"
    writer = Writer(url, spool=Spool([tmp_path], "db"))
    writer.start_without("it is damaged")
    try:
        await asyncio.gather(*(writer.store(*counted(i)) for i in range(50)))
        assert writer.spooling
        assert writer.last_error == "it is damaged"
    finally:
        assert writer.stop(2) == 0
    assert not (tmp_path / "missing").exists()
    (tmp_path / "missing").mkdir()
    upgrade(url)
    with writing(url, None) as plain:
        await plain.store(*waiting())
    # First a copy of it, which the spool outlives.
    copy = f"sqlite:///{tmp_path}/copy.db"
    upgrade(copy)
    spool = Spool([tmp_path], "db")
    assert replay_spool(spool, copy, keep=True) == 50
    assert replay_spool(spool, copy, keep=True) == 0
    assert audits(copy) == [*range(50)]
    assert replay_spool(spool, url) == 50
    assert replay_spool(spool, url) == 0
    assert audits(url) == [*range(50)]
    assert moved(url) == 50
    assert spool.is_empty
    with pytest.raises(ValueError, match="needs a spool"):
        Writer(url).start_without("x")


async def test_a_database_can_be_left_while_it_is_written(lite, tmp_path):
    spool = Spool([tmp_path], "db")
    with writing(lite, spool) as writer:
        await writer.store(*waiting())
        await writer.store(*counted(0))
        writer.leave("it was replaced by another file")
        await writer.store(*counted(1))
        assert writer.spooling
        assert writer.last_error == "it was replaced by another file"
        await asyncio.sleep(0.3)
    assert audits(lite) == [0]
    replay_spool(spool, lite)
    assert audits(lite) == [0, 1]


def test_a_replay_that_fails_loses_nothing(lite, tmp_path):
    spool = Spool([tmp_path], "db")
    spool.append([[chunk(i)] for i in range(5)])
    with locked(lite), pytest.raises(DatabaseError, match="locked"):
        replay_spool(spool, lite)
    other = f"sqlite:///{tmp_path}/other.db"
    sqlite3.connect(path_of(other)).close()
    with pytest.raises(DatabaseError, match="empty"):
        replay_spool(spool, other)
    assert replay_spool(spool, lite) == 5
    assert sequences(lite) == [*range(5)]


async def test_a_database_of_another_schema_is_not_written(lite, tmp_path):
    spool = Spool([tmp_path], "db")
    with writing(lite, spool) as writer:
        with locked(lite):
            await writer.store(chunk(0))
        with contextlib.closing(sqlite3.connect(path_of(lite))) as other:
            other.execute("UPDATE alembic_version SET version_num = '9999'")
            other.commit()
        await until(lambda: not writer.spooling or "9999" in (writer.last_error or ""))
        if writer.spooling:  # it was faster otherwise
            await writer.store(chunk(1))
            assert sequences_raw(lite) == 0
        with contextlib.closing(sqlite3.connect(path_of(lite))) as other:
            other.execute("UPDATE alembic_version SET version_num = ?", (database.REVISION,))
            other.commit()
        await until(lambda: not writer.spooling)


def sequences_raw(url):
    ((n,),) = rows(url, "SELECT count(*) FROM segments")
    return n


async def test_what_can_be_kept_nowhere_gives_way_to_what_comes(lite, tmp_path):
    lost = metric("leadone_records_lost_total")
    spool = Spool([tmp_path / "missing"], "db")
    with (
        structlog.testing.capture_logs() as logs,
        writing(lite, spool, capacity=80) as writer,
    ):
        with locked(lite):
            told = [asyncio.create_task(writer.store(raised(f"a{i}"))) for i in range(5)]
            await asyncio.sleep(0.05)
            # Nobody waits for ever: there is no end of these.
            for i in range(0, 1000, 10):
                last = [asyncio.create_task(writer.store(chunk(i + j))) for j in range(10)]
                await asyncio.sleep(0.02)
            await until(lambda: metric("leadone_records_lost_total") - lost > 800)
            assert "nor can anything be kept elsewhere" in writer.last_error
            assert not any(task.done() for task in told)
        await asyncio.gather(*told, *last)
        await until(lambda: not writer.spooling)
        assert writer.healthy
    # The newest are there, without a hole, and all that tells of alarms.
    found = sequences(lite)
    assert found == [*range(1000 - len(found), 1000)]
    assert len(found) >= 40
    assert metric("leadone_records_lost_total") - lost == 1000 - len(found)
    with History(lite) as history:
        assert len(history.active_alarms()) == 5
    assert [log["event"] for log in logs].count("records_lost") == 1
    assert [log["event"] for log in logs].count("spool_unavailable") == 1


async def test_a_spool_that_can_be_written_again_takes_what_waits(lite, tmp_path):
    folder = tmp_path / "later"
    with writing(lite, Spool([folder], "db")) as writer:
        await writer.store(*waiting())
        with locked(lite):
            tasks = [asyncio.create_task(writer.store(*counted(i))) for i in range(5)]
            await until(lambda: "elsewhere" in (writer.last_error or ""))
            folder.mkdir()
            await asyncio.gather(*tasks)
            await until(lambda: "elsewhere" not in writer.last_error)
        await until(lambda: not writer.spooling)
    assert audits(lite) == [*range(5)]


async def test_what_people_ask_is_answered_once_however_long_the_answer_cannot_be_stored(
    lite, tmp_path
):
    with writing(lite, None) as plain:
        asked = {"patient": "anna", "kind": None, "seconds": 600}
        await plain.store(Request("pause", asked, "bob", time.time_ns()))
    spool = Spool([tmp_path], "db")
    stop = asyncio.Event()
    with (
        structlog.testing.capture_logs() as logs,
        History(lite) as history,
        writing(lite, spool) as writer,
    ):
        writer.leave("its disk is full")
        alarms = Alarms(Engine(lambda _: Policy()), writer)
        running = asyncio.create_task(alarms.run(history, stop))
        await until(lambda: not spool.is_empty)
        assert len(history.requests()) == 1
        await asyncio.sleep(2.5)  # it looks every second
        stop.set()
        await running
    assert [log["event"] for log in logs].count("asked") == 1
    replay_spool(spool, lite)
    assert rows(lite, "SELECT answer FROM alarm_requests") == [("paused",)]
    assert len(rows(lite, "SELECT id FROM alarm_pauses")) == 1


@pytest.fixture
def small_disk(tmp_path):
    """A file system of two megabytes."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m,mode=700", "leadone-test", folder]
    try:
        done = subprocess.run(mount, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        pytest.skip("needs mount")
    if done.returncode:
        pytest.skip(f"needs the right to mount a file system: {done.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


def fill(folder):
    with (folder / "ballast").open("wb", buffering=0) as ballast, contextlib.suppress(OSError):
        while True:
            ballast.write(bytes(4096))
    return folder / "ballast"


async def test_a_disk_that_is_full(small_disk, tmp_path):
    url = f"sqlite:///{small_disk}/test.db"
    upgrade(url)
    spool = Spool([small_disk, tmp_path], "db")
    with writing(url, spool) as writer:
        await writer.store(*waiting())
        ballast = fill(small_disk)
        for i in range(0, 300, 50):
            await asyncio.gather(*(writer.store(*counted(i + j)) for j in range(50)))
        assert writer.spooling
        assert "full" in writer.last_error or "disk I/O" in writer.last_error
        assert spool.path == tmp_path / "db.spool"  # the last of the disk is the database's
        ballast.unlink()
        await until(lambda: not writer.spooling)
        assert writer.healthy
    assert audits(url) == [*range(300)]
    assert moved(url) == 300
    assert check(url) == []


async def test_a_disk_that_becomes_read_only(small_disk, tmp_path):
    url = f"sqlite:///{small_disk}/test.db"
    upgrade(url)
    kept = Spool([small_disk, tmp_path], "db")
    kept.append([counted(0)])
    kept.close()
    remount = ["mount", "-o", "remount,ro", small_disk]
    await asyncio.to_thread(subprocess.run, remount, check=True)
    # What was kept there is read, and what follows goes elsewhere.
    writer = Writer(url, spool=Spool([small_disk, tmp_path], "db"))
    writer.start_without("its disk is read-only")
    await writer.store(*counted(1))
    assert writer.stop(2) == 0
    copy = f"sqlite:///{tmp_path}/copy.db"
    upgrade(copy)
    spool = Spool([small_disk, tmp_path], "db")
    assert spool.path is None
    assert replay_spool(spool, copy) == 2
    assert spool.is_empty
    # The file that could not be removed is known to be taken in.
    assert [path.name for path in small_disk.glob("*.spool")] == ["db.spool"]
    again = Spool([small_disk, tmp_path], "db")
    assert not again.is_empty
    assert replay_spool(again, copy) == 0
    assert audits(copy) == [0, 1]


# Makes a child for each line it reads, which stores numbered records and says which are durable.
# Forked: hundreds of imports would take longer than the test.
CHILD = """
import asyncio, itertools, os, sys
from pathlib import Path
import structlog
sys.path[:0] = sys.argv[3:5]
from monitor.storage import database, replay, writer as writing
from monitor.storage.database import DatabaseError
from monitor.storage.spool import Spool
from test_storage_spooling import counted
structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
database.BUSY_TIMEOUT_S = 0.02
writing._SPOOL_AFTER_S, writing._PROBE_S, replay._GROUPS = 0.1, 0.02, 4

async def one(writer, numbers):
    for i in numbers:
        await writer.store(*counted(i))
        os.write(1, b"%d\\n" % i)

async def main(first):
    writer = writing.Writer(sys.argv[1], spool=Spool([Path(sys.argv[2])], "db"))
    try:
        writer.start()
    except DatabaseError as error:
        writer.start_without(str(error))
    numbers = itertools.count(first)
    await asyncio.gather(*(one(writer, numbers) for _ in range(4)))

for line in sys.stdin:
    child = os.fork()
    if not child:
        asyncio.run(main(int(line)))
    os.write(1, b"pid %d\\n" % child)
    os.waitpid(child, 0)
    os.write(1, b"dead\\n")
"""


class Children:
    """Processes that store, one after the other, each of which is killed."""

    def __init__(self, url, folder):
        here = Path(__file__).parent
        self.process = subprocess.Popen(
            [sys.executable, "-c", CHILD, url, str(folder), str(here), str(here.parent)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
        )
        self.durable = []
        self.first = 0

    def run_and_kill(self, after_s):
        self.process.stdin.write(f"{self.first}\n")
        killing = None
        try:
            while (line := self.process.stdout.readline()) != "dead\n":
                if line.startswith("pid "):
                    kill = (int(line[4:]), signal.SIGKILL)
                    killing = threading.Timer(after_s, os.kill, kill)
                    killing.start()
                else:
                    self.durable.append(int(line))
        finally:
            if killing is not None:
                killing.join()
        # Those that were not said to be durable may be, all the same; even if none was.
        self.first = max(self.first, *self.durable, 0) + 100

    def end(self):
        self.process.stdin.close()
        self.process.stdout.close()
        self.process.wait(10)


def holds(url, folder, durable):
    """Whether everything is stored that was said to be, and nothing twice."""
    replay_spool(Spool([folder], "db"), url)
    found = audits(url)
    assert len(durable) > 100
    assert set(durable) <= set(found)
    assert len(found) == len(set(found))
    assert moved(url) == len(found)
    with History(url) as history:
        chunks = {c.sequence: facts(c) for c in history.segments("anna", 0, 2**62)}
    # A group is stored whole or not at all.
    assert chunks.keys() == set(found)
    assert all(chunks[i] == facts(chunk(i)) for i in durable)
    assert check(url) == []


def test_nothing_is_lost_or_doubled_by_kill_9_while_it_spools_or_replays(lite, tmp_path):
    moments = random.Random(1)
    replay_spool_first(lite, tmp_path)
    children = Children(lite, tmp_path)
    ending = threading.Event()

    def lock_now_and_then():
        while not ending.is_set():
            with contextlib.suppress(sqlite3.OperationalError), locked(lite):
                ending.wait(moments.uniform(0.05, 0.6))
            ending.wait(moments.uniform(0.05, 0.5))

    locking = threading.Thread(target=lock_now_and_then)
    locking.start()
    spooled = replaying = 0
    try:
        for _ in range(30):
            children.run_and_kill(moments.uniform(0.02, 0.9))
            spooled += any(tmp_path.glob("*.spool"))
            replaying += bool(positions(lite))
    finally:
        ending.set()
        locking.join()
        children.end()
    assert spooled > 5
    assert replaying > 2
    holds(lite, tmp_path, children.durable)


def replay_spool_first(url, folder):
    """Put in, by way of a spool, what every ``ClockSet`` moves."""
    spool = Spool([folder], "db")
    spool.append([waiting()])
    replay_spool(spool, url)


def test_nothing_is_lost_or_doubled_with_a_server_that_crashes(postgres, tmp_path):
    url = postgres.new_database()
    upgrade(url)
    moments = random.Random(3)
    replay_spool_first(url, tmp_path)
    children = Children(url, tmp_path)
    ending = threading.Event()

    def crash_now_and_then():
        while not ending.wait(moments.uniform(0.2, 0.8)):
            postgres.stop()
            ending.wait(moments.uniform(0.0, 0.5))
            postgres.start()

    crashing = threading.Thread(target=crash_now_and_then)
    crashing.start()
    try:
        for _ in range(8):
            children.run_and_kill(moments.uniform(0.3, 1.5))
    finally:
        ending.set()
        crashing.join()
        children.end()
    holds(url, tmp_path, children.durable)
