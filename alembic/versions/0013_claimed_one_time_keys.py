"""Claimed one-time keys.

A client that repeated an upload after one of its keys had been claimed stored the key again, and it
was given to a second user. Keys claimed before this migration are not known.
"""

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "claimed_one_time_keys",
        sa.Column("user_id", sa.Text(), nullable=False),
        sa.Column("device_id", sa.Text(), nullable=False),
        sa.Column("digest", sa.LargeBinary(), nullable=False),
        sa.Column(
            "claimed_ts", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False
        ),
        sa.PrimaryKeyConstraint(
            "user_id", "device_id", "digest", name=op.f("pk_claimed_one_time_keys")
        ),
        sqlite_with_rowid=False,
    )


def downgrade() -> None:
    op.drop_table("claimed_one_time_keys")
