"""The watch for lethal rhythms: chunks in as they come, a verdict for each second out.

``models.rhythm.watch`` sees one run of samples without a gap; here each stream is cut into such
runs. There is no clock and no input or output, so that the daemon, ``analyze`` and ``alarms
simulate`` say the same.
"""

from collections.abc import Callable, Sequence

import numpy as np
import structlog
from numpy.typing import NDArray

from alerts.rhythm import LETHAL, Rhythm, RhythmSeen
from ingest.chunk import Chunk, Stream
from ingest.rr import RrIntervals
from models.rhythm.model import RhythmModel
from models.rhythm.verdict import Verdict
from models.rhythm.watch import RhythmWatch
from monitor.filters import LOWEST_RATE
from monitor.handover import tell
from monitor.metrics import RHYTHMS_FAILED
from monitor.rr import is_possible
from monitor.runs import (
    BRIDGED_NS,
    Blind,
    Run,
    Watch,
    going_on,
    mended,
    possible,
    stretches,
)

_log = structlog.get_logger()

_SECOND_NS = 1_000_000_000

# A device that was out of reach sends what is of now, and what it kept, in turn.
_RUNS = 2

# A window's heart rate is the mean of ten seconds, and shown some seconds after; with no beat for
# so long it is of a heart that beat then.
_RATE_HOLDS_NS = 5_000_000_000

NAMES = {
    Rhythm.VF: "ventricular fibrillation",
    Rhythm.VT: "ventricular tachycardia",
    Rhythm.ASYSTOLE: "asystole",
    Rhythm.ORGANISED: "organised rhythm",
    Rhythm.UNKNOWN: "cannot tell",
}
"""The rhythms in words."""

MakeWatch = Callable[[RhythmModel, float], Watch]
"""Makes what watches one run of samples at a rate, in Hz."""


class StreamRhythms:
    """Watches one stream, chunk by chunk, for lethal rhythms.

    A gap of up to a second is bridged with the mirrored signal before it, if at least as much came
    since the gap before. After a longer one, lost contact, another rate or a clock step a new run
    begins. Samples that come again are left out. Signal that comes late, between chunks of now, is
    a run of its own. Samples that are not finite, or of over a volt, are lost ones.

    Args:
        stream: whose samples come.
        model: what tells rhythms apart.
        watch: makes what watches a run.
    """

    def __init__(
        self,
        stream: Stream,
        model: RhythmModel,
        watch: MakeWatch = RhythmWatch,
    ) -> None:
        self._stream = stream
        self._model = model
        self._watch = watch
        self._runs: list[Run] = []  # the one that went on last stands first
        self._blind: Blind | None = None  # while samples are lost, or electrodes off the skin
        self._young: Blind | None = None  # while runs are too short for a verdict
        self._last_beat_ns: int | None = None

    def add(self, chunk: Chunk) -> list[RhythmSeen]:
        """Take the next chunk; the verdicts that it completes, oldest first.

        Where the electrodes are off the skin, samples are lost for more than a second, the rate is
        below 50 Hz, or a run is too short yet, there is a verdict for each second too: that it
        cannot be told. A link that holds for three seconds at a time shows no heart.
        """
        if chunk.contact is False or not chunk.rate >= LOWEST_RATE:
            self.restart()
            return self.unknown(chunk)
        seen: list[RhythmSeen] = []
        samples = mended(possible(chunk.microvolts), chunk.rate)
        for first, last, finite in stretches(np.isfinite(samples)):
            start_ns = chunk.start_ns + round(first / chunk.rate * 1e9)
            if finite:
                self._blind = None
                seen += self._look(samples[first:last], start_ns, chunk)
            else:
                end_ns = chunk.start_ns + round(last / chunk.rate * 1e9)
                self._blind = going_on(self._blind, start_ns, BRIDGED_NS)
                seen += self._unseen(self._blind, end_ns, chunk.contact)
        return seen

    def restart(self) -> None:
        """Begin anew with the next chunk."""
        self._runs.clear()
        self._young = None

    def unknown(self, chunk: Chunk) -> list[RhythmSeen]:
        """What to say of a chunk in which nothing can be told: so, for each second."""
        self._blind = going_on(self._blind, chunk.start_ns, 0)
        return self._unseen(self._blind, chunk.end_ns, chunk.contact)

    def _look(self, samples: NDArray[np.float32], start_ns: int, chunk: Chunk) -> list[RhythmSeen]:
        run, samples, start_ns = self._place(samples, start_ns, chunk.rate)
        if not len(samples):
            return []
        young = not run.has_verdicts
        verdicts = run.add(samples, start_ns)
        seen = [self._seen(run, verdict, chunk.contact) for verdict in verdicts]
        if not young:
            return seen
        # Up to the second that the first verdict is of.
        end_ns = start_ns + round(len(samples) / chunk.rate * 1e9)
        end_ns = seen[0].at_ns - _SECOND_NS if seen else end_ns
        blind = going_on(self._young, start_ns, 0)
        self._young = None if seen else blind
        return self._unseen(blind, end_ns, chunk.contact) + seen

    def _place(
        self, samples: NDArray[np.float32], start_ns: int, rate: float
    ) -> tuple["Run", NDArray[np.float32], int]:
        """The run that samples belong to, those of them that it has not, and when they begin."""
        # At another rate nothing of before goes on.
        self._runs = [run for run in self._runs if run.rate == rate]
        for run in self._runs:
            fitted = run.fit(samples, start_ns)
            if fitted is not None:
                self._runs.remove(run)
                self._runs.insert(0, run)
                return run, *fitted
        run = Run(self._watch(self._model, rate), rate, start_ns)
        self._runs = [run, *self._runs[: _RUNS - 1]]
        return run, samples, start_ns

    def _seen(self, run: "Run", verdict: Verdict, contact: bool | None) -> RhythmSeen:
        at_ns = run.time(verdict.end)
        beat_ns = None
        if verdict.last_beat is not None:
            beat_ns = self._last_beat_ns = run.beat_ns(verdict.last_beat)
        return RhythmSeen(
            patient=self._stream.patient,
            device=self._stream.device,
            at_ns=at_ns,
            rhythm=Rhythm(verdict.rhythm.value),
            since_ns=min(run.since_ns(verdict.since), at_ns),
            rate=verdict.rate,
            last_beat_ns=self._beat_before(at_ns) if beat_ns is None else beat_ns,
            contact=contact,
        )

    def _unseen(self, blind: Blind, end_ns: int, contact: bool | None) -> list[RhythmSeen]:
        """That it cannot be told, for each second until then that was not told of."""
        return [
            RhythmSeen(
                patient=self._stream.patient,
                device=self._stream.device,
                at_ns=at_ns,
                rhythm=Rhythm.UNKNOWN,
                since_ns=blind.since_ns,
                last_beat_ns=self._beat_before(at_ns),
                contact=contact,
            )
            for at_ns in blind.last_until(end_ns)
        ]

    def _beat_before(self, at_ns: int) -> int | None:
        """When the last beat was, unless that is of a clock that has been set back since."""
        beat_ns = self._last_beat_ns
        return None if beat_ns is None or beat_ns > at_ns else beat_ns


class Rhythms:
    """Watches all streams of a daemon, ahead of everything that takes time.

    Args:
        model: what tells rhythms apart; None if it cannot be loaded, and then nothing is told but
            beats.
        on_seen: called with every verdict.
        on_beat: called with a patient and the UTC time, in nanoseconds, at which a strap without a
            waveform told of beats.
        watch: makes what watches a run.
    """

    def __init__(
        self,
        model: RhythmModel | None,
        *,
        on_seen: Sequence[Callable[[RhythmSeen], None]],
        on_beat: Callable[[str, int], None],
        watch: MakeWatch = RhythmWatch,
    ) -> None:
        self._model = model
        self._on_seen = on_seen
        self._on_beat = on_beat
        self._watch = watch
        self._streams: dict[Stream, StreamRhythms] = {}

    def add(self, chunk: Chunk | RrIntervals) -> None:
        """Take what a source gave and tell what it shows; whatever fails never ends the watch."""
        if isinstance(chunk, RrIntervals):
            if chunk.rr_s and chunk.contact is not False and is_possible(chunk):
                self._on_beat(chunk.stream.patient, chunk.end_ns)
            return
        if self._model is None:
            return
        rhythms = self._streams.get(chunk.stream)
        if rhythms is None:
            rhythms = StreamRhythms(chunk.stream, self._model, self._watch)
            self._streams[chunk.stream] = rhythms
        try:
            seen = rhythms.add(chunk)
        except Exception:  # noqa: BLE001 - one stream must not end the watch of the others
            RHYTHMS_FAILED.inc()
            _log.exception("rhythm watch failed", stream=str(chunk.stream), start_ns=chunk.start_ns)
            rhythms.restart()
            seen = rhythms.unknown(chunk)
        for one in seen:
            tell(self._on_seen, one)


def sees_beats(seen: RhythmSeen) -> bool:
    """Whether beats that can be trusted were seen lately, so that there is a rate to tell."""
    if seen.rhythm is Rhythm.UNKNOWN:
        last_ns = seen.last_beat_ns
        return last_ns is not None and seen.at_ns - last_ns <= _RATE_HOLDS_NS
    return seen.rhythm is Rhythm.ORGANISED or seen.rate is not None


def rate_of(seen: RhythmSeen | None, window_rate: float | None) -> float | None:
    """The heart rate to show, in beats per minute: none where no beat is seen.

    Args:
        seen: the last verdict; None where there is none of now, as of a strap without a waveform.
        window_rate: of the last window.
    """
    if seen is None:
        return window_rate
    if seen.rhythm in LETHAL:
        return seen.rate
    return window_rate if sees_beats(seen) else None
