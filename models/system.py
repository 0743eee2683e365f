"""The graph that a bundle ships: lead I in; restored leads, logits and probabilities out."""

import torch
from torch import Tensor, nn

from models.classifier import SIZES, ConvTransformer
from models.restoration import LEADS, WIDTHS, RestorationNet


class LeadOneSystem(nn.Module):
    """Restoration net, student and per-class calibration as one network.

    The lead that was measured is put back in the place of its own restoration: it is known, so the
    student need not read it through a net trained to approximate it.

    Args:
        restoration: a key of ``models.restoration.WIDTHS``.
        student: a key of ``models.classifier.SIZES``.
        classes: number of outputs.
        strides: of the student's convolution blocks.
    """

    slope: Tensor
    offset: Tensor

    def __init__(
        self,
        restoration: str,
        student: str,
        classes: int,
        strides: tuple[int, int, int] = (4, 4, 2),
    ) -> None:
        super().__init__()
        self.restoration = RestorationNet(WIDTHS[restoration])
        self.student = ConvTransformer(SIZES[student], LEADS, classes, strides)
        # Platt scaling (Platt 1999): probability = sigmoid(slope * logit + offset).
        self.register_buffer("slope", torch.ones(classes))
        self.register_buffer("offset", torch.zeros(classes))

    def restore(self, lead_one: Tensor) -> Tensor:
        """All twelve leads [batch, 12, time] in z-scores, lead I as measured."""
        restored: Tensor = self.restoration(lead_one)
        return torch.cat((lead_one, restored[:, 1:]), dim=1)

    def forward(self, lead_one: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Restored leads, logits [batch, classes] and probabilities of [batch, 1, time]."""
        leads = self.restore(lead_one)
        logits = self.student(leads)
        return leads, logits, torch.sigmoid(self.slope * logits + self.offset)
