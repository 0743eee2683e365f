"""What is to be said of an installation that works: who would not be told, what others can read.

None of it keeps the daemon from running.
"""

import stat
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, SecretStr
from sqlalchemy.exc import ArgumentError

from monitor.cli.in_time import read_in_time
from monitor.config import Config, ConfigError
from monitor.config.yaml_file import read_mapping
from monitor.contacts import build_channels
from monitor.storage.database import DatabaseError, parse_url
from monitor.storage.history import History

PROVEN_DAYS = 30
"""A telephone number, a token, an app that worked a month ago may have gone since."""

_DAY_NS = 86_400 * 10**9
_UNWATCHED = (
    "if leadone dies nobody is told: configure alarms.dead_man, alarms.heartbeat or mqtt "
    "(docs/alarms.md)"
)


def warnings_of(config: Config, path: Path, history: History | None) -> list[str]:
    """Everything there is to warn of, one line each, the most important first.

    Args:
        config: the configuration.
        path: its file.
        history: the database; None where it cannot be read, and nothing is said of deliveries.
    """
    found = [*unwatched(config)]
    if history is not None:
        found += unproven(config, history)
    return [*found, *readable_secrets(config, path)]


def warnings_at(config: Config, path: Path) -> list[str]:
    """As ``warnings_of``, with what the configured database says, if it does within seconds."""
    if not config.alarms.contacts:
        return warnings_of(config, path, None)
    url = config.database.get_secret_value()
    try:
        return read_in_time(url, lambda history: warnings_of(config, path, history))
    except DatabaseError:
        # What is wrong with the database is told elsewhere.
        return warnings_of(config, path, None)


def unwatched(config: Config) -> Iterator[str]:
    """Say that nobody outside would miss a daemon that has died."""
    alarms = config.alarms
    outside = (alarms.dead_man, alarms.heartbeat, config.mqtt)
    if alarms.contacts and all(one is None for one in outside):
        yield _UNWATCHED


def unproven(config: Config, history: History) -> Iterator[str]:
    """Say which channels have delivered nothing for a month."""
    try:
        channels = build_channels(config)
        proven = history.proven(time.time_ns() - PROVEN_DAYS * _DAY_NS)
    except (ConfigError, DatabaseError):
        return  # which is told by whoever looks at these themselves
    for contact, some in channels.items():
        for channel in some:
            if channel.name not in proven:
                yield (
                    f"{channel.name} has delivered nothing for {PROVEN_DAYS} days, so nobody knows "
                    f"whether it works: leadone alarms test --contact {contact}"
                )


def readable_secrets(config: Config, path: Path) -> Iterator[str]:
    """Say which secrets every user of this machine can read; never what they are."""
    try:
        given = read_mapping(path)
    except ConfigError:
        return
    secrets = list(_secrets(config, given, ""))
    files: dict[Path, list[str]] = {}
    for key, where in secrets:
        files.setdefault(path if where is None else Path(where), []).append(key)
    for file, keys in files.items():
        mode = _readable_by_all(file)
        if mode is not None:
            yield (
                f"{file}: every user of this machine can read it (mode {mode:04o}), and it holds "
                f"{', '.join(keys)}: chmod o= {file}"
            )


def _secrets(value: object, given: object, place: str) -> Iterator[tuple[str, str | None]]:
    """Each secret of a part of the configuration: its key, and the file that it is kept in.

    The file is None for one that stands in the configuration itself.

    Args:
        value: the part, as checked.
        given: the same, as written.
        place: where it is.
    """
    match value, given:
        case SecretStr(), str():
            yield from [(place, None)] if _is_secret(value.get_secret_value()) else []
        case SecretStr(), {"file": str(file)}:
            yield place, file
        case BaseModel(), Mapping():
            for name in type(value).model_fields:
                if name in given:
                    inner = f"{place}.{name}" if place else name
                    yield from _secrets(getattr(value, name), given[name], inner)
        case tuple(), Sequence():
            for i, (one, written) in enumerate(zip(value, given, strict=False)):
                yield from _secrets(one, written, f"{place}[{i}]")


def _is_secret(text: str) -> bool:
    """Whether a text says more than where a database is: a URL of one may hold no password."""
    try:
        url = parse_url(text)
    except (DatabaseError, ArgumentError):
        return True
    query: Mapping[str, Any] = url.query
    return url.password is not None or bool({"password", "sslpassword"} & query.keys())


def _readable_by_all(file: Path) -> int | None:
    """The mode of a file that every user can read, by it and by the folders above; else None."""
    try:
        mode = stat.S_IMODE(file.stat().st_mode)
        open_to_all = mode & stat.S_IROTH and all(
            folder.stat().st_mode & stat.S_IXOTH for folder in file.resolve().parents
        )
    except OSError:
        return None
    return mode if open_to_all else None
