"""The failures that are told in one line: each says itself what is wrong and what was expected."""

from ingest.recordings import RecordingError
from models.bundle import BundleError
from monitor.config import ConfigError
from monitor.storage.database import DatabaseError
from monitor.storage.only_one import AnotherError


class CommandError(Exception):
    """A command cannot do what it was asked; the message says why."""


class MisuseError(CommandError):
    """A command was asked something that makes no sense; the message says what does."""


KNOWN = (
    AnotherError,
    BundleError,
    CommandError,
    ConfigError,
    DatabaseError,
    RecordingError,
)
