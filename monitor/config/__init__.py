"""The configuration file: what may stand in it, how it is read, and what is said of mistakes."""

from monitor.config.episode import EpisodeConfig
from monitor.config.example import example
from monitor.config.load import load_config, schema
from monitor.config.model import (
    AlarmOverrides,
    Config,
    InferenceConfig,
    LogConfig,
    PatientConfig,
    ReplayConfig,
    SimulatorConfig,
    SourceConfig,
    WindowConfig,
)
from monitor.config.problems import ConfigError

__all__ = [
    "AlarmOverrides",
    "Config",
    "ConfigError",
    "EpisodeConfig",
    "InferenceConfig",
    "LogConfig",
    "PatientConfig",
    "ReplayConfig",
    "SimulatorConfig",
    "SourceConfig",
    "WindowConfig",
    "example",
    "load_config",
    "schema",
]
