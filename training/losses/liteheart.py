"""LiteHeart (arXiv 2511.02851): region-aware distillation and cross-layer mutual information.

The region mixing itself is done to the records, before any network sees them
(``training.mixing``); the unlabelled half of the objective is the same term taken over records
without labels (equation 21), which is the caller's second call.
"""

from typing import ClassVar

import torch
from torch import Tensor, nn

from training.losses.base import (
    Distillation,
    Outputs,
    Shape,
    Targets,
    flipped,
    log_sigmoid_of_both,
    two_layers,
)
from training.losses.kd import soft_cross_entropy


class LiteHeart(Distillation):
    """``alpha * L_K + beta * L_D`` (equations 19 and 20).

    The paper gives no values for its three hyper-parameters; these were chosen on PTB-XL fold 8.

    Args:
        shape: of the networks.
        alpha: weight of the region-aware distillation L_K.
        beta: weight of the discriminator loss L_D.
        tau: temperature of L_K.
    """

    name: ClassVar[str] = "liteheart"
    restores: ClassVar[bool] = True
    mixes: ClassVar[bool] = True
    unlabelled: ClassVar[bool] = True

    def __init__(
        self, shape: Shape, *, alpha: float = 1.0, beta: float = 0.1, tau: float = 1.0
    ) -> None:
        super().__init__(shape)
        self.alpha, self.beta, self.tau = alpha, beta, tau
        self.discriminator = Discriminator(shape.student, shape.classes) if beta else None

    def forward(self, student: Outputs, teacher: Outputs, targets: Targets) -> Tensor:
        """Both terms over one batch of mixed records."""
        # L_K (equation 8) is equation 1 of vanilla distillation; what is new is what was mixed.
        loss = self.alpha * soft_cross_entropy(
            student.logits.float(), teacher.logits.float(), targets.known, self.tau
        )
        if self.discriminator is not None:
            loss = loss + self.beta * self.discriminator.loss(student.features, teacher.logits)
        return loss


class LiteHeartOne(LiteHeart):
    """Ablation I: region-aware distillation alone, on labelled records."""

    name: ClassVar[str] = "liteheart-1"
    unlabelled: ClassVar[bool] = False

    def __init__(self, shape: Shape, *, alpha: float = 1.0, tau: float = 1.0) -> None:
        super().__init__(shape, alpha=alpha, beta=0.0, tau=tau)


class LiteHeartTwo(LiteHeart):
    """Ablation II: with mutual information, on labelled records."""

    name: ClassVar[str] = "liteheart-2"
    unlabelled: ClassVar[bool] = False


class Discriminator(nn.Module):
    """D(o_t, z_s) of equation 17: does this teacher output belong to this student feature?

    Args:
        features: width of the student's features.
        classes: of the teacher's output.
        width: of the hidden layer.
    """

    def __init__(self, features: int, classes: int, width: int = 128) -> None:
        super().__init__()
        self.of_student = two_layers(features, width)
        self.of_teacher = two_layers(classes, width)
        # Two layers over the pair: a single one would be a sum of a term of each, and could not
        # tell whether they belong together.
        self.joint = nn.Linear(2 * width, width)
        self.out = nn.Linear(width, 1)

    def forward(self, features: Tensor, outputs: Tensor) -> Tensor:
        """One logit a pair, [batch]."""
        pair = torch.cat((self.of_student(features), self.of_teacher(outputs)), dim=1)
        result: Tensor = self.out(torch.relu(self.joint(torch.relu(pair))))[:, 0]
        return result

    def loss(self, features: Tensor, outputs: Tensor) -> Tensor:
        """L_D (equation 18), minimal where the two share most information."""
        features, outputs = features.float(), outputs.float()
        paired, _ = log_sigmoid_of_both(self(features, outputs))
        if len(features) == 1:
            return -paired.mean()
        partner = flipped(len(features), features.device)
        _, unpaired = log_sigmoid_of_both(self(features, outputs[partner]))
        return -(paired + unpaired).mean()
