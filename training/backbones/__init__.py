"""The backbones of MVKT-ECG, beside our own convolution-transformer."""

from collections.abc import Callable

from training.backbones.base import Backbone
from training.backbones.resnet1d import resnet1d, resnet1d34
from training.backbones.xresnet1d import xresnet1d50, xresnet1d101
from training.errors import TrainingError

__all__ = ["BACKBONES", "Backbone", "build"]

BACKBONES: dict[str, Callable[[int, int], Backbone]] = {
    "resnet1d": resnet1d,
    "resnet1d34": resnet1d34,
    "xresnet1d50": xresnet1d50,
    "xresnet1d101": xresnet1d101,
}


def build(name: str, leads: int, classes: int) -> Backbone:
    """A backbone with new weights.

    Raises:
        TrainingError: if there is none of that name.
    """
    if name not in BACKBONES:
        raise TrainingError(
            f"backbone: {name!r} is not known; expected one of {', '.join(BACKBONES)}"
        )
    return BACKBONES[name](leads, classes)
