"""Generated ECG: what the package deepfake-ecg writes, or the sets its authors publish.

One ``NUMBER.asc`` a record: a line a sample, the eight independent leads I, II, V1-V6 in µV, 10 s
at 500 Hz (Thambawita et al. 2021, Pulse2Pulse). They are of nobody and have no labels.
"""

import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from models.leads import LEADS
from training.datasets.record import Record, Skip
from training.datasets.splits import hashed_fold
from training.errors import TrainingError
from training.shards import twelve_leads

_RATE = 500.0
_INDEPENDENT = 8


class Deepfake:
    """A folder of ``.asc`` files; folds 0 train, 1 validation, 2 test."""

    name = "DeepFake ECG"
    licence = "DeepFake ECG, generated (Thambawita et al. 2021), MIT"
    leads = LEADS
    columns: tuple[str, ...] = ()

    def __init__(self, folder: Path) -> None:
        self._paths = {path.stem: path for path in sorted(folder.glob("*.asc"))}
        if not self._paths:
            raise TrainingError(f"{folder}: no *.asc; expected generated records")

    def ids(self) -> Sequence[str]:
        """Every record, by name."""
        return tuple(self._paths)

    def read(self, record: str) -> Record:
        """One record with all twelve leads.

        Raises:
            Skip: it is not eight columns of numbers.
        """
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of an empty file, which is refused below
                samples = np.loadtxt(self._paths[record], ndmin=2)
        except (OSError, ValueError) as error:
            raise Skip("unreadable", str(error)) from None
        if samples.shape[1] != _INDEPENDENT:
            raise Skip("unreadable", f"{samples.shape[1]} columns; expected {_INDEPENDENT}")
        return Record(
            id=record,
            patient=record,
            signal=twelve_leads(samples.T),
            rate=_RATE,
            leads=LEADS,
            fold=hashed_fold(record),
        )
