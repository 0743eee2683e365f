"""Restoration: twelve leads from one, by mean squared error (LiteHeart, section 4.5)."""

from typing import Any

import torch
from torch import Tensor, nn

from models.leads import LEADS
from models.restoration import WIDTHS, RestorationNet
from training.augment import augment
from training.config import RunConfig
from training.errors import TrainingError
from training.fit import device, mixed
from training.networks import start_from
from training.pool import Pool
from training.stages.complete import Draws, count, in_turn

# Three times halved and doubled again.
_DIVISOR = 8


class Restoration:
    """The task of ``fit``: the loss is over what is there of all twelve leads.

    With ``augment`` the measured lead is distorted for half of each batch and the target stays
    clean, so that the net also takes noise away; the clean half keeps it exact on a good signal.

    Raises:
        TrainingError: if no record has all twelve leads, or windows are of a length it cannot take.
    """

    def __init__(self, config: RunConfig, train: Pool, validation: Pool) -> None:
        self._draws = Draws(config, train, validation, "restoration")
        self._validation = validation
        if train.parts[0].cache.length % _DIVISOR:
            raise TrainingError(
                f"{train.parts[0].cache.path}: windows of {train.parts[0].cache.length} samples; "
                f"restoration needs a multiple of {_DIVISOR}"
            )
        self.network = RestorationNet(WIDTHS[config.size]).to(device())
        if config.start is not None:
            start_from(self.network, config.start)
        self._lead, self._augment = LEADS.index(config.lead), config.augment

    @property
    def trained(self) -> nn.Module:
        """The network alone."""
        return self.network

    def loss(self) -> dict[str, Tensor]:
        """Mean squared error of the next batch, in z-score units."""
        leads, generator = self._draws.take(), self._draws.generator
        measured = leads[:, self._lead : self._lead + 1]
        weight = torch.ones(())
        if self._augment:
            noisy = augment(measured, generator)
            use = torch.rand(len(leads), 1, 1, generator=generator) < 0.5
            weight = torch.where(use, (noisy != 0).float(), 1.0).to(device())
            measured = torch.where(use, noisy, measured)
        with mixed():
            restored = self.network(measured.to(device())).float()
        return {"loss": ((restored - leads.to(device())).square() * weight).mean()}

    def validate(self) -> dict[str, float]:
        """Mean squared error over the leads that were not given; ``score`` is its negative."""
        self.network.eval()
        total = 0.0
        others = [i for i in range(len(LEADS)) if i != self._lead]
        for batch in in_turn(self._validation):
            leads = batch.to(device())
            with torch.inference_mode(), mixed():
                restored = self.network(leads[:, self._lead : self._lead + 1]).float()
            total += float((restored - leads)[:, others].square().mean(dim=(1, 2)).sum())
        error = total / count(self._validation)
        return {"score": -error, "mse": error}

    def state(self) -> dict[str, Any]:
        """Of the draws."""
        return self._draws.state()

    def restore(self, state: dict[str, Any]) -> None:
        """Take it up again."""
        self._draws.restore(state)
