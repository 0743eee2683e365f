"""The shipped classifier of rhythms: loaded on its own, so that no bundle can silence it."""

from pathlib import Path
from typing import Self


class RhythmModelError(Exception):
    """The classifier of rhythms is missing, damaged or of another format."""


class RhythmModel:
    """What tells rhythms apart in a few seconds of signal.

    Attributes:
        name: of the model.
        version: its version.
        digest: SHA-256 of its parameters.
    """

    name: str
    version: int
    digest: str

    @classmethod
    def load(cls, path: Path | None = None) -> Self:
        """Load the shipped model, or the one in a folder.

        Raises:
            RhythmModelError: one line that says what is wrong with it.
        """
        raise NotImplementedError
