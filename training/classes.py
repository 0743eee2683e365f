"""Named sets of classes, so that a run's YAML can say `paper` instead of seventeen keys."""

from collections.abc import Sequence

import numpy as np

from models import vocabulary
from training.datasets.cache import Cache
from training.errors import TrainingError

# Extended Data Table 1 of LiteHeart lists nineteen for PTB-XL. Left and right axis deviation are
# the Challenge's additions from a column that the packed records lack. "T wave abnormal" is four
# SCP statements there: with these the count comes to the 2,345 of the Challenge.
PAPER = (
    "AF",
    "CRBBB",
    "IAVB",
    "IRBBB",
    "LAnFB",
    "CLBBB",
    "NSIVCB",
    "NSR",
    "PAC",
    "PR",
    "LPR",
    "QAb",
    "SA",
    "SB",
    "STach",
    "TAb|NDT|NT_|LOWT",
    "TInv",
)
COMMON = 50
_FINDINGS = frozenset(d.abbreviation for d in vocabulary.ALL)
SEEN = 20


def resolve(
    wanted: str | Sequence[str], selection: Sequence[tuple[Cache, Sequence[int] | None]]
) -> tuple[str, ...]:
    """The label columns of a set.

    Args:
        wanted: ``paper``, ``super`` (five superclasses of PTB-XL), ``sub`` (its subclasses),
            ``common`` (findings of the vocabulary with 50 or more positive training records),
            ``all`` (every column with 20 or more), or a list of columns and such names; ``A|B`` is
            positive where A or B is.
        selection: caches with their training folds.

    Raises:
        TrainingError: if a column or set is not there.
    """
    positives: dict[str, int] = {}
    for cache, folds in selection:
        rows = np.ones(len(cache.ids), bool) if folds is None else np.isin(cache.folds, list(folds))
        counts = (cache.labels[rows].astype(bool) & cache.known[rows]).sum(axis=0)
        for column, n in zip(cache.columns, counts, strict=True):
            positives[column] = positives.get(column, 0) + int(n)
    named: list[str] = []
    for name in [wanted] if isinstance(wanted, str) else wanted:
        columns = _named(name, positives)
        if columns is None and isinstance(wanted, str):
            raise TrainingError(
                f"classes: no set is called {wanted!r}; expected paper, super, sub, common, all or "
                "a list of label columns"
            )
        named += [c for c in columns or [name] if c not in named]
    # Of A|B, either may be a finding that no data set here has, but not a word nobody knows.
    missing = [
        c
        for c in named
        if not any(part in positives for part in c.split("|"))
        or not all(part in positives or part in _FINDINGS for part in c.split("|"))
    ]
    if missing or not named:
        raise TrainingError(
            f"classes: no data set of this run has {', '.join(missing) or 'any'}; "
            f"expected some of {', '.join(list(positives)[:12])} ..."
        )
    return tuple(named)


def _named(name: str, positives: dict[str, int]) -> list[str] | None:
    """The columns of a set; None if no set is called so."""
    if name == "paper":
        return list(PAPER)
    if name in {"super", "sub"}:
        return [c for c in positives if c.startswith(f"{name.upper()}_")]
    if name in {"common", "all"}:
        least = COMMON if name == "common" else SEEN
        return [
            c
            for c, n in sorted(positives.items(), key=lambda item: -item[1])
            if n >= least and (name == "all" or c in _FINDINGS)
        ]
    return None
