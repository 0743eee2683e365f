"""Classifier re-training: the last layers once more, with rare classes not drowned.

After Kang et al. 2020 (Decoupling representation and classifier for long-tailed recognition, arXiv
1910.09217, section 4.1), who learn the features from records as they come and then the classifier
alone with classes balanced. Three things differ: there each record has one class and is drawn so,
here it has several, so each label is weighed instead (King and Zeng 2001, Logistic regression in
rare events data); classes are balanced in part, by a power; and two layers go on from what they had
learnt, where theirs is one and begins anew.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from training.pool import Pool


def weights_of_labels(pool: Pool, rows: NDArray[np.bool_], power: float) -> Tensor:
    """What a negative and a positive label of each class count, float32 [2, classes].

    A positive counts (negatives / positives)^power times a negative, and the labels of a class
    together as many as they are, so that no class is learnt faster than before.

    Args:
        pool: of the training records.
        rows: bool [records], those whose labels are used; each class has a positive there.
        power: 0 for labels as they are, 1 for as much weight on either side.
    """
    known = pool.known[rows].sum(axis=0)
    positives = pool.positives(rows)
    negatives = np.maximum(known - positives, 1)
    ratio = (negatives / positives) ** power
    negative = known / (negatives + positives * ratio)
    return torch.from_numpy(np.stack((negative, negative * ratio)).astype(np.float32))


def freeze_features(network: nn.Module) -> None:
    """Let only the last two layers of a classifier learn."""
    for name, parameter in network.named_parameters():
        parameter.requires_grad_(name.startswith(("hidden.", "out.")))


def settle(network: nn.Module) -> None:
    """Put the frozen layers to work as they were left, normalization and dropout included."""
    network.eval()
    network.dropout.train()  # type: ignore[union-attr]
