"""What is known of every patient right now: what the dashboard shows."""

from collections import deque
from dataclasses import dataclass, field

from alerts.conditions import Alarm, Change, State
from alerts.rhythm import LETHAL, RhythmSeen
from monitor.results import WindowResult

# Classes that say what the heart's rhythm is, of which one is shown; the others are findings.
RHYTHMS = ("NSR", "AF", "AFL", "SB", "STach", "SA", "SVARR", "BIGU", "PR", "SVTAC", "PSVT", "TRIGU")

_CHANGES_SHOWN = 8


@dataclass(slots=True)
class PatientNow:
    """The last window of a patient and the alarms that are active.

    Attributes:
        patient: the configured id.
        heart_rate: beats per minute in the last good window.
        rhythm: abbreviation of the likeliest rhythm in the last good window, with its probability.
        findings: other positive classes of the last good window, likeliest first.
        quality: of the last window, with its reasons.
        end_ns: UTC end of the last window.
        windows: how many windows there were.
        good: how many of them were good.
        alarms: active alarms by condition.
        verdicts: the last of the watch for lethal rhythms, by device.
    """

    patient: str
    heart_rate: float | None = None
    rhythm: tuple[str, float] | None = None
    findings: tuple[tuple[str, float], ...] = ()
    quality: str = "waiting"
    end_ns: int | None = None
    windows: int = 0
    good: int = 0
    alarms: dict[str, Alarm] = field(default_factory=dict)
    verdicts: dict[str, RhythmSeen] = field(default_factory=dict)

    @property
    def verdict(self) -> RhythmSeen | None:
        """The verdict to show: one of a lethal rhythm, or else the newest."""
        return max(
            self.verdicts.values(), key=lambda v: (v.rhythm in LETHAL, v.at_ns), default=None
        )


class Board:
    """Follows results and changes.

    Args:
        thresholds: probability from which a class is positive, by abbreviation.
        patients: ids to show before their first window.
    """

    def __init__(self, thresholds: dict[str, float], patients: tuple[str, ...] = ()) -> None:
        self._thresholds = thresholds
        self.patients = {patient: PatientNow(patient) for patient in patients}
        self.changes: deque[Change] = deque(maxlen=_CHANGES_SHOWN)

    def result(self, result: WindowResult) -> None:
        """Take in a stored result."""
        now = self._patient(result.stream.patient)
        now.windows += 1
        now.end_ns = result.end_ns
        reasons = ", ".join(result.grade.reasons)
        now.quality = f"{result.grade.quality}: {reasons}" if reasons else result.grade.quality
        if not result.grade.good:
            return
        now.good += 1
        now.heart_rate = result.heart_rate
        positive = positives(result, self._thresholds)
        probabilities = result.by_class
        now.rhythm = likeliest_rhythm(result)
        shown = (*RHYTHMS, "NECG")
        now.findings = tuple((c, probabilities[c]) for c in positive if c not in shown)

    def rhythm(self, seen: RhythmSeen) -> None:
        """Take in a verdict of the watch for lethal rhythms."""
        self._patient(seen.patient).verdicts[seen.device] = seen

    def change(self, change: Change) -> None:
        """Take in a change of an alarm."""
        alarms = self._patient(change.alarm.patient).alarms
        if change.state is State.ACTIVE:
            alarms[change.alarm.condition] = change.alarm
        else:
            alarms.pop(change.alarm.condition, None)
        self.changes.append(change)

    def _patient(self, patient: str) -> PatientNow:
        return self.patients.setdefault(patient, PatientNow(patient))


def positives(result: WindowResult, thresholds: dict[str, float]) -> list[str]:
    """Classes at or over their threshold, likeliest first."""
    probabilities = result.by_class
    over = [c for c, p in probabilities.items() if p >= thresholds.get(c, 1.0)]
    return sorted(over, key=lambda c: -probabilities[c])


def likeliest_rhythm(result: WindowResult) -> tuple[str, float] | None:
    """Abbreviation and probability of the likeliest rhythm; None in a bad window."""
    probabilities = result.by_class
    rhythms = [(c, probabilities[c]) for c in RHYTHMS if c in probabilities]
    return max(rhythms, key=lambda r: r[1], default=None)
