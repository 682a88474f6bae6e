"""What administrators set and order: restrictions, quarantine, invitations, tasks, audit log."""

import sqlalchemy as sa
from alembic import op

revision = "0024"
down_revision = "0023"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "audit_log",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("ts", sa.Integer(), nullable=False),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("action", sa.Text(), nullable=False),
        sa.Column("subject", sa.Text(), nullable=True),
        sa.Column("details", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_audit_log")),
    )
    op.create_index(op.f("ix_audit_log_subject"), "audit_log", ["subject"])

    op.create_table(
        "blocked_rooms",
        sa.Column("room_id", sa.Text(), nullable=False),
        sa.Column("user_id", sa.Text(), nullable=False),
        sa.Column("blocked_ts", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("room_id", name=op.f("pk_blocked_rooms")),
    )
    op.create_table(
        "browser_sessions",
        sa.Column("token_hash", sa.LargeBinary(), nullable=False),
        sa.Column("user_id", sa.Text(), nullable=False),
        sa.Column("created_ts", sa.Integer(), nullable=False),
        sa.Column("last_used_ts", sa.Integer(), nullable=False),
        sa.Column("ip", sa.Text(), nullable=False),
        sa.Column("user_agent", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("token_hash", name=op.f("pk_browser_sessions")),
    )
    op.create_index(op.f("ix_browser_sessions_user_id"), "browser_sessions", ["user_id"])
    op.create_index(op.f("ix_browser_sessions_created_ts"), "browser_sessions", ["created_ts"])

    op.create_table(
        "experimental_features",
        sa.Column("user_id", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("is_enabled", sa.Boolean(), nullable=False),
        sa.PrimaryKeyConstraint("user_id", "name", name=op.f("pk_experimental_features")),
    )
    op.create_table(
        "external_ids",
        sa.Column("auth_provider", sa.Text(), nullable=False),
        sa.Column("external_id", sa.Text(), nullable=False),
        sa.Column("user_id", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("auth_provider", "external_id", name=op.f("pk_external_ids")),
    )
    op.create_index(op.f("ix_external_ids_user_id"), "external_ids", ["user_id"])

    op.create_table(
        "invitations",
        sa.Column("token_hash", sa.LargeBinary(), nullable=False),
        sa.Column("purpose", sa.Text(), nullable=False),
        sa.Column("user_id", sa.Text(), nullable=True),
        sa.Column("rooms", sa.JSON(), nullable=True),
        sa.Column("created_by", sa.Text(), nullable=False),
        sa.Column("created_ts", sa.Integer(), nullable=False),
        sa.Column("expires_ts", sa.Integer(), nullable=False),
        sa.Column("used_ts", sa.Integer(), nullable=True),
        sa.PrimaryKeyConstraint("token_hash", name=op.f("pk_invitations")),
    )
    op.create_index(op.f("ix_invitations_expires_ts"), "invitations", ["expires_ts"])

    op.create_table(
        "media_quotas",
        sa.Column("user_id", sa.Text(), nullable=False),
        sa.Column("max_bytes", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("user_id", name=op.f("pk_media_quotas")),
    )
    op.create_table(
        "quarantined_media",
        sa.Column("origin", sa.Text(), nullable=False),
        sa.Column("media_id", sa.Text(), nullable=False),
        sa.Column("quarantined_by", sa.Text(), nullable=False),
        sa.Column("quarantined_ts", sa.Integer(), nullable=False),
        sa.Column("sha256", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("origin", "media_id", name=op.f("pk_quarantined_media")),
    )
    op.create_index(op.f("ix_quarantined_media_sha256"), "quarantined_media", ["sha256"])
    op.create_table(
        "rate_limit_overrides",
        sa.Column("user_id", sa.Text(), nullable=False),
        sa.Column(
            "messages_per_second",
            sa.Integer(),
            nullable=False,
        ),
        sa.Column("burst_count", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("user_id", name=op.f("pk_rate_limit_overrides")),
    )
    op.create_table(
        "tasks",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("action", sa.Text(), nullable=False),
        sa.Column("resource_id", sa.Text(), nullable=True),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("params", sa.JSON(), nullable=False),
        sa.Column("result", sa.JSON(), nullable=True),
        sa.Column("error", sa.Text(), nullable=True),
        sa.Column("created_ts", sa.Integer(), nullable=False),
        sa.Column("updated_ts", sa.Integer(), nullable=False),
        sa.Column("can_be_cancelled", sa.Boolean(), server_default="1", nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_tasks")),
    )
    op.create_index(op.f("ix_tasks_resource_id"), "tasks", ["resource_id"])
    op.create_index(op.f("ix_tasks_status_created_ts"), "tasks", ["status", "created_ts"])

    op.add_column(
        "accounts", sa.Column("is_shadow_banned", sa.Boolean(), server_default="0", nullable=False)
    )
    op.add_column("accounts", sa.Column("user_type", sa.Text(), nullable=True))
    op.add_column("accounts", sa.Column("last_seen_ts", sa.Integer(), nullable=True))
    op.execute(
        "UPDATE accounts SET last_seen_ts ="
        " (SELECT MAX(last_seen_ts) FROM devices WHERE devices.user_id = accounts.user_id)"
    )
    op.add_column("accounts", sa.Column("expires_ts", sa.Integer(), nullable=True))
    op.add_column("accounts", sa.Column("keys_replaceable_until_ts", sa.Integer(), nullable=True))

    op.add_column("access_tokens", sa.Column("issued_to", sa.Text(), nullable=True))
    op.create_index(
        op.f("ix_access_tokens_issued_to"),
        "access_tokens",
        ["issued_to"],
        sqlite_where=sa.text("issued_to IS NOT NULL"),
    )

    op.add_column("media", sa.Column("last_used_ts", sa.Integer(), nullable=True))
    op.add_column(
        "media", sa.Column("is_protected", sa.Boolean(), server_default="0", nullable=False)
    )

    op.create_index(op.f("ix_media_sha256"), "media", ["sha256"])
    op.add_column("remote_media", sa.Column("sha256", sa.Text(), nullable=True))
    op.create_index(op.f("ix_remote_media_sha256"), "remote_media", ["sha256"])
    op.create_index(op.f("ix_account_data_position"), "account_data", ["position"])

    op.create_table(
        "removed_rooms",
        sa.Column("room_id", sa.Text(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=True),
        sa.PrimaryKeyConstraint("room_id", name=op.f("pk_removed_rooms")),
    )
    op.add_column("forgotten_rooms", sa.Column("forgotten_ts", sa.Integer(), nullable=True))

    op.add_column("reports", sa.Column("score", sa.Integer(), nullable=True))


def downgrade() -> None:
    op.drop_column("reports", "score")

    op.drop_column("forgotten_rooms", "forgotten_ts")
    op.drop_table("removed_rooms")

    op.drop_index(op.f("ix_account_data_position"), "account_data")
    op.drop_index(op.f("ix_remote_media_sha256"), "remote_media")
    op.drop_column("remote_media", "sha256")
    op.drop_index(op.f("ix_media_sha256"), "media")
    op.drop_column("media", "is_protected")
    op.drop_column("media", "last_used_ts")

    op.drop_index(op.f("ix_access_tokens_issued_to"), "access_tokens")
    op.drop_column("access_tokens", "issued_to")

    op.drop_column("accounts", "keys_replaceable_until_ts")
    op.drop_column("accounts", "expires_ts")
    op.drop_column("accounts", "last_seen_ts")
    op.drop_column("accounts", "user_type")
    op.drop_column("accounts", "is_shadow_banned")

    op.drop_index(op.f("ix_tasks_status_created_ts"), "tasks")
    op.drop_index(op.f("ix_tasks_resource_id"), "tasks")

    op.drop_table("tasks")
    op.drop_table("rate_limit_overrides")
    op.drop_index(op.f("ix_quarantined_media_sha256"), "quarantined_media")
    op.drop_table("quarantined_media")
    op.drop_table("media_quotas")
    op.drop_index(op.f("ix_invitations_expires_ts"), "invitations")

    op.drop_table("invitations")
    op.drop_index(op.f("ix_external_ids_user_id"), "external_ids")

    op.drop_table("external_ids")
    op.drop_table("experimental_features")
    op.drop_index(op.f("ix_browser_sessions_created_ts"), "browser_sessions")
    op.drop_index(op.f("ix_browser_sessions_user_id"), "browser_sessions")

    op.drop_table("browser_sessions")
    op.drop_table("blocked_rooms")
    op.drop_index(op.f("ix_audit_log_subject"), "audit_log")

    op.drop_table("audit_log")
