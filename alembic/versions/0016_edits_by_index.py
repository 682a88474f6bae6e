"""Separate indexes for edits, threads and references; redacted events have no relations.

`m.relations` was built from all events that relate to another one, so each read went through
thousands of reactions, or of replacements that are not valid. The event that a valid replacement
edits now has a column of its own.

Redacted events remained in threads, in unread counts and in notifications. What a redaction now
removes is removed here for earlier redactions.
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
        "DELETE FROM notifications"
        " WHERE event_position IN (SELECT position FROM events WHERE redacted_by IS NOT NULL)"
    )
    _move_to_main()
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


def _move_to_main() -> None:
    """Move events that relate to a redacted reply out of its thread, and so on recursively.

    No other events of the main timeline have notifications in a thread.
    """
    op.execute(
        "UPDATE events SET thread_id = NULL WHERE position IN ("
        " WITH RECURSIVE moved(event_id, position) AS ("
        "  SELECT child.event_id, child.position FROM events AS reply"
        "  JOIN events AS child ON child.relates_to = reply.event_id"
        "  WHERE reply.redacted_by IS NOT NULL AND reply.thread_id IS NOT NULL"
        "  AND child.rel_type <> 'm.thread' AND child.thread_id IS NOT NULL"
        "  UNION"
        "  SELECT child.event_id, child.position FROM moved"
        "  JOIN events AS child ON child.relates_to = moved.event_id"
        "  WHERE child.rel_type <> 'm.thread' AND child.thread_id IS NOT NULL)"
        " SELECT position FROM moved)"
    )
    moved = (
        " FROM notifications AS one JOIN events ON events.position = one.event_position"
        " WHERE one.thread_id <> 'main' AND events.thread_id IS NULL AND NOT one.is_read"
    )
    of_thread = (
        f"{moved} AND one.user_id = unread_counts.user_id"
        " AND one.room_id = unread_counts.room_id AND one.thread_id = unread_counts.thread_id"
    )
    op.execute(
        "UPDATE unread_counts SET"  # noqa: S608 - from the two constants above
        f" notification_count = notification_count - (SELECT count(*){of_thread}),"
        " highlight_count = max(0, highlight_count"
        f"  - (SELECT count(*){of_thread} AND one.is_highlight))"
        " WHERE thread_id <> 'main'"
    )
    op.execute("DELETE FROM unread_counts WHERE notification_count <= 0")
    op.execute(
        "INSERT INTO unread_counts"
        " SELECT one.user_id, one.room_id, 'main', count(*), sum(one.is_highlight)"
        f"{moved} GROUP BY one.user_id, one.room_id ON CONFLICT DO UPDATE SET"
        " notification_count = notification_count + excluded.notification_count,"
        " highlight_count = highlight_count + excluded.highlight_count"
    )
    op.execute(
        "UPDATE notifications SET thread_id = 'main' WHERE thread_id <> 'main'"
        " AND event_position IN (SELECT position FROM events WHERE thread_id IS NULL)"
    )


def downgrade() -> None:
    for index in ("ix_events_replies", "ix_events_references", "ix_events_edits"):
        op.drop_index(index, "events")
    op.drop_column("events", "edit_of")
