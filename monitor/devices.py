"""Devices that come and go by themselves, over MQTT: whether each is there, and its alarms."""

import asyncio
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import structlog

from alerts.conditions import Alarm, Change
from alerts.technical import DeviceWatch, Moment
from ingest.chunk import Stream
from monitor.clock import now as present
from monitor.quality import Reason
from monitor.results import WindowResult
from monitor.stopping import pause
from monitor.wearing import OFF_SKIN, by_device, look_at_window

_log = structlog.get_logger()

_LOOK_S = 1.0

# Windows come every few seconds while a device sends.
SENDING_S = 30.0

# Whoever has not sent for so long was given back, or is called otherwise now.
GONE_S = 7 * 86_400.0

_SILENT = "nothing comes from it: see that it is switched on, charged, and on the network"

_GONE = "nothing came from it for a week: it is no longer watched"


@dataclass(slots=True)
class _Seen:
    """One device.

    Attributes:
        watch: decides on its alarms.
        since: when it was last heard of, or watched first.
        heard: when its last window was stored; None if none was since the start.
        sending: as told last; None if it was not told.
    """

    watch: DeviceWatch
    since: Moment
    heard: Moment | None = None
    sending: bool | None = None


class Devices:
    """Watches the devices of a broker.

    Args:
        known: those that sent lately, before this run.
        active: the technical alarms that an earlier run left active.
        ours: whether a stream is one of these devices, and not a strap or a configured source.
        conclude: takes what changes about alarms.
        on_sending: told when a device begins and stops to send.
        now: the time.
    """

    def __init__(
        self,
        known: Iterable[Stream],
        active: Iterable[Alarm],
        *,
        ours: Callable[[Stream], bool],
        conclude: Callable[[Sequence[Change]], None],
        on_sending: Sequence[Callable[[Stream, bool], None]] = (),
        now: Callable[[], Moment] = present,
    ) -> None:
        self._ours = ours
        self._conclude = conclude
        self._on_sending = on_sending
        self._now = now
        self._left = {s: alarms for s, alarms in by_device(active).items() if ours(s)}
        self._seen: dict[Stream, _Seen] = {}
        for stream in filter(ours, known):
            self._of(stream)
        week_ago = Moment(now().utc_ns, now().steady_ns - round(GONE_S * 1e9))
        for stream in list(self._left):
            # It was not heard of lately: the first look drops it.
            self._of(stream).since = week_ago

    def _of(self, stream: Stream) -> _Seen:
        seen = self._seen.get(stream)
        if seen is None:
            left = self._left.pop(stream, ())
            watch = DeviceWatch(stream.patient, stream.device, left)
            seen = self._seen[stream] = _Seen(watch, self._now())
        return seen

    def result(self, result: WindowResult) -> None:
        """Take in a stored window."""
        if not self._ours(result.stream):
            return
        seen, now = self._of(result.stream), self._now()
        seen.since = seen.heard = now
        if Reason.SKIPPED in result.grade.reasons or Reason.FAILED in result.grade.reasons:
            return  # that tells of the gateway, and nothing of the device
        self._say(look_at_window(seen.watch, now, result, OFF_SKIN))

    def battery(self, stream: Stream, percent: int) -> None:
        """Take in what a device says of its battery."""
        seen, now = self._of(stream), self._now()
        seen.since = now
        self._say(seen.watch.battery(now, percent))

    async def run(self, stop: asyncio.Event) -> None:
        """Look until ``stop``."""
        while not stop.is_set():
            for stream, seen in list(self._seen.items()):
                try:
                    self._look(stream, seen)
                except Exception:  # noqa: BLE001 - one device must not end the watch of the others
                    _log.exception("device not looked at", stream=str(stream))
            await pause(stop, _LOOK_S)

    def _look(self, stream: Stream, seen: _Seen) -> None:
        now = self._now()
        if now.since(seen.since) >= GONE_S * 1e9:
            del self._seen[stream]
            self._conclude(seen.watch.drop(now, _GONE))
            return
        sending = seen.heard is not None and now.since(seen.heard) < SENDING_S * 1e9
        self._say(seen.watch.link(now, streaming=sending, why=_SILENT))
        self._say(seen.watch.legible(now))
        if sending is not seen.sending:
            seen.sending = sending
            for listener in self._on_sending:
                listener(stream, sending)

    def _say(self, change: Change | None) -> None:
        if change is not None:
            self._conclude([change])
