"""The kinds of value a configuration is made of: durations, identifiers, rates, secrets."""

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    Strict,
    StringConstraints,
)
from pydantic_core import PydanticCustomError

_DURATION = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,9})?)(ms|s|m|h|d)")
_UNIT_S = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}

# No secret is longer; a mistyped path must not pull a disk image into memory.
_MAX_SECRET_BYTES = 64 * 1024


def _duration(value: object) -> float:
    if isinstance(value, str) and (match := _DURATION.fullmatch(value)):
        return float(match[1]) * _UNIT_S[match[2]]
    if isinstance(value, int | float) and not isinstance(value, bool):
        try:
            return float(value)
        except OverflowError:
            pass
    raise PydanticCustomError(
        "duration", "expected a duration such as 10s, 500ms, 2m or 24h, or a number of seconds"
    )


Seconds = Annotated[
    float,
    BeforeValidator(
        _duration,
        json_schema_input_type=Annotated[str, Field(pattern=f"^{_DURATION.pattern}$")] | float,
    ),
]
"""A duration in seconds, written ``10s``, ``500ms``, ``2m``, ``24h``, ``7d`` or as a number."""


def between(low: float, high: float) -> AfterValidator:
    """A constraint on ``Seconds``; its message is in seconds too."""

    def check(value: float) -> float:
        # infinity and NaN are refused by the number itself
        if not low <= value <= high:
            raise PydanticCustomError(
                "range",
                "must be from {low} s to {high} s",
                {"low": f"{low:g}", "high": f"{high:g}"},
            )
        return value

    return AfterValidator(check)


def _not_empty(value: tuple[object, ...]) -> tuple[object, ...]:
    if not value:
        raise PydanticCustomError("empty", "must not be empty")
    return value


# Not min_length: that counts only the valid items, and so complains twice of an invalid one.
not_empty = AfterValidator(_not_empty)

Number = Annotated[float, Strict()]
"""A number that is written as one, not as text."""


def _identifier(value: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9_-]{1,64}", value):
        raise PydanticCustomError(
            "identifier", "expected 1 to 64 letters, digits, '_' or '-' (no spaces, no accents)"
        )
    return value


Identifier = Annotated[
    str,
    AfterValidator(_identifier),
    Field(json_schema_extra={"pattern": "^[A-Za-z0-9_-]{1,64}$"}),
]
"""A name that is safe in a topic, a URL, a file name and a log."""

Text = Annotated[str, StringConstraints(min_length=1, max_length=1000)]
"""Text that is not empty."""


class FromEnv(BaseModel):
    """A value kept out of the file, in the environment."""

    model_config = ConfigDict(extra="forbid")

    env: str = Field(title="Variable", description="Name of the environment variable that has it.")


class FromFile(BaseModel):
    """A value kept out of the file, in a file of its own."""

    model_config = ConfigDict(extra="forbid")

    file: str = Field(title="File", description="Path of the file that has it, and nothing else.")


def _secret(value: object) -> str | SecretStr:
    """Fetch a secret from where it is kept. No message may say anything of the value itself."""
    if isinstance(value, SecretStr):
        return value
    if isinstance(value, Mapping) and len(value) == 1:
        ((key, where),) = value.items()
        if key == "env" and isinstance(where, str):
            value = _from_env(where)
        elif key == "file" and isinstance(where, str):
            value = _from_file(where)
    if not isinstance(value, str):
        raise PydanticCustomError(
            "secret", "expected text, {env: NAME OF A VARIABLE} or {file: PATH}"
        )
    if not value:
        raise PydanticCustomError("secret", "must not be empty")
    return value


def _from_env(name: str) -> str:
    try:
        return os.environ[name]
    except (KeyError, ValueError):
        raise PydanticCustomError(
            "secret", "the environment variable {name} is not set", {"name": repr(name)}
        ) from None


def _from_file(path: str) -> str:
    try:
        with Path(path).open("rb") as file:
            content = file.read(_MAX_SECRET_BYTES + 1)
        if len(content) > _MAX_SECRET_BYTES:
            reason = "is longer than any secret"
        else:
            return content.decode("utf-8").rstrip("\r\n")
    except UnicodeDecodeError:
        reason = "is not text"
    except OSError as error:
        reason = f"cannot be read: {error.strerror}"
    except ValueError:
        reason = "is not a path"
    raise PydanticCustomError(
        "secret", "the file {path} {reason}", {"path": repr(path), "reason": reason}
    )


Secret = Annotated[
    SecretStr, BeforeValidator(_secret, json_schema_input_type=str | FromEnv | FromFile)
]
"""A value that is never shown; it may stand in the environment or in a file of its own."""


def _database(value: SecretStr) -> SecretStr:
    scheme, separator, _ = value.get_secret_value().partition("://")
    if not separator or scheme not in ("sqlite", "postgresql+psycopg"):
        raise PydanticCustomError(
            "database", "expected a URL that begins with sqlite:/// or postgresql+psycopg://"
        )
    return value


DatabaseUrl = Annotated[Secret, AfterValidator(_database)]
"""Where the database is; secret, for it may hold a password."""
