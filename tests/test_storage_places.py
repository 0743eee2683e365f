import os
import stat
import tempfile

import pytest

from monitor.storage.places import state_folders


@pytest.fixture(autouse=True)
def temporary(tmp_path, monkeypatch):
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    monkeypatch.delenv("STATE_DIRECTORY", raising=False)
    monkeypatch.delenv("RUNTIME_DIRECTORY", raising=False)
    return folder / f"leadone-{os.getuid()}"


def test_the_best_come_first(tmp_path, temporary, monkeypatch):
    disk = tmp_path / "disk"
    disk.mkdir()
    state, more, runtime = (tmp_path / name for name in ("state", "more", "runtime"))
    monkeypatch.setenv("STATE_DIRECTORY", f"{state}:{more}")
    monkeypatch.setenv("RUNTIME_DIRECTORY", str(runtime))
    assert state_folders(f"sqlite:///{disk}/leadone.db") == [disk, state, more, runtime, temporary]
    assert all(folder.is_dir() for folder in (state, more, runtime, temporary))
    assert state_folders("postgresql://leadone@host/name") == [state, more, runtime, temporary]


def test_a_folder_is_listed_once(tmp_path, temporary, monkeypatch):
    monkeypatch.setenv("STATE_DIRECTORY", str(tmp_path))
    assert state_folders(f"sqlite:///{tmp_path}/leadone.db") == [tmp_path, temporary]


def test_the_folder_of_a_disk_that_is_not_mounted_is_not_made(tmp_path, temporary):
    missing = tmp_path / "disk"
    assert state_folders(f"sqlite:///{missing}/leadone.db") == [temporary]
    assert not missing.exists()


@pytest.mark.parametrize("url", ["", "mysql://host/name", "sqlite://", "sqlite:////\0/x.db", "x"])
def test_an_url_that_cannot_be_read(url, temporary):
    assert state_folders(url) == [temporary]


def test_the_temporary_folder_is_private(temporary):
    temporary.mkdir(mode=0o755)
    temporary.chmod(0o777)
    assert state_folders("") == [temporary]
    assert stat.S_IMODE(temporary.stat().st_mode) == 0o700


def test_a_link_in_place_of_the_temporary_folder_is_not_followed(tmp_path, temporary):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    temporary.symlink_to(elsewhere)
    assert state_folders("") == []


def test_the_temporary_folder_of_somebody_else_is_not_used(temporary):
    temporary.mkdir()
    try:
        os.chown(temporary, 65534, 65534)
    except PermissionError:
        pytest.skip("only root can give a folder away")
    assert state_folders("") == []


def test_what_cannot_be_made_is_left_out(tmp_path, temporary, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("STATE_DIRECTORY", f"{tmp_path}/file/state:relative:")
    temporary.write_text("")
    assert state_folders("postgresql://leadone@host/name") == []


def test_without_any_place_for_temporary_files(monkeypatch):
    def nowhere():
        raise FileNotFoundError(2, "No usable temporary directory found")

    monkeypatch.setattr(tempfile, "gettempdir", nowhere)
    assert state_folders("") == []
