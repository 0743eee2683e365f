"""Writing files so that one that is there is whole, whenever the writing is cut off."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from training.errors import TrainingError

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


@contextmanager
def disk(path: Path) -> Iterator[None]:
    """Around writing: a full disk ends in one line that says what to do.

    Args:
        path: what is written.

    Raises:
        TrainingError: instead of what the system or torch raised.
    """
    try:
        yield
    except (OSError, RuntimeError) as error:
        said = " ".join(str(error).split())[:200]
        # torch wraps what the system said in a RuntimeError of its own.
        if isinstance(error, RuntimeError) or error.errno in _FULL:
            said += "; free some space"
        raise TrainingError(
            f"{path}: cannot be written ({said}); the same command goes on from the last checkpoint"
        ) from error


@contextmanager
def replacing(path: Path, beside: Path | None = None) -> Iterator[BinaryIO]:
    """A file to fill that takes the place of ``path`` once it is whole and on the disk.

    Args:
        path: of the file.
        beside: where it is written first, in the same folder; one of its own for each process that
            may write the file at the same time.

    Raises:
        TrainingError: if it cannot be written; what was at ``path`` stands.
    """
    beside = beside or path.with_suffix(".new")
    with disk(path):
        with beside.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)


def write_text(path: Path, text: str) -> None:
    """Write a text file as a whole.

    Raises:
        TrainingError: if it cannot be written; what was at ``path`` stands.
    """
    with replacing(path) as file:
        file.write(text.encode())
