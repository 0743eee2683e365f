"""Choose the thresholds of the decision on people that the network did not learn from."""

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.rhythm.decision import CumulativeSum, Thresholds
from training.rhythm.episodes import VF_S, VT_S, Episode, episodes, heard_after, is_false
from training.rhythm.records import Label, RhythmRecord
from training.rhythm.windows import Windows

DEFAULT = Thresholds(
    bias=1.0, raise_at=8.0, most=14.0, still_bias=0.0, still_raise_at=4.0, organised=0.75
)

_BIASES = (-0.5, 0.0, 0.5, 1.0, 1.5, 2.0, 2.5)
_RAISE_AT = (5.0, 6.0, 8.0, 10.0, 12.0, 14.0)
_ABOVE = 6.0

# What one missed episode weighs beside one false alarm; and ten seconds of waiting.
_MISSED_VF = 4.0
_MISSED_VT = 2.0
_TEN_SECONDS = 0.3

# In one record no more false alarms count than this: a heart that dies raises many, and whoever
# sits beside it minds them less than one at three in the morning.
_MOST_FALSE = 2

# Until a heart has beaten for so long an alarm goes on, and another is none of its own.
_SAME_ALARM_S = 30.0


@dataclass(frozen=True, slots=True, eq=False)
class Track:
    """One record, second by second, as a network that never saw its person takes it.

    Attributes:
        record: what is annotated.
        fold: in which it is counted.
        ends_s: float64 [n], ends of the seconds.
        lethal: float64 [n], probability of fibrillation or tachycardia.
    """

    record: RhythmRecord
    fold: int
    ends_s: NDArray[np.float64]
    lethal: NDArray[np.float64]

    @classmethod
    def of(
        cls,
        record: RhythmRecord,
        windows: Windows,
        probabilities: Callable[[NDArray[np.float32]], NDArray[np.float32]],
        fold: int,
    ) -> "Track":
        """Have a network judge the windows of a record."""
        inputs = windows.inputs
        found = [probabilities(inputs[i : i + 256]) for i in range(0, len(inputs), 256)]
        lethal = np.concatenate(found)[:, :2].sum(axis=1, dtype=np.float64) if found else []
        return cls(record, fold, windows.ends_s, np.asarray(lethal, np.float64))

    def lasting(self, thresholds: Thresholds) -> Iterator[tuple[float, float]]:
        """When a lethal rhythm would have been told of, from when to when, in seconds."""
        summed = CumulativeSum(thresholds.bias, thresholds.raise_at, thresholds.most)
        began: float | None = None
        before = -np.inf
        for end_s, p in zip(self.ends_s.tolist(), self.lethal.tolist(), strict=True):
            if end_s - before > 1.5:  # samples are missing: a new run
                summed = CumulativeSum(thresholds.bias, thresholds.raise_at, thresholds.most)
                if began is not None:
                    yield began, before
                    began = None
            before = end_s
            summed.add(p, end_s)
            if summed.is_over and began is None:
                began = end_s
            elif not summed.is_over and began is not None:
                yield began, end_s
                began = None
        if began is not None:
            yield began, before


def choose(tracks: Iterable[Track]) -> Thresholds:
    """The thresholds with the fewest false alarms and missed episodes, weighed.

    Args:
        tracks: of people who are not counted with them.
    """
    # Most records never come near an alarm, whatever the thresholds.
    lowest = DEFAULT.model_copy(
        update={"bias": _BIASES[0], "raise_at": _RAISE_AT[0], "most": _RAISE_AT[0] + _ABOVE}
    )
    some = [t for t in tracks if _wanted(t.record) or any(t.lasting(lowest))]
    costs = {}
    for bias, raise_at in itertools.product(_BIASES, _RAISE_AT):
        tried = DEFAULT.model_copy(
            update={"bias": bias, "raise_at": raise_at, "most": raise_at + _ABOVE}
        )
        costs[bias, raise_at] = tried, sum(_cost(track, tried) for track in some)
    return min(costs.values(), key=lambda pair: pair[1])[0]


def summary(tracks: Iterable[Track], thresholds: Mapping[int, Thresholds]) -> dict[str, object]:
    """What cross-validation heard, missed and heard for nothing, before the rules of alarms.

    Args:
        tracks: of everybody.
        thresholds: by fold, chosen on the people of the other folds.
    """
    counts = {f"{kind}_{what}": 0 for kind in ("vf", "vt") for what in ("episodes", "heard")}
    false: dict[str, int] = {}
    hours: dict[str, float] = {}
    for track in tracks:
        source = track.record.source
        if source in {"simulated", "still"}:
            continue
        lasting = list(track.lasting(thresholds[track.fold]))
        for episode in _wanted(track.record):
            kind = "vf" if episode.kind is Label.VF else "vt"
            counts[f"{kind}_episodes"] += 1
            counts[f"{kind}_heard"] += heard_after(lasting, episode) is not None
        false[source] = false.get(source, 0) + _false(track, lasting)
        hours[source] = hours.get(source, 0.0) + len(track.ends_s) / 3600
    return {
        "how": "cross-validated by person; VF of 10 s and more, VT of 8 s and more",
        **counts,
        "false": false,
        "hours": {source: round(h, 1) for source, h in hours.items()},
    }


def _wanted(record: RhythmRecord) -> list[Episode]:
    return [
        e
        for e in episodes(record)
        if (e.kind is Label.VF and e.duration_s >= VF_S)
        or (e.kind is Label.VT and e.duration_s >= VT_S)
    ]


def _false(track: Track, lasting: Iterable[tuple[float, float]]) -> int:
    """How many alarms there would be where nothing lethal is."""
    count = 0
    before = -np.inf
    for start, end in lasting:
        count += start - before > _SAME_ALARM_S and is_false(track.record, start)
        before = end
    return count


def _cost(track: Track, thresholds: Thresholds) -> float:
    lasting = list(track.lasting(thresholds))
    cost = float(min(_false(track, lasting), _MOST_FALSE))
    for episode in _wanted(track.record):
        heard_s = heard_after(lasting, episode)
        if heard_s is None:
            cost += _MISSED_VF if episode.kind is Label.VF else _MISSED_VT
        else:
            cost += _TEN_SECONDS * heard_s / 10
    return cost
