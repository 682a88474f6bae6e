"""Edits, threads and references each by an index of their own; redacted events relate to nothing.

What stood in `m.relations` was found among all events that relate to another, so thousands of
reactions, or of replacements that do not count, were gone through at each read. Which event a valid
replacement edits is now a column of it.

Redacted events kept their place in threads, and stayed unread. Notifications of them are marked as
read here; they go for good when their room is read.
"""

import sqlalchemy as sa
from alembic import op

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None

INTEGER = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.add_column("events", sa.Column("edit_of", INTEGER, nullable=True))
    op.execute(
        "UPDATE events SET edit_of = (SELECT target.position FROM events AS target"
        "  WHERE target.event_id = events.relates_to AND target.room_id = events.room_id"
        "  AND target.type = events.type AND target.sender = events.sender"
        "  AND target.state_key IS NULL AND target.redacted_by IS NULL"
        "  AND coalesce(target.rel_type, '') <> 'm.replace')"
        " WHERE rel_type = 'm.replace' AND state_key IS NULL AND redacted_by IS NULL"
        " AND (type = 'm.room.encrypted'"
        "  OR json_type(pdu, '$.content.\"m.new_content\"') = 'object')"
    )
    op.execute(
        "UPDATE unread_counts SET"
        " notification_count = notification_count - ("
        "  SELECT count(*) FROM notifications AS one"
        "  JOIN events ON events.position = one.event_position"
        "  WHERE one.user_id = unread_counts.user_id AND one.room_id = unread_counts.room_id"
        "  AND one.thread_id = unread_counts.thread_id AND NOT one.is_read"
        "  AND events.redacted_by IS NOT NULL),"
        " highlight_count = max(0, highlight_count - ("
        "  SELECT count(*) FROM notifications AS one"
        "  JOIN events ON events.position = one.event_position"
        "  WHERE one.user_id = unread_counts.user_id AND one.room_id = unread_counts.room_id"
        "  AND one.thread_id = unread_counts.thread_id AND NOT one.is_read"
        "  AND one.is_highlight AND events.redacted_by IS NOT NULL))"
    )
    op.execute("DELETE FROM unread_counts WHERE notification_count <= 0")
    op.execute(
        "UPDATE notifications SET is_read = true, is_highlight = false"
        " WHERE event_position IN (SELECT position FROM events WHERE redacted_by IS NOT NULL)"
    )
    op.execute(  # what relates to a redacted reply is in no thread any more, as that one
        "UPDATE events SET thread_id = NULL WHERE thread_id IS NOT NULL AND rel_type <> 'm.thread'"
        " AND relates_to IN (SELECT event_id FROM events"
        "  WHERE redacted_by IS NOT NULL AND thread_id IS NOT NULL)"
    )
    op.execute(
        "UPDATE events SET relates_to = NULL, rel_type = NULL, thread_id = NULL"
        " WHERE redacted_by IS NOT NULL AND relates_to IS NOT NULL"
    )
    op.create_index(
        "ix_events_edits",
        "events",
        ["edit_of", "origin_server_ts", "event_id"],
        sqlite_where=sa.text("edit_of IS NOT NULL"),
    )
    op.create_index(
        "ix_events_references",
        "events",
        ["relates_to", "room_id"],
        sqlite_where=sa.text("rel_type = 'm.reference'"),
    )
    op.create_index(
        "ix_events_replies",
        "events",
        ["thread_id", "rel_type", "sender"],
        sqlite_where=sa.text("rel_type = 'm.thread'"),
    )


def downgrade() -> None:
    for index in ("ix_events_replies", "ix_events_references", "ix_events_edits"):
        op.drop_index(index, "events")
    op.drop_column("events", "edit_of")
