"""What the MQTT part counts about itself, for Prometheus to read."""

from prometheus_client import Counter, Gauge

ACCEPTED = Counter("leadone_mqtt_messages", "MQTT messages taken in")
REFUSED = Counter("leadone_mqtt_messages_refused", "MQTT messages refused, and why", ["reason"])
UNTIMELY = Counter(
    "leadone_mqtt_messages_untimely",
    "MQTT messages taken in though they are too far from the gateway's clock, which is not trusted",
)
REPEATED = Counter("leadone_mqtt_messages_repeated", "MQTT messages that were delivered again")
LOST = Counter("leadone_mqtt_messages_lost", "MQTT messages missing from a device's numbering")
DROPPED = Counter(
    "leadone_mqtt_messages_dropped", "MQTT messages of QoS 0 dropped because nothing took them"
)
CONNECTED = Gauge("leadone_mqtt_connected", "Whether the connection to the MQTT broker stands")
