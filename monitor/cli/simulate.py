"""``leadone alarms simulate``: which alarms recordings would have raised under a configuration."""

import statistics
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from alerts.lethal import UNSEEN
from alerts.policy import Policy
from alerts.rhythm import LETHAL
from ingest.formats.annotations import read_annotations
from ingest.recordings import Recording, RecordingError, read_recording
from models.rhythm.model import RhythmModel
from models.runtime import Runtime
from monitor.analysis import Analyzer
from monitor.cli.errors import MisuseError
from monitor.cli.patient import require_patient
from monitor.cli.rhythm_model import open_rhythm_model
from monitor.cli.rows import print_row
from monitor.cli.times import span
from monitor.config import Config, load_config
from monitor.policies import build_policies
from monitor.service import open_bundle
from monitor.simulate import SimulatedAlarm, answers, hear, observe, seconds_to_alarm, simulate

_DAY_S = 86_400.0

# What is noted where an annotated rhythm begins:
# https://physionet.org/physiotools/wag/annot-5.htm and the MIT-BIH Arrhythmia Database Directory.
_RHYTHMS = {
    "class:AF": ("(AFIB",),
    "class:AFL": ("(AFL",),
    "vf": ("(VF", "(VFIB", "(VFL"),
    "vt": ("(VT",),
    "asystole": ("(ASYS",),
}


@dataclass(frozen=True, slots=True)
class _Expected:
    """A recording that should have alarmed, and how soon after the onset it did (None: never)."""

    record: str
    seconds: float | None


def simulate_records(
    path: Path | None,
    records: Sequence[Path],
    patient: str | None,
    expect: str | None,
    lead: str | None,
    *,
    json_lines: bool,
) -> int:
    """Print the alarms of every recording and a summary; 1 if one could not be read, else 0.

    Args:
        path: the configuration; None for the rules that hold without one.
        records: the recordings, each by itself, as a heart of its own.
        patient: whose rules; None for those of a patient without any of its own.
        expect: a condition, or the class of one, that every recording should raise.
        lead: which to read; lead I or the first by default.
        json_lines: print JSON.

    Raises:
        CommandError: there is no such patient, or the model of the watch for lethal rhythms
            cannot be used.
        MisuseError: ``expect`` is nothing the rules can raise, or there is a patient and no
            configuration.
        ConfigError: of the configuration.
        BundleError: of the bundle.
    """
    if path is None:
        if patient is not None:
            raise MisuseError("--patient: there is no configuration: name one by -c")
        config = Config.model_validate({"patients": [{"id": "anybody"}]})
    else:
        config = load_config(path)
        if patient is not None:
            require_patient(config, path, patient)
    bundle = open_bundle(config)
    policy = build_policies(config, bundle)(patient or "")
    expected = None if expect is None else _condition(expect, policy)
    analyzer = Analyzer(Runtime(bundle, config.inference.threads))
    rhythms = open_rhythm_model()
    watched_s = 0.0
    alarms: list[SimulatedAlarm] = []
    outcomes: list[_Expected] = []
    failed = 0
    for record in records:
        try:
            recording = read_recording(record)
            used = lead or recording.default_lead()
            recording.lead_index(used)
            onset_s = _onset(record, recording, expected)
        except RecordingError as error:
            sys.stderr.write(f"leadone: {error}\n")
            failed = 1
            continue
        raised = _alarms(recording, used, analyzer, rhythms, config, policy)
        watched_s += recording.duration_s
        alarms += raised
        if expected is not None and onset_s is not None:
            outcomes.append(_Expected(str(record), seconds_to_alarm(raised, expected, onset_s)))
        _print_record(record, recording, used, raised, json_lines=json_lines)
    _print_summary(watched_s, alarms, expected, outcomes, json_lines=json_lines)
    return failed


def _alarms(
    recording: Recording,
    lead: str,
    analyzer: Analyzer,
    rhythms: RhythmModel,
    config: Config,
    policy: Policy,
) -> list[SimulatedAlarm]:
    seen = observe(
        recording,
        lead,
        analyzer,
        length_s=config.window.length,
        hop_s=config.window.hop,
        pause_s=policy.pause.seconds if policy.pause else None,
    )
    return simulate(seen, policy, hear(recording, lead, rhythms))


def _condition(expect: str, policy: Policy) -> str:
    known = [*LETHAL, UNSEEN, *(rule.condition for rule in policy.rules)]
    for condition in (expect, f"class:{expect}"):
        if condition in known:
            return condition
    raise MisuseError(f"--expect: no rule raises {expect!r}; there are {', '.join(known)}")


def _onset(record: Path, recording: Recording, expected: str | None) -> float | None:
    """When what is expected begins, in seconds; None if the annotations do not have it."""
    annotated = record.with_suffix(".atr") if record.suffix else Path(f"{record}.atr")
    named = _RHYTHMS.get(expected or "")
    if named is None or not annotated.is_file():
        return 0.0
    notes = read_annotations(annotated)
    rhythms = [
        (at, text) for at, text in zip(notes.samples, notes.texts, strict=True) if text[:1] == "("
    ]
    if not rhythms:
        return 0.0
    return next((float(at) / recording.rate for at, text in rhythms if text in named), None)


def _print_record(
    record: Path,
    recording: Recording,
    lead: str,
    alarms: Sequence[SimulatedAlarm],
    *,
    json_lines: bool,
) -> None:
    if json_lines:
        for alarm in alarms:
            print_row({"record": str(record), **asdict(alarm)})
        return
    sys.stdout.write(
        f"{record}: lead {lead}, {span(recording.duration_s)}, {_count(len(alarms))}\n"
    )
    for alarm in alarms:
        end = "to the end" if alarm.ended_s is None else f"until {alarm.ended_s:.1f} s"
        sys.stdout.write(
            f"  {alarm.raised_s:8.1f} s  {alarm.priority:<6}  {alarm.condition:<10} {end:<16} "
            f"{alarm.reason}\n"
        )


def _print_summary(
    watched_s: float,
    alarms: Sequence[SimulatedAlarm],
    expected: str | None,
    outcomes: Sequence[_Expected],
    *,
    json_lines: bool,
) -> None:
    days = watched_s / _DAY_S
    counts = Counter(alarm.condition for alarm in alarms)
    times = [outcome.seconds for outcome in outcomes if outcome.seconds is not None]
    missed = [outcome.record for outcome in outcomes if outcome.seconds is None]
    median_s = statistics.median(times) if times else None
    if json_lines:
        row: dict[str, object] = {
            "patient_days": round(days, 6),
            "alarms": dict(counts),
            "alarms_per_patient_day": {c: round(n / days, 3) for c, n in counts.items()},
        }
        if expected is not None:
            row |= {
                "expected": expected,
                "records_expected": len(outcomes),
                "missed": missed,
                "median_seconds_to_alarm": median_s,
            }
        print_row(row)
        return
    if not days:
        return
    sys.stdout.write(f"in all: {span(watched_s)}, {_count(len(alarms))}")
    sys.stdout.write(f", {len(alarms) / days:.1f} per patient-day\n")
    for condition, count in counts.most_common():
        sys.stdout.write(f"  {condition:<10} {count:>4}, {count / days:.1f} per patient-day\n")
    if expected is not None:
        soon = "" if median_s is None else f", median time to alarm {median_s:.0f} s"
        by = " or ".join(answers(expected))
        sys.stdout.write(f"{by}: {len(times)} of {len(outcomes)} alarmed{soon}\n")
        for record in missed:
            sys.stdout.write(f"  missed in {record}\n")


def _count(alarms: int) -> str:
    return "1 alarm" if alarms == 1 else f"{alarms or 'no'} alarms"
