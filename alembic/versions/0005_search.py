"""Full-text search, and an index for listing a room's threads.

The index of words is a virtual table of SQLite's FTS5, which keeps its data in tables of its own.
It is empty at first: core/events/search_index.py fills it from the existing events.
"""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "search_progress",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("position", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_search_progress")),
    )
    op.execute(
        "CREATE VIRTUAL TABLE search_index"
        " USING fts5(body, name, topic, tokenize = 'unicode61 remove_diacritics 2')"
    )
    op.create_index(
        "ix_events_threads",
        "events",
        ["room_id", "position"],
        sqlite_where=sa.text("rel_type = 'm.thread'"),
        postgresql_where=sa.text("rel_type = 'm.thread'"),
    )


def downgrade() -> None:
    op.drop_index("ix_events_threads", table_name="events")
    op.execute("DROP TABLE search_index")
    op.drop_table("search_progress")
