"""The last beat and rate of a patient, and how old they are."""

from dataclasses import replace

import numpy as np
import pytest
from watching import STREAM, T0, S

from alerts.rhythm import Rhythm, RhythmSeen
from ingest.chunk import Stream
from monitor.pulse import Pulse, Pulses
from monitor.quality import Grade, Quality, Reason
from monitor.results import WindowResult


def window(
    end_s: float, last_peak_s: float | None, rate: float | None, *, good: bool = True
) -> WindowResult:
    """Ten seconds; ``last_peak_s`` by the same clock as ``end_s``."""
    start_s = end_s - 10
    peaks = [] if last_peak_s is None else [last_peak_s - start_s]
    return WindowResult(
        stream=STREAM,
        start_ns=T0 + round(start_s * S),
        duration_s=10.0,
        grade=Grade(Quality.GOOD) if good else Grade(Quality.BAD, (Reason.NOISY,)),
        heart_rate=rate,
        longest_rr_s=1.0,
        r_peaks_s=np.array(peaks),
        model=None,
        probabilities=None,
    )


def verdict(
    at_s: float,
    rhythm: Rhythm,
    beat_s: float | None = None,
    rate: float | None = None,
    stream: Stream = STREAM,
) -> RhythmSeen:
    return RhythmSeen(
        patient=stream.patient,
        device=stream.device,
        at_ns=T0 + round(at_s * S),
        rhythm=rhythm,
        since_ns=T0,
        rate=rate,
        last_beat_ns=None if beat_s is None else T0 + round(beat_s * S),
    )


def at(pulses: Pulses, seconds: float) -> tuple[bool | None, float | None, float | None]:
    """Whether it beats, the last beat in seconds, the rate."""
    pulse = pulses.at("anna", T0 + round(seconds * S))
    beat_s = None if pulse.beat_ns is None else (pulse.beat_ns - T0) / S
    return pulse.beating, beat_s, pulse.rate


def test_of_whom_nothing_is_known() -> None:
    assert Pulses().at("anna", T0) == Pulse()


def test_a_window_with_beats_to_its_end() -> None:
    pulses = Pulses()
    pulses.result(window(10, 9.5, 72))
    assert at(pulses, 12) == (True, 9.5, 72)
    assert pulses.at("anna", T0 + 12 * S).rate_ns == T0 + round(9.5 * S)
    # Fifteen seconds later nobody can say.
    assert at(pulses, 26) == (None, 9.5, 72)


def test_a_window_whose_beats_stopped() -> None:
    pulses = Pulses()
    pulses.result(window(10, 6.0, 72))
    assert at(pulses, 10) == (False, 6.0, 72)


def test_a_minute_of_asystole_has_no_rate_but_that_of_before() -> None:
    pulses = Pulses()
    pulses.result(window(10, 9.5, 70))
    pulses.rhythm(verdict(10, Rhythm.ORGANISED, 9.9, 72))
    for second in range(11, 71):
        pulses.rhythm(verdict(second, Rhythm.ASYSTOLE if second > 14 else Rhythm.UNKNOWN, 9.9))
        pulses.result(window(second, None, None, good=False))
    assert at(pulses, 70) == (False, 9.9, 72)


def test_what_windows_take_for_beats_of_a_fibrillating_heart_are_none() -> None:
    pulses = Pulses()
    pulses.rhythm(verdict(10, Rhythm.ORGANISED, 9.9, 72))
    pulses.rhythm(verdict(16, Rhythm.VF, 9.9))
    pulses.result(window(16, 15.9, 210))
    assert at(pulses, 16) == (False, 9.9, 72)


def test_a_tachycardia_has_a_rate_though_its_beats_cannot_be_trusted() -> None:
    pulses = Pulses()
    pulses.rhythm(verdict(10, Rhythm.VT, 2.0, 182))
    assert at(pulses, 11) == (True, 10.0, 182)


def test_a_tachycardia_is_what_was_before_the_heart_stood_still() -> None:
    """Its beats are not those that can be trusted, but beats they are."""
    pulses = Pulses()
    pulses.rhythm(verdict(10, Rhythm.ORGANISED, 9.9, 72))
    for second in range(11, 31):
        pulses.rhythm(verdict(second, Rhythm.VT, 9.9, 182))
    pulses.rhythm(verdict(40, Rhythm.ASYSTOLE, 9.9))
    assert at(pulses, 40) == (False, 30, 182)


def test_the_rate_before_is_not_that_of_the_last_seconds() -> None:
    """In which the first waves of a fibrillation were counted for beats."""
    pulses = Pulses()
    for second in range(1, 31):
        pulses.rhythm(verdict(second, Rhythm.ORGANISED, second, 72 if second <= 24 else 110))
    assert at(pulses, 30) == (True, 30, 110)
    pulses.rhythm(verdict(36, Rhythm.VF, 30))
    assert at(pulses, 36) == (False, 30, 72)


def test_of_electrodes_off_the_skin_nobody_can_say_whether_the_heart_beats() -> None:
    pulses = Pulses()
    pulses.rhythm(verdict(10, Rhythm.ORGANISED, 9.9, 72))
    pulses.rhythm(replace(verdict(20, Rhythm.UNKNOWN, 9.9), contact=False))
    assert at(pulses, 20) == (None, 9.9, 72)


@pytest.mark.parametrize("first", [True, False])
def test_of_two_devices_the_one_that_sees_beats_tells(first: bool) -> None:
    pulses = Pulses()
    both = [
        verdict(20, Rhythm.VF, 9.9),
        verdict(20, Rhythm.ORGANISED, 19.5, 72, Stream("anna", "patch")),
    ]
    for seen in both if first else reversed(both):
        pulses.rhythm(seen)
    assert at(pulses, 20) == (True, 19.5, 72)


def test_a_rate_from_long_before_the_last_beat_is_not_what_was_before() -> None:
    pulses = Pulses()
    pulses.rhythm(verdict(10, Rhythm.ORGANISED, 9.9, 72))
    pulses.rhythm(verdict(100, Rhythm.ASYSTOLE, 90))
    assert at(pulses, 100) == (False, 90, None)


def test_a_clock_that_is_set_back_leaves_no_beats_in_the_future() -> None:
    pulses = Pulses()
    pulses.rhythm(verdict(3600, Rhythm.ORGANISED, 3599.5, 90))
    pulses.rhythm(verdict(10, Rhythm.ORGANISED, 9.5, 72))
    assert at(pulses, 10) == (True, 9.5, 72)
