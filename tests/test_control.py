"""The daemon's local socket: its name, who may ask, what it answers, and garbage."""

import asyncio
import contextlib
import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from control_clients import daemon_says, said

from monitor.cli.daemon_client import (
    NoAnswerError,
    NotRunningError,
    RefusedError,
    ask,
    status_of,
)
from monitor.control import (
    LONGEST_REQUEST,
    Control,
    Peer,
    address,
    claim,
    identity,
    may_ask,
    may_be_believed,
)
from monitor.requests import answer
from monitor.storage.only_one import AnotherError
from monitor.storage.records import Request

ROOT = Path(__file__).parents[1]


@pytest.fixture
def url(tmp_path: Path) -> str:
    (tmp_path / "leadone.db").touch()
    return f"sqlite:///{tmp_path}/leadone.db"


@pytest.fixture
async def asked(url: str) -> AsyncIterator[list[Request]]:
    """What a daemon that answers is asked for."""
    async with daemon_says(url, said()) as requests:
        yield requests


# --- the name


def test_one_file_has_one_name_whatever_the_way_to_it(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    names = {address(f"sqlite:///{tmp_path}/{f}/a.db") for f in ("real", "link", "real/../link")}
    assert len(names) == 1
    (name,) = names
    assert name.startswith("\0leadone-")
    assert len(name) == 9 + 32
    assert address(f"sqlite:///{tmp_path}/real/b.db") != name


def test_a_name_on_a_server_is_that_of_host_port_and_database() -> None:
    one = identity("postgresql://leadone:secret@db.example.org/hearts")
    assert one == identity("postgresql://other@db.example.org:5432/hearts?sslmode=require")
    assert "secret" not in one
    assert identity("postgresql:///hearts?host=/run/a") != identity("postgresql:///hearts?host=/b")
    others = ("db.example.org/lungs", "db.example.org:5433/hearts", "other.example.org/hearts")
    assert one not in {identity(f"postgresql://{other}") for other in others}


def test_a_relative_path_is_that_of_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert address("sqlite:///leadone.db") == address(f"sqlite:///{tmp_path}/leadone.db")


# --- one daemon


def test_a_second_daemon_is_refused_with_the_pid_of_the_first(url: str) -> None:
    text = rf"pid {os.getpid()}\)"
    with claim(url), pytest.raises(AnotherError, match=text) as raised, claim(url):
        pass
    assert raised.value.pid == os.getpid()
    # And the next one is not.
    with claim(url) as listening:
        assert listening is not None


def test_a_name_that_a_stranger_holds_keeps_nobody_from_being_watched(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("monitor.control.may_be_believed", lambda _uid, _database: False)
    with claim(url), claim(url) as listening:
        assert listening is None


def test_a_machine_that_allows_no_socket_keeps_nobody_from_being_watched(url: str) -> None:
    code = (
        "import resource, sys; from monitor.control import claim\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (3, 3))\n"
        "with claim(sys.argv[1]) as listening: assert listening is None"
    )
    subprocess.run([sys.executable, "-c", code, url], cwd=ROOT, check=True, timeout=30)


def test_whoever_dies_leaves_nothing_behind(url: str) -> None:
    code = (
        "import sys, time; from monitor.control import claim\n"
        "with claim(sys.argv[1]): print('held', flush=True); time.sleep(60)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, url], cwd=ROOT, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"held\n"
        with pytest.raises(AnotherError) as raised, claim(url):
            pass
        assert raised.value.pid == process.pid
        process.kill()
        process.wait()
        with claim(url) as listening:
            assert listening is not None


# --- who may ask


@pytest.mark.parametrize(
    ("uid", "groups", "what", "may"),
    [
        (0, {0}, "ack", True),
        (990, {990}, "ack", True),
        (1000, {1000, 990}, "status", True),
        (1000, {1000, 990}, "ack", False),
        (1000, {1000}, "status", False),
        (1000, {0}, "status", False),
    ],
)
def test_who_may_ask_for_what(uid: int, groups: set[int], what: str, may: bool) -> None:
    peer = Peer(1, uid, frozenset(groups))
    assert may_ask(peer, what, uid=990, gid=990) is may


def test_who_is_believed(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/leadone.db"
    assert may_be_believed(0, url)
    assert may_be_believed(os.geteuid(), url)
    assert not may_be_believed(54321, url)
    assert not may_be_believed(54321, "postgresql://db.example.org/hearts")


def as_user(uid: int, groups: list[int], url: str, request: dict[str, Any]) -> Any:
    """What a process of another user is answered."""
    code = (
        "import json, os, socket, sys\n"
        "name, request, uid, groups = json.loads(sys.argv[1])\n"
        "os.setgroups(groups); os.setgid(uid); os.setuid(uid)\n"
        "with socket.socket(socket.AF_UNIX) as s:\n"
        "    s.connect(name)\n"
        "    try: s.sendall(json.dumps(request).encode() + b'\\n')\n"
        "    except BrokenPipeError: pass\n"
        "    print(s.makefile().readline())\n"
    )
    arguments = json.dumps([address(url), request, uid, groups])
    done = subprocess.run(
        [sys.executable, "-c", code, arguments], capture_output=True, check=True, timeout=20
    )
    return json.loads(done.stdout)


async def test_other_users_are_told_to_use_sudo(url: str, asked: list[Request]) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can be somebody else")
    ack = {"ask": "ack", "arguments": {"alarms": ["x"]}, "by": "eve"}
    cases = [
        ([], {"ask": "status"}, "use sudo"),
        ([], ack, "use sudo"),
        # Of the daemon's group.
        ([os.getegid()], {"ask": "status"}, None),
        ([os.getegid()], ack, "use sudo"),
    ]
    for groups, request, refused in cases:
        answered = await asyncio.to_thread(as_user, 54321, groups, url, request)
        if refused is None:
            assert answered["pid"] == os.getpid()
        else:
            assert refused in answered["error"]
    assert asked == []


async def test_an_answer_of_a_stranger_is_not_believed(
    url: str, asked: list[Request], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("monitor.cli.daemon_client.may_be_believed", lambda _uid, _database: False)
    with pytest.raises(NotRunningError, match=rf"process {os.getpid()} .* is not believed"):
        await asyncio.to_thread(status_of, url)


# --- the protocol


async def test_status_and_requests(url: str, asked: list[Request]) -> None:
    assert (await asyncio.to_thread(status_of, url))["pid"] == os.getpid()
    before_ns = time.time_ns()
    request = {"ask": "ack", "arguments": {"alarms": ["a"]}, "by": "Anna Ek"}
    assert await asyncio.to_thread(ask, url, request) == {"answer": "ack: done"}
    (taken,) = asked
    assert (taken.what, taken.arguments, taken.by) == ("ack", {"alarms": ["a"]}, "Anna Ek")
    assert before_ns <= taken.at_ns <= time.time_ns()


@pytest.mark.parametrize(
    ("line", "says"),
    [
        (b"\n", "expected one line of JSON"),
        (b"status\n", "expected one line of JSON"),
        (b"[1, 2]\n", "expected one line of JSON"),
        (b'{"ask": 1}\n', "expected one line of JSON"),
        (b"\xff\xfe\x00\n", "expected one line of JSON"),
        (b"[" * 60_000 + b"\n", "expected one line of JSON"),
        (b'{"ask": "ack"}\n', 'expected "arguments" and "by"'),
        (b'{"ask": "ack", "arguments": [], "by": "me"}\n', 'expected "arguments"'),
        (b'{"ask": "ack", "arguments": {}, "by": "a\\nb"}\n', '"by", a name of 1 to 100'),
        (b'{"ask": "ack", "arguments": {}, "by": ""}\n', '"by", a name of 1 to 100'),
        (b"x" * (LONGEST_REQUEST + 1) + b"\n", "65536 bytes at most"),
    ],
)
async def test_garbage_gets_an_error(
    url: str, asked: list[Request], line: bytes, says: str
) -> None:
    assert says in (await asyncio.to_thread(_send, url, line))["error"]
    assert (await asyncio.to_thread(status_of, url))["pid"] == os.getpid()
    assert asked == []


def _send(url: str, line: bytes) -> Any:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(20)
        connection.connect(address(url))
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            connection.sendall(line)
        with connection.makefile() as file:
            return json.loads(file.readline())


async def test_what_fails_inside_does_not_end_the_daemon(url: str) -> None:
    def request(_request: Request) -> str:
        raise ZeroDivisionError

    async def stored(_within_s: float) -> None:
        pass

    stop = asyncio.Event()
    with claim(url) as listening:
        assert listening is not None
        control = Control(listening, status=dict, request=request, stored=stored)
        running = asyncio.create_task(control.run(stop))
        asked = {"ask": "ack", "arguments": {}, "by": "me"}
        with pytest.raises(RefusedError, match="ack: ZeroDivisionError"):
            await asyncio.to_thread(ask, url, asked)
        assert await asyncio.to_thread(status_of, url) == {}
        stop.set()
        await running


async def test_a_run_that_begins_anew_takes_over_who_waits(url: str) -> None:
    async def stored(_within_s: float) -> None:
        pass

    with claim(url) as listening:
        assert listening is not None
        for number in range(3):
            # Asked while nobody answers yet, as during a start.
            waiting = asyncio.create_task(asyncio.to_thread(status_of, url))
            await asyncio.sleep(0.1)
            stop = asyncio.Event()
            control = Control(
                listening, status=lambda n=number: {"run": n}, request=repr, stored=stored
            )
            running = asyncio.create_task(control.run(stop))
            assert await waiting == {"run": number}
            stop.set()
            await running
    with pytest.raises(NotRunningError):
        await asyncio.to_thread(status_of, url)


async def test_many_who_say_nothing_keep_a_place_for_seconds_only(
    url: str, asked: list[Request], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("monitor.control._CLIENT_S", 0.5)
    with contextlib.ExitStack() as stack:
        for _ in range(16):
            idle = stack.enter_context(socket.socket(socket.AF_UNIX))
            idle.connect(address(url))
        with pytest.raises(RefusedError, match="16 others ask at the same time"):
            await asyncio.to_thread(status_of, url)
        await asyncio.sleep(0.7)
        assert (await asyncio.to_thread(status_of, url))["pid"] == os.getpid()


def test_numbers_that_are_none_are_refused() -> None:
    pause = Request("pause", {"patient": "anna", "kind": None, "seconds": float("inf")}, "me", 0)
    outputs, said = answer(pause, None, None)  # type: ignore[arg-type]
    assert outputs == ()
    assert said.startswith("failed: ")


# --- the client


@pytest.fixture
def mute(url: str) -> Iterator[str]:
    """Somebody listens, and says nothing."""
    with claim(url):
        yield url


def test_nobody_is_there(url: str) -> None:
    with pytest.raises(NotRunningError, match="leadone is not running: sudo systemctl start"):
        status_of(url)


def test_whoever_says_nothing_is_not_waited_for_long(mute: str) -> None:
    started_s = time.monotonic()
    with pytest.raises(NoAnswerError, match=rf"running \(pid {os.getpid()}\) but does not answer"):
        ask(mute, {"ask": "status"}, within_s=0.3)
    assert time.monotonic() - started_s < 3


@pytest.mark.parametrize("says", [b"", b"{", b"[]\n", b"\xff\n"])
def test_nonsense_is_no_answer(url: str, says: bytes) -> None:
    def once(listening: socket.socket) -> None:
        client, _ = listening.accept()
        with client:
            client.recv(1000)
            client.sendall(says)

    with claim(url) as listening:
        assert listening is not None
        listening.settimeout(20)
        answering = threading.Thread(target=once, args=(listening,))
        answering.start()
        with pytest.raises(NoAnswerError):
            status_of(url)
        answering.join()
