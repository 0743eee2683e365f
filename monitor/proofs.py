"""Proof that a channel delivers: what was sent on purpose, kept beside what was asked."""

import time

from monitor.storage.records import Request
from monitor.storage.told import TEST

DELIVERED = "delivered"


def proof(channel: str, by: str, at_ns: int | None = None) -> Request:
    """Make the record that a channel has delivered a message that is no alarm.

    Args:
        channel: its name.
        by: who has tried it.
        at_ns: UTC time, in nanoseconds since 1970; by default now.
    """
    when_ns = time.time_ns() if at_ns is None else at_ns
    return Request(TEST, {"channel": channel}, by, when_ns, answer=DELIVERED)
