"""Whatever a recording holds: windows, or one line of complaint; and no heart in noise."""

import contextlib
import io
import json
import logging
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import structlog
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from program import Done
from watching import write_csv

from ingest.episodes import Episode, EpisodeKind, Script
from ingest.simulator import Noise, simulate
from models import bundle, runtime
from monitor import logs
from monitor.cli import analyze
from monitor.cli.errors import KNOWN

RATE = 125
KEYS = [
    "record",
    "start_s",
    "quality",
    "reasons",
    "heart_rate",
    "probabilities",
    "positive",
    "rhythm",
]


@pytest.fixture(scope="module", autouse=True)
def one_runtime() -> Iterator[None]:
    """Hundreds of runs share one bundle; opening it is not what is tested here."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(analyze, "find_bundle", cache(bundle.find_bundle))
        patch.setattr(analyze, "Runtime", cache(runtime.Runtime))
        yield


@pytest.fixture(scope="module", autouse=True)
def logging_as_before() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.captureWarnings(False)
    structlog.reset_defaults()


def analysed(*paths: Path) -> Done:
    """What ``leadone analyze --json`` says, without the process."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        logs.configure("warning", "human")
        try:
            code = analyze.analyze_records(paths, None, None, None, None, json_lines=True)
        except KNOWN as error:
            code = 1
            err.write(f"leadone: {error}\n")
    return Done(code, out.getvalue(), err.getvalue())


# --- what is recorded


def heart(seconds: float, seed: int = 1) -> NDArray[np.float64]:
    noise = Noise(baseline_uv=20, mains_uv=2, muscle_uv=4)
    script = Script(
        (Episode(EpisodeKind.SINUS_RHYTHM, max(seconds, 1), heart_rate=70),), noise=noise
    )
    samples = simulate(script, rate=RATE, seed=seed).microvolts
    return samples[: round(seconds * RATE)].astype(np.float64)


def white(seconds: float, seed: int, uv: float = 200.0) -> NDArray[np.float64]:
    return np.random.default_rng(seed).normal(0, uv, round(seconds * RATE))


def hum(seconds: float, seed: int) -> NDArray[np.float64]:
    t = np.arange(round(seconds * RATE)) / RATE
    return 300 * np.sin(2 * np.pi * 50 * t + seed) + white(seconds, seed, 5)


def muscle(seconds: float, seed: int) -> NDArray[np.float64]:
    """Noise that comes and goes, as from an arm that is used."""
    t = np.arange(round(seconds * RATE)) / RATE
    return white(seconds, seed, 150) * (0.5 + np.abs(np.sin(2 * np.pi * t / 3.1)))


PIECES: dict[str, Callable[[float, int], NDArray[np.float64]]] = {
    "heart": heart,
    "nan": lambda seconds, _: np.full(round(seconds * RATE), np.nan),
    "flat": lambda seconds, _: np.full(round(seconds * RATE), 17.0),
    "white": white,
    "hum": hum,
    "muscle": muscle,
    "huge": lambda seconds, seed: 30_000 * np.sign(white(seconds, seed)),
}
NO_HEART = {"white", "hum", "muscle", "huge", "flat", "nan"}


@dataclass(frozen=True)
class Plan:
    """Pieces of a recording, in order: what each is, and for how many seconds."""

    pieces: tuple[tuple[str, int], ...]
    seed: int

    def samples(self) -> NDArray[np.float64]:
        return np.concatenate(
            [PIECES[kind](seconds, self.seed + i) for i, (kind, seconds) in enumerate(self.pieces)]
        )

    def kinds(self, start_s: float, end_s: float) -> dict[str, float]:
        """What lies in a window, and for how many seconds in all."""
        found: dict[str, float] = {}
        at = 0
        for kind, seconds in self.pieces:
            shared = min(end_s, at + seconds) - max(start_s, at)
            if shared > 1.5 / RATE:
                found[kind] = found.get(kind, 0) + shared
            at += seconds
        return found

    @property
    def duration_s(self) -> int:
        return sum(seconds for _, seconds in self.pieces)


PLANS = st.builds(
    Plan,
    st.lists(
        st.tuples(st.sampled_from(list(PIECES)), st.integers(1, 25)), min_size=1, max_size=4
    ).map(tuple),
    st.integers(0, 1000),
)


# --- the files it is kept in


def wfdb(folder: Path, samples: NDArray[np.float64]) -> Path:
    raw = np.where(np.isnan(samples), -32768, np.clip(np.rint(samples), -32767, 32767))
    (folder / "r.dat").write_bytes(raw.astype("<i2").tobytes())
    (folder / "r.hea").write_text(f"r 1 {RATE} {len(raw)}\nr.dat 16 1(0)/uV 16 0 0 0 0 I\n")
    return folder / "r.hea"


def edf(folder: Path, samples: NDArray[np.float64]) -> Path:
    """EDF in records of a second; it knows no invalid samples, nor half a second."""
    raw = np.clip(np.rint(np.nan_to_num(samples)), -32768, 32767).astype("<i2")
    records = len(raw) // RATE
    fixed = [(8, "0"), (80, "X X X X"), (80, "Startdate X X X X"), (8, "01.01.20")]
    fixed += [(8, "12.00.00"), (8, "512"), (44, ""), (8, records), (8, "1"), (4, "1")]
    signal = [(16, "ECG I"), (80, ""), (8, "uV"), (8, "-32768"), (8, "32767"), (8, "-32768")]
    signal += [(8, "32767"), (80, ""), (8, RATE), (32, "")]
    head = b"".join(str(text).encode().ljust(width) for width, text in fixed + signal)
    path = folder / "r.edf"
    path.write_bytes(head + raw[: records * RATE].tobytes())
    return path


def csv(folder: Path, samples: NDArray[np.float64]) -> Path:
    return write_csv(folder / "r.csv", samples, RATE)


FORMATS = {"wfdb": wfdb, "edf": edf, "csv": csv}
BOUNDED = settings(
    max_examples=150,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)


def assert_decent(done: Done, path: Path) -> None:
    """Rows that keep the contract, or one line that names the file."""
    assert "Traceback" not in done.out + done.err
    lines = [line for line in done.err.splitlines() if line.startswith("leadone: ")]
    if done.code:
        assert done.code == 1
        assert len(lines) == 1
        assert path.stem in lines[0]
        assert done.out == ""
    else:
        assert done.rows
    for row in done.rows:
        assert list(row) == KEYS
        assert (row["quality"] == "bad") == bool(row["reasons"])
        if row["quality"] == "bad":
            assert row["heart_rate"] is None
            assert row["probabilities"] == {}


@BOUNDED
@given(PLANS, st.sampled_from(["wfdb", "csv"]))
def test_no_heart_rate_where_there_is_no_heart(plan: Plan, kind: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = FORMATS[kind](Path(folder), plan.samples())
        done = analysed(path)
    assert_decent(done, path)
    assert done.code == 0
    for row in done.rows:
        end_s = min(row["start_s"] + 10, plan.duration_s)
        kinds = plan.kinds(row["start_s"], end_s)
        if "nan" in kinds or plan.duration_s < 5:
            assert "gap" in row["reasons"]
        elif kinds.get("flat", 0) > 2.6:
            assert "flat" in row["reasons"]
        elif set(kinds) <= NO_HEART and len(kinds) == 1:
            assert row["heart_rate"] is None, (row["start_s"], kinds)
        elif set(kinds) == {"heart"} and end_s - row["start_s"] >= 6 and len(plan.pieces) == 1:
            assert row["quality"] == "good"
            assert row["heart_rate"] == pytest.approx(70, abs=8)


@st.composite
def spoilt(draw: st.DrawFn, content: bytes, *, text: bool) -> bytes:
    """A file cut short, emptied, or with nonsense written over some of it."""
    data = bytearray(content)
    way = draw(st.sampled_from(["cut", "empty", "overwrite", "insert", "word"]))
    at = draw(st.integers(0, len(data)))
    if way == "cut":
        return bytes(data[:at])
    if way == "empty":
        return b""
    if way == "word" and text:
        words = content.split(b" ")
        place = draw(st.integers(0, len(words) - 1))
        nasty = [b"0", b"-1", b"nan", b"inf", b"1e9", b"1e-9", b"999999999999", b"x", b"\0", b""]
        words[place] = draw(st.sampled_from(nasty))
        return b" ".join(words)
    nonsense = draw(st.binary(min_size=1, max_size=40))
    data[at : at + (len(nonsense) if way == "overwrite" else 0)] = nonsense
    return bytes(data)


@BOUNDED
@given(st.data(), st.sampled_from(list(FORMATS)), st.integers(1, 30))
def test_a_spoilt_file_is_windows_or_one_line(data: st.DataObject, kind: str, seconds: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = FORMATS[kind](Path(folder), heart(seconds))
        victim = data.draw(st.sampled_from(sorted(Path(folder).iterdir())), label="victim")
        content = victim.read_bytes()
        if kind == "edf" and data.draw(st.booleans(), label="header"):
            content = data.draw(spoilt(content[:512], text=True), label="content") + content[512:]
        else:
            content = data.draw(spoilt(content, text=victim.suffix == ".hea"), label="content")
        victim.write_bytes(content)
        assert_decent(analysed(path), path)


# --- one by one


def broken(folder: Path, kind: str) -> Path:
    """A recording that is spoilt in one way."""
    good = heart(20)
    way, _, of = kind.partition(" ")
    path = FORMATS[of](folder, good)
    if way == "missing":
        path.unlink()
    elif way == "empty":
        path.write_bytes(b"")
    elif way == "nodata":
        for file in folder.glob("*.dat"):
            file.unlink()
    elif way == "cut":
        file = path.with_suffix(".dat") if of == "wfdb" else path
        file.write_bytes(file.read_bytes()[:1001])
    elif way == "zero":
        path = FORMATS[of](folder, good[:0])
    elif way in ("fast", "slow", "norate"):
        rate = {"fast": "1e9", "slow": "0.001", "norate": "nan"}[way]
        if of == "wfdb":
            path.write_text(path.read_text().replace(f" {RATE} ", f" {rate} "))
        else:
            rows = "".join(f"{v:.1f}\n" for v in good)
            path.write_text(f"# rate={rate} unit=uV\nI\n{rows}")
    elif way == "other":
        path.write_bytes(b"PK\x03\x04" + bytes(range(256)) * 8)
    elif way == "text":
        path.write_text("# rate=130 unit=uV\nI\n1\n2\nabc\n")
    return path


@pytest.mark.parametrize(
    "kind",
    [
        *("missing wfdb", "empty wfdb", "nodata wfdb", "cut wfdb", "zero wfdb", "fast wfdb"),
        *("slow wfdb", "norate wfdb", "other wfdb"),
        *("missing edf", "empty edf", "cut edf", "zero edf", "other edf"),
        *("missing csv", "empty csv", "zero csv", "fast csv", "slow csv", "norate csv"),
        *("other csv", "text csv"),
    ],
)
def test_what_is_no_recording_is_one_line(tmp_path: Path, kind: str) -> None:
    path = broken(tmp_path, kind)
    done = analysed(path)
    assert (done.code, done.out) == (1, "")
    assert "r." in done.complaint
    assert len(done.complaint) < 400


def test_an_edf_of_a_recorder_that_was_cut_off_is_read_as_far_as_it_goes(tmp_path: Path) -> None:
    """A recorder says how many records there are when it has written them all."""
    path = edf(tmp_path, heart(20))
    content = path.read_bytes()
    path.write_bytes(content[:236] + b"-1".ljust(8) + content[244 : 512 + 2 * RATE * 12 + 77])
    done = analysed(path)
    assert done.code == 0
    assert [row["start_s"] for row in done.rows] == [0, 2]
    assert {row["quality"] for row in done.rows} == {"good"}


GAP_S = 7200


def gap_wfdb(folder: Path) -> Path:
    for name, seed in (("a", 1), ("b", 2)):
        raw = np.rint(heart(23, seed)).astype("<i2")
        (folder / f"{name}.dat").write_bytes(raw.tobytes())
        (folder / f"{name}.hea").write_text(
            f"{name} 1 {RATE} {len(raw)}\n{name}.dat 16 1(0)/uV 16 0 0 0 0 I\n"
        )
    n, gap = 23 * RATE, GAP_S * RATE
    path = folder / "r.hea"
    path.write_text(f"r/3 1 {RATE} {2 * n + gap}\na {n}\n~ {gap}\nb {n}\n")
    return path


def gap_edf(folder: Path) -> Path:
    """EDF+D: each record says when it began."""
    raw = np.rint(np.concatenate([heart(23, 1), heart(23, 2)])).astype("<i2").reshape(46, RATE)
    fixed = [(8, "0"), (80, "X X X X"), (80, "Startdate 01-JAN-2020 X X X"), (8, "01.01.20")]
    fixed += [(8, "12.00.00"), (8, "768"), (44, "EDF+D"), (8, 46), (8, "1"), (4, "2")]
    signals = [(16, ("ECG I", "EDF Annotations")), (80, ("", "")), (8, ("uV", ""))]
    signals += [(8, ("-32768", "-32768")), (8, ("32767", "32767")), (8, ("-32768", "-32768"))]
    signals += [(8, ("32767", "32767")), (80, ("", "")), (8, (RATE, 8)), (32, ("", ""))]
    head = [str(text).encode().ljust(width) for width, text in fixed]
    head += [str(text).encode().ljust(width) for width, texts in signals for text in texts]
    body = [
        record.tobytes() + f"+{i if i < 23 else i + GAP_S}\x14\x14".encode().ljust(16, b"\0")
        for i, record in enumerate(raw)
    ]
    path = folder / "r.edf"
    path.write_bytes(b"".join(head + body))
    return path


def gap_csv(folder: Path) -> Path:
    rows = [
        f"{start_s + i / RATE:.6f},{v:.2f}"
        for start_s, seed in ((0, 1), (23 + GAP_S, 2))
        for i, v in enumerate(heart(23, seed))
    ]
    path = folder / "r.csv"
    path.write_text("\n".join([f"# rate={RATE} unit=uV", "time,I", *rows, ""]))
    return path


@pytest.mark.parametrize("write", [gap_wfdb, gap_edf, gap_csv])
def test_a_gap_of_two_hours_is_explained_and_drawn_over_by_no_window(
    tmp_path: Path, write: Callable[[Path], Path]
) -> None:
    done = analysed(write(tmp_path))
    assert done.code == 0
    assert done.complaint == "r: gap from 23.0 s to 7223.0 s (no data)"
    starts = [row["start_s"] for row in done.rows]
    before, after = [0, 5, 10, 13], [7223, 7228, 7233, 7236]
    assert starts == pytest.approx([*before, *after], abs=0.01)
    assert {row["quality"] for row in done.rows} == {"good"}


def test_nothing_but_nan_is_bad_windows(tmp_path: Path) -> None:
    done = analysed(csv(tmp_path, np.append(np.full(20 * RATE, np.nan), 1.0)))
    assert done.code == 0
    rows: list[dict[str, Any]] = done.rows
    assert {tuple(row["reasons"]) for row in rows} == {("gap",)}
    assert json.dumps(rows, allow_nan=False)
