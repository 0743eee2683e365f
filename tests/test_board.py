"""What the dashboard knows of every patient, and how it looks."""

import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from rich.console import Console

from alerts.conditions import Alarm, Change, Priority, State
from alerts.rhythm import Rhythm, RhythmSeen
from ingest.chunk import Stream
from models.bundle import DEFAULT, Bundle, find_bundle
from monitor.board import RHYTHMS, Board, positives
from monitor.cli.dashboard import render
from monitor.quality import Grade, Quality, Reason
from monitor.results import ModelId, WindowResult

T0 = 1_790_000_000_000_000_000
S = 10**9
CLASSES = ("NSR", "AF", "PVC", "IAVB", "NECG")
MODEL = ModelId("m", "0", CLASSES)
THRESHOLDS = {"NSR": 0.5, "AF": 0.6, "PVC": 0.3, "IAVB": 0.3}


def good(*probabilities: float, patient: str = "anna", at_s: int = 0) -> WindowResult:
    return WindowResult(
        Stream(patient, "strap"),
        T0 + at_s * S,
        10.0,
        Grade(Quality.GOOD),
        71.6,
        0.9,
        np.arange(1.0, 9.0),
        MODEL,
        np.array(probabilities, np.float32),
    )


def bad(*reasons: Reason, patient: str = "anna", at_s: int = 0) -> WindowResult:
    return WindowResult(
        Stream(patient, "strap"),
        T0 + at_s * S,
        10.0,
        Grade(Quality.BAD, reasons),
        None,
        None,
        np.empty(0),
        None,
        None,
    )


def raised(condition: str, priority: Priority = Priority.HIGH, id_: str = "a") -> Change:
    alarm = Alarm(id_, "anna", condition, priority, T0, T0 + 30 * S)
    return Change(alarm, alarm.raised_ns, State.ACTIVE, f"{condition}: seen")


def ended(change: Change) -> Change:
    a = change.alarm
    alarm = Alarm(a.id, a.patient, a.condition, a.priority, a.started_ns, a.raised_ns, T0 + 90 * S)
    return Change(alarm, T0 + 90 * S, State.ENDED, f"{a.condition}: gone")


def test_positive_is_at_or_over_the_threshold_likeliest_first() -> None:
    result = good(0.5, 0.59, 0.31, 0.9, 0.99)
    assert positives(result, THRESHOLDS | {"PVC": float(np.float32(0.31))}) == [
        "IAVB",
        "NSR",
        "PVC",
    ]
    assert positives(bad(Reason.FLAT), THRESHOLDS) == []


def test_one_rhythm_is_shown_and_the_rest_are_findings() -> None:
    board = Board(THRESHOLDS, ("anna", "boris"))
    assert [p.quality for p in board.patients.values()] == ["waiting"] * 2
    board.result(good(0.3, 0.7, 0.35, 0.8, 0.9))
    now = board.patients["anna"]
    assert now.heart_rate == 71.6
    assert now.rhythm == ("AF", pytest.approx(0.7))
    assert [name for name, _ in now.findings] == ["IAVB", "PVC"]
    assert (now.windows, now.good, now.quality) == (1, 1, "good")
    assert now.end_ns == T0 + 10 * S
    assert board.patients["boris"].windows == 0


def test_a_bad_window_says_why_and_forgets_nothing() -> None:
    board = Board(THRESHOLDS)
    board.result(good(0.9, 0.1, 0, 0, 0))
    board.result(bad(Reason.CONTACT, Reason.GAP, at_s=5))
    now = board.patients["anna"]
    assert now.quality == "bad: contact, gap"
    assert (now.windows, now.good, now.end_ns) == (2, 1, T0 + 15 * S)
    assert now.heart_rate == 71.6


def test_alarms_come_and_go_each_for_itself() -> None:
    board = Board(THRESHOLDS)
    af, pause = raised("class:AF", Priority.MEDIUM, "a"), raised("pause", id_="b")
    for change in (af, pause, ended(af)):
        board.change(change)
    assert board.patients["anna"].alarms == {"pause": pause.alarm}
    assert list(board.changes) == [af, pause, ended(af)]
    # An end that comes twice (or without its beginning) is no reason to fall over.
    board.change(ended(af))
    for i in range(20):
        board.change(raised("pause", id_=str(i)))
    assert len(board.changes) == 8


def test_the_rhythms_are_classes_of_the_shipped_bundle() -> None:
    """A name that is no class would never be shown, and nobody would miss it."""
    classes = find_bundle(DEFAULT).classes
    assert len([rhythm for rhythm in RHYTHMS if rhythm in classes]) >= 8


# --- the dashboard


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return find_bundle(DEFAULT)


def shown(board: Board, bundle: Bundle, width: int, *, colour: bool = False) -> list[str]:
    console = Console(
        file=io.StringIO(),
        width=width,
        height=50,
        force_terminal=colour,
        color_system="standard" if colour else None,
    )
    console.print(render(board, bundle, 12.0, 5.0))
    output = console.file
    assert isinstance(output, io.StringIO)
    return output.getvalue().splitlines()


def busy() -> Board:
    board = Board(THRESHOLDS, ("anna", "boris", "c" * 30))
    board.result(good(0.9, 0.2, 0.35, 0.8, 0.9))
    board.result(bad(Reason.NOISY, Reason.CONTACT, patient="boris"))
    board.change(raised("class:AF", Priority.MEDIUM, "a"))
    board.change(raised("rate:high", Priority.MEDIUM, "b"))
    board.change(raised("pause", id_="c"))
    return board


@pytest.mark.parametrize("width", [60, 80, 120, 200])
def test_it_fits_the_terminal(bundle: Bundle, width: int) -> None:
    lines = shown(busy(), bundle, width)
    assert max(map(len, lines)) <= width
    words = " ".join(" ".join(lines).split())
    assert "Not a medical device" in words
    for word in ("anna", "boris", "fibrillation", "rate", "pause", "72", "sinus", "0.90"):
        assert word in words
    if width >= 80:
        assert "12 s at 5 times life, 2 windows" in words
        assert "contact" in words
        # Nothing is cut off.
        assert "…" not in words


def test_alarms_are_named_and_the_newest_change_comes_first(bundle: Bundle) -> None:
    lines = shown(busy(), bundle, 120)
    row = next(i for i, line in enumerate(lines) if line.startswith("│ anna"))
    cells = [line.split("│")[2].strip() for line in lines[row : row + 3]]
    assert cells == ["atrial fibrillation", "rate high", "pause"]
    changes = [line for line in lines if line.startswith("anna: ")]
    assert ["pause" in line for line in changes] == [True, False, False]
    coloured = "\n".join(shown(busy(), bundle, 120, colour=True))
    # Bold white on red.
    assert "\x1b[1;37;41mpause" in coloured


def test_no_rate_stands_beside_a_signal_that_is_not_read(bundle: Bundle) -> None:
    board = Board(THRESHOLDS)
    board.result(good(0.9, 0.1, 0.9, 0, 0))
    before = "\n".join(shown(board, bundle, 120))
    assert " 72 " in before
    assert "PVC 0.90" in before
    board.result(bad(Reason.FLAT, at_s=5))
    after = "\n".join(shown(board, bundle, 120))
    assert "72" not in after
    assert "PVC" not in after
    assert "sinus rhythm" not in after
    assert "--" in after
    assert "bad: flat" in after


def verdict(rhythm: Rhythm, device: str = "strap", **changes: Any) -> RhythmSeen:
    seen = RhythmSeen(
        patient="anna", device=device, at_ns=T0 + 9 * S, rhythm=rhythm, since_ns=T0, rate=None
    )
    return replace(seen, **changes)


@pytest.mark.parametrize(
    ("seen", "rate", "rhythm"),
    [
        (verdict(Rhythm.ORGANISED, rate=70.0), "72", "sinus rhythm 0.90"),
        (verdict(Rhythm.VF), "--", "ventricular fibrillation"),
        (verdict(Rhythm.VT, rate=181.7), "182", "ventricular tachycardia"),
        (verdict(Rhythm.ASYSTOLE, last_beat_ns=T0), "--", "asystole"),
        (verdict(Rhythm.UNKNOWN, last_beat_ns=T0 + 4 * S), "72", "sinus rhythm 0.90"),
        (verdict(Rhythm.UNKNOWN, last_beat_ns=T0 + 3 * S), "--", ""),
    ],
)
def test_the_verdict_is_shown_and_no_rate_without_a_beat(
    bundle: Bundle, seen: RhythmSeen, rate: str, rhythm: str
) -> None:
    board = Board(THRESHOLDS)
    board.result(good(0.9, 0.1, 0, 0, 0))
    board.rhythm(seen)
    (row,) = [line for line in shown(board, bundle, 140) if line.startswith("│ anna")]
    assert [cell.strip() for cell in row.split("│")[3:5]] == [rate, rhythm]


def test_of_two_devices_the_one_that_sees_no_circulation_is_shown() -> None:
    board = Board(THRESHOLDS)
    vf = verdict(Rhythm.VF)
    for seen in (vf, verdict(Rhythm.ORGANISED, "patch", at_ns=T0 + 20 * S)):
        board.rhythm(seen)
    assert board.patients["anna"].verdict == vf
    after = verdict(Rhythm.ORGANISED, at_ns=T0 + 21 * S)
    board.rhythm(after)
    assert board.patients["anna"].verdict == after


def test_lethal_rhythms_are_named(bundle: Bundle) -> None:
    board = Board(THRESHOLDS)
    for condition in ("vf", "vt", "asystole", "unseen"):
        board.change(raised(condition, id_=condition))
    lines = shown(board, bundle, 140)
    row = next(i for i, line in enumerate(lines) if line.startswith("│ anna"))
    assert [line.split("│")[2].strip() for line in lines[row : row + 4]] == [
        "ventricular fibrillation",
        "ventricular tachycardia",
        "asystole",
        "heart not seen",
    ]


def test_names_with_brackets_are_text_and_not_markup(tmp_path: Path, bundle: Bundle) -> None:
    """Rich would take ``[red]`` for a style, and ``[/]`` for an error."""
    manifest = yaml.safe_load((bundle.path / "bundle.yaml").read_text())
    next(c for c in manifest["classes"] if c["abbreviation"] == "AF")["name"] = "AF [/red]"
    (tmp_path / "bundle.yaml").write_text(yaml.safe_dump(manifest))
    (tmp_path / "model.onnx").write_bytes(bundle.read_graph())
    board = Board(THRESHOLDS)
    board.result(good(0.1, 0.8, 0.0, 0.0, 0.0))
    board.change(raised("class:AF"))
    lines = shown(board, Bundle(tmp_path), 120)
    assert sum("AF [/red]" in line for line in lines) == 2
