"""What may be different from the usual rules of alarms, for everybody or for one patient."""

from typing import Annotated

from pydantic import Field, StrictBool, StrictInt

from monitor.config.section import Section
from monitor.config.values import Number, Seconds, between


class ClassOverride(Section):
    """What is different for one class."""

    enabled: StrictBool = Field(
        default=True, title="Enabled", description="false: this class never raises an alarm."
    )
    threshold: Annotated[Number, Field(gt=0, lt=1)] | None = Field(
        default=None,
        title="Threshold",
        description="Probability from which a window speaks for it; under half of it, against.",
    )
    k: Annotated[StrictInt, Field(ge=1, le=60)] | None = Field(
        default=None, title="k", description="In how many of the last n windows it must be seen."
    )
    n: Annotated[StrictInt, Field(ge=1, le=60)] | None = Field(
        default=None, title="n", description="How many good windows are looked at."
    )


class RateOverride(Section):
    """Heart rates at which alarms are raised."""

    high: Annotated[Number, Field(ge=60, le=250)] | None = Field(
        default=None,
        title="High heart rate (per minute)",
        description="Alarm at or over this rate, 60 to 250.",
    )
    low: Annotated[Number, Field(ge=15, le=100)] | None = Field(
        default=None,
        title="Low heart rate (per minute)",
        description="Alarm at or under this rate, 15 to 100.",
    )


class RulesConfig(Section):
    """What is different; what is not given is as usual (docs/alarms.md)."""

    classes: dict[str, ClassOverride] = Field(
        default_factory=dict,
        title="Classes",
        description="By abbreviation of the model's class (AF, PVC …), what is different.",
    )
    rate: RateOverride = Field(
        default_factory=RateOverride,
        title="Heart rate",
        description="Limits of the heart rate.",
    )
    pause: Annotated[Seconds, between(2, 30)] | None = Field(
        default=None,
        title="Pause (seconds)",
        description="Alarm when no beat comes for this long: 2s to 30s.",
    )
