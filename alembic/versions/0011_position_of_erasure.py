"""The position at which a user was erased.

Messages of erased users are shown redacted to users who joined later, so a flag is not enough. For
users erased before this migration it is the current position: nobody loses access to what they
could read.
"""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("accounts") as batch:
        batch.add_column(
            sa.Column(
                "erased_position",
                sa.BigInteger().with_variant(sa.Integer(), "sqlite"),
                nullable=True,
            )
        )
    op.execute(
        "UPDATE accounts SET erased_position = COALESCE((SELECT max(position) FROM clock), 0)"
        " WHERE is_erased"
    )
    with op.batch_alter_table("accounts") as batch:
        batch.drop_column("is_erased")


def downgrade() -> None:
    with op.batch_alter_table("accounts") as batch:
        batch.add_column(
            sa.Column("is_erased", sa.Boolean(), nullable=False, server_default=sa.false())
        )
    op.execute("UPDATE accounts SET is_erased = erased_position IS NOT NULL")
    with op.batch_alter_table("accounts") as batch:
        batch.alter_column("is_erased", server_default=None)
        batch.drop_column("erased_position")
