"""Home Assistant's published schema of MQTT device discovery, for the platforms that are used.

Written from its documentation, https://www.home-assistant.io/integrations/: the page ``mqtt``
(section "MQTT Discovery": discovery topic, device discovery payload, device and origin
information), and the tables "Configuration Variables" of ``sensor.mqtt``, ``binary_sensor.mqtt``
and ``button.mqtt``; device classes from ``sensor``, ``binary_sensor`` and ``button``. Home
Assistant itself drops unknown keys of a component in silence; here they are an error, as every key
but those spelled in full is.
"""

import re
from typing import Any

from jsonschema import Draft202012Validator

TEXT = {"type": "string", "minLength": 1}
TEMPLATE = TEXT
# A topic name has no wildcards (MQTT 5, 4.7.1); ours are never filters either.
TOPIC = {"type": "string", "minLength": 1, "maxLength": 65535, "pattern": r"^[^+#\u0000]+$"}
SECONDS = {"type": "integer", "minimum": 0}
QOS = {"enum": [0, 1, 2]}
WEB = {"type": "string", "pattern": "^https?://"}

AVAILABILITY = {
    "availability_topic": TOPIC,
    "availability_template": TEMPLATE,
    "availability_mode": {"enum": ["all", "any", "latest"]},
    "availability": {
        "type": "array",
        "items": {
            "type": "object",
            "required": ["topic"],
            "properties": {
                "topic": TOPIC,
                "payload_available": TEXT,
                "payload_not_available": TEXT,
                "value_template": TEMPLATE,
            },
            "additionalProperties": False,
        },
    },
    "payload_available": TEXT,
    "payload_not_available": TEXT,
}

ENTITY = {
    **AVAILABILITY,
    "platform": TEXT,
    "default_entity_id": TEXT,
    "enabled_by_default": {"type": "boolean"},
    "encoding": TEXT,
    "entity_category": {"enum": ["config", "diagnostic"]},
    "entity_picture": TEXT,
    "icon": {"type": "string", "pattern": "^mdi:[a-z0-9-]+$"},
    "json_attributes_template": TEMPLATE,
    "json_attributes_topic": TOPIC,
    "name": {"type": ["string", "null"]},
    "qos": QOS,
    "unique_id": TEXT,
}

SENSOR_CLASSES = re.findall(
    "[a-z0-9_]+",
    """absolute_humidity apparent_power aqi area atmospheric_pressure battery
    blood_glucose_concentration carbon_dioxide carbon_monoxide conductivity current data_rate
    data_size date distance duration energy energy_distance energy_storage enum frequency gas
    humidity illuminance irradiance moisture monetary nitrogen_dioxide nitrogen_monoxide
    nitrous_oxide ozone ph pm1 pm25 pm10 power power_factor precipitation precipitation_intensity
    pressure reactive_energy reactive_power signal_strength sound_pressure speed sulphur_dioxide
    temperature timestamp volatile_organic_compounds volatile_organic_compounds_parts voltage
    volume volume_flow_rate volume_storage water weight wind_direction wind_speed""",
)
BINARY_SENSOR_CLASSES = re.findall(
    "[a-z0-9_]+",
    """battery battery_charging carbon_monoxide cold connectivity door garage_door gas heat light
    lock moisture motion moving occupancy opening plug power presence problem running safety smoke
    sound tamper update vibration window""",
)

PLATFORMS: dict[str, dict[str, Any]] = {
    "sensor": {
        "type": "object",
        "required": ["platform", "unique_id", "state_topic"],
        "properties": {
            **ENTITY,
            "device_class": {"enum": SENSOR_CLASSES},
            "expire_after": SECONDS,
            "force_update": {"type": "boolean"},
            "last_reset_value_template": TEMPLATE,
            "options": {"type": "array", "minItems": 1, "uniqueItems": True, "items": TEXT},
            "state_class": {
                "enum": ["measurement", "measurement_angle", "total", "total_increasing"]
            },
            "state_topic": TOPIC,
            "suggested_display_precision": {"type": "integer", "minimum": 0},
            "unit_of_measurement": TEXT,
            "value_template": TEMPLATE,
        },
        "additionalProperties": False,
        "allOf": [
            # options: "the device_class must be set to enum"; neither a unit nor a state class.
            {
                "if": {"required": ["options"]},
                "then": {
                    "required": ["device_class"],
                    "properties": {
                        "device_class": {"const": "enum"},
                        "state_class": False,
                        "unit_of_measurement": False,
                    },
                },
            },
            # The unit of a battery, and the only one, is per cent.
            {
                "if": {
                    "properties": {"device_class": {"const": "battery"}},
                    "required": ["device_class"],
                },
                "then": {
                    "properties": {"unit_of_measurement": {"const": "%"}},
                    "required": ["unit_of_measurement"],
                },
            },
        ],
    },
    "binary_sensor": {
        "type": "object",
        "required": ["platform", "unique_id", "state_topic"],
        "properties": {
            **ENTITY,
            "device_class": {"enum": BINARY_SENSOR_CLASSES},
            "expire_after": SECONDS,
            "force_update": {"type": "boolean"},
            "off_delay": SECONDS,
            "payload_off": TEXT,
            "payload_on": TEXT,
            "state_topic": TOPIC,
            "value_template": TEMPLATE,
        },
        "additionalProperties": False,
    },
    "button": {
        "type": "object",
        "required": ["platform", "unique_id", "command_topic"],
        "properties": {
            **ENTITY,
            "command_template": TEMPLATE,
            "command_topic": TOPIC,
            "device_class": {"enum": ["identify", "restart", "update"]},
            "payload_press": TEXT,
            "retain": {"type": "boolean"},
        },
        "additionalProperties": False,
    },
}

DEVICE_DISCOVERY: dict[str, Any] = {
    "type": "object",
    "required": ["device", "origin", "components"],
    "properties": {
        **AVAILABILITY,
        "device": {
            "type": "object",
            "anyOf": [{"required": ["identifiers"]}, {"required": ["connections"]}],
            "properties": {
                "configuration_url": WEB,
                "connections": {
                    "type": "array",
                    "items": {"type": "array", "minItems": 2, "maxItems": 2, "items": TEXT},
                },
                "hw_version": TEXT,
                "identifiers": {"type": ["array", "string"], "minItems": 1, "items": TEXT},
                "manufacturer": TEXT,
                "model": TEXT,
                "model_id": TEXT,
                "name": TEXT,
                "serial_number": TEXT,
                "suggested_area": TEXT,
                "sw_version": TEXT,
                "via_device": TEXT,
            },
            "additionalProperties": False,
        },
        "origin": {
            "type": "object",
            "required": ["name"],
            "properties": {"name": TEXT, "sw_version": TEXT, "support_url": WEB},
            "additionalProperties": False,
        },
        "components": {
            "type": "object",
            "minProperties": 1,
            "additionalProperties": {
                "type": "object",
                "required": ["platform"],
                "properties": {"platform": {"enum": list(PLATFORMS)}},
                "allOf": [
                    {"if": {"properties": {"platform": {"const": name}}}, "then": schema}
                    for name, schema in PLATFORMS.items()
                ],
            },
        },
        "state_topic": TOPIC,
        "command_topic": TOPIC,
        "qos": QOS,
        "encoding": TEXT,
    },
    "additionalProperties": False,
}

# "<discovery_prefix>/<component>/[<node_id>/]<object_id>/config"; component is here "device", and
# both ids may have letters, digits, underscore and hyphen.
_DISCOVERY_TOPIC = re.compile(r"[^+#]+/device/([A-Za-z0-9_-]+/)?[A-Za-z0-9_-]+/config")


def errors(topic: str, payload: object) -> list[str]:
    """What Home Assistant would refuse or not understand."""
    validator = Draft202012Validator(DEVICE_DISCOVERY)
    wrong = [f"{e.json_path}: {e.message}" for e in validator.iter_errors(payload)]
    if not _DISCOVERY_TOPIC.fullmatch(topic):
        wrong.append(f"{topic} is no discovery topic")
    if not wrong:
        assert isinstance(payload, dict)
        ids = [component["unique_id"] for component in payload["components"].values()]
        wrong += [f"unique_id {i} is there twice" for i in set(ids) if ids.count(i) > 1]
        if {"availability", "availability_topic"} <= payload.keys():
            wrong.append("availability and availability_topic exclude one another")
    return wrong
