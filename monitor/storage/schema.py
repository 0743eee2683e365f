"""The tables. All times are UTC, in nanoseconds since 1970.

A row that is delivered again (the daemon died between commit and acknowledgement) must be found to
be there already; a row with the same start but other content (the clock was set back) must not.
That is what the digests in the keys are for.
"""

from typing import Any, ClassVar

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Double,
    ForeignKey,
    Index,
    LargeBinary,
    MetaData,
    String,
    Text,
    UniqueConstraint,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

REVISION = "0007"
"""The migration that makes these tables; a database at another one is not read or written."""

TEXT_LIMIT = 255
"""Longest patient, device or cause, in characters; an index entry is to stay a part of a page."""


class Base(DeclarativeBase):
    """Common metadata; every constraint gets a name, so that a later migration can drop it."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map: ClassVar[dict[Any, Any]] = {
        str: String(TEXT_LIMIT),
        bytes: LargeBinary,
        float: Double,
        bool: Boolean,
    }


class PatientRow(Base):
    """Somebody who is watched; the id is the one the configuration gives, and is no name."""

    __tablename__ = "patients"

    id: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str | None]


class DeviceRow(Base):
    """One device of one patient: a stream."""

    __tablename__ = "devices"
    __table_args__ = (UniqueConstraint("patient_id", "device"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    patient_id: Mapped[str] = mapped_column(ForeignKey("patients.id"))
    device: Mapped[str]


class StrapRow(Base):
    """A chest strap that is paired, and what was last known of it."""

    __tablename__ = "straps"
    __table_args__ = (UniqueConstraint("address"),)

    # Without autoincrement, or Postgres would make a sequence for it.
    device_id: Mapped[int] = mapped_column(
        ForeignKey("devices.id"), primary_key=True, autoincrement=False
    )
    address: Mapped[str]
    kind: Mapped[str]
    """As in ``ingest.ble.device``."""
    adapter: Mapped[str | None]
    """None is the first one."""
    paired_ns: Mapped[int] = mapped_column(BigInteger)
    stage: Mapped[str | None]
    """This and what follows is None until the daemon has tried to reach it."""
    cause: Mapped[str | None] = mapped_column(Text)
    advice: Mapped[str | None] = mapped_column(Text)
    since_ns: Mapped[int | None] = mapped_column(BigInteger)
    battery: Mapped[int | None]
    battery_ns: Mapped[int | None] = mapped_column(BigInteger)


class ModelRow(Base):
    """A bundle that classified windows."""

    __tablename__ = "models"
    __table_args__ = (UniqueConstraint("name", "digest"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]
    digest: Mapped[str]
    classes: Mapped[list[str]] = mapped_column(JSON)
    """In the order of the probabilities."""


class SegmentRow(Base):
    """A chunk as it came. The primary key is also the index for reading a range of time."""

    __tablename__ = "segments"

    device_id: Mapped[int] = mapped_column(ForeignKey("devices.id"), primary_key=True)
    start_ns: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    digest: Mapped[bytes] = mapped_column(primary_key=True)
    """8 bytes over everything the chunk holds besides stream and start."""
    rate: Mapped[float]
    n: Mapped[int]
    contact: Mapped[bool | None]
    sequence: Mapped[int | None] = mapped_column(BigInteger)
    blob: Mapped[bytes]
    """The samples, as ``codec`` writes them; its first byte says which format."""


class RrIntervalsRow(Base):
    """RR intervals as they came, of a strap that sends no waveform; keyed as segments are."""

    __tablename__ = "rr_intervals"

    device_id: Mapped[int] = mapped_column(ForeignKey("devices.id"), primary_key=True)
    end_ns: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    digest: Mapped[bytes] = mapped_column(primary_key=True)
    """8 bytes over everything besides stream and end."""
    heart_rate: Mapped[int | None]
    contact: Mapped[bool | None]
    rr: Mapped[bytes]
    """Little-endian float64, in seconds, oldest first."""


class WindowRow(Base):
    """What was said of a window."""

    __tablename__ = "windows"

    device_id: Mapped[int] = mapped_column(ForeignKey("devices.id"), primary_key=True)
    start_ns: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    digest: Mapped[bytes] = mapped_column(primary_key=True)
    """8 bytes over what the samples alone decide; probabilities depend on batch and model too."""
    duration_s: Mapped[float]
    quality: Mapped[str]
    reasons: Mapped[str]
    """Separated by spaces."""
    heart_rate: Mapped[float | None]
    longest_rr_s: Mapped[float | None]
    r_peaks: Mapped[bytes]
    """Little-endian float64, in seconds from the start."""
    model_id: Mapped[int | None] = mapped_column(ForeignKey("models.id"))
    probabilities: Mapped[bytes | None]
    """Little-endian float32, in the order of the model's classes."""


class GapRow(Base):
    """Time without samples, or (end before start) a clock that was set back."""

    __tablename__ = "gaps"

    device_id: Mapped[int] = mapped_column(ForeignKey("devices.id"), primary_key=True)
    start_ns: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    end_ns: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    cause: Mapped[str] = mapped_column(primary_key=True)


class AlarmRow(Base):
    """An alarm as its last change left it."""

    __tablename__ = "alarms"
    __table_args__ = (Index(None, "patient_id", "started_ns"),)

    id: Mapped[str] = mapped_column(primary_key=True)
    patient_id: Mapped[str] = mapped_column(ForeignKey("patients.id"))
    condition: Mapped[str]
    priority: Mapped[str]
    started_ns: Mapped[int] = mapped_column(BigInteger)
    raised_ns: Mapped[int] = mapped_column(BigInteger)
    ended_ns: Mapped[int | None] = mapped_column(BigInteger)


class AlarmChangeRow(Base):
    """One change of an alarm. Rows are added and never altered."""

    __tablename__ = "alarm_changes"
    __table_args__ = (UniqueConstraint("alarm_id", "at_ns", "state"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    alarm_id: Mapped[str] = mapped_column(ForeignKey("alarms.id"))
    at_ns: Mapped[int] = mapped_column(BigInteger)
    state: Mapped[str]
    reason: Mapped[str] = mapped_column(Text)


class RefusedMessageRow(Base):
    """The first message that was refused for a reason; later ones only say that they came."""

    __tablename__ = "refused_messages"

    reason: Mapped[str] = mapped_column(primary_key=True)
    first_ns: Mapped[int] = mapped_column(BigInteger)
    last_ns: Mapped[int] = mapped_column(BigInteger)
    topic: Mapped[str] = mapped_column(Text)
    detail: Mapped[str] = mapped_column(Text)
    excerpt: Mapped[bytes]
    """How its payload begins."""


class AlarmSignalRow(Base):
    """How people are told of an alarm, as the last step left it; see ``alerts.records``."""

    __tablename__ = "alarm_signals"
    __table_args__ = (Index(None, "presence"),)

    alarm_id: Mapped[str] = mapped_column(ForeignKey("alarms.id"), primary_key=True)
    presence: Mapped[str]
    since_ns: Mapped[int] = mapped_column(BigInteger)
    priority: Mapped[str]
    """The highest that the alarm has had."""
    bout: Mapped[str]
    bout_count: Mapped[int]
    bout_started_ns: Mapped[int] = mapped_column(BigInteger)
    acknowledged_by: Mapped[str | None]
    acknowledged_ns: Mapped[int | None] = mapped_column(BigInteger)
    snoozed_until_ns: Mapped[int | None] = mapped_column(BigInteger)
    last_told_ns: Mapped[int | None] = mapped_column(BigInteger)
    told: Mapped[list[str]] = mapped_column(JSON)
    issued: Mapped[int]
    signal_lost: Mapped[bool]
    loss_told: Mapped[bool]


class AlarmPauseRow(Base):
    """A time in which nobody is told of a patient's alarms."""

    __tablename__ = "alarm_pauses"

    id: Mapped[str] = mapped_column(primary_key=True)
    patient_id: Mapped[str] = mapped_column(ForeignKey("patients.id"))
    kind: Mapped[str | None]
    from_ns: Mapped[int] = mapped_column(BigInteger)
    until_ns: Mapped[int] = mapped_column(BigInteger)
    by: Mapped[str]
    ended_ns: Mapped[int | None] = mapped_column(BigInteger)


class NotificationRow(Base):
    """The outbox: what somebody is to be told, written with what it tells of."""

    __tablename__ = "notifications"
    __table_args__ = (Index(None, "state", "due_ns"), Index(None, "alarm_id"))

    key: Mapped[str] = mapped_column(primary_key=True)
    alarm_id: Mapped[str] = mapped_column(ForeignKey("alarms.id"))
    patient_id: Mapped[str] = mapped_column(ForeignKey("patients.id"))
    contact: Mapped[str]
    kind: Mapped[str]
    due_ns: Mapped[int] = mapped_column(BigInteger)
    thread: Mapped[str]
    expires_with_alarm: Mapped[bool]
    state: Mapped[str]
    """``waiting``, ``delivered``, ``failed`` or ``void``."""
    made_ns: Mapped[int] = mapped_column(BigInteger)


class DeliveryRow(Base):
    """What became of a notification on one channel of its contact."""

    __tablename__ = "deliveries"

    key: Mapped[str] = mapped_column(ForeignKey("notifications.key"), primary_key=True)
    channel: Mapped[str] = mapped_column(primary_key=True)
    state: Mapped[str]
    """``retrying``, ``delivered`` or ``failed``."""
    attempts: Mapped[int]
    at_ns: Mapped[int] = mapped_column(BigInteger)
    """Of the last attempt."""
    error: Mapped[str | None] = mapped_column(Text)


class AlarmAuditRow(Base):
    """What was done about alarms, by whom. Rows are added and never altered."""

    __tablename__ = "alarm_audit"
    __table_args__ = (Index(None, "alarm_id"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    at_ns: Mapped[int] = mapped_column(BigInteger)
    alarm_id: Mapped[str | None]
    patient_id: Mapped[str]
    what: Mapped[str]
    by: Mapped[str | None]
    detail: Mapped[str] = mapped_column(Text)


class AlarmRequestRow(Base):
    """What somebody asked of the running daemon: to acknowledge, to snooze, to pause."""

    __tablename__ = "alarm_requests"

    id: Mapped[int] = mapped_column(primary_key=True)
    at_ns: Mapped[int] = mapped_column(BigInteger)
    what: Mapped[str]
    arguments: Mapped[dict[str, Any]] = mapped_column(JSON)
    by: Mapped[str]
    answer: Mapped[str | None] = mapped_column(Text)
    """None until the daemon has seen to it."""


class SpoolPositionRow(Base):
    """How far a spool has been taken in, written in the transaction that took it in.

    With it, what a spool holds is stored exactly once, whenever the process dies.
    """

    __tablename__ = "spool_positions"

    name: Mapped[str] = mapped_column(primary_key=True)
    """The id of a file of the spool; or whose mark it is, see ``monitor.storage.replay.Mark``."""
    position: Mapped[int] = mapped_column(BigInteger)
    """How many groups of that file are stored; or the mark of the last transaction."""


class ExaminedRow(Base):
    """How far the signal of a device was looked through for what has no window.

    Every device has one, once it was looked through; see ``records.Examined``.
    """

    __tablename__ = "examined"

    # Without autoincrement, or Postgres would make a sequence for it.
    device_id: Mapped[int] = mapped_column(
        ForeignKey("devices.id"), primary_key=True, autoincrement=False
    )
    clear_ns: Mapped[int | None] = mapped_column(BigInteger)
    low_ns: Mapped[int | None] = mapped_column(BigInteger)
    high_ns: Mapped[int | None] = mapped_column(BigInteger)
