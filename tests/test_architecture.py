"""Imports point one way, and a gateway needs no training libraries."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MAY_IMPORT: dict[str, set[str]] = {
    "ingest": set(),
    "models": set(),
    "alerts": set(),
    "monitor": {"ingest", "models", "alerts"},
    "training": {"models", "ingest"},
}
# The networks as torch modules: what training builds and the exporter reads.
TORCH = {"models.classifier", "models.restoration", "models.system"}


def imported(source: str, module: str, *, is_package: bool = False) -> Iterator[tuple[int, str]]:
    """Line and absolute name of everything ``module`` imports, inside functions too."""
    here = module.split(".") if is_package else module.split(".")[:-1]
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Import():
                for alias in node.names:
                    yield node.lineno, alias.name
            case ast.ImportFrom():
                base = here[: len(here) - node.level + 1] if node.level else []
                prefix = ".".join([*base, *([node.module] if node.module else [])])
                for alias in node.names:
                    yield node.lineno, f"{prefix}.{alias.name}".lstrip(".")
            case ast.Call(
                func=ast.Attribute(attr="import_module")
                | ast.Name(id="import_module" | "__import__"),
                args=[ast.Constant(value=str(name)), *_],
            ):
                yield node.lineno, name


def modules(package: str) -> Iterator[tuple[str, Path]]:
    for path in sorted((ROOT / package).rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        yield ".".join(parts[:-1] if parts[-1] == "__init__" else parts), path


def violations(source: str, module: str, *, is_package: bool = False) -> list[str]:
    package = module.partition(".")[0]
    allowed = MAY_IMPORT[package] | {package}
    return [
        f"{module}:{line} imports {name}"
        for line, name in imported(source, module, is_package=is_package)
        if (top := name.partition(".")[0]) in MAY_IMPORT and top not in allowed
    ]


@pytest.mark.parametrize("package", MAY_IMPORT)
def test_imports_point_one_way(package: str) -> None:
    found = list(modules(package))
    assert found
    assert [
        violation
        for module, path in found
        for violation in violations(
            path.read_text(encoding="utf-8"), module, is_package=path.name == "__init__.py"
        )
    ] == []


@pytest.mark.parametrize(
    ("module", "line", "allowed"),
    [
        ("monitor.daemon", "from alerts.engine import Engine", True),
        ("monitor.daemon", "import training.stages", False),
        ("alerts.engine", "from monitor.results import WindowResult", False),
        ("alerts.engine", "import models", False),
        ("models.runtime", "def f():\n    from ingest import chunk", False),
        ("models.runtime", "from . import bundle", True),
        ("models.runtime", "from .. import ingest", False),
        ("ingest.ble.link", "from ..chunk import Chunk", True),
        ("ingest.ble.link", "importlib.import_module('models.runtime')", False),
        ("training.data", "from ingest.recordings import read", True),
        ("training.data", "from monitor import beats", False),
    ],
)
def test_the_walk_sees_what_it_should(module: str, line: str, allowed: bool) -> None:
    assert (violations(line, module) == []) is allowed


def runtime_modules() -> list[str]:
    return [
        module
        for package in ("ingest", "models", "alerts", "monitor")
        for module, path in modules(package)
        # Alembic runs the migrations itself, and a __main__ runs when imported.
        if module not in TORCH and "migrations" not in path.parts and path.name != "__main__.py"
    ]


@pytest.mark.parametrize("library", ["torch", "scipy", "sklearn"])
def test_no_runtime_module_names_a_training_library(library: str) -> None:
    # Stricter than what follows: an import inside a function would only be met at night.
    assert [
        f"{module}:{line}"
        for package in ("ingest", "models", "alerts", "monitor")
        for module, path in modules(package)
        if module not in TORCH
        for line, name in imported(path.read_text(encoding="utf-8"), module)
        if name.partition(".")[0] == library
    ] == []


def test_the_daemon_loads_neither_torch_nor_scipy() -> None:
    names = runtime_modules()
    assert "models.vocabulary" in names
    program = (
        "import importlib, sys\n"
        "for name in sys.argv[1:]: importlib.import_module(name)\n"
        "print(*sorted({'torch', 'scipy', 'sklearn'} & set(sys.modules)))\n"
    )
    loaded = subprocess.run(
        [sys.executable, "-c", program, *names],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert loaded.returncode == 0, loaded.stderr
    assert loaded.stdout.split() == []
