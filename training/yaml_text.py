"""Reading YAML strictly: what PyYAML lets pass in silence, or lets through as a traceback."""

from typing import Any

import yaml


def parse(text: str) -> Any:
    """The document in a text.

    Raises:
        yaml.YAMLError: it is not YAML, gives a key twice (PyYAML takes the last), nests too deeply,
            or has a value that looks like a number or a date and is none.
    """
    try:
        loader = yaml.SafeLoader(text)
        node = loader.get_single_node()
        _check_keys(node, set())
        return None if node is None else loader.construct_document(node)
    except (ValueError, TypeError, LookupError, AttributeError, OverflowError) as error:
        raise yaml.YAMLError(str(error)) from error
    except RecursionError as error:
        raise yaml.YAMLError("nested too deeply") from error


def _check_keys(node: yaml.Node | None, seen: set[int]) -> None:
    """Before anything is constructed, for that resolves merges (<<) within the nodes."""
    if id(node) in seen:  # an alias
        return
    seen.add(id(node))
    if isinstance(node, yaml.MappingNode):
        keys = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        if twice := next((key for key in keys if keys.count(key) > 1), None):
            raise yaml.YAMLError(f"line {node.start_mark.line + 1}: key {twice!r} is given twice")
        for pair in node.value:
            for each in pair:
                _check_keys(each, seen)
    elif isinstance(node, yaml.SequenceNode):
        for each in node.value:
            _check_keys(each, seen)
