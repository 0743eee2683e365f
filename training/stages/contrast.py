"""Contrastive pre-training: two glimpses of one record are told apart from those of others.

Positives are two stretches of a record cut at random, as in CLECG (Chen et al. 2021, IEEE Signal
Processing Letters 28), here with leads withheld from each instead of its wavelet noise; the loss is
that of SimCLR (Chen et al. 2020, equation 1), which takes its negatives from the batch.
"""

import torch
from torch import Tensor, nn

from training.config import RunConfig
from training.fit import device, mixed
from training.networks import classifier
from training.pool import Pool
from training.stages.complete import BeforeLabels
from training.stages.inputs import STRETCH
from training.stages.masked import withheld_leads

_PROJECTED = 128
_TEMPERATURE = 0.1
_VALIDATION_SEED = 1


class Contrast(BeforeLabels):
    """The task of ``fit``: the contrastive loss; ``found`` is the share whose partner is nearest.

    Records with all twelve leads serve, labelled or not.

    Raises:
        TrainingError: if no record has all twelve leads.
    """

    def __init__(self, config: RunConfig, train: Pool, validation: Pool) -> None:
        super().__init__(config, train, validation, "contrast")
        self.network = classifier(config, len(train.classes)).to(device())
        width: int = self.network.width  # type: ignore[assignment]
        self._projector = nn.Sequential(
            nn.Linear(width, width), nn.ReLU(), nn.Linear(width, _PROJECTED)
        ).to(device())

    @property
    def trained(self) -> nn.Module:
        """The classifier's layers and the projector."""
        return nn.ModuleDict({"network": self.network, "projector": self._projector})

    def loss(self) -> dict[str, Tensor]:
        """Of the next batch."""
        views = self._views(self._take(), self._generator)
        return {"loss": contrastive(*views)[0]}

    def validate(self) -> dict[str, float]:
        """The same on the validation records, cut alike each time; ``score`` is less the loss."""
        self.network.eval()
        generator = torch.Generator().manual_seed(_VALIDATION_SEED)
        loss, found = self._mean(
            lambda leads: torch.stack(contrastive(*self._views(leads, generator)))
        ).tolist()
        return {"score": -loss, "found": found}

    def _views(self, leads: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Two glimpses of each of [batch, 12, time], projected: [batch, 128] each."""
        views = torch.cat([glimpse(leads, generator) for _ in range(2)]).to(device())
        with mixed():
            # One pass for both, so that batch normalization cannot tell which is which.
            projected = self._projector(self.network.features(views)).float()  # type: ignore[operator]
        first, second = projected.chunk(2)
        return first, second


def glimpse(leads: Tensor, generator: torch.Generator) -> Tensor:
    """A stretch of 2.56 s of each of [batch, 12, time], zeros where a lead is withheld.

    Each record is cut elsewhere; one that is no longer than the stretch stays whole.
    """
    batch, count, time = leads.shape
    length = min(STRETCH, time)
    first = torch.randint(time - length + 1, (batch, 1, 1), generator=generator)
    cut = (first + torch.arange(length)).expand(batch, count, length)
    return leads.gather(2, cut) * ~withheld_leads(batch, generator)[:, :, None]


def contrastive(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    """The normalized temperature-scaled cross-entropy, and the share whose partner is nearest.

    Over the 2N views, each against the 2N - 1 others: the mean of
    ``-log(exp(cos(i, partner)/tau) / sum_k exp(cos(i, k)/tau))`` (Chen et al. 2020, equation 1).

    Args:
        first: one view of each record, [N, width].
        second: the other, in the same order.
    """
    views = nn.functional.normalize(torch.cat((first, second)), dim=1)
    likeness = views @ views.T / _TEMPERATURE
    itself = torch.eye(len(views), dtype=torch.bool, device=views.device)
    likeness = likeness.masked_fill(itself, -torch.inf)
    partner = torch.arange(len(views), device=views.device).roll(len(first))
    found = (likeness.argmax(dim=1) == partner).float().mean()
    return nn.functional.cross_entropy(likeness, partner), found
