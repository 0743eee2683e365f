"""Relational knowledge distillation (Park et al., CVPR 2019)."""

from typing import ClassVar

import torch
from torch import Tensor

from training.losses.base import Distillation, Outputs, Shape, Targets
from training.losses.geometry import unit


class RKD(Distillation):
    """``distance * L_D + angle * L_A``: Huber losses between the shapes of two sets of features.

    L_D compares distances in units of their mean over the batch, L_A the cosines of the angles
    that triplets of records form. Both are means over pairs and triplets of different records.
    Widths may differ, so nothing is projected.

    Args:
        shape: of the networks.
        distance: weight of L_D; the source's for classification.
        angle: weight of L_A; the source's for classification.
    """

    name: ClassVar[str] = "rkd"

    def __init__(self, shape: Shape, *, distance: float = 25.0, angle: float = 50.0) -> None:
        super().__init__(shape)
        self.distance, self.angle = distance, angle

    def forward(self, student: Outputs, teacher: Outputs, targets: Targets) -> Tensor:  # noqa: ARG002
        """The loss, a scalar; 0 where the features agree but for movement and scale."""
        s_distance, s_cosine = relations(student.features)
        t_distance, t_cosine = relations(teacher.features)
        same = torch.eye(len(s_distance), dtype=torch.bool, device=s_distance.device)
        repeated = same[:, :, None] | same[:, None, :] | same[None]
        return self.distance * _huber(s_distance, t_distance, ~same) + self.angle * _huber(
            s_cosine, t_cosine, ~repeated
        )


def relations(features: Tensor) -> tuple[Tensor, Tensor]:
    """Relative distances and angles of [batch, d].

    Returns:
        Distances [batch, batch] divided by the mean of those between different records, and
        cosines [j, i, k] of the angles at record j between records i and k; 0 where two of the
        records coincide.
    """
    x = features.float()
    difference = x[None] - x[:, None]
    distance = torch.linalg.vector_norm(difference, dim=2)
    mean = distance.sum() / max(len(x) * (len(x) - 1), 1)
    direction = unit(difference)
    return distance / mean.clamp(min=1e-12), direction @ direction.transpose(1, 2)


def _huber(student: Tensor, teacher: Tensor, kept: Tensor) -> Tensor:
    """Mean Huber loss (delta 1) over what is kept; 0 if that is nothing."""
    loss = torch.nn.functional.smooth_l1_loss(student, teacher, reduction="none")
    return (loss * kept).sum() / kept.sum().clamp(min=1)
