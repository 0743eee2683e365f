"""Partial softmax distillation for several labels (Song et al., ACM Multimedia 2021)."""

from typing import ClassVar

import torch
from torch import Tensor

from training.losses.base import Distillation, Outputs, Shape, Targets
from training.losses.divergence import binary_kl, mask_logits, negatives, positives, softmax_kl


class PSM(Distillation):
    """``alpha`` times the KL between partial softmaxes, summed over a record's positive labels.

    The partial softmax of a positive label runs over that label and all negative ones ("Handling
    difficult labels for multi-label image classification via uncertainty distillation"; as the
    baseline PS of Yang et al., ICCV 2023). The mean is taken over all records of the batch; one
    without a positive label adds nothing.

    Args:
        shape: of the networks.
        alpha: weight of the term.
    """

    name: ClassVar[str] = "psm"

    def __init__(self, shape: Shape, *, alpha: float = 1.0) -> None:
        super().__init__(shape)
        self.alpha = alpha

    def forward(self, student: Outputs, teacher: Outputs, targets: Targets) -> Tensor:
        """The loss, a scalar; 0 where the logits agree but for a shift of a whole record's."""
        s, t = student.logits.float(), teacher.logits.float()
        against = negatives(targets)
        s_rest = torch.logsumexp(mask_logits(s, against), dim=1, keepdim=True)
        t_rest = torch.logsumexp(mask_logits(t, against), dim=1, keepdim=True)
        # KL over {a} and the negatives = KL of "a or not" + P(not a) * KL within the negatives,
        # which spares a softmax for each positive label.
        within = softmax_kl(s, t, against)[:, None]
        whole = binary_kl(s - s_rest, t - t_rest) + torch.sigmoid(t_rest - t) * within
        return self.alpha * whole.masked_fill(~positives(targets), 0.0).sum() / len(s)
