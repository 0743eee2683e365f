"""The first refused message of each kind, for whoever wants to know why nothing comes."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Make the step; there is none back, only a backup."""
    op.create_table(
        "refused_messages",
        sa.Column("reason", sa.String(length=255), nullable=False),
        sa.Column("first_ns", sa.BigInteger(), nullable=False),
        sa.Column("last_ns", sa.BigInteger(), nullable=False),
        sa.Column("topic", sa.Text(), nullable=False),
        sa.Column("detail", sa.Text(), nullable=False),
        sa.Column("excerpt", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("reason", name=op.f("pk_refused_messages")),
    )
