"""``leadone analyze``: recordings through the same rings, analysis and model as live signals."""

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from ingest.chunk import Chunk, Stream
from ingest.recordings import Recording, RecordingError, read_recording
from models.bundle import DEFAULT, find_bundle
from models.runtime import Runtime
from monitor.analysis import Analyzer
from monitor.board import positives
from monitor.cli.rows import print_row
from monitor.cli.times import span
from monitor.results import WindowResult
from monitor.ring import Ring
from monitor.window import Gap, Window

_LENGTH_S = 10.0
_HOP_S = 5.0
_CHUNK_S = 60.0
_BATCH = 16


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
        for result in analyze_recording(recording, used, analyzer):
            show(str(path), result, bundle.thresholds)
    return failed


def analyze_recording(
    recording: Recording, lead: str, analyzer: Analyzer
) -> Iterator[WindowResult]:
    """Results in order; their ``start_ns`` counts from the start of the recording.

    Gaps are told on standard error.
    """
    batch: list[Window] = []
    for cut in _windows(recording, lead):
        if isinstance(cut, Gap):
            start, end = cut.start_ns / 1e9, cut.end_ns / 1e9
            sys.stderr.write(
                f"leadone: {recording.name}: gap from {start:.1f} s to {end:.1f} s ({cut.cause})\n"
            )
            continue
        batch.append(cut)
        if len(batch) == _BATCH:
            yield from analyzer.analyze(batch)
            batch.clear()
    yield from analyzer.analyze(batch)


def _windows(recording: Recording, lead: str) -> Iterator[Window | Gap]:
    stream = Stream("recording", recording.name)
    ring = Ring(stream, length_s=_LENGTH_S, hop_s=_HOP_S)
    row = recording.lead_index(lead)
    step = round(_CHUNK_S * recording.rate)
    for segment in recording.segments:
        samples = segment.microvolts[row]
        for first in range(0, len(samples), step):
            start_ns = round((segment.start_s + first / recording.rate) * 1e9)
            cut = ring.add(Chunk(stream, start_ns, recording.rate, samples[first : first + step]))
            yield from cut.gaps
            yield from cut.windows
    yield from ring.finish()


def _print_json(record: str, result: WindowResult, thresholds: dict[str, float]) -> None:
    row = {
        "record": record,
        "start_s": round(result.start_ns / 1e9, 3),
        "quality": result.grade.quality,
        "reasons": list(result.grade.reasons),
        "heart_rate": None if result.heart_rate is None else round(result.heart_rate, 1),
        "probabilities": {c: round(p, 5) for c, p in result.by_class.items()},
        "positive": positives(result, thresholds),
    }
    print_row(row)


def _print_line(_record: str, result: WindowResult, thresholds: dict[str, float]) -> None:
    rate = "--" if result.heart_rate is None else f"{result.heart_rate:.0f}"
    if result.grade.good:
        of = result.by_class
        seen = ", ".join(f"{c} {of[c]:.2f}" for c in positives(result, thresholds)) or "nothing"
    else:
        seen = "not read: " + ", ".join(result.grade.reasons)
    sys.stdout.write(f"  {result.start_ns / 1e9:8.1f} s  {rate:>4} /min  {seen}\n")
