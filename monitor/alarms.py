"""Alarms from beginning to end: conditions become signals, are stored as one, and are told."""

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import structlog

from alerts.channels.threads import Threads
from alerts.conditions import Change, Observation, Priority, State
from alerts.engine import Engine
from alerts.escalation import Plan
from alerts.gateway import GATEWAY
from alerts.lethal import RhythmEngine
from alerts.records import HAPPENED, Notification, Output, Presence, Signal
from alerts.rhythm import LETHAL, RhythmSeen, is_lethal
from alerts.signals import Signals
from alerts.technical import Moment, is_technical, is_update
from ingest.chunk import Chunk, Stream
from monitor.clock import now as present
from monitor.composing import Composer, Help
from monitor.handover import PATIENCE_S, attempt, keep, tell
from monitor.metrics import RESULTS_REFUSED
from monitor.observe import Observer
from monitor.outbox import Outbox, Urgency
from monitor.requests import answer
from monitor.results import WindowResult
from monitor.stopping import pause
from monitor.storage.database import DatabaseError
from monitor.storage.history import History
from monitor.storage.records import Record, Request
from monitor.storage.writer import Writer

if TYPE_CHECKING:
    from alerts.channels.channel import Channel

_log = structlog.get_logger()

_LOOK_S = 1.0

# Without a readable window for so long nobody can say whether an alarm's condition is still true.
SIGNAL_LOST_S = 120.0

# Of alarms that are over so many are remembered: their last messages may still be on the way.
_OVER_KEPT = 1000

_LOST = "why is lost: the database was deleted"

_OFF_KEPT_NS = 86_400 * 10**9


class Alarms:
    """Decides, stores and tells.

    Args:
        engine: decides on conditions of hearts, window by window.
        writer: the started writer.
        rhythms: decides on lethal rhythms, second by second; by default one that knows of none.
        plan_for: who is told of a patient's alarms, when; by default nobody is.
        channels: of each contact.
        history: reads the strips that go with messages; None: no pictures.
        patients: names for people by patient id.
        class_names: plain names by class abbreviation.
        help_for: whom to call, and what whoever comes must know.
        on_change: called with every condition that begins or ends, on the event loop.
        on_signals: called with a patient of whom people are told otherwise than before.
        on_channel: told whether a channel works, and why not.
        on_store: called with what is about to be stored, in its order.
        attended: whether there are signals; if not, conditions are stored and nothing more.
        now: the time.
    """

    def __init__(
        self,
        engine: Engine,
        writer: Writer,
        *,
        rhythms: RhythmEngine | None = None,
        plan_for: Callable[[str], Plan] = lambda _: Plan(),
        channels: Mapping[str, Sequence["Channel"]] | None = None,
        history: History | None = None,
        patients: Mapping[str, str | None] | None = None,
        class_names: Mapping[str, str] | None = None,
        help_for: Help = Help(),  # noqa: B008 - it is frozen
        on_change: Sequence[Callable[[Change], None]] = (),
        on_signals: Sequence[Callable[[str], None]] = (),
        on_channel: Callable[[str, str | None], None] = lambda _name, _wrong: None,
        on_store: Callable[[Sequence[Record]], None] | None = None,
        attended: bool = True,
        now: Callable[[], Moment] = present,
    ) -> None:
        def utc_ns() -> int:
            return now().utc_ns

        self._engine = engine
        self._observer = Observer()
        self._rhythms = rhythms or RhythmEngine()
        self._signals = Signals(plan_for)
        self._writer = writer
        self._composer = Composer(
            history, patients or {}, help_for, class_names or {}, self.signal_of, utc_ns
        )
        self._outbox = Outbox(
            channels or {},
            compose=self._composer.compose,
            store=self.store,
            on_channel=on_channel,
            urgency=self._urgency,
            now=now,
        )
        self._on_change = on_change
        self._on_signals = on_signals
        self._on_store = () if on_store is None else (on_store,)
        self._attended = attended
        self._now = now
        self._known: dict[str, Signal] = {}
        self._read_ns: dict[str, int] = {}
        self._lost: set[str] = set()
        self._storing: set[asyncio.Task[Any]] = set()
        self._overdue: set[asyncio.Task[Any]] = set()
        self._unasked: str | None = None
        # Decided and not yet handed on, in order.
        self._pending: list[Sequence[Output]] = []
        self._answered: set[int | None] = set()
        # Not the loop's own threads: those are waited for at the end, however long they hang.
        self._reading = Threads("requests", limit=1)

    def signal_of(self, alarm_id: str) -> Signal | None:
        """The signal of an alarm that is on, or was lately."""
        return self._known.get(alarm_id)

    def _urgency(self, notification: Notification) -> Urgency:
        signal, kind = self._known.get(notification.alarm_id), notification.kind
        if signal is None:
            return Urgency.USUAL
        is_on = signal.alarm.state is State.ACTIVE
        if signal.alarm.priority is Priority.HIGH and (is_on or kind in HAPPENED):
            return Urgency.URGENT
        return Urgency.USUAL if is_on else Urgency.OVER

    def on(self, patient: str) -> tuple[Signal, ...]:
        """The signals of a patient that are not off, oldest alarm first."""
        return self._signals.on(patient)

    def is_lethal_on(self) -> bool:
        """Whether a lethal rhythm goes on that somebody was told of."""
        return any(
            is_lethal(signal.alarm.condition) and signal.alarm.state is State.ACTIVE
            for signal in self._known.values()
        )

    def live(self) -> list[Record]:
        """All that a database must know of alarms that people are told of, to go on with them."""
        found: list[Record] = []
        for signal in self._known.values():
            if signal.presence is Presence.OFF:
                continue
            alarm = signal.alarm
            active = replace(alarm, ended_ns=None)
            found.append(Change(active, alarm.raised_ns, State.ACTIVE, _LOST))
            if alarm.ended_ns is not None:
                found.append(Change(alarm, alarm.ended_ns, State.ENDED, _LOST))
            found += [signal, *self._signals.pauses(alarm.patient)]
        return found + self._outbox.pending

    def restore(self, history: History) -> None:
        """Take up the signals, pauses and messages that an earlier run left."""
        now = self._now()
        kept = history.signals_since(now.utc_ns - _OFF_KEPT_NS)
        waiting = history.waiting()
        self._known = {signal.alarm.id: signal for signal in kept}
        self._observer.restore(history.active_alarms(), now)
        self._signals.restore(kept, history.pauses(now.utc_ns), [n for n, _ in waiting])
        self._outbox.restore(waiting)
        for alarm_id in self._known:
            for change in history.changes(alarm_id)[-1:]:
                self._composer.restore({alarm_id: change.reason})

    def pause_s(self, patient: str) -> float | None:
        """The shortest pause of a patient that counts, in seconds; None where none does."""
        rule = self._engine.policy(patient).pause
        return None if rule is None else rule.seconds

    def window(self, result: WindowResult) -> list[Change]:
        """What a window changes about the conditions of a heart."""
        limit_s = self.pause_s(result.stream.patient)
        return self._engine.step(self._observer.window(result, limit_s, self._now()))

    def paused(self, stream: Stream, seen: Observation) -> None:
        """Take in a pause that lasts; what it changes is told at once, and stored beside.

        Args:
            stream: whose signal shows it, of which ``samples`` were taken in before.
            seen: what the rules see of it.
        """
        self._observer.paused(stream, seen, self._now())
        self._composer.paused(stream)
        self._at_once(self._engine.step(seen))

    def signal(self, changes: Sequence[Change]) -> list[Output]:
        """What changes of conditions change about whom is told; to be stored with them."""
        if not changes or not self._attended:
            return []
        now = self._now()
        outputs = [o for change in changes for o in self._signals.change(change, now)]
        for change in changes:
            self._composer.change(change)
        self._note(outputs)
        return outputs

    def tell(self, changes: Sequence[Change], outputs: Sequence[Output]) -> None:
        """Hand on what was stored."""
        if not changes and not outputs:
            return  # as after nearly every window
        self._hand_on(outputs)
        for change in changes:
            if not is_update(change) or not is_technical(change.alarm):
                tell(self._on_change, change)
        for patient in {o.alarm.patient for o in outputs if isinstance(o, Signal)}:
            tell(self._on_signals, patient)

    def rhythm(self, seen: RhythmSeen) -> None:
        """Take in a verdict about a heart; what it changes is told at once, and stored beside.

        To be called on the event loop, for every second of every device's signal.
        """
        self._composer.rhythm(seen)
        if seen.rhythm in LETHAL:
            # No window of such a heart can be read, and yet it is seen.
            self._read_ns[seen.patient] = self._now().steady_ns
        self._at_once(self._rhythms.step(seen, self._now().utc_ns))

    def samples(self, chunk: Chunk) -> None:
        """Keep the last seconds of a stream for the strips of lethal rhythms, before ``rhythm``."""
        self._composer.samples(chunk)

    def beat(self, patient: str, at_ns: int) -> None:
        """Take in a beat of a device without a waveform, as ``rhythm``.

        Args:
            patient: whose heart.
            at_ns: UTC time of the beat, in nanoseconds since 1970.
        """
        self._at_once(self._rhythms.beat(patient, at_ns))

    def _at_once(self, changes: Iterable[Change]) -> None:
        """Tell of changes without waiting for the database, nor for anything that does."""
        for change in changes:
            outputs = self.signal([change])
            # That a rhythm lasts is stored as what it does to the signal, most often nothing.
            new = [] if is_update(change) else [change]
            if new or outputs:
                # First, so that the writer has it before what becomes of the messages.
                self.storing([*new, *outputs])
                storing = attempt(self._writer, RESULTS_REFUSED, [*new, *outputs])
                keep(self._storing, storing)
            self.tell(new, outputs)

    def _hand_on(self, outputs: Sequence[Output]) -> None:
        """Give the outbox what was decided, up to ``outputs``, in the order of the decisions.

        What was decided earlier may still wait for the database; it must not come after this, or
        an answer to one message would make void the next.
        """
        while any(waiting is outputs for waiting in self._pending):
            self._outbox.take(self._pending.pop(0))
        self._set_clock()

    def _set_clock(self) -> None:
        """Have the outbox go by the signals' clock, once it knows all that they moved."""
        ahead_ns = self._signals.ahead_ns
        if ahead_ns is not None and not self._pending:
            self._outbox.follow(ahead_ns)

    def conclude(self, changes: Sequence[Change]) -> None:
        """Store changes of conditions with their signals, then tell; returns at once."""
        if changes:
            self._keep(changes, self.signal(changes))

    def result(self, result: WindowResult) -> None:
        """Look at a stored result: whether the heart of its patient can be seen."""
        self._composer.result(result)
        if result.grade.good:
            self._read_ns[result.stream.patient] = self._now().steady_ns

    def acknowledge(self, patient: str, alarm_id: str | None, by: str) -> None:
        """Somebody has answered one alarm of a patient, or all.

        Raises:
            ValueError: the patient has no such alarm on.
        """
        on = [signal.alarm.id for signal in self._signals.on(patient)]
        if alarm_id is not None and alarm_id not in on:
            raise ValueError(f"alarm {alarm_id!r} is unknown or off")
        ids = on if alarm_id is None else [alarm_id]
        if ids:
            self._do(self._signals.acknowledge(ids, by, self._now()))

    @property
    def all_on(self) -> tuple[Signal, ...]:
        """The signals of everybody that are not off, the gateway's too, oldest alarm first."""
        on = (s for s in self._known.values() if s.presence is not Presence.OFF)
        return tuple(sorted(on, key=lambda signal: signal.alarm.raised_ns))

    def paused_until(self, patient: str) -> int | None:
        """UTC time until which nobody is told of a patient's alarms; None if people are."""
        pauses = self._signals.pauses(patient)
        return max((pause.until_ns for pause in pauses if pause.kind is None), default=None)

    def request(self, request: Request) -> str:
        """Do what somebody asks of the daemon itself; told at once, and stored beside.

        It waits for no database, so that an alarm can be answered while there is none.

        Args:
            request: not stored yet.

        Returns:
            One line for whoever asked; ``failed: …`` if it was not done.
        """
        outputs, answered = self._take(request)
        self._note(outputs)
        # First, so that the writer has it before what becomes of the messages.
        keep(self._storing, attempt(self._writer, RESULTS_REFUSED, [answered, *outputs]))
        self.tell((), outputs)
        return str(answered.answer)

    async def stored(self, within_s: float) -> None:
        """Wait until what was decided so far is stored, but not for what was waited for in vain."""
        storing = set(self._storing)
        if storing and self._writer.healthy and not storing & self._overdue:
            _, self._overdue = await asyncio.wait(storing, timeout=within_s)

    def _take(self, request: Request) -> tuple[Sequence[Output], Request]:
        """Do what is asked: what is to be stored, and the request with its answer."""
        outputs, said = answer(request, self._signals, self._now())
        _log.info("asked", what=request.what, by=request.by, answer=said)
        return outputs, replace(request, answer=said)

    async def run(self, history: History | None, stop: asyncio.Event) -> None:
        """Do what time brings and what people ask for, until ``stop``; then deliver what is due.

        Args:
            history: where people's requests are read.
            stop: ends it.
        """
        delivering = asyncio.create_task(self._outbox.run(stop))
        answering: asyncio.Task[None] | None = None
        try:
            if self._outbox.has_channels:
                await self._composer.warm_up()
            while not (stop.is_set() or delivering.done()):
                try:
                    self._look()
                    # Beside: a database that does not answer must not keep time from passing.
                    if history is not None and (answering is None or answering.done()):
                        answering = asyncio.create_task(self._answer(history))
                except Exception:  # noqa: BLE001 - it must go on looking
                    _log.exception("alarms not looked at")
                await pause(stop, self._pause_s())
            await delivering
        finally:
            delivering.cancel()
            # Not for ever: what is left the writer has, and settles when it is stopped.
            left = {delivering, *self._storing, *([answering] if answering else [])}
            await asyncio.wait(left, timeout=PATIENCE_S)
            if answering is not None:
                answering.cancel()

    def _pause_s(self) -> float:
        due_ns = self._signals.next_due()
        if due_ns is None:
            return _LOOK_S
        now = self._now()
        ahead_ns = self._signals.ahead_ns
        time_ns = now.utc_ns if ahead_ns is None else now.steady_ns + ahead_ns
        return min(_LOOK_S, max(0.01, (due_ns - time_ns) / 1e9))

    def _look(self) -> None:
        now = self._now()
        known = {signal.alarm.patient for signal in self._known.values()}
        for patient in known - {GATEWAY}:
            read_ns = self._read_ns.setdefault(patient, now.steady_ns)
            lost = now.steady_ns - read_ns > SIGNAL_LOST_S * 1e9
            if lost is not (patient in self._lost):
                (self._lost.add if lost else self._lost.discard)(patient)
                self._do(self._signals.signal_lost(patient, lost, now))
        self._do(self._signals.tick(now))
        self._set_clock()

    async def _answer(self, history: History) -> None:
        try:
            waiting = await self._reading.run(history.requests)
            # A database that is only read at the moment does not know yet what was answered.
            self._answered &= {request.id for request in waiting}
            for request in waiting:
                if request.id not in self._answered:
                    self._answered.add(request.id)
                    await self._answer_one(request)
            self._unasked = None
        except DatabaseError as error:
            # Once an outage, and not each second of it.
            if self._unasked is None:
                _log.warning("requests_not_read", reason=str(error))
            self._unasked = str(error)
        except Exception:  # noqa: BLE001 - the next ones are asked for all the same
            _log.exception("requests not answered")

    async def _answer_one(self, request: Request) -> None:
        outputs, answered = self._take(request)
        self._note(outputs)
        await self._store([answered, *outputs])
        self.tell((), outputs)

    def _do(self, outputs: Sequence[Output]) -> None:
        if outputs:
            self._note(outputs)
            self._keep((), outputs)

    def _note(self, outputs: Sequence[Output]) -> None:
        if outputs:
            self._pending.append(outputs)
        for output in outputs:
            if isinstance(output, Signal):
                self._known[output.alarm.id] = output
        over = [k for k, signal in self._known.items() if signal.presence is Presence.OFF]
        for alarm_id in over[: max(0, len(over) - _OVER_KEPT)]:
            del self._known[alarm_id]
            self._composer.forget(alarm_id)

    def _keep(self, changes: Sequence[Change], outputs: Sequence[Output]) -> None:
        keep(self._storing, self._store_and_tell(changes, outputs))

    async def _store_and_tell(self, changes: Sequence[Change], outputs: Sequence[Output]) -> None:
        await self._store([*changes, *outputs])
        self.tell(changes, outputs)

    async def _store(self, records: Sequence[Record]) -> None:
        """Make records durable; people are told even if that takes too long, or fails."""
        self.storing(records)
        storing = keep(self._storing, attempt(self._writer, RESULTS_REFUSED, records))
        await asyncio.wait({storing}, timeout=PATIENCE_S if self._writer.healthy else 0.0)

    def storing(self, records: Sequence[Record]) -> None:
        """Tell of what is about to be stored."""
        tell(self._on_store, records)

    async def store(self, *records: Record) -> None:
        """As the outbox stores what became of its messages."""
        await self._store(records)
