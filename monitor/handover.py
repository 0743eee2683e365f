"""Hands records to the writer and news to listeners; what fails there never ends the watch."""

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, TypeVar

import structlog
from prometheus_client import Counter

from monitor.storage.database import DatabaseError
from monitor.storage.records import Record
from monitor.storage.writer import Writer

_log = structlog.get_logger()

_Told = TypeVar("_Told")
_Done = TypeVar("_Done")

PATIENCE_S = 5.0
"""How long a record is waited for while the database is away; it is left to the writer then."""


def keep(tasks: set[asyncio.Task[_Done]], step: Coroutine[Any, Any, _Done]) -> asyncio.Task[_Done]:
    """Begin a step beside the caller, and keep its task until it is done.

    The event loop itself does not: a task that nobody keeps may vanish midway.
    """
    task = asyncio.create_task(step)
    tasks.add(task)
    task.add_done_callback(tasks.discard)
    return task


async def attempt(
    writer: Writer, refused: Counter, records: Sequence[Record], **where: str
) -> bool:
    """Store records as one; those that the database refuses are counted and logged.

    Args:
        writer: the started writer.
        refused: counts them.
        records: to store.
        where: for the log, e.g. whose they are.

    Returns:
        Whether that is settled: they are durable, or no database would take them. False if the
        writer gave up, so that whoever has them still may bring them again.
    """
    try:
        await writer.store(*records)
    except Exception as error:  # noqa: BLE001 - whatever the database says
        refused.inc(len(records))
        kinds = ", ".join(type(record).__name__ for record in records)
        _log.exception("not stored", **where, records=kinds)
        return not isinstance(error, DatabaseError)
    return True


def tell(listeners: Sequence[Callable[[_Told], None]], told: _Told) -> None:
    """Call listeners; one that fails keeps nobody else from being told."""
    for listener in listeners:
        try:
            listener(told)
        except Exception:  # noqa: BLE001 - whatever a dashboard or a channel does
            _log.exception("not told", to=getattr(listener, "__qualname__", repr(listener)))
