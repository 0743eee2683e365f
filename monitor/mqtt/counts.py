"""What telling the house counts about itself, for Prometheus to read."""

from prometheus_client import Counter, Gauge

CONNECTED = Gauge("leadone_mqtt_out_connected", "Whether the house is told: 1 while connected")
PUBLISHED = Counter("leadone_mqtt_out_published", "Messages that the broker has confirmed")
REFUSED = Counter("leadone_mqtt_out_refused", "Messages that the broker refused")
ACKNOWLEDGEMENTS = Counter("leadone_mqtt_acknowledgements", "Acknowledgements of alarms taken")
ACKNOWLEDGEMENTS_REFUSED = Counter(
    "leadone_mqtt_acknowledgements_refused", "Acknowledgements of alarms refused", ["reason"]
)
INCOMING_DROPPED = Counter(
    "leadone_mqtt_out_incoming_dropped", "Messages to the outgoing client that nobody had time for"
)
