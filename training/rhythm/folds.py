"""Split people into folds: nobody is both trained on and counted."""

from collections.abc import Iterable

FOLDS = 5


def fold_of(persons: Iterable[str]) -> dict[str, int]:
    """Assign each person to one of ``FOLDS`` folds, each data set spread evenly over all.

    Args:
        persons: as ``training.rhythm.records.RhythmRecord.person``, in any order, repeated or not.
    """
    folds: dict[str, int] = {}
    counts: dict[str, int] = {}
    for person in sorted(set(persons)):
        source = person.partition("/")[0]
        folds[person] = counts.get(source, 0) % FOLDS
        counts[source] = counts.get(source, 0) + 1
    return folds
