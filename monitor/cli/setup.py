"""From a configuration file to everything a command needs of it, checked together."""

from pathlib import Path

from ingest.source import Source
from models.bundle import Bundle, BundleError
from monitor.config import Config, ConfigError, load_config
from monitor.service import bundle_or_why_none
from monitor.sources import build_sources


def prepare(path: Path) -> tuple[Config, Bundle | BundleError, list[Source]]:
    """Read a configuration, open its bundle or see why it cannot be used, make its sources.

    Raises:
        ConfigError: with a line for each problem, each naming the file.
    """
    config = load_config(path)
    try:
        return config, bundle_or_why_none(config), build_sources(config.sources)
    except ConfigError as error:
        raise ConfigError(f"{path}: {problem}" for problem in error.problems) from None
