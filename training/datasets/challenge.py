"""PhysioNet/CinC Challenges 2020 and 2021: every training set in its raw layout.

CPSC2018 (A), CPSC-Extra (Q), INCART (I), PTB (S), PTB-XL (HR), Georgia/G12EC (E), Chapman-Shaoxing
and Ningbo (both JS): a folder tree of ``.hea`` and ``.mat`` with the diagnoses in ``#Dx:`` lines,
as SNOMED CT codes or, in the first CPSC headers, short names.

Each set was labelled by other people from another list: CPSC2018 knows nine findings, so that its
silence about a tenth says nothing. Which findings a set knows is taken from the set itself: those
that at least one of its records has.
"""

import re
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from ingest.recordings import RecordingError, read_recording
from models.leads import LEADS
from models.vocabulary import ALL, UnknownDiagnosis, lookup
from training.datasets.labels import with_equivalents
from training.datasets.record import Record, samples, unreadable
from training.errors import TrainingError

_DX = re.compile(rb"^#\s*Dx:(.*)$", re.MULTILINE)
_NAME = re.compile(r"([A-Za-z]*)(\d*)")
# Both sets are named JS; Chapman-Shaoxing ends here and Ningbo begins.
_LAST_CHAPMAN = 10646
_NOTHING = frozenset({"", "unknown"})


class Challenge:
    """Any part of the Challenge 2020/2021 training sets.

    The headers name no patients, so each record stands for its own, by its name alone, wherever it
    lies. Two sets have several records of one person: PTB and INCART. PTB-XL has them too, and
    folds by patient, which only its own layout tells. A record without a diagnosis has no known
    label at all.
    """

    name = "Challenge 2021"
    licence = (
        "PhysioNet/CinC Challenges 2020 and 2021 (Perez Alday et al. 2020, Reyna et al. 2021),"
        " CC BY 4.0"
    )
    leads = LEADS

    def __init__(self, folder: Path) -> None:
        self._headers = {
            path.relative_to(folder).with_suffix("").as_posix(): path
            for path in sorted(folder.rglob("*.hea"))
        }
        self._positive: dict[str, frozenset[str]] = {}
        self._unknown: dict[str, tuple[str, ...]] = {}
        self._known: defaultdict[str, frozenset[str]] = defaultdict(frozenset)
        for record, path in self._headers.items():
            positive, unknown = diagnoses(path)
            self._positive[record] = with_equivalents(positive)
            self._unknown[record] = unknown
            self._known[data_set(path.stem)] |= self._positive[record]
        spoken_of = frozenset[str]().union(*self._known.values())
        if not spoken_of:
            raise TrainingError(f"{folder}: no header with a #Dx: line; expected Challenge records")
        self.columns = tuple(d.abbreviation for d in ALL if d.abbreviation in spoken_of)

    def ids(self) -> Sequence[str]:
        """Every record, by its path below the folder."""
        return tuple(self._headers)

    def read(self, record: str) -> Record:
        """One record with the leads it has.

        Raises:
            Skip: it cannot be read.
        """
        path = self._headers[record]
        try:
            recording = read_recording(path)
        except RecordingError as error:
            raise unreadable(error) from None
        signal, leads = samples(recording)
        positive, unknown = self._positive[record], self._unknown[record]
        labelled = bool(positive or unknown)
        return Record(
            id=record,
            patient=path.stem,
            signal=signal,
            rate=recording.rate,
            leads=leads,
            positive=positive,
            known=self._known[data_set(path.stem)] if labelled else frozenset(),
            unknown=unknown,
        )


def diagnoses(header: Path) -> tuple[frozenset[str], tuple[str, ...]]:
    """Findings of a header, and its codes that the vocabulary does not have.

    Raises:
        TrainingError: the header cannot be read.
    """
    try:
        lines = _DX.findall(header.read_bytes())
    except OSError as error:
        raise TrainingError(f"{header}: {error.strerror or error}") from None
    found: set[str] = set()
    unknown: list[str] = []
    for code in b",".join(lines).decode("utf-8", "replace").split(","):
        text = code.strip()
        if text.casefold() in _NOTHING:
            continue
        try:
            found.add(lookup(text).abbreviation)
        except UnknownDiagnosis:
            unknown.append(text)
    return frozenset(found), tuple(unknown)


def data_set(name: str) -> str:
    """Which of the Challenge's sets a record belongs to, by its name."""
    match = _NAME.match(name)
    letters, number = match.groups() if match else ("", "")
    if letters == "JS" and number and int(number) > _LAST_CHAPMAN:
        return "Ningbo"
    return letters
