import json
import os
import stat
from dataclasses import replace

import pytest
import structlog
from storage_samples import T0

from ingest.chunk import Stream
from monitor.storage.pairings import Kept, keep, kept
from monitor.storage.records import Strap

pytest_plugins = ["small_disks"]

URL = "postgresql://leadone:s3cret@host/name"
ANNA = Strap(Stream("anna", "H10"), "A0:00:00:00:00:01", "polar", None, T0)
BOB = Strap(Stream("bob", "Ünïcode"), "A0:00:00:00:00:02", "heart_rate", "hci1", T0 + 1)


@pytest.fixture
def folders(tmp_path):
    found = [tmp_path / "first", tmp_path / "second"]
    for folder in found:
        folder.mkdir()
    return found


def the_file(folder):
    (path,) = folder.iterdir()
    return path


def test_nothing_was_kept_yet(folders):
    with structlog.testing.capture_logs() as logs:
        assert kept(folders, URL) is None
        assert kept([], URL) is None
    assert logs == []


def test_what_is_kept_is_given_back(folders):
    assert keep(folders, URL, [BOB, ANNA])
    assert kept(folders, URL) == Kept((ANNA, BOB), True)
    path = the_file(folders[0])
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert "s3cret" not in path.read_text() + path.name
    assert list(folders[1].iterdir()) == []
    keep(folders, URL, [BOB])
    assert kept(folders, URL) == Kept((BOB,), True)


def test_a_house_without_straps_had_a_database_all_the_same(folders):
    keep(folders, URL, [], database_existed=False)
    assert kept(folders, URL) == Kept((), False)
    keep(folders, URL, [])
    keep(folders, URL, [ANNA], database_existed=False)
    assert kept(folders, URL) == Kept((ANNA,), True)


def test_only_what_changed_is_written(folders):
    keep(folders, URL, [ANNA, BOB])
    before = the_file(folders[0]).stat()
    assert keep(folders, URL, [BOB, ANNA])
    assert the_file(folders[0]).stat() == before
    keep(folders, URL, [BOB, replace(ANNA, adapter="hci1")])
    assert the_file(folders[0]).stat().st_ino != before.st_ino


def test_each_database_has_its_own(folders, monkeypatch):
    keep(folders, URL, [ANNA])
    assert kept(folders, "postgresql://leadone@host/other") is None
    # A password is no part of what it is.
    assert kept(folders, URL.replace("s3cret", "better")) == Kept((ANNA,), True)
    keep(folders, f"sqlite:///{folders[0]}/leadone.db", [BOB])
    monkeypatch.chdir(folders[0])
    assert kept(folders, "sqlite:///leadone.db") == Kept((BOB,), True)


def test_a_folder_that_is_gone_or_full_is_passed_over(small_disk, folders):
    places = [small_disk.folder / "none", small_disk.folder, folders[0]]
    keep(places, URL, [ANNA])
    assert the_file(small_disk.folder).exists()
    small_disk.fill()
    assert keep(places, URL, [ANNA, BOB])
    assert kept(places, URL) == Kept((ANNA, BOB), True)
    # The newest holds, wherever it is.
    small_disk.empty()
    assert keep(places, URL, [BOB])
    assert kept(places, URL) == Kept((BOB,), True)
    assert the_file(folders[0]).exists()
    small_disk.read_only()
    assert keep(places, URL, [ANNA])
    assert kept(places, URL) == Kept((ANNA,), True)
    assert {path.suffix for path in small_disk.folder.iterdir()} == {".json"}


def test_nowhere_to_keep_it(tmp_path):
    with structlog.testing.capture_logs() as logs:
        assert not keep([tmp_path / "none"], URL, [ANNA])
    assert [log["event"] for log in logs] == ["pairings_not_kept"]
    assert "No such file or directory" in logs[0]["failures"][0]


GARBLED = [
    b"",
    b"{",
    b"[]",
    b"null",
    os.urandom(500),
    b"[" * 100_000,
    b'{"format": 2, "serial": 1, "straps": [], "database_existed": true}',
    b'{"format": 1, "serial": 1, "straps": [{}], "database_existed": true}',
    b'{"format": 1, "serial": "1", "straps": [], "database_existed": true}',
]


@pytest.mark.parametrize("content", GARBLED)
def test_a_garbled_file_is_none_and_is_made_anew(folders, content):
    keep(folders, URL, [ANNA])
    path = the_file(folders[0])
    path.write_bytes(content)
    with structlog.testing.capture_logs() as logs:
        assert kept(folders, URL) is None
    assert [(log["event"], log["file"]) for log in logs] == [("pairings_unreadable", str(path))]
    assert keep(folders, URL, [ANNA])
    assert kept(folders, URL) == Kept((ANNA,), True)


@pytest.mark.parametrize(
    ("name", "value"), [("address", 5), ("paired_ns", "now"), ("adapter", 0), ("patient", None)]
)
def test_a_strap_that_is_none(folders, name, value):
    keep(folders, URL, [ANNA])
    path = the_file(folders[0])
    content = json.loads(path.read_text())
    content["straps"][0][name] = value
    path.write_text(json.dumps(content))
    assert kept(folders, URL) is None


def test_an_older_file_elsewhere_is_better_than_a_garbled_one(folders):
    keep(folders[1:], URL, [ANNA])
    keep(folders, URL, [BOB])
    the_file(folders[0]).write_bytes(b"{")
    assert kept(folders, URL) == Kept((ANNA,), True)
