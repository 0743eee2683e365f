"""A lethal rhythm that noise covers: the alarm stays, whatever the noise looks like for moments."""

import numpy as np
import pytest

from alerts.lethal import RhythmEngine
from ingest.chunk import Chunk, Stream
from ingest.episodes import Episode, EpisodeKind, Script
from ingest.simulator import Noise, simulate
from models.rhythm.model import RhythmModel
from monitor.rhythms import StreamRhythms

RATE = 130.0


def heart(*episodes: Episode) -> np.ndarray:
    noise = Noise(baseline_uv=60, mains_uv=10, muscle_uv=12)
    return simulate(Script(episodes, noise=noise), rate=RATE, seed=5).microvolts


def conditions(samples: np.ndarray) -> list[str]:
    stream = Stream("grandpa", "strap")
    rhythms, engine = StreamRhythms(stream, RhythmModel()), RhythmEngine()
    for first in range(0, len(samples), 130):
        piece = samples[first : first + 130].astype(np.float32)
        start_ns = 1_790_000_000 * 10**9 + round(first / RATE * 1e9)
        for seen in rhythms.add(Chunk(stream, start_ns, RATE, piece)):
            engine.step(seen)
    return [alarm.condition for alarm in engine.active("grandpa")]


@pytest.mark.parametrize("rms_uv", [100, 300, 500, 800, 2000])
def test_five_minutes_of_noise_end_no_fibrillation(rms_uv: float) -> None:
    dying = heart(
        Episode(EpisodeKind.SINUS_RHYTHM, 20), Episode(EpisodeKind.VENTRICULAR_FIBRILLATION, 20)
    )
    noise = np.random.default_rng(rms_uv).normal(0, rms_uv, round(300 * RATE))
    on = conditions(np.concatenate((dying, noise)))
    assert set(on) & {"vf", "vt"}


def test_a_minute_of_beats_does() -> None:
    saved = heart(
        Episode(EpisodeKind.SINUS_RHYTHM, 20),
        Episode(EpisodeKind.VENTRICULAR_FIBRILLATION, 20),
        Episode(EpisodeKind.SINUS_RHYTHM, 60),
    )
    assert conditions(saved) == []
