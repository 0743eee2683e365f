"""What the Bluetooth part counts about itself, for Prometheus to read."""

from prometheus_client import Counter

MALFORMED = Counter(
    "leadone_ble_packets_malformed", "Bluetooth packets that did not follow their format", ["kind"]
)
SESSIONS = Counter(
    "leadone_ble_sessions", "Bluetooth sessions that ended, and what ended them", ["kind", "cause"]
)
EVENTS_DROPPED = Counter(
    "leadone_ble_packets_dropped", "Bluetooth packets dropped because nothing took them", ["kind"]
)
FRAMES_REPEATED = Counter(
    "leadone_ble_packets_repeated", "Bluetooth packets that were delivered again", ["kind"]
)
SAMPLES_MISSING = Counter(
    "leadone_ble_samples_missing", "Samples that a strap made and that never came", ["kind"]
)
