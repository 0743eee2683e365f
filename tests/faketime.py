"""A clock of UTC that a test sets under a running program: libfaketime, loaded before it.

Only CLOCK_REALTIME is another; the steady clocks go on, as when the clock of a machine is set.
"""

from pathlib import Path

import pytest
from conftest import absent

_PLACES = ("/usr/lib/*/faketime", "/usr/lib/faketime", "/usr/local/lib/faketime")


class FakeTime:
    """The clock of one program.

    Args:
        folder: where it keeps by how much it is wrong.
        ahead: by how much at first, as ``-5h`` or ``+1d``; an absolute time begins with ``@``.
    """

    def __init__(self, folder: Path, ahead: str = "+0") -> None:
        self._file = folder / "faketime"
        self.set(ahead)

    def set(self, ahead: str) -> None:
        """Set the clock; within a second the program sees it."""
        new = self._file.with_suffix(".new")
        new.write_text(f"{ahead}\n", encoding="ascii")
        new.replace(self._file)

    @property
    def env(self) -> dict[str, str]:
        """For the program."""
        return {
            "LD_PRELOAD": str(_library()),
            "FAKETIME_TIMESTAMP_FILE": str(self._file),
            # Seconds until it is noticed. Without a cache every look at a clock reads the file.
            "FAKETIME_CACHE_DURATION": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "FAKETIME_DONT_RESET": "1",
        }


def _library() -> Path:
    found = [p for place in _PLACES for p in Path("/").glob(f"{place[1:]}/libfaketimeMT.so.1")]
    if not found:
        absent("libfaketime (Debian: faketime)")
    return found[0]


@pytest.fixture
def fake_time(tmp_path: Path) -> FakeTime:
    """A clock that is right at first, or a skip that says what is missing."""
    _library()
    return FakeTime(tmp_path)
