"""OAuth, single sign-on, delayed events, thread subscriptions: what newer clients need."""

import sqlalchemy as sa
from alembic import op

revision = "0025"
down_revision = "0024"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "profile_changes",
        sa.Column("user_id", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("user_id", "name", name=op.f("pk_profile_changes")),
        sqlite_with_rowid=False,
    )
    op.create_index(op.f("ix_profile_changes_position"), "profile_changes", ["position"])

    op.create_table(
        "thread_subscriptions",
        sa.Column("user_id", sa.Text(), nullable=False),
        sa.Column("room_id", sa.Text(), nullable=False),
        sa.Column("thread_id", sa.Text(), nullable=False),
        sa.Column("is_subscribed", sa.Boolean(), nullable=False),
        sa.Column("is_automatic", sa.Boolean(), nullable=False),
        sa.Column("unsubscribed_position", sa.Integer(), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint(
            "user_id", "room_id", "thread_id", name=op.f("pk_thread_subscriptions")
        ),
        sqlite_with_rowid=False,
    )
    op.create_index(
        op.f("ix_thread_subscriptions_user_id_position"),
        "thread_subscriptions",
        ["user_id", "position"],
    )
    op.create_index(op.f("ix_thread_subscriptions_room_id"), "thread_subscriptions", ["room_id"])


def downgrade() -> None:
    op.drop_table("thread_subscriptions")
    op.drop_table("profile_changes")
