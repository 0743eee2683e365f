"""Watch a run of samples for lethal rhythms: a verdict a second."""

import numpy as np
from numpy.typing import NDArray

from models.rhythm.model import RhythmModel
from models.rhythm.verdict import Verdict


class RhythmWatch:
    """Watches one run of samples that follow each other without a gap.

    Args:
        model: what classifies a few seconds.
        rate: samples per second, in Hz.

    Raises:
        ValueError: ``rate`` is below 50 Hz.
    """

    def __init__(self, model: RhythmModel, rate: float) -> None:
        self._model = model
        self._rate = rate

    def add(self, microvolts: NDArray[np.float32]) -> list[Verdict]:
        """Take the next samples, float32 [n] in µV, all finite; the verdicts that they complete."""
        raise NotImplementedError
