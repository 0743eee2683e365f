"""Lets one daemon only use a database: two would raise every alarm twice, and page twice."""

import fcntl
import os
import secrets
import socket
import threading
import time
import weakref
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import structlog
from sqlalchemy import URL, Connection, text
from sqlalchemy.exc import SQLAlchemyError

from monitor.storage.database import DatabaseError, describe, open_engine, parse_url, sqlite_path

# Any number, as long as nobody else locks it: "leadone" in ASCII.
_KEY = 0x6C656164_6F6E65

# Postgres cuts the name of an application off at 63 bytes: "leadone PID HOST TOKEN".
_HOST_LENGTH = 40

# Tells this process from one of the same number on a machine of the same name: in a container
# everything is number 1.
_TOKEN = secrets.token_hex(3)

# A server holds on to the lock of a process that is gone until it misses it (see below). One that
# is not seen here and keeps its lock for longer lives where this one cannot see it: in a container
# on a machine of the same name.
_GONE_S = 60.0

# A machine that lost its power says no goodbye. Its lock would outlive it by hours, and keep it
# from watching when it is back: the server is to miss it within half a minute.
_SERVER_NOTICES = (
    "SET tcp_keepalives_idle = 10",
    "SET tcp_keepalives_interval = 5",
    "SET tcp_keepalives_count = 3",
    "SET tcp_user_timeout = 15000",
)

_HOLDER = text(
    """
    SELECT activity.application_name
    FROM pg_locks AS locks LEFT JOIN pg_stat_activity AS activity USING (pid)
    WHERE locks.locktype = 'advisory' AND locks.granted AND locks.objsubid = 1
    AND locks.classid = :high AND locks.objid = :low
    AND locks.database = (SELECT oid FROM pg_database WHERE datname = current_database())
    """
)

_log = structlog.get_logger(__name__)


class AnotherError(Exception):
    """Another daemon uses the database.

    Attributes:
        pid: of the other one; None if the system does not say.
    """

    def __init__(self, database: str, pid: int | None, host: str | None = None) -> None:
        known = [] if pid is None else [f"pid {pid}"]
        known += [] if host is None else [f"on {host}"]
        where = f" ({' '.join(known)})" if known else ""
        super().__init__(
            f"leadone is running already on {database}{where}: stop it first "
            "(systemctl stop leadone), two would tell everybody twice"
        )
        self.pid = pid


def is_gone(pid: int) -> bool:
    """Whether a process of this machine has ended, though the kernel may still have its files.

    One that was killed while a disk does not answer keeps its locks, and does nothing any more.
    """
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except OSError:
        pass  # another user's
    try:
        # 708 (name, perhaps with spaces) Z 1 …
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False  # some machines hide those of others
    return stat.rpartition(")")[2].split()[0] in {"Z", "X"}


class Held(Protocol):
    """A database that this process has for itself, or may have soon."""

    def still(self) -> bool:
        """Whether this process has it; takes it if it can and has it not. May block for long.

        Where one that is gone seems to have it (its lock outlives it), nobody has it for now.

        Raises:
            AnotherError: another daemon took it meanwhile.
        """

    def release(self) -> None:
        """Let another one have it; ``still`` may take it again.

        Files are closed with it that this process opened under the same path before, and which
        were deleted or replaced since: until then they fill the disk. Only for when all connections
        of this process to any of them are closed: closing a file drops the locks that SQLite has on
        it. Where somebody else in this process holds the same file too, it stays held until the
        last one has released it. The end of the process, however it ends, does all that.
        """


def hold(database: str) -> Held:
    """Take a database for this process alone.

    A database that is not there, or does not answer, keeps nobody from being watched: what is
    returned has nothing then, and ``still`` tries again. To hold one twice in one process is to
    hold it once.

    Args:
        database: its URL.

    Raises:
        AnotherError: another daemon uses it.
        DatabaseError: the URL is none, or its driver is not installed.
    """
    url = parse_url(database)
    held: Held = _HeldFile(url) if url.get_backend_name() == "sqlite" else _HeldServer(url)
    held.still()
    return held


# By device and inode. Closing any descriptor of a file drops all locks that the process has on it,
# those of SQLite too (POSIX has it so): once opened, a database is closed only when this process is
# done with it. That also keeps its inode from being given to another file, and its blocks.
_opened_files: "dict[tuple[int, int], _OpenedFile]" = {}
_opening = threading.Lock()


@dataclass(frozen=True, slots=True)
class _OpenedFile:
    descriptor: int
    path: Path
    # One that was dropped without ``release`` is none any more, and still nothing may be closed.
    users: "weakref.WeakSet[_HeldFile]" = field(default_factory=weakref.WeakSet)


class _HeldFile:
    """A lock on the database's file itself, which asks nothing of the disk: it may be full."""

    def __init__(self, url: URL) -> None:
        self._database = describe(url)
        self._path = sqlite_path(url)
        self._descriptor: int | None = None
        self._told = False

    def still(self) -> bool:
        if self._descriptor is not None:
            return True
        try:
            descriptor = _opened(self._path, self)
        except FileNotFoundError:
            return False
        except OSError as error:
            return self._unknown(error)
        try:
            # Not fcntl's: those are SQLite's, and its readers are welcome.
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            pid = _holder(descriptor)
            if pid is not None and is_gone(pid):
                return False
            raise AnotherError(self._database, pid) from None
        except OSError as error:
            return self._unknown(error)
        self._descriptor = descriptor
        return True

    def release(self) -> None:
        self._descriptor = None
        with _opening:
            for key, file in list(_opened_files.items()):
                is_ours = self in file.users or file.path == self._path
                file.users.discard(self)
                if is_ours and not file.users:
                    del _opened_files[key]
                    with suppress(OSError):
                        # What this process started may have it open still.
                        fcntl.flock(file.descriptor, fcntl.LOCK_UN)
                    os.close(file.descriptor)

    def _unknown(self, error: OSError) -> bool:
        # Some file systems of networks know no locks. It is asked again and again, and told once.
        if not self._told:
            _log.warning("second_daemon_unnoticed", database=self._database, error=error.strerror)
            self._told = True
        return False


def _opened(path: Path, user: _HeldFile) -> int:
    with _opening:
        found = path.stat()
        file = _opened_files.get((found.st_dev, found.st_ino))
        if file is None:
            descriptor = os.open(path, os.O_RDONLY)
            found = os.fstat(descriptor)
            new = _OpenedFile(descriptor, path)
            file = _opened_files.setdefault((found.st_dev, found.st_ino), new)
        file.users.add(user)
        return file.descriptor


def _holder(descriptor: int) -> int | None:
    """The process that has locked a file, as the kernel lists it; None if it does not say."""
    found = os.fstat(descriptor)
    device = f"{os.major(found.st_dev):02x}:{os.minor(found.st_dev):02x}"
    pids: dict[bool, int] = {}
    with suppress(OSError):
        for line in Path("/proc/locks").read_text().splitlines():
            # 1: FLOCK  ADVISORY  WRITE 708 08:01:262209 0 EOF; those that wait have an arrow.
            fields = line.split()
            if len(fields) < 8 or fields[1] != "FLOCK" or not fields[4].isdecimal():
                continue
            on, _, inode = fields[5].rpartition(":")
            if inode == str(found.st_ino):
                pids[on == device] = int(fields[4])
    # Some file systems (btrfs, overlays) tell a program of another device than the kernel's lists.
    return pids.get(True, pids.get(False)) or None


class _HeldServer:
    """An advisory lock of Postgres, which lasts as long as the connection that took it."""

    def __init__(self, url: URL) -> None:
        host = socket.gethostname().encode("ascii", "replace").decode()[:_HOST_LENGTH]
        self._name = f"leadone {os.getpid()} {host} {_TOKEN}"
        self._database = describe(url)
        self._host = host
        named = url.update_query_dict({"application_name": self._name})
        self._engine = open_engine(named).execution_options(isolation_level="AUTOCOMMIT")
        self._connection: Connection | None = None
        self._using = threading.Lock()
        self._gone: tuple[str, float] | None = None  # who seems to be, and since when

    def still(self) -> bool:
        with self._using:
            if self._connection is not None:
                try:
                    self._connection.execute(text("SELECT 1"))
                except SQLAlchemyError:
                    self._close()  # the server has let go of the lock too
                else:
                    return True
            try:
                return self._take()
            except (SQLAlchemyError, DatabaseError):
                self._close()
                return False

    def release(self) -> None:
        with self._using:
            self._close()

    def _take(self) -> bool:
        self._connection = connection = self._engine.connect()
        for setting in _SERVER_NOTICES:
            with suppress(SQLAlchemyError):  # an older server does not know all
                connection.execute(text(setting))
        # Asked twice: the other one may end between our two questions.
        for _ in range(2):
            if connection.scalar(text("SELECT pg_try_advisory_lock(:key)"), {"key": _KEY}):
                self._gone = None
                return True
            key = {"high": _KEY >> 32, "low": _KEY & 0xFFFFFFFF}
            holder = connection.execute(_HOLDER, key).scalars().all()
            if holder:
                break
        self._close()
        name = (holder[0] if holder else None) or ""
        if self._is_left_over(name):
            return False
        raise AnotherError(self._database, *self._who(name))

    def _is_left_over(self, name: str) -> bool:
        """Whether a lock is that of a connection which only the server believes in."""
        if name == self._name:
            return True
        pid, host = self._who(name)
        if pid is None or host is not None or not (pid == os.getpid() or is_gone(pid)):
            return False
        if self._gone is None or self._gone[0] != name:
            _log.warning("lock_of_a_process_that_is_gone", database=self._database, pid=pid)
            self._gone = name, time.monotonic()
        return time.monotonic() - self._gone[1] < _GONE_S

    def _who(self, name: str) -> tuple[int | None, str | None]:
        """Pid and, if it is not this one, machine of a connection, by its application's name."""
        match name.split(" "):
            case ["leadone", pid, host, *_] if pid.isdecimal():
                return int(pid), None if host == self._host else host
        return None, None

    def _close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(SQLAlchemyError):  # it may be broken
                connection.close()
