"""Recordings whose rhythm is known, second by second, and whose they are."""

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntFlag
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ingest.formats.annotations import Annotations, read_annotations
from ingest.recordings import Recording, RecordingError, read_recording
from training.errors import TrainingError
from training.shards import read_shard


class Label(IntFlag):
    """What a second of signal may be; several where its annotation leaves that open."""

    NOTHING = 0
    """Nobody knows: neither trained on nor counted."""

    VF = 1
    VT = 2
    ASYSTOLE = 4
    ORGANISED = 8
    NOISE = 16


@dataclass(frozen=True, slots=True)
class Span:
    """A stretch of a record with one annotation.

    Attributes:
        start_s: its beginning, in seconds from the start of the record.
        end_s: its end.
        label: what it is.
        note: as the data set has it, e.g. ``VFL``.
    """

    start_s: float
    end_s: float
    label: Label
    note: str


@dataclass(frozen=True, slots=True, eq=False)
class RhythmRecord:
    """A recording with its rhythms.

    Attributes:
        id: set and name, e.g. ``vfdb/418``.
        person: whose heart; no person is both trained on and counted.
        rate: samples per second, in Hz.
        microvolts: float32 [n], in µV; NaN where samples are missing.
        spans: its annotations, in order, from its beginning to its end.
    """

    id: str
    person: str
    rate: float
    microvolts: NDArray[np.float32]
    spans: tuple[Span, ...]

    @property
    def source(self) -> str:
        """The data set, e.g. ``vfdb``."""
        return self.id.partition("/")[0]

    @property
    def duration_s(self) -> float:
        """Its length, in seconds."""
        return len(self.microvolts) / self.rate


# Rhythms of VFDB and MIT-BIH (https://physionet.org/physiotools/wag/annot-5.htm). A stretch called
# noise may well show beats, and high-grade ectopic activity (HGEA) is full of short runs of VT.
_RHYTHMS = {
    "VF": Label.VF,
    "VFIB": Label.VF,
    "VFL": Label.VF,
    "VT": Label.VT,
    "ASYS": Label.ASYSTOLE,
    "NOISE": Label.ORGANISED | Label.NOISE,
    "HGEA": Label.ORGANISED | Label.VT,
}

BEATS = frozenset("NLRaVFJASEj/Qef")
"""What is annotated of a beat, in the symbols of WFDB; the others are notes."""

PAUSE_S = 5.0
"""So long a time between two beats is an asystole, whatever rhythm is annotated about it."""

# The episodes of CUDB were read by eye, to within this.
_BY_EYE_S = 3.0
# After a shock the heart stands still, the amplifier recovers and people move the patient.
_AFTER_SHOCK_S = 20.0

_CUDB = {
    "VF": Label.VF,
    "VT": Label.VT,
}

# Wide or fast, and yet neither tachycardia of the ventricles nor fibrillation of them.
_IMITATORS = (
    *("PACE", "CLBBB", "CRBBB", "ILBBB", "IVCD", "WPW", "BIGU", "TRIGU", "PVC"),
    *("AFLT", "AFIB", "STACH", "SVTAC", "PSVT"),
)
# Lead I, and those that look like what the other sets were recorded from.
_PTBXL_LEADS = ("I", "II", "V1", "V5")

# Both are of one man; the other MIT-BIH records are of one person each.
_PERSON = {"mitdb/202": "mitdb/201"}


def read_records(data: Path) -> Iterator[RhythmRecord]:
    """Read every set of recordings that there is for rhythms.

    Args:
        data: the folder of ``vfdb``, ``cudb``, ``mitdb``, ``cpsc2021``, ``cinc2017``, ``lead1``.

    Raises:
        TrainingError: one of them is missing or damaged.
    """
    yield from _annotated(data / "vfdb")
    yield from _cudb(data / "cudb")
    yield from _annotated(data / "mitdb")
    yield from _annotated(data / "cpsc2021")
    yield from _cinc2017(data / "cinc2017")
    yield from _lead1(data / "lead1")
    yield from _ptbxl(data / "ptbxl100")


def _annotated(folder: Path) -> Iterator[RhythmRecord]:
    """Records with ``.atr`` rhythm annotations."""
    for path in _headers(folder):
        recording, microvolts = _read(path)
        record = f"{folder.name}/{path.stem}"
        try:
            notes = read_annotations(path.with_suffix(".atr"))
        except RecordingError as error:
            raise TrainingError(str(error)) from None
        rhythms = [
            (at / recording.rate, text[1:])
            for at, text in zip(notes.samples.tolist(), notes.texts, strict=True)
            if text.startswith("(")
        ]
        if not rhythms:  # of CPSC 2021 a record without fibrillation has beats alone
            rhythms = [(0.0, "N")]
        end_s = len(microvolts) / recording.rate
        spans = [Span(0.0, rhythms[0][0], Label.NOTHING, "")] if rhythms[0][0] > 0 else []
        if folder.name == "mitdb":
            spans = [Span(0.0, rhythms[0][0], Label.ORGANISED, rhythms[0][1])]
        for i, (at_s, text) in enumerate(rhythms):
            until_s = rhythms[i + 1][0] if i + 1 < len(rhythms) else end_s
            spans.append(Span(at_s, until_s, _RHYTHMS.get(text, Label.ORGANISED), text))
        if folder.name == "mitdb":
            spans = _with_pauses(spans, notes, recording.rate)
        yield RhythmRecord(
            record, _person(folder.name, path.stem), recording.rate, microvolts, tuple(spans)
        )


def _with_pauses(spans: list[Span], notes: Annotations, rate: float) -> list[Span]:
    """Cut out of annotated rhythms what lies between two annotated beats 5 s apart or more."""
    is_beat = np.array([symbol in BEATS for symbol in notes.symbols])
    peaks = notes.samples[is_beat] / rate
    for i in np.flatnonzero(np.diff(peaks) >= PAUSE_S).tolist():
        begin, end = float(peaks[i]), float(peaks[i + 1])
        cut: list[Span] = []
        for s in spans:
            if s.end_s <= begin or s.start_s >= end:
                cut.append(s)
                continue
            if s.start_s < begin:
                cut.append(Span(s.start_s, begin, s.label, s.note))
                cut.append(Span(begin, end, Label.ASYSTOLE, "pause"))
            if s.end_s > end:
                cut.append(Span(end, s.end_s, s.label, s.note))
        spans = cut
    return spans


def _person(source: str, name: str) -> str:
    if source == "cpsc2021":  # data_8_2: patient 8, piece 2
        name = name.rpartition("_")[0]
    return _PERSON.get(f"{source}/{name}", f"{source}/{name}")


def _cudb(folder: Path) -> Iterator[RhythmRecord]:
    episodes: dict[str, list[tuple[float, float, str]]] = {}
    try:
        with (folder / "episodes.csv").open(encoding="utf-8", newline="") as file:
            for row in csv.DictReader(file):
                episode = (float(row["onset_s"]), float(row["until_s"]), row["what"])
                episodes.setdefault(row["record"], []).append(episode)
    except (OSError, KeyError, ValueError) as error:
        raise TrainingError(f"{folder / 'episodes.csv'}: cannot be read ({error})") from None
    for path in _headers(folder):
        recording, microvolts = _read(path)
        end_s = len(microvolts) / recording.rate
        spans: list[Span] = []
        at_s = 0.0
        for onset_s, until_s, what in episodes.get(path.stem, []):
            label = Label.NOTHING
            for word, meant in _CUDB.items():
                label |= meant if word in what.replace(";", " ").split() else Label.NOTHING
            if "or" in what.split():  # "fast regular wide rhythm (induction or VT)"
                label = Label.NOTHING
            before = max(at_s, onset_s - _BY_EYE_S)
            spans.append(Span(at_s, before, Label.ORGANISED, "N"))
            spans.append(Span(before, onset_s, Label.NOTHING, ""))
            spans.append(Span(onset_s, until_s, label, what))
            at_s = until_s + (_AFTER_SHOCK_S if "shock" in what or "motion" in what else _BY_EYE_S)
            spans.append(Span(until_s, at_s, Label.NOTHING, "after"))
        if at_s < end_s:
            spans.append(Span(at_s, end_s, Label.ORGANISED, "N"))
        spans = [
            Span(s.start_s, min(s.end_s, end_s), s.label, s.note)
            for s in spans
            if s.start_s < min(s.end_s, end_s)
        ]
        yield RhythmRecord(
            f"cudb/{path.stem}", f"cudb/{path.stem}", recording.rate, microvolts, tuple(spans)
        )


def _cinc2017(folder: Path) -> Iterator[RhythmRecord]:
    kinds = dict(_rows(folder / "labels.csv"))
    for path in sorted(folder.glob("part*.npz")):
        for record in read_shard(path):
            kind = kinds.get(record.id, "")
            label = Label.ORGANISED | Label.NOISE if kind == "~" else Label.ORGANISED
            microvolts = record.signal[0].astype(np.float32)
            span = Span(0.0, len(microvolts) / record.rate, label, kind)
            name = f"cinc2017/{record.id}"
            yield RhythmRecord(name, name, record.rate, microvolts, (span,))


def _lead1(folder: Path) -> Iterator[RhythmRecord]:
    for record in read_shard(folder / "all.npz"):
        # Counts of a tenth of a millivolt per thousand: value / 10,000 V, the offset left in.
        microvolts = record.signal[0].astype(np.float32) * np.float32(100.0)
        span = Span(0.0, len(microvolts) / record.rate, Label.ORGANISED | Label.NOISE, "")
        person = f"lead1/{record.id.partition('-')[0]}"
        yield RhythmRecord(f"lead1/{record.id}", person, record.rate, microvolts, (span,))


def _ptbxl(folder: Path) -> Iterator[RhythmRecord]:
    """Of PTB-XL the hearts that imitate a tachycardia, through four of their leads."""
    wanted: dict[str, str] = {}
    try:
        with (folder / "labels.csv").open(encoding="utf-8", newline="") as file:
            for row in csv.DictReader(file):
                codes = [code for code in _IMITATORS if row[code] == "1"]
                if codes:
                    wanted[row["ecg_id"]] = ",".join(codes)
    except (OSError, KeyError) as error:
        raise TrainingError(f"{folder / 'labels.csv'}: cannot be read ({error})") from None
    for path in sorted(folder.glob("fold*.npz")):
        # Whose a record is, the table does not say; but no person is in two folds.
        person = f"ptbxl/{path.stem}"
        for record in read_shard(path):
            if record.id not in wanted:
                continue
            for lead in _PTBXL_LEADS:
                microvolts = record.signal[record.leads.index(lead)].astype(np.float32)
                duration_s = len(microvolts) / record.rate
                span = Span(0.0, duration_s, Label.ORGANISED, wanted[record.id])
                name = f"ptbxl/{record.id}/{lead}"
                yield RhythmRecord(name, person, record.rate, microvolts, (span,))


def _rows(path: Path) -> Iterator[tuple[str, str]]:
    try:
        with path.open(encoding="utf-8", newline="") as file:
            for row in csv.reader(file):
                if len(row) >= 2:
                    yield row[0], row[1]
    except OSError as error:
        raise TrainingError(f"{path}: {error.strerror or error}") from None


def _headers(folder: Path) -> list[Path]:
    found = sorted(folder.glob("*.hea"))
    if not found:
        raise TrainingError(f"{folder}: no record; expected .hea files")
    return found


def _read(path: Path) -> tuple[Recording, NDArray[np.float32]]:
    try:
        recording = read_recording(path)
    except RecordingError as error:
        raise TrainingError(str(error)) from None
    return recording, np.concatenate([s.microvolts[0] for s in recording.segments])
