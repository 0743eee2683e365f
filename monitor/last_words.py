"""What outlives the daemon, for whoever has to tell that it does not run.

Under systemd it keeps two small files: why it ended, and the last configuration that was good. They
lie in ``$RUNTIME_DIRECTORY``, which is in memory and takes them when the disk is full, and, to last
beyond the machine's next start, in ``$STATE_DIRECTORY``. Without either nothing is kept.
"""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from alerts.channels.channel import masked

_ERROR, _CONFIG = "last-error", "last-good.yaml"

# What fits into a message; the log has all of it.
_LONGEST = 300


def folders() -> Iterator[Path]:
    """Give the folders in which files may be kept, best first."""
    for variable in ("RUNTIME_DIRECTORY", "STATE_DIRECTORY"):
        # systemd names several of them with colons between.
        if first := os.environ.get(variable, "").partition(":")[0]:
            yield Path(first)


def write(name: str, content: bytes) -> bool:
    """Write a file into each folder that takes it, whole or not at all, readable by its owner only.

    Returns:
        Whether there was one.
    """
    done = False
    for folder in folders():
        with contextlib.suppress(OSError):
            _replace(folder / name, content)
            done = True
    return done


def read(name: str) -> bytes | None:
    """Read a file from the first folder that has it; None where none does."""
    for folder in folders():
        with contextlib.suppress(OSError):
            return (folder / name).read_bytes()
    return None


def remove(name: str) -> None:
    """Remove a file from all folders."""
    for folder in folders():
        with contextlib.suppress(OSError):
            (folder / name).unlink()


def keep_configuration(path: Path) -> None:
    """Keep a copy of a configuration that has passed every check."""
    with contextlib.suppress(OSError):
        write(_CONFIG, path.read_bytes())


def kept_configurations() -> Iterator[Path]:
    """Give the copies of the last configuration that was good, best first."""
    for folder in folders():
        if (folder / _CONFIG).exists():
            yield folder / _CONFIG


def keep_error(error: BaseException, *, known: bool) -> None:
    """Keep why the daemon ends, in one line.

    Args:
        error: what ends it.
        known: whether its text was written for people. Any other may hold anything.
    """
    lines = str(error).splitlines() or [""]
    more = f" (and {len(lines) - 1} more)" if len(lines) > 1 else ""
    line = lines[0] if known else f"fault of the program: {type(error).__name__}: {lines[0]}"
    write(_ERROR, f"{masked(line)[:_LONGEST]}{more}".encode())


def take_error() -> str | None:
    """Give why the daemon ended, once; None where it left no word, as one that is killed."""
    content = read(_ERROR)
    remove(_ERROR)
    return None if content is None else content.decode(errors="replace")


def _replace(path: Path, content: bytes) -> None:
    """Write a file anew, but not the same once more: an SD card wears.

    Raises:
        OSError: it cannot be written.
    """
    with contextlib.suppress(OSError):
        if path.read_bytes() == content:
            return
    new = path.with_name(f".{path.name}.new")
    try:
        with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        new.replace(path)
    except OSError:
        with contextlib.suppress(OSError):
            new.unlink()
        raise
