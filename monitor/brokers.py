"""The configured MQTT broker: ECG that comes in from it, and what the house is told through it.

What MQTT needs is loaded only where a broker is configured.
"""

import time
from collections.abc import Callable, Collection, Mapping
from typing import TYPE_CHECKING

from alerts.conditions import Change, State
from alerts.delivery import describe
from alerts.records import Presence, Signal
from ingest.chunk import Stream
from monitor.clock import steady_ns, synchronised
from monitor.config import Config
from monitor.config.mqtt import MqttConfig
from monitor.storage.records import RefusedMessage

if TYPE_CHECKING:
    from ingest.mqtt.broker import Broker
    from ingest.mqtt.source import DeviceState, MqttSource, Rejection


def broker_of(configured: MqttConfig) -> "Broker":
    """The broker as ``ingest`` takes it."""
    from ingest.mqtt.broker import Broker  # noqa: PLC0415 - see above

    return Broker(
        host=configured.host,
        port=configured.port,
        tls=configured.tls,
        protocol=configured.protocol,
        client_id=configured.client_id,
        username=configured.username,
        password=configured.secret,
        ca=configured.ca,
        certificate=configured.certificate,
        key=configured.key,
    )


def ecg_source(
    configured: MqttConfig,
    patients: Collection[str],
    on_reject: Callable[["Rejection"], None],
    on_device: Callable[["DeviceState"], None],
) -> "MqttSource":
    """The source of all devices that send to the broker."""
    from ingest.mqtt.limits import Limits  # noqa: PLC0415 - see above
    from ingest.mqtt.source import MqttSource  # noqa: PLC0415

    return MqttSource(
        broker_of(configured),
        [topic.topic_map() for topic in configured.topics],
        Limits(**configured.limits.model_dump()),
        patients,
        on_reject=on_reject,
        on_device=on_device,
        monotonic_ns=steady_ns,
        synchronised=synchronised,
    )


def refused(rejection: "Rejection") -> RefusedMessage:
    """What is kept of a refused message."""
    return RefusedMessage(
        reason=rejection.reason.value,
        first_ns=rejection.at_ns,
        last_ns=rejection.at_ns,
        topic=rejection.topic,
        detail=rejection.detail,
        excerpt=rejection.excerpt,
    )


class House:
    """Tells the house over MQTT what is seen and which alarms are on.

    Args:
        config: the configuration, with a broker.
        class_names: plain names by class abbreviation.
        on: the signals of a patient that are not off.
        acknowledge: somebody answers an alarm of a patient, or all.
    """

    def __init__(
        self,
        config: Config,
        class_names: Mapping[str, str],
        on: Callable[[str], tuple[Signal, ...]],
        acknowledge: Callable[[str, str | None, str], None],
    ) -> None:
        from monitor.mqtt.house import MqttOut  # noqa: PLC0415 - see above

        assert config.mqtt is not None
        self._class_names = class_names
        self._on = on
        self._reasons: dict[str, str] = {}
        self.out: MqttOut = MqttOut(
            broker_of(config.mqtt),
            config.names,
            class_names,
            discovery=config.mqtt.home_assistant,
            acknowledge=acknowledge,
        )

    def change(self, change: Change) -> None:
        """Keep why an alarm began."""
        if change.state is State.ACTIVE:
            self._reasons[change.alarm.id] = change.reason
        else:
            self._reasons.pop(change.alarm.id, None)

    def signals(self, patient: str) -> None:
        """Tell all alarms of a patient that are on."""
        from monitor.mqtt.state import AlarmNotice  # noqa: PLC0415 - see above

        notices = []
        for signal in self._on(patient):
            alarm = signal.alarm
            answered = signal.presence is Presence.ACKNOWLEDGED
            change = Change(alarm, time.time_ns(), alarm.state, self._reasons.get(alarm.id, ""))
            notices.append(
                AlarmNotice(
                    id=alarm.id,
                    condition=alarm.condition,
                    priority=alarm.priority,
                    since_ns=alarm.started_ns,
                    text=describe(change, self._class_names),
                    acknowledged_by=signal.acknowledged_by if answered else None,
                    acknowledged_ns=signal.acknowledged_ns if answered else None,
                )
            )
        self.out.alarms(patient, notices)

    def sending(self, stream: Stream, sending: bool) -> None:
        """Tell whether a device sends."""
        self.out.device(stream, connected=sending)
