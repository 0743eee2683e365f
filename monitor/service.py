"""Puts the daemon together from a configuration and runs it."""

import asyncio
import socket
import time
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import structlog

from alerts.conditions import Change
from alerts.engine import Engine
from alerts.lethal import RhythmEngine
from alerts.rhythm import RhythmSeen
from alerts.technical import device_of
from ingest.chunk import Chunk, Stream
from ingest.rr import RrIntervals
from ingest.source import Source
from models.bundle import DEFAULT, Bundle, BundleError, find_bundle
from models.rhythm.model import RhythmModel
from models.runtime import Runtime
from monitor.analysis import Analyzer
from monitor.backlog import Backlog
from monitor.config import Config, ConfigError
from monitor.contacts import build_channels
from monitor.daemon import Daemon
from monitor.devices import GONE_S
from monitor.handover import attempt
from monitor.metrics import RESULTS_REFUSED
from monitor.policies import build_policies
from monitor.results import WindowResult
from monitor.resume import backlog, ends, recent, restore, starts
from monitor.rhythms import Rhythms
from monitor.storage import maintenance
from monitor.storage.history import History
from monitor.storage.records import Patient
from monitor.storage.writer import Writer
from monitor.straps import Straps, check_straps
from monitor.watchers import Watchers

_log = structlog.get_logger()

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
    started = time.monotonic()
    url = config.database.get_secret_value()
    usable = bundle if isinstance(bundle, Bundle) else None
    engine = Engine(build_policies(config, usable))
    rhythms = RhythmEngine()
    channels = build_channels(config) if attended else {}
    # The graph and the database are opened side by side: together they are most of the start.
    with ThreadPoolExecutor(1, thread_name_prefix="load") as opening:
        loading = opening.submit(_load, bundle, config.inference.threads)
        maintenance.upgrade(url)
        with History(url) as history:
            now_ns = time.time_ns()
            straps = _straps(config, history) if attended else Straps((), ())
            configured = [Stream(s.patient, s.device) for s in config.sources]
            sources = [*sources, *straps.sources()]
            listening = attended and config.mqtt is not None
            if not sources and not listening:
                raise ConfigError([_NOTHING])
            known = _known(history, now_ns) if listening else ()
            streams = [*dict.fromkeys((*configured, *straps.streams, *known))]
            stored = ends(history, now_ns=now_ns)
            left = backlog(
                history,
                streams,
                now_ns=now_ns,
                length_s=config.window.length,
                hop_s=config.window.hop,
            )
            heard = recent(history, streams, now_ns=now_ns)
            not_taken_up = restore(
                engine,
                rhythms,
                history,
                now_ns=now_ns,
                hop_s=config.window.hop,
                left=left,
                classes=usable is not None,
                attended=attended,
            )
            runtime, broken = _loaded(loading)
            rhythm_model, no_rhythms = _rhythm_model()
            writer = Writer(url)
            writer.start()
            # Before everything else that is stored; a database that only reads at the moment must
            # keep nobody from being watched.
            names = [Patient(p.id, p.name) for p in config.patients]
            naming = asyncio.create_task(attempt(writer, RESULTS_REFUSED, names))
            await asyncio.sleep(0)
            parts = Watchers(
                config,
                {} if usable is None else usable.class_names,
                history,
                writer,
                engine,
                rhythms,
                channels,
                straps,
                on_change,
                attended=attended,
                listening=control,
            )
            if listening:
                sources.append(parts.listen(known))
            if broken is not None:
                parts.gateway.no_model(broken)
            if no_rhythms is not None:
                parts.gateway.no_rhythm_model(no_rhythms)
            parts.alarms.conclude(not_taken_up)
            watch = Rhythms(
                rhythm_model,
                on_seen=[*parts.on_rhythm, *on_rhythm],
                on_beat=parts.alarms.beat,
            )
            daemon = Daemon(
                sources,
                writer=writer,
                analyzer=Analyzer(runtime),
                alarms=parts.alarms,
                length_s=config.window.length,
                hop_s=config.window.hop,
                ended={stream: stored[stream] for stream in streams if stream in stored},
                on_chunk=[parts.chunk, watch.add],
                on_result=[*on_result, *parts.on_result],
                progress=parts.progress,
            )
            _log.info(
                "ready",
                bundle=None if usable is None else usable.name,
                sources=len(sources),
                patients=len(config.patients),
                backlog_chunks=len(left),
                seconds=round(time.monotonic() - started, 2),
            )
            old = Backlog(
                url,
                writer,
                daemon.read_beside,
                length_s=config.window.length,
                hop_s=config.window.hop,
                until=stored | starts(left),
            )
            await _together(daemon, parts, left, heard, stop, old.run if attended else None)
            await naming
    _log.info("stopped")


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


def _known(history: History, now_ns: int) -> list[Stream]:
    """Streams that something came of in the last week.

    Not only those with windows: before its first one a device may have sent fibrillation.
    """
    since_ns = now_ns - GONE_S * 1e9
    return [stream for stream, end_ns in ends(history, now_ns=now_ns).items() if end_ns > since_ns]


def _straps(config: Config, history: History) -> Straps:
    paired = history.straps()
    check_straps(config, (strap for strap, _ in paired))
    active = history.active_alarms()
    if config.mqtt is not None:
        # Those of a broker's devices are of the same kinds, and not left behind by a strap.
        of_straps = {strap.stream for strap, _ in paired}
        active = [a for a in active if Stream(a.patient, device_of(a)) in of_straps]
    return Straps(paired, active)
