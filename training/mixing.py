"""CutMix over time and leads, one box for any number of signals (LiteHeart, equations 4-7, 10)."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True, eq=False)
class Mix:
    """A box and a partner for each record of a batch.

    Attributes:
        inside: bool [batch, leads, time], true where the partner's signal is taken.
        partner: int64 [batch].
    """

    inside: Tensor
    partner: Tensor

    def signals(self, x: Tensor) -> Tensor:
        """Mix [batch, leads, time] (equations 4 and 5)."""
        return torch.where(self.inside.to(x.device), x[self.partner.to(x.device)], x)

    def labels(self, y: Tensor) -> Tensor:
        """Mix [batch, classes] by the area taken (equation 10)."""
        area = self.inside.float().mean(dim=(1, 2))[:, None]
        return (1 - area) * y + area * y[self.partner]

    def known(self, known: Tensor) -> Tensor:
        """A mixed label is known where both are."""
        return known * known[self.partner]


def region_mix(groups: Tensor, leads: int, time: int, generator: torch.Generator) -> Mix:
    """Draw a box and a partner for each record of a batch.

    ``lambda ~ Beta(1, 1)``, which is uniform; the box is ``time * sqrt(1 - lambda)`` long and
    ``leads * sqrt(1 - lambda)`` high. Its centre is uniform and what lies beyond the border is cut
    off (Yun et al. 2019, CutMix), so equation 10 is taken with the area that is left.

    Args:
        groups: int64 [batch]; partners are a random permutation within each group, so that a
            record whose labels or leads are of another kind is never mixed in.
        leads: height of the plane, in leads.
        time: width of the plane, in samples.
        generator: the source of randomness.
    """
    fraction = torch.sqrt(1 - torch.rand(len(groups), generator=generator))
    rows = _span(fraction, leads, generator)
    columns = _span(fraction, time, generator)
    shuffled = torch.randperm(len(groups), generator=generator)
    partner = torch.empty_like(shuffled)
    partner[torch.argsort(groups, stable=True)] = shuffled[
        torch.argsort(groups[shuffled], stable=True)
    ]
    return Mix(rows[:, :, None] & columns[:, None, :], partner)


def _span(fraction: Tensor, size: int, generator: torch.Generator) -> Tensor:
    """Bool [batch, size]: the places within ``fraction * size / 2`` of a uniform centre."""
    centre = torch.rand(len(fraction), 1, generator=generator) * size
    half = fraction[:, None] * size / 2
    place = torch.arange(size) + 0.5
    return (place >= centre - half) & (place < centre + half)
