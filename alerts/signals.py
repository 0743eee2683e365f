"""Turns conditions, and what people do about them, into signals: what people are told.

It has no clock and does no input or output: who calls it stores what it puts out, in the order in
which it comes and in one transaction with the change that led to it, and hands over each
notification when it is due. A whole ladder is put out the moment an alarm begins: a crash cannot
cancel what is stored.

Nothing but a person or the condition's own end makes an alarm silent; and if in doubt people are
told early and once too often, not late.
"""

from collections.abc import Callable, Iterable
from dataclasses import replace
from uuid import uuid4

from alerts.conditions import Change, Priority, State
from alerts.escalation import Plan
from alerts.ledger import BEGINNINGS, HIGH_GAP_S, Bout, Ledger, Waiting, of
from alerts.lethal import UNSEEN
from alerts.records import Kind, Notification, Output, Pause, Presence, Signal
from alerts.rhythm import is_lethal
from alerts.technical import Moment, is_technical

S = 1_000_000_000

# Nobody may be deaf for longer than a day by one press of a button.
MAX_SILENCE_S = 24 * 3600

# By how much UTC must run away from the steady clock between two calls to have been set, not slewed
# (a slewed one gains 0.5 ms each second).
CLOCK_SET_S = 2.0

# An answer to a lethal rhythm holds for so long while the rhythm lasts: who went to look has had
# time to begin, and who fell asleep again must not be let.
LETHAL_ANSWER_S = 180.0

_RANK = {Priority.LOW: 0, Priority.MEDIUM: 1, Priority.HIGH: 2}
# These are not handed on when an alarm takes another's place: they are made anew.
_PASSING = (Kind.AGAIN, Kind.REMINDER, Kind.LATCHED, Kind.SIGNAL_LOST)


def _new_id() -> str:
    return str(uuid4())


class Signals:
    """The signals of all patients.

    Every method takes the time and first does what time alone has brought, as ``tick`` does. The
    steady clock of a ``Moment`` should go on while the machine sleeps (``CLOCK_BOOTTIME``); what it
    does not count is taken for the clock having been set.

    Args:
        plan_for: gives the plan of a patient; while an alarm is on, also of one who is no longer
            watched.
        new_id: makes the id of a new pause (UUID4 as text by default).
    """

    # How clocks are dealt with. All times here are UTC, and the steady clock is what tells that UTC
    # was set: by as much as the one ran away from the other since the last call, all times that a
    # signal, a pause or a waiting notification holds are moved, here and in the store. So durations
    # are of the steady clock, yet what is stored is UTC and survives a restart. A clock that was
    # set back while nobody looked (after a restart there is no steady clock to compare with) shows
    # by things that have happened in what is now the future.

    def __init__(
        self, plan_for: Callable[[str], Plan], new_id: Callable[[], str] = _new_id
    ) -> None:
        self._ledger = Ledger(plan_for)
        self._new_id = new_id
        self._utc_ahead_ns: int | None = None

    def restore(
        self,
        signals: Iterable[Signal],
        pauses: Iterable[Pause],
        waiting: Iterable[Notification],
    ) -> None:
        """Take up, before anything else, where an earlier run stopped; tells nobody anything.

        Args:
            signals: the last of each condition of each patient at least, off or not; the others
                before it, in the order in which they were first put out.
            pauses: all that have not ended; ended ones are passed over.
            waiting: notifications that were not delivered and are not void.
        """
        for signal in sorted(signals, key=lambda signal: signal.presence is not Presence.OFF):
            self._ledger.bouts[of(signal.alarm)] = Bout(signal)
        self._ledger.pauses = {pause.id: pause for pause in pauses if pause.ended_ns is None}
        by_alarm = {bout.alarm.id: bout for bout in self._ledger.bouts.values()}
        for notification in waiting:
            bout = by_alarm.get(notification.alarm_id)
            if bout is not None:
                wanted_ns = notification.due_ns
                if notification.kind is Kind.ENDED:
                    wanted_ns = bout.signal.since_ns
                bout.waiting[notification.key] = Waiting(notification, wanted_ns)

    @property
    def ahead_ns(self) -> int | None:
        """UTC less the steady clock as taken into account last; None before the first call.

        All that was put out since is in this clock: whoever hands over what is due compares it with
        the steady clock and this, not with UTC, which may have been set since.
        """
        return self._utc_ahead_ns

    def on(self, patient: str) -> tuple[Signal, ...]:
        """The signals of a patient that are not off, oldest alarm first."""
        found = [
            bout.signal
            for bout in self._ledger.bouts.values()
            if bout.is_on and bout.alarm.patient == patient
        ]
        return tuple(sorted(found, key=lambda signal: (signal.alarm.raised_ns, signal.alarm.id)))

    def pauses(self, patient: str) -> tuple[Pause, ...]:
        """The pauses of a patient that go on."""
        return tuple(pause for pause in self._ledger.pauses.values() if pause.patient == patient)

    def next_due(self) -> int | None:
        """When ``tick`` is needed next, in UTC nanoseconds; None if nothing is to come.

        It is needed, and its output stored, before what is due is handed over; and now and then
        (each minute, say) in any case, to see whether the clock was set.
        """
        times = [pause.until_ns for pause in self._ledger.pauses.values()]
        for bout in self._ledger.bouts.values():
            if bout.signal.snoozed_until_ns is not None:
                times.append(bout.signal.snoozed_until_ns)
            times.extend(waiting.notification.due_ns for waiting in bout.waiting.values())
        return min(times, default=None)

    def tick(self, now: Moment) -> list[Output]:
        """What time alone brings: reminders, the ends of snoozes and pauses, a clock that was set.

        It also takes what is due as told.
        """
        return self._ledger.close(self._advance(now))

    def change(self, change: Change, now: Moment) -> list[Output]:
        """Take in a change of a condition.

        Another reason for an alarm that is on changes nothing, but that a lethal rhythm which was
        answered more than ``LETHAL_ANSWER_S`` ago comes on again; nor does the end of an unknown
        one.
        """
        t = self._advance(now)
        bout = self._ledger.bouts.get(of(change.alarm))
        same = (
            bout is not None
            and bout.alarm.id == change.alarm.id
            and bout.alarm.state is State.ACTIVE
        )
        if change.state is State.ENDED:
            if bout is not None and same:
                self._end(bout, change, t)
        elif bout is not None and same:
            self._worsen(bout, change, t)
            self._go_on(bout, change, t)
        else:
            self._raise(bout, change, t)
        return self._ledger.close(t)

    def acknowledge(self, alarm_ids: Iterable[str], by: str, now: Moment) -> list[Output]:
        """Somebody has answered alarms: nobody is told of them any more, unless they get worse.

        Raises:
            ValueError: if one of them is unknown or off; then none is acknowledged.
        """
        bouts = self._find(alarm_ids)
        t = self._advance(now)
        for bout in bouts:
            self._answer(bout, by, t, until_ns=None)
        return self._ledger.close(t)

    def snooze(self, alarm_ids: Iterable[str], until_ns: int, by: str, now: Moment) -> list[Output]:
        """As ``acknowledge``, but what is still true at ``until_ns`` comes on again.

        Raises:
            ValueError: if one of them is unknown or off, or ``until_ns`` is not within the next 24
                hours; then none is snoozed.
        """
        bouts = self._find(alarm_ids)
        _check_until("snooze", until_ns, now)
        t = self._advance(now)
        for bout in bouts:
            self._answer(bout, by, t, until_ns=until_ns)
        return self._ledger.close(t)

    def pause(
        self, patient: str, kind: str | None, until_ns: int, by: str, now: Moment
    ) -> list[Output]:
        """Tell nobody of a patient's alarms for a time; what is on after it is told then.

        Lethal rhythms are told all the same, unless ``kind`` is one of them.

        A pause of the same kind takes the place of one that goes on.

        Args:
            patient: whose alarms.
            kind: as ``Pause.kind``; None for all but lethal rhythms.
            until_ns: UTC time of its end.
            by: who asks for it.
            now: the time.

        Raises:
            ValueError: if ``until_ns`` is not within the next 24 hours.
        """
        _check_until("pause", until_ns, now)
        t = self._advance(now)
        pause = Pause(
            id=self._new_id(), patient=patient, kind=kind, from_ns=t, until_ns=until_ns, by=by
        )
        for other in self.pauses(patient):
            if other.kind == kind:
                self._close(other, t, "pause replaced", by)
        self._ledger.pauses[pause.id] = pause
        self._ledger.write(pause)
        self._ledger.audit_pause(pause, t, "paused", by)
        for bout in self._ledger.covered(pause):
            if bout.is_unanswered:
                self._ledger.cancel(bout)
            self._ledger.plan_anew(bout)
        return self._ledger.close(t)

    def resume(self, pause_id: str, by: str, now: Moment) -> list[Output]:
        """End a pause before its time.

        Raises:
            ValueError: if it is unknown or has ended.
        """
        if pause_id not in self._ledger.pauses:
            raise ValueError(f"pause {pause_id!r} is unknown or has ended")
        t = self._advance(now)
        pause = self._ledger.pauses.get(pause_id)
        if pause is not None:
            self._close(pause, t, "resumed", by)
            self._release([pause], t)
        return self._ledger.close(t)

    def signal_lost(self, patient: str, lost: bool, now: Moment) -> list[Output]:
        """The patient's data has stopped, or flows again; to be called as often as one likes.

        What was on stays on, and those who know of it are told once that nobody sees it any more.
        """
        t = self._advance(now)
        for bout in self._ledger.bouts.values():
            if (
                bout.alarm.patient == patient
                and bout.alarm.state is State.ACTIVE
                and bout.is_on
                and bout.signal.signal_lost is not lost
                and not is_technical(bout.alarm)
                and bout.alarm.condition != UNSEEN  # that is what it says
            ):
                self._lose(bout, lost, t)
        return self._ledger.close(t)

    # What comes of time.

    def _advance(self, now: Moment) -> int:
        self._look_at_clock(now)
        t = now.utc_ns
        # First: what is due is not moved any more by a pause that begins or ends now.
        self._ledger.settle(t)
        over = [pause for pause in self._ledger.pauses.values() if pause.until_ns <= t]
        for pause in over:
            self._close(pause, t, "pause over", by=None)
        self._release(over, t)
        for bout in self._ledger.bouts.values():
            until_ns = bout.signal.snoozed_until_ns
            if until_ns is not None and until_ns <= t:
                self._come_on(bout, t)
                detail = f"{bout.alarm.condition} is still true"
                self._ledger.audit(bout, t, "snooze over", None, detail)
                self._ledger.ring(bout, Kind.SNOOZE_OVER, t)
        return t

    def _look_at_clock(self, now: Moment) -> None:
        ahead_ns = now.utc_ns - now.steady_ns
        if self._utc_ahead_ns is None:
            jump_ns = min(0, now.utc_ns - max(self._ledger.happened(), default=now.utc_ns))
        else:
            jump_ns = ahead_ns - self._utc_ahead_ns
        self._utc_ahead_ns = ahead_ns
        if abs(jump_ns) > CLOCK_SET_S * S:
            self._ledger.move(jump_ns)

    # What comes of conditions.

    def _raise(self, old: Bout | None, change: Change, t: int) -> None:
        alarm = change.alarm
        if old is not None and not (old.is_on or old.waiting or self._ledger.is_recent(old, t)):
            old = None
        signal = Signal(
            alarm=alarm,
            presence=Presence.ON,
            since_ns=t,
            bout=alarm.id,
            bout_count=1,
            bout_started_ns=t,
        )
        if old is not None:
            earlier = old.signal
            signal = replace(
                signal,
                bout=earlier.bout,
                bout_count=earlier.bout_count + 1,
                bout_started_ns=earlier.bout_started_ns,
                last_told_ns=earlier.last_told_ns,
                # For them it was never over: an end that still waits is void now.
                told=earlier.told if old.is_on else old.contacts(Kind.ENDED),
                issued=earlier.issued if earlier.alarm.id == alarm.id else 0,
            )
        bout = Bout(signal)
        if old is None:
            self._ledger.audit(bout, t, "raised", None, change.reason)
            self._ledger.place(bout)
            self._ledger.ring(bout, Kind.RAISED, t)
            return
        unanswered = old.is_unanswered
        handed_on = list(old.waiting.values())
        self._put_away(old, t, f"takes its place: {alarm.id}")
        self._ledger.audit(bout, t, "again", None, change.reason)
        self._ledger.place(bout)
        if self._ledger.is_paused(alarm):
            return
        # In UTC, which may have been set: then it is told sooner, or a minute later.
        apart_s = (t - old.alarm.raised_ns) / S
        high = alarm.priority is Priority.HIGH
        lately = not high or apart_s < HIGH_GAP_S
        seldom_ns = self._ledger.not_too_often(bout, t) if lately else t
        worse = _RANK[alarm.priority] > _RANK[old.alarm.priority]
        if worse or not unanswered:
            answered = old.signal.acknowledged_by is not None
            at_once = worse or (answered and high)
            self._ledger.ring(bout, Kind.AGAIN, t if at_once else seldom_ns)
            return
        # The ladder goes on where it stood: were it begun anew, a condition that comes and goes
        # each minute would never get to its second step.
        know = dict.fromkeys((*signal.told, *_contacts(handed_on, Kind.AGAIN)))
        for contact in know:
            self._ledger.put(bout, Kind.AGAIN, contact, seldom_ns)
        for waiting in handed_on:
            kind = waiting.notification.kind
            if kind not in _PASSING:
                self._ledger.put(bout, kind, waiting.notification.contact, waiting.wanted_ns)

    def _worsen(self, bout: Bout, change: Change, t: int) -> None:
        """The same alarm, still active: with a higher priority it is as a new one."""
        was = bout.alarm.priority
        if _RANK[change.alarm.priority] <= _RANK[was]:
            return
        self._ledger.cancel(bout)
        self._come_on(bout, t)
        self._ledger.set(bout, alarm=change.alarm)
        detail = f"from {was} to {change.alarm.priority} priority: {change.reason}"
        self._ledger.audit(bout, t, "worsened", None, detail)
        self._ledger.ring(bout, Kind.WORSENED, t)

    def _go_on(self, bout: Bout, change: Change, t: int) -> None:
        """The same alarm, seen just now: if it is lethal, an old answer holds no more."""
        answered_ns = bout.signal.acknowledged_ns
        if (
            not is_lethal(bout.alarm.condition)
            or bout.signal.presence is not Presence.ACKNOWLEDGED
            or answered_ns is None
            or t - answered_ns <= LETHAL_ANSWER_S * S
        ):
            return
        self._come_on(bout, t)
        self._ledger.audit(bout, t, "goes on", None, change.reason)
        self._ledger.ring(bout, Kind.GOES_ON, t)

    def _end(self, bout: Bout, change: Change, t: int) -> None:
        self._ledger.set(bout, alarm=replace(change.alarm, priority=bout.alarm.priority))
        if bout.signal.presence is Presence.ON and self._ledger.ladder(bout).latching:
            self._ledger.set(bout, presence=Presence.LATCHED, since_ns=t)
            self._ledger.audit(bout, t, "latched", None, change.reason)
            if is_lethal(bout.alarm.condition):
                # Those of a rhythm that lasts come much faster.
                self._ledger.remind_anew(bout, t)
            if not self._ledger.is_paused(bout.alarm):
                # Who has some other message coming reads in that one that it is over.
                others = bout.contacts(*BEGINNINGS)
                seldom_ns = self._ledger.not_too_often(bout, t)
                for contact in bout.signal.told:
                    if contact not in others:
                        self._ledger.put(bout, Kind.LATCHED, contact, seldom_ns)
            return
        self._ledger.cancel(bout)
        self._ledger.set(bout, presence=Presence.OFF, since_ns=t, snoozed_until_ns=None)
        self._ledger.audit(bout, t, "ended", None, change.reason)
        for contact in bout.signal.told:
            self._ledger.put(bout, Kind.ENDED, contact, t)

    def _lose(self, bout: Bout, lost: bool, t: int) -> None:
        self._ledger.set(bout, signal_lost=lost)
        what = "signal lost" if lost else "signal back"
        self._ledger.audit(bout, t, what, None, f"{bout.alarm.condition} was on")
        if (
            lost
            and not bout.signal.loss_told
            and bout.signal.told
            and bout.signal.presence is Presence.ON
            and not self._ledger.is_paused(bout.alarm)
            # What is told after quiet hours says how it is by then.
            and self._ledger.due(bout, Kind.SIGNAL_LOST, t) == t
        ):
            self._ledger.set(bout, loss_told=True)
            for contact in bout.signal.told:
                self._ledger.put(bout, Kind.SIGNAL_LOST, contact, t)

    # What comes of people.

    def _answer(self, bout: Bout, by: str, t: int, until_ns: int | None) -> None:
        what = "acknowledged" if until_ns is None else "snoozed"
        self._ledger.audit(bout, t, what, by, f"{bout.alarm.condition} was {bout.signal.presence}")
        signal = bout.signal
        if signal.presence is Presence.ACKNOWLEDGED and signal.snoozed_until_ns is until_ns is None:
            return  # The first answer stands.
        self._ledger.cancel(bout)
        if signal.presence is Presence.LATCHED:
            presence, until_ns = Presence.OFF, None
        else:
            presence = Presence.ACKNOWLEDGED
        self._ledger.set(
            bout,
            presence=presence,
            since_ns=t if presence is not signal.presence else signal.since_ns,
            acknowledged_by=by,
            acknowledged_ns=t,
            snoozed_until_ns=until_ns,
        )

    def _close(self, pause: Pause, t: int, what: str, by: str | None) -> None:
        del self._ledger.pauses[pause.id]
        self._ledger.write(replace(pause, ended_ns=t))
        self._ledger.audit_pause(pause, t, what, by)

    def _release(self, ended: Iterable[Pause], t: int) -> None:
        """Tell what pauses held back, unless another still does."""
        held = {bout.alarm.id: bout for pause in ended for bout in self._ledger.covered(pause)}
        for bout in held.values():
            if bout.is_unanswered:
                self._ledger.ring(bout, Kind.PAUSE_OVER, t)
            self._ledger.plan_anew(bout)

    def _put_away(self, old: Bout, t: int, why: str) -> None:
        """Make place for the next alarm of the same condition."""
        if old.is_on:
            self._ledger.cancel(old)
            self._ledger.set(old, presence=Presence.OFF, since_ns=t, snoozed_until_ns=None)
            self._ledger.audit(old, t, "superseded", None, why)
        elif old.waiting:
            self._ledger.cancel(old)

    def _come_on(self, bout: Bout, t: int) -> None:
        """On, whatever was answered before."""
        if bout.signal.presence is not Presence.ON:
            self._ledger.set(bout, presence=Presence.ON, since_ns=t)
        self._ledger.set(bout, acknowledged_by=None, acknowledged_ns=None, snoozed_until_ns=None)

    # Looking things up.

    def _find(self, alarm_ids: Iterable[str]) -> list[Bout]:
        on = {bout.alarm.id: bout for bout in self._ledger.bouts.values() if bout.is_on}
        wanted = dict.fromkeys(alarm_ids)
        for alarm_id in wanted:
            if alarm_id not in on:
                raise ValueError(f"alarm {alarm_id!r} is unknown or off")
        return [on[alarm_id] for alarm_id in wanted]


def _contacts(waiting: Iterable[Waiting], kind: Kind) -> list[str]:
    return [w.notification.contact for w in waiting if w.notification.kind is kind]


def _check_until(what: str, until_ns: int, now: Moment) -> None:
    if until_ns <= now.utc_ns:
        raise ValueError(f"{what}: its end is past already; it must be within the next 24 hours")
    if until_ns - now.utc_ns > MAX_SILENCE_S * S:
        raise ValueError(f"{what}: must end within the next 24 hours")
