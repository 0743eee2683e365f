"""kill -9 at every step of a delivery: at least once, at most once more, each alarm in order."""

import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from notify_servers import Answer, HttpServer, http_server

from alerts.conditions import Change
from alerts.records import Kind
from monitor.storage.history import History
from monitor.storage.maintenance import check, upgrade

pytest_plugins = ["postgres"]

ALARMS = ("a1", "a2", "a3")

# Raises or ends three alarms, if asked to, and tells of them; dies at a step of the second message.
CHILD = """
import asyncio, os, signal, sys
from dataclasses import replace
sys.path[:0] = [sys.argv[1]]
from alerts.channels.webhook import WebhookChannel
from alerts.conditions import Alarm, Change, Priority, State
from alerts.engine import Engine
from alerts.escalation import Plan
from alerts.policy import Policy
from monitor import outbox as outbox_module
from monitor.alarms import Alarms
from monitor.outbox import Outbox
from monitor.storage.history import History
from monitor.storage.writer import Writer

url, port, phase, step, *ids = sys.argv[2:]
reached = 0

def perhaps_die(at):
    global reached
    if armed and at == step:
        reached += 1
        if reached == 2:
            os.kill(os.getpid(), signal.SIGKILL)

send, settle = outbox_module.send, Outbox._settle

async def sends(channel, message):
    perhaps_die("before it is sent")
    error = await send(channel, message)
    perhaps_die("after it is sent")
    return error

async def settles(self, *arguments):
    await settle(self, *arguments)
    perhaps_die("after it is recorded")

outbox_module.send, Outbox._settle = sends, settles
armed = False

async def main():
    global armed
    writer, history = Writer(url), History(url)
    writer.start()
    alarms = Alarms(
        Engine(lambda _: Policy()),
        writer,
        plan_for=lambda _: Plan.telling(["bob"]),
        channels={"bob": [WebhookChannel("bob-web", f"http://127.0.0.1:{port}/", "secret")]},
    )
    alarms.restore(history)
    asyncio.create_task(alarms.run(None, asyncio.Event()))
    lanes = alarms._outbox._lanes
    while any(lane.sending or alarms._outbox._next(lane) for lane in lanes):
        await asyncio.sleep(0.01)
    armed = True
    now_ns = alarms._now().utc_ns
    if phase == "raise":
        made = [Alarm(i, "anna", f"class:{i}", Priority.MEDIUM, now_ns, now_ns) for i in ids]
        alarms.conclude([Change(a, now_ns, State.ACTIVE, "seen") for a in made])
    elif phase == "end":
        ended = [replace(a, ended_ns=now_ns) for a in history.active_alarms()]
        alarms.conclude([Change(a, now_ns, State.ENDED, "not seen") for a in ended])
    await asyncio.sleep(60)

asyncio.run(main())
"""


class Child:
    def __init__(self, url: str, port: int, phase: str, step: str) -> None:
        root = str(Path(__file__).parents[1])
        self.process = subprocess.Popen(
            [sys.executable, "-c", CHILD, root, url, str(port), phase, step, *ALARMS],
            stderr=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
        )

    def __enter__(self) -> "Child":
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, "it never came"
        time.sleep(0.02)


def killed_in(url: str, server: HttpServer, phase: str, step: str) -> None:
    """Begin a phase in a process that is killed amid its second message."""
    before = len(server.requests)
    with Child(url, server.port, phase, step) as child:
        if step == "while it is sent":
            # What came before it of an earlier phase was sent by then.
            until(lambda: len(of_kind(server, phase)) == 2)
            child.process.kill()
        assert child.process.wait(60) == -signal.SIGKILL
    assert len(server.requests) > before


def of_kind(server: HttpServer, phase: str) -> list[str]:
    kind = Kind.RAISED if phase == "raise" else Kind.ENDED
    return [key for key in keys(server) if f":{kind}:" in key]


def keys(server: HttpServer) -> list[str]:
    return [request.headers["idempotency-key"] for request in server.requests]


def states(url: str) -> dict[str, str]:
    """Of every notification but those that remind, which are not due."""
    with History(url) as history:
        found = [row for alarm in ALARMS for row in history.deliveries(alarm)]
    return {n.key: state for n, state, _ in found if n.kind is not Kind.REMINDER}


def kill_at(step: str, url: str) -> None:
    upgrade(url)
    late = Answer(late_s=0.5) if step == "while it is sent" else Answer()
    with http_server(late) as server:
        killed_in(url, server, "raise", step)
        killed_in(url, server, "end", step)
        with Child(url, server.port, "", ""):
            until(lambda: list(states(url).values()) == ["delivered"] * 6)
        told = keys(server)
    assert check(url) == []
    # Three that an alarm began, three that it is over.
    assert set(told) == states(url).keys()
    assert sorted(key.split(":")[1] for key in states(url)) == ["ended"] * 3 + ["raised"] * 3
    again = {key: told.count(key) for key in set(told) if told.count(key) > 1}
    twice = step in ("while it is sent", "after it is sent")
    assert list(again.values()) == ([2, 2] if twice else [])
    for alarm in ALARMS:
        kinds = [key.split(":")[1] for key in told if key.startswith(alarm)]
        assert kinds == sorted(kinds, key=["raised", "ended"].index)
        with History(url) as history:
            changes: list[Change] = history.changes(alarm)
        assert [change.state for change in changes] == ["active", "ended"]


STEPS = ("before it is sent", "while it is sent", "after it is sent", "after it is recorded")


@pytest.mark.parametrize("step", STEPS)
def test_killed(step: str, tmp_path: Path) -> None:
    kill_at(step, f"sqlite:///{tmp_path}/test.db")


def test_killed_beside_postgres(request: pytest.FixtureRequest) -> None:
    kill_at("after it is sent", request.getfixturevalue("postgres").new_database())
