"""Reading YAML strictly: what PyYAML lets pass in silence, or lets through as a traceback."""

from typing import Any

import yaml


def parse(text: str) -> Any:
    """The document in a text.

    Raises:
        yaml.YAMLError: it is not YAML, gives a key twice, nests too deeply, or has a value that
            looks like a number or a date and is none.
    """
    try:
        return yaml.load(text, _Loader)  # noqa: S506  (a SafeLoader, only stricter)
    except (ValueError, TypeError, LookupError, AttributeError, OverflowError) as error:
        raise yaml.YAMLError(str(error)) from error
    except RecursionError as error:
        raise yaml.YAMLError("nested too deeply") from error


class _Loader(yaml.SafeLoader):
    """Refuses a key given twice, of which PyYAML takes the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        if twice := next((key for key in keys if keys.count(key) > 1), None):
            raise yaml.YAMLError(f"line {node.start_mark.line + 1}: key {twice!r} is given twice")
        mapping: dict[Any, Any] = super().construct_mapping(node, deep=deep)
        return mapping
