"""One append-only file of numbered groups, of which a torn end costs only what was torn.

Layout, little-endian: 16 bytes that say what it is · 8 bytes by which the database knows it ·
frames. A frame: length of the payload (4 bytes) · CRC-32 of number and payload (4) · number (8) ·
payload.
"""

import os
import struct
import zlib
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

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
    """

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

    def read(self, offset: int) -> tuple[int, bytes, int] | None:
        """The frame at an offset.

        Returns:
            Its number, its payload and the offset of the next one; None at the end, or where the
            disk no longer gives what was written.
        """
        if offset >= self.end:
            return None
        with suppress(OSError):
            found = self._frame(offset)
            if found is not None:
                return found
        self._damaged(offset)
        self.end = offset
        # What is written behind would never be read.
        self._writable = False
        return None

    def sync(self) -> None:
        """Have the disk write it, so that it survives a power cut too.

        Raises:
            OSError: the disk fails.
        """
        os.fdatasync(self._descriptor)

    def remove(self) -> None:
        """Delete the file, unless another one has taken its place.

        Raises:
            OSError: the disk does not let it go.
        """
        with suppress(FileNotFoundError):
            there, here = self.path.stat(), os.fstat(self._descriptor)
            if (there.st_dev, there.st_ino) == (here.st_dev, here.st_ino):
                self.path.unlink()
        self.close()

    def close(self) -> None:
        """Let it go; it stays where it is."""
        descriptor, self._descriptor = self._descriptor, -1
        self._writable = False
        if descriptor >= 0:
            os.close(descriptor)

    def _read_id(self) -> str:
        head = os.pread(self._descriptor, _BEGIN, 0)
        if len(head) < _BEGIN or not head.startswith(_MAGIC):
            raise ValueError(f"{self.path}: expected a spool of leadone, and it is none")
        return head[len(_MAGIC) :].hex()

    def _look(self) -> None:
        """Find the end; cut off what is torn, so that more can go behind it."""
        offset = self.begin
        while (found := self._frame(offset)) is not None:
            self.last = max(self.last, found[0])
            self.count += 1
            offset = found[2]
        self.end = offset
        if os.fstat(self._descriptor).st_size == offset:
            return
        self._damaged(offset)
        if self._writable:
            try:
                os.ftruncate(self._descriptor, offset)
            except OSError:
                self._writable = False

    def _frame(self, offset: int) -> tuple[int, bytes, int] | None:
        head = os.pread(self._descriptor, _HEAD.size, offset)
        if len(head) < _HEAD.size:
            return None
        length, crc, number = _HEAD.unpack(head)
        if not 0 < length <= _LONGEST:
            return None
        payload = os.pread(self._descriptor, length, offset + _HEAD.size)
        if len(payload) < length or zlib.crc32(payload, zlib.crc32(head[8:])) != crc:
            return None
        return number, payload, offset + _HEAD.size + length

    def _damaged(self, offset: int) -> None:
        metrics.SPOOL_DAMAGED.inc()
        size = os.fstat(self._descriptor).st_size
        _log.error(
            "spool_damaged", path=str(self.path), groups_read=self.count, unread_bytes=size - offset
        )

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
