"""Keeps the paired straps in a small file beside the database, in case that is lost.

A strap that nobody knows any more is not listened to, and its patient not watched; to pair it again
somebody has to come.
"""

import json
import os
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any

import structlog
from sqlalchemy import make_url
from sqlalchemy.exc import ArgumentError

from ingest.chunk import Stream
from monitor.storage.records import Strap

_FORMAT = 1

# A house has a few straps; a longer file is not one of ours.
_LONGEST = 1_000_000

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Kept:
    """What the file says.

    Attributes:
        straps: that were paired, by patient and device.
        database_existed: whether there ever was a database: if there is none now it was lost, and
            is not simply to be made.
    """

    straps: tuple[Strap, ...]
    database_existed: bool


def keep(
    folders: Sequence[Path], url: str, straps: Iterable[Strap], *, database_existed: bool = True
) -> bool:
    """Keep the straps that are paired, in the first of the folders that can be written.

    Only what has changed is written, as one: a file is the old one or the new one. It is for its
    owner alone. That there was a database is never forgotten.

    Args:
        folders: as ``state_folders`` gives them.
        url: of the database.
        straps: all that are paired.
        database_existed: whether they come from a database.

    Returns:
        Whether they are kept; a failure is logged.
    """
    name = _name(url)
    found = _newest(folders, name)
    serial, before = found if found is not None else (0, None)
    ordered = tuple(sorted(straps, key=lambda strap: (strap.stream.patient, strap.stream.device)))
    now = Kept(ordered, database_existed or (before is not None and before.database_existed))
    if now == before:
        return True
    content = json.dumps(
        {
            "format": _FORMAT,
            # The highest one holds: the folder that is written changes as disks come and go, and a
            # clock may be wrong.
            "serial": serial + 1,
            "database_existed": now.database_existed,
            "straps": [_plain(strap) for strap in now.straps],
        },
        indent=1,
    )
    failures = []
    for folder in folders:
        try:
            _replace(folder / name, content.encode())
        except OSError as error:
            failures.append(f"{folder}: {error.strerror or error}")
        else:
            return True
    _log.error("pairings_not_kept", failures=failures)
    return False


def kept(folders: Sequence[Path], url: str) -> Kept | None:
    """What was kept last; None if nothing was, or none of it can be read, which is logged."""
    found = _newest(folders, _name(url))
    return None if found is None else found[1]


def _newest(folders: Sequence[Path], name: str) -> tuple[int, Kept] | None:
    read = [_read(folder / name) for folder in folders]
    return max((one for one in read if one is not None), key=lambda one: one[0], default=None)


def _name(url: str) -> str:
    """One for each database: they may share a folder. Without the password, which may change."""
    try:
        parsed = make_url(url).set(password=None, drivername=make_url(url).get_backend_name())
        if parsed.drivername == "sqlite" and parsed.database:
            parsed = parsed.set(database=str(Path(parsed.database).absolute()))
        text = parsed.difference_update_query(["password"]).render_as_string()
    except (ArgumentError, ValueError):
        text = url
    return f"pairings-{blake2b(text.encode(), digest_size=6).hexdigest()}.json"


def _read(path: Path) -> tuple[int, Kept] | None:
    try:
        with path.open("rb") as file:
            content = json.loads(file.read(_LONGEST).decode())
        if content["format"] != _FORMAT or not isinstance(content["serial"], int):
            raise ValueError(f"format {content['format']!r}, not {_FORMAT}")  # noqa: TRY301
        straps = tuple(map(_strap, content["straps"]))
        return content["serial"], Kept(straps, bool(content["database_existed"]))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, LookupError, RecursionError) as error:
        _log.error("pairings_unreadable", file=str(path), error=str(error) or repr(error))
        return None


def _plain(strap: Strap) -> dict[str, Any]:
    return {
        "patient": strap.stream.patient,
        "device": strap.stream.device,
        "address": strap.address,
        "kind": strap.kind,
        "adapter": strap.adapter,
        "paired_ns": strap.paired_ns,
    }


def _strap(plain: dict[str, Any]) -> Strap:
    texts = [plain[name] for name in ("patient", "device", "address", "kind")]
    adapter, paired_ns = plain["adapter"], plain["paired_ns"]
    if not all(isinstance(text, str) for text in texts) or not isinstance(paired_ns, int):
        raise TypeError("a strap that is none")
    if not isinstance(adapter, str | None):
        raise TypeError("an adapter that is none")
    patient, device, address, kind = texts
    return Strap(Stream(patient, device), address, kind, adapter, paired_ns)


def _replace(path: Path, content: bytes) -> None:
    new = path.with_name(f"{path.name}.new")
    new.unlink(missing_ok=True)  # of a run that was killed
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with open(descriptor, "wb") as file:  # noqa: PTH123 - a descriptor
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        new.replace(path)
    except BaseException:
        with suppress(OSError):
            new.unlink()
        raise
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
