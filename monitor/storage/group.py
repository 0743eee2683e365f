"""Records that are stored as one, and who waits for that."""

import asyncio
from collections.abc import Iterable, Sequence
from concurrent.futures import Future
from contextlib import suppress

from ingest.chunk import Chunk
from ingest.rr import RrIntervals
from monitor.results import WindowResult
from monitor.storage.batch import Batch
from monitor.storage.records import Record
from monitor.window import Gap


class Group:
    """Records that are written together or not at all, and who waits for that.

    Attributes:
        records: what is stored.
        future: done when they are durable.
        batch: the same as rows; None until that was tried.
        mark: of the last transaction that was to store them, which may have been committed; None
            where none was tried.
    """

    __slots__ = ("batch", "future", "mark", "records")

    def __init__(
        self, records: tuple[Record, ...], future: Future[None] | asyncio.Future[None]
    ) -> None:
        self.records = records
        self.batch: Batch | None = None
        self.mark: int | None = None
        self.future = future


def to_give_up(groups: Sequence[Group], excess: int) -> list[Group]:
    """What is given up where nothing can be kept: the oldest signal, then the oldest windows.

    What tells of alarms is never given up: it is little, and people hang on it.

    Args:
        groups: held, oldest first.
        excess: how many records are too many.

    Returns:
        Groups of at least so many records, or all that may be given up.
    """
    given_up: list[Group] = []
    for kinds in ((Chunk, RrIntervals), (WindowResult, Gap)):
        for group in groups:
            if excess <= 0:
                return given_up
            if group.records and all(isinstance(record, kinds) for record in group.records):
                given_up.append(group)
                excess -= len(group.records)
    return given_up


def resolve(
    futures: Iterable[Future[None] | asyncio.Future[None]], error: BaseException | None = None
) -> None:
    """End futures from the writer's thread; those of an event loop in its own, all at once."""
    of_loops: dict[asyncio.AbstractEventLoop, list[asyncio.Future[None]]] = {}
    for future in futures:
        if isinstance(future, asyncio.Future):
            of_loops.setdefault(future.get_loop(), []).append(future)
        elif error is None:
            future.set_result(None)
        else:
            future.set_exception(error)
    for loop, waited_for in of_loops.items():
        with suppress(RuntimeError):  # the loop has ended
            loop.call_soon_threadsafe(_resolve_here, waited_for, error)


def _resolve_here(futures: list[asyncio.Future[None]], error: BaseException | None) -> None:
    for future in futures:
        if future.done():  # cancelled
            continue
        if error is None:
            future.set_result(None)
        else:
            future.set_exception(error)
