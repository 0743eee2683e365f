"""A watch for lethal rhythms that says what its samples say, for tests of what feeds it."""

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from models.rhythm.model import RhythmModel
from models.rhythm.verdict import Rhythm, Verdict

MODEL = RhythmModel.__new__(RhythmModel)
"""A model that nothing asks."""

ORGANISED, VF, UNKNOWN = 0.0, 10_000.0, 20_000.0
"""What samples, in µV, are taken for by ``FakeWatch``, to within 5 mV."""

_RHYTHMS = (Rhythm.ORGANISED, Rhythm.VF, Rhythm.UNKNOWN)


class FakeWatch:
    """Names the rhythm after the last sample, a verdict a second from the third second of a run.

    An organised rhythm has its last beat at the end of each second, and 70 beats per minute.
    """

    def __init__(self, rate: float) -> None:
        self.rate = rate
        self.samples: NDArray[np.float32] = np.empty(0, np.float32)
        self._since = 0
        self._rhythm: Rhythm | None = None
        self._beat: int | None = None
        self._given = 2

    def add(self, microvolts: NDArray[np.float32]) -> list[Verdict]:
        assert np.isfinite(microvolts).all()
        assert microvolts.dtype == np.float32
        self.samples = np.concatenate((self.samples, microvolts))
        return list(self._verdicts())

    def _verdicts(self) -> Iterable[Verdict]:
        while (self._given + 1) * self.rate <= len(self.samples):
            self._given += 1
            end = round(self._given * self.rate)
            rhythm = _RHYTHMS[round(float(self.samples[end - 1]) / VF)]
            if rhythm is not self._rhythm:
                self._rhythm, self._since = rhythm, end - round(self.rate)
            organised = rhythm is Rhythm.ORGANISED
            if organised:
                self._beat = end - 1
            rate = 70.0 if organised else None
            yield Verdict(end, rhythm, self._since, rate, self._beat)


class Watches:
    """Makes fake watches, and keeps them; to be given in place of ``RhythmWatch``."""

    def __init__(self) -> None:
        self.made: list[FakeWatch] = []

    def __call__(self, _model: RhythmModel, rate: float) -> FakeWatch:
        self.made.append(FakeWatch(rate))
        return self.made[-1]

    @property
    def runs(self) -> list[int]:
        """How many samples each has had."""
        return [len(watch.samples) for watch in self.made]
