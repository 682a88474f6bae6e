"""The size of each account's account data and key backups, for quotas.

The size is stored with each row, because otherwise a sum would have to read all contents.
"""

import sqlalchemy as sa
from alembic import op

revision = "0017"
down_revision = "0016"
branch_labels = None
depends_on = None

INTEGER = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    for table in ("account_data", "key_backups"):
        op.add_column(table, sa.Column("size_bytes", INTEGER, server_default="0", nullable=False))
    op.execute("UPDATE account_data SET size_bytes = length(CAST(content AS BLOB))")
    op.execute(
        "UPDATE key_backups SET size_bytes = ("
        " SELECT coalesce(sum(length(CAST(session_data AS BLOB))), 0) FROM backed_up_keys AS key"
        " WHERE key.user_id = key_backups.user_id AND key.version = key_backups.version)"
        " WHERE NOT is_deleted"
    )
    op.create_index(
        op.f("ix_account_data_user_id_size_bytes"), "account_data", ["user_id", "size_bytes"]
    )


def downgrade() -> None:
    op.drop_index(op.f("ix_account_data_user_id_size_bytes"), "account_data")
    for table in ("key_backups", "account_data"):
        op.drop_column(table, "size_bytes")
