"""The model of the watch for lethal rhythms, for commands."""

from models.rhythm.model import RhythmModel, RhythmModelError
from monitor.cli.errors import CommandError


def open_rhythm_model() -> RhythmModel:
    """Load what the daemon loads.

    Raises:
        CommandError: it cannot be used.
    """
    try:
        return RhythmModel()
    except RhythmModelError as error:
        raise CommandError(str(error)) from error
