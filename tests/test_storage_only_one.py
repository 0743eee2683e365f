import os
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import pytest
import structlog

from monitor.storage import only_one
from monitor.storage.maintenance import upgrade
from monitor.storage.only_one import AnotherError, hold, is_gone

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
    # The other one has it still, and not some descriptor that is closed by now.
    assert first.still()
    with another(url) as third:
        assert third.said.startswith(f"{os.getpid()} ")
    first.release()
    with another(url) as third:
        assert third.said == "True"


@pytest.mark.parametrize("dropped", [False, True])
def test_a_deleted_file_frees_its_disk_when_it_is_released(small_disk, dropped):
    path = small_disk.folder / "leadone.db"
    path.write_bytes(bytes(400_000))
    held = hold(f"sqlite:///{path}")
    path.unlink()
    path.write_bytes(b"")
    if dropped:
        held = hold(f"sqlite:///{path}")
        assert held.still()
    held.release()
    disk = os.statvfs(small_disk.folder)
    assert (disk.f_blocks - disk.f_bfree) * disk.f_frsize < 200_000
    assert held.still()
    with another(f"sqlite:///{path}") as second:
        assert second.said.startswith(f"{os.getpid()} ")
    held.release()


def test_a_file_of_another_daemon_is_let_go_too(tmp_path):
    url = f"sqlite:///{tmp_path}/leadone.db"
    upgrade(url)
    held = hold(url)
    held.release()
    before = len(list(Path("/proc/self/fd").iterdir()))
    with another(url):
        for _ in range(3):
            with pytest.raises(AnotherError):
                held.still()
        held.release()
        assert len(list(Path("/proc/self/fd").iterdir())) <= before + 2  # pipes of the other one


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


class LossyWay:
    """A way to a server that can be lost: the server never hears that the other side is gone."""

    def __init__(self, folder, server):
        self._server = str(server / ".s.PGSQL.5432")
        self._listening = socket.socket(socket.AF_UNIX)
        self._listening.bind(f"{folder}/.s.PGSQL.5432")
        self._listening.listen()
        self._to_server = []
        self._to_client = []
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        with suppress(OSError):
            while True:
                client, _ = self._listening.accept()
                server = socket.socket(socket.AF_UNIX)
                server.connect(self._server)
                self._to_client.append(client)
                self._to_server.append(server)
                for one, other in (client, server), (server, client):
                    threading.Thread(target=self._copy, args=(one, other), daemon=True).start()

    def _copy(self, one, other):
        with suppress(OSError):
            while data := one.recv(65536):
                other.sendall(data)

    def lose(self):
        for client in self._to_client:
            with suppress(OSError):
                client.shutdown(socket.SHUT_RDWR)

    def server_notices(self):
        for server in self._to_server:
            with suppress(OSError):
                server.shutdown(socket.SHUT_RDWR)

    def close(self):
        for one in (self._listening, *self._to_client, *self._to_server):
            one.close()


@pytest.fixture
def lossy(postgres):
    """A URL of a new database, the same over a way that can be lost, and that way."""
    with tempfile.TemporaryDirectory() as folder:
        url = postgres.new_database()
        way = LossyWay(folder, postgres.home)
        yield url, url.partition("?")[0] + f"?host={folder}", way
        way.close()


def until_held(held):
    deadline = time.monotonic() + 10
    while not held.still():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_ones_own_lost_connection_is_no_other_daemon(lossy, monkeypatch):
    monkeypatch.setattr(only_one, "_GONE_S", 0.0)  # of this one there is no doubt
    _, url, way = lossy
    held = hold(url)
    assert held.still()
    way.lose()
    for _ in range(3):
        assert not held.still()
    assert not hold(url).still()
    way.server_notices()
    until_held(held)
    held.release()


def test_a_daemon_that_is_gone_holds_no_server(lossy, monkeypatch):
    url, over_the_way, way = lossy
    with another(over_the_way) as first:
        assert first.said == "True"
        with pytest.raises(AnotherError):
            hold(url)
    with structlog.testing.capture_logs() as logs:
        held = hold(url)
        assert not held.still()
    assert [log["event"] for log in logs] == ["lock_of_a_process_that_is_gone"]
    # The server would have missed it by now: it lives where its number is another one.
    monkeypatch.setattr(only_one, "_GONE_S", 0.0)
    with pytest.raises(AnotherError) as caught:
        held.still()
    assert caught.value.pid == first.pid
    way.server_notices()
    until_held(held)
    held.release()


def test_a_daemon_of_the_same_number_in_an_earlier_life(lossy, monkeypatch):
    # As in a container, in which it is number 1 each time.
    url, over_the_way, way = lossy
    monkeypatch.setattr(only_one, "_TOKEN", "before")
    before = hold(over_the_way)
    monkeypatch.undo()
    way.lose()
    held = hold(url)
    assert not held.still()
    way.server_notices()
    until_held(held)
    held.release()
    before.release()


def test_a_daemon_that_was_killed_and_cannot_end_holds_no_file(tmp_path):
    # Its first thread is gone, another one is not: so is one that a disk holds up in the kernel.
    url = f"sqlite:///{tmp_path}/leadone.db"
    upgrade(url)
    exit_thread = {"x86_64": 60, "aarch64": 93}.get(os.uname().machine)
    if exit_thread is None:
        pytest.skip("the number of exit(2) is not known on this machine")
    code = (
        "import ctypes, sys, threading, time; from monitor.storage.only_one import hold;"
        "held = hold(sys.argv[1]); threading.Thread(target=time.sleep, args=(60,)).start();"
        "print(held.still(), flush=True);"
        f"sys.stdin.readline(); ctypes.CDLL(None).syscall({exit_thread}, 0)"
    )
    first = subprocess.Popen(
        [sys.executable, "-c", code, url],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=ROOT,
        text=True,
    )
    try:
        assert first.stdout.readline() == "True\n"
        assert not is_gone(first.pid)
        with pytest.raises(AnotherError):
            hold(url)
        first.stdin.write("\n")
        first.stdin.flush()
        deadline = time.monotonic() + 5
        while not is_gone(first.pid):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        held = hold(url)
        assert not held.still()
    finally:
        first.kill()
        first.wait()
        first.stdin.close()
        first.stdout.close()
    until_held(held)
    held.release()
    assert is_gone(first.pid)
