"""Presence survives a restart.

After a restart, clients still show the previous presence of all users and must be sent "offline"
for those who do not return.
"""

import sqlalchemy as sa
from alembic import op

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "shown_presence",
        sa.Column("user_id", sa.Text(), nullable=False),
        sa.Column("presence", sa.Text(), nullable=False),
        sa.Column("status_msg", sa.Text(), nullable=True),
        sa.Column("active_ts", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=True),
        sa.PrimaryKeyConstraint("user_id", name=op.f("pk_shown_presence")),
        sqlite_with_rowid=False,
    )


def downgrade() -> None:
    op.drop_table("shown_presence")
