"""Kullback-Leibler divergences between what teacher and student say of one record."""

import torch
from torch import Tensor

from training.losses.base import Targets, log_sigmoid_of_both

# As good as minus infinity beside any logit, yet nothing times it is still nothing.
_NEVER = -1e9


def positives(targets: Targets) -> Tensor:
    """Bool [batch, classes]: what a record is known to have, in part or whole."""
    return (targets.labels > 0) & (targets.known > 0)


def negatives(targets: Targets) -> Tensor:
    """Bool [batch, classes]: what a record is known not to have."""
    return (targets.labels == 0) & (targets.known > 0)


def mask_logits(logits: Tensor, kept: Tensor) -> Tensor:
    """Logits whose softmax runs over ``kept`` alone, [batch, classes]."""
    return logits.masked_fill(~kept, _NEVER)


def binary_kl(student: Tensor, teacher: Tensor) -> Tensor:
    """KL of (q, 1 - q) from (p, 1 - p) element by element, p and q being sigmoids.

    Args:
        student: logits of q.
        teacher: logits of p.
    """
    log_p, log_not_p = log_sigmoid_of_both(teacher)
    log_q, log_not_q = log_sigmoid_of_both(student)
    return torch.sigmoid(teacher) * (log_p - log_q) + torch.sigmoid(-teacher) * (
        log_not_p - log_not_q
    )


def softmax_kl(student: Tensor, teacher: Tensor, kept: Tensor) -> Tensor:
    """KL of the student's softmax over the classes ``kept`` from the teacher's, [batch].

    It is 0 for a record that keeps fewer than two classes.

    Args:
        student: logits [batch, classes].
        teacher: logits [batch, classes].
        kept: bool [batch, classes].
    """
    log_p = torch.log_softmax(mask_logits(teacher, kept), dim=1)
    log_q = torch.log_softmax(mask_logits(student, kept), dim=1)
    return (log_p.exp() * (log_p - log_q)).sum(dim=1)
