"""Records with all twelve leads, labelled or not: what the stages before any label train on."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from training.config import RunConfig
from training.errors import TrainingError
from training.pool import Pool, Shuffle

_BATCH = 128


class BeforeLabels:
    """What these stages, each a task of ``fit``, have in common: batches, validation, checkpoints.

    Args:
        config: of the run; batch and seed count.
        train: to draw from.
        validation: to judge by.
        task: who needs all leads, for the error.

    Raises:
        TrainingError: if no record of either has all twelve leads.
    """

    def __init__(self, config: RunConfig, train: Pool, validation: Pool, task: str) -> None:
        rows, judged = (np.flatnonzero(pool.complete) for pool in (train, validation))
        for use, some in (("training", rows), ("validation", judged)):
            if not len(some):
                raise TrainingError(
                    f"data: no {use} record with all twelve leads; {task} needs them"
                )
        self._train, self._validation, self._judged = train, validation, judged
        self._rows = Shuffle(rows, min(config.schedule.batch, len(rows)), config.seed)
        # The run's only source of randomness, windows of records included.
        self._generator = torch.Generator().manual_seed(config.seed)

    def _take(self) -> Tensor:
        """The next batch, [batch, 12, time], z-scored."""
        rows = self._rows.take()
        return self._train.leads(rows, self._train.windows(rows, self._generator))

    def _mean(self, figure: Callable[[Tensor], Tensor]) -> Tensor:
        """The mean over all validation records, the first window of each, in inference mode.

        Args:
            figure: of batches [batch, 12, time] in turn, their mean.
        """
        total = torch.zeros(())
        for some in np.array_split(self._judged, max(1, len(self._judged) // _BATCH)):
            leads = self._validation.leads(some, self._validation.windows(some))
            with torch.inference_mode():
                total = total + figure(leads).double().cpu() * len(some)
        return total / len(self._judged)

    def state(self) -> dict[str, Any]:
        """Rows given and the generator."""
        return {"given": self._rows.given, "generator": self._generator.get_state()}

    def restore(self, state: dict[str, Any]) -> None:
        """Take them up again."""
        self._rows.given = state["given"]
        self._generator.set_state(state["generator"].cpu())
