"""A database that is full, read-only, damaged, too new, away or gone: hearts are watched still.

Faults are made by the operating system, against the program as a process.
"""

import json
import random
import signal
import sqlite3
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from program import Program, simulator, write_config
from watching import ALWAYS, S, uncovered

from alerts.records import Presence
from ingest.chunk import Stream
from monitor.cli.bluetooth import _store
from monitor.storage.database import DatabaseError
from monitor.storage.history import History
from monitor.storage.maintenance import check
from monitor.storage.records import Strap

if TYPE_CHECKING:
    from postgres import Postgres
    from small_disks import SmallDisk

    MakeDisk = Callable[[Path], SmallDisk]

pytest_plugins = ["small_disks", "postgres"]

# From the start on; the rest is what the machine of the tests may be slower by.
WITHIN_S = 90.0
ENDS = [signal.SIGTERM, signal.SIGKILL]

BEATS = [{"kind": "sinus_rhythm", "duration": "10m"}]


def fibrillates(after_s: int) -> list[dict[str, str]]:
    """A heart that fibrillates for a while, so long after each start."""
    vf = {"kind": "ventricular_fibrillation", "duration": "10s"}
    return [{"kind": "sinus_rhythm", "duration": f"{after_s}s"}, vf, *BEATS]


class Home:
    """A configuration, a database on some disk, and a file of what people were told."""

    def __init__(self, folder: Path, url: str) -> None:
        self.folder, self.url = folder, url
        self._told = folder / "told"
        self._told.touch()
        self.does(BEATS)

    def does(self, script: list[dict[str, str]]) -> None:
        """Choose what the heart does from the next start on."""
        source = simulator() | {"script": script}
        command = ["/bin/sh", "-c", f"cat >> {self._told}; echo >> {self._told}"]
        contact = {"name": "eve", "channels": [{"type": "command", "command": command}]}
        self.config = write_config(
            self.folder,
            [source],
            database=self.url,
            window={"length": "5s", "hop": "1s"},
            alarms={"contacts": [contact]},
        )

    @property
    def told(self) -> list[tuple[str, str, str]]:
        """Condition, kind and text of each message."""
        messages = [json.loads(line) for line in self._told.read_text().splitlines() if line]
        return [(m["data"]["condition"], m["data"]["kind"], m["body"]) for m in messages]

    def conditions(self) -> list[str]:
        return [condition for condition, kind, _ in self.told if kind == "raised"]

    @contextmanager
    def running(self) -> Iterator[Program]:
        with Program("run", "-c", self.config, folder=self.folder) as program:
            yield program

    def begin_and_end(self, how: signal.Signals) -> None:
        """Watch until some windows are stored, and end."""
        before = self.windows()
        with self.running() as program:
            program.until(lambda: self.windows() > before + 2)
            program.end(how)

    def windows(self) -> int:
        try:
            with History(self.url) as history:
                return len(history.readable("anna", *ALWAYS))
        except DatabaseError:
            return 0

    def everything_has_a_verdict(self) -> None:
        with History(self.url) as history:
            chunks = list(history.segments("anna", *ALWAYS))
            results = list(history.windows("anna", *ALWAYS))
        assert uncovered(chunks, results) == []


def both(folder: Path, case: Callable[[Path, signal.Signals], None]) -> None:
    """Try a case after a clean stop and after ``kill -9``, side by side: it is mostly waiting."""
    with ThreadPoolExecutor(len(ENDS)) as trying:
        tried = []
        for how in ENDS:
            own = folder / how.name
            own.mkdir()
            tried.append(trying.submit(case, own, how))
    for one in tried:
        one.result()


def is_heard(home: Home, program: Program, *words: str) -> None:
    """The daemon tells within 90 s what is wrong with the database, and of fibrillation."""
    began_s = time.monotonic()
    wanted = {"database", "vf"}
    program.until(lambda: wanted <= set(home.conditions()), WITHIN_S)
    assert time.monotonic() - began_s < WITHIN_S
    (text,) = (
        text for condition, kind, text in home.told if (condition, kind) == ("database", "raised")
    )
    for word in words:
        assert word in text
    assert program.process.poll() is None


def test_a_disk_that_is_full(tmp_path: Path, make_disk: "MakeDisk") -> None:
    def case(folder: Path, how: signal.Signals) -> None:
        disk = make_disk(folder / "small")
        home = Home(folder, f"sqlite:///{disk.folder}/leadone.db")
        home.begin_and_end(how)
        before = home.windows()
        disk.fill()
        home.does(fibrillates(16))
        with home.running() as program:
            is_heard(home, program, "full")
            disk.empty()
            # It begins anew by itself, and stores what it had to keep elsewhere.
            program.until(lambda: '"begins_anew"' in program.err, 90)
            program.until(lambda: home.windows() > before + 20, 60)
            assert program.end(signal.SIGTERM).code == 0
        with History(home.url) as history:
            assert "vf" in {alarm.condition for alarm in history.alarms("anna", *ALWAYS)}
        assert home.conditions().count("vf") == 1
        assert check(home.url) == []
        home.everything_has_a_verdict()

    both(tmp_path, case)


def test_a_disk_that_is_read_only(tmp_path: Path, make_disk: "MakeDisk") -> None:
    def case(folder: Path, how: signal.Signals) -> None:
        disk = make_disk(folder / "small")
        home = Home(folder, f"sqlite:///{disk.folder}/leadone.db")
        home.begin_and_end(how)
        disk.read_only(True)
        home.does(fibrillates(6))
        with home.running() as program:
            is_heard(home, program, "read")
        disk.read_only(False)

    both(tmp_path, case)


def test_a_disk_that_hangs(tmp_path: Path) -> None:
    with frozen_disk(tmp_path) as (disk, freeze, thaw):
        home = Home(tmp_path, f"sqlite:///{disk}/leadone.db")
        home.begin_and_end(signal.SIGKILL)
        freeze()
        home.does(fibrillates(6))
        with home.running() as program:
            try:
                is_heard(home, program, "does not answer")
            finally:
                thaw()  # or nothing ends a process that waits for it


@contextmanager
def frozen_disk(folder: Path) -> Iterator[tuple[Path, Callable[[], None], Callable[[], None]]]:
    """A disk that can be made to answer no write any more."""
    image, disk = folder / "image", folder / "disk"
    disk.mkdir()
    with image.open("wb") as file:
        file.truncate(32 << 20)
    for command in (["mkfs.ext4", "-q", image], ["mount", "-o", "loop", image, disk]):
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=False)
        except FileNotFoundError:
            pytest.skip(f"there is no {command[0]} here")
        if done.returncode:
            pytest.skip(f"no disk can be made here: {done.stderr.strip()}")

    def freeze() -> None:
        if subprocess.run(["fsfreeze", "--freeze", disk], check=False).returncode:
            pytest.skip("no disk can be made to hang here")

    def thaw() -> None:
        subprocess.run(["fsfreeze", "--unfreeze", disk], capture_output=True, check=False)

    try:
        yield disk, freeze, thaw
    finally:
        thaw()
        subprocess.run(["umount", "--lazy", disk], check=True)


def test_damaged_pages(tmp_path: Path) -> None:
    def case(folder: Path, how: signal.Signals) -> None:
        path = folder / "leadone.db"
        home = Home(folder, f"sqlite:///{path}")
        home.begin_and_end(how)
        pair(home)
        home.begin_and_end(how)
        damage(path)
        home.does(fibrillates(6))
        with home.running() as program:
            is_heard(home, program, "damaged", "corrupt")
            assert program.end(signal.SIGTERM).code == 0
        (aside,) = folder.glob("leadone.db.corrupt-*[0-9]")
        assert aside.stat().st_size > 0
        assert check(home.url) == []
        with History(home.url) as history:
            assert [strap.address for strap, _ in history.straps()] == [STRAP.address]

    both(tmp_path, case)


def test_a_newer_schema(tmp_path: Path) -> None:
    def case(folder: Path, how: signal.Signals) -> None:
        home = Home(folder, f"sqlite:///{folder}/leadone.db")
        home.begin_and_end(how)
        with closing(sqlite3.connect(folder / "leadone.db")) as connection:
            connection.execute("UPDATE alembic_version SET version_num = '9999'")
            connection.commit()
        home.does(fibrillates(6))
        with home.running() as program:
            is_heard(home, program, "newer")

    both(tmp_path, case)


def test_a_server_that_is_away(tmp_path: Path, postgres: "Postgres") -> None:
    stopped, heard = threading.Barrier(2, postgres.stop), threading.Barrier(2, postgres.start)

    def case(folder: Path, how: signal.Signals) -> None:
        home = Home(folder, address(postgres))
        home.begin_and_end(how)
        stopped.wait(120)
        home.does(fibrillates(16))
        with home.running() as program:
            is_heard(home, program)
            heard.wait(120)
            program.until(lambda: '"begins_anew"' in program.err, 90)
            program.until(lambda: home.windows() > 20, 60)
            assert program.end(signal.SIGTERM).code == 0
        with History(home.url) as history:
            assert "vf" in {alarm.condition for alarm in history.alarms("anna", *ALWAYS)}
        home.everything_has_a_verdict()

    try:
        both(tmp_path, case)
    finally:
        if postgres.process is None:
            postgres.start()


def address(postgres: "Postgres") -> str:
    """As a configuration has it."""
    return postgres.new_database().replace("postgresql:", "postgresql+psycopg:")


STRAP = Strap(Stream("anna", "h10"), "A0:9E:1A:00:00:01", "polar_h10", None, 1_790_000_000 * S)


def pair(home: Home) -> None:
    """Store what ``leadone pair`` does when a strap has proven itself."""
    _store(home.url, STRAP)


def damage(path: Path) -> None:
    """Write garbage over every third page behind the schema, as a failing card does."""
    random_ = random.Random(1)
    with path.open("r+b") as file:
        pages = path.stat().st_size // 4096
        for page in range(2, pages, 3):
            file.seek(page * 4096)
            file.write(random_.randbytes(4096))


@pytest.fixture
def after_an_alarm(tmp_path: Path) -> Iterator[tuple[Home, Program]]:
    """A daemon whose alarm is over, and nobody has answered."""
    home = Home(tmp_path, f"sqlite:///{tmp_path}/leadone.db")
    home.does(fibrillates(6))
    with home.running() as program:
        program.until(lambda: ("vf", "latched") in [(c, kind) for c, kind, _ in home.told], 90)
        yield home, program


def test_words_that_nobody_understands(after_an_alarm: tuple[Home, Program]) -> None:
    home, program = after_an_alarm
    assert program.end(signal.SIGTERM).code == 0
    with closing(sqlite3.connect(home.folder / "leadone.db")) as connection:
        connection.execute("UPDATE alarm_signals SET presence = 'dozing'")
        connection.commit()
    with home.running() as again:
        again.until(lambda: "database" in home.conditions(), WITHIN_S)
        again.until_logged("ready")
        assert again.end(signal.SIGTERM).code == 0


def test_what_nobody_answered_outlives_a_file_that_is_deleted(
    after_an_alarm: tuple[Home, Program],
) -> None:
    home, program = after_an_alarm
    for suffix in ("", "-wal", "-shm"):
        Path(f"{home.folder}/leadone.db{suffix}").unlink(missing_ok=True)
    program.until(lambda: "database" in home.conditions(), 60)
    with History(home.url) as history:
        (vf,) = (s for s in history.signals() if s.alarm.condition == "vf")
    assert vf.presence is Presence.LATCHED
    assert program.end(signal.SIGTERM).code == 0
    assert check(home.url) == []


def test_a_file_that_is_no_database_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "leadone.db"
    path.write_text("Dear diary\n" * 500)
    home = Home(tmp_path, f"sqlite:///{path}")
    home.does(fibrillates(6))
    with home.running() as program:
        is_heard(home, program, "no database of leadone")
    assert path.read_text() == "Dear diary\n" * 500


@pytest.mark.parametrize("becomes", ["deleted", "emptied"])
def test_a_file_that_is_gone_at_the_start(tmp_path: Path, becomes: str) -> None:
    path = tmp_path / "leadone.db"
    home = Home(tmp_path, f"sqlite:///{path}")
    home.begin_and_end(signal.SIGTERM)
    pair(home)
    path.unlink()
    if becomes == "emptied":
        path.touch()
    with home.running() as program:
        program.until(lambda: "database" in home.conditions(), WITHIN_S)
        program.until(lambda: home.windows() > 2)
        assert program.end(signal.SIGTERM).code == 0
    (text,) = (text for condition, _, text in home.told if condition == "database")
    assert "was deleted or emptied" in text
    with History(home.url) as history:
        assert [strap.address for strap, _ in history.straps()] == [STRAP.address]


@pytest.mark.parametrize("becomes", ["deleted", "replaced"])
def test_a_file_that_is_deleted_or_replaced_while_it_is_used(tmp_path: Path, becomes: str) -> None:
    home = Home(tmp_path, f"sqlite:///{tmp_path}/leadone.db")
    path = tmp_path / "leadone.db"
    with home.running() as program:
        program.until(lambda: home.windows() > 2)
        pair(home)
        if becomes == "replaced":
            with (
                closing(sqlite3.connect(path)) as source,
                closing(sqlite3.connect(tmp_path / "copy")) as target,
            ):
                source.backup(target)
        for suffix in ("", "-wal", "-shm"):
            Path(f"{path}{suffix}").unlink(missing_ok=True)
        if becomes == "replaced":
            (tmp_path / "copy").rename(path)
        program.until_logged("begins_anew")
        program.until(lambda: "database" in home.conditions(), 60)
        program.until(lambda: home.windows() > 2)
        assert becomes in home.told[0][2]
        with History(home.url) as history:
            assert [strap.address for strap, _ in history.straps()] == [STRAP.address]
        assert program.end(signal.SIGTERM).code == 0
    assert check(home.url) == []


def test_a_second_daemon_is_refused(tmp_path: Path) -> None:
    home = Home(tmp_path, f"sqlite:///{tmp_path}/leadone.db")
    refused(home)


def test_a_second_daemon_on_one_server_is_refused(tmp_path: Path, postgres: "Postgres") -> None:
    refused(Home(tmp_path, address(postgres)))


def refused(home: Home) -> None:
    with home.running() as first:
        first.until_logged("ready")
        with home.running() as second:
            done = second.end(timeout_s=30)
        assert done.code == 1
        last = done.err.splitlines()[-1]
        assert last.startswith("leadone: ")
        assert str(first.process.pid) in last
        assert first.end(signal.SIGKILL).code == -signal.SIGKILL
    # A killed one holds nothing.
    with home.running() as third:
        third.until_logged("ready")
        assert third.end(signal.SIGTERM).code == 0
