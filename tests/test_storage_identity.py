import os
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from monitor.storage.identity import FileIdentity
from monitor.storage.maintenance import upgrade

pytest_plugins = ["postgres", "small_disks"]


@pytest.fixture
def path(tmp_path):
    upgrade(f"sqlite:///{tmp_path}/leadone.db")
    return tmp_path / "leadone.db"


@pytest.fixture
def identity(path):
    found = FileIdentity.of(f"sqlite:///{path}")
    yield found
    found.close()


def test_writing_to_it_changes_nothing(path, identity):
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE more AS SELECT randomblob(100000)")
        connection.execute("VACUUM")
    path.chmod(0o600)
    assert identity.changed() is None


def test_a_deleted_file(path, identity):
    path.unlink()
    assert identity.changed() == "was deleted"
    assert identity.changed() == "was deleted"


def test_a_file_that_was_moved_and_came_back(path, identity, tmp_path):
    path.rename(tmp_path / "elsewhere.db")
    assert identity.changed() == "was deleted"
    (tmp_path / "elsewhere.db").rename(path)
    assert identity.changed() is None


def test_a_folder_that_is_gone(path, identity):
    shutil.rmtree(path.parent)
    assert identity.changed() == "was deleted"


def test_a_file_in_its_place(path, identity, tmp_path):
    shutil.copy(path, tmp_path / "backup.db")
    (tmp_path / "backup.db").replace(path)
    assert identity.changed() == "was replaced by another file"


def test_a_new_file_is_another_one_even_under_an_old_number(path, identity):
    # File systems give the number of a deleted file to the next one.
    for _ in range(50):
        path.unlink()
        path.write_bytes(b"")
        assert identity.changed() == "was replaced by another file"


def test_a_file_that_is_made_later(tmp_path):
    path = tmp_path / "leadone.db"
    identity = FileIdentity(path)
    assert identity.changed() is None
    path.write_bytes(b"")
    assert identity.changed() is None
    path.unlink()
    assert identity.changed() == "was deleted"
    identity.close()
    assert identity.changed() is None


def test_sqlites_own_locks_stay_when_it_forgets_the_file(path):
    ask = (
        "import sqlite3, sys; c = sqlite3.connect(sys.argv[1], timeout=0);"
        "c.execute('BEGIN IMMEDIATE')"
    )
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        identity = FileIdentity(path)
        identity.changed()
        identity.close()
        asked = subprocess.run([sys.executable, "-c", ask, path], capture_output=True, check=False)
        assert b"locked" in asked.stderr


def test_a_disk_that_is_gone(small_disk):
    path = small_disk.folder / "leadone.db"
    path.write_bytes(b"")
    identity = FileIdentity(path)
    small_disk.unmount()
    assert identity.changed() == "was deleted"
    identity.close()


def test_a_server_is_no_file(postgres):
    identity = FileIdentity.of(postgres.new_database())
    assert identity.changed() is None
    identity.close()


def test_it_costs_no_descriptor_when_it_is_closed(path):
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(20):
        FileIdentity(path).close()
    assert len(list(Path("/proc/self/fd").iterdir())) == before


@pytest.mark.parametrize("how", ["deleted", "replaced", "moved away, closed and deleted"])
def test_a_deleted_file_frees_its_disk(small_disk, how):
    path = small_disk.folder / "leadone.db"
    path.write_bytes(bytes(400_000))
    identity = FileIdentity(path)
    if how == "moved away, closed and deleted":
        path = path.rename(path.with_name("aside.db"))
        assert identity.changed() == "was deleted"
        identity.close()
    path.unlink()
    if how == "replaced":
        path.write_bytes(b"")
    expected = {"deleted": "was deleted", "replaced": "was replaced by another file"}.get(how)
    assert identity.changed() == expected
    disk = os.statvfs(small_disk.folder)
    assert (disk.f_blocks - disk.f_bfree) * disk.f_frsize < 200_000
    for _ in range(20):  # another one under an old number
        path.unlink(missing_ok=True)
        path.write_bytes(b"")
        assert identity.changed() == (expected and "was replaced by another file")
    identity.close()
