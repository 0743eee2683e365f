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


def offsets(path):
    """Where the groups of a file begin, and where the last one ends."""
    data, at, found = path.read_bytes(), 24, [24]
    while at < len(data):
        at += 16 + struct.unpack_from("<I", data, at)[0]
        found.append(at)
    return found


def flip(path, offset, bit=0):
    data = bytearray(path.read_bytes())
    data[offset] ^= 1 << bit
    path.write_bytes(data)


def left_behind(folder):
    return [path for path in folder.iterdir() if ".damaged-" in path.name]


# In the payload, checksum, number, and in each byte of the length: a little off, far, beyond all.
@pytest.mark.parametrize(("byte", "bit"), [(40, 3), (5, 0), (12, 0)] + [(n, 2) for n in range(4)])
@pytest.mark.parametrize("one_by_one", [True, False])
def test_a_flipped_bit_costs_one_group(tmp_path, byte, bit, one_by_one):
    spool = Spool([tmp_path], "db")
    for numbers in [[n] for n in range(100)] if one_by_one else [range(100)]:
        spool.append(some(*numbers))
    path = tmp_path / "db.spool"
    flip(path, offsets(path)[9] + byte, bit)
    damaged = path.read_bytes()
    before = metric("leadone_spool_damaged_total")
    with structlog.testing.capture_logs() as logs:
        for read in (spool, Spool([tmp_path], "db")):  # while it is open, and at a start
            entries = read.cursor({}).take(200)
            whole = [n for n in range(100) if n != 9]
            assert [int(entry.records[0].id[1:]) for entry in entries] == whole
            assert [entry.index for entry in entries] == whole
            # What was stored before the damage is passed over, and no more.
            for taken, first in [(9, 10), (10, 10), (50, 50)]:
                (entry,) = read.cursor({entries[0].file: taken}).take(1)
                assert entry.index == first
                assert entry.records[0].id == f"p{first}"
    assert [log["event"] for log in logs] == ["spool_damaged"]
    assert metric("leadone_spool_damaged_total") == before + 1
    spool.append(some(100))  # elsewhere
    assert path.read_bytes() == damaged
    assert kept(spool) == [*whole, 100]
    assert len(spool.clear()) == 2
    (aside,) = tmp_path.iterdir()
    assert aside.name.startswith("db.spool.damaged-")
    assert aside.read_bytes() == damaged
    assert Spool([tmp_path], "db").is_empty


def test_a_page_of_zeros_in_the_middle(tmp_path):
    spool = Spool([tmp_path], "db")
    spool.append(some(*range(100)))
    path = tmp_path / "db.spool"
    at = offsets(path)
    data = bytearray(path.read_bytes())
    data[at[20] + 30 : at[24] + 7] = bytes(at[24] + 7 - at[20] - 30)
    path.write_bytes(data)
    entries = Spool([tmp_path], "db").cursor({}).take(200)
    # Groups that were appended at once have numbers that follow each other.
    assert [entry.index for entry in entries] == [*range(20), *range(25, 100)]
    assert [int(entry.records[0].id[1:]) for entry in entries] == [*range(20), *range(25, 100)]


def test_several_damages_and_a_torn_end(tmp_path):
    Spool([tmp_path], "db").append(some(*range(20)))
    path = tmp_path / "db.spool"
    at = offsets(path)
    for group in (0, 4, 5, 11):
        flip(path, at[group] + 30)
    path.write_bytes(path.read_bytes()[:-5])
    with structlog.testing.capture_logs() as logs:
        spool = Spool([tmp_path], "db")
    assert [log["event"] for log in logs] == ["spool_damaged"]
    whole = [n for n in range(19) if n not in {0, 4, 5, 11}]
    assert [entry.index for entry in spool.cursor({}).take(99)] == whole
    # Stored up to a group that is torn now: what comes after is not taken for it.
    file = spool.cursor({}).take(1)[0].file
    spool.append(some(77))
    assert [entry.records[0].id for entry in spool.cursor({file: 20}).take(9)] == ["p77"]


def test_a_flipped_bit_in_the_first_bytes(tmp_path):
    Spool([tmp_path], "db").append(some(1, 2))
    flip(tmp_path / "db.spool", 3)
    spool = Spool([tmp_path], "db")
    assert kept(spool) == [1, 2]
    spool.clear()
    assert len(left_behind(tmp_path)) == 1


def test_a_file_of_which_nothing_can_be_read_is_set_aside(tmp_path):
    Spool([tmp_path], "db").append(some(1))
    flip(tmp_path / "db.spool", 40)
    assert Spool([tmp_path], "db").is_empty
    assert [*tmp_path.iterdir()] == left_behind(tmp_path) != []


def test_much_garbage_holds_up_no_start(tmp_path):
    spool = Spool([tmp_path], "db")
    spool.append(some(1, 2))
    spool.append(some(3))
    path = tmp_path / "db.spool"
    data, end = path.read_bytes(), offsets(path)[1]
    path.write_bytes(data[:end] + random.Random(1).randbytes(4 << 20) + data[end:])
    began = time.monotonic()
    assert kept(Spool([tmp_path], "db")) == [1, 2, 3]
    assert time.monotonic() - began < 10
