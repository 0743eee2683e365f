"""Simulated hearts to train on: people who move, and rhythms of which recordings hold few."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from ingest.activities import IMITATORS
from ingest.artifacts import Noise
from ingest.episodes import Episode, EpisodeKind, Script
from ingest.simulator import simulate
from training.rhythm.records import Label, RhythmRecord, Span

SEED = 20_000
"""Seeds from here on are trained on; what is measured on simulated hearts takes smaller ones."""

MOVING = 360
STOPPING = 40
_MOVING_S = 30.0
_STOPPING_S = 24.0
_USUAL = 1.2
_RATES = (100.0, 125.0, 130.0, 250.0)

_HEARTS = (
    EpisodeKind.SINUS_RHYTHM,
    EpisodeKind.SINUS_RHYTHM,
    EpisodeKind.SINUS_RHYTHM,
    EpisodeKind.ATRIAL_FIBRILLATION,
    EpisodeKind.VENTRICULAR_ECTOPY,
    EpisodeKind.LEFT_BUNDLE_BRANCH_BLOCK,
    EpisodeKind.RIGHT_BUNDLE_BRANCH_BLOCK,
    EpisodeKind.PACED_RHYTHM,
    EpisodeKind.SUPRAVENTRICULAR_TACHYCARDIA,
)
_STOPS = {
    EpisodeKind.VENTRICULAR_FIBRILLATION: Label.VF,
    EpisodeKind.TORSADES: Label.VF | Label.VT,
    EpisodeKind.VENTRICULAR_TACHYCARDIA: Label.VT,
    EpisodeKind.VENTRICULAR_FLUTTER: Label.VF | Label.VT,
}


def simulated_records() -> Iterator[RhythmRecord]:
    """People who walk, run, brush teeth, tremble; then hearts that stop while one moves a bit."""
    rng = np.random.default_rng(SEED)
    activities = list(IMITATORS.values())
    for i in range(MOVING):
        kind = _HEARTS[rng.integers(len(_HEARTS))]
        factor = float(np.exp(rng.uniform(-1.4, 1.4)))
        noise = _scaled(activities[i % len(activities)], factor)
        script = Script((Episode(kind, _MOVING_S),), noise=noise)
        # Of the usual strength a movement hides nothing from who knows it.
        label = Label.ORGANISED if factor <= _USUAL else Label.ORGANISED | Label.NOISE
        yield _record(i, script, rng, label, kind)
    for i in range(STOPPING):
        kind = list(_STOPS)[i % len(_STOPS)]
        noise = _scaled(activities[rng.integers(len(activities))], rng.uniform(0.0, 0.25))
        episode = Episode(kind, _STOPPING_S, **_settings(kind, rng))  # type: ignore[arg-type]
        script = Script((episode,), noise=noise)
        yield _record(MOVING + i, script, rng, _STOPS[kind], kind)


def _settings(kind: EpisodeKind, rng: np.random.Generator) -> dict[str, float]:
    if kind is EpisodeKind.VENTRICULAR_TACHYCARDIA:
        return {"heart_rate": rng.uniform(130, 240)}
    if kind is EpisodeKind.VENTRICULAR_FIBRILLATION:
        return {"amplitude_uv": np.exp(rng.uniform(np.log(180), np.log(1500)))}
    return {}


def _scaled(noise: Noise, factor: float) -> Noise:
    names = ("gait_uv", "electrode_uv", "brushing_uv", "compressions_uv", "tremor_uv")
    return replace(noise, **{name: getattr(noise, name) * factor for name in names})


def _record(
    number: int, script: Script, rng: np.random.Generator, label: Label, kind: EpisodeKind
) -> RhythmRecord:
    rate = float(rng.choice(_RATES))
    made = simulate(script, rate=rate, seed=SEED + number)
    span = Span(0.0, len(made.microvolts) / rate, label, kind.value)
    # Each is a heart of its own; in two folds there is none.
    name = f"simulated/{number}"
    return RhythmRecord(name, name, rate, made.microvolts, (span,))
