"""A simulated patient: a script of episodes becomes samples, with the truth about them.

    script = Script((Episode(EpisodeKind.SINUS_RHYTHM, 60),
                     Episode(EpisodeKind.ATRIAL_FIBRILLATION, 120, heart_rate=130)))
    simulation = simulate(script, seed=7)              # an array and its truth
    source = SimulatorSource(stream, script, seed=7)   # the same samples, as from a device

Equal script, rate and seed give equal samples, whatever the chunk size.
"""

import asyncio
import itertools
import math
import time
from collections import deque
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ingest.activities import Activities
from ingest.artifacts import Disturbances, Noise
from ingest.chunk import Chunk, Stream
from ingest.ecgsyn import (
    AFTER_R_S,
    BEFORE_R_S,
    Anatomy,
    Relaxation,
    Waves,
    fibrillatory_waves,
    flutter_waves,
    p_waves,
    render,
)
from ingest.episodes import PULSELESS, Episode, EpisodeKind, Placed, Script, told
from ingest.host import STEPPED, HostClock
from ingest.rhythms import Beat, BeatType, Conductor
from ingest.ventricles import Ventricles

__all__ = [
    "BeatType",
    "Episode",
    "EpisodeKind",
    "EpisodeSpan",
    "Noise",
    "Script",
    "Simulation",
    "SimulatorSource",
    "Truth",
    "simulate",
]

_BLOCK_S = 4.0  # the signal is made in blocks of this length, whoever asks for how much
_FADE_S = 0.15  # atrial waves come and go over this time at the edges of their episode
# Ventricles that beat do not fibrillate at once: after the premature beats that set it off, the
# waves grow until they have taken over.
_ONSET_S = (0.25, 1.0)


class EpisodeSpan(NamedTuple):
    """When an episode happened, in seconds from the start of the simulation."""

    start_s: float
    end_s: float
    kind: EpisodeKind


@dataclass(frozen=True, slots=True, eq=False)
class Truth:
    """What really happened, all times in seconds from the start of the simulation.

    Attributes:
        r_peaks_s: float64 [b], the R peaks, also where contact or samples were lost. Asystole has
            none; ventricular fibrillation and flutter have those of the beats that set them off.
        beat_types: [b], where each beat came from.
        episodes: the episodes in order.
        contact_off: (start, end) of the spans without skin contact.
        lost: (start, end) of the spans whose samples never arrive.
    """

    r_peaks_s: NDArray[np.float64]
    beat_types: tuple[BeatType, ...]
    episodes: tuple[EpisodeSpan, ...]
    contact_off: tuple[tuple[float, float], ...]
    lost: tuple[tuple[float, float], ...]


@dataclass(frozen=True, slots=True, eq=False)
class Simulation:
    """A simulated recording.

    Attributes:
        microvolts: float32 [n], lead I in µV; NaN where samples are lost.
        times_s: float64 [n], true time of every sample, in seconds from the start.
        rate: samples per second as the device declares it, in Hz.
        truth: what really happened.
    """

    microvolts: NDArray[np.float32]
    times_s: NDArray[np.float64]
    rate: float
    truth: Truth


def simulate(
    script: Script, *, rate: float = 130.0, seed: int, duration_s: float | None = None
) -> Simulation:
    """Simulate a recording in one go.

    Args:
        script: what happens.
        rate: samples per second as the device declares it, in Hz.
        seed: chooses the patient and everything left to chance.
        duration_s: how much of it, in seconds; the script starts again when it ends. None is once.

    Raises:
        ValueError: the rate is not 100 to 2000 Hz, or the duration is not positive.
    """
    heart = _Heart(script, rate, seed)
    if duration_s is None:
        duration_s = script.duration_s
    if not (math.isfinite(duration_s) and duration_s > 0):
        raise ValueError(f"duration_s must be a positive number of seconds, not {duration_s}")
    n = round(duration_s * heart.true_rate)
    microvolts = np.empty(n, np.float32)
    beats: list[Beat] = []
    done = 0
    for block in heart.blocks():
        piece = microvolts[done : done + len(block.microvolts)]
        piece[:] = np.where(block.lost, np.nan, block.microvolts)[: len(piece)]
        beats += block.beats
        done += len(piece)
        if done == n:
            break
    beats = [beat for beat in beats if beat.r_s < duration_s]
    placed = list(itertools.takewhile(lambda p: p.start_s < duration_s, script.timeline()))
    truth = Truth(
        r_peaks_s=np.array([beat.r_s for beat in beats]),
        beat_types=tuple(beat.type for beat in beats),
        episodes=tuple(
            EpisodeSpan(p.start_s, min(p.end_s, duration_s), p.episode.kind) for p in placed
        ),
        contact_off=_spans(placed, "electrode_off_s", duration_s),
        lost=_spans(placed, "lost_s", duration_s),
    )
    return Simulation(microvolts, np.arange(n) / heart.true_rate, rate, truth)


class SimulatorSource:
    """A simulated device on a simulated patient.

    Timestamps come from the true sampling rate, so that ``Script.clock_ppm`` shows in them as it
    does with a real device: the declared rate and the distance of the chunks disagree. A chunk
    ends early where contact changes or a lost span begins; lost pieces count in ``sequence``.

    Args:
        stream: under whose name the samples come.
        script: what happens.
        rate: samples per second as the device declares it, in Hz.
        seed: chooses the patient and everything left to chance.
        speed: 1 is real time, N is N times as fast, ``math.inf`` as fast as the consumer takes it.
        start_ns: UTC time of the first sample, in nanoseconds since 1970; None is the present
            when ``chunks`` is first asked.
        chunk_s: length of a chunk, in seconds.
        repeat: whether to start the script again when it ends.

    Raises:
        ValueError: a value is out of range.
    """

    def __init__(
        self,
        stream: Stream,
        script: Script,
        *,
        rate: float = 130.0,
        seed: int,
        speed: float = 1.0,
        start_ns: int | None = None,
        chunk_s: float = 1.0,
        repeat: bool = False,
    ) -> None:
        _check_rate(rate)
        if not speed > 0:
            raise ValueError(f"speed must be greater than 0 (1 is real time), not {speed}")
        if not (math.isfinite(chunk_s) and round(chunk_s * rate) >= 1):
            raise ValueError(f"chunk_s must be at least one sample ({1 / rate:g} s), not {chunk_s}")
        self.name = f"simulator {stream}"
        self.live = False
        self._stream = stream
        self._script = script
        self._rate = rate
        self._seed = seed
        self._speed = speed
        self._start_ns = start_ns
        self._chunk_n = round(chunk_s * rate)
        self._repeat = repeat

    async def chunks(self) -> AsyncIterator[Chunk]:
        """Yield chunks when their last sample is due, from the beginning of the script."""
        heart = _Heart(self._script, self._rate, self._seed)
        total = None if self._repeat else round(self._script.duration_s * heart.true_rate)
        start_ns = time.time_ns() if self._start_ns is None else self._start_ns
        # A real device's samples go by the clock of the host, also when that is set.
        host = HostClock() if self._start_ns is None and self._speed == 1 else None
        stepped_ns = 0
        loop = asyncio.get_running_loop()
        begun = loop.time()
        for sequence, packet in enumerate(heart.packets(self._chunk_n, total)):
            end = packet.first + len(packet.microvolts)
            due = begun + end / heart.true_rate / self._speed
            # Even a late packet gives the loop a turn.
            await asyncio.sleep(max(0.0, due - loop.time()))
            if packet.lost:
                continue
            before_ns, stepped_ns = stepped_ns, 0 if host is None else host.stepped_ns
            yield Chunk(
                stream=self._stream,
                start_ns=start_ns + stepped_ns + round(packet.first * 1e9 / heart.true_rate),
                rate=self._rate,
                microvolts=packet.microvolts,
                contact=not packet.off if self._script.reports_contact else None,
                sequence=sequence,
                gap_cause=None if stepped_ns == before_ns else STEPPED,
            )


class _Packet(NamedTuple):
    """Samples in a row with the same fate: float32 [n] in µV, the first of them by number."""

    first: int
    microvolts: NDArray[np.float32]
    off: bool
    lost: bool


class _Block(NamedTuple):
    """A stretch of signal: float32 [n] in µV, bool [n] where off and lost, the beats in it."""

    microvolts: NDArray[np.float32]
    off: NDArray[np.bool_]
    lost: NDArray[np.bool_]
    beats: list[Beat]


class _Heart:
    """Makes the signal of one script, once, from its beginning, in memory that does not grow."""

    def __init__(self, script: Script, rate: float, seed: int) -> None:
        _check_rate(rate)
        self.true_rate = rate * (1 + script.clock_ppm * 1e-6)
        self._script = script
        self._block_n = round(_BLOCK_S * rate)
        # Each concern has its own chance, so that more noise does not change the heart.
        patient, rhythm, self._beat_rng, noise, self._open_rng, ventricles, activities = (
            np.random.default_rng(child) for child in np.random.SeedSequence(seed).spawn(7)
        )
        self._anatomy = Anatomy.draw(patient)
        self._conductor = Conductor(rhythm, script.timeline())
        self._ventricles = Ventricles(ventricles)
        self._disturbances = Disturbances(self.true_rate, noise)
        self._activities = Activities(self.true_rate, activities)
        self._relaxation = Relaxation(self.true_rate)

    def packets(self, size: int, total: int | None) -> Iterator[_Packet]:
        """Yield ``total`` samples, cut every ``size`` and where contact or loss changes."""
        blocks = self.blocks()
        microvolts, off, lost, _ = next(blocks)
        first = 0
        while total is None or first < total:
            want = size if total is None else min(size, total - first)
            while len(microvolts) < want:
                block = next(blocks)
                microvolts = np.concatenate([microvolts, block.microvolts])
                off = np.concatenate([off, block.off])
                lost = np.concatenate([lost, block.lost])
            fate = off[:want] + 2 * lost[:want]
            cuts = [0, *(np.flatnonzero(np.diff(fate)) + 1).tolist(), want]
            for a, b in itertools.pairwise(cuts):
                yield _Packet(first + a, microvolts[a:b].copy(), bool(off[a]), bool(lost[a]))
            microvolts, off, lost = microvolts[want:], off[want:], lost[want:]
            first += want

    def blocks(self) -> Iterator[_Block]:
        """Yield the signal for ever, in blocks of equal length."""
        timeline = self._script.timeline()
        near = deque([next(timeline)])  # the episodes that touch the block
        alive: deque[tuple[Beat, Waves]] = deque()  # the beats whose waves reach into it
        for first in itertools.count(step=self._block_n):
            t = np.arange(first, first + self._block_n) / self.true_rate
            end = (first + self._block_n) / self.true_rate
            while near[-1].end_s < end:
                near.append(next(timeline))
            while near[0].end_s <= t[0]:
                near.popleft()
            for beat in self._conductor.until(end + BEFORE_R_S):
                alive.append((beat, self._anatomy.waves(beat, self._beat_rng)))
            while alive and alive[0][0].r_s < t[0] - AFTER_R_S:
                alive.popleft()
            beats = [beat for beat, _ in alive if t[0] <= beat.r_s < end]
            yield _Block(*self._render(t, near, alive), beats)

    def _render(
        self, t: NDArray[np.float64], near: deque[Placed], alive: deque[tuple[Beat, Waves]]
    ) -> tuple[NDArray[np.float32], NDArray[np.bool_], NDArray[np.bool_]]:
        g = np.zeros(len(t))
        for beat, waves in alive:
            render(t, beat.r_s, waves, g)
        pieces = []
        for placed in near:
            low, high = np.searchsorted(t, (placed.start_s, placed.end_s))
            if low < high:
                pieces.append((slice(low, high), placed))
        for piece, placed in pieces:
            self._without_beat(t[piece], placed, g[piece])
        z = self._relaxation.apply(g)
        off, lost = np.zeros(len(t), np.bool_), np.zeros(len(t), np.bool_)
        for piece, (start_s, _, episode, _) in pieces:
            noise = self._script.noise if episode.noise is None else episode.noise
            z[piece] += self._disturbances.render(t[piece], noise)
            z[piece] += self._activities.render(t[piece], noise)
            for mask, spans in ((off, episode.electrode_off_s), (lost, episode.lost_s)):
                for a, b in spans:
                    mask[piece] |= (t[piece] >= start_s + a) & (t[piece] < start_s + b)
        if off.any():
            z[off] = self._script.floating_uv * self._open_rng.standard_normal(int(off.sum()))
        return z.astype(np.float32), off, lost

    def _without_beat(self, t: NDArray[np.float64], placed: Placed, g: NDArray[np.float64]) -> None:
        """Add to ``g`` in place what atria and ventricles do that is not part of a beat."""
        start_s, end_s, episode, after = placed
        onset_s = (0.0, _FADE_S)
        beating = after not in PULSELESS
        match episode.kind:
            case EpisodeKind.ATRIAL_FIBRILLATION:
                waves = fibrillatory_waves(t, self._anatomy)
            case EpisodeKind.ATRIAL_FLUTTER:
                wave_s = 60 / (told(episode.heart_rate) * told(episode.conduction))
                waves = flutter_waves(t - start_s, wave_s, self._anatomy)
            case EpisodeKind.VENTRICULAR_FIBRILLATION:
                waves = self._ventricles.fibrillation(
                    t, told(episode.dominant_hz), told(episode.amplitude_uv)
                )
                onset_s = _ONSET_S if beating else onset_s
            case EpisodeKind.VENTRICULAR_FLUTTER:
                waves = self._ventricles.flutter(
                    t, told(episode.heart_rate), told(episode.amplitude_uv)
                )
                onset_s = _ONSET_S if beating else onset_s
            case _ if episode.p_waves:
                waves = p_waves(t, start_s, episode.p_waves, self._anatomy)
            case _:
                return
        begun, full = onset_s
        come = (t - start_s - begun) / (full - begun)
        g += waves * np.clip(np.minimum(come, (end_s - t) / _FADE_S), 0, 1)


def _spans(placed: list[Placed], name: str, end_s: float) -> tuple[tuple[float, float], ...]:
    return tuple(
        (p.start_s + a, min(p.start_s + b, end_s))
        for p in placed
        for a, b in getattr(p.episode, name)
        if p.start_s + a < end_s
    )


def _check_rate(rate: float) -> None:
    if not 100 <= rate <= 2000:
        raise ValueError(f"rate must be 100 to 2000 Hz, not {rate}")
