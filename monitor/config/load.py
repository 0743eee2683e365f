"""From a path to a configuration that can be relied on."""

from pathlib import Path
from typing import Any

from pydantic import ValidationError

from monitor.config.model import Config
from monitor.config.problems import ConfigError, explain
from monitor.config.yaml_file import read_mapping


def load_config(path: Path) -> Config:
    """Read and check a configuration file, and fetch the secrets it refers to.

    Raises:
        ConfigError: with one line per problem, each beginning with the path.
    """
    mapping = read_mapping(path)
    try:
        return Config.model_validate(mapping)
    except ValidationError as error:
        problems = explain(error, schema())
    # Outside the handler, so that a logged traceback does not show the inner error.
    raise ConfigError(f"{path}: {problem}" for problem in problems)


def schema() -> dict[str, Any]:
    """The JSON schema of the configuration file; it documents every key."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema"} | Config.model_json_schema()
