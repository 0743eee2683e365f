"""A real MQTT broker of the tests' own: Mosquitto on a free port of the loopback interface.

Use it with ``pytest_plugins = ["mosquitto"]``: the fixture ``mosquitto`` makes brokers, called as
``mosquitto(tmp_path)`` or ``mosquitto(tmp_path, extra_config)``, and ends them after the test.
"""

import contextlib
import random
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from conftest import absent

# Debian keeps it where users do not look.
PROGRAM = shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin")


class Mosquitto:
    """A broker that keeps its sessions in ``folder``, on the same port however often it starts.

    Args:
        folder: its configuration, database and log.
        extra_config: lines of mosquitto.conf that follow the listener's. Anybody is let in unless
            they say ``allow_anonymous``.
    """

    def __init__(self, folder: Path, extra_config: str = "") -> None:
        assert PROGRAM is not None
        self.port = _free_port()
        self.folder = folder
        self.tls = "certfile" in extra_config
        self.process: subprocess.Popen[bytes] | None = None
        lines = [
            "user root",  # not the user "mosquitto", whom a temporary folder is closed to
            f"listener {self.port} 127.0.0.1",
            "persistence true",
            f"persistence_location {folder}/",
            # Sessions are written down at every change, messages only when it is stopped.
            "autosave_on_changes true",
            "autosave_interval 1",
            "max_queued_messages 0",
            "log_type all",
            "log_dest stderr",
            *([] if "allow_anonymous" in extra_config else ["allow_anonymous true"]),
            extra_config,
        ]
        folder.mkdir(parents=True, exist_ok=True)
        self.config = folder / "mosquitto.conf"
        self.config.write_text("\n".join(lines) + "\n", encoding="utf-8")

    @property
    def url(self) -> str:
        return f"{'mqtts' if self.tls else 'mqtt'}://127.0.0.1:{self.port}"

    @property
    def log(self) -> str:
        return (self.folder / "mosquitto.log").read_text(encoding="utf-8", errors="replace")

    def start(self) -> None:
        """Start it, and return when it takes connections."""
        assert self.process is None
        with (self.folder / "mosquitto.log").open("ab") as log:
            self.process = subprocess.Popen(
                [str(PROGRAM), "-c", self.config], stdout=log, stderr=log, cwd=self.folder
            )
        deadline = time.monotonic() + 10
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
            except OSError:
                if time.monotonic() > deadline or self.process.poll() is not None:
                    raise RuntimeError(f"mosquitto does not start: {self.log}") from None
                time.sleep(0.01)
            else:
                return

    def kill(self) -> None:
        """End it as a power cut does: what it has taken and not sent on yet is lost."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """Let it write its sessions down and end."""
        self._end(signal.SIGTERM)

    def _end(self, how: signal.Signals) -> None:
        if self.process is None:
            return
        for _ in range(100):
            self.process.send_signal(how)
            try:
                self.process.wait(0.2)
            except subprocess.TimeoutExpired:
                continue  # it forgets a signal that comes while it starts
            self.process = None
            return
        raise RuntimeError(f"mosquitto does not end: {self.log}")


def _free_port() -> int:
    """One that the kernel gives to no client.

    While a broker is down, those who try to reach it would else meet themselves now and then: from
    its port to its port, and it could not be started again.
    """
    ports = random.SystemRandom()
    while True:
        port = ports.randrange(20_000, 32_000)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


@pytest.fixture
def mosquitto() -> Iterator[Callable[..., Mosquitto]]:
    """A maker of running brokers, or a skip that says that there is none."""
    if PROGRAM is None:
        absent("the MQTT broker mosquitto")
    made: list[Mosquitto] = []

    def make(folder: Path, extra_config: str = "") -> Mosquitto:
        broker = Mosquitto(folder, extra_config)
        made.append(broker)
        broker.start()
        return broker

    yield make
    for broker in made:
        broker.stop()
