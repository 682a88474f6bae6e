"""Rooms are referenced by number in state intervals.

The room's ID was repeated in each interval and in both of its indexes, which was nearly half of
the size of a state change. Intervals of rooms that no longer exist are not copied; there should not
be any, as a purge removes them together with the room.
"""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None

INTEGER = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.rename_table("rooms", "old_rooms")
    op.create_table(
        "rooms",
        sa.Column("number", INTEGER, nullable=False),
        sa.Column("room_id", sa.Text(), nullable=False),
        *_rest_of_room(),
        sa.PrimaryKeyConstraint("number", name=op.f("pk_rooms")),
        sa.UniqueConstraint("room_id", name=op.f("uq_rooms_room_id")),
    )
    op.execute(
        "INSERT INTO rooms"
        " (room_id, version, forward_extremities, depth, last_position, is_published)"
        " SELECT room_id, version, forward_extremities, depth, last_position, is_published"
        " FROM old_rooms ORDER BY rowid"
    )
    op.drop_table("old_rooms")
    _make_intervals(sa.Column("room_number", INTEGER, nullable=False))
    # CROSS JOIN: room by room, in the order of the new key, so that rows are appended to the tree
    op.execute(
        "INSERT INTO state_intervals (room_number, type, state_key,"
        " from_position, to_position, event_position, membership)"
        " SELECT number, type, state_key, from_position, to_position, event_position, membership"
        " FROM rooms CROSS JOIN old_intervals ON old_intervals.room_id = rooms.room_id"
        " ORDER BY number, type, state_key, from_position"
    )
    _finish_intervals("room_number")


def downgrade() -> None:
    _make_intervals(sa.Column("room_id", sa.Text(), nullable=False))
    op.execute(
        "INSERT INTO state_intervals (room_id, type, state_key,"
        " from_position, to_position, event_position, membership)"
        " SELECT rooms.room_id, type, state_key, from_position, to_position, event_position,"
        " membership FROM rooms"
        " CROSS JOIN old_intervals ON old_intervals.room_number = rooms.number"
        " ORDER BY rooms.room_id, type, state_key, from_position"
    )
    _finish_intervals("room_id")
    op.rename_table("rooms", "old_rooms")
    op.create_table(
        "rooms",
        sa.Column("room_id", sa.Text(), nullable=False),
        *_rest_of_room(),
        sa.PrimaryKeyConstraint("room_id", name=op.f("pk_rooms")),
    )
    op.execute(
        "INSERT INTO rooms"
        " (room_id, version, forward_extremities, depth, last_position, is_published)"
        " SELECT room_id, version, forward_extremities, depth, last_position, is_published"
        " FROM old_rooms ORDER BY number"
    )
    op.drop_table("old_rooms")


def _rest_of_room() -> list[sa.Column]:
    return [
        sa.Column("version", sa.Text(), nullable=False),
        sa.Column("forward_extremities", sa.JSON(), nullable=False),
        sa.Column("depth", INTEGER, nullable=False),
        sa.Column("last_position", INTEGER, nullable=False),
        sa.Column("is_published", sa.Boolean(), nullable=False),
    ]


def _make_intervals(room: sa.Column) -> None:
    """Create the table again, with this column for the room, without rows and indexes."""
    op.rename_table("state_intervals", "old_intervals")
    op.create_table(
        "state_intervals",
        room,
        sa.Column("type", sa.Text(), nullable=False),
        sa.Column("state_key", sa.Text(), nullable=False),
        sa.Column("from_position", INTEGER, nullable=False),
        sa.Column("to_position", INTEGER, nullable=False),
        sa.Column("event_position", INTEGER, nullable=False),
        sa.Column("membership", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint(
            room.name, "type", "state_key", "from_position", name=op.f("pk_state_intervals")
        ),
        sqlite_with_rowid=False,
    )


def _finish_intervals(room: str) -> None:
    op.drop_table("old_intervals")
    op.create_index(
        "ix_state_intervals_member",
        "state_intervals",
        ["state_key", "to_position", "from_position"],
        sqlite_where=sa.text("membership IS NOT NULL"),
        postgresql_where=sa.text("membership IS NOT NULL"),
    )
    op.create_index(
        "ix_state_intervals_current",
        "state_intervals",
        [room, "to_position", "membership", "event_position"],
    )
