"""Correlation congruence for knowledge distillation (Peng et al., ICCV 2019)."""

import math
from typing import ClassVar

import torch
from torch import Tensor

from training.losses.base import Distillation, Outputs, Shape, Targets
from training.losses.geometry import unit
from training.losses.kd import soft_cross_entropy

_ORDER = 2


class CC(Distillation):
    """``alpha * L_KD + beta * L_CC`` (alpha stands for the source's 1 - alpha).

    L_CC is the mean squared difference of the two networks' correlation matrices over the records
    of a batch, the correlation being a Gaussian kernel of the unit features expanded
    in a Taylor series to order 2 (gamma 0.4). The kernel needs no equal widths, so nothing is
    projected. L_KD is LiteHeart's equation 1.

    Squared differences of kernels are of the order of 0.01; a beta of 100, which one open
    implementation uses, makes them count.

    Args:
        shape: of the networks.
        alpha: weight of L_KD.
        beta: weight of L_CC.
        tau: temperature of L_KD.
        gamma: of the Gaussian kernel.
    """

    name: ClassVar[str] = "cc"

    def __init__(
        self,
        shape: Shape,
        *,
        alpha: float = 1.0,
        beta: float = 100.0,
        tau: float = 1.0,
        gamma: float = 0.4,
    ) -> None:
        super().__init__(shape)
        self.alpha, self.beta, self.tau, self.gamma = alpha, beta, tau, gamma

    def forward(self, student: Outputs, teacher: Outputs, targets: Targets) -> Tensor:
        """The loss, a scalar; least where logits agree and features have the same angles."""
        kd = soft_cross_entropy(
            student.logits.float(), teacher.logits.float(), targets.known, self.tau
        )
        difference = correlation(student.features, self.gamma) - correlation(
            teacher.features, self.gamma
        )
        return self.alpha * kd + self.beta * difference.square().mean()


def correlation(features: Tensor, gamma: float) -> Tensor:
    """Gaussian kernel exp(-gamma |x - y|²) between unit features, to order 2, [batch, batch].

    With unit vectors it is exp(-2 gamma) exp(2 gamma x·y), expanded at x·y = 0.
    """
    x = unit(features.float())
    cosine = x @ x.T
    return math.exp(-2 * gamma) * torch.stack(
        [(2 * gamma * cosine) ** p / math.factorial(p) for p in range(_ORDER + 1)]
    ).sum(dim=0)
