"""Login tokens and third-party identifiers.

A user who is logged in can log in another device with a login token (`login_tokens`). Users
validate their e-mail address (`validation_sessions`), which is then added to their account
(`threepids`). A user-interactive authentication session remembers the address that was validated
in it (`uia_sessions.threepid`).
"""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

INTEGER = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "login_tokens",
        sa.Column("token_hash", sa.LargeBinary(), nullable=False),
        sa.Column("user_id", sa.Text(), nullable=False),
        sa.Column("expires_ts", INTEGER, nullable=False),
        sa.PrimaryKeyConstraint("token_hash", name=op.f("pk_login_tokens")),
    )
    op.create_index("ix_login_tokens_user_id", "login_tokens", ["user_id"])

    op.create_table(
        "threepids",
        sa.Column("medium", sa.Text(), nullable=False),
        sa.Column("address", sa.Text(), nullable=False),
        sa.Column("user_id", sa.Text(), nullable=False),
        sa.Column("validated_ts", INTEGER, nullable=False),
        sa.Column("added_ts", INTEGER, nullable=False),
        sa.PrimaryKeyConstraint("medium", "address", name=op.f("pk_threepids")),
    )
    op.create_index("ix_threepids_user_id", "threepids", ["user_id"])

    op.create_table(
        "validation_sessions",
        sa.Column("sid", sa.Text(), nullable=False),
        sa.Column("purpose", sa.Text(), nullable=False),
        sa.Column("address", sa.Text(), nullable=False),
        sa.Column("client_secret_hash", sa.LargeBinary(), nullable=False),
        sa.Column("token_hash", sa.LargeBinary(), nullable=True),
        sa.Column("send_attempt", INTEGER, nullable=False),
        sa.Column("next_link", sa.Text(), nullable=True),
        sa.Column("created_ts", INTEGER, nullable=False),
        sa.Column("validated_ts", INTEGER, nullable=True),
        sa.PrimaryKeyConstraint("sid", name=op.f("pk_validation_sessions")),
    )
    op.create_index(
        "ix_validation_sessions_purpose_address_client_secret_hash",
        "validation_sessions",
        ["purpose", "address", "client_secret_hash"],
        unique=True,
    )
    op.create_index("ix_validation_sessions_created_ts", "validation_sessions", ["created_ts"])

    with op.batch_alter_table("uia_sessions", schema=None) as batch_op:
        batch_op.add_column(sa.Column("threepid", sa.JSON(), nullable=True))


def downgrade() -> None:
    with op.batch_alter_table("uia_sessions", schema=None) as batch_op:
        batch_op.drop_column("threepid")

    op.drop_table("validation_sessions")
    op.drop_table("threepids")
    op.drop_table("login_tokens")
