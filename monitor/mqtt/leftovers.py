"""What an earlier run left on the broker of patients who are no longer configured."""

from collections.abc import Collection
from typing import Final

from monitor.mqtt import topics

PATIENCE_S: Final = 100.0
"""How long to listen before clearing: three times as long as a daemon is silent at most.

Another daemon may use the same broker, and what it says is not ours to clear.
"""

# A broker full of retained messages must not fill the memory.
_MOST = 10_000


class Leftovers:
    """Listens once, after the first connection that lasts long enough.

    Args:
        patients: those who are configured.
        prefix: Home Assistant's discovery prefix; None where discovery is off.

    Attributes:
        listened: topics to listen to; none once it is done.
        due_s: when to call ``take``, on the monotonic clock; None once it is done, or before
            ``begin``.
    """

    def __init__(self, patients: Collection[str], prefix: str | None) -> None:
        self._patients = frozenset(patients)
        self._prefix = prefix
        self._found: dict[str, str] = {}
        self._alive: set[str] = set()
        self.listened: tuple[str, ...] = (topics.ANY_STATE, topics.ANY_ALARM)
        if prefix is not None:
            self.listened += (f"{prefix}/device/+/config",)
        self.due_s: float | None = None

    def begin(self, now_s: float) -> None:
        """Start anew, with a new connection."""
        self._found.clear()
        self._alive.clear()
        self.due_s = now_s + PATIENCE_S if self.listened else None

    def hear(self, topic: str, *, retained: bool, empty: bool) -> None:
        """Take in a message on one of the topics."""
        if (known := topics.parse(topic)) is not None:
            patient: str | None = known[0]
        else:
            patient = None if self._prefix is None else topics.discovered(self._prefix, topic)
        if patient is None or patient in self._patients or empty:
            return
        if not retained:
            self._alive.add(patient)
        elif len(self._found) < _MOST:
            self._found[topic] = patient

    def take(self, now_s: float) -> tuple[str, ...] | None:
        """The topics to clear, once it is time to; None until then, and ever after."""
        if self.due_s is None or now_s < self.due_s:
            return None
        self.due_s, self.listened = None, ()
        return tuple(t for t, patient in self._found.items() if patient not in self._alive)
