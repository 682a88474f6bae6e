"""Reactions by a digest of their key, because a user may send thousands of them to one event.

A reaction was compared with the content of all others by its sender to the event while other
writers waited.
"""

import hashlib

import orjson
import sqlalchemy as sa
from alembic import op

revision = "0021"
down_revision = "0020"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("events", sa.Column("annotation_key", sa.LargeBinary(), nullable=True))
    connection = op.get_bind()
    reactions = sa.text("SELECT position FROM events WHERE rel_type = 'm.annotation'")
    content = sa.text("SELECT pdu FROM events WHERE position = :position")
    change = sa.text("UPDATE events SET annotation_key = :digest WHERE position = :position")
    for position in connection.execute(reactions).scalars().all():
        pdu = connection.execute(content, {"position": position}).scalar_one()
        relation = orjson.loads(pdu)["content"]["m.relates_to"]
        key = orjson.dumps(relation.get("key"), option=orjson.OPT_SORT_KEYS)
        digest = hashlib.sha256(key).digest()[:16]
        connection.execute(change, {"position": position, "digest": digest})
    op.create_index(
        "ix_events_annotations",
        "events",
        ["relates_to", "sender", "type", "annotation_key"],
        sqlite_where=sa.text("annotation_key IS NOT NULL"),
    )


def downgrade() -> None:
    op.drop_index("ix_events_annotations", "events")
    op.drop_column("events", "annotation_key")
