"""When a device itself needs somebody: silent, off the skin, not to be read, or short of battery.

As the engine of the heart's alarms it has no clock and does no input or output. Durations are taken
from a clock that nobody sets; UTC only says when.
"""

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from uuid import uuid4

from alerts.conditions import Alarm, Change, State
from alerts.priorities import priority_of

# A strap that is put on anew, or whose bluetoothd restarts, streams again within a minute; what
# lasts longer needs hands.
SILENT_S = 120.0

# Turning over in bed lifts an electrode for some seconds; sweat brings a dry one back in a minute.
OFF_SKIN_S = 120.0

# Who runs for ten minutes is not ill, and a strap that slips is noticed within that; but a heart of
# which less than a quarter can be read for so long (a loose strap, a link that comes and goes, a
# neighbour's mains hum) is not watched, and somebody must know.
UNREAD_S = 600.0
UNREAD_SHARE = 0.25

# Most of a minute to be read again: one good window amid noise is no cure.
READ_S = 60.0
READ_SHARE = 0.75

# An H10 lasts 400 hours: 15 % is two days of notice. What has risen to 20 % was changed or charged.
LOW_BATTERY = 15
GOOD_BATTERY = 20

SILENT, OFF_SKIN, UNREAD, BATTERY = "device", "electrodes", "signal", "battery"
"""The kinds of condition; what stands after the colon is the device."""

_KINDS = (SILENT, OFF_SKIN, UNREAD, BATTERY)
_WET = "wet the electrodes, tighten the strap"


@dataclass(frozen=True, slots=True)
class Moment:
    """A time, twice.

    Attributes:
        utc_ns: in nanoseconds since 1970; it may be set forward or back.
        steady_ns: of a clock that nobody sets, from anywhere.
    """

    utc_ns: int
    steady_ns: int

    def since(self, earlier: "Moment") -> int:
        """How long ago ``earlier`` was, in nanoseconds."""
        return self.steady_ns - earlier.steady_ns


def is_technical(alarm: Alarm) -> bool:
    """Whether an alarm is of a device, not of a heart."""
    return alarm.condition.partition(":")[0] in _KINDS


def device_of(alarm: Alarm) -> str:
    """The device that a technical alarm is of."""
    return alarm.condition.partition(":")[2]


def is_update(change: Change) -> bool:
    """Whether it only gives another reason for an alarm that was raised and told before."""
    return change.state is State.ACTIVE and change.at_ns != change.alarm.raised_ns


def end(alarm: Alarm, at_ns: int, reason: str) -> Change:
    """The end of an alarm, which is never before it was raised, even if the clock was set back."""
    ended = replace(alarm, ended_ns=max(at_ns, alarm.raised_ns))
    return Change(ended, at_ns, State.ENDED, reason)


def _new_id() -> str:
    return str(uuid4())


class DeviceWatch:
    """Watches one device of one patient.

    Args:
        patient: whose it is.
        device: what it is called.
        active: the alarms of this device that an earlier run left active.
        new_id: makes the id of a new alarm (UUID4 as text by default).
    """

    def __init__(
        self,
        patient: str,
        device: str,
        active: Iterable[Alarm] = (),
        new_id: Callable[[], str] = _new_id,
    ) -> None:
        self._patient = patient
        self._device = device
        self._active = {alarm.condition.partition(":")[0]: alarm for alarm in active}
        self._new_id = new_id
        self._silent_since: Moment | None = None
        self._off_since: Moment | None = None
        self._reading_since: Moment | None = None
        self._read: deque[tuple[int, float]] = deque()
        self._reason = ""
        self._told: Moment | None = None

    def link(self, now: Moment, *, streaming: bool, why: str) -> Change | None:
        """Look whether samples flow; to be called again and again, not only when that changes.

        Args:
            now: the time.
            streaming: whether they do.
            why: what keeps them from flowing, and what to do about it.

        Returns:
            The change of its alarm, if there is one. While it is active another ``why`` is a change
            too, every two minutes at most; see ``is_update``.
        """
        if streaming:
            self._silent_since = None
            return self._over(SILENT, now, "samples flow again")
        # Off the skin and then silent: only what comes after the silence tells how the skin is.
        self._off_since = None
        if self._silent_since is None:
            self._silent_since = now
        if now.since(self._silent_since) < SILENT_S * 1e9:
            return None
        if SILENT not in self._active:
            self._reason, self._told = why, now
            return self._raise(SILENT, now, self._silent_since, why)
        return self._update(now, why)

    def skin(self, now: Moment, touches: bool | None) -> Change | None:
        """Take in a window of the device's signal.

        Args:
            now: the time.
            touches: whether it shows electrodes on the skin (True), off it (False), or neither.
        """
        if touches is not False:
            self._off_since = None
            return self._over(OFF_SKIN, now, "the electrodes touch the skin") if touches else None
        if self._off_since is None:
            self._off_since = now
        if OFF_SKIN in self._active or now.since(self._off_since) < OFF_SKIN_S * 1e9:
            return None
        why = f"electrodes off the skin: {_WET}"
        return self._raise(OFF_SKIN, now, self._off_since, why)

    def read(self, now: Moment, seconds: float) -> None:
        """Take in a window that could be read.

        Args:
            now: the time.
            seconds: how long it was; where it overlaps the one before, only what is new counts.
        """
        last_ns = self._read[-1][0] if self._read else now.steady_ns - round(seconds * 1e9)
        self._read.append((now.steady_ns, min(seconds, (now.steady_ns - last_ns) / 1e9)))

    def legible(self, now: Moment) -> Change | None:
        """Look whether enough of the signal can be read; to be called again and again.

        While the device is silent, or off the skin, that is what people are told, and not this.
        """
        while self._read and now.steady_ns - self._read[0][0] > UNREAD_S * 1e9:
            self._read.popleft()
        if UNREAD in self._active:
            if self._seconds_read(now, READ_S) < READ_SHARE * READ_S:
                return None
            return self._over(UNREAD, now, "the signal can be read again")
        if SILENT in self._active or OFF_SKIN in self._active:
            self._reading_since = None
            return None
        if self._reading_since is None:
            self._reading_since = now
        since = self._reading_since
        if now.since(since) < UNREAD_S * 1e9:
            return None
        share = self._seconds_read(now, UNREAD_S) / UNREAD_S
        if share >= UNREAD_SHARE:
            return None
        self._reading_since = None
        begun = Moment(now.utc_ns - round(UNREAD_S * 1e9), now.steady_ns - round(UNREAD_S * 1e9))
        why = (
            f"only {share:.0%} of the last {UNREAD_S / 60:.0f} minutes could be read as a heart: "
            f"{_WET}, and bring it and the gateway nearer to each other"
        )
        return self._raise(UNREAD, now, begun, why)

    def drop(self, now: Moment, why: str) -> list[Change]:
        """End all its alarms: it is no longer watched."""
        alarms = list(self._active.values())
        self._active.clear()
        return [end(alarm, now.utc_ns, self._line(why)) for alarm in alarms]

    def _seconds_read(self, now: Moment, within_s: float) -> float:
        return sum(s for at_ns, s in self._read if now.steady_ns - at_ns <= within_s * 1e9)

    def battery(self, now: Moment, percent: int) -> Change | None:
        """Take in what the device says of its battery."""
        if percent >= GOOD_BATTERY:
            return self._over(BATTERY, now, f"battery at {percent} %")
        if percent > LOW_BATTERY or BATTERY in self._active:
            return None
        why = f"battery at {percent} %: change or charge it soon"
        return self._raise(BATTERY, now, now, why)

    def _raise(self, kind: str, now: Moment, since: Moment, why: str) -> Change:
        alarm = Alarm(
            id=self._new_id(),
            patient=self._patient,
            condition=f"{kind}:{self._device}",
            priority=priority_of(kind),
            # Not what the clock showed then: it may have been set since.
            started_ns=now.utc_ns - now.since(since),
            raised_ns=now.utc_ns,
        )
        self._active[kind] = alarm
        return Change(alarm, now.utc_ns, State.ACTIVE, self._line(why))

    def _update(self, now: Moment, why: str) -> Change | None:
        # The reason of an alarm from before a restart is not known here: it is given once more.
        if why == self._reason or (
            self._told is not None and now.since(self._told) < SILENT_S * 1e9
        ):
            return None
        self._reason, self._told = why, now
        return Change(self._active[SILENT], now.utc_ns, State.ACTIVE, self._line(why))

    def _over(self, kind: str, now: Moment, why: str) -> Change | None:
        alarm = self._active.pop(kind, None)
        return None if alarm is None else end(alarm, now.utc_ns, self._line(why))

    def _line(self, why: str) -> str:
        return f"{self._device}: {why}"
