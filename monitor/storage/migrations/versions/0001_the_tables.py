"""The tables."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Make the step; there is none back, only a backup."""
    op.create_table(
        "models",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("name", sa.String(length=255), nullable=False),
        sa.Column("digest", sa.String(length=255), nullable=False),
        sa.Column("classes", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_models")),
        sa.UniqueConstraint("name", "digest", name=op.f("uq_models_name_digest")),
    )
    op.create_table(
        "patients",
        sa.Column("id", sa.String(length=255), nullable=False),
        sa.Column("name", sa.String(length=255), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_patients")),
    )
    op.create_table(
        "alarms",
        sa.Column("id", sa.String(length=255), nullable=False),
        sa.Column("patient_id", sa.String(length=255), nullable=False),
        sa.Column("condition", sa.String(length=255), nullable=False),
        sa.Column("priority", sa.String(length=255), nullable=False),
        sa.Column("started_ns", sa.BigInteger(), nullable=False),
        sa.Column("raised_ns", sa.BigInteger(), nullable=False),
        sa.Column("ended_ns", sa.BigInteger(), nullable=True),
        sa.ForeignKeyConstraint(
            ["patient_id"], ["patients.id"], name=op.f("fk_alarms_patient_id_patients")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_alarms")),
    )
    op.create_index(op.f("ix_alarms_patient_id_started_ns"), "alarms", ["patient_id", "started_ns"])

    op.create_table(
        "devices",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("patient_id", sa.String(length=255), nullable=False),
        sa.Column("device", sa.String(length=255), nullable=False),
        sa.ForeignKeyConstraint(
            ["patient_id"], ["patients.id"], name=op.f("fk_devices_patient_id_patients")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_devices")),
        sa.UniqueConstraint("patient_id", "device", name=op.f("uq_devices_patient_id_device")),
    )
    op.create_table(
        "alarm_changes",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("alarm_id", sa.String(length=255), nullable=False),
        sa.Column("at_ns", sa.BigInteger(), nullable=False),
        sa.Column("state", sa.String(length=255), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(
            ["alarm_id"], ["alarms.id"], name=op.f("fk_alarm_changes_alarm_id_alarms")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_alarm_changes")),
        sa.UniqueConstraint(
            "alarm_id", "at_ns", "state", name=op.f("uq_alarm_changes_alarm_id_at_ns_state")
        ),
    )
    op.create_table(
        "gaps",
        sa.Column("device_id", sa.Integer(), nullable=False),
        sa.Column("start_ns", sa.BigInteger(), nullable=False),
        sa.Column("end_ns", sa.BigInteger(), nullable=False),
        sa.Column("cause", sa.String(length=255), nullable=False),
        sa.ForeignKeyConstraint(
            ["device_id"], ["devices.id"], name=op.f("fk_gaps_device_id_devices")
        ),
        sa.PrimaryKeyConstraint("device_id", "start_ns", "end_ns", "cause", name=op.f("pk_gaps")),
    )
    op.create_table(
        "segments",
        sa.Column("device_id", sa.Integer(), nullable=False),
        sa.Column("start_ns", sa.BigInteger(), nullable=False),
        sa.Column("digest", sa.LargeBinary(), nullable=False),
        sa.Column("rate", sa.Double(), nullable=False),
        sa.Column("n", sa.Integer(), nullable=False),
        sa.Column("contact", sa.Boolean(), nullable=True),
        sa.Column("sequence", sa.BigInteger(), nullable=True),
        sa.Column("blob", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(
            ["device_id"], ["devices.id"], name=op.f("fk_segments_device_id_devices")
        ),
        sa.PrimaryKeyConstraint("device_id", "start_ns", "digest", name=op.f("pk_segments")),
    )
    op.create_table(
        "windows",
        sa.Column("device_id", sa.Integer(), nullable=False),
        sa.Column("start_ns", sa.BigInteger(), nullable=False),
        sa.Column("digest", sa.LargeBinary(), nullable=False),
        sa.Column("duration_s", sa.Double(), nullable=False),
        sa.Column("quality", sa.String(length=255), nullable=False),
        sa.Column("reasons", sa.String(length=255), nullable=False),
        sa.Column("heart_rate", sa.Double(), nullable=True),
        sa.Column("longest_rr_s", sa.Double(), nullable=True),
        sa.Column("r_peaks", sa.LargeBinary(), nullable=False),
        sa.Column("model_id", sa.Integer(), nullable=True),
        sa.Column("probabilities", sa.LargeBinary(), nullable=True),
        sa.ForeignKeyConstraint(
            ["device_id"], ["devices.id"], name=op.f("fk_windows_device_id_devices")
        ),
        sa.ForeignKeyConstraint(
            ["model_id"], ["models.id"], name=op.f("fk_windows_model_id_models")
        ),
        sa.PrimaryKeyConstraint("device_id", "start_ns", "digest", name=op.f("pk_windows")),
    )
