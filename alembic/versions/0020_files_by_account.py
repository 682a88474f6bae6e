"""Files by the account for whose quota they count, so that a sum reads only an index."""

from alembic import op

revision = "0020"
down_revision = "0019"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_index(op.f("ix_media_user_id_size_bytes"), "media", ["user_id", "size_bytes"])


def downgrade() -> None:
    op.drop_index(op.f("ix_media_user_id_size_bytes"), "media")
