"""Hearts that stand still in the noise that was recorded from them.

Nobody records many asystoles. Here the beats of a recording stop: what follows is put together from
what the same electrodes of the same person gave between beats, from the end of the T wave to the
beginning of the P wave, so that breath, muscle, hum and amplifier go on as they were.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ingest.formats.annotations import read_annotations
from training.rhythm.records import BEATS, Label, RhythmRecord, Span

BEATING_S = 40.0
STILL_S = 15.0

# Of the beats those whose T wave is over in the usual time.
_NARROW = frozenset("NLRAaJSje")
# No wave of a beat comes later after, or sooner before, its R peak, in seconds at 60 per minute.
_AFTER_S = 0.5
_BEFORE_S = 0.26
_SHORTEST_S = 0.12
_FADE_S = 0.02


@dataclass(frozen=True, slots=True, eq=False)
class Still:
    """A recording in which the beats stop.

    Attributes:
        record: ``BEATING_S`` of beats, then ``STILL_S`` without.
        onset_s: the last R peak, in seconds from its start.
    """

    record: RhythmRecord
    onset_s: float


def stills(records: Sequence[RhythmRecord], data: Path, each: int, seed: int) -> Iterator[Still]:
    """Make some of each MIT-BIH record in which there is room between the beats.

    Args:
        records: those of MIT-BIH.
        data: the folder that holds ``mitdb``, for its beat annotations.
        each: how many of each record.
        seed: chooses the times.
    """
    rng = np.random.default_rng(seed)
    for record in records:
        notes = read_annotations(data / "mitdb" / f"{record.id.partition('/')[2]}.atr")
        is_beat = np.array([symbol in BEATS for symbol in notes.symbols])
        is_narrow = np.array([symbol in _NARROW for symbol in notes.symbols])[is_beat]
        peaks = notes.samples[is_beat]
        for number in range(each):
            still = _still(record, peaks, is_narrow, rng, number)
            if still is not None:
                yield still


def _still(
    record: RhythmRecord,
    peaks: NDArray[np.int64],
    is_narrow: NDArray[np.bool_],
    rng: np.random.Generator,
    number: int,
) -> Still | None:
    rate = record.rate
    first = round(rng.uniform(5.0, record.duration_s - BEATING_S - STILL_S - 60.0) * rate)
    at = int(np.searchsorted(peaks, first + round(BEATING_S * rate)))
    last = peaks[at]
    line = _between(record.microvolts, peaks, is_narrow, int(last), rate, rng)
    if line is None or not is_narrow[at]:
        return None
    # The last beat is shown whole, T wave and all.
    end = int(last) + round(_AFTER_S * rate)
    before = record.microvolts[first:end]
    level = float(np.median(before[-round(0.04 * rate) :]))
    after = line + np.float32(level - line[: round(0.04 * rate)].mean())
    onset_s = (int(last) - first) / rate
    samples = np.concatenate((before, after)).astype(np.float32)
    duration_s = len(samples) / rate
    spans = (
        Span(0.0, onset_s, Label.ORGANISED, "N"),
        Span(onset_s, duration_s, Label.ASYSTOLE, "still"),
    )
    made = RhythmRecord(f"still/{record.id}/{number}", record.person, rate, samples, spans)
    return Still(made, onset_s)


def _between(
    microvolts: NDArray[np.float32],
    peaks: NDArray[np.int64],
    is_narrow: NDArray[np.bool_],
    last: int,
    rate: float,
    rng: np.random.Generator,
) -> NDArray[np.float32] | None:
    """``STILL_S`` of what lies between beats near ``last``; None if they follow too quickly."""
    both = is_narrow[:-1] & is_narrow[1:] & (np.abs(peaks[1:] - last) < 60 * rate)
    pieces = []
    for a, b in zip(peaks[:-1][both].tolist(), peaks[1:][both].tolist(), strict=True):
        rr_s = (b - a) / rate
        # The QT interval follows the root of RR (Bazett).
        begin = a + round(_AFTER_S * min(1.0, rr_s**0.5) * rate)
        end = b - round(_BEFORE_S * min(1.0, rr_s**0.5) * rate)
        if end - begin >= _SHORTEST_S * rate:
            piece = microvolts[begin:end].astype(np.float64)
            # The end of a T wave leans; hundreds of them in a row would be a landslide.
            t = np.linspace(-1.0, 1.0, len(piece))
            pieces.append(piece - t * float(piece @ t) / float(t @ t))
    if len(pieces) < 10:
        return None
    fade = round(_FADE_S * rate)
    ramp = np.linspace(0.0, 1.0, fade)
    line = np.zeros(0)
    while len(line) < (STILL_S + 1) * rate:
        piece = pieces[rng.integers(len(pieces))]
        if len(line):
            # Joined where they meet, in level: a step would be a beat.
            piece = piece - piece[:fade].mean() + line[-fade:].mean()
            line[-fade:] = (1 - ramp) * line[-fade:] + ramp * piece[:fade]
            piece = piece[fade:]
        line = np.concatenate((line, piece))
    return line[: round(STILL_S * rate)].astype(np.float32)
