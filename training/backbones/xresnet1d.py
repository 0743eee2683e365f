"""XResNet in one dimension (He et al. 2019; for ECG, Strodthoff et al. 2021)."""

import torch
from torch import Tensor, nn

from training.backbones.base import Backbone, Residual, convolution

_KERNEL = 5
_EXPANSION = 4


def xresnet1d50(leads: int, classes: int) -> Backbone:
    """Stages of 3, 4, 6 and 3 bottlenecks; features 4096 wide."""
    return _xresnet1d(leads, classes, (3, 4, 6, 3))


def xresnet1d101(leads: int, classes: int) -> Backbone:
    """Stages of 3, 4, 23 and 3 bottlenecks; features 4096 wide, as in MVKT-ECG's preprint.

    (The journal article says 2048, which is what the average alone would give.)
    """
    return _xresnet1d(leads, classes, (3, 4, 23, 3))


def _xresnet1d(leads: int, classes: int, stages: tuple[int, ...]) -> Backbone:
    """The ResNet of "Bag of tricks" with its tweaks B, C and D (section 4), kernels of 5 samples.

    B: a bottleneck strides in its middle convolution. C: the stem is three convolutions. D: a
    strided shortcut averages before its 1x1 convolution. The last batch norm of each branch starts
    at 0 (section 3.1), so that a block starts as its shortcut.
    """
    layers: list[nn.Module] = []
    inputs = leads
    for outputs, stride in ((32, 2), (32, 1), (64, 1)):
        layers += [convolution(inputs, outputs, _KERNEL, stride), nn.ReLU()]
        inputs = outputs
    layers.append(nn.MaxPool1d(3, 2, 1))
    for stage, blocks in enumerate(stages):
        width = 64 * 2**stage
        for block in range(blocks):
            layers.append(_bottleneck(inputs, width, 2 if stage and not block else 1))
            inputs = width * _EXPANSION
    return Backbone(nn.Sequential(*layers), _ConcatPool(), 2 * inputs, classes)


def _bottleneck(inputs: int, width: int, stride: int) -> Residual:
    outputs = width * _EXPANSION
    last = convolution(width, outputs, 1)
    nn.init.zeros_(last[-1].weight)  # type: ignore[arg-type]
    branch = nn.Sequential(
        convolution(inputs, width, 1),
        nn.ReLU(),
        convolution(width, width, _KERNEL, stride),
        nn.ReLU(),
        last,
    )
    shortcut: list[nn.Module] = []
    if stride != 1:
        shortcut.append(nn.AvgPool1d(stride, stride, ceil_mode=True))
    if inputs != outputs:
        shortcut.append(convolution(inputs, outputs, 1))
    return Residual(branch, nn.Sequential(*shortcut))


class _ConcatPool(nn.Module):
    """Maximum and mean over time, side by side: [batch, 2 * channels]."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat((torch.amax(x, dim=2), torch.mean(x, dim=2)), dim=1)
