"""docs/simulator.md lists what there is, with the ranges that hold."""

import re
from dataclasses import fields
from pathlib import Path

import pytest

from ingest.activities import IMITATORS
from ingest.artifacts import LIMITS, Noise
from ingest.episodes import EpisodeKind, settings_of

TEXT = (Path(__file__).parents[1] / "docs/simulator.md").read_text(encoding="utf-8")


def row(key: str) -> str:
    """Return the second cell of the table row whose first has ``key``."""
    (cell,) = re.findall(rf"^\|[^|\n]*`{key}`[^|\n]*\| (.+) \|$", TEXT, re.MULTILINE)
    return str(cell)


@pytest.mark.parametrize("kind", EpisodeKind)
def test_every_kind_has_its_settings(kind: EpisodeKind) -> None:
    said = re.findall(r"`(\w+)` ([\d.]+) to ([\d.]+) \((none|[\d.]+)[;)]", row(kind))
    assert {
        name: (float(low), float(high), None if default == "none" else float(default))
        for name, low, high, default in said
    } == {name: (s.low, s.high, s.default) for name, s in settings_of(kind).items()}


@pytest.mark.parametrize("field", [item.name for item in fields(Noise)])
def test_every_noise_is_listed_with_its_range(field: str) -> None:
    text = row(field)
    low, high, unit = LIMITS[field]
    if unit != "µV" and field != "mains_hz":
        assert f"{low:g} to {high:g} " in text


@pytest.mark.parametrize("name", IMITATORS)
def test_every_imitator_is_named(name: str) -> None:
    assert f"`{name}`" in TEXT
