"""Opens the database at a start, whatever its state, so that hearts are watched and people told.

A database that can be used is brought to the program's schema and read as ever. One whose pages
are damaged is set aside under another name, and a new one begun with what could be read of alarms,
patients, pairings and messages. Of one that cannot be used now (full, read-only, away, made by a
newer version) what can be read of these is copied into a small *snapshot*, which the daemon starts
from; what it stores goes to the spool until the database is well again.

All of this blocks, and may do so for as long as a disk does not answer: call it on a thread.
"""

import threading
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import structlog

from monitor.snapshot import (
    late_spool,
    remove_database,
    restore_pairings,
    spools,
    take_snapshot,
)
from monitor.storage import maintenance
from monitor.storage.database import (
    DatabaseError,
    describe,
    open_engine,
    parse_url,
    sqlite_path,
    told,
)
from monitor.storage.history import History
from monitor.storage.identity import FileIdentity
from monitor.storage.kinds import Kind
from monitor.storage.only_one import Held, hold
from monitor.storage.pairings import keep, kept
from monitor.storage.places import state_folders
from monitor.storage.replay import replay
from monitor.storage.salvage import Salvaged, salvage, set_aside
from monitor.storage.schema import REVISION
from monitor.storage.spool import Spool

_log = structlog.get_logger()

_SQLITE = b"SQLite format 3\0"

# A lock that somebody's shell or a backup holds is no reason to start without the database.
_LOCK_S = 0.5

# A file that is damaged again so soon lies on a disk that fails: no use in beginning others on it.
_DAMAGED_AGAIN_S = 3600.0


@dataclass(frozen=True, slots=True)
class Opened:
    """A database as it was found.

    Attributes:
        state: reads what an earlier run left: of the database, or of a snapshot.
        spool: where records go that the database does not take; None for a run that has none.
        trouble: why the database cannot be used now, in one line; None where it can.
        notices: what was found or done that people must know, a line each.
        snapshot: the file of the snapshot; None where there is none.
        is_empty: whether nothing but pairings was read for the snapshot.
    """

    state: History
    spool: Spool | None = None
    trouble: str | None = None
    notices: tuple[str, ...] = ()
    snapshot: Path | None = None
    is_empty: bool = False

    def close(self) -> None:
        """Close it; a snapshot is gone then."""
        self.state.close()
        if self.spool is not None:
            self.spool.close()
        if self.snapshot is not None:
            remove_database(self.snapshot)


class Opener:
    """Opens one database, again and again if need be, and keeps other daemons from it.

    Args:
        url: the database's URL.

    Raises:
        DatabaseError: the URL is none.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        self._parsed = parse_url(url)
        self._is_file = self._parsed.get_backend_name() == "sqlite"
        self._held: Held | None = None
        self._identity: FileIdentity | None = None
        self._change: str | None = None
        self.failures = 0
        """How often in a row it could not be opened."""
        self._set_aside_s = -_DAMAGED_AGAIN_S
        # Whoever gave up on a call of another thread must not do the same beside it.
        self._lock = threading.Lock()
        self._given_up = threading.Event()

    @property
    def name(self) -> str:
        """The database for people, without a password."""
        return describe(self._parsed)

    def holds(self) -> bool:
        """Whether no other daemon can use the database.

        Raises:
            AnotherError: one has begun to, while the server was away.
        """
        return self._held is not None and self._held.still()

    def close(self) -> None:
        """Let another daemon use the database, when all connections to it are closed."""
        if self._held is not None:
            self._held.release()
        if self._identity is not None:
            self._identity.close()
        self._held, self._identity = None, None

    def changed(self) -> str | None:
        """What became of the file that was opened: ``was deleted`` or the like; None if nothing."""
        if self._identity is not None:
            self._change = self._identity.changed()
        return self._change

    def open(self, *, damaged: bool = False) -> Opened:
        """Open the database, or a new one in place of one that is damaged or gone.

        Args:
            damaged: whether its pages are known to be.

        Raises:
            AnotherError: another daemon uses it.
            DatabaseError: it cannot be used now.
        """
        with self._lock:
            self._given_up.clear()
            self._hold()
            notices = [*self._begin_anew(damaged=damaged)]
            left = spools(self._url)
            try:
                opened = self._open(left)
            except DatabaseError as error:
                if error.kind is not Kind.DAMAGED or not self._is_file:
                    raise
                notices += self._set_aside(str(error))
                opened = self._open(left)
            return Opened(opened, left[0], notices=tuple(notices))

    def give_up(self) -> None:
        """Have an ``open`` that hangs do nothing more, should it ever go on."""
        self._given_up.set()

    def exists(self) -> bool:
        """Whether there is a file; there always is a server."""
        return not self._is_file or sqlite_path(self._parsed).exists()

    def may_set_aside(self) -> bool:
        """Whether a new file may take the place of one that is damaged."""
        return self._is_file and not self._damaged_lately()

    def is_gone(self) -> bool:
        """Whether there was a file, and is none."""
        return not self.exists() and self._existed()

    def keep_pairings(self) -> None:
        """Mirror the pairings beside the database; once it is known to be readable.

        Raises:
            DatabaseError: it is not.
        """
        with History(self._url) as history:
            straps = [strap for strap, _ in history.straps()]
        keep(state_folders(self._url), self._url, straps)

    def is_usable(self) -> bool:
        """Whether ``open`` would succeed now, as far as can be told without changing anything."""
        with self._lock:
            try:
                if not self.exists():
                    return self._may_begin()
                found = maintenance.current_revision(self._url)
                if found is not None and found > REVISION:
                    return False
                self._try_to_write()
            except DatabaseError as error:
                return error.kind is Kind.DAMAGED and self.may_set_aside()
            return True

    def snapshot(self, why: str, *, hangs: bool = False, empty: bool = False) -> Opened:
        """Copy what can be read of the database's live state, to start from without it.

        Args:
            why: what is wrong with the database.
            hangs: whether it gave no answer: then nothing is written to its disk.
            empty: whether to read nothing of it either.

        Raises:
            DatabaseError: nowhere can even a small file be written.
        """
        path = take_snapshot(self._url, hangs=hangs, empty=empty)
        spool = late_spool(self._url)
        if not hangs and spool.is_empty:
            # What is in the late one must go first, and so it goes on there.
            spool.close()
            spool = spools(self._url)[0]
        state = History(f"sqlite:///{path}")
        return Opened(state, spool, trouble=why, snapshot=path, is_empty=empty)

    def _open(self, left: Sequence[Spool]) -> History:
        self._hold()
        maintenance.upgrade(self._url)
        self._hold()  # a file that was just made
        self._try_to_write()
        for spool in left:
            if self._given_up.is_set():
                raise DatabaseError(f"{self.name}: opened too late", Kind.AWAY)
            replay(spool, self._url)
        for spool in left[1:]:
            spool.close()
        history = History(self._url)
        if self._is_file:
            self._identity = FileIdentity(sqlite_path(self._parsed))
        return history

    def _hold(self) -> None:
        if not self.exists():
            return
        if self._held is None or self.changed() is not None:
            self._held = hold(self._url)
        self._held.still()

    def _begin_anew(self, *, damaged: bool) -> Sequence[str]:
        """Put a new file in place of one that is damaged or gone; what to tell of it."""
        if not self._is_file:
            return ()
        path = sqlite_path(self._parsed)
        emptied = path.exists() and path.stat().st_size == 0 and self._existed()
        if path.exists() and not emptied:
            if damaged:
                return self._set_aside("its pages are damaged")
            if self.changed() is None:
                return ()
            self._change = None
            return [f"{path} was replaced by another file while it was used: that one is used now"]
        if not self._existed():
            return ()
        if not (emptied or self._may_begin()):
            # What lay beside it is gone too: of a disk that is not mounted, nothing is replaced.
            raise DatabaseError(
                f"{describe(self._parsed)}: the file is gone, with all that lay beside it: is its "
                "disk mounted?",
                Kind.AWAY,
            )
        self.close()
        maintenance.upgrade(self._url)
        restore_pairings(self._url, self._url)
        _log.error("database_gone", database=self.name)
        notice = (
            f"{path} was deleted or emptied: a new database was begun with the paired straps, and "
            "what was recorded before is not in it. If there is a backup, put it in its place"
        )
        return [notice]

    def _may_begin(self) -> bool:
        """Whether a file that is not there may be begun: there never was one, or it was deleted.

        Where what lay beside it is gone too, its disk is not mounted.
        """
        folder = sqlite_path(self._parsed).absolute().parent
        return not self._existed() or kept([folder], self._url) is not None

    def _damaged_lately(self) -> bool:
        return time.monotonic() - self._set_aside_s < _DAMAGED_AGAIN_S

    def _set_aside(self, why: str) -> Sequence[str]:
        if not self._existed() and not _is_sqlite(sqlite_path(self._parsed)):
            raise DatabaseError(
                f"{self.name}: is no database of leadone: name another file, or move it away",
                Kind.OTHER,
            )
        if self._damaged_lately():
            raise DatabaseError(
                f"{describe(self._parsed)}: damaged again: is its disk failing?", Kind.OTHER
            )
        self._set_aside_s = time.monotonic()
        path = sqlite_path(self._parsed)
        aside = set_aside(path)
        self.close()
        read = self._salvage(aside)
        maintenance.upgrade(self._url)
        restore_pairings(self._url, self._url)
        _log.error(
            "database_set_aside",
            database=describe(self._parsed),
            reason=why,
            file=str(aside),
            read=None if read is None else read.counts,
            problems=None if read is None else read.problems,
        )
        notice = (
            f"{path} was damaged: it was set aside as {aside.name}, and a new database begun with "
            "what could be read of alarms, patients and pairings. Older history is only in there"
        )
        return [notice]

    def _salvage(self, source: Path) -> Salvaged | None:
        """Copy what can be read of a file into the new database; None if nothing could be."""
        try:
            return salvage(source, self._url)
        except DatabaseError:
            _log.exception("nothing_salvaged", file=str(source))
            return None

    def _existed(self) -> bool:
        known = kept(state_folders(self._url), self._url)
        return known is not None and known.database_existed

    def _try_to_write(self) -> None:
        """Write nothing new, to see whether that is possible.

        Raises:
            DatabaseError: it is not; a lock that somebody else holds is no reason.
        """
        engine = open_engine(self._parsed)
        try:
            with told(self._parsed), closing(engine.raw_connection()) as connection:
                cursor = connection.cursor()
                if self._is_file:
                    cursor.execute(f"PRAGMA busy_timeout = {round(_LOCK_S * 1000)}")
                    cursor.execute("BEGIN IMMEDIATE")
                cursor.execute("UPDATE alembic_version SET version_num = version_num")
                connection.commit()
        except DatabaseError as error:
            if error.kind is not Kind.LOCKED:
                raise
        finally:
            engine.dispose()


def _is_sqlite(path: Path) -> bool:
    """Whether a file begins as SQLite's do; one that cannot be read may."""
    try:
        with path.open("rb") as file:
            return file.read(len(_SQLITE)) == _SQLITE
    except OSError:
        return True
