"""A script of faults: what happens to which strap, and when.

    play(bluez, [
        Fault(10, "lose_link"),
        Fault(20, "out_of_range", {"seconds": 30}),
        Fault(60, "power", {"adapter": "hci0", "on": False}, target="bluez"),
    ])

``do`` is a method of the strap or, with ``target="bluez"``, of the service.
"""

import asyncio
import inspect
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from .clock import NS
from .service import Bluez

STRAP = frozenset(
    {
        *("lose_link", "out_of_range", "back_in_range", "hold", "release", "forget_bond"),
        *("take_off", "put_on", "drop", "duplicate", "corrupt", "delay", "jump_clock"),
        *("reset_clock", "power_cycle"),
    }
)
SERVICE = frozenset({"power", "restart", "fail_next", "hang_next"})


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault.

    Attributes:
        at_s: seconds of the clock after ``play``.
        do: see STRAP and SERVICE.
        arguments: of that method.
        target: the address of the strap, "" for the first one, or "bluez".
    """

    at_s: float
    do: str
    arguments: dict[str, Any] = field(default_factory=dict)
    target: str = ""

    def __post_init__(self) -> None:
        if self.do not in (SERVICE if self.target == "bluez" else STRAP):
            raise ValueError(f"fault not known for {self.target or 'a strap'}: {self.do}")


def play(bluez: Bluez, faults: Iterable[Fault]) -> None:
    """Let them all happen on the clock of the service."""
    now = bluez.clock.time_ns()
    for fault in faults:
        bluez.clock.call_at(now + round(fault.at_s * NS), lambda fault=fault: _do(bluez, fault))


def _do(bluez: Bluez, fault: Fault) -> None:
    target: Any = bluez
    if fault.target != "bluez":
        wanted = fault.target or bluez.peripherals[0].address
        target = next(strap for strap in bluez.peripherals if strap.address == wanted)
    result = getattr(target, fault.do)(**fault.arguments)
    if inspect.iscoroutine(result):
        task = asyncio.ensure_future(result)
        _running.add(task)
        task.add_done_callback(_running.discard)


_running: set[asyncio.Task[Any]] = set()
