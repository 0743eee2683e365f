"""Reading a YAML file that people wrote: strictly, and with a place for every complaint."""

import re
from pathlib import Path
from typing import Any

import yaml

from models.yaml_text import RefusedError, parse
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
        _refuse_aliases(text)
        document = parse(text)
    except yaml.MarkedYAMLError as error:
        return _syntax_problem(error), None
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        return f"line {line}: a character that YAML does not allow", None
    except yaml.YAMLError as error:
        return f"is not YAML: {error}", None
    if document is None:
        return "is empty", None
    if not isinstance(document, dict):
        return "expected a mapping (key: value) at the top", None
    return "", document


def _refuse_aliases(text: str) -> None:
    """Refuse them: they can blow up, and a * that begins a text is hardly ever meant as one."""
    try:
        events = yaml.parse(text, Loader=yaml.SafeLoader)
        alias = next((e for e in events if isinstance(e, yaml.AliasEvent)), None)
    except (yaml.YAMLError, ValueError, OverflowError):
        return  # a syntax error before any alias; whoever parses meets it again
    if alias:
        assert isinstance(alias.start_mark, yaml.Mark)
        raise RefusedError(
            "aliases (*name) are not supported; put text with a * in quotes", alias.start_mark
        )


def _syntax_problem(error: yaml.MarkedYAMLError) -> str:
    if isinstance(error, RefusedError):
        return str(error)
    mark = error.problem_mark or error.context_mark
    place = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
    # PyYAML quotes single characters, its own <tokens>, and sometimes a word of the file, which may
    # be part of a password; words are left out.
    words = re.sub(r"""(['"])(.+?)\1""", _without_words, error.problem or "not valid YAML")
    return f"{place}{words}"


def _without_words(quoted: re.Match[str]) -> str:
    return quoted[0] if re.fullmatch(r"<[a-z ]+>|\\?.", quoted[2]) else "…"
