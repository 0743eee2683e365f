"""The daemon as a process of its own: how soon it watches, and what it keeps in memory."""

import asyncio
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import yaml

from alerts.engine import MEMORY
from ingest.chunk import Stream
from models.bundle import Bundle
from monitor.quality import Grade, Quality
from monitor.results import ModelId, WindowResult
from monitor.storage import maintenance
from monitor.storage.records import Patient
from monitor.storage.writer import Writer

REPETITIONS = 7
WATCH_S = 75
MANY = 100

_HOP_NS = 5_000_000_000
_PATIENCE_S = 60.0


@dataclass(frozen=True, slots=True)
class StartUp:
    """Seconds, medians: from exec to ``ready`` with and without a database, and to the help."""

    first_s: float
    again_s: float
    help_s: float


@dataclass(frozen=True, slots=True)
class Memory:
    """What one process held while it watched ``streams`` streams at the speed of life, in MB.

    Proportional set size counts pages that are shared with other processes by their share.
    """

    streams: int
    largest_pss: float
    last_pss: float
    largest_rss: float
    last_rss: float
    cpu_share: float


def start_up(bundle: Bundle) -> StartUp:
    """Time first starts, which make the database, later ones, and ``leadone --help``."""
    first, again, helps = [], [], []
    for _ in range(REPETITIONS):
        with tempfile.TemporaryDirectory(prefix="leadone-bench-") as folder:
            config = _configure(Path(folder), bundle, 1)
            first.append(_seconds_to_ready(config))
            again.append(_seconds_to_ready(config))
        began = time.perf_counter()
        subprocess.run([*command(), "--help"], stdout=subprocess.DEVNULL, check=True)
        helps.append(time.perf_counter() - began)
    return StartUp(*map(statistics.median, (first, again, helps)))


def memory(bundle: Bundle, streams: int) -> Memory:
    """Watch the daemon watch.

    Its database holds twenty minutes of good windows of every patient, which it takes up as after
    any restart: the alarm engine then remembers as much as it ever will.
    """
    with tempfile.TemporaryDirectory(prefix="leadone-bench-") as folder:
        config = _configure(Path(folder), bundle, streams)
        _remember(Path(folder), bundle, streams)
        log = Path(folder) / "log"
        with log.open("wb") as stderr, _daemon(config, stderr.fileno()) as process:
            while b'"ready"' not in log.read_bytes():
                _check_alive(process, log)
                time.sleep(0.05)
            began, began_cpu = time.monotonic(), _cpu_s(process.pid)
            seen = []
            while time.monotonic() - began < WATCH_S:
                time.sleep(1)
                _check_alive(process, log)
                seen.append(_memory_mb(process.pid))
            share = (_cpu_s(process.pid) - began_cpu) / (time.monotonic() - began)
    pss, rss = zip(*seen, strict=True)
    return Memory(streams, max(pss), pss[-1], max(rss), rss[-1], share)


def command() -> list[str]:
    """How leadone is started here."""
    script = Path(sys.executable).with_name("leadone")
    if script.is_file():
        return [str(script)]
    return [sys.executable, "-c", "from monitor.cli import main; main()"]


def _configure(folder: Path, bundle: Bundle, streams: int) -> Path:
    rhythms = ("sinus_rhythm", "atrial_fibrillation", "sinus_rhythm")
    config = {
        "database": f"sqlite:///{folder / 'leadone.db'}",
        "bundle": str(bundle.path),
        "patients": [{"id": f"p{i}"} for i in range(streams)],
        "sources": [
            {
                "type": "simulator",
                "patient": f"p{i}",
                "device": "sim",
                "seed": i + 1,
                "script": [{"kind": kind, "duration": "60s"} for kind in rhythms],
            }
            for i in range(streams)
        ],
        "log": {"format": "json"},
    }
    path = folder / "leadone.yaml"
    path.write_text(yaml.safe_dump(config), encoding="utf-8")
    return path


def _remember(folder: Path, bundle: Bundle, streams: int) -> None:
    """Fill a new database with good windows up to the present."""
    url = f"sqlite:///{folder / 'leadone.db'}"
    maintenance.upgrade(url)
    chance = np.random.default_rng(0)
    model = ModelId(bundle.name, bundle.digest, bundle.classes)
    now_ns = time.time_ns()

    def result(patient: str, back: int) -> WindowResult:
        return WindowResult(
            stream=Stream(patient, "sim"),
            start_ns=now_ns - (back + 2) * _HOP_NS,
            duration_s=10.0,
            grade=Grade(Quality.GOOD),
            heart_rate=70.0,
            longest_rr_s=1.0,
            r_peaks_s=np.arange(0.5, 10, 60 / 70),
            model=model,
            # Low ones, or the run would begin with an alarm.
            probabilities=(0.01 * chance.random(len(bundle.classes))).astype(np.float32),
        )

    async def fill() -> None:
        for i in range(streams):
            patient = f"p{i}"
            windows = [result(patient, back) for back in range(MEMORY, 0, -1)]
            await writer.store(Patient(patient), *windows)

    writer = Writer(url)
    writer.start()
    asyncio.run(fill())
    writer.stop()


@contextmanager
def _daemon(config: Path, stderr: int) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen([*command(), "run", "-c", str(config)], stderr=stderr)
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(_PATIENCE_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _seconds_to_ready(config: Path) -> float:
    began = time.perf_counter()
    with _daemon(config, subprocess.PIPE) as process:
        assert process.stderr is not None
        told = []
        for line in process.stderr:
            told.append(line.decode())
            if line.startswith(b"{") and json.loads(line)["event"] == "ready":
                took = time.perf_counter() - began
                break
        else:
            raise RuntimeError(f"leadone did not start:\n{''.join(told)}")
        process.send_signal(signal.SIGTERM)
        process.stderr.read()
    return took


def _check_alive(process: subprocess.Popen[bytes], log: Path) -> None:
    if process.poll() is not None:
        raise RuntimeError(f"leadone ended:\n{log.read_text(encoding='utf-8')[-2000:]}")


def _memory_mb(pid: int) -> tuple[float, float]:
    """Proportional and resident set size in MB of a million bytes."""
    sizes = {}
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="utf-8").splitlines()[1:]:
        key, value, _ = line.split()
        sizes[key] = int(value) * 1024 / 1e6
    return sizes["Pss:"], sizes["Rss:"]


def _cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
