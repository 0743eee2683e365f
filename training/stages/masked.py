"""Masked pre-training: a classifier learns to fill in what it was not shown, without any label.

After the masked autoencoders of He et al. 2022 and MCMA (Chen et al. 2024), which restores twelve
leads from whichever one is given: here leads and stretches of time are both withheld. A run that
names this one under ``start`` begins with its convolutions and transformer layers.
"""

import numpy as np
import torch
from torch import Tensor, nn

from models.classifier import SIZES
from models.leads import LEADS
from training.config import RunConfig
from training.errors import TrainingError
from training.fit import device, mixed
from training.networks import classifier
from training.pool import Pool
from training.stages.complete import BeforeLabels

_HIDDEN_TIME = 0.4
_HIDDEN_LEADS = 0.3
_ONE_LEAD = 0.25
_VALIDATION_SEED = 1


class Masked(BeforeLabels):
    """The task of ``fit``: the mean squared error over what was withheld, in z-score units.

    Records with all twelve leads serve, labelled or not. Of a quarter only one lead is shown, of
    the others each lead is withheld with a chance of 0.3; of all, each stretch as long as a token
    with a chance of 0.4.

    Raises:
        TrainingError: if no record has all twelve leads, or ``size`` is a backbone without tokens.
    """

    def __init__(self, config: RunConfig, train: Pool, validation: Pool) -> None:
        if config.size not in SIZES:
            raise TrainingError(
                f"size: {config.size}: masked pre-training needs one of {', '.join(SIZES)}"
            )
        super().__init__(config, train, validation, "masking")
        self.network = classifier(config, len(train.classes)).to(device())
        self._token = int(np.prod(config.strides))
        self._decoder = nn.Linear(self.network.width, len(LEADS) * self._token).to(device())  # type: ignore[arg-type]

    @property
    def trained(self) -> nn.Module:
        """The classifier's layers and the decoder."""
        return nn.ModuleDict({"network": self.network, "decoder": self._decoder})

    def loss(self) -> dict[str, Tensor]:
        """Of the next batch."""
        return {"loss": self._error(self._take(), self._generator)}

    def validate(self) -> dict[str, float]:
        """The same error on the validation records, masked alike each time; ``score`` is less."""
        self.network.eval()
        generator = torch.Generator().manual_seed(_VALIDATION_SEED)
        error = float(self._mean(lambda leads: self._error(leads, generator)))
        return {"score": -error, "mse": error}

    def _error(self, leads: Tensor, generator: torch.Generator) -> Tensor:
        hidden = withheld(len(leads), leads.shape[-1], self._token, generator)
        leads, hidden = leads.to(device()), hidden.to(device())
        with mixed():
            tokens = self.network.tokens(leads * ~hidden)  # type: ignore[operator]
            filled = self._decoder(tokens).float()
        batch, count, _ = filled.shape
        filled = filled.reshape(batch, count, len(LEADS), self._token).transpose(1, 2)
        filled = filled.reshape(batch, len(LEADS), -1)[..., : leads.shape[-1]]
        squared = (filled - leads).square() * hidden
        error: Tensor = squared.sum() / hidden.sum().clamp(min=1)
        return error


def withheld(batch: int, time: int, token: int, generator: torch.Generator) -> Tensor:
    """What to hide, bool [batch, 12, time]: some leads whole, some stretches of every lead."""
    leads = withheld_leads(batch, generator)
    stretches = torch.rand(batch, -(-time // token), generator=generator) < _HIDDEN_TIME
    in_time = stretches.repeat_interleave(token, dim=1)[:, :time]
    return leads[:, :, None] | in_time[:, None, :]


def withheld_leads(batch: int, generator: torch.Generator) -> Tensor:
    """Which leads to hide, bool [batch, 12]: of a quarter all but one, of no record all."""
    leads = torch.rand(batch, len(LEADS), generator=generator) < _HIDDEN_LEADS
    shown = torch.randint(len(LEADS), (batch,), generator=generator)
    alone = torch.rand(batch, 1, generator=generator) < _ONE_LEAD
    is_shown = torch.nn.functional.one_hot(shown, len(LEADS)).bool()
    return (leads | alone) & ~is_shown
