"""The network that tells rhythms apart in eight seconds of one lead."""

from typing import Final, cast

import torch
from torch import Tensor, nn

from models.rhythm.frontend import RATE

CLASSES: Final = ("vf", "vt", "asystole", "organised", "noise")
"""What it tells apart, in the order of its outputs; as ``training.rhythm.records.Label``."""

_CHANNELS = (16, 24, 32, 48)
_KERNELS = (9, 7, 5, 5)
_HIDDEN = 48

# Amplitudes in µV: below the first they count in proportion, above it by their logarithm; what is
# beyond 50 times as much is an amplifier's rail, whatever it is.
_SCALE_UV = 50.0
_MOST = 5.0

_LATELY_S = 3.0


class RhythmNet(nn.Module):
    """Convolutions over the signal as it is and as it is beside its own size, then two pools.

    The input is [b, ``SAMPLES``] in µV as ``models.rhythm.frontend`` gives it, the output the
    logits of ``CLASSES``, [b, 5]. One pool is of the whole, one of the last seconds: the rhythm of
    now is asked for.
    """

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        before = 2
        for channels, kernel in zip(_CHANNELS, _KERNELS, strict=True):
            layers += [
                nn.Conv1d(before, channels, kernel, stride=2, padding=kernel // 2, bias=False),
                nn.BatchNorm1d(channels),
                nn.ReLU(),
            ]
            before = channels
        layers += [
            nn.Conv1d(before, before, 5, padding=2, bias=False),
            nn.BatchNorm1d(before),
            nn.ReLU(),
        ]
        self.features = nn.Sequential(*layers)
        self.head = nn.Sequential(
            nn.Linear(4 * before + 2, _HIDDEN),
            nn.ReLU(),
            nn.Dropout(0.3),
            nn.Linear(_HIDDEN, len(CLASSES)),
        )
        self.lately = round(_LATELY_S * RATE)
        self.last = self.lately // 2 ** len(_CHANNELS)

    def forward(self, microvolts: Tensor) -> Tensor:
        """Logits, [b, 5]."""
        scaled = microvolts / _SCALE_UV
        # The inverse hyperbolic sine, in operations that the exporter knows.
        compressed = scaled.sign() * (scaled.abs() + (scaled * scaled + 1.0).sqrt()).log()
        compressed = compressed.clamp(-_MOST, _MOST)
        size = microvolts.square().mean(dim=1, keepdim=True).sqrt() + 1.0
        shape = (microvolts / size).clamp(-6.0, 6.0)
        features = self.features(torch.stack((compressed, shape), dim=1))
        last = features[:, :, -self.last :]
        lately = microvolts[:, -self.lately :].square().mean(dim=1, keepdim=True).sqrt() + 1.0
        pooled = torch.cat(
            (
                features.mean(dim=2),
                features.amax(dim=2),
                last.mean(dim=2),
                last.amax(dim=2),
                torch.log(size).clamp(0.0, 9.0) / 3.0,
                torch.log(lately / size),
            ),
            dim=1,
        )
        return cast("Tensor", self.head(pooled))
