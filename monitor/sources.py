"""From configured sources to ones that deliver."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import structlog

from ingest.artifacts import LIMITS, Noise
from ingest.chunk import Chunk, Stream
from ingest.episodes import Episode, EpisodeKind, Script, settings_of
from ingest.host import HostClock
from ingest.recordings import RecordingError, read_recording
from ingest.replay import ReplaySource
from ingest.simulator import SimulatorSource
from ingest.source import Source
from monitor.config import ConfigError, EpisodeConfig, ReplayConfig, SimulatorConfig, SourceConfig
from monitor.metrics import RECORDINGS_REFUSED

_log = structlog.get_logger()

# Longer than any window that can be configured.
_BETWEEN_NS = 61_000_000_000


class Playlist:
    """Recordings of one device, played one after the other as if live.

    Each is read when its turn comes; the first begins at the present, whenever it was made, and
    each further one at least a minute of the stream's time after the one before: no window may
    hold the end of one recording and the start of another. One that cannot be read is logged,
    counted and passed over.

    Args:
        records: paths of the recordings.
        stream: whose they are said to be.
        lead: which lead; by default lead I, or the first where there is none.
        speed: how many times faster than recorded; ``math.inf`` is as fast as it goes.
    """

    def __init__(
        self, records: Sequence[Path], stream: Stream, *, lead: str | None, speed: float
    ) -> None:
        self.name = f"replay {stream}"
        self.live = False
        self._records = records
        self._stream = stream
        self._lead = lead
        self._speed = speed

    async def chunks(self) -> AsyncIterator[Chunk]:
        """Yield the chunks of all recordings."""
        end_ns = 0
        for path in self._records:
            try:
                recording = await asyncio.to_thread(read_recording, path)
                replay = ReplaySource(
                    recording,
                    self._stream,
                    lead=self._lead,
                    speed=self._speed,
                    # Faster than real time, what was played last may end in the future.
                    start_ns=max(time.time_ns(), end_ns + _BETWEEN_NS if end_ns else 0),
                    host=HostClock() if self._speed == 1 else None,
                )
            except RecordingError as error:
                RECORDINGS_REFUSED.inc()
                _log.error("recording refused", source=self.name, reason=str(error))
                continue
            async for chunk in replay.chunks():
                yield chunk
                end_ns = chunk.end_ns


def timed_by_gateway(configured: Iterable[SourceConfig]) -> set[Stream]:
    """The streams of those sources whose samples are of when they come."""
    return {
        Stream(source.patient, source.device)
        for source in configured
        if not isinstance(source, ReplayConfig) or source.speed == 1
    }


def build_sources(configured: Sequence[SourceConfig]) -> list[Source]:
    """Make the configured sources.

    Raises:
        ConfigError: if an episode of a simulator is not one it can play, a line for each.
    """
    sources: list[Source] = []
    problems: list[str] = []
    for i, source in enumerate(configured):
        stream = Stream(source.patient, source.device)
        match source:
            case ReplayConfig():
                sources.append(
                    Playlist(source.records, stream, lead=source.lead, speed=source.speed)
                )
            case SimulatorConfig():
                episodes = []
                for j, episode in enumerate(source.script):
                    try:
                        episodes.append(_episode(episode))
                    except (TypeError, ValueError) as error:
                        problems.append(f"sources[{i}].script[{j}]: {error}")
                if not problems:
                    sources.append(
                        SimulatorSource(
                            stream, Script(tuple(episodes)), seed=source.seed, repeat=True
                        )
                    )
    if problems:
        raise ConfigError(problems)
    return sources


def _episode(configured: EpisodeConfig) -> Episode:
    try:
        kind = EpisodeKind(configured.kind)
    except ValueError:
        raise ValueError(
            f"kind: must be one of {', '.join(EpisodeKind)}, not {configured.kind!r}"
        ) from None
    settings = configured.settings
    noise = settings.pop("noise", None)
    known = {name for each in EpisodeKind for name in settings_of(each)}
    _check_numbers(settings, known | {"noise"}, "")
    return Episode(
        kind, configured.duration, noise=None if noise is None else _noise(noise), **settings
    )


def _noise(configured: object) -> Noise:
    if not isinstance(configured, dict):
        raise ValueError(  # noqa: TRY004 - as all that is wrong with a script
            f"noise: must be a mapping such as {{muscle_uv: 20}}, not {configured!r}"
        )
    _check_numbers(configured, set(LIMITS), "noise.")
    try:
        return Noise(**configured)
    except ValueError as error:
        raise ValueError(f"noise.{error}") from None


def _check_numbers(settings: Mapping[Any, object], known: set[str], place: str) -> None:
    for key, value in settings.items():
        if key not in known:
            raise ValueError(f"{place}{key}: unknown key; known are {', '.join(sorted(known))}")
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise ValueError(f"{place}{key}: must be a number, not {value!r}")  # noqa: TRY004
