"""Tables of federation: what is known of other servers, their users and their keys."""

import struct

import orjson
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
    op.create_table(
        "inbound_pdus",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("room_id", sa.Text(), nullable=False),
        sa.Column("origin", sa.Text(), nullable=False),
        sa.Column("event_id", sa.Text(), nullable=False),
        sa.Column("pdu", sa.Text(), nullable=False),
        sa.Column("received_ts", sa.Integer(), nullable=False),
        sa.Column("tries", sa.Integer(), nullable=False),
        sa.Column("next_try_ts", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_inbound_pdus")),
        sa.UniqueConstraint("event_id", name=op.f("uq_inbound_pdus_event_id")),
    )
    op.create_index(op.f("ix_inbound_pdus_room_id_id"), "inbound_pdus", ["room_id", "id"])
    create_remote_users()
    create_gaps()
    op.create_table(
        "joining",
        sa.Column("room_id", sa.Text(), nullable=False),
        sa.Column("user_id", sa.Text(), nullable=False),
        sa.Column("event_id", sa.Text(), nullable=False),
        sa.Column("pdu", sa.Text(), nullable=False),
        sa.Column("servers", sa.JSON(), nullable=False),
        sa.Column("since_ts", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("room_id", "user_id", name=op.f("pk_joining")),
    )
    op.create_table(
        "partial_rooms",
        sa.Column("room_id", sa.Text(), nullable=False),
        sa.Column("event_id", sa.Text(), nullable=False),
        sa.Column("servers_in_room", sa.JSON(), nullable=False),
        sa.Column("servers", sa.JSON(), nullable=False),
        sa.Column("full_position", sa.Integer(), nullable=True),
        sa.PrimaryKeyConstraint("room_id", name=op.f("pk_partial_rooms")),
    )
    op.create_index(op.f("ix_partial_rooms_full_position"), "partial_rooms", ["full_position"])
    op.create_table(
        "stripped_state",
        sa.Column("room_id", sa.Text(), nullable=False),
        sa.Column("user_id", sa.Text(), nullable=False),
        sa.Column("events", sa.JSON(), nullable=False),
        sa.Column("servers", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("room_id", "user_id", name=op.f("pk_stripped_state")),
    )
    create_event_graph()


def create_remote_users() -> None:
    """Create the tables of users of other servers and their devices."""
    op.create_table(
        "remote_users",
        sa.Column("user_id", sa.Text(), nullable=False),
        sa.Column("devices_stream_id", sa.Integer(), nullable=True),
        sa.Column("is_stale", sa.Boolean(), nullable=False),
        sa.Column("master_key", sa.Text(), nullable=True),
        sa.Column("self_signing_key", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("user_id", name=op.f("pk_remote_users")),
    )
    op.create_table(
        "remote_devices",
        sa.Column("user_id", sa.Text(), nullable=False),
        sa.Column("device_id", sa.Text(), nullable=False),
        sa.Column("keys", sa.Text(), nullable=False),
        sa.Column("display_name", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("user_id", "device_id", name=op.f("pk_remote_devices")),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "received_messages",
        sa.Column("origin", sa.Text(), nullable=False),
        sa.Column("message_id", sa.Text(), nullable=False),
        sa.Column("ts", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("origin", "message_id", name=op.f("pk_received_messages")),
        sqlite_with_rowid=False,
    )
    op.create_index(op.f("ix_received_messages_ts"), "received_messages", ["ts"])
    op.add_column("device_list_changes", sa.Column("stream_id", sa.Integer(), nullable=True))
    op.execute(sa.text("UPDATE device_list_changes SET stream_id = position"))


def create_gaps() -> None:
    op.create_table(
        "gaps",
        sa.Column("room_number", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("event_id", sa.Text(), nullable=False),
        sa.Column("position", sa.Integer(), nullable=True),
        sa.Column("tries", sa.Integer(), nullable=False),
        sa.Column("next_try_ts", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("room_number", "event_id", name=op.f("pk_gaps")),
        sqlite_with_rowid=False,
    )
    op.create_index(op.f("ix_gaps_room_number_position"), "gaps", ["room_number", "position"])


def create_event_graph() -> None:
    op.create_table(
        "event_auth",
        sa.Column("room_number", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("number", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("cites", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("room_number", "number", name=op.f("pk_event_auth")),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "state_differences",
        sa.Column("number", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("room_number", sa.Integer(), nullable=False),
        sa.Column("parent", sa.Integer(), nullable=True),
        sa.Column("depth", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("number", name=op.f("pk_state_differences")),
    )
    op.create_index(op.f("ix_state_differences_room_number"), "state_differences", ["room_number"])
    op.create_table(
        "differing_entries",
        sa.Column("difference", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("type", sa.Text(), nullable=False),
        sa.Column("state_key", sa.Text(), nullable=False),
        sa.Column("event_number", sa.Integer(), nullable=True),
        sa.PrimaryKeyConstraint(
            "difference", "type", "state_key", name=op.f("pk_differing_entries")
        ),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "remote_media",
        sa.Column("server", sa.Text(), nullable=False),
        sa.Column("media_id", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("size_bytes", sa.Integer(), nullable=False),
        sa.Column("content_type", sa.Text(), nullable=False),
        sa.Column("file_name", sa.Text(), nullable=True),
        sa.Column("last_used_ts", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("server", "media_id", name=op.f("pk_remote_media")),
    )
    op.create_index(
        "ix_remote_media_last_used_ts_size_bytes", "remote_media", ["last_used_ts", "size_bytes"]
    )
    op.create_table(
        "pending_redactions",
        sa.Column("target_id", sa.Text(), nullable=False),
        sa.Column("redaction", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("room_id", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("target_id", "redaction", name=op.f("pk_pending_redactions")),
        sqlite_with_rowid=False,
    )
    op.create_index("ix_pending_redactions_room_id", "pending_redactions", ["room_id"])
    fill_event_auth()


def fill_event_auth() -> None:
    """Store what each state event cites, by position, which becomes its number."""
    connection = op.get_bind()
    state_events = sa.text(
        "SELECT position, event_id, pdu FROM events"
        " WHERE room_id = :room_id AND state_key IS NOT NULL ORDER BY position"
    )
    new = sa.text("INSERT INTO event_auth VALUES (:room_number, :number, :cites)")
    for room_number, room_id in connection.execute(
        sa.text("SELECT number, room_id FROM rooms")
    ).all():
        numbers, rows = {}, []
        for position, event_id, pdu in connection.execute(state_events, {"room_id": room_id}):
            numbers[event_id] = position
            auth_events = orjson.loads(pdu).get("auth_events", ())
            ids = [it if isinstance(it, str) else it[0] for it in auth_events]
            cited = [numbers[it] for it in ids if it in numbers]
            cites = struct.pack(f"<{len(cited)}q", *cited)
            rows.append({"room_number": room_number, "number": position, "cites": cites})
        if rows:
            connection.execute(new, rows)


def downgrade() -> None:
    op.drop_column("device_list_changes", "stream_id")
    op.drop_table("received_messages")
    op.drop_table("remote_devices")
    op.drop_table("remote_users")
    op.drop_table("remote_media")
    op.drop_table("pending_redactions")
    op.drop_table("differing_entries")
    op.drop_table("state_differences")
    op.drop_table("event_auth")
    op.drop_table("gaps")
    op.drop_table("stripped_state")
    op.drop_table("partial_rooms")
    op.drop_table("joining")
    op.drop_table("inbound_pdus")
    op.drop_index("ix_rooms_state_reset", "rooms")
    op.drop_column("rooms", "state_reset_position")
    op.drop_table("destinations")
    op.drop_table("federation_log")
    op.drop_table("server_keys")
