"""Builds the networks a run names, and loads what a finished run left."""

from collections.abc import Sequence
from pathlib import Path

import structlog
from torch import Tensor, nn

from models.classifier import SIZES, ConvTransformer
from models.leads import LEADS
from models.restoration import WIDTHS, RestorationNet
from training.backbones import BACKBONES, build
from training.config import ANY, CONFIG, RunConfig, load_config, read_made
from training.errors import TrainingError
from training.fit import BEST, device, read_weights

# The weights of a restoration net that read its input.
_READS = "down.0.layers.0.weight"
# The layer that gives the verdicts.
_VERDICTS = "out."
_log = structlog.get_logger()


def classifier(config: RunConfig, classes: int) -> nn.Module:
    """A classifier of twelve leads: one of ours at some size, or a backbone of MVKT-ECG.

    Raises:
        TrainingError: if ``size`` names neither.
    """
    if config.size in SIZES:
        return ConvTransformer(SIZES[config.size], len(LEADS), classes, config.strides)
    if config.size in BACKBONES:
        return build(config.size, len(LEADS), classes)
    known = ", ".join([*SIZES, *BACKBONES])
    raise TrainingError(f"size: {config.size!r} is not known; expected one of {known}")


def load_classifier(run: Path) -> tuple[nn.Module, tuple[str, ...]]:
    """The classifier of a finished run, fixed, and its classes."""
    config = load_config(run / CONFIG)
    classes = tuple(read_made(run)["classes"])
    net = classifier(config, len(classes))
    return _fixed(net, run, read_weights(run)), classes


def load_restoration(run: Path, lead: str) -> RestorationNet:
    """The restoration net of a finished run, fixed, for the one lead that it is to read.

    A net of any lead multiplies zeros where nothing is measured, so that what reads the others can
    be left out.

    Raises:
        TrainingError: if the run is not trained, or restores from another lead.
    """
    config = load_config(run / CONFIG)
    if config.lead not in {lead, ANY}:
        raise TrainingError(
            f"restoration: {run} restores from lead {config.lead}; expected lead {lead}"
        )
    net = RestorationNet(WIDTHS[config.size])
    weights = read_weights(run)
    if config.lead == ANY:
        place = LEADS.index(lead)
        weights[_READS] = weights[_READS][:, place : place + 1]
    _fixed(net, run, weights)
    return net


def width_of(net: nn.Module) -> int:
    """The width of a classifier's pooled features."""
    width = net.width
    assert isinstance(width, int)
    return width


def start_from(net: nn.Module, run: Path, classes: Sequence[str]) -> None:
    """Give a network the weights of a finished run; a class that is new there begins anew.

    The layer that reads the input of a restoration net begins anew too, where one lead was read and
    now any of twelve is, or the other way about.

    Args:
        net: the network.
        run: whose weights it takes up.
        classes: what the network tells apart.

    Raises:
        TrainingError: if the run is not trained, or another layer does not fit.
    """
    own, saved = net.state_dict(), read_weights(run)
    before = read_made(run)["classes"]
    for name in own.keys() & saved.keys():
        if before and name.startswith(_VERDICTS):
            saved[name] = _by_class(own[name], classes, saved[name], before)
    fit = {k: v for k, v in saved.items() if k in own and own[k].shape == v.shape}
    left = sorted(own.keys() - fit.keys())
    if strange := [name for name in left if name != _READS]:
        raise TrainingError(
            f"start: {run}: its weights do not fit this network ({len(strange)} of {len(own)}, "
            f"such as {strange[0]}); expected a run of the same kind and size"
        )
    anew = left + [name for name in classes if name not in before]
    _log.info("started from", run=str(run), weights=len(fit), anew=anew)
    net.load_state_dict({**own, **fit})


def _by_class(own: Tensor, classes: Sequence[str], saved: Tensor, before: Sequence[str]) -> Tensor:
    """Rows of a layer of verdicts for ``classes``: what is saved of those ``before``, else own."""
    if own.shape[1:] != saved.shape[1:]:
        return saved
    weight = own.clone()
    for place, name in enumerate(classes):
        if name in before:
            weight[place] = saved[before.index(name)]
    return weight


def _fixed(net: nn.Module, run: Path, weights: dict[str, Tensor]) -> nn.Module:
    try:
        net.load_state_dict(weights)
    except RuntimeError as error:
        raise TrainingError(f"{run / BEST}: {' '.join(str(error).split())[:200]}") from error
    return net.to(device()).eval().requires_grad_(requires_grad=False)
