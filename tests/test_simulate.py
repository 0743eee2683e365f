"""`leadone alarms simulate`: the daemon's rules over finished recordings."""

import json
from pathlib import Path

import numpy as np
import pytest
from program import simulator, write_config
from watching import write_csv

from alerts.conditions import Observation, Priority
from alerts.policy import ClassRule, Policy
from ingest.simulator import Episode, EpisodeKind, Noise, Script, simulate
from monitor.cli.errors import CommandError, MisuseError
from monitor.cli.simulate import simulate_records
from monitor.simulate import SimulatedAlarm, seconds_to_alarm
from monitor.simulate import simulate as alarms_of

S = 1_000_000_000
NOISE = Noise(baseline_uv=20, mains_uv=2, muscle_uv=4)


def record(path: Path, *episodes: Episode) -> Path:
    return write_csv(path, simulate(Script(episodes, noise=NOISE), seed=3).microvolts)


def fibrillating(path: Path) -> Path:
    return record(
        path,
        Episode(EpisodeKind.SINUS_RHYTHM, 60),
        Episode(EpisodeKind.ATRIAL_FIBRILLATION, 120),
        Episode(EpisodeKind.SINUS_RHYTHM, 90),
    )


def rows(capsys: pytest.CaptureFixture[str]) -> list[dict[str, object]]:
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_the_rules_are_run_over_what_was_seen() -> None:
    rule = ClassRule(
        name="AF", threshold=0.6, off_threshold=0.4, k=2, n=3, clear_k=2, priority=Priority.LOW
    )
    seen = [
        Observation("p", 5 * i * S, (5 * i + 10) * S, True, {"AF": p})
        for i, p in enumerate([0.1, 0.9, 0.9, 0.1, 0.1, 0.9, 0.9])
    ]
    reason = "AF: 2 of the last 3 good windows at or over 0.60"
    assert alarms_of(seen, Policy(classes=(rule,))) == [
        SimulatedAlarm("class:AF", "low", 20.0, 30.0, reason),
        SimulatedAlarm("class:AF", "low", 40.0, None, reason),
    ]


@pytest.mark.parametrize(
    ("onset_s", "expected"), [(0, 20.0), (12, 8.0), (25, 0.0), (30, 10.0), (50, 0.0)]
)
def test_time_to_alarm_counts_from_the_onset(onset_s: float, expected: float) -> None:
    alarms = [
        SimulatedAlarm("class:AF", "low", 20.0, 30.0, ""),
        SimulatedAlarm("class:AF", "low", 40.0, None, ""),
    ]
    assert seconds_to_alarm(alarms, "class:AF", onset_s) == expected
    assert seconds_to_alarm(alarms, "pause", onset_s) is None
    assert seconds_to_alarm(alarms[:1], "class:AF", 30) is None


@pytest.mark.parametrize("expected", ["vf", "vt"])
def test_fibrillation_and_tachycardia_answer_each_other(expected: str) -> None:
    """The one is seen as the other for some seconds, and while one is on that wakes people."""
    alarms = [
        SimulatedAlarm("asystole", "high", 5.0, 15.0, ""),
        SimulatedAlarm("vt", "high", 20.0, 30.0, ""),
        SimulatedAlarm("vf", "high", 40.0, None, ""),
    ]
    assert seconds_to_alarm(alarms, expected, 18) == 2.0
    assert seconds_to_alarm(alarms, expected, 32) == 8.0
    assert seconds_to_alarm(alarms, "asystole", 18) is None


def test_without_a_configuration_the_usual_rules_hold(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = record(tmp_path / "calm.csv", Episode(EpisodeKind.SINUS_RHYTHM, 20))
    assert simulate_records(None, [path], None, "vf", None, json_lines=False) == 0
    assert "vf or vt: 0 of 1 alarmed\n" in capsys.readouterr().out
    with pytest.raises(
        MisuseError, match=r"^--patient: there is no configuration: name one by -c$"
    ):
        simulate_records(None, [path], "anna", None, None, json_lines=False)


def test_alarms_and_rates_as_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = fibrillating(tmp_path / "af.csv")
    config = write_config(tmp_path, [simulator()])
    assert simulate_records(config, [path], None, "AF", None, json_lines=True) == 0
    *alarms, summary = rows(capsys)
    (af,) = [alarm for alarm in alarms if alarm["condition"] == "class:AF"]
    assert list(af) == ["record", "condition", "priority", "raised_s", "ended_s", "reason"]
    assert af["record"] == str(path)
    # Six windows of ten seconds, one every five, are 35 s.
    assert 90 <= af["raised_s"] <= 140
    assert 180 <= af["ended_s"] <= 260
    assert summary["patient_days"] == pytest.approx(270 / 86_400, abs=1e-5)
    assert summary["alarms_per_patient_day"]["class:AF"] == pytest.approx(320, abs=0.5)
    assert summary["missed"] == []
    assert summary["median_seconds_to_alarm"] == af["raised_s"]


def test_a_miss_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = record(tmp_path / "calm.csv", Episode(EpisodeKind.SINUS_RHYTHM, 60))
    simulate_records(
        write_config(tmp_path, [simulator()]), [path], None, "AF", None, json_lines=False
    )
    out = capsys.readouterr().out
    assert f"{path}: lead I, 60 s, no alarms\n" in out
    assert f"class:AF: 0 of 1 alarmed\n  missed in {path}\n" in out


def test_a_pause_is_told_before_its_windows_would(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    script = Script(
        (
            Episode(EpisodeKind.SINUS_RHYTHM, 32),
            Episode(EpisodeKind.SINUS_ARREST, 40, heart_rate=70, per_minute=1.5, pause_s=15),
        ),
        noise=NOISE,
    )
    simulation = simulate(script, seed=1)
    peaks = simulation.truth.r_peaks_s
    begin = peaks[np.argmax(np.diff(peaks))]
    path = write_csv(tmp_path / "pause.csv", simulation.microvolts)
    simulate_records(
        write_config(tmp_path, [simulator()]), [path], None, "pause", None, json_lines=True
    )
    *alarms, summary = rows(capsys)
    (pause,) = [alarm for alarm in alarms if alarm["condition"] == "pause"]
    assert 4.0 <= pause["raised_s"] - begin <= 5.1
    assert summary["expected"] == "pause"


def test_annotations_say_when_fibrillation_began(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = fibrillating(tmp_path / "af.csv")
    # Two notes: (N at sample 0, (AFIB at sample 7800, 60 s at 130 Hz, in words of 16 bits.
    words = [28 << 10, 63 << 10 | 2, *_text("(N"), 59 << 10, 0, 7800, 28 << 10]
    words += [63 << 10 | 5, *_text("(AFIB\0"), 0]
    (tmp_path / "af.atr").write_bytes(np.array(words, "<u2").tobytes())
    simulate_records(
        write_config(tmp_path, [simulator()]), [path], None, "AF", None, json_lines=True
    )
    *alarms, summary = rows(capsys)
    (af,) = [alarm for alarm in alarms if alarm["condition"] == "class:AF"]
    assert summary["median_seconds_to_alarm"] == pytest.approx(af["raised_s"] - 60, abs=0.01)


def _text(text: str) -> list[int]:
    return np.frombuffer(text.encode(), "<u2").tolist()


def test_what_cannot_be_read_is_told_and_the_rest_goes_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = record(tmp_path / "calm.csv", Episode(EpisodeKind.SINUS_RHYTHM, 20))
    config = write_config(tmp_path, [simulator()])
    lost = tmp_path / "lost.csv"
    assert simulate_records(config, [lost, path], None, None, None, json_lines=True) == 1
    told = capsys.readouterr()
    assert told.err == f"leadone: {lost}: No such file or directory\n"
    assert json.loads(told.out)["alarms"] == {}


def test_misuse_is_told_in_a_line(tmp_path: Path) -> None:
    config = write_config(tmp_path, [simulator()])
    with pytest.raises(
        MisuseError, match=r"--expect: no rule raises 'XYZ'; there are vf, vt, asystole, unseen, "
    ):
        simulate_records(config, [], None, "XYZ", None, json_lines=False)
    with pytest.raises(CommandError, match="has no patient 'nobody'"):
        simulate_records(config, [], "nobody", None, None, json_lines=False)
