"""Restoration: twelve leads from one, by mean squared error (LiteHeart, section 4.5)."""

import torch
from torch import Tensor, nn

from models.leads import LEADS
from models.restoration import WIDTHS, RestorationNet
from training.augment import augment
from training.config import ANY, RunConfig
from training.errors import TrainingError
from training.fit import device, mixed
from training.pool import Pool
from training.stages.complete import BeforeLabels

# Three times halved and doubled again.
_DIVISOR = 8


class Restoration(BeforeLabels):
    """The task of ``fit``: the loss is over what is there of all twelve leads.

    With ``lead: any`` one lead of each record is given, drawn at random, and the others are zeros,
    as MCMA has it (Chen et al. 2024, arXiv 2407.11481).

    With ``augment`` the measured lead is distorted for half of each batch and the target stays
    clean, so that the net also takes noise away; the clean half keeps it exact on a good signal.

    Raises:
        TrainingError: if no record has all twelve leads, or windows are of a length it cannot take.
    """

    def __init__(self, config: RunConfig, train: Pool, validation: Pool) -> None:
        super().__init__(config, train, validation, "restoration")
        if train.parts[0].cache.length % _DIVISOR:
            raise TrainingError(
                f"{train.parts[0].cache.path}: windows of {train.parts[0].cache.length} samples; "
                f"restoration needs a multiple of {_DIVISOR}"
            )
        self._lead = None if config.lead == ANY else LEADS.index(config.lead)
        inputs = len(LEADS) if self._lead is None else 1
        self.network = RestorationNet(WIDTHS[config.size], inputs).to(device())
        self._augment = config.augment

    @property
    def trained(self) -> nn.Module:
        """The network alone."""
        return self.network

    def loss(self) -> dict[str, Tensor]:
        """Mean squared error of the next batch, in z-score units."""
        leads, generator = self._take(), self._generator
        if self._lead is None:
            places = torch.randint(len(LEADS), (len(leads),), generator=generator)
        else:
            places = torch.full((len(leads),), self._lead)
        measured = _one_of_each(leads, places)
        weight = torch.ones(())
        if self._augment:
            noisy = augment(measured, generator)
            use = torch.rand(len(leads), 1, 1, generator=generator) < 0.5
            weight = torch.where(use, (noisy != 0).float(), 1.0).to(device())
            measured = torch.where(use, noisy, measured)
        with mixed():
            restored = self.network(self._given(measured, places)).float()
        return {"loss": ((restored - leads.to(device())).square() * weight).mean()}

    def validate(self) -> dict[str, float]:
        """Mean squared error over the leads that were not given; ``score`` is its negative."""
        self.network.eval()
        error = float(self._mean(self._error))
        return {"score": -error, "mse": error}

    def _error(self, leads: Tensor) -> Tensor:
        # A net of any lead is given each in turn.
        places = torch.arange(len(leads)) % len(LEADS)
        if self._lead is not None:
            places = torch.full_like(places, self._lead)
        with mixed():
            restored = self.network(self._given(_one_of_each(leads, places), places)).float()
        each = (restored - leads.to(device())).square().mean(dim=2)
        each[torch.arange(len(leads)), places] = 0
        error: Tensor = each.sum() / (len(leads) * (len(LEADS) - 1))
        return error

    def _given(self, measured: Tensor, places: Tensor) -> Tensor:
        """What the net reads of measured leads [batch, 1, time] that are at these places."""
        if self._lead is not None:
            return measured.to(device())
        given = torch.zeros(len(measured), len(LEADS), measured.shape[-1])
        given[torch.arange(len(measured)), places] = measured[:, 0]
        return given.to(device())


def _one_of_each(leads: Tensor, places: Tensor) -> Tensor:
    """One lead of each record, [batch, 1, time] of [batch, 12, time]."""
    return leads[torch.arange(len(leads)), places, None]
