"""Where records are kept while the database is away: append-only files."""

import errno
import heapq
import itertools
import os
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import structlog

from monitor import metrics
from monitor.storage.record_codec import UnreadableError, decode_group, encode_group
from monitor.storage.records import Record
from monitor.storage.spool_file import Found, SpoolFile, frame

_log = structlog.get_logger(__name__)

# Ten patients fill 30 MB an hour: a day and a half.
_MOST_ON_DISK = 1_000_000_000
_MOST_IN_MEMORY = 256_000_000

# The last of a disk is left to the database, which needs some to be written again, and to others.
_FREE_BYTES = 64_000_000
_FREE_SHARE = 0.05

# What a power cut may take. More often would wear out a memory card.
_SYNC_S = 1.0

# A folder that failed is asked again after this, and not at every record.
_ASK_AGAIN_S = 30.0


@dataclass(frozen=True, slots=True)
class Entry:
    """A group in the spool.

    Attributes:
        file: id of its file.
        index: which one of that file it is, from 0; damaged ones before it count.
        number: higher than that of every group before it, over all files.
        records: what is stored as one.
        about: what else was kept with it.
    """

    file: str
    index: int
    number: int
    records: tuple[Record, ...]
    about: Mapping[str, Any]


class Spool:
    """Groups of records, in files ``NAME.spool`` or ``NAME.1.spool`` and so on.

    Not for several processes, nor for several threads at a time, except that one may read while
    another one appends.

    Attributes:
        name: what tells it from the spools of other databases.
        appended: how many times something was appended; it grows once that can be read.
    """

    def __init__(self, folders: Sequence[Path], name: str) -> None:
        """Open what an earlier run left; nothing is made before there is something to keep.

        Args:
            folders: where it may be, best first.
            name: what tells the spool of one database from that of another; fit for a file's name.
        """
        self._folders = list(folders)
        self.name = name
        self.appended = 0
        self._files: list[SpoolFile] = []
        self._current: SpoolFile | None = None
        self._failed: dict[Path, float] = {}  # until when they are not asked
        self._why: tuple[int, str] = (errno.ENOENT, "there is no folder for a spool")
        self._unsynced: dict[SpoolFile, float] = {}
        for folder in self._folders:
            for path in _left_in(folder, name):
                self._open(path)
        self._last = max((file.last for file in self._files), default=0)
        self._measure()

    def _open(self, path: Path) -> None:
        try:
            file = SpoolFile(path)
            if file.damaged and not file.count:
                try:
                    file.remove()
                finally:
                    file.close()
                return
            self._files.append(file)
        except OSError as error:
            metrics.SPOOL_DAMAGED.inc()
            _log.error("spool_unreadable", path=str(path), error=str(error))
        except ValueError as error:
            with suppress(OSError):
                if path.stat().st_size == 0:
                    path.unlink()  # made, and then the process died
                    return
                # Left to whoever wants to look at it, and not told of at every start.
                path.rename(path.with_name(f"{path.name}.damaged-{time.time_ns()}"))
            metrics.SPOOL_DAMAGED.inc()
            _log.error("spool_unreadable", path=str(path), error=str(error))

    @property
    def is_empty(self) -> bool:
        """Whether nothing is kept."""
        return not any(file.count for file in self._files)

    @property
    def size(self) -> int:
        """How many bytes are kept, over all files."""
        return sum(file.end for file in self._files if file.count)

    @property
    def path(self) -> Path | None:
        """The file that was last appended to; None where there is none yet."""
        return self._current.path if self._current else None

    def append(
        self, groups: Sequence[Sequence[Record]], about: Mapping[str, Any] | None = None
    ) -> None:
        """Keep groups behind all others; when it returns, they survive ``kill -9``.

        Args:
            groups: each is stored as one; here, all of them are kept or none.
            about: kept with each of them.

        Raises:
            OSError: no folder takes them: full, read-only, or there is none.
            TypeError: a group that cannot be kept.
        """
        if not groups:
            return
        if not any(map(self._may_be_asked, self._folders)):
            # Before anything is encoded.
            raise OSError(*self._why)
        # A later number than any that a file holds which cannot be seen now: its folder may be
        # mounted later. By the clock, as nothing else outlives this process without a file.
        first = max(self._last + 1, time.time_ns())
        frames = [
            frame(number, encode_group(group, about)) for number, group in enumerate(groups, first)
        ]
        last = first + len(frames) - 1
        for folder in filter(self._may_be_asked, self._folders):
            try:
                self._append(folder, frames, last)
            except OSError as error:
                self._fail(folder, error)
            else:
                self._failed.pop(folder, None)
                self._last = last
                self.appended += 1
                metrics.SPOOLED.inc(len(frames))
                self._measure()
                return
        raise OSError(*self._why)

    def _may_be_asked(self, folder: Path) -> bool:
        return time.monotonic() >= self._failed.get(folder, 0.0)

    def _append(self, folder: Path, frames: Sequence[bytes], last: int) -> None:
        of_folder = [f for f in self._files if f.path.parent == folder]
        _require_room(folder, sum(f.end for f in of_folder), sum(map(len, frames)))
        file = next((f for f in of_folder if f.appendable), None)
        if file is None:
            file = SpoolFile(self._new_path(folder), create=True)
            self._files.append(file)
        file.append(frames, last)
        self._current = file
        since = self._unsynced.setdefault(file, time.monotonic())
        if time.monotonic() - since >= _SYNC_S:
            self.sync()

    def _new_path(self, folder: Path) -> Path:
        for i in itertools.count():
            path = folder / (f"{self.name}.{i}.spool" if i else f"{self.name}.spool")
            if not os.path.lexists(path):
                return path
        raise AssertionError

    def _fail(self, folder: Path, error: OSError) -> None:
        if folder not in self._failed:
            _log.warning("spool_folder_failed", folder=str(folder), error=str(error))
        self._failed[folder] = time.monotonic() + _ASK_AGAIN_S
        self._why = error.errno or errno.EIO, f"{folder}: {error.strerror or error}"

    def sync(self) -> None:
        """Have the disks write what was appended; for when nothing follows that would do it."""
        for file in self._unsynced:
            try:
                file.sync()
            except OSError as error:
                # It is kept as long as the system runs; what follows goes elsewhere.
                _log.error("spool_sync_failed", path=str(file.path), error=str(error))
                self._failed[file.path.parent] = time.monotonic() + _ASK_AGAIN_S
        self._unsynced.clear()

    def groups(self) -> Iterator[tuple[Record, ...]]:
        """All that is kept, oldest first."""
        cursor = self.cursor({})
        while entries := cursor.take(1):
            yield entries[0].records

    def cursor(self, taken: Mapping[str, int]) -> "Cursor":
        """Read what is kept, oldest first.

        Args:
            taken: how many groups of a file, by its id, are passed over, damaged ones among them.
        """
        return Cursor(self._files, taken)

    def clear(self) -> list[str]:
        """Forget everything that is kept; of files with damage, a copy stays beside them.

        Returns:
            The ids of the files that are gone; one on a disk that is read-only stays.
        """
        gone = []
        for file in self._files:
            try:
                file.remove()
            except OSError as error:
                _log.warning("spool_stays", path=str(file.path), error=str(error))
                file.close()
            else:
                gone.append(file.id)
        self._files.clear()
        self._unsynced.clear()
        self._current = None
        self._measure()
        return gone

    def close(self) -> None:
        """Let all files go; what is kept stays kept."""
        self.sync()
        for file in self._files:
            file.close()
        self._files.clear()
        self._current = None

    def _measure(self) -> None:
        metrics.SPOOL_BYTES.set(self.size)


def _left_in(folder: Path, name: str) -> list[Path]:
    """The spool's files in a folder, none where that cannot be read."""
    try:
        found = [path.name for path in folder.iterdir()]
    except FileNotFoundError:
        return []
    except OSError as error:
        _log.error("spool_unreadable", path=str(folder), error=str(error))
        return []
    of_name = re.compile(re.escape(name) + r"(\.\d+)?\.spool")
    return [folder / file for file in sorted(found) if of_name.fullmatch(file)]


_Head = tuple[int, int, Found]
"""Of one file: number, which file, and its next group."""


class Cursor:
    """A place in a spool, from which its groups are read once; those appended meanwhile too."""

    def __init__(self, files: list[SpoolFile], taken: Mapping[str, int]) -> None:
        self._files = files  # the spool's own list, which grows
        self._taken = taken
        self._offsets: dict[str, int] = {}
        self._indices: dict[str, int] = {}
        self._last = 0

    def take(self, most: int) -> list[Entry]:
        """The next groups, oldest first; none when all have been read."""
        heads: list[_Head] = []
        for i in range(len(self._files)):
            self._push(heads, i)
        entries: list[Entry] = []
        while heads and len(entries) < most:
            number, i, found = heapq.heappop(heads)
            file = self._files[i]
            index = self._indices[file.id] + found.skipped
            # A disk that failed halfway may have got what then went elsewhere too.
            twice = number == self._last
            entries.append(
                Entry(file.id, index, number, *((), {}) if twice else _decoded(file, found.payload))
            )
            self._last = number
            self._offsets[file.id], self._indices[file.id] = found.following, index + 1
            self._push(heads, i)
        return entries

    def _push(self, heads: list[_Head], i: int) -> None:
        file = self._files[i]
        if file.id not in self._offsets:
            self._offsets[file.id], self._indices[file.id] = file.begin, 0
            self._pass_over(file, self._taken.get(file.id, 0))
        if (found := file.read(self._offsets[file.id])) is not None:
            heapq.heappush(heads, (found.number, i, found))

    def _pass_over(self, file: SpoolFile, taken: int) -> None:
        while (found := file.read(self._offsets[file.id])) is not None:
            index = self._indices[file.id] + found.skipped
            if index >= taken:
                return
            self._offsets[file.id], self._indices[file.id] = found.following, index + 1


def _decoded(file: SpoolFile, payload: bytes) -> tuple[tuple[Record, ...], dict[str, Any]]:
    try:
        return decode_group(payload)
    except UnreadableError as error:
        # Its checksum is right: another version wrote it, in another way.
        metrics.SPOOL_UNKNOWN.inc()
        _log.error("spooled_group_unknown", path=str(file.path), error=str(error))
        return (), {}


def _require_room(folder: Path, kept: int, more: int) -> None:
    """Refuse what would fill the disk, or memory.

    Raises:
        OSError: there is no room, or no such folder.
    """
    most = _MOST_IN_MEMORY if _in_memory(folder) else _MOST_ON_DISK
    disk = os.statvfs(folder)
    free = disk.f_bavail * disk.f_frsize
    reserve = min(_FREE_BYTES, _FREE_SHARE * disk.f_blocks * disk.f_frsize)
    if kept + more > most or free - more < reserve:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _in_memory(folder: Path) -> bool:
    """Whether what is in a folder takes the machine's memory."""
    device = folder.stat().st_dev
    number = f"{os.major(device)}:{os.minor(device)}"
    with suppress(OSError), Path("/proc/self/mountinfo").open(encoding="utf-8") as mounts:
        for line in mounts:
            mount, _, kind = line.partition(" - ")
            if mount.split()[2] == number:
                return kind.split()[0] in {"tmpfs", "ramfs"}
    return False
