"""The virtual BlueZ as a process of its own: ``python -m tests.bluez --bus ADDRESS --script FILE``.

It says "ready", plays the script until SIGTERM, and then prints one JSON object: for every strap
its address, how often it was connected, how many samples it made and how many it delivered, and
the commands written to it in hex. The script, in YAML::

    adapters: [hci0]                    # default
    speed: 1.0                          # of the straps' clock; default 1
    straps:
      - {kind: h10, signal: ecg.npy, drift_ppm: 60}      # without signal: a synthetic ECG
      - {kind: strap, address: "C0:00:00:00:00:02", rr_s: [0.8, 0.9]}
    faults:                             # see faults.py
      - {at_s: 10, do: lose_link}
      - {at_s: 20, do: restart, target: bluez}
"""

import argparse
import asyncio
import json
import signal
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from .clock import RealClock
from .ecg import synthetic
from .faults import Fault, play
from .h10 import H10
from .heart_rate import HeartRateSensor
from .movesense import Movesense
from .service import Bluez
from .strap import Strap
from .stream import EcgSensor

_ECG = {"h10": H10, "movesense": Movesense}


def _strap(kind: str, signal: str | None = None, **others: Any) -> HeartRateSensor:
    if kind == "strap":
        return Strap(**others)
    return _ECG[kind](np.load(signal) if signal else synthetic(), **others)


def _told(strap: HeartRateSensor) -> dict[str, Any]:
    told: dict[str, Any] = {"address": strap.address, "links": strap.links}
    if isinstance(strap, EcgSensor):
        delivered = strap.truth().delivered
        told |= {"made": len(delivered), "delivered": int(delivered.sum())}
        told["commands"] = [command.hex() for command in strap.commands]
    return told


async def _run(address: str, script: dict[str, Any]) -> None:
    clock = RealClock(script.get("speed", 1.0))
    bluez = Bluez(address, clock, script.get("adapters", ["hci0"]))
    straps = [bluez.add(_strap(**strap)) for strap in script.get("straps", [])]
    end = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, end.set)
    await bluez.start()
    play(bluez, [Fault(**fault) for fault in script.get("faults", [])])
    print("ready", flush=True)
    await end.wait()
    told = [_told(strap) for strap in straps]
    await bluez.stop()
    print(json.dumps({"straps": told}))


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bluez")
    parser.add_argument("--bus", required=True, help="address of the D-Bus")
    parser.add_argument("--script", required=True, type=Path, help="YAML file")
    arguments = parser.parse_args()
    asyncio.run(_run(arguments.bus, yaml.safe_load(arguments.script.read_text()) or {}))


main()
