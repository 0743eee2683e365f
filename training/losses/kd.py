"""Knowledge distillation (Hinton et al. 2015) in its multi-label form."""

from typing import ClassVar

import torch
from torch import Tensor

from training.losses.base import Distillation, Outputs, Shape, Targets, log_sigmoid_of_both


class KD(Distillation):
    """``alpha * L_K``, with L_K as LiteHeart's equation 1 writes it.

    LiteHeart gives no values for alpha and tau; these are the ones its own L_K is run with here,
    so that the two are compared like for like.

    Args:
        shape: of the networks.
        alpha: weight of the term.
        tau: temperature.
    """

    name: ClassVar[str] = "kd"

    def __init__(self, shape: Shape, *, alpha: float = 1.0, tau: float = 1.0) -> None:
        super().__init__(shape)
        self.alpha, self.tau = alpha, tau

    def forward(self, student: Outputs, teacher: Outputs, targets: Targets) -> Tensor:
        """The loss, a scalar; least, but not 0, where the logits agree."""
        return self.alpha * soft_cross_entropy(
            student.logits.float(), teacher.logits.float(), targets.known, self.tau
        )


def soft_cross_entropy(student: Tensor, teacher: Tensor, known: Tensor, tau: float) -> Tensor:
    """L_K: binary cross-entropy between both sigmoids at temperature ``tau``, times its square.

    Args:
        student: logits, float32 [batch, classes].
        teacher: logits, float32 [batch, classes].
        known: weights [batch, classes]; the mean is taken over what is known.
        tau: temperature.
    """
    p = torch.sigmoid(teacher / tau)
    log_q, log_not_q = log_sigmoid_of_both(student / tau)
    loss = -(p * log_q + (1 - p) * log_not_q)
    return tau**2 * (loss * known).sum() / known.sum().clamp(min=1)
