"""Stops one thread of another process, as a driver or a disk that never answers does."""

import contextlib
import ctypes
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

_SEIZE, _INTERRUPT, _DETACH = 0x4206, 0x4207, 17
_WAIT_ALL = 0x40000000  # __WALL: for threads too

_NAMES = '''\
"""Gives each thread its name in /proc, as Python does by itself from 3.14 on."""

import threading

_run = threading.Thread.run


def _named(thread):
    with open(f"/proc/self/task/{threading.get_native_id()}/comm", "w") as comm:
        comm.write(thread.name[:15])
    _run(thread)


threading.Thread.run = _named
'''


def names_of_threads(folder: Path) -> dict[str, str]:
    """Variables with which a Python program gives its threads names that ``stopped`` can find."""
    (folder / "sitecustomize.py").write_text(_NAMES)
    before = os.environ.get("PYTHONPATH")
    return {"PYTHONPATH": f"{folder}{os.pathsep}{before}" if before else str(folder)}


def thread_of(process: subprocess.Popen[bytes], name: str) -> int | None:
    """The id of the thread whose name begins so; None without one."""
    for task in Path(f"/proc/{process.pid}/task").iterdir():
        with contextlib.suppress(OSError):
            if (task / "comm").read_text().startswith(name):
                return int(task.name)
    return None


def _state(process: subprocess.Popen[bytes], thread: int) -> str:
    text = Path(f"/proc/{process.pid}/task/{thread}/stat").read_text()
    return text.rpartition(")")[2].split()[0]


def _ptrace(request: int, thread: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    libc.ptrace.restype = ctypes.c_long
    libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
    if libc.ptrace(request, thread, None, None) == -1:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


@contextlib.contextmanager
def stopped(process: subprocess.Popen[bytes], name: str) -> Iterator[None]:
    """Keep a thread of a process from running; skips where the machine forbids that."""
    thread = thread_of(process, name)
    assert thread is not None
    deadline = time.monotonic() + 10
    # While it waits it holds nothing that the other threads need, as the interpreter's lock.
    while _state(process, thread) != "S":
        assert time.monotonic() < deadline
        time.sleep(0.001)
    try:
        _ptrace(_SEIZE, thread)
    except OSError as error:
        pytest.skip(f"a thread of another process cannot be stopped here: {error.strerror}")
    _ptrace(_INTERRUPT, thread)
    os.waitpid(thread, _WAIT_ALL)
    assert _state(process, thread) == "t"
    try:
        yield
    finally:
        # Or else a process that was killed is not gone before this one looks after it.
        if process.poll() is None:
            with contextlib.suppress(OSError):
                _ptrace(_DETACH, thread)
        else:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(thread, _WAIT_ALL)
