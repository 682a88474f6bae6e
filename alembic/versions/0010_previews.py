"""URL previews.

The preview of a page is kept for an hour, so that a link in a busy room is fetched once.
"""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "url_previews",
        sa.Column("url", sa.Text(), nullable=False),
        sa.Column(
            "fetched_ts", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False
        ),
        sa.Column("preview", sa.JSON(), nullable=False),
        sa.Column("problem", sa.Text(), nullable=True),
        sa.Column("image_sha256", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("url", name=op.f("pk_url_previews")),
    )
    op.create_index("ix_url_previews_fetched_ts", "url_previews", ["fetched_ts"])


def downgrade() -> None:
    op.drop_table("url_previews")
