"""What goes wrong at an electrode or in a recorder's clock, as a training-time augmentation.

Noise is ``training.augment``'s; here the heart is not seen, or seen at a wrong rate or height.
"""

import torch
from torch import Tensor

_RATE_ERROR = 0.03
_STRETCH_S = (0.3, 2.0)
_RATE = 100.0


def distort(lead: Tensor, generator: torch.Generator) -> Tensor:
    """Distort [batch, 1, time] at random, z-scored at 100 Hz; z-score again after.

    Of half of the records time runs up to 3 % too fast or too slow, around the middle of the
    window; in three of ten the height changes at some moment, as an electrode dries or is pressed
    on, to 0.4 to 2.5 times; in three of twenty the electrode is off for 0.3 to 2 s.

    Args:
        lead: the measured one.
        generator: the source of randomness.
    """
    batch, _, time = lead.shape
    error = (2 * torch.rand(batch, generator=generator) - 1) * _RATE_ERROR
    error = error * (torch.rand(batch, generator=generator) < 0.5)
    x = _at_rate(lead, 1 + error)
    place = torch.arange(time)[None, None]
    moment = torch.rand(batch, 1, 1, generator=generator) * time
    gain = 2.5 ** (2 * torch.rand(batch, 1, 1, generator=generator) - 1)
    changes = torch.rand(batch, 1, 1, generator=generator) < 0.3
    x = torch.where(changes & (place >= moment), gain * x, x)
    shortest, longest = (s * _RATE for s in _STRETCH_S)
    length = shortest + torch.rand(batch, 1, 1, generator=generator) * (longest - shortest)
    begin = torch.rand(batch, 1, 1, generator=generator) * (time - length)
    off = torch.rand(batch, 1, 1, generator=generator) < 0.15
    return torch.where(off & (place >= begin) & (place < begin + length), 0.0, x)


def _at_rate(x: Tensor, factor: Tensor) -> Tensor:
    """[batch, 1, time] as a clock of [batch] times its rate has it, by linear interpolation.

    What lies beyond the ends is the sample there.
    """
    time = x.shape[-1]
    middle = (time - 1) / 2
    at = (torch.arange(time) - middle) * factor[:, None] + middle
    at = at.clamp(0, time - 1)
    below = at.floor().long().clamp(max=time - 2)
    part = at - below
    low, high = (x[:, 0].gather(1, below + i) for i in (0, 1))
    return (low + part * (high - low))[:, None]
