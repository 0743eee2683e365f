"""MIT-BIH Arrhythmia Database: half-hour two-lead ambulatory records, every beat annotated.

A diagnosis of half an hour says nothing of ten seconds, so the records are offered in pieces of
10 s with what is annotated within each.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ingest.formats.annotations import Annotations, read_annotations
from ingest.formats.wfdb_header import Header, read_header
from ingest.recordings import RecordingError, read_recording
from models.vocabulary import ALL
from training.datasets.record import Record, lead_name, samples, stored_order, unreadable
from training.errors import TrainingError

PIECE_S = 10.0

# Meanings after the MIT-BIH Arrhythmia Database Directory (Moody and Mark 2001).
_BEATS = {
    "L": "LBBB",
    "R": "RBBB",
    "A": "PAC",
    "a": "PAC",
    "S": "PAC",
    "V": "PVC",
    "r": "PVC",
    "F": "FB",
    "J": "JPC",
    "j": "JE",
    "e": "AED",
    "E": "VEsB",
    "/": "PR",
    "f": "PR",
    "!": "VFL",
}
_RHYTHMS = {
    "(N": "NSR",
    "(AFIB": "AF",
    "(AFL": "AFL",
    "(AB": "AB",
    "(B": "VBig",
    "(T": "VTrig",
    "(BII": "2AVB",
    "(IVR": "IR",
    "(NOD": "AVJR",
    "(P": "PR",
    "(PREX": "WPW",
    "(SBR": "SB",
    "(SVTA": "SVTAC",
    "(VFL": "VFL",
    "(VT": "VTach",
}
# Beneath these the atria may well be in sinus rhythm, though the annotation does not say so.
_MAYBE_SINUS = frozenset({"AB", "VBig", "VTrig", "2AVB", "WPW", "SB"})
_SPOKEN_OF = frozenset(_BEATS.values()) | frozenset(_RHYTHMS.values())
_RHYTHM_COLUMNS = frozenset(_RHYTHMS.values())

# An episode that only touches a piece cannot be told from it.
_SHORTEST_S = 2.5

# Both are of one man; the other 46 records are of one patient each.
_PATIENT = {"202": "201"}


@dataclass(frozen=True, slots=True, eq=False)
class _Whole:
    """A record as a whole."""

    name: str
    signal: NDArray[np.float32]
    rate: float
    leads: tuple[str, ...]
    annotations: Annotations


class MitBih:
    """Pieces of 10 s; that of ``100/17`` begins 170 s into record 100.

    What is left at the end of a record, shorter than a piece, is not offered; a record shorter
    than that is a piece itself.
    """

    name = "MIT-BIH Arrhythmia"
    licence = "MIT-BIH Arrhythmia Database (Moody and Mark 2001, PhysioNet), ODC-By 1.0"
    columns = tuple(d.abbreviation for d in ALL if d.abbreviation in _SPOKEN_OF)

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._ids: list[str] = []
        leads: set[str] = set()
        if next(folder.glob("*.atr"), None) is None:
            raise TrainingError(f"{folder}: no .atr with its .hea; expected MIT-BIH records")
        names = {path.stem for end in ("atr", "hea") for path in folder.glob(f"*.{end}")}
        for path in (folder / f"{name}.hea" for name in sorted(names)):
            try:
                header = read_header(path)
            except (RecordingError, OSError) as error:
                raise TrainingError(f"{path}: cannot be read ({error})") from None
            pieces = int(_length(path, header) / header.rate / PIECE_S)
            # One that is too short or cannot be read is reported when its turn comes.
            self._ids += [f"{path.stem}/{piece}" for piece in range(max(1, pieces))]
            leads |= {name for s in header.signals if (name := lead_name(s.name)) is not None}
        self.leads = stored_order(leads)
        self._held: _Whole | None = None

    def ids(self) -> Sequence[str]:
        """Every piece, record by record."""
        return tuple(self._ids)

    def read(self, record: str) -> Record:
        """One piece with the leads of its record.

        Raises:
            Skip: the record or its annotations cannot be read.
        """
        name, _, piece = record.partition("/")
        if self._held is None or self._held.name != name:
            self._held = self._whole(name)
        whole = self._held
        size = round(PIECE_S * whole.rate)
        start = round(int(piece) * PIECE_S * whole.rate)
        end = min(start + size, whole.signal.shape[1])
        positive, known = annotated(whole.annotations, start, end, whole.rate)
        return Record(
            id=record,
            patient=_PATIENT.get(name, name),
            signal=whole.signal[:, start:end],
            rate=whole.rate,
            leads=whole.leads,
            positive=positive,
            known=known,
        )

    def _whole(self, name: str) -> _Whole:
        try:
            recording = read_recording(self._folder / f"{name}.hea")
            annotations = read_annotations(self._folder / f"{name}.atr")
        except RecordingError as error:
            raise unreadable(error) from None
        signal, leads = samples(recording)
        return _Whole(name, signal, recording.rate, leads, annotations)


def _length(path: Path, header: Header) -> int:
    """Samples of a record; a header need not tell. 0 if it cannot be read."""
    if header.n_samples is not None:
        return header.n_samples
    try:
        recording = read_recording(path)
    except RecordingError:
        return 0
    return round(recording.duration_s * recording.rate)


def annotated(
    annotations: Annotations, start: int, end: int, rate: float
) -> tuple[frozenset[str], frozenset[str]]:
    """Positive and known columns of the samples from ``start`` to before ``end``.

    A beat counts where it is annotated. A rhythm counts if it lasts 2.5 s within the piece, or lies
    in it from beginning to end; one that touches the piece for less is not known there. Sinus
    rhythm beneath a bigeminy and the like is not known, nor whether a fusion beat makes a PVC.
    """
    samples = annotations.samples
    first, last = np.searchsorted(samples, (start, end)).tolist()
    positive = {_BEATS[symbol] for symbol in annotations.symbols[first:last] if symbol in _BEATS}
    unknown: set[str] = {"PVC"} if "FB" in positive else set()
    changes = [
        (at, text)
        for at, text in zip(samples.tolist(), annotations.texts, strict=True)
        if text.startswith("(")
    ]
    if not changes:
        unknown |= _RHYTHM_COLUMNS
    for i, (at, text) in enumerate(changes):
        # What comes before the first annotation is the rhythm it names.
        begin = 0 if i == 0 else at
        stop = changes[i + 1][0] if i + 1 < len(changes) else math.inf
        overlap = min(stop, end) - max(begin, start)
        if overlap <= 0:
            continue
        rhythm = _RHYTHMS.get(text)
        if rhythm is None:
            unknown |= _RHYTHM_COLUMNS
        elif overlap >= _SHORTEST_S * rate or (begin >= start and stop <= end):
            positive.add(rhythm)
        else:
            unknown.add(rhythm)
        if rhythm in _MAYBE_SINUS:
            unknown.add("NSR")
    return frozenset(positive), (_SPOKEN_OF - unknown) | positive
