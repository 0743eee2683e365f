"""The restoration network: twelve leads from one (LiteHeart, section 4.5).

A 1-D U-Net (Ronneberger et al. 2015) trained by mean squared error. The paper gives only its sizes,
0.36, 1.43 and 5.71 million parameters: one shape at three widths a factor two apart.
"""

import torch
from torch import Tensor, nn

from models import leads

WIDTHS = {"tiny": 15, "small": 30, "base": 60}
LEADS = len(leads.LEADS)


class _Block(nn.Module):
    """Two convolutions with batch normalisation and leaky ReLU."""

    def __init__(self, inputs: int, outputs: int, kernel: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv1d(inputs, outputs, kernel, padding=kernel // 2, bias=False),
            nn.BatchNorm1d(outputs),
            nn.LeakyReLU(0.01),
            nn.Conv1d(outputs, outputs, kernel, padding=kernel // 2, bias=False),
            nn.BatchNorm1d(outputs),
            nn.LeakyReLU(0.01),
        )

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.layers(x)
        return result


class _Up(nn.Sequential):
    """Doubling of the time axis; repetition then convolution leaves no checkerboard."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(
            nn.Upsample(scale_factor=2, mode="nearest"),
            nn.Conv1d(inputs, outputs, 3, padding=1),
        )


class RestorationNet(nn.Module):
    """Lead I in, all twelve leads out, in z-scores and in the order I, II, III, aVR … V6.

    Kernels of 9 samples on the way down and 5 on the way up give the paper's three counts.

    Args:
        width: channels of the first level; doubled at each of the three levels below.
        inputs: 1 for the lead that is measured, 12 for a net of any lead, which gets the measured
            ones in their places and zeros elsewhere.

    The time axis must be a multiple of 8 samples.
    """

    def __init__(self, width: int, inputs: int = 1) -> None:
        super().__init__()
        w = [width, 2 * width, 4 * width, 8 * width]
        self.down = nn.ModuleList([_Block(inputs, w[0], 9)])
        self.down.extend(_Block(w[i], w[i + 1], 9) for i in range(3))
        self.pool = nn.MaxPool1d(2)
        self.up = nn.ModuleList(_Up(w[i + 1], w[i]) for i in (2, 1, 0))
        self.merge = nn.ModuleList(_Block(2 * w[i], w[i], 5) for i in (2, 1, 0))
        self.out = nn.Conv1d(w[0], LEADS, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Restore [batch, 12, time] from [batch, inputs, time]."""
        skips: list[Tensor] = []
        for level, block in enumerate(self.down):
            x = block(self.pool(x) if level else x)
            skips.append(x)
        for up, merge, skip in zip(self.up, self.merge, reversed(skips[:-1]), strict=True):
            x = merge(torch.cat((up(x), skip), dim=1))
        result: Tensor = self.out(x)
        return result
