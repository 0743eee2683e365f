"""A plain chest strap: heart rate, RR intervals and battery, no ECG."""

from .heart_rate import HeartRateSensor


class Strap(HeartRateSensor):
    """Such as a Wahoo TICKR."""

    def __init__(
        self, name: str = "TICKR 0001", address: str = "C0:00:00:00:00:01", **others
    ) -> None:
        super().__init__(name, address, **others)
