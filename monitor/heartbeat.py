"""The regular message that somebody is still watching; where it stays away, nobody is."""

import asyncio
import contextlib
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from datetime import time as time_of_day
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

import numpy as np
import structlog

from alerts.channels.channel import Message
from alerts.channels.threads import Threads
from alerts.conditions import Priority
from alerts.wording import Watch, still_watching
from monitor.clock import steady_s
from monitor.handover import keep
from monitor.outbox import send
from monitor.stopping import pause
from monitor.storage.database import DatabaseError
from monitor.storage.history import History

if TYPE_CHECKING:
    from alerts.channels.channel import Channel
    from monitor.config.alarms import HeartbeatConfig

_log = structlog.get_logger()

# What nobody took within the hour comes the next day: late news that all was well is none.
GIVE_UP_S = 3600.0

_FIRST_RETRY_S = 10.0
_LONGEST_RETRY_S = 300.0

# A week of a patient takes some seconds on a small board; a database that hangs never comes back.
_READ_S = 300.0

# The clock may be set at any time.
_LOOK_S = 30.0

# A wrong rate in one of a hundred good windows does not show.
_PERCENTILES = (1, 99)


class Heartbeat:
    """Tells contacts each day, or each Monday, what the time since the last message was like.

    It is no alarm: nothing of it is stored but that a channel delivers, and what falls into a time
    when the daemon did not run is not made up for. Nor is what a clock was set across.

    Args:
        configured: when and whom.
        patients: names for people by patient id, None where there is none.
        channels: of each contact.
        history: what was seen.
        on_channel: told whether a channel works, and why not.
        on_delivered: told by which channel one was delivered.
        now_ns: UTC time, in nanoseconds.
        monotonic_s: a clock that nobody sets, in seconds.
    """

    def __init__(
        self,
        configured: "HeartbeatConfig",
        patients: Mapping[str, str | None],
        channels: Mapping[str, Sequence["Channel"]],
        history: History,
        *,
        on_channel: Callable[[str, str | None], None],
        on_delivered: Callable[[str], None] = lambda _: None,
        now_ns: Callable[[], int] = time.time_ns,
        monotonic_s: Callable[[], float] = steady_s,
    ) -> None:
        self._every_days = 7 if configured.every == "week" else 1
        self._at = time_of_day.fromisoformat(configured.at)
        self._zone = ZoneInfo(configured.timezone)
        self._patients = patients
        self._channels = [c for name in configured.contacts for c in channels[name]]
        self._history = history
        self._on_channel = on_channel
        self._on_delivered = on_delivered
        self._now_ns = now_ns
        self._monotonic_s = monotonic_s
        # Not the loop's own threads, which everything else needs: reads of a database may hang. The
        # second is for the case that only the connection of the first one does.
        self._reading = Threads("heartbeat", limit=2)

    def next_after(self, utc_ns: int) -> int:
        """When the first message after ``utc_ns`` is due, in nanoseconds since 1970."""
        day = datetime.fromtimestamp(utc_ns // 10**9, tz=UTC).astimezone(self._zone).date()
        # The local day of a time that a spring night leaves out may still be the one before.
        day -= timedelta(days=1)
        while True:
            weekly = self._every_days == 7
            if (not weekly or day.weekday() == 0) and (due_ns := self._utc_ns(day)) > utc_ns:
                return due_ns
            day += timedelta(days=1)

    def _utc_ns(self, day: date) -> int:
        # Of an hour that an autumn night has twice, the first; one that a spring night leaves out
        # is as long after midnight as it would have been.
        return int(datetime.combine(day, self._at, tzinfo=self._zone).timestamp()) * 10**9

    async def run(self, stop: asyncio.Event) -> None:
        """Send what is due, until ``stop``."""
        looked_ns, sent_s = self._now_ns(), -GIVE_UP_S
        sending: set[asyncio.Task[None]] = set()
        try:
            while not stop.is_set():
                now_ns, now_s = self._now_ns(), self._monotonic_s()
                due_ns = self.next_after(looked_ns)
                # Later than that it was not due: the clock was set, or the machine slept. And one
                # that was just sent is not sent again because the clock was set back a little.
                late = now_ns - due_ns >= GIVE_UP_S * 1e9
                if due_ns <= now_ns and not late and now_s - sent_s >= GIVE_UP_S:
                    sent_s = now_s
                    keep(sending, self._tell(due_ns))
                looked_ns = now_ns
                wait_s = min(_LOOK_S, max(0.01, (self.next_after(now_ns) - now_ns) / 1e9))
                await pause(stop, wait_s)
        finally:
            for task in sending:
                task.cancel()
            await asyncio.gather(*sending, return_exceptions=True)

    async def _tell(self, due_ns: int) -> None:
        until_s = self._monotonic_s() + GIVE_UP_S
        try:
            message = await self._message(due_ns, until_s)
        except Exception:  # noqa: BLE001 - the next one has its turn
            _log.exception("no heartbeat")
            return
        await asyncio.gather(*(self._send(channel, message, until_s) for channel in self._channels))

    async def _message(self, due_ns: int, until_s: float) -> Message:
        """Put the time since the last message into words.

        Raises:
            DatabaseError: nobody can say what it was like.
        """
        day = datetime.fromtimestamp(due_ns // 10**9, tz=UTC).astimezone(self._zone).date()
        from_ns = self._utc_ns(day - timedelta(days=self._every_days))
        watches = []
        for patient, name in self._patients.items():
            while True:
                try:
                    # One patient at a time, so that whoever else needs the processor gets it.
                    watch = await self._watch(patient, name, from_ns, due_ns)
                except DatabaseError:
                    if self._monotonic_s() + _LONGEST_RETRY_S > until_s:
                        raise
                    await asyncio.sleep(_LONGEST_RETRY_S)
                else:
                    watches.append(watch)
                    break
        text = still_watching(watches, self._now_ns(), self._zone)
        return Message(
            key=f"heartbeat:{due_ns // 10**9}",
            thread="heartbeat",
            priority=Priority.LOW,
            title=text.title,
            body=text.body,
            data={"kind": "heartbeat", "from_ns": from_ns, "to_ns": due_ns},
        )

    async def _watch(self, patient: str, name: str | None, from_ns: int, to_ns: int) -> Watch:
        """What ``watch_of`` says, in time.

        Raises:
            DatabaseError: the database does not answer.
        """
        if not self._reading.all_hang:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_READ_S):
                    return await self._reading.run(
                        lambda: watch_of(self._history, patient, name, from_ns, to_ns)
                    )
        raise DatabaseError(f"{patient}: the database gives no answer within {_READ_S:g} s")

    async def _send(self, channel: "Channel", message: Message, until_s: float) -> None:
        """Send by one channel, again and again if need be, for an hour."""
        name, wait_s = channel.name, _FIRST_RETRY_S
        while True:
            error = await send(channel, message)
            if error is None:
                self._on_channel(name, None)
                self._on_delivered(name)
                _log.info("heartbeat sent", channel=name)
                return
            # Better found out now than when there is an alarm.
            self._on_channel(name, str(error))
            again_s = max(wait_s, min(error.retry_after_s or 0.0, _LONGEST_RETRY_S))
            if error.permanent or self._monotonic_s() + again_s > until_s:
                _log.error("heartbeat not sent", channel=name, reason=str(error))
                return
            await asyncio.sleep(again_s)
            wait_s = min(2 * wait_s, _LONGEST_RETRY_S)


def watch_of(history: History, patient: str, name: str | None, from_ns: int, to_ns: int) -> Watch:
    """What a patient's day (or week) was like.

    Args:
        history: what was seen.
        patient: the id.
        name: as people call the patient; None for the id.
        from_ns: UTC start, in nanoseconds since 1970.
        to_ns: UTC end.

    Returns:
        With the time that good windows cover, whichever device they are of; the heart rate with one
        window in a hundred below the lowest and one above the highest; and the number of alarms
        that were raised.

    Raises:
        DatabaseError: the database does not answer.
    """
    good_ns, seen_ns = 0, from_ns
    rates = []
    for start_ns, end_ns, rate in history.readable(patient, from_ns, to_ns):
        end_ns = min(end_ns, to_ns)  # noqa: PLW2901 - only what lies within
        good_ns += max(0, end_ns - max(start_ns, seen_ns))
        seen_ns = max(seen_ns, end_ns)
        if rate is not None:
            rates.append(rate)
    lowest, highest = np.percentile(rates, _PERCENTILES).tolist() if rates else (None, None)
    alarms = history.alarms(patient, from_ns, to_ns)
    return Watch(
        patient=patient,
        patient_name=name,
        from_ns=from_ns,
        to_ns=to_ns,
        good_s=good_ns / 1e9,
        lowest_rate=lowest,
        highest_rate=highest,
        alarms=sum(from_ns <= alarm.raised_ns < to_ns for alarm in alarms),
    )
