"""Looks after the gateway itself: its database, disk, clock, model, channels, and that it moves."""

import asyncio
import shutil
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path

from alerts.conditions import Change
from alerts.gateway import (
    BEHIND,
    CHANNEL,
    CLOCK,
    DATABASE,
    DISK,
    MODEL,
    RHYTHM_MODEL,
    STALLED,
    GatewayWatch,
)
from alerts.technical import Moment
from ingest.chunk import Stream
from monitor import irregularity, watchdog
from monitor.clock import now as present
from monitor.clock import steady_s, synchronised
from monitor.clock_trouble import disagreement, impossible
from monitor.progress import Progress, Stage, Stall
from monitor.quality import Reason
from monitor.results import WindowResult
from monitor.stopping import pause
from monitor.storage.database import folder_of
from monitor.storage.writer import Writer

_LOOK_S = 1.0
_SLOWLY_S = 60.0

# A clock that disagrees with the devices' may be about to be set: a gateway that boots reaches its
# time server within some seconds.
_APART_NS = 20_000_000_000

# A day of one patient takes some 40 MB; below this there are days left, not weeks.
_FREE_BYTES = 500_000_000
_FREE_SHARE = 0.02

# Windows that are skipped this near to each other are skipped all the time; one alone is a hiccup.
_SKIPPING_NS = 15_000_000_000

# Nothing that works takes so long for one chunk, batch or commit. With the patience of the alarm
# people are told within a minute, and the sign of life stops after that (``monitor.watchdog``).
_STILL_S = 10.0

# So long it stands still until people are told, and a command that asks.
_TOLD_S = 40.0

_OF_STAGE = {
    Stage.INTAKE: "taking in the signal of {}",
    Stage.ANALYSIS: "the analysis of {}",
    Stage.STORAGE: "storing the signal of {}",
}

# That a new database was begun is told once, and over when everybody has had time to read it.
_NOTICE_NS = 600_000_000_000

# So many windows in a row that the model could not read are no accident.
_MODEL_FAILURES = 3


class Gateway:
    """Watches over the gateway.

    Args:
        watch: decides.
        writer: the started writer.
        database: its URL.
        channels: names of the configured ones.
        conclude: takes the changes.
        progress: whether the path of a sample moves.
        now: the time.
    """

    def __init__(
        self,
        watch: GatewayWatch,
        writer: Writer,
        database: str,
        channels: Collection[str],
        conclude: Callable[[Sequence[Change]], None],
        *,
        progress: Progress | None = None,
        now: Callable[[], Moment] = present,
    ) -> None:
        self._watch = watch
        self._progress = progress or Progress()
        self._write_failures = 0
        self._writer = writer
        self._folder = folder_of(database)
        self._conclude = conclude
        self._now = now
        self._conditions = {BEHIND, STALLED, DATABASE, DISK, CLOCK, MODEL, RHYTHM_MODEL}
        self._conditions.update(f"{CHANNEL}:{name}" for name in channels)
        # Of a channel that was not used yet nobody knows whether it works.
        self._channels: dict[str, str | None] = {}
        self._clocks_apart: Callable[[], Mapping[Stream, float]] = dict
        self._agreed_ns = now().steady_ns
        self._skipped = 0
        self._skipped_ns: int | None = None
        self._failures = 0
        self._no_model: str | None = None
        self._no_rhythm_model: str | None = None
        self._no_database: str | None = None
        self._notice: tuple[str, int] | None = None
        # Before the first window nobody knows whether the model that failed then works now.
        self._classified = False

    @property
    def model_works(self) -> bool:
        """Whether the model was loaded, and has not failed at window after window."""
        return self._no_model is None and self._failures < _MODEL_FAILURES

    @property
    def why_no_model(self) -> str | None:
        """What keeps classes from being seen; None if nothing does."""
        if self.model_works:
            return None
        return self._no_model or f"the model failed at the last {self._failures} windows"

    @property
    def why_no_rhythm_model(self) -> str | None:
        """What keeps lethal rhythms from being seen; None if nothing does."""
        return self._no_rhythm_model

    def channel(self, name: str, wrong: str | None) -> None:
        """Take in whether a channel works, and why not."""
        self._channels[name] = wrong

    def compare_clocks(self, apart: Callable[[], Mapping[Stream, float]]) -> None:
        """Look from now on which devices' clocks disagree with the gateway's.

        Args:
            apart: gives those, and by how much each is ahead, in seconds.
        """
        self._clocks_apart = apart

    def no_database(self, why: str) -> None:
        """Take in that the daemon had to start without its database."""
        self._no_database = why

    def database_notice(self, why: str) -> None:
        """Take in what was done to the database, or to its file, that people must know."""
        self._notice = why, self._now().steady_ns

    def no_model(self, why: str) -> None:
        """Take in that the model could not be loaded."""
        self._no_model = why

    def no_rhythm_model(self, why: str) -> None:
        """Take in that the model of the watch for lethal rhythms could not be loaded."""
        self._no_rhythm_model = why

    def result(self, result: WindowResult) -> None:
        """Take in a window: whether there was the time to read it, and whether the model could."""
        if Reason.SKIPPED in result.grade.reasons:
            self._skipped += 1
            self._skipped_ns = self._now().steady_ns
        elif Reason.FAILED in result.grade.reasons:
            self._failures += 1
        elif result.model is not None and result.model != irregularity.MODEL:
            self._failures = 0
            self._classified = True

    async def run(self, stop: asyncio.Event) -> None:
        """Look until ``stop``."""
        slowly_s = 0.0
        while not stop.is_set():
            self._look()
            if steady_s() >= slowly_s:
                slowly_s = steady_s() + _SLOWLY_S
                self._look_slowly()
            await pause(stop, _LOOK_S)

    def _look(self) -> None:
        now = self._now()
        self._look_at_clock(now)
        self._look_at_database(now)
        behind = self._skipped_ns is not None and now.steady_ns - self._skipped_ns < _SKIPPING_NS
        why = f"{self._skipped} windows were not read for lack of time"
        self._say(BEHIND, behind, why if behind else "all windows are read in time again")
        self._look_for_stall()
        for name, wrong in self._channels.items():
            condition = f"{CHANNEL}:{name}"
            self._say(condition, wrong is not None, wrong or f"{name} delivers again")
        why = self._no_rhythm_model or "lethal rhythms are watched for again"
        self._say(RHYTHM_MODEL, self._no_rhythm_model is not None, why)
        why_not = self.why_no_model
        if why_not is not None:
            self._say(MODEL, True, why_not)
        elif self._classified:
            self._say(MODEL, False, "the model reads windows again")

    def stalled(self) -> str | None:
        """What stands still, in words; None if everything moves."""
        stall = self._progress.stalled(_TOLD_S)
        return None if stall is None else why_stalled(stall)

    def _look_for_stall(self) -> None:
        failures = self._writer.failures
        if failures != self._write_failures:
            # A database that is away is told of as such; the writer itself works.
            self._write_failures = failures
            self._progress.works(Stage.STORAGE)
        stall = self._progress.stalled(_STILL_S)
        why = "everything moves again" if stall is None else why_stalled(stall)
        self._say(STALLED, stall is not None, why)

    def _look_at_clock(self, now: Moment) -> None:
        apart = disagreement(self._clocks_apart(), synchronised=synchronised())
        if apart is None:
            self._agreed_ns = now.steady_ns
        elif now.steady_ns - self._agreed_ns < _APART_NS:
            apart = None
        why = "; ".join(filter(None, (impossible(now.utc_ns), apart)))
        self._say(CLOCK, bool(why), why or "the gateway's clock is right, as far as one can see")

    def _look_at_database(self, now: Moment) -> None:
        error = self._writer.last_error
        notice = None
        if self._notice is not None and now.steady_ns - self._notice[1] < _NOTICE_NS:
            notice = self._notice[0]
        wrong = notice or error
        # What was so at the start is no hiccup.
        at_once = notice is not None or self._no_database is not None
        why = wrong or "the database can be written again"
        self._say(DATABASE, wrong is not None, why, at_once=at_once)

    def _look_slowly(self) -> None:
        if self._folder is not None:
            self._look_at_disk(self._folder)
        self._conclude(self._watch.end_unwatched(self._conditions, self._now()))

    def _look_at_disk(self, folder: Path) -> None:
        try:
            usage = shutil.disk_usage(folder)
        except OSError as error:
            self._say(DISK, True, f"{folder}: {error.strerror}")
            return
        full = usage.free < min(_FREE_BYTES, _FREE_SHARE * usage.total)
        self._say(DISK, full, f"{folder}: {usage.free // 1_000_000} MB free")

    def _say(self, condition: str, wrong: bool, why: str, *, at_once: bool = False) -> None:
        now = self._now()
        change = self._watch.look(condition, now, wrong=wrong, why=why, at_once=at_once)
        if change is not None:
            self._conclude([change])


def why_stalled(stall: Stall) -> str:
    """What stands still, in words, and what becomes of it."""
    what = _OF_STAGE[stall.stage].format(stall.stream)
    then = "leadone is restarted by itself" if watchdog.is_asked() else "restart leadone"
    return f"{what} has stood still for {stall.seconds:.0f} s; {then}"
