"""What the backbones share: convolutions, pooling over time, one linear layer."""

from torch import Tensor, nn


class Backbone(nn.Module):
    """A classifier with the methods of ``models.classifier.ConvTransformer``.

    Args:
        convolutions: from [batch, leads, time] to [batch, channels, fewer].
        pooling: from there to [batch, width].
        width: of the pooled features.
        classes: outputs.

    Attributes:
        width: of the pooled features.
    """

    def __init__(
        self, convolutions: nn.Module, pooling: nn.Module, width: int, classes: int
    ) -> None:
        super().__init__()
        self.convolutions = convolutions
        self.pooling = pooling
        self.width = width
        self.out = nn.Linear(width, classes)

    def features(self, x: Tensor) -> Tensor:
        """Pooled features [batch, width] of [batch, leads, time]."""
        result: Tensor = self.pooling(self.convolutions(x))
        return result

    def classify(self, features: Tensor) -> Tensor:
        """Logits [batch, classes] of pooled features [batch, width]."""
        result: Tensor = self.out(features)
        return result

    def forward(self, x: Tensor) -> Tensor:
        """Logits [batch, classes] of z-scored leads [batch, leads, time]."""
        return self.classify(self.features(x))


class Residual(nn.Module):
    """ReLU of a branch plus a shortcut around it (He et al. 2016, equation 2)."""

    def __init__(self, branch: nn.Module, shortcut: nn.Module) -> None:
        super().__init__()
        self.branch = branch
        self.shortcut = shortcut

    def forward(self, x: Tensor) -> Tensor:
        """Both paths must end in one shape."""
        return nn.functional.relu(self.branch(x) + self.shortcut(x))


def convolution(inputs: int, outputs: int, kernel: int, stride: int = 1) -> nn.Sequential:
    """Convolution and batch norm; ceil(time / stride) samples come out, for even kernels too."""
    return nn.Sequential(
        nn.ConstantPad1d(((kernel - 1) // 2, kernel // 2), 0.0),
        nn.Conv1d(inputs, outputs, kernel, stride, bias=False),
        nn.BatchNorm1d(outputs),
    )
