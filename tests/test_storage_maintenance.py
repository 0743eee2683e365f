import asyncio
import os
import sqlite3
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import create_engine, text
from storage_samples import chunk, ended, facts, gap, raised, window

import monitor.storage
from monitor.storage import maintenance, schema
from monitor.storage.database import DatabaseError, parse_url
from monitor.storage.history import History
from monitor.storage.maintenance import backup, check, current_revision, migrating, upgrade
from monitor.storage.writer import Writer

pytest_plugins = ["postgres"]
ROOT = Path(__file__).parents[1]
SECRET = "hunter2"


def python(code, *arguments):
    return subprocess.Popen(
        [sys.executable, "-W", "error", "-c", code, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=ROOT,
        text=True,
    )


def statements(url, *lines):
    engine = create_engine(url.replace("postgresql:", "postgresql+psycopg:"))
    with engine.begin() as connection:
        for line in lines:
            connection.execute(text(line))
    engine.dispose()


async def fill(url, *records):
    writer = Writer(url)
    writer.start()
    await writer.store(*records)
    assert writer.stop() == 0


def test_migrations_make_the_tables_of_the_schema(database_url):
    upgrade(database_url)
    with migrating(database_url) as config:
        context = MigrationContext.configure(
            config.attributes["connection"],
            opts={"compare_type": True, "compare_server_default": True},
        )
        assert compare_metadata(context, schema.Base.metadata) == []
        assert ScriptDirectory.from_config(config).get_heads() == [schema.REVISION]


def test_a_draft_of_the_next_migration_can_be_made(tmp_path, monkeypatch):
    copy = tmp_path / "migrations"
    here = Path(monitor.storage.__file__).parent
    (copy / "versions").mkdir(parents=True)
    for file in (
        "env.py",
        "script.py.mako",
        "versions/0001_the_tables.py",
        "versions/0002_rr_intervals.py",
        "versions/0003_straps.py",
        "versions/0004_refused_messages.py",
        "versions/0005_alarm_signals.py",
        "versions/0006_spool_positions.py",
        "versions/0007_examined.py",
    ):
        (copy / file).write_text((here / "migrations" / file).read_text())
    with migrating(f"sqlite:///{tmp_path}/draft.db") as config:
        config.set_main_option("script_location", str(copy))
        command.upgrade(config, "head")
        command.revision(config, "nothing", rev_id="9999", autogenerate=True)
    draft = (copy / "versions" / "9999_nothing.py").read_text()
    assert "    pass\n" in draft
    compile(draft, "draft", "exec")


def test_upgrade_twice(database_url):
    if not database_url.startswith("sqlite"):
        assert current_revision(database_url) is None
    upgrade(database_url)
    upgrade(database_url)
    assert current_revision(database_url) == schema.REVISION
    assert check(database_url) == []


def test_upgrades_at_the_same_time(database_url):
    code = (
        "import sys; from monitor.storage.maintenance import upgrade; import alembic.command;"
        "print('ready', flush=True); upgrade(sys.argv[1])"
    )
    several = [python(code, database_url) for _ in range(4)]
    for one in several:
        assert one.communicate() == ("ready\n", "")
        assert one.returncode == 0
    assert check(database_url) == []


async def test_upgrade_keeps_what_is_there(database_url):
    upgrade(database_url)
    await fill(database_url, chunk())
    upgrade(database_url)
    with History(database_url) as history:
        assert [facts(c) for c in history.segments("anna", 0, 2**62)] == [facts(chunk())]


def test_a_database_of_a_newer_program(database_url):
    upgrade(database_url)
    statements(database_url, "UPDATE alembic_version SET version_num = '9999'")
    with pytest.raises(DatabaseError, match="its schema 9999 is newer than this program"):
        upgrade(database_url)
    assert current_revision(database_url) == "9999"
    (problem,) = check(database_url)
    assert "its schema is 9999, this program needs" in problem


def test_a_start_without_an_upgrade_loads_no_alembic(database_url):
    upgrade(database_url)
    code = (
        "import sys; from monitor.storage.maintenance import upgrade, check;"
        "from monitor.storage.writer import Writer; from monitor.storage.history import History;"
        "upgrade(sys.argv[1]); w = Writer(sys.argv[1]); w.start(); w.stop();"
        "h = History(sys.argv[1]); h.close();"
        "print([m for m in sys.modules if m.startswith(('alembic', 'mako'))])"
    )
    assert python(code, database_url).communicate() == ("[]\n", "")


DAMAGE = {
    "UPDATE segments SET blob = '\\x10'": "garbled sample blob",
    "UPDATE segments SET n = 7": "130 samples, said to be 7",
    "UPDATE segments SET rate = 0": "a rate of 0.0 Hz",
    "UPDATE windows SET probabilities = '\\x10000000'": "1.0 probabilities for 3 classes",
    "UPDATE windows SET model_id = NULL": "3.0 probabilities for None classes",
    "UPDATE windows SET duration_s = -1": "ends before it starts",
    "UPDATE windows SET r_peaks = '\\x10'": "R peaks of 1 bytes",
    "UPDATE windows SET reasons = 'tired'": "unknown quality 'good' 'tired'",
    "UPDATE alarms SET ended_ns = NULL": "a change ended it, and it has not ended",
    "UPDATE alarms SET started_ns = raised_ns + 1": "its times are out of order",
    "DELETE FROM alarm_changes WHERE state = 'active'": "never became active",
    "DELETE FROM alarm_changes WHERE state = 'ended'": "has ended, and no change ended it",
}


@pytest.mark.parametrize(("damage", "problem"), DAMAGE.items())
async def test_check_finds_damage(database_url, damage, problem):
    upgrade(database_url)
    change = raised()
    await fill(database_url, chunk(), window(), gap(), change, ended(change))
    assert check(database_url) == []
    if database_url.startswith("sqlite"):
        damage = damage.replace("'\\x", "x'")
    statements(database_url, damage)
    (found,) = check(database_url)
    assert problem in found


async def test_check_finds_damage_of_the_file(tmp_path):
    url = f"sqlite:///{tmp_path}/test.db"
    upgrade(url)
    await fill(url, *(chunk(i) for i in range(200)))
    statements(url, "DELETE FROM devices")
    assert check(url)[0] == "segments row 1: refers to nothing in devices"
    pages = (tmp_path / "test.db").read_bytes()
    (tmp_path / "test.db").write_bytes(pages[: len(pages) // 2])
    try:
        assert "file: " in check(url)[0]
    except DatabaseError as error:
        assert "malformed" in str(error)  # noqa: PT017 - either will do


async def test_backup_while_writing(database_url, tmp_path, request, monkeypatch):
    path = tmp_path / "copy.backup"
    postgres = None
    if not database_url.startswith("sqlite"):
        postgres = request.getfixturevalue("postgres")
        monkeypatch.setenv("PATH", str(postgres.bin), prepend=os.pathsep)
    upgrade(database_url)
    writer = Writer(database_url)
    writer.start()
    await writer.store(*(chunk(i) for i in range(500)))
    written = 500
    copying = asyncio.create_task(asyncio.to_thread(backup, database_url, path))
    while not copying.done():
        await writer.store(chunk(written))
        written += 1
        await asyncio.sleep(0.001)
    await copying
    assert writer.stop() == 0
    assert written > 500
    assert [file.name for file in tmp_path.iterdir() if "copy" in file.name] == ["copy.backup"]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    restored = f"sqlite:///{path}"
    if postgres:
        restored = postgres.new_database()
        target = parse_url(restored).set(drivername="postgresql")
        subprocess.run(  # noqa: ASYNC221 - nothing else is going on
            ["pg_restore", "-d", target.render_as_string(hide_password=False), path], check=True
        )
    assert check(restored) == []
    with History(restored) as history:
        starts = [c.sequence for c in history.segments("anna", 0, 2**62)]
    # A moment of it, without holes.
    assert starts == list(range(len(starts)))
    assert 500 <= len(starts) <= written


def test_backup_overwrites_nothing(database_url, tmp_path):
    upgrade(database_url)
    path = tmp_path / "copy"
    path.write_text("precious")
    with pytest.raises(DatabaseError, match="exists, and a backup overwrites nothing"):
        backup(database_url, path)
    assert path.read_text() == "precious"


def test_a_backup_that_fails_leaves_nothing(database_url, tmp_path, monkeypatch):
    folder = tmp_path / "folder"
    with pytest.raises(DatabaseError, match="No such file"):
        backup(database_url, folder / "copy")
    folder.mkdir()
    if database_url.startswith("sqlite"):
        upgrade(database_url)
        monkeypatch.setattr(maintenance, "_file_problems", lambda _: ["file: a page is bad"])
        with pytest.raises(DatabaseError, match="its copy is damaged: file: a page is bad"):
            backup(database_url, folder / "copy")
    else:
        monkeypatch.setenv("PATH", str(tmp_path))
        with pytest.raises(DatabaseError, match="pg_dump is not installed"):
            backup(database_url, folder / "copy")
    assert list(folder.iterdir()) == []


def test_pg_dump_sees_only_what_is_its_own(tmp_path, monkeypatch):
    tool = tmp_path / "bin/pg_dump"
    tool.parent.mkdir()
    tool.write_text(f"#!/bin/sh\nenv > {tmp_path}/environment\necho no server >&2\nexit 1\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tool.parent), prepend=os.pathsep)
    monkeypatch.setenv("PGSSLMODE", "require")
    monkeypatch.setenv("NTFY_TOKEN", "of somebody else")
    with pytest.raises(DatabaseError, match="no server"):
        backup(f"postgresql://anna:{SECRET}@127.0.0.1:1/leadone", tmp_path / "copy")
    seen = (tmp_path / "environment").read_text().splitlines()
    assert {"PGSSLMODE=require", f"PGPASSWORD={SECRET}"} <= set(seen)
    assert not any("NTFY_TOKEN" in line for line in seen)


@pytest.mark.parametrize(
    "url",
    [
        f"postgresql://anna:{SECRET}@127.0.0.1:1/leadone",
        f"postgresql://127.0.0.1:1/leadone?user=anna&password={SECRET}",
        f"postgresql://anna:{SECRET}/x@127.0.0.1:1/leadone",
        f"postgresql://anna:1/{SECRET}@127.0.0.1:1/leadone",
        f"postgresql://anna:{SECRET}@127.0.0.1:port/leadone",
        f"mysql://anna:{SECRET}@127.0.0.1/leadone",
        f"anna:{SECRET}@127.0.0.1",
        "",
        "sqlite://",
        "sqlite:///:memory:",
        "sqlite:////nowhere/at/all.db",
        "sqlite:////nowhere/at/all.db?mode=memory",
    ],
)
def test_bad_urls_are_told_in_one_line_without_the_password(url, tmp_path):
    for action in (
        upgrade,
        check,
        current_revision,
        lambda url: backup(url, tmp_path / "copy"),
        lambda url: Writer(url).start(),
        History,
    ):
        with pytest.raises(DatabaseError) as caught:
            action(url)
        told = str(caught.value)
        assert told
        assert "\n" not in told
        assert SECRET not in told
        error = caught.value.__cause__
        while error:
            assert SECRET not in str(error)
            error = error.__cause__ or error.__context__


def test_no_database_is_made_by_looking(tmp_path):
    url = f"sqlite:///{tmp_path}/test.db"
    for action in (check, current_revision, History, lambda url: Writer(url).start()):
        with pytest.raises(DatabaseError, match="unable to open database file"):
            action(url)
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "test.db").write_text("not a database " * 100)
    with pytest.raises(DatabaseError, match="not a database"):
        upgrade(url)


def test_sqlite_is_set_up_to_survive(tmp_path):
    upgrade(f"sqlite:///{tmp_path}/test.db")
    with sqlite3.connect(tmp_path / "test.db") as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    connection.close()
    writer = Writer(f"sqlite:///{tmp_path}/test.db")
    with writer._engine.connect() as connection:
        assert connection.exec_driver_sql("PRAGMA synchronous").scalar() == 1
        assert connection.exec_driver_sql("PRAGMA foreign_keys").scalar() == 1
        assert connection.exec_driver_sql("PRAGMA busy_timeout").scalar() == 5000
