import os
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
import structlog

from monitor.storage.maintenance import upgrade
from monitor.storage.only_one import AnotherError, hold

pytest_plugins = ["postgres", "small_disks"]

ROOT = Path(__file__).parents[1]

CHILD = """
import sys
from monitor.storage.only_one import AnotherError, hold
try:
    held = hold(sys.argv[1])
except AnotherError as error:
    print(error.pid, error, flush=True)
else:
    print(held.still(), flush=True)
    sys.stdin.read()
"""


@contextmanager
def another(url):
    """Another process that holds a database, or tries to; it has said how that went."""
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD, url],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=ROOT,
        text=True,
    )
    try:
        child.said = child.stdout.readline().strip()
        yield child
    finally:
        child.kill()
        child.wait()
        child.stdin.close()
        child.stdout.close()


def test_a_second_one_is_refused_with_the_pid_of_the_first(database_url):
    upgrade(database_url)
    with another(database_url) as first:
        assert first.said == "True"
        with pytest.raises(AnotherError) as caught:
            hold(database_url)
        assert caught.value.pid == first.pid
        assert f"(pid {first.pid}): stop it first" in str(caught.value)
        assert "s3cret" not in str(caught.value)
        with another(database_url) as third:
            assert third.said.startswith(f"{first.pid} leadone is running already on ")


def test_the_first_one_gives_way_when_it_is_killed(database_url):
    upgrade(database_url)
    with another(database_url) as first:
        first.send_signal(signal.SIGKILL)
        first.wait()
        # A server has to read the end of the connection first.
        deadline = time.monotonic() + 5
        held = None
        while held is None:
            try:
                held = hold(database_url)
            except AnotherError:
                assert database_url.startswith("postgres")
                assert time.monotonic() < deadline
        assert held.still()
    with another(database_url) as second:
        assert second.said.startswith(str(os.getpid()))
    held.release()
    with another(database_url) as second:
        assert second.said == "True"


def test_what_the_first_one_started_does_not_hold_it_on(tmp_path):
    url = f"sqlite:///{tmp_path}/leadone.db"
    upgrade(url)
    code = (
        "import subprocess, sys, time; from monitor.storage.only_one import hold;"
        "held = hold(sys.argv[1]);"
        "print(subprocess.Popen(['sleep', '60'], stdout=subprocess.DEVNULL).pid, flush=True);"
        "time.sleep(60)"
    )
    first = subprocess.Popen(
        [sys.executable, "-c", code, url], stdout=subprocess.PIPE, cwd=ROOT, text=True
    )
    with first.stdout:
        left_behind = int(first.stdout.readline())
    try:
        with pytest.raises(AnotherError):
            hold(url)
        first.kill()
        first.wait()
        held = hold(url)
        assert held.still()
        held.release()
    finally:
        os.kill(left_behind, signal.SIGKILL)


def test_a_file_that_may_not_be_read_keeps_nobody_from_starting(tmp_path):
    (tmp_path / "file").write_text("")
    with structlog.testing.capture_logs() as logs:
        held = hold(f"sqlite:///{tmp_path}/file/leadone.db")
        assert not held.still()
        assert not held.still()
    assert [log["event"] for log in logs] == ["second_daemon_unnoticed"]


def test_one_process_holds_a_file_once(tmp_path):
    url = f"sqlite:///{tmp_path}/leadone.db"
    upgrade(url)
    first, second = hold(url), hold(url)
    assert first.still()
    assert second.still()
    second.release()


def test_a_file_that_is_not_there_yet(tmp_path):
    path = tmp_path / "leadone.db"
    held = hold(f"sqlite:///{path}")
    assert not held.still()
    assert not path.exists()
    upgrade(f"sqlite:///{path}")
    assert held.still()
    with another(f"sqlite:///{path}") as second:
        assert second.said.startswith(str(os.getpid()))


def test_holding_a_file_leaves_sqlites_own_locks_alone(tmp_path):
    path = tmp_path / "leadone.db"
    upgrade(f"sqlite:///{path}")
    ask = (
        "import sqlite3, sys; c = sqlite3.connect(sys.argv[1], timeout=0);"
        "c.execute('BEGIN IMMEDIATE')"
    )

    def writable():
        asked = subprocess.run([sys.executable, "-c", ask, path], capture_output=True, check=False)
        return asked.returncode == 0

    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        held = hold(f"sqlite:///{path}")
        held.release()
        held.still()
        assert not writable()
        connection.execute("COMMIT")
        assert writable()


@pytest.mark.parametrize("sick", ["full", "read-only"])
def test_a_file_on_a_sick_disk_is_held_too(small_disk, sick):
    url = f"sqlite:///{small_disk.folder}/leadone.db"
    upgrade(url)
    if sick == "full":
        small_disk.fill()
    else:
        small_disk.read_only()
    with another(url) as first:
        assert first.said == "True"
        with another(url) as second:
            assert second.said.startswith(f"{first.pid} ")


def test_what_is_no_database_is_held_too(tmp_path):
    path = tmp_path / "leadone.db"
    path.write_bytes(b"damaged")
    with another(f"sqlite:///{path}") as first, another(f"sqlite:///{path}") as second:
        assert first.said == "True"
        assert second.said.startswith(f"{first.pid} ")
    assert path.read_bytes() == b"damaged"


def test_a_server_that_went_away_is_held_again(postgres):
    url = postgres.new_database()
    held = hold(url)
    assert held.still()
    postgres.stop()
    try:
        assert not held.still()
        assert not hold(url).still()
    finally:
        postgres.start()
    assert held.still()
    with another(url) as second:
        assert second.said.startswith(str(os.getpid()))
    # While it was away again, another one was faster.
    postgres.stop()
    postgres.start()
    with another(url) as second:
        assert second.said == "True"
        with pytest.raises(AnotherError) as caught:
            held.still()
        assert caught.value.pid == second.pid
    held.release()


def test_two_databases_of_one_server(postgres):
    first, second = hold(postgres.new_database()), hold(postgres.new_database())
    assert first.still()
    assert second.still()
    first.release()
    second.release()
