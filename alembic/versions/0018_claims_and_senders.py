"""Which claims of one-time keys count together, and the sender of each waiting to-device message.

This limits one account to a share: it can neither claim all keys of a device nor fill its inbox.
"""

import sqlalchemy as sa
from alembic import op

revision = "0018"
down_revision = "0017"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column(
        "claimed_one_time_keys",
        sa.Column("claimer", sa.Text(), server_default="", nullable=False),
    )
    op.create_index(
        op.f("ix_claimed_one_time_keys_user_id_device_id_claimer_claimed_ts"),
        "claimed_one_time_keys",
        ["user_id", "device_id", "claimer", "claimed_ts"],
    )
    op.add_column(
        "to_device_messages", sa.Column("source", sa.Text(), server_default="", nullable=False)
    )
    op.execute(
        "UPDATE to_device_messages SET source = coalesce(json_extract(event, '$.sender'), '')"
    )
    op.create_index(
        "ix_to_device_messages_source",
        "to_device_messages",
        ["user_id", "device_id", "source", "position"],
    )


def downgrade() -> None:
    op.drop_index("ix_to_device_messages_source", "to_device_messages")
    op.drop_column("to_device_messages", "source")
    op.drop_index(
        op.f("ix_claimed_one_time_keys_user_id_device_id_claimer_claimed_ts"),
        "claimed_one_time_keys",
    )
    op.drop_column("claimed_one_time_keys", "claimer")
