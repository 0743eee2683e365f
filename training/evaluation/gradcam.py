"""Where a network looks: Grad-CAM over time, and saliency over leads."""

import torch
from torch import Tensor, nn


def grad_cam(net: nn.Module, layer: nn.Module, leads: Tensor, target: int) -> Tensor:
    """Grad-CAM (Selvaraju et al. 2017, equations 1 and 2) in one dimension.

    With A_k(t) the output of ``layer`` and y the logit of the class: a_k = mean over t of
    dy/dA_k(t), and the map is ReLU(sum over k of a_k A_k(t)), upsampled linearly. A convolution
    mixes all leads, so that the map has no lead axis: the same heat belongs behind every lead. For
    what each lead contributes see ``lead_saliency``.

    Args:
        net: [batch, leads, time] to logits [batch, classes]; is put into evaluation mode.
        layer: the part of it to look at, with output [batch, channels, tokens]; of a
            ``ConvTransformer`` its ``blocks``.
        leads: [batch, leads, time].
        target: the class's place among the logits.

    Returns:
        [batch, time], 0 where nothing speaks for the class; comparable within a record only, and
        right to half a token at best.
    """
    net.eval()
    kept: list[Tensor] = []
    handle = layer.register_forward_hook(lambda _module, _inputs, output: kept.append(output))
    try:
        total = _total(net, leads.detach().requires_grad_(), target)
    finally:
        handle.remove()
    (activation,) = kept
    (gradient,) = torch.autograd.grad(total, activation)
    weighted = (gradient.mean(dim=2, keepdim=True) * activation.detach()).sum(dim=1, keepdim=True)
    heat = nn.functional.interpolate(
        torch.relu(weighted), leads.shape[2], mode="linear", align_corners=False
    )
    return heat[:, 0]


def lead_saliency(net: nn.Module, leads: Tensor, target: int) -> Tensor:
    """How much each lead bears on the logit of a class.

    Gradient times input (Shrikumar et al. 2016, arXiv 1605.01713), absolute, summed over time.

    Args:
        net: [batch, leads, time] to logits [batch, classes]; is put into evaluation mode.
        leads: [batch, leads, time].
        target: the class's place among the logits.

    Returns:
        [batch, leads], not negative; comparable within a record only.
    """
    net.eval()
    x = leads.detach().requires_grad_()
    (gradient,) = torch.autograd.grad(_total(net, x, target), x)
    return (gradient * x.detach()).abs().sum(dim=2)


def _total(net: nn.Module, leads: Tensor, target: int) -> Tensor:
    # In evaluation mode no record touches another's logit, so that one gradient does for all.
    with torch.enable_grad():
        total: Tensor = net(leads)[:, target].sum()
    return total
