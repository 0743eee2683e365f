"""How long the database has been away, and why."""

import time

import structlog
from sqlalchemy import URL

from monitor import metrics
from monitor.storage.database import DatabaseError, describe, error_line
from monitor.storage.kinds import Kind, in_words, kind_of

_log = structlog.get_logger(__name__)


class Outage:
    """What is wrong with the database at the moment; logged as it begins and ends.

    Attributes:
        error: why it could not be written last, in one line; None when all is well.
        kind: what kind of trouble that is; None when all is well.
        failures: how many attempts have failed, ever.
    """

    def __init__(self, url: URL) -> None:
        self.error: str | None = None
        self.kind: Kind | None = None
        self.failures = 0
        self._url = url
        self._since: float | None = None

    @property
    def lasted_s(self) -> float:
        """For how many seconds it has been away; 0 when it is there."""
        return 0.0 if self._since is None else time.monotonic() - self._since

    def failed(self, error: Exception, records: int) -> None:
        """Take in that an attempt failed, at so many records."""
        metrics.WRITE_FAILURES.inc()
        self.failures += 1
        self.kind = error.kind if isinstance(error, DatabaseError) else kind_of(error, self._url)
        line = in_words(error_line(error), self.kind)
        # Ours name the database themselves.
        self.error = line if isinstance(error, DatabaseError) else f"{describe(self._url)}: {line}"
        if self._since is None:
            self._since = time.monotonic()
            _log.error(
                "database_unavailable",
                database=describe(self._url),
                error=line,
                records=records,
            )

    def succeeded(self) -> None:
        """Take in that an attempt succeeded."""
        if self._since is not None:
            after_s = round(self.lasted_s, 1)
            _log.info("database_available", database=describe(self._url), after_s=after_s)
        self._since = self.error = self.kind = None
