"""Whatever bytes the files hold, reading them ends in a Recording or in one line of complaint."""

import tempfile
from pathlib import Path

import numpy as np
import structlog
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ingest.recordings import Recording, RecordingError, read_recording

SAMPLES = np.random.default_rng(0).integers(-500, 500, 300).astype("<i2").tobytes()
HEADER = (
    "r 2 250 150 12:00:00 01/02/2003\n"
    "r.dat 16 200(0)/mV 16 0 0 0 0 I\n"
    "r.dat 16 200(0)/mV 16 0 0 0 0 II\n"
    "#Dx: 59118001\n"
)
MASTER = "m/3 2 250 400 12:00:00 01/02/2003\nr 150\n~ 100\nr 150\n"
CSV = "# rate=100 unit=uV\ntime,I,II\n" + "".join(f"{i / 100},{i},-{i}\n" for i in range(20))


def _edf() -> bytes:
    names, n = ("ECG I", "EDF Annotations"), 2
    columns = [(16, names), (80, ("", "")), (8, ("uV", "")), (8, ("-32768",) * n)]
    columns += [(8, ("32767",) * n), (8, ("-32768",) * n), (8, ("32767",) * n)]
    columns += [(80, ("", "")), (8, ("100", "8")), (32, ("", ""))]
    fixed = [(8, "0"), (80, "X X X X"), (80, "Startdate 01-FEB-2003 X X X"), (8, "01.02.03")]
    fixed += [(8, "12.00.00"), (8, "768"), (44, "EDF+D"), (8, "3"), (8, "1"), (4, "2")]
    head = b"".join(text.encode().ljust(width) for width, text in fixed)
    for width, texts in columns:
        head += b"".join(text.encode().ljust(width) for text in texts)
    body = b"".join(SAMPLES[:200] + f"+{t}\x14\x14".encode().ljust(16, b"\0") for t in (0, 1, 9))
    return head + body


EDF = _edf()
NASTY = st.sampled_from(
    (
        *("", "0", "-1", "nan", "inf", "1e308", "1e-320", "9" * 18, "9" * 5000, "1" * 300),
        *("16x4", "16:3+9", "212", "212+1", "80", "200(9e9)/mV", "(", "/", "../r", "/dev/zero"),
        *("\0", "\u2028", "\x1c", "\ud7ff", "٣", "²", "~", "x", "m", "r", "r.hea", ".", "#"),
        *(",", "time", "I", "I" * 3000, "\n"),
    )
)
FUZZ = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@st.composite
def garbled(draw: st.DrawFn, content: bytes) -> bytes:
    """``content`` with bytes replaced, removed or inserted, and maybe cut short."""
    data = bytearray(content)
    for _ in range(draw(st.integers(0, 4))):
        start = draw(st.integers(0, len(data)))
        end = min(len(data), start + draw(st.integers(0, 12)))
        data[start:end] = draw(st.binary(max_size=12))
    return bytes(data[: draw(st.integers(0, len(data)))]) if draw(st.booleans()) else bytes(data)


@st.composite
def reworded(draw: st.DrawFn, content: str) -> bytes:
    """``content`` with some of its words replaced by nasty ones."""
    lines = [line.split(" ") for line in content.split("\n")]
    for _ in range(draw(st.integers(1, 3))):
        line = draw(st.sampled_from(lines))
        line[draw(st.integers(0, len(line) - 1))] = draw(NASTY)
    return "\n".join(" ".join(line) for line in lines).encode()


@st.composite
def refielded(draw: st.DrawFn, content: bytes) -> bytes:
    """An EDF file with 8-byte fields of its header replaced."""
    data = bytearray(content)
    fields = [184, 236, 244, *range(256 + 192, 256 + 272, 8), *range(256 + 432, 256 + 448, 8)]
    for at in draw(st.lists(st.sampled_from(fields), min_size=1, max_size=3)):
        word = draw(NASTY).encode()[:8].ljust(8)
        data[at : at + 8] = word
    return bytes(data)


def read_or_complain(name: str, files: dict[str, bytes]) -> Recording | None:
    with tempfile.TemporaryDirectory() as folder, structlog.testing.capture_logs():
        for file, content in files.items():
            (Path(folder) / file).write_bytes(content)
        try:
            recording = read_recording(Path(folder) / name)
        except RecordingError as error:
            complaint = str(error)
            recording = None
    if recording is None:
        assert complaint.isprintable()
        assert complaint.startswith(folder)
        assert len(complaint) < 500
        return None
    assert recording.leads
    assert 50 <= recording.rate <= 4000
    assert recording.duration_s > 0
    ends = 0.0
    for segment in recording.segments:
        assert segment.microvolts.dtype == np.float32
        assert segment.microvolts.shape[0] == len(recording.leads)
        assert not np.isinf(segment.microvolts).any()
        assert segment.start_s >= ends - 2 / recording.rate
        ends = segment.start_s + segment.microvolts.shape[1] / recording.rate
    return recording


def test_the_starting_points_are_valid() -> None:
    wfdb = {"r.hea": HEADER.encode(), "r.dat": SAMPLES * 2, "m.hea": MASTER.encode()}
    for name, files, segments in (
        ("r.hea", wfdb, 1),
        ("m.hea", wfdb, 2),
        ("r.edf", {"r.edf": EDF}, 2),
        ("r.csv", {"r.csv": CSV.encode()}, 1),
    ):
        recording = read_or_complain(name, files)
        assert recording is not None
        assert len(recording.segments) == segments


@FUZZ
@given(st.one_of(reworded(HEADER), garbled(HEADER.encode())), garbled(SAMPLES * 2))
def test_wfdb(header: bytes, samples: bytes) -> None:
    read_or_complain("r.hea", {"r.hea": header, "r.dat": samples})


@FUZZ
@given(st.one_of(reworded(MASTER), garbled(MASTER.encode())), reworded(HEADER))
def test_wfdb_of_several_segments(master: bytes, header: bytes) -> None:
    read_or_complain("m", {"m.hea": master, "r.hea": header, "r.dat": SAMPLES * 2})


@FUZZ
@given(st.one_of(garbled(EDF), refielded(EDF)))
def test_edf(content: bytes) -> None:
    read_or_complain("r.edf", {"r.edf": content})


@FUZZ
@given(st.one_of(garbled(CSV.encode()), reworded(CSV.replace(",", " ")), st.binary()))
def test_csv(content: bytes) -> None:
    read_or_complain("r.csv", {"r.csv": content})
