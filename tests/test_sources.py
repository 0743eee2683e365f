"""Configured sources: what plays, in which order, and what is said of what cannot."""

import asyncio
import itertools
import math
import time
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import structlog
from prometheus_client import REGISTRY
from watching import S, write_csv

from ingest.chunk import Chunk, Stream
from ingest.episodes import EpisodeKind
from ingest.simulator import Noise, SimulatorSource
from ingest.source import Source
from monitor.config import Config, ConfigError, schema
from monitor.sources import Playlist, build_sources

STREAM = Stream("anna", "holter")


async def played(source: Source) -> list[Chunk]:
    async with asyncio.timeout(30):
        return [chunk async for chunk in source.chunks()]


def ramp(n: int, first: int = 0) -> np.ndarray:
    return np.arange(first, first + n, dtype=np.float64)


def playlist(*records: Path, lead: str | None = None, speed: float = math.inf) -> Playlist:
    return Playlist(records, STREAM, lead=lead, speed=speed)


async def test_recordings_follow_each_other_from_the_present_on(tmp_path: Path) -> None:
    one = write_csv(tmp_path / "one.csv", ramp(650))
    two = write_csv(tmp_path / "two.csv", ramp(325, 650))
    before = time.time_ns()
    chunks = await played(playlist(one, two))
    assert before <= chunks[0].start_ns <= time.time_ns()
    assert {c.stream for c in chunks} == {STREAM}
    samples = np.concatenate([c.microvolts for c in chunks])
    assert np.array_equal(samples, np.arange(975))
    # As fast as it goes, the second would begin before the first has ended; and between the two
    # no window of up to 60 s may find room.
    steps = [b.start_ns - a.end_ns for a, b in itertools.pairwise(chunks)]
    assert [step for step in steps if abs(step) > 2] == [61 * S]
    assert chunks[-1].end_ns - chunks[0].start_ns == pytest.approx(68.5 * S, abs=10)


async def test_in_real_time_the_second_begins_when_the_first_has_ended(tmp_path: Path) -> None:
    one = write_csv(tmp_path / "one.csv", ramp(26))
    two = write_csv(tmp_path / "two.csv", ramp(26))
    chunks = await played(playlist(one, two, speed=1.0))
    assert len(chunks) == 2
    # Not before; and there is no telling how long a busy machine takes to read a file.
    assert chunks[1].start_ns >= chunks[0].end_ns


async def test_what_cannot_be_read_is_logged_counted_and_passed_over(tmp_path: Path) -> None:
    good = write_csv(tmp_path / "good.csv", ramp(130))
    garbled = tmp_path / "garbled.csv"
    garbled.write_text("I\nhello\n")
    before = REGISTRY.get_sample_value("leadone_recordings_refused_total") or 0
    with structlog.testing.capture_logs() as logs:
        chunks = await played(playlist(tmp_path / "none.csv", garbled, good))
    assert sum(len(c.microvolts) for c in chunks) == 130
    assert REGISTRY.get_sample_value("leadone_recordings_refused_total") == before + 2
    refused = [log for log in logs if log["event"] == "recording refused"]
    assert [log["source"] for log in refused] == ["replay anna/holter"] * 2
    assert "none.csv" in refused[0]["reason"]
    assert "garbled.csv" in refused[1]["reason"]


async def test_a_recording_without_the_lead_is_passed_over(tmp_path: Path) -> None:
    both = tmp_path / "both.csv"
    both.write_text("# rate=100 unit=uV\nI,II\n" + "1,2\n" * 100)
    one = tmp_path / "one.csv"
    one.write_text("# rate=100 unit=uV\nI\n" + "3\n" * 100)
    with structlog.testing.capture_logs() as logs:
        chunks = await played(playlist(one, both, lead="ii"))
    assert {float(v) for c in chunks for v in c.microvolts} == {2.0}
    assert "no lead 'ii'" in logs[0]["reason"]


async def test_a_recording_is_read_when_its_turn_comes(tmp_path: Path) -> None:
    one = write_csv(tmp_path / "one.csv", ramp(260))
    two = tmp_path / "two.csv"
    chunks: list[Chunk] = []
    async for chunk in playlist(one, two).chunks():
        chunks.append(chunk)
        if len(chunks) == 2:
            write_csv(two, ramp(130))
    assert sum(len(c.microvolts) for c in chunks) == 390


# --- from the configuration


def configured(*sources: dict[str, Any]) -> Config:
    return Config.model_validate({"patients": [{"id": "anna"}], "sources": list(sources)})


def simulator(*script: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"type": "simulator", "patient": "anna", "device": "sim", "script": script} | more


async def test_sources_are_made_as_configured(tmp_path: Path) -> None:
    record = write_csv(tmp_path / "r.csv", ramp(130))
    config = configured(
        simulator(
            {"kind": "sinus_rhythm", "duration": "2s", "heart_rate": 60},
            {"kind": "atrial_flutter", "duration": "3s", "conduction": 2},
            seed=7,
        ),
        {
            "type": "replay",
            "patient": "anna",
            "device": "holter",
            "records": [str(record)],
            "speed": 1000,
        },
    )
    simulated, replay = build_sources(config.sources)
    assert isinstance(simulated, SimulatorSource)
    chunks = [chunk async for chunk, _ in take(simulated, 2)]
    assert {c.stream for c in chunks} == {Stream("anna", "sim")}
    assert isinstance(replay, Playlist)
    assert [c.stream for c in await played(replay)] == [STREAM]


async def take(source: Source, n: int) -> Any:
    chunks = source.chunks()
    for i in range(n):
        yield await anext(chunks), i
    await chunks.aclose()  # type: ignore[attr-defined]


async def test_what_disturbs_a_heart_is_configured_with_it() -> None:
    script = {"kind": "asystole", "duration": "3s"}
    compressed = script | {"noise": {"compressions_uv": 800, "compressions_per_minute": 100}}

    async def heights(*episodes: dict[str, Any]) -> list[float]:
        (source,) = build_sources(configured(simulator(*episodes)).sources)
        return [float(np.ptp(chunk.microvolts)) async for chunk, _ in take(source, 3)]

    assert max(await heights(script)) < 20
    # Several times the RMS told, once it has begun.
    assert min((await heights(compressed))[1:]) > 1600


async def test_the_seed_chooses_the_patient() -> None:
    script = {"kind": "sinus_rhythm", "duration": "5s"}

    async def first(seed: int) -> bytes:
        (source,) = build_sources(configured(simulator(script, seed=seed)).sources)
        return (await anext(take(source, 1)))[0].microvolts.tobytes()

    one, again, other = await asyncio.gather(first(1), first(1), first(2))
    assert one == again != other


def test_everything_wrong_with_the_scripts_is_told_at_once() -> None:
    config = configured(
        simulator({"kind": "sinus_rhythm", "duration": 10}),
        simulator(
            {"kind": "sinus_rythm", "duration": 10},
            {"kind": "sinus_rhythm", "duration": 10, "heart_rate": 9000},
            {"kind": "sinus_rhythm", "duration": 10, "heart_rate": "fast"},
            {"kind": "sinus_rhythm", "duration": 10, "hart_rate": 60},
            {"kind": "sinus_rhythm", "duration": 10, "pr_s": 0.3},
            {"kind": "sinus_rhythm", "duration": 10, "noise": 1},
            {"kind": "ventricular_runs", "duration": 60, "run_beats": 5.5},
            {"kind": "asystole", "duration": 60, "heart_rate": 30},
            {"kind": "ventricular_fibrillation", "duration": 60, "amplitude_uv": 5},
            {"kind": "sinus_rhythm", "duration": 10, "noise": {"brushing_uv": "strong"}},
            {"kind": "sinus_rhythm", "duration": 10, "noise": {"brush_uv": 100}},
            {"kind": "sinus_rhythm", "duration": 10, "noise": {"brushing_hz": 12}},
            {"kind": "sinus_rhythm", "duration": 10, "noise": {"mains_hz": True}},
            device="other",
        ),
    )
    with pytest.raises(ConfigError) as caught:
        build_sources(config.sources)
    expected = [
        "kind: must be one of sinus_rhythm, ",
        "heart_rate of sinus_rhythm must be 20 to 220",
        "heart_rate: must be a number, not 'fast'",
        "hart_rate: unknown key; known are ",
        "pr_s does not belong to an episode of sinus_rhythm",
        "noise: must be a mapping such as {muscle_uv: 20}, not 1",
        "run_beats of ventricular_runs must be a whole number",
        "heart_rate does not belong to an episode of asystole",
        "amplitude_uv of ventricular_fibrillation must be 50 to 3000 µV, not 5",
        "noise.brushing_uv: must be a number, not 'strong'",
        "noise.brush_uv: unknown key; known are baseline_uv, brushing_hz, ",
        "noise.brushing_hz must be 4 to 7 Hz, not 12",
        "noise.mains_hz: must be a number, not True",
    ]
    assert len(caught.value.problems) == len(expected)
    for i, (problem, text) in enumerate(zip(caught.value.problems, expected, strict=True)):
        assert problem.startswith(f"sources[1].script[{i}]: ")
        assert text in problem


def test_the_schema_lists_the_rhythms_with_their_settings_and_what_disturbs_them() -> None:
    episode = schema()["$defs"]["EpisodeConfig"]["properties"]
    assert episode["kind"]["enum"] == list(EpisodeKind)
    assert "ventricular_fibrillation: 50 to 3000 µV, by default 600" in (
        episode["amplitude_uv"]["description"].split("; ")
    )
    assert "ventricular_tachycardia: 120 to 250 beats per minute, by default 180" in (
        episode["heart_rate"]["description"].split("; ")
    )
    assert "asystole: 20 to 150 per minute" in episode["p_waves"]["description"].split("; ")
    assert set(episode["noise"]["properties"]) == {item.name for item in fields(Noise)}
    brushing = episode["noise"]["properties"]["brushing_hz"]
    assert (brushing["minimum"], brushing["maximum"]) == (4, 7)
