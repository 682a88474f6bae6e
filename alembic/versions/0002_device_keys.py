"""Device keys, and to-device messages."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "device_keys",
        sa.Column("user_id", sa.Text(), nullable=False),
        sa.Column("device_id", sa.Text(), nullable=False),
        sa.Column("device_keys", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("user_id", "device_id", name=op.f("pk_device_keys")),
    )
    op.create_table(
        "device_list_changes",
        sa.Column("user_id", sa.Text(), nullable=False),
        sa.Column("position", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.PrimaryKeyConstraint("user_id", name=op.f("pk_device_list_changes")),
    )
    with op.batch_alter_table("device_list_changes", schema=None) as batch_op:
        batch_op.create_index(
            batch_op.f("ix_device_list_changes_position"), ["position"], unique=False
        )

    op.create_table(
        "fallback_keys",
        sa.Column("user_id", sa.Text(), nullable=False),
        sa.Column("device_id", sa.Text(), nullable=False),
        sa.Column("algorithm", sa.Text(), nullable=False),
        sa.Column("key_id", sa.Text(), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("is_used", sa.Boolean(), nullable=False),
        sa.PrimaryKeyConstraint("user_id", "device_id", "algorithm", name=op.f("pk_fallback_keys")),
    )
    op.create_table(
        "one_time_keys",
        sa.Column("user_id", sa.Text(), nullable=False),
        sa.Column("device_id", sa.Text(), nullable=False),
        sa.Column("algorithm", sa.Text(), nullable=False),
        sa.Column("key_id", sa.Text(), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("position", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.PrimaryKeyConstraint(
            "user_id", "device_id", "algorithm", "key_id", name=op.f("pk_one_time_keys")
        ),
        sqlite_with_rowid=False,
    )
    with op.batch_alter_table("one_time_keys", schema=None) as batch_op:
        batch_op.create_index(
            "ix_one_time_keys_order",
            ["user_id", "device_id", "algorithm", "position", "key_id"],
            unique=False,
        )

    op.create_table(
        "to_device_cut_answers",
        sa.Column("user_id", sa.Text(), nullable=False),
        sa.Column("device_id", sa.Text(), nullable=False),
        sa.Column("token", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column(
            "last_message", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False
        ),
        sa.PrimaryKeyConstraint(
            "user_id", "device_id", "token", name=op.f("pk_to_device_cut_answers")
        ),
    )
    op.create_table(
        "to_device_messages",
        sa.Column(
            "position",
            sa.BigInteger().with_variant(sa.Integer(), "sqlite"),
            autoincrement=False,
            nullable=False,
        ),
        sa.Column("user_id", sa.Text(), nullable=False),
        sa.Column("device_id", sa.Text(), nullable=False),
        sa.Column("event", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("position", name=op.f("pk_to_device_messages")),
    )
    with op.batch_alter_table("to_device_messages", schema=None) as batch_op:
        batch_op.create_index(
            batch_op.f("ix_to_device_messages_user_id_device_id_position"),
            ["user_id", "device_id", "position"],
            unique=False,
        )

    op.create_table(
        "to_device_transactions",
        sa.Column("user_id", sa.Text(), nullable=False),
        sa.Column("device_id", sa.Text(), nullable=False),
        sa.Column("event_type", sa.Text(), nullable=False),
        sa.Column("txn_id", sa.Text(), nullable=False),
        sa.Column("ts", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.PrimaryKeyConstraint(
            "user_id", "device_id", "event_type", "txn_id", name=op.f("pk_to_device_transactions")
        ),
    )
    with op.batch_alter_table("to_device_transactions", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_to_device_transactions_ts"), ["ts"], unique=False)


def downgrade() -> None:
    with op.batch_alter_table("to_device_transactions", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_to_device_transactions_ts"))
    op.drop_table("to_device_transactions")
    with op.batch_alter_table("to_device_messages", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_to_device_messages_user_id_device_id_position"))
    op.drop_table("to_device_messages")
    op.drop_table("to_device_cut_answers")
    with op.batch_alter_table("one_time_keys", schema=None) as batch_op:
        batch_op.drop_index("ix_one_time_keys_order")
    op.drop_table("one_time_keys")
    op.drop_table("fallback_keys")
    with op.batch_alter_table("device_list_changes", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_device_list_changes_position"))
    op.drop_table("device_list_changes")
    op.drop_table("device_keys")
