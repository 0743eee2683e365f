"""Preparing a data set: what is written, what is left out, and that nothing is ever half done."""

import errno
import os
import random
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import structlog
import yaml
from dataset_samples import Made, contents, ecg_like, many
from hypothesis import given
from hypothesis import strategies as st

from models.conditioning import condition
from training.__main__ import main
from training.datasets import writer
from training.datasets.cache import Cache
from training.datasets.prepare import bridge, prepare, starts
from training.datasets.record import Record
from training.errors import TrainingError


def one(signal_: np.ndarray, rate: float = 100.0, leads: tuple[str, ...] = ("I", "II")) -> Record:
    return Record("a", "p", signal_, rate, leads)


def refusal(source: Made, path: Path, **options: Any) -> str:
    with pytest.raises(TrainingError) as caught:
        prepare(source, path, **options)
    text = str(caught.value)
    assert "\n" not in text
    return text


# --- windows -------------------------------------------------------------------------------------


def test_windows_start_every_five_seconds_and_the_last_ends_with_the_record(tmp_path: Path) -> None:
    x = ecg_like(2, 2300)
    report = prepare(Made([one(x)]), tmp_path / "c")
    cache = Cache(tmp_path / "c")
    assert report.windows == 4
    for row, at in enumerate((0, 500, 1000, 1300)):
        alone = condition(x[:, at : at + 1000], 100.0, target_rate=100.0, length=1000)
        assert np.array_equal(cache.signals[row], alone.astype(np.float16))
    assert cache.record.tolist() == [0, 0, 0, 0]


def test_another_rate_length_and_hop(tmp_path: Path) -> None:
    prepare(Made([one(ecg_like(2, 3000), 250.0)]), tmp_path / "c", rate=50, length=200, hop=2)
    cache = Cache(tmp_path / "c")
    # 12 s in windows of 4 s: at 0, 2, 4, 6 and 8 s.
    assert cache.signals.shape == (5, 2, 200)
    assert (cache.rate, cache.length) == (50, 200)


@given(st.integers(1, 500), st.integers(2, 100), st.integers(1, 100))
def test_windows_cover_the_whole_record(n: int, size: int, hop: int) -> None:
    places = starts(n, size, min(hop, size))
    seen = np.zeros(max(n, size), dtype=bool)
    for at in places:
        seen[at : at + size] = True
    assert seen[:n].all()
    assert places == sorted(set(places))
    assert places[-1] == max(0, n - size)


def test_a_short_record_is_padded_and_one_below_five_seconds_left_out(tmp_path: Path) -> None:
    kept = Record("kept", "p", ecg_like(2, 500), 100.0, ("I", "II"))
    short = Record("short", "p", ecg_like(2, 499), 100.0, ("I", "II"))
    report = prepare(Made([short, kept]), tmp_path / "c")
    cache = Cache(tmp_path / "c")
    assert cache.ids == ("kept",)
    assert cache.signals[0, :, :500].any(axis=0).all()
    assert not cache.signals[0, :, 500:].any()
    assert report.skipped == (("short", "short", "5.0 s"),)


def test_leads_are_stored_in_the_order_of_the_source(tmp_path: Path) -> None:
    x = ecg_like(3, 1000)
    flat = np.vstack((x[:1], np.full((1, 1000), 512, "f4")))
    records = [
        Record("swapped", "p", x, 100.0, ("II", "V1", "I")),
        Record("half", "p", flat, 100.0, ("I", "II")),
        Record("only II", "p", x[:1], 100.0, ("II",)),
        Record("neither", "p", x[:1], 100.0, ("V1",)),
        Record("flat", "p", flat[1:], 100.0, ("I",)),
    ]
    report = prepare(Made(records), tmp_path / "c")
    cache = Cache(tmp_path / "c")
    z = condition(x, 100.0, target_rate=100.0, length=1000).astype(np.float16)
    assert np.array_equal(cache.signals[0], z[[2, 0]])
    assert cache.present.tolist() == [[True, True], [True, False], [False, True]]
    assert not cache.signals[1, 1].any()
    assert not cache.signals[2, 0].any()
    assert [(r, why) for r, why, _ in report.skipped] == [("neither", "no lead"), ("flat", "flat")]


def test_gaps_are_bridged_up_to_a_tenth_of_a_second() -> None:
    x = np.arange(40, dtype=np.float32)[None].repeat(4, axis=0)
    holed = x.copy()
    holed[1, 5:15] = np.nan
    holed[2, 5:16] = np.nan
    holed[3, :10] = np.nan
    filled, usable = bridge(holed, 10)
    assert usable.tolist() == [True, True, False, True]
    assert np.allclose(filled[:2], x[:2]), "a line is drawn from 4 to 15"
    assert not filled[2].any()
    assert np.allclose(filled[3, :10], 10), "the first sample is held"
    assert np.isnan(holed[1, 5]), "what was read is left alone"


def test_a_long_gap_takes_the_lead_from_its_windows_only(tmp_path: Path) -> None:
    x = ecg_like(2, 2500)
    x[0, 100:200] = np.nan
    x[:, 2200:2300] = np.nan
    lost = Record("lost", "p", np.full((2, 1000), np.nan, "f4"), 100.0, ("I", "II"))
    report = prepare(Made([one(x), lost]), tmp_path / "c")
    cache = Cache(tmp_path / "c")
    # At 0 lead I is gone, 5 and 10 s are whole, and from 15 s on both are gone.
    assert cache.present.tolist() == [[False, True], [True, True], [True, True]]
    assert report.dropped == {"gap": 1}
    assert [(r, why) for r, why, _ in report.skipped] == [("lost", "gap")]


# --- labels --------------------------------------------------------------------------------------


def labelled_cache(tmp_path: Path) -> Cache:
    columns = ("RBBB", "CRBBB", "PVC", "AF", "CINC_N")
    x = ecg_like(2, 1000)
    sets = [
        (frozenset({"CRBBB"}), frozenset({"CRBBB", "VPB"})),
        (frozenset({"AF"}), frozenset[str]()),
        (frozenset({"CINC_N", "SVPB"}), None),
    ]
    records = [
        Record(f"r{i}", f"p{i}", x, 100.0, ("I", "II"), p, k) for i, (p, k) in enumerate(sets)
    ]
    prepare(Made(records, columns), tmp_path / "c")
    return Cache(tmp_path / "c")


def test_a_positive_of_one_is_a_positive_of_its_equivalents(tmp_path: Path) -> None:
    cache = labelled_cache(tmp_path)
    assert cache.labels.tolist() == [[1, 1, 0, 0, 0], [0, 0, 0, 1, 0], [0, 0, 0, 0, 1]]


def test_what_is_not_known_is_masked_and_a_positive_is_always_known(tmp_path: Path) -> None:
    cache = labelled_cache(tmp_path)
    # A set that speaks of VPB speaks of PVC.
    assert cache.known.astype(int).tolist() == [[1, 1, 1, 0, 0], [0, 0, 0, 1, 0], [1, 1, 1, 1, 1]]


def test_targets_find_equivalents_and_mask_strangers(tmp_path: Path) -> None:
    labels, known = labelled_cache(tmp_path).targets(("VEB", "CRBBB", "LVH", "CINC_N"))
    assert labels.dtype == np.float32
    assert labels.tolist() == [[0, 1, 0, 0], [0, 0, 0, 0], [0, 0, 0, 1]]
    assert known.astype(int).tolist() == [[1, 1, 0, 0], [0, 0, 0, 0], [1, 1, 0, 1]]


def test_patients_and_folds(tmp_path: Path) -> None:
    x = ecg_like(2, 1000)
    records = [
        Record("a", "ann", x, 100.0, ("I", "II"), fold=7),
        Record("b", "cem", x, 100.0, ("I", "II")),
        Record("c", "bob", x, 100.0, ("I", "II")),
        Record("d", "cem", x, 100.0, ("I", "II")),
        Record("e", "eve", x, 100.0, ("I", "II"), fold=-1),
    ]
    prepare(Made(records, columns=()), tmp_path / "c")
    cache = Cache(tmp_path / "c")
    assert cache.patients == ("ann", "cem", "bob", "cem", "eve")
    assert cache.folds.tolist() == [7, 2, 0, 2, -1], "without one, by patient"
    assert cache.labels.shape == (5, 0)
    assert cache.leads == ("I", "II")
    assert (cache.name, cache.licence) == ("made", "none needed")


# --- report --------------------------------------------------------------------------------------


def test_the_report_counts_everything(tmp_path: Path) -> None:
    report = prepare(many(14), tmp_path / "c")
    assert (report.read, report.written, report.windows) == (14, 12, 26 - 3)
    assert report.skipped == (("bad-3", "bad-3", "made so"), ("bad-10", "bad-10", "made so"))
    assert report.dropped == {"gap": 3}
    assert report.labels == {"AF": (6, 12), "NSR": (6, 12)}
    assert report.unknown == {"X": 12}


def test_the_report_is_kept_and_says_it_all(tmp_path: Path) -> None:
    report = prepare(many(14), tmp_path / "c")
    text = (tmp_path / "c" / "report.txt").read_text(encoding="utf-8")
    assert text == str(report)
    for part in (
        "14 records read, 12 written as 23 windows, 2 skipped",
        "none needed",
        "skipped, bad-3: 1, e.g. bad-3 (made so)",
        "windows dropped, gap: 3",
        "codes the vocabulary does not have: X (12)",
    ):
        assert part in text
    assert re.search(r"^AF +6 +12$", text, re.MULTILINE)
    assert (tmp_path / "c" / "skipped.csv").read_text(encoding="utf-8").splitlines() == [
        "record,reason,detail",
        "bad-3,bad-3,made so",
        "bad-10,bad-10,made so",
    ]


def test_progress_is_logged_at_every_tenth(tmp_path: Path) -> None:
    with structlog.testing.capture_logs() as logs:
        prepare(many(40), tmp_path / "c")
    assert [entry["records"] for entry in logs] == list(range(4, 41, 4))
    assert {entry["of"] for entry in logs} == {40}


def test_no_usable_record_is_an_error_that_points_to_the_reasons(tmp_path: Path) -> None:
    message = refusal(Made(["bad", "worse"]), tmp_path / "c")
    assert "none of 2 records" in message
    assert "worse,worse,made so" in (tmp_path / "c" / "skipped.csv").read_text(encoding="utf-8")
    with pytest.raises(TrainingError, match="not finished"):
        Cache(tmp_path / "c")


# --- going on where it was -----------------------------------------------------------------------


class Killed(BaseException):
    """Stands for the process's end."""


def kill_at(patch: pytest.MonkeyPatch, moment: int) -> None:
    """End the run at the ``moment``-th change of the disk; an append is then half done."""
    left = [moment]
    append, replace, unlink = writer._append, Path.replace, Path.unlink

    def tick() -> None:
        left[0] -= 1
        if left[0] == 0:
            raise Killed

    def appending(file: object, data: bytes) -> None:
        try:
            tick()
        except Killed:
            append(file, bytes(data)[: len(data) // 2])
            raise
        append(file, data)

    def syncing(file: int) -> None:  # that what is written survives the process needs no sync
        tick()

    def replacing(path: Path, target: Path) -> Path:
        tick()
        return replace(path, target)

    def unlinking(path: Path, missing_ok: bool = False) -> None:
        tick()
        unlink(path, missing_ok)

    patch.setattr(writer, "_append", appending)
    patch.setattr(writer.os, "fsync", syncing)
    patch.setattr(Path, "replace", replacing)
    patch.setattr(Path, "unlink", unlinking)


def test_ended_at_any_moment_the_next_run_comes_to_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer, "_BATCH", 3)
    source = many(7)
    prepare(source, tmp_path / "whole")
    whole = contents(tmp_path / "whole")
    moment, ended = 0, False
    while not ended:
        moment += 1
        path = tmp_path / f"c{moment}"
        with monkeypatch.context() as patch:
            kill_at(patch, moment)
            try:
                prepare(source, path)
                ended = True
            except Killed:
                pass
        if (path / "cache.yaml").exists():
            assert contents(path).items() >= whole.items()
        prepare(source, path)
        assert contents(path) == whole
        shutil.rmtree(path)
    assert moment > 30


def test_the_journal_never_runs_ahead_of_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    events: list[tuple[str, str]] = []
    append, fsync, replace = writer._append, os.fsync, Path.replace

    def appending(file: object, data: bytes) -> None:
        if data:
            events.append(("append", Path(file.name).name))
        append(file, data)

    def syncing(file: int) -> None:
        events.append(("sync", Path(f"/proc/self/fd/{file}").readlink().name))
        fsync(file)

    def replacing(path: Path, target: Path) -> Path:
        events.append(("replace", target.name))
        return replace(path, target)

    monkeypatch.setattr(writer, "_append", appending)
    monkeypatch.setattr(writer.os, "fsync", syncing)
    monkeypatch.setattr(Path, "replace", replacing)
    prepare(many(9), tmp_path / "c")
    journal = events.index(("append", "records.jsonl"))
    for name in ("signals.f16", "present.u8", "labels.u8"):
        written = max(i for i, e in enumerate(events) if e == ("append", name))
        assert ("sync", name) in events[written:journal]
    manifest = events.index(("sync", "cache.yaml.part"))
    assert ("sync", "records.jsonl") in events[journal:manifest]
    assert events[manifest + 1] == ("replace", "cache.yaml"), "whole or not at all"


CHILD = """
import sys
sys.path[:0] = sys.argv[2:4]
from pathlib import Path
from dataset_samples import many
from training.datasets import prepare, writer
writer._BATCH = 8
print("ready", flush=True)
prepare.prepare(many(1500), Path(sys.argv[1]))
"""


def test_kill_9_and_go_on(tmp_path: Path) -> None:
    here = Path(__file__).parent
    command = [sys.executable, "-c", CHILD, str(tmp_path / "c"), str(here), str(here.parent)]
    moments = random.Random(4)
    places = []
    for _ in range(2):
        child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        assert child.stdout.readline() == b"ready\n"
        journal = tmp_path / "c" / "records.jsonl"
        grown = journal.stat().st_size if journal.exists() else 0
        while not journal.exists() or journal.stat().st_size <= grown:
            assert child.poll() is None
        with pytest.raises(subprocess.TimeoutExpired):
            child.wait(moments.uniform(0.0, 0.05))
        child.send_signal(signal.SIGKILL)
        child.stdout.close()
        assert child.wait() == -signal.SIGKILL
        places.append(journal.read_bytes().count(b"\n"))
    assert 0 < places[0] < places[1] < 1500
    prepare(many(1500), tmp_path / "c")
    prepare(many(1500), tmp_path / "whole")
    assert contents(tmp_path / "c") == contents(tmp_path / "whole")


def test_only_what_is_left_is_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "_BATCH", 4)
    source = many(12)
    asked: list[str] = []
    read = source.read

    def stopping(record: str) -> Record:
        asked.append(record)
        if len(asked) == 10:
            raise Killed
        return read(record)

    monkeypatch.setattr(source, "read", stopping)
    with pytest.raises(Killed):
        prepare(source, tmp_path / "c")
    prepare(source, tmp_path / "c")
    assert asked == [*source.ids()[:10], *source.ids()[8:]]


def test_a_full_disk_is_one_line_and_can_be_gone_on_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer, "_BATCH", 4)
    append, room = writer._append, [30_000]

    def limited(file: object, data: bytes) -> None:
        if len(data) > room[0]:
            append(file, bytes(data)[: room[0]])
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        room[0] -= len(data)
        append(file, data)

    with monkeypatch.context() as patch:
        patch.setattr(writer, "_append", limited)
        message = refusal(many(9), tmp_path / "c")
    assert "disk full" in message
    assert "same command again" in message
    prepare(many(9), tmp_path / "c")
    prepare(many(9), tmp_path / "whole")
    assert contents(tmp_path / "c") == contents(tmp_path / "whole")


def test_preparing_again_changes_nothing(tmp_path: Path) -> None:
    first = prepare(many(9), tmp_path / "c")
    before = contents(tmp_path / "c")
    assert prepare(many(9), tmp_path / "c") == first
    assert contents(tmp_path / "c") == before


def test_a_folder_prepared_otherwise_is_left_alone(tmp_path: Path) -> None:
    prepare(many(9), tmp_path / "c")
    before = contents(tmp_path / "c")
    assert "rate 100.0, not 50.0" in refusal(many(9), tmp_path / "c", rate=50)
    assert "hop_s 5.0, not 2.0" in refusal(many(9), tmp_path / "c", hop=2)
    assert "source_records 9, not 10" in refusal(many(10), tmp_path / "c")
    (tmp_path / "c" / "cache.yaml").rename(tmp_path / "c" / "unfinished.yaml")
    assert "rate 100.0, not 50.0" in refusal(many(9), tmp_path / "c", rate=50)
    (tmp_path / "c" / "unfinished.yaml").rename(tmp_path / "c" / "cache.yaml")
    assert contents(tmp_path / "c") == before


def test_two_at_once_do_not_mix(tmp_path: Path) -> None:
    outer = many(9)
    read = outer.read

    def reading(record: str) -> Record:
        if record == "r4":
            assert "another prepare" in refusal(many(9), tmp_path / "c")
        return read(record)

    outer.read = reading  # type: ignore[method-assign]
    prepare(outer, tmp_path / "c")
    prepare(many(9), tmp_path / "whole")
    assert contents(tmp_path / "c") == contents(tmp_path / "whole")


def test_impossible_forms_are_refused(tmp_path: Path) -> None:
    for options in ({"rate": 0.0}, {"length": 1}, {"hop": 0.0}, {"rate": float("nan")}):
        assert "expected a rate above 0" in refusal(many(2), tmp_path / "c", **options)
    assert not (tmp_path / "c").exists()


def test_a_file_in_the_way_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "c").write_text("x")
    assert "File exists" in refusal(many(2), tmp_path / "c")
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "signals.f16").write_text("somebody's")
    assert "expected a new folder" in refusal(many(2), tmp_path / "d")
    assert (tmp_path / "d" / "signals.f16").read_text() == "somebody's"


# --- where it came from --------------------------------------------------------------------------


def a_folder(path: Path) -> Path:
    (path / "deep").mkdir(parents=True)
    (path / "deep" / "r1.hea").write_text("r1 1 100 1000\n")
    (path / "labels.csv").write_text("record,AF\n")
    return path


def test_a_data_set_that_has_changed_is_not_taken_for_prepared(tmp_path: Path) -> None:
    origin = a_folder(tmp_path / "o")
    for when in ("finished", "on the way"):
        folder = tmp_path / when
        source = many(9)
        if when == "on the way":
            source.read = stops  # type: ignore[method-assign]
            with pytest.raises(KeyboardInterrupt):
                prepare(source, folder, origin=origin)
        else:
            prepare(source, folder, origin=origin)
        before = contents(folder)
        (origin / "labels.csv").write_text(f"record,{when[:2]}\n")  # of the same length
        assert re.search(r"o: has changed since .* remove that folder", refusal_of(origin, folder))
        assert contents(folder) == before


def stops(record: str) -> Record:
    raise KeyboardInterrupt


def refusal_of(origin: Path, folder: Path) -> str:
    return refusal(many(9), folder, origin=origin)


@pytest.mark.parametrize("change", ["label", "new", "gone", "linked"])
def test_any_file_of_the_data_set_counts(tmp_path: Path, change: str) -> None:
    origin = a_folder(tmp_path / "o")
    elsewhere = a_folder(tmp_path / "elsewhere")
    (origin / "link").symlink_to(elsewhere)
    (elsewhere / "round").symlink_to(origin)
    prepare(many(9), tmp_path / "c", origin=origin)
    prepare(many(9), tmp_path / "c", origin=origin)
    (origin / "notes.txt").write_text("no reader looks at it")
    (origin / ".labels.csv").write_text("nor at this")
    prepare(many(9), tmp_path / "c", origin=origin)
    if change == "label":
        (origin / "deep" / "r1.hea").write_text("r1 1 100 1000\n#Dx: 1\n")
    elif change == "new":
        (origin / "deep" / "R2.DAT").write_bytes(b"")
    elif change == "gone":
        (origin / "deep" / "r1.hea").unlink()
    else:
        (elsewhere / "deep" / "r1.hea").write_text("r2 1 100 1000\n")
    assert "has changed since" in refusal_of(origin, tmp_path / "c")


def test_a_folder_that_does_not_say_what_it_came_of_is_taken_at_its_word(tmp_path: Path) -> None:
    origin = a_folder(tmp_path / "o")
    prepare(many(9), tmp_path / "c")
    prepare(many(9), tmp_path / "c", origin=origin)


def test_what_is_no_data_does_not_count(tmp_path: Path) -> None:
    origin = a_folder(tmp_path / "o")
    (origin / "gone.dat").symlink_to(tmp_path / "nowhere.dat")
    (origin / "lost+found").mkdir()
    folder = origin / "prepared" / "c"  # its skipped.csv is not of the data set
    for _ in range(2):
        prepare(many(9), folder, origin=origin)
        (origin / "lost+found" / "1.csv").write_text("")
    (tmp_path / "nowhere.dat").write_bytes(b"")
    assert "has changed since" in refusal_of(origin, folder)


def test_the_command_notices_a_change(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number in (1, 2):
        values = "\n".join(f"{v:.1f}" for v in ecg_like(1, 1000, number)[0])
        (tmp_path / f"{number}.csv").write_text(f"# rate=100 unit=uV\nI\n{values}\n")
    (tmp_path / "labels.csv").write_text("record,AF\n1,1\n2,0\n")
    for origin in (tmp_path, tmp_path / "labels.csv"):
        command = ["prepare", str(origin), "-o", str(tmp_path / "c")]
        assert main(command) == 0
    (tmp_path / "labels.csv").write_text("record,AF\n1,0\n2,1\n")
    capsys.readouterr()
    assert main(command) == 1
    said = capsys.readouterr().err
    assert "labels.csv: has changed since" in said
    assert said.count("\n") == 1
    shutil.rmtree(tmp_path / "c")
    assert main(command) == 0
    assert Cache(tmp_path / "c").labels[:, 0].tolist() == [0, 1]


def test_a_folder_that_cannot_be_listed_hides_no_records(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    origin = a_folder(tmp_path / "o")
    listed = os.scandir

    def scandir(path: str) -> object:
        if str(path).endswith("deep"):
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return listed(path)

    monkeypatch.setattr(os, "scandir", scandir)
    assert re.search("deep: Permission denied; expected", refusal_of(origin, tmp_path / "c"))
    assert not (tmp_path / "c").exists()


# --- opening -------------------------------------------------------------------------------------


def test_the_fingerprint_follows_the_data_and_not_the_place(tmp_path: Path) -> None:
    for name, source in (("a", many(9)), ("b", many(9)), ("c", many(8))):
        prepare(source, tmp_path / name)
    a, b, c = (Cache(tmp_path / name).fingerprint for name in "abc")
    assert a == b != c
    assert re.fullmatch("[0-9a-f]{64}", a)


@pytest.mark.parametrize("name", ["signals.f16", "present.u8", "labels.u8", "records.jsonl"])
def test_a_damaged_cache_is_one_line(tmp_path: Path, name: str) -> None:
    path = tmp_path / "c"
    prepare(many(9), path)
    raw = (path / name).read_bytes()
    (path / name).write_bytes(raw[:-2])
    with pytest.raises(TrainingError, match=rf"{name}: .*prepare it again"):
        Cache(path)
    (path / name).unlink()
    with pytest.raises(TrainingError, match=rf"{name}: No such file.*prepare it again"):
        Cache(path)


def test_a_flipped_label_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "c" / "labels.u8"
    prepare(many(9), tmp_path / "c")
    raw = bytearray(path.read_bytes())
    raw[3] ^= 1
    path.write_bytes(raw)
    with pytest.raises(TrainingError, match="checksum"):
        Cache(tmp_path / "c")


def test_a_manifest_that_is_none_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "c"
    prepare(many(9), path)
    manifest = yaml.safe_load((path / "cache.yaml").read_text())
    for text, expected in (
        (b"\xff\xfe", "damaged"),
        (b"[1, 2", "damaged"),
        (b"- list", "damaged"),
        (yaml.safe_dump({**manifest, "format": 99}).encode(), "format 99; expected 1"),
        (yaml.safe_dump({**manifest, "windows": 5}).encode(), "prepare it again"),
        (yaml.safe_dump({**manifest, "records": 5}).encode(), "prepare it again"),
        (yaml.safe_dump({k: v for k, v in manifest.items() if k != "leads"}).encode(), "'leads'"),
    ):
        (path / "cache.yaml").write_bytes(text)
        with pytest.raises(TrainingError, match=expected) as caught:
            Cache(path)
        assert "\n" not in str(caught.value)
    with pytest.raises(TrainingError, match=r"no cache\.yaml"):
        Cache(tmp_path)
