"""Reader of packed ECG shards (.npz): int16, first-differenced, zigzag-coded, in byte planes."""

import struct
import tokenize
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from training.errors import TrainingError

# What numpy raises of an .npz that is none, is cut off or has a bit turned.
_DAMAGED = (
    OSError,
    ValueError,
    TypeError,
    KeyError,
    EOFError,
    RuntimeError,
    MemoryError,
    OverflowError,
    struct.error,
    zipfile.BadZipFile,
    zlib.error,
    tokenize.TokenError,
)


@dataclass(frozen=True, slots=True, eq=False)
class PackedRecord:
    """One recording of a shard: int16 [leads, n] in the shard's own unit, at ``rate`` Hz."""

    id: str
    signal: NDArray[np.int16]
    rate: float
    leads: tuple[str, ...]


def read_shard(path: Path) -> Iterator[PackedRecord]:
    """Yield the recordings of one shard in stored order.

    Raises:
        TrainingError: if it cannot be read, or its parts do not fit together.
    """
    z = _load(path, ("lo", "hi", "lengths", "ids", "leads", "fs", "lsb"))
    try:
        low, high, lengths = z["lo"], z["hi"], [int(n) for n in z["lengths"]]
        ids, leads = z["ids"].tolist(), tuple(map(str, z["leads"]))
        rate, step = float(z["fs"]), int(z["lsb"])
        whole = len(low) == len(high) == sum(lengths) * len(leads) and len(ids) == len(lengths)
    except _DAMAGED as error:
        raise TrainingError(f"{path}: damaged shard ({error})") from error
    if not (whole and min(lengths, default=1) > 0 and 0 < rate < np.inf and 0 < step < 2**15):
        raise TrainingError(f"{path}: damaged shard (its parts do not fit together)")
    at = 0
    for record, n in zip(ids, lengths, strict=True):
        size = n * len(leads)
        zigzag = low[at : at + size].astype(np.uint16) | (
            high[at : at + size].astype(np.uint16) << 8
        )
        difference = (zigzag >> 1).astype(np.int16) ^ -(zigzag & 1).astype(np.int16)
        signal = np.cumsum(difference.reshape(len(leads), n), axis=1, dtype=np.int16)
        yield PackedRecord(str(record), signal * np.int16(step), rate, leads)
        at += size


def shard_ids(path: Path) -> list[str]:
    """The names of a shard's recordings.

    Raises:
        TrainingError: if it cannot be read.
    """
    return [str(name) for name in np.atleast_1d(_load(path, ("ids",))["ids"])]


def _load(path: Path, names: tuple[str, ...]) -> dict[str, Any]:
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
            return {name: stored[name] for name in names}
    except (*_DAMAGED, AttributeError) as error:  # an .npy has no names, and is no context
        said = " ".join(str(error).split())[:200]
        raise TrainingError(f"{path}: not a packed shard, or damaged ({said})") from error


def twelve_leads(eight: NDArray[np.number]) -> NDArray[np.float32]:
    """Leads [12, n] from I, II, V1-V6 [8, n], by Einthoven's and Goldberger's equations."""
    one, two = eight[0].astype(np.float32), eight[1].astype(np.float32)
    limb = np.stack([one, two, two - one, -(one + two) / 2, one - two / 2, two - one / 2])
    return np.concatenate([limb, eight[2:].astype(np.float32)])
