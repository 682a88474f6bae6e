"""Relations by type and sender, because a user may send thousands of them to one event.

A reaction is refused if its sender has already sent the same; without this index, that check reads
all reactions to the event while other writers wait.
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
