"""Directions of feature vectors."""

import torch
from torch import Tensor


def unit(x: Tensor) -> Tensor:
    """Vectors [..., d] at length 1; the zero vector stays, with a gradient that is finite."""
    length = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
    return x / torch.where(length > 0, length, 1.0)
