"""Data sets made up for tests: a source in memory, WFDB records and packed shards on disk."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from training.datasets.record import Record, Skip


def ecg_like(leads: int, n: int, seed: int = 0) -> np.ndarray:
    """Noise in µV, float32 [leads, n]: no two stretches of it are alike."""
    return np.random.default_rng(seed).normal(0, 300, (leads, n)).astype(np.float32)


class Made:
    """A source of given records; a string in place of one is why it is skipped."""

    name = "made"
    licence = "none needed"

    def __init__(
        self,
        records: Iterable[Record | str],
        columns: tuple[str, ...] = ("AF", "NSR"),
        leads: tuple[str, ...] = ("I", "II"),
    ) -> None:
        self._records = {r if isinstance(r, str) else r.id: r for r in records}
        self.columns = columns
        self.leads = leads

    def ids(self) -> Sequence[str]:
        return tuple(self._records)

    def read(self, record: str) -> Record:
        found = self._records[record]
        if isinstance(found, str):
            raise Skip(found, "made so")
        return found


def many(count: int) -> Made:
    """Records of 1 + i % 4 windows; i % 7 = 3 is skipped, i % 5 = 1 loses its first window."""
    records: list[Record | str] = []
    for i in range(count):
        if i % 7 == 3:
            records.append(f"bad-{i}")
            continue
        signal = ecg_like(2, 1000 + 500 * (i % 4), seed=i)
        if i % 5 == 1:
            signal[:, :200] = np.nan
        positive = frozenset({"AF"} if i % 2 else {"NSR"})
        name = f"r{i}"
        records.append(
            Record(
                name, f"p{i // 2}", signal, 100.0, ("I", "II"), positive, fold=i % 3, unknown=("X",)
            )
        )
    return Made(records)


def contents(folder: Path) -> dict[str, bytes]:
    """Every file of a folder."""
    return {p.name: p.read_bytes() for p in folder.iterdir()}


def write_wfdb(
    path: Path, leads: Sequence[str], millivolts: np.ndarray, rate: int, comments: str = ""
) -> None:
    """A format 16 record at 1000 steps per mV of [leads, n]; ``path`` has no extension."""
    path.parent.mkdir(parents=True, exist_ok=True)
    steps = np.round(np.asarray(millivolts) * 1000).astype("<i2")
    lines = [f"{path.name} {len(leads)} {rate} {steps.shape[1]}"]
    lines += [f"{path.name}.dat 16 1000/mV 16 0 0 0 0 {lead}" for lead in leads]
    path.with_name(f"{path.name}.hea").write_text("\n".join(lines) + "\n" + comments)
    path.with_name(f"{path.name}.dat").write_bytes(steps.T.tobytes())


def write_shard(
    path: Path, records: dict[str, np.ndarray], leads: Sequence[str], rate: float, step: int
) -> None:
    """Pack int [leads, n]: first differences, zigzag-coded, low and high bytes apart."""
    coded = []
    for signal in records.values():
        difference = np.diff(signal.astype(np.int64) // step, axis=1, prepend=0)
        coded.append(np.where(difference < 0, -2 * difference - 1, 2 * difference).ravel())
    zigzag = np.concatenate(coded)
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(
        path,
        lo=(zigzag & 255).astype(np.uint8),
        hi=(zigzag >> 8).astype(np.uint8),
        lengths=np.array([s.shape[1] for s in records.values()]),
        ids=np.array(list(records)),
        leads=np.array(leads),
        fs=np.float64(rate),
        lsb=np.int64(step),
    )
