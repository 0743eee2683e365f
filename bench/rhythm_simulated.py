"""Simulated hearts that stop, and simulated people who only move: told apart from recorded ones."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from alerts.rhythm import LETHAL, Rhythm
from bench.rhythm_replay import replay
from ingest.activities import IMITATORS
from ingest.episodes import Episode, EpisodeKind, Script
from ingest.simulator import Noise, simulate
from models.rhythm.model import RhythmModel
from training.rhythm.records import Label, RhythmRecord, Span

HEARTS = 25
_BEFORE_S = 40.0
_LETHAL_S = 30.0
_PEOPLE = 6
_ACTIVE_S = 240.0
_RATE = 130.0
_USUAL = Noise(baseline_uv=60, mains_uv=10, muscle_uv=12)

_EPISODES = {
    "ventricular fibrillation, coarse": (
        EpisodeKind.VENTRICULAR_FIBRILLATION,
        {"amplitude_uv": 800},
    ),
    "ventricular fibrillation, fine": (EpisodeKind.VENTRICULAR_FIBRILLATION, {"amplitude_uv": 250}),
    "ventricular flutter": (EpisodeKind.VENTRICULAR_FLUTTER, {}),
    "torsades de pointes": (EpisodeKind.TORSADES, {}),
    "ventricular tachycardia, 180 per minute": (
        EpisodeKind.VENTRICULAR_TACHYCARDIA,
        {"heart_rate": 180},
    ),
    "ventricular tachycardia, 140 per minute": (
        EpisodeKind.VENTRICULAR_TACHYCARDIA,
        {"heart_rate": 140},
    ),
    "asystole": (EpisodeKind.ASYSTOLE, {}),
    "asystole with P waves": (EpisodeKind.ASYSTOLE, {"p_waves": 70}),
}

_HEARTS = {
    "sinus rhythm": (EpisodeKind.SINUS_RHYTHM, {}),
    "paced": (EpisodeKind.PACED_RHYTHM, {}),
    "left bundle branch block": (EpisodeKind.LEFT_BUNDLE_BRANCH_BLOCK, {"heart_rate": 125}),
    "right bundle branch block": (EpisodeKind.RIGHT_BUNDLE_BRANCH_BLOCK, {"heart_rate": 125}),
    "supraventricular tachycardia": (EpisodeKind.SUPRAVENTRICULAR_TACHYCARDIA, {}),
    "fast atrial fibrillation": (EpisodeKind.ATRIAL_FIBRILLATION, {"heart_rate": 160}),
    "atrial flutter 2:1": (EpisodeKind.ATRIAL_FLUTTER, {"conduction": 2}),
}


@dataclass(frozen=True, slots=True)
class SimulatedCount:
    """What simulated hearts of one kind gave.

    Attributes:
        kind: what they do.
        lethal: whether that is lethal.
        hearts: how many.
        hours: of signal.
        heard: in how many a lethal rhythm was told.
        median_s: seconds to it; None where there is none.
        unseen: how many "cannot be seen" alarms there were.
    """

    kind: str
    lethal: bool
    hearts: int
    hours: float
    heard: int
    median_s: float | None
    unseen: int


@dataclass(frozen=True, slots=True)
class Kind:
    """What simulated people of one kind do.

    Attributes:
        name: in words.
        script: what happens to each of them.
        wanted: the verdicts that would be right of a lethal rhythm; none if there is none.
    """

    name: str
    script: Script
    wanted: tuple[Rhythm, ...] = ()


def kinds() -> Iterator[Kind]:
    """Hearts that stop in each way; then hearts that look like it, and people who move."""
    for name, (episode, settings) in _EPISODES.items():
        script = Script(
            (
                Episode(EpisodeKind.SINUS_RHYTHM, _BEFORE_S),
                Episode(episode, _LETHAL_S, **settings),  # type: ignore[arg-type]
            ),
            noise=_USUAL,
        )
        still = episode is EpisodeKind.ASYSTOLE
        yield Kind(name, script, (Rhythm.ASYSTOLE,) if still else LETHAL)
    for name, (episode, settings) in _HEARTS.items():
        calm = Episode(episode, _ACTIVE_S, **settings)  # type: ignore[arg-type]
        yield Kind(name, Script((calm,), noise=_USUAL))
    healthy = Episode(EpisodeKind.SINUS_RHYTHM, _ACTIVE_S)
    for name, noise in IMITATORS.items():
        for factor, how in ((0.5, "a little"), (1.0, "usual"), (2.0, "much")):
            strong = {k: v * factor for k, v in _movement(noise).items()}
            moving = Script((healthy,), noise=replace(noise, **strong))
            yield Kind(f"{name.replace('_', ' ')}, {how}", moving)


def count(kind: Kind, model: RhythmModel, seed: int) -> SimulatedCount:
    """Watch people of one kind: ``HEARTS`` that stop, or ``_PEOPLE`` who do not."""
    hearts = HEARTS if kind.wanted else _PEOPLE
    after: list[float] = []
    false = unseen = 0
    for i in range(hearts):
        heard = replay(_record(kind.script, seed + i), model)
        began = (s - _BEFORE_S for s, e in heard.lasting(kind.wanted) if e > _BEFORE_S)
        after += [s for s in (next(began, None),) if s is not None]
        false += sum(a.condition in LETHAL for a in heard.alarms)
        unseen += sum(a.condition == "unseen" for a in heard.alarms)
    return SimulatedCount(
        kind=kind.name,
        lethal=bool(kind.wanted),
        hearts=hearts,
        hours=hearts * kind.script.duration_s / 3600,
        heard=len(after) if kind.wanted else false,
        median_s=float(np.median(after)) if after else None,
        unseen=unseen,
    )


def _movement(noise: Noise) -> dict[str, float]:
    names = ("gait_uv", "electrode_uv", "brushing_uv", "compressions_uv", "tremor_uv")
    return {name: getattr(noise, name) for name in names}


def _record(script: Script, seed: int) -> RhythmRecord:
    made = simulate(script, rate=_RATE, seed=seed)
    span = Span(0.0, script.duration_s, Label.NOTHING, "simulated")
    return RhythmRecord(f"simulated/{seed}", f"simulated/{seed}", _RATE, made.microvolts, (span,))
