"""RR intervals: what a strap gives that sends no waveform."""

from dataclasses import dataclass

from ingest.chunk import Stream


@dataclass(frozen=True, slots=True, eq=False)
class RrIntervals:
    """RR intervals of a strap that sends no waveform; the counterpart of ``Chunk``.

    Attributes:
        stream: whose heart it is.
        end_ns: UTC time of the last beat, in nanoseconds since 1970; taken from the arrival of the
            packet, as the strap sends no time.
        rr_s: in seconds, oldest first; may be empty.
        heart_rate: beats per minute, None where the strap has none.
        contact: whether the electrodes touch the skin, None where the strap does not say.
        gap_cause: why beats are missing before these, where the source knows.
    """

    stream: Stream
    end_ns: int
    rr_s: tuple[float, ...]
    heart_rate: int | None
    contact: bool | None
    gap_cause: str | None = None
