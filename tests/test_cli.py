"""Every command: what it prints, where, and how it exits."""

import itertools
import json
import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from program import Done, Leadone, simulator, write_config
from watching import write_csv

from ingest.episodes import Episode, EpisodeKind, Script
from ingest.recordings import read_recording
from ingest.simulator import Noise, simulate
from models.bundle import DEFAULT, find_bundle
from monitor.config import example
from monitor.storage.history import History

pytest_plugins = ["in_process"]

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
NOISE = Noise(baseline_uv=20, mains_uv=2, muscle_uv=4)
CLASSES = find_bundle(DEFAULT).classes
THRESHOLDS = find_bundle(DEFAULT).thresholds


def sinus_csv(path: Path, seconds: float, seed: int = 1) -> Path:
    script = Script((Episode(EpisodeKind.SINUS_RHYTHM, seconds, heart_rate=70),), noise=NOISE)
    return write_csv(path, simulate(script, seed=seed).microvolts)


# --- analyze


def assert_contract(rows: Sequence[dict[str, Any]], record: Path, duration_s: float) -> None:
    """What other tools rely on, to the letter."""
    assert rows
    for row in rows:
        assert list(row) == KEYS
        assert row["record"] == str(record)
        assert row["rhythm"] in (None, "organised", "unknown")  # nobody's heart stops here
        assert row["quality"] in ("good", "bad")
        assert (row["reasons"] == []) == (row["quality"] == "good")
        if row["quality"] == "good":
            assert row["heart_rate"] is None or 15 < row["heart_rate"] < 300
            assert tuple(row["probabilities"]) == CLASSES
            assert all(0 <= p <= 1 for p in row["probabilities"].values())
            over = {c for c, p in row["probabilities"].items() if p >= THRESHOLDS[c] + 1e-5}
            near = {c for c, p in row["probabilities"].items() if p >= THRESHOLDS[c] - 1e-5}
            assert over <= set(row["positive"]) <= near
            sure = [row["probabilities"][c] for c in row["positive"]]
            assert sure == sorted(sure, reverse=True)
        else:
            assert row["heart_rate"] is None
            assert row["probabilities"] == {}
            assert row["positive"] == []
    starts = [row["start_s"] for row in rows]
    assert starts[0] == 0
    if duration_s <= 10:
        assert len(starts) == 1
        return
    steps = [b - a for a, b in itertools.pairwise(starts)]
    assert steps[:-1] == pytest.approx([5] * (len(steps) - 1), abs=0.002)
    assert 0 < steps[-1] <= 5.002
    # The last window ends with the recording.
    assert starts[-1] == pytest.approx(duration_s - 10, abs=0.02)


@pytest.mark.data
@pytest.mark.parametrize(
    "name",
    [
        "ptbxl/records100/00000/00001_lr.hea",
        "ptbxl/records500/00000/00007_hr",
        "cinc2017/A00001.mat",
        "challenge2021/A/A0001",
        "mitdb/100.dat",
    ],
)
def test_real_recordings_are_read_to_the_letter_of_the_contract(
    data: Path, leadone: Leadone, name: str
) -> None:
    path = data / "samples" / name
    done = leadone("analyze", path, "--json")
    assert done.code == 0
    recording = read_recording(path)
    assert_contract(done.rows, path, recording.duration_s)
    # Real hearts, recorded well: most of it can be read.
    good = [row for row in done.rows if row["quality"] == "good"]
    assert len(good) > 0.7 * len(done.rows)
    if recording.default_lead() == "I":
        assert done.err == ""
    else:
        assert "the model was trained on lead I" in done.complaint


@pytest.mark.data
def test_a_recording_of_six_seconds_gives_a_window(
    data: Path, leadone: Leadone, tmp_path: Path
) -> None:
    recording = read_recording(data / "samples/ptbxl/records100/00000/00001_lr")
    samples = recording.segments[0].microvolts[recording.lead_index("I")]
    path = write_csv(tmp_path / "cut.csv", samples[:600], 100.0)
    done = leadone("analyze", path, "--json")
    assert_contract(done.rows, path, 6)
    assert done.rows[0]["quality"] == "good"
    assert done.rows[0]["heart_rate"] == pytest.approx(64, abs=6)


@pytest.mark.parametrize(("seconds", "quality"), [(2, "bad"), (4.9, "bad"), (5.5, "good")])
def test_the_shortest_recordings(
    leadone: Leadone, tmp_path: Path, seconds: float, quality: str
) -> None:
    path = tmp_path / "short.csv"
    samples = np.loadtxt(sinus_csv(path, 20), delimiter=",", skiprows=2, usecols=1)
    write_csv(path, samples[: round(seconds * 130)])
    done = leadone("analyze", path, "--json")
    assert_contract(done.rows, path, seconds)
    assert [row["quality"] for row in done.rows] == [quality]


@pytest.mark.parametrize("seconds", [10, 15, 23.4, 100])
def test_windows_of_a_clean_heart(leadone: Leadone, tmp_path: Path, seconds: float) -> None:
    path = sinus_csv(tmp_path / "r.csv", seconds)
    done = leadone("analyze", path, "--json")
    assert done.code == 0
    assert done.err == ""
    assert_contract(done.rows, path, seconds)
    assert {row["quality"] for row in done.rows} == {"good"}
    assert all(row["heart_rate"] == pytest.approx(70, abs=6) for row in done.rows)


def test_one_bad_recording_keeps_nobody_from_the_others(leadone: Leadone, tmp_path: Path) -> None:
    one, two = sinus_csv(tmp_path / "one.csv", 20), sinus_csv(tmp_path / "two.csv", 15, seed=2)
    garbled = tmp_path / "garbled.csv"
    garbled.write_text("# rate=130 unit=uV\nI\n1\n2\nthree\n")
    done = leadone("analyze", one, garbled, two, "--json")
    assert done.code == 1
    assert done.complaint == f"{garbled}: line 5: 'three' is not a number; expected e.g. -12.5"
    by_record = {k: list(g) for k, g in itertools.groupby(done.rows, key=lambda row: row["record"])}
    assert list(by_record) == [str(one), str(two)]
    assert_contract(by_record[str(one)], one, 20)
    assert_contract(by_record[str(two)], two, 15)


def test_for_people_a_line_a_window(leadone: Leadone, tmp_path: Path) -> None:
    samples = np.concatenate(
        [simulate(Script((Episode(EpisodeKind.SINUS_RHYTHM, 20),)), seed=1).microvolts] * 2
    )
    samples[2600:] = 0
    path = write_csv(tmp_path / "r.csv", samples)
    done = leadone("analyze", path)
    lines = done.out.splitlines()
    assert lines[0] == f"{path}: lead I, 130 Hz, 40 s"
    assert len(lines) == 8
    assert re.fullmatch(r" +0\.0 s +7\d /min  organised  .+", lines[1])
    assert re.fullmatch(r" +30\.0 s +-- /min  unknown    not read: flat", lines[7])
    assert max(map(len, lines[1:])) < 300


def test_the_lead_is_chosen(leadone: Leadone, tmp_path: Path) -> None:
    path = tmp_path / "both.csv"
    heart = simulate(Script((Episode(EpisodeKind.SINUS_RHYTHM, 10),), noise=NOISE), seed=1)
    rows = "".join(f"0,{v:.1f}\n" for v in heart.microvolts)
    path.write_text(f"# rate=130 unit=uV\nI,II\n{rows}")
    (row,) = leadone("analyze", path, "--json").rows
    assert row["reasons"] == ["flat"]
    done = leadone("analyze", path, "--json", "--lead", "ii")
    assert done.rows[0]["quality"] == "good"
    assert "reading lead ii; the model was trained on lead I" in done.complaint
    done = leadone("analyze", path, "--json", "--lead", "V9")
    assert done.code == 1
    assert done.complaint == "both: no lead 'V9'; it has I, II"


def test_a_csv_may_be_told_its_rate_and_unit(leadone: Leadone, tmp_path: Path) -> None:
    heart = simulate(Script((Episode(EpisodeKind.SINUS_RHYTHM, 10),), noise=NOISE), seed=1)
    path = tmp_path / "bare.csv"
    path.write_text("".join(f"{v / 1000:.4f}\n" for v in heart.microvolts))
    assert leadone("analyze", path).code == 1
    done = leadone("analyze", path, "--rate", 130, "--unit", "mV", "--json")
    assert done.code == 0
    assert done.rows[0]["heart_rate"] == pytest.approx(72, abs=6)


def test_what_is_logged_never_mixes_with_json(leadone: Leadone, tmp_path: Path) -> None:
    """A signal that is no voltage is left out, with a warning, by the reader."""
    raw = np.column_stack([np.arange(1300) % 100, np.arange(1300) % 7]).astype("<i2")
    (tmp_path / "r.dat").write_bytes(raw.tobytes())
    lines = ["r 2 130 1300", "r.dat 16 200/mV 16 0 0 0 0 I", "r.dat 16 200/mmHg 16 0 0 0 0 ABP"]
    (tmp_path / "r.hea").write_text("\n".join(lines) + "\n")
    done = leadone("analyze", tmp_path / "r", "--json")
    assert done.code == 0
    assert [list(row) for row in done.rows] == [KEYS]
    assert "ABP" in done.err


# --- configuration


def test_the_example_is_good_and_is_the_file_that_is_shipped(leadone: Leadone) -> None:
    shipped = Path(__file__).parents[1] / "examples/leadone.yaml"
    done = leadone("config", "check", "-c", shipped)
    name = find_bundle(DEFAULT).name
    assert done == Done(0, f"{shipped}: good: 2 patients, 2 sources, bundle {name}\n", "")
    done = leadone("config", "example")
    assert done == Done(0, shipped.read_text(), "")
    assert done.out == example()


def test_the_schema_is_json_and_documents_every_key(leadone: Leadone) -> None:
    done = leadone("config", "schema")
    assert done.code == 0
    schema = json.loads(done.out)
    assert set(schema["properties"]) >= {"database", "patients", "sources", "window", "log"}
    assert all("description" in p for p in schema["properties"].values() if "$ref" not in p)


def test_every_problem_of_a_configuration_is_one_line(leadone: Leadone, tmp_path: Path) -> None:
    path = write_config(
        tmp_path,
        [simulator(), simulator("boris", kind="sinus_rythm"), simulator("clara", heart_rate=9)],
    )
    done = leadone("config", "check", "-c", path)
    assert done.code == 1
    assert done.out == ""
    lines = done.err.splitlines()
    assert [line.startswith(f"leadone: {path}: sources[") for line in lines] == [True, True]
    path.write_text(path.read_text().replace("database:", "datebase:"))
    assert "did you mean 'database'?" in leadone("config", "check", "-c", path).complaint


def test_check_names_what_is_wrong_with_a_bundle(leadone: Leadone, tmp_path: Path) -> None:
    """A bundle whose graph is garbled, whose alarm cannot be, that is not there."""
    bundle = tmp_path / "bundle"
    shutil.copytree(find_bundle(DEFAULT).path, bundle)
    path = write_config(tmp_path, [simulator()], bundle=str(bundle))
    assert leadone("config", "check", "-c", path).code == 0

    manifest = yaml.safe_load((bundle / "bundle.yaml").read_text())
    af = next(c for c in manifest["classes"] if c["abbreviation"] == "AF")
    af["alarm"] |= {"k": 9, "n": 8}
    (bundle / "bundle.yaml").write_text(yaml.safe_dump(manifest))
    done = leadone("config", "check", "-c", path)
    assert done.code == 1
    assert done.complaint == f"{bundle}: alarm of AF.k: must be from 1 to n = 8, not 9"

    af["alarm"] |= {"k": 6}
    (bundle / "bundle.yaml").write_text(yaml.safe_dump(manifest))
    (bundle / "model.onnx").write_bytes(b"garbage")
    done = leadone("config", "check", "-c", path)
    assert done.code == 1
    assert "not the graph" in done.complaint

    shutil.rmtree(bundle)
    assert "no such bundle" in leadone("config", "check", "-c", path).complaint


# --- what is misused or missing


@pytest.mark.parametrize(
    ("args", "says"),
    [
        ("nonsense", "nonsense"),
        ("demo --nonsense", "--nonsense"),
        ("demo --speed fast", "--speed"),
        ("demo --speed 0", "--speed"),
        ("demo --for soon", "leadone: --for: 'soon' is no duration"),
        ("demo --for 0s", "leadone: --for: must be more than 0"),
        ("analyze", "records"),
        ("history", "patient"),
        ("history anna --since yesterday", "leadone: --since: 'yesterday' is neither a duration"),
        ("history anna --since 1h --until 2h", "leadone: --since must be before --until"),
        ("episodes anna --until soon", "leadone: --until: 'soon' is neither"),
        ("replay x.csv", "--patient"),
        ("db backup", "path"),
    ],
)
def test_misuse_exits_2_and_says_what_is_wrong(
    leadone: Leadone, tmp_path: Path, args: str, says: str
) -> None:
    words = args.split()
    if words[0] in ("history", "episodes"):
        words += ["-c", str(write_config(tmp_path, [simulator()]))]
    done = leadone(*words)
    assert done.code == 2
    assert done.out == ""
    assert says in done.err
    assert "Traceback" not in done.err


@pytest.mark.parametrize(
    "args",
    [
        "run",
        "replay x.csv --patient anna",
        "history anna",
        "episodes anna",
        "alarms list",
        "config check",
        "db upgrade",
        "db check",
        "db backup copy.db",
    ],
)
def test_a_missing_configuration_is_named(leadone: Leadone, tmp_path: Path, args: str) -> None:
    path = tmp_path / "none.yaml"
    done = leadone(*args.split(), "-c", path)
    assert (done.code, done.out) == (1, "")
    assert done.complaint == f"{path}: cannot be read: No such file or directory"


@pytest.mark.parametrize("args", ["history anna", "episodes anna", "alarms list", "db check"])
def test_a_missing_database_is_named(leadone: Leadone, tmp_path: Path, args: str) -> None:
    path = write_config(tmp_path, [simulator()])
    done = leadone(*args.split(), "-c", path)
    assert (done.code, done.out) == (1, "")
    assert done.complaint.startswith(f"sqlite:///{tmp_path}/leadone.db: unable to open")
    assert not (tmp_path / "leadone.db").exists()


@pytest.mark.parametrize("args", [(), ("--help",), ("config",), ("db", "--help")])
def test_help_is_help(leadone: Leadone, args: tuple[str, ...]) -> None:
    done = leadone(*args)
    assert done.code == (0 if "--help" in args else 2)
    assert "Usage: leadone" in done.out + done.err
    if args in ((), ("--help",)):
        assert "Watches hearts through one lead." in done.out + done.err


# --- the database


def test_care_of_the_database(leadone: Leadone, tmp_path: Path) -> None:
    path = write_config(tmp_path, [simulator()])
    where = f"sqlite:///{tmp_path}/leadone.db"
    for _ in range(2):
        assert leadone("db", "upgrade", "-c", path) == Done(0, f"{where}: at revision 0007\n", "")
    assert leadone("db", "check", "-c", path) == Done(0, f"{where}: all is well\n", "")
    assert leadone("db", "check", "--json", "-c", path) == Done(0, "", "")
    copy = tmp_path / "copy.db"
    done = leadone("db", "backup", copy, "-c", path)
    assert (done.code, done.err) == (0, "")
    assert done.out == f"{copy}: written and verified, {copy.stat().st_size} bytes\n"
    done = leadone("db", "backup", copy, "-c", path)
    assert done.code == 1
    assert done.complaint == f"{copy}: exists, and a backup overwrites nothing"


# --- after a replay


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The configuration of a database into which five minutes were replayed."""
    folder = tmp_path_factory.mktemp("watched")
    script = Script(
        (
            Episode(EpisodeKind.SINUS_RHYTHM, 60, heart_rate=70, lost_s=((30, 45),)),
            Episode(EpisodeKind.SINUS_TACHYCARDIA, 120, heart_rate=150),
            Episode(EpisodeKind.SINUS_RHYTHM, 120, heart_rate=72),
        ),
        noise=NOISE,
    )
    record = write_csv(folder / "r.csv", simulate(script, seed=3).microvolts, gaps=True)
    write_csv(folder / "flat.csv", np.zeros(2600))
    return write_config(
        folder,
        [
            {
                "type": "replay",
                "patient": "anna",
                "device": "holter",
                "records": [str(record), str(folder / "flat.csv")],
                "speed": 10_000,
            }
        ],
        patients=[{"id": "anna", "name": "Åsa Example"}, {"id": "boris"}],
    )


@pytest.fixture
def told(leadone: Leadone, watched: Path) -> Done:
    """What the run said; every test that asks for it has it from the first."""
    log = watched.with_name("said.json")
    if not log.exists():
        done = leadone("run", "-c", watched)
        log.write_text(json.dumps([done.code, done.out, done.err]))
    return Done(*json.loads(log.read_text()))


def test_a_run_ends_with_its_sources_and_logs_to_standard_error_alone(told: Done) -> None:
    assert told.code == 0
    assert told.out == ""
    logs = [json.loads(line) for line in told.err.splitlines()]
    events = [log["event"] for log in logs]
    assert events.count("ready") == events.count("source ended") == 1
    assert events[-1] == "stopped"
    alarms = [(log["condition"], log["state"]) for log in logs if "alarm" in log]
    assert [a for a in alarms if a[0] == "rate:high"] == [
        ("rate:high", "active"),
        ("rate:high", "ended"),
    ]
    assert "Example" not in told.err


def test_history_of_windows_and_gaps(told: Done, leadone: Leadone, watched: Path) -> None:
    done = leadone("history", "anna", "-c", watched, "--json")
    assert (done.code, done.err) == (0, "")
    windows = [row for row in done.rows if "gap" not in row]
    assert list(windows[0]) == [
        "device",
        "start",
        "duration_s",
        "quality",
        "reasons",
        "heart_rate",
        "longest_rr_s",
        "probabilities",
        "positive",
    ]
    assert [row["start"] for row in windows] == sorted(row["start"] for row in windows)
    # What was lost, and the minute that keeps two recordings apart.
    assert [row["gap"] for row in done.rows if "gap" in row] == ["no data"] * 2
    reasons = [row["reasons"] for row in windows if row["quality"] == "bad"]
    assert reasons == [["flat"]] * 3
    rates = [row["heart_rate"] for row in windows if row["heart_rate"]]
    assert min(rates) == pytest.approx(70, abs=6)
    assert max(rates) == pytest.approx(150, abs=6)


@pytest.mark.parametrize("columns", [80, 120])
def test_history_for_people(
    told: Done, leadone: Leadone, watched: Path, monkeypatch: pytest.MonkeyPatch, columns: int
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    # Faster than life, all of it lies in the future, where it must be seen nonetheless.
    done = leadone("history", "anna", "-c", watched, "--since", "1m")
    assert (done.code, done.err) == (0, "")
    lines = done.out.splitlines()
    assert max(map(len, lines)) <= columns
    body = [line.split("│") for line in lines if line.startswith("│ 2")]
    assert all(re.fullmatch(r" \d{4}-\d\d-\d\d \d\d:\d\d ", cells[1]) for cells in body)
    # They may lie on both sides of a minute.
    assert sum(map(int, re.findall(r"flat (\d)", done.out))) == 3
    gap = next(line for line in lines if line.startswith("gap "))
    assert gap.endswith("  15 s  no data (holter)")
    for options in (["--until", "1m"], ["--since", "2199-01-01", "--until", "2200-01-01"]):
        done = leadone("history", "anna", "-c", watched, *options)
        assert done.out.startswith("anna: nothing since ")
        assert done.code == 0


def test_moments_beyond_all_clocks_are_no_reason_to_fall_over(
    told: Done, leadone: Leadone, watched: Path
) -> None:
    for since, until in (("99999999d", "0s"), ("0001-01-01", "9999-12-31T23:59:59")):
        for command in ("history", "episodes"):
            done = leadone(command, "anna", "-c", watched, "--since", since, "--until", until)
            assert (done.code, done.err) == (0, "")


def test_episodes(told: Done, leadone: Leadone, watched: Path) -> None:
    """Whatever the model finds: each is a class of its, over the threshold, in order."""
    done = leadone("episodes", "anna", "-c", watched, "--json")
    assert (done.code, done.err) == (0, "")
    for row in done.rows:
        assert list(row) == [
            "class",
            "start",
            "end",
            "windows",
            "max_probability",
            "heart_rate",
        ]
        assert row["class"] in CLASSES
        assert row["class"] not in ("NSR", "NECG")
        assert row["max_probability"] >= THRESHOLDS[row["class"]] - 1e-4
        assert row["start"] < row["end"]
    assert [row["start"] for row in done.rows] == sorted(row["start"] for row in done.rows)
    # A heart at 150 is something to be seen, by whatever name.
    assert done.rows
    people = leadone("episodes", "anna", "-c", watched)
    alarm = r"^medium alarm: anna, rate:high, \d{4}-.* to \d{4}-"
    assert re.search(alarm, people.out, re.MULTILINE)
    names = {c.abbreviation: c.name for c in find_bundle(DEFAULT).manifest.classes}
    assert names[done.rows[0]["class"]].split()[0] in people.out


def test_alarms_with_every_change(told: Done, leadone: Leadone, watched: Path) -> None:
    done = leadone("alarms", "list", "-c", watched, "--json")
    assert (done.code, done.err) == (0, "")
    (alarm,) = (row for row in done.rows if row["condition"] == "rate:high")
    assert list(alarm) == [
        "id",
        "patient",
        "condition",
        "priority",
        "state",
        "started",
        "raised",
        "ended",
        "changes",
        "presence",
        "acknowledged_by",
        "acknowledged",
        "snoozed_until",
        "paused_until",
        "signal_lost",
        "bout",
        "bout_count",
    ]
    assert (alarm["patient"], alarm["priority"], alarm["state"]) == ("anna", "medium", "ended")
    assert alarm["started"] < alarm["raised"] < alarm["ended"]
    assert [c["state"] for c in alarm["changes"]] == ["active", "ended"]
    assert [c["at"] for c in alarm["changes"]] == [alarm["raised"], alarm["ended"]]
    people = leadone("alarms", "list", "-c", watched, "--patient", "anna")
    lines = people.out.splitlines()
    at = next(i for i, line in enumerate(lines) if "rate:high" in line)
    assert "active: heart rate: 6 of the last 8 good windows" in lines[at + 1]
    assert "ended: heart rate: " in lines[at + 2]
    none = leadone("alarms", "list", "-c", watched, "--patient", "boris")
    assert none == Done(0, "no alarms in this time\n", "")


@pytest.mark.parametrize("command", ["history zoe", "episodes zoe", "alarms list --patient zoe"])
def test_somebody_unknown(told: Done, leadone: Leadone, watched: Path, command: str) -> None:
    done = leadone(*command.split(), "-c", watched)
    assert (done.code, done.out) == (1, "")
    assert done.complaint == "nothing is stored of patient 'zoe'; there is anna, boris"


def test_replay_is_one_more_device_of_the_patient(
    told: Done, leadone: Leadone, watched: Path, tmp_path: Path
) -> None:
    record = sinus_csv(tmp_path / "r.csv", 30)
    args = ("-c", watched, "--speed", 10_000)
    done = leadone("replay", record, *args, "--patient", "boris")
    assert (done.code, done.out) == (0, "")
    with History(f"sqlite:///{watched.parent}/leadone.db") as history:
        found = list(history.windows("boris", 0, 2**62))
    assert [str(w.stream) for w in found] == ["boris/replay"] * 5
    done = leadone("replay", record, *args, "--patient", "zoe")
    assert done.code == 1
    assert done.complaint == f"--patient: {watched} has no patient 'zoe'; it has anna, boris"
    done = leadone("replay", tmp_path / "none.csv", *args, "--patient", "boris")
    assert done.code == 1
    assert "none.csv" in done.complaint
    done = leadone("replay", record, *args, "--patient", "boris", "--lead", "V5")
    assert done.code == 1
    assert done.complaint == "r: no lead 'V5'; it has I"


def test_what_was_written_is_whole(told: Done, leadone: Leadone, watched: Path) -> None:
    assert leadone("db", "check", "-c", watched).code == 0
