"""Who is let in: which patients, which of their devices, and how much of each."""

import re
from collections.abc import Callable, Collection, Sequence

import structlog

from ingest.chunk import Stream
from ingest.mqtt.counts import UNTIMELY
from ingest.mqtt.limits import Limits, Pace
from ingest.mqtt.payload import Mapping, Message, Reason, RefusedError, check_time, decode
from ingest.mqtt.topics import TopicMap
from ingest.mqtt.trust import Trust

_log = structlog.get_logger()

_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")

# A device this long silent makes room for another of the same patient.
_SILENT_NS = 3600 * 1_000_000_000


class _Device:
    """A device that was let in."""

    __slots__ = ("heard_ns", "pace")

    def __init__(self, pace: Pace, heard_ns: int) -> None:
        self.pace = pace
        self.heard_ns = heard_ns


class Admission:
    """Judges messages one by one.

    Args:
        topics: in the order in which they are tried.
        limits: of every device.
        patients: those whose signal is taken.
        on_leave: told of a device that made room for another.
        trust: whether the gateway's clock can be held against the times of messages.
    """

    def __init__(
        self,
        topics: Sequence[TopicMap],
        limits: Limits,
        patients: Collection[str],
        on_leave: Callable[[Stream], None],
        trust: Trust,
    ) -> None:
        self._topics = topics
        self._limits = limits
        self._on_leave = on_leave
        self._trust = trust
        self._doubting = False
        self._devices: dict[str, dict[str, _Device]] = {patient: {} for patient in patients}
        # One pace for all that were never let in: who invents names cannot flood by them either.
        self._strangers: dict[str, Pace] = {}

    def admit(
        self,
        topic: str,
        payload: bytes,
        *,
        retained: bool,
        again: bool,
        utc_ns: int,
        now_ns: int,
    ) -> tuple[Stream, Message]:
        """Read a message, the cheapest checks first.

        Args:
            topic: where it came.
            payload: what came.
            retained: whether the broker kept it for whoever asks; then its time is long past.
            again: whether the broker delivers it a second time, which no device can make it do.
            utc_ns: UTC time now, in nanoseconds since 1970.
            now_ns: time now by a clock that nobody sets, in nanoseconds.

        Raises:
            RefusedError: if it is not taken.
        """
        stream, mapping = self._whose(topic)
        if retained:
            raise RefusedError(
                Reason.RETAINED, "retained by the broker: publish ECG without the retain flag"
            )
        devices = self._devices[stream.patient]
        device = devices.get(stream.device)
        if device is not None:
            pace = device.pace
        else:
            pace = self._strangers.setdefault(stream.patient, Pace(self._limits.per_second, now_ns))
        if not again:
            if pace.exhausted(now_ns):
                raise RefusedError(
                    Reason.TOO_FAST,
                    f"more than {self._limits.per_second:g} messages a second from {stream}",
                )
            pace.spend()
        message = decode(payload, mapping, self._limits)
        self._trust.hear(stream, message.end_ns, now_ns)
        doubted = self._is_doubted(stream, message, utc_ns, now_ns)
        if device is None:
            self._make_room(stream, devices, now_ns)
            device = devices[stream.device] = _Device(Pace(self._limits.per_second, now_ns), now_ns)
        device.heard_ns = now_ns
        device.pace.earn(message.t0_ns, message.end_ns, doubted=doubted)
        return stream, message

    def _is_doubted(self, stream: Stream, message: Message, utc_ns: int, now_ns: int) -> bool:
        """Whether the time of a message or the gateway's is wrong, and nobody knows which.

        It is taken by the device's time then: its heart is watched, and nothing is lost.

        Raises:
            RefusedError: if it is the message's.
        """
        try:
            check_time(message.t0_ns, self._limits, utc_ns)
        except RefusedError as error:
            if self._trust.trusted(utc_ns, now_ns):
                self._doubting = False
                raise
            UNTIMELY.inc()
            if not self._doubting:
                self._doubting = True
                _log.warning("mqtt_clock_not_trusted", stream=str(stream), detail=error.detail)
            return True
        return False

    def _whose(self, topic: str) -> tuple[Stream, Mapping]:
        for known in self._topics:
            found = known.match(topic)
            if found is None:
                continue
            patient, device = found
            if patient not in self._devices:
                raise RefusedError(
                    Reason.PATIENT, f"no patient {patient[:64]!a} in the configuration"
                )
            if not _NAME.fullmatch(device):
                raise RefusedError(
                    Reason.DEVICE,
                    f"{device[:64]!a} is no name of a device: expected 1 to 64 letters, "
                    "digits, '_' or '-'",
                )
            return Stream(patient, device), known.mapping
        raise RefusedError(Reason.TOPIC, "not a topic of the configuration")

    def _make_room(self, stream: Stream, devices: dict[str, _Device], now_ns: int) -> None:
        if len(devices) < self._limits.devices:
            return
        oldest = min(devices, key=lambda name: devices[name].heard_ns)
        if now_ns - devices[oldest].heard_ns < _SILENT_NS:
            raise RefusedError(
                Reason.DEVICE,
                f"{stream.device!a} would be one device more of {stream.patient} than "
                f"{self._limits.devices}",
            )
        del devices[oldest]
        self._on_leave(Stream(stream.patient, oldest))
