"""Keeps in a spool what a writer holds, and gives up what can be kept nowhere."""

import threading
import time
from collections.abc import Callable, Sequence
from itertools import groupby

import structlog

from monitor import metrics
from monitor.storage.database import error_line
from monitor.storage.group import Group, to_give_up
from monitor.storage.held import Held
from monitor.storage.replay import MARK
from monitor.storage.spool import Spool

_log = structlog.get_logger(__name__)

_TELL_LOST_S = 60.0
_LOOK_S = 1.0

# Where there is little room, some go in.
_AT_ONCE = 256


class Spooling:
    """The way from a writer into its spool.

    Attributes:
        name: by which the database knows the writer.
        error: why the spool takes nothing; None where it does.
        active: whether groups go to the spool, and not to the database; changed with the lock.
        failures: how many times it took nothing.
        lock: held while the spool is written or cleared: when the writer's thread hangs, another
            one puts into it what is held.
    """

    def __init__(self, spool: Spool, held: Held) -> None:
        """Prepare.

        Args:
            spool: where groups go.
            held: where they come from.
        """
        self.name = f"writer {spool.name}"
        self.error: str | None = None
        self.failures = 0
        self._spool = spool
        self._held = held
        self.active = False
        self.lock = threading.RLock()
        self._ended = threading.Event()
        self._lost = 0
        self._lost_told_at = 0.0

    @property
    def is_empty(self) -> bool:
        """Whether nothing is kept."""
        return self._spool.is_empty

    def keep(self, groups: Sequence[Group]) -> list[Group]:
        """Put groups into the spool; where it takes nothing, give up what is too much to hold.

        Returns:
            Those that are still held.
        """
        with self.lock:
            try:
                # Another thread may have been faster.
                self._put(self._held.unsettled(groups))
                if not groups:
                    self._spool.sync()
            except OSError as error:
                if self.error is None:
                    _log.error("spool_unavailable", error=str(error), records=self._held.records)
                self.error = error.strerror or str(error)
                self.failures += 1
            else:
                self.error = None
        if self.error is not None:
            self._give_up(groups)
        return self._held.unsettled(groups)

    def stand_in(self, hangs: Callable[[], bool]) -> None:
        """Begin to put into the spool what is held while the writer's thread hangs.

        Args:
            hangs: whether it does, in a call that may never come back.
        """

        def look() -> None:
            while not self._ended.wait(_LOOK_S):
                if hangs():
                    # Asked again with the lock: it may have come back, and ended the spool.
                    with self.lock:
                        if hangs():
                            self.active = True
                            self.keep(self._held.left())

        threading.Thread(target=look, name="stand-in", daemon=True).start()

    def keep_last(self, patience_s: float = 0.5) -> list[Group]:
        """Put into the spool what is held at the end, unless somebody hangs in the spool.

        Returns:
            What it did not take.
        """
        self._ended.set()
        groups = self._held.left()
        if groups and self.lock.acquire(timeout=patience_s):
            try:
                self._put(self._held.unsettled(groups))
            except OSError as error:
                _log.error("spool_unavailable", error=str(error), records=self._held.records)
            finally:
                self.lock.release()
        return self._held.unsettled(groups)

    def sync(self) -> None:
        """Have the disk write what is kept."""
        with self.lock:
            self._spool.sync()

    def _put(self, groups: Sequence[Group]) -> None:
        """Put groups into the spool, and settle them.

        Raises:
            OSError: it takes no more; the groups that are not settled are not in it.
        """
        for mark, some in groupby(groups, key=lambda group: group.mark):
            run = list(some)
            for i in range(0, len(run), _AT_ONCE):
                self._put_run(run[i : i + _AT_ONCE], mark)

    def _put_run(self, run: list[Group], mark: int | None) -> None:
        about = None if mark is None else {MARK: [self.name, mark]}
        try:
            self._spool.append([group.records for group in run], about)
        except TypeError as error:
            if len(run) > 1:
                for group in run:
                    self._put_run([group], mark)
                return
            _log.error("record_refused", error=error_line(error))
            self._held.settle(run, error)
        else:
            self._held.settle(run)

    def _give_up(self, groups: Sequence[Group]) -> None:
        """Make room: whoever watches a heart must not wait for ever."""
        room = self._held.capacity - self._held.capacity // 8
        lost = to_give_up(groups, self._held.records - room)
        records = sum(len(group.records) for group in lost)
        metrics.RECORDS_LOST.inc(records)
        self._held.settle(lost)
        self._lost += records
        if self._lost and time.monotonic() >= self._lost_told_at:
            self._lost_told_at = time.monotonic() + _TELL_LOST_S
            _log.error("records_lost", records=self._lost, error=self.error)
            self._lost = 0
