"""Reads what a model is shipped with: a manifest in YAML, and the graph that it was written for."""

import hashlib
from pathlib import Path
from typing import TypeVar

import yaml
from pydantic import BaseModel, ValidationError

_Manifest = TypeVar("_Manifest", bound=BaseModel)


class ManifestError(Exception):
    """A manifest or graph that cannot be used; one line names the file and what was expected."""


def parse_manifest(path: Path, text: str, kind: type[_Manifest]) -> _Manifest:
    """Parse and check a manifest.

    Args:
        path: where it was read from, for messages.
        text: what stands there.
        kind: what it is to be.

    Raises:
        ManifestError: it is no YAML, or of another form.
    """
    try:
        return kind.model_validate(yaml.load(text, yaml.CSafeLoader))
    except yaml.MarkedYAMLError as e:
        mark = e.problem_mark or e.context_mark
        place = f"line {mark.line + 1}: " if mark else ""
        raise ManifestError(f"{path}: not YAML: {place}{e.problem}") from e
    except yaml.YAMLError as e:
        raise ManifestError(f"{path}: not YAML: {' '.join(str(e).split())}") from e
    except ValidationError as e:
        first = e.errors()[0]
        place = ".".join(str(p) for p in first["loc"])
        raise ManifestError(f"{path}: {place or 'document'}: {first['msg']}") from e
    except (ValueError, LookupError, RecursionError) as e:
        # PyYAML lets errors of int(), date() and the like through: 2024-13-45, 0x_.
        raise ManifestError(f"{path}: not YAML: {' '.join(str(e).split())}") from e


def read_graph(path: Path, digest: str, manifest: str) -> bytes:
    """Read a graph and hold it against its manifest.

    Args:
        path: of the graph.
        digest: its SHA-256 as the manifest has it, in hexadecimal digits.
        manifest: name of the manifest's file, for messages.

    Raises:
        ManifestError: it is missing, or not the one that the manifest was written for.
    """
    try:
        graph = path.read_bytes()
    except OSError as e:
        raise ManifestError(f"{path}: cannot be read: {e.strerror}") from e
    found = hashlib.sha256(graph).hexdigest()
    if found != digest:
        raise ManifestError(
            f"{path}: not the graph {manifest} was written for "
            f"(SHA-256 {found[:12]}…, expected {digest[:12]}…)"
        )
    return graph
