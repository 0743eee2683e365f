"""How often a bundle's alarm rules are wrong over hours in which nothing should rise."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ingest.recordings import RecordingError, read_recording
from models.runtime import Runtime
from training.datasets.record import samples
from training.datasets.tables import read_table
from training.errors import TrainingError
from training.evaluation.false_alarms import false_alarms
from training.shards import read_shard
from training.windows import prepared, probabilities

# Columns of the Lead-I database's table, as they are broken over lines there.
_WHO, _HISTORY = "Subject\nID", "Heart medical\n antecedents  "


@dataclass(frozen=True, slots=True, eq=False)
class _Stretch:
    """What one heart gave: windows in order, z-scored, and how long it was watched."""

    windows: NDArray[np.float32]
    seconds: float


def quiet_hours(runtime: Runtime, data: Path) -> dict[str, object]:
    """False alarms of each rule, per data set.

    The MIT-BIH records are in sinus rhythm; they are continuous, but of a chest lead. Of ``lead1``
    only the subjects called healthy count: of the others nobody says that they are not in AF, and
    some beat as irregularly. Ten records of each are taken one after another, as they would come
    from one strap. The daemon alarms on good windows only; here all windows count, which errs on
    the side of caution.

    Raises:
        TrainingError: if a record is missing or damaged.
    """
    result: dict[str, object] = {}
    for name, stretches in (("mitdb", _mitdb(runtime, data)), ("lead1", _lead_one(runtime, data))):
        watched = list(stretches)
        said = [probabilities(runtime, s.windows) for s in watched]
        seconds = [s.seconds for s in watched]
        result[name] = {
            "hours": round(sum(seconds) / 3600, 2),
            "hearts": len(watched),
            "alarms": {
                c.abbreviation: false_alarms([p[:, i] for p in said], seconds, c.alarm).alarms
                for i, c in enumerate(runtime.bundle.manifest.classes)
                if c.alarm is not None
            },
        }
    return result


def _mitdb(runtime: Runtime, data: Path) -> Iterator[_Stretch]:
    headers = sorted((data / "samples" / "mitdb").glob("*.hea"))
    if not headers:
        raise TrainingError(f"{data / 'samples' / 'mitdb'}: no record; expected those of MIT-BIH")
    for header in headers:
        try:
            recording = read_recording(header)
        except RecordingError as error:
            raise TrainingError(str(error)) from None
        signal = samples(recording)[0][0]
        windows = prepared(signal, recording.rate, runtime)
        yield _Stretch(windows, len(signal) / recording.rate)


def _lead_one(runtime: Runtime, data: Path) -> Iterator[_Stretch]:
    healthy = _healthy(data / "lead1" / "subjects.csv")
    records = read_shard(data / "lead1" / "all.npz")
    for subject, some in groupby(records, key=lambda record: record.id.partition("-")[0]):
        if subject not in healthy:
            continue
        windows = [(runtime.prepare(r.signal[0].astype(np.float32), r.rate), r) for r in some]
        seconds = sum(r.signal.shape[1] / r.rate for _, r in windows)
        yield _Stretch(np.stack([w for w, _ in windows]), seconds)


def _healthy(path: Path) -> set[str]:
    """Subjects without a medical history."""
    rows = read_table(path, _WHO, _HISTORY)
    found = {row[_WHO].strip() for row in rows if row[_HISTORY].strip() == "Healthy"}
    if not found:
        raise TrainingError(f"{path}: no subject is 'Healthy' there; expected some")
    return found
