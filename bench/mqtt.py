"""How many devices one daemon takes over MQTT, inference included, and what gives way first.

``python -m bench.mqtt [--data DIR] [--devices N …] [--seconds S] [--write FILE]``: Mosquitto, the
daemon and ``leadone publish --copies N`` as the device side, each a process of its own on this one
machine. Needs mosquitto.
"""

import argparse
import contextlib
import json
import re
import shutil
import signal
import socket
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil
import yaml

from bench import machine
from bench.process import command
from ingest.recordings import read_recording

RATE = 130
HOP_S = 10
_SETTLES_S = 30.0
_PATIENCE_S = 60.0
# What the broker holds when a load ends is taken in as fast as it goes.
_DRAINS_S = 300.0
# A message waits a second to be full, and its stream's turn is anywhere in the next one.
_IN_TIME_S = 3.0

# The daemon as it is, with its metrics where this process can read them.
_DAEMON = (
    "import sys; from prometheus_client import start_http_server; "
    "start_http_server(int(sys.argv.pop(1)), '127.0.0.1'); "
    "from monitor.cli import main; main()"
)


@dataclass(frozen=True, slots=True)
class Load:
    """What became of a load, from when it was settled until its end.

    Attributes:
        devices: how many sent a message a second.
        sent: messages that the broker acknowledged, in the whole run.
        missing: samples of those that are not in the database.
        lag_s: age of the newest stored sample, of all streams and all moments: the median.
        worst_lag_s: the same, of the worst stream at the worst moment.
        late_lag_s: the same in the last fifth of the time; grown where the daemon falls behind.
        drain_s: from the end of the load until everything was stored.
        write_queue: most records that waited for the database.
        window_queue: most windows that waited for inference.
        windows: stored a second.
        skipped: windows stored unread because inference was too slow.
        daemon: processor time of the daemon, in cores.
        broker: of Mosquitto, likewise.
        publisher: of the device side, likewise.
        rss_mb: resident memory of the daemon at the end.
    """

    devices: int
    sent: int
    missing: int
    lag_s: float
    worst_lag_s: float
    late_lag_s: float
    drain_s: float
    write_queue: int
    window_queue: int
    windows: float
    skipped: int
    daemon: float
    broker: float
    publisher: float
    rss_mb: float

    @property
    def raw_in_time(self) -> bool:
        """Whether every sample was stored, and none late."""
        return self.missing == 0 and self.late_lag_s <= _IN_TIME_S

    @property
    def keeps_up(self) -> bool:
        """Whether the windows were read in time, too."""
        return self.raw_in_time and self.skipped == 0


def load(data: Path, devices: int, seconds: float) -> Load:
    """Run the whole of it for ``seconds`` after it has settled."""
    with tempfile.TemporaryDirectory(prefix="leadone-bench-") as folder:
        home = Path(folder)
        record = home / "hearts.csv"
        record.write_text(_hearts(data, _SETTLES_S + seconds), encoding="utf-8")
        database = home / "leadone.db"
        with _mosquitto(home) as (broker, port), _daemon(home, database, devices, port) as running:
            daemon, metrics = running
            publisher = subprocess.Popen(
                [
                    *(*command(), "publish", str(record), "--url", f"mqtt://127.0.0.1:{port}"),
                    *("--patient", "p", "--device", "d", "--copies", str(devices)),
                ],
                stdout=subprocess.PIPE,
                text=True,
            )
            try:
                return _watch(daemon, broker, publisher, metrics, database, devices, seconds)
            finally:
                publisher.kill()
                publisher.communicate()


def _watch(
    daemon: psutil.Process,
    broker: psutil.Process,
    publisher: "subprocess.Popen[str]",
    metrics: str,
    database: Path,
    devices: int,
    seconds: float,
) -> Load:
    time.sleep(_SETTLES_S)
    processes = [daemon, broker, psutil.Process(publisher.pid)]
    first, began = _read(metrics), time.monotonic()
    used = [_used_s(process) for process in processes]
    lags: list[list[float]] = []
    queues: list[tuple[float, float]] = []
    # The load ends a moment later than this: what is measured is the load.
    while time.monotonic() - began < seconds - 2 and publisher.poll() is None:
        now = _read(metrics)
        queues.append((now["leadone_write_queue_records"], now["leadone_window_queue"]))
        lags.append(_lags_s(database))
        time.sleep(1)
    last, took = _read(metrics), time.monotonic() - began
    cores = [(_used_s(p) - u) / took for p, u in zip(processes, used, strict=True)]
    rss_mb = daemon.memory_info().rss / 1e6
    told, _ = publisher.communicate(timeout=_PATIENCE_S + seconds)
    match = re.match(r"(\d+) messages, (\d+) samples", told)
    if publisher.returncode != 0 or match is None:
        raise RuntimeError(f"leadone publish ended with {publisher.returncode}: {told}")
    if not any(lags):
        raise RuntimeError("leadone stored nothing")
    ended = time.monotonic()
    while (missing := int(match[2]) - _stored(database)) and time.monotonic() - ended < _DRAINS_S:
        time.sleep(0.1)
    late = lags[-max(1, len(lags) // 5) :]
    writes, windows = zip(*queues, strict=True)
    return Load(
        devices=devices,
        sent=int(match[1]),
        missing=missing,
        lag_s=statistics.median(lag for moment in lags for lag in moment),
        worst_lag_s=max(map(max, lags)),
        late_lag_s=max(map(max, late)),
        drain_s=time.monotonic() - ended,
        write_queue=int(max(writes)),
        window_queue=int(max(windows)),
        windows=(last["leadone_windows_stored_total"] - first["leadone_windows_stored_total"])
        / took,
        skipped=int(last["leadone_windows_skipped_total"]),
        daemon=cores[0],
        broker=cores[1],
        publisher=cores[2],
        rss_mb=rss_mb,
    )


def _hearts(data: Path, seconds: float) -> str:
    """Challenge 2017 records one after the other, at the rate of a chest strap, as a CSV."""
    pieces: list[np.ndarray] = []
    missing = round(seconds * RATE)
    headers = sorted((data / "samples" / "cinc2017").glob("*.hea"))
    if not headers:
        raise SystemExit(f"{data}: expected samples/cinc2017 in the folder of ECG recordings")
    while missing > 0:
        for header in headers:
            recording = read_recording(header)
            (segment,) = recording.segments
            values = segment.microvolts[0]
            times = np.arange(0, len(values) / recording.rate, 1 / RATE)
            piece = np.interp(times, np.arange(len(values)) / recording.rate, values)
            pieces.append(piece)
            missing -= len(piece)
    values = np.concatenate(pieces)[: round(seconds * RATE)]
    return f"# rate={RATE} unit=uV\nI\n" + "\n".join(f"{value:.1f}" for value in values) + "\n"


@contextlib.contextmanager
def _mosquitto(home: Path) -> Iterator[tuple[psutil.Process, int]]:
    program = shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin")
    if program is None:
        raise SystemExit("bench.mqtt: needs mosquitto")
    port = _free_port()
    config = home / "mosquitto.conf"
    config.write_text(
        f"listener {port} 127.0.0.1\nallow_anonymous true\nmax_queued_messages 1000000\n",
        encoding="utf-8",
    )
    broker = subprocess.Popen([program, "-c", str(config)], stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 10
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
            except OSError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.05)
            else:
                break
        yield psutil.Process(broker.pid), port
    finally:
        broker.terminate()
        broker.wait(10)


@contextlib.contextmanager
def _daemon(
    home: Path, database: Path, devices: int, port: int
) -> Iterator[tuple[psutil.Process, str]]:
    config = home / "leadone.yaml"
    content = {
        "database": f"sqlite:///{database}",
        "window": {"length": "10s", "hop": f"{HOP_S}s"},
        "patients": [{"id": f"p-{i + 1}"} for i in range(devices)],
        "mqtt": {"url": f"mqtt://127.0.0.1:{port}"},
        "log": {"format": "json"},
    }
    config.write_text(yaml.safe_dump(content), encoding="utf-8")
    metrics_port = _free_port()
    log = home / "log"
    with log.open("wb") as stderr:
        daemon = subprocess.Popen(
            [sys.executable, "-c", _DAEMON, str(metrics_port), "run", "-c", str(config)],
            stderr=stderr,
        )
    try:
        began = time.monotonic()
        while not _connected(log):
            if daemon.poll() is not None or time.monotonic() - began > _PATIENCE_S:
                raise RuntimeError(f"leadone did not start:\n{log.read_text()[-2000:]}")
            time.sleep(0.1)
        time.sleep(1)  # to subscribe
        yield psutil.Process(daemon.pid), f"http://127.0.0.1:{metrics_port}/metrics"
    finally:
        daemon.send_signal(signal.SIGTERM)
        try:
            daemon.wait(_PATIENCE_S)
        except subprocess.TimeoutExpired:
            daemon.kill()
            daemon.wait()


def _connected(log: Path) -> bool:
    lines = [line for line in log.read_text(encoding="utf-8").splitlines() if line[:1] == "{"]
    return any(json.loads(line)["event"] == "ready" for line in lines)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _read(url: str) -> dict[str, float]:
    """The metrics that have no labels."""
    with urllib.request.urlopen(url, timeout=30) as answer:
        lines = answer.read().decode().splitlines()
    found = {}
    for line in lines:
        name, _, value = line.partition(" ")
        if "{" not in name and name != "#":
            found[name] = float(value)
    return found


def _lags_s(database: Path) -> list[float]:
    """Seconds from the end of the newest segment of each stream to now."""
    with contextlib.closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as connection:
        ids = [row[0] for row in connection.execute("SELECT id FROM devices")]
        starts = [
            connection.execute(
                "SELECT max(start_ns) FROM segments WHERE device_id = ?", (id_,)
            ).fetchone()[0]
            for id_ in ids
        ]
    now_ns = time.time_ns()
    return [(now_ns - start) / 1e9 - 1.0 for start in starts if start is not None]


def _stored(database: Path) -> int:
    """Samples in the database."""
    with contextlib.closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as connection:
        samples: int = connection.execute("SELECT coalesce(sum(n), 0) FROM segments").fetchone()[0]
        return samples


def _used_s(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def _verdict(loads: Sequence[Load]) -> str:
    kept = [x.devices for x in loads if x.keeps_up]
    said = [f"It keeps up with {max(kept)} devices." if kept else "It keeps up with none of these."]
    unread = next((x for x in loads if x.skipped), None)
    late = next((x for x in loads if not x.raw_in_time), None)
    if unread is not None:
        said.append(f"Inference gives way at {unread.devices}: {unread.skipped} windows unread.")
    if late is not None:
        lost = "none was lost" if late.missing == 0 else f"{late.missing} were still missing"
        said.append(
            f"Samples are stored late at {late.devices}: by up to {late.late_lag_s:.0f} s; {lost}."
        )
    return " ".join(said)


def _page(where: dict[str, str], loads: Sequence[Load], seconds: float) -> str:
    lags = [
        (
            *(str(x.devices), str(x.sent), str(x.missing), f"{x.lag_s:.1f}"),
            *(f"{x.worst_lag_s:.1f}", f"{x.late_lag_s:.1f}", f"{x.drain_s:.1f}"),
            "yes" if x.raw_in_time else "**no**",
        )
        for x in loads
    ]
    windows = [
        (
            *(str(x.devices), f"{x.windows:.1f}", str(x.skipped), str(x.window_queue)),
            *(str(x.write_queue), "yes" if x.keeps_up else "**no**"),
        )
        for x in loads
    ]
    costs = [
        (
            *(str(x.devices), f"{x.daemon:.1%}", f"{x.broker:.1%}", f"{x.publisher:.1%}"),
            f"{x.rss_mb:.0f}",
        )
        for x in loads
    ]
    return f"""# MQTT under load

Written by `python -m bench.mqtt`: devices that send a message of {RATE} samples a second each
(QoS 1, JSON, real ECG of Challenge 2017), through one Mosquitto into one daemon, model included, a
window of 10 s every {HOP_S} s each, for {seconds:g} s after {_SETTLES_S:g} s to settle. Broker and
devices run on the same machine and take their share of it.

{_verdict(loads)}

## Raw data

The lag is the age of the newest stored sample of a stream, in seconds. Up to one second of it is
the way of a message a second. *Late* is the worst in the last fifth of the time; *drained* is how
long it took after the load had ended until everything was stored. Missing are samples that the
broker acknowledged and that were not in the database {_DRAINS_S:g} s after that.

{_table(("devices", "messages", "missing", "lag", "worst", "late", "drained", "in time"), lags)}

## Windows

Stored a second, those among them that were not read because inference could not keep up, and the
most that waited for inference and for the database.

{_table(("devices", "windows/s", "unread", "queue", "write queue", "keeps up"), windows)}

## Cost

Processor time, of one core, and memory of the daemon in MB.

{_table(("devices", "daemon", "Mosquitto", "the devices' side", "MB"), costs)}

## Where

{chr(10).join(f"- {key}: {value}" for key, value in where.items())}
"""


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---:"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print, or write to a file."""
    parser = argparse.ArgumentParser(prog="python -m bench.mqtt", description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--devices", type=int, nargs="+", default=[50, 200, 400, 600, 800])
    parser.add_argument("--seconds", type=float, default=120.0, help="to measure (default 120)")
    parser.add_argument("--write", type=Path, help="Markdown file to write")
    options = parser.parse_args(arguments)
    where = machine.describe()
    loads = []
    for devices in sorted(options.devices):
        sys.stderr.write(f"measuring {devices} devices …\n")
        loads.append(load(options.data, devices, options.seconds))
    page = _page(where, loads, options.seconds)
    if options.write is None:
        sys.stdout.write(page)
    else:
        options.write.write_text(page, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
