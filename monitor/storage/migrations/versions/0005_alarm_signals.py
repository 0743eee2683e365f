"""How people are told of alarms: signals, pauses, notifications and what people asked for."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def _text(name: str, *, nullable: bool = False) -> sa.Column[str]:
    return sa.Column(name, sa.String(length=255), nullable=nullable)


def _ns(name: str, *, nullable: bool = False) -> sa.Column[int]:
    return sa.Column(name, sa.BigInteger(), nullable=nullable)


def upgrade() -> None:
    """Make the step; there is none back, only a backup."""
    op.create_table(
        "alarm_signals",
        _text("alarm_id"),
        _text("presence"),
        _ns("since_ns"),
        _text("priority"),
        _text("bout"),
        sa.Column("bout_count", sa.Integer(), nullable=False),
        _ns("bout_started_ns"),
        _text("acknowledged_by", nullable=True),
        _ns("acknowledged_ns", nullable=True),
        _ns("snoozed_until_ns", nullable=True),
        _ns("last_told_ns", nullable=True),
        sa.Column("told", sa.JSON(), nullable=False),
        sa.Column("issued", sa.Integer(), nullable=False),
        sa.Column("signal_lost", sa.Boolean(), nullable=False),
        sa.Column("loss_told", sa.Boolean(), nullable=False),
        sa.ForeignKeyConstraint(
            ["alarm_id"], ["alarms.id"], name=op.f("fk_alarm_signals_alarm_id_alarms")
        ),
        sa.PrimaryKeyConstraint("alarm_id", name=op.f("pk_alarm_signals")),
    )
    op.create_index(op.f("ix_alarm_signals_presence"), "alarm_signals", ["presence"])
    op.create_table(
        "alarm_pauses",
        _text("id"),
        _text("patient_id"),
        _text("kind", nullable=True),
        _ns("from_ns"),
        _ns("until_ns"),
        _text("by"),
        _ns("ended_ns", nullable=True),
        sa.ForeignKeyConstraint(
            ["patient_id"], ["patients.id"], name=op.f("fk_alarm_pauses_patient_id_patients")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_alarm_pauses")),
    )
    op.create_table(
        "notifications",
        _text("key"),
        _text("alarm_id"),
        _text("patient_id"),
        _text("contact"),
        _text("kind"),
        _ns("due_ns"),
        _text("thread"),
        sa.Column("expires_with_alarm", sa.Boolean(), nullable=False),
        _text("state"),
        _ns("made_ns"),
        sa.ForeignKeyConstraint(
            ["alarm_id"], ["alarms.id"], name=op.f("fk_notifications_alarm_id_alarms")
        ),
        sa.ForeignKeyConstraint(
            ["patient_id"], ["patients.id"], name=op.f("fk_notifications_patient_id_patients")
        ),
        sa.PrimaryKeyConstraint("key", name=op.f("pk_notifications")),
    )
    op.create_index(op.f("ix_notifications_state_due_ns"), "notifications", ["state", "due_ns"])
    op.create_index(op.f("ix_notifications_alarm_id"), "notifications", ["alarm_id"])
    op.create_table(
        "deliveries",
        _text("key"),
        _text("channel"),
        _text("state"),
        sa.Column("attempts", sa.Integer(), nullable=False),
        _ns("at_ns"),
        sa.Column("error", sa.Text(), nullable=True),
        sa.ForeignKeyConstraint(
            ["key"], ["notifications.key"], name=op.f("fk_deliveries_key_notifications")
        ),
        sa.PrimaryKeyConstraint("key", "channel", name=op.f("pk_deliveries")),
    )
    op.create_table(
        "alarm_audit",
        sa.Column("id", sa.Integer(), nullable=False),
        _ns("at_ns"),
        _text("alarm_id", nullable=True),
        _text("patient_id"),
        _text("what"),
        _text("by", nullable=True),
        sa.Column("detail", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_alarm_audit")),
    )
    op.create_index(op.f("ix_alarm_audit_alarm_id"), "alarm_audit", ["alarm_id"])
    op.create_table(
        "alarm_requests",
        sa.Column("id", sa.Integer(), nullable=False),
        _ns("at_ns"),
        _text("what"),
        sa.Column("arguments", sa.JSON(), nullable=False),
        _text("by"),
        sa.Column("answer", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_alarm_requests")),
    )
