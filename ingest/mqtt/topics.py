"""Which topics to listen to, and whose signal each of them carries."""

import re
from dataclasses import dataclass, field

from ingest.mqtt.payload import Mapping

DEFAULT_TOPIC = "leadone/v1/{patient}/{device}/ecg"

_WILD = ("+", "#", "{patient}", "{device}")
_LONGEST = 65535  # bytes of a topic (MQTT 5.0, 1.5.4)


@dataclass(frozen=True, slots=True)
class TopicMap:
    """One topic, or many by wildcards, and how to read what comes there.

    Attributes:
        topic: may have the levels ``{patient}`` and ``{device}``, the wildcard ``+`` for a level,
            and ``#`` for all that follow at the end (MQTT 5.0, 4.7.1).
        patient: whose signal it is, where the topic does not say.
        device: likewise.
        mapping: of the payload.
        filter: what to subscribe to.

    Raises:
        ValueError: in one line, for a topic that cannot be.
    """

    topic: str = DEFAULT_TOPIC
    patient: str | None = None
    device: str | None = None
    mapping: Mapping = field(default_factory=Mapping)
    filter: str = field(init=False)
    _pattern: re.Pattern[str] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        levels = self.topic.split("/")
        if not self.topic or "\0" in self.topic or len(self.topic.encode()) > _LONGEST:
            raise ValueError("a topic has 1 to 65535 bytes, none of them zero")
        for name, fixed in (("patient", self.patient), ("device", self.device)):
            count = levels.count(f"{{{name}}}")
            if count > 1:
                raise ValueError(f"{{{name}}} may stand only once in {self.topic!r}")
            if count == 0 and fixed is None:
                raise ValueError(f"{self.topic!r} needs a level {{{name}}}, or a fixed {name}")
            if count == 1 and fixed is not None:
                raise ValueError(f"the {name} is fixed, and {{{name}}} stands in {self.topic!r}")
        for level in levels[:-1]:
            if level == "#":
                raise ValueError(f"'#' must be the last level of {self.topic!r}")
        joined = "/".join(_pattern(level, self.topic) for level in levels).removesuffix("/#")
        if levels[-1] == "#":
            joined = joined.removesuffix("#") + ("(?:/.*)?" if len(levels) > 1 else ".*")
        # A wildcard at the front does not reach the broker's own topics (MQTT 5.0, 4.7.2).
        guard = r"(?!\$)" if levels[0] in _WILD else ""
        object.__setattr__(self, "_pattern", re.compile(guard + joined, re.DOTALL))
        subscribed = ["+" if level in ("{patient}", "{device}") else level for level in levels]
        object.__setattr__(self, "filter", "/".join(subscribed))

    def match(self, topic: str) -> tuple[str, str] | None:
        """The patient and the device that ``topic`` is of, or None for a topic of others."""
        found = self._pattern.fullmatch(topic)
        if found is None:
            return None
        named = found.groupdict()
        patient = named.get("patient", self.patient)
        device = named.get("device", self.device)
        assert patient is not None
        assert device is not None
        return patient, device


def _pattern(level: str, topic: str) -> str:
    if level in ("{patient}", "{device}"):
        return f"(?P<{level[1:-1]}>[^/]+)"
    if level == "+":
        return "[^/]*"
    if level == "#":
        return level
    if re.search(r"[+#{}]", level):
        raise ValueError(
            f"{level!r} in {topic!r}: '+', '#', {{patient}} and {{device}} must be a whole level"
        )
    return re.escape(level)
