"""Puts the daemon together from a configuration and runs it."""

import asyncio
import signal
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import structlog

from alerts.conditions import Change
from alerts.engine import Engine
from ingest.chunk import Stream
from ingest.source import Source
from models.bundle import DEFAULT, Bundle, find_bundle
from models.runtime import Runtime
from monitor.analysis import Analyzer
from monitor.config import Config, ConfigError
from monitor.daemon import Daemon
from monitor.policies import build_policies
from monitor.results import WindowResult
from monitor.resume import backlog, restore
from monitor.storage import maintenance
from monitor.storage.history import History
from monitor.storage.records import Patient
from monitor.storage.writer import Writer
from monitor.straps import Straps, check_straps

_log = structlog.get_logger()


def open_bundle(config: Config) -> Bundle:
    """The bundle that the configuration names, or the shipped one.

    Raises:
        BundleError: if there is none, or it is not usable.
    """
    return find_bundle(config.bundle or DEFAULT)


async def serve(
    config: Config,
    sources: Sequence[Source],
    bundle: Bundle,
    *,
    stop: asyncio.Event,
    with_straps: bool = True,
    on_result: Sequence[Callable[[WindowResult], None]] = (),
    on_change: Sequence[Callable[[Change], None]] = (),
) -> None:
    """Run the daemon until its sources end or ``stop`` is set.

    Args:
        config: the configuration.
        sources: the configured ones.
        bundle: what classifies.
        stop: ends the run.
        with_straps: whether the straps that are paired in the database are watched too.
        on_result: called with every stored result.
        on_change: called with every alarm that begins or ends.

    Raises:
        ConfigError: if the configuration does not fit the bundle or the paired straps, or there
            are neither sources nor straps.
        DatabaseError: if the database cannot be used.
        BundleError: if the graph does not load.
    """
    started = time.monotonic()
    url = config.database.get_secret_value()
    engine = Engine(build_policies(config, bundle))
    # The graph and the database are opened side by side: together they are most of the start.
    with ThreadPoolExecutor(1) as opening:
        loading = opening.submit(Runtime, bundle, config.inference.threads)
        maintenance.upgrade(url)
        now_ns = time.time_ns()
        with History(url) as history:
            straps = _straps(config, history) if with_straps else Straps((), ())
            sources = [*sources, *straps.sources()]
            if not sources:
                raise ConfigError(
                    ["nothing to watch: configure a source, or leadone pair ADDRESS --patient ID"]
                )
            streams = [*(Stream(s.patient, s.device) for s in config.sources), *straps.streams]
            ends = {stream: history.last_window_end(stream) for stream in streams}
            left = backlog(
                history,
                streams,
                now_ns=now_ns,
                length_s=config.window.length,
                hop_s=config.window.hop,
            )
            restore(engine, history, now_ns=now_ns, hop_s=config.window.hop, left=left)
        runtime = loading.result()
    writer = Writer(url)
    writer.start()
    await writer.store(*(Patient(p.id, p.name) for p in config.patients))
    daemon = Daemon(
        sources,
        writer=writer,
        analyzer=Analyzer(runtime),
        engine=engine,
        length_s=config.window.length,
        hop_s=config.window.hop,
        ended={stream: end_ns for stream, end_ns in ends.items() if end_ns is not None},
        on_result=[*on_result, straps.result],
        on_change=on_change,
    )
    _log.info(
        "ready",
        bundle=bundle.name,
        sources=len(sources),
        patients=len(config.patients),
        backlog_chunks=len(left),
        seconds=round(time.monotonic() - started, 2),
    )
    watching = asyncio.create_task(straps.run(writer, stop, on_change))
    try:
        await daemon.run(stop, backlog=left)
    finally:
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)
    _log.info("stopped")


def _straps(config: Config, history: History) -> Straps:
    paired = history.straps()
    check_straps(config, (strap for strap, _ in paired))
    return Straps(paired, history.active_alarms())


def stop_on_signals(stop: asyncio.Event) -> None:
    """Let SIGTERM and SIGINT set ``stop``: what is in flight is finished, then the run ends."""
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
