"""Readers of data sets: what their labels mean, and what becomes of records that are not right."""

import csv
import re
import warnings
from pathlib import Path

import numpy as np
import pytest
import structlog
from dataset_samples import ecg_like, write_shard, write_wfdb

from ingest.formats.annotations import Annotations, read_annotations
from ingest.recordings import RecordingError
from training.datasets.cache import Cache
from training.datasets.challenge import Challenge, data_set
from training.datasets.cinc2017 import Cinc2017
from training.datasets.deepfake import Deepfake
from training.datasets.folder import Folder
from training.datasets.labels import DIAGNOSTIC_COLUMNS, cinc_labels, scp_labels, with_equivalents
from training.datasets.mitbih import MitBih, annotated
from training.datasets.packed import PackedCinc2017, PackedLead1, PackedPtbXl
from training.datasets.prepare import prepare
from training.datasets.ptbxl import PtbXl
from training.datasets.record import Skip, Source, lead_name
from training.datasets.sources import KINDS, guess_kind, open_source
from training.errors import TrainingError

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # wfdb 4.3 uses what pandas 3.1 deprecates
    import wfdb

TWELVE = ("I", "II", "III", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6")


def why_not(source: Source, record: str) -> str:
    with pytest.raises(Skip) as caught:
        source.read(record)
    return caught.value.reason


def linked(to: Path, *folders: Path) -> Path:
    """A folder with links to the files of others."""
    to.mkdir()
    for folder in folders:
        for path in folder.iterdir():
            (to / path.name).symlink_to(path)
    return to


# --- labels --------------------------------------------------------------------------------------


def test_scp_statements_bring_their_classes() -> None:
    assert scp_labels(["NORM", "SR"]) == {"NECG", "NSR", "SUPER_NORM", "SUB_NORM"}
    # 1AVB and CLBBB are both disturbances of conduction; ABQRS is form, not a diagnosis.
    assert scp_labels(["1AVB", "CLBBB", "ABQRS"]) == {
        *("IAVB", "CLBBB", "ABQRS"),
        *("SUPER_CD", "SUB__AVB", "SUB_CLBBB"),
    }
    assert scp_labels(["INJAS"]) == {"INJAS", "SUPER_MI", "SUB_AMI"}


@pytest.mark.data
def test_the_classes_are_those_of_ptb_xls_own_table(data: Path) -> None:
    with (data / "ptbxl100" / "scp_statements.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        expected = set()
        if row["diagnostic"] == "1.0":
            expected = {f"SUPER_{row['diagnostic_class']}", f"SUB_{row['diagnostic_subclass']}"}
        assert scp_labels([row[""]]) & set(DIAGNOSTIC_COLUMNS) == expected
    assert len(rows) == 71
    assert len(DIAGNOSTIC_COLUMNS) == 5 + 23


def test_a_challenge_2017_reference_says_no_more_than_it_knows() -> None:
    own = {"CINC_N", "CINC_A", "CINC_O", "CINC_~"}
    others = {"AF", "AFL", "PVC", "PAC", "SVARR", "BIGU", "PR"}
    assert cinc_labels("N") == ({"NSR", "CINC_N"}, {"NSR"} | others | own)
    assert cinc_labels("A") == ({"AF", "CINC_A"}, {"AF", "NSR"} | own)
    assert cinc_labels("O") == ({"CINC_O"}, {"AF"} | own)
    assert cinc_labels("~") == ({"CINC_~"}, own)


def test_equivalents_as_the_challenge_merges_them() -> None:
    assert with_equivalents(frozenset({"VPB", "AF"})) == {"VPB", "PVC", "VEB", "AF"}
    assert with_equivalents(frozenset({"LBBB"})) == {"LBBB", "CLBBB"}
    assert with_equivalents(frozenset({"SUPER_CD"})) == {"SUPER_CD"}


def test_leads_by_whatever_name() -> None:
    names = ("i", "AVR", " v1", "Lead II", "ECG aVL", "mlii", "ECG", "Resp")
    assert [lead_name(name) for name in names] == [
        *("I", "aVR", "V1", "II", "aVL", "MLII"),
        *(None, None),
    ]


# --- PTB-XL --------------------------------------------------------------------------------------

DATABASE = """\
ecg_id,patient_id,scp_codes,heart_axis,strat_fold,filename_lr,filename_hr
1,17.0,"{'IMI': 35.0, 'SR': 0.0}",ALAD,3,records100/1_lr,records500/1_hr
2,17.0,"{'NORM': 100.0}",MID,3,records100/2_lr,records500/2_hr
3,18.0,"{'NEW': 50.0, 'AFIB': 0.0}",,10,records100/3_lr,records500/3_hr
4,19.0,"{'NORM': 80.0}",SAG,10,records100/4_lr,records500/4_hr
"""


def ptb_xl(folder: Path, database: str = DATABASE) -> Path:
    for i in (1, 2, 3):
        write_wfdb(folder / f"records100/{i}_lr", TWELVE, ecg_like(12, 1000, i) / 1000, 100)
    (folder / "ptbxl_database.csv").write_text(database)
    return folder


def test_ptb_xl_labels_patients_and_folds(tmp_path: Path) -> None:
    source = PtbXl(ptb_xl(tmp_path))
    assert source.ids() == ("1", "2", "3", "4")
    one, two, three = (source.read(i) for i in "123")
    assert one.positive == {"IMI", "NSR", "LAD", "SUPER_MI", "SUB_IMI"}
    assert (one.patient, one.fold, one.rate, one.leads) == ("17", 3, 100, TWELVE)
    assert one.known is None
    assert two.positive == {"NECG", "SUPER_NORM", "SUB_NORM"}
    assert two.known is None, "MID says that there is no deviation"
    assert three.positive == {"AF"}
    assert three.known == set(source.columns) - {"LAD", "RAD"}
    assert three.unknown == ("NEW",)
    assert why_not(source, "4") == "unreadable"
    assert set(source.columns) > one.positive | two.positive | three.positive
    assert len(source.columns) == 71 + 2 + 5 + 23


def test_an_axis_that_says_nothing_of_deviation_is_not_known(tmp_path: Path) -> None:
    source = PtbXl(ptb_xl(tmp_path, DATABASE.replace("ALAD", "SAG")))
    assert source.read("1").known == set(source.columns) - {"LAD", "RAD"}


def test_records500_come_first(tmp_path: Path) -> None:
    folder = ptb_xl(tmp_path)
    write_wfdb(folder / "records500/1_hr", TWELVE, ecg_like(12, 5000) / 1000, 500)
    assert PtbXl(folder).read("1").rate == 500


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("{'NORM': 100.0}", "NORM", r"ptbxl_database\.csv: ecg_id 2: scp_codes 'NORM'"),
        ("17.0,\"{'NORM': 100.0}\",MID,3", "17.0,\"{'NORM': 100.0}\",MID,x", r"ecg_id 2: fold 'x'"),
        ("\n3,", "\n2,", r"ptbxl_database\.csv: ecg_id '2' stands there twice"),
        ("strat_fold", "fold", r"ptbxl_database\.csv: no column 'strat_fold'"),
        (",records500/2_hr", "", r"ptbxl_database\.csv: line 3: expected 7 cells"),
    ],
)
def test_a_broken_database_is_one_line(tmp_path: Path, old: str, new: str, message: str) -> None:
    assert old in DATABASE
    folder = ptb_xl(tmp_path, DATABASE.replace(old, new))
    with pytest.raises(TrainingError, match=message):
        PtbXl(folder).read("2")


def test_ptb_xl_without_records_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "ptbxl_database.csv").write_text(DATABASE)
    with pytest.raises(TrainingError, match="no records500 or records100"):
        PtbXl(tmp_path)


@pytest.mark.data
def test_real_ptb_xl_is_the_same_at_both_rates_and_packed(data: Path, tmp_path: Path) -> None:
    samples = data / "samples" / "ptbxl"
    slow = linked(tmp_path / "slow", samples)
    (slow / "records500").unlink()
    for name, folder in (("fast", samples), ("slow", slow)):
        assert prepare(PtbXl(folder), tmp_path / f"c-{name}").written == 12
    fast, slow_ = Cache(tmp_path / "c-fast"), Cache(tmp_path / "c-slow")
    a, b = (np.asarray(c.signals, dtype=np.float64) for c in (fast, slow_))
    # PTB-XL's own 100 Hz files lie some 1 ms beside those at 500 Hz.
    alike = [np.corrcoef(x.ravel(), y.ravel())[0, 1] for x, y in zip(a, b, strict=True)]
    assert np.median(alike) > 0.98
    assert min(alike) > 0.9
    assert np.array_equal(fast.labels, slow_.labels)
    eight = fast.ids.index("8")
    assert {c for c, y in zip(fast.columns, fast.labels[eight], strict=True) if y} == {
        *("IMI", "ABQRS", "NSR", "LAD", "SUPER_MI", "SUB_IMI")
    }
    packed = PackedPtbXl(data / "ptbxl100")
    raw = PtbXl(slow)
    for record in ("1", "8"):
        theirs, ours = packed.read(record), raw.read(record)
        assert np.abs(theirs.signal - ours.signal).max() <= 4 * 1.5, "packed in steps of 4 µV"
        assert theirs.positive == ours.positive - {"LAD", "RAD"}
        assert theirs.fold == ours.fold


# --- packed shards -------------------------------------------------------------------------------


def packed_ptb_xl(folder: Path) -> np.ndarray:
    signal = np.arange(80).reshape(8, 10) * 4 - 100
    leads = ("I", "II", "V1", "V2", "V3", "V4", "V5", "V6")
    write_shard(folder / "fold10.npz", {"4": signal, "5": signal}, leads, 100.0, 4)
    write_shard(folder / "fold2.npz", {"7": signal + 8, "6": signal}, leads, 100.0, 4)
    (folder / "labels.csv").write_text(
        "ecg_id,age,sex,strat_fold,SR,1AVB,SUPER_CD\n4,50,0,10,1,0,0\n6,,1,2,0,0,0\n7,60,1,2,1,1,1\n"
    )
    return signal


def test_packed_ptb_xl(tmp_path: Path) -> None:
    signal = packed_ptb_xl(tmp_path)
    source = PackedPtbXl(tmp_path)
    assert source.ids() == ("7", "6", "4", "5"), "fold by fold, in stored order"
    record = source.read("7")
    assert record.positive == {"NSR", "IAVB", "SUPER_CD", "SUB__AVB"}
    assert (record.fold, record.rate, record.leads) == (2, 100, TWELVE)
    assert np.array_equal(record.signal[[0, 1, 6, 11]], (signal + 8)[[0, 1, 2, 7]])
    assert np.array_equal(record.signal[2], record.signal[1] - record.signal[0])
    assert source.columns[:2] == ("NSR", "IAVB")
    assert set(source.columns[2:]) == set(DIAGNOSTIC_COLUMNS)
    assert why_not(source, "5") == "no label"


def test_packed_challenge_2017(tmp_path: Path) -> None:
    signal = np.array([[3, -5, 700, 699]])
    write_shard(tmp_path / "part0.npz", {"A00001": signal, "A00003": -signal}, ("I",), 300.0, 1)
    (tmp_path / "labels.csv").write_text("record,label\nA00001,N\nA00003,~\n")
    source = PackedCinc2017(tmp_path)
    first, second = map(source.read, source.ids())
    assert np.array_equal(first.signal, signal)
    assert (first.rate, first.leads, first.patient) == (300, ("I",), "A00001")
    assert (first.positive, first.known) == cinc_labels("N")
    # By the hash of their names A00001 trains and A00003 tests.
    assert (first.fold, second.fold) == (0, 2)


def test_a_record_whose_shard_is_not_there_is_missed(tmp_path: Path) -> None:
    packed_ptb_xl(tmp_path / "p")
    (tmp_path / "p" / "fold2.npz").unlink()
    source = PackedPtbXl(tmp_path / "p")
    assert source.ids() == ("4", "5", "6", "7")
    assert [why_not(source, i) for i in "67"] == ["missing", "missing"]
    write_shard(tmp_path / "part0.npz", {"A00001": np.zeros((1, 9))}, ("I",), 300.0, 1)
    (tmp_path / "labels.csv").write_text("record,label\nA00001,N\nA00003,~\n")
    challenge_2017 = PackedCinc2017(tmp_path)
    assert challenge_2017.ids() == ("A00001", "A00003")
    assert why_not(challenge_2017, "A00003") == "missing"


def test_packed_lead_one(tmp_path: Path) -> None:
    write_shard(tmp_path / "all.npz", {"12-3": np.array([[2048, 2049]])}, ("I",), 125.0, 1)
    record = PackedLead1(tmp_path).read("12-3")
    assert np.array_equal(record.signal, [[204800, 204900]]), "counts of 0.1 mV"
    assert record.patient == "12"
    assert not record.positive


def generated(folder: Path, **records: str) -> Path:
    folder.mkdir()
    for name, text in records.items():
        (folder / f"{name}.asc").write_text(text)
    return folder


def test_generated_records_have_the_four_other_leads_computed(tmp_path: Path) -> None:
    folder = generated(tmp_path / "d", a="100 50 1 2 3 4 5 6\n-20 40 1 2 3 4 5 6\n")
    record = Deepfake(folder).read("a")
    assert record.leads == TWELVE
    assert record.rate == 500
    assert record.signal[:6, 0].tolist() == [100, 50, -50, -75, 75, 0], "I, II, III, aVR, aVL, aVF"
    assert record.signal[6:, 1].tolist() == [1, 2, 3, 4, 5, 6]
    assert not record.positive


def test_generated_records_that_are_not_are_skipped(tmp_path: Path) -> None:
    source = Deepfake(generated(tmp_path / "d", a="1 2 3\n", b="x\n", c=""))
    assert {why_not(source, name) for name in "abc"} == {"unreadable"}


def packed_zeros(path: Path, **instead: object) -> None:
    """A shard of two records of lead I, with some of its parts put differently."""
    write_shard(path, {n: np.zeros((1, 2000), int) for n in ("1-1", "1-2")}, ("I",), 125.0, 1)
    with np.load(path) as stored:
        parts = {**stored, **instead}
    np.savez_compressed(path, **{name: part for name, part in parts.items() if part is not None})


@pytest.mark.parametrize(
    "instead",
    [
        {"fs": np.float64(0)},
        {"fs": np.float64("nan")},
        {"fs": np.zeros(2)},
        {"lsb": np.int64(10**9)},
        {"leads": np.array(["I", "II"])},
        {"lengths": np.array([2000])},
        {"lengths": np.array([2000, -1])},
        {"lo": None},
    ],
)
def test_a_shard_whose_parts_do_not_fit_is_damaged(
    instead: dict[str, object], tmp_path: Path
) -> None:
    packed_zeros(tmp_path / "all.npz", **instead)
    with pytest.raises(TrainingError, match=r"all\.npz: .*damaged"):
        PackedLead1(tmp_path).read("1-1")


def test_a_shard_with_a_flipped_byte_is_never_a_traceback(tmp_path: Path) -> None:
    packed_zeros(tmp_path / "all.npz")
    whole = (tmp_path / "all.npz").read_bytes()
    refused = []
    for at in range(0, len(whole), 3):
        turned = bytearray(whole)
        turned[at] ^= 0xFF
        (tmp_path / "all.npz").write_bytes(turned)
        try:
            source = PackedLead1(tmp_path)
            for name in source.ids():
                source.read(name)
        except TrainingError as error:
            refused.append(str(error))
    assert len(refused) > 100
    assert not [said for said in refused if "\n" in said]


def test_a_packed_record_has_one_shard_known_leads_and_labels_of_0_and_1(tmp_path: Path) -> None:
    packed_ptb_xl(tmp_path / "twice")
    (tmp_path / "twice" / "fold7.npz").write_bytes(
        next((tmp_path / "twice").glob("fold*.npz")).read_bytes()
    )
    with pytest.raises(TrainingError, match="a record twice, or one of another shard"):
        PackedPtbXl(tmp_path / "twice")
    packed_ptb_xl(tmp_path / "true")
    table = tmp_path / "true" / "labels.csv"
    table.write_text(table.read_text().replace(",1,", ",True,"))
    source = PackedPtbXl(tmp_path / "true")
    with pytest.raises(TrainingError, match="ecg_id 7: label 'True'; expected 0 or 1"):
        source.read("7")
    packed_ptb_xl(tmp_path / "turned")
    for path in (tmp_path / "turned").glob("fold*.npz"):
        with np.load(path) as stored:
            parts = dict(stored)
        np.savez(path, **{**parts, "leads": parts["leads"][::-1]})
    source = PackedPtbXl(tmp_path / "turned")
    with pytest.raises(TrainingError, match=r"shards of V6, V5, .*; expected I, II, V1 to V6"):
        source.read(source.ids()[0])


def test_broken_shards_are_one_line(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"no fold\*\.npz"):
        PackedPtbXl(tmp_path)
    (tmp_path / "all.npz").write_bytes(b"no zip")
    with pytest.raises(TrainingError, match=r"all\.npz: not a packed shard"):
        PackedLead1(tmp_path)
    packed_ptb_xl(tmp_path)
    table = (tmp_path / "labels.csv").read_text()
    (tmp_path / "labels.csv").write_text(table.replace("1AVB", "1AWB"))
    with pytest.raises(TrainingError, match=r"labels\.csv: no diagnosis is called '1AWB'"):
        PackedPtbXl(tmp_path)


# --- Challenge 2020/2021 -------------------------------------------------------------------------


def challenge(folder: Path, **dx: str) -> Path:
    for name, codes in dx.items():
        letters = name.rstrip("0123456789")
        comments = f"#Age: 50\n{codes}\n#Rx: Unknown\n"
        write_wfdb(folder / letters / name, ("I", "AVR"), ecg_like(2, 3000) / 1000, 500, comments)
    return folder


def test_a_set_knows_what_at_least_one_of_its_records_has(tmp_path: Path) -> None:
    source = Challenge(
        challenge(
            tmp_path,
            A0001="#Dx: AF",
            A0002="#Dx: 59118001,164889003",
            E00001="# Dx: 426783006",
            E00002="#Dx: 17338001, 999, junk",
        )
    )
    assert source.ids() == ("A/A0001", "A/A0002", "E/E00001", "E/E00002")
    assert sorted(source.columns) == sorted(("NSR", "AF", "RBBB", "CRBBB", "PVC", "VPB", "VEB"))
    a, b, c, d = map(source.read, source.ids())
    assert a.positive == {"AF"}
    assert b.positive == {"AF", "RBBB", "CRBBB"}
    assert a.known == b.known == {"AF", "RBBB", "CRBBB"}
    assert c.positive == {"NSR"}
    assert d.positive == {"PVC", "VPB", "VEB"}
    assert c.known == d.known == {"NSR", "PVC", "VPB", "VEB"}
    assert d.unknown == ("999", "junk")
    assert a.leads == ("I", "aVR")


def test_a_record_without_a_diagnosis_has_no_known_label(tmp_path: Path) -> None:
    source = Challenge(challenge(tmp_path, A0001="#Dx: AF", A0002="#Dx: Unknown", A0003="#Sx: x"))
    for record in ("A/A0002", "A/A0003"):
        assert source.read(record).known == frozenset()


def test_a_challenge_record_has_one_fold_wherever_it_lies(tmp_path: Path) -> None:
    named = {f"A{i:04}": "#Dx: AF" for i in range(1, 9)}
    challenge(tmp_path / "all" / "g1", **named)
    challenge(tmp_path / "part", **named)
    folders = (Challenge(tmp_path / "all"), Challenge(tmp_path / "part" / "A"))
    patients = [[source.read(i).patient for i in source.ids()] for source in folders]
    assert patients[0] == patients[1] == list(named)


def test_chapman_and_ningbo_share_their_letters_only() -> None:
    assert data_set("JS10646") == data_set("JS00001")
    assert data_set("JS10647") == data_set("JS45551") != data_set("JS00001")
    assert data_set("HR00001") == "HR"
    assert data_set("I0001") != data_set("Q0001")


def test_unreadable_challenge_records_are_skipped(tmp_path: Path) -> None:
    source = Challenge(challenge(tmp_path, A0001="#Dx: AF", A0002="#Dx: AF"))
    (tmp_path / "A" / "A0001.dat").write_bytes(b"")
    assert why_not(source, "A/A0001") == "unreadable"
    report = prepare(source, tmp_path / "c")
    assert report.written == 1
    assert [(record, reason) for record, reason, _ in report.skipped] == [("A/A0001", "unreadable")]


@pytest.mark.data
def test_real_challenge_records(data: Path, tmp_path: Path) -> None:
    source = Challenge(data / "samples" / "challenge2021")
    report = prepare(source, tmp_path / "c")
    cache = Cache(tmp_path / "c")
    assert (report.read, report.written, report.unknown) == (22, 22, {})
    labels, known = cache.targets(("AF", "CRBBB", "STD", "NSR", "LQRSV"))
    truth = {record: y.tolist() for record, y in zip(cache.ids, labels, strict=True)}
    assert truth["A/A0026"] == [1, 0, 0, 0, 0], "the older headers say AF"
    assert truth["A/A0051"] == truth["A/A0001"] == [0, 1, 0, 0, 0], "RBBB, by name and by code"
    assert truth["A/A0076"] == [0, 0, 1, 0, 0]
    assert truth["S/S0001"] == [0, 0, 0, 1, 1]
    cannot = {record: (~k).tolist() for record, k in zip(cache.ids, known, strict=True)}
    assert cannot["S/S0002"] == [True, True, True, False, False]
    # 115.2 s at 1000 Hz: 22 windows from 0 to 105 s and one that ends with the record.
    assert (cache.record == cache.ids.index("S/S0002")).sum() == 23


# --- Challenge 2017 ------------------------------------------------------------------------------


def cinc(folder: Path, **tables: str) -> Path:
    for name in ("A00001", "A00003", "A00010"):
        write_wfdb(folder / name, ("ECG",), ecg_like(1, 3000) / 1000, 300)
    for name, text in tables.items():
        (folder / f"{name.replace('_', '-')}.csv").write_text(text)
    return folder


def test_raw_challenge_2017(tmp_path: Path) -> None:
    table = "A00001,N\nA00003,A\n"
    source = Cinc2017(cinc(tmp_path, REFERENCE=table, labels="record,label\nA00001,O\n"))
    records = [source.read(i) for i in ("A00001", "A00003")]
    assert [r.positive for r in records] == [{"NSR", "CINC_N"}, {"AF", "CINC_A"}]
    assert [r.fold for r in records] == [0, 2]
    assert records[0].leads == ("I",), "the device's ECG is lead I"
    assert why_not(source, "A00010") == "no label"
    (tmp_path / "A00003.hea").unlink()
    source = Cinc2017(tmp_path)
    assert source.ids() == ("A00001", "A00010", "A00003")
    assert why_not(source, "A00003") == "missing"


def test_a_record_in_two_folders_is_read_once_and_told(tmp_path: Path) -> None:
    folder = cinc(tmp_path / "training", REFERENCE="A00001,N\nA00003,A\nA00010,O\n")
    write_wfdb(folder / "validation" / "A00003", ("ECG",), ecg_like(1, 3000) / 1000, 300)
    with structlog.testing.capture_logs() as logs:
        source = Cinc2017(folder)
    assert source.ids() == ("A00001", "A00003", "A00010")
    assert [(line["record"], line["log_level"]) for line in logs] == [("A00003", "warning")]
    assert logs[0]["left_out"].endswith("validation/A00003.hea")


def test_the_reference_that_was_scored_comes_first(tmp_path: Path) -> None:
    folder = cinc(tmp_path, REFERENCE="A00001,N\n", REFERENCE_v3="A00001,~\n")
    assert Cinc2017(folder).read("A00001").positive == {"CINC_~"}


def test_labels_csv_serves_as_reference(tmp_path: Path) -> None:
    source = Cinc2017(cinc(tmp_path, labels="record,label\nA00010,O\n"))
    assert source.read("A00010").positive == {"CINC_O"}
    assert source.read("A00010").fold == 1


@pytest.mark.parametrize(
    ("tables", "message"),
    [
        ({}, "no reference"),
        ({"REFERENCE": "A00001,X\n"}, r"REFERENCE\.csv: A00001 is 'X'; expected N, A, O or ~"),
        ({"REFERENCE": "A00001,N\nA00001,A\n"}, r"REFERENCE\.csv: record 'A00001' stands"),
        ({"labels": "record,label\nA00003,N\nA00003,N\n"}, r"record 'A00003' stands there twice"),
        ({"REFERENCE": "A00001\n"}, r"REFERENCE\.csv: row 1: expected 2 cells, found 1"),
        ({"labels": "name,label\n"}, r"labels\.csv: no column 'record'"),
    ],
)
def test_a_broken_reference_is_one_line(
    tmp_path: Path, tables: dict[str, str], message: str
) -> None:
    with pytest.raises(TrainingError, match=message):
        Cinc2017(cinc(tmp_path, **tables))


@pytest.mark.data
def test_raw_and_packed_challenge_2017_are_the_same(data: Path, tmp_path: Path) -> None:
    folder = linked(tmp_path / "c", data / "samples" / "cinc2017")
    (folder / "labels.csv").symlink_to(data / "cinc2017" / "labels.csv")
    raw, packed = Cinc2017(folder), PackedCinc2017(data / "cinc2017")
    assert len(raw.ids()) == len(packed.ids()) == 6822
    assert sum((folder / f"{name}.hea").exists() for name in raw.ids()[:20]) == 16
    for record in raw.ids()[:3]:
        ours, theirs = raw.read(record), packed.read(record)
        assert np.abs(ours.signal - theirs.signal).max() < 0.01
        assert (ours.positive, ours.known, ours.fold) == (
            theirs.positive,
            theirs.known,
            theirs.fold,
        )


# --- MIT-BIH -------------------------------------------------------------------------------------


def words(*values: int) -> bytes:
    return b"".join(v.to_bytes(2, "little") for v in values)


def test_annotations_worked_by_hand(tmp_path: Path) -> None:
    path = tmp_path / "a.atr"
    path.write_bytes(
        words(28 << 10 | 18)  # rhythm change 18 samples in
        + words(63 << 10 | 3)
        + b"(N\0\0"  # a note of three bytes, padded to four
        + words(1 << 10 | 59)  # N, 59 samples later
        + words(61 << 10 | 1, 60 << 10 | 2, 62 << 10 | 1)  # subtype, number and channel
        + words(59 << 10, 1, 4464)  # skip 65536 + 4464 = 70000 samples
        + words(5 << 10 | 7)  # V, 7 samples after that
        + words(59 << 10, 0xFFFF, 0xFFFE)  # two samples back
        + words(45 << 10 | 2)  # a code nobody has given a symbol
        + words(0, 1 << 10 | 5)  # the end, and something after it
    )
    read = read_annotations(path)
    assert read.samples.tolist() == [18, 77, 70084, 70084]
    assert read.symbols == ("+", "N", "V", "45")
    assert read.texts == ("(N", "", "", "")


@pytest.mark.parametrize(
    "raw",
    [
        words(1 << 10 | 5, 59 << 10, 1),
        words(1 << 10 | 5, 63 << 10 | 9) + b"(N",
        words(64512),
        words(1 << 10 | 5, 5 << 10 | 9),  # between two: what follows would be read as no PVC
        words(1 << 10 | 5, 63 << 10 | 3) + b"(N\0",
        b"",
    ],
)
def test_annotations_that_break_off_are_refused(tmp_path: Path, raw: bytes) -> None:
    (tmp_path / "a.atr").write_bytes(raw)
    with pytest.raises(RecordingError, match="breaks off"):
        read_annotations(tmp_path / "a.atr")
    with pytest.raises(RecordingError, match="No such file"):
        read_annotations(tmp_path / "b.atr")


@pytest.mark.data
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # wfdb's, of pandas
def test_annotations_agree_with_the_wfdb_package(data: Path) -> None:
    paths = sorted((data / "samples" / "mitdb").glob("*.atr"))
    assert len(paths) == 5
    for path in paths:
        ours, theirs = read_annotations(path), wfdb.rdann(str(path.with_suffix("")), "atr")
        assert np.array_equal(ours.samples, theirs.sample)
        assert list(ours.symbols) == theirs.symbol
        assert list(ours.texts) == [text.rstrip("\0") for text in theirs.aux_note]


def notes(*events: tuple[int, str, str]) -> Annotations:
    at, symbols, texts = zip(*events, strict=True)
    return Annotations(np.array(at, dtype=np.int64), symbols, texts)


def test_beats_count_where_they_are_annotated() -> None:
    beats = notes((5, "+", "(N"), (10, "N", ""), (999, "V", ""), (1000, "A", ""), (1500, "N", ""))
    positive, known = annotated(beats, 0, 1000, 100.0)
    assert positive == {"PVC", "NSR"}
    assert known >= {"PAC", "AF", "LBBB", "RBBB", "PR"}
    assert annotated(beats, 1000, 2000, 100.0)[0] == {"PAC", "NSR"}


def test_a_fusion_beat_leaves_open_whether_there_is_a_pvc() -> None:
    positive, known = annotated(notes((5, "+", "(N"), (10, "F", "")), 0, 1000, 100.0)
    assert positive == {"FB", "NSR"}
    assert "PVC" not in known
    positive, known = annotated(notes((5, "+", "(N"), (9, "V", ""), (10, "F", "")), 0, 1000, 100.0)
    assert "PVC" in positive & known


def test_a_rhythm_must_last_or_lie_within() -> None:
    # Sinus rhythm from the start, AF from 18 s to 21 s, then sinus rhythm again.
    rhythm = notes((50, "+", "(N"), (1800, "+", "(AFIB"), (2100, "+", "(N"))
    at = {s: annotated(rhythm, 100 * s, 100 * s + 1000, 100.0) for s in (0, 9, 10, 15, 20, 30)}
    assert at[0][0] == {"NSR"}
    assert "AF" in at[0][1]
    assert at[9][0] == {"NSR"}
    assert "AF" not in at[9][1], "one second of it is too little to say either"
    assert at[10][0] == {"NSR"}
    assert at[15][0] == {"NSR", "AF"}, "all of it lies within"
    assert at[20][0] == {"NSR"}
    assert "AF" not in at[20][1]
    assert "AF" in at[30][1]


def test_an_episode_of_more_than_two_seconds_and_a_half_counts_at_an_edge() -> None:
    rhythm = notes((0, "+", "(N"), (745, "+", "(AFL"))
    assert annotated(rhythm, 0, 1000, 100.0)[0] == {"NSR", "AFL"}
    positive, known = annotated(rhythm, 1000, 2000, 100.0)
    assert positive == {"AFL"}
    assert "NSR" in known


def test_before_the_first_annotation_is_the_rhythm_it_names() -> None:
    assert annotated(notes((900, "+", "(AFIB")), 0, 1000, 100.0)[0] == {"AF"}


def test_the_last_rhythm_does_not_end_with_the_piece() -> None:
    positive, known = annotated(notes((0, "+", "(N"), (900, "+", "(AFIB")), 0, 1000, 100.0)
    assert positive == {"NSR"}
    assert "AF" not in known


def test_what_lies_beneath_bigeminy_is_not_known() -> None:
    positive, known = annotated(notes((0, "+", "(B"), (10, "V", "")), 0, 1000, 100.0)
    assert positive == {"VBig", "PVC"}
    assert "NSR" not in known
    assert {"AF", "VTach"} <= known
    positive, known = annotated(notes((0, "+", "(P"), (10, "/", "")), 0, 1000, 100.0)
    assert positive == {"PR"}
    assert "NSR" in known


def test_without_rhythm_annotations_no_rhythm_is_known() -> None:
    for events in (((10, "N", ""),), ((0, "+", "(XYZ"), (10, "N", ""))):
        positive, known = annotated(notes(*events), 0, 1000, 100.0)
        assert not positive
        assert not known & {"NSR", "AF", "VTach", "SB"}
        assert {"PVC", "PAC", "LBBB"} <= known


def test_mit_bih_pieces_and_patients(tmp_path: Path) -> None:
    for name in ("200", "201", "202"):
        write_wfdb(tmp_path / name, ("MLII", "V1"), ecg_like(2, 7400) / 1000, 360)
        (tmp_path / f"{name}.atr").write_bytes(
            words(28 << 10 | 1, 63 << 10 | 2) + b"(N" + words(59 << 10, 0, 3600, 5 << 10, 0)
        )
    source = MitBih(tmp_path)
    assert source.ids() == ("200/0", "200/1", "201/0", "201/1", "202/0", "202/1")
    assert source.leads == ("V1", "MLII")
    first, second = source.read("200/0"), source.read("200/1")
    assert (first.positive, second.positive) == ({"NSR"}, {"NSR", "PVC"})
    assert first.signal.shape == (2, 3600)
    whole = np.round(ecg_like(2, 7400))
    assert np.abs(second.signal - whole[:, 3600:7200]).max() < 0.01
    assert [source.read(i).patient for i in ("200/0", "201/0", "202/0")] == ["200", "201", "201"]
    (tmp_path / "201.dat").write_bytes(b"")
    assert why_not(source, "201/1") == "unreadable"
    (tmp_path / "202.atr").write_bytes((tmp_path / "202.atr").read_bytes()[:-2])
    assert why_not(MitBih(tmp_path), "202/1") == "unreadable", (
        "cut off: its beats would read as none"
    )


def test_no_mit_bih_record_is_lost_for_its_length(tmp_path: Path) -> None:
    for name, n in (("100", 7400), ("101", 2000), ("102", 7400), ("103", 1000)):
        write_wfdb(tmp_path / name, ("MLII",), ecg_like(1, n) / 1000, 360)
        (tmp_path / f"{name}.atr").write_bytes(words(1 << 10 | 5, 0))
    for name in ("100", "102"):  # a header need not tell how many samples there are
        header = tmp_path / f"{name}.hea"
        header.write_text(header.read_text().replace("1 360 7400", "1 360"))
    (tmp_path / "102.dat").write_bytes(b"")
    source = MitBih(tmp_path)
    assert source.ids() == ("100/0", "100/1", "101/0", "102/0", "103/0")
    assert source.read("100/1").signal.shape == (1, 3600)
    assert source.read("101/0").signal.shape == (1, 2000)
    assert why_not(source, "102/0") == "unreadable"
    (tmp_path / "101.atr").unlink()
    report = prepare(MitBih(tmp_path), tmp_path / "c")
    assert (report.read, report.written) == (5, 2)
    assert [(record, reason) for record, reason, _ in report.skipped] == [
        ("101/0", "unreadable"),
        ("102/0", "unreadable"),
        ("103/0", "short"),
    ]


@pytest.mark.data
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_real_mit_bih(data: Path) -> None:
    folder = data / "samples" / "mitdb"
    source = MitBih(folder)
    assert len(source.ids()) == 5 * 180
    for name, beat, column in (("100", "A", "PAC"), ("105", "V", "PVC"), ("109", "L", "LBBB")):
        theirs = wfdb.rdann(str(folder / name), "atr")
        expected = {
            int(s) // 3600 for s, b in zip(theirs.sample, theirs.symbol, strict=True) if b == beat
        }
        found = {i for i in range(180) if column in source.read(f"{name}/{i}").positive}
        assert found == expected - {180}
    assert source.read("100/17").leads == ("MLII", "V5")


# --- any folder ----------------------------------------------------------------------------------


def folder_of(tmp_path: Path, table: str) -> Path:
    write_wfdb(tmp_path / "in" / "a", ("I", "Lead II", "Resp"), ecg_like(3, 2000) / 1000, 250)
    write_wfdb(tmp_path / "b", ("ECG",), ecg_like(1, 2000) / 1000, 250)
    values = "\n".join(f"{v:.1f}" for v in ecg_like(1, 1000)[0])
    (tmp_path / "c.csv").write_text(f"# rate=100 unit=uV\nV5\n{values}\n")
    (tmp_path / "labels.csv").write_text(table)
    return tmp_path


def test_a_column_for_each_class(tmp_path: Path) -> None:
    table = (
        "record,patient,fold,atrial fibrillation,PVC,1AVB\n"
        "in/a,ann,3,1,0,\nb.hea,,,0,,1\nc,bob,4,,,\nd,,,1,1,1\n"
    )
    source = Folder(folder_of(tmp_path, table))
    assert source.columns == ("AF", "IAVB", "PVC")
    assert source.leads == ("I", "II", "V5")
    a, b, c = (source.read(i) for i in ("in/a", "b.hea", "c"))
    assert (a.positive, a.known, a.patient, a.fold) == ({"AF"}, {"AF", "PVC"}, "ann", 3)
    assert (b.positive, b.known, b.patient, b.fold) == ({"IAVB"}, {"AF", "IAVB"}, "b.hea", -1)
    assert (c.positive, c.known) == (frozenset(), frozenset())
    assert (a.leads, b.leads, c.leads) == (("I", "II"), ("I",), ("V5",))
    assert a.signal.shape == (2, 2000)
    assert why_not(source, "d") == "missing"


def test_a_column_of_all_classes(tmp_path: Path) -> None:
    table = "record,age,labels\nin/a,50,AF; premature ventricular contraction\nb,,SR|AF\nc,60,\n"
    source = Folder(folder_of(tmp_path, table))
    assert source.columns == ("NSR", "AF", "PVC")
    a, b, c = (source.read(i) for i in ("in/a", "b", "c"))
    assert (a.positive, a.known) == ({"AF", "PVC"}, None)
    assert (b.positive, b.known) == ({"AF", "NSR"}, None)
    assert (c.positive, c.known) == (frozenset(), frozenset()), "nothing there means unlabelled"


def test_the_table_may_have_another_name(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, "record,AF\nin/a,1\n")
    (folder / "labels.csv").rename(folder / "export.csv")
    assert Folder(folder / "export.csv").read("in/a").positive == {"AF"}
    with pytest.raises(TrainingError, match=r"labels\.csv: No such file"):
        Folder(folder)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("record,PVCX\nin/a,1\n", r"labels\.csv: column 'PVCX': .*did you mean PVC"),
        ("record,labels\nin/a,AF;sinus rythm\n", r"column 'labels': .*'sinus rythm'.*NSR"),
        ("record,AF\nin/a,yes\n", r"record in/a, column 'AF': 'yes'; expected 1, 0 or nothing"),
        ("record,AF,AFIB\nin/a,1,1\n", "two of them are the same class"),
        ("record,AF\nin/a,1\nin/a,0\n", "record 'in/a' stands there twice"),
        ("record,AF\nin/a,1\n./in/a,0\n", "'in/a' and './in/a' are one recording"),
        ("record,AF\nin/a,1\nin/a.hea,0\n", "'in/a' and 'in/a.hea' are one recording"),
        ("record,AF\nin/a,1\nin/a.dat,0\n", "'in/a' and 'in/a.dat' are one recording"),
        ("name,AF\nin/a,1\n", "no column 'record'; it has name, AF"),
        ("record,AF\nin/a\n", "line 2: expected 2 cells"),
        ("record,fold,AF\nin/a,x,1\n", "record in/a: fold 'x'"),
        ("record,AF\nnowhere,1\n", "no readable recording with a lead.*no nowhere with"),
        (f"record,AF\n{'x' * 5000},1\n", "no readable recording with a lead"),
        ("record,fold,AF,AF\nin/a,1,1,0\n", r"labels\.csv: column 'AF' stands there twice"),
        ("record,AF\n", r"labels\.csv: no rows; expected one a record"),
        ("", r"labels\.csv: no column 'record'; it has none"),
    ],
)
def test_a_broken_table_is_one_line(tmp_path: Path, table: str, message: str) -> None:
    folder = folder_of(tmp_path, table)
    with pytest.raises(TrainingError, match=message) as caught:
        Folder(folder).read("in/a")
    assert "\n" not in str(caught.value)


def test_why_the_first_recording_cannot_be_read_is_told(tmp_path: Path) -> None:
    (tmp_path / "g.csv").write_text("time,II\n0.00,1\n0.01,2\n")
    (tmp_path / "labels.csv").write_text("record,AF\ng,1\n")
    with pytest.raises(TrainingError, match=r"with a lead by its name; the first: .*no unit"):
        Folder(tmp_path)


@pytest.mark.parametrize("table", ["", "record,label\n", "record,AF\n"])
def test_a_table_without_rows_is_of_no_challenge(tmp_path: Path, table: str) -> None:
    (tmp_path / "labels.csv").write_text(table)
    assert guess_kind(tmp_path) == "folder"


def test_a_gap_between_segments_holds_no_samples(tmp_path: Path) -> None:
    rows = "\n".join(f"{t / 100:.2f},{t}" for t in [*range(600), *range(700, 1300)])
    (tmp_path / "g.csv").write_text(f"# unit=uV\ntime,II\n{rows}\n")
    (tmp_path / "labels.csv").write_text("record,AF\ng,1\n")
    signal = Folder(tmp_path).read("g").signal[0]
    assert len(signal) == 1300
    assert np.isnan(signal[600:700]).all()
    assert np.array_equal(signal[700:], np.arange(700, 1300))


# --- which reader --------------------------------------------------------------------------------


def test_the_layout_is_seen_from_the_files(tmp_path: Path) -> None:
    packed_ptb_xl(tmp_path / "packed-ptbxl")
    signal = {"A00001": np.array([[1, 2]])}
    write_shard(tmp_path / "packed-cinc2017" / "part0.npz", signal, ("I",), 300.0, 1)
    write_shard(tmp_path / "packed-lead1" / "all.npz", signal, ("I",), 125.0, 1)
    (tmp_path / "packed-cinc2017" / "labels.csv").write_text("record,label\nA00001,N\n")
    ptb_xl(tmp_path / "ptbxl")
    challenge(tmp_path / "challenge", A0001="#Dx: AF")
    cinc(tmp_path / "cinc2017", labels="record,label\nA00001,N\n")
    write_wfdb(tmp_path / "mitbih" / "100", ("MLII",), ecg_like(1, 3600) / 1000, 360)
    (tmp_path / "mitbih" / "100.atr").write_bytes(words(0))
    generated(tmp_path / "deepfake", a="1 2 3 4 5 6 7 8\n")
    folder = tmp_path / "folder"
    folder.mkdir()
    folder_of(folder, "record,AF\nin/a,1\n")
    for kind in KINDS:
        assert guess_kind(tmp_path / kind) == kind
        source = open_source(kind, tmp_path / kind)
        assert source.read(source.ids()[0]).signal.size
    assert guess_kind(folder / "labels.csv") == "folder"


def test_a_wrong_path_or_kind_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "f.txt").write_text("x")
    for act, message in (
        (lambda: guess_kind(tmp_path), "no data set recognized"),
        (lambda: guess_kind(tmp_path / "no"), "no such folder"),
        (lambda: open_source("ptbxl", tmp_path / "no"), "no such folder"),
        (lambda: open_source("ptbxl", tmp_path / "f.txt"), "expected a folder for ptbxl"),
        (lambda: open_source("mimic", tmp_path), re.escape("'mimic'; expected ptbxl, challenge")),
        (lambda: open_source("ptbxl", tmp_path), r"ptbxl_database\.csv: No such file"),
        (lambda: open_source("challenge", tmp_path), "no header with a #Dx: line"),
        (lambda: open_source("cinc2017", tmp_path), r"no A\*\.hea"),
        (lambda: open_source("mitbih", tmp_path), r"no \.atr"),
        (lambda: open_source("deepfake", tmp_path), r"no \*\.asc"),
    ):
        with pytest.raises(TrainingError, match=message):
            act()
