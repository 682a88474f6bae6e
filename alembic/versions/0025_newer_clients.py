"""OAuth, single sign-on, delayed events, thread subscriptions: what newer clients need."""

import sqlalchemy as sa
from alembic import op

revision = "0025"
down_revision = "0024"
branch_labels = None
depends_on = None


def upgrade() -> None:
    upgrade_sign_on()
    op.create_table(
        "delayed_events",
        sa.Column("delay_id", sa.Text(), nullable=False),
        sa.Column("user_id", sa.Text(), nullable=False),
        sa.Column("device_id", sa.Text(), nullable=False),
        sa.Column("txn_id", sa.Text(), nullable=True),
        sa.Column("room_id", sa.Text(), nullable=False),
        sa.Column("type", sa.Text(), nullable=False),
        sa.Column("state_key", sa.Text(), nullable=True),
        sa.Column("content", sa.JSON(), nullable=False),
        sa.Column("origin_server_ts", sa.Integer(), nullable=True),
        sa.Column("sticky_ms", sa.Integer(), nullable=True),
        sa.Column("delay_ms", sa.Integer(), nullable=False),
        sa.Column("scheduled_ts", sa.Integer(), nullable=False),
        sa.Column("due_ts", sa.Integer(), nullable=True),
        sa.Column("finalised_ts", sa.Integer(), nullable=True),
        sa.Column("event_id", sa.Text(), nullable=True),
        sa.Column("error", sa.JSON(), nullable=True),
        sa.PrimaryKeyConstraint("delay_id", name=op.f("pk_delayed_events")),
    )
    op.create_index(
        op.f("ix_delayed_events_user_id_due_ts"), "delayed_events", ["user_id", "due_ts"]
    )
    op.create_index(
        "ix_delayed_events_due_ts",
        "delayed_events",
        ["due_ts"],
        sqlite_where=sa.text("due_ts IS NOT NULL"),
    )
    op.create_index(
        "ix_delayed_events_finalised_ts",
        "delayed_events",
        ["finalised_ts"],
        sqlite_where=sa.text("finalised_ts IS NOT NULL"),
    )
    op.create_index(
        "ix_delayed_events_user_id_finalised_ts",
        "delayed_events",
        ["user_id", "finalised_ts"],
        sqlite_where=sa.text("finalised_ts IS NOT NULL"),
    )
    op.create_index(
        "ix_delayed_events_transaction",
        "delayed_events",
        ["user_id", "device_id", "txn_id"],
        sqlite_where=sa.text("txn_id IS NOT NULL"),
    )

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

    op.create_table(
        "oauth_clients",
        sa.Column("client_id", sa.Text(), nullable=False),
        sa.Column("registration", sa.JSON(), nullable=False),
        sa.Column("last_used_ts", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("client_id", name=op.f("pk_oauth_clients")),
    )
    op.create_index(op.f("ix_oauth_clients_last_used_ts"), "oauth_clients", ["last_used_ts"])
    op.create_table(
        "oauth_codes",
        sa.Column("code_hash", sa.LargeBinary(), nullable=False),
        sa.Column("client_id", sa.Text(), nullable=False),
        sa.Column("user_id", sa.Text(), nullable=False),
        sa.Column("device_id", sa.Text(), nullable=False),
        sa.Column("scope", sa.Text(), nullable=False),
        sa.Column("redirect_uri", sa.Text(), nullable=False),
        sa.Column("code_challenge", sa.Text(), nullable=False),
        sa.Column("expires_ts", sa.Integer(), nullable=False),
        sa.Column("is_used", sa.Boolean(), nullable=False),
        sa.Column("session_hash", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("code_hash", name=op.f("pk_oauth_codes")),
    )
    op.create_index(op.f("ix_oauth_codes_expires_ts"), "oauth_codes", ["expires_ts"])
    op.create_table(
        "oauth_consents",
        sa.Column("user_id", sa.Text(), nullable=False),
        sa.Column("client_id", sa.Text(), nullable=False),
        sa.Column("granted_ts", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("user_id", "client_id", name=op.f("pk_oauth_consents")),
    )
    op.create_index(op.f("ix_oauth_consents_client_id"), "oauth_consents", ["client_id"])
    op.create_table(
        "oauth_device_codes",
        sa.Column("device_code_hash", sa.LargeBinary(), nullable=False),
        sa.Column("user_code", sa.Text(), nullable=False),
        sa.Column("client_id", sa.Text(), nullable=False),
        sa.Column("device_id", sa.Text(), nullable=False),
        sa.Column("scope", sa.Text(), nullable=False),
        sa.Column("expires_ts", sa.Integer(), nullable=False),
        sa.Column("interval_ms", sa.Integer(), nullable=False),
        sa.Column("last_poll_ts", sa.Integer(), nullable=True),
        sa.Column("user_id", sa.Text(), nullable=True),
        sa.Column("is_denied", sa.Boolean(), nullable=False),
        sa.Column("session_hash", sa.LargeBinary(), nullable=True),
        sa.PrimaryKeyConstraint("device_code_hash", name=op.f("pk_oauth_device_codes")),
    )
    op.create_index(
        op.f("ix_oauth_device_codes_user_code"), "oauth_device_codes", ["user_code"], unique=True
    )
    op.create_index(op.f("ix_oauth_device_codes_expires_ts"), "oauth_device_codes", ["expires_ts"])
    op.create_table(
        "oauth_sessions",
        sa.Column("user_id", sa.Text(), nullable=False),
        sa.Column("device_id", sa.Text(), nullable=False),
        sa.Column("client_id", sa.Text(), nullable=False),
        sa.Column("scope", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("user_id", "device_id", name=op.f("pk_oauth_sessions")),
    )
    op.create_index(op.f("ix_oauth_sessions_client_id"), "oauth_sessions", ["client_id"])
    op.add_column(
        "superseded_tokens",
        sa.Column("was_exchanged", sa.Boolean(), server_default="0", nullable=False),
    )

    op.create_table(
        "sticky_events",
        sa.Column("number", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("room_id", sa.Text(), nullable=False),
        sa.Column("position", sa.Integer(), nullable=True),
        sa.Column("sender", sa.Text(), nullable=False),
        sa.Column("until_ts", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("number", name=op.f("pk_sticky_events")),
    )
    op.create_index(op.f("ix_sticky_events_position"), "sticky_events", ["position"])
    op.create_index(op.f("ix_sticky_events_until_ts"), "sticky_events", ["until_ts"])
    op.create_index(op.f("ix_sticky_events_room_id_sender"), "sticky_events", ["room_id", "sender"])

    op.create_table(
        "sync_connections",
        sa.Column("user_id", sa.Text(), nullable=False),
        sa.Column("device_id", sa.Text(), nullable=False),
        sa.Column("conn_id", sa.Text(), nullable=False),
        sa.Column("secret", sa.LargeBinary(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("state", sa.LargeBinary(), nullable=False),
        sa.Column("written_ts", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint(
            "user_id", "device_id", "conn_id", name=op.f("pk_sync_connections")
        ),
    )
    op.create_index(op.f("ix_sync_connections_written_ts"), "sync_connections", ["written_ts"])


def downgrade() -> None:
    op.drop_table("sticky_events")
    op.drop_table("sync_connections")
    downgrade_sign_on()
    op.drop_column("superseded_tokens", "was_exchanged")
    op.drop_index(op.f("ix_oauth_sessions_client_id"), "oauth_sessions")
    op.drop_table("oauth_sessions")
    op.drop_index(op.f("ix_oauth_device_codes_expires_ts"), "oauth_device_codes")
    op.drop_index(op.f("ix_oauth_device_codes_user_code"), "oauth_device_codes")
    op.drop_table("oauth_device_codes")
    op.drop_index(op.f("ix_oauth_consents_client_id"), "oauth_consents")
    op.drop_table("oauth_consents")
    op.drop_index(op.f("ix_oauth_codes_expires_ts"), "oauth_codes")
    op.drop_table("oauth_codes")
    op.drop_index(op.f("ix_oauth_clients_last_used_ts"), "oauth_clients")
    op.drop_table("oauth_clients")

    op.drop_table("thread_subscriptions")
    op.drop_table("profile_changes")
    op.drop_table("delayed_events")


def upgrade_sign_on() -> None:
    with op.batch_alter_table("login_tokens") as batch_op:
        batch_op.add_column(sa.Column("browser_hash", sa.LargeBinary(), nullable=True))
    op.create_table(
        "sign_on_attempts",
        sa.Column("state_hash", sa.LargeBinary(), nullable=False),
        sa.Column("browser_hash", sa.LargeBinary(), nullable=False),
        sa.Column("provider", sa.Text(), nullable=False),
        sa.Column("purpose", sa.Text(), nullable=False),
        sa.Column("target", sa.Text(), nullable=False),
        sa.Column("user_id", sa.Text(), nullable=True),
        sa.Column("created_ts", sa.Integer(), nullable=False),
        sa.Column("is_returned", sa.Boolean(), nullable=False),
        sa.Column("identity", sa.JSON(), nullable=True),
        sa.PrimaryKeyConstraint("state_hash", name=op.f("pk_sign_on_attempts")),
    )
    op.create_index(op.f("ix_sign_on_attempts_created_ts"), "sign_on_attempts", ["created_ts"])
    op.create_table(
        "sign_on_sessions",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("provider", sa.Text(), nullable=False),
        sa.Column("subject", sa.Text(), nullable=False),
        sa.Column("sid", sa.Text(), nullable=True),
        sa.Column("user_id", sa.Text(), nullable=False),
        sa.Column("browser_hash", sa.LargeBinary(), nullable=True),
        sa.Column("device_id", sa.Text(), nullable=True),
        sa.Column("created_ts", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_sign_on_sessions")),
    )
    for columns in (["provider", "subject"], ["user_id"], ["browser_hash"]):
        name = f"ix_sign_on_sessions_{'_'.join(columns)}"
        op.create_index(op.f(name), "sign_on_sessions", columns)


def downgrade_sign_on() -> None:
    op.drop_table("sign_on_sessions")
    op.drop_table("sign_on_attempts")
    with op.batch_alter_table("login_tokens") as batch_op:
        batch_op.drop_column("browser_hash")
