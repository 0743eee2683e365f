"""Probabilistic knowledge transfer (Passalis and Tefas, ECCV 2018)."""

from typing import ClassVar

import torch
from torch import Tensor

from training.losses.base import Distillation, Outputs, Shape, Targets
from training.losses.geometry import unit


class PKT(Distillation):
    """``weight`` times the KL between the networks' probabilities of choosing a neighbour.

    p(i | j), that record j chooses record i of the batch, goes by the cosine kernel of their
    features; the divergence is summed over j and i. The kernel needs no equal widths, so nothing
    is projected.

    Args:
        shape: of the networks.
        weight: of the term.
    """

    name: ClassVar[str] = "pkt"

    def __init__(self, shape: Shape, *, weight: float = 1.0) -> None:
        super().__init__(shape)
        self.weight = weight

    def forward(self, student: Outputs, teacher: Outputs, targets: Targets) -> Tensor:  # noqa: ARG002
        """The loss, a scalar; 0 where the features agree but for scale and rotation."""
        p, q = neighbours(teacher.features), neighbours(student.features)
        return self.weight * (p * (_log(p) - _log(q))).sum()


def neighbours(features: Tensor) -> Tensor:
    """p(i | j) at row j and column i, [batch, batch]; nothing is its own neighbour."""
    x = unit(features.float())
    kernel = (x @ x.T + 1) / 2 * (1 - torch.eye(len(x), device=x.device))
    return kernel / kernel.sum(dim=1, keepdim=True).clamp(min=1e-7)


def _log(p: Tensor) -> Tensor:
    return p.clamp(min=1e-7).log()
