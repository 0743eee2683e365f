"""What a connected strap costs the gateway: the daemon, the model included, on a virtual H10.

``python -m bench.bluetooth [--seconds N] [--write FILE]``. The strap and its BlueZ are a process of
their own (``tests/bluez``); needs dbus-daemon.
"""

import argparse
import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil
import yaml

from bench import machine
from bench.process import command
from ingest.chunk import Stream
from monitor.storage import maintenance
from monitor.storage.history import History
from monitor.storage.records import Patient, Strap
from monitor.storage.writer import Writer
from tests.bluez.bus import PrivateBus

ADDRESS = "A0:9E:1A:00:00:01"
_SETTLES_S = 30.0


@dataclass(frozen=True, slots=True)
class Cost:
    """Of the daemon alone.

    Attributes:
        straps: how many were connected.
        cpu_share: of one core, 0 to 1, over ``seconds``.
        rss_mb: resident memory at the end.
        windows: how many were classified in that time.
        seconds: measured.
    """

    straps: int
    cpu_share: float
    rss_mb: float
    windows: int
    seconds: float


def cost(straps: int, seconds: float) -> Cost:
    """Run the daemon on virtual straps, as fast as life, and measure it once it is settled."""
    addresses = [f"{ADDRESS[:-1]}{i + 1}" for i in range(straps)]
    streams = [Stream("grandpa", f"h10-{i + 1}") for i in range(straps)]
    with tempfile.TemporaryDirectory() as folder, _bluez(Path(folder), addresses) as bus:
        home = Path(folder)
        url = f"sqlite:///{home / 'leadone.db'}"
        maintenance.upgrade(url)
        asyncio.run(_pair(url, streams, addresses))
        config = home / "leadone.yaml"
        config.write_text(yaml.safe_dump({"database": url, "patients": [{"id": "grandpa"}]}))
        daemon = subprocess.Popen(
            [*command(), "run", "-c", str(config)],
            env={**os.environ, "DBUS_SYSTEM_BUS_ADDRESS": bus.address},
            stderr=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
        )
        try:
            time.sleep(_SETTLES_S)
            if daemon.poll() is not None:
                raise RuntimeError(f"leadone ended at once, with {daemon.returncode}")
            process = psutil.Process(daemon.pid)
            began_ns, began, used = time.time_ns(), time.monotonic(), _used(process)
            time.sleep(seconds)
            share = (_used(process) - used) / (time.monotonic() - began)
            rss = process.memory_info().rss / 1e6
        finally:
            daemon.send_signal(signal.SIGTERM)
            daemon.wait(30)
        with History(url) as history:
            windows = history.windows("grandpa", began_ns - 10_000_000_000, 2**63 - 1)
            classified = sum(window.model is not None for window in windows)
    return Cost(straps, share, rss, classified, seconds)


@contextlib.contextmanager
def _bluez(home: Path, addresses: Sequence[str]) -> Iterator[PrivateBus]:
    script = home / "straps.yaml"
    script.write_text(
        yaml.safe_dump({"straps": [{"kind": "h10", "address": a} for a in addresses]})
    )
    bus = PrivateBus()
    try:
        virtual = subprocess.Popen(
            [sys.executable, "-m", "tests.bluez", "--bus", bus.address, "--script", str(script)],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert virtual.stdout is not None
        virtual.stdout.readline()  # "ready"
        yield bus
        virtual.terminate()
        virtual.communicate(timeout=10)
    finally:
        bus.close()


async def _pair(url: str, streams: Sequence[Stream], addresses: Sequence[str]) -> None:
    writer = Writer(url)
    writer.start()
    await writer.store(Patient("grandpa"))
    for stream, address in zip(streams, addresses, strict=True):
        await writer.store(Strap(stream, address, "polar_h10", None, time.time_ns()))
    writer.stop()


def _used(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def _page(where: dict[str, str], costs: Sequence[Cost]) -> str:
    rows = "\n".join(
        f"| {c.straps} | {c.cpu_share:.1%} | {c.rss_mb:.0f} | {c.windows} | {c.seconds:g} |"
        for c in costs
    )
    places = "\n".join(f"- {key}: {value}" for key, value in where.items())
    return f"""# Bluetooth

Written by `python -m bench.bluetooth`: the daemon on virtual Polar H10 (130 Hz), model included, a
window every 5 s each. Its processor time alone, without BlueZ's own.

| straps | of one core | MB | windows classified | seconds |
| ---: | ---: | ---: | ---: | ---: |
{rows}

## Where

{places}
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print, or write to a file."""
    parser = argparse.ArgumentParser(prog="python -m bench.bluetooth", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0, help="to measure (default 60)")
    parser.add_argument("--write", type=Path, help="Markdown file to write")
    parsed = parser.parse_args(arguments)
    where = machine.describe()
    page = _page(where, [cost(straps, parsed.seconds) for straps in (1, 2, 4)])
    if parsed.write is None:
        sys.stdout.write(page)
    else:
        parsed.write.write_text(page, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
