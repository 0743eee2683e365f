"""MVKT-ECG: multi-view knowledge transferring (Qin et al.), for a student with one lead."""

from typing import ClassVar

import torch
from torch import Tensor, nn

from training.losses.base import Distillation, Outputs, Shape, Targets, two_layers
from training.losses.divergence import binary_kl
from training.losses.geometry import unit

_DIMENSION = 128


class MVKT(Distillation):
    """``alpha * L_MKD + beta * L_CLT`` (equation 9 of the journal article, 6 of the preprint).

    Equations below are numbered as in the journal article.

    Args:
        shape: of the networks.
        alpha: weight of the multi-label distillation L_MKD.
        beta: weight of the contrastive lead-information transfer L_CLT.
        tau_kd: temperature of L_MKD.
        tau: temperature of L_CLT.
        negatives: memories drawn in each step; all there are, if those are fewer.
        momentum: share that a memory keeps when its record comes again. The source gives none; 0.5
            is that of Tian et al. (ICLR 2020), whose memory it is.
    """

    name: ClassVar[str] = "mvkt"

    def __init__(
        self,
        shape: Shape,
        *,
        alpha: float = 1.0,
        beta: float = 0.8,
        tau_kd: float = 1.5,
        tau: float = 0.07,
        negatives: float = 1024,
        momentum: float = 0.5,
    ) -> None:
        super().__init__(shape)
        self.alpha, self.beta, self.tau_kd = alpha, beta, tau_kd
        self.transfer = LeadTransfer(shape, tau, int(negatives), momentum)

    def forward(self, student: Outputs, teacher: Outputs, targets: Targets) -> Tensor:
        """The loss, a scalar; in training the memory takes up the batch."""
        mkd = multilabel_distillation(
            student.logits.float(), teacher.logits.float(), targets.known, self.tau_kd
        )
        clt: Tensor = self.transfer(
            student.features.float(), teacher.features.float(), targets.rows
        )
        return self.alpha * mkd + self.beta * clt


def multilabel_distillation(student: Tensor, teacher: Tensor, known: Tensor, tau: float) -> Tensor:
    """L_MKD (equations 7 and 8): tau² times KL(q of teacher | q of student), summed over classes.

    q is the softmax of (p, 1 - p) at temperature ``tau``, p being the predicted probability: the
    sigmoid of (2 p - 1) / tau. The mean is taken over the batch.

    Args:
        student: logits [batch, classes].
        teacher: logits [batch, classes].
        known: [batch, classes], 0 for what does not count.
        tau: temperature.
    """
    s, t = ((2 * torch.sigmoid(z) - 1) / tau for z in (student, teacher))
    return tau**2 * (binary_kl(s, t) * known).sum(dim=1).mean()


class LeadTransfer(nn.Module):
    """L_CLT (equation 6): each network's view of a record must point at the other's view of it.

    Both features go through two linear layers to unit vectors of 128 (equation 3). The student's
    must be told from the teacher's memories of other records and the other way round; the two
    losses are added. Only records that were met can be drawn: those without labels never are, and
    what their memories started as would be noise.

    The right one is a memory too, as with Tian et al. (ICLR 2020), whose memory it is: were
    it the other network's view of now, it could be told from the others by its age alone, for the
    projections drift while they are learnt. A record that was not met has none, and no loss.

    Args:
        shape: of the networks.
        tau: temperature.
        negatives: memories drawn in each step.
        momentum: of the memories.

    Attributes:
        student_memory: unit vectors [records, 128], 0 for a record that was not met.
        teacher_memory: likewise.
        met: bool [records].
    """

    student_memory: Tensor
    teacher_memory: Tensor
    met: Tensor

    def __init__(self, shape: Shape, tau: float, negatives: int, momentum: float) -> None:
        super().__init__()
        self.tau, self.negatives, self.momentum = tau, negatives, momentum
        self.of_student = two_layers(shape.student, _DIMENSION)
        self.of_teacher = two_layers(shape.teacher, _DIMENSION)
        self.register_buffer("student_memory", torch.zeros(shape.records, _DIMENSION))
        self.register_buffer("teacher_memory", torch.zeros(shape.records, _DIMENSION))
        self.register_buffer("met", torch.zeros(shape.records, dtype=torch.bool))

    def forward(self, student: Tensor, teacher: Tensor, rows: Tensor) -> Tensor:
        """The loss of features [batch, d] of the records ``rows``; 0 if none of them was met."""
        g_student, g_teacher = unit(self.of_student(student)), unit(self.of_teacher(teacher))
        drawn = self._draw()
        own = rows[:, None] == drawn[None]
        loss = self._contrast(g_student, self.teacher_memory, rows, drawn, own)
        loss = loss + self._contrast(g_teacher, self.student_memory, rows, drawn, own)
        if self.training:
            self._remember(self.student_memory, g_student, rows)
            self._remember(self.teacher_memory, g_teacher, rows)
            self.met[rows] = True
        return loss

    def _draw(self) -> Tensor:
        """Rows of the memories, int64 [up to negatives], none twice.

        One draw serves the whole batch, as the source has it, which costs a gather of 1024 rows and
        not of 1024 for each record. It is made on the processor: every device draws the same.
        """
        met = torch.nonzero(self.met)[:, 0]
        return met[torch.randperm(len(met))[: self.negatives].to(met.device)]

    def _contrast(
        self, anchor: Tensor, memory: Tensor, rows: Tensor, drawn: Tensor, own: Tensor
    ) -> Tensor:
        """Cross-entropy of telling a record's memory from those drawn, over the records met."""
        right = (anchor * memory[rows]).sum(dim=1, keepdim=True)
        wrong = (anchor @ memory[drawn].T).masked_fill(own, -torch.inf)
        logits = torch.cat((right, wrong), dim=1) / self.tau
        met = self.met[rows].float()
        each = torch.logsumexp(logits, dim=1) - logits[:, 0]
        return (each * met).sum() / met.sum().clamp(min=1)

    @torch.no_grad()
    def _remember(self, memory: Tensor, now: Tensor, rows: Tensor) -> None:
        memory[rows] = unit(self.momentum * memory[rows] + (1 - self.momentum) * now)
