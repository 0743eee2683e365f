"""Residual networks in one dimension: Wang's and ResNet-34."""

from torch import nn

from training.backbones.base import Backbone, Residual, convolution


def resnet1d(leads: int, classes: int) -> Backbone:
    """ResNet1d_wang: three blocks of kernels 8, 5 and 3 (Wang et al., IJCNN 2017, section II-C).

    As in MVKT-ECG its features are 128 wide. It keeps to 128 channels throughout and halves time in
    the second and third block, as in the benchmark that named it (Strodthoff et al. 2021); Wang's
    own begins with 64 channels and keeps all samples.
    """
    blocks: list[nn.Module] = [_block(leads, 128, (8, 5, 3), 1)]
    blocks += [_block(128, 128, (8, 5, 3), 2) for _ in range(2)]
    return _averaged(blocks, 128, classes)


def resnet1d34(leads: int, classes: int) -> Backbone:
    """ResNet-34 (He et al. 2016, table 1) with kernels of 7 and 3 samples; features 512 wide."""
    layers: list[nn.Module] = [convolution(leads, 64, 7, 2), nn.ReLU(), nn.MaxPool1d(3, 2, 1)]
    inputs = 64
    for stage, blocks in enumerate((3, 4, 6, 3)):
        width = 64 * 2**stage
        for block in range(blocks):
            layers.append(_block(inputs, width, (3, 3), 2 if stage and not block else 1))
            inputs = width
    return _averaged(layers, 512, classes)


def _block(inputs: int, outputs: int, kernels: tuple[int, ...], stride: int) -> Residual:
    """Convolutions in a row, the first strided, and a shortcut that fits."""
    branch: list[nn.Module] = [convolution(inputs, outputs, kernels[0], stride)]
    for kernel in kernels[1:]:
        branch += [nn.ReLU(), convolution(outputs, outputs, kernel)]
    fits = inputs == outputs and stride == 1
    return Residual(
        nn.Sequential(*branch), nn.Identity() if fits else convolution(inputs, outputs, 1, stride)
    )


def _averaged(layers: list[nn.Module], width: int, classes: int) -> Backbone:
    pooling = nn.Sequential(nn.AdaptiveAvgPool1d(1), nn.Flatten())
    return Backbone(nn.Sequential(*layers), pooling, width, classes)
