"""Relations by type and sender, as anybody may send thousands of others to the same event.

A reaction is refused where its sender has made the same already; without this index that means to
go through all reactions to the event while nobody else can write.
"""

import sqlalchemy as sa
from alembic import op

revision = "0019"
down_revision = "0018"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_index(
        "ix_events_relations",
        "events",
        ["relates_to", "rel_type", "sender"],
        sqlite_where=sa.text("relates_to IS NOT NULL"),
    )


def downgrade() -> None:
    op.drop_index("ix_events_relations", "events")
