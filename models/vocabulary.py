"""Which ECG diagnoses there are, and how to find one by any of its names or codes.

``python -m models.vocabulary`` prints the table as Markdown; ``docs/vocabulary.md`` is that text.
"""

import difflib
import sys
from collections.abc import Iterable

from models.diagnoses import EQUIVALENT, TABLE, Diagnosis

__all__ = [
    "ALL",
    "EQUIVALENT",
    "Diagnosis",
    "UnknownDiagnosis",
    "by_scp",
    "by_snomed",
    "equivalents",
    "lookup",
    "markdown",
]

ALL: tuple[Diagnosis, ...] = TABLE


class UnknownDiagnosis(KeyError):  # noqa: N818  (reads as what it says at the place it is caught)
    """No single diagnosis goes by this text.

    Attributes:
        text: What was looked for.
        candidates: Abbreviations of those it may have meant, nearest first.
    """

    def __init__(self, text: str, candidates: tuple[str, ...] = ()) -> None:
        super().__init__(text)
        self.text = text
        self.candidates = candidates

    def __str__(self) -> str:
        hint = f"; did you mean {', '.join(self.candidates)}?" if self.candidates else ""
        return f"no diagnosis is called {self.text!r}{hint}"


def _spellings(diagnosis: Diagnosis) -> Iterable[str]:
    yield diagnosis.abbreviation
    yield diagnosis.name
    if diagnosis.snomed is not None:
        yield diagnosis.snomed
    yield from diagnosis.scp
    yield from diagnosis.synonyms


_BY_SNOMED = {d.snomed: d for d in ALL if d.snomed is not None}
_BY_SCP = {code: d for d in ALL for code in d.scp}
_EXACT = {text: d for d in ALL for text in _spellings(d)}
_FOLDED: dict[str, list[Diagnosis]] = {}
for _text, _diagnosis in _EXACT.items():
    _same = _FOLDED.setdefault(_text.casefold(), [])
    if _diagnosis not in _same:
        _same.append(_diagnosis)


def _nearest(text: str) -> tuple[str, ...]:
    close = difflib.get_close_matches(text.casefold(), _FOLDED, n=3, cutoff=0.6)
    return tuple(dict.fromkeys(d.abbreviation for key in close for d in _FOLDED[key]))


def lookup(text: str) -> Diagnosis:
    """Find a diagnosis by abbreviation, name, synonym, SCP code or SNOMED CT code.

    Case counts first and is then disregarded, unless only the case tells two diagnoses apart.

    Raises:
        UnknownDiagnosis: No diagnosis, or more than one, goes by ``text``.
    """
    text = text.strip()
    if (exact := _EXACT.get(text)) is not None:
        return exact
    folded = _FOLDED.get(text.casefold(), [])
    if len(folded) == 1:
        return folded[0]
    raise UnknownDiagnosis(text, tuple(d.abbreviation for d in folded) or _nearest(text))


def by_scp(code: str) -> Diagnosis:
    """Find the diagnosis of an SCP-ECG statement, spelled as in PTB-XL.

    Raises:
        UnknownDiagnosis: No diagnosis has that code.
    """
    if (found := _BY_SCP.get(code)) is None:
        raise UnknownDiagnosis(code, _nearest(code))
    return found


def by_snomed(code: str) -> Diagnosis:
    """Find the diagnosis of a SNOMED CT code.

    Raises:
        UnknownDiagnosis: No diagnosis has that code.
    """
    # A digit or two off is another concept altogether, so nothing is proposed.
    if (found := _BY_SNOMED.get(code)) is None:
        raise UnknownDiagnosis(code)
    return found


def equivalents(abbreviation: str) -> frozenset[str]:
    """The abbreviations that data sets use for the same finding, the given one among them.

    Raises:
        UnknownDiagnosis: No diagnosis goes by ``abbreviation``.
    """
    key = lookup(abbreviation).abbreviation
    return next((group for group in EQUIVALENT if key in group), frozenset({key}))


def markdown() -> str:
    """The whole table as a Markdown page."""
    lines = [
        "# Vocabulary",
        "",
        "Every class of finding that `leadone` knows by name. The key is what bundles, results and",
        "configuration use; each of the other spellings leads to it. A dash under SNOMED CT means",
        "that no published mapping gives this class a code of its own. That a class stands here",
        "does not mean that a shipped model detects it: that is in the model's card.",
        "",
        "This page is generated: `python -m models.vocabulary > docs/vocabulary.md`.",
        "",
        "| key | name | SNOMED CT | SCP-ECG | also |",
        "| --- | --- | --- | --- | --- |",
    ]
    lines += [
        f"| {d.abbreviation} | {d.name} | {d.snomed or '–'} | {', '.join(d.scp) or '–'} "
        f"| {', '.join(d.synonyms) or '–'} |"
        for d in ALL
    ]
    lines += ["", "## Equivalents", "", "Data sets use the keys of one line for the same finding."]
    lines += ["", *(f"- {', '.join(sorted(group))}" for group in EQUIVALENT)]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.stdout.write(markdown())
