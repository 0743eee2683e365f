"""Asks the running daemon itself, by its local socket (``monitor.control``)."""

import json
import socket
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from monitor.cli.errors import CommandError
from monitor.control import Peer, address, may_be_believed, peer_of

START = "sudo systemctl start leadone"
"""What to do where it does not run."""

# It answers within milliseconds; while it starts it loads its models for some seconds.
ANSWER_S = 5.0

_LONGEST_ANSWER = 8_000_000
_AT_ONCE = 65_536


class NotRunningError(CommandError):
    """No daemon runs on the database, on this machine; or somebody else answers in its place."""

    def __init__(self, stranger: Peer | None = None) -> None:
        super().__init__(
            f"leadone is not running: {START}"
            if stranger is None
            else f"process {stranger.pid} of user {stranger.uid} answers in the place of leadone, "
            "and is not believed: see what it is, end it, and restart leadone"
        )


class NoAnswerError(CommandError):
    """A daemon runs, and does not answer in time.

    Attributes:
        pid: its process; None where that is not known either.
    """

    def __init__(self, pid: int | None) -> None:
        which = "" if pid is None else f" (pid {pid})"
        super().__init__(
            f"leadone is running{which} but does not answer: if that lasts, it is stopped or "
            "hangs: sudo systemctl restart leadone"
        )
        self.pid = pid


class RefusedError(CommandError):
    """A daemon runs, and does not do it; the message says why.

    Attributes:
        pid: its process.
    """

    def __init__(self, pid: int, why: str) -> None:
        super().__init__(f"leadone is running (pid {pid}): {why}")
        self.pid = pid


def ask(database: str, request: Mapping[str, Any], within_s: float = ANSWER_S) -> dict[str, Any]:
    """Send the daemon of a database a request, and wait for its answer.

    Args:
        database: its URL.
        request: as ``monitor.control`` takes it.
        within_s: how long to wait, in seconds.

    Raises:
        NotRunningError: there is none on this machine, or it is not to be believed.
        NoAnswerError: it does not answer in time.
        RefusedError: it does not want to.
        DatabaseError: the URL is none.
    """
    deadline_s = time.monotonic() + within_s
    name = address(database)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(within_s)
        try:
            connection.connect(name)
            peer = peer_of(connection)
        except (BlockingIOError, TimeoutError):
            # So many wait already that there is no room to wait.
            raise NoAnswerError(None) from None
        except OSError:
            raise NotRunningError from None
        if not may_be_believed(peer.uid, database):
            raise NotRunningError(peer)
        answer = _exchange(connection, request, peer, deadline_s)
    if "error" in answer:
        raise RefusedError(peer.pid, str(answer["error"]))
    return answer


def status_of(database: str) -> dict[str, Any]:
    """What the daemon of a database says of itself, as ``monitor.status`` reports it.

    Raises:
        CommandError: as ``ask``.
        DatabaseError: the URL is none.
    """
    return ask(database, {"ask": "status"})


def _exchange(
    connection: socket.socket, request: Mapping[str, Any], peer: Peer, deadline_s: float
) -> dict[str, Any]:
    received = bytearray()
    # One that refuses says so, and closes without reading.
    with suppress(BrokenPipeError):
        connection.sendall(json.dumps(request, ensure_ascii=False).encode() + b"\n")
    try:
        while not received.endswith(b"\n") and len(received) < _LONGEST_ANSWER:
            left_s = deadline_s - time.monotonic()
            if left_s <= 0:
                raise NoAnswerError(peer.pid)
            connection.settimeout(left_s)
            more = connection.recv(_AT_ONCE)
            if not more:
                break
            received += more
        answer = json.loads(received)
    except (OSError, ValueError):
        # It died, was stopped or hangs; or it ends just now.
        raise NoAnswerError(peer.pid) from None
    if not isinstance(answer, dict):
        raise NoAnswerError(peer.pid)
    return answer
