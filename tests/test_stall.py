"""A daemon of which one thread hangs: people are told, hearts watched, and it is restarted."""

import json
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from program import Program, simulator, write_config
from stopped_thread import names_of_threads, stopped, thread_of

# As the unit has it.
PERIOD_S = 90.0

_SAY = """#!/bin/sh
made=$(mktemp "{folder}/tmp.XXXXXX")
{{ date +%s.%N; cat; }} > "$made"
mv "$made" "$made.said"
"""


@dataclass
class Watched:
    """A daemon that watches two simulated hearts, and everybody who hears of it.

    Attributes:
        program: the daemon.
        systemd: where its signs of life arrive.
        folder: with the messages that the contact got.
        signs_s: when signs of life came, by the monotonic clock.
    """

    program: Program
    systemd: socket.socket
    folder: Path
    signs_s: list[float] = field(default_factory=list)

    def listen(self) -> None:
        while True:
            try:
                said = self.systemd.recv(99)
            except BlockingIOError:
                return
            if said == b"WATCHDOG=1":
                self.signs_s.append(time.monotonic())

    def messages(self, condition: str) -> list[tuple[float, dict[str, Any]]]:
        """When each message about a condition came, in UTC seconds, and what it says."""
        found = []
        for path in self.folder.glob("*.said"):
            at_s, _, text = path.read_text().partition("\n")
            message = json.loads(text)
            if message["data"]["condition"] == condition:
                found.append((float(at_s), message))
        return sorted(found, key=lambda one: one[0])


def hearts() -> list[dict[str, Any]]:
    """One that pauses and one that fibrillates, long after the first windows were read."""
    sinus = {"kind": "sinus_rhythm", "duration": "55s"}
    arrest = {"kind": "sinus_arrest", "duration": "40s", "per_minute": 1.5, "pause_s": 7}
    vf = {"kind": "ventricular_fibrillation", "duration": "40s"}
    calm = {"kind": "sinus_rhythm", "duration": "10m"}
    sources = [simulator("anna", seed=1), simulator("boris", seed=2)]
    for source, episode in zip(sources, (arrest, vf), strict=True):
        source["script"] = [{**sinus}, episode, {**calm}]
    return sources


@pytest.fixture
def daemons(tmp_path: Path) -> Iterator[dict[str, Watched]]:
    """Two daemons, by the thread of theirs that is to hang: both are watched in the same time."""
    with ExitStack() as running:
        made = {}
        for thread in ("inference", "writer"):
            folder = tmp_path / thread
            said = folder / "said"
            said.mkdir(parents=True)
            command = folder / "say"
            command.write_text(_SAY.format(folder=said))
            command.chmod(0o755)
            systemd = running.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM))
            systemd.bind(str(folder / "notify"))
            systemd.setblocking(False)
            contact = {"name": "bob", "channels": [{"type": "command", "command": [str(command)]}]}
            config = write_config(folder, hearts(), alarms={"contacts": [contact]})
            environment = names_of_threads(folder) | {
                "NOTIFY_SOCKET": str(folder / "notify"),
                "WATCHDOG_USEC": str(round(PERIOD_S * 1e6)),
            }
            program = Program("run", "-c", config, folder=folder, env=environment)
            made[thread] = Watched(running.enter_context(program), systemd, said)
        yield made


def test_a_thread_that_hangs_is_told_of_and_the_sign_of_life_stops(
    daemons: dict[str, Watched],
) -> None:
    for watched in daemons.values():
        # The first window is read by then, ten seconds after the start.
        process = watched.program.process
        watched.program.until(lambda p=process: thread_of(p, "inference") is not None)
    with ExitStack() as stops:
        for thread, watched in daemons.items():
            stops.enter_context(stopped(watched.program.process, thread))
        stopped_utc_s, stopped_s = time.time(), time.monotonic()

        def is_over(watched: Watched) -> bool:
            """Whether everything was told, and another sign of life has long been due."""
            watched.listen()
            assert watched.program.process.poll() is None, watched.program.err
            told = all(watched.messages(condition) for condition in ("stalled", "pause", "vf"))
            return told and time.monotonic() - watched.signs_s[-1] > PERIOD_S / 2 + 5

        # All of them each time, so that it is known when each sign came.
        while over := [is_over(watched) for watched in daemons.values()]:
            if all(over):
                break
            assert time.monotonic() - stopped_s < 130
            time.sleep(0.2)
    for thread, watched in daemons.items():
        words = {"inference": "the analysis of ", "writer": "storing the signal of "}[thread]
        (told_s, message), *_ = watched.messages("stalled")
        assert told_s - stopped_utc_s <= 60
        assert message["title"] == "URGENT: Gateway: part of the watch stands still"
        assert f"Why: {words}" in message["body"]
        assert "leadone is restarted by itself" in message["body"]
        # The next window comes five seconds after the stop at the latest, and then stands still.
        assert watched.signs_s[-1] - stopped_s <= 66
        assert '"event": "stalled"' in watched.program.err
        # Meanwhile hearts were watched as ever.
        for condition in ("pause", "vf"):
            (told_s, message), *_ = watched.messages(condition)
            assert message["data"]["kind"] == "raised"
            assert stopped_utc_s < message["data"]["started_ns"] / 1e9
            assert told_s - message["data"]["started_ns"] / 1e9 <= 15, condition
