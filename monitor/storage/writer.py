"""The one thread that writes."""

import threading
import time
from concurrent.futures import Future

import structlog
from sqlalchemy import Connection

from monitor import metrics
from monitor.storage.batch import Batch
from monitor.storage.commits import Commits
from monitor.storage.database import (
    DatabaseError,
    describe,
    error_line,
    open_engine,
    parse_url,
    require_revision,
    told,
)
from monitor.storage.group import Group
from monitor.storage.held import Held
from monitor.storage.kinds import Kind
from monitor.storage.outage import Outage
from monitor.storage.records import Record
from monitor.storage.replay import Replay, may_pass
from monitor.storage.spool import Spool
from monitor.storage.spooling import Spooling

# Ten patients at a chunk a second: more than ten minutes of outage, in some 6 MB.
CAPACITY = 8192

_FIRST_RETRY_S = 0.1
_NO_ANSWER_S = 10.0
_LAST_RETRY_S = 5.0

# A lock, or a server that is started anew, is over by then; and whoever watches for records that do
# not become durable need not have begun to worry.
_SPOOL_AFTER_S = 10.0

# While the spool takes what comes nobody waits for the database.
_PROBE_S = 5.0
_TRY_SPOOL_S = 1.0
_STOP_TIMEOUT_S = 10.0

_log = structlog.get_logger(__name__)


class Writer:
    """Makes records durable, in the order in which they came.

    One thread owns the writing connection. Whatever waits when it comes round goes into one
    transaction, so the busier the database, the fewer the commits. When ``store`` returns, the
    record survives ``kill -9``; ``open_engine`` says what a power cut may take.

    A database that is locked, full or away is tried again, for ever, with all records kept; a
    record that no database would take fails alone. With a spool, an outage that lasts makes records
    durable there, and what it holds goes into the database first when that is back.

    At most ``capacity`` records are held; whoever brings one more waits. Nothing is dropped, unless
    neither database nor spool takes anything until so many are held: then the oldest signal goes,
    since a heart that is watched now is worth more.
    """

    def __init__(
        self, database: str, *, capacity: int = CAPACITY, spool: Spool | None = None
    ) -> None:
        """Prepare to write.

        Args:
            database: its URL.
            capacity: how many records are held, waiting and being written together.
            spool: where records go while the database is away; None where they wait in memory.

        Raises:
            DatabaseError: the URL is none, or its driver is not installed.
        """
        self._url = parse_url(database)
        self._engine = open_engine(self._url)
        self._held = Held(capacity, self._require_running)
        self._outage = Outage(self._url)
        self._commit_since: float | None = None
        self._thread: threading.Thread | None = None
        self._without: str | None = None
        # What follows is the thread's.
        self._apart = None if spool is None else Spooling(spool, self._held)
        self._commits = Commits(self._engine, self._apart)
        self._replay = None if spool is None else Replay(spool, self._commits.batches)
        self._replaying = False
        self._probe_at = 0.0

    @property
    def healthy(self) -> bool:
        """Whether the thread runs, its last attempt to write succeeded, and none takes too long."""
        return self.last_error is None

    @property
    def last_error(self) -> str | None:
        """Why nothing is written at the moment, in one line; None when all is well."""
        if self._thread is None or not self._thread.is_alive():
            return "the writer is not running"
        # A lock, or a disk that dies, may keep an attempt from ever coming back.
        if (waited_s := self._unanswered_s) > _NO_ANSWER_S:
            error: str | None = f"{describe(self._url)}: no answer for {waited_s:.0f} s"
        else:
            error = self._without or self._outage.error
        nowhere = None if self._apart is None else self._apart.error
        if error is not None and nowhere is not None:
            return f"{error}; nor can anything be kept elsewhere: {nowhere}"
        return error

    @property
    def _unanswered_s(self) -> float:
        since = self._commit_since
        return 0.0 if since is None else time.monotonic() - since

    @property
    def is_damaged(self) -> bool:
        """Whether the database said last that its pages are damaged."""
        return self._outage.kind is Kind.DAMAGED

    @property
    def failures(self) -> int:
        """How many attempts to write have failed: while it grows, the thread works and tries on."""
        return self._outage.failures + (0 if self._apart is None else self._apart.failures)

    @property
    def spooling(self) -> bool:
        """Whether records go to the spool, or some of it is not in the database yet."""
        return self._apart is not None and self._apart.active

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
        # What a run that was killed has left goes first.
        if self._apart is not None:
            self._apart.active = not self._apart.is_empty
        self._begin()

    def start_without(self, why: str) -> None:
        """Start the thread where the database cannot be used: everything goes to the spool.

        Args:
            why: told as ``last_error``; the database is never looked at.

        Raises:
            ValueError: there is no spool.
        """
        self.leave(why)
        self._begin()

    def leave(self, why: str) -> None:
        """Never touch the database again, as after ``start_without``; from any thread.

        Args:
            why: told as ``last_error``.

        Raises:
            ValueError: there is no spool.
        """
        if self._apart is None:
            raise ValueError("a writer without a database needs a spool")
        self._without = why
        self._held.wake()

    def _begin(self) -> None:
        self._thread = threading.Thread(target=self._run, name="writer", daemon=True)
        self._thread.start()
        if self._apart is not None:
            self._apart.stand_in(lambda: self._unanswered_s >= _SPOOL_AFTER_S)

    def stop(self, timeout_s: float = _STOP_TIMEOUT_S) -> int:
        """Write what is held, then end the thread. Blocks; takes no more records from now on.

        Args:
            timeout_s: how long a database that is away is waited for, in seconds, where no spool
                takes what is left.

        Returns:
            How many records were lost because it did not come back; their futures fail.
        """
        self._held.end(timeout_s)
        if self._thread is not None:
            # The thread keeps the deadline itself, unless the driver does not return to it.
            self._thread.join(timeout_s + 0.5)
        left = self._held.left() if self._apart is None else self._apart.keep_last()
        lost = sum(len(group.records) for group in left)
        if left:
            metrics.RECORDS_LOST.inc(lost)
            _log.error(
                "records_lost", database=describe(self._url), records=lost, waited_s=timeout_s
            )
            self._held.settle(left, DatabaseError(f"{describe(self._url)}: gave up writing"))
        return lost

    async def store(self, *records: Record) -> None:
        """Store records as one: all or none. Returns when they are durable.

        Waits while the writer holds its fill.

        Raises:
            DatabaseError: the writer is stopped, or was before it could write.
            ValueError: a record that no database would take.
            sqlalchemy.exc.DBAPIError: a record that this database refused.
        """
        await self._held.store(records)

    def submit(self, *records: Record) -> Future[None]:
        """``store`` for other threads: returns once the records are accepted.

        Blocks while the writer holds its fill, so not for the event loop's thread.

        Returns:
            Done when the records are durable; raises what ``store`` would.

        Raises:
            DatabaseError: the writer is stopped.
        """
        return self._held.submit(records)

    def _require_running(self) -> None:
        if self._held.ending or self._thread is None or not self._thread.is_alive():
            raise DatabaseError(f"{describe(self._url)}: the writer is not running")

    def _run(self) -> None:
        try:
            while self._step():
                pass
        finally:
            self._commits.disconnect()
            if self._apart is not None:
                self._apart.sync()

    def _step(self) -> bool:
        """Do what is next; False when it is time to end."""
        if self.spooling:
            return self._step_spooling()
        groups = self._held.take(enough=lambda: self._without is not None)
        if self._without is not None:
            self._spool_from_now()
            return True
        return bool(groups) and self._write(groups)

    def _write(self, groups: list[Group], *, singly: bool = False) -> bool:
        """Write groups in one transaction, however long that takes; or leave them to the spool.

        Args:
            groups: settled afterwards, all of them that are not left to the spool.
            singly: whether this is the last attempt for a group that failed among others.

        Returns:
            False if ``stop`` ran out of patience first; then some groups are not settled.
        """
        ready = [group for group in groups if self._prepare(group)]
        wait_s = _FIRST_RETRY_S
        while ready:
            if self.spooling:  # since one that came before these; they are held
                break
            try:
                self._commit_since = time.monotonic()
                try:
                    if not self._commits.commit(ready):
                        continue
                finally:
                    self._commit_since = None
            except Exception as error:  # noqa: BLE001 - whatever it is, the others must be written
                if may_pass(error):
                    self._failed(error, ready)
                    if not self._lasts() and self._held.sleep(self._until_spooling(wait_s)):
                        wait_s = min(2 * wait_s, _LAST_RETRY_S)
                    elif self._apart is None:
                        return False
                    else:
                        self._spool_from_now()
                        break
                elif singly:
                    self._refuse(ready[0], error)
                    break
                else:
                    # One of them cannot be written; or somebody deleted a row behind our back,
                    # and all can, once the ids are asked for again.
                    self._commits.batches.forget()
                    return all(self._write([group], singly=True) for group in ready)
            else:
                self._outage.succeeded()
                self._held.settle(ready)
                break
        return True

    def _lasts(self) -> bool:
        """Whether it is time for the spool."""
        lasts = self._without is not None or self._outage.lasted_s >= _SPOOL_AFTER_S
        return self._apart is not None and lasts

    def _until_spooling(self, wait_s: float) -> float:
        if self._apart is None:
            return wait_s
        return max(0.0, min(wait_s, _SPOOL_AFTER_S - self._outage.lasted_s))

    def _spool_from_now(self) -> None:
        """Begin to spool, with what is held."""
        assert self._apart is not None
        self._apart.active = True
        self._replaying = False
        self._probe_at = time.monotonic() + _PROBE_S

    def _step_spooling(self) -> bool:
        """Keep what came in the spool, and look for the database now and then."""
        assert self._apart is not None
        wait_s = _TRY_SPOOL_S if self._apart.error is not None else _PROBE_S
        if self._without is None:
            wait_s = max(0.0, min(wait_s, self._probe_at - time.monotonic()))
        self._held.take(wait_s)
        # What another thread took while this one hung is among it.
        unkept = self._apart.keep([group for group in self._held.left() if self._prepare(group)])
        if self._held.ending:
            # Whatever is in the spool by then is left to the next start.
            if not unkept and not self._replaying:
                return False
            if not self._held.sleep(0.0 if self._replaying else _FIRST_RETRY_S):
                return False
        if self._without is None and time.monotonic() >= self._probe_at:
            return self._probe()
        return True

    def _probe(self) -> bool:
        """Take some of the spool into the database, if that is back."""
        assert self._replay is not None
        self._commit_since = time.monotonic()
        try:
            connection, before = self._commits.connection(), self._replay.taken
            self._replaying = self._replay.step(connection)
            if self._replay.taken > before:
                self._outage.succeeded()
            if not self._replaying and not self._finish(self._replay, connection):
                self._replaying = True
        except Exception as error:  # noqa: BLE001 - whatever it is, it has to be looked at again
            self._failed(error, self._held.left())
            self._replaying = False
            self._probe_at = time.monotonic() + _PROBE_S
            return True
        finally:
            self._commit_since = None
        if self._replaying:
            return True
        self._commits.disconnect()  # so that the mark is read anew
        return self._write(self._held.left())

    def _finish(self, replay: Replay, connection: Connection) -> bool:
        """End the spool, of which nothing was left; False if something has come into it since."""
        assert self._apart is not None
        replay.secure(connection)
        with self._apart.lock:
            gone = replay.clear()
            if not self._apart.is_empty:
                return False
            self._apart.active, self._apart.error = False, None
        replay.forget(connection, gone)
        return True

    def _refuse(self, group: Group, error: Exception) -> None:
        _log.error("record_refused", database=describe(self._url), error=error_line(error))
        self._held.settle([group], error)

    def _prepare(self, group: Group) -> bool:
        try:
            group.batch = group.batch or Batch.of(group.records)
        except Exception as error:  # noqa: BLE001 - it is raised where the record came from
            self._refuse(group, error)
            return False
        return True

    def _failed(self, error: Exception, groups: list[Group]) -> None:
        self._commits.disconnect()
        self._outage.failed(error, sum(len(group.records) for group in groups))
