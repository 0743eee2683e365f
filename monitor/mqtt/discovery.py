"""What makes Home Assistant show a patient as a device, without anything to configure there.

Home Assistant, "MQTT", section "MQTT Discovery", device discovery payload:
https://www.home-assistant.io/integrations/mqtt/#device-discovery-payload, and the pages of the
platforms sensor.mqtt, binary_sensor.mqtt and button.mqtt. All keys are spelled in full.
"""

from collections.abc import Iterable
from importlib.metadata import version
from typing import Final

from alerts.rhythm import Rhythm
from monitor.mqtt import topics
from monitor.mqtt.state import Json
from monitor.quality import Quality

EXPIRE_AFTER_S: Final = 180
"""After so long without a message Home Assistant calls a value unavailable.

A daemon that hangs says nothing, but its network thread keeps the last will from being sent.
"""

ACKNOWLEDGE: Final = '{"by": "Home Assistant"}'
"""What the button sends."""


def device_config(patient: str, name: str | None, rhythms: Iterable[str]) -> Json:
    """The discovery payload of a patient.

    Args:
        patient: the configured id.
        name: for people; None where the id is enough.
        rhythms: names of all that may be said of the rhythm.
    """
    state = {"state_topic": topics.state(patient), "expire_after": EXPIRE_AFTER_S}
    alarm = {"state_topic": topics.alarm(patient), "expire_after": EXPIRE_AFTER_S}
    said = list(dict.fromkeys(rhythms))
    components: dict[str, Json] = {
        "heart_rate": {
            "platform": "sensor",
            "name": "Heart rate",
            "unit_of_measurement": "bpm",
            "state_class": "measurement",
            "icon": "mdi:heart-pulse",
            "value_template": "{{ value_json.heart_rate }}",
            **state,
        },
        "rhythm": {
            "platform": "sensor",
            "name": "Rhythm",
            "icon": "mdi:pulse",
            "value_template": "{{ value_json.rhythm }}",
            # An empty list of options would be refused.
            **({"device_class": "enum", "options": said} if said else {}),
            **state,
        },
        "verdict": {
            "platform": "sensor",
            "name": "Watch for lethal rhythms",
            "icon": "mdi:heart-flash",
            "device_class": "enum",
            "options": [rhythm.value for rhythm in Rhythm],
            "value_template": "{{ value_json.verdict }}",
            "json_attributes_topic": topics.state(patient),
            "json_attributes_template": "{{ {'since': value_json.verdict_since} | tojson }}",
            **state,
        },
        "quality": {
            "platform": "sensor",
            "name": "Signal quality",
            "device_class": "enum",
            "options": [quality.value for quality in Quality],
            "icon": "mdi:signal",
            "value_template": "{{ value_json.quality }}",
            "json_attributes_topic": topics.state(patient),
            "json_attributes_template": "{{ {'reasons': value_json.reasons,"
            " 'contact': value_json.contact, 'device': value_json.device} | tojson }}",
            **state,
        },
        "battery": {
            "platform": "sensor",
            "name": "Battery",
            "device_class": "battery",
            "unit_of_measurement": "%",
            "state_class": "measurement",
            "entity_category": "diagnostic",
            "value_template": "{{ value_json.battery }}",
            **state,
        },
        "connection": {
            "platform": "binary_sensor",
            "name": "Connection",
            "device_class": "connectivity",
            "entity_category": "diagnostic",
            "value_template": "{{ 'ON' if value_json.connected else 'OFF' }}",
            **state,
        },
        "alarm": {
            "platform": "binary_sensor",
            "name": "Alarm",
            "device_class": "problem",
            "value_template": "{{ 'ON' if value_json.state == 'alarm' else 'OFF' }}",
            "json_attributes_topic": topics.alarm(patient),
            **alarm,
        },
        "acknowledge": {
            "platform": "button",
            "name": "Acknowledge alarms",
            "icon": "mdi:bell-check",
            "command_topic": topics.acknowledgement(patient),
            "payload_press": ACKNOWLEDGE,
        },
    }
    for key, component in components.items():
        component["unique_id"] = f"leadone_{patient}_{key}"
    release = version("leadone")
    return {
        "device": {
            "identifiers": [f"leadone_{patient}"],
            "name": name or patient,
            "manufacturer": "Lead One",
            "model": "ECG monitor (not a medical device)",
            "sw_version": release,
        },
        "origin": {"name": "leadone", "sw_version": release},
        "components": components,
        "availability_topic": topics.STATUS,
        "payload_available": "online",
        "payload_not_available": "offline",
        "qos": 1,
    }
