"""Puts the daemon together from a configuration and runs it."""

import asyncio
import socket
import time
from collections.abc import Callable, Coroutine, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import structlog

from alerts.conditions import Change
from alerts.engine import Engine
from alerts.lethal import RhythmEngine
from alerts.rhythm import RhythmSeen
from ingest.chunk import Chunk
from ingest.rr import RrIntervals
from ingest.source import Source
from models.bundle import DEFAULT, Bundle, BundleError, find_bundle
from models.rhythm.model import RhythmModel
from models.runtime import Runtime
from monitor import watchdog
from monitor.analysis import Analyzer
from monitor.backlog import Backlog
from monitor.config import Config, ConfigError
from monitor.contacts import build_channels
from monitor.daemon import Daemon
from monitor.database_care import DatabaseCare, open_somehow
from monitor.earlier_run import readable, take_up
from monitor.handover import attempt
from monitor.metrics import RESULTS_REFUSED
from monitor.opening import Opened, Opener
from monitor.policies import build_policies
from monitor.results import WindowResult
from monitor.resume import starts
from monitor.rhythms import Rhythms
from monitor.storage import maintenance
from monitor.storage.database import DatabaseError
from monitor.storage.history import History
from monitor.storage.kinds import Kind
from monitor.storage.records import Patient
from monitor.storage.writer import Writer
from monitor.watchers import Watchers

_log = structlog.get_logger()

_FAILED_STOP_S = 1.0

_NOTHING = "nothing to watch: configure a source or broker, or leadone pair ADDRESS --patient ID"


def open_bundle(config: Config) -> Bundle:
    """The bundle that the configuration names, or the shipped one.

    Raises:
        BundleError: if there is none, or it is not usable.
    """
    return find_bundle(config.bundle or DEFAULT)


def bundle_or_why_none(config: Config) -> Bundle | BundleError:
    """The bundle that the daemon runs with, or what keeps it from running with one.

    Raises:
        ConfigError: if the configuration does not fit the bundle.
    """
    try:
        bundle = open_bundle(config)
        build_policies(config, bundle)
    except BundleError as error:
        return error
    return bundle


async def serve(
    config: Config,
    sources: Sequence[Source],
    bundle: Bundle | BundleError,
    *,
    stop: asyncio.Event,
    attended: bool = True,
    control: socket.socket | None = None,
    on_result: Sequence[Callable[[WindowResult], None]] = (),
    on_change: Sequence[Callable[[Change], None]] = (),
    on_rhythm: Sequence[Callable[[RhythmSeen], None]] = (),
) -> None:
    """Run the daemon until its sources end or ``stop`` is set.

    Args:
        config: the configuration.
        sources: the configured ones.
        bundle: what classifies; or why nothing can: lethal rhythms, rates and pauses are watched
            all the same, and people told that classes are not.
        stop: ends the run.
        attended: whether the straps that are paired in the database and the configured broker are
            watched too, and people told of alarms; a second daemon beside one that does must not.
        control: from ``monitor.control.claim``: what commands ask the daemon by; None: nothing.
        on_result: called with every stored result.
        on_change: called with every alarm that begins or ends.
        on_rhythm: called with every verdict of the watch for lethal rhythms.

    Raises:
        ConfigError: if the configuration does not fit the bundle or the paired straps, or there
            are neither sources nor straps nor a broker.
        DatabaseError: if the database cannot be used.
    """
    url = config.database.get_secret_value()
    opener = Opener(url) if attended else None
    usable = bundle if isinstance(bundle, Bundle) else None
    build_policies(config, usable)  # raises what is wrong with them before anything is opened
    try:
        # The graph and the database are opened side by side: together they are most of the start.
        with ThreadPoolExecutor(1, thread_name_prefix="load") as opening:
            given = _Given(
                config,
                usable,
                opening.submit(_load, bundle, config.inference.threads),
                sources,
                control,
                on_result,
                on_change,
                on_rhythm,
            )
            await _run(given, opener, stop)
    finally:
        if opener is not None:
            opener.close()
    _log.info("stopped")


@dataclass(frozen=True, slots=True)
class _Given:
    """What ``serve`` was given, and the network that it is loading."""

    config: Config
    bundle: Bundle | None
    loading: Future[Runtime]
    sources: Sequence[Source]
    control: socket.socket | None
    on_result: Sequence[Callable[[WindowResult], None]]
    on_change: Sequence[Callable[[Change], None]]
    on_rhythm: Sequence[Callable[[RhythmSeen], None]]


async def _run(given: _Given, opener: Opener | None, stop: asyncio.Event) -> None:
    """Watch hearts with the database as it is, and anew when that has changed, until ``stop``."""
    url = given.config.database.get_secret_value()
    damaged, empty, again = False, False, False
    unreadable: str | None = None
    while True:  # once, but for a database that is sick
        started = time.monotonic()
        if opener is None:
            opened = _open(url)
        else:
            watchdog.alive()  # it may take most of the time that systemd allows
            opened = await open_somehow(
                opener, damaged=damaged, unreadable=unreadable, empty=empty, again=again
            )
        damaged, empty, unreadable, again = False, False, None, True
        try:
            care = DatabaseCare(opener, opened)
            await _watch(given, opened, care, stop, started)
        except DatabaseError as error:
            if opener is None or opened.is_empty:
                raise
            _log.exception("not_taken_up")
            damaged = error.kind is Kind.DAMAGED and opened.trouble is None
            unreadable = None if damaged else str(error)
            empty = opened.trouble is not None
        else:
            if opener is None or stop.is_set() or not care.begins_anew:
                break
            damaged = care.is_damaged
        finally:
            opened.close()
        opener.close()


def _open(url: str) -> Opened:
    """Open the database for a run that tells nobody: one that is sick ends it."""
    opener = Opener(url)
    if opener.is_gone():
        raise DatabaseError(f"{opener.name}: the file is gone; leadone run begins a new one")
    maintenance.upgrade(url)
    return Opened(History(url))


@contextmanager
def _stopping(writer: Writer) -> Iterator[None]:
    """Stop the writer of a run that fails before it begins."""
    try:
        yield
    except BaseException:
        writer.stop(_FAILED_STOP_S)
        raise


async def _watch(
    given: _Given, opened: Opened, care: DatabaseCare, stop: asyncio.Event, started: float
) -> None:
    """Watch hearts until ``stop``, or until the daemon is to begin anew with its database."""
    config, bundle = given.config, given.bundle
    state, attended = opened.state, care.is_attended
    engine = Engine(build_policies(config, bundle))
    rhythms = RhythmEngine()
    channels = build_channels(config) if attended else {}
    url = config.database.get_secret_value()
    # What was salvaged may pair a strap that this program or configuration does not know.
    lenient = opened.trouble is not None or bool(opened.notices)
    with readable(url):
        left = take_up(config, bundle, state, engine, rhythms, attended=attended, lenient=lenient)
    listening = attended and config.mqtt is not None
    sources = [*given.sources, *left.straps.sources()]
    if not sources and not listening and opened.trouble is None:
        raise ConfigError([_NOTHING])
    runtime, broken = _loaded(given.loading)
    rhythm_model, no_rhythms = _rhythm_model()
    writer = Writer(url, spool=care.spool)
    with (
        History(url, checked=opened.trouble is None) as history,
        _stopping(writer),
    ):
        if opened.trouble is None:
            writer.start()
        else:
            writer.start_without(opened.trouble)
        # Before everything else that is stored; a database that only reads at the moment must
        # keep nobody from being watched.
        names = [Patient(p.id, p.name) for p in config.patients]
        naming = asyncio.create_task(attempt(writer, RESULTS_REFUSED, names))
        await asyncio.sleep(0)
        with readable(url):
            parts = Watchers(
                config,
                {} if bundle is None else bundle.class_names,
                state,
                history,
                writer,
                engine,
                rhythms,
                channels,
                left.straps,
                given.on_change,
                attended=attended,
                listening=given.control,
            )
            if listening:
                sources.append(parts.listen(left.known))
        if broken is not None:
            parts.gateway.no_model(broken)
        if no_rhythms is not None:
            parts.gateway.no_rhythm_model(no_rhythms)
        if opened.trouble is not None:
            parts.gateway.no_database(opened.trouble)
        for notice in (*left.left_out, *opened.notices):
            parts.gateway.database_notice(notice)
        parts.alarms.conclude(left.ended)
        watch = Rhythms(
            rhythm_model,
            on_seen=[*parts.on_rhythm, *given.on_rhythm],
            on_beat=parts.alarms.beat,
        )
        daemon = Daemon(
            sources,
            writer=writer,
            analyzer=Analyzer(runtime),
            alarms=parts.alarms,
            length_s=config.window.length,
            hop_s=config.window.hop,
            ended={s: left.stored[s] for s in left.streams if s in left.stored},
            on_chunk=[parts.chunk, watch.add],
            on_result=[*given.on_result, *parts.on_result],
            progress=parts.progress,
        )
        _log.info(
            "ready",
            bundle=None if bundle is None else bundle.name,
            sources=len(sources),
            patients=len(config.patients),
            backlog_chunks=len(left.backlog),
            seconds=round(time.monotonic() - started, 2),
        )
        old = Backlog(
            url,
            writer,
            daemon.read_beside,
            length_s=config.window.length,
            hop_s=config.window.hop,
            until=left.stored | starts(left.backlog),
        )
        reads_old = attended and opened.trouble is None
        async with care.until(
            stop,
            writer,
            parts.alarms.is_lethal_on,
            parts.gateway.database_notice,
            parts.alarms.live,
        ) as ending:
            beside = old.run if reads_old else None
            await _together(daemon, parts, left.backlog, left.heard, ending, beside)
        await naming


async def _together(
    daemon: Daemon,
    parts: Watchers,
    left: Sequence[Chunk | RrIntervals],
    heard: Sequence[Chunk],
    stop: asyncio.Event,
    reading: Callable[[], Coroutine[Any, Any, None]] | None,
) -> None:
    """Run the daemon, and beside it the watchers for as long as it has something to say."""
    ended = asyncio.Event()
    beside = asyncio.gather(*parts.running(ended))

    async def finish() -> None:
        ended.set()
        await asyncio.gather(beside, return_exceptions=True)

    def failed(done: "asyncio.Future[list[None]]") -> None:
        # Nothing would be told any more: the run ends, loudly, and systemd begins another.
        if not done.cancelled() and done.exception() is not None:
            stop.set()

    beside.add_done_callback(failed)
    try:
        await daemon.run(stop, backlog=left, recent=heard, last=finish, beside=reading)
        await beside
    finally:
        beside.cancel()
        await asyncio.gather(beside, return_exceptions=True)


def _load(bundle: Bundle | BundleError, threads: int) -> Runtime:
    if isinstance(bundle, BundleError):
        raise bundle
    return Runtime(bundle, threads)


def _loaded(loading: Future[Runtime]) -> tuple[Runtime | None, str | None]:
    """The network; or None and why not, in one line: hearts are watched all the same."""
    try:
        return loading.result(), None
    except Exception as error:  # noqa: BLE001 - whatever is wrong with a file, the daemon goes on
        # ONNX Runtime, which is quoted, says some things in several lines.
        why = " ".join(str(error).split()) or type(error).__name__
        _log.error("no model", reason=why, exc_info=not isinstance(error, BundleError))
        return None, why


def _rhythm_model() -> tuple[RhythmModel | None, str | None]:
    """What tells lethal rhythms apart; or None and why not: windows are watched all the same."""
    try:
        return RhythmModel(), None
    except Exception as error:  # noqa: BLE001 - whatever is wrong with a file, the daemon goes on
        _log.exception("no model of rhythms")
        return None, str(error) or type(error).__name__
