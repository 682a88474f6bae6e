"""Cross-signing keys and signatures, key backups, dehydrated devices."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "backed_up_keys",
        sa.Column("user_id", sa.Text(), nullable=False),
        sa.Column(
            "version",
            sa.BigInteger().with_variant(sa.Integer(), "sqlite"),
            autoincrement=False,
            nullable=False,
        ),
        sa.Column("room_id", sa.Text(), nullable=False),
        sa.Column("session_id", sa.Text(), nullable=False),
        sa.Column(
            "first_message_index",
            sa.BigInteger().with_variant(sa.Integer(), "sqlite"),
            nullable=False,
        ),
        sa.Column(
            "forwarded_count", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False
        ),
        sa.Column("is_verified", sa.Boolean(), nullable=False),
        sa.Column("session_data", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint(
            "user_id", "version", "room_id", "session_id", name=op.f("pk_backed_up_keys")
        ),
    )
    op.create_table(
        "cross_signing_keys",
        sa.Column("user_id", sa.Text(), nullable=False),
        sa.Column("usage", sa.Text(), nullable=False),
        sa.Column("public_key", sa.Text(), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("user_id", "usage", name=op.f("pk_cross_signing_keys")),
    )
    op.create_table(
        "dehydrated_devices",
        sa.Column("user_id", sa.Text(), nullable=False),
        sa.Column("device_id", sa.Text(), nullable=False),
        sa.Column("device_data", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("user_id", name=op.f("pk_dehydrated_devices")),
    )
    op.create_table(
        "key_backups",
        sa.Column("user_id", sa.Text(), nullable=False),
        sa.Column(
            "version",
            sa.BigInteger().with_variant(sa.Integer(), "sqlite"),
            autoincrement=False,
            nullable=False,
        ),
        sa.Column("algorithm", sa.Text(), nullable=False),
        sa.Column("auth_data", sa.Text(), nullable=False),
        sa.Column("etag", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column(
            "key_count", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False
        ),
        sa.Column("is_deleted", sa.Boolean(), nullable=False),
        sa.PrimaryKeyConstraint("user_id", "version", name=op.f("pk_key_backups")),
    )
    op.create_table(
        "key_signatures",
        sa.Column("signed_user_id", sa.Text(), nullable=False),
        sa.Column("signer_user_id", sa.Text(), nullable=False),
        sa.Column("signed_key", sa.Text(), nullable=False),
        sa.Column("signer_key_id", sa.Text(), nullable=False),
        sa.Column("signature", sa.Text(), nullable=False),
        sa.Column("position", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.PrimaryKeyConstraint(
            "signed_user_id",
            "signer_user_id",
            "signed_key",
            "signer_key_id",
            name=op.f("pk_key_signatures"),
        ),
    )
    with op.batch_alter_table("key_signatures", schema=None) as batch_op:
        batch_op.create_index(
            batch_op.f("ix_key_signatures_signer_user_id_position"),
            ["signer_user_id", "position"],
            unique=False,
        )


def downgrade() -> None:
    with op.batch_alter_table("key_signatures", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_key_signatures_signer_user_id_position"))
    op.drop_table("key_signatures")
    op.drop_table("key_backups")
    op.drop_table("dehydrated_devices")
    op.drop_table("cross_signing_keys")
    op.drop_table("backed_up_keys")
