"""Application services: the users they have registered, and rooms in network directories."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "appservice_users",
        sa.Column("user_id", sa.Text(), nullable=False),
        sa.Column("service_id", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("user_id", name=op.f("pk_appservice_users")),
    )
    op.create_table(
        "network_rooms",
        sa.Column("service_id", sa.Text(), nullable=False),
        sa.Column("network_id", sa.Text(), nullable=False),
        sa.Column("room_id", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint(
            "service_id", "network_id", "room_id", name=op.f("pk_network_rooms")
        ),
    )


def downgrade() -> None:
    op.drop_table("network_rooms")
    op.drop_table("appservice_users")
