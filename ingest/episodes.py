"""What a simulated heart is told to do: episodes of one rhythm each, in order."""

import itertools
import math
from collections.abc import Iterator
from dataclasses import KW_ONLY, dataclass, field
from enum import StrEnum
from typing import NamedTuple

from ingest.artifacts import Noise

Spans = tuple[tuple[float, float], ...]


class EpisodeKind(StrEnum):
    """The rhythms and findings that can be simulated."""

    SINUS_RHYTHM = "sinus_rhythm"
    SINUS_BRADYCARDIA = "sinus_bradycardia"
    SINUS_TACHYCARDIA = "sinus_tachycardia"
    ATRIAL_FIBRILLATION = "atrial_fibrillation"
    ATRIAL_FLUTTER = "atrial_flutter"
    VENTRICULAR_ECTOPY = "ventricular_ectopy"
    VENTRICULAR_BIGEMINY = "ventricular_bigeminy"
    VENTRICULAR_RUNS = "ventricular_runs"
    SINUS_ARREST = "sinus_arrest"
    FIRST_DEGREE_AV_BLOCK = "first_degree_av_block"
    ST_ELEVATION = "st_elevation"
    ST_DEPRESSION = "st_depression"
    VENTRICULAR_TACHYCARDIA = "ventricular_tachycardia"
    VENTRICULAR_FLUTTER = "ventricular_flutter"
    VENTRICULAR_FIBRILLATION = "ventricular_fibrillation"
    TORSADES = "torsades"
    ASYSTOLE = "asystole"
    SUPRAVENTRICULAR_TACHYCARDIA = "supraventricular_tachycardia"
    LEFT_BUNDLE_BRANCH_BLOCK = "left_bundle_branch_block"
    RIGHT_BUNDLE_BRANCH_BLOCK = "right_bundle_branch_block"
    PACED_RHYTHM = "paced_rhythm"


PULSELESS = frozenset(
    {
        EpisodeKind.VENTRICULAR_FLUTTER,
        EpisodeKind.VENTRICULAR_FIBRILLATION,
        EpisodeKind.TORSADES,
        EpisodeKind.ASYSTOLE,
    }
)
"""The kinds in which the heart has stopped pumping, whatever its trace looks like."""


# What an episode of each kind may be told, and what it does when it is not told.
_DEFAULTS: dict[EpisodeKind, dict[str, float | None]] = {
    EpisodeKind.SINUS_RHYTHM: {"heart_rate": 72.0},
    EpisodeKind.SINUS_BRADYCARDIA: {"heart_rate": 45.0},
    EpisodeKind.SINUS_TACHYCARDIA: {"heart_rate": 125.0},
    EpisodeKind.ATRIAL_FIBRILLATION: {"heart_rate": 105.0},
    EpisodeKind.ATRIAL_FLUTTER: {"conduction": 4, "heart_rate": 75.0},
    EpisodeKind.VENTRICULAR_ECTOPY: {"heart_rate": 72.0, "per_minute": 6.0},
    EpisodeKind.VENTRICULAR_BIGEMINY: {"heart_rate": 72.0},
    EpisodeKind.VENTRICULAR_RUNS: {"heart_rate": 72.0, "per_minute": 2.0, "run_beats": 6},
    EpisodeKind.SINUS_ARREST: {"heart_rate": 60.0, "per_minute": 2.0, "pause_s": 4.0},
    EpisodeKind.FIRST_DEGREE_AV_BLOCK: {"heart_rate": 66.0, "pr_s": 0.28},
    EpisodeKind.ST_ELEVATION: {"heart_rate": 80.0, "st_uv": 250.0},
    EpisodeKind.ST_DEPRESSION: {"heart_rate": 80.0, "st_uv": 150.0},
    EpisodeKind.VENTRICULAR_TACHYCARDIA: {"heart_rate": 180.0, "p_waves": None},
    EpisodeKind.VENTRICULAR_FLUTTER: {"heart_rate": 270.0, "amplitude_uv": 1200.0},
    # The mean of the dominant frequencies in Clayton et al. (see ingest.ventricles).
    EpisodeKind.VENTRICULAR_FIBRILLATION: {"dominant_hz": 4.8, "amplitude_uv": 600.0},
    EpisodeKind.TORSADES: {"heart_rate": 220.0},
    EpisodeKind.ASYSTOLE: {"p_waves": None},
    EpisodeKind.SUPRAVENTRICULAR_TACHYCARDIA: {"heart_rate": 180.0},
    EpisodeKind.LEFT_BUNDLE_BRANCH_BLOCK: {"heart_rate": 75.0},
    EpisodeKind.RIGHT_BUNDLE_BRANCH_BLOCK: {"heart_rate": 75.0},
    EpisodeKind.PACED_RHYTHM: {"heart_rate": 70.0, "spike_uv": 500.0},
}

_LIMITS: dict[str, tuple[float, float, str]] = {
    "heart_rate": (20.0, 220.0, "beats per minute"),
    "per_minute": (0.1, 30.0, "events per minute"),
    "pause_s": (2.0, 20.0, "seconds"),
    "run_beats": (3, 60, "beats"),
    "pr_s": (0.2, 0.4, "seconds"),
    "st_uv": (50.0, 1000.0, "µV"),
    "conduction": (2, 4, "atrial waves a beat"),
    "p_waves": (20.0, 150.0, "per minute"),
    "dominant_hz": (3.0, 7.0, "Hz"),
    "amplitude_uv": (50.0, 3000.0, "µV"),
    "spike_uv": (0.0, 5000.0, "µV"),
}

_RATE_LIMITS: dict[EpisodeKind, tuple[float, float]] = {
    EpisodeKind.SINUS_BRADYCARDIA: (20.0, 59.0),
    EpisodeKind.SINUS_TACHYCARDIA: (101.0, 220.0),
    EpisodeKind.VENTRICULAR_TACHYCARDIA: (120.0, 250.0),
    EpisodeKind.VENTRICULAR_FLUTTER: (220.0, 300.0),
    EpisodeKind.TORSADES: (180.0, 250.0),
    EpisodeKind.SUPRAVENTRICULAR_TACHYCARDIA: (140.0, 250.0),
    EpisodeKind.PACED_RHYTHM: (40.0, 180.0),
}

_TYPICAL_FLUTTER_RATE = 300.0  # atrial waves a minute
_FLUTTER_RATES = (240.0, 350.0)
_VT_RR_S = 0.4  # slowest beat-to-beat time of a simulated ventricular run


class Setting(NamedTuple):
    """What one setting of a kind may be: its default (None: not at all), its range and unit."""

    default: float | None
    low: float
    high: float
    unit: str


def settings_of(kind: EpisodeKind) -> dict[str, Setting]:
    """Return the settings that belong to a kind, by name."""
    settings = {}
    for name, default in _DEFAULTS[kind].items():
        low, high, unit = _LIMITS[name]
        if name == "heart_rate":
            low, high = _RATE_LIMITS.get(kind, (low, high))
        settings[name] = Setting(default, low, high, unit)
    return settings


def told(setting: float | None) -> float:
    """Return a setting that the kind of the episode has, and that is therefore filled in."""
    assert setting is not None
    return setting


@dataclass(frozen=True, slots=True)
class Episode:
    """A stretch of time with one rhythm or finding.

    A setting left at None takes the default of the kind; one the kind does not know is refused.

    Attributes:
        kind: the rhythm or finding.
        duration_s: how long it lasts, in seconds.
        heart_rate: mean rate of the sinus node, or of the ventricles where they do not follow it
            beat by beat, per minute.
        per_minute: premature beats, ventricular runs or pauses per minute.
        pause_s: time from R peak to R peak across a sinus arrest, in seconds.
        run_beats: beats of a ventricular run.
        pr_s: PR interval of the AV block, onset of P to onset of QRS, in seconds.
        st_uv: how far the ST segment is lifted (elevation) or lowered (depression), in µV.
        conduction: atrial flutter waves per conducted beat, 2 to 4.
        p_waves: P waves per minute that the ventricles do not answer: AV dissociation in
            ventricular tachycardia, all there is in asystole. None, the default: no such P waves.
        dominant_hz: frequency around which ventricular fibrillation wanders, in Hz.
        amplitude_uv: typical height of the waves of ventricular fibrillation or flutter, from peak
            to peak, in µV. Below 200 µV fibrillation is called fine, else coarse.
        spike_uv: height of a pacemaker's spike as the device records it, in µV.
        noise: noise of this episode, None for that of the script.
        electrode_off_s: spans without skin contact, seconds from the start of the episode.
        lost_s: spans that never arrive, seconds from the start of the episode.

    Raises:
        ValueError: a value is out of range, or does not belong to the kind.
    """

    kind: EpisodeKind
    duration_s: float
    _: KW_ONLY
    heart_rate: float | None = None
    per_minute: float | None = None
    pause_s: float | None = None
    run_beats: int | None = None
    pr_s: float | None = None
    st_uv: float | None = None
    conduction: int | None = None
    p_waves: float | None = None
    dominant_hz: float | None = None
    amplitude_uv: float | None = None
    spike_uv: float | None = None
    noise: Noise | None = None
    electrode_off_s: Spans = ()
    lost_s: Spans = ()

    def __post_init__(self) -> None:
        if not (math.isfinite(self.duration_s) and self.duration_s >= 1.0):
            raise ValueError(f"duration_s must be at least 1 s, not {self.duration_s}")
        self._settle()
        for name, (_, low, high, unit) in settings_of(self.kind).items():
            value = getattr(self, name)
            if value is not None and not low <= value <= high:
                raise ValueError(
                    f"{name} of {self.kind} must be {low:g} to {high:g} {unit}, not {value}"
                )
        for name in ("run_beats", "conduction"):
            count = getattr(self, name)
            if count is not None and count != int(count):
                raise ValueError(f"{name} of {self.kind} must be a whole number, not {count}")
        self._check_events()
        for name in ("electrode_off_s", "lost_s"):
            _check_spans(name, getattr(self, name), self.duration_s)

    def _settle(self) -> None:
        """Fill in the defaults of the kind and refuse settings of another kind."""
        defaults = dict(_DEFAULTS[self.kind])
        if self.kind is EpisodeKind.ATRIAL_FLUTTER:
            conduction = told(
                defaults["conduction"] if self.conduction is None else self.conduction
            )
            defaults["heart_rate"] = _TYPICAL_FLUTTER_RATE / max(conduction, 1)
        for name in _LIMITS:
            if getattr(self, name) is None:
                object.__setattr__(self, name, defaults.get(name))
            elif name not in defaults:
                raise ValueError(f"{name} does not belong to an episode of {self.kind}")

    def _check_events(self) -> None:
        """Check what must fit together: events into the time there is, flutter into its range."""
        if self.conduction is not None and self.heart_rate is not None:
            low, high = _FLUTTER_RATES
            if not low <= self.heart_rate * self.conduction <= high:
                raise ValueError(
                    f"heart_rate × conduction of {self.kind} must be {low:g} to {high:g} atrial "
                    f"waves per minute, not {self.heart_rate * self.conduction:g}"
                )
        if self.per_minute is None or self.heart_rate is None:
            return
        rr = 60 / self.heart_rate
        event = 3 * rr if self.run_beats is None else self.run_beats * _VT_RR_S + 2 * rr
        if self.pause_s is not None:
            event = self.pause_s + rr
            if self.pause_s <= 1.5 * rr:
                raise ValueError(f"pause_s must exceed 1.5 RR intervals ({1.5 * rr:.2f} s)")
        if event * self.per_minute > 60:
            raise ValueError(
                f"per_minute of {self.kind} must be at most {60 / event:.1f} at this heart rate, "
                f"not {self.per_minute:g}"
            )
        if event + 2 * rr > self.duration_s:
            raise ValueError(
                f"duration_s of {self.kind} must be at least {event + 2 * rr:.1f} s for one event"
            )


def _check_spans(name: str, spans: Spans, duration_s: float) -> None:
    edges = [edge for span in spans for edge in span]
    rising = all(a < b for a, b in spans) and all(
        a[1] <= b[0] for a, b in itertools.pairwise(spans)
    )
    if not rising or (edges and not 0 <= edges[0] <= edges[-1] <= duration_s):
        raise ValueError(
            f"{name} must be ascending (start, end) pairs within 0 to {duration_s:g} s, not {spans}"
        )


class Placed(NamedTuple):
    """An episode at its place in time, in seconds from the start of the simulation.

    Attributes:
        start_s: when it begins.
        end_s: when the next one begins.
        episode: what happens.
        after: what happened before it; None at the very beginning.
    """

    start_s: float
    end_s: float
    episode: Episode
    after: EpisodeKind | None


@dataclass(frozen=True, slots=True)
class Script:
    """Episodes in order, and the device through which they are seen.

    Attributes:
        episodes: what happens, one after the other.
        noise: noise of every episode that does not bring its own.
        reports_contact: whether the device says if its electrodes touch the skin.
        floating_uv: RMS noise of an open input while an electrode is off, in µV; 0 is a flat line.
        clock_ppm: how much faster than declared the device samples, in parts per million.

    Raises:
        ValueError: there are no episodes, or a value is out of range.
    """

    episodes: tuple[Episode, ...]
    noise: Noise = field(default_factory=Noise)
    reports_contact: bool = True
    floating_uv: float = 0.0
    clock_ppm: float = 0.0

    def __post_init__(self) -> None:
        if not self.episodes:
            raise ValueError("a script needs at least one episode")
        if not 0 <= self.floating_uv <= 10_000:
            raise ValueError(f"floating_uv must be 0 to 10000 µV, not {self.floating_uv}")
        if not -10_000 <= self.clock_ppm <= 10_000:
            raise ValueError(f"clock_ppm must be -10000 to 10000, not {self.clock_ppm}")

    @property
    def duration_s(self) -> float:
        """How long one pass through the episodes takes, in seconds."""
        return math.fsum(episode.duration_s for episode in self.episodes)

    def timeline(self) -> Iterator[Placed]:
        """Yield the episodes at their places in time, for ever: the first follows the last."""
        start_s, after = 0.0, None
        for episode in itertools.cycle(self.episodes):
            end_s = start_s + episode.duration_s
            yield Placed(start_s, end_s, episode, after)
            start_s, after = end_s, episode.kind
