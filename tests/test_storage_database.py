import os
import signal
import sqlite3
import stat
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
import structlog
from sqlalchemy import select, text
from storage_samples import chunk

from monitor.storage.database import DatabaseError, open_as_it_lies, open_engine, parse_url, told
from monitor.storage.history import History
from monitor.storage.kinds import Kind
from monitor.storage.maintenance import upgrade
from monitor.storage.schema import SegmentRow
from monitor.storage.writer import Writer

pytest_plugins = ["postgres", "small_disks"]

HERE = Path(__file__).parent

# Stores 50 chunks, most of them only in the log, and ends in one of two ways.
CHILD = """
import asyncio, os, signal, sys
sys.path[:0] = sys.argv[2:4]
from storage_samples import chunk
from monitor.storage.maintenance import upgrade
from monitor.storage.writer import Writer

upgrade(sys.argv[1])
writer = Writer(sys.argv[1])
writer.start()
async def main():
    for i in range(50):
        await writer.store(chunk(i))
asyncio.run(main())
if sys.argv[4] == "killed":
    os.kill(os.getpid(), signal.SIGKILL)
writer.stop()
"""

ENDS = {"stopped": 0, "killed": -signal.SIGKILL}


def stored(path, ends):
    url = f"sqlite:///{path}"
    code = subprocess.run(
        [sys.executable, "-c", CHILD, url, str(HERE), str(HERE.parent), ends], check=False
    ).returncode
    assert code == ENDS[ends]
    assert Path(f"{path}-wal").exists() == (ends == "killed")
    return url


def sequences(path):
    with open_as_it_lies(path).connect() as connection:
        return list(connection.execute(select(SegmentRow.sequence)).scalars())


def refusal(url, do):
    with pytest.raises(DatabaseError) as caught:
        do(url)
    return caught.value


def open_history(url):
    History(url).close()


def write(url):
    parsed = parse_url(url)
    with told(parsed), open_engine(parsed).begin() as connection:
        connection.execute(text("CREATE TABLE more AS SELECT randomblob(8000000)"))


@pytest.mark.parametrize("sick", ["full", "read-only"])
@pytest.mark.parametrize("ends", ENDS)
def test_a_file_on_a_sick_disk_is_read_as_it_lies(small_disk, ends, sick):
    path = small_disk.folder / "leadone.db"
    url = stored(path, ends)
    if sick == "full":
        small_disk.fill()
    else:
        small_disk.read_only()
    assert sequences(path) == list(range(50))
    kind = Kind.FULL if sick == "full" else Kind.READ_ONLY
    assert refusal(url, write).kind == kind
    if ends == "stopped":
        # There is neither log nor index, and SQLite can make none, not even to read.
        assert refusal(url, open_history).kind == kind


def test_reading_a_file_as_it_lies_changes_nothing(tmp_path):
    path = tmp_path / "leadone.db"
    stored(path, "killed")
    before = {file: file.read_bytes() for file in tmp_path.iterdir() if "shm" not in file.name}
    assert sequences(path) == list(range(50))
    assert {f: f.read_bytes() for f in tmp_path.iterdir() if "shm" not in f.name} == before


def test_a_log_that_holds_nothing_readable_is_passed_over(tmp_path):
    path = tmp_path / "leadone.db"
    stored(path, "stopped")
    Path(f"{path}-wal").write_bytes(os.urandom(50_000))
    assert sequences(path) == list(range(50))


def test_a_missing_file_cannot_be_read_as_it_lies(tmp_path):
    with pytest.raises(Exception, match="unable to open database file"):
        sequences(tmp_path / "leadone.db")
    assert list(tmp_path.iterdir()) == []


def test_kinds_of_files(tmp_path):
    path = tmp_path / "leadone.db"
    url = f"sqlite:///{path}"
    assert refusal(url, open_history).kind == Kind.AWAY  # there is none
    path.write_bytes(b"")
    assert refusal(url, open_history).kind == Kind.EMPTY
    path.write_bytes(b"no database at all" * 1000)
    assert refusal(url, open_history).kind == Kind.DAMAGED
    assert refusal(url, upgrade).kind == Kind.DAMAGED


def test_kind_of_damage(tmp_path):
    path = tmp_path / "leadone.db"
    url = stored(path, "stopped")
    size = path.stat().st_size
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(b"\xa5" * (size - 4096))
    assert refusal(url, open_history).kind == Kind.DAMAGED


@pytest.mark.parametrize(
    "statements",
    [
        ["DROP TABLE alembic_version"],
        ["DELETE FROM alembic_version"],
        ["PRAGMA writable_schema = ON", "DELETE FROM sqlite_master"],
    ],
)
def test_a_file_that_lost_its_tables_is_not_begun_anew(tmp_path, statements):
    path = tmp_path / "leadone.db"
    url = stored(path, "stopped")
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        for statement in statements:
            connection.execute(statement)
    before = path.read_bytes()
    assert refusal(url, open_history).kind == Kind.DAMAGED
    assert "it is damaged" in str(refusal(url, upgrade))
    assert refusal(url, upgrade).kind == Kind.DAMAGED
    assert path.read_bytes() == before


@pytest.mark.parametrize(("revision", "kind"), [("9999", Kind.NEWER), ("0001", Kind.OLDER)])
def test_kinds_of_schemas(database_url, revision, kind):
    upgrade(database_url)
    with open_engine(parse_url(database_url)).begin() as connection:
        connection.execute(text(f"UPDATE alembic_version SET version_num = '{revision}'"))
    assert refusal(database_url, open_history).kind == kind
    if kind == Kind.NEWER:
        assert refusal(database_url, upgrade).kind == kind


def test_an_empty_database_is_no_damage(database_url):
    if database_url.startswith("sqlite"):
        open_engine(parse_url(database_url), create=True).connect().close()
    assert refusal(database_url, open_history).kind == Kind.EMPTY


def test_a_locked_database_is_told_apart(tmp_path, monkeypatch):
    monkeypatch.setattr("monitor.storage.database.BUSY_TIMEOUT_S", 0.1)
    url = f"sqlite:///{tmp_path}/leadone.db"
    upgrade(url)
    with closing(sqlite3.connect(tmp_path / "leadone.db", isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        assert refusal(url, write).kind == Kind.LOCKED


def test_kinds_of_a_server(postgres):
    url = postgres.new_database()
    upgrade(url)
    with open_engine(parse_url(url)).begin() as connection:
        connection.execute(text("CREATE ROLE reader LOGIN"))
    parsed = parse_url(url)

    def reading(_):
        engine = open_engine(parsed, read_only=True)
        try:
            with told(parsed), engine.connect() as connection:
                connection.execute(text("CREATE TABLE more (n int)"))
        finally:
            engine.dispose()

    assert refusal(url, reading).kind == Kind.READ_ONLY
    assert refusal(url.replace("/test", "/no"), open_history).kind == Kind.AWAY
    assert refusal(url.replace("leadone:", "reader:"), open_history).kind == Kind.OTHER
    postgres.stop()
    try:
        assert refusal(url, open_history).kind == Kind.AWAY
    finally:
        postgres.start()


@pytest.mark.parametrize(
    ("umask", "mode"), [(0o022, 0o640), (0o027, 0o640), (0o077, 0o600), (0, 0o640)]
)
async def test_a_new_database_is_not_for_everybody(tmp_path, umask, mode):
    before = os.umask(umask)
    try:
        url = f"sqlite:///{tmp_path}/leadone.db"
        upgrade(url)
        writer = Writer(url)
        writer.start()
        await writer.store(chunk())
        files = {f.name: stat.S_IMODE(f.stat().st_mode) for f in tmp_path.iterdir()}
        writer.stop()
    finally:
        os.umask(before)
    assert files == dict.fromkeys(("leadone.db", "leadone.db-wal", "leadone.db-shm"), mode)


def test_a_database_that_everybody_may_read_is_narrowed(tmp_path):
    path = tmp_path / "leadone.db"
    url = stored(path, "killed")
    files = [path, Path(f"{path}-wal"), Path(f"{path}-shm")]
    for file in files:
        file.chmod(0o664)
    with structlog.testing.capture_logs() as logs:
        open_history(url)
        path.chmod(0o664)
        open_history(url)
    assert stat.S_IMODE(path.stat().st_mode) == 0o660
    assert all(stat.S_IMODE(f.stat().st_mode) == 0o660 for f in files if f.exists())
    assert logs == [
        {"event": "database_was_open_to_everybody", "log_level": "warning", "file": str(path)}
    ]


def test_narrowing_on_a_read_only_disk_is_no_hindrance(small_disk):
    path = small_disk.folder / "leadone.db"
    url = stored(path, "killed")
    path.chmod(0o644)
    small_disk.read_only()
    with structlog.testing.capture_logs() as logs:
        open_history(url)
        open_history(url)
    assert [log["event"] for log in logs] == ["database_is_open_to_everybody"]
