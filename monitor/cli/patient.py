"""Whom a command is about."""

from collections.abc import Sequence
from pathlib import Path

from monitor.cli.errors import CommandError
from monitor.config import Config


def require_patient(config: Config, path: Path, patient: str) -> None:
    """Check that ``--patient`` names somebody whom the configuration at ``path`` has.

    Raises:
        CommandError: it does not; the message lists whom there is.
    """
    known = [p.id for p in config.patients]
    if patient not in known:
        raise CommandError(
            f"--patient: {path} has no patient {patient!r}; it has {', '.join(known)}"
        )


def require_stored(patient: str, known: Sequence[str]) -> str:
    """The patient, if anything is stored of them.

    Raises:
        CommandError: nothing is; the message lists whom there is.
    """
    if patient not in known:
        raise CommandError(
            f"nothing is stored of patient {patient!r}; there is {', '.join(known) or 'nobody'}"
        )
    return patient
