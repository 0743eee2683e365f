"""What came of one stream in this run, and in words for people, why it is not being read."""

from collections.abc import Iterable
from dataclasses import dataclass

from alerts.technical import Moment
from ingest.chunk import Chunk
from ingest.rr import RrIntervals
from monitor.quality import Reason
from monitor.results import WindowResult
from monitor.storage.records import StrapState

LATELY_S = 60.0
"""Without a readable window for so long nobody is watched; noise of a few seconds passes."""

_WORDS = {
    Reason.CONTACT: "the electrodes are off the skin: put it on, wet the electrodes",
    Reason.FLAT: "a flat line, no body is on the electrodes: put it on, wet the electrodes",
    Reason.SATURATED: "a signal beyond the scale: wet the electrodes, tighten the strap",
    Reason.NOISY: "too noisy to see a heart: wet the electrodes, tighten the strap",
    Reason.GAP: "too many samples are missing: bring it and the gateway nearer to each other",
    Reason.SKIPPED: "leadone had no time to read it: the gateway is too slow or busy",
    Reason.FAILED: "leadone failed at reading it: see journalctl -u leadone",
}


@dataclass(slots=True)
class Arrival:
    """What came of one stream.

    Attributes:
        known: since when it is known of.
        lately_s: how long ago is no longer lately, in seconds.
        begun: when its samples began to arrive, after the last silence; None before the first.
        arrived: when the last of them did.
        sample_ns: UTC time of the last sample itself.
        read: when the last readable window ended; None if there was none.
        concluded: when the last window, readable or not, was concluded.
        reasons: why that one could not be read; none if it could.
        battery: percent; None until it has said so.
    """

    known: Moment
    lately_s: float = LATELY_S
    begun: Moment | None = None
    arrived: Moment | None = None
    sample_ns: int = 0
    read: Moment | None = None
    concluded: Moment | None = None
    reasons: tuple[Reason, ...] = ()
    battery: int | None = None

    def chunk(self, chunk: Chunk | RrIntervals, now: Moment) -> None:
        """Take in what a source gave."""
        if not self.lately(self.arrived, now):
            self.begun = now
        self.arrived, self.sample_ns = now, chunk.end_ns

    def result(self, result: WindowResult, now: Moment) -> None:
        """Take in a window, readable or not.

        What was sent, or read, late tells of then and not of now.
        """
        late_ns = max(0, now.utc_ns - result.end_ns)
        if late_ns > self.lately_s * 1e9:
            return
        self.concluded, self.reasons = now, result.grade.reasons
        if result.grade.good:
            read = Moment(result.end_ns, now.steady_ns - late_ns)
            if self.read is None or read.steady_ns > self.read.steady_ns:
                self.read = read

    def lately(self, moment: Moment | None, now: Moment) -> bool:
        """Whether something was not long ago."""
        return moment is not None and now.since(moment) <= self.lately_s * 1e9

    def why_unread(self, now: Moment, started: Moment, strap: StrapState | None) -> str | None:
        """Why nothing of it was read lately; None if something was.

        Args:
            now: the time.
            started: when this run began.
            strap: what is known of the link, where it is a strap.
        """
        if self.lately(self.read, now):
            return None
        if not self.lately(self.arrived, now):
            return self._why_silent(now, started, strap)
        late_s = (now.utc_ns - self.sample_ns) / 1e9
        if late_s > self.lately_s:
            return (
                f"what it sends is {span(late_s)} old: its clock or the gateway's is wrong, or it "
                "sends what it had kept"
            )
        if self.lately(self.concluded, now):
            return f"it sends, but it could not be read lately: {_words(self.reasons)}"
        begun_s = 0.0 if self.begun is None else now.since(self.begun) / 1e9
        if begun_s <= self.lately_s:
            return f"it has sent for {span(begun_s)}, and no window is read yet"
        return f"it sends, but for {span(begun_s)} nothing of it was read: leadone is behind"

    def _why_silent(self, now: Moment, started: Moment, strap: StrapState | None) -> str:
        if strap is not None and strap.cause is not None:
            return f"{strap.cause}: {strap.advice}"
        if self.arrived is not None:
            what = f"nothing has come from it for {span(now.since(self.arrived) / 1e9)}"
        else:
            run_s = now.since(started) / 1e9
            what = f"nothing has come from it since leadone started {span(run_s)} ago"
            if run_s <= self.lately_s:
                return what
        return f"{what}: see that it is worn, switched on, charged and within reach"


def _words(reasons: Iterable[Reason]) -> str:
    for reason, words in _WORDS.items():
        if reason in reasons:
            return words
    # The last window could be read, but of signal that came late.
    return "what it sends comes late"


def span(seconds: float) -> str:
    """A length of time as people say it: ``45 s``, ``12 min``, ``5 h``."""
    for unit_s, unit in ((86_400.0, "days"), (3600.0, "h"), (60.0, "min")):
        if seconds >= 2 * unit_s:
            return f"{seconds / unit_s:.0f} {unit}"
    return f"{seconds:.0f} s"
