import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from storage_samples import chunk, facts, window

from monitor.storage.history import History
from monitor.storage.maintenance import check, upgrade

pytest_plugins = ["postgres"]

# Four tasks store numbered chunks, each with a window, and say which are durable.
CHILD = """
import asyncio, itertools, sys
sys.path[:0] = sys.argv[2:4]
from storage_samples import chunk, window
from monitor.storage.writer import Writer

async def one(writer, numbers):
    for i in numbers:
        await writer.store(chunk(i), window(i))
        print(i, flush=True)

async def main():
    writer = Writer(sys.argv[1], capacity=16)
    writer.start()
    numbers = itertools.count(int(sys.argv[4]))
    await asyncio.gather(*(one(writer, numbers) for _ in range(4)))

asyncio.run(main())
"""


def run_and_kill(url, first, after_s):
    """Numbers that a child acknowledged before it was killed ``after_s`` after its first."""
    here = Path(__file__).parent
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD, url, str(here), str(here.parent), str(first)],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        acknowledged = [int(child.stdout.readline())]
        with pytest.raises(subprocess.TimeoutExpired):
            child.wait(after_s)
    finally:
        child.send_signal(signal.SIGKILL)
    rest = child.stdout.read()
    child.stdout.close()
    assert child.wait() == -signal.SIGKILL
    # The last line may be cut in the middle.
    return acknowledged + [int(line) for line in rest[: rest.rfind("\n") + 1].split()]


@pytest.mark.parametrize("seed", [1, 2])
def test_what_was_acknowledged_survives_kill_9(database_url, seed):
    upgrade(database_url)
    moments = random.Random(seed)
    acknowledged = []
    for _ in range(3):
        first = max(acknowledged, default=-1) + 1
        acknowledged += run_and_kill(database_url, first, moments.uniform(0.0, 0.3))
    assert check(database_url) == []
    with History(database_url) as history:
        chunks = {c.sequence: facts(c) for c in history.segments("anna", 0, 2**62)}
        windows = {w.start_ns: facts(w) for w in history.windows("anna", 0, 2**62)}
    assert len(acknowledged) > 10
    for i in acknowledged:
        assert chunks[i] == facts(chunk(i))
        assert windows[window(i).start_ns] == facts(window(i))
    # A group is stored whole or not at all.
    assert len(chunks) == len(windows)
