"""The distillation methods, one module each; a module put here is found by itself."""

import importlib
import pkgutil

from training.losses.base import Distillation, Outputs, Shape, Targets

__all__ = ["Distillation", "Outputs", "Shape", "Targets", "methods"]


def methods() -> dict[str, type[Distillation]]:
    """Every method of this package, by name."""
    for module in pkgutil.iter_modules(__path__):
        importlib.import_module(f"{__name__}.{module.name}")
    found: dict[str, type[Distillation]] = {}
    pending: list[type[Distillation]] = [*Distillation.__subclasses__()]
    while pending:
        kind = pending.pop()
        pending.extend(kind.__subclasses__())
        if "name" in vars(kind):
            found[kind.name] = kind
    return dict(sorted(found.items()))
