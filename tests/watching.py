"""Parts of a daemon for tests: sources that do as they are told, a fake analyzer, a database."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from alerts.conditions import Priority
from alerts.engine import Engine
from alerts.policy import ClassRule, Policy
from ingest.chunk import Chunk, Stream
from monitor.quality import Grade, Quality
from monitor.results import ModelId, WindowResult
from monitor.storage.history import History
from monitor.storage.maintenance import upgrade
from monitor.storage.writer import Writer
from monitor.window import Gap, Window

S = 1_000_000_000
T0 = 1_790_000_000 * S
ALWAYS = (-(2**62), 2**63 - 1)
STREAM = Stream("anna", "strap")
MODEL = ModelId("fake 1", "0" * 64, ("AF", "PVC"))


def ramp(start_s: float, seconds: float, *, stream: Stream = STREAM, rate: float = 100.0) -> Chunk:
    """Samples that differ from one another, so that a repeat is told from a clock set back."""
    first = round(start_s * rate)
    samples = np.arange(first, first + round(seconds * rate), dtype=np.float32)
    return Chunk(stream, T0 + round(start_s * S), rate, samples)


def seconds(*numbers: int, stream: Stream = STREAM) -> list[Chunk]:
    """Chunks of one second each."""
    return [ramp(n, 1, stream=stream) for n in numbers]


class Told:
    """A source of what it is told: chunks in turn, and exceptions where there is one.

    Opened again after an exception, it goes on behind it, as a device does that fell silent.
    """

    def __init__(
        self, items: Iterable[Chunk | Exception], name: str = "told", *, live: bool = False
    ) -> None:
        self.name = name
        self.live = live
        self._items = iter(items)
        self.given: list[Chunk] = []
        self.opened = 0

    async def chunks(self) -> AsyncIterator[Chunk]:
        self.opened += 1
        for item in self._items:
            await asyncio.sleep(0)
            if isinstance(item, Exception):
                raise item
            self.given.append(item)
            yield item


@dataclass
class FakeAnalyzer:
    """Says of every window what ``probability`` says of its start, in seconds from ``T0``."""

    probability: Callable[[float], float] = lambda _: 0.0
    fails_at: frozenset[float] = frozenset()

    def analyze(self, windows: Sequence[Window]) -> list[WindowResult]:
        return [self._result(window) for window in windows]

    def _result(self, window: Window) -> WindowResult:
        start_s = round((window.start_ns - T0) / S, 3)
        if start_s in self.fails_at:
            raise ZeroDivisionError("such a window")
        return WindowResult(
            stream=window.stream,
            start_ns=window.start_ns,
            duration_s=window.duration_s,
            grade=Grade(Quality.GOOD),
            heart_rate=70.0,
            longest_rr_s=0.9,
            r_peaks_s=np.arange(0.5, window.duration_s, 60 / 70),
            model=MODEL,
            probabilities=np.array([self.probability(start_s), 0.01], np.float32),
        )


def fake_engine() -> Engine:
    """An engine that raises AF after three of four windows at 0.6 or more."""
    rule = ClassRule(
        name="AF", threshold=0.6, off_threshold=0.4, k=3, n=4, clear_k=3, priority=Priority.HIGH
    )
    policy = Policy(classes=(rule,))
    return Engine(lambda _: policy)


def new_database(folder: Path) -> str:
    url = f"sqlite:///{folder}/watch.db"
    upgrade(url)
    return url


def started(url: str) -> Writer:
    writer = Writer(url)
    writer.start()
    return writer


def segments(url: str, patient: str = STREAM.patient) -> list[Chunk]:
    with History(url) as history:
        return list(history.segments(patient, *ALWAYS))


def windows(url: str, patient: str = STREAM.patient) -> list[WindowResult]:
    with History(url) as history:
        return list(history.windows(patient, *ALWAYS))


def gaps(url: str, patient: str = STREAM.patient) -> list[Gap]:
    with History(url) as history:
        return list(history.gaps(patient, *ALWAYS))


def starts(results: Iterable[WindowResult]) -> list[float]:
    """Seconds from ``T0``."""
    return [round((result.start_ns - T0) / S, 3) for result in results]


def uncovered(chunks: Iterable[Chunk], results: Iterable[WindowResult]) -> list[str]:
    """Stretches of chunks, over 20 ms, that lie in no window of their stream."""
    tolerance_ns = 20_000_000
    spans: dict[Stream, list[tuple[int, int]]] = {}
    for result in results:
        spans.setdefault(result.stream, []).append((result.start_ns, result.end_ns))
    missing = []
    for chunk in chunks:
        at = chunk.start_ns
        for start, end in sorted(spans.get(chunk.stream, [])):
            if start <= at + tolerance_ns:
                at = max(at, end)
        if at < chunk.end_ns - tolerance_ns:
            missing.append(f"{chunk.stream} at {chunk.start_ns}: from {at}")
    return missing


async def until(condition: Callable[[], bool], timeout_s: float = 30.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "it never came"
        await asyncio.sleep(0.01)


def write_csv(
    path: Path, microvolts: NDArray[np.floating], rate: float = 130.0, *, gaps: bool = False
) -> Path:
    """A recording of lead I with a column of times.

    Lost samples are blank cells; with ``gaps`` their rows are missing.
    """
    rows = [
        f"{i / rate:.6f},{'' if np.isnan(v) else f'{v:.2f}'}"
        for i, v in enumerate(microvolts)
        if not (gaps and np.isnan(v))
    ]
    path.write_text("\n".join([f"# rate={rate:g} unit=uV", "time,I", *rows, ""]))
    return path
