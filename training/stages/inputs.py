"""What a classifier reads of a record: all leads, one lead and zeros, or restored leads."""

import contextlib
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from models.leads import LEADS
from models.restoration import RestorationNet
from training.augment import augment
from training.datasets.cache import sha256
from training.errors import TrainingError
from training.faults import distort
from training.files import replacing
from training.fit import BEST, device, mixed
from training.networks import load_restoration
from training.pool import Pool
from training.resampling import resample_beats

WHOLE = slice(None)
# 2.5 s, as Strodthoff et al. (2021) crop PTB-XL for their convolutional nets, to the multiple of 8
# samples that the restoration net wants.
STRETCH = 256
_BATCH = 256
_ABANDONED_S = 3600


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """Which stretch of which records is read.

    Attributes:
        pool: that the records are of.
        rows: of the pool, [batch].
        windows: one of each record, [batch].
        cut: the samples of a window that are shown, the same of all.
    """

    pool: Pool
    rows: NDArray[np.int64]
    windows: NDArray[np.int64]
    cut: slice


class Inputs(Protocol):
    """From real leads to what the network is given."""

    def __call__(self, leads: Tensor, batch: Batch) -> Tensor:
        """[batch, 12, time of the cut] from the real leads [batch, 12, time], which are uncut."""


class AllLeads:
    """The teacher's: as they are."""

    def __call__(self, leads: Tensor, batch: Batch) -> Tensor:
        """The same tensor, cut."""
        return leads[..., batch.cut]


class OneLead:
    """The other leads masked with zeros (LiteHeart, section 2.2)."""

    def __init__(self, lead: str) -> None:
        self._lead = LEADS.index(lead)

    def __call__(self, leads: Tensor, batch: Batch) -> Tensor:
        """Zeros but for the one lead."""
        leads = leads[..., batch.cut]
        masked = torch.zeros_like(leads)
        masked[:, self._lead] = leads[:, self._lead]
        return masked


class RestoredLeads:
    """Twelve leads restored from one, the measured lead itself in its own place.

    Restored leads of unaugmented records are computed once a data set and kept in the folder of
    the restoration run, since the net is fixed.

    Args:
        run: of the restoration net.
        lead: the one that is measured.
        generator: draws the noise; None for none.
        flip: data sets (by place in the pool) whose recorders are held either way round.
        resample: whether beats are resampled before there is noise.
        faults: whether electrodes and clocks fail before there is noise.
    """

    def __init__(
        self,
        run: Path,
        lead: str,
        generator: torch.Generator | None,
        flip: frozenset[int],
        *,
        resample: bool = False,
        faults: bool = False,
    ) -> None:
        self._run, self._lead, self._generator, self._flip = (
            run,
            LEADS.index(lead),
            generator,
            flip,
        )
        self._resample, self._faults = resample, faults
        self.network: RestorationNet = load_restoration(run, lead)
        self._stored: dict[Path, NDArray[np.float16]] = {}

    def __call__(self, leads: Tensor, batch: Batch) -> Tensor:
        """Restored leads, distorted before if there is a generator."""
        if self._generator is None:
            return self._from_disk(leads, batch)[..., batch.cut]
        # Cut first: what is left out need not be restored.
        measured = leads[:, self._lead : self._lead + 1, batch.cut]
        if self._resample:
            measured = resample_beats(measured, self._generator)
        if self._faults:
            measured = distort(measured, self._generator)
        groups = torch.from_numpy(batch.pool.groups[batch.rows])
        turned = torch.isin(groups, torch.tensor(sorted(self._flip), dtype=groups.dtype))
        measured = augment(measured, self._generator, flip=turned)
        return self.restore(measured)

    @torch.no_grad()
    def restore(self, measured: Tensor) -> Tensor:
        """All twelve leads of [batch, 1, time]."""
        measured = measured.to(device())
        with mixed():
            restored: Tensor = self.network(measured).float()
        restored[:, self._lead] = measured[:, 0]
        return restored

    def _from_disk(self, leads: Tensor, batch: Batch) -> Tensor:
        out = torch.empty_like(leads)
        pool, windows = batch.pool, batch.windows
        for at, part in enumerate(pool.parts):
            here = np.flatnonzero(pool.groups[batch.rows] == at)
            if len(here):
                order = here[np.argsort(windows[here])]
                stored = self._restored(part.cache.path, pool, at)
                out[torch.from_numpy(order)] = torch.from_numpy(
                    np.asarray(stored[windows[order]], dtype=np.float32)
                )
        return out

    def _restored(self, path: Path, pool: Pool, at: int) -> NDArray[np.float16]:
        """The restored leads of a whole cache, memory-mapped, [windows, 12, time]."""
        if path not in self._stored:
            cache = pool.parts[at].cache
            weights = sha256(self._run / BEST)[:12]
            kept = self._run / f"restored-{cache.fingerprint[:12]}-{weights}-{self._lead}.npy"
            if not kept.exists():
                self._write(kept, pool, at)
            try:
                self._stored[path] = np.load(kept, mmap_mode="r")
            except (OSError, ValueError, EOFError) as error:
                raise TrainingError(f"{kept}: damaged ({error}); remove it") from error
        return self._stored[path]

    def _write(self, kept: Path, pool: Pool, at: int) -> None:
        cache, part = pool.parts[at].cache, pool.parts[at]
        # Two runs may need it at the same time; each writes a file of its own.
        own = kept.with_suffix(f".{os.getpid()}.new")
        _clear(self._run)
        shape = (len(cache.signals), len(LEADS), cache.length)
        measured = part.stored[part.places.tolist().index(self._lead)]
        # Written, not mapped: a full disk would end a process that maps the file without a word.
        with replacing(kept, own) as f:
            np.lib.format.write_array_header_1_0(
                f, {"descr": "<f2", "fortran_order": False, "shape": shape}
            )
            for first in range(0, shape[0], _BATCH):
                one = np.asarray(cache.signals[first : first + _BATCH, measured], dtype=np.float32)
                restored = self.restore(torch.from_numpy(one)[:, None]).cpu().numpy()
                f.write(restored.astype("<f2").tobytes())


def _clear(run: Path) -> None:
    """Remove what processes left that were killed while they wrote restored leads."""
    for path in run.glob("restored-*.new"):
        with contextlib.suppress(FileNotFoundError):  # somebody else was faster
            # Whoever writes adds to it every second; it may be a process of another machine.
            if time.time() - path.stat().st_mtime > _ABANDONED_S:
                path.unlink()
