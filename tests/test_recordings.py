"""Readers of recordings: real records against the wfdb package, and files written for a purpose."""

import datetime as dt
import warnings
from pathlib import Path

import numpy as np
import pytest
import structlog

from ingest.recordings import Recording, RecordingError, Segment, read_recording

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # wfdb 4.3 uses what pandas 3.1 deprecates
    import wfdb


def utc_ns(*when: int) -> int:
    return int(dt.datetime(*when, tzinfo=dt.UTC).timestamp()) * 10**9


def write_wfdb(
    folder: Path,
    samples: np.ndarray,
    *,
    name: str = "r",
    record: str | None = None,
    signals: list[str] | None = None,
    dtype: str = "<i2",
) -> Path:
    """A format 16 record of int [n, signals]; ``record`` and ``signals`` replace header lines."""
    n, count = samples.shape
    lines = [record or f"{name} {count} 250 {n}"]
    lines += signals or [f"{name}.dat 16 200/mV 16 0 0 0 0 lead{i}" for i in range(count)]
    (folder / f"{name}.hea").write_text("\n".join(lines) + "\n")
    (folder / f"{name}.dat").write_bytes(samples.astype(dtype).tobytes())
    return folder / f"{name}.hea"


def error_of(path: Path | str, **options: object) -> str:
    with pytest.raises(RecordingError) as caught:
        read_recording(path, **options)
    text = str(caught.value)
    assert text.isprintable()
    return text


RAMP = np.arange(-500, 500).reshape(500, 2)


# --- Recording -----------------------------------------------------------------------------------


def recording(*leads: str) -> Recording:
    return Recording("r", leads, 100.0, None, (Segment(2.0, np.zeros((len(leads), 50), "f4")),))


def test_leads_are_found_in_any_case_and_missing_ones_named() -> None:
    rec = recording("II", "i", "AVR")
    assert rec.lead_index("aVR") == 2
    assert rec.default_lead() == "i"
    assert recording("V5", "V1").default_lead() == "V5"
    with pytest.raises(RecordingError, match=r"r: no lead 'V9'; it has II, i, AVR"):
        rec.lead_index("V9")


def test_duration_counts_from_the_start_of_the_recording() -> None:
    assert recording("I").duration_s == 2.5


# --- WFDB: real records --------------------------------------------------------------------------


@pytest.mark.data
def test_every_sample_record_agrees_with_the_wfdb_package(data: Path) -> None:
    headers = sorted((data / "samples").rglob("*.hea"))
    compared, refused_by_wfdb = 0, []
    for header in headers:
        ours = read_recording(header)
        try:
            theirs = wfdb.rdrecord(str(header.with_suffix("")))
        except wfdb.io.header.HeaderSyntaxError:
            refused_by_wfdb.append(header.stem)
            continue
        assert list(ours.leads) == theirs.sig_name
        assert ours.rate == theirs.fs
        assert list(ours.comments) == theirs.comments
        (segment,) = ours.segments
        assert segment.microvolts.dtype == np.float32
        np.testing.assert_allclose(segment.microvolts, theirs.p_signal.T * 1000, rtol=2e-7)
        compared += 1
    # Their record names hold a dot, at which wfdb gives up.
    assert refused_by_wfdb == ["E00271", "E07530"]
    assert compared == len(headers) - 2 >= 60


@pytest.mark.data
def test_dates_of_real_records(data: Path) -> None:
    samples = data / "samples"
    a0001 = read_recording(samples / "challenge2021/A/A0001")
    assert a0001.start_ns == utc_ns(2020, 5, 12, 12, 33, 59)  # date first, month by name
    assert "Dx: 59118001" in a0001.comments
    assert a0001.default_lead() == "I"
    hand_held = read_recording(samples / "cinc2017/A00001.mat")
    assert hand_held.start_ns == utc_ns(2000, 5, 1, 5, 5, 15)  # time first, day first
    assert read_recording(samples / "mitdb/100.dat").start_ns is None


@pytest.mark.data
def test_a_changed_sample_of_a_real_record_fails_its_checksum(data: Path, tmp_path: Path) -> None:
    for name in ("100.hea", "100.dat"):
        (tmp_path / name).write_bytes((data / "samples/mitdb" / name).read_bytes())
    with (tmp_path / "100.dat").open("r+b") as file:
        file.seek(30_000)
        byte = file.read(1)[0]
        file.seek(30_000)
        file.write(bytes([byte ^ 1]))
    assert "100.dat: checksum of 'MLII' is" in error_of(tmp_path / "100")


# --- WFDB: dispatch ------------------------------------------------------------------------------


@pytest.mark.parametrize("given", ["r", "r.hea", "r.dat", "r.mat"])
def test_any_file_of_a_record_names_it(tmp_path: Path, given: str) -> None:
    write_wfdb(tmp_path, RAMP)
    rec = read_recording(str(tmp_path / given))
    assert (rec.name, rec.leads, rec.rate, rec.start_ns) == ("r", ("lead0", "lead1"), 250.0, None)
    assert rec.duration_s == 2.0
    np.testing.assert_array_equal(rec.segments[0].microvolts, RAMP.T * np.float32(5))


@pytest.mark.parametrize("given", ["none", "none.hea", "none.dat", "none.edf", "none.csv", ""])
def test_what_is_not_there_is_said(tmp_path: Path, given: str) -> None:
    assert str(tmp_path / given) in error_of(tmp_path / given)


@pytest.mark.parametrize("suffix", ["", ".edf", ".csv", ".hea"])
def test_a_folder_is_no_recording(tmp_path: Path, suffix: str) -> None:
    folder = tmp_path / f"folder{suffix}"
    folder.mkdir()
    assert error_of(folder).startswith(f"{folder}: a folder; expected")


def test_a_path_with_a_null_character_is_refused() -> None:
    assert r"a\x00b.csv: not a path" in error_of("a\0b.csv")


def test_a_line_break_in_a_path_leaves_the_error_on_one_line(tmp_path: Path) -> None:
    assert r"a\nb.csv" in error_of(tmp_path / "a\nb.csv")


# --- WFDB: headers -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("gain_field", "rest", "microvolts_of_100"),
    [
        ("200", "", 500),
        ("", "", 500),  # no gain: 200 per mV
        ("0", "", 500),
        ("1000/mV", "", 100),
        ("1000/mv", "", 100),
        ("1000.0(0)/mV", "16 40 0 0 0 I", 100),  # a stated baseline outdoes the ADC zero
        ("1000/mV", "16 40 0 0 0 I", 60),  # else the ADC zero is the baseline
        ("2(20)/uV", "", 40),
        ("2/µV", "", 50),
        ("2(-20)/nV", "", 0.06),
        ("1e6/V", "", 100),
        ("-1000/mV", "", -100),
    ],
)
def test_gain_baseline_and_unit(
    tmp_path: Path, gain_field: str, rest: str, microvolts_of_100: float
) -> None:
    line = f"r.dat 16 {gain_field} {rest}".rstrip()
    header = write_wfdb(tmp_path, np.array([[100], [100]]), signals=[line])
    np.testing.assert_allclose(
        read_recording(header).segments[0].microvolts, microvolts_of_100, rtol=1e-6
    )


@pytest.mark.parametrize(
    ("tail", "start_ns"),
    [
        ("", None),
        ("05:05:15 1/05/2000", utc_ns(2000, 5, 1, 5, 5, 15)),
        ("12-May-2020 12:33:59", utc_ns(2020, 5, 12, 12, 33, 59)),
        ("12:33:59.25 12-MAY-2020", utc_ns(2020, 5, 12, 12, 33, 59) + 250_000_000),
        ("2:03 12/05/2020", utc_ns(2020, 5, 12, 0, 2, 3)),
        ("12/05/2020", utc_ns(2020, 5, 12)),
        ("12:00:00", None),  # a time of no day is no instant
        ("25:00:00 12/05/2020", None),
        ("12:00:00 31/02/2020", None),
        ("12:00:00 12/13/2020", None),
        ("12:00:00 01/01/9999", None),  # beyond 64 bits of nanoseconds
        ("12:00:00 01/01/0000", None),
        ("nobody knows", None),
    ],
)
def test_start_time_in_many_forms(tmp_path: Path, tail: str, start_ns: int | None) -> None:
    header = write_wfdb(tmp_path, RAMP, record=f"r 2 250 500 {tail}")
    assert read_recording(header).start_ns == start_ns


def test_carriage_returns_trailing_blanks_and_comments(tmp_path: Path) -> None:
    write_wfdb(tmp_path, RAMP)
    header = b"# before\r\n\r\nr.mat 2 360/77.5(3) 500 \r\nr.dat 16 200 16 0 0 0 0 ECG lead I \r\n"
    header += b"r.dat 16 200 16 0 0 0 0 aVF\r\n#Dx: 59118001\r\n# na\xefve \r\n"  # Latin-1
    (tmp_path / "r.hea").write_bytes(header)
    rec = read_recording(tmp_path / "r")
    assert (rec.leads, rec.rate) == (("ECG lead I", "aVF"), 360.0)
    assert rec.comments == ("before", "Dx: 59118001", "naïve")


def test_rate_and_names_have_defaults(tmp_path: Path) -> None:
    header = write_wfdb(tmp_path, RAMP, record="r 2", signals=["r.dat 16", "r.dat 16"])
    rec = read_recording(header)
    assert (rec.rate, rec.leads) == (250.0, ("signal 0", "signal 1"))
    assert rec.segments[0].microvolts.shape == (2, 500)  # as many as the file holds


@pytest.mark.parametrize(
    ("record", "signals", "complaint"),
    [
        ("r", None, "line 1: number of signals is ''"),
        ("r x", None, "number of signals is 'x'; expected a whole number"),
        ("r -2 250 500", None, "number of signals is '-2'"),
        ("r 2 250 -500", None, "number of samples is '-500'"),
        ("r 3 250 500", None, "promises 3 signal lines; the file has 2"),
        ("r 1 250 500", None, "promises 1 signal lines; the file has 2"),
        ("r 2 fast 500", None, "rate is 'fast'"),
        ("r 2 49.9 500", None, "rate 49.9 Hz; expected 50 to 4000 Hz"),
        ("r 2 4001 500", None, "rate 4001 Hz"),
        ("r 2 nan 500", None, "rate nan Hz"),
        ("r 2 1e999 500", None, "rate inf Hz"),
        ("r 2 250 501", None, "r.dat: holds 500 samples of each signal; the header promises 501"),
        (f"r 2 250 {'9' * 18}", None, "promises 999999999999999999"),
        (f"r 2 250 {'9' * 19}", None, "expected a whole number"),
        (None, ["r.dat", "r.dat 16"], "line 2: 'r.dat'; expected a file name and a format"),
        (None, ["r.dat 80", "r.dat 80"], "in format 80; expected 16 or 212"),
        (None, ["r.dat 16x2", "r.dat 16"], "'2' samples per frame; expected 1"),
        (None, ["r.dat 16:5", "r.dat 16"], "skewed by '5' samples"),
        (None, ["r.dat 16,4", "r.dat 16"], "format is '16,4'"),
        (None, ["r.dat 16 200", "r.dat 212 200"], "differ in format"),
        (None, ["r.dat 16 nan/mV", "r.dat 16"], "gain is 'nan'"),
        (None, ["r.dat 16 1e-320/mV", "r.dat 16"], "gain is '1e-320'"),
        (None, ["r.dat 16 1e-40/mV", "r.dat 16"], "beyond any voltage"),
        (None, ["r.dat 16 200(x)/mV", "r.dat 16"], "baseline is 'x'"),
        (None, ["r.dat 16 200 16 high", "r.dat 16"], "ADC zero is 'high'"),
        (None, [f"{'r' * 201} 16", "r.dat 16"], "expected one in the header's own folder"),
        (None, ["r.dat 16 200/mmHg", "r.dat 16 1/adu"], "signal 0 in mmHg, signal 1 in adu"),
        (None, ["../r.dat 16", "../r.dat 16"], "names the file '../r.dat'"),
        (None, ["/etc/passwd 16", "r.dat 16"], "expected one in the header's own folder"),
        (None, ["..\\r.dat 16", "r.dat 16"], "own folder"),
        (None, [".. 16", "r.dat 16"], "own folder"),
        (None, ["other.dat 16", "other.dat 16"], "other.dat: No such file"),
        (None, ["r.dat 16+2000", "r.dat 16+2000"], "holds 0 samples"),
        (None, ["r.dat 16 1 1 1 1 1 1 I", "r.dat 16 1 1 1 1 1 1 i"], "leads I, i; expected each"),
        (None, ["r.dat 16 1 1 0 0 9 0 I", "r.dat 16"], "checksum of 'I' is"),
        (None, ["~ 0", "~ 0"], "holds no samples"),
        ("r/0 2 250 500", [], "promises 0 segments"),
    ],
)
def test_broken_headers_are_named(
    tmp_path: Path, record: str | None, signals: list[str] | None, complaint: str
) -> None:
    header = write_wfdb(tmp_path, RAMP, record=record, signals=signals)
    message = error_of(header)
    assert message.startswith(str(tmp_path))
    assert complaint in message


def test_an_empty_header_and_an_endless_one(tmp_path: Path) -> None:
    header = tmp_path / "r.hea"
    header.write_text("# only a comment\n")
    assert "no record line" in error_of(header)
    header.write_bytes(b"#" * (2**20 + 1))
    assert "expected a WFDB header of at most 1048576" in error_of(header)


def test_an_empty_file_of_samples(tmp_path: Path) -> None:
    assert "no samples" in error_of(write_wfdb(tmp_path, RAMP[:0]))


# --- WFDB: samples -------------------------------------------------------------------------------


def test_a_checksum_may_be_signed_or_not_and_zero_is_none(tmp_path: Path) -> None:
    samples = np.full((10, 3), -7)
    checksums = (-70, 2**16 - 70, 0)
    lines = [f"r.dat 16 200 16 0 0 {c} 0 {c}" for c in checksums]
    read_recording(write_wfdb(tmp_path, samples, signals=lines))


def test_the_lowest_value_marks_an_invalid_sample(tmp_path: Path) -> None:
    header = write_wfdb(tmp_path, np.array([[1], [-(2**15)], [3]]))
    np.testing.assert_array_equal(
        read_recording(header).segments[0].microvolts, np.array([[5, np.nan, 15]], np.float32)
    )


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 7])
@pytest.mark.parametrize("n_signals", [1, 3])
def test_format_212_with_odd_and_even_counts(tmp_path: Path, count: int, n_signals: int) -> None:
    rng = np.random.default_rng(count)
    samples = rng.integers(-2047, 2048, (count, n_signals))
    samples[0, 0] = 2047
    samples[-1, -1] = -2047
    packed = bytearray()
    flat = [int(v) & 0xFFF for v in samples.ravel()]
    for low, high in zip(flat[::2], [*flat[1::2], 0], strict=False):
        packed += bytes([low & 255, low >> 8 | high >> 8 << 4, high & 255])
    if len(flat) % 2:
        del packed[-1]
    lines = [f"r.dat 212 1/uV 12 0 0 0 0 {i}" for i in range(n_signals)]
    header = write_wfdb(tmp_path, samples, signals=lines)
    (tmp_path / "r.dat").write_bytes(packed)
    ours = read_recording(header).segments[0].microvolts
    np.testing.assert_array_equal(ours, samples.T)
    theirs = wfdb.rdrecord(str(tmp_path / "r"), physical=False).d_signal
    np.testing.assert_array_equal(ours, theirs.T)
    (tmp_path / "r.dat").write_bytes(packed[:-1])
    assert "truncated?" in error_of(header)


def test_format_212_invalid_sample(tmp_path: Path) -> None:
    header = write_wfdb(tmp_path, np.zeros((2, 1)), signals=["r.dat 212 1/uV"])
    (tmp_path / "r.dat").write_bytes(bytes([0x00, 0x08, 0x05]))  # -2048, 5
    np.testing.assert_array_equal(read_recording(header).segments[0].microvolts, [[np.nan, 5]])


def test_signals_in_several_files_with_an_offset(tmp_path: Path) -> None:
    (tmp_path / "a.mat").write_bytes(bytes(24) + np.array([1, 2, 3, 4], "<i2").tobytes())
    (tmp_path / "b.dat").write_bytes(np.array([-1, -2], "<i2").tobytes())
    lines = ["a.mat 16+24 1/uV 0 0 0 0 0 I", "a.mat 16x1+24 1/uV 0 0 0 0 0 II"]
    lines += ["b.dat 16 1/uV 0 0 0 0 0 V1"]
    header = tmp_path / "r.hea"
    header.write_text("\n".join(["r 3 500 2", *lines]))
    rec = read_recording(header)
    np.testing.assert_array_equal(rec.segments[0].microvolts, [[1, 3], [2, 4], [-1, -2]])
    header.write_text("\n".join(["r 3 500 2", lines[0], lines[2], lines[1]]))
    assert "signals of a.mat stand apart" in error_of(header)


def test_signals_that_are_no_voltage_are_left_out_and_logged(tmp_path: Path) -> None:
    lines = ["r.dat 16 1/mmHg 0 0 0 0 0 ABP", "r.dat 16 1/uV 0 0 0 0 0 II"]
    with structlog.testing.capture_logs() as logs:
        rec = read_recording(write_wfdb(tmp_path, RAMP, signals=lines))
    assert rec.leads == ("II",)
    np.testing.assert_array_equal(rec.segments[0].microvolts[0], RAMP[:, 1])
    assert [(e["event"], e["signals"]) for e in logs] == [("signals_not_leads", ["ABP in mmHg"])]


def test_samples_beyond_the_header_are_logged(tmp_path: Path) -> None:
    with structlog.testing.capture_logs() as logs:
        rec = read_recording(write_wfdb(tmp_path, RAMP, record="r 2 250 400"))
    assert rec.segments[0].microvolts.shape == (2, 400)
    assert [(e["event"], e["promised"], e["held"]) for e in logs] == [
        ("samples_beyond_header", 400, 500)
    ]


def test_what_is_too_large_is_refused_before_memory_is_taken(tmp_path: Path) -> None:
    n = 2**26  # in a sparse file
    lines = [f"r.dat 16 200 16 0 0 0 0 {i}" for i in range(5)]
    header = write_wfdb(tmp_path, np.zeros((1, 5)), record=f"r 5 250 {n}", signals=lines)
    with (tmp_path / "r.dat").open("r+b") as file:
        file.truncate(n * 10)
    assert "5 leads of 67108864 samples; expected at most 268435456 in all" in error_of(header)


# --- WFDB: several segments ----------------------------------------------------------------------


def test_null_segments_are_gaps_and_adjoining_ones_are_joined(tmp_path: Path) -> None:
    for name, value in (("a", 1), ("b", 2), ("c", 3)):
        lines = [f"{name}.dat 16 1/uV 0 0 0 0 0 {lead}" for lead in ("I", "II")]
        write_wfdb(tmp_path, np.full((500, 2), value), name=name, signals=lines)
    century = 100 * 365 * 86400 * 250
    master = tmp_path / "m.hea"
    parts = f"~ 250\na 500\nb 500\n~ {century}\nc 500\n"
    master.write_text(f"m/5 2 250 {century + 1750} 12:00:00 01/01/2020\n{parts}")
    rec = read_recording(master)
    assert rec.leads == ("I", "II")
    assert rec.start_ns == utc_ns(2020, 1, 1, 12)
    first, second = rec.segments
    assert (first.start_s, second.start_s) == (1.0, 5.0 + century / 250)
    np.testing.assert_array_equal(first.microvolts[1], np.repeat(np.float32([1, 2]), 500))
    np.testing.assert_array_equal(second.microvolts, np.full((2, 500), 3))
    assert rec.duration_s == 7.0 + century / 250


def test_a_segment_of_a_variable_layout_may_lack_leads(tmp_path: Path) -> None:
    (tmp_path / "layout.hea").write_text(
        "layout 3 250 0\n" + "".join(f"~ 0 1/uV 0 0 0 0 0 {x}\n" for x in ("I", "II", "V1"))
    )
    lines = [f"a.dat 16 1/uV 0 0 0 0 0 {lead}" for lead in ("V1", "I")]
    write_wfdb(tmp_path, RAMP, name="a", signals=lines)
    pulse = write_wfdb(tmp_path, RAMP[:, :1], name="b", signals=["b.dat 16 1/NU 0 0 0 0 0 PLETH"])
    master = tmp_path / "m.hea"
    master.write_text("m/4 3 250 1500\nlayout 0\na 500\nb 500\na 500\n")
    rec = read_recording(master)
    assert rec.leads == ("I", "II", "V1")
    first, second = rec.segments  # the one without any ECG is a gap
    assert (first.start_s, second.start_s) == (0.0, 4.0)
    np.testing.assert_array_equal(first.microvolts[[2, 0]], RAMP.T)
    assert np.isnan(first.microvolts[1]).all()

    pulse.write_text("b 1 250 500\nb.dat 16 1/uV 0 0 0 0 0 V9\n")
    assert "leads V9; expected the record's I, II, V1" in error_of(master)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("m/2 2 250 1000\na 500\n", "promises 2 segment lines; the file has 1"),
        ("m/1 2 250 1000\na 500\n", "promises 1000 samples; its segments add up to 500"),
        ("m/1 2 250 499\na 499\n", "promises 500 samples; the record says 499"),
        ("m/1 2 360 500\na 500\n", "rate 250 Hz; expected the record's 360 Hz"),
        ("m/1 1 250 500\na 500\n", "2 signals; the record has 1"),
        ("m/1 2 250 500\n../a 500\n", "names the file '../a'"),
        ("m/1 2 250 500\nq 500\n", "q.hea: No such file"),
        ("m/1 2 250\nm 500\n", "segments within a segment"),
        ("m/1 2 250\na 500 x\n", "expected a record name and its samples"),
        ("m/1 2 250 500\n~ 500\n", "holds no samples"),
        (f"m/2 2 250\na 500\n~ {10**15}\n", None),  # an end without samples costs nothing
        (f"m/2 2 250\n~ {10**13}\na 500\n", "expected before 2262"),
        (f"m/1 2 250\na {2**40}\n", "expected at most 268435456"),
        ("m/2 2 250 1000\na 500\nb 500\n", "leads lead0; expected the record's lead0, lead1"),
    ],
)
def test_broken_multi_segment_headers(tmp_path: Path, text: str, complaint: str | None) -> None:
    write_wfdb(tmp_path, RAMP, name="a")
    write_wfdb(tmp_path, RAMP[:, :1], name="b")
    (tmp_path / "m.hea").write_text(text)
    if complaint is None:
        assert read_recording(tmp_path / "m").duration_s == 2.0
    else:
        assert complaint in error_of(tmp_path / "m")


# --- EDF -----------------------------------------------------------------------------------------


def write_edf(
    path: Path, samples: np.ndarray, labels: list[str], unit: str, file_type: str
) -> None:
    pyedflib = pytest.importorskip("pyedflib", reason="has no wheels for this Python")
    kind = getattr(pyedflib, f"FILETYPE_{file_type}")
    with pyedflib.EdfWriter(str(path), len(labels), kind) as writer:
        writer.setStartdatetime(dt.datetime(2026, 11, 21, 7, 0, 0))  # noqa: DTZ001 (EDF has no zone)
        for i, label in enumerate(labels):
            writer.setSignalHeader(
                i,
                {
                    "label": label,
                    "dimension": unit,
                    "sample_frequency": 250,
                    "physical_min": -5.0,
                    "physical_max": 5.0,
                    "digital_min": -32768,
                    "digital_max": 32767,
                    "transducer": "",
                    "prefilter": "",
                },
            )
        writer.writeSamples(list(samples))


@pytest.mark.parametrize("file_type", ["EDF", "EDFPLUS"])
@pytest.mark.parametrize(("unit", "microvolts"), [("mV", 1e3), ("uV", 1.0), ("V", 1e6)])
def test_edf_round_trip(tmp_path: Path, file_type: str, unit: str, microvolts: float) -> None:
    samples = np.random.default_rng(1).uniform(-5, 5, (2, 1000))
    path = tmp_path / "r.edf"
    write_edf(path, samples, ["ECG I", "EKG V5"], unit, file_type)
    rec = read_recording(path)
    assert (rec.name, rec.leads, rec.rate) == ("r", ("I", "V5"), 250.0)
    assert rec.start_ns == utc_ns(2026, 11, 21, 7)
    (segment,) = rec.segments
    assert segment.start_s == 0.0
    with pytest.importorskip("pyedflib").EdfReader(str(path)) as reader:
        theirs = np.stack([reader.readSignal(i) for i in range(2)])
    np.testing.assert_allclose(segment.microvolts, theirs * microvolts, rtol=2e-6)
    np.testing.assert_allclose(segment.microvolts, samples * microvolts, atol=1.53e-4 * microvolts)


def edf_bytes(
    records: list[tuple[str | None, list[int]]],
    *,
    kind: str = "EDF+D",
    labels: tuple[str, ...] = ("ECG I",),
    units: tuple[str, ...] = ("uV",),
    record_s: str = "1",
    **fields: str,
) -> bytes:
    """An EDF file by hand: each record is the annotation that times it, and the samples."""
    timed = records[0][0] is not None
    per_signal = len(records[0][1]) // len(labels)
    names = [*labels, *(["EDF Annotations"] if timed else [])]

    def column(width: int, values: list[str]) -> bytes:
        return b"".join(v.encode().ljust(width)[:width] for v in values)

    n = len(names)
    head = column(8, ["0"]) + column(80, ["X X X X"])
    head += column(80, [fields.get("recording", "Startdate 21-NOV-2026 X X X")])
    head += column(16, [fields.get("start", "21.11.2607.00.00")])
    head += column(8, [fields.get("n_bytes", str(256 * (n + 1)))]) + column(44, [kind])
    head += column(8, [fields.get("n_records", str(len(records)))]) + column(8, [record_s])
    head += column(4, [fields.get("n_signals", str(n))])
    head += column(16, names) + column(80, [""] * n)
    head += column(8, [*units, *([""] if timed else [])])
    head += column(8, [fields.get("physical_min", "-32768")] * n) + column(8, ["32767"] * n)
    head += column(8, [fields.get("digital_min", "-32768")] * n) + column(8, ["32767"] * n)
    head += column(80, [""] * n)
    head += column(8, [fields.get("samples", str(per_signal))] * len(labels) + ["8"] * timed)
    head += column(32, [""] * n)
    body = b""
    for onset, samples in records:
        body += np.array(samples, "<i2").tobytes()
        if onset is not None:
            body += f"{onset}\x14\x14".encode().ljust(16, b"\0")
    return head + body


def edf_file(tmp_path: Path, content: bytes) -> Path:
    path = tmp_path / "r.edf"
    path.write_bytes(content)
    return path


def test_edf_d_with_a_gap_of_two_hours(tmp_path: Path) -> None:
    records = [("+0.25", [1] * 200), ("+1.25", [2] * 200), ("+7202.25", [3] * 200)]
    path = edf_file(tmp_path, edf_bytes(records))
    rec = read_recording(path)
    assert (rec.leads, rec.rate, rec.start_ns) == (("I",), 200.0, utc_ns(2026, 11, 21, 7))
    first, second = rec.segments
    assert (first.start_s, second.start_s) == (0.25, 7202.25)
    np.testing.assert_array_equal(first.microvolts, np.repeat(np.float32([[1, 2]]), 200, axis=1))
    np.testing.assert_array_equal(second.microvolts, np.full((1, 200), 3, np.float32))


def test_edf_onsets_may_be_rounded_to_milliseconds(tmp_path: Path) -> None:
    third = 1 / 3
    records = [(f"+{i * third:.3f}", [i] * 1000) for i in range(100)]
    rec = read_recording(edf_file(tmp_path, edf_bytes(records, record_s="0.333333")))
    assert len(rec.segments) == 1
    assert rec.rate == pytest.approx(3000, rel=1e-5)


def test_edf_c_counts_from_its_first_record_only(tmp_path: Path) -> None:
    content = edf_bytes([("+0.5", [1] * 200), ("+900", [2] * 200)], kind="EDF+C")
    (segment,) = read_recording(edf_file(tmp_path, content)).segments
    assert (segment.start_s, segment.microvolts.shape) == (0.5, (1, 400))


@pytest.mark.parametrize(
    ("recording_field", "start", "kind", "expected"),
    [
        ("", "21.11.2607.00.00", "", utc_ns(2026, 11, 21, 7)),
        ("", "21.11.8507.00.00", "", utc_ns(1985, 11, 21, 7)),
        ("", "21.11.8407.00.00", "", utc_ns(2084, 11, 21, 7)),
        ("Startdate 21-NOV-2185 X", "21.11.yy07.00.00", "EDF+C", None),
        ("Startdate 21-NOV-2185 X", "21.11.8507.00.00", "EDF+C", utc_ns(2185, 11, 21, 7)),
        ("Startdate X X X X", "21.11.2607.00.00", "EDF+C", utc_ns(2026, 11, 21, 7)),
        ("", "31.02.2607.00.00", "", None),
        ("", "21.11.2625.00.00", "", None),
        ("", "", "", None),
    ],
)
def test_edf_start_dates(
    tmp_path: Path, recording_field: str, start: str, kind: str, expected: int | None
) -> None:
    content = edf_bytes([(None, [0] * 200)], kind=kind, recording=recording_field, start=start)
    assert read_recording(edf_file(tmp_path, content)).start_ns == expected


def test_edf_signals_that_are_no_ecg_are_left_out_and_logged(tmp_path: Path) -> None:
    labels, units = ("EEG Fpz-Cz", "ECG", "SpO2"), ("uV", "mV", "%")
    samples = [1] * 200 + [2] * 200 + [3] * 200
    content = edf_bytes([(None, samples)], kind="", labels=labels, units=units)
    with structlog.testing.capture_logs() as logs:
        rec = read_recording(edf_file(tmp_path, content))
    assert rec.leads == ("ECG",)
    np.testing.assert_array_equal(rec.segments[0].microvolts, np.full((1, 200), 2000))
    assert [e["signals"] for e in logs] == [["EEG Fpz-Cz", "SpO2"]]


def test_edf_of_a_recorder_that_was_cut_off(tmp_path: Path) -> None:
    content = edf_bytes([(None, [1] * 200)] * 3, kind="", n_records="-1")
    rec = read_recording(edf_file(tmp_path, content[:-10]))
    assert rec.duration_s == 2.0


TWO = [("+0", [1] * 200), ("+1", [1] * 200)]


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"", "expected EDF"),
        (b"\xffBIOSEMI".ljust(600), "expected EDF, which begins with '0'"),
        (edf_bytes(TWO)[:300], "the header alone is 768: truncated?"),
        (edf_bytes(TWO)[:-1], "holds 1 data records; the header promises 2: truncated?"),
        (edf_bytes(TWO, n_bytes="512"), "size of the header is '512'; expected 768"),
        (edf_bytes(TWO, n_signals="-1"), "number of signals is '-1'"),
        (edf_bytes(TWO, n_records="1e9"), "number of data records is '1e9'"),
        (edf_bytes(TWO, n_records="0"), "holds no samples"),
        (edf_bytes(TWO, record_s="0"), "data records last 0 s"),
        (edf_bytes(TWO, record_s="nan"), "duration of a data record is 'nan'"),
        (edf_bytes(TWO, record_s="5"), "rate 40 Hz; expected 50 to 4000 Hz"),
        (edf_bytes(TWO, units=("degC",)), "ECG I in degC; expected one in nV, uV, mV or V"),
        (edf_bytes(TWO, samples="-200"), "samples of 'ECG I' in a data record is '-200'"),
        (edf_bytes(TWO, physical_min="low"), "physical range of 'ECG I' is 'low'"),
        (edf_bytes(TWO, physical_min="32767"), "on physical 32767 to 32767; expected two ranges"),
        (edf_bytes(TWO, digital_min="40000"), "maps digital 40000 to 32767"),
        (edf_bytes(TWO, physical_min="-1e300"), "beyond any voltage"),
        (edf_bytes([("+0", [1] * 200), ("+.5", [1] * 200)]), r"data record 2 is timed b'+.5\x14"),
        (edf_bytes([("+0", [1] * 200), ("+0.5", [1] * 200)]), "0.5 s before the end of the one"),
        (edf_bytes([("-1", [1] * 200)]), "data record 1 is timed"),
        (edf_bytes([("+99999999999", [1] * 200)]), "expected before 2262"),
        (edf_bytes([(None, [1] * 200)]), "EDF+D without 'EDF Annotations'"),
        (
            edf_bytes([(None, [1] * 400)], labels=("ECG I", "EKG I"), units=("uV", "uV")),
            "leads I, I; expected each name only once",
        ),
    ],
)
def test_broken_edf_files_are_named(tmp_path: Path, content: bytes, complaint: str) -> None:
    message = error_of(edf_file(tmp_path, content))
    assert message.startswith(f"{tmp_path / 'r.edf'}: ")
    assert complaint in message


def test_edf_leads_of_two_rates_are_refused(tmp_path: Path) -> None:
    content = bytearray(edf_bytes([(None, [1] * 400)], labels=("I", "II"), units=("uV", "uV")))
    at = 256 + 2 * 216
    content[at : at + 16] = b"100     300     "
    assert "I 100 Hz, II 300 Hz; expected one rate" in error_of(edf_file(tmp_path, bytes(content)))


# --- CSV -----------------------------------------------------------------------------------------


def csv_file(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "r.csv"
    path.write_bytes(text.encode())
    return path


@pytest.mark.parametrize(
    ("text", "leads", "rows"),
    [
        ("1\n-2.5\n3e1\n", ["I"], [[1, -2.5, 30]]),
        ("ecg\n1\n2\n", ["I"], [[1, 2]]),
        ("mlii\r\n1\r\n2\r\n", ["mlii"], [[1, 2]]),
        ("I,II\n1,2\n3,4\n", ["I", "II"], [[1, 3], [2, 4]]),
        ('"I";"aVR"\n1;2\n"3";4\n', ["I", "aVR"], [[1, 3], [2, 4]]),
        ("I\tII\n1\t2\n3\t\n", ["I", "II"], [[1, 3], [2, np.nan]]),
        ("I,II\n1, nan\n,4", ["I", "II"], [[1, np.nan], [np.nan, 4]]),
        ("\n1\n\n3\n\n\n", ["I"], [[1, np.nan, 3]]),  # a blank row is a sample, except at the ends
        ("# a\n1\n# b\n2\n", ["I"], [[1, 2]]),
        ("\ufeffI\n1\n2\n", ["I"], [[1, 2]]),
    ],
)
def test_csv_layouts(tmp_path: Path, text: str, leads: list[str], rows: list[list[float]]) -> None:
    rec = read_recording(csv_file(tmp_path, text), rate=130, unit="uV")
    assert (list(rec.leads), rec.rate, rec.start_ns) == (leads, 130, None)
    np.testing.assert_array_equal(rec.segments[0].microvolts, np.array(rows, np.float32))


@pytest.mark.parametrize(
    ("unit", "microvolts"), [("uV", 1), ("µV", 1), ("μV", 1), ("mV", 1e3), ("V", 1e6), ("nV", 1e-3)]
)
def test_csv_units_and_comments(tmp_path: Path, unit: str, microvolts: float) -> None:
    rec = read_recording(csv_file(tmp_path, f"# strap, rate=130, unit={unit}\n# Dx\n2\n"))
    assert (rec.rate, rec.comments) == (130.0, (f"strap, rate=130, unit={unit}", "Dx"))
    np.testing.assert_allclose(rec.segments[0].microvolts, 2 * microvolts, rtol=1e-6)


@pytest.mark.parametrize("rate", [125.0, 130.0, 250.0, 360.0, 500.0, 1000.0, 128.5])
@pytest.mark.parametrize("name", ["time", "T", "time_s"])
def test_csv_rate_from_times_rounded_to_milliseconds(
    tmp_path: Path, rate: float, name: str
) -> None:
    rows = "".join(f"{7 + i / rate:.3f},{i}\n" for i in range(2000))
    rec = read_recording(csv_file(tmp_path, f"# unit=uV\n{name},I\n{rows}"))
    assert rec.rate == pytest.approx(rate, rel=1e-4)
    if rate.is_integer():
        assert rec.rate == rate
    assert len(rec.segments) == 1
    assert rec.segments[0].microvolts.shape == (1, 2000)


def test_csv_jumps_of_time_are_gaps(tmp_path: Path) -> None:
    times = [i / 100 for i in range(50)] + [7200 + i / 100 for i in range(30)]
    rows = "".join(f"{i},{t:.3f}\n" for i, t in enumerate(times))
    text = f"# unit=uV\nI,time\n{rows}"
    for rate in (None, 100):
        rec = read_recording(csv_file(tmp_path, text), rate=rate)
        assert rec.rate == 100
        assert [s.start_s for s in rec.segments] == [0.0, 7200.0]
        assert [s.microvolts.shape for s in rec.segments] == [(1, 50), (1, 30)]
        assert rec.segments[1].microvolts[0, 0] == 50


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "no rows of numbers"),
        ("# rate=130 unit=uV\n", "no rows of numbers"),
        ("I\n", "no rows of numbers"),
        ("# unit=uV\n1\n", "no rate; expected one given, a line '# rate=130', or a column 'time'"),
        ("# rate=130\n1\n", "no unit; expected one given, or a line '# unit=uV'"),
        ("# rate=130 unit=mmHg\n1\n", "unit is 'mmHg'; expected nV, uV, mV or V"),
        ("# rate=fast unit=uV\n1\n", "rate is 'fast'; expected Hz"),
        ("# rate=5 unit=uV\n1\n", "rate 5 Hz; expected 50 to 4000 Hz"),
        ("# rate=130\n# rate=250 unit=uV\n1\n", "line 2: rate '250'; expected the '130'"),
        ("# rate=130 unit=uV\nI\n1\nx\n", "line 4: 'x' is not a number"),
        ("# rate=130 unit=uV\nI;II\n1,5;2\n", "line 3: '1,5' is not a number"),
        ("# rate=130 unit=uV\nI,II\n1,2\n1,2,3\n", "line 4: 3 columns; expected 2"),
        ("# rate=130 unit=uV\nI,II\n1,2\n\n1,2\n", "line 4: 1 columns; expected 2"),
        ("# rate=130 unit=uV\nI\n1\ninf\n", "line 4: a value beyond any voltage"),
        ("# rate=130 unit=mV\nI\n1\n1e38\n", "line 4: a value beyond any voltage"),
        ("# rate=130 unit=uV\n1,2\n3,4\n", "expected a first row that names each lead"),
        ("# rate=130 unit=uV\nI,i\n3,4\n", "leads I, i; expected each name only once"),
        ("# unit=uV\ntime\n1\n2\n", "only a column of times"),
        ("# unit=uV\ntime,I\n1,2\n", "one row; expected two to tell the rate by"),
        ("# unit=uV\ntime,I\n1,2\n1,2\n", "line 4: time 1 s; expected more than the 1 s before"),
        ("# unit=uV\ntime,I\n1,2\n,2\n", "line 4: no time"),
        ("# unit=uV\ntime,I\n1,2\n2,2\n", "rate 1 Hz; expected 50 to 4000 Hz"),
        ("# unit=uV rate=100\nt,I\n0,1\n10,2\n20,3\n", "times advance by 10 s a row"),
        ("# rate=130 unit=uV\n" + "9" * 70_000, "line 2: longer than 65536 bytes"),
    ],
)
def test_broken_csv_files_are_named(tmp_path: Path, text: str, complaint: str) -> None:
    message = error_of(csv_file(tmp_path, text))
    assert message.startswith(f"{tmp_path / 'r.csv'}: ")
    assert complaint in message


def test_csv_may_not_contradict_what_is_given(tmp_path: Path) -> None:
    path = csv_file(tmp_path, "# rate=130 unit=uV\n1\n")
    assert read_recording(path, rate=130, unit="µV").rate == 130
    assert "states 130 Hz; expected the given 250 Hz" in error_of(path, rate=250)
    assert "states uV; expected the given 'mV'" in error_of(path, unit="mV")
    assert "rate 1e+06 Hz" in error_of(csv_file(tmp_path, "1\n"), rate=1e6, unit="uV")
