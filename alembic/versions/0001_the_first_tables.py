"""The first tables."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:

    op.create_table(
        "access_tokens",
        sa.Column("token_hash", sa.LargeBinary(), nullable=False),
        sa.Column("user_id", sa.Text(), nullable=False),
        sa.Column("device_id", sa.Text(), nullable=False),
        sa.Column(
            "expires_ts", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=True
        ),
        sa.PrimaryKeyConstraint("token_hash", name=op.f("pk_access_tokens")),
    )
    with op.batch_alter_table("access_tokens", schema=None) as batch_op:
        batch_op.create_index(
            batch_op.f("ix_access_tokens_user_id_device_id"), ["user_id", "device_id"], unique=False
        )

    op.create_table(
        "account_data",
        sa.Column("user_id", sa.Text(), nullable=False),
        sa.Column("room_id", sa.Text(), nullable=False),
        sa.Column("type", sa.Text(), nullable=False),
        sa.Column("content", sa.Text(), nullable=False),
        sa.Column("position", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.PrimaryKeyConstraint("user_id", "room_id", "type", name=op.f("pk_account_data")),
    )
    with op.batch_alter_table("account_data", schema=None) as batch_op:
        batch_op.create_index(
            batch_op.f("ix_account_data_user_id_position"), ["user_id", "position"], unique=False
        )

    op.create_table(
        "accounts",
        sa.Column("user_id", sa.Text(), nullable=False),
        sa.Column("password_hash", sa.Text(), nullable=True),
        sa.Column(
            "created_ts", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False
        ),
        sa.Column("is_admin", sa.Boolean(), nullable=False),
        sa.Column("is_guest", sa.Boolean(), nullable=False),
        sa.Column(
            "deactivated_ts", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=True
        ),
        sa.Column("is_locked", sa.Boolean(), nullable=False),
        sa.Column("is_suspended", sa.Boolean(), nullable=False),
        sa.Column("is_erased", sa.Boolean(), nullable=False),
        sa.PrimaryKeyConstraint("user_id", name=op.f("pk_accounts")),
    )
    op.create_table(
        "clock",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("position", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_clock")),
    )
    op.execute("INSERT INTO clock (id, position) VALUES (1, 1)")
    op.create_table(
        "devices",
        sa.Column("user_id", sa.Text(), nullable=False),
        sa.Column("device_id", sa.Text(), nullable=False),
        sa.Column("display_name", sa.Text(), nullable=True),
        sa.Column(
            "last_seen_ts", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=True
        ),
        sa.Column("last_seen_ip", sa.Text(), nullable=True),
        sa.Column("last_seen_user_agent", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("user_id", "device_id", name=op.f("pk_devices")),
    )
    op.create_table(
        "events",
        sa.Column(
            "position",
            sa.BigInteger().with_variant(sa.Integer(), "sqlite"),
            autoincrement=False,
            nullable=False,
        ),
        sa.Column("event_id", sa.Text(), nullable=False),
        sa.Column("room_id", sa.Text(), nullable=False),
        sa.Column("type", sa.Text(), nullable=False),
        sa.Column("state_key", sa.Text(), nullable=True),
        sa.Column("sender", sa.Text(), nullable=False),
        sa.Column(
            "origin_server_ts", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False
        ),
        sa.Column("pdu", sa.Text(), nullable=False),
        sa.Column("replaces", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=True),
        sa.Column(
            "redacted_by", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=True
        ),
        sa.Column("relates_to", sa.Text(), nullable=True),
        sa.Column("rel_type", sa.Text(), nullable=True),
        sa.Column("thread_id", sa.Text(), nullable=True),
        sa.Column("device_id", sa.Text(), nullable=True),
        sa.Column("txn_id", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("position", name=op.f("pk_events")),
        sa.UniqueConstraint("event_id", name=op.f("uq_events_event_id")),
    )
    with op.batch_alter_table("events", schema=None) as batch_op:
        batch_op.create_index(
            batch_op.f("ix_events_relates_to"),
            ["relates_to"],
            unique=False,
            sqlite_where=sa.text("relates_to IS NOT NULL"),
            postgresql_where=sa.text("relates_to IS NOT NULL"),
        )
        batch_op.create_index(
            batch_op.f("ix_events_room_id_position"), ["room_id", "position"], unique=False
        )
        batch_op.create_index(
            batch_op.f("ix_events_room_id_origin_server_ts"),
            ["room_id", "origin_server_ts"],
            unique=False,
        )
        batch_op.create_index(
            "ix_events_transaction",
            ["sender", "device_id", "txn_id"],
            unique=False,
            sqlite_where=sa.text("txn_id IS NOT NULL"),
            postgresql_where=sa.text("txn_id IS NOT NULL"),
        )

    op.create_table(
        "filters",
        sa.Column("user_id", sa.Text(), nullable=False),
        sa.Column("filter_id", sa.Text(), nullable=False),
        sa.Column("definition", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("user_id", "filter_id", name=op.f("pk_filters")),
    )
    op.create_table(
        "forgotten_rooms",
        sa.Column("user_id", sa.Text(), nullable=False),
        sa.Column("room_id", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("user_id", "room_id", name=op.f("pk_forgotten_rooms")),
    )
    op.create_table(
        "media",
        sa.Column("origin", sa.Text(), nullable=False),
        sa.Column("media_id", sa.Text(), nullable=False),
        sa.Column("user_id", sa.Text(), nullable=True),
        sa.Column(
            "created_ts", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False
        ),
        sa.Column(
            "unused_expires_ts", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=True
        ),
        sa.Column("content_type", sa.Text(), nullable=True),
        sa.Column("file_name", sa.Text(), nullable=True),
        sa.Column(
            "size_bytes", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=True
        ),
        sa.Column("sha256", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("origin", "media_id", name=op.f("pk_media")),
    )
    with op.batch_alter_table("media", schema=None) as batch_op:
        batch_op.create_index(
            "ix_media_pending",
            ["user_id"],
            unique=False,
            sqlite_where=sa.text("sha256 IS NULL"),
            postgresql_where=sa.text("sha256 IS NULL"),
        )

    op.create_table(
        "notifications",
        sa.Column("user_id", sa.Text(), nullable=False),
        sa.Column("room_id", sa.Text(), nullable=False),
        sa.Column(
            "event_position", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False
        ),
        sa.Column("thread_id", sa.Text(), nullable=False),
        sa.Column("is_highlight", sa.Boolean(), nullable=False),
        sa.Column("is_read", sa.Boolean(), nullable=False),
        sa.Column("actions", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint(
            "user_id", "room_id", "event_position", name=op.f("pk_notifications")
        ),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "profile_fields",
        sa.Column("user_id", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("value", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("user_id", "name", name=op.f("pk_profile_fields")),
    )
    op.create_table(
        "receipts",
        sa.Column("room_id", sa.Text(), nullable=False),
        sa.Column("user_id", sa.Text(), nullable=False),
        sa.Column("receipt_type", sa.Text(), nullable=False),
        sa.Column("thread_id", sa.Text(), nullable=False),
        sa.Column("event_id", sa.Text(), nullable=False),
        sa.Column(
            "event_position", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False
        ),
        sa.Column("ts", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("position", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.PrimaryKeyConstraint(
            "room_id", "user_id", "receipt_type", "thread_id", name=op.f("pk_receipts")
        ),
    )
    with op.batch_alter_table("receipts", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_receipts_position"), ["position"], unique=False)
        batch_op.create_index(
            batch_op.f("ix_receipts_room_id_position"), ["room_id", "position"], unique=False
        )

    op.create_table(
        "refresh_tokens",
        sa.Column("token_hash", sa.LargeBinary(), nullable=False),
        sa.Column("user_id", sa.Text(), nullable=False),
        sa.Column("device_id", sa.Text(), nullable=False),
        sa.Column("access_token_hash", sa.LargeBinary(), nullable=False),
        sa.Column("replaced_by", sa.LargeBinary(), nullable=True),
        sa.PrimaryKeyConstraint("token_hash", name=op.f("pk_refresh_tokens")),
    )
    with op.batch_alter_table("refresh_tokens", schema=None) as batch_op:
        batch_op.create_index(
            batch_op.f("ix_refresh_tokens_user_id_device_id"),
            ["user_id", "device_id"],
            unique=False,
        )

    op.create_table(
        "registration_tokens",
        sa.Column("token", sa.Text(), nullable=False),
        sa.Column(
            "uses_allowed", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=True
        ),
        sa.Column("uses", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column(
            "expires_ts", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=True
        ),
        sa.Column(
            "created_ts", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False
        ),
        sa.PrimaryKeyConstraint("token", name=op.f("pk_registration_tokens")),
    )
    op.create_table(
        "room_aliases",
        sa.Column("alias", sa.Text(), nullable=False),
        sa.Column("room_id", sa.Text(), nullable=False),
        sa.Column("creator", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("alias", name=op.f("pk_room_aliases")),
    )
    with op.batch_alter_table("room_aliases", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_room_aliases_room_id"), ["room_id"], unique=False)

    op.create_table(
        "rooms",
        sa.Column("room_id", sa.Text(), nullable=False),
        sa.Column("version", sa.Text(), nullable=False),
        sa.Column("forward_extremities", sa.JSON(), nullable=False),
        sa.Column("depth", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column(
            "last_position", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False
        ),
        sa.Column("is_published", sa.Boolean(), nullable=False),
        sa.PrimaryKeyConstraint("room_id", name=op.f("pk_rooms")),
    )
    op.create_table(
        "state_intervals",
        sa.Column("room_id", sa.Text(), nullable=False),
        sa.Column("type", sa.Text(), nullable=False),
        sa.Column("state_key", sa.Text(), nullable=False),
        sa.Column(
            "from_position", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False
        ),
        sa.Column(
            "to_position", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False
        ),
        sa.Column(
            "event_position", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False
        ),
        sa.Column("membership", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint(
            "room_id", "type", "state_key", "from_position", name=op.f("pk_state_intervals")
        ),
        sqlite_with_rowid=False,
    )
    with op.batch_alter_table("state_intervals", schema=None) as batch_op:
        batch_op.create_index(
            "ix_state_intervals_member",
            ["state_key", "to_position", "from_position"],
            unique=False,
            sqlite_where=sa.text("membership IS NOT NULL"),
            postgresql_where=sa.text("membership IS NOT NULL"),
        )
        batch_op.create_index(
            "ix_state_intervals_current",
            ["room_id", "to_position", "membership", "event_position"],
            unique=False,
        )

    op.create_table(
        "uia_sessions",
        sa.Column("session_hash", sa.LargeBinary(), nullable=False),
        sa.Column(
            "created_ts", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False
        ),
        sa.Column("endpoint", sa.Text(), nullable=False),
        sa.Column("user_id", sa.Text(), nullable=True),
        sa.Column("params_mac", sa.LargeBinary(), nullable=True),
        sa.Column("completed", sa.JSON(), nullable=False),
        sa.Column("registration_token", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("session_hash", name=op.f("pk_uia_sessions")),
    )
    with op.batch_alter_table("uia_sessions", schema=None) as batch_op:
        batch_op.create_index(
            batch_op.f("ix_uia_sessions_created_ts"), ["created_ts"], unique=False
        )

    op.create_table(
        "unread_counts",
        sa.Column("user_id", sa.Text(), nullable=False),
        sa.Column("room_id", sa.Text(), nullable=False),
        sa.Column("thread_id", sa.Text(), nullable=False),
        sa.Column(
            "notification_count",
            sa.BigInteger().with_variant(sa.Integer(), "sqlite"),
            nullable=False,
        ),
        sa.Column(
            "highlight_count", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False
        ),
        sa.PrimaryKeyConstraint("user_id", "room_id", "thread_id", name=op.f("pk_unread_counts")),
        sqlite_with_rowid=False,
    )


def downgrade() -> None:

    op.drop_table("unread_counts")
    with op.batch_alter_table("uia_sessions", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_uia_sessions_created_ts"))

    op.drop_table("uia_sessions")
    with op.batch_alter_table("state_intervals", schema=None) as batch_op:
        batch_op.drop_index("ix_state_intervals_current")
        batch_op.drop_index(
            "ix_state_intervals_member",
            sqlite_where=sa.text("membership IS NOT NULL"),
            postgresql_where=sa.text("membership IS NOT NULL"),
        )

    op.drop_table("state_intervals")
    op.drop_table("rooms")
    with op.batch_alter_table("room_aliases", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_room_aliases_room_id"))

    op.drop_table("room_aliases")
    op.drop_table("registration_tokens")
    with op.batch_alter_table("refresh_tokens", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_refresh_tokens_user_id_device_id"))

    op.drop_table("refresh_tokens")
    with op.batch_alter_table("receipts", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_receipts_room_id_position"))
        batch_op.drop_index(batch_op.f("ix_receipts_position"))

    op.drop_table("receipts")
    op.drop_table("profile_fields")
    op.drop_table("notifications")
    with op.batch_alter_table("media", schema=None) as batch_op:
        batch_op.drop_index(
            "ix_media_pending",
            sqlite_where=sa.text("sha256 IS NULL"),
            postgresql_where=sa.text("sha256 IS NULL"),
        )

    op.drop_table("media")
    op.drop_table("forgotten_rooms")
    op.drop_table("filters")
    with op.batch_alter_table("events", schema=None) as batch_op:
        batch_op.drop_index(
            "ix_events_transaction",
            sqlite_where=sa.text("txn_id IS NOT NULL"),
            postgresql_where=sa.text("txn_id IS NOT NULL"),
        )
        batch_op.drop_index(batch_op.f("ix_events_room_id_origin_server_ts"))
        batch_op.drop_index(batch_op.f("ix_events_room_id_position"))
        batch_op.drop_index(
            batch_op.f("ix_events_relates_to"),
            sqlite_where=sa.text("relates_to IS NOT NULL"),
            postgresql_where=sa.text("relates_to IS NOT NULL"),
        )

    op.drop_table("events")
    op.drop_table("devices")
    op.drop_table("clock")
    op.drop_table("accounts")
    with op.batch_alter_table("account_data", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_account_data_user_id_position"))

    op.drop_table("account_data")
    with op.batch_alter_table("access_tokens", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_access_tokens_user_id_device_id"))

    op.drop_table("access_tokens")
