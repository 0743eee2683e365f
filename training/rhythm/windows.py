"""Cut recordings into what the classifier of rhythms is trained and measured on."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.rhythm.frontend import LENGTH_S, SAMPLES, SHORTEST_S, filtered
from training.rhythm.records import RhythmRecord

# A window is what its last seconds are: the classifier is to be quick, and what was before is
# context. Where they change there is no one answer.
_JUDGED_S = 3.0

# Missing samples for so long are bridged, as the daemon bridges a lost packet; beyond it the watch
# begins anew.
BRIDGED_S = 1.0

_BATCH = 256


@dataclass(frozen=True, slots=True, eq=False)
class Windows:
    """Windows of one or many records, one for each second at which they end.

    Attributes:
        inputs: float32 [n, ``SAMPLES``], in µV.
        labels: uint8 [n], ``Label`` of the last seconds.
        ends_s: float64 [n], seconds from the start of the record.
        records: int64 [n], which record, counted from 0.
    """

    inputs: NDArray[np.float32]
    labels: NDArray[np.uint8]
    ends_s: NDArray[np.float64]
    records: NDArray[np.int64]


def bridged(microvolts: NDArray[np.float32], rate: float) -> NDArray[np.float32]:
    """Bridge short losses by straight lines; longer ones stay NaN."""
    missing = ~np.isfinite(microvolts)
    if not missing.any() or missing.all():
        return microvolts
    edges = np.flatnonzero(np.diff(missing.astype(np.int8), prepend=0, append=0))
    known = np.flatnonzero(~missing)
    out = microvolts.copy()
    for begin, end in zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True):
        if end - begin <= BRIDGED_S * rate:
            at = np.arange(begin, end)
            out[begin:end] = np.interp(at, known, microvolts[known])
    return out


def label_at(record: RhythmRecord, ends_s: NDArray[np.float64]) -> NDArray[np.uint8]:
    """What the last seconds before each time are: what all their annotations have in common."""
    labels = np.full(len(ends_s), 31, np.uint8)
    for span in record.spans:
        touched = (span.start_s < ends_s) & (span.end_s > ends_s - _JUDGED_S)
        labels[touched] &= np.uint8(span.label)
    return labels


def cut(record: RhythmRecord, every_s: float = 1.0) -> Windows:
    """Cut a record into windows, one every ``every_s``, the first of ``SHORTEST_S`` seconds."""
    samples = bridged(record.microvolts, record.rate)
    missing = np.concatenate(([0], np.cumsum(~np.isfinite(samples))))
    ends_s = np.arange(SHORTEST_S, record.duration_s + 1e-9, every_s)
    inputs = np.zeros((len(ends_s), SAMPLES), np.float32)
    kept = np.zeros(len(ends_s), np.bool_)
    length = round(LENGTH_S * record.rate)
    shortest = round(SHORTEST_S * record.rate)
    ends = np.round(ends_s * record.rate).astype(np.int64)
    whole = []
    for i, end in enumerate(ends.tolist()):
        begin = max(0, end - length)
        lost = missing[begin : end + 1]
        if lost[-1] != lost[0]:  # the run begins after what was lost last
            begin += int(np.flatnonzero(lost[1:] > lost[:-1])[-1]) + 1
        if end - begin < shortest or end > len(samples):
            continue
        kept[i] = True
        if end - begin == length:
            whole.append(i)
        else:
            inputs[i] = filtered(samples[begin:end], record.rate)
    for first in range(0, len(whole), _BATCH):
        some = np.array(whole[first : first + _BATCH])
        rows = ends[some][:, None] + np.arange(-length, 0)
        inputs[some] = filtered(samples[rows], record.rate)
    return Windows(
        inputs[kept],
        label_at(record, ends_s[kept]),
        ends_s[kept],
        np.zeros(int(kept.sum()), np.int64),
    )


def joined(parts: Iterable[Windows]) -> Windows:
    """Put the windows of several records into one, in their order."""
    some = list(parts)
    return Windows(
        np.concatenate([p.inputs for p in some]),
        np.concatenate([p.labels for p in some]),
        np.concatenate([p.ends_s for p in some]),
        np.concatenate([np.full(len(p.labels), i, np.int64) for i, p in enumerate(some)]),
    )
