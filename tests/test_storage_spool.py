import contextlib
import os
import random
import struct
import time

import pytest
import structlog
from prometheus_client import REGISTRY
from storage_samples import T0, S, gap

from monitor.storage import spool as spool_module
from monitor.storage.records import Patient
from monitor.storage.spool import Spool


def metric(name):
    return REGISTRY.get_sample_value(name)


def some(*numbers):
    return [[Patient(f"p{n}"), gap(n)] for n in numbers]


def kept(spool):
    return [int(group[0].id[1:]) for group in spool.groups()]


@pytest.fixture(autouse=True)
def at_once(monkeypatch):
    monkeypatch.setattr(spool_module, "_ASK_AGAIN_S", 0.0)


def test_what_was_kept_comes_back_in_its_order(tmp_path):
    spool = Spool([tmp_path], "db")
    assert spool.is_empty
    assert spool.path is None
    assert not [*tmp_path.iterdir()]  # nothing is made for nothing
    spool.append(some(1, 2))
    spool.append([])
    spool.append(some(3))
    assert kept(spool) == [1, 2, 3]
    assert next(spool.groups()) == tuple(some(1)[0])
    assert spool.path == tmp_path / "db.spool"
    assert spool.path.stat().st_mode & 0o777 == 0o600
    assert spool.size == spool.path.stat().st_size
    again = Spool([tmp_path], "db")
    assert kept(again) == [1, 2, 3]
    again.append(some(4))
    assert kept(Spool([tmp_path], "db")) == [1, 2, 3, 4]
    assert Spool([tmp_path], "other").is_empty
    assert len(again.clear()) == 1
    assert again.is_empty
    assert again.size == 0
    assert not [*tmp_path.iterdir()]
    again.append(some(5))
    assert kept(again) == [5]


def test_a_cursor_sees_what_is_appended_meanwhile_and_passes_over_what_was_taken(tmp_path):
    spool = Spool([tmp_path], "db")
    spool.append(some(1, 2, 3))
    cursor = spool.cursor({})
    first = cursor.take(2)
    spool.append(some(4))
    assert [entry.index for entry in first + cursor.take(9)] == [0, 1, 2, 3]
    assert cursor.take(9) == []
    spool.append(some(5))
    assert len(cursor.take(9)) == 1
    rest = spool.cursor({first[0].file: 3}).take(9)
    assert [entry.records[0].id for entry in rest] == ["p4", "p5"]


def torn(data, how):
    rng = random.Random(1)
    match how:
        case "cut":
            return data[:-3]
        case "cut in the head":
            return data[:-60]
        case "zeros":
            return data + bytes(100)
        case "garbage":
            return data + rng.randbytes(100)
        case "a length beyond all":
            return data + struct.pack("<IIQ", 0xFFFFFFFF, 1, 1)
        case "a bit":
            return data[:-2] + bytes([data[-2] ^ 4]) + data[-1:]


@pytest.mark.parametrize(
    "how", ["cut", "cut in the head", "zeros", "garbage", "a length beyond all", "a bit"]
)
def test_a_torn_end_costs_only_what_was_torn(tmp_path, how):
    Spool([tmp_path], "db").append(some(1, 2, 3))
    path = tmp_path / "db.spool"
    path.write_bytes(torn(path.read_bytes(), how))
    before = metric("leadone_spool_damaged_total")
    with structlog.testing.capture_logs() as logs:
        spool = Spool([tmp_path], "db")
    assert metric("leadone_spool_damaged_total") == before + 1
    assert [log["event"] for log in logs] == ["spool_damaged"]
    whole = [1, 2, 3] if how in {"zeros", "garbage", "a length beyond all"} else [1, 2]
    assert kept(spool) == whole
    spool.append(some(4))
    assert kept(spool) == [*whole, 4]
    assert kept(Spool([tmp_path], "db")) == [*whole, 4]
    assert metric("leadone_spool_damaged_total") == before + 1


def test_every_cut_gives_the_groups_before_it(tmp_path):
    Spool([tmp_path], "db").append(some(1, 2, 3))
    data = (tmp_path / "db.spool").read_bytes()
    found = set()
    for cut in range(len(data)):
        (tmp_path / "db.spool").write_bytes(data[:cut])
        numbers = kept(spool := Spool([tmp_path], "db"))
        assert numbers == [1, 2, 3][: len(numbers)]
        spool.append(some(9))
        assert kept(Spool([tmp_path], "db")) == [*numbers, 9]
        found.add(len(numbers))
        for file in tmp_path.iterdir():
            file.unlink()
    assert found == {0, 1, 2}


def test_what_is_no_spool_is_put_aside(tmp_path):
    (tmp_path / "db.spool").write_bytes(b"somebody else's file, and a long one")
    spool = Spool([tmp_path], "db")
    spool.append(some(1))
    assert kept(spool) == [1]
    assert sorted(path.name[:17] for path in tmp_path.iterdir()) == [
        "db.spool",
        "db.spool.damaged-",
    ]


def test_a_disk_that_no_longer_gives_what_was_written(tmp_path):
    spool = Spool([tmp_path], "db")
    spool.append(some(1, 2, 3))
    data = bytearray(spool.path.read_bytes())
    data[-5] ^= 1
    with spool.path.open("r+b") as file:
        file.write(data)
    assert kept(spool) == [1, 2]
    spool.append(some(4))  # not behind what cannot be read
    assert kept(spool) == [1, 2, 4]
    assert kept(Spool([tmp_path], "db")) == [1, 2, 4]


def test_a_file_that_was_deleted_is_begun_anew(tmp_path):
    spool = Spool([tmp_path], "db")
    spool.append(some(1))
    (tmp_path / "db.spool").unlink()
    spool.append(some(2))
    assert kept(spool) == [1, 2]
    assert kept(Spool([tmp_path], "db")) == [2]
    spool.clear()
    assert not [*tmp_path.iterdir()]


def limited(monkeypatch, folder, most):
    """No file in ``folder`` may take more, as if it were a full disk."""
    before = spool_module._require_room

    def require(of, kept_bytes, more):
        before(of, kept_bytes, more)
        if of == folder and kept_bytes + more > most():
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(spool_module, "_require_room", require)


def test_folders_take_turns_and_the_order_is_kept(tmp_path, monkeypatch):
    first, second = tmp_path / "a", tmp_path / "b"
    first.mkdir()
    second.mkdir()
    most = 10_000
    limited(monkeypatch, first, lambda: most)
    spool = Spool([first, second], "db")
    expected = []
    for number in range(60):
        most = 0 if number // 7 % 2 else 1_000_000
        spool.append(some(number))
        expected.append(number)
    assert len({file.path for file in spool._files}) == 2
    assert kept(spool) == expected
    again = Spool([second, first], "db")
    assert kept(again) == expected
    assert len(again.clear()) == 2
    assert Spool([first, second], "db").is_empty


def test_nowhere(tmp_path):
    with pytest.raises(OSError, match="no folder"):
        Spool([], "db").append(some(1))
    spool = Spool([tmp_path / "missing", tmp_path / "db.spool"], "db")
    with structlog.testing.capture_logs() as logs:
        for _ in range(3):
            with pytest.raises(OSError, match="No such file"):
                spool.append(some(1))
    assert len(logs) == 2  # of each folder once
    assert spool.is_empty


def test_a_folder_that_cannot_be_read_keeps_no_start(tmp_path):
    Spool([tmp_path], "db").append(some(1))
    (tmp_path / "file").touch()
    with structlog.testing.capture_logs() as logs:
        spool = Spool([tmp_path / "file", tmp_path], "db")
    assert [log["event"] for log in logs] == ["spool_unreadable"]
    spool.append(some(2))
    assert kept(spool) == [1, 2]


def test_it_is_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr(spool_module, "_MOST_ON_DISK", 5000)
    monkeypatch.setattr(spool_module, "_MOST_IN_MEMORY", 5000)
    spool = Spool([tmp_path], "db")

    def fill():
        for number in range(1000):
            spool.append(some(number))

    with pytest.raises(OSError, match="No space left"):
        fill()
    assert 4000 < spool.size <= 5000
    before = kept(spool)
    # What does not fit as a whole is not kept in part.
    with pytest.raises(OSError, match="No space left"):
        spool.append(some(*range(100)))
    assert kept(Spool([tmp_path], "db")) == before


def test_the_last_of_a_disk_is_left_to_others(tmp_path, monkeypatch):
    disk = os.statvfs(tmp_path)
    total, free = disk.f_blocks * disk.f_frsize, disk.f_bavail * disk.f_frsize
    monkeypatch.setattr(spool_module, "_FREE_BYTES", total)
    monkeypatch.setattr(spool_module, "_FREE_SHARE", min(1.0, free / total + 0.01))
    with pytest.raises(OSError, match="No space left"):
        Spool([tmp_path], "db").append(some(1))


def test_a_folder_that_failed_is_asked_again_later(tmp_path, monkeypatch):
    monkeypatch.setattr(spool_module, "_ASK_AGAIN_S", 0.2)
    folder = tmp_path / "later"
    spool = Spool([folder], "db")
    with pytest.raises(OSError, match="No such file"):
        spool.append(some(1))
    folder.mkdir()
    with pytest.raises(OSError, match="No such file"):
        spool.append(some(1))
    until = time.monotonic() + 5
    while spool.is_empty:
        assert time.monotonic() < until
        with contextlib.suppress(OSError):
            spool.append(some(2))
    assert kept(spool) == [2]


def test_the_start_of_time_does_not_matter(tmp_path, monkeypatch):
    now = [T0]
    monkeypatch.setattr(spool_module.time, "time_ns", lambda: now[0])
    Spool([tmp_path], "db").append(some(1))
    now[0] = 0  # a gateway that wakes in 1970
    spool = Spool([tmp_path], "db")
    spool.append(some(2))
    now[0] = T0 + 9 * S
    spool.append(some(3))
    assert kept(spool) == [1, 2, 3]
