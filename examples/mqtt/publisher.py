#!/usr/bin/env python3
"""A synthetic heart that sends itself to Lead One: pip install paho-mqtt; publisher.py [HOST]."""

import itertools
import json
import math
import sys
import time

from paho.mqtt.client import Client, MQTTv5
from paho.mqtt.enums import CallbackAPIVersion

RATE, BEAT_S = 130, 60 / 72
WAVES = ((120, 0.16, 0.020), (1000, 0.30, 0.010), (250, 0.52, 0.045))  # P, R, T: µV, at s, width s

client = Client(CallbackAPIVersion.VERSION2, protocol=MQTTv5)
# With TLS and a user: client.tls_set("ca.crt"), client.username_pw_set(user, password), port 8883
client.connect(sys.argv[1] if len(sys.argv) > 1 else "localhost", 1883)
client.loop_start()


def ecg(t: float) -> float:
    """Microvolts, t seconds after the start."""
    return sum(uv * math.exp(-(((t % BEAT_S - at) / width) ** 2) / 2) for uv, at, width in WAVES)


start = time.time_ns()
for second in itertools.count():
    t0 = start + second * 10**9
    samples = [round(ecg(second + i / RATE), 1) for i in range(RATE)]
    message = {"t0": t0, "fs": RATE, "unit": "uV", "seq": t0 // 10**9, "samples": samples}
    time.sleep(max(0.0, (t0 - time.time_ns()) / 1e9 + 1))  # once the second is over
    client.publish("leadone/v1/grandpa/chest/ecg", json.dumps(message), qos=1)
