"""How far the signal of each device was looked through for what has no window."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    """Make the step; there is none back, only a backup."""
    op.create_table(
        "examined",
        sa.Column("device_id", sa.Integer(), nullable=False),
        sa.Column("clear_ns", sa.BigInteger(), nullable=True),
        sa.Column("low_ns", sa.BigInteger(), nullable=True),
        sa.Column("high_ns", sa.BigInteger(), nullable=True),
        sa.ForeignKeyConstraint(
            ["device_id"], ["devices.id"], name=op.f("fk_examined_device_id_devices")
        ),
        sa.PrimaryKeyConstraint("device_id", name=op.f("pk_examined")),
    )
