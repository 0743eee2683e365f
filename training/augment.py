"""What a wearable does to lead I, done to clean lead I: the training-time augmentation.

Signals are z-scored at 100 Hz when they come in and are z-scored again when they go out.
"""

import torch
from torch import Tensor

from models.conditioning import CLIP

_RATE = 100.0


def augment(lead_one: Tensor, generator: torch.Generator, *, flip: Tensor | None = None) -> Tensor:
    """Distort [batch, 1, time] at random: bandwidth, wander, muscle noise, motion, length.

    Args:
        lead_one: z-scored lead I.
        generator: the source of randomness.
        flip: bool [batch], records to invert half of the time: of recorders whose users hold them
            either way round.
    """
    batch, _, time = lead_one.shape
    x = _limit_band(lead_one, generator)
    x = x + _noise(batch, time, generator)
    if flip is not None:
        turned = flip[:, None, None] & (torch.rand(batch, 1, 1, generator=generator) < 0.5)
        x = torch.where(turned, -x, x)
    return zscore(_shorten(x, generator))


def zscore(x: Tensor) -> Tensor:
    """Scale the non-zero part of each [..., time] to mean 0 and standard deviation 1."""
    present = (x != 0).to(x.dtype)
    n = present.sum(-1, keepdim=True).clamp(min=1)
    mean = (x * present).sum(-1, keepdim=True) / n
    centred = (x - mean) * present
    deviation = (centred.square().sum(-1, keepdim=True) / n).sqrt().clamp(min=1e-4)
    return (centred / deviation).clamp(-CLIP, CLIP)


def _limit_band(x: Tensor, generator: torch.Generator) -> Tensor:
    """A random further band limit: straps stop at 40 Hz and many recorders start above 0.5 Hz."""
    batch, _, time = x.shape
    f = torch.fft.rfftfreq(time, 1 / _RATE)[None, None]
    high = _uniform(batch, 28.0, 60.0, generator)
    low = _uniform(batch, 0.0, 1.2, generator)
    gain = 1 / (1 + (f / high) ** 8) / (1 + (low / f.clamp(min=1e-3)) ** 4)
    use = torch.rand(batch, 1, 1, generator=generator) < 0.5
    return torch.where(use, torch.fft.irfft(torch.fft.rfft(x) * gain, time), x)


def _noise(batch: int, time: int, generator: torch.Generator) -> Tensor:
    """Muscle noise (white), wander (below 3 Hz) and bursts of motion (below 10 Hz)."""
    f = torch.fft.rfftfreq(time, 1 / _RATE)[None, None]
    white = torch.randn(3, batch, 1, time, generator=generator)
    spectrum = torch.fft.rfft(white)
    wander = torch.fft.irfft(spectrum[1] * ((f > 0.8) & (f < 3)), time)
    motion = torch.fft.irfft(spectrum[2] * ((f > 0.8) & (f < 10)), time)
    t = torch.arange(time)[None, None]
    centre = _uniform(batch, 0.0, float(time), generator)
    width = _uniform(batch, 20.0, 150.0, generator)
    burst = torch.exp(-0.5 * ((t - centre) / width) ** 2)
    noise: Tensor = (
        _some(batch, 0.5, 0.25, generator) * white[0]
        + _some(batch, 0.3, 1.0, generator) * wander
        + _some(batch, 0.2, 3.0, generator) * burst * motion
    )
    return noise


def _shorten(x: Tensor, generator: torch.Generator) -> Tensor:
    """Zero the end of some records, as conditioning does with a recording shorter than a window."""
    batch, _, time = x.shape
    keep = _uniform(batch, 0.5 * time, float(time), generator)
    keep = torch.where(torch.rand(batch, 1, 1, generator=generator) < 0.1, keep, float(time))
    return x * (torch.arange(time)[None, None] < keep)


def _some(batch: int, share: float, largest: float, generator: torch.Generator) -> Tensor:
    """Strengths [batch, 1, 1]: uniform up to ``largest`` for a share of the batch, else 0."""
    use = torch.rand(batch, 1, 1, generator=generator) < share
    return torch.rand(batch, 1, 1, generator=generator) * largest * use


def _uniform(batch: int, low: float, high: float, generator: torch.Generator) -> Tensor:
    return torch.rand(batch, 1, 1, generator=generator) * (high - low) + low
