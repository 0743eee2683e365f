"""How long the code under test waits for virtual straps."""

from ingest.ble.link import Timing

QUICK = Timing(
    search=0.5,
    connect=3.0,
    settings=1.0,
    start=1.0,
    silence=1.5,
    stop=0.5,
    first_pause=0.02,
    longest_pause=0.1,
)
