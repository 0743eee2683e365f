"""Stretches of time, half open and in nanoseconds: joined, subtracted, cut to a range."""

from bisect import bisect_right
from collections.abc import Iterable, Sequence

Span = tuple[int, int]
"""Start and end, UTC in nanoseconds since 1970; the end is no part of it."""


def union(spans: Iterable[Span], *, bridge_ns: int = 0) -> list[Span]:
    """Join spans that overlap or lie no further apart than ``bridge_ns``.

    Args:
        spans: in any order; those without a length are left out.
        bridge_ns: the longest hole that is closed.

    Returns:
        By start, none touching another.
    """
    joined: list[Span] = []
    for start, end in sorted(spans):
        if end <= start:
            continue
        if joined and start - joined[-1][1] <= bridge_ns:
            joined[-1] = joined[-1][0], max(joined[-1][1], end)
        else:
            joined.append((start, end))
    return joined


def without(spans: Sequence[Span], covered: Sequence[Span], *, more_than_ns: int = 0) -> list[Span]:
    """What ``covered`` leaves of spans.

    Args:
        spans: as ``union`` gives them.
        covered: as ``union`` gives them.
        more_than_ns: what is left and no longer than this is left out.

    Returns:
        By start.
    """
    left: list[Span] = []
    at = 0
    for start, end in spans:
        while at < len(covered) and covered[at][1] <= start:
            at += 1
        begun = start
        for i in range(at, len(covered)):
            if covered[i][0] >= end:
                break
            left.append((begun, covered[i][0]))
            begun = covered[i][1]
        left.append((begun, end))
    return [(start, end) for start, end in left if end - start > more_than_ns]


def within(spans: Sequence[Span], since_ns: int, until_ns: int) -> list[Span]:
    """The parts of spans, as ``union`` gives them, that lie in ``[since_ns, until_ns)``."""
    first = bisect_right(spans, since_ns, key=lambda span: span[1])
    found: list[Span] = []
    for start, end in spans[first:]:
        if start >= until_ns:
            break
        found.append((max(start, since_ns), min(end, until_ns)))
    return found


def total(spans: Iterable[Span]) -> int:
    """How long spans are together, in nanoseconds."""
    return sum(end - start for start, end in spans)
