"""What every distillation method is: a loss between a student and a fixed teacher."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn


@dataclass(frozen=True, slots=True, eq=False)
class Outputs:
    """What a network says of a batch.

    Attributes:
        logits: [batch, classes], before the sigmoid.
        features: [batch, d], pooled over time, what the classifier reads.
    """

    logits: Tensor
    features: Tensor


@dataclass(frozen=True, slots=True, eq=False)
class Targets:
    """What is known of the records of a batch.

    Attributes:
        labels: [batch, classes] in 0..1 (fractions where records were mixed).
        known: float [batch, classes], 0 where the data set cannot tell.
        rows: int64 [batch], each record's place in the training set, for methods with a memory.
    """

    labels: Tensor
    known: Tensor
    rows: Tensor


@dataclass(frozen=True, slots=True)
class Shape:
    """What a method needs to know to make its own layers.

    Attributes:
        student: width of the student's features.
        teacher: width of the teacher's features.
        classes: number of classes.
        records: number of records in the training set.
    """

    student: int
    teacher: int
    classes: int
    records: int


class Distillation(nn.Module):
    """One method. A subclass in a module of ``training.losses`` is found by its ``name``.

    What it registers as a parameter is trained with the student and thrown away after. The
    hyper-parameters are keyword arguments of its ``__init__`` with the source's values as defaults;
    a run's YAML may set them. ``forward`` returns the whole distillation term, weighted as the
    source weights it; the label loss (binary cross-entropy) is added by the caller.

    Class attributes:
        name: as ``distill --method`` spells it.
        restores: the student reads the twelve restored leads, not one lead and eleven of zeros.
        mixes: records are region-mixed (CutMix over time and leads), so that the teacher has to
            see every batch anew.
        unlabelled: the term is also taken over records without labels.
    """

    name: ClassVar[str]
    restores: ClassVar[bool] = False
    mixes: ClassVar[bool] = False
    unlabelled: ClassVar[bool] = False

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape

    def forward(self, student: Outputs, teacher: Outputs, targets: Targets) -> Tensor:
        """The loss, a scalar; ``teacher`` carries no gradient."""
        raise NotImplementedError


def two_layers(inputs: int, outputs: int) -> nn.Sequential:
    """Linear, ReLU, linear: the head that contrastive and discriminating methods project with."""
    return nn.Sequential(nn.Linear(inputs, outputs), nn.ReLU(), nn.Linear(outputs, outputs))


def log_sigmoid_of_both(logits: Tensor) -> tuple[Tensor, Tensor]:
    """Log p and log (1 - p) of p = sigmoid(logits), without loss of digits."""
    return nn.functional.logsigmoid(logits), nn.functional.logsigmoid(-logits)


def flipped(n: int, device: torch.device | None = None) -> Tensor:
    """A partner for each of ``n`` samples, never itself: n - i, and a neighbour for the middle one.

    LiteHeart's negative of sample n is sample N - n (equation 18), which would pair the middle of
    an odd batch with itself.
    """
    partner = torch.arange(n - 1, -1, -1, device=device)
    if n % 2 and n > 1:
        partner[n // 2] = n // 2 + 1
    return partner
