"""What a reader of a data set yields, and what ``prepare`` asks of one."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ingest.recordings import Recording, RecordingError
from models.leads import LEADS

# Leads beyond the twelve that a recording may name, in the order in which they are stored.
OTHERS = ("MLI", "MLII", "MLIII", "V7", "V8", "V9", "V3R", "V4R", "V5R", "V6R", "X", "Y", "Z")

_SPELLING = {lead.casefold(): lead for lead in LEADS + OTHERS}
_PREFIXES = ("ecg ", "ekg ", "lead ", "ecg_", "ekg_", "lead_")


@dataclass(frozen=True, slots=True, eq=False)
class Record:
    """One recording with what is known of it.

    Attributes:
        id: its name, unique within the source.
        patient: whom it is of; records of one patient never part into two splits.
        signal: float32 [leads, n] in µV; NaN where there is no valid sample.
        rate: samples per second, in Hz.
        leads: names of the rows: I, II, III, aVR ... V6, or MLII and the like.
        positive: the columns of the source that hold.
        known: the columns whose absence is a fact too; None means all of the source's.
        fold: the data set's own split, -1 for none of it; None if it has no split, and `prepare`
            is to make one.
        unknown: codes of the record that the vocabulary does not have.
    """

    id: str
    patient: str
    signal: NDArray[np.float32]
    rate: float
    leads: tuple[str, ...]
    positive: frozenset[str] = frozenset()
    known: frozenset[str] | None = None
    fold: int | None = None
    unknown: tuple[str, ...] = ()


class Skip(Exception):  # noqa: N818  (an outcome, not an error: the next record is read)
    """A record that cannot be used.

    Attributes:
        reason: a short category, the same for all records with this fault.
        detail: what is wrong with this one.
    """

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason = reason
        self.detail = detail


class Source(Protocol):
    """A data set in its own layout."""

    @property
    def name(self) -> str:
        """What it is called."""
        ...

    @property
    def licence(self) -> str:
        """Its origin and licence, for the model card of whatever is trained on it."""
        ...

    @property
    def leads(self) -> tuple[str, ...]:
        """The leads its records may have, in the order in which they are stored."""
        ...

    @property
    def columns(self) -> tuple[str, ...]:
        """Every label it speaks of: vocabulary abbreviations first, then its own classes."""
        ...

    def ids(self) -> Sequence[str]:
        """All records, in a fixed order."""
        ...

    def read(self, record: str) -> Record:
        """One record.

        Raises:
            Skip: it cannot be used.
        """
        ...


def lead_name(text: str) -> str | None:
    """The usual spelling of a lead, or None if ``text`` names none."""
    folded = text.strip().casefold()
    for prefix in _PREFIXES:
        folded = folded.removeprefix(prefix)
    return _SPELLING.get(folded.strip())


def stored_order(leads: set[str]) -> tuple[str, ...]:
    """``leads`` in the order of ``LEADS`` and ``OTHERS``."""
    return tuple(lead for lead in LEADS + OTHERS if lead in leads)


def samples(recording: Recording) -> tuple[NDArray[np.float32], tuple[str, ...]]:
    """Signal [leads, n] in µV and lead names of a recording; NaN where it has a gap.

    Rows whose name is no lead's are left out; but the only row there is counts as lead I (the
    single-lead recorders of Challenge 2017 call it ``ECG``).

    Raises:
        Skip: nothing in it is a lead, or its gaps are longer than memory should hold.
    """
    names = [lead_name(lead) for lead in recording.leads]
    if len(names) == 1:
        names = [names[0] or "I"]
    rows = [i for i, name in enumerate(names) if name is not None]
    leads = tuple(name for name in names if name is not None)
    if not rows:
        raise Skip("no lead", f"it has {', '.join(recording.leads)[:80]}")
    if len(set(leads)) < len(leads):
        raise Skip("no lead", f"two rows are the same lead: {', '.join(recording.leads)[:80]}")
    if len(recording.segments) == 1:
        return recording.segments[0].microvolts[rows], leads
    n = round(recording.duration_s * recording.rate)
    held = sum(s.microvolts.shape[1] for s in recording.segments)
    if n > _LONGEST_STRETCH * held:
        raise Skip("gap", f"{recording.duration_s:.0f} s hold {held / recording.rate:.0f} s of ECG")
    signal = np.full((len(rows), n), np.nan, dtype=np.float32)
    for segment in recording.segments:
        at = round(segment.start_s * recording.rate)
        part = segment.microvolts[rows][:, : n - at]
        signal[:, at : at + part.shape[1]] = part
    return signal, leads


# A recording that is nearly all gap is a mistake in its times, or worth nothing.
_LONGEST_STRETCH = 10


def unreadable(error: RecordingError) -> Skip:
    """The skip for a recording that could not be read."""
    return Skip("unreadable", str(error))
