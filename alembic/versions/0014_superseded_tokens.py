"""Access and refresh tokens that were replaced while their device stayed logged in.

A client that uses one of them gets a soft logout, so that it keeps its keys. Tokens replaced before
this migration are not known.
"""

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "superseded_tokens",
        sa.Column("token_hash", sa.LargeBinary(), nullable=False),
        sa.Column("user_id", sa.Text(), nullable=False),
        sa.Column("device_id", sa.Text(), nullable=False),
        sa.Column(
            "superseded_ts", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False
        ),
        sa.PrimaryKeyConstraint("token_hash", name=op.f("pk_superseded_tokens")),
    )
    op.create_index(
        op.f("ix_superseded_tokens_user_id_device_id_superseded_ts"),
        "superseded_tokens",
        ["user_id", "device_id", "superseded_ts"],
    )


def downgrade() -> None:
    op.drop_table("superseded_tokens")
