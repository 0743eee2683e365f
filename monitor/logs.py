"""How the daemon's log looks, and that no patient's name gets into it."""

import logging
import math
import re
import sys
from collections.abc import Iterable, Mapping, MutableMapping
from typing import Any, Literal

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

_HIDDEN = "[hidden]"

# Fields that hold a name whatever it is.
_NAME_KEYS = frozenset({"name", "patient_name"})

# Nobody logs anything nested deeper; beyond this a value is shown as Python would show it.
_MAX_DEPTH = 8


class NameGuard:
    """A structlog processor that keeps patients' names out of the log.

    The fields ``name`` and ``patient_name`` are hidden at every depth, and so is every registered
    name wherever it stands as a word of its own: in the event, in values and keys, in exceptions,
    and in how an object would be shown. Upper and lower case do not matter.

    Args:
        names: the names to hide.
    """

    def __init__(self, names: Iterable[str]) -> None:
        # The longest first, so that of "Anna Maria" and "Anna" nothing is left over. White space
        # before a name or between its words may be a line break by the time it is logged, and by
        # then a line break may be written \n.
        words = sorted((n.split() for n in names if n.strip()), key=lambda w: -len(" ".join(w)))
        alternatives = "|".join(r"(?:\s|\\[nrt])+".join(map(re.escape, name)) for name in words)
        self._names = (
            re.compile(rf"(?:(?<!\w)|(?<=\\[nrt]))(?:{alternatives})(?!\w)", re.IGNORECASE)
            if alternatives
            else None
        )

    def __call__(self, _logger: WrappedLogger, _method: str, event_dict: EventDict) -> EventDict:
        """Hide the names of one event."""
        return self._mapping(event_dict, 0)

    def _text(self, text: str) -> str:
        return self._names.sub(_HIDDEN, text) if self._names else text

    def _mapping(self, mapping: Mapping[Any, Any], depth: int) -> MutableMapping[str, Any]:
        return {
            self._text(str(key)): _HIDDEN if key in _NAME_KEYS else self._value(value, depth + 1)
            for key, value in mapping.items()
        }

    def _value(self, value: object, depth: int) -> object:
        if isinstance(value, str):
            return self._text(value)
        if value is None or isinstance(value, int):
            return value
        if isinstance(value, float):
            # JSON has no NaN and no infinity
            return value if math.isfinite(value) else str(value)
        if depth < _MAX_DEPTH:
            if isinstance(value, Mapping):
                return self._mapping(value, depth)
            if isinstance(value, list | tuple | set | frozenset):
                return [self._value(item, depth + 1) for item in value]
        return self._text(repr(value))


class _Handler(logging.StreamHandler[Any]):
    """Writes to the standard error of the moment; a class of its own, to be found again."""


def configure(
    level: Literal["debug", "info", "warning", "error"] = "info",
    format: Literal["auto", "human", "json"] = "auto",  # noqa: A002 - as in the configuration
    names: Iterable[str] = (),
) -> None:
    """Set up logging for the whole process; a later call replaces an earlier one.

    Everything goes to standard error, with UTC times: what is logged through structlog, through the
    standard library (SQLAlchemy, Alembic, asyncio) and Python's warnings.

    Args:
        level: the least important messages that are logged.
        format: ``human``, with colours on a terminal; ``json``, one object a line; or ``auto``,
            which is human on a terminal and JSON otherwise.
        names: names of patients, which are hidden wherever they would be logged.
    """
    terminal = sys.stderr.isatty()
    human = format == "human" or (format == "auto" and terminal)
    render: Processor = (
        structlog.dev.ConsoleRenderer(
            colors=terminal,
            # Other formatters show local variables, and names with them.
            exception_formatter=structlog.dev.plain_traceback,
        )
        if human
        else structlog.processors.JSONRenderer()
    )
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    handler = _Handler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.StackInfoRenderer(),
                structlog.processors.format_exc_info,
                # After whatever makes text, before what puts it together.
                NameGuard(names),
                render,
            ],
        )
    )
    threshold = logging.getLevelNamesMapping()[level.upper()]
    root = logging.getLogger()
    for old in [old for old in root.handlers if isinstance(old, _Handler)]:
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(threshold)
    # Every start of it would list its parts.
    logging.getLogger("alembic.runtime.plugins").setLevel(logging.WARNING)
    logging.captureWarnings(True)
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.make_filtering_bound_logger(threshold),
        cache_logger_on_first_use=False,
    )
