"""Reading YAML strictly: what PyYAML lets pass in silence, or lets through as a traceback.

Mappings are built here from PyYAML's nodes, because what PyYAML itself makes of a merge (``<<``) of
a merged mapping differs from release to release. The rules: https://yaml.org/type/merge.html.
"""

from collections.abc import Hashable
from typing import Any

import yaml

MERGE = "tag:yaml.org,2002:merge"  # of a key << without quotes


class RefusedError(yaml.MarkedYAMLError):
    """What only this module refuses; its text shows nothing of the file but a key."""

    def __init__(self, problem: str, mark: yaml.Mark) -> None:
        super().__init__(problem=problem, problem_mark=mark)
        self.text = f"line {mark.line + 1}, column {mark.column + 1}: {problem}"

    def __str__(self) -> str:
        return self.text


def parse(text: str) -> Any:
    """Construct the document in a text; None if there is none.

    Raises:
        RefusedError: a key is given twice (PyYAML takes the last) or is a list or a mapping, what
            is merged is no mapping, or a value looks like a number or a date and is none.
        yaml.YAMLError: it is not YAML, nests too deeply, or escapes what is no character; the last
            two show nothing of the file.
    """
    try:
        return yaml.load(text, Loader=_Loader)  # noqa: S506 - a SafeLoader, only stricter
    except RecursionError as error:
        raise yaml.YAMLError("nested too deeply") from error
    except (ValueError, OverflowError) as error:  # of chr(), as "\\UFFFFFFFF" is read
        raise yaml.YAMLError("an escape (\\U) that is no character") from error


class _Loader(yaml.SafeLoader):
    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        # PyYAML lets errors of int(), date() and the like through: 2024-13-45, 0x_, !!bool maybe.
        try:
            return super().construct_object(node, deep=deep)
        except (ValueError, LookupError, AttributeError, TypeError, OverflowError):
            raise RefusedError(
                "looks like a number, a date or a tag but is none; put text in quotes",
                node.start_mark,
            ) from None


def _mapping(loader: yaml.SafeLoader, node: yaml.Node) -> dict[Any, Any]:
    """Construct a mapping: its own keys win over merged ones, and of those the first given."""
    if not isinstance(node, yaml.MappingNode):
        raise RefusedError("is no mapping", node.start_mark)
    merged: dict[Any, Any] = {}
    own: dict[Any, Any] = {}
    merges = False
    for key_node, value_node in node.value:
        is_merge = key_node.tag == MERGE
        key = None if is_merge else loader.construct_object(key_node, deep=True)
        if not isinstance(key, Hashable):
            raise RefusedError("a list or a mapping cannot be a key", key_node.start_mark)
        if merges if is_merge else key in own:
            name = repr(key_node.value[:64]) if isinstance(key_node, yaml.ScalarNode) else ""
            raise RefusedError(f"the key {name} is given twice", key_node.start_mark)
        value = loader.construct_object(value_node, deep=True)
        if not is_merge:
            own[key] = value
            continue
        merges = True
        for each in value if isinstance(value, list) else [value]:
            if not isinstance(each, dict):
                raise RefusedError("<< merges a mapping or a list of them", value_node.start_mark)
            merged = each | merged
    return merged | own


_Loader.add_constructor("tag:yaml.org,2002:map", _mapping)
