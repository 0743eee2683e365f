"""Looks after the database of a daemon: at its start, and when it is to begin anew with it."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

import structlog

from alerts.channels.threads import Threads
from monitor import watchdog
from monitor.handover import PATIENCE_S, attempt, keep
from monitor.metrics import RESULTS_REFUSED
from monitor.opening import Opened, Opener
from monitor.stopping import pause
from monitor.storage.database import DatabaseError
from monitor.storage.only_one import AnotherError
from monitor.storage.records import Record
from monitor.storage.spool import Spool
from monitor.storage.writer import Writer

_log = structlog.get_logger()

# Hearts are to be watched, and people told, within a minute and a half of the start: a migration
# of years of history, a server that does not answer or a disk that hangs are not waited for.
_OPEN_S = 25.0
_SNAPSHOT_S = 20.0

# A file that is gone is to be noticed within a minute, a database that came back soon after.
_LOOK_S = 10.0

# A database that seems well and yet does not open must not end the watch again and again.
_LONGEST_LOOK_S = 3600.0

# After so long with a database that works, an earlier failure says nothing of the next one.
_WELL_S = 600.0

# A start takes some seconds in which nobody is watched: not while a heart may have stopped.
_PUT_OFF_S = 600.0


async def open_somehow(
    opener: Opener,
    *,
    damaged: bool = False,
    unreadable: str | None = None,
    empty: bool = False,
    again: bool = False,
) -> Opened:
    """Open a database, or else a snapshot of it; whatever its state, that takes 45 s at most.

    Args:
        opener: of the database.
        damaged: whether its pages are known to be damaged.
        unreadable: why it is of no use though it opens; None if that is not known.
        empty: whether what can be read of it is of no use either.
        again: whether the daemon has run already, so that another one is no reason to end.

    Raises:
        AnotherError: another daemon uses it.
        DatabaseError: it cannot be used, and nowhere can a snapshot be written.
    """
    threads = Threads("open")
    why, hangs = unreadable, False
    if why is None:
        opening = asyncio.ensure_future(threads.run(lambda: opener.open(damaged=damaged)))
        try:
            async with asyncio.timeout(_OPEN_S):
                opened = await asyncio.shield(opening)
        except TimeoutError:
            why = (
                f"{opener.name}: did not open within {_OPEN_S:g} s: it is being brought up to "
                "date, or does not answer"
            )
            hangs = True
            opener.give_up()
            opening.add_done_callback(_close)
        except DatabaseError as error:
            why = str(error)
        except AnotherError as error:
            if not again:
                raise
            why = str(error)
        else:
            return opened
    opener.failures += 1
    _log.error("database_not_usable", reason=why)
    try:
        async with asyncio.timeout(_SNAPSHOT_S):
            return await threads.run(lambda: opener.snapshot(why, hangs=hangs, empty=empty))
    except TimeoutError:
        return await threads.run(lambda: opener.snapshot(why, hangs=True, empty=True))


def _close(opening: "asyncio.Future[Opened]") -> None:
    """Close what was opened after nobody waited for it any more."""
    if not opening.cancelled() and opening.exception() is None:
        opening.result().close()


class DatabaseCare:
    """Decides when a daemon must begin anew: its database came back, was replaced, or is damaged.

    Args:
        opener: opens the database; None for a run that tells nobody, which never begins anew.
        opened: as it was found at the start.
    """

    def __init__(self, opener: Opener | None, opened: Opened) -> None:
        self._opener = opener
        self._opened = opened
        self._threads = Threads("database")
        self._storing: set[asyncio.Task[bool]] = set()
        self.begins_anew = False
        """Whether the run was ended for another one to begin."""
        self._is_deleted = False
        self.is_damaged = False
        """Whether the database's pages are damaged."""

    @property
    def is_attended(self) -> bool:
        """Whether people are told of alarms."""
        return self._opener is not None

    @property
    def spool(self) -> Spool | None:
        """Where records are kept that the database does not take."""
        return self._opened.spool

    @asynccontextmanager
    async def until(
        self,
        stop: asyncio.Event,
        writer: Writer,
        is_urgent: Callable[[], bool],
        notice: Callable[[str], None],
        live: Callable[[], Sequence[Record]],
    ) -> AsyncIterator[asyncio.Event]:
        """Give what ends the run: set with ``stop``, or when the daemon must begin anew.

        Args:
            stop: ends the daemon.
            writer: writes to the database.
            is_urgent: whether a lethal rhythm goes on, which a new start must not interrupt.
            notice: told what people must know of the database.
            live: gives what a new database must know of the alarms that go on.
        """
        ending = asyncio.Event()

        async def relay() -> None:
            await stop.wait()
            ending.set()

        tasks = [asyncio.create_task(relay())]
        if self._opener is not None:
            tasks.append(
                asyncio.create_task(
                    self._look(self._opener, writer, is_urgent, notice, live, ending)
                )
            )
        try:
            yield ending
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _look(
        self,
        opener: Opener,
        writer: Writer,
        is_urgent: Callable[[], bool],
        notice: Callable[[str], None],
        live: Callable[[], Sequence[Record]],
        ending: asyncio.Event,
    ) -> None:
        if self._opened.trouble is None:
            await self._keep_pairings(opener)
        put_off_s, begun_s = 0.0, time.monotonic()
        wait_s = _LOOK_S
        if self._opened.trouble is not None:
            wait_s = min(_LOOK_S * 2.0 ** max(0, opener.failures - 1), _LONGEST_LOOK_S)
        while not ending.is_set():
            await pause(ending, wait_s)
            if self._opened.trouble is None and time.monotonic() - begun_s >= _WELL_S:
                opener.failures = 0
            try:
                why = await self._threads.run(lambda: self._why_anew(opener, writer))
            except AnotherError as error:
                # Better two that tell than none: which of them is to end, a person must say.
                notice(str(error))
                continue
            except Exception:  # noqa: BLE001 - it must go on looking
                _log.exception("database_not_looked_at")
                continue
            if why is None or ending.is_set():
                continue
            if is_urgent() and put_off_s < _PUT_OFF_S:
                put_off_s += wait_s
                continue
            if self._is_deleted:
                keep(self._storing, attempt(writer, RESULTS_REFUSED, live()))
                await asyncio.wait(self._storing, timeout=PATIENCE_S)
            _log.warning("begins_anew", reason=why)
            self.begins_anew = True
            watchdog.alive()  # what is due is still told, and that may take a while
            ending.set()

    async def _keep_pairings(self, opener: Opener) -> None:
        try:
            await self._threads.run(opener.keep_pairings)
        except Exception:  # noqa: BLE001 - it is not needed now
            _log.exception("pairings_not_kept")

    def _why_anew(self, opener: Opener, writer: Writer) -> str | None:
        """Why the daemon must begin anew with its database; None if it need not. Blocks."""
        if self._opened.trouble is not None:
            return "the database can be used again" if opener.is_usable() else None
        changed = opener.changed()
        if changed is not None:
            # What it holds must not be written to a file that nobody finds.
            writer.leave(f"{opener.name}: the file {changed}")
            self._is_deleted = not opener.exists()
            return f"the database file {changed}"
        opener.holds()  # a server that was away has let go of the lock
        if writer.is_damaged and opener.may_set_aside():
            self.is_damaged = True
            return "the database is damaged"
        return None
