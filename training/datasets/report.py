"""What became of the records of a data set when it was prepared."""

import csv
import io
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

_EXAMPLES = 3


@dataclass(frozen=True, slots=True)
class Report:
    """Counts of a finished preparation; ``str()`` is the text for people.

    Attributes:
        name: what the data set is called.
        licence: its origin and licence.
        read: records of the source.
        written: those that are in the cache.
        windows: windows of all of them.
        skipped: (record, reason, detail) of every other one.
        dropped: windows left out of records that are in, by reason.
        labels: (positive, known) records of each column.
        unknown: codes the vocabulary does not have, and how often they occur.
    """

    name: str
    licence: str
    read: int
    written: int
    windows: int
    skipped: tuple[tuple[str, str, str], ...]
    dropped: dict[str, int]
    labels: dict[str, tuple[int, int]]
    unknown: dict[str, int]

    def __str__(self) -> str:
        counts = (
            f"{self.name}: {self.read} records read, {self.written} written"
            f" as {self.windows} windows, {len(self.skipped)} skipped"
        )
        lines = [counts, self.licence]
        reasons = Counter(reason for _, reason, _ in self.skipped)
        for reason, count in sorted(reasons.items()):
            shown = [
                f"{record} ({detail})" if detail else record
                for record, why, detail in self.skipped
                if why == reason
            ][:_EXAMPLES]
            lines.append(f"  skipped, {reason}: {count}, e.g. {'; '.join(shown)}")
        lines += [f"  windows dropped, {r}: {n}" for r, n in sorted(self.dropped.items())]
        if self.unknown:
            codes = sorted(self.unknown.items(), key=lambda item: (-item[1], item[0]))
            lines.append(
                "  codes the vocabulary does not have: " + ", ".join(f"{c} ({n})" for c, n in codes)
            )
        counted = sorted(self.labels.items(), key=lambda item: -item[1][0])
        if counted:
            lines += ["", f"{'column':<16} {'positive':>9} {'known':>9}"]
        lines += [f"{c:<16} {positive:>9} {known:>9}" for c, (positive, known) in counted if known]
        return "\n".join(lines) + "\n"

    def skipped_csv(self) -> str:
        """The skipped records as a table: record, reason, detail."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(("record", "reason", "detail"))
        writer.writerows(self.skipped)
        return text.getvalue()


def summarize(
    name: str,
    licence: str,
    columns: Sequence[str],
    entries: Sequence[dict[str, Any]],
    labels: NDArray[np.uint8],
) -> Report:
    """Count what the journal of a preparation says.

    Args:
        name: what the data set is called.
        licence: its origin and licence.
        columns: names of the labels.
        entries: a dictionary for each record of the source.
        labels: [records, columns], bit 0 the label, bit 1 whether it is known.
    """
    written = [e for e in entries if "skipped" not in e]
    dropped: Counter[str] = Counter()
    unknown: Counter[str] = Counter()
    for entry in written:
        dropped.update(entry.get("dropped", {}))
        unknown.update(entry.get("unknown", ()))
    positive, known = (labels & 1).sum(axis=0), (labels >> 1).sum(axis=0)
    return Report(
        name=name,
        licence=licence,
        read=len(entries),
        written=len(written),
        windows=sum(e["windows"] for e in written),
        skipped=tuple((e["id"], e["skipped"], e["detail"]) for e in entries if "skipped" in e),
        dropped=dict(dropped),
        labels={c: (int(p), int(k)) for c, p, k in zip(columns, positive, known, strict=True)},
        unknown=dict(unknown),
    )
