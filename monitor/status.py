"""What the daemon says of itself: who is watched, and if not, why not, in words for people.

It is taken from what really passes through, not from what is stored: a sample that arrived, a
window that could be read. Ages are of a clock that nobody sets.
"""

import os
from collections.abc import Callable, Iterable, Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from alerts.records import Signal
from alerts.rhythm import LETHAL, RhythmSeen
from alerts.technical import Moment
from ingest.chunk import Chunk, Stream
from ingest.rr import RrIntervals
from monitor.alarms import Alarms
from monitor.arrival import LATELY_S, Arrival
from monitor.clock import now as present
from monitor.config import Config
from monitor.devices import GONE_S
from monitor.gateway import Gateway
from monitor.results import WindowResult
from monitor.storage.records import Strap, StrapState
from monitor.storage.writer import Writer

_READ_HOPS = 2


class Status:
    """Collects it; every method is called on the event loop.

    Args:
        config: the configuration.
        writer: the started writer.
        alarms: those of this run.
        gateway: watches over the gateway.
        straps: the straps that are paired, with what is known of each now.
        stalled: which part of the daemon stands still, in words; None if none does.
        spooling: whether records go to a file while the database is away.
        now: the time.
    """

    def __init__(
        self,
        config: Config,
        writer: Writer,
        alarms: Alarms,
        gateway: Gateway,
        *,
        straps: Callable[[], Iterable[tuple[Strap, StrapState]]] = tuple,
        stalled: Callable[[], str | None] = lambda: None,
        spooling: Callable[[], bool] = lambda: False,
        now: Callable[[], Moment] = present,
    ) -> None:
        self._writer = writer
        self._alarms = alarms
        self._gateway = gateway
        self._straps = straps
        self._stalled = stalled
        self._spooling = spooling
        self._now = now
        self._since = now()
        self._patients = [patient.id for patient in config.patients]
        self._lately_s = lately_s = max(
            LATELY_S, _READ_HOPS * config.window.hop + config.window.length
        )
        self._kinds: dict[Stream, str] = {
            Stream(s.patient, s.device): s.type for s in config.sources
        }
        self._kinds |= {strap.stream: "strap" for strap, _ in straps()}
        self._seen: dict[Stream, Arrival] = {
            stream: Arrival(self._since, lately_s) for stream in self._kinds
        }
        self._lethal: dict[str, Moment] = {}
        self._channels: dict[str, tuple[str | None, int | None]] = {}

    def expect(self, streams: Iterable[Stream]) -> None:
        """Know of devices before they send anything."""
        for stream in streams:
            self._of(stream)

    def chunk(self, chunk: Chunk | RrIntervals) -> None:
        """Take in what a source gave."""
        self._of(chunk.stream).chunk(chunk, self._now())

    def result(self, result: WindowResult) -> None:
        """Take in a window, readable or not."""
        self._of(result.stream).result(result, self._now())

    def rhythm(self, seen: RhythmSeen) -> None:
        """Take in a verdict: of a heart that fibrillates no window can be read, yet it is seen."""
        if seen.rhythm in LETHAL:
            self._lethal[seen.patient] = self._now()

    def battery(self, stream: Stream, percent: int) -> None:
        """Take in what a device says of its battery."""
        self._of(stream).battery = percent

    def channel(self, name: str, wrong: str | None) -> None:
        """Take in that a channel has delivered, or why it has not."""
        delivered_ns = self._channels.get(name, (None, None))[1]
        self._channels[name] = (wrong, self._now().utc_ns if wrong is None else delivered_ns)

    def report(self) -> dict[str, Any]:
        """All of it, as JSON takes it: times in UTC nanoseconds, ages in seconds."""
        straps = {strap.stream: (strap, state) for strap, state in self._straps()}
        stalled = self._stalled()
        return {
            "pid": os.getpid(),
            "version": _version(),
            "since_ns": self._since.utc_ns,
            "utc_ns": self._now().utc_ns,
            "database": {"error": self._writer.last_error, "spooling": self._spooling()},
            "model": self._gateway.why_no_model,
            "rhythm_model": self._gateway.why_no_rhythm_model,
            "stalled": stalled,
            "patients": [self._patient(patient, straps, stalled) for patient in self._patients],
            "streams": [
                self._stream(stream, seen, straps.get(stream))
                for stream, seen in self._seen.items()
            ],
            "alarms": [_alarm(signal) for signal in self._alarms.all_on],
            "channels": [
                {"name": name, "wrong": wrong, "delivered_ns": delivered_ns}
                for name, (wrong, delivered_ns) in self._channels.items()
            ],
        }

    def _of(self, stream: Stream) -> Arrival:
        seen = self._seen.get(stream)
        if seen is None:
            self._forget()
            seen = self._seen[stream] = Arrival(self._now(), self._lately_s)
        return seen

    def _forget(self) -> None:
        """Forget devices that come and go by themselves once they are gone for good."""
        now = self._now()
        for stream, seen in list(self._seen.items()):
            gone = now.since(seen.arrived or seen.known) > GONE_S * 1e9
            if gone and stream not in self._kinds:
                del self._seen[stream]

    def _age_s(self, moment: Moment | None) -> float | None:
        return None if moment is None else self._now().since(moment) / 1e9

    def _patient(
        self, patient: str, straps: Mapping[Stream, tuple[Strap, StrapState]], stalled: str | None
    ) -> dict[str, Any]:
        streams = [(s, seen) for s, seen in self._seen.items() if s.patient == patient]
        why: str | None
        if stalled is not None:
            why = stalled
        elif self._is_lethal(patient):
            why = None
        elif not streams:
            why = "no device: leadone pair ADDRESS, or docs/mqtt.md"
        else:
            reasons = [(s, self._why_unread(seen, straps.get(s))) for s, seen in streams]
            unread = [f"{stream.device}: {reason}" for stream, reason in reasons if reason]
            why = "; ".join(unread) if len(unread) == len(reasons) else None
        return {
            "id": patient,
            "watched": why is None,
            "why": why,
            "paused_until_ns": self._alarms.paused_until(patient),
        }

    def _is_lethal(self, patient: str) -> bool:
        age_s = self._age_s(self._lethal.get(patient))
        return age_s is not None and age_s <= self._lately_s

    def _why_unread(self, seen: Arrival, strap: tuple[Strap, StrapState] | None) -> str | None:
        return seen.why_unread(self._now(), self._since, None if strap is None else strap[1])

    def _stream(
        self, stream: Stream, seen: Arrival, strap: tuple[Strap, StrapState] | None
    ) -> dict[str, Any]:
        battery = seen.battery if strap is None else strap[1].battery
        return {
            "patient": stream.patient,
            "device": stream.device,
            "kind": self._kinds.get(stream, "mqtt"),
            "sending": seen.lately(seen.arrived, self._now()),
            "arrived_s": _rounded(self._age_s(seen.arrived)),
            "sample_ns": seen.sample_ns if seen.arrived is not None else None,
            "read_s": _rounded(self._age_s(seen.read)),
            "why": self._why_unread(seen, strap),
            "battery": battery,
            "strap": None if strap is None else _strap(*strap),
        }


def _alarm(signal: Signal) -> dict[str, Any]:
    alarm = signal.alarm
    return {
        "id": alarm.id,
        "patient": alarm.patient,
        "condition": alarm.condition,
        "priority": alarm.priority.value,
        "presence": signal.presence.value,
        "started_ns": alarm.started_ns,
        "raised_ns": alarm.raised_ns,
        "ended_ns": alarm.ended_ns,
    }


def _strap(strap: Strap, state: StrapState) -> dict[str, Any]:
    return {
        "address": strap.address,
        "model": strap.kind,
        "adapter": strap.adapter,
        "paired_ns": strap.paired_ns,
        "stage": state.stage,
        "cause": state.cause,
        "advice": state.advice,
        "since_ns": state.since_ns,
        "battery_ns": state.battery_ns,
    }


def _version() -> str:
    try:
        return version("leadone")
    except PackageNotFoundError:
        return "not installed"


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 1)
