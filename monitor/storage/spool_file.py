"""One append-only file of numbered groups, of which damage costs only what is damaged.

Layout, little-endian: 16 bytes that say what it is · 8 bytes by which the database knows it ·
frames. A frame: length of the payload (4 bytes) · CRC-32 of number and payload (4) · number (8) ·
payload.

A frame whose checksum is wrong is passed over, and reading goes on at the next one that is right. A
file with damage is neither appended to nor cut nor deleted: it is read, and set aside in the end.
"""

import os
import struct
import time
import zlib
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import structlog

from monitor import metrics

_log = structlog.get_logger(__name__)

_MAGIC = b"leadone spool 1\n"
_ID_BYTES = 8
_BEGIN = len(_MAGIC) + _ID_BYTES
_HEAD = struct.Struct("<IIQ")
_NUMBER = struct.Struct("<Q")

# Nothing that is stored as one comes near it: a longer frame is a damaged length.
_LONGEST = 64 << 20

# Where a head is looked for, most of what looks like a longer length is none: such a frame must be
# followed by another head.
_LONG = 64 << 10

# Of group numbers, nanoseconds since 1970: the year 2116. Bytes at random are mostly beyond.
_HIGHEST = 1 << 62

_CHUNK = 256 << 10
_PAGE = 4096

# A start must not take minutes: after so many bytes under checksums the search for the next frame
# ends. A page that the disk does not give takes as long as some MB that it gives.
_SEARCH_BYTES = 1 << 30
_BAD_PAGE_BYTES = 4 << 20

_HEADS = np.dtype([("length", "<u4"), ("crc", "<u4"), ("number", "<u8")])

# Files are opened at every attempt to use the database: of each damage is told once.
_told: set[tuple[str, int]] = set()


@dataclass(frozen=True, slots=True)
class Found:
    """A group in a file.

    Attributes:
        number: its number.
        payload: its bytes.
        following: the offset of what comes after it.
        skipped: how many damaged groups right before it were passed over.
    """

    number: int
    payload: bytes
    following: int
    skipped: int = 0


def frame(number: int, payload: bytes) -> bytes:
    """One group as it stands in the file."""
    crc = zlib.crc32(payload, zlib.crc32(_NUMBER.pack(number)))
    return _HEAD.pack(len(payload), crc, number) + payload


class SpoolFile:
    """An open file of a spool.

    Attributes:
        path: where it is.
        id: by which the database knows it.
        begin: offset of its first frame.
        end: offset behind its last whole frame.
        count: how many whole frames it has.
        last: number of the last one, 0 without any.
        damaged: whether something in it could not be read.
    """

    _descriptor = -1
    _writable = False

    def __init__(self, path: Path, *, create: bool = False) -> None:
        """Open a file, and look how far it can be read.

        Args:
            path: where it is.
            create: make a new one; nothing may be there.

        Raises:
            OSError: it cannot be opened or made.
            ValueError: it is no file of a spool.
        """
        self.path = path
        self.begin = _BEGIN
        self.count = self.last = 0
        self.damaged = False
        self._gaps: dict[int, tuple[int, int]] = {}  # by offset: where it ends, groups in it
        self._dead: tuple[int, int] | None = None  # from where to where nothing can be read
        self._passed = 0, 0  # where the frame read last ends, and its number
        if create:
            self._descriptor, self._writable = _create(path), True
        else:
            self._descriptor, self._writable = _open(path)
        try:
            if create:
                self.id = os.urandom(_ID_BYTES).hex()
                self.end = 0
                self._write(_MAGIC + bytes.fromhex(self.id))
            else:
                self.id = self._read_id()
                self._look()
        except BaseException:
            self.close()
            if create:
                with suppress(OSError):
                    path.unlink()
            raise

    @property
    def appendable(self) -> bool:
        """Whether more can go behind its end, where the next start will find it."""
        with suppress(OSError):
            return self._writable and os.fstat(self._descriptor).st_nlink > 0
        return False

    def append(self, frames: Sequence[bytes], last: int) -> None:
        """Write frames behind the end, all or none; afterwards they survive ``kill -9``.

        Args:
            frames: from ``frame``.
            last: the number of the last one.

        Raises:
            OSError: nothing was written that counts.
        """
        self._write(b"".join(frames))
        self.count += len(frames)
        self.last = last

    def read(self, offset: int) -> Found | None:
        """The frame at an offset, or else the next one behind it that can be read.

        Returns:
            None at the end, or where the disk gives nothing more of what was written.
        """
        if offset >= self.end or self._dead == (offset, self.end):
            return None
        return self._next(offset, self.end)

    def sync(self) -> None:
        """Have the disk write it, so that it survives a power cut too.

        Raises:
            OSError: the disk fails.
        """
        os.fdatasync(self._descriptor)

    def remove(self) -> None:
        """Delete the file, or set it aside if it has damage; not if another has taken its place.

        What could not be read may be worth something to a person: it stays beside the database as
        ``….damaged-<ns>``, until somebody deletes it.

        Raises:
            OSError: the disk does not let it go.
        """
        with suppress(FileNotFoundError):
            there, here = self.path.stat(), os.fstat(self._descriptor)
            if (there.st_dev, there.st_ino) == (here.st_dev, here.st_ino):
                if self.damaged:
                    aside = self.path.with_name(f"{self.path.name}.damaged-{time.time_ns()}")
                    self.path.rename(aside)
                    _log.warning("spool_set_aside", path=str(self.path), file=str(aside))
                else:
                    self.path.unlink()
        self.close()

    def close(self) -> None:
        """Let it go; it stays where it is."""
        descriptor, self._descriptor = self._descriptor, -1
        self._writable = False
        if descriptor >= 0:
            os.close(descriptor)

    def __del__(self) -> None:
        # As Python's own files: one that nobody uses any more is not held open.
        self.close()

    def _read_id(self) -> str:
        head = os.pread(self._descriptor, _BEGIN, 0)
        # A flipped bit in the first bytes does not make what follows another file.
        if not head.startswith(_MAGIC):
            self.damaged, self._writable = True, False
        if len(head) < _BEGIN or (self.damaged and self._frame(_BEGIN) is None):
            raise ValueError(f"{self.path}: expected a spool of leadone, and it is none")
        return head[len(_MAGIC) :].hex()

    def _look(self) -> None:
        """Find the end, and what cannot be read before it."""
        size = os.fstat(self._descriptor).st_size
        self.end = offset = self.begin
        if self.damaged:
            self._tell(0, self.begin)
        while offset < size and (found := self._next(offset, size)) is not None:
            self.last = max(self.last, found.number)
            self.count += 1
            self.end = offset = found.following

    def _next(self, offset: int, end: int) -> Found | None:
        """The first frame from an offset on that can be read; notes what lies before it."""
        found, count = self._frame(offset), 0
        if found is None:
            to, count = self._gap(offset, end)
            found = None if to is None else self._frame(to)
        if found is None:
            self._dead = (offset, end)
            return None
        self._passed = found.following, found.number
        return replace(found, skipped=count)

    def _gap(self, offset: int, end: int) -> tuple[int | None, int]:
        """Of damage: where the next right frame begins, and how many groups lie before it."""
        known = self._gaps.get(offset)
        if known is not None and self._frame(known[0]) is not None:
            return known
        # What went behind a torn end would count as one that is stored already.
        self.damaged, self._writable = True, False
        to, count = self._resume(offset, end)
        self._tell(offset, end if to is None else to)
        if to is not None:
            self._gaps[offset] = to, count
        return to, count

    def _resume(self, offset: int, end: int) -> tuple[int | None, int]:
        """Where the next right frame begins, and how many groups there are before it."""
        before = self._passed[1] if self._passed[0] == offset else 0
        after = self._behind(offset)
        if after is not None and self._frame(after) is not None:
            return after, 1
        to = next(self._right_frames(offset + 1, end, before), None)
        if to is None:
            return None, 0
        count, at, last = 0, offset, before
        sure = 1
        while at < to and (behind := self._behind(at)) is not None and behind <= to:
            count, at = count + 1, behind
            if sure == count and last < self._number(at) < self._number(to):
                sure, last = sure + 1, self._number(at)
        if at == to:
            return to, count
        # A length is damaged. Numbers of one append follow each other; else by the lengths, as far
        # as they can be right.
        between = self._number(to) - before - 1
        return to, between if 0 < between <= (to - offset) // _HEAD.size else sure

    def _right_frames(self, offset: int, end: int, above: int) -> Iterator[int]:
        """Offsets from one on at which a frame with a right checksum begins."""
        budget = _SEARCH_BYTES
        for start in range(offset, end, _CHUNK):
            data, bad = self._given(start, min(_CHUNK + _HEAD.size - 1, end - start))
            budget -= bad * _BAD_PAGE_BYTES
            if len(data) < _HEAD.size:
                return
            bytes_ = np.frombuffer(data, np.uint8)
            rows = np.lib.stride_tricks.sliding_window_view(bytes_, _HEAD.size)
            heads = np.ascontiguousarray(rows).view(_HEADS)[:, 0]
            room = end - start - _HEAD.size - np.arange(len(heads))
            length, number = heads["length"].astype(np.int64), heads["number"]
            is_head = (length > 0) & (length <= np.minimum(_LONGEST, room))
            is_head &= (number > above) & (number < _HIGHEST)
            for i in np.flatnonzero(is_head).tolist():
                at, long = start + i, int(length[i])
                behind = at + _HEAD.size + long
                if long > _LONG and behind != end and not self._is_head(behind, int(number[i])):
                    continue
                budget -= long
                if budget < 0:
                    return
                if self._frame(at) is not None:
                    yield at

    def _given(self, offset: int, length: int) -> tuple[bytes, int]:
        """Bytes of the file, zeros for pages that the disk does not give, and how many are so."""
        with suppress(OSError):
            return os.pread(self._descriptor, length, offset), 0
        pages, bad = [], 0
        for at in range(offset, offset + length, _PAGE):
            size = min(_PAGE, offset + length - at)
            try:
                pages.append(os.pread(self._descriptor, size, at))
            except OSError:
                pages.append(bytes(size))
                bad += 1
        return b"".join(pages), bad

    def _head(self, offset: int) -> bytes | None:
        with suppress(OSError):
            head = os.pread(self._descriptor, _HEAD.size, offset)
            return head if len(head) == _HEAD.size else None
        return None

    def _number(self, offset: int) -> int:
        head = self._head(offset)
        return 0 if head is None else int(_HEAD.unpack(head)[2])

    def _behind(self, offset: int) -> int | None:
        """Where the frame at an offset ends, by its length alone; None if that cannot be right."""
        head = self._head(offset)
        length = 0 if head is None else int(_HEAD.unpack(head)[0])
        return offset + _HEAD.size + length if 0 < length <= _LONGEST else None

    def _is_head(self, offset: int, above: int) -> bool:
        return self._behind(offset) is not None and above < self._number(offset) < _HIGHEST

    def _frame(self, offset: int) -> Found | None:
        """The frame at an offset; None where there is none, or the disk does not give it."""
        head = self._head(offset)
        length, crc, number = (0, 0, 0) if head is None else _HEAD.unpack(head)
        if head is None or not 0 < length <= _LONGEST:
            return None
        with suppress(OSError):
            payload = os.pread(self._descriptor, length, offset + _HEAD.size)
            if len(payload) == length and zlib.crc32(payload, zlib.crc32(head[8:])) == crc:
                return Found(number, payload, offset + _HEAD.size + length)
        return None

    def _tell(self, offset: int, to: int) -> None:
        if (self.id, offset) in _told:
            return
        metrics.SPOOL_DAMAGED.inc()
        if not any(file == self.id for file, _ in _told):
            _log.error("spool_damaged", path=str(self.path), offset=offset, bytes=to - offset)
        _told.add((self.id, offset))

    def _write(self, data: bytes) -> None:
        done = 0
        try:
            while done < len(data):
                # A disk that gets full takes a part, and says so only at the next attempt.
                done += os.pwrite(self._descriptor, data[done:], self.end + done)
        except OSError:
            try:
                os.ftruncate(self._descriptor, self.end)
            except OSError:
                self._writable = False
            raise
        self.end += len(data)


def _create(path: Path) -> int:
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
    descriptor = os.open(path, flags, 0o600)
    with suppress(OSError):
        # Without it a power cut may take the name, and with it everything.
        folder = os.open(path.parent, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    return descriptor


def _open(path: Path) -> tuple[int, bool]:
    """A descriptor, and whether it can be written."""
    flags = os.O_CLOEXEC | os.O_NOFOLLOW
    try:
        return os.open(path, os.O_RDWR | flags), True
    except OSError:
        # On a disk that has become read-only what was kept can still be read.
        return os.open(path, os.O_RDONLY | flags), False
