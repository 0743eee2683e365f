"""``analyze``, ``alarms simulate`` and ``alarms explain`` say what the rhythm watch says.

The watch is a fake that takes its verdicts from the level of the samples (``rhythm_watches``).
"""

import functools
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from program import simulator, write_config
from rhythm_watches import MODEL, ORGANISED, UNKNOWN, VF, Watches
from watching import STREAM, T0, S, new_database, started, write_csv

from alerts.conditions import Alarm, Change, Priority, State
from alerts.policy import Policy
from alerts.rhythm import Rhythm, RhythmSeen
from ingest.chunk import Chunk
from ingest.recordings import read_recording
from models.rhythm.model import RhythmModelError
from monitor.cli.analyze import analyze_records
from monitor.cli.errors import CommandError
from monitor.cli.explain import explain
from monitor.cli.rhythm_model import open_rhythm_model
from monitor.cli.simulate import simulate_records
from monitor.rhythms import StreamRhythms
from monitor.simulate import SimulatedAlarm, hear, simulate
from monitor.storage.records import Patient

RATE = 100.0


def levels(*parts: tuple[float, float]) -> Any:
    """Samples of some levels, each for some seconds, and a little of something."""
    samples = np.concatenate([np.full(round(s * RATE), level) for level, s in parts])
    return samples + np.random.default_rng(1).uniform(-50, 50, len(samples))


@pytest.fixture(autouse=True)
def fake(monkeypatch: pytest.MonkeyPatch) -> None:
    made = functools.partial(StreamRhythms, watch=Watches())
    for place in ("simulate", "hearing", "cli.analyze"):
        monkeypatch.setattr(f"monitor.{place}.StreamRhythms", made)
    for command in ("analyze", "simulate", "explain_rhythm"):
        monkeypatch.setattr(f"monitor.cli.{command}.open_rhythm_model", lambda: MODEL)


@pytest.fixture
def record(tmp_path: Path) -> Path:
    """Beats, twenty seconds of fibrillation from 30.5 s on, beats."""
    parts = levels((ORGANISED, 30.5), (VF, 20), (ORGANISED, 40))
    return write_csv(tmp_path / "vf.csv", parts, RATE)


def rows(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


# --- simulate


def seen(rhythm: Rhythm, at_s: float, since_s: float) -> RhythmSeen:
    return RhythmSeen(
        patient="recording",
        device="r",
        at_ns=round(at_s * S),
        rhythm=rhythm,
        since_ns=round(since_s * S),
        last_beat_ns=round(at_s * S) if rhythm is Rhythm.ORGANISED else None,
    )


def test_verdicts_raise_and_end_alarms() -> None:
    heard = [seen(Rhythm.VF, 10 + n, 8) for n in range(12)]
    heard += [seen(Rhythm.ORGANISED, 22 + n, 22) for n in range(30)]
    (alarm,) = simulate([], Policy(), heard)
    assert (alarm.condition, alarm.priority) == ("vf", "high")
    # Raised by the first, whatever is said again of it while it lasts; over after thirty.
    assert (alarm.raised_s, alarm.ended_s) == (10.0, 51.0)
    assert alarm.reason.startswith("vf: ventricular fibrillation or flutter for 2 s")


def test_a_recording_is_heard_as_a_device_would_be(record: Path) -> None:
    recording = read_recording(record)
    heard = list(hear(recording, "I", MODEL))
    assert [(one.at_ns / S, one.rhythm.value) for one in heard[28:32]] == [
        (29, "organised"),
        (30, "organised"),
        (31, "vf"),
        (32, "vf"),
    ]
    assert len(heard) == 90


def test_lethal_rhythms_are_simulated(
    tmp_path: Path, record: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = write_config(tmp_path, [simulator()])
    assert simulate_records(config, [record], None, "vf", None, json_lines=True) == 0
    *alarms, summary = rows(capsys)
    (vf,) = [alarm for alarm in alarms if alarm["condition"] == "vf"]
    assert (vf["priority"], vf["raised_s"], vf["ended_s"]) == ("high", 31.0, 80.0)
    assert (summary["expected"], summary["missed"]) == ("vf", [])


def test_a_heart_that_cannot_be_seen_is_simulated(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_csv(tmp_path / "x.csv", levels((ORGANISED, 20), (UNKNOWN, 40)), RATE)
    config = write_config(tmp_path, [simulator()])
    simulate_records(config, [path], None, "unseen", None, json_lines=True)
    *alarms, summary = rows(capsys)
    (unseen,) = [alarm for alarm in alarms if alarm["condition"] == "unseen"]
    # The last beat is at 19.99 s.
    assert unseen["raised_s"] == 40.0
    assert summary["missed"] == []


@pytest.mark.parametrize("note", ["(VF", "(VFL", "(VFIB"])
def test_annotations_say_when_fibrillation_of_the_ventricles_began(
    tmp_path: Path, record: Path, capsys: pytest.CaptureFixture[str], note: str
) -> None:
    # Notes, after the MIT format: (N at sample 0, the other at sample 2900, of 100 Hz.
    def text(of: str) -> list[int]:
        words: list[int] = np.frombuffer((of + "\0" * (len(of) % 2)).encode(), "<u2").tolist()
        return words

    words = [28 << 10, 63 << 10 | 2, *text("(N"), 59 << 10, 0, 2900]
    words += [28 << 10, 63 << 10 | len(note), *text(note), 0]
    record.with_suffix(".atr").write_bytes(np.array(words, "<u2").tobytes())
    config = write_config(tmp_path, [simulator()])
    simulate_records(config, [record], None, "vf", None, json_lines=True)
    assert rows(capsys)[-1]["median_seconds_to_alarm"] == 2.0


# --- analyze


def test_each_window_has_the_verdict_at_its_end(
    record: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert analyze_records([record], None, None, None, None, json_lines=True) == 0
    told = {row["start_s"]: row["rhythm"] for row in rows(capsys)}
    # The window from 20 s on ends before the fibrillation, that from 25 s in it.
    assert [told[start] for start in (0, 20, 25, 40, 45, 75)] == [
        "organised",
        "organised",
        "vf",
        "vf",
        "organised",
        "organised",
    ]


def test_people_are_told_of_lethal_rhythms(
    record: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    analyze_records([record], None, None, None, None, json_lines=False)
    lines = capsys.readouterr().out.splitlines()
    (of_35,) = [line for line in lines if line.strip().startswith("35.0 s")]
    assert "--" in of_35
    assert " vf " in of_35
    # Verdicts at 31, 32 ... 50 s.
    assert lines[-1] == "  LETHAL RHYTHMS SEEN: ventricular fibrillation for 20 s"


def test_nothing_is_said_of_lethal_rhythms_that_were_not_seen(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_csv(tmp_path / "calm.csv", levels((ORGANISED, 20)), RATE)
    analyze_records([path], None, None, None, None, json_lines=False)
    assert "LETHAL" not in capsys.readouterr().out


def test_a_model_that_cannot_be_used_is_told_in_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> None:
        raise RhythmModelError("rhythm.yaml: cannot be read")

    monkeypatch.setattr("monitor.cli.rhythm_model.RhythmModel", broken)
    with pytest.raises(CommandError, match=r"^rhythm\.yaml: cannot be read$"):
        open_rhythm_model()


# --- explain


def alarm_of(condition: str, started_s: float, raised_s: float, ended_s: float) -> Alarm:
    return Alarm(
        "cafe-1",
        STREAM.patient,
        condition,
        Priority.HIGH,
        T0 + round(started_s * S),
        T0 + round(raised_s * S),
        T0 + round(ended_s * S),
    )


def stored(folder: Path, alarm: Alarm, samples: Any) -> Path:
    """A database with a minute and a half of signal and its alarm."""
    path = write_config(folder, [simulator("anna")])
    url = new_database(folder)
    path.write_text(path.read_text().replace(f"sqlite:///{folder}/leadone.db", url))
    chunks = [
        Chunk(STREAM, T0 + n * S, RATE, samples[n * 100 : (n + 1) * 100].astype(np.float32))
        for n in range(len(samples) // 100)
    ]
    begun = replace(alarm, ended_ns=None)
    records: Sequence[Any] = (
        Patient("anna"),
        *chunks,
        Change(begun, begun.raised_ns, State.ACTIVE, f"{alarm.condition}: seen"),
        Change(alarm, alarm.ended_ns or 0, State.ENDED, f"{alarm.condition}: over"),
    )
    writer = started(url)
    writer.submit(*records).result()
    writer.stop()
    return path


SIGNAL = levels((ORGANISED, 30), (VF, 20), (ORGANISED, 40))


def test_the_verdicts_that_led_to_an_alarm_are_shown(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = stored(tmp_path, alarm_of("vf", 30, 31, 80), SIGNAL)
    explain(path, "cafe", None, None, json_lines=True)
    told = rows(capsys)
    verdicts = [row for row in told if "verdict" in row]
    assert {row["device"] for row in verdicts} == {"strap"}
    # From twenty seconds before it was raised to five after, and the last forty before the end.
    assert len(verdicts) == 26 + 42
    changed = [(row["rhythm"], row["changes"]) for row in verdicts if row["changes"]]
    assert [(rhythm, [c["state"] for c in changes]) for rhythm, changes in changed[:1]] == [
        ("vf", ["active"])
    ]
    assert [c["state"] for c in changed[-1][1]] == ["ended"]
    conclusions = [row["why"] for row in told if row.get("condition") == "vf" and "why" in row]
    assert conclusions == [
        "raised by the watch, run again over the stored signal, at the same second"
    ]


def test_the_strip_is_drawn_for_people(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = stored(tmp_path, alarm_of("vf", 30, 35, 80), SIGNAL)
    explain(path, "cafe", None, None, json_lines=False)
    out = capsys.readouterr().out
    assert "anna/strap, 10 s up to" in out
    assert any("⠀" < c <= "⣿" for c in out)
    assert "RAISED: vf" in out
    assert "ENDED: vf" in out
    assert "4 s sooner" in out


def test_an_alarm_whose_signal_says_something_else(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = stored(tmp_path, alarm_of("asystole", 30, 31, 80), SIGNAL)
    explain(path, "cafe", None, None, json_lines=True)
    (why,) = [
        row["why"] for row in rows(capsys) if row.get("condition") == "asystole" and "why" in row
    ]
    assert why.startswith("not raised by the watch of today")


def test_a_time_of_a_patient_says_what_was_seen(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = stored(tmp_path, alarm_of("vf", 30, 31, 80), SIGNAL)
    at = np.datetime_as_string(np.datetime64(T0 + 30 * S, "ns"), unit="s") + "Z"
    explain(path, "anna", at, None, json_lines=True)
    told = [row["why"] for row in rows(capsys) if "why" in row]
    # Of the first two seconds there is none; the last is of the ninetieth.
    why = "the watch for lethal rhythms, run again, says: organised 68 s, vf 20 s, unknown 2 s"
    assert why in told
    assert "raised by the watch for lethal rhythms: leadone alarms explain cafe-1" in told


def test_simulated_alarms_are_in_the_order_of_time() -> None:
    heard = [seen(Rhythm.VT, 5, 4), seen(Rhythm.VF, 9, 8)]
    alarms = simulate([], Policy(), heard)
    assert [type(a) for a in alarms] == [SimulatedAlarm] * 2
    assert [(a.condition, a.raised_s, a.ended_s) for a in alarms] == [
        ("vt", 5.0, None),
        ("vf", 9.0, None),
    ]
