"""Where figures were taken, and the core they were taken on."""

import datetime as dt
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

_LIBRARIES = ("numpy", "onnxruntime", "torch", "sqlalchemy")


def describe() -> dict[str, str]:
    """What a reader must know to compare figures; the load is that of before the run."""
    pages, size = os.sysconf("SC_PHYS_PAGES"), os.sysconf("SC_PAGE_SIZE")
    return {
        "date": dt.datetime.now(dt.UTC).date().isoformat(),
        "processor": _processor(),
        "cores": str(os.cpu_count()),
        "memory": f"{pages * size / 2**30:.0f} GiB",
        "system": f"{platform.system()} {platform.release().split('-')[0]}",
        "python": platform.python_version(),
        **{name: version(name) for name in _LIBRARIES},
        "load before the run": f"{os.getloadavg()[0]:.2f}",
    }


@contextmanager
def one_core() -> Iterator[None]:
    """Keep every thread of this process, and those to come, on one core."""
    allowed = os.sched_getaffinity(0)
    # The first core is where most systems take their interrupts.
    _pin({max(allowed)})
    try:
        yield
    finally:
        _pin(allowed)


def _pin(cores: set[int]) -> None:
    for task in Path("/proc/self/task").iterdir():
        os.sched_setaffinity(int(task.name), cores)


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        key, _, value = line.partition(":")
        if key.strip() in {"model name", "Model"}:
            return value.strip()
    return platform.machine()
