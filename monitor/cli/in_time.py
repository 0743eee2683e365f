"""Reads that may hang for ever, a locked database's or a broken disk's, with a limit of time.

A command that somebody runs because something is wrong must say what it knows all the same.
"""

import queue
import threading
from collections.abc import Callable
from typing import TypeVar

from monitor.storage.database import DatabaseError, describe, parse_url
from monitor.storage.history import History

# As long as SQLite waits for a lock; what is asked here takes well under a second.
WITHIN_S = 5.0

_T = TypeVar("_T")


def in_time(work: Callable[[], _T]) -> _T:
    """Call ``work`` on a thread, and give what it returns, or raise what it raises.

    A thread that hangs is left behind; it does not keep the process from ending.

    Raises:
        TimeoutError: it did not end within ``WITHIN_S`` seconds.
    """
    results: queue.SimpleQueue[tuple[_T | None, Exception | None]] = queue.SimpleQueue()

    def body() -> None:
        try:
            results.put((work(), None))
        except Exception as error:  # noqa: BLE001 - raised where it is waited for
            results.put((None, error))

    threading.Thread(target=body, name="in time", daemon=True).start()
    try:
        result, error = results.get(timeout=WITHIN_S)
    except queue.Empty:
        raise TimeoutError(f"no answer within {WITHIN_S:g} s") from None
    if error is not None:
        raise error
    return result  # type: ignore[return-value] # what work returned, which may be None


def read_in_time(database: str, read: Callable[[History], _T]) -> _T:
    """Give what ``read`` makes of a database.

    Args:
        database: its URL.
        read: called with it on another thread, which may go on after this has raised.

    Raises:
        DatabaseError: it cannot be read, or not within ``WITHIN_S`` seconds.
    """
    url = parse_url(database)

    def opened() -> _T:
        with History(database) as history:
            return read(history)

    try:
        return in_time(opened)
    except TimeoutError:
        raise DatabaseError(
            f"{describe(url)}: the database gives no answer within {WITHIN_S:g} s"
        ) from None
