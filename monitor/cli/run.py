"""``leadone run`` and ``leadone replay``: the daemon as it is deployed."""

import asyncio
from collections.abc import Iterable, Sequence
from contextlib import nullcontext
from pathlib import Path

import structlog

from alerts.delivery import LogDelivery
from ingest.chunk import Stream
from ingest.recordings import read_recording
from ingest.source import Source
from models.bundle import Bundle, BundleError
from monitor import last_words, logs
from monitor.cli.care_findings import readable_secrets
from monitor.cli.errors import KNOWN
from monitor.cli.patient import require_patient
from monitor.cli.setup import prepare
from monitor.config import Config
from monitor.contacts import build_channels
from monitor.control import claim
from monitor.service import serve
from monitor.sources import Playlist
from monitor.stopping import stop_on_signals

_log = structlog.get_logger()


def run_daemon(path: Path) -> None:
    """Run until SIGTERM or SIGINT, or until every configured source has ended.

    Raises:
        AnotherError: one runs on the same database.
    """
    last_words.take_error()  # of an earlier run
    try:
        config, bundle, sources = prepare(path)
        build_channels(config)
        last_words.keep_configuration(path)
        open_secrets = readable_secrets(config, path)
        asyncio.run(_run(config, bundle, sources, attended=True, warnings=open_secrets))
    except Exception as error:
        last_words.keep_error(error, known=isinstance(error, KNOWN))
        raise


def replay_records(
    path: Path, records: Sequence[Path], patient: str, speed: float, lead: str | None
) -> None:
    """Play recordings into the configured database as one more device of a patient.

    Raises:
        CommandError: if the patient is not configured.
        RecordingError: if a recording cannot be read or has no such lead.
    """
    config, bundle, _ = prepare(path)
    require_patient(config, path, patient)
    for record in records:
        recording = read_recording(record)
        recording.lead_index(lead or recording.default_lead())
    source = Playlist(records, Stream(patient, "replay"), lead=lead, speed=speed)
    # The daemon may be running, and a strap has one listener.
    asyncio.run(_run(config, bundle, [source], attended=False))


async def _run(
    config: Config,
    bundle: Bundle | BundleError,
    sources: Sequence[Source],
    *,
    attended: bool,
    warnings: Iterable[str] = (),
) -> None:
    logs.configure(config.log.level, config.log.format, config.private_names)
    for warning in warnings:
        _log.warning("secrets_readable", reason=warning)
    stop = asyncio.Event()
    stop_on_signals(stop)
    names = bundle.class_names if isinstance(bundle, Bundle) else {}
    # Held from before the database is touched: two daemons would tell everybody twice.
    url = config.database.get_secret_value()
    with claim(url) if attended else nullcontext() as listening:
        await serve(
            config,
            sources,
            bundle,
            stop=stop,
            attended=attended,
            control=listening,
            on_change=[LogDelivery(names).deliver],
        )
