"""Decoupled knowledge distillation (Zhao et al., CVPR 2022)."""

from typing import ClassVar

from torch import Tensor

from training.losses.base import Distillation, Outputs, Shape, Targets
from training.losses.divergence import binary_kl, negatives, softmax_kl


class DKD(Distillation):
    """``alpha * TCKD + beta * NCKD``, both times tau squared.

    The source splits the divergence of one softmax in two: KL between (p_t, 1 - p_t), target
    against the rest (TCKD), and KL between the softmaxes over the classes that are not the target
    (NCKD). With several targets or none:

    - TCKD: in a multi-label network every class is such a target-against-the-rest problem and its
      sigmoid is p_t (the reduction to one-versus-all of Yang et al., ICCV 2023), so it
      is the mean over all known classes, like LiteHeart's equation 1.
    - NCKD: the softmax over the classes that the record is known not to have. (Per class it would
      vanish: of two outcomes only one is not the target.)

    The defaults are the source's for ImageNet; those for CIFAR-100 (tau 4, beta 8) come with a
    warm-up of 20 epochs, which there is none of here.

    Args:
        shape: of the networks.
        alpha: weight of TCKD.
        beta: weight of NCKD.
        tau: temperature.
    """

    name: ClassVar[str] = "dkd"

    def __init__(
        self, shape: Shape, *, alpha: float = 1.0, beta: float = 0.5, tau: float = 1.0
    ) -> None:
        super().__init__(shape)
        self.alpha, self.beta, self.tau = alpha, beta, tau

    def forward(self, student: Outputs, teacher: Outputs, targets: Targets) -> Tensor:
        """The loss, a scalar; 0 where the logits agree."""
        s, t = student.logits.float() / self.tau, teacher.logits.float() / self.tau
        target = (binary_kl(s, t) * targets.known).sum() / targets.known.sum().clamp(min=1)
        rest = softmax_kl(s, t, negatives(targets)).mean()
        return self.tau**2 * (self.alpha * target + self.beta * rest)
