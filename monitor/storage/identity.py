"""Notices that the file of the database is another one than was opened, or gone.

SQLite goes on writing to a file that somebody deleted, and everything is lost when it is closed.
"""

import os
from pathlib import Path
from typing import Self

from monitor.storage.database import parse_url, sqlite_path


class FileIdentity:
    """Remembers which file a path led to."""

    def __init__(self, path: Path | None) -> None:
        """Look at the file, which the daemon has just opened.

        Args:
            path: of the SQLite file; None for a database that is no file, which never changes. One
                that is not there yet is remembered as soon as ``changed`` finds it.
        """
        self._path = path
        self._descriptor: int | None = None
        self._deleted = False
        self._remember()

    @classmethod
    def of(cls, database: str) -> Self:
        """That of a database.

        Args:
            database: its URL.

        Raises:
            DatabaseError: the URL is none.
        """
        url = parse_url(database)
        return cls(sqlite_path(url) if url.get_backend_name() == "sqlite" else None)

    def changed(self) -> str | None:
        """What became of the file.

        Returns:
            ``"was deleted"`` (or moved away, or its disk is gone), ``"was replaced by another
            file"``, or None: it is the same, or nobody can tell.
        """
        if self._path is None:
            return None
        if self._descriptor is None and not self._deleted:
            self._remember()
            return None
        try:
            self._let_go_if_deleted()
            now = self._path.stat()
            return None if self._is(now) else "was replaced by another file"
        except (FileNotFoundError, NotADirectoryError):
            return "was deleted"
        except OSError:
            return None  # a disk that does not answer says nothing of what is on it

    def close(self) -> None:
        """Forget the file; afterwards it never seems changed.

        Until then a file that was moved or set aside fills its disk even when it is deleted there;
        one that was deleted under its own path does so until ``changed`` has found it. May be
        called at any time, connections or not: it drops no locks of SQLite.
        """
        self._path = None
        self._let_go()

    def _is(self, found: os.stat_result) -> bool:
        if self._descriptor is None:
            return False
        before = os.fstat(self._descriptor)
        return (found.st_dev, found.st_ino) == (before.st_dev, before.st_ino)

    def _let_go_if_deleted(self) -> None:
        if self._descriptor is not None and os.fstat(self._descriptor).st_nlink == 0:
            # It never comes back: whatever is there from now on is another one.
            self._deleted = True
            self._let_go()

    def _let_go(self) -> None:
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)

    def _remember(self) -> None:
        if self._path is None:
            return
        try:
            # It keeps the inode's number from being given to the next file; and, unlike that of an
            # open file, may be closed without dropping the locks that SQLite has on it.
            self._descriptor = os.open(self._path, os.O_PATH)
        except OSError:
            self._descriptor = None
