"""What may be asked of the simulator, one stretch of rhythm after the other."""

from typing import Annotated, Any

from pydantic import ConfigDict, Field

from ingest.artifacts import LIMITS
from ingest.episodes import EpisodeKind, settings_of
from monitor.config.section import Section
from monitor.config.values import Seconds, Text, between


def _document(schema: dict[str, Any]) -> None:
    """Add to the schema what the simulator judges: the settings of each kind, and the noise."""
    properties = schema["properties"]
    properties["kind"]["enum"] = list(EpisodeKind)
    for kind in EpisodeKind:
        for name, setting in settings_of(kind).items():
            text = f"{kind}: {setting.low:g} to {setting.high:g} {setting.unit}"
            if setting.default is not None:
                text += f", by default {setting.default:g}"
            known = properties.setdefault(name, {"type": "number", "description": ""})
            known["description"] += f"; {text}" if known["description"] else text
    properties["noise"] = {
        "type": "object",
        "description": "What disturbs it, also a body that moves; nothing by default.",
        "additionalProperties": False,
        "properties": {
            name: {"type": "number", "minimum": low, "maximum": high, "description": unit}
            for name, (low, high, unit) in LIMITS.items()
        },
    }


class EpisodeConfig(Section):
    """A stretch of a simulated rhythm. Keys beyond these two are the settings of its kind."""

    model_config = ConfigDict(extra="allow", json_schema_extra=_document)

    kind: Text = Field(
        title="Kind", description="The rhythm, e.g. sinus_rhythm or ventricular_fibrillation."
    )
    duration: Annotated[Seconds, between(1, 7 * 86_400)] = Field(
        title="Duration (seconds)", description="How long it lasts, at least 1s."
    )

    @property
    def settings(self) -> dict[str, Any]:
        """The keys that belong to the kind, e.g. ``heart_rate``; the simulator judges them."""
        return dict(self.model_extra or {})
