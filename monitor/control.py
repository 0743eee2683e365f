"""The daemon's own ear on its machine: a socket that answers how it is, and takes what people ask.

It needs neither the database nor a disk, so that an alarm can be acknowledged, and what is wrong
be told, while either is full, damaged or away. The socket is an abstract one (unix(7)): it has no
file, so it works where nothing can be written; its name follows from the database, so that every
command with the same configuration finds it; and it is gone with the process that holds it.

A client sends one line, a JSON object, and gets one line back. ``{"ask": "status"}`` is answered by
what ``monitor.status`` reports; ``{"ask": "ack", "arguments": {…}, "by": "…"}`` (or ``snooze``,
``pause``, ``resume``: ``monitor.requests``) by ``{"answer": "…"}``; everything else by
``{"error": "…"}``.
"""

import asyncio
import errno
import hashlib
import json
import os
import pwd
import socket
import struct
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import structlog

from monitor.clock import now as present
from monitor.handover import keep
from monitor.metrics import CONTROL_REFUSED
from monitor.storage.database import describe, parse_url
from monitor.storage.only_one import AnotherError, is_gone
from monitor.storage.records import Request

_log = structlog.get_logger()

LONGEST_REQUEST = 65_536
"""Bytes of the longest line that is taken: thousands of alarms fit."""

# A command asks and reads at once; whoever takes longer keeps a place from somebody else.
_CLIENT_S = 5.0
_CLIENTS = 16
_BACKLOG = 64

# Whoever binds listens right after; only between these two can they not be asked who they are.
_LISTENS_WITHIN_S = 1.0
_AGAIN_S = 0.05

# Out of file descriptors, say: it is tried again, and not in a loop that takes a whole processor.
_ACCEPT_AGAIN_S = 1.0

# So that whoever reads the database next finds what was asked; one that is away delays no answer
# by more than this.
_STORED_WITHIN_S = 1.0

_LONGEST_NAME = 100

# Linux gives the groups of a peer since 4.13; Python has no name for it.
_PEER_GROUPS = 59
_MOST_GROUPS = 256

_USE_SUDO = "only root and the user that leadone runs as may ask that: use sudo"

_EFFECT = "commands reach the daemon through the database only"

# The account that the installer makes.
_SERVICE_USER = "leadone"


@dataclass(frozen=True, slots=True)
class Peer:
    """The process at the other end, as the kernel says: it cannot be made up.

    Attributes:
        pid: its id when it connected, or began to listen.
        uid: its user.
        groups: its groups.
    """

    pid: int
    uid: int
    groups: frozenset[int]


def identity(database: str) -> str:
    """What two URLs of one database have in common: the file, or the server with the name.

    Args:
        database: its URL.

    Raises:
        DatabaseError: it is none.
    """
    url = parse_url(database)
    if url.get_backend_name() == "sqlite":
        return os.path.realpath(str(url.database))
    # libpq takes them from the query as well, as for a server that is reached by a socket's folder.
    host = url.host or url.query.get("host") or ""
    port = url.port or url.query.get("port") or 5432
    return f"{host}:{port}/{url.database or url.username or ''}"


def address(database: str) -> str:
    """The name of the socket of the daemon that runs on a database.

    Args:
        database: its URL.

    Raises:
        DatabaseError: it is none.
    """
    digest = hashlib.sha256(identity(database).encode("utf-8", "surrogateescape")).hexdigest()
    return f"\0leadone-{digest[:32]}"


def peer_of(connection: socket.socket) -> Peer:
    """Who is at the other end of a connected socket.

    Raises:
        OSError: the kernel does not say.
    """
    size = struct.calcsize("iII")
    credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size)
    pid, uid, gid = struct.unpack("iII", credentials)
    groups = {gid}
    # Of a kernel that does not say, or somebody in hundreds of groups, the first one counts alone.
    with suppress(OSError):
        more = connection.getsockopt(socket.SOL_SOCKET, _PEER_GROUPS, 4 * _MOST_GROUPS)
        groups.update(struct.unpack(f"{len(more) // 4}I", more))
    return Peer(pid, uid, frozenset(groups))


def may_be_believed(uid: int, database: str) -> bool:
    """Whether a process of this user may be the daemon of a database.

    An abstract name is there for everybody to take; whoever can already do as they like with the
    database, or is the account of the service, gains nothing by taking it.

    Args:
        uid: of the process that holds the name.
        database: URL of the database.
    """
    trusted = {0, os.geteuid()}
    url = parse_url(database)
    if url.get_backend_name() == "sqlite":
        path = Path(str(url.database))
        with suppress(OSError):
            trusted.add((path if path.exists() else path.absolute().parent).stat().st_uid)
    with suppress(KeyError):
        trusted.add(pwd.getpwnam(_SERVICE_USER).pw_uid)
    return uid in trusted


@contextmanager
def claim(database: str) -> Iterator[socket.socket | None]:
    """Hold the name of a database's daemon, listening, as long as the context lasts.

    Args:
        database: its URL.

    Yields:
        The socket for ``Control``; None where somebody who is not believed holds the name, or the
        machine allows none: neither must keep a heart from being watched.

    Raises:
        AnotherError: a daemon runs on this database.
        DatabaseError: the URL is none.
    """
    name = address(database)
    listening: socket.socket | None = None
    try:
        listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        free = _bind(listening, name)
    except OSError as error:
        # Whatever forbids it, hearts are watched.
        _log.error("no_control_socket", error=str(error), effect=_EFFECT)
        free = None
    try:
        if free is False:
            holder = _holder(name)
            if (
                holder is not None
                and not is_gone(holder.pid)
                and may_be_believed(holder.uid, database)
            ):
                raise AnotherError(describe(parse_url(database)), holder.pid)
            _log.error("control_socket_taken", by=str(holder), effect=_EFFECT)
        yield listening if free else None
    finally:
        if listening is not None:
            listening.close()


def _bind(listening: socket.socket, name: str) -> bool:
    """Take a name and listen under it; False where somebody has it."""
    try:
        listening.bind(name)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            return False
        raise
    listening.listen(_BACKLOG)
    listening.setblocking(False)
    return True


def _holder(name: str) -> Peer | None:
    """Who listens under a name; None where nobody says so within a second."""
    deadline_s = time.monotonic() + _LISTENS_WITHIN_S
    while time.monotonic() < deadline_s:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as asking, suppress(OSError):
            asking.settimeout(_LISTENS_WITHIN_S)
            asking.connect(name)
            return peer_of(asking)
        time.sleep(_AGAIN_S)
    return None


class Control:
    """Answers whoever asks the daemon on its own machine.

    The super-user and the daemon's own user may ask for everything, members of the daemon's group
    how it is, and others nothing.

    Args:
        listening: from ``claim``.
        status: gives the answer to ``status``.
        request: does what somebody asks, and returns one line about it.
        stored: waits, for so many seconds at most, until what that led to is stored.
    """

    def __init__(
        self,
        listening: socket.socket,
        *,
        status: Callable[[], Mapping[str, Any]],
        request: Callable[[Request], str],
        stored: Callable[[float], Awaitable[None]],
    ) -> None:
        self._listening = listening
        self._status = status
        self._request = request
        self._stored = stored
        self._serving: set[asyncio.Task[None]] = set()

    async def run(self, stop: asyncio.Event) -> None:
        """Answer until ``stop``."""
        accepting = asyncio.create_task(self._accept())
        try:
            await stop.wait()
        finally:
            accepting.cancel()
            for task in self._serving:
                task.cancel()
            await asyncio.gather(accepting, *self._serving, return_exceptions=True)

    async def _accept(self) -> None:
        while True:
            try:
                await self._accept_one()
            except Exception as error:  # noqa: BLE001 - whoever asks next is listened to
                _log.warning("control_client_not_accepted", error=repr(error))
                await asyncio.sleep(_ACCEPT_AGAIN_S)

    async def _accept_one(self) -> None:
        client, _ = await asyncio.get_running_loop().sock_accept(self._listening)
        peer, refused = self._look_at(client)
        if peer is not None and refused is None:
            keep(self._serving, self._serve(client, peer))
            return
        CONTROL_REFUSED.inc()
        _log.warning("control_client_refused", peer=str(peer), reason=refused)
        with client, suppress(OSError):
            client.send(_line(_error(refused or _USE_SUDO)))

    def _look_at(self, client: socket.socket) -> tuple[Peer | None, str | None]:
        """Who asks, and why they are not listened to, None if they are.

        Before anything is read, so that strangers take no place from anybody.
        """
        try:
            peer = peer_of(client)
        except OSError as error:
            return None, f"the kernel does not say who asks: {error}"
        if not may_ask(peer, "status"):
            return peer, _USE_SUDO
        if len(self._serving) >= _CLIENTS:
            return peer, f"{_CLIENTS} others ask at the same time: try again"
        return peer, None

    async def _serve(self, client: socket.socket, peer: Peer) -> None:
        reader, writer = await asyncio.open_unix_connection(sock=client, limit=LONGEST_REQUEST)
        try:
            async with asyncio.timeout(_CLIENT_S):
                try:
                    line = await reader.readline()
                except ValueError:
                    answer: Mapping[str, Any] = _error(f"expected {LONGEST_REQUEST} bytes at most")
                else:
                    if not line:
                        return  # it only looked who is here
                    answer = await self._answer(line, peer)
                writer.write(_line(answer))
                await writer.drain()
        except (TimeoutError, OSError) as error:
            _log.info("control_client_lost", pid=peer.pid, error=str(error) or "took too long")
        except Exception:  # noqa: BLE001 - whatever a client does, hearts are watched
            _log.exception("control_client_failed", pid=peer.pid)
        finally:
            writer.close()

    async def _answer(self, line: bytes, peer: Peer) -> Mapping[str, Any]:
        try:
            asked = json.loads(line)
        except (ValueError, RecursionError):
            asked = None
        what = asked.get("ask") if isinstance(asked, dict) else None
        if not isinstance(what, str):
            return _error('expected one line of JSON such as {"ask": "status"}')
        if not may_ask(peer, what):
            CONTROL_REFUSED.inc()
            return _error(_USE_SUDO)
        try:
            if what == "status":
                return self._status()
            arguments, by = asked.get("arguments"), asked.get("by")
            if not isinstance(arguments, dict) or not _is_name(by):
                return _error(f'expected "arguments" and "by", a name of 1 to {_LONGEST_NAME}')
            _log.info("control_request", ask=what, pid=peer.pid, uid=peer.uid)
            said = self._request(Request(what, arguments, by, present().utc_ns))
        except Exception as error:  # noqa: BLE001 - whatever is asked, hearts are watched
            _log.exception("control_request_failed", ask=what)
            return _error(f"{what}: {type(error).__name__}")
        await self._stored(_STORED_WITHIN_S)
        return {"answer": said}


def may_ask(peer: Peer, what: str, *, uid: int | None = None, gid: int | None = None) -> bool:
    """Whether somebody may ask the daemon for something.

    Args:
        peer: who asks.
        what: what for.
        uid: user of the daemon; by default of this process.
        gid: its group, likewise.
    """
    if peer.uid in (0, os.geteuid() if uid is None else uid):
        return True
    return what == "status" and (os.getegid() if gid is None else gid) in peer.groups


def _is_name(by: object) -> bool:
    # What is printable cannot forge a line of a log.
    return isinstance(by, str) and by.isprintable() and 0 < len(by.strip()) <= _LONGEST_NAME


def _error(text: str) -> Mapping[str, Any]:
    return {"error": text}


def _line(answer: Mapping[str, Any]) -> bytes:
    return json.dumps(answer, ensure_ascii=False).encode() + b"\n"
