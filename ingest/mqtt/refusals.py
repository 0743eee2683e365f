"""Tells of refused messages, and never more often than people can read."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import structlog

from ingest.mqtt.counts import REFUSED
from ingest.mqtt.payload import Reason, RefusedError, one_line

_log = structlog.get_logger()

_EVERY_NS: Final = 60_000_000_000
_EXCERPT: Final = 1024


@dataclass(frozen=True, slots=True)
class Rejection:
    """A message that was not taken.

    Attributes:
        at_ns: UTC time it came, in nanoseconds since 1970.
        topic: where, safe to print.
        reason: why, for counting.
        detail: why, for people; one line.
        excerpt: the first bytes of its payload.
    """

    at_ns: int
    topic: str
    reason: Reason
    detail: str
    excerpt: bytes


class Refusals:
    """Counts every refusal; tells the first of each reason, and another once a minute."""

    def __init__(self, on_reject: Callable[[Rejection], None]) -> None:
        self._on_reject = on_reject
        self._told_ns: dict[Reason, int] = {}
        self._untold: dict[Reason, int] = {}

    def refuse(
        self, error: RefusedError, topic: str, payload: bytes, at_ns: int, now_ns: int
    ) -> None:
        """Count a message that is refused.

        Args:
            error: why.
            topic: where it came.
            payload: what came.
            at_ns: UTC time it came, in nanoseconds since 1970.
            now_ns: by a clock that nobody sets, in nanoseconds.
        """
        reason = error.reason
        REFUSED.labels(reason.value).inc()
        told_ns = self._told_ns.get(reason)
        if told_ns is not None and now_ns - told_ns < _EVERY_NS:
            self._untold[reason] = self._untold.get(reason, 0) + 1
            return
        self._told_ns[reason] = now_ns
        rejection = Rejection(at_ns, one_line(topic), reason, error.detail, payload[:_EXCERPT])
        _log.warning(
            "MQTT message refused",
            topic=rejection.topic,
            reason=reason.value,
            detail=rejection.detail,
            untold=self._untold.pop(reason, 0),
        )
        self._on_reject(rejection)
