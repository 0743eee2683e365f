"""What the tests of the command line share: configurations, how a command ended, a process."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import yaml


@dataclass(frozen=True)
class Done:
    """How a command ended, and what it said."""

    code: int
    out: str
    err: str

    @property
    def rows(self) -> list[dict[str, Any]]:
        """Standard output as JSON lines; fails if it holds anything else."""
        return [json.loads(line) for line in self.out.splitlines()]

    @property
    def complaint(self) -> str:
        """The one line of standard error; fails if there is another one, or none."""
        (line,) = self.err.splitlines()
        assert line.startswith("leadone: ")
        return line.removeprefix("leadone: ")


class Leadone(Protocol):
    def __call__(self, *args: object) -> Done: ...


def write_config(folder: Path, sources: list[dict[str, Any]], **more: Any) -> Path:
    """A configuration with a database beside it, and a patient for every one that is named."""
    patients = dict.fromkeys(source["patient"] for source in sources)
    content = {
        "database": f"sqlite:///{folder}/leadone.db",
        "patients": [{"id": patient} for patient in patients],
        "sources": sources,
    }
    path = folder / "leadone.yaml"
    path.write_text(yaml.safe_dump(content | more))
    return path


def simulator(patient: str = "anna", *, seed: int = 1, **episode: Any) -> dict[str, Any]:
    script = [{"kind": "sinus_rhythm", "duration": "10m"} | episode]
    return {
        "type": "simulator",
        "patient": patient,
        "device": "sim",
        "seed": seed,
        "script": script,
    }


class Program:
    """``leadone`` as a process of its own, which is not left behind.

    Args:
        args: of its command line.
        folder: for its output, and for its temporary files.
        env: variables to add to those of this process.
        within: a command that runs the one that follows it, as ``env`` and ``unshare`` do.
    """

    def __init__(
        self,
        *args: object,
        folder: Path,
        env: Mapping[str, str] | None = None,
        within: Sequence[str] = (),
    ) -> None:
        self._out = (folder / f"out{id(self)}").open("w+")
        self._err = (folder / f"err{id(self)}").open("w+")
        self.process = subprocess.Popen(
            [
                *within,
                sys.executable,
                "-c",
                "from monitor.cli import main; main()",
                *map(str, args),
            ],
            stdin=subprocess.DEVNULL,
            stdout=self._out,
            stderr=self._err,
            env=os.environ | {"TMPDIR": str(folder)} | dict(env or {}),
            cwd=Path(__file__).parents[1],
        )

    def __enter__(self) -> "Program":
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self._out.close()
        self._err.close()

    @property
    def out(self) -> str:
        return Path(self._out.name).read_text()

    @property
    def err(self) -> str:
        return Path(self._err.name).read_text()

    def until(self, condition: Callable[[], bool], timeout_s: float = 60.0) -> None:
        deadline = time.monotonic() + timeout_s
        while not condition():
            assert self.process.poll() is None, self.err
            assert time.monotonic() < deadline, self.err
            time.sleep(0.05)

    def until_logged(self, event: str) -> None:
        self.until(lambda: f'"event": "{event}"' in self.err)

    def end(self, number: signal.Signals | None = None, timeout_s: float = 60.0) -> Done:
        """Send a signal, if any, and wait for the end."""
        if number is not None:
            self.process.send_signal(number)
        code = self.process.wait(timeout_s)
        return Done(code, self.out, self.err)
