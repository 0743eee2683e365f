"""Restoration: twelve leads from one, by mean squared error (LiteHeart, section 4.5)."""

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from models.leads import LEADS
from models.restoration import WIDTHS, RestorationNet
from training.augment import augment
from training.config import RunConfig
from training.errors import TrainingError
from training.fit import device, mixed
from training.networks import start_from
from training.pool import Pool, Shuffle

_BATCH = 128


class Restoration:
    """The task of ``fit``: the loss is over what is there of all twelve leads.

    With ``augment`` the measured lead is distorted for half of each batch and the target stays
    clean, so that the net also takes noise away; the clean half keeps it exact on a good signal.
    """

    def __init__(self, config: RunConfig, train: Pool, validation: Pool) -> None:
        complete = np.flatnonzero(train.complete)
        if not len(complete):
            raise TrainingError("data: no record with all twelve leads; restoration needs them")
        self.network = RestorationNet(WIDTHS[config.size]).to(device())
        if config.start is not None:
            start_from(self.network, config.start)
        self._lead, self._augment = LEADS.index(config.lead), config.augment
        self._train, self._validation = train, validation
        self._rows = Shuffle(complete, min(config.schedule.batch, len(complete)), config.seed)
        self._generator = torch.Generator().manual_seed(config.seed)

    @property
    def trained(self) -> nn.Module:
        """The network alone."""
        return self.network

    def loss(self) -> dict[str, Tensor]:
        """Mean squared error of the next batch, in z-score units."""
        rows = self._rows.take()
        leads = self._train.leads(rows, self._train.windows(rows, self._generator))
        measured = leads[:, self._lead : self._lead + 1]
        weight = torch.ones(())
        if self._augment:
            noisy = augment(measured, self._generator)
            use = torch.rand(len(rows), 1, 1, generator=self._generator) < 0.5
            weight = torch.where(use, (noisy != 0).float(), 1.0).to(device())
            measured = torch.where(use, noisy, measured)
        with mixed():
            restored = self.network(measured.to(device())).float()
        return {"loss": ((restored - leads.to(device())).square() * weight).mean()}

    def validate(self) -> dict[str, float]:
        """Mean squared error over the leads that were not given; ``score`` is its negative."""
        self.network.eval()
        rows = np.flatnonzero(self._validation.complete)
        total = 0.0
        others = [i for i in range(len(LEADS)) if i != self._lead]
        for some in np.array_split(rows, max(1, len(rows) // _BATCH)):
            leads = self._validation.leads(some, self._validation.windows(some)).to(device())
            with torch.inference_mode(), mixed():
                restored = self.network(leads[:, self._lead : self._lead + 1]).float()
            total += float((restored - leads)[:, others].square().mean(dim=(1, 2)).sum())
        error = total / max(1, len(rows))
        return {"score": -error, "mse": error}

    def state(self) -> dict[str, Any]:
        """Rows given and the generator."""
        return {"given": self._rows.given, "generator": self._generator.get_state()}

    def restore(self, state: dict[str, Any]) -> None:
        """Take them up again."""
        self._rows.given = state["given"]
        self._generator.set_state(state["generator"].cpu())
