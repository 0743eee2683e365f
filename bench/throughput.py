"""What a window costs, from the recording on disk to the row in the database, and where it goes."""

import asyncio
import itertools
import math
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import aclosing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from alerts.engine import Engine
from alerts.policy import Policy
from bench.machine import one_core
from ingest.chunk import Chunk, Stream
from ingest.episodes import Episode, EpisodeKind, Script
from ingest.recordings import read_recording
from ingest.simulator import Noise, SimulatorSource
from ingest.source import Source
from models.bundle import Bundle
from models.runtime import Runtime
from monitor.alarms import Alarms
from monitor.analysis import Analyzer
from monitor.beats import find_beats
from monitor.daemon import Daemon
from monitor.observe import observation
from monitor.quality import Grade, Quality, assess
from monitor.results import ModelId, WindowResult
from monitor.ring import Ring
from monitor.sources import Playlist
from monitor.storage import maintenance
from monitor.storage.writer import Writer
from monitor.window import Window

LENGTH_S = 10.0
HOP_S = 5.0
BATCH = 16
REPETITIONS = 5

# Of each stream, for the stages; the whole path takes everything.
_STAGE_S = 300.0

_SCRIPT = Script(
    (
        Episode(EpisodeKind.SINUS_RHYTHM, 900, heart_rate=70),
        Episode(EpisodeKind.ATRIAL_FIBRILLATION, 300, heart_rate=105),
        Episode(EpisodeKind.VENTRICULAR_ECTOPY, 600, heart_rate=75, per_minute=6),
    ),
    noise=Noise(baseline_uv=60, mains_uv=10, muscle_uv=12),
)


@dataclass(frozen=True, slots=True)
class WholePath:
    """One window of the whole path, medians over the repetitions.

    Attributes:
        material: what was played.
        windows: how many in each repetition.
        good: share of them graded good; only those reach the network.
        cpu_ms: processor time a window, all threads together.
        wall_ms: time a window on one core, waiting for the disk included.
        per_second: windows a second and core.
    """

    material: str
    windows: int
    good: float
    cpu_ms: float
    wall_ms: float
    per_second: float


@dataclass(frozen=True, slots=True)
class Stages:
    """Processor time of each stage in ms a window, as if every window were read to its end.

    ``read`` is None where nothing is read from disk.
    """

    windows: int
    read: float | None
    ring: float
    beats: float
    conditioning: float
    inference_1: float
    inference_16: float
    alarms: float
    storage: float

    @property
    def total(self) -> float:
        """Of a window read alone."""
        stages = (self.ring, self.beats, self.conditioning, self.inference_1, self.alarms)
        return sum(stages) + self.storage + (self.read or 0.0)


class Material:
    """What is played: recordings where there are any, simulated hearts elsewhere.

    Args:
        data: folder of recordings; None or a folder without them means simulation.
    """

    def __init__(self, data: Path | None) -> None:
        samples = None if data is None else data / "samples"
        self.playlists: list[tuple[Path, ...]] = []
        if samples is not None and samples.is_dir():
            ambulatory = sorted((samples / "mitdb").glob("*.hea"))
            short = sorted((samples / "ptbxl").rglob("*_hr.hea"))
            short += sorted((samples / "cinc2017").glob("*.hea"))
            short += sorted((samples / "challenge2021").rglob("*.hea"))
            self.playlists = [(path,) for path in ambulatory]
            self.playlists += [tuple(short)] if short else []
            self.name = f"{len(ambulatory)} MIT-BIH records and {len(short)} short ones"
        if not self.playlists:
            self.name = "5 simulated hearts, half an hour each"

    def sources(self) -> list[Source]:
        """Fresh sources that play everything as fast as it is taken."""
        if self.playlists:
            return [
                Playlist(records, Stream(f"p{i}", "bench"), lead=None, speed=math.inf)
                for i, records in enumerate(self.playlists)
            ]
        return [
            SimulatorSource(Stream(f"p{i}", "bench"), _SCRIPT, seed=i + 1, speed=math.inf)
            for i in range(5)
        ]


def whole_path(material: Material, bundle: Bundle) -> WholePath:
    """Play everything through the real daemon into a database on disk, several times."""
    analyzer = Analyzer(Runtime(bundle))
    cpu, wall, windows, good = [], [], 0, 0
    with one_core():
        for _ in range(REPETITIONS):
            results: list[bool] = []
            with _database() as url:
                writer = Writer(url)
                writer.start()
                daemon = Daemon(
                    material.sources(),
                    writer=writer,
                    analyzer=analyzer,
                    alarms=Alarms(_engine(bundle), writer),
                    length_s=LENGTH_S,
                    hop_s=HOP_S,
                    on_result=[lambda result, seen=results: seen.append(result.grade.good)],  # type: ignore[misc]
                )
                began, began_cpu = time.perf_counter(), time.process_time()
                asyncio.run(daemon.run(asyncio.Event()))
                cpu.append((time.process_time() - began_cpu) / len(results))
                wall.append((time.perf_counter() - began) / len(results))
            windows, good = len(results), sum(results)
    a_window = statistics.median(wall)
    return WholePath(
        material=material.name,
        windows=windows,
        good=good / windows,
        cpu_ms=1e3 * statistics.median(cpu),
        wall_ms=1e3 * a_window,
        per_second=1 / a_window,
    )


def stages(material: Material, bundle: Bundle) -> Stages:
    """Time each stage by itself, on the first minutes of every stream."""
    runtime = Runtime(bundle)
    with one_core():
        streams = asyncio.run(_chunks(material.sources()))
        windows = [w for chunks in streams for w in _cut(chunks)]
        whole = [w for w in windows if np.isfinite(w.microvolts).all() and w.duration_s >= LENGTH_S]
        inputs = np.stack([runtime.prepare(w.microvolts, w.rate) for w in whole])
        results = _results(whole, runtime, inputs)
        n = len(whole)
        batches = [inputs[i : i + BATCH] for i in range(0, n - BATCH + 1, BATCH)]
        return Stages(
            windows=n,
            read=_read(material),
            ring=_each(lambda: [_cut(chunks) for chunks in streams], len(windows)),
            beats=_each(lambda: [assess(w) for w in whole], n),
            conditioning=_each(lambda: [runtime.prepare(w.microvolts, w.rate) for w in whole], n),
            inference_1=_each(lambda: [runtime.infer(x[None]) for x in inputs], n),
            inference_16=_each(lambda: [runtime.infer(b) for b in batches], len(batches) * BATCH),
            alarms=_alarms(results, bundle),
            storage=_storage(streams, results),
        )


def _each(work: Callable[[], object], windows: int) -> float:
    """Median processor time of ``work`` in ms a window."""
    taken = []
    for _ in range(REPETITIONS):
        began = time.process_time()
        work()
        taken.append(time.process_time() - began)
    return 1e3 * statistics.median(taken) / windows


def _read(material: Material) -> float | None:
    if not material.playlists:
        return None
    paths = [path for records in material.playlists for path in records]
    hops = sum(read_recording(path).duration_s for path in paths) / HOP_S
    return _each(lambda: [read_recording(path) for path in paths], round(hops))


def _alarms(results: Sequence[WindowResult], bundle: Bundle) -> float:
    def step_all() -> None:
        engine = _engine(bundle)
        for result in results:
            engine.step(observation(result))

    return _each(step_all, len(results))


def _storage(streams: Sequence[Sequence[Chunk]], results: Sequence[WindowResult]) -> float:
    """Make chunks and results durable in the order and the company of the whole path."""
    taken = []
    for _ in range(REPETITIONS):
        with _database() as url:
            writer = Writer(url)
            writer.start()
            began = time.process_time()
            asyncio.run(_store(writer, streams, results))
            writer.stop()
            taken.append(time.process_time() - began)
    return 1e3 * statistics.median(taken) / len(results)


async def _store(
    writer: Writer, streams: Sequence[Sequence[Chunk]], results: Sequence[WindowResult]
) -> None:
    rounds = list(itertools.zip_longest(*streams))
    coming = iter(results)
    owed = 0.0
    for chunks in rounds:
        await asyncio.gather(*(writer.store(chunk) for chunk in chunks if chunk is not None))
        owed += len(results) / len(rounds)
        ready = list(itertools.islice(coming, int(owed)))
        owed -= len(ready)
        await asyncio.gather(*(writer.store(result) for result in ready))
    await asyncio.gather(*(writer.store(result) for result in coming))


async def _chunks(sources: Sequence[Source]) -> list[list[Chunk]]:
    """The first minutes of every source."""
    streams = []
    for source in sources:
        taken: list[Chunk] = []
        seconds = 0.0
        async with aclosing(source.chunks()) as chunks:  # type: ignore[type-var]
            async for chunk in chunks:
                assert isinstance(chunk, Chunk)  # none of these sends RR intervals
                taken.append(chunk)
                seconds += len(chunk.microvolts) / chunk.rate
                if seconds >= _STAGE_S:
                    break
        streams.append(taken)
    return streams


def _cut(chunks: Sequence[Chunk]) -> list[Window]:
    ring = Ring(chunks[0].stream, length_s=LENGTH_S, hop_s=HOP_S)
    windows = [window for chunk in chunks for window in ring.add(chunk).windows]
    return windows + ring.finish()


def _results(
    windows: Sequence[Window],
    runtime: Runtime,
    inputs: np.ndarray[tuple[int, ...], np.dtype[np.float32]],
) -> list[WindowResult]:
    """Results with beats and probabilities for every window, whatever its grade."""
    bundle = runtime.bundle
    model = ModelId(bundle.name, bundle.digest, bundle.classes)
    results = []
    for window, prepared in zip(windows, inputs, strict=True):
        beats = find_beats(window.microvolts, window.rate)
        results.append(
            WindowResult(
                stream=window.stream,
                start_ns=window.start_ns,
                duration_s=window.duration_s,
                grade=Grade(Quality.GOOD),
                heart_rate=beats.heart_rate,
                longest_rr_s=beats.longest_rr_s,
                r_peaks_s=beats.r_peaks_s,
                model=model,
                probabilities=runtime.infer(prepared[None]).probabilities[0],
            )
        )
    return results


def _engine(bundle: Bundle) -> Engine:
    policy = Policy.from_mapping(bundle.alarm_rules, hop_s=HOP_S)
    return Engine(lambda _: policy)


@contextmanager
def _database() -> Iterator[str]:
    """A database on disk with all its tables, gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="leadone-bench-") as folder:
        url = f"sqlite:///{Path(folder) / 'bench.db'}"
        maintenance.upgrade(url)
        yield url
