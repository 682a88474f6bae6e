"""Tables of federation: what is known of other servers, their users and their keys."""

import sqlalchemy as sa
from alembic import op

revision = "0022"
down_revision = "0021"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "server_keys",
        sa.Column("server_name", sa.Text(), nullable=False),
        sa.Column("key_id", sa.Text(), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("expired_ts", sa.Integer(), nullable=True),
        sa.Column("valid_until_ts", sa.Integer(), nullable=False),
        sa.Column("fetched_ts", sa.Integer(), nullable=False),
        sa.Column("response", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("server_name", "key_id", name=op.f("pk_server_keys")),
    )
    op.create_table(
        "federation_log",
        sa.Column("position", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("also", sa.JSON(), nullable=True),
        sa.PrimaryKeyConstraint("position", name=op.f("pk_federation_log")),
    )
    op.create_table(
        "destinations",
        sa.Column("server", sa.Text(), nullable=False),
        sa.Column("sent_upto", sa.Integer(), nullable=True),
        sa.Column("failing_since_ts", sa.Integer(), nullable=True),
        sa.Column("tries", sa.Integer(), nullable=False),
        sa.Column("next_try_ts", sa.Integer(), nullable=False),
        sa.Column("problem", sa.Text(), nullable=True),
        sa.Column("last_sent_ts", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("server", name=op.f("pk_destinations")),
    )
    op.add_column(
        "rooms",
        sa.Column("state_reset_position", sa.Integer(), server_default="0", nullable=False),
    )
    op.create_index(
        "ix_rooms_state_reset",
        "rooms",
        ["state_reset_position"],
        sqlite_where=sa.text("state_reset_position > 0"),
    )


def downgrade() -> None:
    op.drop_index("ix_rooms_state_reset", "rooms")
    op.drop_column("rooms", "state_reset_position")
    op.drop_table("destinations")
    op.drop_table("federation_log")
    op.drop_table("server_keys")
