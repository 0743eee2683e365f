"""Reading a YAML file that people wrote: strictly, and with a place for every complaint."""

import re
from pathlib import Path
from typing import Any

import yaml

from monitor.config.problems import ConfigError

# A configuration that is larger is some other file.
MAX_BYTES = 1_000_000


def read_mapping(path: Path) -> dict[Any, Any]:
    """Read a YAML file whose top level is a mapping.

    Raises:
        ConfigError: one line that begins with the path; it shows no value from the file.
    """
    problem, mapping = _read(path)
    # Raised here, where no other exception is being handled: theirs may quote the file, and a
    # logged traceback would show them.
    if mapping is None:
        raise ConfigError([f"{path}: {problem}"])
    return mapping


def _read(path: Path) -> tuple[str, dict[Any, Any] | None]:
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except OSError as error:
        return f"cannot be read: {error.strerror}", None
    except ValueError:
        return "is not a path", None
    if len(content) > MAX_BYTES:
        return f"is larger than {MAX_BYTES // 1_000_000} MB; is this the configuration?", None
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        return f"line {line}: is not UTF-8 text", None
    return _parse(text)


def _parse(text: str) -> tuple[str, dict[Any, Any] | None]:
    try:
        document = yaml.load(text, Loader=_Loader)  # noqa: S506 - a SafeLoader, only stricter
    except yaml.MarkedYAMLError as error:
        return _syntax_problem(error), None
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        return f"line {line}: a character that YAML does not allow", None
    except RecursionError:
        return "is nested too deeply", None
    if document is None:
        return "is empty", None
    if not isinstance(document, dict):
        return "expected a mapping (key: value) at the top", None
    return "", document


def _syntax_problem(error: yaml.MarkedYAMLError) -> str:
    mark = error.problem_mark or error.context_mark
    place = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
    if isinstance(error, _RefusedError):
        return f"{place}{error.problem}"
    # PyYAML quotes single characters, its own <tokens>, and sometimes a word of the file, which may
    # be part of a password; words are left out.
    words = re.sub(r"""(['"])(.+?)\1""", _without_words, error.problem or "not valid YAML")
    return f"{place}{words}"


def _without_words(quoted: re.Match[str]) -> str:
    return quoted[0] if re.fullmatch(r"<[a-z ]+>|\\?.", quoted[2]) else "…"


class _RefusedError(yaml.MarkedYAMLError):
    """What only this module refuses; its text shows nothing but a key."""


class _Loader(yaml.SafeLoader):
    """Refuses what people never mean (a key given twice) and what can blow up (aliases)."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            raise _RefusedError(
                problem="aliases (*name) are not supported; put text with a * in quotes",
                problem_mark=self.get_event().start_mark,  # type: ignore[no-untyped-call]
            )
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        mapping: dict[Any, Any] = super().construct_mapping(node, deep=deep)
        seen = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if key in seen:
                name = repr(key_node.value[:64]) if isinstance(key_node, yaml.ScalarNode) else ""
                raise _RefusedError(
                    problem=f"the key {name} is given twice",
                    problem_mark=key_node.start_mark,
                )
            seen.add(key)
        return mapping

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        # PyYAML lets errors of int(), date() and the like through: 2024-13-45, 0x_, !!bool maybe.
        try:
            return super().construct_object(node, deep=deep)
        except (ValueError, LookupError, AttributeError, TypeError, OverflowError):
            raise _RefusedError(
                problem="looks like a number, a date or a tag but is none; put text in quotes",
                problem_mark=node.start_mark,
            ) from None
