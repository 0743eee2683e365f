"""Alarms are answered whatever the database is like: locked, full, damaged, removed or away."""

import contextlib
import os
import sqlite3
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from program import Done, Leadone, Program, simulator, write_config

from alerts.conditions import Alarm, Change, Priority, State
from alerts.escalation import Plan
from alerts.records import Presence
from alerts.signals import Signals
from alerts.technical import Moment
from monitor.cli.daemon_client import status_of
from monitor.storage.history import History
from monitor.storage.maintenance import upgrade
from monitor.storage.records import Record
from monitor.storage.writer import Writer

if TYPE_CHECKING:
    from postgres import Postgres

pytest_plugins = ["in_process", "postgres"]

S = 1_000_000_000
ALARM = "aaaa1111-0000-4000-8000-000000000001"
CONTACTS = {
    "contacts": [{"name": "me", "channels": [{"type": "command", "command": ["/bin/true"]}]}]
}
Fault = Callable[[Path], Callable[[], None] | None]
"""Does something to the database in a folder; returns what mends it, if anything does."""


def store(url: str, *records: Record) -> None:
    upgrade(url)
    writer = Writer(url)
    writer.start()
    writer.submit(*records).result()
    writer.stop()


def full(folder: Path) -> Callable[[], None]:
    """Fill the disk that the database is on, to the last byte."""
    ballast = folder / "ballast"
    with contextlib.suppress(OSError), ballast.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(65_536))
    with contextlib.suppress(OSError), ballast.open("ab", buffering=0) as file:
        while True:
            file.write(b"0")
    return ballast.unlink


def locked(folder: Path) -> Callable[[], None]:
    held = sqlite3.connect(folder / "leadone.db", isolation_level=None)
    held.execute("PRAGMA busy_timeout = 20000")
    held.execute("BEGIN EXCLUSIVE")
    return held.close


def damaged(folder: Path) -> None:
    for file in folder.glob("leadone.db*"):
        with file.open("r+b") as opened:
            opened.write(os.urandom(file.stat().st_size))


def removed(folder: Path) -> None:
    for file in folder.glob("leadone.db*"):
        file.unlink()


def raised() -> list[Record]:
    """An alarm as an earlier run left it."""
    now = time.time_ns()
    some = Alarm(ALARM, "anna", "class:AF", Priority.MEDIUM, now - 60 * S, now - 30 * S)
    change = Change(some, some.raised_ns, State.ACTIVE, "AF: 6 of the last 8 good windows")
    signals = Signals(lambda _: Plan.telling(["me"]))
    return [change, *signals.change(change, Moment(some.raised_ns, 0))]


def presence(url: str) -> Presence | None:
    with History(url) as history:
        signal = history.signal(ALARM)
    return None if signal is None else signal.presence


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A folder on a disk of its own, with little room."""
    folder = tmp_path / "small"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=8m", "leadone-test", folder],
        capture_output=True,
        check=False,
    )
    if mounted.returncode != 0:
        pytest.skip(f"no tmpfs can be mounted: {mounted.stderr.decode().strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


@pytest.mark.parametrize("fault", [locked, damaged, removed])
def test_an_alarm_is_answered_whatever_the_file_is_like(
    leadone: Leadone, tmp_path: Path, fault: Fault
) -> None:
    url = f"sqlite:///{tmp_path}/leadone.db"
    answer_with(leadone, tmp_path, url, lambda: fault(tmp_path))


def test_an_alarm_is_answered_while_the_disk_is_full(
    leadone: Leadone, tmp_path: Path, small: Path
) -> None:
    answer_with(leadone, tmp_path, f"sqlite:///{small}/leadone.db", lambda: full(small))


def test_an_alarm_is_answered_while_the_server_is_away(
    leadone: Leadone, tmp_path: Path, postgres: "Postgres"
) -> None:
    def away() -> Callable[[], None]:
        postgres.stop()
        return postgres.start

    url = postgres.new_database().replace("postgresql:", "postgresql+psycopg:")
    answer_with(leadone, tmp_path, url, away)


def answer_with(
    leadone: Leadone, folder: Path, url: str, fault: Callable[[], Callable[[], None] | None]
) -> None:
    path = write_config(folder, [simulator("anna")], alarms=CONTACTS, database=url)
    store(url, *raised())
    with Program("run", "-c", path, folder=folder) as daemon:
        daemon.until_logged("ready")
        mend = fault()
        try:
            started_s = time.monotonic()
            done = leadone("alarms", "ack", "aaaa", "--by", "eve", "-c", path)
            took_s = time.monotonic() - started_s
            assert (done.code, done.err) == (0, "")
            assert done.out.startswith("acknowledged: aaaa1111 anna: ")
            # At once, for people and for whoever asks next; it waits for no database.
            assert took_s < 5
            (on,) = (a for a in status_of(url)["alarms"] if a["id"] == ALARM)
            assert on["presence"] == "acknowledged"
            done = leadone("alarms", "ack", "--patient", "anna", "-c", path)
            assert done == Done(0, "no alarm waits for an answer\n", "")
            # Of the gateway there may be others, such as that its disk is full.
            assert leadone("alarms", "ack", "--all", "-c", path).code == 0
            done = leadone("alarms", "pause", "anna", "--for", "1h", "--by", "eve", "-c", path)
            assert (done.code, done.err) == (0, "")
            assert status_of(url)["patients"][0]["paused_until_ns"] > time.time_ns()
            assert leadone("alarms", "resume", "anna", "--by", "eve", "-c", path).code == 0
        finally:
            if mend is not None:
                mend()
        if mend is not None:
            daemon.until(lambda: presence(url) is Presence.ACKNOWLEDGED)


def test_after_kill_9_what_was_answered_stays_so(leadone: Leadone, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/leadone.db"
    path = write_config(tmp_path, [simulator("anna")], alarms=CONTACTS)
    store(url, *raised())
    with Program("run", "-c", path, folder=tmp_path) as daemon:
        daemon.until_logged("ready")
        assert leadone("alarms", "ack", "aaaa", "-c", path).code == 0
        # The command ends once it is stored, where it can be.
        daemon.process.kill()
        daemon.process.wait()
    assert presence(url) is Presence.ACKNOWLEDGED
    with History(url) as history:
        assert history.requests() == []


def test_without_daemon_and_database_both_are_told_of(leadone: Leadone, tmp_path: Path) -> None:
    path = write_config(tmp_path, [simulator("anna")])
    store(f"sqlite:///{tmp_path}/leadone.db", *raised())
    damaged(tmp_path)
    done = leadone("alarms", "ack", "--all", "-c", path)
    assert done.code == 1
    assert "leadone is not running" in done.err
    assert "leadone.db: " in done.err
    devices = leadone("devices", "-c", path)
    assert devices.code == 1
    assert "leadone is not running" in devices.err
