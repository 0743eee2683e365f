import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import text
from storage_samples import T0, S, chunk, ended, facts, raised, window

from alerts.engine import Engine
from alerts.lethal import RhythmEngine
from alerts.policy import Policy
from alerts.records import Kind, Notification, Pause, Presence, Signal
from ingest.chunk import Stream
from ingest.rr import RrIntervals
from monitor.resume import restore
from monitor.storage import salvage as module
from monitor.storage.database import DatabaseError, open_engine, parse_url
from monitor.storage.history import History
from monitor.storage.maintenance import check, upgrade
from monitor.storage.records import Delivery, Patient, Strap, StrapState
from monitor.storage.salvage import salvage, set_aside
from monitor.storage.writer import Writer

pytest_plugins = ["postgres", "small_disks"]

HERE = Path(__file__).parent
NOW = T0 + 3600 * S
BOB = Stream("bob", "Sense")
STRAPS = [
    Strap(Stream("anna", "H10"), "A0:00:00:00:00:01", "polar", None, T0),
    Strap(BOB, "A0:00:00:00:00:02", "heart_rate", "hci1", T0 + S),
]
STATE = StrapState(BOB, "connected", None, None, T0, 80, T0)
FEVER = raised("a2", at=40)
SIGNAL = Signal(
    alarm=FEVER.alarm,
    presence=Presence.ON,
    since_ns=T0 + 40 * S,
    bout="a2",
    bout_count=1,
    bout_started_ns=T0 + 40 * S,
    told=("carol",),
    issued=2,
)
WAITS = Notification(
    key="a2:reminder:2",
    alarm_id="a2",
    patient="anna",
    contact="carol",
    kind=Kind.REMINDER,
    due_ns=NOW + 60 * S,
    thread="a2",
    expires_with_alarm=True,
)
TRIED = Delivery("a2:reminder:2", "ntfy", "retrying", 3, NOW, "no route to host")
PAUSE = Pause(id="p1", patient="bob", kind="battery", from_ns=T0, until_ns=NOW + S, by="carol")


def records():
    """A day: alarms long over, one that goes on, two straps, and an hour of windows."""
    yield [Patient("anna", "Anna"), Patient("bob", None)]
    yield [*STRAPS, STATE]
    for i in range(20):
        old = raised(f"old{i}", at=i)
        yield [old, ended(old, at=50 + i)]
    yield [FEVER, SIGNAL, WAITS, replace(WAITS, key="a2:raised:1", kind=Kind.RAISED)]
    yield [TRIED, PAUSE]
    yield [window(i) for i in range(720)]
    yield [window(i, stream=BOB) for i in range(300, 330)]
    yield [chunk(i) for i in range(3500, 3600)]
    yield [RrIntervals(BOB, T0 + i * S, (0.8, 0.81), 74, True) for i in range(1600, 1700)]


CHILD = """
import asyncio, os, signal, sys
sys.path[:0] = sys.argv[2:4]
from monitor.storage.maintenance import upgrade
from monitor.storage.writer import Writer
from test_storage_salvage import records

upgrade(sys.argv[1])
writer = Writer(sys.argv[1])
writer.start()
async def main():
    for group in records():
        await writer.store(*group)
asyncio.run(main())
if sys.argv[4] == "killed":
    os.kill(os.getpid(), signal.SIGKILL)
writer.stop()
"""


def stored(url, ends):
    code = subprocess.run(
        [sys.executable, "-c", CHILD, url, str(HERE), str(HERE.parent), ends], check=False
    ).returncode
    assert code == (0 if ends == "stopped" else -signal.SIGKILL)
    return url


@pytest.fixture(scope="module")
def stopped(tmp_path_factory):
    """A whole database after a clean stop; not to be changed."""
    path = tmp_path_factory.mktemp("stopped") / "leadone.db"
    stored(f"sqlite:///{path}", "stopped")
    return path


@pytest.fixture
def path(tmp_path, stopped):
    return Path(shutil.copy(stopped, tmp_path / "leadone.db"))


@pytest.fixture
def target(tmp_path):
    return f"sqlite:///{tmp_path}/salvaged.db"


def everything_lives(target):
    """Whether all that a daemon takes up is in a salvaged database."""
    assert check(target) == []
    with History(target) as history:
        assert history.patients() == [Patient("anna", "Anna"), Patient("bob", None)]
        assert [strap for strap, _ in history.straps()] == STRAPS
        assert history.straps()[1][1] == STATE
        assert history.active_alarms() == [FEVER.alarm]
        assert history.changes("a2") == [FEVER]
        assert history.signals(Presence.ON) == [SIGNAL]
        assert {n.key for n, _ in history.waiting()} == {"a2:raised:1", "a2:reminder:2"}
        assert [tried for n, tried in history.waiting() if n == WAITS] == [[TRIED]]
        assert history.pauses(NOW) == [PAUSE]
        found = [facts(w) for w in history.windows("anna", 0, 2**62)]
        assert found == [facts(window(i)) for i in range(419, 720)]
        # Nothing came of the other one for half an hour: the last there was.
        assert history.last_window_end(BOB) == T0 + 5 * 329 * S + 10 * S
        assert [facts(c) for c in history.segments("anna", 0, 2**62)] == [
            facts(chunk(i)) for i in range(3539, 3600)
        ]
        assert history.last_sample(BOB) == T0 + 1699 * S


@pytest.mark.parametrize("sick", ["well", "full", "read-only"])
@pytest.mark.parametrize("ends", ["stopped", "killed"])
def test_the_live_state_is_saved_from_a_sick_disk(small_disk, target, ends, sick):
    path = small_disk.folder / "leadone.db"
    stored(f"sqlite:///{path}", ends)
    if sick == "full":
        small_disk.fill()
    elif sick == "read-only":
        small_disk.read_only()
    salvaged = salvage(f"sqlite:///{path}", target, now_ns=NOW)
    assert salvaged.problems == ()
    assert salvaged.counts["straps"] == 2
    assert salvaged.counts["alarms"] == 1
    everything_lives(target)


def test_the_daemon_takes_up_what_was_saved(path, target):
    salvage(path, target, now_ns=NOW)
    engine, rhythms = Engine(lambda _: Policy()), RhythmEngine()
    with History(target) as history:
        ends = restore(engine, rhythms, history, now_ns=NOW, hop_s=5.0, attended=True)
    assert ends == []


@pytest.mark.parametrize("url", ["sqlite", "postgres"])
def test_a_newer_schema(url, tmp_path, target, request):
    if url == "sqlite":
        source = f"sqlite:///{tmp_path}/newer.db"
    else:
        source = request.getfixturevalue("postgres").new_database()
    stored(source, "stopped")
    with open_engine(parse_url(source)).begin() as connection:
        for statement in (
            "UPDATE alembic_version SET version_num = '9999'",
            "ALTER TABLE straps ADD COLUMN firmware TEXT DEFAULT '3.1'",
            "ALTER TABLE patients DROP COLUMN name",
            "CREATE TABLE beds (id INTEGER PRIMARY KEY)",
            "DROP TABLE alarm_requests",
        ):
            connection.execute(text(statement))
    salvaged = salvage(source, target, now_ns=NOW)
    assert salvaged.problems == ()
    with History(target) as history:
        assert [p.name for p in history.patients()] == [None, None]
        assert [strap for strap, _ in history.straps()] == STRAPS
        assert history.signals(Presence.ON) == [SIGNAL]
        assert len(list(history.windows("anna", 0, 2**62))) == 301
    assert check(target) == []


def test_nothing_is_written_to_what_is_salvaged(path, target):
    before = path.read_bytes()
    salvage(path, target, now_ns=NOW)
    assert path.read_bytes() == before
    assert {file.name for file in path.parent.glob("leadone.db*")} == {"leadone.db"}


def test_a_clock_in_1970_salvages_no_more_than_the_last_of_each(path, target):
    salvaged = salvage(path, target, now_ns=1000 * S)
    assert salvaged.counts["windows"] == 301 + 30
    with History(target) as history:
        assert history.signals(Presence.ON) == [SIGNAL]


def pages_of(path, name, only="%"):
    """Numbers, from 0, of the pages of a table or index, with their cells, if SQLite can tell."""
    with closing(sqlite3.connect(path)) as connection:
        query = "SELECT pageno - 1, ncell FROM dbstat WHERE name = ? AND pagetype LIKE ?"
        try:
            return dict(connection.execute(query, (name, only)))
        except sqlite3.OperationalError as error:
            pytest.skip(f"this SQLite lists no pages: {error}")


def overwrite(path, *pages, dice=random.Random(1)):  # noqa: B008 - the same each time
    with path.open("r+b") as file:
        for page in pages:
            file.seek(4096 * page)
            file.write(dice.randbytes(4096))


@pytest.mark.parametrize(
    ("damaged", "problem"),
    [
        ("windows", "windows of the last minutes: some may be lost"),
        ("alarm_signals", "records of who was told of alarms: some may be lost"),
        ("alarms", "alarms: some may be lost"),
        ("patients", "patients: some may be lost"),
        ("devices", "devices: some may be lost"),
        ("sqlite_autoindex_alarms_1", None),
        ("notifications", "messages that wait to be sent: some may be lost"),
    ],
)
def test_straps_survive_the_damage_of_everything_else(path, target, damaged, problem):
    overwrite(path, *pages_of(path, damaged))
    salvaged = salvage(path, target, now_ns=NOW)
    assert any(p.startswith(problem) for p in salvaged.problems) if problem else True
    with History(target) as history:
        # The devices that straps refer to are told by their index.
        assert [strap for strap, _ in history.straps()] == STRAPS
    assert check(target) == []


@pytest.mark.parametrize("garbled", ["battery = 300", "battery = x'00'", "since_ns = NULL"])
def test_a_strap_whose_state_makes_no_sense_stays_paired(path, target, garbled):
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(f"UPDATE straps SET {garbled} WHERE address LIKE '%2'")
    salvage(path, target, now_ns=NOW)
    with History(target) as history:
        assert history.straps() == [(STRAPS[0], None), (STRAPS[1], None)]


def test_an_alarm_whose_history_is_lost_has_a_beginning(path, target):
    overwrite(path, *pages_of(path, "alarm_changes"))
    salvage(path, target, now_ns=NOW)
    with History(target) as history:
        (change,) = history.changes("a2")
        assert history.signals(Presence.ON) == [SIGNAL]
    assert change.at_ns == FEVER.alarm.raised_ns
    assert check(target) == []


def many(path, n=4000):
    """Alarms on many pages, all going on, in the order of their ids."""
    url = f"sqlite:///{path}"
    upgrade(url)
    with open_engine(parse_url(url)).begin() as connection:
        connection.execute(text("INSERT INTO patients (id) VALUES ('anna')"))
        connection.execute(
            text(
                "INSERT INTO alarms (id, patient_id, condition, priority, started_ns, raised_ns) "
                "VALUES (:id, 'anna', 'pause', 'low', :at, :at)"
            ),
            [{"id": f"alarm{i:05}", "at": T0 + i} for i in range(n)],
        )
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return url


@pytest.mark.parametrize("index_too", [False, True])
def test_rows_around_and_between_damaged_pages_are_read(tmp_path, target, index_too):
    path = tmp_path / "leadone.db"
    many(path)
    leaves = list(pages_of(path, "alarms", "leaf").items())
    assert len(leaves) > 20
    hit = [leaves[5], leaves[6], leaves[12], leaves[-1]]
    overwrite(path, *(page for page, _ in hit))
    if index_too:
        overwrite(path, *pages_of(path, "sqlite_autoindex_alarms_1"))
        overwrite(path, *pages_of(path, "ix_alarms_patient_id_started_ns"))
    salvaged = salvage(path, target, now_ns=NOW)
    lost = sum(cells for _, cells in hit)
    assert salvaged.counts["alarms"] == 4000 - lost
    assert [p for p in salvaged.problems if p.startswith("alarms: some may be lost")]


def damage(path, seed):
    """Overwrite, cut off or zero some of a file, as its seed says."""
    dice = random.Random(seed)
    size = path.stat().st_size
    with path.open("r+b") as file:
        match dice.randrange(5):
            case 0:  # whole pages, the first among them now and then
                for _ in range(dice.randint(1, 8)):
                    file.seek(4096 * dice.randrange(size // 4096))
                    file.write(dice.randbytes(4096))
            case 1:  # a few bytes, anywhere
                for _ in range(dice.randint(1, 400)):
                    file.seek(dice.randrange(size))
                    file.write(dice.randbytes(1))
            case 2:
                file.truncate(dice.randrange(size))
            case 3:  # what a disk gives back for blocks that it lost
                for _ in range(dice.randint(1, 30)):
                    file.seek(512 * dice.randrange(size // 512))
                    file.write(bytes(512 * dice.randint(1, 16)))
            case 4:  # the list of tables and what it names first
                for _ in range(dice.randint(1, 40)):
                    file.seek(dice.randrange(min(size, 10 * 4096)))
                    file.write(dice.randbytes(dice.randint(1, 16)))


SEEDS = range(80)


def readable_straps(path):
    """What SQLite itself, asked simply, reads of the straps; None if it refuses."""
    query = (
        "SELECT patient_id, device, address FROM straps NOT INDEXED "
        "JOIN devices NOT INDEXED ON devices.id = device_id"
    )
    try:
        with closing(sqlite3.connect(f"file:{path}?immutable=1", uri=True)) as connection:
            return set(connection.execute(query).fetchall())
    except (sqlite3.Error, UnicodeDecodeError):
        return None


@pytest.fixture(scope="module")
def empty(tmp_path_factory):
    path = tmp_path_factory.mktemp("empty") / "empty.db"
    upgrade(f"sqlite:///{path}")
    return path


def test_whatever_the_damage_salvage_raises_nothing_and_straps_survive(
    tmp_path, stopped, empty, capsys
):
    whole = {(s.stream.patient, s.stream.device, s.address) for s in STRAPS}
    survived = 0
    for seed in SEEDS:
        path = Path(shutil.copy(stopped, tmp_path / f"{seed}.db"))
        damage(path, seed)
        target = shutil.copy(empty, tmp_path / f"{seed}-salvaged.db")
        began = time.monotonic()
        salvaged = salvage(path, f"sqlite:///{target}", now_ns=NOW)
        assert time.monotonic() - began < 20
        with History(f"sqlite:///{target}") as history:
            straps = {
                (strap.stream.patient, strap.stream.device, strap.address)
                for strap, _ in history.straps()
            }
            history.active_alarms()
            history.signals()
            history.waiting()
            list(history.windows("anna", 0, 2**62))
        assert check(f"sqlite:///{target}") == [], seed
        readable = readable_straps(path)
        if readable == whole:
            assert straps == whole, (seed, salvaged.problems)
            survived += 1
        elif straps != whole:
            assert salvaged.problems, seed
        path.unlink()
        Path(target).unlink()
    assert survived > len(SEEDS) / 4


@pytest.mark.parametrize(
    "content", [b"", b"\0" * 8192, b"no database", os.urandom(100_000), b"SQLite format 3\0"]
)
def test_what_is_no_database_at_all(tmp_path, target, content):
    path = tmp_path / "leadone.db"
    path.write_bytes(content)
    salvaged = salvage(path, target, now_ns=NOW)
    assert salvaged.counts == {}
    assert len(salvaged.problems) == 1
    assert check(target) == []
    assert path.read_bytes() == content


def test_a_missing_file_and_a_folder(tmp_path, target):
    for path in (tmp_path / "none.db", tmp_path):
        salvaged = salvage(path, target, now_ns=NOW)
        assert salvaged.counts == {}
        (problem,) = salvaged.problems
        assert problem.startswith("not everything could be looked at: ")


def test_a_server_that_is_away(tmp_path, target):
    salvaged = salvage(f"postgresql://leadone@/none?host={tmp_path}", target, now_ns=NOW)
    assert salvaged.counts == {}
    (problem,) = salvaged.problems
    assert problem.startswith("not everything could be looked at: ")


def test_reading_ends_in_time(path, target, monkeypatch):
    monkeypatch.setattr(module, "_WITHIN_S", 0.0)
    monkeypatch.setattr("monitor.storage.damaged._EVERY", 1)
    salvaged = salvage(path, target, now_ns=NOW)
    assert salvaged.problems
    assert "interrupted" in salvaged.problems[0]


def test_a_target_that_cannot_be_made(path, tmp_path):
    with pytest.raises(DatabaseError, match="unable to open"):
        salvage(path, f"sqlite:///{tmp_path}/none/salvaged.db", now_ns=NOW)


async def test_a_damaged_file_is_set_aside_with_its_log(tmp_path):
    path = tmp_path / "leadone.db"
    url = stored(f"sqlite:///{path}", "killed")
    held = {f.name: f.read_bytes() for f in tmp_path.iterdir()}
    aside = set_aside(path)
    assert aside.name.startswith("leadone.db.corrupt-2")
    now = {f.name.replace(aside.name, "leadone.db"): f.read_bytes() for f in tmp_path.iterdir()}
    assert now == held
    assert not path.exists()
    upgrade(url)
    writer = Writer(url)
    writer.start()
    await writer.store(chunk())
    writer.stop()
    with History(f"sqlite:///{aside}") as history:
        assert history.signals(Presence.ON) == [SIGNAL]


def test_nothing_that_was_set_aside_is_overwritten(tmp_path):
    path = tmp_path / "leadone.db"
    names = set()
    for i in range(5):
        path.write_text(str(i))
        names.add(set_aside(path))
    assert sorted(name.read_text() for name in names) == list("01234")


def test_a_file_on_a_read_only_disk_stays_where_it_is(small_disk):
    path = small_disk.folder / "leadone.db"
    path.write_text("damaged")
    small_disk.read_only()
    with pytest.raises(DatabaseError, match="cannot be set aside") as caught:
        set_aside(path)
    assert caught.value.kind == "read_only"
    assert path.read_text() == "damaged"
