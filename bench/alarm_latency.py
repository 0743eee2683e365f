"""How long after the last sample of the window that decides somebody is told.

``python -m bench.alarm_latency`` runs the whole service with a hundred patients in real time: each
sends a second of simulated ECG every second, whose heart turns to atrial fibrillation at a time of
its own. What is measured is from the moment at which the service is given the last sample to that
at which the channel is called with the message, strip and all.
"""

import argparse
import asyncio
import random
import tempfile
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from unittest.mock import patch

import numpy as np

from alerts.channels.channel import Message
from bench.machine import describe
from ingest.chunk import Chunk, Stream
from ingest.episodes import Episode, EpisodeKind, Script
from ingest.simulator import SimulatorSource
from models.bundle import DEFAULT, find_bundle
from monitor import logs, service
from monitor.config import Config

PATIENTS = 100
WANTED_MS = 500.0

_CHUNK_S = 1.0
# Nobody puts a strap on in the same second as all others, so windows do not end all at once either.
_HOP_S = 5.0
_SINUS_S = 20.0
# Hearts begin within this time; in life a hundred would not in a day.
_SPREAD_S = 60.0
_AFTER_S = 70.0


@dataclass(slots=True)
class Measured:
    """What is measured.

    Attributes:
        given_s: when the chunk that ends at a time was given, by patient and UTC end in ns.
        waited_ms: from the last sample to the channel, of each alarm.
        pictures: of how many there was a strip.
    """

    given_s: dict[str, dict[int, float]] = field(default_factory=dict)
    waited_ms: list[float] = field(default_factory=list)
    pictures: int = 0


class _Channel:
    """Takes a message at once."""

    name = "bench"

    def __init__(self, measured: Measured) -> None:
        self._measured = measured

    async def send(self, message: Message) -> None:
        """Note when it was called."""
        now_s = time.perf_counter()
        if message.data.get("kind") != "raised":
            return
        raised_ns = message.data["raised_ns"]
        assert isinstance(raised_ns, int)
        given = self._measured.given_s[str(message.data["patient"])]
        # The window ends within this chunk, or with it.
        end_ns = min(ns for ns in given if ns >= raised_ns - 20_000_000)
        self._measured.waited_ms.append(1e3 * (now_s - given[end_ns]))
        self._measured.pictures += message.picture is not None


class _Patient:
    """A heart that fibrillates after a while, live.

    Args:
        stream: whose.
        number: seed.
        sinus_s: how long it does not.
        measured: takes the time at which each chunk is given.
    """

    live = True

    def __init__(self, stream: Stream, number: int, sinus_s: float, measured: Measured) -> None:
        self.name = str(stream)
        self._given = measured.given_s.setdefault(stream.patient, {})
        script = Script(
            (
                Episode(EpisodeKind.SINUS_RHYTHM, sinus_s),
                Episode(EpisodeKind.ATRIAL_FIBRILLATION, _AFTER_S + _SPREAD_S),
            )
        )
        self._phase_s = random.Random(number).uniform(0.0, _HOP_S)
        self._source = SimulatorSource(stream, script, seed=number, speed=1.0, chunk_s=_CHUNK_S)

    async def chunks(self) -> AsyncIterator[Chunk]:
        """Each second another one, from a time on that is this patient's."""
        await asyncio.sleep(self._phase_s)
        async for chunk in self._source.chunks():
            self._given[chunk.end_ns] = time.perf_counter()
            yield chunk


async def measure(patients: int, folder: Path) -> Measured:
    """Run the service until every heart should have been told of."""
    measured = Measured()
    config = Config.model_validate(
        {
            "database": f"sqlite:///{folder}/bench.db",
            "patients": [{"id": f"p{i}"} for i in range(patients)],
            "alarms": {
                "contacts": [
                    {
                        "name": "bench",
                        "channels": [{"type": "command", "command": ["/bin/true"]}],
                    }
                ]
            },
        }
    )
    begin = np.random.default_rng(1).uniform(_SINUS_S, _SINUS_S + _SPREAD_S, patients)
    sources = [
        _Patient(Stream(f"p{i}", "bench"), i + 1, float(begin[i]), measured)
        for i in range(patients)
    ]
    stop = asyncio.Event()
    with patch.object(service, "build_channels", lambda _: {"bench": [_Channel(measured)]}):
        serving = asyncio.create_task(
            service.serve(config, sources, find_bundle(DEFAULT), stop=stop)
        )
        await asyncio.wait({serving}, timeout=_SINUS_S + _SPREAD_S + _AFTER_S)
        stop.set()
        await serving
    return measured


def page(measured: Measured, patients: int) -> str:
    """As a page of Markdown."""
    waited = np.array(measured.waited_ms)
    p50, p95, p99 = np.percentile(waited, (50, 95, 99))
    met = "yes" if p99 <= WANTED_MS else "**no**"
    times = [f"{ms:.0f} ms" for ms in (p50, p95, p99, waited.max())]
    strips = str(measured.pictures)
    cells = [str(len(waited)), strips, *times, f"p99 ≤ {WANTED_MS:.0f} ms", met]
    lines = [
        "# From the last sample to the channel",
        "",
        "Written by `python -m bench.alarm_latency --write docs/alarm-latency.md`. The whole",
        f"service with {patients} patients, each of whom sends a second of ECG every second, and",
        f"within {_SPREAD_S:.0f} s all hearts begin to fibrillate. Measured is from the moment at",
        "which the service is given the last sample of the window that decides, to that at which",
        "the channel is called: stored, cut, filtered, classified, decided, stored with what is to",
        "be told, put into words, its strip drawn.",
        "",
        f"Streams begin at different times within a hop ({_HOP_S:.0f} s): windows do not end all",
        "at once. A channel takes one message at a time: alarms that are raised together queue for",
        "it, and each strip takes about 0.1 s.",
        "",
        "|  |  |",
        "| --- | --- |",
        *(f"| {key} | {value} |" for key, value in describe().items()),
        "",
        "| alarms | with a strip | median | p95 | p99 | longest | wanted | met |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
        f"| {' | '.join(cells)} |",
        "",
    ]
    return "\n".join(lines)


def main() -> None:
    """Measure, and print or write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--patients", type=int, default=PATIENTS)
    parser.add_argument("--write", type=Path)
    arguments = parser.parse_args()
    logs.configure("error", "human", frozenset())
    with tempfile.TemporaryDirectory(prefix="leadone-bench-") as folder:
        measured = asyncio.run(measure(arguments.patients, Path(folder)))
    text = page(measured, arguments.patients)
    if arguments.write is None:
        print(text)
    else:
        arguments.write.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
