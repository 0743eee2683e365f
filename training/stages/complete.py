"""Records with all twelve leads, labelled or not: what the stages before any label train on."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from training.config import RunConfig
from training.errors import TrainingError
from training.pool import Pool, Shuffle

_BATCH = 128


class Draws:
    """Endless batches of such records, and what a checkpoint keeps to go on with the next one.

    Args:
        config: of the run; batch and seed count.
        pool: to draw from.
        validation: to judge by.
        task: who needs all leads, for the error.

    Attributes:
        generator: the run's only source of randomness, windows of records included.

    Raises:
        TrainingError: if no record of either has all twelve leads.
    """

    def __init__(self, config: RunConfig, pool: Pool, validation: Pool, task: str) -> None:
        rows = _complete(pool)
        for use, some in (("training", rows), ("validation", _complete(validation))):
            if not len(some):
                raise TrainingError(
                    f"data: no {use} record with all twelve leads; {task} needs them"
                )
        self._pool = pool
        self._rows = Shuffle(rows, min(config.schedule.batch, len(rows)), config.seed)
        self.generator = torch.Generator().manual_seed(config.seed)

    def take(self) -> Tensor:
        """The next batch, [batch, 12, time], z-scored."""
        rows = self._rows.take()
        return self._pool.leads(rows, self._pool.windows(rows, self.generator))

    def state(self) -> dict[str, Any]:
        """Rows given and the generator."""
        return {"given": self._rows.given, "generator": self.generator.get_state()}

    def restore(self, state: dict[str, Any]) -> None:
        """Take them up again."""
        self._rows.given = state["given"]
        self.generator.set_state(state["generator"].cpu())


def in_turn(pool: Pool) -> Iterator[Tensor]:
    """The first window of each such record once, in batches [batch, 12, time]."""
    rows = _complete(pool)
    for some in np.array_split(rows, max(1, len(rows) // _BATCH)):
        yield pool.leads(some, pool.windows(some))


def count(pool: Pool) -> int:
    """How many there are."""
    return len(_complete(pool))


def _complete(pool: Pool) -> NDArray[np.intp]:
    return np.flatnonzero(pool.complete)
