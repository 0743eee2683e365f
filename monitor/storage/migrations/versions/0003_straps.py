"""Which chest strap is whose, and what was last known of it."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Make the step; there is none back, only a backup."""
    op.create_table(
        "straps",
        sa.Column("device_id", sa.Integer(), nullable=False),
        sa.Column("address", sa.String(length=255), nullable=False),
        sa.Column("kind", sa.String(length=255), nullable=False),
        sa.Column("adapter", sa.String(length=255), nullable=True),
        sa.Column("paired_ns", sa.BigInteger(), nullable=False),
        sa.Column("stage", sa.String(length=255), nullable=True),
        sa.Column("cause", sa.Text(), nullable=True),
        sa.Column("advice", sa.Text(), nullable=True),
        sa.Column("since_ns", sa.BigInteger(), nullable=True),
        sa.Column("battery", sa.Integer(), nullable=True),
        sa.Column("battery_ns", sa.BigInteger(), nullable=True),
        sa.ForeignKeyConstraint(
            ["device_id"], ["devices.id"], name=op.f("fk_straps_device_id_devices")
        ),
        sa.PrimaryKeyConstraint("device_id", name=op.f("pk_straps")),
        sa.UniqueConstraint("address", name=op.f("uq_straps_address")),
    )
