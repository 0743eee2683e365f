"""DIST: knowledge distillation from a stronger teacher (Huang et al., NeurIPS 2022)."""

from typing import ClassVar

import torch
from torch import Tensor

from training.losses.base import Distillation, Outputs, Shape, Targets

# Length of a centred row or column of probabilities below which it says nothing: a class that the
# teacher gives 0.00001 throughout has a correlation, but it is one of rounding errors.
_LEAST = 1e-4


class DIST(Distillation):
    """``beta * L_inter + gamma * L_intra``: 1 minus Pearson's correlation of probabilities.

    L_inter correlates a record's probabilities over the classes, L_intra a class's over the records
    of the batch. For several labels the probabilities are sigmoids. A row or
    column in which the teacher's hardly differ has no correlation and is left out of the mean.

    Args:
        shape: of the networks.
        beta: weight of L_inter; the source's for ImageNet.
        gamma: weight of L_intra; the source's for ImageNet.
        tau: temperature; the source's for ImageNet.
    """

    name: ClassVar[str] = "dist"

    def __init__(
        self, shape: Shape, *, beta: float = 2.0, gamma: float = 2.0, tau: float = 1.0
    ) -> None:
        super().__init__(shape)
        self.beta, self.gamma, self.tau = beta, gamma, tau

    def forward(self, student: Outputs, teacher: Outputs, targets: Targets) -> Tensor:
        """The loss, a scalar; 0 where probabilities agree but for scale and shift."""
        q = torch.sigmoid(student.logits.float() / self.tau)
        p = torch.sigmoid(teacher.logits.float() / self.tau)
        inter = pearson_distance(q, p, targets.known)
        intra = pearson_distance(q.T, p.T, targets.known.T)
        return self.tau**2 * (self.beta * inter + self.gamma * intra)


def pearson_distance(student: Tensor, teacher: Tensor, known: Tensor) -> Tensor:
    """Mean over rows of 1 minus the correlation of what is known; 0 if no row has one.

    Args:
        student: [rows, columns].
        teacher: [rows, columns].
        known: [rows, columns], 0 for what is left out.
    """
    a, b = _centred(student, known), _centred(teacher, known)
    correlation = torch.nn.functional.cosine_similarity(a, b, dim=1, eps=_LEAST)
    kept = torch.linalg.vector_norm(b, dim=1) > _LEAST
    distance: Tensor = ((1 - correlation) * kept).sum() / kept.sum().clamp(min=1)
    return distance


def _centred(x: Tensor, known: Tensor) -> Tensor:
    mean = (x * known).sum(dim=1, keepdim=True) / known.sum(dim=1, keepdim=True).clamp(min=1)
    return (x - mean) * known
