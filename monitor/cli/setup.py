"""From a configuration file to everything a command needs of it, checked together."""

from pathlib import Path

from ingest.source import Source
from models.bundle import Bundle
from monitor.config import Config, ConfigError, load_config
from monitor.policies import build_policies
from monitor.service import open_bundle
from monitor.sources import build_sources


def prepare(path: Path) -> tuple[Config, Bundle, list[Source]]:
    """Read a configuration, open its bundle, make its sources.

    Raises:
        ConfigError: with a line for each problem, each naming the file.
        BundleError: if the bundle cannot be used.
    """
    config = load_config(path)
    bundle = open_bundle(config)
    try:
        build_policies(config, bundle)
        return config, bundle, build_sources(config.sources)
    except ConfigError as error:
        raise ConfigError(f"{path}: {problem}" for problem in error.problems) from None
