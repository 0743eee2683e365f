"""Rewrites a trained system so that ONNX Runtime is quick with it; what it computes stays the same.

The runtime has its fastest convolution only for planes and for channels in sixteens, and computes
shapes and copies transposed matrices at every inference where it is not told better. So before
export widths are filled up with channels of zeros, the time axis becomes a plane of height one, and
attention is written for a known length with its transpositions inside the products.
"""

import copy
from typing import Any

import onnx
import torch
from torch import Tensor, nn

from models.restoration import RestorationNet
from models.system import LeadOneSystem

_BLOCK = 16


def optimized(system: LeadOneSystem, length: int) -> nn.Module:
    """The same function of float32 [batch, 1, ``length``], as another network; for export only.

    Args:
        system: left as it is.
        length: samples of the input, from now on fixed.
    """
    network: Any = copy.deepcopy(system).eval()
    student = network.student
    tokens = student.blocks(torch.zeros(1, student.blocks[0].layers[0].in_channels, length)).shape[
        2
    ]
    for layer in student.layers:
        layer.attention = _Attention(layer.attention, tokens)
    student.blocks = _Plane(student.blocks)
    network.restoration = _Plane(_widened(network.restoration))
    return network  # type: ignore[no-any-return]


def unceil_pools(graph: onnx.ModelProto) -> None:
    """Replace rounding up by the padding that it stands for in all average pools of a graph.

    An incomplete last window is averaged over the samples it has, either way; only the runtime's
    fast pooling does not round up, and PyTorch cannot pad at one end.
    """
    shapes = {
        value.name: [d.dim_value for d in value.type.tensor_type.shape.dim]
        for value in onnx.shape_inference.infer_shapes(graph).graph.value_info
    }
    shapes |= {
        value.name: [d.dim_value for d in value.type.tensor_type.shape.dim]
        for value in graph.graph.output
    }
    for node in graph.graph.node:
        if node.op_type != "AveragePool":
            continue
        attributes = {a.name: a for a in node.attribute}
        stride = attributes["strides"].ints[-1]
        assert attributes["kernel_shape"].ints[-1] == stride
        attributes["ceil_mode"].i = 0
        attributes["count_include_pad"].i = 0
        attributes["pads"].ints[-1] = -shapes[node.input[0]][-1] % stride


class _Plane(nn.Module):
    """A network over time as one over planes of height one."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = _in_planes(network)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.network(x.unsqueeze(2)).squeeze(2)
        return result


def _in_planes(module: nn.Module) -> nn.Module:
    planar: nn.Module
    match module:
        case nn.Conv1d(kernel_size=(kernel,), stride=(stride,), padding=(int(padding),)):
            planar = nn.Conv2d(
                module.in_channels,
                module.out_channels,
                (1, kernel),
                (1, stride),
                (0, padding),
                bias=module.bias is not None,
            )
            weights = module.state_dict()
            planar.load_state_dict(weights | {"weight": weights["weight"][:, :, None]})
        case nn.BatchNorm1d():
            planar = nn.BatchNorm2d(module.num_features, module.eps)
            planar.load_state_dict(module.state_dict())
        case nn.MaxPool1d(kernel_size=int(size)):
            planar = nn.MaxPool2d((1, size))
        case nn.AvgPool1d(kernel_size=(size,), ceil_mode=ceil):
            planar = nn.AvgPool2d((1, size), ceil_mode=ceil)
        case nn.Upsample(scale_factor=float(factor), mode=mode):
            planar = nn.Upsample(scale_factor=(1.0, factor), mode=mode)
        case _:
            for name, child in module.named_children():
                setattr(module, name, _in_planes(child))
            planar = module
    return planar.eval()


def _widened(net: RestorationNet) -> RestorationNet:
    """The same net with channels of zeros to the next multiple of sixteen."""
    wide = RestorationNet(-(-net.out.in_channels // _BLOCK) * _BLOCK).eval()
    weights = net.state_dict()
    for name, room in wide.state_dict().items():
        given = weights[name]
        # A channel more has scale and offset 0, so that whatever it reads it says 0.
        room.fill_(1 if name.endswith("running_var") else 0)
        if name.startswith("merge.") and name.endswith(".layers.0.weight"):
            # It reads two tensors put together, and each has got wider.
            for part, into in zip(given.chunk(2, dim=1), room.chunk(2, dim=1), strict=True):
                into[: part.shape[0], : part.shape[1]] = part
        else:
            room[tuple(slice(n) for n in given.shape)] = given
    return wide


class _Attention(nn.Module):
    """Self-attention over a known number of tokens.

    The scale is in the queries. The keys' bias adds the same to all scores of a query, which
    softmax takes away again; the values' bias passes through it, for its weights add up to one, and
    so goes into that of the output.
    """

    def __init__(self, attention: Any, tokens: int) -> None:
        super().__init__()
        dimension = attention.out.in_features
        self.shape = (-1, attention.heads, dimension // attention.heads, tokens)
        self.joined = (-1, dimension, tokens)
        query, key, value = attention.project.weight.detach().chunk(3)
        query_bias, _, value_bias = attention.project.bias.detach().chunk(3)
        out, out_bias = attention.out.weight.detach(), attention.out.bias.detach()
        scale = self.shape[2] ** -0.5
        self.query = nn.Parameter(scale * query)
        self.query_bias = nn.Parameter(scale * query_bias[:, None])
        self.key = nn.Parameter(key)
        self.value = nn.Parameter(value)
        self.out = nn.Parameter(out.T.contiguous())
        self.out_bias = nn.Parameter(out_bias + out @ value_bias)

    def forward(self, x: Tensor) -> Tensor:
        columns = x.transpose(1, 2)
        query = (self.query @ columns + self.query_bias).reshape(self.shape)
        key = (self.key @ columns).reshape(self.shape)
        value = (self.value @ columns).reshape(self.shape)
        weights = torch.softmax(query.transpose(2, 3) @ key, dim=-1)
        attended = (value @ weights.transpose(2, 3)).reshape(self.joined)
        return attended.transpose(1, 2) @ self.out + self.out_bias
