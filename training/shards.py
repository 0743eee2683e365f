"""Reader of packed ECG shards (.npz): int16, first-differenced, zigzag-coded, in byte planes."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, eq=False)
class PackedRecord:
    """One recording of a shard: int16 [leads, n] in the shard's own unit, at ``rate`` Hz."""

    id: str
    signal: NDArray[np.int16]
    rate: float
    leads: tuple[str, ...]


def read_shard(path: Path) -> Iterator[PackedRecord]:
    """Yield the recordings of one shard in stored order."""
    with np.load(path, allow_pickle=False) as z:
        low, high, lengths = z["lo"], z["hi"], z["lengths"]
        ids, leads = z["ids"].tolist(), tuple(z["leads"].tolist())
        rate, step = float(z["fs"]), int(z["lsb"])
    at = 0
    for record, n in zip(ids, lengths.tolist(), strict=True):
        size = n * len(leads)
        zigzag = low[at : at + size].astype(np.uint16) | (
            high[at : at + size].astype(np.uint16) << 8
        )
        difference = (zigzag >> 1).astype(np.int16) ^ -(zigzag & 1).astype(np.int16)
        signal = np.cumsum(difference.reshape(len(leads), n), axis=1, dtype=np.int16)
        yield PackedRecord(str(record), signal * np.int16(step), rate, leads)
        at += size


def twelve_leads(eight: NDArray[np.number]) -> NDArray[np.float32]:
    """Leads [12, n] from I, II, V1-V6 [8, n], by Einthoven's and Goldberger's equations."""
    one, two = eight[0].astype(np.float32), eight[1].astype(np.float32)
    limb = np.stack([one, two, two - one, -(one + two) / 2, one - two / 2, two - one / 2])
    return np.concatenate([limb, eight[2:].astype(np.float32)])
