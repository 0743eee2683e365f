"""A disk of a few megabytes that tests fill up or make read-only.

Use it with ``pytest_plugins = ["small_disks"]``.
"""

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest


class SmallDisk:
    """A file system in memory, mounted at ``folder``."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()
        mounting = self._run("mount", "-t", "tmpfs", "-o", "size=16m", "leadone-test", str(folder))
        if mounting.returncode:
            pytest.skip(f"no file system can be mounted here: {mounting.stderr.strip()}")

    def fill(self) -> None:
        """Leave no room for a single byte."""
        with (self.folder / "filling").open("wb", buffering=0) as file:
            try:
                while True:
                    file.write(bytes(4096))
            except OSError:
                pass

    def empty(self) -> None:
        (self.folder / "filling").unlink()

    def read_only(self, yes: bool = True) -> None:
        done = self._run("mount", "-o", f"remount,{'ro' if yes else 'rw'}", str(self.folder))
        assert done.returncode == 0, done.stderr

    def unmount(self) -> None:
        self._run("umount", "--lazy", str(self.folder))

    @staticmethod
    def _run(*command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.fixture
def make_disk() -> Iterator[Callable[[Path], SmallDisk]]:
    """Makes disks at folders that are not there yet; in threads too."""
    if os.geteuid() != 0:
        pytest.skip("only root mounts file systems")
    made: list[SmallDisk] = []

    def make(folder: Path) -> SmallDisk:
        made.append(SmallDisk(folder))
        return made[-1]

    try:
        yield make
    finally:
        for disk in made:
            disk.unmount()


@pytest.fixture
def small_disk(tmp_path: Path, make_disk: Callable[[Path], SmallDisk]) -> SmallDisk:
    return make_disk(tmp_path / "small")
