"""Teacher and student: one convolution-transformer at several sizes (LiteHeart, section 4.5).

Three residual convolution blocks, sinusoidal positions, pre-norm transformer layers, max-pooling
over time, two linear layers.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True, slots=True)
class Size:
    """Width and depth: 50.50 M parameters for the teacher, 0.258 to 1.60 M for the students.

    ``teacher-256`` (9.5 M) is the teacher for machines without a GPU.
    """

    dimension: int
    layers: int
    heads: int


SIZES = {
    "teacher": Size(512, 12, 8),
    "teacher-256": Size(256, 8, 8),
    "base": Size(128, 4, 4),
    "small": Size(96, 5, 4),
    "tiny": Size(64, 1, 4),
}


class _Residual(nn.Module):
    """Two convolutions of kernel 9, the first strided; shortcut by average pooling and 1x1."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv1d(inputs, outputs, 9, stride, padding=4),
            nn.BatchNorm1d(outputs),
            nn.LeakyReLU(0.01),
            nn.Conv1d(outputs, outputs, 9, padding=4),
            nn.BatchNorm1d(outputs),
        )
        self.shortcut = nn.Sequential(
            nn.AvgPool1d(stride, stride, ceil_mode=True), nn.Conv1d(inputs, outputs, 1)
        )
        self.activation = nn.LeakyReLU(0.01)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.activation(self.layers(x) + self.shortcut(x))
        return result


class _Attention(nn.Module):
    """Multi-head self-attention (Vaswani et al. 2017, equation 1), written out for export."""

    def __init__(self, dimension: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.project = nn.Linear(dimension, 3 * dimension)
        self.out = nn.Linear(dimension, dimension)
        self.dropout = dropout

    def forward(self, x: Tensor) -> Tensor:
        batch, time, dimension = x.shape
        shape = (batch, time, 3, self.heads, dimension // self.heads)
        q, k, v = self.project(x).reshape(shape).permute(2, 0, 3, 1, 4).unbind(0)
        attended = nn.functional.scaled_dot_product_attention(
            q, k, v, dropout_p=self.dropout if self.training else 0.0
        )
        result: Tensor = self.out(attended.transpose(1, 2).reshape(batch, time, dimension))
        return result


class _Layer(nn.Module):
    """Pre-norm transformer layer, feed-forward of four times the width."""

    def __init__(self, dimension: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.norm_attention = nn.LayerNorm(dimension)
        self.attention = _Attention(dimension, heads, dropout)
        self.norm_feed = nn.LayerNorm(dimension)
        self.feed = nn.Sequential(
            nn.Linear(dimension, 4 * dimension),
            nn.LeakyReLU(0.01),
            nn.Dropout(dropout),
            nn.Linear(4 * dimension, dimension),
        )
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.dropout(self.attention(self.norm_attention(x)))
        result: Tensor = x + self.dropout(self.feed(self.norm_feed(x)))
        return result


class ConvTransformer(nn.Module):
    """Leads in, one logit per class out.

    Args:
        size: width and depth.
        leads: input leads.
        classes: outputs.
        strides: of the three convolution blocks. 4·4·4 at 500 Hz (the paper) is a token each
            0.128 s, 4·4·2 at 100 Hz one each 0.32 s, 2·2·4 one each 0.16 s.
        dropout: in the transformer layers and before the last linear layer.

    Attributes:
        width: of the pooled features.
        strides: as given.
    """

    positions: Tensor

    def __init__(
        self,
        size: Size,
        leads: int,
        classes: int,
        strides: tuple[int, int, int] = (4, 4, 2),
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        d = size.dimension
        self.width = d
        self.strides = strides
        self.blocks = nn.Sequential(
            _Residual(leads, d, strides[0]),
            _Residual(d, d, strides[1]),
            _Residual(d, d, strides[2]),
        )
        self.layers = nn.Sequential(*(_Layer(d, size.heads, dropout) for _ in range(size.layers)))
        self.hidden = nn.Linear(d, d)
        self.activation = nn.LeakyReLU(0.01)
        self.dropout = nn.Dropout(dropout)
        self.out = nn.Linear(d, classes)
        self.register_buffer("positions", _sinusoids(1024, d), persistent=False)

    def tokens(self, x: Tensor) -> Tensor:
        """Features of each stretch of time [batch, tokens, d] of [batch, leads, time]."""
        tokens = self.blocks(x).transpose(1, 2)
        result: Tensor = self.layers(tokens + self.positions[: tokens.shape[1]])
        return result

    def features(self, x: Tensor) -> Tensor:
        """Pooled features [batch, d] of [batch, leads, time]."""
        return torch.amax(self.tokens(x), dim=1)

    def classify(self, features: Tensor) -> Tensor:
        """Logits [batch, classes] of pooled features [batch, d]."""
        result: Tensor = self.out(self.dropout(self.activation(self.hidden(features))))
        return result

    def forward(self, x: Tensor) -> Tensor:
        """Logits [batch, classes] of z-scored leads [batch, leads, time]."""
        return self.classify(self.features(x))


def _sinusoids(length: int, dimension: int) -> Tensor:
    """Sinusoidal positions (Vaswani et al. 2017, section 3.5), [length, dimension]."""
    position = torch.arange(length, dtype=torch.float32)[:, None]
    frequency = torch.exp(
        torch.arange(0, dimension, 2, dtype=torch.float32) * (-math.log(10000.0) / dimension)
    )
    table = torch.empty(length, dimension)
    table[:, 0::2] = torch.sin(position * frequency)
    table[:, 1::2] = torch.cos(position * frequency)
    return table
