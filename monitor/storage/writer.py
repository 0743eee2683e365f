"""The one thread that writes."""

import asyncio
import threading
import time
from collections import deque
from collections.abc import Iterable
from concurrent.futures import Future
from contextlib import suppress

import structlog
from sqlalchemy import Connection
from sqlalchemy.exc import DataError, DBAPIError, IntegrityError

from monitor import metrics
from monitor.storage.batch import Batch, BatchWriter
from monitor.storage.database import (
    DatabaseError,
    describe,
    error_line,
    open_engine,
    parse_url,
    require_revision,
    told,
)
from monitor.storage.records import Record

# Ten patients at a chunk a second: more than ten minutes of outage, in some 6 MB.
CAPACITY = 8192

_FIRST_RETRY_S = 0.1
_NO_ANSWER_S = 10.0
_LAST_RETRY_S = 5.0
_STOP_TIMEOUT_S = 10.0

_log = structlog.get_logger(__name__)


class _Group:
    """Records that are written together or not at all, and who waits for that."""

    __slots__ = ("batch", "future", "records")

    def __init__(
        self, records: tuple[Record, ...], future: Future[None] | asyncio.Future[None]
    ) -> None:
        self.records = records
        self.batch: Batch | None = None
        self.future = future


class Writer:
    """Makes records durable, in the order in which they came.

    One thread owns the writing connection. Whatever waits when it comes round goes into one
    transaction, so the busier the database, the fewer the commits. When ``store`` returns, the
    record survives ``kill -9``; ``open_engine`` says what a power cut may take.

    A database that is locked, full or away is tried again, for ever, with all records kept; a
    record that no database would take fails alone.

    At most ``capacity`` records are held; whoever brings one more waits. Nothing is dropped.
    """

    def __init__(self, database: str, *, capacity: int = CAPACITY) -> None:
        """Prepare to write.

        Args:
            database: its URL.
            capacity: how many records are held, waiting and being written together.

        Raises:
            DatabaseError: the URL is none, or its driver is not installed.
        """
        self._url = parse_url(database)
        self._engine = open_engine(self._url)
        self._batches = BatchWriter(self._engine.dialect)
        self._connection: Connection | None = None
        self._capacity = capacity
        self._changed = threading.Condition()  # guards everything below
        self._queue: deque[_Group] = deque()
        self._writing: set[_Group] = set()
        self._held = 0
        self._waiting: list[asyncio.Future[None]] = []
        self._deadline: float | None = None
        self._outage_since: float | None = None
        self._last_error: str | None = None
        self._failures = 0
        self._commit_since: float | None = None
        self._thread: threading.Thread | None = None

    @property
    def healthy(self) -> bool:
        """Whether the thread runs, its last attempt to write succeeded, and none takes too long."""
        return self.last_error is None

    @property
    def last_error(self) -> str | None:
        """Why nothing is written at the moment, in one line; None when all is well."""
        if self._thread is None or not self._thread.is_alive():
            return "the writer is not running"
        since = self._commit_since
        # A lock, or a disk that dies, may keep an attempt from ever coming back.
        if since is not None and (waited_s := time.monotonic() - since) > _NO_ANSWER_S:
            return f"{describe(self._url)}: no answer for {waited_s:.0f} s"
        return self._last_error

    @property
    def failures(self) -> int:
        """How many attempts to write have failed: while it grows, the thread works and tries on."""
        return self._failures

    def start(self) -> None:
        """Look at the database and start the thread.

        Raises:
            DatabaseError: the database cannot be opened, or its schema is not the program's.
        """
        # Only read: one that is locked now is waited for by the thread.
        looking = open_engine(self._url, read_only=True)
        try:
            with told(self._url), looking.connect() as connection:
                require_revision(connection)
        finally:
            looking.dispose()
        self._thread = threading.Thread(target=self._run, name="writer", daemon=True)
        self._thread.start()

    def stop(self, timeout_s: float = _STOP_TIMEOUT_S) -> int:
        """Write what is held, then end the thread. Blocks; takes no more records from now on.

        Args:
            timeout_s: how long a database that is away is waited for, in seconds.

        Returns:
            How many records were lost because it did not come back; their futures fail.
        """
        with self._changed:
            self._deadline = time.monotonic() + timeout_s
            self._changed.notify_all()
            waiting, self._waiting = self._waiting, []
        _resolve(waiting)
        if self._thread is not None:
            # The thread keeps the deadline itself, unless the driver does not return to it.
            self._thread.join(timeout_s + 0.5)
        with self._changed:
            self._writing.update(self._queue)
            self._queue.clear()
            left = list(self._writing)
        lost = sum(len(group.records) for group in left)
        if left:
            _log.error(
                "records_lost", database=describe(self._url), records=lost, waited_s=timeout_s
            )
            self._settle(left, DatabaseError(f"{describe(self._url)}: gave up writing"))
        return lost

    async def store(self, *records: Record) -> None:
        """Store records as one: all or none. Returns when they are durable.

        Waits while the writer holds its fill.

        Raises:
            DatabaseError: the writer is stopped, or was before it could write.
            ValueError: a record that no database would take.
            sqlalchemy.exc.DBAPIError: a record that this database refused.
        """
        loop = asyncio.get_running_loop()
        durable: asyncio.Future[None] = loop.create_future()
        group = _Group(records, durable)
        while True:
            with self._changed:
                if self._accept(group):
                    break
                room: asyncio.Future[None] = loop.create_future()
                self._waiting.append(room)
            await room
        await durable

    def submit(self, *records: Record) -> Future[None]:
        """``store`` for other threads: returns once the records are accepted.

        Blocks while the writer holds its fill, so not for the event loop's thread.

        Returns:
            Done when the records are durable; raises what ``store`` would.

        Raises:
            DatabaseError: the writer is stopped.
        """
        durable: Future[None] = Future()
        # It cannot be cancelled: who stops waiting does not take the record back.
        durable.set_running_or_notify_cancel()
        group = _Group(records, durable)
        with self._changed:
            while not self._accept(group):
                self._changed.wait()
        return durable

    def _accept(self, group: _Group) -> bool:
        """Take a group if there is room; a group larger than the capacity when nothing is held."""
        if self._deadline is not None or self._thread is None or not self._thread.is_alive():
            raise DatabaseError(f"{describe(self._url)}: the writer is not running")
        if self._held and self._held + len(group.records) > self._capacity:
            return False
        self._queue.append(group)
        self._hold(len(group.records))
        self._changed.notify_all()
        return True

    def _hold(self, records: int) -> None:
        self._held += records
        metrics.WRITE_QUEUE.set(self._held)

    def _settle(self, groups: Iterable[_Group], error: BaseException | None = None) -> None:
        """Make room, and tell who waits for these groups."""
        with self._changed:
            # If the driver hung, ``stop`` has given up some.
            settled = [group for group in groups if group in self._writing]
            self._writing.difference_update(settled)
            self._hold(-sum(len(group.records) for group in settled))
            self._changed.notify_all()
            waiting, self._waiting = self._waiting, []
        _resolve([group.future for group in settled], error)
        _resolve(waiting)

    def _run(self) -> None:
        try:
            while (groups := self._next()) and self._write(groups):
                pass
        finally:
            self._disconnect()

    def _next(self) -> list[_Group]:
        """Everything that waits, as soon as something does; nothing when it is time to end."""
        with self._changed:
            while not self._queue and self._deadline is None:
                self._changed.wait()
            groups = list(self._queue)
            self._queue.clear()
            self._writing.update(groups)
            return groups

    def _write(self, groups: list[_Group], *, singly: bool = False) -> bool:
        """Write groups in one transaction, however long that takes.

        Args:
            groups: settled afterwards, all of them.
            singly: whether this is the last attempt for a group that failed among others.

        Returns:
            False if ``stop`` ran out of patience first; then some groups are not settled.
        """
        ready = [group for group in groups if self._prepare(group)]
        pause = _FIRST_RETRY_S
        while ready:
            try:
                self._commit_since = time.monotonic()
                try:
                    self._commit(ready)
                finally:
                    self._commit_since = None
            except Exception as error:  # noqa: BLE001 - whatever it is, the others must be written
                if _may_pass(error):
                    self._failed(error, ready)
                    if not self._pause(pause):
                        return False
                    pause = min(2 * pause, _LAST_RETRY_S)
                elif singly:
                    self._refuse(ready[0], error)
                    return True
                else:
                    # One of them cannot be written; or somebody deleted a row behind our back,
                    # and all can, once the ids are asked for again.
                    self._batches.forget()
                    return all(self._write([group], singly=True) for group in ready)
            else:
                self._succeeded()
                self._settle(ready)
                return True
        return True

    def _refuse(self, group: _Group, error: Exception) -> None:
        _log.error("record_refused", database=describe(self._url), error=error_line(error))
        self._settle([group], error)

    def _prepare(self, group: _Group) -> bool:
        try:
            group.batch = group.batch or Batch.of(group.records)
        except Exception as error:  # noqa: BLE001 - it is raised where the record came from
            self._refuse(group, error)
            return False
        return True

    def _commit(self, groups: list[_Group]) -> None:
        batch = Batch()
        for group in groups:
            assert group.batch is not None
            batch.add(group.batch)
        if self._connection is None:
            self._connection = self._engine.connect()
        counts = self._batches.write(self._connection, batch)
        metrics.SEGMENTS_STORED.inc(counts.segments)
        raw = len(batch.segments) + len(batch.rr_intervals)
        metrics.SEGMENTS_REPEATED.inc(raw - counts.segments)
        metrics.WINDOWS_STORED.inc(counts.windows)

    def _failed(self, error: Exception, groups: list[_Group]) -> None:
        metrics.WRITE_FAILURES.inc()
        self._failures += 1
        self._disconnect()
        self._last_error = f"{describe(self._url)}: {error_line(error)}"
        if self._outage_since is None:
            self._outage_since = time.monotonic()
            _log.error(
                "database_unavailable",
                database=describe(self._url),
                error=error_line(error),
                records=sum(len(group.records) for group in groups),
            )

    def _succeeded(self) -> None:
        if self._outage_since is not None:
            _log.info(
                "database_available",
                database=describe(self._url),
                after_s=round(time.monotonic() - self._outage_since, 1),
            )
        self._outage_since = self._last_error = None

    def _pause(self, seconds: float) -> bool:
        """Wait before the next attempt; False when there is no time for one."""
        until = time.monotonic() + seconds
        with self._changed:
            while (now := time.monotonic()) < until:
                if self._deadline is not None:
                    if now >= self._deadline:
                        return False
                    until = min(until, self._deadline)
                self._changed.wait(until - now)
            return self._deadline is None or until < self._deadline

    def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(Exception):  # it is thrown away because it is broken
                connection.close()


def _may_pass(error: Exception) -> bool:
    """Whether the same write may succeed later: it is the database's trouble, not the record's."""
    if isinstance(error, DBAPIError):
        return not isinstance(error, IntegrityError | DataError)
    return isinstance(error, OSError | MemoryError)


def _resolve(
    futures: Iterable[Future[None] | asyncio.Future[None]], error: BaseException | None = None
) -> None:
    """End futures from the writer's thread; those of an event loop in its own, all at once."""
    of_loops: dict[asyncio.AbstractEventLoop, list[asyncio.Future[None]]] = {}
    for future in futures:
        if isinstance(future, asyncio.Future):
            of_loops.setdefault(future.get_loop(), []).append(future)
        elif error is None:
            future.set_result(None)
        else:
            future.set_exception(error)
    for loop, waited_for in of_loops.items():
        with suppress(RuntimeError):  # the loop has ended
            loop.call_soon_threadsafe(_resolve_here, waited_for, error)


def _resolve_here(futures: list[asyncio.Future[None]], error: BaseException | None) -> None:
    for future in futures:
        if future.done():  # cancelled
            continue
        if error is None:
            future.set_result(None)
        else:
            future.set_exception(error)
