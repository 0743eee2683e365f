"""Finds the reader for a data set, by its name or by what lies in the folder."""

from collections.abc import Callable
from itertools import islice
from pathlib import Path

from training.datasets.challenge import Challenge, diagnoses
from training.datasets.cinc2017 import REFERENCES, Cinc2017
from training.datasets.deepfake import Deepfake
from training.datasets.folder import TABLE, Folder
from training.datasets.mitbih import MitBih
from training.datasets.packed import PackedCinc2017, PackedLead1, PackedPtbXl
from training.datasets.ptbxl import DATABASE, PtbXl
from training.datasets.record import Source
from training.datasets.tables import read_table
from training.errors import TrainingError

_READERS: dict[str, Callable[[Path], Source]] = {
    "ptbxl": PtbXl,
    "challenge": Challenge,
    "cinc2017": Cinc2017,
    "mitbih": MitBih,
    "deepfake": Deepfake,
    "folder": Folder,
    "packed-ptbxl": PackedPtbXl,
    "packed-cinc2017": PackedCinc2017,
    "packed-lead1": PackedLead1,
}
KINDS = tuple(_READERS)
"""The layouts that can be read."""

_HEADERS_TRIED = 100


def open_source(kind: str, path: Path) -> Source:
    """Open the data set at ``path``, laid out as ``kind`` (one of ``KINDS``).

    Raises:
        TrainingError: no such layout, or the folder does not have it.
    """
    if kind not in _READERS:
        raise TrainingError(f"data set kind {kind!r}; expected {', '.join(KINDS)}")
    _check(path)
    if not path.is_dir() and kind != "folder":
        raise TrainingError(f"{path}: a file; expected a folder for {kind}")
    return _READERS[kind](path)


def guess_kind(path: Path) -> str:
    """Which layout the data set at ``path`` has.

    Raises:
        TrainingError: it is not there, or has none of the layouts.
    """
    _check(path)
    if path.suffix.lower() == ".csv" and path.is_file():
        return "folder"
    for kind, looks_like in _SIGNS:
        if looks_like(path):
            return kind
    raise TrainingError(
        f"{path}: no data set recognized; expected {DATABASE}, packed shards, a {TABLE} with a"
        " column 'record', .asc files, or WFDB records with .atr files or #Dx: lines"
    )


def _check(path: Path) -> None:
    if not path.exists():
        raise TrainingError(f"{path}: no such folder; expected a data set")


def _has(pattern: str) -> Callable[[Path], bool]:
    return lambda path: next(path.glob(pattern), None) is not None


def _is_cinc2017(path: Path) -> bool:
    if any((path / name).is_file() for name in REFERENCES[:2]):
        return True
    rows = read_table(path / TABLE) if (path / TABLE).is_file() else []
    return bool(rows) and {"record", "label"} <= rows[0].keys()


def _has_diagnoses(path: Path) -> bool:
    return any(any(diagnoses(h)) for h in islice(path.rglob("*.hea"), _HEADERS_TRIED))


# The first that fits counts.
_SIGNS: tuple[tuple[str, Callable[[Path], bool]], ...] = (
    ("ptbxl", _has(DATABASE)),
    ("packed-ptbxl", _has("fold*.npz")),
    ("packed-cinc2017", _has("part*.npz")),
    ("packed-lead1", _has("all.npz")),
    ("mitbih", _has("*.atr")),
    ("cinc2017", _is_cinc2017),
    ("folder", _has(TABLE)),
    ("deepfake", _has("*.asc")),
    ("challenge", _has_diagnoses),
)
