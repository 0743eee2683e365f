"""Saying what is wrong with a configuration so that it can be put right: one line per problem."""

import difflib
import re
from collections.abc import Iterable, Sequence
from typing import Any

from pydantic import ValidationError

JsonSchema = dict[str, Any]


class ConfigError(Exception):
    """The configuration cannot be used.

    Attributes:
        problems: one line each, which names the file and the place in it; none shows a secret.
    """

    def __init__(self, problems: Iterable[str]) -> None:
        self.problems = tuple(" ".join(problem.splitlines()) for problem in problems)
        super().__init__("\n".join(self.problems))


class InconsistentError(ValueError):
    """Several problems found by one check, as (place relative to the checked part, text)."""

    def __init__(self, problems: Sequence[tuple[str, str]]) -> None:
        super().__init__("; ".join(f"{place}: {text}" for place, text in problems))
        self.problems = tuple(problems)


def suggest(wrong: str, known: Iterable[str]) -> str:
    """``; did you mean 'alarms'?``, or nothing when no known word is near."""
    near = difflib.get_close_matches(wrong, list(known), n=1)
    return f"; did you mean {near[0]!r}?" if near else ""


def explain(error: ValidationError, schema: JsonSchema) -> list[str]:
    """Turn what pydantic found into lines such as ``patients[0].alarm: unknown key; did you …``.

    Args:
        error: what was found.
        schema: JSON schema of the validated model, which knows what was expected at each place.
    """
    lines: list[str] = []
    for found in error.errors(include_url=False, include_input=False):
        place, node = _locate(found["loc"], schema)
        cause = found.get("ctx", {}).get("error")
        if isinstance(cause, InconsistentError):
            lines += [f"{_join(place, inner)}: {text}" for inner, text in cause.problems]
        elif found["type"] in ("union_tag_invalid", "union_tag_not_found"):
            tags = node.get("discriminator", {}).get("mapping", {})
            hint = suggest(found.get("ctx", {}).get("tag", ""), tags)
            lines.append(f"{place}.type: expected one of {', '.join(tags)}{hint}")
        elif found["type"] == "extra_forbidden":
            parent = _locate(found["loc"][:-1], schema)[1]
            known = parent.get("properties", {})
            hint = suggest(str(found["loc"][-1]), known)
            lines.append(f"{place}: unknown key{hint or '; known keys are ' + ', '.join(known)}")
        else:
            text = _text(found["type"], found["msg"], found.get("ctx", {}), node)
            lines.append(f"{place}: {text}" if place else text)
    return lines


_EXPECTED = {
    "bool_type": "expected true or false",
    "dict_type": "expected a mapping (key: value)",
    "float_type": "expected a number",
    "int_type": "expected a whole number",
    "invalid_key": "a key must be text; put it in quotes",
    "list_type": "expected a list",
    "model_attributes_type": "expected a mapping (key: value)",
    "model_type": "expected a mapping (key: value)",
    "path_type": "expected a path",
    "string_type": "expected text; put it in quotes",
    "tuple_type": "expected a list",
    "finite_number": "expected a finite number",
}

_LIMITS = {
    "greater_than": ("gt", "must be more than"),
    "greater_than_equal": ("ge", "must be at least"),
    "less_than": ("lt", "must be less than"),
    "less_than_equal": ("le", "must be at most"),
}


def _text(kind: str, message: str, context: dict[str, Any], node: JsonSchema) -> str:
    if kind == "missing":
        return f"missing; expected: {node.get('description', 'a value')}"
    if kind in _EXPECTED:
        return _EXPECTED[kind]
    if kind in _LIMITS:
        key, words = _LIMITS[kind]
        return f"{words} {context[key]:g} – {node.get('title', '')}"
    if kind == "string_too_short":
        return "must not be empty"
    return message.replace("Input should be", "expected")


def _locate(loc: Sequence[int | str], schema: JsonSchema) -> tuple[str, JsonSchema]:
    """The place as it is written (``sources[0].seed``), and what the schema says of it."""
    place, node = "", schema
    for part in loc:
        inner = _inside(node, schema)
        tags = inner.get("discriminator", {}).get("mapping", {})
        if part in tags:
            # pydantic counts the chosen variant as a step; in the file there is none
            node = {"$ref": tags[part]}
        elif part == "[key]":
            continue
        elif isinstance(part, int):
            place, node = f"{place}[{part}]", inner.get("items", {})
        else:
            place = _join(place, part if re.fullmatch(r"[\w-]{1,64}", part) else repr(part)[:64])
            other = inner.get("additionalProperties")
            other = other if isinstance(other, dict) else {}
            node = inner.get("properties", {}).get(part, other)
    # title and description of the field go before those of the part it refers to
    return place, _inside(node, schema) | node


def _inside(node: JsonSchema, schema: JsonSchema) -> JsonSchema:
    """Follow references, and an optional part to the part."""
    while True:
        if "$ref" in node:
            node = schema["$defs"][node["$ref"].rpartition("/")[2]]
        elif refs := [option for option in node.get("anyOf", ()) if "$ref" in option]:
            node = refs[0]
        else:
            return node


def _join(place: str, inner: str) -> str:
    return f"{place}.{inner}" if place and inner else place or inner
