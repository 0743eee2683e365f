"""RR intervals of straps that send no waveform."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Make the step; there is none back, only a backup."""
    op.create_table(
        "rr_intervals",
        sa.Column("device_id", sa.Integer(), nullable=False),
        sa.Column("end_ns", sa.BigInteger(), nullable=False),
        sa.Column("digest", sa.LargeBinary(), nullable=False),
        sa.Column("heart_rate", sa.Integer(), nullable=True),
        sa.Column("contact", sa.Boolean(), nullable=True),
        sa.Column("rr", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(
            ["device_id"], ["devices.id"], name=op.f("fk_rr_intervals_device_id_devices")
        ),
        sa.PrimaryKeyConstraint("device_id", "end_ns", "digest", name=op.f("pk_rr_intervals")),
    )
