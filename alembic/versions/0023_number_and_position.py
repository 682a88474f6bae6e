"""An event's number says which event it is, its position where it stands.

Events of other servers may stand in no timeline, or between older ones. Until now the position was
both; in old rows the two are the same. The table is copied once, in its order and in parts, with
their progress on standard output: adding columns to its rows would leave half-empty pages behind.
"""

import time

import sqlalchemy as sa
from alembic import op

revision = "0023"
down_revision = "0022"
branch_labels = None
depends_on = None

INTEGER = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
KEPT = (
    "type, state_key, sender, origin_server_ts, pdu, replaces, redacted_by, relates_to, rel_type,"
    " thread_id, edit_of, annotation_key, device_id, txn_id"
)
ROWS_AT_ONCE = 20_000
LEAST_PER_SECOND, MOST_PER_SECOND = 10_000, 60_000
"""Rows that are copied and indexed; measured on slow and fast disks, for what is said before."""
POSITION = "(SELECT it.position FROM old_events AS it WHERE it.number = {})"
INDEXES = {
    "ix_events_room_id_position": (["room_id", "position"], None),
    "ix_events_times": (["room_id", "origin_server_ts", "position"], "position IS NOT NULL"),
    "ix_events_threads": (["room_id", "position"], "rel_type = 'm.thread'"),
    "ix_events_relates_to_position": (["relates_to", "position"], "relates_to IS NOT NULL"),
    "ix_events_relations": (["relates_to", "rel_type", "sender"], "relates_to IS NOT NULL"),
    "ix_events_annotations": (
        ["relates_to", "sender", "type", "annotation_key"],
        "annotation_key IS NOT NULL",
    ),
    "ix_events_replies": (
        ["thread_id", "rel_type", "sender", "position"],
        "rel_type = 'm.thread'",
    ),
    "ix_events_references": (["relates_to", "room_id", "position"], "rel_type = 'm.reference'"),
    "ix_events_edits": (
        ["edit_of", "origin_server_ts", "event_id", "position"],
        "edit_of IS NOT NULL",
    ),
    "ix_events_replaces": (["replaces"], "replaces IS NOT NULL"),
    "ix_events_transaction": (["sender", "device_id", "txn_id"], "txn_id IS NOT NULL"),
}
OLD_INDEXES = {
    **INDEXES,
    "ix_events_replies": (["thread_id", "rel_type", "sender"], "rel_type = 'm.thread'"),
    "ix_events_references": (["relates_to", "room_id"], "rel_type = 'm.reference'"),
    "ix_events_edits": (["edit_of", "origin_server_ts", "event_id"], "edit_of IS NOT NULL"),
    "ix_events_relates_to": (["relates_to"], "relates_to IS NOT NULL"),
    "ix_events_room_id_origin_server_ts": (["room_id", "origin_server_ts"], None),
}
for name in ("ix_events_relates_to_position", "ix_events_times", "ix_events_replaces"):
    del OLD_INDEXES[name]


def upgrade() -> None:
    _rename_and_create(
        sa.Column("number", INTEGER, nullable=False),
        sa.Column("event_id", sa.Text(), nullable=False),
        sa.Column("room_id", sa.Text(), nullable=False),
        sa.Column("position", INTEGER, nullable=True),
        sa.Column("standing", sa.Text(), nullable=False),
        sa.Column("state_at", INTEGER, nullable=True),
        sa.Column("state_diff", INTEGER, nullable=True),
    )
    _copy(
        f"INSERT INTO events (number, event_id, room_id, position, standing, {KEPT})"  # noqa: S608 - names of our own
        f" SELECT position, event_id, room_id, position, 'accepted', {KEPT} FROM old_events",
        "position",
    )
    op.execute("DROP TABLE old_events")
    _make_indexes(INDEXES)
    op.drop_index("ix_state_intervals_current", "state_intervals")
    op.execute("ALTER TABLE state_intervals RENAME COLUMN event_position TO event_number")
    op.create_index(
        "ix_state_intervals_current",
        "state_intervals",
        ["room_number", "to_position", "membership", "from_position", "event_number"],
    )
    op.create_index(
        "ix_events_state_diff",
        "events",
        ["state_diff"],
        sqlite_where=sa.text("state_diff IS NOT NULL"),
    )
    op.create_index("ix_state_intervals_begun", "state_intervals", ["room_number", "from_position"])
    op.execute("ALTER TABLE search_progress RENAME COLUMN position TO number")
    op.add_column("clock", sa.Column("event_number", INTEGER, nullable=False, server_default="0"))
    op.execute("UPDATE clock SET event_number = position")
    op.execute(
        "UPDATE outbox SET payload = json_object('number', payload ->> '$.position')"
        " WHERE kind = 'appservice' AND payload ->> '$.position' IS NOT NULL"
    )


def downgrade() -> None:
    """Make the position the number again; events without position are lost."""
    _rename_and_create(
        sa.Column("position", INTEGER, nullable=False),
        sa.Column("event_id", sa.Text(), nullable=False),
        sa.Column("room_id", sa.Text(), nullable=False),
    )
    kept = KEPT
    for name in ("replaces", "redacted_by", "edit_of"):
        kept = kept.replace(name, POSITION.format(f"old_events.{name}"))
    _copy(
        f"INSERT INTO events (position, event_id, room_id, {KEPT})"  # noqa: S608 - names of our own
        f" SELECT position, event_id, room_id, {kept} FROM old_events",
        "number",
        "position IS NOT NULL",
    )
    op.drop_index("ix_state_intervals_begun", "state_intervals")
    op.drop_index("ix_state_intervals_current", "state_intervals")
    position = POSITION.format("state_intervals.event_number")
    op.execute(
        "UPDATE state_intervals SET event_number ="  # noqa: S608 - names of our own
        f" coalesce({position}, from_position)"
    )
    op.execute("ALTER TABLE state_intervals RENAME COLUMN event_number TO event_position")
    op.create_index(
        "ix_state_intervals_current",
        "state_intervals",
        ["room_number", "to_position", "membership", "event_position"],
    )
    position = POSITION.format("outbox.payload ->> '$.number'")
    op.execute(
        f"UPDATE outbox SET payload = json_object('position', {position})"  # noqa: S608 - names of our own
        " WHERE kind = 'appservice' AND payload ->> '$.number' IS NOT NULL"
    )
    op.execute("DROP TABLE old_events")
    _make_indexes(OLD_INDEXES)
    op.drop_column("clock", "event_number")
    op.execute("DELETE FROM search_index")  # the next search fills it
    op.execute("DELETE FROM search_progress")
    op.execute("ALTER TABLE search_progress RENAME COLUMN number TO position")


def _rename_and_create(*columns: sa.Column) -> None:
    op.rename_table("events", "old_events")
    op.create_table(
        "events",
        *columns,
        sa.Column("type", sa.Text(), nullable=False),
        sa.Column("state_key", sa.Text(), nullable=True),
        sa.Column("sender", sa.Text(), nullable=False),
        sa.Column("origin_server_ts", INTEGER, nullable=False),
        sa.Column("pdu", sa.Text(), nullable=False),
        *(sa.Column(name, INTEGER, nullable=True) for name in ("replaces", "redacted_by")),
        *(sa.Column(name, sa.Text(), nullable=True) for name in ("relates_to", "rel_type")),
        sa.Column("thread_id", sa.Text(), nullable=True),
        sa.Column("edit_of", INTEGER, nullable=True),
        sa.Column("annotation_key", sa.LargeBinary(), nullable=True),
        *(sa.Column(name, sa.Text(), nullable=True) for name in ("device_id", "txn_id")),
        sa.PrimaryKeyConstraint(columns[0].name, name=op.f("pk_events")),
        sa.UniqueConstraint("event_id", name=op.f("uq_events_event_id")),
    )


def _copy(statement: str, key: str, condition: str = "true") -> None:
    """Run a statement for parts of the old table, in the order of its key, and show progress."""
    connection = op.get_bind()
    rows, pages, page_bytes = connection.exec_driver_sql(
        "SELECT (SELECT count(*) FROM old_events), page_count, page_size"
        " FROM pragma_page_count, pragma_page_size"
    ).one()
    if rows > ROWS_AT_ONCE:
        _say(
            f"Copying {rows:,} events of a database of {pages * page_bytes / 1e6:,.0f} MB, which"
            " needs as much free space. This takes"
            f" {rows / MOST_PER_SECOND:.0f} to {rows / LEAST_PER_SECOND:.0f} seconds."
        )
    began, done, after = time.monotonic(), 0, -1
    while done < rows:
        last = connection.exec_driver_sql(
            f"SELECT max({key}) FROM"  # noqa: S608 - names of our own
            f" (SELECT {key} FROM old_events WHERE {key} > ? ORDER BY {key} LIMIT {ROWS_AT_ONCE})",
            (after,),
        ).scalar_one()
        part = f"{statement} WHERE {key} > ? AND {key} <= ? AND {condition} ORDER BY {key}"
        connection.exec_driver_sql(part, (after, last))
        after, done = last, min(done + ROWS_AT_ONCE, rows)
        if rows > ROWS_AT_ONCE:
            _say(f"{done:,} of {rows:,} events in {time.monotonic() - began:.0f} seconds")


def _make_indexes(indexes: dict[str, tuple[list[str], str | None]]) -> None:
    for name, (columns, condition) in indexes.items():
        where = None if condition is None else sa.text(condition)
        is_unique = name == "ix_events_room_id_position" and indexes is INDEXES
        op.create_index(name, "events", columns, unique=is_unique, sqlite_where=where)


def _say(line: str) -> None:
    print(line, flush=True)  # noqa: T201 - homebody shows it while it waits
