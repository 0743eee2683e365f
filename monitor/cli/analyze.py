"""``leadone analyze``: recordings through the same rings, analysis and models as live signals."""

import sys
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from alerts.rhythm import LETHAL, Rhythm, RhythmSeen
from ingest.chunk import Stream
from ingest.recordings import Recording, RecordingError, read_recording
from models.bundle import DEFAULT, find_bundle
from models.rhythm.model import RhythmModel
from models.runtime import Runtime
from monitor.analysis import Analyzer
from monitor.board import positives
from monitor.cli.rhythm_model import open_rhythm_model
from monitor.cli.rows import print_row
from monitor.cli.times import span
from monitor.results import WindowResult
from monitor.rhythms import NAMES, StreamRhythms, rate_of
from monitor.ring import Ring
from monitor.simulate import chunks
from monitor.window import Gap, Window

_LENGTH_S = 10.0
_HOP_S = 5.0
_CHUNK_S = 60.0
_BATCH = 16

_SECOND_NS = 1_000_000_000
_ROUNDING_NS = 20_000_000


def analyze_records(
    paths: Sequence[Path],
    lead: str | None,
    rate: float | None,
    unit: str | None,
    bundle_name: str | None,
    *,
    json_lines: bool,
) -> int:
    """Print every window of every recording; 1 if one could not be read, else 0."""
    bundle = find_bundle(bundle_name or DEFAULT)
    analyzer = Analyzer(Runtime(bundle))
    rhythms = open_rhythm_model()
    show = _print_json if json_lines else _print_line
    failed = 0
    for path in paths:
        try:
            recording = read_recording(path, rate=rate, unit=unit)
            used = lead or recording.default_lead()
            recording.lead_index(used)
        except RecordingError as error:
            sys.stderr.write(f"leadone: {error}\n")
            failed = 1
            continue
        if used.upper() != bundle.manifest.lead.upper():
            sys.stderr.write(
                f"leadone: {path}: reading lead {used}; the model was trained on lead "
                f"{bundle.manifest.lead}\n"
            )
        if not json_lines:
            sys.stdout.write(f"{path}: lead {used}, {recording.rate:g} Hz, ")
            sys.stdout.write(f"{span(recording.duration_s)}\n")
        seconds: Counter[Rhythm] = Counter()
        for one in analyze_recording(recording, used, analyzer, rhythms, seconds):
            show(str(path), one, bundle.thresholds)
        if not json_lines and any(seconds[rhythm] for rhythm in LETHAL):
            told = (f"{NAMES[r]} for {seconds[r]} s" for r in LETHAL if seconds[r])
            sys.stdout.write(f"  LETHAL RHYTHMS SEEN: {', '.join(told)}\n")
    return failed


@dataclass(frozen=True, slots=True)
class Analyzed:
    """A window, and the verdict of the watch for lethal rhythms at its end.

    Attributes:
        result: the window; its ``start_ns`` counts from the start of the recording.
        verdict: None where there is none yet, as in the first seconds after a gap.
    """

    result: WindowResult
    verdict: RhythmSeen | None


def analyze_recording(
    recording: Recording,
    lead: str,
    analyzer: Analyzer,
    rhythms: RhythmModel,
    seconds: Counter[Rhythm],
) -> Iterator[Analyzed]:
    """Windows in order. Gaps are told on standard error.

    Args:
        recording: what was recorded.
        lead: the name of the lead to read.
        analyzer: what reads windows.
        rhythms: what tells lethal rhythms apart.
        seconds: counts the verdicts, of which there is one a second.
    """
    heard: deque[RhythmSeen] = deque()
    batch: list[Window] = []
    for cut in _windows(recording, lead, rhythms, heard, seconds):
        if isinstance(cut, Gap):
            start, end = cut.start_ns / 1e9, cut.end_ns / 1e9
            sys.stderr.write(
                f"leadone: {recording.name}: gap from {start:.1f} s to {end:.1f} s ({cut.cause})\n"
            )
            continue
        batch.append(cut)
        if len(batch) == _BATCH:
            yield from _with_verdicts(analyzer.analyze(batch), heard)
            batch.clear()
    yield from _with_verdicts(analyzer.analyze(batch), heard)


def _windows(
    recording: Recording,
    lead: str,
    model: RhythmModel,
    heard: deque[RhythmSeen],
    seconds: Counter[Rhythm],
) -> Iterator[Window | Gap]:
    """Windows and gaps; ``heard`` has all verdicts up to the end of each."""
    stream = Stream("recording", recording.name)
    ring = Ring(stream, length_s=_LENGTH_S, hop_s=_HOP_S)
    rhythms = StreamRhythms(stream, model)
    for chunk in chunks(recording, lead, _CHUNK_S):
        seen = rhythms.add(chunk)
        heard.extend(seen)
        seconds.update(one.rhythm for one in seen)
        cut = ring.add(chunk)
        yield from cut.gaps
        yield from cut.windows
    yield from ring.finish()


def _with_verdicts(results: Sequence[WindowResult], heard: deque[RhythmSeen]) -> Iterator[Analyzed]:
    for result in results:
        # The time of a sample is known to a sample.
        last_ns = result.end_ns + _ROUNDING_NS
        while len(heard) > 1 and heard[1].at_ns <= last_ns:
            heard.popleft()
        fits = heard and result.end_ns - _SECOND_NS <= heard[0].at_ns <= last_ns
        yield Analyzed(result, heard[0] if fits else None)


def _print_json(record: str, one: Analyzed, thresholds: dict[str, float]) -> None:
    result, verdict = one.result, one.verdict
    # Of the window, whatever the last second says; but none of a heart that pumps nothing.
    beats = verdict is None or verdict.rhythm not in (Rhythm.VF, Rhythm.ASYSTOLE)
    rate = result.heart_rate if beats else None
    row = {
        "record": record,
        "start_s": round(result.start_ns / 1e9, 3),
        "quality": result.grade.quality,
        "reasons": list(result.grade.reasons),
        "heart_rate": None if rate is None else round(rate, 1),
        "probabilities": {c: round(p, 5) for c, p in result.by_class.items()},
        "positive": positives(result, thresholds),
        "rhythm": None if verdict is None else verdict.rhythm.value,
    }
    print_row(row)


def _print_line(_record: str, one: Analyzed, thresholds: dict[str, float]) -> None:
    result, verdict = one.result, one.verdict
    rate_seen = rate_of(verdict, result.heart_rate)
    rate = "--" if rate_seen is None else f"{rate_seen:.0f}"
    rhythm = "--" if verdict is None else verdict.rhythm.value
    if result.grade.good:
        of = result.by_class
        seen = ", ".join(f"{c} {of[c]:.2f}" for c in positives(result, thresholds)) or "nothing"
    else:
        seen = "not read: " + ", ".join(result.grade.reasons)
    sys.stdout.write(f"  {result.start_ns / 1e9:8.1f} s  {rate:>4} /min  {rhythm:<9}  {seen}\n")
